/* This file prints JSON on stdout: see emit_json.h. */
#include "app/emit_json.h"

#include <jansson.h>

void cp_emit_string(FILE *f, const char *s, size_t n)
{
    cp_buf b = {0};
    json_t *j = json_stringn(s, n);
    if (!j) { /* not UTF-8: keep ASCII, replace the rest */
        for (size_t i = 0; i < n; i++) {
            cp_buf_adds(&b, (unsigned char)s[i] < 128 ? (char[2]){s[i], 0} : "\xEF\xBF\xBD");
        }
        j = json_stringn(b.p ? b.p : "", b.n);
    }
    json_dumpf(j, f, JSON_ENCODE_ANY);
    json_decref(j);
    cp_buf_fini(&b);
}

static json_t *entry(const cp_store_entry *e)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < e->n_layers; i++) {
        const cp_store_layer *l = &e->layers[i];
        json_array_append_new(layers, json_pack("{s:s, s:I, s:s, s:s}", "digest", l->digest,
                                                "bytes", (json_int_t)l->bytes, "media_type",
                                                l->media_type, "filepath", l->filepath));
    }
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:o}", "name", e->name, "digest", e->digest,
                     "bytes", (json_int_t)e->bytes, "format", e->format, "arch", e->arch, "quant",
                     e->quant, "layers", layers);
}

void cp_emit_entries(FILE *f, const cp_store_entry *e, size_t n, bool array)
{
    json_t *j = array ? json_array() : entry(e);
    for (size_t i = 0; array && i < n; i++) {
        json_array_append_new(j, entry(&e[i]));
    }
    json_dumpf(j, f, JSON_INDENT(2));
    fputc('\n', f);
    json_decref(j);
}
