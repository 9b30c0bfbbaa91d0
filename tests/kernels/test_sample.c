/*
 * test_sample: SAMPLE of the cpu's levels, or of a device, against ref over drawn parameters (ids,
 * log-probabilities, alternatives, bit for bit), known values of the generator, what the filters
 * mean, and frequencies over seeds.
 */
#include "tests/kernels/rig.h"

#include "base/mem.h"
#include "kernels/math.h"
#include "kernels/sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 8 };

static void vocab_rig(rig *r, uint64_t seed, int n_vocab)
{
    rig_init(r, seed);
    r->cfg.max_rows = r->cfg.max_out = ROWS;
    r->prog.n_vocab = n_vocab;
    r->prog.logits = rig_mat(r, n_vocab, CP_ROWS_OUT);
}

/* Sample n rows of logits [n][n_vocab], of one sequence or of one each. */
static void sample_as(machine *m, const float *logits, int n, bool each, const cp_sample_in *in,
                      cp_sample_out *out)
{
    int vocab = m->p->prog->n_vocab;
    cp_mat s = m->p->prog->logits;
    static const int32_t ids[ROWS] = {0}, one[ROWS] = {0}, rows[ROWS] = {0, 1, 2, 3, 4, 5, 6, 7};
    cp_batch_seq q[ROWS] = {{.n_rows = n}};
    for (int i = 0; each && i < n; i++)
        q[i] = (cp_batch_seq){.slot = i, .row0 = i, .n_rows = 1, .pos0 = i};
    cp_batch b = {.n_rows = n,
                  .n_seqs = each ? n : 1,
                  .n_out = n,
                  .tok = ids,
                  .pos = rows,
                  .row_seq = each ? rows : one,
                  .out_rows = rows,
                  .seqs = q,
                  .samples = in,
                  .results = out};
    for (int i = 0; i < n; i++)
        machine_put_row(m, s, i, logits + (size_t)i * (size_t)vocab);
    machine_step(m, &b);
}

static void sample(machine *m, const float *logits, int n, const cp_sample_in *in,
                   cp_sample_out *out)
{
    sample_as(m, logits, n, false, in, out);
}

static cp_sample_in plain(void)
{
    return (cp_sample_in){
        .temperature = 1.0f, .top_p = 1.0f, .repetition = 1.0f, .target = -1, .n_top = -1};
}

static bool chance(rig *r, int one_in)
{
    return rig_random(r, (uint64_t)one_in) == 0;
}

/* Peaked, flat, with ties, with holes. */
static void draw_logits(rig *r, float *x, int n)
{
    int kind = (int)rig_random(r, 6);
    float scale = kind == 0 ? 0.01f : kind == 1 ? 30.0f : 6.0f;
    for (int i = 0; i < n; i++) {
        x[i] = scale * rig_uniform(r) * (kind == 2 ? rig_uniform(r) * rig_uniform(r) : 1.0f);
        if (kind == 3)
            x[i] = (float)(int)(x[i] * 2.0f) * 0.5f; /* many ties, and both zeroes */
        if (kind == 4 && chance(r, 3))
            x[i] = -INFINITY;
    }
    if (kind == 5)
        x[rig_random(r, (uint64_t)n)] = 40.0f;
}

typedef struct history {
    int32_t tokens[600], banned[40];
    struct cp_logit_bias bias[20];
    uint32_t *mask;
} history;

static void draw_params(rig *r, cp_sample_in *in, history *h, int vocab)
{
    uint64_t v = (uint64_t)vocab;
    *in = plain();
    in->temperature = chance(r, 4) ? 0.0f : 0.05f + 2.0f * (rig_uniform(r) + 1.0f);
    in->top_p = chance(r, 2) ? 0.5f * (rig_uniform(r) + 1.0f) : 1.0f;
    in->min_p = chance(r, 4) ? 0.1f * (rig_uniform(r) + 1.0f) : 0.0f;
    in->top_k = chance(r, 2) ? (int)rig_random(r, chance(r, 3) ? 2 * v : 60) : 0;
    in->repetition = chance(r, 3) ? 1.3f : 1.0f;
    in->presence = chance(r, 3) ? 0.7f : 0.0f;
    in->frequency = chance(r, 3) ? 0.3f : 0.0f;
    in->seed = rig_random(r, 1ull << 40);
    in->position = rig_random(r, 5000);
    in->choice = (uint32_t)rig_random(r, 4);
    in->n_top = (int)rig_random(r, 22) - 1;
    in->target = chance(r, 8) ? (int32_t)rig_random(r, v) : -1;
    in->tokens = h->tokens;
    in->n_prompt = (int)rig_random(r, 300);
    in->n_tokens = in->n_prompt + (int)rig_random(r, 300);
    for (int i = 0; i < in->n_tokens; i++) {
        h->tokens[i] = (int32_t)rig_random(r, i < in->n_prompt || chance(r, 2) ? v : 5);
        h->tokens[i] = h->tokens[i] < vocab ? h->tokens[i] : 0;
    }
    for (int i = 0; i < 20; i++)
        h->bias[i] = (struct cp_logit_bias){(int32_t)rig_random(r, v), 5.0f * rig_uniform(r)};
    for (int i = 0; i < 40; i++)
        h->banned[i] = (int32_t)rig_random(r, v);
    in->bias = h->bias;
    in->n_bias = chance(r, 4) ? 20 : 0;
    in->banned = h->banned;
    in->n_banned = chance(r, 4) ? (int)rig_random(r, 40) : 0;
    if (chance(r, 4)) {
        for (int i = 0; i < (vocab + 31) / 32; i++)
            h->mask[i] = chance(r, 3) ? UINT32_MAX : (uint32_t)rig_random(r, 1ull << 32);
        in->mask = h->mask;
    }
}

static void assert_same(const cp_sample_out *a, const cp_sample_out *b, const char *what, int vocab)
{
    if (a->id != b->id || a->finite != b->finite || a->n_top != b->n_top ||
        memcmp(&a->logprob, &b->logprob, sizeof(float)) != 0)
        fail_msg("%s, %d ids: id %d, %d; finite %d, %d; log p %a, %a; alternatives %d, %d", what,
                 vocab, a->id, b->id, a->finite, b->finite, (double)a->logprob, (double)b->logprob,
                 a->n_top, b->n_top);
    for (int i = 0; i < a->n_top; i++)
        if (a->top[i].id != b->top[i].id ||
            memcmp(&a->top[i].logprob, &b->top[i].logprob, sizeof(float)) != 0)
            fail_msg("%s, %d ids: alternative %d: %d, %d", what, vocab, i, a->top[i].id,
                     b->top[i].id);
}

static void same_as_ref(void **state)
{
    (void)state;
    static const int vocabs[] = {5000, 20001, 1000, 65, 1, 2, 7, 63, 64, 4096, 140001};
    for (size_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++) {
        int vocab = vocabs[v], rounds = vocab > 100000      ? 2
                                        : vocab > 4000      ? 12
                                        : rig_threads() > 1 ? 60
                                                            : 15;
        rig r;
        vocab_rig(&r, 100 + v, vocab);
        machine ref = machine_open(&r, NULL, 1), m[16];
        int n_m = 0;
        for (const char *const *level = rig_levels(); *level; level++)
            for (int threads = 1; threads <= rig_threads(); threads += 2)
                m[n_m++] = machine_open(&r, *level, threads);
        float *x = cp_xcalloc((size_t)ROWS * (size_t)vocab, sizeof(*x));
        history *h = cp_xcalloc(ROWS, sizeof(*h));
        for (int i = 0; i < ROWS; i++)
            h[i].mask = cp_xcalloc((size_t)(vocab + 31) / 32, sizeof(uint32_t));
        for (int round = 0; round < rounds; round++) {
            int n = 1 + (int)rig_random(&r, ROWS);
            cp_sample_in in[ROWS];
            cp_sample_out want[ROWS], got[ROWS];
            for (int i = 0; i < n; i++) {
                draw_logits(&r, x + (size_t)i * (size_t)vocab, vocab);
                draw_params(&r, &in[i], &h[i], vocab);
                if (chance(&r, 40))
                    x[(size_t)i * (size_t)vocab + rig_random(&r, (uint64_t)vocab)] = NAN;
            }
            sample(&ref, x, n, in, want);
            for (int k = 0; k < n_m; k++) {
                sample(&m[k], x, n, in, got);
                for (int i = 0; i < n; i++)
                    assert_same(&want[i], &got[i], cp_backend_level(m[k].b), vocab);
            }
        }
        for (int k = 0; k < n_m; k++)
            machine_close(&m[k]);
        machine_close(&ref);
        for (int i = 0; i < ROWS; i++)
            free(h[i].mask);
        free(h);
        free(x);
        rig_fini(&r);
    }
}

/* ---- where something changes ---- */

static machine best_machine(rig *r)
{
    const char *const *level = rig_levels();
    while (level[1])
        level++;
    return machine_open(r, *level, 1);
}

typedef struct bound_case {
    float first[4]; /* logits */
    int n_first;
    float rest, slope; /* all others: rest + slope * id */
    float min_p, top_p;
    int top_k, n_top;
} bound_case;

#define QUARTER -0x1.62e43p+0f /* cp_logf of it */

static const bound_case bound_cases[] = {
    {{0.0f, -0.88137358f}, 2, -100.0f, 0.0f, 0.0f, 1.0f, 0, 5}, /* the sum is sqrt(2) */
    {{0.0f}, 1, QUARTER, 0.0f, 0.25f, 1.0f, 0, 5},              /* just as likely as min_p says */
    {{0.0f}, 1, QUARTER, 0.0f, 0.25f, 0.9f, 0, 5},
    {{1.0f, 3.0f, 2.0f}, 3, -INFINITY, 0.0f, 0.0f, 1.0f, CP_MAX_TOP, CP_MAX_TOP}, /* too few */
    {{-0.0f, 0.0f, -0.0f}, 3, 0.0f, 0.0f, 0.0f, 1.0f, 70, 7},       /* one as another */
    {{0.0f, 0.0f, 0.0f, 0.0f}, 4, -100.0f, 0.0f, 0.0f, 0.5f, 0, 5}, /* just two of four */
    {{0.0f, INFINITY}, 2, 0.0f, 0.0f, 0.0f, 1.0f, 0, 5},
    {{0}, 0, 0.0f, 0.01f, 0.0f, 1.0f, 40, 5}, /* the last ones are the best */
    /* so flat that a weight which is a little off moves what is drawn */
    {{0}, 0, 0.0f, 0.001f, 0.0f, 1.0f, 0, 1},
    {{0}, 0, 0.0f, 0.0007f, 0.0f, 1.0f, 0, 2},
    {{0}, 0, 0.0f, -0.0013f, 0.0f, 0.9f, 0, 3},
    {{0}, 0, 0.0f, 0.0011f, 0.0f, 0.97f, 0, 4},
    {{0}, 0, 0.0f, 0.002f, 0.05f, 1.0f, 0, 6},
    {{0}, 0, 0.0f, -0.0003f, 0.0f, 1.0f, 3000, 7},
    {{4.0f, 5.0f, 3.0f}, 3, 0.0f, -0.0002f, 0.0f, 0.95f, 0, 8},
    {{0}, 0, 0.0f, 0.0001f, 0.0f, 1.0f, 0, CP_MAX_TOP},
};
enum { BOUND_CASES = sizeof(bound_cases) / sizeof(bound_cases[0]) };
_Static_assert(BOUND_CASES == 2 * ROWS, "two steps");

static void bound_row(const bound_case *c, float *x, int n, cp_sample_in *in)
{
    for (int i = 0; i < n; i++)
        x[i] = i < c->n_first ? c->first[i] : c->rest + c->slope * (float)i;
    *in = plain();
    in->min_p = c->min_p;
    in->top_p = c->top_p;
    in->top_k = c->top_k;
    in->n_top = c->n_top;
}

static void values_at_bounds(void **state)
{
    (void)state;
    static const int vocabs[] = {200, 5000, 20001}; /* the last for those that are flat */
    for (size_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++) {
        int vocab = vocabs[v];
        rig r;
        vocab_rig(&r, 7, vocab);
        machine ref = machine_open(&r, NULL, 1), m = best_machine(&r);
        float *x = cp_xcalloc((size_t)ROWS * (size_t)vocab, sizeof(*x));
        cp_sample_in in[ROWS];
        cp_sample_out want[ROWS], got[ROWS];
        assert_true(QUARTER == cp_logf(0.25f));
        const bound_case *cases = &bound_cases[vocab > 5000 ? BOUND_CASES - ROWS : 0];
        for (uint64_t seed = 0; seed < 3; seed++) {
            for (int i = 0; i < ROWS; i++) {
                bound_row(&cases[i], x + (size_t)i * (size_t)vocab, vocab, &in[i]);
                in[i].seed = seed;
            }
            sample(&ref, x, ROWS, in, want);
            sample(&m, x, ROWS, in, got);
            for (int i = 0; i < ROWS; i++)
                assert_same(&want[i], &got[i], "at a bound", vocab);
        }
        free(x);
        machine_close(&m);
        machine_close(&ref);
        rig_fini(&r);
    }
}

/* ---- every warp, lane and place of a walk ---- */

/* Of draws, one near the end of what is kept: one id more or less there moves what is drawn. */
static uint64_t late_seed(void)
{
    uint64_t seed = 0;
    while (cp_sample_random(seed, 0, 0) >> 56 != 0xfd)
        seed++;
    return seed;
}

typedef struct pair {
    rig r;
    machine ref, m;
    int vocab;
    bool each; /* row is a sequence of its own */
    float *x;  /* [ROWS][vocab] */
    cp_sample_in in[ROWS];
} pair;

/* Behind rows of logits lies 1e30. */
static void pair_open(pair *p, int vocab)
{
    vocab_rig(&p->r, 11, vocab);
    p->vocab = vocab;
    p->each = false;
    p->ref = machine_open(&p->r, NULL, 1);
    p->m = best_machine(&p->r);
    machine_fill(&p->ref, 1);
    machine_fill(&p->m, 1);
    p->x = cp_xcalloc((size_t)ROWS * (size_t)vocab, sizeof(*p->x));
    for (int i = 0; i < ROWS; i++)
        p->in[i] = plain();
}

static float *pair_row(pair *p, int row)
{
    return p->x + (size_t)row * (size_t)p->vocab;
}

static void pair_step(pair *p, int n, const char *what)
{
    cp_sample_out want[ROWS], got[ROWS];
    sample_as(&p->ref, p->x, n, p->each, p->in, want);
    sample_as(&p->m, p->x, n, p->each, p->in, got);
    for (int i = 0; i < n; i++)
        assert_same(&want[i], &got[i], what, p->vocab);
}

static void pair_close(pair *p)
{
    free(p->x);
    machine_close(&p->m);
    machine_close(&p->ref);
    rig_fini(&p->r);
}

static void put_all(float *x, int n, float v)
{
    for (int i = 0; i < n; i++)
        x[i] = v;
}

enum { SIZE_IDS = 3307, SIZE_TOKENS = 2 * SIZE_IDS };

/* A row of each way that logits are changed or picked from, all of them negative. */
static void size_rows(pair *p, const int32_t *tokens, const uint32_t *mask)
{
    int n = p->vocab;
    for (int i = 0; i < ROWS; i++) {
        float *x = pair_row(p, i);
        p->in[i] = plain();
        p->in[i].seed = late_seed();
        for (int k = 0; k < n; k++)
            x[k] = i < 2 ? -3.0f + 0.0005f * (float)k : -2.5f + 2.0f * rig_uniform(&p->r);
    }
    cp_sample_in *in = p->in;
    in[0].n_top = 5;
    in[0].top_k = 40;
    in[1].target = 0;
    in[1].n_top = 0;
    put_all(pair_row(p, 2), n, -1.0f);
    in[2].mask = mask;
    for (int i = 3; i < 6; i++) {
        in[i].tokens = tokens;
        in[i].n_prompt = i == 4 ? n : n / 2;
        in[i].n_tokens = i == 4 ? n + n / 3 : i == 5 ? n / 3 : n;
    }
    in[3].repetition = 1.3f;
    in[3].n_top = 3;
    in[4].repetition = 1.2f;
    in[4].presence = 0.3f;
    in[4].frequency = 0.01f;
    in[4].top_p = 0.9f;
    in[5].frequency = 0.2f;
    in[6].temperature = 0.0f;
    in[6].n_top = 4;
    for (int k = 0; k < 4 && n > 64 * k; k++) /* so that a warp visits its last blocks together */
        pair_row(p, 6)[n - 1 - 64 * k] = k ? -0.2f : -0.1f;
    for (int k = 0; k < n; k++)
        pair_row(p, 7)[k] = k % 3 ? 0.0f : -0.0f;
    in[7].top_k = n - 1;
    in[7].top_p = 0.999f;
    in[7].n_top = 1;
}

/* Vocabularies that end in each quarter of a chunk, within each place of four, or with a block. */
static void sizes(void **state)
{
    (void)state;
    static const int vocabs[] = {41,   42,   43,   64,   970,  1088, 1129, 1130, 1131,
                                 2240, 2281, 2282, 2283, 3264, 3305, 3306, 3307};
    int32_t *tokens = cp_xcalloc(SIZE_TOKENS, sizeof(*tokens));
    uint32_t *mask = cp_xcalloc(SIZE_IDS / 32 + 1, sizeof(*mask));
    for (size_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++) {
        pair p;
        pair_open(&p, vocabs[v]);
        for (int i = 0; i < SIZE_TOKENS; i++)
            tokens[i] = (int32_t)rig_random(&p.r, (uint64_t)vocabs[v]);
        for (int i = 0; i < SIZE_IDS / 32 + 1; i++)
            mask[i] = (uint32_t)(rig_random(&p.r, 1ull << 32) | rig_random(&p.r, 1ull << 32));
        size_rows(&p, tokens, mask);
        pair_step(&p, ROWS, "a size");
        pair_close(&p);
    }
    free(tokens);
    free(mask);
}

/* An id each in a digit's last bin of every second warp; and in bins of lanes 0, 1, 2, 4, 8, 16. */
static void bins(void **state)
{
    (void)state;
    static const int lanes[6] = {1, 0, -1, -3, -7, -15};
    pair p;
    pair_open(&p, 64);
    for (int odd = 0; odd < 2; odd++) {
        for (int i = 0; i < ROWS; i++) {
            float *x = pair_row(&p, i);
            put_all(x, 64, -INFINITY);
            for (int w = odd; w < 16; w += 2) {
                float v = cp_f32_from_bits((uint32_t)(w < 8 ? 225 - 32 * w : 32 * w - 226) << 23);
                x[(7 * w + 3) % 64] = w < 8 ? v : -v;
            }
            x[63] = -3e38f;
            p.in[i].temperature = 0.0f;
            p.in[i].n_top = i + 1;
        }
        pair_step(&p, ROWS, "warps' bins");
    }
    for (int i = 0; i < 6; i++) {
        put_all(pair_row(&p, i), 64, -INFINITY);
        for (int l = 0; l < 6; l++)
            pair_row(&p, i)[5 * l] = cp_f32_from_bits((uint32_t)(127 + lanes[l]) << 23);
    }
    pair_step(&p, 6, "lanes' bins");
    /* neighbours among floats, over 2^22 numbers: digits of 11, 11 and 1 bits */
    for (int i = 0; i < ROWS; i++) {
        for (int k = 0; k < 64; k++)
            pair_row(&p, i)[k] = cp_f32_from_bits(cp_f32_bits(1.9f) - (uint32_t)k);
        p.in[i] = plain();
        p.in[i].temperature = 0.03f;
        p.in[i].seed = late_seed();
        p.in[i].top_k = i + 1;
    }
    pair_step(&p, ROWS, "neighbours");
    pair_close(&p);
}

/* Of a walk's step, whose 256 elements are 8 numbers of 32 lanes: of equal ones in lanes 0, 1, 2, 4
 * ... of number e as many are wanted as reach lane 2, 4, 8 or 16. Better ones are in blocks before.
 */
static void ties(void **state)
{
    (void)state;
    static const int lanes[6] = {0, 2, 4, 8, 16, 17};
    pair p;
    pair_open(&p, 3305);
    for (int e = 0; e < 8; e += 2) {
        for (int i = 0; i < ROWS; i++) {
            int half = i / 4, k = i % 4;
            float *x = pair_row(&p, i), tie = k % 2 ? -1.0f : 1.0f;
            put_all(x, p.vocab, -4.0f);
            for (int b = 0; b < e / 2; b++)
                x[64 * b + 11] = 1.5f;
            for (int l = 0; l < 6; l++)
                x[32 * (e + half) + lanes[l]] = tie;
            p.in[i].temperature = 0.0f;
            p.in[i].n_top = e / 2 + 2 + k;
        }
        pair_step(&p, ROWS, "ties");
    }
    for (int way = 0; way < 3; way++) {  /* another best one at the end; or half of the weight */
        for (int e = 0; e < ROWS; e++) { /* a quarter as likely as the best, as min_p says */
            put_all(pair_row(&p, e), p.vocab, QUARTER);
            pair_row(&p, e)[0] = pair_row(&p, e)[way == 1 ? 255 : 0] = 0.0f;
            p.in[e] = plain();
            p.in[e].seed = late_seed();
            p.in[e].min_p = 0.25f;
            p.in[e].top_k = 32 * e + 9;
            p.in[e].top_p = way == 2 ? 0.5f : 0.999f;
        }
        pair_step(&p, ROWS, "kept ties");
    }
    for (int i = 0; i < ROWS; i++) { /* weights whose exponent is far from a whole power of 2 */
        p.in[i] = plain();
        p.in[i].seed = i < 4 ? (uint64_t)i : late_seed();
        p.in[i].top_p = i < 4 ? 1.0f : 0.95f - 0.05f * (float)i;
        for (int k = 0; k < p.vocab; k++)
            pair_row(&p, i)[k] = (i == 2 || i == 3 ? k % 3 : k / 256 % 2) ? 0.0f : -1.04f;
    }
    p.in[2].min_p = p.in[3].min_p = p.in[2].top_p = 0.5f;
    pair_step(&p, ROWS, "warps that differ");
    pair_close(&p);
}

/* The best in each warp's share, of maxima and of blocks; and in the first of many chunks. */
static void every_warp(void **state)
{
    (void)state;
    pair p;
    pair_open(&p, 31000);
    for (int from = 0; from < 16; from += ROWS) {
        for (int i = 0; i < ROWS; i++) {
            put_all(pair_row(&p, i), p.vocab, -2.0f);
            pair_row(&p, i)[64 * 32 * (from + i) + 5] = -0.5f;
            p.in[i].temperature = 0.0f;
            p.in[i].n_top = i % 4 - 1;
        }
        pair_step(&p, ROWS, "warps");
    }
    put_all(pair_row(&p, 0), p.vocab, -2.0f);
    for (int b = 0; b < 6; b++) /* the fifth is the first of a warp's second step */
        pair_row(&p, 0)[64 * b] = -0.5f;
    p.in[0].n_top = 5;
    pair_step(&p, 1, "a second step");
    pair_close(&p);
    pair_open(&p, 140001);
    for (int k = 0; k < p.vocab; k++)
        pair_row(&p, 0)[k] = -1.0f - 0.0001f * (float)k;
    put_all(pair_row(&p, 1), p.vocab, -100.0f);
    pair_row(&p, 1)[0] = 0.0f;
    for (int i = 0; i < 2; i++) {
        p.in[i].temperature = 0.0f;
        p.in[i].n_top = 2 * i;
    }
    pair_step(&p, 2, "chunks");
    pair_close(&p);
}

/* What is not finite, also of a row whose id is given. */
static void odd_rows(void **state)
{
    (void)state;
    static const struct cp_logit_bias infinite = {3, INFINITY};
    static const uint32_t nothing[4] = {0};
    pair p;
    pair_open(&p, 100);
    for (int i = 0; i < ROWS; i++)
        put_all(pair_row(&p, i), p.vocab, i < 2 ? -INFINITY : -1.0f);
    p.in[0].target = 5;
    p.in[1].n_top = 3;
    pair_row(&p, 2)[70] = INFINITY;
    p.in[2].target = 7;
    p.in[3].mask = nothing;
    p.in[4].mask = nothing;
    p.in[4].temperature = 0.0f;
    p.in[4].n_top = 3;
    p.in[5].bias = &infinite;
    p.in[5].n_bias = 1;
    p.in[6].temperature = 0.0f; /* id 0 */
    p.in[6].n_top = 0;
    p.in[7].target = 0;
    p.in[7].n_top = 2;
    pair_step(&p, ROWS, "odd");
    for (int i = 0; i < 4; i++) { /* among the best are zeroes, which are equal, in each place */
        for (int k = 0; k < p.vocab; k++)
            pair_row(&p, i)[k] = k >= 20 ? -1.0f : (k + i) % 4 ? 0.0f : 1.0f + (float)k;
        p.in[i] = plain();
        p.in[i].temperature = 0.0f;
        p.in[i].n_top = CP_MAX_TOP - i;
    }
    put_all(pair_row(&p, 4), p.vocab, 0.0f);
    put_all(pair_row(&p, 5), p.vocab, -INFINITY);
    pair_row(&p, 5)[50] = 0.0f;
    pair_row(&p, 5)[60] = -20.8f; /* weighs 1 of 2^30 */
    p.in[4] = p.in[5] = plain();
    p.in[4].temperature = 0.0f;
    p.in[4].n_top = 19;
    pair_step(&p, 6, "zeroes");
    pair_close(&p);
}

/* Biases at both ends of chunks, of which the second is -inf in some rows. What lies beside them in
 * a step's memory, a history's last id and a mask that reads like one more bias, is none of them.
 */
static void changes(void **state)
{
    (void)state;
    enum { N = 8400, WORDS = N / 32 + 1 };
    static const struct cp_logit_bias far[] = {{0, 3.0f}, {8399, 3.5f}}, at[] = {{4096, 3.0f}},
                                      end[] = {{4095, 3.0f}}, near[] = {{5, 3.5f}, {37, 3.0f}};
    static const int32_t tokens[] = {9, 5}, others[] = {0, 4096, 9}, prev = CP_TOK_PREV;
    static const int best[] = {5, 0, 4096, 5, 100};
    struct cp_logit_bias many[257];
    uint32_t masks[2][WORDS], all[WORDS];
    pair p;
    pair_open(&p, N);
    memset(all, 0xff, sizeof(all));
    memset(masks, 0xff, sizeof(masks));
    masks[0][0] = 69; /* as bits ids 0, 2 and 6, and then 37 */
    masks[0][1] = cp_f32_bits(4.0f) | 1u << 5;
    masks[1][0] = 37; /* ids 0, 2 and 5, and then 37 */
    masks[1][1] = cp_f32_bits(2.0f) | 1u << 5;
    for (int i = 0; i < ROWS; i++) {
        put_all(pair_row(&p, i), N, -1.0f);
        p.in[i].n_top = 1;
        p.in[i].temperature = i < 2 ? 1.0f : 0.0f;
        p.in[i].bias = i == 2 ? far : i == 3 ? at : i == 4 ? end : near;
        p.in[i].n_bias = i < 2 ? 0 : i == 3 || i == 4 ? 1 : 2;
    }
    for (int i = 0; i < 2; i++)
        put_all(pair_row(&p, i) + 4096, 4096, -INFINITY);
    p.in[1].mask = all;
    p.in[5].mask = masks[0];
    p.in[6].mask = masks[1];
    p.in[7].tokens = tokens;
    p.in[7].n_tokens = 2;
    p.in[7].presence = 0.1f;
    pair_step(&p, ROWS, "changes");
    /* ids at a chunk's first place, of a history that is not its slot's; what was drawn last; and
     * as many biases as threads, with one more in a chunk far behind */
    for (int i = 0; i < 257; i++)
        many[i] = (struct cp_logit_bias){i < 256 ? 100 + i : N - 1, 1.0f};
    for (int i = 0; i < 5; i++) {
        put_all(pair_row(&p, i), N, -1.0f);
        pair_row(&p, i)[best[i]] = -0.5f;
        p.in[i] = plain();
        p.in[i].temperature = 0.0f;
        p.in[i].presence = i < 4 ? 1.0f : 0.0f;
        p.in[i].tokens = i == 0 ? tokens : i == 3 ? &prev : others;
        p.in[i].n_tokens = i == 0 || i == 3 ? 1 : 3;
        p.in[i].n_prompt = i == 0; /* so the slot's counts are cleared */
    }
    p.in[4].bias = many;
    p.in[4].n_bias = 257;
    pair_step(&p, 5, "histories");
    pair_close(&p);
}

/* All ids but one came before, in the slot's history or in one that is the row's own: one for each
 * turn of a thread. What lies behind such a history, a bias, is none of it. */
static void one_unseen(void **state)
{
    (void)state;
    static const int vocabs[] = {3307, 970};
    int32_t *tokens = cp_xcalloc(SIZE_IDS, sizeof(*tokens));
    for (int v = 0; v < 2; v++) {
        pair p;
        pair_open(&p, vocabs[v]);
        for (int turn = 0; turn < (v ? 3 : 5); turn++) {
            int n = 0, unseen = 210 + 256 * turn;
            struct cp_logit_bias bias = {unseen + 1, 5.0f};
            for (int k = 0; k < p.vocab; k++)
                if (k != unseen)
                    tokens[n++] = k;
            for (int i = 0; i < 3; i++) {
                put_all(pair_row(&p, i), p.vocab, -1.0f);
                p.in[i] = plain();
                p.in[i].temperature = 0.0f;
                p.in[i].repetition = i == 1 ? 1.3f : 1.0f;
                p.in[i].presence = i == 1 ? 0.0f : 1.0f;
                p.in[i].tokens = tokens;
                p.in[i].n_tokens = n;
                p.in[i].n_prompt = i;
            }
            p.in[2].n_tokens = 256;
            p.in[2].frequency = 1.0f;
            p.in[2].bias = &bias;
            p.in[2].n_bias = 1;
            pair_step(&p, 3, "one unseen");
        }
        pair_close(&p);
    }
    free(tokens);
}

/* Histories of slots side by side, of which all are cleared at once. */
static void slots(void **state)
{
    (void)state;
    static const int vocabs[] = {100, 4200};
    static const int32_t tokens[] = {0, 1, 3, 99};
    for (int v = 0; v < 2; v++) {
        pair p;
        pair_open(&p, vocabs[v]);
        p.each = true;
        for (int i = 0; i < 3; i++) {
            put_all(pair_row(&p, i), p.vocab, -1.0f);
            pair_row(&p, i)[i] = -0.5f;
            p.in[i].temperature = 0.0f;
            p.in[i].presence = 1.0f;
            p.in[i].tokens = tokens;
            p.in[i].n_tokens = 4;
        }
        pair_step(&p, 3, "slots");
        pair_close(&p);
    }
}

/* Just behind the edge from one id to the next, or just before it. */
static bool at_edge(uint64_t weight, uint64_t best, uint64_t each, bool before)
{
    uint64_t rest = (weight - best) % each;
    return before ? rest > each - each / 500 : rest < each / 500;
}

/* Draws and top_p at the edges of ids whose weights' exponents are far from a whole power of 2:
 * what one coefficient of one copy of exp does to them moves the id. All are in one step of a walk.
 */
static void edges(void **state)
{
    (void)state;
    enum { KEPT = 256 };
    static const float levels[] = {-1.04f, -1.0396f};
    pair p;
    pair_open(&p, 3305);
    for (int i = 0; i < ROWS; i++) {
        float level = levels[i / 4];
        uint64_t best = 1ull << 30, each = cp_sample_weight(cp_expf(level));
        uint64_t total = best + each * (KEPT - 1), random;
        cp_sample_in *in = &p.in[i];
        put_all(pair_row(&p, i), p.vocab, level);
        pair_row(&p, i)[0] = 0.0f;
        in->top_k = KEPT;
        in->seed = late_seed();
        if (i % 4 < 2) {
            do
                random = cp_sample_random(++in->seed, 0, 0);
            while (random >> 60 != 15 ||
                   !at_edge(cp_sample_scale(random, total), best, each, i % 2));
        } else {
            in->top_p = (float)((double)(best + 200 * each) / (double)total);
            while (!at_edge(cp_sample_target(total, in->top_p), best, each, i % 2))
                in->top_p = cp_f32_from_bits(cp_f32_bits(in->top_p) + (i % 2 ? -1u : 1u));
        }
    }
    pair_step(&p, ROWS, "edges");
    pair_close(&p);
}

/* Random123's known answer for philox4x32-10 of zeroes, first two words; its others set a counter
 * word that is always 0 here. The three inputs act on their own. */
static void generator_known_answers(void **state)
{
    (void)state;
    assert_int_equal(cp_sample_random(0, 0, 0), 0xe169c58d6627e8d5u);
    assert_int_not_equal(cp_sample_random(1, 0, 0), cp_sample_random(0, 1, 0));
    assert_int_not_equal(cp_sample_random(0, 1, 0), cp_sample_random(0, 0, 0));
    assert_int_not_equal(cp_sample_random(0, 1, 0), cp_sample_random(0, 0, 1));
    assert_int_not_equal(cp_sample_random(1ull << 32, 0, 0), cp_sample_random(1, 0, 0));
    assert_int_not_equal(cp_sample_random(0, 0, 1ull << 32), cp_sample_random(0, 0, 0));
}

/* Where equality with ref says all, on a machine that is slow at many steps. */
static void not_on_devices(void)
{
    if (rig_threads() == 1)
        skip();
}

/* Seeds draw ids as often as softmax says: chi-square with 4 degrees of freedom, p > 1e-6. */
static void frequencies(void **state)
{
    (void)state;
    enum { N = 4000, V = 5 };
    static const float p[V] = {0.4f, 0.3f, 0.15f, 0.1f, 0.05f};
    rig r;
    not_on_devices();
    vocab_rig(&r, 1, V);
    machine m = best_machine(&r);
    for (int way = 0; way < 3; way++) {
        int count[V] = {0};
        float x[V];
        for (int i = 0; i < V; i++)
            x[i] = cp_logf(p[i]) * (way == 1 ? 0.5f : 1.0f);
        for (int i = 0; i < N; i++) {
            cp_sample_in in = plain();
            cp_sample_out out;
            in.seed = way == 2 ? 7 : (uint64_t)i;
            in.position = way == 2 ? (uint64_t)i : 3;
            in.temperature = way == 1 ? 0.5f : 1.0f;
            sample(&m, x, 1, &in, &out);
            count[out.id]++;
        }
        double chi = 0;
        for (int i = 0; i < V; i++) {
            double e = N * (double)p[i];
            chi += (count[i] - e) * (count[i] - e) / e;
        }
        if (chi > 34.0)
            fail_msg("way %d: chi square %g over 4 degrees", way, chi);
    }
    machine_close(&m);
    rig_fini(&r);
}

/* What can come out at all, over many seeds, as a bit mask of ids. */
static uint32_t support(machine *m, const float *x, cp_sample_in in)
{
    uint32_t seen = 0;
    for (uint64_t i = 0; i < 600; i++) {
        cp_sample_out out;
        in.seed = i;
        sample(m, x, 1, &in, &out);
        assert_true(out.finite);
        seen |= 1u << out.id;
    }
    return seen;
}

static void filters_mean_what_they_say(void **state)
{
    (void)state;
    rig r;
    not_on_devices();
    vocab_rig(&r, 1, 6);
    machine m = best_machine(&r);
    /* probabilities 0.3 0.3 0.2 0.1 0.06 0.04 */
    static const float p[6] = {0.1f, 0.3f, 0.04f, 0.3f, 0.2f, 0.06f};
    float x[6];
    for (int i = 0; i < 6; i++)
        x[i] = cp_logf(p[i]);
    cp_sample_in in = plain();
    assert_int_equal(support(&m, x, in), 0x3f);
    in.top_k = 1; /* a tie: the lower id */
    assert_int_equal(support(&m, x, in), 1u << 1);
    in.top_k = 3;
    assert_int_equal(support(&m, x, in), 1u << 1 | 1u << 3 | 1u << 4);
    in.top_k = 0;
    in.top_p = 0.75f; /* 0.3 + 0.3 < 0.75 <= 0.8 */
    assert_int_equal(support(&m, x, in), 1u << 1 | 1u << 3 | 1u << 4);
    in.top_k = 3; /* of the three, 0.3 + 0.3 = 75 % are not >= 0.76 of the rest: after top_k */
    in.top_p = 0.74f;
    assert_int_equal(support(&m, x, in), 1u << 1 | 1u << 3);
    in = plain();
    in.min_p = 0.3f; /* of the best's probability: >= 0.09 */
    assert_int_equal(support(&m, x, in), 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4);
    in.min_p = 0.9f;
    in.temperature = 4.0f; /* min_p comes after temperature: 0.2 / 0.3 ^ 1/4 = 0.904 stays */
    assert_int_equal(support(&m, x, in), 1u << 1 | 1u << 3 | 1u << 4);
    in = plain();
    in.top_p = 0.0f;
    assert_int_equal(support(&m, x, in), 1u << 1);
    machine_close(&m);
    rig_fini(&r);
}

static void penalties_bias_bans_mask(void **state)
{
    (void)state;
    rig r;
    vocab_rig(&r, 1, 4);
    machine m = best_machine(&r);
    static const float x[4] = {2.0f, 1.9f, -1.0f, -1.1f};
    static const int32_t ids[] = {0, 0, 2};
    static const struct cp_logit_bias bias[] = {{3, 4.0f}};
    static const uint32_t mask[] = {0xc};
    cp_sample_in in = plain();
    cp_sample_out out;
    in.temperature = 0.0f;
    in.n_top = 2;
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 0);
    float logprob = out.logprob;
    in.repetition = 1.1f; /* 2 / 1.1 < 1.9: the prompt counts, too */
    in.tokens = ids;
    in.n_prompt = in.n_tokens = 1;
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 1);
    assert_int_equal(out.top[0].id, 0); /* log-probabilities are of the raw logits */
    assert_true(out.top[0].logprob == logprob);
    in = plain();
    in.temperature = 0.0f;
    in.tokens = ids;
    in.n_prompt = in.n_tokens = 2;
    in.presence = 0.2f; /* of the output only */
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 0);
    in.n_prompt = 0;
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 1);
    in.presence = 0.0f;
    in.frequency = 0.06f; /* twice */
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 1);
    in = plain();
    in.temperature = 0.0f;
    in.bias = bias;
    in.n_bias = 1;
    in.n_top = 0;
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 3);
    assert_true(out.logprob < -3.0f); /* raw */
    in.banned = ids;
    in.n_banned = 3;
    in.n_bias = 0;
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 1);
    in.mask = mask;
    sample(&m, x, 1, &in, &out);
    assert_int_equal(out.id, 3);
    machine_close(&m);
    rig_fini(&r);
}

static void not_finite_is_said(void **state)
{
    (void)state;
    rig r;
    vocab_rig(&r, 1, 100);
    machine m = best_machine(&r);
    float x[100] = {0};
    cp_sample_in in = plain();
    cp_sample_out out;
    x[99] = NAN;
    sample(&m, x, 1, &in, &out);
    assert_false(out.finite);
    for (int i = 0; i < 100; i++)
        x[i] = -INFINITY;
    sample(&m, x, 1, &in, &out);
    assert_false(out.finite);
    x[70] = -3.0f;
    in.n_top = 5;
    sample(&m, x, 1, &in, &out);
    assert_true(out.finite);
    assert_int_equal(out.id, 70);
    assert_int_equal(out.n_top, 1);
    assert_true(out.logprob == 0.0f);
    machine_close(&m);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generator_known_answers),
        cmocka_unit_test(filters_mean_what_they_say),
        cmocka_unit_test(penalties_bias_bans_mask),
        cmocka_unit_test(not_finite_is_said),
        cmocka_unit_test(frequencies),
        cmocka_unit_test(bins),
        cmocka_unit_test(odd_rows),
        cmocka_unit_test(sizes),
        cmocka_unit_test(ties),
        cmocka_unit_test(changes),
        cmocka_unit_test(one_unseen),
        cmocka_unit_test(slots),
        cmocka_unit_test(edges),
        cmocka_unit_test(every_warp),
        cmocka_unit_test(values_at_bounds),
        cmocka_unit_test(same_as_ref),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
