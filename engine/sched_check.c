/*
 * sched_check: the scheduler's books, counted again from scratch.
 *
 * Called between cp_sched_plan and cp_sched_commit, and after commit, by simulations and tests.
 * What needs to know the right tokens is checked by the simulation itself.
 */
#include "engine/sched_check.h"
#include "base/mem.h"
#include "engine/events.h"
#include "engine/goal.h"
#include "engine/grant.h"
#include "engine/room.h"
#include "engine/seqs.h"

static void check_seq(const cp_sched *s, const cp_seq *q)
{
    CP_ASSERT(!q->task->ended && "sched-10");
    CP_ASSERT(q->n_prompt == q->task->r->n_prompt && q->n_known >= q->n_prompt && "sched-6");
    CP_ASSERT(q->n_known <= s->cfg.ctx && "sched-1");
    if (q->state == CP_SEQ_PREEMPTED) {
        CP_ASSERT(q->kv < 0 && q->rows == 0 && q->n_done == 0 && "sched-4");
        return;
    }
    CP_ASSERT(q->n_done >= 0 && q->n_done + q->rows <= q->n_known && "sched-1");
    CP_ASSERT(q->kv >= 0 && cp_kv_done(s->kv, q->kv) == q->n_done && "sched-1");
    uint32_t held = cp_kv_held(s->kv, q->kv);
    bool all = q->n_done + q->rows == q->n_known;
    CP_ASSERT(q->outstanding == (all ? 0 : cp_seqs_prompt_pages(s, q->n_known, held)) &&
              "sched-20");
    int blocks = (q->n_done + q->rows + s->cfg.page_positions - 1) / s->cfg.page_positions;
    for (int g = 0; g < s->cfg.n_groups; g++) {
        int n;
        if (cp_kv_pages(s->kv, q->kv, g, &n))
            CP_ASSERT(n >= blocks && "sched-4");
    }
}

static void check_lists(const cp_sched *s)
{
    uint64_t order = 0, outstanding = 0;
    for (int i = 0; i < s->n_run; i++) {
        CP_ASSERT(s->run[i]->state == CP_SEQ_RUNNING && s->run[i]->wait.order > order && "sched-5");
        order = s->run[i]->wait.order;
        outstanding += s->run[i]->outstanding;
    }
    CP_ASSERT(outstanding == s->outstanding && "sched-20");
    order = 0;
    int n = 0, preempted = 0;
    for (const cp_wait *w = s->waiting.next; w != &s->waiting; w = w->next, n++) {
        CP_ASSERT(w->order > order && "sched-5");
        order = w->order;
        preempted += w->seq != NULL;
        CP_ASSERT(!w->task->ended && "sched-10");
        CP_ASSERT((!w->seq || w->seq->state == CP_SEQ_PREEMPTED) && "sched-16");
        CP_ASSERT((w->seq || (w->task->waiting && w == &w->task->wait)) && "sched-16");
    }
    CP_ASSERT(n == s->n_waiting && preempted == s->n_preempted && "sched-16");
    CP_ASSERT(s->n_free_slots + s->n_run + preempted == s->cfg.max_seqs && "sched-16");
}

/* Every request that has not ended has something through which it will. */
static void check_tasks(const cp_sched *s)
{
    int n = 0, queued = 0;
    int64_t tokens = 0;
    for (const cp_task *t = s->all.next; t != &s->all; t = t->next, n++) {
        if (t->ended)
            continue;
        bool seen = t->waiting;
        for (int i = 0; i < s->cfg.max_seqs && !seen; i++)
            seen = s->seqs[i].state != CP_SEQ_FREE && s->seqs[i].task == t;
        CP_ASSERT(seen && "sched-8");
        queued += t->n_cached < 0;
        tokens += t->n_cached < 0 ? t->r->n_prompt : 0;
    }
    CP_ASSERT(n == s->n_tasks && "sched-8");
    if (s->cfg.queue) /* holds when nothing else submits meanwhile */
        CP_ASSERT(queued == atomic_load(&s->cfg.queue->requests) &&
                  tokens == atomic_load(&s->cfg.queue->tokens) && "sched-13");
}

/* Beside one that decodes prompts keep to their chunks; one that is alone takes all rows, unless
 * outputs, a checkpoint or pages end it before. */
static void check_chunks(const cp_sched *s)
{
    bool decodes = cp_grant_decodes(s);
    for (int i = 0; i < s->n_plan && decodes; i++)
        CP_ASSERT(s->plan[i]->rows <= s->cfg.prefill_chunk && "sched-2");
    if (s->n_plan != 1 || decodes || s->rows_left == 0)
        return;
    const cp_seq *q = s->plan[0];
    int end = q->n_done + q->rows;
    bool no_output = s->outs_left == 0 || cp_events_room(q->task) < 1;
    CP_ASSERT((end == cp_seq_goal(q) || end == cp_seq_next_checkpoint(s, q, q->n_done) ||
               (end >= cp_seq_out_first(q) && no_output) || !cp_room_may_take(s, q, end + 1)) &&
              "sched-23");
}

/* A plan without rows: whatever there is waits for a client to read. */
static void check_stuck(const cp_sched *s)
{
    for (int i = 0; i < s->n_run; i++)
        CP_ASSERT(s->run[i]->blocked && "sched-9");
    for (const cp_wait *w = s->waiting.next; w != &s->waiting; w = w->next) {
        bool unused = (!w->seq && s->n_free_slots == 0) || cp_events_room(w->task) < 1;
        CP_ASSERT((unused || w->target < 0) && "sched-7");
        CP_ASSERT(unused && "sched-9");
    }
}

/* The oldest entry that could start, were there room: there is none, even if nothing of its prompt
 * were cached. (A hit may itself hold the last state slot.) */
static void check_head(const cp_sched *s)
{
    const cp_wait *w = s->waiting.next;
    while (w != &s->waiting &&
           ((!w->seq && s->n_free_slots == 0) || w->target >= 0 || cp_events_room(w->task) < 1))
        w = w->next;
    if (w == &s->waiting || s->rows_left == 0 || s->preempted_now)
        return;
    int n_known = w->seq ? w->seq->n_known : w->task->r->n_prompt;
    int64_t need = cp_seqs_prompt_pages(s, n_known, 0);
    CP_ASSERT((need > s->spare || s->spare_states < 2) && "sched-19");
}

void cp_sched_check(const cp_sched *s, bool planned)
{
    for (int i = 0; i < s->cfg.max_seqs; i++) {
        if (s->seqs[i].state != CP_SEQ_FREE)
            check_seq(s, &s->seqs[i]);
    }
    check_lists(s);
    check_tasks(s);
    if (planned && s->plan_rows == 0)
        check_stuck(s);
    if (planned) {
        check_chunks(s);
        check_head(s);
    }
}

void cp_sched_check_idle(const cp_sched *s)
{
    cp_kv_stats kv;
    cp_kv_stats_get(s->kv, &kv);
    CP_ASSERT(s->n_tasks == 0);
    CP_ASSERT(kv.pages_used == 0 && kv.states_used == 0 && "kv-3");
    CP_ASSERT(s->n_free_slots == s->cfg.max_seqs && s->n_run == 0 && s->n_waiting == 0 &&
              "sched-16");
    CP_ASSERT(s->outstanding == 0 && "sched-20");
}
