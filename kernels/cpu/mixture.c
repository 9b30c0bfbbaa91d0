/*
 * ROUTE, EXPERTS and SUM as the walker runs them: a mixture of experts. ROUTE and SUM are divided
 * by number; what EXPERTS computes of its rows stands in experts.c.
 */
#include "kernels/cpu/run.h"

#include "kernels/math.h"

/* Elements of a row of SUM that a worker does at a time. */
enum { SUM_PART = 512 };
/* Below this a sum of weights divides no more (llama.cpp's clamp: the least normal half). */
#define MIN_WEIGHTS 0x1p-14f

/* ---- ROUTE ---- */

/* The indices of the k best of n scores, best first; of equals the lowest first. */
static void best_of(const float *score, int n, int k, int *index)
{
    int have = 0;
    for (int i = 0; i < n; i++) {
        if (have == k && !(score[i] > score[index[k - 1]]))
            continue;
        int at = have < k ? have++ : k - 1;
        for (; at > 0 && score[i] > score[index[at - 1]]; at--)
            index[at] = index[at - 1];
        index[at] = i;
    }
}

/* The experts of groups that are not among the best become -inf. */
static void keep_groups(float *score, int n, int n_groups, int n_kept)
{
    float groups[CP_EXPERTS_MAX];
    int kept[CP_EXPERTS_MAX], two[2], size = n / n_groups;
    bool keep[CP_EXPERTS_MAX] = {false};
    for (int g = 0; g < n_groups; g++) {
        const float *s = score + g * size;
        best_of(s, size, size > 1 ? 2 : 1, two);
        groups[g] = size > 1 ? s[two[0]] + s[two[1]] : s[two[0]];
        groups[g] = groups[g] == groups[g] ? groups[g] : -INFINITY;
    }
    best_of(groups, n_groups, n_kept, kept);
    for (int i = 0; i < n_kept; i++)
        keep[kept[i]] = true;
    for (int e = 0; e < n; e++)
        score[e] = keep[e / size] ? score[e] : -INFINITY;
}

static void divide(float *w, int n, float by)
{
    for (int j = 0; j < n; j++)
        w[j] = w[j] / by;
}

/* The weights of the selected, from their probabilities. */
static void weigh(const cp_op *op, const float *expert_scale, const int *ids, int n, float *w)
{
    float max = w[0], sum = 0.0f;
    if (op->u.route.gate == CP_GATE_SELECTED) {
        for (int j = 1; j < n; j++)
            max = w[j] > max ? w[j] : max;
        for (int j = 0; j < n; j++) {
            w[j] = cp_expf(w[j] - max);
            sum += w[j];
        }
        divide(w, n, sum);
    }
    if (op->u.route.normalize) {
        sum = 0.0f;
        for (int j = 0; j < n; j++)
            sum += w[j];
        divide(w, n, sum < MIN_WEIGHTS ? MIN_WEIGHTS : sum);
    }
    for (int j = 0; j < n; j++) {
        if (op->u.route.scale != 1.0f)
            w[j] *= op->u.route.scale;
        if (expert_scale)
            w[j] *= expert_scale[ids[j]];
    }
}

static const float *vector_or_null(const cp_prepared *p, cp_wref w)
{
    return w >= 0 ? cp_host_vector(p, w) : NULL;
}

bool cp_cpu_route(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    cp_prepared *p = w->run->p;
    int n = p->prog->mats[op->u.route.in].width, n_used = p->prog->mats[op->u.route.ids].width;
    const float *bias = vector_or_null(p, op->u.route.bias);
    for (int r = w->id; r < cp_op_rows(op, w->batch); r += cp_pool_active(w->pool)) {
        float prob[CP_EXPERTS_MAX], score[CP_EXPERTS_MAX];
        int best[CP_EXPERTS_MAX];
        float *ids = cp_host_row(p, op->u.route.ids, r);
        float *weights = cp_host_row(p, op->u.route.weights, r);
        w->run->vec->gate(prob, cp_host_row(p, op->u.route.in, r), n, op->u.route.gate);
        for (int e = 0; e < n; e++) {
            score[e] = bias ? prob[e] + bias[e] : prob[e];
            score[e] = score[e] == score[e] ? score[e] : -INFINITY;
        }
        if (op->u.route.n_groups > 1)
            keep_groups(score, n, op->u.route.n_groups, op->u.route.n_groups_used);
        best_of(score, n, n_used, best);
        for (int j = 0; j < n_used; j++) {
            ids[j] = (float)best[j];
            weights[j] = prob[best[j]];
        }
        weigh(op, vector_or_null(p, op->u.route.expert_scale), best, n_used, weights);
    }
    return true;
}

/* ---- EXPERTS ---- */

/* Input i of the record, normed, to its places. */
static void prologue(cpu_worker *w, const cp_op *op, const cp_experts *x,
                     const cp_expert_plan *plan, int i, int n, void *act)
{
    cp_prepared *p = w->run->p;
    int k = cp_experts_k(x), parts = cp_experts_inputs(x, 1);
    const float *in = cp_host_row(p, op->u.experts.in, i / parts) + (size_t)(i % parts) * (size_t)k;
    if (op->u.experts.norm >= 0) {
        w->run->vec->rmsnorm(w->s->row[1], in, cp_host_vector(p, op->u.experts.norm), NULL, k,
                             op->u.experts.eps);
        in = w->s->row[1];
    }
    cp_experts_prep(x, plan, in, i, n, act);
}

bool cp_cpu_experts(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    cp_prepared *p = w->run->p;
    const cp_experts *x = bound->experts;
    cp_expert_plan *plan = &w->s->plan;
    int n = cp_op_rows(op, w->batch), n_in = cp_experts_inputs(x, n);
    void *act = w->run->act;
    cp_experts_plan(x, cp_host_row(p, op->u.experts.ids, 0), p->ld[op->u.experts.ids], n, plan);
    if (w->run->threads == 1 || cp_cpu_prologue_alone(n_in, cp_experts_k(x))) {
        act = w->run->threads == 1 ? act : w->s->act;
        for (int i = 0; i < n_in; i++)
            prologue(w, op, x, plan, i, n, act);
    } else {
        int64_t i;
        while ((i = cp_cpu_item(w, n_in)) < n_in)
            prologue(w, op, x, plan, (int)i, n, act);
        if (!cp_pool_barrier(w->pool, w->id))
            return false;
    }
    float *out = cp_host_row(p, op->u.experts.out, 0);
    int64_t i, items = cp_experts_items(plan);
    cp_gemm_scratch_begin(w->s->linear);
    while ((i = cp_cpu_weight_item(w, items)) < items)
        cp_experts_item(x, plan, i, n, act, w->s->linear, out, p->ld[op->u.experts.out]);
    return true;
}

/* ---- SUM ---- */

bool cp_cpu_sum(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    cp_prepared *p = w->run->p;
    int width = p->prog->mats[op->u.sum.out].width;
    int part = op->u.sum.norm >= 0 ? width : SUM_PART, parts = (width + part - 1) / part;
    int n_used = p->prog->mats[op->u.sum.weights].width, rows = cp_op_rows(op, w->batch);
    for (int64_t i = w->id; i < (int64_t)rows * parts; i += cp_pool_active(w->pool)) {
        int r = (int)(i / parts), at = (int)(i % parts) * part;
        int n = width - at < part ? width - at : part;
        float *y = cp_host_row(p, op->u.sum.out, r) + at, scale = 1.0f;
        w->run->vec->sum(y, cp_host_row(p, op->u.sum.in, r) + at, (size_t)width,
                         cp_host_row(p, op->u.sum.weights, r), n_used, n);
        if (op->u.sum.norm >= 0)
            w->run->vec->rmsnorm(y, y, cp_host_vector(p, op->u.sum.norm), NULL, n, op->u.sum.eps);
        if (op->u.sum.shared < 0)
            continue;
        const float *shared = cp_host_row(p, op->u.sum.shared, r) + at;
        if (op->u.sum.norm >= 0) {
            w->run->vec->rmsnorm(y, shared, cp_host_vector(p, op->u.sum.shared_norm), y, n,
                                 op->u.sum.eps);
            continue;
        }
        if (op->u.sum.gate >= 0)
            scale = 1.0f / (1.0f + cp_expf(-cp_host_row(p, op->u.sum.gate, r)[0]));
        w->run->vec->add_scaled(y, shared, scale, n);
    }
    return true;
}
