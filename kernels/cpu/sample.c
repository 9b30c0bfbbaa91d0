/*
 * SAMPLE on the cpu backend; its law stands at the top of kernels/ref/sample.c.
 *
 * First pass, by pieces of a row drawn as items: of the raw logits NaN, maxima, the chunks of the
 * log-sum-exp and the piece's most likely ids where they are wanted; then the mask, and maxima of
 * blocks of 64 logits as they are then. Whoever finishes a row's last piece picks. Picking never
 * sorts the vocabulary: block maxima give the greedy choice, a lower bound of the k-th largest
 * logit (the k-th largest block maximum) and the blocks whose weights are not all zero; top_p first
 * sums the weights, then keeps only ids heavier than what may be left out in total. What remains is
 * selected by radix. All weights are integers, so their sums are exact, and neither the order nor
 * the way of selecting shows in the result.
 */
#include "kernels/sample.h"
#include "kernels/cpu/run.h"
#include "kernels/math.h"

#include <stdlib.h>
#include <string.h>

enum { RADIX = 256 };

typedef struct row_pick {
    const cpu_run *run;
    cpu_scratch *s;
    float *x;         /* logits; changed in place by mask, penalties, bias, bans */
    float *block_max; /* of x */
    int row, n;
    int b0, b1; /* the blocks at hand: of a piece, or all */
    const cp_sample_in *in;
    cp_sample_out *out;
    int32_t prev; /* what CP_TOK_PREV stands for in the history */
    int n_touched;
} row_pick;

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static float max_of(const float *x, int n)
{
    float m = -INFINITY;
    for (int i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

/* Ascending order of the key is ascending order of x (no NaN); -0 and 0 are one. */
static uint32_t order_of(float x)
{
    uint32_t u = cp_f32_bits(x + 0.0f);
    return u >> 31 ? ~u : u | 0x80000000u;
}

static float logit_of(uint32_t order)
{
    return cp_f32_from_bits(order >> 31 ? order & 0x7fffffffu : ~order);
}

/* A larger key is a larger logit, or an equal one with a lower id. */
static uint64_t key_of(float x, int32_t id)
{
    return (uint64_t)order_of(x) << 32 | (uint32_t)~id;
}

/*
 * The smallest key of the shortest prefix, in descending key order, that holds k keys or weighs
 * >= target (target 0: no such end); 0 when there is none. Most significant byte first: a pass per
 * byte over what is still undecided. key and weight are used up; weight may be NULL without target.
 */
static uint64_t select_prefix(uint64_t *key, uint32_t *weight, int n, int64_t k, uint64_t target)
{
    uint64_t decided = 0;
    for (int shift = 56; shift >= 0 && n > 0; shift -= 8) {
        uint64_t sum[RADIX] = {0};
        int32_t count[RADIX] = {0};
        for (int i = 0; i < n; i++) {
            unsigned b = (unsigned)(key[i] >> shift) & (RADIX - 1);
            count[b]++;
            sum[b] += weight ? weight[i] : 0;
        }
        int b = RADIX - 1;
        for (; b >= 0; b--) {
            if (count[b] && (count[b] >= k || (target && sum[b] >= target)))
                break;
            k -= count[b];
            target -= target ? sum[b] : 0;
        }
        if (b < 0)
            return 0;
        decided |= (uint64_t)b << shift;
        int m = 0;
        for (int i = 0; i < n; i++)
            if (((key[i] >> shift) & (RADIX - 1)) == (unsigned)b) {
                key[m] = key[i];
                if (weight)
                    weight[m] = weight[i];
                m++;
            }
        n = m;
        if (n == 1)
            return key[0];
    }
    return decided;
}

/* The k-th largest maximum of the blocks at hand (-inf when they are fewer): at least k logits
 * reach it. */
static float kth_block(const row_pick *r, int k)
{
    int n = r->b1 - r->b0;
    if (k > n)
        return -INFINITY;
    for (int i = 0; i < n; i++)
        r->s->key2[i] = key_of(r->block_max[r->b0 + i], i);
    return logit_of((uint32_t)(select_prefix(r->s->key2, NULL, n, k, 0) >> 32));
}

/* Ids of logits >= at_least in the blocks at hand, ascending, into s->ids. */
static int collect(const row_pick *r, float at_least)
{
    int found = 0;
    for (int b = r->b0; b < r->b1; b++) {
        int at = b * CPU_BLOCK;
        if (r->block_max[b] >= at_least)
            found += r->run->vec->collect(r->x + at, min_int(CPU_BLOCK, r->n - at), at_least, at,
                                          r->s->ids + found);
    }
    return found;
}

/* Log-sum-exp of the chunks in ascending order. */
static float merge_chunks(const cpu_run *run, int row, float *log_l)
{
    const float *cm = run->chunk_max + (size_t)row * (size_t)run->n_chunks;
    const float *cl = run->chunk_sum + (size_t)row * (size_t)run->n_chunks;
    float m = -INFINITY, l = 0.0f;
    for (int i = 0; i < run->n_chunks; i++) {
        if (cm[i] == -INFINITY)
            continue;
        float mm = m > cm[i] ? m : cm[i];
        l = l * cp_expf(m - mm) + cl[i] * cp_expf(cm[i] - mm);
        m = mm;
    }
    *log_l = cp_logf(l);
    return m;
}

/* Put an id, larger than all before it, into a list of the `want` most likely. */
static void insert(cpu_top *top, int want, int32_t id, float x)
{
    int at = top->n;
    while (at > 0 && x > top->x[at - 1])
        at--;
    if (at >= want || x == -INFINITY)
        return;
    top->n += top->n < want;
    for (int j = top->n - 1; j > at; j--) {
        top->id[j] = top->id[j - 1];
        top->x[j] = top->x[j - 1];
    }
    top->id[at] = id;
    top->x[at] = x;
}

static int wanted(const cp_sample_in *in)
{
    return min_int(in->n_top, CP_MAX_TOP);
}

/* The most likely ids of the blocks at hand, among the few that reach the bound. */
static void top_of_piece(const row_pick *r, cpu_top *top)
{
    int want = wanted(r->in), n = collect(r, kth_block(r, want));
    top->n = 0;
    for (int i = 0; i < n; i++)
        insert(top, want, r->s->ids[i], r->x[r->s->ids[i]]);
}

/* Those of the row, out of its pieces'. */
static void top_ids(const row_pick *r, int pieces, float m, float log_l)
{
    const cpu_top *piece = r->run->tops + (size_t)r->row * (size_t)r->run->n_pieces;
    cpu_top top = {0};
    for (int i = 0; i < pieces; i++)
        for (int j = 0; j < piece[i].n; j++)
            insert(&top, wanted(r->in), piece[i].id[j], piece[i].x[j]);
    r->out->n_top = top.n;
    for (int i = 0; i < top.n; i++) {
        r->out->top[i].id = top.id[i];
        r->out->top[i].logprob = (top.x[i] - m) - log_l;
    }
}

enum { IN_PROMPT = 1 << 30 }; /* a mark beside the count of an id; also: touched */

/* Note an id's raw logit the first time that something changes it. */
static void touch(row_pick *r, int32_t id, uint32_t mark)
{
    if (!r->s->count[id]) {
        r->s->raw[r->n_touched] = r->x[id];
        r->s->touched[r->n_touched++] = id;
    }
    r->s->count[id] += mark;
}

/* Repetition, presence and frequency: each id of the history once, with its count in the output. */
static void penalize(row_pick *r)
{
    const cp_sample_in *in = r->in;
    uint32_t *count = r->s->count;
    for (int i = in->n_prompt; i < in->n_tokens; i++) {
        int32_t id = cp_host_id(in->tokens[i], r->prev);
        if (id >= 0 && id < r->n)
            touch(r, id, 1);
    }
    if (in->repetition != 1.0f)
        for (int i = 0; i < in->n_prompt; i++) {
            int32_t id = in->tokens[i];
            if (id >= 0 && id < r->n && count[id] < IN_PROMPT)
                touch(r, id, IN_PROMPT);
        }
    for (int i = 0; i < r->n_touched; i++) {
        int32_t id = r->s->touched[i];
        float x = r->x[id];
        uint32_t n = count[id] & (IN_PROMPT - 1);
        if (in->repetition != 1.0f)
            x = x > 0.0f ? x / in->repetition : x * in->repetition;
        if (n) {
            x = x - in->frequency * (float)n;
            x = x - in->presence;
        }
        r->x[id] = x;
    }
}

/*
 * Apply what changes logits, beside the mask, which scan has applied: it wins over all of them in
 * any order. True when something changed. s->touched then lists each changed id with its logit
 * before, the raw one where the mask allows the id; others cannot be picked.
 */
static bool change_logits(row_pick *r)
{
    const cp_sample_in *in = r->in;
    bool history = in->repetition != 1.0f || in->presence != 0.0f || in->frequency != 0.0f;
    if (!history && !in->n_bias && !in->n_banned)
        return false;
    if (history)
        penalize(r);
    for (int i = 0; i < in->n_bias; i++) {
        int32_t id = in->bias[i].id;
        if (id < 0 || id >= r->n)
            continue;
        touch(r, id, 1);
        r->x[id] = r->x[id] + in->bias[i].bias;
    }
    for (int i = 0; i < in->n_banned; i++) {
        int32_t id = in->banned[i];
        if (id < 0 || id >= r->n)
            continue;
        touch(r, id, 1);
        r->x[id] = -INFINITY;
    }
    for (int i = 0; i < r->n_touched; i++)
        r->s->count[r->s->touched[i]] = 0;
    if (r->n_touched > r->n / CPU_BLOCK) {
        r->run->vec->block_max(r->x, r->n, r->block_max);
        return true;
    }
    for (int i = 0; i < r->n_touched; i++) {
        int at = r->s->touched[i] / CPU_BLOCK * CPU_BLOCK;
        r->run->vec->block_max(r->x + at, min_int(CPU_BLOCK, r->n - at),
                               r->block_max + at / CPU_BLOCK);
    }
    return true;
}

static int32_t greedy(const row_pick *r, float m)
{
    int b = 0;
    while (r->block_max[b] != m)
        b++;
    int32_t id = b * CPU_BLOCK;
    while (r->x[id] != m)
        id++;
    return id;
}

/* Weights of [from, to) logits, skipping blocks that weigh nothing. */
static uint64_t weigh_range(const row_pick *r, const cp_weigh *w, float nothing_below, int from,
                            int to)
{
    uint64_t sum = 0;
    for (int at = from; at < to;) {
        int end = at;
        while (end < to && r->block_max[end / CPU_BLOCK] >= nothing_below)
            end += CPU_BLOCK;
        end = min_int(end, to);
        if (end == at) {
            at += CPU_BLOCK;
            continue;
        }
        sum += r->run->vec->weigh_sum(r->x + at, end - at, w);
        at = end;
    }
    return sum;
}

/* No top_k, no top_p: find the chunk, then the id. */
static int32_t draw_all(const row_pick *r, const cp_weigh *w, float nothing_below, uint64_t random)
{
    uint64_t total = 0, *sums = r->s->key;
    for (int i = 0; i < r->run->n_chunks; i++) {
        int at = i * CP_SAMPLE_CHUNK;
        sums[i] = weigh_range(r, w, nothing_below, at, min_int(at + CP_SAMPLE_CHUNK, r->n));
        total += sums[i];
    }
    uint64_t rest = cp_sample_scale(random, total);
    int i = 0;
    while (rest >= sums[i])
        rest -= sums[i++];
    int at = i * CP_SAMPLE_CHUNK, n = min_int(CP_SAMPLE_CHUNK, r->n - at);
    r->run->vec->weigh(r->x + at, n, w, r->s->weight);
    int32_t id = 0;
    while (rest >= r->s->weight[id])
        rest -= r->s->weight[id++];
    return at + id;
}

/* Weights of the candidates in s->ids; those that min_p drops leave the list. */
static int weigh_candidates(const row_pick *r, const cp_weigh *w, int n)
{
    cpu_scratch *s = r->s;
    int kept = 0;
    for (int i = 0; i < n; i++)
        s->x[i] = r->x[s->ids[i]];
    r->run->vec->weigh(s->x, n, w, s->weight);
    for (int i = 0; i < n; i++) {
        if (!((s->x[i] - w->max) * w->inv_t >= w->z_min))
            continue;
        s->key[kept] = key_of(s->x[i], s->ids[i]);
        s->weight[kept] = s->weight[i];
        s->ids[kept++] = s->ids[i];
    }
    return kept;
}

/* Drop candidates whose key is smaller than `least`; returns how many stay. */
static int keep_from(const row_pick *r, int n, uint64_t least, uint64_t *total)
{
    cpu_scratch *s = r->s;
    int kept = 0;
    *total = 0;
    for (int i = 0; i < n; i++) {
        if (s->key[i] < least)
            continue;
        s->key[kept] = s->key[i];
        s->weight[kept] = s->weight[i];
        s->ids[kept++] = s->ids[i];
        *total += s->weight[kept - 1];
    }
    return kept;
}

static int32_t draw_some(const row_pick *r, const cp_weigh *w, float nothing_below, uint64_t random)
{
    const cp_sample_in *in = r->in;
    cpu_scratch *s = r->s;
    bool by_count = in->top_k > 0 && in->top_k < r->n;
    uint64_t total = 0, outside = 0;
    float bound = nothing_below;
    if (by_count) {
        float b = kth_block(r, in->top_k);
        bound = b > bound ? b : bound;
    } else {
        total = weigh_range(r, w, nothing_below, 0, r->n);
        /* Ids lighter than this weigh less than 1 - top_p together: none is in the prefix. The
         * bound on logits leaves room for the rounding of exp, log and (from 64 on) the weight. */
        double light = 0.99 * (1.0 - (double)in->top_p) * (double)total / (double)r->n;
        if (light >= 64.0) {
            float b = w->max + (cp_logf((float)light * 0x1p-30f) - 0.01f) * in->temperature;
            b = b - 1e-5f * (cp_f32_from_bits(cp_f32_bits(w->max) & 0x7fffffffu) + 1.0f);
            bound = b > bound ? b : bound;
        }
    }
    int n = weigh_candidates(r, w, collect(r, bound));
    if (by_count) {
        uint64_t least = 0;
        if (n > in->top_k) {
            memcpy(s->key2, s->key, (size_t)n * sizeof(*s->key));
            least = select_prefix(s->key2, NULL, n, in->top_k, 0);
        }
        n = keep_from(r, n, least, &total);
    }
    if (in->top_p < 1.0f) {
        uint64_t target = cp_sample_target(total, in->top_p);
        memcpy(s->key2, s->key, (size_t)n * sizeof(*s->key));
        memcpy(s->weight2, s->weight, (size_t)n * sizeof(*s->weight));
        uint64_t least = select_prefix(s->key2, s->weight2, n, INT64_MAX, target ? target : 1);
        n = keep_from(r, n, least, &outside);
        total = outside;
    }
    uint64_t rest = cp_sample_scale(random, total);
    int i = 0;
    while (i + 1 < n && rest >= s->weight[i])
        rest -= s->weight[i++];
    CP_ASSERT(rest < s->weight[i]);
    return s->ids[i];
}

static int32_t draw(const row_pick *r, float m)
{
    const cp_sample_in *in = r->in;
    cp_weigh w = {.max = m,
                  .inv_t = 1.0f / in->temperature,
                  .z_min = in->min_p > CP_SAMPLE_MIN_P ? cp_logf(in->min_p) : -INFINITY};
    uint64_t random = cp_sample_random(in->seed, in->choice, in->position);
    float nothing_below = m - CP_SAMPLE_NOTHING * in->temperature;
    bool cut = (in->top_k > 0 && in->top_k < r->n) || in->top_p < 1.0f;
    return cut ? draw_some(r, &w, nothing_below, random) : draw_all(r, &w, nothing_below, random);
}

static float raw_logit(const row_pick *r, int32_t id)
{
    for (int i = 0; i < r->n_touched; i++)
        if (r->s->touched[i] == id)
            return r->s->raw[i];
    return r->x[id];
}

/* All pieces of the row are done. */
static void pick(row_pick *r, int pieces, bool nan)
{
    const cpu_run *run = r->run;
    const cp_sample_in *in = r->in;
    cp_sample_out *out = r->out;
    *out = (cp_sample_out){.id = in->target >= 0 ? in->target : 0, .finite = true};
    float lse_m = 0.0f, log_l = 0.0f; /* m: raw, then of what may be picked */
    float m = max_of(run->chunk_max + (size_t)r->row * (size_t)run->n_chunks, run->n_chunks);
    if (nan || m == -INFINITY || m == INFINITY) {
        out->finite = false;
        return;
    }
    if (in->n_top >= 0)
        lse_m = merge_chunks(run, r->row, &log_l);
    if (in->n_top > 0)
        top_ids(r, pieces, lse_m, log_l);
    if (in->target < 0) {
        if (change_logits(r) || in->mask)
            m = max_of(r->block_max, run->n_blocks);
        if (m == -INFINITY || m == INFINITY) {
            out->finite = false;
            return;
        }
        out->id = in->temperature >= CP_SAMPLE_GREEDY ? draw(r, m) : greedy(r, m);
    }
    if (in->n_top >= 0)
        out->logprob = (raw_logit(r, out->id) - lse_m) - log_l;
}

/* Chunks [c0, c1) of a row, which are piece number `piece`. True: there is a NaN. */
static bool scan(row_pick *r, int piece, int c0, int c1)
{
    enum { PER_CHUNK = CP_SAMPLE_CHUNK / CPU_BLOCK };
    const cpu_run *run = r->run;
    const cp_sample_in *in = r->in;
    bool nan = false;
    for (int c = c0; c < c1; c++) {
        int at = c * CP_SAMPLE_CHUNK, len = min_int(CP_SAMPLE_CHUNK, r->n - at);
        float *bm = r->block_max + c * PER_CHUNK;
        size_t i = (size_t)r->row * (size_t)run->n_chunks + (size_t)c;
        if (run->vec->block_max(r->x + at, len, bm))
            nan = true;
        float m = max_of(bm, (len + CPU_BLOCK - 1) / CPU_BLOCK);
        run->chunk_max[i] = m;
        if (in->n_top >= 0)
            run->chunk_sum[i] = m == -INFINITY ? 0.0f : run->vec->exp_sum(r->x + at, len, m);
    }
    r->b0 = c0 * PER_CHUNK;
    r->b1 = min_int(c1 * PER_CHUNK, run->n_blocks);
    if (in->n_top > 0)
        top_of_piece(r, &run->tops[(size_t)r->row * (size_t)run->n_pieces + (size_t)piece]);
    if (in->mask && in->target < 0) {
        int at = c0 * CP_SAMPLE_CHUNK, len = min_int(c1 * CP_SAMPLE_CHUNK, r->n) - at;
        run->vec->mask(r->x + at, in->mask + at / 32, len);
        run->vec->block_max(r->x + at, len, r->block_max + r->b0);
    }
    return nan;
}

bool cp_cpu_sample(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    cpu_run *run = w->run;
    const cp_prepared *p = run->p;
    const cp_batch *b = w->batch;
    int n = p->prog->n_vocab, chunks = run->n_chunks;
    /* Rows are the items when there are enough of them, else pieces of rows. */
    bool whole = run->threads == 1 || b->n_out >= 2 * run->threads;
    int step = whole ? chunks : CPU_PIECE_CHUNKS, pieces = (chunks + step - 1) / step;
    int64_t i, items = (int64_t)b->n_out * pieces;
    while ((i = cp_cpu_item(w, items)) < items) {
        int row = (int)(i / pieces), piece = (int)(i % pieces);
        int c0 = piece * step, c1 = min_int(c0 + step, chunks);
        size_t at = (size_t)c0 * CP_SAMPLE_CHUNK;
        size_t len = (size_t)min_int(c1 * CP_SAMPLE_CHUNK, n) - at;
        float *x = cp_host_row(p, op->u.sample.logits, row);
        if (b->logits_copy)
            memcpy(b->logits_copy + (size_t)row * (size_t)n + at, x + at, len * sizeof(float));
        if (!b->samples)
            continue;
        row_pick r = {.run = run,
                      .s = w->s,
                      .x = x,
                      .block_max = run->block_max + (size_t)row * (size_t)run->n_blocks,
                      .row = row,
                      .n = n,
                      .in = &b->samples[row],
                      .prev = cp_host_ids_prev(&run->ids, b, row),
                      .out = &b->results[row]};
        /* acq_rel below: the last piece to arrive sees what the others left, and the flag. */
        if (scan(&r, piece, c0, c1))
            atomic_store_explicit(&run->row_nan[row], 1, memory_order_relaxed);
        if (atomic_fetch_add_explicit(&run->row_done[row], 1, memory_order_acq_rel) + 1 < pieces)
            continue;
        atomic_store_explicit(&run->row_done[row], 0, memory_order_relaxed);
        bool nan = atomic_exchange_explicit(&run->row_nan[row], 0, memory_order_relaxed) != 0;
        r.b0 = 0;
        r.b1 = run->n_blocks;
        pick(&r, pieces, nan);
    }
    return true;
}
