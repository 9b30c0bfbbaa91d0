/*
 * core: all files of this room share these parts of the server: its settings, its models, its
 * calls.
 *
 * The loop thread owns a cp_server, except for members that are atomic or say otherwise. Rules
 * change as a whole, on the loop's thread between two requests (cp_server_change).
 */
#ifndef CP_SERVER_CORE_H
#define CP_SERVER_CORE_H

#include "server/host.h"
#include "server/http.h"
#include "server/served.h"

#include <semaphore.h>

enum { CP_UNKNOWN_LOGGED = 64 /* unknown fields logged once each */ };

typedef enum cp_drain { CP_RUN, CP_GRACE, CP_REFUSE, CP_CUT, CP_DRAINED } cp_drain;

/* By what requests are judged, and a drain goes. */
typedef struct cp_rules {
    cp_api_key *keys;
    size_t n_keys;
    char **cors_origins, **allowed_hosts;
    size_t n_cors_origins, n_allowed_hosts;
    int64_t grace_ns, timeout_ns;
} cp_rules;

struct cp_server {
    cp_http *http;
    cp_engine_api engine;
    cp_jobs *jobs;
    cp_rules *rules;                   /* the loop's */
    _Atomic(cp_rules *) rules_to_come; /* NULL: none; the loop takes them and posts `taken` */
    sem_t taken;
    char *version;
    _Atomic int64_t deadline_ns; /* relaxed: of requests to come */
    int64_t comment_ns, slow_ns;
    cp_metrics *metrics;
    int trace_fd; /* where spans go (trace.h); -1: nowhere */
    cp_buf spans; /* of n_spans requests, for the next packet; the loop's */
    uint32_t n_spans;
    bool trace_gone;   /* whoever read there has ended, and the log has said so; the loop's */
    cp_append *audit;  /* borrowed; NULL: none */
    cp_energy *energy; /* borrowed; NULL: nobody measures */
    cp_budget *budget; /* bodies, trees, and what calls hold */
    cp_served_table models;
    cp_server_host host; /* set before ready_to_serve; self NULL: none */
    _Atomic bool ready_to_serve;
    _Atomic(const char *) phase;
    _Atomic uint64_t load_done, load_total, load_rate; /* bytes; see cp_server_phase */
    _Atomic int drain; /* cp_drain; the loop moves it on, drain_begin and drain_now start it */
    _Atomic bool cut_asked, clean;
    _Atomic int n_active; /* calls for which a drain waits: cp_route_counts */
    _Atomic int n_jobs;   /* jobs that will still touch the server */
    _Atomic bool closing;
    cp_mpsc ready;  /* requests with events, from the engine */
    cp_mpsc parsed; /* calls back from jobs */
    /* loop thread */
    struct cp_call *calls;
    int64_t drain_since, cut_since;
    int64_t energy_ns;  /* when the meters were last read; 0: never */
    uint64_t energy_uj; /* what they said */
    char *unknown[CP_UNKNOWN_LOGGED];
    int n_unknown;
    cp_buf scratch; /* one token's text */
};

#endif
