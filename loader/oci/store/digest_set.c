/*
 * An array of digests that is sorted and searched by halves. Adding marks it as unsorted, and the
 * first question after that sorts it: sets are filled first and asked afterwards. Digests are
 * compared as bytes.
 */
#include "loader/oci/store/digest_set.h"
#include "base/mem.h"
#include "loader/oci/store/fsys.h"

#include <stdlib.h>
#include <string.h>

/* See digest_set.h. */
void cp_digest_set_add(cp_digest_set *s, const uint8_t d[32])
{
    if (s->n == CP_DIGEST_SET_MAX) {
        s->incomplete = true;
        return;
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->d = cp_xrealloc(s->d, s->cap * sizeof(*s->d));
    }
    memcpy(s->d[s->n++], d, 32);
    s->sorted = false;
}

/* See digest_set.h. */
void cp_digest_set_key(const char *digest, uint8_t key[32])
{
    cp_sha256_of(digest, strlen(digest), key);
}

static int by_digest(const void *a, const void *b)
{
    return memcmp(a, b, 32);
}

/* See digest_set.h. */
void cp_digest_set_sort(cp_digest_set *s)
{
    size_t n = 0;
    if (s->sorted || s->n == 0)
        return;
    qsort(s->d, s->n, sizeof(*s->d), by_digest);
    for (size_t i = 0; i < s->n; i++)
        if (n == 0 || memcmp(s->d[n - 1], s->d[i], 32) != 0)
            memmove(s->d[n++], s->d[i], 32);
    s->n = n;
    s->sorted = true;
}

/* See digest_set.h. */
bool cp_digest_set_has(cp_digest_set *s, const uint8_t d[32])
{
    cp_digest_set_sort(s);
    return s->n > 0 && bsearch(d, s->d, s->n, sizeof(*s->d), by_digest);
}

/* See digest_set.h. */
void cp_digest_set_fini(cp_digest_set *s)
{
    free(s->d);
    *s = (cp_digest_set){0};
}

/* See digest_set.h. */
void cp_digest_set_list(cp_digest_set *s, int dir, bool whole)
{
    cp_fs_list list = cp_fs_list_take(dir);
    for (const char *name; (name = cp_fs_list_next(&list));) {
        uint8_t raw[32];
        if (cp_digest_of_hex(name, raw) && (!whole || strlen(name) == 64))
            cp_digest_set_add(s, raw);
    }
    cp_fs_list_close(&list);
    cp_digest_set_sort(s);
}
