/*
 * invariance: a sequence's log-probabilities depend on its own tokens only, bit for bit.
 *
 *   invariance [--digest] MODEL.gguf PROMPTS LONGEST [SEED [WANT]]
 *   invariance --cuda exact|default MODEL.gguf PROMPTS LONGEST [SEED]
 *
 * PROMPTS random prompts (an eighth of them near LONGEST, the rest shorter), greedy and seeded, run
 * through the real engine: alone in one piece on one thread; then in random batches, in chunks of
 * 1, 7, 64 and 509 rows and more, row by row, by time, with prefix hits at a drawn page boundary
 * (for two prompts: at every boundary), with forced preemptions, and on two threads; a second turn
 * prefills generated text or finds it in the cache. Every scenario must give the same ids, the same
 * bits of log-probabilities and the same bits of whole logits rows. That batches, chunks, hits and
 * preemptions really happened is asserted. In every step a window group of a sequence may hold
 * ceil((window + rows) / P) + 2 pages; a model with windows also gets a sequence of 4,096
 * positions. Exit 1 at the first difference.
 *
 * --digest runs two scenarios only, alone and in batches, and prints a SHA-256 over all that must
 * not differ: so two builds are compared without keeping either's logits. It is the same for every
 * build of one law of arithmetic, at every level below bf16 dots; where amx is the default, that
 * is vnni's. Exit 1 when it is not WANT.
 *
 * --cuda runs fewer scenarios, with short answers, on device cuda: compared with the cpu backend
 * alone (exact), or with that device alone (default). Every other prompt has two choices there.
 */
#include "app/local.h"
#include "base/digest.h"
#include "base/mem.h"
#include "kernels/cpu/isa.h"
#include "kv-cache/kv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GEN  96 /* some pages, so that a full pool has to preempt */
#define N_TOP    3
#define CHOICES  2
#define LONG_CTX 4096 /* positions of the sequence that shows the window groups' pages */

typedef struct result {
    int n, n_cached;
    int32_t id[MAX_GEN];
    float logprob[MAX_GEN];
    float top[MAX_GEN][N_TOP];
    uint8_t row[MAX_GEN][32]; /* SHA-256 of the logits row that gave token i */
} result;

typedef struct prompt {
    int32_t *ids;
    int n, n_gen;
    int n_choices;
    float temperature;
    result want[CHOICES];
} prompt;

typedef struct bed {
    const char *path;
    cp_loaded *file;
    cp_model *model;
    prompt *prompts;
    int n_prompts, vocab;
    uint64_t rng;
    /* what the probe saw in the current scenario */
    int max_seqs_in_step, max_rows_of_seq;
    int page_positions, max_rows; /* of the current scenario */
    int window_pages, full_pages; /* the most that one group of a sequence held */
    result *got;                  /* [n_prompts * CHOICES] */
    uint64_t kv_bytes;            /* of the next scenarios; 0: as they say */
    const char *device;
    bool exact;
    int most_gen, choices; /* the most tokens and choices of a prompt */
} bed;

typedef struct scenario {
    const char *name;
    int threads, chunk, max_rows, max_seqs;
    int shorter_than; /* a crowd of short prompts in a pool for a few of them; 0: all prompts, ample
                         pool */
    bool prefix_cache;
    int concurrency; /* requests in flight */
    int step_ms;     /* rows by time, which no two runs divide alike; 0: by max_rows alone */
} scenario;

typedef struct running {
    const cp_model *model;
    cp_pool *pool;
    cp_backend *backend;
    cp_engine *engine;
    cp_local *local;
    cp_metrics *metrics;
    cp_resident *resident;
} running;

static uint64_t draw(bed *b, uint64_t n)
{
    b->rng = b->rng * 6364136223846793005u + 1442695040888963407u;
    return (b->rng >> 33) % n;
}

static void must(cp_code rc, const cp_err *err)
{
    if (rc) {
        fprintf(stderr, "invariance: %s\n", err->msg);
        exit(1);
    }
}

/* Pages that sequence `s` of the step holds, by group. */
static void check_pages(bed *b, const cp_batch_seq *s)
{
    const cp_program *prog = cp_model_program(b->model);
    int positions = b->page_positions;
    for (int g = 0; g < prog->n_groups; g++) {
        const cp_kv_group *grp = &prog->groups[g];
        if (grp->kind == CP_GROUP_STATE) {
            continue;
        }
        int used = 0, *most = grp->kind == CP_GROUP_WINDOW ? &b->window_pages : &b->full_pages;
        for (int i = 0; i <= (s->pos0 + s->n_rows - 1) / positions; i++) {
            used += s->pages[g][i] != 0;
        }
        *most = used > *most ? used : *most;
        int allowed = (grp->window + b->max_rows + positions - 1) / positions + 2;
        if (grp->kind == CP_GROUP_WINDOW && used > allowed) {
            fprintf(stderr, "group %d (window %d) holds %d pages at position %d; allowed: %d\n", g,
                    grp->window, used, s->pos0, allowed);
            exit(1);
        }
    }
}

static result *got_of(const bed *b, const prompt *p, int choice)
{
    return &b->got[(p - b->prompts) * CHOICES + choice];
}

static void probe(void *arg, const cp_resident *model, const cp_batch *batch,
                  cp_request *const *row_request, const int32_t *row_choice, const float *logits)
{
    bed *b = arg;
    (void)model;
    b->max_seqs_in_step = batch->n_seqs > b->max_seqs_in_step ? batch->n_seqs : b->max_seqs_in_step;
    for (int i = 0; i < batch->n_seqs; i++) {
        int n = batch->seqs[i].n_rows;
        b->max_rows_of_seq = n > b->max_rows_of_seq ? n : b->max_rows_of_seq;
        check_pages(b, &batch->seqs[i]);
    }
    for (int i = 0; i < batch->n_out; i++) {
        const prompt *p = row_request[i]->user;
        int at = batch->pos[batch->out_rows[i]] - (p->n - 1);
        if (at >= 0 && at < MAX_GEN) {
            cp_sha256_of(logits + (size_t)i * (size_t)b->vocab, (size_t)b->vocab * sizeof(float),
                         got_of(b, p, row_choice[i])->row[at]);
        }
    }
}

/* What is to come on top of `pages` bytes for state slots: six a sequence where they are small,
 * else a quarter of all, as the engine gives them no more, but for three sequences at least. */
static uint64_t state_bytes(const cp_program *prog, int max_seqs, uint64_t pages)
{
    uint64_t one = cp_program_state_at(prog, prog->n_groups), most = pages / 3;
    uint64_t least = 4 * one; /* one is left by who goes on from a checkpoint */
    uint64_t all = 6 * (uint64_t)max_seqs * one;
    if (all <= most)
        return all;
    return least <= most ? most + one : 4 * least - pages;
}

static void start(bed *b, const scenario *s, running *r)
{
    cp_err err = {0};
    memset(r, 0, sizeof *r);
    must(cp_pool_open(&r->pool, s->threads, &err), &err);
    cp_backend_config bc = {.device = b->device, .exact = b->exact, .pool = r->pool};
    must(cp_backend_open(&r->backend, &bc, &err), &err);
    cp_engine_config ec = {.backend = r->backend, .max_queue = 1024, .max_queue_tokens = INT64_MAX};
    must(cp_engine_open(&r->engine, &ec, &err), &err);
    int positions = cp_backend_page_positions(r->backend), longest = s->shorter_than;
    for (int i = 0; i < b->n_prompts && !s->shorter_than; i++) {
        longest = b->prompts[i].n > longest ? b->prompts[i].n : longest;
    }
    int ctx = longest + b->most_gen + 1;
    const cp_program *prog = cp_model_program(b->model);
    cp_kv_config kv = {
        .groups = prog->groups, .n_groups = prog->n_groups, .page_positions = positions};
    uint64_t one = cp_kv_pages_for(&kv, ctx, s->chunk) + 1;
    uint64_t bytes = (s->shorter_than ? one + one / 4 : one * (uint64_t)s->max_seqs + 8) *
                     cp_program_page_bytes(prog, positions);
    bytes = b->kv_bytes ? b->kv_bytes : bytes + state_bytes(prog, s->max_seqs, bytes);
    r->metrics = cp_metrics_new("m");
    cp_engine_model em = {.name = "m",
                          .model = b->model,
                          .file = b->file,
                          .ctx = ctx,
                          .kv_bytes = bytes,
                          .max_seqs = s->max_seqs,
                          .max_batch_rows = s->max_rows,
                          .prefill_chunk = s->chunk,
                          .step_ms = s->step_ms,
                          .kv_type = CP_DTYPE_BF16,
                          .prefix_cache = s->prefix_cache,
                          .metrics = r->metrics};
    must(cp_engine_load(r->engine, &em, &r->resident, &err), &err);
    b->max_seqs_in_step = b->max_rows_of_seq = b->window_pages = b->full_pages = 0;
    b->page_positions = positions;
    b->max_rows = s->max_rows;
    cp_engine_set_probe(r->engine, probe, b);
    must(cp_engine_start(r->engine, &err), &err);
    r->local = cp_local_open(cp_engine_front(r->engine));
    memset(b->got, 0, (size_t)b->n_prompts * CHOICES * sizeof *b->got);
}

static void stop(running *r)
{
    cp_engine_stop(r->engine);
    cp_local_close(r->local);
    cp_engine_close(r->engine);
    cp_backend_close(r->backend);
    cp_pool_close(r->pool);
    cp_metrics_free(r->metrics);
}

static void submit(running *r, prompt *p, int n_prompt, int n_gen)
{
    cp_err err = {0};
    cp_request *q = cp_local_request(r->local, 64, N_TOP, -1);
    q->model = r->resident;
    q->prompt = p->ids;
    q->n_prompt = n_prompt;
    q->max_tokens = n_gen;
    q->n = p->n_choices;
    q->user = p;
    q->sampling.temperature = p->temperature;
    q->sampling.seed = (uint64_t)p->n;
    q->sampling.repetition = p->temperature > 0 ? 1.1f : 1.0f;
    q->sampling.ignore_eos = true;
    must(cp_local_submit(r->local, q, &err), &err);
}

/* Take events until `left` requests have ended; results go by prompt. */
static void collect_one(bed *b, running *r)
{
    cp_request *q;
    cp_event ev;
    for (;;) {
        cp_local_next(r->local, -1, &q, &ev);
        prompt *p = ev.type == CP_EV_END ? NULL : q->user;
        result *g = p ? got_of(b, p, ev.choice) : NULL;
        if (ev.type == CP_EV_TOKEN && ev.pos < MAX_GEN) {
            g->id[ev.pos] = ev.id;
            g->logprob[ev.pos] = ev.logprob;
            for (int i = 0; i < N_TOP; i++) {
                g->top[ev.pos][i] = ev.top[i].logprob;
            }
            g->n = ev.pos + 1;
        } else if (ev.type == CP_EV_FINISH) {
            g->n_cached = ev.n_cached;
        } else if (ev.type == CP_EV_ERROR) {
            fprintf(stderr, "invariance: request failed with code %d\n", ev.code);
            exit(1);
        } else if (ev.type == CP_EV_END) {
            return;
        }
    }
}

static void compare_choice(const bed *b, int i, int c, const char *name)
{
    const prompt *p = &b->prompts[i];
    const result *w = &p->want[c], *g = got_of(b, p, c);
    size_t n = (size_t)p->n_gen;
    if (g->n != p->n_gen || memcmp(w->id, g->id, n * sizeof *g->id) ||
        memcmp(w->logprob, g->logprob, n * sizeof(float)) ||
        memcmp(w->top, g->top, n * sizeof *g->top) || memcmp(w->row, g->row, n * sizeof *g->row)) {
        for (int k = 0; k < p->n_gen; k++) {
            if (w->id[k] != g->id[k] || memcmp(w->row[k], g->row[k], 32)) {
                fprintf(stderr,
                        "%s: prompt %d (%d tokens), choice %d differs at token %d: id %d and %d, "
                        "log-probability %a and %a\n",
                        name, i, p->n, c, k, w->id[k], g->id[k], (double)w->logprob[k],
                        (double)g->logprob[k]);
                break;
            }
        }
        fprintf(stderr, "%s: NOT invariant\n", name);
        exit(1);
    }
}

static void compare(const bed *b, int i, const char *name)
{
    for (int c = 0; c < b->prompts[i].n_choices; c++) {
        compare_choice(b, i, c, name);
    }
}

static void require(bool ok, const char *name, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s: %s did not happen, the run shows nothing\n", name, what);
        exit(1);
    }
}

static bool takes_part(const scenario *s, const prompt *p)
{
    return !s->shorter_than || p->n < s->shorter_than;
}

/* All prompts in a drawn order, `concurrency` at a time. */
static void run_all(bed *b, const scenario *s, running *r)
{
    int *order = cp_xcalloc((size_t)b->n_prompts, sizeof *order), in_flight = 0;
    for (int i = 0; i < b->n_prompts; i++) {
        int j = (int)draw(b, (uint64_t)i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < b->n_prompts; i++) {
        if (!takes_part(s, &b->prompts[order[i]])) {
            continue;
        }
        submit(r, &b->prompts[order[i]], b->prompts[order[i]].n, b->prompts[order[i]].n_gen);
        if (++in_flight == s->concurrency) {
            collect_one(b, r);
            in_flight--;
        }
    }
    while (in_flight-- > 0) {
        collect_one(b, r);
    }
    free(order);
}

static void report(const bed *b, const scenario *s, const running *r)
{
    printf("%-28s steps %6lld rows %8lld preemptions %4lld cached %7lld, at most %2d sequences and "
           "%3d rows of one in a step\n",
           s->name, (long long)cp_metric_get(r->metrics, CP_M_ENGINE_STEPS),
           (long long)cp_metric_get(r->metrics, CP_M_STEP_ROWS),
           (long long)cp_metric_get(r->metrics, CP_M_PREEMPTIONS),
           (long long)cp_metric_get(r->metrics, CP_M_PROMPT_TOKENS_CACHED), b->max_seqs_in_step,
           b->max_rows_of_seq);
    fflush(stdout);
}

static void run_scenario(bed *b, const scenario *s)
{
    running r;
    start(b, s, &r);
    run_all(b, s, &r);
    report(b, s, &r);
    for (int i = 0; i < b->n_prompts; i++) {
        if (takes_part(s, &b->prompts[i])) {
            compare(b, i, s->name);
        }
    }
    require(s->concurrency == 1 || b->max_seqs_in_step > 1, s->name, "batching");
    require(b->max_rows_of_seq <= s->max_rows, s->name, "chunking");
    bool scarce = s->shorter_than || b->kv_bytes;
    require(!scarce || cp_metric_get(r.metrics, CP_M_PREEMPTIONS) > 0, s->name, "preemption");
    stop(&r);
}

/* The prompt after a request that left its first `boundary` pages in the cache. */
static void hit_at(bed *b, running *r, prompt *p, int boundary, int positions, const char *name)
{
    submit(r, p, boundary * positions, 1);
    collect_one(b, r);
    submit(r, p, p->n, p->n_gen);
    collect_one(b, r);
    compare(b, (int)(p - b->prompts), name);
    result *g = got_of(b, p, 0);
    require(g->n_cached >= boundary * positions - positions && g->n_cached < p->n, name,
            "a prefix hit");
}

static const scenario with_hits = {"prefix hits", 2, 64, 512, 4, 0, true, 1, 0};

static void run_hits(bed *b)
{
    scenario s = with_hits;
    running r;
    start(b, &s, &r);
    int positions = cp_backend_page_positions(r.backend);
    for (int i = 0; i < b->n_prompts; i++) {
        int pages = (b->prompts[i].n - 1) / positions;
        if (pages > 0) {
            hit_at(b, &r, &b->prompts[i], 1 + (int)draw(b, (uint64_t)pages), positions, s.name);
        }
    }
    report(b, &s, &r);
    require(cp_metric_get(r.metrics, CP_M_PROMPT_TOKENS_CACHED) > 0, s.name, "a prefix hit");
    stop(&r);
}

/* Of two prompts, each on a fresh cache. */
static void run_every_boundary(bed *b)
{
    scenario s = with_hits;
    running r;
    int done = 0, positions = b->page_positions;
    for (int i = 0; i < b->n_prompts && done < 2; i++) {
        prompt *p = &b->prompts[i];
        int pages = (p->n - 1) / positions;
        if (pages < 3 || pages > 24) {
            continue;
        }
        for (int k = 1; k <= pages; k++) {
            start(b, &s, &r);
            hit_at(b, &r, p, k, positions, "every boundary");
            stop(&r);
        }
        done++;
    }
    require(done == 2, "every boundary", "a prompt of 3 to 24 pages");
    printf("%-28s ok\n", "every boundary of 2 prompts");
}

/* What `first` gave after its first `skip` tokens, as what a prompt that has those should give. */
static void want_rest(result *want, const result *first, int skip, int n)
{
    size_t ids = (size_t)n;
    want->n = n;
    memcpy(want->id, first->id + skip, ids * sizeof *first->id);
    memcpy(want->logprob, first->logprob + skip, ids * sizeof *first->logprob);
    memcpy(want->top, first->top + skip, ids * sizeof *first->top);
    memcpy(want->row, first->row + skip, ids * sizeof *first->row);
}

/* A request on the running engine, compared, and with a cache: hit as far as a hit can go. */
static void take_turn(bed *b, running *r, const scenario *s, int i, bool hits)
{
    prompt *p = &b->prompts[i];
    submit(r, p, p->n, p->n_gen);
    collect_one(b, r);
    compare(b, i, s->name);
    int most = (p->n - 1) / b->page_positions * b->page_positions;
    require(!hits || got_of(b, p, 0)->n_cached == most, s->name, "a hit on all whole pages");
}

/* Two turns: a prompt and its answer, then both with more to come. Prefilled cold, or taken from
 * the cache as decoding left it (pages, and the state at the answer's last page border), the second
 * goes on as the first would have; and so does the first turn asked again, from its prompt's last
 * border.
 */
static void run_turns(bed *b)
{
    enum { GEN = 64, REST = 24, PROMPT = 236 }; /* the answer ends in mid-page */
    const scenario all[] = {{"a second turn, cold", 1, 512, 512, 1, 0, false, 1, 0},
                            {"a second turn, chunks of 7", 2, 7, 7, 1, 0, false, 1, 0},
                            {"a second turn, cached", 2, 64, 64, 1, 0, true, 1, 0}};
    bed one = *b;
    prompt turn[2] = {{.n = PROMPT, .n_gen = GEN + REST, .n_choices = 1},
                      {.n = PROMPT + GEN, .n_gen = REST, .n_choices = 1}};
    one.prompts = turn;
    one.n_prompts = 2;
    one.got = cp_xcalloc(2 * CHOICES, sizeof *one.got);
    turn[1].ids = turn[0].ids = cp_xcalloc((size_t)turn[1].n, sizeof *turn[0].ids);
    for (int k = 0; k < turn[0].n; k++) {
        turn[0].ids[k] = (int32_t)draw(b, (uint64_t)b->vocab);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        running r;
        start(&one, &all[i], &r);
        if (i == 0) { /* both turns in one answer: what must come */
            submit(&r, &turn[0], turn[0].n, GEN + REST);
            collect_one(&one, &r);
            turn[0].want[0] = one.got[0];
            turn[0].n_gen = GEN;
            memcpy(turn[0].ids + turn[0].n, one.got[0].id, GEN * sizeof *one.got[0].id);
            want_rest(&turn[1].want[0], &one.got[0], GEN, REST);
        }
        take_turn(&one, &r, &all[i], 0, false);
        take_turn(&one, &r, &all[i], 1, all[i].prefix_cache);
        take_turn(&one, &r, &all[i], 0, all[i].prefix_cache);
        report(&one, &all[i], &r);
        stop(&r);
    }
    free(turn[0].ids);
    free(one.got);
}

/* One sequence of LONG_CTX positions, its last MAX_GEN ones generated: what check_pages sees. */
static void run_long(bed *b)
{
    const cp_program *prog = cp_model_program(b->model);
    int windows = 0, train = cp_model_hparams(b->model)->ctx_train;
    for (int g = 0; g < prog->n_groups; g++) {
        windows += prog->groups[g].kind == CP_GROUP_WINDOW;
    }
    if (windows == 0) {
        return;
    }
    bed one = *b;
    prompt p = {
        .n = (train < LONG_CTX ? train : LONG_CTX) - MAX_GEN, .n_gen = MAX_GEN, .n_choices = 1};
    one.prompts = &p;
    one.n_prompts = 1;
    one.got = cp_xcalloc(CHOICES, sizeof *one.got);
    p.ids = cp_xcalloc((size_t)p.n, sizeof *p.ids);
    for (int k = 0; k < p.n; k++) {
        p.ids[k] = (int32_t)draw(b, (uint64_t)b->vocab);
    }
    scenario s = {"a long sequence", 2, 128, 512, 1, 0, true, 1, 0};
    running r;
    start(&one, &s, &r);
    run_all(&one, &s, &r);
    report(&one, &s, &r);
    printf(
        "%-28s %d positions: at most %d pages of %d positions in each of %d window groups, %d in "
        "a full one\n",
        s.name, p.n + p.n_gen, one.window_pages, one.page_positions, windows, one.full_pages);
    require(one.full_pages >= (p.n + p.n_gen - 1) / one.page_positions, s.name, "the length");
    stop(&r);
    free(p.ids);
    free(one.got);
}

/* What every scenario is compared with: each prompt alone, whole, on one thread. */
static void run_alone(bed *b)
{
    running r;
    scenario alone = {"alone, whole, 1 thread", 1, 512, 512, 1, 0, false, 1, 0};
    start(b, &alone, &r);
    run_all(b, &alone, &r);
    report(b, &alone, &r);
    stop(&r);
    for (int i = 0; i < b->n_prompts; i++) {
        memcpy(b->prompts[i].want, got_of(b, &b->prompts[i], 0), sizeof b->prompts[i].want);
    }
}

/* The digest of what the prompts gave alone, and in batches as run_scenario has found. */
static void print_digest(bed *b, const char *want)
{
    scenario batches = {"random batches", 2, 64, 256, 16, 0, false, 24, 1};
    uint8_t sum[32];
    char text[CP_DIGEST_STR];
    run_scenario(b, &batches);
    cp_sha256 *h = cp_sha256_new();
    for (int i = 0; i < b->n_prompts; i++) {
        const result *w = &b->prompts[i].want[0];
        size_t n = (size_t)w->n;
        cp_sha256_add(h, &w->n, sizeof w->n);
        cp_sha256_add(h, w->id, n * sizeof *w->id);
        cp_sha256_add(h, w->logprob, n * sizeof *w->logprob);
        cp_sha256_add(h, w->top, n * sizeof *w->top);
        cp_sha256_add(h, w->row, n * sizeof *w->row);
    }
    cp_sha256_done(h, sum);
    cp_digest_format(sum, text);
    printf("%s\n", text);
    if (want && strcmp(want, text)) {
        fprintf(stderr, "the bits have changed: %s was wanted\n", want);
        exit(1);
    }
}

static void random_ids(bed *b, prompt *p)
{
    p->ids = cp_xcalloc((size_t)p->n, sizeof *p->ids);
    for (int k = 0; k < p->n; k++) {
        p->ids[k] = (int32_t)draw(b, (uint64_t)b->vocab);
    }
}

/* Whether a state takes more than the pages of 256 positions. */
static bool large_states(const bed *b)
{
    const cp_program *prog = cp_model_program(b->model);
    size_t page = cp_program_page_bytes(prog, b->page_positions);
    return cp_program_state_at(prog, prog->n_groups) > page * (size_t)(256 / b->page_positions);
}

/* Forced preemptions where states are large, and where there are none and answers are short: slots
 * get a quarter of the bytes at most, so that a pool for a few short sequences is none. The prompts
 * of three fill its pages, and their answers do not fit. */
static void run_crowd(bed *b)
{
    enum { SLOTS = 4, SEQS = 3, PROMPTS = 6, CHUNK = 64 };
    const cp_program *prog = cp_model_program(b->model);
    uint64_t state = cp_program_state_at(prog, prog->n_groups), bytes = 4 * SLOTS * state;
    cp_kv_config kv = {
        .groups = prog->groups, .n_groups = prog->n_groups, .page_positions = b->page_positions};
    if (state == 0) {
        bytes = SEQS * (uint64_t)cp_kv_pages_for(&kv, b->page_positions, CHUNK) *
                cp_program_page_bytes(prog, b->page_positions);
    }
    uint64_t pages = (bytes - SLOTS * state) / cp_program_page_bytes(prog, b->page_positions);
    bed one = *b;
    prompt crowd[PROMPTS];
    int n = 1;
    while (SEQS * (uint64_t)cp_kv_pages_for(&kv, n + 2, CHUNK) <= pages) {
        n++;
    }
    for (int i = 0; i < PROMPTS; i++) {
        crowd[i] = (prompt){
            .n = n, .n_gen = b->most_gen, .n_choices = 1, .temperature = i % 2 ? 0.8f : 0.0f};
        random_ids(b, &crowd[i]);
    }
    one.prompts = crowd;
    one.n_prompts = PROMPTS;
    one.got = cp_xcalloc(PROMPTS * CHOICES, sizeof *one.got);
    run_alone(&one);
    one.kv_bytes = bytes;
    for (int cached = 0; cached < 2; cached++) {
        const char *name = cached ? "preemptions with cache" : "forced preemptions";
        scenario s = {name, 2, CHUNK, 4 * CHUNK, SEQS, 0, cached, PROMPTS, 0};
        run_scenario(&one, &s);
    }
    for (int i = 0; i < PROMPTS; i++) {
        free(crowd[i].ids);
    }
    free(one.got);
}

static void make_prompts(bed *b, int longest)
{
    b->prompts = cp_xcalloc((size_t)b->n_prompts, sizeof *b->prompts);
    b->got = cp_xcalloc((size_t)b->n_prompts * CHOICES, sizeof *b->got);
    for (int i = 0; i < b->n_prompts; i++) {
        prompt *p = &b->prompts[i];
        int most = i % 8 == 0 ? longest : longest / 4;
        p->n = i % 8 == 0 ? longest - (int)draw(b, (uint64_t)longest / 8)
                          : 1 + (int)draw(b, (uint64_t)most);
        random_ids(b, p);
        p->n_gen = 2 + (int)draw(b, (uint64_t)b->most_gen - 1);
        p->temperature = i % 2 ? 0.8f : 0.0f;
        p->n_choices = i % 2 ? b->choices : 1;
    }
}

static void run_everything(bed *b)
{
    const scenario all[] = {
        {"2 threads", 2, 512, 512, 1, 0, false, 1, 0},
        {"random batches", 2, 128, 512, 16, 0, false, 24, 0},
        {"random batches, 1 thread", 1, 96, 200, 7, 0, false, 16, 0},
        /* as many prompts as have their chunk in a step; when fewer run, the oldest gets more */
        {"chunks of 1", 2, 1, 16, 16, 0, false, 32, 0},
        {"chunks of 7", 2, 7, 8 * 7, 8, 0, false, 16, 0},
        {"chunks of 64", 2, 64, 4 * 64, 4, 0, false, 8, 0},
        {"one row a step", 2, 1, 1, 1, 0, false, 1, 0},
        {"chunks of 509", 2, 509, 509, 1, 0, false, 1, 0},
        {"steps of 5 ms", 2, 128, 512, 16, 0, true, 24, 5},
        {"forced preemptions", 2, 16, 64, 48, 250, false, 64, 0},
        {"preemptions with cache", 1, 16, 64, 40, 250, true, 64, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i].shorter_than || !large_states(b)) {
            run_scenario(b, &all[i]);
        }
    }
    if (large_states(b)) {
        run_crowd(b);
    }
    run_hits(b);
    run_every_boundary(b);
    run_turns(b);
    run_long(b);
    printf("invariant: %d prompts, every scenario gives the same ids and bits\n", b->n_prompts);
}

/* Batches, chunks, preemptions and hits, against what stands in the prompts. */
static void run_cuda(bed *b)
{
    const scenario all[] = {
        {"random batches", 1, 64, 128, 8, 0, false, 8, 0},
        {"chunks of 7", 1, 7, 8 * 7, 8, 0, false, 8, 0},
        {"chunks of 1", 1, 1, 8, 8, 0, false, 8, 0},
    };
    const cp_program *prog = cp_model_program(b->model);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        run_scenario(b, &all[i]);
    }
    run_hits(b);
    if (!b->exact && cp_program_state_at(prog, prog->n_groups) == 0) {
        run_crowd(b);
    }
    printf("cuda %s: %d prompts, every scenario gives the same ids and bits\n",
           b->exact ? "exact, as the cpu" : "alone and together", b->n_prompts);
}

static bool is_built(const char *backend)
{
    const char *const *name = cp_backend_names();
    while (*name && strcmp(*name, backend) != 0) {
        name++;
    }
    return *name != NULL;
}

/* The digests are those of the bits that all levels but amx share. */
static void leave_amx(void)
{
    cp_isa isa;
    cp_err err = {0};
    must(cp_isa_detect(NULL, &isa, &err), &err);
    if (!getenv("CAPSTAN_CPU") && isa == CP_ISA_AMX)
        setenv("CAPSTAN_CPU", cp_isa_name(cp_isa_parent(isa)), 1);
}

int main(int argc, char **argv)
{
    bed b = {.device = "cpu", .most_gen = MAX_GEN, .choices = 1};
    cp_err err = {0};
    bool digest = argc > 1 && strcmp(argv[1], "--digest") == 0;
    bool cuda = argc > 2 && strcmp(argv[1], "--cuda") == 0;
    bool exact = cuda && strcmp(argv[2], "exact") == 0;
    int skip = cuda ? 2 : digest;
    argc -= skip;
    argv += skip;
    if (argc < 4) {
        fprintf(stderr,
                "usage: invariance [--digest] MODEL.gguf PROMPTS LONGEST [SEED [WANT]]\n"
                "       invariance --cuda exact|default MODEL.gguf PROMPTS LONGEST [SEED]\n");
        return 2;
    }
    if (cuda && !is_built("cuda")) {
        printf("skipped: cuda is not built\n");
        return 77;
    }
    if (cuda) {
        b.most_gen = MAX_GEN / 6;
        b.choices = CHOICES;
        b.device = exact ? "cpu" : "cuda";
    }
    if (digest)
        leave_amx();
    cp_loader_options lo = {0};
    b.path = argv[1];
    b.n_prompts = (int)strtol(argv[2], NULL, 10);
    b.rng = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    must(cp_loader_open(&b.file, b.path, &lo, &err), &err);
    must(cp_model_open(&b.model, b.file, &err), &err);
    b.vocab = cp_model_hparams(b.model)->n_vocab;
    make_prompts(&b, (int)strtol(argv[3], NULL, 10));
    run_alone(&b);
    if (cuda) {
        b.device = "cuda";
        b.exact = exact;
        run_cuda(&b);
    } else if (digest) {
        print_digest(&b, argc > 5 ? argv[5] : NULL);
    } else {
        run_everything(&b);
    }
    for (int i = 0; i < b.n_prompts; i++) {
        free(b.prompts[i].ids);
    }
    free(b.prompts);
    free(b.got);
    cp_model_close(b.model);
    cp_loaded_close(b.file);
    return 0;
}
