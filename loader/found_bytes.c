/*
 * What was found, as bytes that one process writes and another reads: see found.h. Numbers are
 * eight bytes, little endian; a text is its length and its bytes. A model of one file named by
 * path, "/m.gguf" of 100 bytes, begins with
 *
 *     01 00…  00 00…  00 00…      bare, shards, code of what is missing (its text follows)
 *     00 00…  00 00…              no cache folders
 *
 * The reader believes none of it: lengths are checked against what is left.
 */
#include "loader/found.h"

#include "base/io.h"

#include <stdlib.h>
#include <string.h>

static void put(cp_buf *b, uint64_t v)
{
    uint8_t le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)(v >> (8 * i));
    cp_buf_add(b, le, sizeof(le));
}

static void put_text(cp_buf *b, const char *s, size_t n)
{
    put(b, n);
    if (n)
        cp_buf_add(b, s, n);
}

/* See found.h. */
bool cp_found_write(const cp_found *f, cp_buf *out)
{
    const cp_extras *x = &f->extras;
    put(out, f->bare);
    put(out, f->shards);
    put(out, (uint64_t)f->missing.code);
    put_text(out, f->missing.msg, strlen(f->missing.msg));
    put_text(out, f->cache_dir, strlen(f->cache_dir));
    put_text(out, f->cache_dir_made, strlen(f->cache_dir_made));
    put(out, f->n_parts);
    for (size_t i = 0; i < f->n_parts; i++) {
        const cp_found_part *p = &f->parts[i];
        put(out, p->offset);
        put(out, p->size);
        put(out, p->layer);
        cp_buf_add(out, p->digest, sizeof(p->digest));
        put_text(out, p->what, strlen(p->what));
        put_text(out, p->name, strlen(p->name));
    }
    put_text(out, x->chat_template.p, x->chat_template.n);
    put_text(out, x->params.p, x->params.n);
    put(out, (uint64_t)x->context_size);
    put(out, x->n_notes);
    for (size_t i = 0; i < x->n_notes; i++)
        put_text(out, x->notes[i], strlen(x->notes[i]));
    return !out->failed;
}

/* Bytes that are being read; bad: they ended, or are no such bytes. */
typedef struct reading {
    cp_cursor c;
    bool bad;
} reading;

static uint64_t get(reading *r, uint64_t max)
{
    uint64_t v = 0;
    r->bad = r->bad || !cp_cur_u64(&r->c, &v) || v > max;
    return r->bad ? 0 : v;
}

static cp_str get_text(reading *r, size_t max)
{
    const uint8_t *p = NULL;
    size_t n = (size_t)get(r, max);
    r->bad = r->bad || !cp_cur_bytes(&r->c, n, &p);
    return r->bad ? (cp_str){"", 0} : (cp_str){(const char *)p, n};
}

/* Into out[cap], or as a copy. */
static void get_into(reading *r, char *out, size_t cap)
{
    cp_str s = get_text(r, cap - 1);
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
}

static char *get_copy(reading *r, size_t max)
{
    cp_str s = get_text(r, max);
    char *copy = cp_xmalloc(s.n + 1);
    memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return copy;
}

/* NUL-terminated, as whoever reads files into them makes them. */
static void get_buf(reading *r, cp_buf *out, size_t max)
{
    cp_str s = get_text(r, max);
    if (s.n)
        r->bad = r->bad || !cp_buf_add(out, s.p, s.n);
}

static void get_part(reading *r, cp_found_part *p)
{
    const uint8_t *digest = NULL;
    *p = (cp_found_part){.fd = -1};
    p->offset = get(r, INT64_MAX);
    p->size = get(r, INT64_MAX);
    p->layer = get(r, UINT32_MAX);
    r->bad = r->bad || !cp_cur_bytes(&r->c, sizeof(p->digest), &digest);
    if (!r->bad)
        memcpy(p->digest, digest, sizeof(p->digest));
    p->what = get_copy(r, CP_DIR_MAX);
    p->name = get_copy(r, CP_DIR_MAX);
}

static void get_extras(reading *r, cp_extras *x)
{
    get_buf(r, &x->chat_template, CP_TEMPLATE_MAX_BYTES);
    get_buf(r, &x->params, CP_PARAMS_MAX_BYTES);
    x->context_size = (int64_t)get(r, INT64_MAX);
    size_t n = (size_t)get(r, CP_NOTES_MAX);
    while (x->n_notes < n)
        x->notes[x->n_notes++] = get_copy(r, CP_DIR_MAX);
}

/* See found.h. */
cp_code cp_found_read(cp_found **out, const char *p, size_t n, const int *fds, size_t n_fds,
                      cp_err *err)
{
    reading r = {.c = {.p = (const uint8_t *)p, .n = n}};
    cp_found *f = cp_xcalloc(1, sizeof(*f));
    f->parts = cp_xcalloc(CP_PARTS_MAX, sizeof(*f->parts));
    f->bare = get(&r, 1);
    f->shards = get(&r, CP_PARTS_MAX);
    f->missing.code = (cp_code)get(&r, CP_CODE_COUNT - 1);
    get_into(&r, f->missing.msg, sizeof(f->missing.msg));
    get_into(&r, f->cache_dir, sizeof(f->cache_dir));
    get_into(&r, f->cache_dir_made, sizeof(f->cache_dir_made));
    size_t n_parts = (size_t)get(&r, CP_PARTS_MAX);
    while (f->n_parts < n_parts)
        get_part(&r, &f->parts[f->n_parts++]);
    get_extras(&r, &f->extras);
    if (r.bad || r.c.off != n || n_parts == 0 || n_parts != n_fds) {
        cp_found_free(f);
        return cp_fail(err, CP_INTERNAL,
                       "a model's %zu files came with %zu bytes and descriptors "
                       "that do not go together",
                       n_fds, n);
    }
    for (size_t i = 0; i < n_parts; i++)
        f->parts[i].fd = fds[i];
    *out = f;
    return CP_OK;
}
