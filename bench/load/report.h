/*
 * What a measurement of a server found, and who prints it.
 *
 * Made by the generator (bench/load/load.c), read by the printers: one JSON object (report_json.c),
 * one HTML page (report_html.c), lines for a person (report_text.c). A result and everything that
 * it points at belongs to whoever called cp_load_measure, until cp_load_result_free; nobody changes
 * it after that call has returned. Times are milliseconds, as double. A figure that was not
 * measured is NAN, a string that nobody knows is "": JSON has null for both, people see a dash.
 *
 * Words: a request is *due* when the schedule wants it sent, and latencies count from there, so
 * that a server which is slow enough to hold the generator up is not measured as a quick one. In a
 * closed loop no schedule wants it: it is due when it is sent.
 */
#ifndef CP_BENCH_LOAD_REPORT_H
#define CP_BENCH_LOAD_REPORT_H

#include "base/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a request ended. X(ID, slug of JSON, words for people) */
#define CP_LOAD_OUTCOMES(X)                                                                        \
    X(OK, "ok", "answered in full")                                                                \
    X(REFUSED, "refused", "refused for want of room (429, 503, 529)")                              \
    X(CUT, "cut", "the stream broke off before its end")                                           \
    X(ERROR, "error", "answered with an error")                                                    \
    X(UNREACHED, "unreached", "no connection, or it ended before an answer")                       \
    X(TIMEOUT, "timeout", "took longer than the limit of this program")                            \
    X(DROPPED, "dropped", "never sent: this program's own limit was reached")                      \
    X(CANCELLED, "cancelled", "cut short by the end of the run (Ctrl-C)")

typedef enum cp_load_outcome {
#define X(id, slug, words) CP_LOAD_##id,
    CP_LOAD_OUTCOMES(X)
#undef X
        CP_LOAD_OUTCOME_COUNT
} cp_load_outcome;

/* The latencies of a run. X(ID, field, name for people, what it is) */
#define CP_LOAD_LATENCIES(X)                                                                       \
    X(TTFT, ttft, "TTFT", "due to first token")                                                    \
    X(ITL, itl, "ITL", "between two pieces of the stream that carry tokens")                       \
    X(TPOT, tpot, "TPOT", "first to last token, over tokens - 1")                                  \
    X(E2E, e2e, "E2E", "due to the end of the answer")                                             \
    X(LAG, lag, "lag",                                                                             \
      "due to sent: the wait for a place, or this program's own delay (closed loop: since its "    \
      "place was free)")

/* What servers say of themselves on /metrics, each under its own names (bench/load/scrape.c).
 * X(ID, field, words, kind): a level is a value now, a count only grows. */
#define CP_LOAD_GAUGES(X)                                                                          \
    X(RUNNING, running, "requests running", LEVEL)                                                 \
    X(WAITING, waiting, "requests waiting", LEVEL)                                                 \
    X(KV_USAGE, kv_usage, "KV cache in use, 0..1", LEVEL)                                          \
    X(PROMPT_TOKENS, prompt_tokens, "prompt tokens", COUNT)                                        \
    X(CACHED_TOKENS, cached_tokens, "prompt tokens found in the prefix cache", COUNT)              \
    X(OUTPUT_TOKENS, output_tokens, "generated tokens", COUNT)                                     \
    X(PREEMPTIONS, preemptions, "preemptions", COUNT)

typedef enum cp_load_gauge {
#define X(id, field, words, kind) CP_LOAD_##id,
    CP_LOAD_GAUGES(X)
#undef X
        CP_LOAD_GAUGE_COUNT
} cp_load_gauge;

/* Ascending, without holes between the first and the last that holds something; about 4.5 % wide
 * (16 to the octave): for plots, percentiles come from finer ones. */
typedef struct cp_load_bucket {
    double from_ms, to_ms; /* from <= x < to */
    uint64_t count;
} cp_load_bucket;

/* All NAN where count is 0. Percentiles are right within 0.1 %, mean and max exact. */
typedef struct cp_load_figures {
    uint64_t count;
    double mean, p50, p90, p95, p99, max;
    cp_load_bucket *buckets;
    size_t n_buckets;
} cp_load_figures;

/* One second of a run, for plots; the last one may be a part of one. */
typedef struct cp_load_second {
    uint32_t due, sent, completed, failed;       /* each by the time when it happened */
    uint32_t in_flight;                          /* at the second's end */
    uint64_t output_tokens;                      /* that came in it, as chunks carry them */
    double ttft_p50, ttft_p99, itl_p50, itl_p99; /* of what came in it */
    double server_running, server_waiting, server_kv_usage; /* as last scraped; NAN */
} cp_load_second;

/* One request. Times count from the run's begin; NAN: it did not come to that. */
typedef struct cp_load_row {
    double due_ms, sent_ms, first_ms, last_ms; /* first and last token */
    double end_ms;                             /* of the answer, or when it failed */
    uint32_t input_tokens, output_tokens; /* by the server's usage, else counted or estimated */
    uint32_t cached_tokens;               /* of the input, as the usage says; 0: none or unsaid */
    uint32_t turn;                        /* 0, or the place in its conversation */
    uint8_t outcome;                      /* cp_load_outcome */
    bool usage;                           /* the server said how many tokens there were */
    bool good;                            /* ok, and within every --slo */
    uint16_t status;                      /* of HTTP; 0: no answer came */
} cp_load_row;

/* Limits of --slo; NAN: none. */
typedef struct cp_load_slo {
    double ttft, itl, tpot, e2e; /* itl: the mean of the request's gaps */
} cp_load_slo;

/* What the server's own /metrics said over a run. */
typedef struct cp_load_server {
    const char *kind; /* "capstan", "vllm", "llamacpp", ""; a static string */
    uint32_t scrapes, failed_scrapes;
    double first[CP_LOAD_GAUGE_COUNT], last[CP_LOAD_GAUGE_COUNT]; /* NAN: it does not say */
    double mean[CP_LOAD_GAUGE_COUNT], max[CP_LOAD_GAUGE_COUNT];   /* of levels, over the scrapes */
} cp_load_server;

/* A run at one load; of a sweep there are several, in the order in which they were made. */
typedef struct cp_load_run {
    double rate, rate_end; /* requests a second; 0: closed loop; rate_end differs in a ramp */
    uint32_t concurrency;  /* at most so many at once; 0: no limit but this program's own */
    uint64_t requests;     /* due: completed + failed + those that Ctrl-C cancelled */
    uint64_t completed, failed, by_outcome[CP_LOAD_OUTCOME_COUNT];
    double duration_s;                           /* from the first due to the last end */
    double request_s, output_tok_s, input_tok_s; /* of completed ones, over the duration */
    uint64_t input_tokens, output_tokens;        /* of completed ones */
    uint64_t no_usage; /* completed ones whose tokens the server did not count */
    double goodput;    /* share of requests that were good, 0..1; NAN without --slo */
    double goodput_request_s;
    cp_load_figures ttft, itl, tpot, e2e, lag; /* of completed ones; lag: of all that were sent */
    cp_load_second *seconds;
    size_t n_seconds;
    cp_load_row *rows; /* as they were sent; warm-up is left out */
    size_t n_rows;
    cp_load_server server;
    double own_cpu_s, own_cpu_us_chunk; /* CPU time of this program; a chunk of a stream */
    bool interrupted;                   /* SIGINT ended it */
    bool saturated;                     /* in a sweep: the server did not keep up */
    const char *saturated_why;          /* a sentence, or "" */
} cp_load_run;

/* The result of a sweep. */
typedef struct cp_load_saturation {
    bool swept;
    double kept_up, gave_way; /* rates: the highest that was held, the lowest that was not; NAN */
} cp_load_saturation;

typedef struct cp_load_result {
    const char *url, *model, *endpoint, *dataset; /* "http://h:1", "m", "chat", "random" */
    const char *began;                            /* RFC 3339, UTC */
    const char *command;                          /* the command line, without keys */
    const char *server;                           /* what it says it is: its Server header, or "" */
    const char *version;                          /* of this program */
    uint64_t seed;
    cp_load_slo slo;
    cp_load_run *runs;
    size_t n_runs;
    cp_load_saturation saturation;
    bool rows;          /* JSON holds the requests one by one, and the server's own figures */
    const char **notes; /* sentences: what a reader of the figures must know */
    size_t n_notes;
    cp_arena *arena;
} cp_load_result;

/* Slug and words of an outcome, a gauge's JSON name. Any thread. */
const char *cp_load_outcome_slug(cp_load_outcome outcome);
const char *cp_load_outcome_words(cp_load_outcome outcome);
const char *cp_load_gauge_name(cp_load_gauge gauge);
const char *cp_load_gauge_words(cp_load_gauge gauge);
bool cp_load_gauge_counts(cp_load_gauge gauge); /* it only grows */

/* Append what the printer makes; out->failed says whether it fitted. The figures of JSON's top
 * level are those of the last run. */
void cp_load_report_json(const cp_load_result *r, cp_buf *out);
void cp_load_report_html(const cp_load_result *r, cp_buf *out);
void cp_load_report_text(const cp_load_result *r, cp_buf *out);

void cp_load_result_free(cp_load_result *r);

#endif
