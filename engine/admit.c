/*
 * admit: who may start, and who had better wait.
 *
 * First come, first served: the first entry that does not fit ends the search, so nobody is passed
 * by for want of pages. Skipped are entries that could not use a step now: their ring is full, or
 * (the wait rule) a running sequence is computing the very prefix they need; then they wait until
 * it is there and hit it. Admission asks for the pages of the whole prompt, beside what running
 * prompts still need, so that prompts do not preempt each other. With nothing running everything
 * goes: what does not fit then never will, and fails.
 */
#include "engine/admit.h"
#include "base/mem.h"
#include "engine/engine_metrics.h"
#include "engine/events.h"
#include "engine/goal.h"
#include "engine/grant.h"
#include "engine/room.h"
#include "engine/seqs.h"
#include "engine/tasks.h"

#include <string.h>

/* ---- the wait rule ---- */

static bool still_computing(const cp_sched *s, const cp_wait *w)
{
    if (w->target < 0)
        return false;
    const cp_seq *t = &s->seqs[w->target];
    if (CP_PLANTED(107))
        return true;
    return t->gen == w->target_gen && t->state == CP_SEQ_RUNNING && !t->blocked &&
           cp_kv_firm(s->kv, t->kv) < w->until;
}

/* How far t's coming pages would serve tokens[0, max): whole pages, and for STATE groups only where
 * t leaves a checkpoint. */
static int common_prefix(const cp_sched *s, const cp_seq *t, const int32_t *tokens, int max)
{
    int P = s->cfg.page_positions, n = 0, goal = cp_seq_goal(t);
    int end = goal < t->n_known ? goal : t->n_known;
    if (end < max)
        max = end;
    while (n < max && t->tokens[n] == tokens[n])
        n++;
    n = n / P * P;
    if (!cp_kv_has_state(s->kv))
        return n;
    int best = 0;
    for (int at = cp_seq_next_checkpoint(s, t, 0); at <= n; at = cp_seq_next_checkpoint(s, t, at))
        best = at;
    return best;
}

static bool must_wait(cp_sched *s, cp_wait *w, const int32_t *tokens, int n_known, int max_hit)
{
    if (still_computing(s, w))
        return true;
    if (w->target >= 0)
        w->needs = -1; /* what it waited for is there: it needs less */
    w->target = -1;
    if (!s->cfg.prefix_cache || max_hit < s->cfg.page_positions)
        return false;
    int best = 0;
    const cp_seq *target = NULL;
    for (int i = 0; i < s->n_run; i++) {
        const cp_seq *t = s->run[i];
        int firm = cp_kv_firm(s->kv, t->kv);
        if (t->blocked || cp_seq_goal(t) - firm <= 1 ||
            memcmp(t->task->r->salt, w->task->r->salt, sizeof(w->task->r->salt)) != 0)
            continue;
        int common = common_prefix(s, t, tokens, max_hit);
        if (common > firm && common > best) {
            best = common;
            target = t;
        }
    }
    if (!target || cp_kv_peek(s->kv, w->task->r->salt, tokens, n_known, max_hit) >= best)
        return false;
    w->target = target->slot;
    w->target_gen = target->gen;
    w->until = best;
    s->stats.waits++;
    return true;
}

/* ---- admission ---- */

typedef enum verdict { ADMITTED, SKIPPED, NO_PAGES } verdict;

/* Nothing has to be computed: scoring one token, or max_tokens 0 without scores. */
static bool needs_no_rows(const cp_task *t)
{
    return t->r->max_tokens == 0 && (t->r->n_prompt_top < 0 || t->r->n_prompt == 1);
}

/* Counts a request's first admission; n_hit of its prompt came from the cache. */
static void first_admission(cp_sched *s, cp_task *t, int n_hit)
{
    if (t->n_cached < 0 || CP_PLANTED(114))
        s->stats.prompt_tokens += (uint64_t)t->r->n_prompt;
    if (t->n_cached >= 0)
        return;
    t->n_cached = n_hit;
    t->admit_ns = s->now_ns;
    s->stats.prompt_cached += (uint64_t)n_hit;
    if (s->cfg.prefix_cache && !t->r->no_prefix_reads)
        s->stats.prefix_asked += (uint64_t)t->r->n_prompt;
    if (s->cfg.queue) {
        atomic_fetch_sub(&s->cfg.queue->requests, 1);
        atomic_fetch_sub(&s->cfg.queue->tokens, t->r->n_prompt);
    }
    cp_metrics_admitted(s, t);
}

/* Whether a look-up is worth its cost: w did not fit when it was last tried, and needs as much now.
 */
static bool may_fit(const cp_sched *s, const cp_wait *w)
{
    int64_t room = (int64_t)cp_kv_available(s->kv) - (int64_t)s->outstanding;
    bool running = false;
    for (int i = 0; i < s->n_run; i++) {
        const cp_seq *q = s->run[i];
        if (q->blocked)
            room += (int64_t)cp_kv_held(s->kv, q->kv) + q->outstanding;
        else
            running = true;
    }
    return !running || room >= w->needs;
}

/* A slot for the next choice of w's task; with choices that could not fork the next one queues
 * behind it. */
static cp_seq *take_choice(cp_sched *s, cp_wait *w)
{
    cp_task *t = w->task;
    t->waiting = false;
    cp_seq *q = cp_seq_take(s, t, t->next_choice++);
    q->forked = q->choice > 0;
    if (q->choice > 0 && t->next_choice < t->r->n)
        cp_wait_for_choices(s, t);
    return q;
}

static void start(cp_sched *s, cp_wait *w, cp_kv_seq kv, int n_hit)
{
    cp_wait_remove(s, w);
    cp_seq *q = w->seq ? w->seq : take_choice(s, w);
    q->kv = kv;
    q->n_done = n_hit;
    s->stats.checkpoint_hits += n_hit > 0 && cp_kv_has_state(s->kv);
    cp_seq_start(s, q);
    if (cp_seq_fork(s, q))
        cp_grant_pass(s, true);
    else
        cp_seq_schedule(s, q);
}

/* Whether the room is there or can be made. */
static bool has_room(cp_sched *s, uint32_t need)
{
    return cp_room_fits(s, need) || cp_room_could_fit(s, need);
}

static verdict try_admit(cp_sched *s, cp_wait *w)
{
    cp_task *t = w->task;
    const int32_t *tokens = w->seq ? w->seq->tokens : t->r->prompt;
    int n_known = w->seq ? w->seq->n_known : t->r->n_prompt;
    int max_hit = cp_task_max_hit(t, n_known);
    if (must_wait(s, w, tokens, n_known, max_hit))
        return SKIPPED;
    if (!may_fit(s, w))
        return NO_PAGES;
    uint32_t before = cp_kv_available(s->kv);
    cp_kv_seq kv = cp_kv_seq_open(s->kv, t->r->salt);
    CP_ASSERT(kv >= 0 && "sched-16");
    int n_hit = cp_kv_match(s->kv, kv, tokens, n_known, max_hit);
    uint32_t need = cp_seqs_prompt_pages(s, n_known, cp_kv_held(s->kv, kv));
    if (!has_room(s, need)) {
        w->needs = (int64_t)need + before - cp_kv_available(s->kv);
        if (CP_PLANTED(119)) /* as if what others had reserved then were reserved for ever */
            w->needs += (int64_t)s->outstanding;
        cp_kv_seq_close(s->kv, kv);
        return NO_PAGES;
    }
    if (!cp_room_clear(s, need)) {
        cp_kv_seq_close(s->kv, kv);
        return NO_PAGES;
    }
    first_admission(s, t, n_hit);
    start(s, w, kv, n_hit);
    return ADMITTED;
}

/* The first entry younger than `order`: entries may have come and gone meanwhile. */
static cp_wait *after(cp_sched *s, uint64_t order)
{
    cp_wait *w = s->waiting.next;
    while (w != &s->waiting && w->order <= order)
        w = w->next;
    return w;
}

void cp_admit(cp_sched *s)
{
    cp_wait *w = s->waiting.next;
    for (int scanned = 0; w != &s->waiting && s->rows_left > 0 && scanned < CP_ADMIT_SCAN;) {
        uint64_t order = w->order;
        if (cp_events_room(w->task) < (needs_no_rows(w->task) ? 0 : 1)) {
            w = w->next; /* its client does not read; a look is cheap, and such can be many */
            continue;
        }
        scanned++;
        if (!w->seq && needs_no_rows(w->task)) {
            first_admission(s, w->task, 0);
            cp_task_finish_all(s, w->task, NULL);
            w = after(s, order);
            continue;
        }
        if (!w->seq && s->n_free_slots == 0) {
            if (s->n_preempted == 0)
                break;
            w = w->next; /* a preempted one behind has its slot */
            continue;
        }
        verdict v = try_admit(s, w);
        if (v == NO_PAGES && !CP_PLANTED(118)) {
            s->refused = w;
            break; /* nobody overtakes */
        }
        if (s->preempted_now && s->n_run > 0)
            break; /* what was just preempted does not push back */
        s->n_deferred += v == SKIPPED;
        w = v == SKIPPED ? w->next : after(s, order);
    }
}
