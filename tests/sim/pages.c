/*
 * pages: see pages.h. A step's writes are applied to the shadow in the order of sending: at once,
 * or, where the backend keeps no order of its own, when the step is done, while its zeroing is done
 * as soon as it is sent. What a row reads is compared with the hash of the prefix that stood there
 * when the step was planned.
 */
#include "tests/sim/pages.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { CTX = 80, MAX_SEQS = 8, MAX_ROWS = 9, DEPTH = 2, N_TOKENS = 3 };

typedef struct cell {
    int pos; /* -1: zeroed */
    int group;
    uint64_t h;
} cell;

typedef struct seq {
    cp_kv_seq kv;                    /* -1: closed */
    int in_flight, drafts_in_flight; /* steps */
    int32_t tok[CTX];
    uint64_t gen, h[CTX]; /* hash of the prefix that ends here */
} seq;

/* One sequence's part of a step. */
typedef struct part {
    int seq, pos0, n_rows;
    bool draft;
    uint64_t gen, h[CTX];
    int32_t tok[CTX];
    uint32_t table[8][CTX]; /* [group][block] as it stood when the step was sent */
    uint32_t state_in, state_out, state_save;
} part;

typedef struct step {
    bool over; /* has run, and the kv-cache was told */
    int n_parts, n_copies;
    part parts[MAX_SEQS];
    cp_page_copy copies[64];
} step;

typedef struct pages_sim {
    const sim_config *cfg;
    bool in_order;
    cp_kv *kv;
    uint64_t rng;
    seq seqs[MAX_SEQS];
    step steps[DEPTH];
    uint64_t n_sent, n_done; /* as the kv-cache counts, or later where it is told at once */
    cell *pages, *states;
    uint32_t *named, *named_states; /* by steps in flight */
    pages_result *out;
} pages_sim;

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static int below(pages_sim *s, int n)
{
    return (int)(mix(s->rng++) % (uint64_t)n);
}

static cell *cell_at(pages_sim *s, uint32_t page, int pos)
{
    return &s->pages[(size_t)page * (size_t)s->cfg->P + (size_t)(pos % s->cfg->P)];
}

static bool paged(const pages_sim *s, int g)
{
    return s->cfg->groups[g].kind != CP_GROUP_STATE;
}

static uint64_t chain(const seq *q, int pos)
{
    return mix((pos ? q->h[pos - 1] : 0) * 31 + (uint64_t)q->tok[pos]);
}

/* ---- a step's effects ---- */

static void zero(pages_sim *s)
{
    uint32_t n;
    const uint32_t *fresh = cp_kv_fresh(s->kv, &n);
    for (uint32_t i = 0; i < n; i++) {
        for (int k = 0; k < s->cfg->P; k++)
            *cell_at(s, fresh[i], k) = (cell){.pos = -1};
    }
}

static void read_part(pages_sim *s, const part *p)
{
    int P = s->cfg->P, last = p->pos0 + p->n_rows - 1;
    for (int g = 0; g < s->cfg->n_groups; g++) {
        const cp_kv_group *grp = &s->cfg->groups[g];
        int low = grp->kind == CP_GROUP_WINDOW ? p->pos0 - grp->window + 1 : 0;
        for (int pos = low > 0 ? low : 0; paged(s, g) && pos <= last; pos++) {
            uint32_t page = p->table[g][pos / P];
            CP_ASSERT(page != 0 && "kv-1 kv-18");
            const cell *c = cell_at(s, page, pos);
            CP_ASSERT(c->group == g && c->pos == pos && c->h == p->h[pos] &&
                      "kv-5 kv-8 kv-9 kv-10 kv-12 kv-17 kv-18");
        }
    }
}

static void run_step(pages_sim *s, const step *st)
{
    size_t bytes = sizeof(cell) * (size_t)s->cfg->P;
    for (int i = 0; i < st->n_copies; i++)
        memcpy(cell_at(s, st->copies[i].dst, 0), cell_at(s, st->copies[i].src, 0), bytes);
    for (int i = 0; i < st->n_parts; i++) {
        const part *p = &st->parts[i];
        int end = p->pos0 + p->n_rows;
        if (p->state_in) {
            const cell *c = &s->states[p->state_in];
            CP_ASSERT(c->pos == p->pos0 - 1 && c->h == p->h[p->pos0 - 1] && "kv-15 kv-17");
        }
        for (int pos = p->pos0; pos < end; pos++) {
            for (int g = 0; g < s->cfg->n_groups; g++) {
                if (paged(s, g))
                    *cell_at(s, p->table[g][pos / s->cfg->P], pos) = (cell){pos, g, p->h[pos]};
            }
        }
        s->states[p->state_out] = s->states[p->state_save] = (cell){end - 1, 0, p->h[end - 1]};
    }
    for (int i = 0; i < st->n_parts; i++)
        read_part(s, &st->parts[i]);
}

/* Counts what a step names, up or down. */
static void name(pages_sim *s, const step *st, uint32_t by)
{
    for (int i = 0; i < st->n_copies; i++)
        s->named[st->copies[i].src] += by;
    for (int i = 0; i < st->n_parts; i++) {
        const part *p = &st->parts[i];
        for (int g = 0; g < s->cfg->n_groups; g++) {
            for (int b = 0; paged(s, g) && b <= (p->pos0 + p->n_rows - 1) / s->cfg->P; b++)
                s->named[p->table[g][b]] += by;
        }
        s->named_states[p->state_in] += by;
        s->named_states[p->state_out] += by;
        s->named_states[p->state_save] += by;
    }
}

/* ---- a step's life ---- */

/* Pages that q did not have before are named by no step in flight. */
static void check_handed_out(pages_sim *s, const seq *q, uint32_t before[8][CTX], int n_before)
{
    for (int g = 0; g < s->cfg->n_groups; g++) {
        int n;
        const uint32_t *table = cp_kv_pages(s->kv, q->kv, g, &n);
        for (int b = 0; b < n; b++) {
            bool same = b < n_before && before[g][b] == table[b];
            CP_ASSERT((same || s->named[table[b]] == 0) && "kv-17");
        }
    }
}

static void add_part(pages_sim *s, step *st, int i)
{
    seq *q = &s->seqs[i];
    int done = cp_kv_done(s->kv, q->kv), rows = 1 + below(s, MAX_ROWS), n = 0;
    uint32_t before[8][CTX];
    if (q->drafts_in_flight || done + rows > CTX)
        return;
    for (int g = 0; g < s->cfg->n_groups; g++) {
        int m;
        const uint32_t *table = cp_kv_pages(s->kv, q->kv, g, &m);
        if (table)
            memcpy(before[g], table, sizeof(*table) * (size_t)(n = m));
    }
    if (!cp_kv_grow(s->kv, q->kv, done + rows))
        return;
    check_handed_out(s, q, before, n);
    part *p = &st->parts[st->n_parts++];
    *p = (part){.seq = i, .pos0 = done, .n_rows = rows, .gen = q->gen};
    p->draft = !cp_kv_has_state(s->kv) && below(s, 2) == 0;
    for (int pos = done; pos < done + rows; pos++) {
        q->tok[pos] = below(s, N_TOKENS);
        q->h[pos] = chain(q, pos);
    }
    memcpy(p->h, q->h, sizeof(p->h));
    memcpy(p->tok, q->tok, sizeof(p->tok));
    if (!p->draft)
        cp_kv_checkpoint(s->kv, q->kv, done + rows, below(s, 3) == 0);
    uint32_t *slots[3] = {&p->state_in, &p->state_out, &p->state_save};
    cp_kv_state(s->kv, q->kv, slots[0], slots[1], slots[2]);
    for (int k = 1; k < 3; k++)
        CP_ASSERT((*slots[k] == 0 || *slots[k] == p->state_in || s->named_states[*slots[k]] == 0) &&
                  "kv-17");
}

static void run(pages_sim *s, step *st)
{
    run_step(s, st);
    cp_kv_step_done(s->kv);
    name(s, st, UINT32_MAX); /* down */
    st->over = true;
}

/* Draws how many drafts of q are right, and commits those. */
static void judge(pages_sim *s, seq *q, const part *p)
{
    int end = p->pos0 + p->n_rows, firm = cp_kv_firm(s->kv, q->kv), n = end;
    if (p->draft) {
        n = firm + below(s, end - firm + 1);
        s->out->truncations += n < end;
        CP_ASSERT(cp_kv_truncate(s->kv, q->kv, n) && "kv-19");
        for (int g = 0; g < s->cfg->n_groups; g++) {
            int m;
            if (cp_kv_pages(s->kv, q->kv, g, &m))
                CP_ASSERT(m == (n + s->cfg->P - 1) / s->cfg->P && "kv-19");
        }
    }
    cp_kv_commit(s->kv, q->kv, p->tok, n);
    if (q->in_flight == 0 && n > 0)
        CP_ASSERT(!cp_kv_truncate(s->kv, q->kv, n - 1) && "kv-19");
}

static void finish(pages_sim *s)
{
    step *st = &s->steps[s->n_done++ % DEPTH];
    if (!st->over)
        run(s, st);
    for (int i = 0; i < st->n_parts; i++) {
        const part *p = &st->parts[i];
        seq *q = &s->seqs[p->seq];
        if (q->kv < 0 || q->gen != p->gen)
            continue; /* closed meanwhile */
        q->in_flight--;
        q->drafts_in_flight -= p->draft;
        judge(s, q, p);
    }
    cp_kv_check(s->kv);
}

static void send(pages_sim *s)
{
    step *st = &s->steps[s->n_sent++ % DEPTH];
    st->over = false;
    st->n_parts = 0;
    for (int i = 0; i < MAX_SEQS; i++) {
        if (s->seqs[i].kv >= 0 && below(s, 2))
            add_part(s, st, i);
    }
    cp_kv_check(s->kv);
    const cp_page_copy *copies = cp_kv_copies(s->kv, &st->n_copies);
    CP_ASSERT(st->n_copies <= 64);
    memcpy(st->copies, copies, sizeof(*copies) * (size_t)st->n_copies);
    for (int i = 0; i < st->n_parts; i++) {
        part *p = &st->parts[i];
        for (int g = 0; g < s->cfg->n_groups; g++) {
            int n;
            const uint32_t *table = cp_kv_pages(s->kv, s->seqs[p->seq].kv, g, &n);
            if (table)
                memcpy(p->table[g], table, sizeof(*table) * (size_t)n);
        }
    }
    zero(s);
    name(s, st, 1);
    cp_kv_step_sent(s->kv);
    for (int i = 0; i < st->n_parts; i++) {
        const part *p = &st->parts[i];
        cp_kv_advance(s->kv, s->seqs[p->seq].kv, p->pos0 + p->n_rows);
        s->seqs[p->seq].in_flight++;
        s->seqs[p->seq].drafts_in_flight += p->draft;
    }
    if (!s->in_order)
        return;
    run(s, st);
    CP_ASSERT(cp_kv_parked(s->kv) == 0 && cp_kv_states_parked(s->kv) == 0 && "kv-17");
}

/* ---- sequences come and go ---- */

static void open_seq(pages_sim *s, seq *q)
{
    static const uint8_t salt[32];
    const seq *like = &s->seqs[below(s, MAX_SEQS)];
    int n = below(s, CTX);
    q->gen++;
    q->in_flight = q->drafts_in_flight = 0;
    memmove(q->tok, like->tok, sizeof(q->tok));
    for (int pos = 0; pos < CTX; pos++)
        q->h[pos] = chain(q, pos);
    q->kv = cp_kv_seq_open(s->kv, salt);
    CP_ASSERT(q->kv >= 0);
    s->out->hits += cp_kv_match(s->kv, q->kv, q->tok, n, n) > 0;
}

static void fork_seq(pages_sim *s, seq *q)
{
    seq *from = &s->seqs[below(s, MAX_SEQS)];
    if (from->kv < 0)
        return;
    uint64_t gen = q->gen + 1;
    *q = *from;
    q->gen = gen;
    q->in_flight = q->drafts_in_flight = 0;
    q->kv = cp_kv_fork(s->kv, from->kv);
    CP_ASSERT(q->kv >= 0);
    s->out->forks++;
}

static void come_and_go(pages_sim *s)
{
    seq *q = &s->seqs[below(s, MAX_SEQS)];
    int what = below(s, 100);
    if (q->kv >= 0 && (what < 40 || cp_kv_done(s->kv, q->kv) + MAX_ROWS > CTX)) {
        cp_kv_seq_close(s->kv, q->kv);
        q->kv = -1;
    } else if (q->kv < 0 && what < 60) {
        open_seq(s, q);
    } else if (q->kv < 0) {
        fork_seq(s, q);
    }
}

static void pages_open(pages_sim *s)
{
    const sim_config *c = s->cfg;
    cp_err err;
    cp_kv_config kv = {.groups = c->groups,
                       .n_groups = c->n_groups,
                       .page_positions = c->P,
                       .n_pages = c->n_pages,
                       .n_state_slots = c->n_states,
                       .max_seqs = MAX_SEQS,
                       .max_positions = CTX,
                       .depth = DEPTH,
                       .prefix_cache = true};
    CP_ASSERT(cp_kv_open(&s->kv, &kv, &err) == CP_OK);
    s->pages = cp_xcalloc((size_t)c->n_pages * (size_t)c->P, sizeof(*s->pages));
    s->states = cp_xcalloc((size_t)c->n_states + 1, sizeof(*s->states));
    s->named = cp_xcalloc(c->n_pages, sizeof(*s->named));
    s->named_states = cp_xcalloc((size_t)c->n_states + 1, sizeof(*s->named_states));
    for (int i = 0; i < MAX_SEQS; i++)
        s->seqs[i].kv = -1;
}

void pages_run(const sim_config *shape, bool in_order, uint64_t seed, int64_t steps,
               pages_result *out)
{
    pages_sim *s = cp_xcalloc(1, sizeof(*s));
    *s = (pages_sim){.cfg = shape, .in_order = in_order, .rng = mix(seed), .out = out};
    *out = (pages_result){0};
    pages_open(s);
    for (int64_t i = 0; i < steps; i++) {
        come_and_go(s);
        if (s->n_sent - s->n_done == DEPTH || (s->n_sent > s->n_done && below(s, 3) == 0))
            finish(s);
        send(s);
    }
    while (s->n_done < s->n_sent)
        finish(s);
    for (int i = 0; i < MAX_SEQS; i++) {
        if (s->seqs[i].kv >= 0)
            cp_kv_seq_close(s->kv, s->seqs[i].kv);
    }
    cp_kv_stats_get(s->kv, &out->kv);
    CP_ASSERT(out->kv.pages_used == 0 && out->kv.states_used == 0 && "kv-3 kv-17");
    CP_ASSERT(out->kv.truncations == (uint64_t)out->truncations && "kv-19");
    cp_kv_close(s->kv);
    free(s->pages);
    free(s->states);
    free(s->named);
    free(s->named_states);
    free(s);
}
