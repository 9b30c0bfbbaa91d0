/*
 * cp_load_meter: what is seen of a run as it goes, and the figures that it makes of it at the end.
 * A caller-owned value of one thread. All times given to it are cp_now_ns; it holds a row a
 * request, an entry a second and five histograms.
 */
#ifndef CP_BENCH_LOAD_METER_H
#define CP_BENCH_LOAD_METER_H

#include "bench/load/hist.h"
#include "bench/load/report.h"
#include "bench/load/stream.h"

enum { CP_LOAD_SECONDS_MAX = 1 << 20 };

typedef struct cp_load_meter {
    int64_t begin_ns;
    cp_load_slo slo;
    cp_load_hist ttft, itl, tpot, e2e, lag;
    cp_load_hist second_ttft, second_itl; /* of the second that is running */
    cp_load_second *seconds;              /* the last one is running */
    size_t n_seconds, cap_seconds;
    cp_load_row *rows;
    size_t n_rows, cap_rows;
    uint32_t in_flight;
    uint64_t chunks, done, failed, by_outcome[CP_LOAD_OUTCOME_COUNT];
    uint64_t input_tokens, output_tokens, no_usage, good;
    uint64_t unasked; /* turns behind one that failed: they never came to be due */
    int64_t first_due_ns, last_end_ns;
    double cpu_s;                                     /* of this process when it began */
    double running, waiting, kv;                      /* as last scraped */
    char why[CP_LOAD_OUTCOME_COUNT][CP_LOAD_WHY_MAX]; /* what the first of each said */
} cp_load_meter;

void cp_load_meter_begin(cp_load_meter *m, int64_t now_ns, const cp_load_slo *slo);
void cp_load_meter_fini(cp_load_meter *m);

void cp_load_meter_due(cp_load_meter *m, int64_t due_ns, int64_t now_ns);
/* The row of a request that was due then and is sent now; free_ns: what its lag counts from. */
size_t cp_load_meter_sent(cp_load_meter *m, int64_t due_ns, int64_t free_ns, int64_t now_ns,
                          uint32_t turn);
/* A piece that carries tokens came to a request that was due then; as cp_load_token_fn. */
void cp_load_meter_token(cp_load_meter *m, int64_t due_ns, int64_t now_ns, int64_t gap_ns);
/* What was sent has ended. input_tokens: where the server does not say. */
void cp_load_meter_end(cp_load_meter *m, size_t row, int64_t due_ns, int64_t now_ns,
                       cp_load_outcome outcome, int status, const cp_load_stream *s,
                       uint32_t input_tokens);
/* What was due then is not sent at all. */
void cp_load_meter_unsent(cp_load_meter *m, int64_t due_ns, int64_t now_ns, cp_load_outcome outcome,
                          const char *why);
/* Let the seconds pass, also where nothing comes. */
void cp_load_meter_tick(cp_load_meter *m, int64_t now_ns);
/* The figures; rows and seconds move to the arena's owner as copies. */
void cp_load_meter_finish(cp_load_meter *m, int64_t now_ns, cp_arena *arena, cp_load_run *out);

/* User and system time of this process. */
double cp_load_cpu_s(void);

#endif
