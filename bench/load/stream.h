/*
 * cp_load_stream: one answer as it comes: when its tokens came, and how it ended. A caller-owned
 * value, one thread, used for one request after the other. It knows nothing of sockets: whoever
 * does feeds it bytes with the time at which they came. Its memory is bounded whatever a server
 * sends: an event (sse.h), GAPS_MAX gaps, ANSWER_MAX bytes of answer, a line of an error.
 */
#ifndef CP_BENCH_LOAD_STREAM_H
#define CP_BENCH_LOAD_STREAM_H

#include "bench/load/report.h"
#include "bench/load/sse.h"

enum {
    CP_LOAD_GAPS_MAX = 1 << 16,
    CP_LOAD_ANSWER_MAX = 1 << 20,
    CP_LOAD_WHY_MAX = 240,
    CP_LOAD_ERROR_BODY_MAX = 8 << 10
};

/* How the exchange ended, as the transport saw it. */
typedef enum cp_load_ending {
    CP_LOAD_WHOLE,      /* to its end */
    CP_LOAD_BROKEN,     /* the connection died, or spoke no HTTP */
    CP_LOAD_OVERDUE,    /* it took longer than the limit */
    CP_LOAD_CALLED_OFF, /* by us, at the end of the run */
    CP_LOAD_TOO_MUCH    /* by us: it sent more than a line, an event or a head may have */
} cp_load_ending;

/* A piece of the stream that carries tokens came; gap_ns: since the one before it, -1: the first.
 */
typedef void cp_load_token_fn(void *arg, int64_t now_ns, int64_t gap_ns);

typedef struct cp_load_stream {
    int64_t first_ns, last_ns; /* of content; 0: none came */
    int64_t end_ns;            /* of the last event with a choice: where the answer ended */
    uint32_t chunks;           /* that carry tokens */
    uint32_t *gaps;            /* in us, n_gaps of them, the first GAPS_MAX; owned */
    uint32_t n_gaps, cap_gaps;
    double gaps_ns; /* sum of all */
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool usage, finished, done, error;
    bool keep;                 /* the answer's text is wanted */
    cp_buf answer;             /* as in JSON between the quotes */
    char why[CP_LOAD_WHY_MAX]; /* what an error said */
    cp_buf body;               /* of an answer that is no stream, its first bytes */
    cp_load_sse sse;
    cp_load_token_fn *token;
    void *arg;
    int64_t now_ns; /* while bytes are fed */
} cp_load_stream;

/* For the next request; what is owned is kept. */
void cp_load_stream_begin(cp_load_stream *s, bool keep_answer, cp_load_token_fn *token, void *arg);
/* Bytes of the body of an answer with this HTTP status. False: it sent too much. */
bool cp_load_stream_feed(cp_load_stream *s, int status, bool events, const char *p, size_t n,
                         int64_t now_ns);
/* The exchange is over; why says more about it then. */
cp_load_outcome cp_load_stream_end(cp_load_stream *s, int status, cp_load_ending ending,
                                   const char *problem);
void cp_load_stream_fini(cp_load_stream *s);

#endif
