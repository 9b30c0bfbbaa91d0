/*
 * room: who gives pages up for whom.
 *
 * A prompt that runs will take pages in the steps to come; a newcomer must leave those alone. What
 * is short is taken from sequences whose clients do not read, and for one that runs already also
 * from those younger than it. Nobody is preempted in vain: what all of them could give is counted
 * first, and only as many go as are needed.
 */
#include "base/mem.h"
#include "engine/sched.h"

/* ---- what prompts will still take ---- */

uint32_t cp_sched_prompt_pages(const cp_sched *s, int n_known, uint32_t held)
{
    int n = n_known + 1 < s->cfg.ctx ? n_known + 1 : s->cfg.ctx;
    uint32_t all = cp_kv_pages_for(s->cfg.groups, s->cfg.n_groups, s->cfg.page_positions, n,
                                   s->cfg.prefill_chunk);
    return all > held ? all - held : 0;
}

void cp_seq_count_outstanding(cp_sched *s, cp_seq *q)
{
    uint32_t now = 0;
    if (q->n_done + q->rows < q->n_known)
        now = cp_sched_prompt_pages(s, q->n_known, cp_kv_held(s->kv, q->kv));
    s->outstanding = s->outstanding - q->outstanding + now;
    q->outstanding = now;
}

bool cp_seq_may_take(const cp_sched *s, const cp_seq *q, int end)
{
    uint32_t need = cp_kv_need(s->kv, q->kv, end);
    uint64_t rest =
        s->outstanding - q->outstanding; /* of the others, and what q takes after that */
    if (end < q->n_known)
        rest += cp_sched_prompt_pages(s, q->n_known, cp_kv_held(s->kv, q->kv) + need);
    return need + rest <= cp_kv_available(s->kv);
}

/* ---- preemption ---- */

static bool preempt_blocked(cp_sched *s, const cp_seq *not_this)
{
    for (int i = s->n_run; i-- > 0;) {
        if (s->run[i] != not_this && s->run[i]->blocked) {
            cp_seq_preempt(s, s->run[i]);
            return true;
        }
    }
    return false;
}

bool cp_sched_fits(const cp_sched *s, uint64_t need)
{
    return s->n_run == 0 ||
           (need + s->outstanding <= cp_kv_available(s->kv) && cp_kv_states_available(s->kv) > 0);
}

bool cp_sched_make_room(cp_sched *s, uint64_t need)
{
    uint64_t outstanding = s->outstanding;
    int n = 0;
    for (int i = 0; i < s->n_run; i++) {
        if (!s->run[i]->blocked)
            continue;
        s->takes[n++] = s->run[i]->kv;
        outstanding -= s->run[i]->outstanding;
    }
    if (n == 0)
        return false;
    if (n < s->n_run && !CP_PLANTED(121)) { /* else nothing runs then, and everything goes */
        uint32_t pages, states;
        cp_kv_freed_by(s->kv, s->takes, n, &pages, &states);
        if (need + outstanding > (uint64_t)cp_kv_available(s->kv) + pages ||
            (uint64_t)cp_kv_states_available(s->kv) + states == 0)
            return false;
    }
    while (!cp_sched_fits(s, need))
        CP_ASSERT(preempt_blocked(s, NULL) && "sched-21");
    return true;
}

/* Whether q could go on if all were preempted that may be for its sake. */
static bool worth_it(cp_sched *s, const cp_seq *q)
{
    bool younger = false;
    int n = 0;
    for (int i = 0; i < s->n_run; i++) {
        if (s->run[i] == q)
            younger = true;
        else if (younger || s->run[i]->blocked)
            s->takes[n++] = s->run[i]->kv;
    }
    if (n == s->n_run - 1)
        return true; /* the whole pool: it fits, or never will */
    uint32_t pages, states, need = cp_kv_need(s->kv, q->kv, q->n_done + 1);
    cp_kv_freed_by(s->kv, s->takes, n, &pages, &states);
    if (need <= cp_kv_available(s->kv)) /* then it lacks a state slot */
        return states > 0;
    return need <= cp_kv_available(s->kv) + pages;
}

bool cp_seq_make_room(cp_sched *s, cp_seq *q)
{
    if (!worth_it(s, q)) {
        cp_seq_preempt(s, q);
        return false;
    }
    if (preempt_blocked(s, q))
        return true;
    cp_seq *youngest = s->run[s->n_run - 1];
    if (CP_PLANTED(117) && s->n_run > 1)
        youngest = s->run[0] == q ? s->run[1] : s->run[0];
    if (youngest != q) {
        CP_ASSERT(youngest->wait.order > q->wait.order && "sched-17");
        cp_seq_preempt(s, youngest);
        return true;
    }
    CP_ASSERT(s->n_run == 1 && "sched-21"); /* else it was not worth it */
    s->stats.out_of_memory++;
    if (!CP_PLANTED(109))
        cp_live_fail(s, q->live, CP_NO_MEMORY);
    return false;
}
