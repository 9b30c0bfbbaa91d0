/* This memory comes from the C library, and it is there or the process ends: see alloc.h. */
#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void out_of_memory(size_t n)
{
    fprintf(stderr, "capstan: out of memory allocating %zu bytes\n", n);
    abort();
}

void *cp_xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *cp_xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *cp_xrealloc(void *p, size_t n)
{
    void *q = realloc(p, n ? n : 1);
    if (!q)
        out_of_memory(n);
    return q;
}

char *cp_xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(cp_xmalloc(n), s, n);
}

void *cp_alloc_aligned(size_t n)
{
    size_t rounded;
    if (!cp_add(n ? n : 1, 63, &rounded))
        return NULL;
    rounded &= ~(size_t)63;
    void *p = aligned_alloc(64, rounded);
    return p ? memset(p, 0, rounded) : NULL;
}
