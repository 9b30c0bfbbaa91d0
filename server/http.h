/*
 * http: one loop thread serves all connections and their exchanges.
 *
 * A cp_http owns the listening socket, the thread and every connection. A cp_http_req is one
 * exchange (a request and its answer); it exists from the head's arrival until hooks.done, and only
 * the loop thread touches it, as it alone calls all functions that take one. The front end above is
 * a table of hooks, which the loop thread calls and which must never block; no function below calls
 * a hook before it returns. An exchange that has not been answered when hooks.request returns waits
 * until somebody answers it. A client that closes its side meanwhile, or while a stream runs, is
 * gone.
 */
#ifndef CP_SERVER_HTTP_H
#define CP_SERVER_HTTP_H

#include "base/code.h"
#include "base/mem.h"
#include "server/listen.h"

#include <stdbool.h>
#include <stdint.h>

#define CP_BODY_MAX    (8u << 20)  /* bytes of a request body */
#define CP_HEADERS_MAX 100         /* header lines of a request */
#define CP_STREAM_MAX  (64u << 10) /* unread bytes of a stream before its source is paused */

typedef enum cp_method {
    CP_GET,
    CP_HEAD,
    CP_POST,
    CP_PUT,
    CP_PATCH,
    CP_DELETE,
    CP_OPTIONS,
    CP_METHOD_COUNT
} cp_method;

typedef struct cp_http cp_http;
typedef struct cp_http_req cp_http_req;

typedef struct cp_http_hooks {
    void *arg;
    /* The head is complete. bad != 0: it must be refused with that status (it is malformed,
     * ambiguous or too large, and has no path and no headers); 503: connections are full, only a
     * probe without a body may be let in. Answering here refuses the request: its body is dropped.
     */
    void (*head)(void *arg, cp_http_req *q, int bad);
    /* The body is complete. bad != 0: it must be refused with that status (its chunks are
     * malformed; 413: it is longer than CP_BODY_MAX; 503: the budget is full). Answer now or
     * later. */
    void (*request)(void *arg, cp_http_req *q, int bad);
    /* The client went away before the answer was complete. */
    void (*gone)(void *arg, cp_http_req *q);
    /* A stream's buffer has room again after it was above CP_STREAM_MAX. */
    void (*drained)(void *arg, cp_http_req *q);
    /* The exchange is over; q is invalid after this. */
    void (*done)(void *arg, cp_http_req *q);
    void (*wake)(void *arg);                 /* after cp_http_wake, from any thread */
    void (*tick)(void *arg, int64_t now_ns); /* four times a second */
} cp_http_hooks;

typedef struct cp_http_config {
    const char *host;            /* NULL: 127.0.0.1 */
    int port;                    /* 0: any */
    const char *uds;             /* NULL: TCP */
    const cp_listener *listener; /* listens already, and is ours from now on; NULL: as above */
    int64_t header_deadline_ms, body_deadline_ms, idle_ms;
    int max_connections; /* beside a reserve; lowered to what RLIMIT_NOFILE leaves */
    cp_budget *budget;   /* pays for bodies and streams; NULL: nobody counts */
    cp_http_hooks hooks;
} cp_http_config;

/* Bind and listen; the loop runs from cp_http_start on. Errors as cp_server_open's. */
cp_code cp_http_open(cp_http **out, const cp_http_config *cfg, cp_err *err);
cp_code cp_http_start(cp_http *h, cp_err *err);
const char *cp_http_url(const cp_http *h);
int cp_http_port(const cp_http *h);
int cp_http_connections(const cp_http *h); /* any thread */
void cp_http_wake(cp_http *h);             /* any thread, any time before close */
/* Bound to a loopback address (not a Unix socket). */
bool cp_http_loopback(const cp_http *h);
/* From now on every answer says that its connection closes, and closes it. Any thread. */
void cp_http_drain(cp_http *h);
/* Close every connection, end the thread, free; hooks.done runs for what was in flight. NULL is
 * fine. */
void cp_http_close(cp_http *h);

/* ---- an exchange; loop thread only ---- */
cp_method cp_http_method(const cp_http_req *q);
const char *cp_method_name(cp_method m); /* "GET" */
/* As sent, still percent-encoded, without query and without one trailing slash; "-" where the head
 * was refused. */
const char *cp_http_path(const cp_http_req *q);
/* Who sent it: "10.0.0.7:41022", "[::1]:41022", "unix". */
enum { CP_PEER_TEXT = 64 };
void cp_http_peer(const cp_http_req *q, char out[CP_PEER_TEXT]);
/* What follows the question mark, as sent; "": nothing. Valid until hooks.done. */
const char *cp_http_query(const cp_http_req *q);
/* The absolute form's authority, else Host; NULL: neither. Valid until hooks.done. */
const char *cp_http_authority(const cp_http_req *q);
/* First value of a header, any case; NULL: absent. Valid until hooks.done. */
const char *cp_http_header(const cp_http_req *q, const char *name);
uint64_t cp_http_length(const cp_http_req *q); /* Content-Length; 0 when absent or chunked */
bool cp_http_has_body(const cp_http_req *q);   /* one is announced */
cp_buf *cp_http_body(cp_http_req *q);          /* the caller may take the memory out of it */
cp_account *cp_http_account(cp_http_req *q);   /* pays for the body; goes with its memory */
void cp_http_ignore_body(cp_http_req *q);      /* in hooks.head: what arrives is dropped */
void *cp_http_user(const cp_http_req *q);
void cp_http_set_user(cp_http_req *q, void *user);
int64_t cp_http_since(const cp_http_req *q); /* cp_now_ns() of the head's arrival */
int cp_http_status(const cp_http_req *q);    /* 0: not answered */
uint64_t cp_http_sent(const cp_http_req *q); /* body bytes given to the connection */
bool cp_http_answered(const cp_http_req *q);

/* A header of the answer; before reply or stream_begin. At most 12. value is copied. */
void cp_http_add_header(cp_http_req *q, const char *name, const char *value);
/* The whole answer. The body's memory is taken over (*body is left empty); NULL: no body. */
void cp_http_reply(cp_http_req *q, int status, const char *content_type, cp_buf *body);
/* Begin a chunked answer of unknown length. */
void cp_http_stream_begin(cp_http_req *q, int status, const char *content_type);
/* The stream's buffer: append, then kick once. NULL when the client is gone. */
cp_buf *cp_http_stream(cp_http_req *q);
void cp_http_stream_kick(cp_http_req *q);
size_t cp_http_stream_pending(const cp_http_req *q); /* bytes not yet given to the connection */
int64_t cp_http_stream_moved(const cp_http_req *q);  /* cp_now_ns() when bytes last left */
/* No more bytes: the answer ends after what is buffered. abort: it ends as an error, at once. */
void cp_http_stream_end(cp_http_req *q, bool abort);

#endif
