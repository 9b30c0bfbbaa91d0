/* This file reads API keys, a line each: see keys.h. */
#include "app/keys.h"

#include <stdlib.h>
#include <string.h>

static cp_code add_key(cp_key_list *k, const char *line, cp_err *err)
{
    k->p = cp_xrealloc(k->p, (k->n + 1) * sizeof *k->p);
    return cp_api_key_parse(line, &k->p[k->n++], err);
}

/* Comments and empty lines are none. text[n] is cut at its line ends; it may hold what an editor or
 * a lost page of a file has left, and no key after that is to get lost in silence. */
static cp_code add_lines(cp_key_list *k, char *text, size_t n, const char *name, cp_err *err)
{
    cp_code rc = CP_OK;
    int number = 0;
    for (char *line = text, *next; line < text + n && rc == CP_OK; line = next) {
        number++;
        char *end = memchr(line, '\n', (size_t)(text + n - line));
        end = end ? end : text + n;
        next = end + 1;
        *end = '\0';
        if (strlen(line) != (size_t)(end - line)) {
            return cp_fail(err, CP_USAGE, "%s:%d: byte 0x00; a line is a key and its scopes", name,
                           number);
        }
        line[strcspn(line, "\r")] = '\0';
        line += strspn(line, " \t");
        if (*line && *line != '#' && (rc = add_key(k, line, err))) {
            cp_err_prefix(err, "%s:%d", name, number);
        }
    }
    return rc;
}

cp_code cp_app_keys(const cp_options *o, cp_opener *opener, cp_key_list *out, cp_err *err)
{
    cp_buf b = {0};
    cp_code rc = CP_OK;
    *out = (cp_key_list){0};
    for (int i = 0; i < o->api_key.n && rc == CP_OK; i++) {
        rc = add_key(out, o->api_key.p[i], err);
    }
    if (rc == CP_OK && o->api_key_file && *o->api_key_file) {
        rc = cp_opener_read(opener, CP_FILE_KEYS, o->api_key_file, &b, err);
        if (rc == CP_OK) {
            size_t n = b.n;
            rc = cp_buf_addc(&b, '\0') ? add_lines(out, b.p, n, o->api_key_file, err)
                                       : cp_fail(err, CP_NO_MEMORY, "%s", o->api_key_file);
        }
    }
    cp_buf_fini(&b);
    if (rc) {
        cp_app_keys_free(out);
    }
    return rc;
}

void cp_app_keys_free(cp_key_list *k)
{
    free(k->p);
    *k = (cp_key_list){0};
}
