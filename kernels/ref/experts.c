/*
 * Reference ROUTE, EXPERTS and SUM: a mixture of experts, one row and one rank after another, as
 * program.h has it. Every (row, rank) writes a part of its own, so that nothing is added in an
 * order that depends on who else chose an expert.
 */
#include "base/mem.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

/* Below this a sum of weights divides no more (llama.cpp's clamp: the least normal half). */
#define MIN_WEIGHTS 0x1p-14f

static float probability(cp_gate gate, float x)
{
    float e;
    switch (gate) {
    case CP_GATE_SIGMOID:
        return 1.0f / (1.0f + cp_expf(-x));
    case CP_GATE_SQRT_SOFTPLUS:
        e = x > 20.0f ? x : cp_logf(1.0f + cp_expf(x));
        return sqrtf(e);
    case CP_GATE_SOFTMAX: /* of the whole row */
    case CP_GATE_SELECTED:
        break;
    }
    return x;
}

static void probabilities(cp_gate gate, const float *x, int n, float *p)
{
    float max = -INFINITY, sums[CP_PARTIALS] = {0};
    for (int e = 0; e < n; e++) {
        p[e] = probability(gate, x[e] == x[e] ? x[e] : -INFINITY);
        max = p[e] > max ? p[e] : max;
    }
    if (gate != CP_GATE_SOFTMAX)
        return;
    for (int e = 0; e < n; e++) {
        p[e] = cp_expf(p[e] - max);
        sums[e % CP_PARTIALS] += p[e];
    }
    float sum = cp_ref_tree(sums);
    for (int e = 0; e < n; e++)
        p[e] = p[e] / sum;
}

/* The index of the best of n scores that is not taken; of equals the lowest. */
static int best_of(const float *score, const bool *taken, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || score[i] > score[best]))
            best = i;
    return best;
}

/* The experts of groups that are not among the best become -inf. */
static void keep_groups(const cp_op *op, float *score, int n)
{
    int n_groups = op->u.route.n_groups, size = n / n_groups;
    float groups[CP_EXPERTS_MAX];
    bool kept[CP_EXPERTS_MAX] = {false};
    for (int g = 0; g < n_groups; g++) {
        const float *s = score + g * size;
        bool taken[CP_EXPERTS_MAX] = {false};
        int first = best_of(s, taken, size);
        taken[first] = true;
        groups[g] = s[first];
        if (size > 1)
            groups[g] = groups[g] + s[best_of(s, taken, size)];
        groups[g] = groups[g] == groups[g] ? groups[g] : -INFINITY;
    }
    for (int i = 0; i < op->u.route.n_groups_used; i++)
        kept[best_of(groups, kept, n_groups)] = true;
    for (int e = 0; e < n; e++)
        if (!kept[e / size])
            score[e] = -INFINITY;
}

static void weigh(const cp_prepared *p, const cp_op *op, const float *ids, float *w, int n_used)
{
    if (op->u.route.gate == CP_GATE_SELECTED) {
        float max = -INFINITY, sum = 0.0f;
        for (int j = 0; j < n_used; j++)
            max = w[j] > max ? w[j] : max;
        for (int j = 0; j < n_used; j++) {
            w[j] = cp_expf(w[j] - max);
            sum = sum + w[j];
        }
        for (int j = 0; j < n_used; j++)
            w[j] = w[j] / sum;
    }
    if (op->u.route.normalize) {
        float sum = 0.0f;
        for (int j = 0; j < n_used; j++)
            sum = sum + w[j];
        sum = sum < MIN_WEIGHTS ? MIN_WEIGHTS : sum;
        for (int j = 0; j < n_used; j++)
            w[j] = w[j] / sum;
    }
    for (int j = 0; j < n_used; j++) {
        if (op->u.route.scale != 1.0f)
            w[j] = w[j] * op->u.route.scale;
        if (op->u.route.expert_scale >= 0)
            w[j] = w[j] * cp_host_vector(p, op->u.route.expert_scale)[(int)ids[j]];
    }
}

void cp_ref_route(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    int n = p->prog->mats[op->u.route.in].width, n_used = p->prog->mats[op->u.route.ids].width;
    for (int r = 0; r < cp_op_rows(op, b); r++) {
        float prob[CP_EXPERTS_MAX], score[CP_EXPERTS_MAX];
        bool taken[CP_EXPERTS_MAX] = {false};
        float *ids = cp_host_row(p, op->u.route.ids, r),
              *w = cp_host_row(p, op->u.route.weights, r);
        probabilities(op->u.route.gate, cp_host_row(p, op->u.route.in, r), n, prob);
        for (int e = 0; e < n; e++) {
            score[e] = prob[e];
            if (op->u.route.bias >= 0)
                score[e] = score[e] + cp_host_vector(p, op->u.route.bias)[e];
            score[e] = score[e] == score[e] ? score[e] : -INFINITY;
        }
        if (op->u.route.n_groups > 1)
            keep_groups(op, score, n);
        for (int j = 0; j < n_used; j++) {
            int e = best_of(score, taken, n);
            taken[e] = true;
            ids[j] = (float)e;
            w[j] = prob[e];
        }
        weigh(p, op, ids, w, n_used);
    }
}

/* Output o of expert e, by weight i. */
static float output(const cp_prepared *p, const cp_op *op, int i, int e, int64_t o,
                    const cp_ref_input *a)
{
    const cp_tensor *t = p->prog->weights[op->u.experts.w[i].w].t;
    int64_t row = (int64_t)e * t->ne[1] + op->u.experts.w[i].first + o;
    float y = cp_ref_dot(p, t, row, a);
    if (op->u.experts.w[i].bias >= 0)
        y = y + cp_host_vector(p, op->u.experts.w[i].bias)[row];
    return y;
}

void cp_ref_experts(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    int n_used = p->prog->mats[op->u.experts.ids].width;
    int k = p->prog->mats[op->u.experts.in].width / (op->u.experts.by_rank ? n_used : 1);
    cp_mat to = op->u.experts.out;
    int m = p->prog->mats[to].width / n_used;
    cp_ref_input a;
    cp_ref_input_init(&a, k);
    for (int r = 0; r < cp_op_rows(op, b); r++)
        for (int j = 0; j < n_used; j++) {
            const float *x = cp_host_row(p, op->u.experts.in, r);
            float *out = cp_host_row(p, to, r) + (size_t)j * (size_t)m;
            int e = (int)cp_host_row(p, op->u.experts.ids, r)[j];
            memcpy(a.x, op->u.experts.by_rank ? x + (size_t)j * (size_t)k : x,
                   (size_t)k * sizeof(float));
            if (op->u.experts.norm >= 0)
                cp_ref_rmsnorm(a.x, a.x, cp_host_vector(p, op->u.experts.norm), k,
                               op->u.experts.eps);
            cp_ref_input_set(&a);
            for (int o = 0; o < m; o++) {
                out[o] = output(p, op, 0, e, o, &a);
                if (op->u.experts.act != CP_ACT_NONE)
                    out[o] = cp_ref_act(op->u.experts.act, out[o], output(p, op, 1, e, o, &a));
            }
        }
    cp_ref_input_fini(&a);
}

void cp_ref_sum(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    int n = p->prog->mats[op->u.sum.out].width, n_used = p->prog->mats[op->u.sum.weights].width;
    float *t = cp_xcalloc((size_t)n, sizeof(*t));
    for (int r = 0; r < cp_op_rows(op, b); r++) {
        const float *w = cp_host_row(p, op->u.sum.weights, r),
                    *in = cp_host_row(p, op->u.sum.in, r);
        float *out = cp_host_row(p, op->u.sum.out, r);
        for (int i = 0; i < n; i++) {
            out[i] = 0.0f;
            for (int j = 0; j < n_used; j++)
                out[i] = fmaf(w[j], in[(size_t)j * (size_t)n + (size_t)i], out[i]);
        }
        if (op->u.sum.shared < 0)
            continue;
        const float *shared = cp_host_row(p, op->u.sum.shared, r);
        if (op->u.sum.norm >= 0) {
            cp_ref_rmsnorm(out, out, cp_host_vector(p, op->u.sum.norm), n, op->u.sum.eps);
            cp_ref_rmsnorm(t, shared, cp_host_vector(p, op->u.sum.shared_norm), n, op->u.sum.eps);
            shared = t;
        }
        bool gated = op->u.sum.gate >= 0;
        float g = gated ? 1.0f / (1.0f + cp_expf(-cp_host_row(p, op->u.sum.gate, r)[0])) : 1.0f;
        for (int i = 0; i < n; i++)
            out[i] = gated ? fmaf(g, shared[i], out[i]) : out[i] + shared[i];
    }
    free(t);
}
