/*
 * sched: slots, lists and the plan of one step.
 *
 * Order is age: the run list and the waiting list are kept oldest first. A plan gives every
 * decoding sequence its row, then prompts their chunks, then admits; where nothing decodes, prompts
 * take the rows that are left. Who needs pages takes them
 * from the youngest (or from one whose client does not read); the oldest can therefore always go
 * on, and if it cannot with the whole pool to itself, its request fails: no plan ever waits for a
 * page that nobody will give back.
 */
#include "engine/sched.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- open, close ---- */

static bool alloc_seqs(cp_sched *s)
{
    size_t n = (size_t)s->cfg.max_seqs;
    s->seqs = calloc(n, sizeof(*s->seqs));
    s->run = calloc(n, sizeof(cp_seq *));
    s->plan = calloc(n, sizeof(cp_seq *));
    s->order = calloc(n, sizeof(cp_seq *));
    s->takes = calloc(n, sizeof(*s->takes));
    if (!s->seqs || !s->run || !s->plan || !s->order || !s->takes)
        return false;
    for (int i = 0; i < s->cfg.max_seqs; i++) {
        s->seqs[i].slot = i;
        s->seqs[i].kv = -1;
        s->seqs[i].tokens = calloc((size_t)s->cfg.ctx, sizeof(int32_t));
        if (!s->seqs[i].tokens)
            return false;
    }
    return true;
}

cp_code cp_sched_open(cp_sched **out, const cp_sched_config *cfg, cp_err *err)
{
    if (cfg->ctx < 1 || cfg->max_seqs < 1 || cfg->prefill_chunk < 1 || cfg->max_lives < 1 ||
        cfg->max_out < 1)
        return cp_fail(err, CP_INVALID_VALUE,
                       "scheduler: ctx %d, max_seqs %d, prefill_chunk %d must be >= 1", cfg->ctx,
                       cfg->max_seqs, cfg->prefill_chunk);
    cp_sched *s = cp_xcalloc(1, sizeof(*s));
    s->cfg = *cfg;
    s->kv = cfg->kv;
    s->n_free_slots = cfg->max_seqs;
    s->waiting.prev = s->waiting.next = &s->waiting;
    s->all.prev = s->all.next = &s->all;
    s->lives = calloc((size_t)cfg->max_lives, sizeof(*s->lives));
    if (!s->lives || !alloc_seqs(s)) {
        cp_sched_close(s);
        return cp_fail(err, CP_NO_MEMORY, "no memory for %d sequences of %d positions",
                       cfg->max_seqs, cfg->ctx);
    }
    for (int i = cfg->max_lives; i-- > 0;) {
        s->lives[i].next = s->free_lives;
        s->free_lives = &s->lives[i];
    }
    *out = s;
    return CP_OK;
}

void cp_sched_close(cp_sched *s)
{
    if (!s)
        return;
    CP_ASSERT(s->n_lives == 0);
    for (int i = 0; s->seqs && i < s->cfg.max_seqs; i++)
        free(s->seqs[i].tokens);
    free(s->seqs);
    free(s->run);
    free(s->plan);
    free(s->order);
    free(s->takes);
    free(s->lives);
    free(s);
}

/* ---- lists and slots ---- */

void cp_wait_insert(cp_sched *s, cp_wait *w)
{
    cp_wait *at = s->waiting.prev; /* the new are young: search from the end */
    while (at != &s->waiting && at->order > w->order)
        at = at->prev;
    w->prev = at;
    w->next = at->next;
    at->next->prev = w;
    at->next = w;
    w->needs = -1;
    w->target = -1;
    s->n_waiting++;
    s->n_preempted += w->seq != NULL;
}

void cp_wait_remove(cp_sched *s, cp_wait *w)
{
    w->prev->next = w->next;
    w->next->prev = w->prev;
    s->n_waiting--;
    s->n_preempted -= w->seq != NULL;
}

cp_seq *cp_seq_take(cp_sched *s, cp_live *l, int choice)
{
    cp_seq *q = s->seqs;
    while (q->state != CP_SEQ_FREE)
        q++;
    CP_ASSERT(q < s->seqs + s->cfg.max_seqs && "sched-16");
    s->n_free_slots--;
    q->state = CP_SEQ_RUNNING;
    q->live = l;
    q->choice = choice;
    q->n_prompt = q->n_known = l->r->n_prompt;
    q->n_done = q->rows = q->outs = 0;
    q->outstanding = 0;
    q->forked = q->blocked = false;
    q->gen++;
    q->last_ns = 0;
    memcpy(q->tokens, l->r->prompt, sizeof(*q->tokens) * (size_t)q->n_prompt);
    cp_sample_ban(q);
    q->wait = (cp_wait){.order = l->arrival << 8 | (uint64_t)choice, .live = l, .seq = q};
    return q;
}

void cp_seq_start(cp_sched *s, cp_seq *q)
{
    int i = s->n_run++;
    q->state = CP_SEQ_RUNNING;
    while (i > 0 && s->run[i - 1]->wait.order > q->wait.order && !CP_PLANTED(105)) {
        s->run[i] = s->run[i - 1];
        i--;
    }
    s->run[i] = q;
    cp_seq_count_outstanding(s, q);
}

static void run_remove(cp_sched *s, cp_seq *q)
{
    int i = 0;
    while (s->run[i] != q)
        i++;
    memmove(s->run + i, s->run + i + 1, sizeof(cp_seq *) * (size_t)(s->n_run - i - 1));
    s->n_run--;
}

/* Ring records that q's rows in this plan may need. */
static int promised(const cp_seq *q)
{
    return q->outs > 0 ? q->outs + cp_live_finish_records(q->live) : 0;
}

/* Takes back what the plan had given q. */
static void ungrant(cp_sched *s, cp_seq *q)
{
    if (q->rows == 0)
        return;
    s->rows_left += q->rows;
    s->outs_left += q->outs;
    q->live->reserved -= promised(q);
    q->rows = q->outs = 0;
}

/* Leaves the run list; its pages go back. */
static void stop(cp_sched *s, cp_seq *q)
{
    ungrant(s, q);
    if (!CP_PLANTED(120))
        s->outstanding -= q->outstanding;
    q->outstanding = 0;
    cp_kv_seq_close(s->kv, q->kv);
    q->kv = -1;
    run_remove(s, q);
}

void cp_seq_free(cp_sched *s, cp_seq *q)
{
    CP_ASSERT(q->state != CP_SEQ_FREE && "sched-16");
    if (q->state == CP_SEQ_RUNNING)
        stop(s, q);
    else
        cp_wait_remove(s, &q->wait);
    q->state = CP_SEQ_FREE;
    q->rows = q->outs = 0;
    if (!(CP_PLANTED(116) && q->choice > 0))
        s->n_free_slots++;
}

void cp_seq_preempt(cp_sched *s, cp_seq *q)
{
    stop(s, q);
    q->state = CP_SEQ_PREEMPTED;
    q->n_done = 0;
    q->blocked = false;
    if (CP_PLANTED(106) && q->n_known > q->n_prompt)
        q->n_known--;
    cp_wait_insert(s, &q->wait);
    s->stats.preemptions++;
    s->preempted_now = true;
}

/* ---- what a sequence is after ---- */

bool cp_seq_scoring(const cp_seq *q)
{
    return q->live->r->n_prompt_top >= 0 && q->live->n_scored < q->n_prompt;
}

/* Whether q still has to let the request's other choices fork off, at n_prompt - 1. */
static bool fork_pending(const cp_seq *q)
{
    return !q->forked && q->live->next_choice < q->live->r->n && q->live->r->max_tokens > 0 &&
           q->n_known == q->n_prompt;
}

int cp_seq_goal(const cp_seq *q)
{
    bool short_of_last = q->live->r->max_tokens == 0 || fork_pending(q);
    return short_of_last ? q->n_prompt - 1 : q->n_known;
}

int cp_seq_out_first(const cp_seq *q)
{
    if (!cp_seq_scoring(q))
        return q->n_known - 1;
    return q->n_done > q->live->n_scored - 1 ? q->n_done : q->live->n_scored - 1;
}

int cp_sched_max_hit(const cp_live *l, int n_known)
{
    int hit = n_known - 1; /* the last row must be computed: its logits are wanted */
    if (l->r->n_prompt_top >= 0 && l->n_scored < l->r->n_prompt)
        return l->n_scored - 1 < hit ? l->n_scored - 1 : hit;
    if (l->r->no_prefix_reads && l->r->n_prompt_top < 0)
        return 0;
    return hit;
}

/* Checkpoints are wanted at every eighth page, and at the last page border before the prompt's
 * last token: there the same prompt, asked again, can go on. */
static int checkpoint_stride(const cp_sched *s)
{
    return CP_CHECKPOINT_PAGES * s->cfg.page_positions;
}

static int last_border(const cp_sched *s, const cp_seq *q)
{
    return (q->n_prompt - 1) / s->cfg.page_positions * s->cfg.page_positions;
}

bool cp_seq_wants_checkpoint(const cp_sched *s, const cp_seq *q, int end)
{
    return cp_kv_has_state(s->kv) && s->cfg.prefix_cache && end > 0 &&
           (end % checkpoint_stride(s) == 0 || end == last_border(s, q) || CP_PLANTED(15));
}

int cp_seq_next_checkpoint(const cp_sched *s, const cp_seq *q, int from)
{
    if (!cp_kv_has_state(s->kv) || !s->cfg.prefix_cache)
        return INT32_MAX;
    int stride = checkpoint_stride(s), next = (from / stride + 1) * stride;
    int border = last_border(s, q);
    return border > from && border < next ? border : next;
}

/* ---- granting rows ---- */

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
    int room = cp_live_room(q->live), outs = s->outs_left < room ? s->outs_left : room;
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

/* Its pages are there. */
static void give_rows(cp_sched *s, cp_seq *q, int rows)
{
    int first = cp_seq_out_first(q);
    q->rows = rows;
    q->outs = q->n_done + rows > first ? q->n_done + rows - first : 0;
    s->rows_left -= q->rows;
    s->outs_left -= q->outs;
    q->live->reserved += promised(q);
    cp_seq_count_outstanding(s, q);
}

void cp_seq_grant(cp_sched *s, cp_seq *q)
{
    int rows = rows_wanted(s, q, CP_PLANTED(102) ? INT32_MAX : s->cfg.prefill_chunk);
    if (rows <= 0)
        return;
    while (!cp_kv_grow(s->kv, q->kv, q->n_done + rows)) {
        int fit = rows_that_fit(s, q, rows);
        if (fit > 0 && fit < rows)
            rows = fit;
        else if (CP_PLANTED(104))
            break;
        else if (!cp_seq_make_room(s, q))
            return;
    }
    give_rows(s, q, rows);
}

/* Rows beyond its chunk for one that has some, in pages that neither it nor others will miss: what
 * prompts will still take is reckoned in chunks. */
static void extend(cp_sched *s, cp_seq *q)
{
    int P = s->cfg.page_positions, rows = q->rows;
    ungrant(s, q);
    int end = q->n_done + rows_wanted(s, q, INT32_MAX);
    while (end > q->n_done + rows && !cp_seq_may_take(s, q, end))
        end = (end - 1) / P * P;
    if (end > q->n_done + rows && cp_kv_grow(s->kv, q->kv, end))
        rows = end - q->n_done;
    give_rows(s, q, rows);
}

bool cp_sched_decodes(const cp_sched *s)
{
    for (int i = 0; i < s->n_run; i++) {
        const cp_seq *q = s->run[i];
        if (q->rows == 1 && q->n_known > q->n_prompt && q->n_known - q->n_done == 1)
            return true;
    }
    return false;
}

/* Nobody's next token waits for this step: prompts take what is left of it, the oldest first. */
static void extend_prompts(cp_sched *s)
{
    for (int i = 0; i < s->n_run && s->rows_left > 0 && !CP_PLANTED(123); i++)
        if (s->run[i]->rows > 0)
            extend(s, s->run[i]);
}

/* ---- forks ---- */

/* q stands at n_prompt - 1: the other choices share all it has computed. True if it did. */
bool cp_seq_fork(cp_sched *s, cp_seq *q)
{
    cp_live *l = q->live;
    if (!fork_pending(q) || q->n_done != q->n_prompt - 1)
        return false;
    while (l->next_choice < l->r->n && s->n_free_slots > 0) {
        cp_kv_seq kv = q->n_done > 0 && !CP_PLANTED(112) ? cp_kv_fork(s->kv, q->kv)
                                                         : cp_kv_seq_open(s->kv, l->r->salt);
        CP_ASSERT(kv >= 0 && "sched-16");
        cp_seq *c = cp_seq_take(s, l, l->next_choice++);
        c->kv = kv;
        c->n_done = cp_kv_done(s->kv, kv);
        c->forked = true;
        CP_ASSERT(c->n_done == q->n_done && "sched-12");
        cp_seq_start(s, c);
        s->stats.forks++;
    }
    q->forked = true;
    if (l->next_choice < l->r->n) { /* no slot: the rest start on their own */
        l->wait.order = l->arrival << 8 | (uint64_t)l->next_choice;
        l->waiting = true;
        cp_wait_insert(s, &l->wait);
    }
    return true;
}

/* ---- the plan ---- */

static void mark_blocked(cp_sched *s)
{
    for (int i = 0; i < s->n_run; i++)
        s->run[i]->live->reserved = 0;
    for (int i = 0; i < s->n_run; i++) {
        cp_seq *q = s->run[i];
        q->rows = q->outs = 0;
        q->blocked = cp_seq_out_first(q) <= q->n_done && cp_live_room(q->live) < 1;
    }
}

void cp_sched_grant_pass(cp_sched *s, bool decode)
{
    int n = s->n_run;
    memcpy(s->order, s->run, sizeof(cp_seq *) * (size_t)n);
    for (int i = 0; i < n && s->rows_left > 0; i++) {
        cp_seq *q = s->order[i];
        if (q->state != CP_SEQ_RUNNING || q->blocked || q->rows > 0)
            continue;
        if ((cp_seq_goal(q) - q->n_done == 1) == decode)
            cp_seq_grant(s, q);
    }
}

int cp_sched_plan(cp_sched *s, int row_budget)
{
    CP_ASSERT(row_budget >= 1);
    s->rows_left = row_budget;
    s->outs_left = s->cfg.max_out;
    s->preempted_now = false;
    s->n_plan = s->plan_rows = s->plan_outs = 0;
    memcpy(s->order, s->run, sizeof(cp_seq *) * (size_t)s->n_run);
    for (int i = 0, n = s->n_run; i < n; i++)
        cp_seq_fork(s, s->order[i]);
    mark_blocked(s);
    cp_sched_grant_pass(s, true);
    cp_sched_grant_pass(s, false);
    if (!s->preempted_now || s->n_run == 0)
        cp_sched_admit(s);
    s->spare = (int64_t)cp_kv_available(s->kv) - (int64_t)s->outstanding;
    if (!cp_sched_decodes(s))
        extend_prompts(s);
    for (int i = 0; i < s->n_run; i++) {
        cp_seq *q = s->run[i];
        if (q->rows == 0)
            continue;
        s->plan[s->n_plan++] = q;
        s->plan_rows += q->rows;
        s->plan_outs += q->outs;
    }
    CP_ASSERT(s->plan_rows + s->rows_left == row_budget && s->rows_left >= 0 && "sched-2");
    CP_ASSERT(s->plan_outs + s->outs_left == s->cfg.max_out && s->outs_left >= 0 && "sched-2");
    if (CP_PLANTED(113) && s->cfg.queue && s->arrivals % 16 == 0)
        atomic_fetch_sub(&s->cfg.queue->requests, 1);
    if (s->plan_rows > 0) {
        s->stats.steps++;
        s->stats.rows += (uint64_t)s->plan_rows;
    }
    return s->plan_rows;
}

bool cp_sched_busy(const cp_sched *s)
{
    return s->n_run > 0 || s->n_waiting > 0;
}

/* ---- results ---- */

/* Output row k of q; false: q is gone. */
static bool commit_row(cp_sched *s, cp_seq *q, const cp_sample_out *res, int pos)
{
    const cp_request *r = q->live->r;
    if (!res->finite) {
        cp_live_fail(s, q->live, CP_MODEL_FAILED);
        return false;
    }
    if (pos + 1 < q->n_known) {
        cp_live_prompt(s, q->live, res);
        return true;
    }
    if (cp_sample_stops(q, res->id)) {
        cp_seq_finish(s, q, CP_FINISH_STOP);
        return false;
    }
    cp_live_token(s, q, res);
    if (q->n_known - q->n_prompt >= r->max_tokens || q->n_known >= s->cfg.ctx) {
        cp_seq_finish(s, q, CP_FINISH_LENGTH);
        return false;
    }
    return true;
}

void cp_sched_commit(cp_sched *s, const cp_sample_out *results, int64_t now_ns)
{
    s->now_ns = now_ns;
    for (int i = 0; i < s->n_plan; i++) /* promises are kept now */
        s->plan[i]->live->reserved = 0;
    for (int i = 0; i < s->n_plan; i++) {
        cp_seq *q = s->plan[i];
        if (q->state != CP_SEQ_RUNNING || q->rows == 0)
            continue; /* its request has ended by a row before */
        int rows = q->rows, outs = q->outs, end = q->n_done + rows;
        q->rows = q->outs = 0;
        cp_kv_advance(s->kv, q->kv, q->tokens, end);
        q->n_done = CP_PLANTED(101) && end % 7 == 0 && end < q->n_known ? end + 1 : end;
        bool here = true;
        for (int k = 0; k < outs && here; k++)
            here = commit_row(s, q, &results[q->out0 + k], end - outs + k);
        if (here && q->live->r->max_tokens == 0 && end >= cp_seq_goal(q))
            cp_live_finish_all(s, q->live, q);
        else if (here)
            cp_seq_count_outstanding(s, q);
    }
    s->n_plan = s->plan_rows = s->plan_outs = 0;
}
