/*
 * product: see product.h.
 */
#include "kernels/cuda/product.h"

#include "base/mem.h"

/* Names of the kernels of a kind. */
static const struct kernel_row {
    const char *exact[3]; /* bits of ref; of float kinds the first alone */
    const char *fast[3];  /* NULL: the same */
    int kind;             /* of panels */
} kernels[CP_PANEL_COUNT] = {
#define X(name, bits, codes, form, off, bytes, head)                                               \
    [CP_PANEL_##name] = {{"k_linear_q1_" #name, "k_linear_q2_" #name, "k_linear_q4_" #name},       \
                         {NULL},                                                                   \
                         CUDA_KIND_##name},
    CP_INT_PANELS(X)
#undef X
        [CP_PANEL_F32] = {{"k_linear_f_F32"}, {NULL}, -1},
    [CP_PANEL_F16] = {{"k_linear_f_F16"},
                      {"k_linear_h1_F16", "k_linear_h2_F16", "k_linear_h4_F16"},
                      -1},
    [CP_PANEL_BF16] = {{"k_linear_f_BF16"},
                       {"k_linear_h1_BF16", "k_linear_h2_BF16", "k_linear_h4_BF16"},
                       -1},
};

/* Of panels of several kinds. */
static const char *const mixed_kernels[3] = {"k_linear_m1", NULL, "k_linear_m4"};

cuda_form cp_cuda_form_of(const cuda_run *run, const cuda_weight *w)
{
    if (w->kind == CP_PANEL_BF16)
        return CUDA_BF16;
    if (w->kind == CP_PANEL_F16)
        return run->exact ? CUDA_F32 : CUDA_F16;
    return w->kind == CP_PANEL_F32 ? CUDA_F32 : CUDA_INT8;
}

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

void cp_cuda_inputs_lay_out(cuda_inputs *x, int64_t rows)
{
    size_t n = up((size_t)rows, CUDA_TILE), k = (size_t)x->k, at = 0;
    x->ld32 = (int)up(k, 4);
    x->ld16 = (int)up(k, 32);
    size_t row[CUDA_FORMS] = {[CUDA_INT8] = k / CUDA_BLOCK * sizeof(cuda_act) / CUDA_TILE,
                              [CUDA_F32] = (size_t)x->ld32 * sizeof(float),
                              [CUDA_BF16] = (size_t)x->ld16 * sizeof(uint16_t),
                              [CUDA_F16] = (size_t)x->ld16 * sizeof(uint16_t)};
    for (int f = 0; f < CUDA_FORMS; f++) {
        x->offset[f] = at;
        at += x->want[f] ? up(n * row[f], 128) : 0;
    }
    x->scales = at;
    x->bytes =
        at + (x->want[CUDA_F16] ? up(n * ((size_t)x->ld16 / CUDA_BLOCK) * sizeof(float), 128) : 0);
}

static cp_addr address(const cuda_inputs *x, cuda_form f)
{
    return x->want[f] ? x->at + x->offset[f] : 0;
}

void cp_cuda_inputs_put(const cuda_inputs *x, cuda_prologue_args *a)
{
    a->k = x->k;
    a->ld32 = x->ld32;
    a->ld16 = x->ld16;
    a->act = address(x, CUDA_INT8);
    a->f32 = address(x, CUDA_F32);
    a->bf16 = address(x, CUDA_BF16);
    a->f16 = address(x, CUDA_F16);
    a->f16_scales = x->want[CUDA_F16] ? x->at + x->scales : 0;
}

/* As few warps as take the segments in as few rounds as eight would. */
static int warps_for(int k)
{
    int segments = (k + CP_SEGMENT - 1) / CP_SEGMENT;
    int rounds = (segments + CUDA_SEGMENT_WARPS - 1) / CUDA_SEGMENT_WARPS;
    return (segments + rounds - 1) / rounds;
}

cp_code cp_cuda_check_outputs(const cp_op *op, int64_t outputs, cp_err *err)
{
    /* of a grid's second dimension; each part may end in a block of its own */
    const int64_t most = (int64_t)(UINT16_MAX - CUDA_PARTS) * CUDA_OUTPUTS;
    return outputs <= most
               ? CP_OK
               : cp_fail(err, CP_UNSUPPORTED,
                         "cuda: %s, layer %d: weights of %lld outputs; at most %lld",
                         cp_op_names[op->kind], op->layer, (long long)outputs, (long long)most);
}

static const char *const *names_of(const cuda_run *run, const cuda_weight *w, bool mixed)
{
    const struct kernel_row *row = &kernels[w->kind];
    if (mixed && row->kind >= 0)
        return mixed_kernels;
    return !run->exact && row->fast[0] ? row->fast : row->exact;
}

cp_code cp_cuda_product_begin(cuda_run *run, cuda_product *p, const cuda_weight *w, bool mixed,
                              const cuda_inputs *x, cp_err *err)
{
    const char *const *names = names_of(run, w, mixed);
    cuda_form form = cp_cuda_form_of(run, w);
    *p = (cuda_product){.warps = warps_for(x->k)};
    p->a = (cuda_linear_args){.step = run->step,
                              .act = address(x, form),
                              .scales = form == CUDA_F16 ? x->at + x->scales : 0,
                              .k = x->k,
                              .act_ld = form == CUDA_F32 ? x->ld32 : x->ld16,
                              .activation = CP_ACT_NONE,
                              .scale = 1.0f};
    cp_code rc = CP_OK;
    for (int i = 0; i < 3 && rc == CP_OK; i++)
        if (names[i])
            rc = cp_cuda_kernel(run, names[i], &p->f[i], err);
    if (rc == CP_OK && run->blas)
        rc = cp_cuda_kernel(run, "k_epilogue", &p->epilogue, err);
    return rc;
}

cuda_matrix cp_cuda_matrix_of(const cuda_run *run, const cuda_weight *w, cp_wref bias, int first)
{
    size_t before =
        w->file_order ? (size_t)first * w->row_bytes : (size_t)first / CP_LANES * w->panel_bytes;
    cuda_matrix m = {.w = w->at + before,
                     .matrix_bytes = (int64_t)w->matrix_bytes,
                     .row_bytes = (int64_t)(w->file_order ? w->row_bytes : w->panel_bytes),
                     .kind = kernels[w->kind].kind};
    if (bias >= 0) {
        m.bias = run->p->vectors[bias] + (size_t)first * sizeof(float);
        m.matrix_bias = w->m;
    }
    return m;
}

void cp_cuda_product_add(cuda_product *p, const cuda_part *part, const cuda_weight *w,
                         const cuda_weight *up)
{
    CP_ASSERT(p->a.n_parts < CUDA_PARTS);
    cuda_part *to = &p->a.parts[p->a.n_parts];
    p->w[p->a.n_parts][0] = w;
    p->w[p->a.n_parts++][1] = up;
    *to = *part;
    to->block0 = p->blocks;
    p->blocks += (part->m + CUDA_OUTPUTS - 1) / CUDA_OUTPUTS;
}

int cp_cuda_product_width(const cuda_product *p, int width)
{
    for (int w = width; w < 3; w++)
        if (p->f[w])
            return w;
    return 0;
}

cp_code cp_cuda_product_launch(cuda_run *run, const cuda_product *p, int width, int items,
                               cp_err *err)
{
    size_t outputs = (size_t)(CUDA_TILE << width) * CUDA_OUTPUTS, results = (size_t)p->warps;
    results += p->a.activation != CP_ACT_NONE && !p->a.parts[0].mul ? 2 : 1; /* and sums */
    return cp_cuda_launch(run, p->f[width], (cuda_dim){(unsigned)items, (unsigned)p->blocks, 1},
                          (cuda_dim){(unsigned)p->warps * 32, 1, 1},
                          results * outputs * sizeof(float), &p->a, err);
}

/* Are outputs anything but sums? */
static bool has_epilogue(const cuda_linear_args *a)
{
    bool any = a->activation != CP_ACT_NONE || a->scale != 1.0f || a->softcap != 0.0f || a->scales;
    for (int i = 0; i < a->n_parts; i++)
        any |= a->parts[i].w[0].bias != 0;
    return any;
}

cp_code cp_cuda_product_gemm(cuda_run *run, const cuda_product *p, int rows, cp_err *err)
{
    const cuda_linear_args *a = &p->a;
    int widest = 0;
    cp_code rc = CP_OK;
    for (int i = 0; i < a->n_parts && rc == CP_OK; i++) {
        const cuda_part *part = &a->parts[i];
        widest = part->m > widest ? part->m : widest;
        rc = cp_cuda_gemm(run, p->w[i][0], 0, a->act, a->act_ld, rows, part->out, part->ld, err);
        if (rc == CP_OK && part->up_sums)
            rc = cp_cuda_gemm(run, p->w[i][1], 0, a->act, a->act_ld, rows, part->up_sums, part->ld,
                              err);
    }
    if (rc != CP_OK || !has_epilogue(a))
        return rc;
    unsigned blocks = (unsigned)((widest + CUDA_EPILOGUE_THREADS - 1) / CUDA_EPILOGUE_THREADS);
    return cp_cuda_launch(run, p->epilogue,
                          (cuda_dim){(unsigned)rows, blocks, (unsigned)a->n_parts},
                          (cuda_dim){CUDA_EPILOGUE_THREADS, 1, 1}, 0, a, err);
}

bool cp_cuda_products_alike(const cuda_weight *a, const cuda_weight *b)
{
    return a->kind == b->kind;
}
