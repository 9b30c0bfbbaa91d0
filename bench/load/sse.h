/*
 * cp_load_sse: server-sent events out of bytes as they come, cut anywhere (WHATWG HTML, section
 * 9.2.6: CR, LF or CRLF end a line, a line that begins with a colon is a comment, several data
 * lines are joined, a byte-order mark in front is no part). A caller-owned value of one stream, one
 * thread. It holds one event at most, and no event is longer than CP_LOAD_EVENT_MAX.
 */
#ifndef CP_BENCH_LOAD_SSE_H
#define CP_BENCH_LOAD_SSE_H

#include "base/mem.h"

enum { CP_LOAD_EVENT_MAX = 4 << 20, CP_LOAD_EVENT_NAME = 32 };

typedef struct cp_load_sse {
    cp_buf line; /* begun and not ended */
    cp_buf data; /* of the event so far */
    char event[CP_LOAD_EVENT_NAME];
    bool begun, cr; /* a byte was seen; the last one was a CR */
    bool some;      /* the event has a data line */
} cp_load_sse;

/* event: what an `event:` line says, cut to 31 bytes, or "". data[n] is NUL-terminated. */
typedef void cp_load_sse_fn(void *arg, const char *event, const char *data, size_t n);

/* False: an event is too long, or there is no memory; nothing more may be fed. */
bool cp_load_sse_feed(cp_load_sse *s, const char *p, size_t n, cp_load_sse_fn *fn, void *arg);
/* The stream is over: what stands there of an event that has no end. */
void cp_load_sse_end(cp_load_sse *s, cp_load_sse_fn *fn, void *arg);
/* For the next stream; memory is kept up to a few KiB. */
void cp_load_sse_reset(cp_load_sse *s);
void cp_load_sse_fini(cp_load_sse *s);

#endif
