/*
 * engine_metrics: the engine's only calls into base/metrics.h.
 */
#ifndef CP_ENGINE_ENGINE_METRICS_H
#define CP_ENGINE_ENGINE_METRICS_H

#include "engine/state.h"

/* Latencies, observed where they happen, with the step's time. */
void cp_metrics_admitted(const cp_sched *s, const cp_task *t);
void cp_metrics_token(const cp_sched *s, const cp_seq *q);
void cp_metrics_ended(const cp_sched *s, const cp_task *t);
void cp_metrics_step(cp_metrics *m, int64_t ns);
void cp_metrics_row_budget(cp_metrics *m, int rows); /* of the next step */
/* Add to the model's metrics what has been counted since `seen`, which moves on. */
void cp_metrics_publish(const cp_sched *s, cp_sched_stats *seen, cp_kv_stats *seen_kv);

#endif
