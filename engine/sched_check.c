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

static void check_seq(const cp_sched *s, const cp_seq *q, bool planned)
{
    CP_ASSERT(!q->task->ended && "sched-10");
    CP_ASSERT(q->n_prompt == q->task->r->n_prompt && q->n_known >= q->n_prompt && "sched-6");
    CP_ASSERT(q->n_known <= s->cfg.ctx && "sched-1");
    if (q->state == CP_SEQ_PREEMPTED) {
        CP_ASSERT(q->kv < 0 && q->rows == 0 && q->n_done == 0 && "sched-4");
        return;
    }
    int all = q->n_known + q->n_pending + q->n_spec;
    CP_ASSERT(q->n_done >= 0 && q->n_done + q->rows <= all && all <= s->cfg.ctx && "sched-1");
    CP_ASSERT(q->kv >= 0 && cp_kv_done(s->kv, q->kv) == q->n_done && "sched-1");
    uint32_t held = cp_kv_held(s->kv, q->kv);
    uint32_t to_come =
        q->n_done + q->rows < q->n_known ? cp_seqs_prompt_pages(s, q->n_known, held) : 0;
    CP_ASSERT(q->outstanding == to_come && "sched-20");
    int P = s->cfg.page_positions, blocks = cp_kv_blocks(s->kv, q->kv);
    CP_ASSERT(blocks >= (q->n_done + q->rows + P - 1) / P && "sched-4");
    CP_ASSERT((planned || blocks == (q->n_done + P - 1) / P) && "kv-19");
}

/* What is in flight for a sequence, and the ring records that are kept for that and for its rows.
 */
static void check_flights(const cp_sched *s, const cp_seq *q)
{
    int parts = 0, pending = 0;
    int reserved = q->outs > 0 ? q->outs + cp_events_finish_records(q->task) : 0;
    for (int k = 0; k < s->n_flights; k++) {
        for (int i = 0; i < s->flights[k].n_parts; i++) {
            const cp_seq_step *part = &s->flights[k].parts[i];
            if (part->seq != q)
                continue;
            CP_ASSERT(q->state == CP_SEQ_RUNNING && "sched-27");
            parts++;
            pending += part->samples;
            reserved += part->reserved;
        }
    }
    CP_ASSERT(q->in_flight == parts && q->n_pending == pending && "sched-26");
    CP_ASSERT((q->n_spec == 0 || (q->n_pending == 0 && parts <= 1)) && "sched-26");
    CP_ASSERT(!(q->rows > 0 && q->n_pending > 0 && q->task->r->no_overlap) && "sched-29");
    CP_ASSERT(q->reserved == reserved && "sched-11");
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
        int reserved = 0;
        for (int i = 0; i < s->cfg.max_seqs; i++) {
            bool its = s->seqs[i].state != CP_SEQ_FREE && s->seqs[i].task == t;
            seen = seen || its;
            reserved += its ? s->seqs[i].reserved : 0;
        }
        CP_ASSERT(seen && "sched-8");
        CP_ASSERT(t->reserved == reserved && "sched-11");
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

/* A plan without rows: whatever there is waits for a client to read, or for a step in flight. */
static void check_stuck(const cp_sched *s)
{
    if (s->n_flights > 0)
        return;
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
    const cp_wait *w = s->refused ? s->refused : s->waiting.next;
    while (!s->refused && w != &s->waiting &&
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
        if (s->seqs[i].state == CP_SEQ_FREE)
            continue;
        check_seq(s, &s->seqs[i], planned);
        check_flights(s, &s->seqs[i]);
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
    bool unused = kv.pages_used == 0 && kv.states_used == 0;
    CP_ASSERT((unused || s->n_flights > 0) && "kv-3"); /* else parked */
    CP_ASSERT(s->n_free_slots == s->cfg.max_seqs && s->n_run == 0 && s->n_waiting == 0 &&
              "sched-16");
    CP_ASSERT(s->outstanding == 0 && "sched-20");
}
