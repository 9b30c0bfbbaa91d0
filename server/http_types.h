/*
 * http_types: loop.c, conn.c and exchange.c share the data of the HTTP loop: the loop, its
 * connections, and the exchange that is in flight on one. All of it belongs to the loop thread,
 * except for what is atomic.
 *
 * A cp_http_req has two states, as a request's body and its answer come and go by themselves.
 *
 *   body       what of it arrives                                  goes on to
 *   WANTED     bytes for the front end                             REFUSED OVER
 *   IGNORED    bytes that nobody reads; the front end then answers REFUSED OVER
 *   REFUSED    bytes of what has its answer already; dropped       OVER
 *   OVER       nothing more: complete, or the connection closes    -
 *
 *   answer     what the client gets                                goes on to
 *   NONE       nothing so far                                      WHOLE STREAM LEFT
 *   WHOLE      all of it is in `out`                               LEFT
 *   STREAM     `out`, and more may come                            ENDED ABORTED LEFT
 *   ENDED      `out`, and that is all                              SENT LEFT
 *   SENT       the last byte is in the wire; what coding wants     LEFT
 *              behind it is libmicrohttpd's
 *   ABORTED    the connection closes in the middle of it           LEFT
 *   LEFT       the client is not there any more                    -
 */
#ifndef CP_SERVER_HTTP_TYPES_H
#define CP_SERVER_HTTP_TYPES_H

#include "server/head.h"
#include "server/http.h"
#include "server/listen.h"
#include "server/mhd.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    CP_READ_BYTES = 64 << 10, /* one recv; of the loop's scratch */
    CP_KEEP_BYTES = 16 << 10, /* a buffer of an idle connection */
};

typedef enum cp_body_state {
    CP_BODY_WANTED,
    CP_BODY_IGNORED,
    CP_BODY_REFUSED,
    CP_BODY_OVER
} cp_body_state;

typedef enum cp_answer_state {
    CP_ANSWER_NONE,
    CP_ANSWER_WHOLE,
    CP_ANSWER_STREAM,
    CP_ANSWER_ENDED,
    CP_ANSWER_SENT,
    CP_ANSWER_ABORTED,
    CP_ANSWER_LEFT,
    CP_ANSWER_STATES
} cp_answer_state;

typedef struct cp_conn {
    uint32_t slot;
    struct sockaddr_in6 peer; /* or one of IPv4; of a Unix socket nothing */
    int fd;                   /* -1: closed, waits to be taken from the list of the pumped */
    bool listed;              /* in the list of those to pump */
    bool readable;            /* the socket may hold more */
    bool eof;                 /* the client has closed its side */
    bool broken;              /* reset, or a send has failed */
    bool reserve;             /* taken in when connections were full: probes only */
    bool last;                /* closes after the exchange in flight */
    bool lingers;             /* answered for the last time; what still comes is dropped */
    int64_t first_byte;       /* of a head that is not complete, or the accept; 0: none */
    int64_t idle_since;       /* beginning of the time without an exchange */
    uint64_t dropped;         /* bytes */
    cp_buf in;                /* read and not yet used */
    cp_buf wire;              /* to be sent from wire_off on */
    size_t wire_off;
    cp_mhd_link *link; /* from a head on until the connection has been idle for a while */
    cp_head head;      /* under way */
    cp_http_req *req;  /* exchange in flight */
    struct cp_conn *next, *prev;
    struct cp_conn *idle_next, *idle_prev; /* req == NULL */
    struct cp_conn *pump_next;
} cp_conn;

struct cp_http_req {
    cp_http *h;
    cp_conn *c;
    void *user;
    cp_head head;
    bool malformed;  /* its head says nothing that may be used */
    char *path;      /* "-" where it is malformed */
    char *query;     /* NULL: none */
    char *authority; /* of the absolute form; NULL: none */
    int64_t since;
    cp_body_state body_state;
    uint64_t body_left; /* of Content-Length */
    cp_chunks chunks;
    cp_account account; /* of body and out */
    cp_buf body;
    struct {
        int64_t at; /* when it was last looked at */
        size_t n;   /* bytes there were then */
        bool slow;  /* brought too little since the time before */
    } pace;
    cp_answer_state answer;
    bool begun; /* its head is libmicrohttpd's */
    int status; /* 0: not answered */
    const char *content_type;
    cp_mhd_header *headers;
    int n_headers;
    cp_buf out; /* whole answer, or a stream's bytes, from off on */
    size_t off;
    bool was_full; /* above CP_STREAM_MAX since hooks.drained */
    int64_t moved;
    uint64_t sent;
};

struct cp_http {
    cp_http_hooks hooks;
    int64_t head_ns, body_ns, idle_ns;
    int max_conns, reserve;
    unsigned n_slots;
    cp_conn **slots; /* by slot; NULL: free */
    uint32_t *generation;
    uint32_t *free_slots;
    unsigned n_free;
    cp_conn *conns;
    cp_conn *idle_first, *idle_last;
    cp_conn *pump_first, *pump_last;
    _Atomic int n_conns;
    cp_listener listener;
    int ep, wake_fd, timer_fd;
    bool listening;  /* the listening socket is in the epoll */
    int64_t full_at; /* 0: accepting; else since when there is no room */
    cp_mhd *mhd;
    char *scratch; /* [CP_READ_BYTES] */
    pthread_t thread;
    bool started;
    pthread_t self; /* the loop thread's own view, for assertions */
    bool looping;
    _Atomic bool stop, draining;
    cp_budget *budget;
    bool pressed; /* a body was refused since the last tick */
};

#define CP_ASSERT_LOOP(h) CP_ASSERT((h)->looping &&pthread_equal(pthread_self(), (h)->self))

/* Onto the list of those to pump in this turn. */
static inline void cp_conn_list(cp_http *h, cp_conn *c)
{
    if (c->listed)
        return;
    c->listed = true;
    c->pump_next = NULL;
    *(h->pump_last ? &h->pump_last->pump_next : &h->pump_first) = c;
    h->pump_last = c;
}

#endif
