/*
 * Reference SAMPLE, and its law (program.h says the rest):
 * - log-probabilities are of the raw logits: chunks of CP_SAMPLE_CHUNK, each with its maximum and
 *   the lane tree of exp(x - max), merged in ascending order as attention's splits; log p(i) =
 *   (x_i - m) - log(l).
 * - changes to the logits, in this order: repetition penalty (x > 0 ? x / r : x * r) for ids of
 *   prompt and output, x - frequency * count, x - presence for ids of the output, biases, bans,
 *   mask (HF's and vLLM's formulas).
 * - temperature 0 (below CP_SAMPLE_GREEDY): the largest, lowest id first. Otherwise z = (x - max) *
 * (1 / temperature); the integer weight of an id is rint(exp(z) * 2^30), so all sums below are
 * exact in any order; what is less likely than 2^-31 of the best is never drawn.
 * - min_p keeps z >= log(min_p); top_k the k largest (lower ids first among equals); top_p the
 *   shortest prefix in that order that holds >= top_p of the weight. The draw: 64 random bits times
 *   the kept weight, high half, walked in ascending id order.
 */
#include "kernels/sample.h"

#include "base/mem.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

typedef struct token {
    int32_t id;
    float x;
    uint64_t weight;
} token;

static int by_logit(const void *a, const void *b)
{
    const token *s = a, *t = b;
    if (s->x != t->x)
        return s->x > t->x ? -1 : 1;
    return s->id < t->id ? -1 : s->id > t->id;
}

static int by_id(const void *a, const void *b)
{
    const token *s = a, *t = b;
    return s->id < t->id ? -1 : s->id > t->id;
}

static void log_sum_exp(const float *x, int n, float *m, float *log_l)
{
    float l = 0.0f;
    *m = -INFINITY;
    for (int base = 0; base < n; base += CP_SAMPLE_CHUNK) {
        int end = n - base < CP_SAMPLE_CHUNK ? n : base + CP_SAMPLE_CHUNK;
        float mc = -INFINITY, sums[CP_PARTIALS] = {0};
        for (int i = base; i < end; i++)
            mc = x[i] > mc ? x[i] : mc;
        if (mc == -INFINITY)
            continue;
        for (int i = base; i < end; i++)
            sums[(i - base) % CP_PARTIALS] += cp_expf(x[i] - mc);
        float lc = cp_ref_tree(sums), mm = *m > mc ? *m : mc;
        l = l * cp_expf(*m - mm) + lc * cp_expf(mc - mm);
        *m = mm;
    }
    *log_l = cp_logf(l);
}

/* prev: what CP_TOK_PREV stands for in the history. */
static void change_logits(float *x, int n, const cp_sample_in *in, int32_t prev)
{
    uint32_t *count = cp_xcalloc((size_t)n, sizeof(*count));
    uint8_t *seen = cp_xcalloc((size_t)n, 1);
    for (int i = 0; i < in->n_tokens; i++) {
        int32_t id = cp_host_id(in->tokens[i], prev);
        if (id < 0 || id >= n)
            continue;
        seen[id] = 1;
        count[id] += i >= in->n_prompt;
    }
    for (int i = 0; i < n; i++) {
        if (seen[i] && in->repetition != 1.0f)
            x[i] = x[i] > 0.0f ? x[i] / in->repetition : x[i] * in->repetition;
        if (count[i]) {
            x[i] = x[i] - in->frequency * (float)count[i];
            x[i] = x[i] - in->presence;
        }
    }
    for (int i = 0; i < in->n_bias; i++)
        if (in->bias[i].id >= 0 && in->bias[i].id < n)
            x[in->bias[i].id] = x[in->bias[i].id] + in->bias[i].bias;
    for (int i = 0; i < in->n_banned; i++)
        if (in->banned[i] >= 0 && in->banned[i] < n)
            x[in->banned[i]] = -INFINITY;
    for (int i = 0; in->mask && i < n; i++)
        if (!(in->mask[i / 32] >> (i % 32) & 1))
            x[i] = -INFINITY;
    free(seen);
    free(count);
}

/* t[n] in ascending id order, m the largest logit (finite). */
static int32_t draw(token *t, int n, float m, const cp_sample_in *in)
{
    float inv = 1.0f / in->temperature;
    float z_min = in->min_p > CP_SAMPLE_MIN_P ? cp_logf(in->min_p) : -INFINITY;
    int kept = 0;
    for (int i = 0; i < n; i++) {
        float z = (t[i].x - m) * inv;
        if (!(z >= z_min) || t[i].x == -INFINITY)
            continue;
        t[kept] = t[i];
        t[kept++].weight = cp_sample_weight(cp_expf(z));
    }
    qsort(t, (size_t)kept, sizeof(*t), by_logit);
    if (in->top_k > 0 && in->top_k < kept)
        kept = in->top_k;
    uint64_t total = 0, sum = 0;
    for (int i = 0; i < kept; i++)
        total += t[i].weight;
    if (in->top_p < 1.0f) {
        uint64_t target = cp_sample_target(total, in->top_p);
        int i = 0;
        while (i < kept && (i == 0 || sum < target))
            sum += t[i++].weight;
        kept = i;
        total = sum;
    }
    uint64_t r = cp_sample_scale(cp_sample_random(in->seed, in->choice, in->position), total);
    qsort(t, (size_t)kept, sizeof(*t), by_id);
    for (int i = 0; i < kept; i++) {
        if (r < t[i].weight)
            return t[i].id;
        r -= t[i].weight;
    }
    cp_assert_fail("a draw lies within the weights", __FILE__, __LINE__);
}

/* raw[n] stays, x[n] and t[n] are scratch. */
static void sample_row(const float *raw, float *x, token *t, int n, const cp_sample_in *in,
                       int32_t prev, cp_sample_out *out)
{
    *out = (cp_sample_out){.id = in->target >= 0 ? in->target : 0, .finite = true};
    float top = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (raw[i] != raw[i])
            out->finite = false;
        top = raw[i] > top ? raw[i] : top;
    }
    if (!out->finite || top == -INFINITY || top == INFINITY) {
        out->finite = false;
        return;
    }
    float m = 0.0f, log_l = 0.0f;
    if (in->n_top >= 0)
        log_sum_exp(raw, n, &m, &log_l);
    if (in->n_top > 0) {
        for (int i = 0; i < n; i++)
            t[i] = (token){i, raw[i], 0};
        qsort(t, (size_t)n, sizeof(*t), by_logit);
        for (int i = 0; i < n && i < in->n_top && i < CP_MAX_TOP && t[i].x > -INFINITY; i++) {
            out->top[i].id = t[i].id;
            out->top[i].logprob = (t[i].x - m) - log_l;
            out->n_top++;
        }
    }
    if (in->target < 0) {
        int32_t best = 0;
        memcpy(x, raw, (size_t)n * sizeof(*x));
        change_logits(x, n, in, prev);
        for (int i = 0; i < n; i++) {
            t[i] = (token){i, x[i], 0};
            if (x[i] > x[best])
                best = i;
        }
        if (x[best] == -INFINITY || x[best] == INFINITY) {
            out->finite = false;
            return;
        }
        out->id = in->temperature >= CP_SAMPLE_GREEDY ? draw(t, n, x[best], in) : best;
    }
    if (in->n_top >= 0)
        out->logprob = (raw[out->id] - m) - log_l;
}

void cp_ref_sample(cp_prepared *p, const cp_op *op, const cp_batch *batch)
{
    int n = p->prog->n_vocab;
    token *t = cp_xcalloc((size_t)n, sizeof(*t));
    float *x = cp_xcalloc((size_t)n, sizeof(*x));
    for (int i = 0; i < batch->n_out; i++) {
        const float *raw = cp_host_row(p, op->u.sample.logits, i);
        if (batch->logits_copy)
            memcpy(batch->logits_copy + (size_t)i * (size_t)n, raw, (size_t)n * sizeof(float));
        if (batch->samples)
            sample_row(raw, x, t, n, &batch->samples[i], cp_host_ids_prev(p->impl, batch, i),
                       &batch->results[i]);
    }
    free(x);
    free(t);
}
