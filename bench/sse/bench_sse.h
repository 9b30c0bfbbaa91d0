/*
 * bench/sse: what one streamed token costs the server's process in CPU time.
 *
 * Each server runs in a process of its own, the reader in another; they speak over loopback. A
 * server process calls `ready` with its port and returns the CPU time it used from its first token
 * to its last.
 */
#ifndef CP_BENCH_SSE_BENCH_SSE_H
#define CP_BENCH_SSE_BENCH_SSE_H

#include "base/code.h"

#include <stdbool.h>
#include <stdint.h>

/* What stands around the real server, as serve has it; metrics always do. */
typedef struct cp_sse_around {
    int audit_fd; /* the audit log; -1: none */
    int trace_fd; /* as cp_server_config.trace_fd */
    bool sandbox; /* as far as the kernel grants it */
    bool must;    /* whole, or the run fails */
} cp_sse_around;

typedef struct cp_sse_load {
    int streams, tokens; /* tokens of each stream */
    int64_t step_ns;     /* time between two tokens of a stream */
    int event_bytes;     /* of the bare server's event, chunk framing left out */
    cp_sse_around around;
} cp_sse_load;

typedef struct cp_sse_read {
    int64_t bytes, events; /* of bodies, framing included */
    int failed;            /* connections that were refused or broke */
} cp_sse_read;

typedef void cp_sse_ready(void *arg, int port);

typedef struct cp_sse_pair {
    double server_us, bare_us; /* CPU time a token */
    int event_bytes;           /* chunk framing included */
    double events_per_token;
} cp_sse_pair;

/* Measure both servers, each in processes that are forked from this one, which must have no other
 * thread. CP_INTERNAL: one of them failed; it has said why on stderr. */
cp_code cp_sse_measure(const cp_sse_load *load, cp_sse_pair *out, cp_err *err);

/* User and system time of this process, ns. */
int64_t cp_sse_cpu_ns(void);
/* A server without HTTP library, JSON or tokens: one thread writes every stream's event once a
 * step, the other sends. */
int64_t cp_sse_bare(const cp_sse_load *load, cp_sse_ready *ready, void *arg);
/* Open all streams, read them to their end. */
cp_sse_read cp_sse_client(const cp_sse_load *load, int port);

#endif
