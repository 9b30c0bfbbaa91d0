/*
 * engine_metrics: the engine's only calls into base/metrics.h.
 *
 * The scheduler counts in plain numbers (cp_sched_stats); once a step their differences are added
 * to the model's metrics, before the step's events are announced: who has read the last event of a
 * request finds it counted. Latencies are observed where they happen, with the step's time.
 */
#include "engine/engine_metrics.h"

static double seconds(int64_t ns)
{
    return (double)ns * 1e-9;
}

void cp_metrics_admitted(const cp_sched *s, const cp_task *t)
{
    atomic_store_explicit(&t->r->admitted_ns, s->now_ns, memory_order_relaxed);
    cp_metric_observe(s->cfg.metrics, CP_M_QUEUE_TIME, seconds(s->now_ns - t->submit_ns));
    cp_metric_observe(s->cfg.metrics, CP_M_REQUEST_PROMPT_TOKENS, (double)t->r->n_prompt);
}

void cp_metrics_token(const cp_sched *s, const cp_seq *q)
{
    if (q->last_ns)
        cp_metric_observe(s->cfg.metrics, CP_M_INTER_TOKEN, seconds(s->now_ns - q->last_ns));
    if (q->last_ns || q->choice != 0)
        return;
    atomic_store_explicit(&q->task->r->first_token_ns, s->now_ns, memory_order_relaxed);
    cp_metric_observe(s->cfg.metrics, CP_M_TTFT, seconds(s->now_ns - q->task->submit_ns));
}

void cp_metrics_ended(const cp_sched *s, const cp_task *t)
{
    cp_metric_observe(s->cfg.metrics, CP_M_E2E, seconds(s->now_ns - t->submit_ns));
    cp_metric_observe(s->cfg.metrics, CP_M_REQUEST_GENERATION_TOKENS, (double)t->n_generated);
}

void cp_metrics_row_budget(cp_metrics *m, int rows)
{
    cp_metric_set(m, CP_M_STEP_ROW_BUDGET, rows);
}

void cp_metrics_step(cp_metrics *m, int64_t ns)
{
    cp_metric_observe(m, CP_M_STEP_TIME, seconds(ns));
}

void cp_metrics_publish(const cp_sched *s, cp_sched_stats *seen, cp_kv_stats *seen_kv)
{
    cp_metrics *m = s->cfg.metrics;
    const cp_sched_stats *now = &s->stats;
    cp_kv_stats kv;
    if (!m)
        return;
    cp_kv_stats_get(s->kv, &kv);
    cp_metric_set(m, CP_M_KV_PAGES_FREE, kv.pages_free);
    cp_metric_set(m, CP_M_KV_PAGES_CACHED, kv.pages_cached);
    cp_metric_set(m, CP_M_KV_PAGES_USED, kv.pages_used);
    cp_metric_set(m, CP_M_STATE_SLOTS_FREE, kv.states_free);
    cp_metric_set(m, CP_M_STATE_SLOTS_CACHED, kv.states_cached);
    cp_metric_set(m, CP_M_STATE_SLOTS_USED, kv.states_used);
    cp_metric_set(m, CP_M_CHECKPOINTS_HELD, kv.checkpoints_held);
    cp_metric_set(m, CP_M_CHECKPOINT_BYTES, (int64_t)(kv.checkpoints_held * s->cfg.state_bytes));
    int prefill = 0;
    for (int i = 0; i < s->n_run; i++)
        prefill +=
            s->run[i]->n_known - s->run[i]->n_done > 1 || s->run[i]->n_known == s->run[i]->n_prompt;
    cp_metric_set(m, CP_M_SEQUENCES_PREFILL, prefill);
    cp_metric_set(m, CP_M_SEQUENCES_DECODE, s->n_run - prefill);
    cp_metric_set(m, CP_M_SEQUENCES_PREEMPTED, s->n_preempted);
    cp_metric_set(m, CP_M_SEQUENCES_WAITING, s->n_waiting - s->n_preempted);
#define COUNT(id, field) cp_metric_add(m, CP_M_##id, (int64_t)(now->field - seen->field))
    COUNT(PREEMPTIONS, preemptions);
    COUNT(PROMPT_TOKENS, prompt_tokens);
    COUNT(PROMPT_TOKENS_CACHED, prompt_cached);
    COUNT(GENERATION_TOKENS, generated);
    COUNT(ENGINE_STEPS, steps);
    COUNT(STEP_ROWS, rows);
    COUNT(FINISHED_STOP, finished_stop);
    COUNT(FINISHED_LENGTH, finished_length);
    COUNT(FINISHED_ERROR, finished_error);
    COUNT(FINISHED_CANCELLED, finished_cancelled);
    COUNT(CANCELLED, cancelled);
    COUNT(CHECKPOINT_HITS, checkpoint_hits);
#undef COUNT
#define COUNT(id, field) cp_metric_add(m, CP_M_##id, (int64_t)(kv.field - seen_kv->field))
    COUNT(EVICTIONS, evictions);
    COUNT(CHECKPOINTS, checkpoints);
    COUNT(CHECKPOINT_EVICTIONS, state_evictions);
    COUNT(CHECKPOINT_EVICTIONS, checkpoints_cut);
#undef COUNT
    *seen = *now;
    *seen_kv = kv;
}
