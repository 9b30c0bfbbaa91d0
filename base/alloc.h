/*
 * alloc: checks sizes, and takes memory from the C library. Any thread may call it.
 *
 * Sizes that come from outside are checked (cp_mul, cp_add) and allocated with malloc or calloc,
 * whose failure is reported. Small fixed objects of our own come from cp_xmalloc, which aborts when
 * there is no memory, because nothing sensible could go on then. What grows with a request lies in
 * an arena or a buffer that an account pays for (base/mem.h).
 */
#ifndef CP_BASE_ALLOC_H
#define CP_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* r = a*b or a+b; false on overflow (r untouched). */
static inline bool cp_mul(size_t a, size_t b, size_t *r)
{
    size_t v;
    if (__builtin_mul_overflow(a, b, &v))
        return false;
    *r = v;
    return true;
}
static inline bool cp_add(size_t a, size_t b, size_t *r)
{
    size_t v;
    if (__builtin_add_overflow(a, b, &v))
        return false;
    *r = v;
    return true;
}

void *cp_xmalloc(size_t n);              /* never NULL; aborts when out of memory */
void *cp_xcalloc(size_t n, size_t size); /* zeroed; never NULL */
void *cp_xrealloc(void *p, size_t n);
char *cp_xstrdup(const char *s);
/* Zeroed, 64-byte aligned, size rounded up to 64; NULL when out of memory or n overflows. Free with
 * free(). */
void *cp_alloc_aligned(size_t n);

#endif
