/*
 * room: see room.h. Costs: O(pages held by those that could give).
 */
#include "engine/room.h"
#include "base/mem.h"
#include "engine/seqs.h"

bool cp_room_may_take(const cp_sched *s, const cp_seq *q, int end)
{
    uint32_t need = cp_kv_need(s->kv, q->kv, end);
    uint64_t rest =
        s->outstanding - q->outstanding; /* of the others, and what q takes after that */
    if (end < q->n_known)
        rest += cp_seqs_prompt_pages(s, q->n_known, cp_kv_held(s->kv, q->kv) + need);
    return need + rest <= cp_kv_available(s->kv);
}

/* The youngest whose client does not read; NULL: none. */
static cp_seq *youngest_blocked(const cp_sched *s, const cp_seq *not_this)
{
    for (int i = s->n_run; i-- > 0;) {
        if (s->run[i] != not_this && s->run[i]->blocked)
            return s->run[i];
    }
    return NULL;
}

/* What there will be once steps in flight are done. */
static uint64_t pages_to_be(const cp_sched *s)
{
    return (uint64_t)cp_kv_available(s->kv) + cp_kv_parked(s->kv);
}

static uint64_t states_to_be(const cp_sched *s)
{
    return (uint64_t)cp_kv_states_available(s->kv) + cp_kv_states_parked(s->kv) +
           cp_kv_states_saved(s->kv);
}

/* ---- for a newcomer ---- */

bool cp_room_fits(const cp_sched *s, uint64_t need)
{
    return s->n_run == 0 ||
           (need + s->outstanding <= cp_kv_available(s->kv) && cp_kv_states_available(s->kv) > 0);
}

bool cp_room_could_fit(cp_sched *s, uint64_t need)
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
    if (n == s->n_run || CP_PLANTED(121))
        return true; /* nothing runs then, and everything goes */
    uint32_t pages, states;
    cp_kv_freed_by(s->kv, s->takes, n, &pages, &states);
    return need + outstanding <= pages_to_be(s) + pages && states_to_be(s) + states > 0;
}

bool cp_room_clear(cp_sched *s, uint64_t need)
{
    while (s->n_run > 0 && (need + s->outstanding > pages_to_be(s) || states_to_be(s) == 0)) {
        cp_seq *q = youngest_blocked(s, NULL);
        CP_ASSERT(q && "sched-21");
        cp_seq_preempt(s, q);
    }
    return cp_room_fits(s, need);
}

/* ---- for one that runs ---- */

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
    if (need <= pages_to_be(s)) /* then it lacks a state slot */
        return states > 0;
    return need <= pages_to_be(s) + pages;
}

bool cp_room_is_coming(const cp_sched *s, const cp_seq *q)
{
    uint32_t coming = cp_kv_parked(s->kv) + cp_kv_states_parked(s->kv) + cp_kv_states_saved(s->kv);
    return coming > 0 && cp_kv_need(s->kv, q->kv, q->n_done + 1) <= pages_to_be(s) &&
           states_to_be(s) > 0;
}

cp_seq *cp_room_victim(cp_sched *s, cp_seq *q)
{
    if (!worth_it(s, q))
        return q;
    cp_seq *blocked = youngest_blocked(s, q);
    if (blocked)
        return blocked;
    cp_seq *youngest = s->run[s->n_run - 1];
    if (CP_PLANTED(117) && s->n_run > 1)
        youngest = s->run[0] == q ? s->run[1] : s->run[0];
    if (youngest == q) {
        CP_ASSERT(s->n_run == 1 && "sched-21"); /* else it was not worth it */
        return NULL;
    }
    CP_ASSERT(youngest->wait.order > q->wait.order && "sched-17");
    return youngest;
}
