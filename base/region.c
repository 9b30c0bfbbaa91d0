/* A document's generated part: see region.h. */
#include "base/region.h"

#include "base/io.h"

#include <stdio.h>
#include <string.h>

/* The document with the text between its markers; false: it has none. */
static bool spliced(const cp_buf *old, const char *name, const char *program, const cp_buf *text,
                    cp_buf *out)
{
    char begin[128], end[128];
    size_t n = cp_snprintf(begin, sizeof(begin), "<!-- %s: written by %s -->\n", name, program),
           k = cp_snprintf(end, sizeof(end), "<!-- %s end -->", name);
    const char *a = old->n ? memmem(old->p, old->n, begin, n) : NULL;
    const char *z = old->n ? memmem(old->p, old->n, end, k) : NULL;
    if (!a || !z || z < a)
        return false;
    cp_buf_add(out, old->p, (size_t)(a - old->p) + n);
    cp_buf_add(out, text->p, text->n);
    cp_buf_add(out, z, old->n - (size_t)(z - old->p));
    return true;
}

static int put(const char *path, const cp_buf *b)
{
    FILE *f = fopen(path, "w");
    bool good = f && fwrite(b->p, 1, b->n, f) == b->n && fflush(f) == 0;
    if (!good)
        perror(path);
    if (f && fclose(f) != 0)
        good = false;
    return good ? 0 : 1;
}

int cp_region_write(const char *path, const char *name, const char *program, const cp_buf *text,
                    bool check)
{
    cp_buf old = {0}, whole = {0};
    cp_err err;
    int bad = 1;
    if (cp_file_read(path, (size_t)16 << 20, &old, &err) != CP_OK)
        fprintf(stderr, "%s\n", err.msg);
    else if (!spliced(&old, name, program, text, &whole))
        fprintf(stderr, "%s has no markers for the %s\n", path, name);
    else if (whole.failed || text->failed)
        fprintf(stderr, "%s: out of memory\n", path);
    else if (whole.n == old.n && memcmp(whole.p, old.p, old.n) == 0)
        bad = 0;
    else if (check)
        fprintf(stderr, "%s is stale: build the target `docs` and commit it\n", path);
    else
        bad = put(path, &whole);
    cp_buf_fini(&old);
    cp_buf_fini(&whole);
    return bad;
}
