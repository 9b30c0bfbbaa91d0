// deps: server base
/*
 * Fuzz target: heads of requests and chunked bodies. Whatever the bytes, whole or one at a time,
 * the verdict is the same; what is accepted is within its bytes and says one thing only.
 */
#include "base/code.h"
#include "server/head.h"
#include "server/mhd.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libmicrohttpd takes what was accepted, and answers it once. */
static void check_library(const cp_head *h, const char *p)
{
    static cp_mhd *mhd;
    if (!mhd)
        CP_ASSERT(cp_mhd_open(&mhd, 4, NULL) == CP_OK);
    cp_buf head = {0};
    cp_head_canonical(h, p, &head);
    cp_mhd_link *l = cp_mhd_link_open(mhd);
    CP_ASSERT(l && !head.failed && cp_mhd_request(l, head.p, head.n));
    for (int i = 0; i < h->n_fields; i++) {
        const cp_head_field *f = &h->fields[i];
        if (f->name.n == 4 && strncasecmp(p + f->name.at, "Host", 4) == 0)
            CP_ASSERT(strncmp(cp_mhd_request_header(l, "host"), p + f->value.at, f->value.n) == 0);
    }
    char got[512];
    const cp_mhd_answer a = {.status = 200, .body = "fine", .n_body = 4};
    CP_ASSERT(cp_mhd_answer_begin(l, &a) && cp_mhd_read(l, got, sizeof(got)) > 0);
    CP_ASSERT(cp_mhd_read(l, got, sizeof(got)) == 0 && cp_mhd_answer_over(l));
    cp_mhd_link_close(l);
    cp_buf_fini(&head);
}

static void check_head(const cp_head *h, const char *p, size_t n)
{
    CP_ASSERT(n >= 4 && memcmp(p + n - 4, "\r\n\r\n", 4) == 0);
    CP_ASSERT(!memchr(p, '\0', n));
    CP_ASSERT(h->n_fields <= CP_HEADERS_MAX && !(h->chunked && h->has_length));
    CP_ASSERT(h->path.at + h->path.n < n && h->authority.at + h->authority.n < n);
    for (size_t i = 0; i < n; i++)
        CP_ASSERT(p[i] != '\n' || (i > 0 && p[i - 1] == '\r'));
    for (int i = 0; i < h->n_fields; i++) {
        const cp_head_field *f = &h->fields[i];
        CP_ASSERT((size_t)f->value.at + f->value.n < n && f->name.n > 0);
    }
    check_library(h, p);
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
