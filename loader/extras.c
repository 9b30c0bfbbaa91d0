/*
 * Reading what a packaging brings beside weights. Of several templates the one named
 * chat_template.jinja counts, else the first; the others are noted like everything else that is
 * left out. What is read is verified like weights are, and bounded in size. Ollama's options stay
 * the JSON text that they are: who starts the model reads them.
 */
#include "loader/extras.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { NEIGHBOURS_MAX = 4096 }; /* entries of a folder that are looked at */

static void note(void *arg, const char *text)
{
    cp_extras *x = arg;
    if (x->n_notes < CP_NOTES_MAX)
        x->notes[x->n_notes++] = cp_xstrdup(text);
}

/* File i whole. */
static cp_code read_file(const cp_resolved *r, size_t i, uint64_t max, bool always, cp_buf *out,
                         cp_err *err)
{
    const char *digest = r->manifest->layer[r->files->v[i].layer].digest;
    uint8_t raw[32];
    uint64_t offset, size;
    int fd;
    cp_code code = cp_resolved_file(r, i, always, &fd, &offset, &size, raw, err);
    if (code)
        return code;
    if (size > max)
        code = cp_fail(err, CP_CORRUPT, "%s: %" PRIu64 " bytes, the limit is %" PRIu64, digest,
                       size, max);
    else if (!cp_buf_reserve(out, (size_t)size + 1))
        code = cp_fail(err, CP_NO_MEMORY, "%s: no memory", digest);
    ssize_t n = code ? 0 : cp_io_pread(fd, out->p, (size_t)size, offset);
    if (!code && n < 0)
        code = cp_fail(err, CP_IO, "%s: read: %s", digest, strerror(errno));
    else if (!code && (uint64_t)n < size)
        code = cp_fail(err, CP_CORRUPT, "%s: ends at %zd of %" PRIu64 " bytes", digest, n, size);
    if (!code) {
        out->n = (size_t)n;
        out->p[n] = '\0';
    }
    close(fd);
    return code;
}

static bool is_named(const cp_file *f, const char *name)
{
    return strcmp(cp_path_base(f->path), name) == 0;
}

/* The file of that role which counts: the first, or the first of that name. n: none. */
static size_t pick(const cp_files *f, cp_layer_role role, const char *name)
{
    size_t found = f->n;
    for (size_t i = 0; i < f->n; i++) {
        if (f->v[i].role != role)
            continue;
        if (name && is_named(&f->v[i], name))
            return i;
        if (found == f->n)
            found = i;
    }
    return found;
}

/* See extras.h. */
void cp_ignored_file(const cp_manifest *m, const cp_file *f, const char *why, cp_ignored_fn *tell,
                     void *arg)
{
    char line[512];
    const char *type = m->layer[f->layer].media_type;
    cp_snprintf(line, sizeof(line), "layer %zu (%.100s%s%.200s) ignored: %s", f->layer,
                type[0] ? type : "no media type", f->path[0] ? ", " : "", f->path, why);
    tell(arg, line);
}

static cp_code read_context(cp_extras *x, const cp_resolved *r, cp_err *err)
{
    const char *key = r->packaging->context_key;
    cp_code code = CP_OK;
    if (key)
        code = cp_json_positive(r->config.p ? r->config.p : "", r->config.n, "config", key,
                                &x->context_size, err);
    if (code)
        return cp_err_prefix(err, "config");
    if (x->params.n)
        code = cp_json_positive(x->params.p, x->params.n, NULL, "num_ctx", &x->context_size, err);
    return code ? cp_err_prefix(err, "params") : CP_OK;
}

/* See extras.h. */
void cp_ignored_neighbours(const char *path, cp_ignored_fn *tell, void *arg)
{
    char folder[CP_DIR_MAX], line[512];
    const char *base = cp_path_base(path), *why;
    if (!cp_strcopy(folder, sizeof(folder), path))
        return;
    folder[base - path] = '\0';
    DIR *d = opendir(folder[0] ? folder : ".");
    struct dirent *e;
    for (size_t i = 0; d && i < NEIGHBOURS_MAX && (e = readdir(d)); i++) {
        size_t n = strlen(e->d_name);
        if (n > 5 && strcasecmp(e->d_name + n - 5, ".gguf") == 0 && strcmp(e->d_name, base) != 0 &&
            cp_name_kind_of(e->d_name, &why) == CP_NAME_DATA) {
            cp_snprintf(line, sizeof(line), "%.255s beside it ignored: %s", e->d_name, why);
            cp_printable(line);
            tell(arg, line);
        }
    }
    if (d)
        closedir(d);
}

/* See extras.h. */
cp_code cp_extras_read(cp_extras *x, const cp_resolved *r, bool verify_always, cp_err *err)
{
    const cp_files *f = r->files;
    if (r->bare) {
        cp_ignored_neighbours(r->ref.path, note, x);
        return CP_OK;
    }
    size_t params = pick(f, CP_ROLE_PARAMS, NULL),
           template = pick(f, CP_ROLE_TEMPLATE, "chat_template.jinja");
    cp_code code = CP_OK;
    if (template <f->n)
        code = read_file(r, template, CP_TEMPLATE_MAX_BYTES, verify_always, &x->chat_template, err);
    if (!code && params < f->n)
        code = read_file(r, params, CP_PARAMS_MAX_BYTES, verify_always, &x->params, err);
    if (!code)
        code = read_context(x, r, err);
    if (r->why[0])
        note(x, r->why);
    if (f->why[0])
        note(x, f->why);
    char left_out[CP_LEFT_OUT_MAX];
    cp_files_left_out(f, left_out);
    if (left_out[0])
        note(x, left_out);
    for (size_t i = 0; i < f->n; i++) {
        const cp_file *e = &f->v[i];
        if (e->left_out)
            continue;
        if (e->role == CP_ROLE_IGNORED)
            cp_ignored_file(r->manifest, e, e->note ? e->note : "not known", note, x);
        else if (e->role != CP_ROLE_WEIGHTS && i != params && i != template)
            cp_ignored_file(r->manifest, e, "there is another of its kind", note, x);
    }
    return code;
}

/* See extras.h. */
void cp_extras_fini(cp_extras *x)
{
    cp_buf_fini(&x->chat_template);
    cp_buf_fini(&x->params);
    for (size_t i = 0; i < x->n_notes; i++)
        free(x->notes[i]);
    x->n_notes = 0;
}
