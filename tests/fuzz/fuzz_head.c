// deps: server base
/*
 * Fuzz target: heads of requests and chunked bodies. Whatever the bytes, whole or one at a time,
 * the verdict is the same; what is accepted is within its bytes and says one thing only.
 */
#include "base/code.h"
#include "server/head.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_head(const cp_head *h, const char *p, size_t n)
{
    CP_ASSERT(n >= 4 && memcmp(p + n - 4, "\r\n\r\n", 4) == 0);
    CP_ASSERT(!memchr(p, '\0', n));
    CP_ASSERT(h->n_fields <= CP_HEADERS_MAX && !(h->chunked && h->has_length));
    CP_ASSERT(h->path.at + h->path.n < n && h->authority.at + h->authority.n < n);
    for (size_t i = 0; i < n; i++)
        CP_ASSERT(p[i] != '\n' || (i > 0 && p[i - 1] == '\r'));
    char *copy = malloc(n);
    CP_ASSERT(copy);
    memcpy(copy, p, n);
    cp_head_seal(h, copy);
    for (int i = 0; i < h->n_fields; i++) {
        const cp_head_field *f = &h->fields[i];
        CP_ASSERT((size_t)f->value.at + f->value.n < n && f->name.n > 0);
        CP_ASSERT(strlen(copy + f->name.at) == f->name.n);
        CP_ASSERT(strlen(copy + f->value.at) == f->value.n);
    }
    CP_ASSERT(h->path.n == 0 || strlen(copy + h->path.at) == h->path.n);
    free(copy);
}

static size_t check_chunks(const char *p, size_t n, size_t step, cp_chunk_state *end)
{
    cp_chunks k = {0};
    size_t at = 0, total = 0;
    while (at < n && k.state < CP_CHUNK_END) {
        const char *d;
        size_t n_data, have = n - at < step ? n - at : step;
        size_t used = cp_chunks_take(&k, p + at, have, &d, &n_data);
        CP_ASSERT(used > 0 && used <= have && d >= p && d + n_data <= p + at + used);
        at += used;
        total += n_data;
    }
    *end = k.state;
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    cp_head whole = {0}, slow = {0};
    int a = cp_head_read(&whole, p, size), b = 0;
    for (size_t n = 1; n <= size && b == 0; n++)
        b = cp_head_read(&slow, p, n);
    CP_ASSERT(a == b);
    if (a > 0)
        check_head(&whole, p, (size_t)a);
    size_t from = a > 0 ? (size_t)a : 0;
    cp_chunk_state fast_end, slow_end;
    size_t total = check_chunks(p + from, size - from, SIZE_MAX, &fast_end);
    CP_ASSERT(total == check_chunks(p + from, size - from, 1, &slow_end) && fast_end == slow_end);
    return 0;
}
