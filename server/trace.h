/*
 * trace: where a request stands in a trace (W3C Trace Context), and what passes between the server
 * and the process that sends its spans (spans.h).
 *
 * A cp_trace_context is a plain value of its call. Any thread may call these functions.
 */
#ifndef CP_SERVER_TRACE_H
#define CP_SERVER_TRACE_H

#include "base/metrics.h"

#include <stdbool.h>
#include <stdint.h>

enum { CP_TRACE_PACKET = 64 << 10 }; /* bytes of a packet (spans.h) at most */

/* What the other process writes back, a packet: spans of requests that a collector has taken, and
 * that none took. */
typedef struct cp_trace_report {
    uint32_t exported, failed;
} cp_trace_report;

/* Where a request stands in a trace. */
typedef struct cp_trace_context {
    uint8_t trace[16], span[8], parent[8];
    bool has_parent;
    bool on;         /* its spans are sent */
    char state[256]; /* tracestate, as it was given; "" */
} cp_trace_context;

/* Go on with the trace of headers traceparent and tracestate (NULL: none), or begin one. A header
 * that is malformed is none; a parent that is not sampled switches the request's spans off. */
void cp_trace_begin(cp_trace_context *t, const char *parent, const char *state);
/* The value of traceparent for who is asked next, and for the answer: 55 bytes and a NUL. */
void cp_trace_header(const cp_trace_context *t, char out[56]);
/* A fresh id of n bytes. */
void cp_trace_id(uint8_t *out, size_t n);
/* p[n] in hexadecimal and a NUL, 2n + 1 bytes. */
void cp_trace_hex(const uint8_t *p, size_t n, char *out);
/* What the other process has told since: into the metrics. */
void cp_trace_collect(int fd, cp_metrics *m);

#endif
