/*
 * Whole sets of weight files; see whole.h. Shards are counted twice: by their names (shard.h), and
 * by the keys split.no and split.count of each, which gguf-split of llama.cpp writes. A set of
 * three that lacks its second file, for example, is
 *
 *     m-00001-of-00003.gguf  m-00003-of-00003.gguf      "2 of 3 shards ... m-00002-of-00003.gguf"
 */
#include "loader/oci/content/whole.h"
#include "base/map.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/oci/content/shard.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHARDS_MAX = 512, WHAT = 256 };

/* ---- by names ---- */

typedef struct shard {
    const char *path;
    size_t n_prefix;
    unsigned no, count;
} shard;

/* By set, then by number. */
static int by_set(const void *a, const void *b)
{
    const shard *x = a, *y = b;
    size_t n = x->n_prefix < y->n_prefix ? x->n_prefix : y->n_prefix;
    int c = memcmp(x->path, y->path, n);
    if (c == 0)
        c = (x->n_prefix > y->n_prefix) - (x->n_prefix < y->n_prefix);
    if (c == 0)
        c = (x->count > y->count) - (x->count < y->count);
    return c ? c : (x->no > y->no) - (x->no < y->no);
}

/* Of the set s[n] the first number that is missing; *have: how many differ. 0: none. */
static unsigned missing(const shard *s, size_t n, unsigned *have)
{
    unsigned next = 1, gap = 0;
    *have = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && s[i].no == s[i - 1].no)
            continue; /* the same layer again */
        ++*have;
        if (!gap && s[i].no != next)
            gap = next;
        next = s[i].no + 1;
    }
    return gap ? gap : next <= s[0].count ? next : 0;
}

static cp_code check_sets(shard *s, size_t n, cp_err *err)
{
    qsort(s, n, sizeof(*s), by_set);
    for (size_t i = 0, k; i < n; i = k) {
        unsigned have;
        for (k = i; k < n && s[k].n_prefix == s[i].n_prefix && s[k].count == s[i].count &&
                    memcmp(s[k].path, s[i].path, s[i].n_prefix) == 0;
             k++)
            if (s[k].no == 0 || s[k].no > s[k].count)
                return cp_fail(err, CP_CORRUPT, "'%.200s' is no shard of %u", s[k].path,
                               s[k].count);
        unsigned gap = missing(s + i, k - i, &have);
        if (gap)
            return cp_fail(err, CP_CORRUPT,
                           "%u of %u shards are in the artifact: '%.*s-%05u-of-%05u.gguf' is "
                           "missing",
                           have, s[i].count, s[i].n_prefix < 200 ? (int)s[i].n_prefix : 200,
                           s[i].path, gap, s[i].count);
    }
    return CP_OK;
}

/* How messages call a file. */
static void name_of(const char *path, size_t layer, char out[WHAT])
{
    if (path[0])
        cp_snprintf(out, WHAT, "'%.200s'", path);
    else
        cp_snprintf(out, WHAT, "layer %zu", layer);
}

static cp_code no_bytes(const char *path, size_t layer, cp_err *err)
{
    char what[WHAT];
    name_of(path, layer, what);
    return cp_fail(err, CP_CORRUPT, "%s has 0 bytes, so it is no model: pack it again", what);
}

/* See whole.h. */
cp_code cp_whole_layers(const cp_plan *plan, const cp_manifest *m, cp_err *err)
{
    shard *s = cp_xcalloc(plan->n ? plan->n : 1, sizeof(*s));
    size_t n = 0;
    cp_code code = CP_OK;
    for (size_t i = 0; !code && i < plan->n; i++) {
        const cp_plan_layer *p = &plan->layer[i];
        const cp_descriptor *d = &m->layer[p->layer];
        const char *note;
        if (p->role != CP_ROLE_WEIGHTS)
            continue;
        /* What neither type nor name calls weights may be any file, an empty one too. */
        bool maybe = p->form == CP_FORM_ANY && cp_name_kind_of(d->filepath, &note) != CP_NAME_GGUF;
        if (d->size == 0 && !maybe)
            code = no_bytes(d->filepath, p->layer, err);
        s[n].path = d->filepath;
        n += cp_shard_name(d->filepath, &s[n].n_prefix, &s[n].no, &s[n].count);
    }
    if (!code)
        code = check_sets(s, n, err);
    free(s);
    return code;
}

/* ---- by contents ---- */

/* What is in place of a GGUF file, for a message. */
static cp_code no_gguf(const uint8_t *p, size_t n, const char *what, cp_err *err)
{
    const char *kind = cp_foreign_kind(p, n);
    return kind ? cp_fail(err, CP_CORRUPT,
                          "%s is %s, and its type says that it is the model itself: pack it again",
                          what, kind)
                : cp_fail(err, CP_CORRUPT, "%s is no GGUF file", what);
}

/* The split.no and split.count of file f; *count 0: it says nothing, or cannot be parsed. */
static cp_code read_split(const cp_layout *l, const cp_manifest *m, const cp_places *places,
                          const cp_file *f, uint64_t *no, uint64_t *count, cp_err *err)
{
    char what[WHAT];
    cp_map map;
    cp_weights *w = NULL;
    uint64_t offset;
    int fd;
    *no = *count = 0;
    name_of(f->path, f->layer, what);
    if (f->size > SIZE_MAX)
        return cp_fail(err, CP_CORRUPT, "%s has %" PRIu64 " bytes", what, f->size);
    cp_code code = cp_file_open(l, m, places, f, &fd, &offset, err);
    if (code)
        return code;
    code = cp_map_open_at(&map, fd, offset, (size_t)f->size, what, err);
    close(fd);
    if (code)
        return code;
    const cp_format *format = cp_format_of(map.p, map.n);
    if (!format)
        code = no_gguf(map.p, map.n, what, err);
    else if (format->parse(&w, map.p, map.n, NULL) == CP_OK &&
             cp_meta_u64(w->meta, "split.count", count))
        cp_meta_u64(w->meta, "split.no", no);
    if (!code && cp_map_poisoned(&map))
        code = cp_fail(err, CP_CORRUPT, "%s: shrank while it was read", what);
    cp_weights_free(w);
    cp_map_close(&map);
    return code;
}

/* Shards by what they say: seen[no] of `count`, n of them. */
static cp_code check_split(const bool *seen, size_t n, uint64_t count, cp_err *err)
{
    for (uint64_t i = 0; n && i < count; i++)
        if (!seen[i])
            return cp_fail(err, CP_CORRUPT,
                           "%zu of %" PRIu64 " shards are in the artifact: shard %" PRIu64
                           " of %" PRIu64 " is missing",
                           n, count, i + 1, count);
    return CP_OK;
}

static cp_code check_contents(const cp_layout *l, const cp_manifest *m, const cp_places *places,
                              const cp_files *files, cp_err *err)
{
    bool seen[SHARDS_MAX] = {false};
    uint64_t all = 0;
    size_t n = 0;
    for (size_t i = 0; i < files->n; i++) {
        uint64_t no, count;
        if (files->v[i].role != CP_ROLE_WEIGHTS)
            continue;
        cp_code code = read_split(l, m, places, &files->v[i], &no, &count, err);
        if (code)
            return code;
        if (count <= 1)
            continue;
        all = all ? all : count;
        if (count != all || count > SHARDS_MAX || no >= count)
            return cp_fail(err, CP_CORRUPT,
                           "shards of different models: one says that it is %" PRIu64 " of %" PRIu64
                           ", another that there are %" PRIu64,
                           no + 1, count, all);
        n += !seen[no];
        seen[no] = true;
    }
    return check_split(seen, n, all, err);
}

/* See whole.h. */
cp_code cp_whole_files(const cp_layout *l, const cp_manifest *m, const cp_places *places,
                       const cp_files *files, cp_err *err)
{
    shard *s = cp_xcalloc(files->n ? files->n : 1, sizeof(*s));
    size_t n = 0;
    cp_code code = CP_OK;
    for (size_t i = 0; !code && i < files->n; i++) {
        const cp_file *f = &files->v[i];
        if (f->role != CP_ROLE_WEIGHTS)
            continue;
        if (f->size == 0)
            code = no_bytes(f->path, f->layer, err);
        s[n].path = f->path;
        n += cp_shard_name(f->path, &s[n].n_prefix, &s[n].no, &s[n].count);
    }
    if (!code)
        code = check_sets(s, n, err);
    free(s);
    return code ? code : check_contents(l, m, places, files, err);
}
