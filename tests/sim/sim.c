/*
 * sim: see sim.h. Layout of this file: truth (what each request must produce), shadow memory and
 * the fake forward, clients, the loop.
 */
#include "tests/sim/sim.h"

#include "base/mem.h"
#include "engine/events.h"
#include "engine/goal.h"
#include "engine/sched_check.h"
#include "engine/seqs.h"
#include "engine/tasks.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_BANNED = 3,
    N_VOCAB = 61,
    STOP_ID = 0,
    EOG_ID = 1,
    MAX_CHOICES = 24,
    MAX_NEW = 64,
    RING_MAX = 512
};

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
    bool draft; /* written for a token that may turn out not to be one */
    uint64_t h;
} cell;

/* ---- the device: what a backend keeps of its own ---- */

/* A sequence's part of a step, as the backend copied it when the step was submitted. */
typedef struct dev_part {
    cp_batch_seq bs;
    int n_known; /* tokens of the list below */
    uint64_t salt;
    int32_t *tok;    /* [ctx] known tokens and drafts */
    uint32_t *table; /* [n_groups][max_blocks] */
} dev_part;

typedef struct dev_step {
    cp_step step;
    dev_part *parts;      /* [max_seqs] */
    cp_page_copy *copies; /* [max_seqs * n_groups] */
    uint32_t *fresh;      /* [n_pages] */
    int n_copies, n_fresh;
    int32_t (*banned)[MAX_BANNED]; /* [max_out] */
} dev_step;

/* Tokens of the sequence that a slot holds, as far as they were uploaded, drafted or sampled, and
 * the hashes of their prefixes. */
typedef struct dev_seq {
    uint32_t epoch;
    int32_t *tok; /* [ctx + 1] */
    uint64_t *h;  /* [ctx] */
    int n_h;
} dev_seq;

typedef struct sim {
    const sim_config *cfg;
    cp_kv *kv;
    cp_sched *sched;
    dev_step steps[CP_KV_MAX_DEPTH];
    int64_t n_sent, n_run;
    dev_seq *slots; /* [max_seqs] */
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

static int32_t truth_token(const sim_req *q, int choice, int pos)
{
    return pos < q->r.n_prompt ? q->prompt[pos] : q->choice[choice].tok[pos - q->r.n_prompt];
}

/* ---- submit: check, and copy ---- */

static cell *cell_at(sim *s, uint32_t page, int pos)
{
    return &s->pages[(size_t)page * (size_t)s->cfg->P + (size_t)(pos % s->cfg->P)];
}

static int max_blocks(const sim *s)
{
    return (s->cfg->ctx + s->cfg->P - 1) / s->cfg->P;
}

static sim_req *req_of(const cp_seq *q)
{
    return q->task->r->user;
}

/* The tokens of the rows are those that the sequence must have there: drafts are anybody's guess,
 * and a pending one is named by its place. */
static void check_rows(const cp_batch *b, int i, const cp_seq *q)
{
    const cp_batch_seq *bs = &b->seqs[i];
    for (int k = 0; k < bs->n_rows; k++) {
        int row = bs->row0 + k, pos = bs->pos0 + k;
        CP_ASSERT(b->pos[row] == pos && b->row_seq[row] == i && "sched-3");
        if (pos < q->n_known)
            CP_ASSERT(b->tok[row] == truth_token(req_of(q), q->choice, pos) &&
                      "sched-3 sched-6 sched-28");
        else if (pos >= q->n_known + q->n_spec)
            CP_ASSERT(b->tok[row] == CP_TOK_PREV && q->n_pending > 0 && "sched-26");
    }
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

/* What an output row says of its history is the prefix that it continues. */
static void check_history(const cp_batch *b, int o, const cp_seq *q)
{
    const cp_sample_in *in = &b->samples[o];
    int pos = b->pos[b->out_rows[o]];
    CP_ASSERT((o == 0 || b->out_rows[o] > b->out_rows[o - 1]) && "sched-3");
    CP_ASSERT((in->target >= 0) == (pos + 1 < q->n_prompt) && "sched-28");
    if (in->target >= 0)
        return;
    CP_ASSERT(in->n_prompt == q->n_prompt && in->n_tokens == pos + 1 && "sched-6");
    CP_ASSERT(in->position == (uint64_t)(pos + 1 - q->n_prompt) && "sched-6 sched-28");
    for (int p = 0; p <= pos && p < q->n_known; p++)
        CP_ASSERT(in->tokens[p] == truth_token(req_of(q), q->choice, p) && "sched-6");
}

static void copy_part(sim *s, dev_part *p, const cp_batch_seq *bs, const cp_seq *q)
{
    p->bs = *bs;
    p->salt = req_of(q)->r.salt[0];
    p->n_known = q->n_known;
    memcpy(p->tok, q->tokens, sizeof(*p->tok) * (size_t)(q->n_known + q->n_spec));
    for (int g = 0; g < s->cfg->n_groups; g++) {
        int n;
        const uint32_t *table = cp_kv_pages(s->kv, q->kv, g, &n);
        if (table)
            memcpy(p->table + (size_t)g * (size_t)max_blocks(s), table, sizeof(*table) * (size_t)n);
    }
}

static void zero(sim *s, const dev_step *d)
{
    for (int i = 0; i < d->n_fresh; i++) {
        CP_ASSERT(d->fresh[i] != 0 && "kv-2");
        for (int k = 0; k < s->cfg->P; k++)
            *cell_at(s, d->fresh[i], k) = (cell){.pos = -1};
    }
}

/* What was handed out for this step is named by no step in flight. */
static void check_not_in_flight(sim *s, uint32_t page)
{
    for (int64_t k = s->n_run; k < s->n_sent && !s->cfg->in_order; k++) {
        const dev_step *d = &s->steps[k % s->cfg->depth];
        for (int i = 0; i < d->step.batch.n_seqs; i++) {
            const dev_part *p = &d->parts[i];
            int last = (p->bs.pos0 + p->bs.n_rows - 1) / s->cfg->P;
            for (int g = 0; g < s->cfg->n_groups; g++) {
                const uint32_t *table = p->table + (size_t)g * (size_t)max_blocks(s);
                bool paged = s->cfg->groups[g].kind != CP_GROUP_STATE;
                for (int at = 0; paged && at <= last; at++)
                    CP_ASSERT(table[at] != page && "kv-17");
            }
        }
    }
}

static void submit(sim *s)
{
    dev_step *d = &s->steps[s->n_sent % s->cfg->depth];
    cp_step_build(&d->step, s->sched);
    const cp_batch *b = &d->step.batch;
    d->n_fresh = b->n_zero_pages;
    memcpy(d->fresh, b->zero_pages, sizeof(*d->fresh) * (size_t)b->n_zero_pages);
    d->n_copies = b->n_copies;
    memcpy(d->copies, b->copies, sizeof(*d->copies) * (size_t)b->n_copies);
    for (int i = 0; i < b->n_seqs; i++) {
        check_tenant(s, &b->seqs[i], s->sched->plan[i]);
        check_rows(b, i, s->sched->plan[i]);
        copy_part(s, &d->parts[i], &b->seqs[i], s->sched->plan[i]);
    }
    for (int i = 0; i < d->n_fresh; i++)
        check_not_in_flight(s, d->fresh[i]);
    for (int i = 0; i < d->n_copies; i++)
        check_not_in_flight(s, d->copies[i].dst);
    for (int o = 0; o < b->n_out; o++) {
        cp_sample_in *in = &d->step.samples[o];
        check_history(b, o, s->sched->plan[b->row_seq[b->out_rows[o]]]);
        CP_ASSERT(in->n_banned <= MAX_BANNED);
        for (int i = 0; i < in->n_banned; i++)
            d->banned[o][i] = in->banned[i];
        in->banned = d->banned[o];
    }
    if (!s->cfg->in_order)
        zero(s, d);
    cp_kv_check(s->kv);
    s->n_sent++;
}

/* ---- the step runs ---- */

static void copy_pages(sim *s, const dev_step *d)
{
    size_t bytes = sizeof(cell) * (size_t)s->cfg->P;
    for (int i = 0; i < d->n_copies; i++) {
        CP_ASSERT(d->copies[i].src != 0 && d->copies[i].dst != 0 && "kv-2");
        memcpy(cell_at(s, d->copies[i].dst, 0), cell_at(s, d->copies[i].src, 0), bytes);
    }
}

static uint64_t hash_at(const dev_seq *v, int pos)
{
    return pos < 0 ? 0 : v->h[pos];
}

/* The slot's token list takes the rows' tokens; a new tenant's is uploaded. */
static void take_tokens(sim *s, const dev_step *d, const dev_part *p)
{
    dev_seq *v = &s->slots[p->bs.slot];
    const int32_t *tok = d->step.batch.tok + p->bs.row0;
    int end = p->bs.pos0 + p->bs.n_rows;
    if (v->epoch != p->bs.epoch) {
        v->epoch = p->bs.epoch;
        v->n_h = 0;
        memcpy(v->tok, p->tok, sizeof(*v->tok) * (size_t)p->n_known);
    }
    for (int pos = 0; pos < end; pos++) {
        int32_t id = v->tok[pos];
        if (pos >= p->bs.pos0 && tok[pos - p->bs.pos0] != CP_TOK_PREV)
            id = tok[pos - p->bs.pos0];
        CP_ASSERT((pos >= p->n_known || id == p->tok[pos]) && "sched-6 sched-26");
        if (pos >= v->n_h || v->tok[pos] != id) {
            v->tok[pos] = id;
            v->h[pos] = chain(pos ? v->h[pos - 1] : p->salt, id);
            v->n_h = pos + 1;
        }
    }
}

/* The state that a sequence reads is that of the position before its first row. */
static void check_state_in(sim *s, const dev_part *p)
{
    const cp_batch_seq *bs = &p->bs;
    if (!cp_kv_has_state(s->kv))
        return;
    CP_ASSERT(bs->state_out != 0 && bs->state_out != bs->state_save && "kv-14");
    CP_ASSERT((bs->state_in == 0) == (bs->pos0 == 0) && "kv-15");
    if (bs->state_in == 0)
        return;
    const cell *c = &s->states[bs->state_in];
    CP_ASSERT(c->pos == bs->pos0 - 1 && "kv-15");
    CP_ASSERT(c->h == hash_at(&s->slots[p->bs.slot], c->pos) && "kv-15 kv-14 kv-9 kv-11 kv-17");
}

static void write_rows(sim *s, const dev_part *p)
{
    const cp_batch_seq *bs = &p->bs;
    const dev_seq *v = &s->slots[p->bs.slot];
    int end = bs->pos0 + bs->n_rows - 1;
    for (int pos = bs->pos0; pos <= end; pos++) {
        for (int g = 0; g < s->cfg->n_groups; g++) {
            if (s->cfg->groups[g].kind == CP_GROUP_STATE)
                continue;
            uint32_t page = p->table[g * max_blocks(s) + pos / s->cfg->P];
            CP_ASSERT(page != 0 && "sched-4");
            *cell_at(s, page, pos) = (cell){pos, g, pos >= p->n_known, v->h[pos]};
        }
    }
    cell state = {end, 0, false, v->h[end]};
    if (bs->state_out)
        s->states[bs->state_out] = state;
    if (bs->state_save)
        s->states[bs->state_save] = state;
}

/* Pages that a sequence holds in window group g. */
static void check_window(sim *s, const dev_part *p, int g)
{
    const cp_kv_group *grp = &s->cfg->groups[g];
    int P = s->cfg->P, last = p->bs.pos0 + p->bs.n_rows - 1;
    uint32_t used = 0;
    for (int i = 0; i <= last / P; i++)
        used += p->table[g * max_blocks(s) + i] != 0;
    int bound = (grp->window + s->cfg->depth * s->cfg->max_batch_rows + P - 1) / P + 2;
    CP_ASSERT((int)used <= bound && "kv-1");
    if (used > s->out->max_window_pages)
        s->out->max_window_pages = used;
}

/* Everything that the rows of a sequence can see, through its page tables. */
static void check_reads(sim *s, const dev_part *p)
{
    const dev_seq *v = &s->slots[p->bs.slot];
    int P = s->cfg->P, last = p->bs.pos0 + p->bs.n_rows - 1;
    for (int g = 0; g < s->cfg->n_groups; g++) {
        const cp_kv_group *grp = &s->cfg->groups[g];
        const uint32_t *table = p->table + (size_t)g * (size_t)max_blocks(s);
        if (grp->kind == CP_GROUP_STATE)
            continue;
        int low = grp->kind == CP_GROUP_WINDOW ? p->bs.pos0 - grp->window + 1 : 0;
        for (int pos = low > 0 ? low : 0; pos <= last; pos++) {
            uint32_t page = table[pos / P];
            CP_ASSERT(page != 0 && "kv-1");
            const cell *c = cell_at(s, page, pos);
            CP_ASSERT(c->group == g && c->pos == pos && "kv-5 kv-8 kv-9 kv-17");
            CP_ASSERT(c->h == v->h[pos] && "kv-7 kv-8 kv-9 kv-10 kv-11 kv-17");
        }
        for (int pos = last + 1; pos % P != 0; pos++) {
            const cell *c = cell_at(s, table[pos / P], pos);
            CP_ASSERT((c->pos == -1 || (c->draft && c->pos == pos)) && "kv-6");
        }
        if (grp->kind == CP_GROUP_WINDOW)
            check_window(s, p, g);
    }
}

static void sample(sim *s, dev_step *d)
{
    const cp_batch *b = &d->step.batch;
    for (int o = 0; o < b->n_out; o++) {
        const cp_sample_in *in = &b->samples[o];
        dev_seq *v = &s->slots[d->parts[b->row_seq[b->out_rows[o]]].bs.slot];
        int pos = b->pos[b->out_rows[o]];
        uint64_t h = v->h[pos];
        cp_sample_out *res = &b->results[o];
        *res = (cp_sample_out){.finite = true, .id = in->target, .logprob = (float)(h % 1000)};
        if (in->target >= 0)
            continue;
        res->id = draw(h, in->seed, in->choice, in->position, in->banned, in->n_banned);
        if (pos + 1 ==
            b->seqs[b->row_seq[b->out_rows[o]]].pos0 + b->seqs[b->row_seq[b->out_rows[o]]].n_rows)
            v->tok[pos + 1] = res->id; /* drafts have theirs */
    }
}

static void run(sim *s)
{
    dev_step *d = &s->steps[s->n_run % s->cfg->depth];
    const cp_batch *b = &d->step.batch;
    if (s->cfg->in_order)
        zero(s, d);
    copy_pages(s, d);
    for (int i = 0; i < b->n_seqs; i++)
        take_tokens(s, d, &d->parts[i]);
    for (int i = 0; i < b->n_seqs; i++)
        check_state_in(s, &d->parts[i]);
    for (int i = 0; i < b->n_seqs; i++)
        write_rows(s, &d->parts[i]);
    for (int i = 0; i < b->n_seqs; i++)
        check_reads(s, &d->parts[i]);
    sample(s, d);
    s->n_run++;
}

/* The oldest step in flight ran. */
static void collect(sim *s)
{
    dev_step *d = &s->steps[s->n_run % s->cfg->depth];
    run(s);
    cp_sched_commit(s->sched, d->step.results, s->now);
    cp_kv_check(s->kv);
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
    r->no_overlap = c->depth > 1 && chance(s, 150);
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
    cp_kv_config alone = {
        .groups = s->cfg->groups, .n_groups = s->cfg->n_groups, .page_positions = s->cfg->P};
    uint32_t need = cp_kv_pages_for(&alone, q->r.n_prompt + most, s->cfg->prefill_chunk);
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
        CP_ASSERT(ev->pos < t->n_new && ev->id == t->tok[ev->pos] && "sched-6 sched-28");
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

static void device_open(sim *s)
{
    const sim_config *c = s->cfg;
    cp_err err;
    size_t seqs = (size_t)c->max_seqs, ctx = (size_t)c->ctx;
    for (int k = 0; k < c->depth; k++) {
        dev_step *d = &s->steps[k];
        CP_ASSERT(cp_step_init(&d->step, c->max_batch_rows, c->max_out, c->max_seqs, &err) ==
                  CP_OK);
        d->parts = cp_xcalloc(seqs, sizeof(*d->parts));
        d->copies = cp_xcalloc(seqs * (size_t)c->n_groups, sizeof(*d->copies));
        d->fresh = cp_xcalloc((size_t)c->n_pages + 1, sizeof(*d->fresh));
        d->banned = cp_xcalloc((size_t)c->max_out, sizeof(*d->banned));
        for (size_t i = 0; i < seqs; i++) {
            d->parts[i].tok = cp_xcalloc(ctx, sizeof(int32_t));
            d->parts[i].table = cp_xcalloc((size_t)(c->n_groups * max_blocks(s)), sizeof(uint32_t));
        }
    }
    s->slots = cp_xcalloc(seqs, sizeof(*s->slots));
    for (size_t i = 0; i < seqs; i++) {
        s->slots[i].tok = cp_xcalloc(ctx + 1, sizeof(int32_t));
        s->slots[i].h = cp_xcalloc(ctx, sizeof(uint64_t));
        s->slots[i].epoch = UINT32_MAX;
    }
}

static void device_close(sim *s)
{
    for (int k = 0; k < s->cfg->depth; k++) {
        dev_step *d = &s->steps[k];
        for (int i = 0; i < s->cfg->max_seqs; i++) {
            free(d->parts[i].tok);
            free(d->parts[i].table);
        }
        cp_step_fini(&d->step);
        free(d->parts);
        free(d->copies);
        free(d->fresh);
        free(d->banned);
    }
    for (int i = 0; i < s->cfg->max_seqs; i++) {
        free(s->slots[i].tok);
        free(s->slots[i].h);
    }
    free(s->slots);
}

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
                       .depth = c->depth,
                       .prefix_cache = c->prefix_cache};
    CP_ASSERT(cp_kv_open(&s->kv, &kv, &err) == CP_OK);
    cp_sched_config sc = {.kv = s->kv,
                          .page_positions = c->P,
                          .ctx = c->ctx,
                          .max_seqs = c->max_seqs,
                          .prefill_chunk = c->prefill_chunk,
                          .max_out = c->max_out,
                          .max_tasks = c->max_tasks,
                          .in_order = c->in_order,
                          .prefix_cache = c->prefix_cache,
                          .checkpoint_every = c->checkpoint_every,
                          .queue = &s->queue};
    CP_ASSERT(cp_sched_open(&s->sched, &sc, &err) == CP_OK);
    device_open(s);
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
    device_close(s);
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
    bool alone = s->sched->n_run == 1 && q->in_flight > 0;
    if (q->n_pending > 0 || alone || cp_kv_parked(s->kv) + cp_kv_states_parked(s->kv) > 0 ||
        (s->n_sent > s->n_run && cp_kv_states_saved(s->kv) > 0))
        return false; /* it may wait for pages of a step in flight */
    return old && !q->blocked && q->rows == 0 && cp_seq_goal(q) > q->n_done &&
           cp_events_room(q->task) >= 1;
}

/* Time is no reason to keep anybody waiting who makes the next token, nor all prompts. */
static void check_least(const sim *s)
{
    const cp_sched *d = s->sched;
    bool prompt_runs = false, prompt_waits = false;
    for (int i = 0; i < d->n_run; i++) {
        const cp_seq *q = d->run[i];
        bool decodes = cp_seq_one_to_go(q);
        CP_ASSERT(!(decodes && needs_a_row(s, q)) && "sched-24");
        prompt_runs |= !decodes && q->rows > 0;
        prompt_waits |= !decodes && needs_a_row(s, q);
    }
    CP_ASSERT((prompt_runs || !prompt_waits || d->outs_left == 0) && "sched-24");
}

/* Whether a state after `end` positions of q is one that prompts to come may go on from: at the
 * last border of its prompt, of that without what opens the answer, of all that is known of it, or
 * at one of every so many positions. */
static bool is_due(const sim *s, const cp_seq *q, int end)
{
    int P = s->cfg->P;
    if (s->cfg->n_states == 0 || !s->cfg->prefix_cache || end % P != 0)
        return false;
    int opening = q->n_prompt > CP_OPENING ? (q->n_prompt - CP_OPENING) / P * P : 0;
    return end % s->cfg->checkpoint_every == 0 || end == (q->n_prompt - 1) / P * P ||
           end == opening || end >= (q->n_known - 1) / P * P;
}

/* No rows run over a checkpoint that is due, and where they end on one it is saved. */
static void check_saves(const sim *s, const cp_seq *q)
{
    uint32_t in, out, save;
    int end = q->n_done + q->rows;
    for (int at = q->n_done + 1; at < end; at++)
        CP_ASSERT(!is_due(s, q, at) && "sched-15");
    cp_kv_state(s->kv, q->kv, &in, &out, &save);
    bool due = is_due(s, q, end), short_of_slots = cp_kv_states_available(s->kv) == 0;
    CP_ASSERT((save != 0 || !due || short_of_slots) && "sched-31");
}

/* What only a look at the step before shows: checkpoints are made where they are due, and nobody
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
            check_saves(s, q);
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

/* Guesses for those that could use some: a part of them is right. */
static void make_drafts(sim *s)
{
    for (int i = 0; i < s->sched->n_run && s->cfg->per_1000_draft > 0; i++) {
        cp_seq *q = s->sched->run[i];
        int wanted = cp_seq_drafts_wanted(s->sched, q), n = 1 + below(s, 5);
        if (wanted < 1 || !chance(s, s->cfg->per_1000_draft))
            continue;
        const truth *t = &req_of(q)->choice[q->choice];
        int32_t ids[5];
        for (int k = 0; k < n; k++) {
            int at = q->n_known - q->n_prompt + k;
            bool right = at < t->n_new && chance(s, 750);
            ids[k] = right ? t->tok[at] : below(s, N_VOCAB);
        }
        int taken = cp_seq_draft(s->sched, q, ids, n);
        CP_ASSERT(taken <= n && taken <= wanted && "sched-28");
    }
}

static void sim_step(sim *s)
{
    set_cancels(s);
    if (s->n_sent - s->n_run == s->cfg->depth || (s->n_sent > s->n_run && chance(s, 300)))
        collect(s);
    cp_sched_sweep(s->sched, s->now);
    make_drafts(s);
    see_who_runs(s);
    bool hurry = chance(s, s->cfg->per_1000_hurry);
    int rows =
        cp_sched_plan(s->sched, hurry ? 1 + below(s, s->cfg->max_seqs) : s->cfg->max_batch_rows);
    cp_sched_check(s->sched, true);
    check_plan(s);
    if (rows > 0)
        submit(s);
    if (rows > 0 && s->cfg->depth > 1)
        cp_sched_sent(s->sched);
    else if (s->n_sent > s->n_run)
        collect(s);
    cp_kv_check(s->kv);
    check_counted(s);
    cp_tasks_flush(s->sched, NULL);
    cp_sched_check(s->sched, false);
}

void sim_run(const sim_config *cfg, sim_result *out)
{
    sim_config own = *cfg;
    own.depth = cfg->depth ? cfg->depth : 1;
    sim s = {.cfg = &own, .rng = mix(cfg->seed), .out = out};
    *out = (sim_result){0};
    sim_open(&s);
    int64_t idle = 0;
    while (s.now < cfg->n_steps || s.n_tasks > 0 || s.n_sent > s.n_run) {
        s.now++;
        bool more = s.now < cfg->n_steps && (!cfg->n_requests || out->requests < cfg->n_requests);
        if (!more && cfg->n_requests && s.n_tasks == 0 && s.n_sent == s.n_run)
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
    CP_ASSERT(out->kv.pages_used == 0 && out->kv.states_used == 0 && "kv-3 kv-17");
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
     .checkpoint_every = 32,
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

void sim_overlap(sim_config *cfg, bool in_order)
{
    cfg->depth = 2;
    cfg->in_order = in_order;
    cfg->per_1000_draft = 500;
}

void sim_many_states(sim_config *cfg)
{
    if (cfg->n_states == 0)
        return;
    /* a checkpoint has a page of its own (kv-21), a running sequence at most 2 slots and a save for
     * each step in flight */
    cfg->n_states = cfg->n_pages + (uint32_t)cfg->max_seqs * (2 + CP_KV_MAX_DEPTH);
    cfg->checkpoint_every = 8;
}

uint32_t sim_pages_for(const sim_config *cfg, int n)
{
    cp_kv_config kv = {.groups = cfg->groups,
                       .n_groups = cfg->n_groups,
                       .page_positions = cfg->P,
                       .depth = cfg->depth};
    return cp_kv_pages_for(&kv, n, cfg->prefill_chunk) + 1;
}
