/*
 * sim: see sim.h. Layout of this file: truth (what each request must produce), shadow memory and
 * the fake forward, clients, the loop.
 */
#include "tests/sim/sim.h"

#include "base/mem.h"
#include "engine/events.h"
#include "engine/goal.h"
#include "engine/sched_check.h"
#include "engine/tasks.h"

#include <stdlib.h>
#include <string.h>

enum { N_VOCAB = 61, STOP_ID = 0, EOG_ID = 1, MAX_CHOICES = 24, MAX_NEW = 64, RING_MAX = 512 };

/* ---- random numbers and hashes: splitmix64 ---- */

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t chain(uint64_t h, int32_t tok)
{
    return mix(h ^ ((uint64_t)(uint32_t)tok << 1));
}

/* ---- truth ---- */

typedef struct truth {
    int n_new; /* tokens that the choice produces */
    cp_finish reason;
    int32_t tok[MAX_NEW];
    uint64_t h[MAX_NEW]; /* hash of the prefix that ends with tok[i] */
} truth;

typedef struct sim_req {
    cp_request r;
    int32_t *prompt; /* [ctx] */
    uint64_t *h;     /* [ctx] hash of the prefix that ends here */
    truth choice[MAX_CHOICES];
    int seen[MAX_CHOICES]; /* TOKEN events */
    bool finished[MAX_CHOICES];
    int n_finished, scored;
    bool slow, in_use, over, admitted;
    int64_t cancel_at; /* step; 0: never */
    uint8_t *ring_mem;
    int32_t stop_ids[2], eog_ids[1];
} sim_req;

typedef struct cell {
    int pos; /* -1: zeroed; -2: never written */
    int group;
    uint64_t h;
} cell;

typedef struct sim {
    const sim_config *cfg;
    cp_kv *kv;
    cp_sched *sched;
    cp_step step;
    cp_queue_count queue;
    uint64_t rng;
    int64_t now;
    sim_req *reqs;          /* [max_tasks] */
    cell *pages;            /* [n_pages][P] */
    cell *states;           /* [n_states] */
    int32_t *base;          /* [families][ctx] */
    uint64_t prompt_tokens; /* of requests that have ended after admission */
    uint64_t choices_over;  /* of requests that have ended */
    uint64_t *started;      /* [max_seqs] tenants of the slots before the plan */
    struct tenant {         /* whom a batch last named in a slot */
        uint32_t epoch;
        uint64_t age, step; /* of the choice; of the batch */
    } * tenants;            /* [max_seqs] */
    bool *ran;              /* [max_seqs] whether they ran then */
    int n_tasks;
    sim_result *out;
} sim;

static uint64_t rnd(sim *s)
{
    return mix(s->rng++);
}
static int below(sim *s, int n)
{
    return (int)(rnd(s) % (uint64_t)(n > 0 ? n : 1));
}
static bool chance(sim *s, int per_1000)
{
    return below(s, 1000) < per_1000;
}

/* What SAMPLE answers: a function of the prefix and the numbers that sampling may depend on. */
static int32_t draw(uint64_t h, uint64_t seed, uint32_t choice, uint64_t position,
                    const int32_t *banned, int n_banned)
{
    uint64_t x = mix(h ^ mix(seed + choice) ^ mix(position << 8));
    for (int tries = 0;; tries++) {
        int32_t id = (int32_t)(x % N_VOCAB);
        bool bad = false;
        for (int i = 0; i < n_banned; i++)
            bad = bad || banned[i] == id;
        if (!bad)
            return id;
        x = mix(x);
        CP_ASSERT(tries < 10000);
    }
}

static void make_truth(const sim_config *cfg, sim_req *q)
{
    const cp_sampling *p = &q->r.sampling;
    uint64_t h = q->r.salt[0];
    for (int i = 0; i < q->r.n_prompt; i++)
        q->h[i] = h = chain(h, q->prompt[i]);
    for (int c = 0; c < q->r.n; c++) {
        truth *t = &q->choice[c];
        *t = (truth){.reason = CP_FINISH_LENGTH};
        uint64_t hc = h;
        while (t->n_new < q->r.max_tokens && q->r.n_prompt + t->n_new < cfg->ctx) {
            int32_t both[2] = {EOG_ID, STOP_ID};
            int n_banned = t->n_new < p->min_tokens ? 2 : p->ignore_eos ? 1 : 0;
            int32_t id = draw(hc, p->seed, (uint32_t)c, (uint64_t)t->n_new, both, n_banned);
            if (id == STOP_ID || id == EOG_ID) {
                t->reason = CP_FINISH_STOP;
                break;
            }
            t->tok[t->n_new] = id;
            t->h[t->n_new++] = hc = chain(hc, id);
        }
    }
}

static uint64_t truth_hash(const sim_req *q, int choice, int pos)
{
    if (pos < 0)
        return 0;
    return pos < q->r.n_prompt ? q->h[pos] : q->choice[choice].h[pos - q->r.n_prompt];
}

static int32_t truth_token(const sim_req *q, int choice, int pos)
{
    return pos < q->r.n_prompt ? q->prompt[pos] : q->choice[choice].tok[pos - q->r.n_prompt];
}

/* ---- the fake forward ---- */

static cell *cell_at(sim *s, uint32_t page, int pos)
{
    return &s->pages[(size_t)page * (size_t)s->cfg->P + (size_t)(pos % s->cfg->P)];
}

static sim_req *req_of(const cp_seq *q)
{
    return q->task->r->user;
}

static void apply_lists(sim *s, const cp_batch *b)
{
    size_t bytes = sizeof(cell) * (size_t)s->cfg->P;
    for (int i = 0; i < b->n_zero_pages; i++) {
        CP_ASSERT(b->zero_pages[i] != 0 && "kv-2");
        for (int k = 0; k < s->cfg->P; k++)
            *cell_at(s, b->zero_pages[i], k) = (cell){.pos = -1};
    }
    for (int i = 0; i < b->n_copies; i++) {
        CP_ASSERT(b->copies[i].src != 0 && b->copies[i].dst != 0 && "kv-2");
        memcpy(cell_at(s, b->copies[i].dst, 0), cell_at(s, b->copies[i].src, 0), bytes);
    }
}

/* The state that a sequence reads is that of the position before its first row. */
static void check_state_in(sim *s, const cp_batch_seq *bs, const cp_seq *q)
{
    if (!cp_kv_has_state(s->kv))
        return;
    CP_ASSERT(bs->state_out != 0 && bs->state_out != bs->state_save && "kv-14");
    CP_ASSERT((bs->state_in == 0) == (bs->pos0 == 0) && "kv-15");
    if (bs->state_in == 0)
        return;
    const cell *c = &s->states[bs->state_in];
    CP_ASSERT(c->pos == bs->pos0 - 1 && "kv-15");
    CP_ASSERT(c->h == truth_hash(req_of(q), q->choice, c->pos) && "kv-15 kv-14 kv-9 kv-11");
}

/* What a backend keeps by slot and epoch is of one choice, and each slot is named once. */
static void check_tenant(sim *s, const cp_batch_seq *bs, const cp_seq *q)
{
    CP_ASSERT(bs->slot >= 0 && bs->slot < s->cfg->max_seqs && "sched-25");
    struct tenant *t = &s->tenants[bs->slot];
    CP_ASSERT((t->age == 0 || t->epoch != bs->epoch || t->age == q->wait.order) && "sched-25");
    CP_ASSERT(t->step != s->sched->stats.steps + 1 && "sched-25");
    CP_ASSERT(bs->n_tokens >= bs->pos0 + bs->n_rows && bs->tokens == q->tokens && "sched-25");
    *t = (struct tenant){bs->epoch, q->wait.order, s->sched->stats.steps + 1};
}

static void write_rows(sim *s, const cp_batch *b, int i, const cp_seq *q)
{
    const cp_batch_seq *bs = &b->seqs[i];
    const sim_req *req = req_of(q);
    for (int k = 0; k < bs->n_rows; k++) {
        int row = bs->row0 + k, pos = bs->pos0 + k;
        CP_ASSERT(b->pos[row] == pos && b->row_seq[row] == i && "sched-3");
        CP_ASSERT(b->tok[row] == truth_token(req, q->choice, pos) && "sched-3 sched-6");
        for (int g = 0; g < s->cfg->n_groups; g++) {
            if (!bs->pages[g])
                continue;
            uint32_t page = bs->pages[g][pos / s->cfg->P];
            CP_ASSERT(page != 0 && "sched-4");
            *cell_at(s, page, pos) = (cell){pos, g, truth_hash(req, q->choice, pos)};
        }
    }
    int end = bs->pos0 + bs->n_rows - 1;
    cell state = {end, 0, truth_hash(req, q->choice, end)};
    if (bs->state_out)
        s->states[bs->state_out] = state;
    if (bs->state_save)
        s->states[bs->state_save] = state;
}

/* Everything that the rows of a sequence can see, through its page tables. */
static void check_reads(sim *s, const cp_batch_seq *bs, const cp_seq *q)
{
    const sim_req *req = req_of(q);
    int P = s->cfg->P, last = bs->pos0 + bs->n_rows - 1;
    for (int g = 0; g < s->cfg->n_groups; g++) {
        const cp_kv_group *grp = &s->cfg->groups[g];
        if (grp->kind == CP_GROUP_STATE)
            continue;
        int low = grp->kind == CP_GROUP_WINDOW ? bs->pos0 - grp->window + 1 : 0;
        for (int pos = low > 0 ? low : 0; pos <= last; pos++) {
            uint32_t page = bs->pages[g][pos / P];
            CP_ASSERT(page != 0 && "kv-1");
            const cell *c = cell_at(s, page, pos);
            CP_ASSERT(c->group == g && c->pos == pos && "kv-5 kv-8 kv-9");
            CP_ASSERT(c->h == truth_hash(req, q->choice, pos) && "kv-7 kv-8 kv-9 kv-10 kv-11");
        }
        for (int pos = last + 1; pos % P != 0; pos++)
            CP_ASSERT(cell_at(s, bs->pages[g][pos / P], pos)->pos == -1 && "kv-6");
        if (grp->kind != CP_GROUP_WINDOW)
            continue;
        uint32_t used = 0;
        for (int i = 0; i <= last / P; i++)
            used += bs->pages[g][i] != 0;
        int bound = (grp->window + s->cfg->max_batch_rows + P - 1) / P + 2;
        CP_ASSERT((int)used <= bound && "kv-1");
        if (used > s->out->max_window_pages)
            s->out->max_window_pages = used;
    }
}

static void sample(sim *s, const cp_batch *b)
{
    for (int o = 0; o < b->n_out; o++) {
        const cp_sample_in *in = &b->samples[o];
        const cp_seq *q = s->sched->plan[b->row_seq[b->out_rows[o]]];
        const sim_req *req = req_of(q);
        int pos = b->pos[b->out_rows[o]];
        uint64_t h = truth_hash(req, q->choice, pos);
        CP_ASSERT((o == 0 || b->out_rows[o] > b->out_rows[o - 1]) && "sched-3");
        cp_sample_out *res = &b->results[o];
        *res = (cp_sample_out){.finite = true, .id = in->target, .logprob = (float)(h % 1000)};
        if (in->target >= 0)
            continue;
        uint64_t seen = req->r.salt[0]; /* the history must be the prefix */
        for (int i = 0; i < in->n_tokens; i++)
            seen = chain(seen, in->tokens[i]);
        CP_ASSERT(seen == h && in->n_prompt == req->r.n_prompt && "sched-6");
        res->id = draw(h, in->seed, in->choice, in->position, in->banned, in->n_banned);
    }
}

static void forward(sim *s)
{
    cp_step_build(&s->step, s->sched);
    const cp_batch *b = &s->step.batch;
    apply_lists(s, b);
    for (int i = 0; i < b->n_seqs; i++) {
        check_tenant(s, &b->seqs[i], s->sched->plan[i]);
        check_state_in(s, &b->seqs[i], s->sched->plan[i]);
    }
    for (int i = 0; i < b->n_seqs; i++)
        write_rows(s, b, i, s->sched->plan[i]);
    for (int i = 0; i < b->n_seqs; i++)
        check_reads(s, &b->seqs[i], s->sched->plan[i]);
    sample(s, b);
    cp_kv_check(s->kv);
    cp_kv_step_sent(s->kv);
    cp_kv_step_done(s->kv);
}

/* ---- clients ---- */

static void make_prompt(sim *s, sim_req *q)
{
    const sim_config *c = s->cfg;
    const int32_t *base = s->base + (size_t)below(s, c->families) * (size_t)c->ctx;
    q->r.n_prompt = 1 + below(s, c->max_prompt);
    int shared = below(s, q->r.n_prompt + 1);
    if (chance(s, 400))
        shared = q->r.n_prompt;
    for (int i = 0; i < q->r.n_prompt; i++)
        q->prompt[i] = i < shared ? base[i] : 2 + below(s, N_VOCAB - 2);
}

static void arrive(sim *s)
{
    const sim_config *c = s->cfg;
    sim_req *q = s->reqs;
    while (q->in_use)
        q++;
    int32_t *prompt = q->prompt;
    uint64_t *h = q->h;
    uint8_t *ring_mem = q->ring_mem;
    *q = (sim_req){.prompt = prompt, .h = h, .ring_mem = ring_mem, .in_use = true};
    q->stop_ids[0] = STOP_ID;
    q->stop_ids[1] = q->eog_ids[0] = EOG_ID;
    cp_request *r = &q->r;
    r->prompt = prompt;
    r->user = q;
    make_prompt(s, q);
    r->n = chance(s, 300) ? 1 + below(s, c->max_choices) : 1;
    r->max_tokens = 1 + below(s, c->max_new);
    if (r->n_prompt + r->max_tokens > c->ctx)
        r->max_tokens = c->ctx - r->n_prompt;
    r->n_prompt_top = -1;
    if (chance(s, c->per_1000_score)) {
        r->n_prompt_top = below(s, 3);
        r->no_prefix_reads = true;
    }
    if (chance(s, 30))
        r->max_tokens = 0;
    r->sampling = (cp_sampling){.seed = rnd(s) % 5,
                                .stop_ids = q->stop_ids,
                                .n_stop_ids = 2,
                                .eog_ids = q->eog_ids,
                                .n_eog_ids = 1,
                                .min_tokens = chance(s, 200) ? below(s, 8) : 0,
                                .n_top = -1};
    if (chance(s, 200)) {
        r->sampling.ignore_eos = true;
        r->sampling.n_stop_ids = 1;
    }
    r->salt[0] = (uint8_t)chance(s, 200);
    q->slow = chance(s, c->per_1000_slow);
    if (chance(s, c->per_1000_deadline))
        r->deadline_ns = s->now + 1 + below(s, 60);
    if (chance(s, c->per_1000_cancel))
        q->cancel_at = s->now + below(s, 40);
    uint32_t cap = q->slow ? 8 : 64;
    while (r->max_tokens == 0 && cap < (uint32_t)r->n + 4)
        cap *= 2;
    cp_ring_init(&r->ring, ring_mem, sizeof(cp_event), cap);
    atomic_store(&r->refs, 2);
    make_truth(c, q);
    atomic_fetch_add(&s->queue.requests, 1);
    atomic_fetch_add(&s->queue.tokens, r->n_prompt);
    CP_ASSERT(cp_tasks_submit(s->sched, r, s->now) && "sched-8");
    s->n_tasks++;
    s->out->requests++;
}

static void on_finish(sim *s, sim_req *q, const cp_event *ev)
{
    const truth *t = &q->choice[ev->choice];
    CP_ASSERT(!q->finished[ev->choice] && "sched-8");
    q->finished[ev->choice] = true;
    q->n_finished++;
    if (ev->reason == CP_FINISH_CANCELLED) {
        CP_ASSERT(atomic_load(&q->r.cancel) && "sched-8");
        return;
    }
    CP_ASSERT(ev->reason == t->reason && q->seen[ev->choice] == t->n_new && "sched-8 sched-6");
    CP_ASSERT((q->r.n_prompt_top < 0 || q->scored == q->r.n_prompt - 1) && "sched-8");
    s->out->finished++;
}

static void on_error(sim *s, sim_req *q, const cp_event *ev)
{
    if (ev->code == CP_DEADLINE) {
        CP_ASSERT(q->r.deadline_ns != 0 && s->now >= q->r.deadline_ns && "sched-8");
        s->out->expired++;
        return;
    }
    CP_ASSERT(ev->code == CP_NO_MEMORY && s->cfg->may_run_out && "sched-9");
    int most = 0;
    for (int c = 0; c < q->r.n; c++)
        most = q->choice[c].n_new > most ? q->choice[c].n_new : most;
    uint32_t need = cp_kv_pages_for(s->cfg->groups, s->cfg->n_groups, s->cfg->P,
                                    q->r.n_prompt + most, s->cfg->prefill_chunk);
    CP_ASSERT(need > s->cfg->n_pages - 1 && "sched-9"); /* it could never have fitted */
    s->out->out_of_memory++;
}

static void on_event(sim *s, sim_req *q, const cp_event *ev)
{
    CP_ASSERT(!q->over && "sched-8");
    switch ((cp_event_type)ev->type) {
    case CP_EV_TOKEN: {
        const truth *t = &q->choice[ev->choice];
        CP_ASSERT(ev->pos == q->seen[ev->choice] && !q->finished[ev->choice] && "sched-6 sched-8");
        CP_ASSERT(ev->pos < t->n_new && ev->id == t->tok[ev->pos] && "sched-6");
        q->seen[ev->choice]++;
        s->out->tokens++;
        break;
    }
    case CP_EV_PROMPT:
        CP_ASSERT(ev->pos == ++q->scored && ev->id == q->prompt[ev->pos] && "sched-8");
        CP_ASSERT(ev->logprob == (float)(q->h[ev->pos - 1] % 1000) && "sched-8");
        s->out->prompt_scores++;
        break;
    case CP_EV_FINISH:
        on_finish(s, q, ev);
        break;
    case CP_EV_ERROR:
        on_error(s, q, ev);
        q->over = true;
        break;
    case CP_EV_END:
        CP_ASSERT((q->n_finished == q->r.n || atomic_load(&q->r.cancel)) && "sched-8");
        s->out->cancelled += atomic_load(&q->r.cancel);
        q->over = true;
        break;
    }
}

static void read_rings(sim *s, bool all)
{
    for (int i = 0; i < s->cfg->max_tasks; i++) {
        sim_req *q = &s->reqs[i];
        cp_event ev;
        if (!q->in_use || (!all && !chance(s, q->slow ? 60 : 700)))
            continue;
        while (cp_ring_pop(&q->r.ring, &ev))
            on_event(s, q, &ev);
        if (q->over && atomic_load(&q->r.refs) == 1) {
            q->in_use = false;
            s->n_tasks--;
        }
    }
}

static void set_cancels(sim *s)
{
    for (int i = 0; i < s->cfg->max_tasks; i++) {
        sim_req *q = &s->reqs[i];
        if (q->in_use && q->cancel_at && s->now >= q->cancel_at)
            atomic_store(&q->r.cancel, true);
    }
}

/* ---- the loop ---- */

static void sim_open(sim *s)
{
    const sim_config *c = s->cfg;
    cp_err err;
    cp_kv_config kv = {.groups = c->groups,
                       .n_groups = c->n_groups,
                       .page_positions = c->P,
                       .n_pages = c->n_pages,
                       .n_state_slots = c->n_states,
                       .max_seqs = c->max_seqs,
                       .max_positions = c->ctx,
                       .prefix_cache = c->prefix_cache};
    CP_ASSERT(cp_kv_open(&s->kv, &kv, &err) == CP_OK);
    cp_sched_config sc = {.kv = s->kv,
                          .groups = c->groups,
                          .n_groups = c->n_groups,
                          .page_positions = c->P,
                          .ctx = c->ctx,
                          .max_seqs = c->max_seqs,
                          .prefill_chunk = c->prefill_chunk,
                          .max_out = c->max_out,
                          .max_tasks = c->max_tasks,
                          .prefix_cache = c->prefix_cache,
                          .queue = &s->queue};
    CP_ASSERT(cp_sched_open(&s->sched, &sc, &err) == CP_OK);
    CP_ASSERT(cp_step_init(&s->step, c->max_batch_rows, c->max_out, c->max_seqs, &err) == CP_OK);
    size_t cells = (size_t)c->n_pages * (size_t)c->P;
    s->pages = cp_xcalloc(cells, sizeof(*s->pages));
    s->states = cp_xcalloc((size_t)c->n_states + 1, sizeof(*s->states));
    for (size_t i = 0; i < cells; i++)
        s->pages[i].pos = -2;
    s->base = cp_xcalloc((size_t)c->families * (size_t)c->ctx, sizeof(*s->base));
    for (size_t i = 0; i < (size_t)c->families * (size_t)c->ctx; i++)
        s->base[i] = 2 + below(s, N_VOCAB - 2);
    s->started = cp_xcalloc((size_t)c->max_seqs, sizeof(*s->started));
    s->tenants = cp_xcalloc((size_t)c->max_seqs, sizeof(*s->tenants));
    s->ran = cp_xcalloc((size_t)c->max_seqs, sizeof(*s->ran));
    s->reqs = cp_xcalloc((size_t)c->max_tasks, sizeof(*s->reqs));
    for (int i = 0; i < c->max_tasks; i++) {
        s->reqs[i].prompt = cp_xcalloc((size_t)c->ctx, sizeof(int32_t));
        s->reqs[i].h = cp_xcalloc((size_t)c->ctx, sizeof(uint64_t));
        s->reqs[i].ring_mem = cp_xcalloc(RING_MAX, sizeof(cp_event));
    }
}

static void sim_close(sim *s)
{
    cp_sched_close(s->sched);
    cp_kv_close(s->kv);
    cp_step_fini(&s->step);
    for (int i = 0; i < s->cfg->max_tasks; i++) {
        free(s->reqs[i].prompt);
        free(s->reqs[i].h);
        free(s->reqs[i].ring_mem);
    }
    free(s->reqs);
    free(s->started);
    free(s->tenants);
    free(s->ran);
    free(s->base);
    free(s->pages);
    free(s->states);
}

static void see_who_runs(sim *s)
{
    for (int i = 0; i < s->sched->cfg.max_seqs; i++)
        s->ran[i] = s->sched->seqs[i].state == CP_SEQ_RUNNING;
}

/* It ran before this plan, and a row is all that it lacks. */
static bool needs_a_row(const sim *s, const cp_seq *q)
{
    bool old = s->ran[q->slot] && s->started[q->slot] == q->gen;
    return old && !q->blocked && q->rows == 0 && cp_events_room(q->task) >= 1;
}

/* Time is no reason to keep anybody waiting who makes the next token, nor all prompts. */
static void check_least(const sim *s)
{
    const cp_sched *d = s->sched;
    bool prompt_runs = false, prompt_waits = false;
    for (int i = 0; i < d->n_run; i++) {
        const cp_seq *q = d->run[i];
        bool decodes = cp_seq_goal(q) - q->n_done == 1;
        CP_ASSERT(!(decodes && needs_a_row(s, q)) && "sched-24");
        prompt_runs |= !decodes && q->rows > 0;
        prompt_waits |= !decodes && needs_a_row(s, q);
    }
    CP_ASSERT((prompt_runs || !prompt_waits || d->outs_left == 0) && "sched-24");
}

/* What only a look at the step before shows: no chunk runs over a wanted checkpoint, and nobody
 * started past an older entry that could have used the pages. */
static void check_plan(sim *s)
{
    const cp_sched *d = s->sched;
    uint64_t oldest = UINT64_MAX;
    for (const cp_wait *w = d->waiting.next; w != &d->waiting && oldest == UINT64_MAX;
         w = w->next) {
        bool no_slot = !w->seq && d->n_free_slots == 0;
        if (!no_slot && w->target < 0 && cp_events_room(w->task) >= 1 &&
            !(w->seq && d->preempted_now))
            oldest = w->order;
    }
    for (int i = 0; i < d->n_run; i++) {
        const cp_seq *q = d->run[i];
        bool fresh = s->started[q->slot] != q->gen;
        CP_ASSERT(!(fresh && !q->forked && q->wait.order > oldest) && "sched-18");
        if (q->rows > 0)
            CP_ASSERT(q->n_done + q->rows <= cp_seq_next_checkpoint(d, q, q->n_done) && "sched-15");
    }
    check_least(s);
    for (int i = 0; i < d->cfg.max_seqs; i++)
        s->started[i] = d->seqs[i].gen;
}

/* Prompt tokens are counted once a request, and each choice that has ended under one reason,
 * whatever became of them. */
static void check_counted(sim *s)
{
    const cp_sched_stats *st = &s->sched->stats;
    uint64_t sum = s->prompt_tokens, over = s->choices_over;
    for (const cp_task *t = s->sched->all.next; t != &s->sched->all; t = t->next) {
        sum += t->n_cached >= 0 ? (uint64_t)t->r->n_prompt : 0;
        if (t->ended && t->n_cached >= 0)
            s->prompt_tokens += (uint64_t)t->r->n_prompt;
        over += (uint64_t)(t->ended ? t->r->n : t->n_finished);
        s->choices_over += t->ended ? (uint64_t)t->r->n : 0;
    }
    CP_ASSERT(sum == st->prompt_tokens && "sched-14");
    CP_ASSERT(over == st->finished_stop + st->finished_length + st->finished_cancelled +
                          st->finished_error &&
              "sched-22");
}

static void sim_step(sim *s)
{
    set_cancels(s);
    cp_sched_sweep(s->sched, s->now);
    see_who_runs(s);
    bool hurry = chance(s, s->cfg->per_1000_hurry);
    int rows =
        cp_sched_plan(s->sched, hurry ? 1 + below(s, s->cfg->max_seqs) : s->cfg->max_batch_rows);
    cp_sched_check(s->sched, true);
    check_plan(s);
    if (rows > 0) {
        forward(s);
        cp_sched_commit(s->sched, s->step.results, s->now);
    }
    cp_kv_check(s->kv);
    check_counted(s);
    cp_tasks_flush(s->sched, NULL);
    cp_sched_check(s->sched, false);
}

void sim_run(const sim_config *cfg, sim_result *out)
{
    sim s = {.cfg = cfg, .rng = mix(cfg->seed), .out = out};
    *out = (sim_result){0};
    sim_open(&s);
    int64_t idle = 0;
    while (s.now < cfg->n_steps || s.n_tasks > 0) {
        s.now++;
        bool more = s.now < cfg->n_steps && (!cfg->n_requests || out->requests < cfg->n_requests);
        if (!more && cfg->n_requests && s.n_tasks == 0)
            break;
        /* load breathes: phases of pressure and of quiet */
        int load = s.now / 512 % 4 == 3 ? 20 : 250;
        while (more && s.n_tasks < cfg->max_tasks && chance(&s, load)) {
            arrive(&s);
            more = !cfg->n_requests || out->requests < cfg->n_requests;
        }
        sim_step(&s);
        read_rings(&s, !more && idle > 100);
        idle = more ? 0 : idle + 1;
        CP_ASSERT(idle < 200000 && "sched-9"); /* everybody ends */
    }
    out->steps = s.now;
    out->sched = s.sched->stats;
    cp_kv_stats_get(s.kv, &out->kv);
    CP_ASSERT(out->kv.pages_used == 0 && out->kv.states_used == 0 && "kv-3");
    sim_close(&s);
}

/* ---- shapes ---- */

#define FULL                                                                                       \
    {                                                                                              \
        .kind = CP_GROUP_FULL, .n_layers = 3, .n_kv = 1, .k_dim = 2, .v_dim = 2                    \
    }
#define WINDOW(w)                                                                                  \
    {                                                                                              \
        .kind = CP_GROUP_WINDOW, .n_layers = 3, .n_kv = 1, .k_dim = 2, .v_dim = 2, .window = w     \
    }
#define STATE                                                                                      \
    {                                                                                              \
        .kind = CP_GROUP_STATE, .n_layers = 2, .state_bytes = 64                                   \
    }

static const sim_config shapes[] = {
    {.name = "full",
     .groups = {FULL},
     .n_groups = 1,
     .P = 4,
     .ctx = 80,
     .max_seqs = 8,
     .max_tasks = 24,
     .prefill_chunk = 6,
     .max_batch_rows = 20,
     .max_out = 10,
     .n_pages = 41,
     .prefix_cache = true,
     .max_prompt = 50,
     .max_new = 30,
     .max_choices = 12,
     .families = 5,
     .per_1000_cancel = 160,
     .per_1000_deadline = 30,
     .per_1000_score = 60,
     .per_1000_slow = 80,
     .per_1000_hurry = 300},
    {.name = "gemma-like",
     .groups = {FULL, WINDOW(12), WINDOW(12), WINDOW(12), WINDOW(12), WINDOW(12)},
     .n_groups = 6,
     .P = 4,
     .ctx = 80,
     .max_seqs = 8,
     .max_tasks = 24,
     .prefill_chunk = 6,
     .max_batch_rows = 20,
     .max_out = 10,
     .n_pages = 121,
     .prefix_cache = true,
     .max_prompt = 50,
     .max_new = 30,
     .max_choices = 12,
     .families = 5,
     .per_1000_cancel = 160,
     .per_1000_deadline = 30,
     .per_1000_score = 60,
     .per_1000_slow = 80,
     .per_1000_hurry = 300},
    {.name = "lfm2-like",
     .groups = {FULL, STATE},
     .n_groups = 2,
     .P = 4,
     .ctx = 80,
     .max_seqs = 8,
     .max_tasks = 24,
     .prefill_chunk = 6,
     .max_batch_rows = 20,
     .max_out = 10,
     .n_pages = 41,
     .n_states = 17,
     .prefix_cache = true,
     .max_prompt = 50,
     .max_new = 30,
     .max_choices = 12,
     .families = 5,
     .per_1000_cancel = 160,
     .per_1000_deadline = 30,
     .per_1000_score = 60,
     .per_1000_slow = 80,
     .per_1000_hurry = 300},
};

const sim_config *sim_shape(int i)
{
    return i >= 0 && i < (int)(sizeof(shapes) / sizeof(*shapes)) ? &shapes[i] : NULL;
}
