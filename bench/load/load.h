/*
 * bench/load: a generator of load for any server that speaks OpenAI's chat or text completions, and
 * what it finds (report.h).
 *
 * cp_load_measure makes a run, or the runs of a sweep, on the calling thread and returns when it is
 * over. Requests are streamed over HTTP/1.1 by one thread and one epoll set; libcurl and its
 * connections, the schedule, prompts and histograms are hidden. Latencies count from
 * when a request was due.
 *
 * Closed loop (concurrency without rate): a place for each, the next request is due when the one
 * before has ended. Open loop (rate): requests are due by a schedule whatever the server does; with
 * concurrency no more than that are out at once, the others wait, and their time counts.
 */
#ifndef CP_BENCH_LOAD_LOAD_H
#define CP_BENCH_LOAD_LOAD_H

#include "base/code.h"
#include "bench/load/report.h"

#include <stdbool.h>
#include <stdint.h>

/* In the order of --dataset and --endpoint. */
typedef enum cp_load_dataset {
    CP_LOAD_RANDOM,        /* words, lengths drawn */
    CP_LOAD_SHARED_PREFIX, /* the same, behind one of a few long texts */
    CP_LOAD_SHAREGPT,      /* the first question of recorded conversations */
    CP_LOAD_TURNS          /* conversations, recorded or of words */
} cp_load_dataset;

/* What is going on, for whoever watches. */
typedef struct cp_load_progress {
    const char *phase; /* "asking the server" (nothing else is set), "warm-up", "at rest",
                          "measuring" */
    double rate;       /* of the run; 0: closed loop */
    uint32_t run;      /* number of the run in a sweep, from 1; 0: no sweep */
    uint64_t done, total, failed;
    uint32_t in_flight;
    double seconds, output_tok_s; /* since the run's begin; of the last second or so */
} cp_load_progress;
typedef void cp_load_watch_fn(void *arg, const cp_load_progress *now);

/* Everything is borrowed until cp_load_measure returns. Texts that are NULL were not given. */
typedef struct cp_load_config {
    const char *url; /* "http://127.0.0.1:8080", also with /v1 behind it */
    const char *model;
    const char *api_key; /* never printed */
    const char *ca_pem;  /* certificate authorities to trust in place of libcurl's own */
    size_t n_ca_pem;
    bool completions; /* /v1/completions in place of chat */
    cp_load_dataset dataset;
    const char *dataset_file;
    const char *input_len, *output_len; /* cp_load_lengths_parse; output_len may be NULL */
    int64_t prefix_len, prefix_groups;  /* of CP_LOAD_SHARED_PREFIX, tokens */
    int64_t turns;                      /* of CP_LOAD_TURNS without a file */
    int64_t concurrency;                /* 0: not given */
    double rate, burstiness;            /* rate 0: closed loop */
    const char *ramp, *slo;
    bool sweep;
    int64_t requests, warmup;
    int64_t timeout_ms; /* of a request */
    uint64_t seed;
    int interrupt_fd;        /* readable: end, with the report so far; -1: none */
    cp_load_watch_fn *watch; /* every 200 ms or so; may be NULL */
    void *watch_arg;
    const char *command, *version; /* for the result */
    bool rows;                     /* cp_load_result's */
} cp_load_config;

/*
 * CP_USAGE: an option is not allowed as it stands; CP_NETWORK: nobody answers, TLS fails, the key
 * is refused, or the server stays overloaded; CP_MODEL_NOT_FOUND; CP_INVALID_VALUE: it does not
 * take such a request; files of data sets as cp_file_read. Where it returns CP_OK, *out may hold
 * requests that failed: all of them, even.
 */
cp_code cp_load_measure(const cp_load_config *cfg, cp_load_result **out, cp_err *err);

#endif
