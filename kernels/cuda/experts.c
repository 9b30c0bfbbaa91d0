/*
 * EXPERTS on the device: pairs of a row and a rank are sorted by expert, inputs go to the places of
 * their pairs, and each block of the product takes an item of one expert's places. How many items
 * there are only the device knows: a grid has room for the most there can be, and what is too much
 * leaves at once.
 */
#include "kernels/cuda/product.h"

#include "base/mem.h"

enum { MAX_PRODUCTS = 2 };

typedef struct experts {
    cuda_kernel sort, prologue;
    cuda_sort_args sort_args;
    cuda_prologue_args args;
    cuda_inputs inputs;
    int n_products;
    cuda_product products[MAX_PRODUCTS];
    int n_used, n_expert, m;
    int max_places;                                         /* a whole number of tiles */
    size_t places_at, pairs_at, counts_at, items_at, up_at; /* in scratch, behind the inputs */
} experts;

static const cuda_weight *weight(const cuda_run *run, const cp_op *op, int i)
{
    return &run->weights[op->u.experts.w[i].w];
}

static int max_rows(const cuda_run *run, const cp_op *op)
{
    return op->rows == CP_ROWS_OUT ? run->p->cfg.max_out : run->p->cfg.max_rows;
}

static bool alike(const cuda_run *run, const cp_op *op)
{
    return cp_cuda_products_alike(weight(run, op, 0), weight(run, op, 1));
}

/* Places that n pairs take at most, when each expert takes a whole number of `each`. */
static int most_places(const experts *x, int n, int each)
{
    int active = n < x->n_expert ? n : x->n_expert;
    return (n + active * (each - 1)) / each * each;
}

static size_t part_bytes(size_t *at, size_t n)
{
    size_t begin = *at;
    *at += (n + 127) / 128 * 128;
    return begin;
}

cp_code cp_cuda_measure_experts(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    experts *x = o->own = cp_xcalloc(1, sizeof(*x));
    const struct cp_mat_desc *mats = run->p->prog->mats;
    bool gated = op->u.experts.act != CP_ACT_NONE;
    x->n_used = mats[op->u.experts.ids].width;
    x->n_expert = (int)weight(run, op, 0)->n_matrices;
    x->m = mats[op->u.experts.out].width / x->n_used;
    x->inputs.k = mats[op->u.experts.in].width / (op->u.experts.by_rank ? x->n_used : 1);
    for (int i = 0; i < (gated ? 2 : 1); i++)
        x->inputs.want[cp_cuda_form_of(run, weight(run, op, i))] = true;
    int rows = max_rows(run, op), pairs = rows * x->n_used;
    x->max_places = most_places(x, pairs, CUDA_TILE);
    cp_cuda_inputs_lay_out(&x->inputs, x->max_places);
    size_t at = x->inputs.bytes, items = (size_t)x->max_places / CUDA_TILE;
    x->places_at = part_bytes(&at, (size_t)pairs * sizeof(int32_t));
    x->pairs_at = part_bytes(&at, (size_t)x->max_places * sizeof(int32_t));
    x->counts_at = part_bytes(&at, 3 * sizeof(int32_t));
    x->items_at = part_bytes(&at, 3 * items * sizeof(cuda_expert_item));
    x->up_at = at;
    if (gated && !alike(run, op))
        at += (size_t)rows * run->p->ld[op->u.experts.out] * sizeof(float);
    cp_cuda_want(run, at);
    return cp_cuda_check_outputs(op, x->m, err);
}

static void bind_places(const cuda_run *run, experts *x, cuda_places *places)
{
    places->place = run->scratch.at + x->places_at;
    places->pair = run->scratch.at + x->pairs_at;
    places->n_items = run->scratch.at + x->counts_at;
    places->items = run->scratch.at + x->items_at;
    places->max_items = x->max_places / CUDA_TILE;
    places->n_used = x->n_used;
}

static void bind_inputs(const cuda_run *run, const cp_op *op, experts *x)
{
    cp_mat in = op->u.experts.in, ids = op->u.experts.ids;
    int32_t out_rows = op->rows == CP_ROWS_OUT;
    x->inputs.at = run->scratch.at;
    x->sort_args = (cuda_sort_args){.step = run->step,
                                    .ids = run->p->mats[ids],
                                    .out_rows = out_rows,
                                    .ld = (int32_t)run->p->ld[ids],
                                    .n_expert = x->n_expert};
    bind_places(run, x, &x->sort_args.places);
    x->args = (cuda_prologue_args){
        .step = run->step,
        .in = run->p->mats[in],
        .ld = (int32_t)run->p->ld[in],
        .norm = op->u.experts.norm < 0 ? 0 : run->p->vectors[op->u.experts.norm],
        .place = x->sort_args.places.place,
        .n_used = x->n_used,
        .by_rank = op->u.experts.by_rank,
        .out_rows = out_rows,
        .eps = op->u.experts.eps,
        .in_scale = 1.0f};
    cp_cuda_inputs_put(&x->inputs, &x->args);
}

static cuda_matrix matrix_of(const cuda_run *run, const cp_op *op, int i)
{
    return cp_cuda_matrix_of(run, weight(run, op, i), op->u.experts.w[i].bias,
                             op->u.experts.w[i].first);
}

static cp_code add_product(cuda_run *run, const cp_op *op, experts *x, int i, cp_act act,
                           const cuda_part *part, cp_err *err)
{
    cuda_product *p = &x->products[x->n_products++];
    cp_code rc = cp_cuda_product_begin(run, p, weight(run, op, i), false, &x->inputs, err);
    p->a.out_rows = op->rows == CP_ROWS_OUT;
    p->a.activation = (int32_t)act;
    p->a.places = x->sort_args.places;
    cp_cuda_product_add(p, part, weight(run, op, i), NULL);
    return rc;
}

static cp_code bind_products(cuda_run *run, const cp_op *op, experts *x, cp_err *err)
{
    cuda_part part = {.m = x->m,
                      .out = run->p->mats[op->u.experts.out],
                      .ld = (int32_t)run->p->ld[op->u.experts.out]};
    part.w[0] = matrix_of(run, op, 0);
    if (op->u.experts.act == CP_ACT_NONE)
        return add_product(run, op, x, 0, CP_ACT_NONE, &part, err);
    if (alike(run, op)) {
        part.w[1] = matrix_of(run, op, 1);
    } else { /* up first, into scratch */
        cuda_part up = part;
        up.w[0] = matrix_of(run, op, 1);
        up.out = part.mul = run->scratch.at + x->up_at;
        part.ld_mul = part.ld;
        cp_code rc = add_product(run, op, x, 1, CP_ACT_NONE, &up, err);
        if (rc != CP_OK)
            return rc;
    }
    return add_product(run, op, x, 0, op->u.experts.act, &part, err);
}

cp_code cp_cuda_bind_experts(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    experts *x = o->own;
    bind_inputs(run, op, x);
    cp_code rc = cp_cuda_kernel(run, "k_sort_pairs", &x->sort, err);
    if (rc == CP_OK)
        rc = cp_cuda_kernel(run, "k_prologue", &x->prologue, err);
    return rc == CP_OK ? bind_products(run, op, x, err) : rc;
}

cp_code cp_cuda_enqueue_experts(cuda_run *run, const cp_op *op, const cuda_op *o,
                                const cp_batch *batch, cp_err *err)
{
    const experts *x = o->own;
    int n = cp_op_rows(op, batch), pairs = n * x->n_used;
    int width = cuda_log2_tiles(pairs, x->n_expert);
    unsigned ranks = op->u.experts.by_rank ? (unsigned)x->n_used : 1;
    if (n == 0)
        return CP_OK;
    cp_code rc = cp_cuda_launch(
        run, x->sort, (cuda_dim){1, 1, 1}, (cuda_dim){CUDA_SORT_THREADS, 1, 1},
        (size_t)(CUDA_SORT_THREADS / 32 * x->n_expert) * sizeof(int32_t), &x->sort_args, err);
    if (rc == CP_OK)
        rc = cp_cuda_launch(run, x->prologue, (cuda_dim){(unsigned)n, ranks, 1},
                            (cuda_dim){CUDA_PROLOGUE_THREADS, 1, 1}, 0, &x->args, err);
    for (int i = 0; i < x->n_products && rc == CP_OK; i++) {
        const cuda_product *p = &x->products[i];
        int w = cp_cuda_product_width(p, width), rows = CUDA_TILE << w;
        rc = cp_cuda_product_launch(run, p, w, most_places(x, pairs, rows) / rows, err);
    }
    return rc;
}
