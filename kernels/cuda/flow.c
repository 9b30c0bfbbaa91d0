/*
 * flow: see flow.h. What a record reads and writes is a row of matrices a kind of record.
 */
#include "kernels/cuda/flow.h"

#include "kernels/cuda/product.h"

#include "base/mem.h"

enum { MAX_MATS = 8 };

/* Matrices that a record reads, and that it writes; -1: none. */
typedef struct mats {
    cp_mat in[MAX_MATS], out[MAX_MATS];
    int n_in, n_out;
} mats;

static void in(mats *m, cp_mat x)
{
    m->in[m->n_in++] = x;
}

static void out(mats *m, cp_mat x)
{
    m->out[m->n_out++] = x;
}

static void mats_embed(mats *m, const cp_op *op)
{
    in(m, op->u.embed.in);
    out(m, op->u.embed.out);
}

static void mats_rope(mats *m, const cp_op *op)
{
    out(m, op->u.rope.out);
}

static void mats_gather(mats *m, const cp_op *op)
{
    in(m, op->u.gather.in);
    out(m, op->u.gather.out);
}

static void mats_linear(mats *m, const cp_op *op)
{
    in(m, op->u.linear.in);
    in(m, op->u.linear.add);
    in(m, op->u.linear.mul);
    out(m, op->u.linear.x_out);
    for (int i = 0; i < op->u.linear.n_w; i++)
        out(m, op->u.linear.act != CP_ACT_NONE && i ? (cp_mat)-1 : op->u.linear.w[i].out);
}

static void mats_attention(mats *m, const cp_op *op)
{
    in(m, op->u.attention.q);
    in(m, op->u.attention.k);
    in(m, op->u.attention.v);
    in(m, op->u.attention.rope);
    out(m, op->u.attention.out);
}

static void mats_shortconv(mats *m, const cp_op *op)
{
    in(m, op->u.shortconv.in);
    out(m, op->u.shortconv.out);
}

static void mats_deltaprep(mats *m, const cp_op *op)
{
    in(m, op->u.deltaprep.in);
    in(m, op->u.deltaprep.alpha);
    in(m, op->u.deltaprep.beta);
    out(m, op->u.deltaprep.out);
    out(m, op->u.deltaprep.gates);
}

static void mats_deltanet(mats *m, const cp_op *op)
{
    in(m, op->u.deltanet.in);
    in(m, op->u.deltanet.gates);
    in(m, op->u.deltanet.z);
    out(m, op->u.deltanet.out);
}

static void mats_route(mats *m, const cp_op *op)
{
    in(m, op->u.route.in);
    out(m, op->u.route.ids);
    out(m, op->u.route.weights);
}

static void mats_experts(mats *m, const cp_op *op)
{
    in(m, op->u.experts.in);
    in(m, op->u.experts.ids);
    out(m, op->u.experts.out);
}

static void mats_sum(mats *m, const cp_op *op)
{
    in(m, op->u.sum.in);
    in(m, op->u.sum.weights);
    in(m, op->u.sum.shared);
    in(m, op->u.sum.gate);
    out(m, op->u.sum.out);
}

static void mats_sample(mats *m, const cp_op *op)
{
    in(m, op->u.sample.logits);
}

static void (*const mats_of[CP_OP_COUNT])(mats *m, const cp_op *op) = {
#define X(kind, name) [CP_OP_##kind] = mats_##name,
    CP_OPS(X)
#undef X
};

static bool among(const cp_mat *m, int n, cp_mat x)
{
    for (int i = 0; i < n; i++)
        if (m[i] == x)
            return true;
    return false;
}

/* Is x read behind `from`, before it is written again? Logits are, by whoever asks for them. */
static bool read_later(const cuda_run *run, const cp_op *from, cp_mat x)
{
    const cp_prepared *p = run->p;
    for (const cp_op *o = from + 1; o < p->ops + p->n_ops; o++) {
        mats m = {.n_in = 0};
        mats_of[o->kind](&m, o);
        if (among(m.in, m.n_in, x))
            return true;
        if (among(m.out, m.n_out, x))
            return false;
    }
    return x == p->prog->logits;
}

/* The output of a record that has kernels which hand on, or -1. */
static cp_mat given_by(const cuda_run *run, const cp_op *op)
{
    if (op->kind == CP_OP_ATTENTION)
        return op->u.attention.v_dim % CUDA_BLOCK ? -1 : op->u.attention.out;
    if (op->kind != CP_OP_LINEAR || (op->u.linear.act == CP_ACT_NONE && op->u.linear.n_w != 1))
        return -1;
    for (int i = 0; i < op->u.linear.n_w; i++) {
        cuda_form form = cp_cuda_form_of(run, &run->weights[op->u.linear.w[i].w]);
        if (form != CUDA_INT8 && form != CUDA_F32 && run->p->b->cfg.gemm == CP_GEMM_CUBLAS)
            return -1; /* sums that a library leaves go through memory */
    }
    return op->u.linear.w[0].out;
}

/* The one form in which a LINEAR takes x, and nothing else of it; CUDA_FORMS: there is none. */
static cuda_form form_taken(const cuda_run *run, const cp_op *op, cp_mat x)
{
    if (op->kind != CP_OP_LINEAR || op->u.linear.in != x || op->u.linear.mul == x ||
        op->u.linear.add >= 0 || op->u.linear.norm >= 0 || op->u.linear.x_out >= 0 ||
        op->u.linear.in_scale != 1.0f)
        return CUDA_FORMS;
    cuda_form form = cp_cuda_form_of(run, &run->weights[op->u.linear.w[0].w]);
    for (int i = 1; i < op->u.linear.n_w; i++)
        if (cp_cuda_form_of(run, &run->weights[op->u.linear.w[i].w]) != form)
            return CUDA_FORMS;
    bool by_row = form == CUDA_F16 && run->p->b->cfg.gemm == CP_GEMM_CUBLAS;
    return form == CUDA_F32 || by_row ? CUDA_FORMS : form;
}

/* How the record's output lies where it hands it on; of no bytes where it does not. */
static cuda_inputs handed_inputs(const cuda_run *run, const cp_op *op)
{
    const cp_prepared *p = run->p;
    cuda_inputs none = {.k = 0}, x = {.k = 0};
    if (op + 1 >= p->ops + p->n_forward || op[1].rows != op->rows)
        return none;
    cp_mat out = given_by(run, op);
    cuda_form form = out < 0 ? CUDA_FORMS : form_taken(run, op + 1, out);
    if (form == CUDA_FORMS || read_later(run, op + 1, out))
        return none;
    x.k = p->prog->mats[out].width;
    x.want[form] = true;
    cp_cuda_inputs_lay_out(&x, op->rows == CP_ROWS_OUT ? p->cfg.max_out : p->cfg.max_rows);
    return x;
}

size_t cp_cuda_handed_bytes(const cuda_run *run, const cp_op *op)
{
    return handed_inputs(run, op).bytes;
}

bool cp_cuda_is_handed(const cuda_run *run, const cp_op *op)
{
    return op > run->p->ops && cp_cuda_handed_bytes(run, op - 1) > 0;
}

bool cp_cuda_inputs_at_end(const cuda_run *run, const cp_op *op)
{
    int n = 0;
    for (; cp_cuda_is_handed(run, op); op--)
        n++;
    return n % 2;
}

cuda_handed cp_cuda_handed_to(const cuda_run *run, const cp_op *op)
{
    cuda_inputs x = handed_inputs(run, op);
    if (x.bytes == 0)
        return (cuda_handed){.at = 0};
    int form = 0;
    while (!x.want[form])
        form++;
    x.at = cp_cuda_inputs_at_end(run, op)
               ? run->scratch.at
               : (run->scratch.at + run->scratch.bytes - x.bytes) & ~(cp_addr)127;
    return (cuda_handed){.at = x.at + x.offset[form],
                         .scales = x.at + x.scales,
                         .form = form,
                         .n_blocks = (x.k + CUDA_BLOCK - 1) / CUDA_BLOCK};
}
