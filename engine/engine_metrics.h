/*
 * engine_metrics: the engine's only calls into base/metrics.h.
 */
#ifndef CP_ENGINE_ENGINE_METRICS_H
#define CP_ENGINE_ENGINE_METRICS_H

#include "engine/state.h"

/* Once, when a model is loaded: what its cache is, and how long ladders of tokens are. */
void cp_metrics_opened(cp_metrics *m, const cp_sched *s, uint32_t n_pages, const char *kv_type);
/* Latencies, observed where they happen, with the step's time. */
void cp_metrics_admitted(const cp_sched *s, const cp_task *t);
void cp_metrics_token(const cp_sched *s, const cp_seq *q);
void cp_metrics_choice(const cp_sched *s, const cp_seq *q); /* it has ended by itself */
void cp_metrics_ended(const cp_sched *s, const cp_task *t);
void cp_metrics_step(cp_metrics *m, int64_t ns, int rows, int64_t now_ns);
void cp_metrics_row_budget(cp_metrics *m, int rows); /* of the next step */
/* Add to the model's metrics what has been counted since `seen`, which moves on. n_late: requests
 * that wait in front of the scheduler. */
void cp_metrics_publish(const cp_sched *s, int n_late, cp_sched_stats *seen, cp_kv_stats *seen_kv);

#endif
