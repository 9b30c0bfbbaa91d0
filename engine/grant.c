/*
 * grant: see grant.h. How many rows a sequence could use is asked first (rows_wanted), its pages
 * come next, and the books are written last (cp_seq_give_rows).
 */
#include "engine/grant.h"
#include "base/mem.h"
#include "engine/events.h"
#include "engine/goal.h"
#include "engine/room.h"
#include "engine/seqs.h"
#include "engine/tasks.h"

#include <string.h>

/* The most of `rows` that ends on a page border and for which there are pages; 0: none. */
static int rows_that_fit(const cp_sched *s, const cp_seq *q, int rows)
{
    int P = s->cfg.page_positions;
    for (int end = (q->n_done + rows - 1) / P * P; end > q->n_done; end -= P) {
        if (cp_kv_need(s->kv, q->kv, end) <= cp_kv_available(s->kv))
            return end - q->n_done;
    }
    return 0;
}

/* The rows that q could take, `limit` of them at most: up to its goal, for as many outputs as there
 * is room, and not over a wanted checkpoint. May be <= 0. */
static int rows_wanted(const cp_sched *s, const cp_seq *q, int limit)
{
    int rows = cp_seq_goal(q) - q->n_done, first = cp_seq_out_first(q);
    int room = cp_events_room(q->task), outs = s->outs_left < room ? s->outs_left : room;
    if (rows > limit)
        rows = limit;
    if (rows > s->rows_left)
        rows = s->rows_left;
    if (outs < 0)
        outs = 0;
    if (q->n_done + rows > first + outs)
        rows = first + outs - q->n_done; /* what is left is rows that want no output */
    int cut = cp_seq_next_checkpoint(s, q, q->n_done);
    if (rows > 0 && q->n_done + rows > cut && !CP_PLANTED(115))
        rows = cut - q->n_done;
    return rows;
}

/* Whether q had better wait for a step in flight than take pages from others: that step will give
 * some back, or may show that a pending token was the last. */
static bool waits_for_flight(const cp_sched *s, const cp_seq *q)
{
    return q->n_pending > 0 || cp_room_is_coming(s, q);
}

/* One more victim for q; false: there is none, or it was q. */
static bool preempt_for(cp_sched *s, cp_seq *q)
{
    CP_ASSERT(!waits_for_flight(s, q) && "sched-30");
    cp_seq *victim = cp_room_victim(s, q);
    if (victim) {
        cp_seq_preempt(s, victim);
        return victim != q;
    }
    if (q->in_flight > 0)
        return false; /* its own commit may let a window go */
    s->stats.out_of_memory++;
    if (!CP_PLANTED(109))
        cp_task_fail(s, q->task, CP_NO_MEMORY);
    return false;
}

/* Pages for up to `rows` rows, fewer where only fewer can be had without preempting. Returns the
 * rows; 0: q does not run any more, or waits for a step in flight. */
static int take_pages(cp_sched *s, cp_seq *q, int rows)
{
    while (!cp_kv_grow(s->kv, q->kv, q->n_done + rows)) {
        int fit = rows_that_fit(s, q, rows);
        if (fit > 0 && fit < rows)
            rows = fit;
        else if (CP_PLANTED(104))
            break;
        else if (waits_for_flight(s, q) && !CP_PLANTED(130))
            return 0;
        else if (!preempt_for(s, q))
            return 0;
    }
    return rows;
}

void cp_seq_schedule(cp_sched *s, cp_seq *q)
{
    int limit = q->n_spec > 0 ? 1 : s->cfg.prefill_chunk;
    int rows = rows_wanted(s, q, CP_PLANTED(102) ? INT32_MAX : limit);
    if (rows > 0)
        rows = take_pages(s, q, rows);
    if (rows > 0)
        cp_seq_give_rows(s, q, rows);
}

void cp_grant_pass(cp_sched *s, bool decode)
{
    int n = s->n_run;
    memcpy(s->order, s->run, sizeof(cp_seq *) * (size_t)n);
    for (int i = 0; i < n && s->rows_left > 0; i++) {
        cp_seq *q = s->order[i];
        if (q->state != CP_SEQ_RUNNING || q->blocked || q->rows > 0)
            continue;
        if (cp_seq_one_to_go(q) == decode)
            cp_seq_schedule(s, q);
    }
}

/* ---- rows beyond the chunk ---- */

bool cp_grant_decodes(const cp_sched *s)
{
    for (int i = 0; i < s->n_run; i++) {
        const cp_seq *q = s->run[i];
        if (q->rows > 0 && cp_seq_decoding(q))
            return true;
    }
    return false;
}

/* More for one that has rows, `limit` at most, in pages that neither it nor others will miss: what
 * prompts will still take is reckoned in chunks. */
static void extend(cp_sched *s, cp_seq *q, int limit)
{
    int P = s->cfg.page_positions, rows = q->rows;
    cp_seq_withdraw_rows(s, q);
    int end = q->n_done + rows_wanted(s, q, limit);
    while (end > q->n_done + rows && !cp_room_may_take(s, q, end))
        end = (end - 1) / P * P;
    if (end > q->n_done + rows && cp_kv_grow(s->kv, q->kv, end))
        rows = end - q->n_done;
    cp_seq_give_rows(s, q, rows);
}

void cp_grant_rest(cp_sched *s)
{
    for (int i = 0; i < s->n_run && s->rows_left > 0 && !CP_PLANTED(123); i++)
        if (s->run[i]->rows > 0)
            extend(s, s->run[i], INT32_MAX);
}

void cp_grant_drafts(cp_sched *s)
{
    for (int i = 0; i < s->n_run && s->rows_left > 0; i++)
        if (s->run[i]->rows > 0 && s->run[i]->n_spec > 0)
            extend(s, s->run[i], s->cfg.prefill_chunk);
}

/* ---- forks ---- */

bool cp_seq_fork(cp_sched *s, cp_seq *q)
{
    cp_task *t = q->task;
    if (!cp_seq_fork_pending(q) || q->n_done != q->n_prompt - 1 || cp_seq_scoring(q))
        return false; /* while scores are in flight, choices would emit them, too */
    while (t->next_choice < t->r->n && s->n_free_slots > 0) {
        cp_kv_seq kv = q->n_done > 0 && !CP_PLANTED(112) ? cp_kv_fork(s->kv, q->kv)
                                                         : cp_kv_seq_open(s->kv, t->r->salt);
        CP_ASSERT(kv >= 0 && "sched-16");
        cp_seq *c = cp_seq_take(s, t, t->next_choice++);
        c->kv = kv;
        c->n_done = cp_kv_done(s->kv, kv);
        c->forked = true;
        CP_ASSERT(c->n_done == q->n_done && "sched-12");
        cp_seq_start(s, c);
        s->stats.forks++;
    }
    q->forked = true;
    if (t->next_choice < t->r->n) /* no slot: the rest start on their own */
        cp_wait_for_choices(s, t);
    return true;
}
