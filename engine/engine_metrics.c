/*
 * engine_metrics: the engine's only calls into base/metrics.h.
 *
 * The scheduler counts in plain numbers (cp_sched_stats); once a step their differences are added
 * to the model's metrics, before the step's events are announced: who has read the last event of a
 * request finds it counted. Latencies are observed where they happen, with the step's time.
 */
#include "engine/engine_metrics.h"

#include "base/mem.h"

static double seconds(int64_t ns)
{
    return (double)ns * 1e-9;
}

void cp_metrics_admitted(const cp_sched *s, const cp_task *t)
{
    cp_metrics *m = s->cfg.metrics;
    atomic_store_explicit(&t->r->admitted_ns, s->now_ns, memory_order_relaxed);
    cp_metric_observe(m, CP_M_QUEUE_TIME, seconds(s->now_ns - t->submit_ns));
    cp_metric_observe(m, CP_M_REQUEST_PROMPT_TOKENS, (double)t->r->n_prompt);
    cp_metric_observe(m, CP_M_REQUEST_COMPUTED, (double)(t->r->n_prompt - t->n_cached));
    cp_metric_observe(m, CP_M_REQUEST_MAX_TOKENS, (double)t->r->max_tokens);
    cp_metric_observe(m, CP_M_REQUEST_CHOICES, (double)t->r->n);
}

void cp_metrics_token(const cp_sched *s, const cp_seq *q)
{
    cp_metrics *m = s->cfg.metrics;
    if (q->last_ns)
        cp_metric_observe(m, CP_M_INTER_TOKEN, seconds(s->now_ns - q->last_ns));
    if (q->last_ns || q->choice != 0)
        return;
    atomic_store_explicit(&q->task->r->first_token_ns, s->now_ns, memory_order_relaxed);
    cp_metric_observe(m, CP_M_TTFT, seconds(s->now_ns - q->task->submit_ns));
}

void cp_metrics_choice(const cp_sched *s, const cp_seq *q)
{
    int n_shown = q->n_known - q->n_prompt;
    cp_metric_observe(s->cfg.metrics, CP_M_CHOICE_TOKENS, (double)q->n_generated);
    if (n_shown > 1)
        cp_metric_observe(s->cfg.metrics, CP_M_TPOT,
                          seconds(q->last_ns - q->first_ns) / (n_shown - 1));
}

void cp_metrics_ended(const cp_sched *s, const cp_task *t)
{
    cp_metrics *m = s->cfg.metrics;
    cp_metric_observe(m, CP_M_E2E, seconds(s->now_ns - t->submit_ns));
    cp_metric_observe(m, CP_M_REQUEST_GENERATION_TOKENS, (double)t->n_generated);
    if (t->n_cached < 0)
        return; /* it was never admitted */
    cp_metric_observe(m, CP_M_LONGEST_CHOICE, (double)t->n_longest);
    cp_metric_observe(m, CP_M_INFERENCE_TIME, seconds(s->now_ns - t->admit_ns));
    if (t->first_ns == 0)
        return;
    cp_metric_observe(m, CP_M_PREFILL_TIME, seconds(t->first_ns - t->admit_ns));
    cp_metric_observe(m, CP_M_DECODE_TIME, seconds(s->now_ns - t->first_ns));
}

void cp_metrics_row_budget(cp_metrics *m, int rows)
{
    cp_metric_set(m, CP_M_STEP_ROW_BUDGET, rows);
}

void cp_metrics_step(cp_metrics *m, int64_t ns, int rows, int64_t now_ns)
{
    cp_metric_observe(m, CP_M_STEP_TIME, seconds(ns));
    cp_metric_observe(m, CP_M_STEP_TOKENS, (double)rows);
    cp_metric_set(m, CP_M_LAST_STEP, now_ns);
}

void cp_metrics_opened(cp_metrics *m, const cp_sched *s, uint32_t n_pages, const char *kv_type)
{
    cp_buf b = {0};
    char number[24];
    if (!m)
        return;
    cp_snprintf(number, sizeof(number), "%d", s->cfg.page_positions);
    cp_metrics_add_label(&b, "block_size", number);
    cp_metrics_add_label(&b, "cache_dtype", kv_type);
    cp_metrics_add_label(&b, "enable_prefix_caching", s->cfg.prefix_cache ? "True" : "False");
    cp_snprintf(number, sizeof(number), "%u", n_pages);
    cp_metrics_add_label(&b, "num_gpu_blocks", number);
    CP_ASSERT(!b.failed);
    cp_metrics_set_info(m, CP_M_CACHE_INFO, b.p);
    cp_metrics_set_context(m, s->cfg.ctx);
    cp_buf_fini(&b);
}

/* When the oldest request came that has computed nothing yet; 0: there is none. The oldest stand in
 * front; before it there are preempted sequences and choices of requests that began. */
static int64_t oldest_waiting(const cp_sched *s)
{
    const cp_wait *w = s->waiting.next;
    while (w != &s->waiting && w->task->n_cached >= 0)
        w = w->next;
    return w == &s->waiting ? 0 : w->task->submit_ns;
}

static void publish_sequences(const cp_sched *s, int n_late)
{
    cp_metrics *m = s->cfg.metrics;
    int prefill = 0, waiting = s->n_waiting - s->n_preempted + n_late;
    for (int i = 0; i < s->n_run; i++)
        prefill +=
            s->run[i]->n_known - s->run[i]->n_done > 1 || s->run[i]->n_known == s->run[i]->n_prompt;
    cp_metric_set(m, CP_M_SEQUENCES_PREFILL, prefill);
    cp_metric_set(m, CP_M_SEQUENCES_DECODE, s->n_run - prefill);
    cp_metric_set(m, CP_M_SEQUENCES_PREEMPTED, s->n_preempted);
    cp_metric_set(m, CP_M_SEQUENCES_WAITING, waiting);
    cp_metric_set(m, CP_M_DEFERRED, s->n_deferred < waiting ? s->n_deferred : waiting);
    cp_metric_set(m, CP_M_QUEUE_OLDEST, oldest_waiting(s));
}

void cp_metrics_publish(const cp_sched *s, int n_late, cp_sched_stats *seen, cp_kv_stats *seen_kv)
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
    publish_sequences(s, n_late);
#define COUNT(id, field) cp_metric_add(m, CP_M_##id, (int64_t)(now->field - seen->field))
    COUNT(PREEMPTIONS, preemptions);
    COUNT(PROMPT_TOKENS, prompt_tokens);
    COUNT(PROMPT_TOKENS_CACHED, prompt_cached);
    COUNT(PREFIX_ASKED, prefix_asked);
    COUNT(CORRUPTED, corrupted);
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
