/*
 * LINEAR on the device: one launch makes inputs of rows (none, where the rows themselves serve or
 * where the record before left them), and one multiplies them. Weights of several kinds of panels
 * have one launch together in steps of few rows, whose time launches are a part of, else one each;
 * then of gate and up, up comes first, into scratch. Floats of another kind have their own always.
 */
#include "kernels/cuda/flow.h"
#include "kernels/cuda/product.h"

#include "base/mem.h"

#include <stdlib.h>

enum { MAX_WEIGHTS = 4, ALIGN = 128, FEW_ROWS = 64 };

/* The products of a record. */
typedef struct launches {
    bool mixed; /* kinds of panels go together */
    int n;
    cuda_product of[MAX_WEIGHTS];
} launches;

typedef struct linear {
    cuda_kernel prologue; /* NULL: none is wanted */
    cuda_prologue_args args;
    launches apart, few; /* few: of steps of at most FEW_ROWS, where it has any */
    cuda_inputs inputs;
    size_t up_at; /* up's outputs in scratch, where it has a launch of its own */
} linear;

static const cuda_weight *weight(const cuda_run *run, const cp_op *op, int i)
{
    return &run->weights[op->u.linear.w[i].w];
}

static int max_rows(const cuda_run *run, const cp_op *op)
{
    return op->rows == CP_ROWS_OUT ? run->p->cfg.max_out : run->p->cfg.max_rows;
}

static bool has_two(const cp_op *op)
{
    return op->u.linear.act != CP_ACT_NONE && op->u.linear.mul < 0;
}

/* The rows are what its weights want. */
static bool takes_rows(const linear *l, const cp_op *op)
{
    return op->u.linear.add < 0 && op->u.linear.norm < 0 && op->u.linear.x_out < 0 &&
           op->u.linear.in_scale == 1.0f && !l->inputs.want[CUDA_INT8] &&
           !l->inputs.want[CUDA_BF16] && !l->inputs.want[CUDA_F16];
}

/* Are up's sums kept for a launch that follows: of two kinds, or where cuBLAS may multiply? */
static bool up_alone(const cuda_run *run, const cp_op *op)
{
    return run->p->b->cfg.gemm == CP_GEMM_CUBLAS ||
           !cp_cuda_products_alike(weight(run, op, 0), weight(run, op, 1));
}

cp_code cp_cuda_measure_linear(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    linear *l = o->own = cp_xcalloc(1, sizeof(*l));
    int rows = max_rows(run, op);
    int64_t outputs = 0;
    l->inputs.k = run->p->prog->mats[op->u.linear.in].width;
    for (int i = 0; i < op->u.linear.n_w; i++) {
        l->inputs.want[cp_cuda_form_of(run, weight(run, op, i))] = true;
        outputs += weight(run, op, i)->m;
    }
    cp_cuda_inputs_lay_out(&l->inputs, rows);
    size_t handed = cp_cuda_handed_bytes(run, op);
    size_t bytes = l->inputs.bytes + handed + ALIGN;
    l->up_at = cp_cuda_inputs_at_end(run, op) ? handed : l->inputs.bytes;
    if (has_two(op) && up_alone(run, op))
        bytes += (size_t)rows * run->p->ld[op->u.linear.w[0].out] * sizeof(float);
    cp_cuda_want(run, bytes);
    return cp_cuda_check_outputs(op, outputs, err);
}

static cp_addr vector(const cuda_run *run, cp_wref w)
{
    return w < 0 ? 0 : run->p->vectors[w];
}

static cp_addr matrix(const cuda_run *run, cp_mat m, int32_t *ld)
{
    *ld = m < 0 ? 0 : (int32_t)run->p->ld[m];
    return m < 0 ? 0 : run->p->mats[m];
}

static cp_code bind_prologue(cuda_run *run, const cp_op *op, linear *l, cp_err *err)
{
    if (cp_cuda_is_handed(run, op)) {
        l->inputs.at = cp_cuda_handed_to(run, op - 1).at; /* of one form: it begins with it */
        return CP_OK;
    }
    if (takes_rows(l, op)) {
        int32_t ld;
        l->inputs.at = matrix(run, op->u.linear.in, &ld);
        l->inputs.offset[CUDA_F32] = 0;
        l->inputs.ld32 = ld;
        return CP_OK;
    }
    cuda_prologue_args *a = &l->args;
    l->inputs.at = run->scratch.at;
    a->step = run->step;
    a->out_rows = op->rows == CP_ROWS_OUT;
    a->in = matrix(run, op->u.linear.in, &a->ld);
    a->add = matrix(run, op->u.linear.add, &a->ld_add);
    a->x_out = matrix(run, op->u.linear.x_out, &a->ld_x_out);
    a->add_norm = a->add ? vector(run, op->u.linear.add_norm) : 0;
    a->norm = vector(run, op->u.linear.norm);
    a->eps = op->u.linear.eps;
    a->in_scale = op->u.linear.in_scale;
    a->f16_by_row = run->p->b->cfg.gemm == CP_GEMM_CUBLAS;
    cp_cuda_inputs_put(&l->inputs, a);
    return cp_cuda_kernel(run, "k_prologue", &l->prologue, err);
}

/* Weight i with its own output. */
static cuda_part part_of(const cuda_run *run, const cp_op *op, int i)
{
    const cuda_weight *w = weight(run, op, i);
    cuda_part part = {.m = (int32_t)w->m};
    part.w[0] = cp_cuda_matrix_of(run, w, op->u.linear.w[i].bias, 0);
    if (op->u.linear.w[i].out >= 0)
        part.out = matrix(run, op->u.linear.w[i].out, &part.ld);
    return part;
}

/* May weights a and b of the record be in one launch? */
static bool go_together(const cuda_run *run, const cp_op *op, int a, int b, bool mixed)
{
    const cuda_weight *x = weight(run, op, a), *y = weight(run, op, b);
    return cp_cuda_products_alike(x, y) ||
           (mixed && cp_cuda_form_of(run, x) == CUDA_INT8 && cp_cuda_form_of(run, y) == CUDA_INT8);
}

/* Are there any that may be if kinds are mixed, and only then? */
static bool gains_by_mixing(const cuda_run *run, const cp_op *op)
{
    for (int i = 1; i < op->u.linear.n_w; i++)
        for (int j = 0; j < i; j++)
            if (go_together(run, op, i, j, true) && !go_together(run, op, i, j, false))
                return true;
    return false;
}

/* A launch for weight i. */
static cp_code new_product(cuda_run *run, const cp_op *op, linear *l, launches *to, int i,
                           cuda_product **out, cp_err *err)
{
    cuda_product *p = *out = &to->of[to->n++];
    cp_code rc = cp_cuda_product_begin(run, p, weight(run, op, i), to->mixed, &l->inputs, err);
    p->a.out_rows = op->rows == CP_ROWS_OUT;
    p->a.scale = op->u.linear.scale;
    p->a.softcap = op->u.linear.softcap;
    if (i == 0)
        p->a.handed = cp_cuda_handed_to(run, op);
    return rc;
}

static cp_code bind_gated(cuda_run *run, const cp_op *op, linear *l, launches *to, cp_err *err)
{
    cuda_product *p;
    const cuda_weight *alike = NULL; /* up, in one launch with gate */
    cuda_part gate = part_of(run, op, 0);
    cp_code rc = CP_OK;
    if (op->u.linear.mul >= 0) {
        gate.mul = matrix(run, op->u.linear.mul, &gate.ld_mul) +
                   (cp_addr)op->u.linear.mul_at * sizeof(float);
    } else if (go_together(run, op, 0, 1, to->mixed)) {
        alike = weight(run, op, 1);
        gate.w[1] = part_of(run, op, 1).w[0];
        gate.up_sums = up_alone(run, op) ? run->scratch.at + l->up_at : 0;
    } else {
        cuda_part up = part_of(run, op, 1);
        gate.mul = up.out = run->scratch.at + l->up_at;
        gate.ld_mul = up.ld = gate.ld;
        rc = new_product(run, op, l, to, 1, &p, err);
        cp_cuda_product_add(p, &up, weight(run, op, 1), NULL);
    }
    if (rc != CP_OK)
        return rc;
    rc = new_product(run, op, l, to, 0, &p, err);
    p->a.activation = (int32_t)op->u.linear.act;
    cp_cuda_product_add(p, &gate, weight(run, op, 0), alike);
    return rc;
}

static cp_code bind_plain(cuda_run *run, const cp_op *op, linear *l, launches *to, cp_err *err)
{
    cuda_product *of[MAX_WEIGHTS] = {NULL};
    cp_code rc = CP_OK;
    for (int i = 0; i < op->u.linear.n_w && rc == CP_OK; i++) {
        cuda_part part = part_of(run, op, i);
        cuda_product *p = NULL;
        for (int j = 0; j < i && !p; j++)
            if (go_together(run, op, i, j, to->mixed))
                p = of[j];
        if (!p)
            rc = new_product(run, op, l, to, i, &p, err);
        of[i] = p;
        cp_cuda_product_add(p, &part, weight(run, op, i), NULL);
    }
    return rc;
}

static cp_code bind_launches(cuda_run *run, const cp_op *op, linear *l, launches *to, cp_err *err)
{
    return op->u.linear.act == CP_ACT_NONE ? bind_plain(run, op, l, to, err)
                                           : bind_gated(run, op, l, to, err);
}

cp_code cp_cuda_bind_linear(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    linear *l = o->own;
    cp_code rc = bind_prologue(run, op, l, err);
    if (rc == CP_OK)
        rc = bind_launches(run, op, l, &l->apart, err);
    l->few.mixed = true;
    return rc == CP_OK && gains_by_mixing(run, op) ? bind_launches(run, op, l, &l->few, err) : rc;
}

cp_code cp_cuda_enqueue_linear(cuda_run *run, const cp_op *op, const cuda_op *o,
                               const cp_batch *batch, cp_err *err)
{
    const linear *l = o->own;
    int n = cp_op_rows(op, batch), width = cuda_log2_tiles(n, 1);
    cp_code rc = CP_OK;
    if (n == 0)
        return CP_OK;
    if (l->prologue)
        rc = cp_cuda_launch(run, l->prologue, (cuda_dim){(unsigned)n, 1, 1},
                            (cuda_dim){CUDA_PROLOGUE_THREADS, 1, 1}, 0, &l->args, err);
    const launches *all = n <= FEW_ROWS && l->few.n ? &l->few : &l->apart;
    for (int i = 0; i < all->n && rc == CP_OK; i++) {
        const cuda_product *p = &all->of[i];
        int w = cp_cuda_product_width(p, width), rows = CUDA_TILE << w;
        rc = cp_cuda_gemm_takes(run, p->w[0][0], n)
                 ? cp_cuda_product_gemm(run, p, n, err)
                 : cp_cuda_product_launch(run, p, w, (n + rows - 1) / rows, err);
    }
    return rc;
}
