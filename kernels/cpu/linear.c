/*
 * linear: LINEAR records bound to weights: activation formats, work items, pack-on-read.
 *
 * An item is a run of panels of one weight (of both, when gate and up are fused) times a chunk of
 * rows, chunk-major, so that consecutive items share activations in L2 while their panels stream.
 * Few rows: long runs, since weights come from memory. Many rows: short runs over up to
 * CHUNK rows, so that two workers end together. Neither choice reaches the bits: a lane
 * owns an output and sees K in order.
 */
#include "kernels/cpu/linear.h"

#include "base/mem.h"
#include "kernels/cpu/gemm.h"
#include "kernels/math.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK       132        /* rows an item at most */
#define FEW_ROWS    8          /* up to here an item is sized by its weights' bytes */
#define ITEM_BYTES  (48 << 10) /* weights an item of few rows */
#define MIN_ITEMS   16
#define MAX_WEIGHTS 4 /* of a record */
#define TILE_FLOATS ((size_t)CHUNK * CP_LANES)

typedef struct weight {
    const cp_tensor *t;
    cp_unpack_fn *unpack;
    const uint8_t *packed; /* panels of this weight, or NULL: unpacked on read */
    float *bias;           /* [panels * 16], or NULL; owned */
    int64_t m;             /* outputs */
    int64_t panels;
    size_t panel_bytes;
    cp_panel_kind kind;
} weight;

struct cp_linear {
    cp_gemm_table table;
    cp_epilogue epilogue;
    int n_w, k, max_rows;
    bool want8, want32, want16; /* activation formats: int8 blocks, f32, bf16 */
    weight w[MAX_WEIGHTS];
    size_t scratch_panel_bytes; /* the largest panel */
};

/* ---- open ---- */

static cp_code open_bias(weight *w, const cp_tensor *bias, cp_err *err)
{
    const cp_dtype_row *info = cp_dtype_info((uint32_t)bias->type);
    if (bias->ne[0] != w->m || !info)
        return cp_fail(err, CP_UNSUPPORTED, "%s: bias has %lld values, the weight %lld outputs",
                       bias->name, (long long)bias->ne[0], (long long)w->m);
    w->bias = cp_alloc_aligned((size_t)w->panels * CP_LANES * sizeof(float));
    if (!w->bias)
        return cp_fail(err, CP_NO_MEMORY, "%s: no memory for %lld bias values", bias->name,
                       (long long)w->m);
    cp_dequant_row(bias, 0, w->bias);
    return CP_OK;
}

static cp_code open_weight(cp_linear *l, weight *w, const cp_tensor *t, cp_err *err)
{
    w->kind = cp_panel_kind_of(t->type);
    if (w->kind == CP_PANEL_COUNT) {
        const cp_dtype_row *info = cp_dtype_info((uint32_t)t->type);
        return cp_fail(err, CP_UNSUPPORTED, "%s: weight type %s is not supported", t->name,
                       info ? info->name : "(unknown)");
    }
    if (t->ne[0] < 1 || t->ne[0] > INT32_MAX / 64 || t->ne[1] < 1 || t->ne[1] > INT32_MAX / 64 ||
        t->ne[2] != 1 || t->ne[3] != 1 || t->ne[0] % cp_dtype_info((uint32_t)t->type)->block)
        return cp_fail(err, CP_UNSUPPORTED,
                       "%s: shape %lld x %lld x %lld x %lld is no matrix of %s", t->name,
                       (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                       (long long)t->ne[3], cp_dtype_info((uint32_t)t->type)->name);
    if (l->k && l->k != (int)t->ne[0])
        return cp_fail(err, CP_UNSUPPORTED, "%s: %lld inputs, the weight before it %d", t->name,
                       (long long)t->ne[0], l->k);
    l->k = (int)t->ne[0];
    w->t = t;
    w->unpack = cp_unpack_of(t->type);
    w->m = t->ne[1];
    w->panels = (w->m + CP_LANES - 1) / CP_LANES;
    w->panel_bytes = cp_panel_bytes(w->kind, t->ne[0]);
    if (!w->panel_bytes)
        return cp_fail(err, CP_UNSUPPORTED, "%s: panel size overflows", t->name);
    if (w->panel_bytes > l->scratch_panel_bytes)
        l->scratch_panel_bytes = w->panel_bytes;
    if (w->kind == CP_PANEL_F32 || w->kind == CP_PANEL_F16)
        l->want32 = true;
    else if (w->kind == CP_PANEL_BF16)
        l->want16 = true;
    else
        l->want8 = true;
    return CP_OK;
}

cp_code cp_linear_open(cp_linear **out, const cp_program *prog, const cp_op *op, cp_isa isa,
                       int max_rows, cp_err *err)
{
    CP_ASSERT(op->kind == CP_OP_LINEAR && max_rows > 0);
    int n_w = op->u.linear.n_w;
    if (n_w < 1 || n_w > MAX_WEIGHTS || (op->u.linear.act != CP_ACT_NONE && n_w != 2))
        return cp_fail(err, CP_UNSUPPORTED, "a linear of %d weights", n_w);
    cp_linear *l = cp_xcalloc(1, sizeof *l);
    cp_code code = CP_OK;
    cp_isa_gemm(&l->table, isa);
    l->n_w = n_w;
    l->max_rows = max_rows;
    l->epilogue.act = op->u.linear.act;
    l->epilogue.scale = op->u.linear.scale;
    l->epilogue.softcap = op->u.linear.softcap;
    for (int i = 0; i < n_w && code == CP_OK; i++) {
        cp_wref b = op->u.linear.w[i].bias;
        code = open_weight(l, &l->w[i], prog->weights[op->u.linear.w[i].w].t, err);
        if (code == CP_OK && b >= 0)
            code = open_bias(&l->w[i], prog->weights[b].t, err);
    }
    if (code == CP_OK && l->epilogue.act != CP_ACT_NONE && l->w[0].m != l->w[1].m)
        code = cp_fail(err, CP_UNSUPPORTED, "%s: gate has %lld outputs, up %lld", l->w[0].t->name,
                       (long long)l->w[0].m, (long long)l->w[1].m);
    if (code != CP_OK) {
        cp_linear_close(l);
        return code;
    }
    *out = l;
    return CP_OK;
}

void cp_linear_close(cp_linear *l)
{
    if (!l)
        return;
    for (int i = 0; i < l->n_w; i++)
        free(l->w[i].bias);
    free(l);
}

/* The sink of a packing: arg is the list of the weights. */
static void take_panels(void *arg, int i, const uint8_t *panels)
{
    weight *const *weights = arg;
    weights[i]->packed = panels;
}

/* All weights in a row, and their tensors; returns how many. */
static int flatten(cp_linear *const *linears, int n, weight **weights, const cp_tensor **tensors)
{
    int n_w = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < linears[i]->n_w; k++, n_w++) {
            weights[n_w] = &linears[i]->w[k];
            tensors[n_w] = weights[n_w]->t;
        }
    return n_w;
}

cp_code cp_linear_pack(cp_linear *const *linears, int n, cp_panels *panels, cp_pool *pool,
                       cp_err *err)
{
    const cp_tensor **tensors = cp_xcalloc((size_t)n * MAX_WEIGHTS, sizeof *tensors);
    weight **weights = cp_xcalloc((size_t)n * MAX_WEIGHTS, sizeof *weights);
    int n_w = flatten(linears, n, weights, tensors);
    cp_code code = cp_panels_pack(panels, tensors, n_w, pool, take_panels, weights, err);
    free(weights);
    free(tensors);
    return code;
}

cp_code cp_linear_packed_bytes(cp_linear *const *linears, int n, size_t *bytes, cp_err *err)
{
    const cp_tensor **tensors = cp_xcalloc((size_t)n * MAX_WEIGHTS, sizeof *tensors);
    weight **weights = cp_xcalloc((size_t)n * MAX_WEIGHTS, sizeof *weights);
    cp_code code = cp_panels_measure(tensors, flatten(linears, n, weights, tensors), bytes, err);
    free(weights);
    free(tensors);
    return code;
}

int cp_linear_k(const cp_linear *l)
{
    return l->k;
}

/* ---- activations: [int8 blocks | f32 | bf16], each present if a weight wants it ---- */

typedef struct act_layout {
    size_t stride8, stride32, stride16; /* bytes a row */
    size_t at32, at16, bytes;           /* offsets of the parts, and the end */
} act_layout;

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* Rows an odd number of cache lines apart: a tile reads the same place of twelve rows at once, and
 * rows a multiple of 4 KiB apart would share one set of the first cache, which holds eight. */
static size_t row_stride(size_t bytes)
{
    return round64(bytes) | 64;
}

static act_layout layout(const cp_linear *l, int n)
{
    act_layout a = {0};
    size_t k = (size_t)l->k, rows = (size_t)n;
    a.stride8 = row_stride(k / CP_QBLOCK * sizeof(cp_act8));
    a.stride32 = row_stride(4 * k);
    a.stride16 = row_stride(l->table.bf16_pairs ? 2 * (k + (k & 1)) : 4 * k);
    a.at32 = l->want8 ? rows * a.stride8 : 0;
    a.at16 = a.at32 + (l->want32 ? rows * a.stride32 : 0);
    a.bytes = a.at16 + (l->want16 ? rows * a.stride16 : 0);
    return a;
}

size_t cp_linear_act_bytes(const cp_linear *l, int n)
{
    return layout(l, n).bytes;
}

static void prep_bf16(const cp_linear *l, const float *x, uint8_t *dst)
{
    if (l->table.bf16_pairs) {
        uint16_t *p = (uint16_t *)(void *)dst;
        for (int i = 0; i < l->k; i++)
            p[i] = cp_bf16_from_f32(x[i]);
        if (l->k & 1)
            p[l->k] = 0;
        return;
    }
    float *p = (float *)(void *)dst;
    for (int i = 0; i < l->k; i++)
        p[i] = cp_f32_from_bf16(cp_bf16_from_f32(x[i]));
}

void cp_linear_prep_row(const cp_linear *l, const float *x, int r, int n, void *act)
{
    act_layout a = layout(l, n);
    uint8_t *base = act;
    CP_ASSERT(r >= 0 && r < n && n <= l->max_rows);
    if (l->want8)
        l->table.quantize(x, l->k, (cp_act8 *)(void *)(base + (size_t)r * a.stride8));
    if (l->want32)
        memcpy(base + a.at32 + (size_t)r * a.stride32, x, (size_t)l->k * sizeof *x);
    if (l->want16)
        prep_bf16(l, x, base + a.at16 + (size_t)r * a.stride16);
}

/* ---- items ---- */

/* Chunks of rows; every chunk but the last has `rows` rows. */
static int chunk_rows(int n)
{
    int chunks = (n + CHUNK - 1) / CHUNK, rows = (n + chunks - 1) / chunks;
    return chunks > 1 ? (rows + 11) / 12 * 12 : rows; /* whole tiles of every level */
}

/* Panels an item takes of weight w. */
static int64_t run_length(const cp_linear *l, const weight *w, int n)
{
    int64_t run = 2;
    if (n <= FEW_ROWS) {
        int64_t total = 0;
        for (int i = 0; i < l->n_w; i++)
            total += l->w[i].panels;
        run = (int64_t)(ITEM_BYTES / w->panel_bytes);
        if (run > total / MIN_ITEMS)
            run = total / MIN_ITEMS;
    }
    return run < 1 ? 1 : run;
}

static int64_t weight_items(const cp_linear *l, const weight *w, int n)
{
    int64_t run = run_length(l, w, n);
    return (w->panels + run - 1) / run;
}

/* Items of one chunk. */
static int64_t chunk_items(const cp_linear *l, int n)
{
    int64_t items = 0;
    int parts = l->epilogue.act != CP_ACT_NONE ? 1 : l->n_w;
    for (int i = 0; i < parts; i++)
        items += weight_items(l, &l->w[i], n);
    return items;
}

int64_t cp_linear_items(const cp_linear *l, int n)
{
    int rows = chunk_rows(n);
    return chunk_items(l, n) * ((n + rows - 1) / rows);
}

size_t cp_linear_scratch_bytes(const cp_linear *l)
{
    return l->scratch_panel_bytes + 2 * TILE_FLOATS * sizeof(float);
}

/* tile = panel p of w times rows [r0, r0 + rows) */
static void panel_times(const cp_linear *l, const weight *w, int64_t p, const act_layout *a,
                        const uint8_t *act, int r0, int rows, uint8_t *scratch, float *tile)
{
    const uint8_t *panel = scratch;
    size_t at = 0, stride = a->stride8;
    if (w->packed) {
        panel = w->packed + (size_t)p * w->panel_bytes;
    } else {
        int64_t left = w->m - p * CP_LANES;
        w->unpack(w->t, p * CP_LANES, left < CP_LANES ? (int)left : CP_LANES, scratch);
    }
    if (w->kind == CP_PANEL_F32 || w->kind == CP_PANEL_F16) {
        at = a->at32;
        stride = a->stride32;
    } else if (w->kind == CP_PANEL_BF16) {
        at = a->at16;
        stride = a->stride16;
    }
    l->table.gemm[w->kind](panel, l->k, act + at + (size_t)r0 * stride, stride, rows, tile);
}

void cp_linear_item(const cp_linear *l, int64_t item, int n, const void *act, void *scratch,
                    float *const out[4], const size_t ld[4])
{
    act_layout a = layout(l, n);
    bool fused = l->epilogue.act != CP_ACT_NONE;
    int64_t per_chunk = chunk_items(l, n);
    int rows = chunk_rows(n), r0 = (int)(item / per_chunk) * rows, i = 0;
    CP_ASSERT(item >= 0 && r0 < n);
    rows = rows < n - r0 ? rows : n - r0;
    item %= per_chunk;
    while (!fused && item >= weight_items(l, &l->w[i], n)) {
        item -= weight_items(l, &l->w[i], n);
        i++;
    }
    const weight *w = &l->w[i];
    int64_t run = run_length(l, w, n), p0 = item * run, p1 = p0 + run;
    uint8_t *panel = scratch;
    float *tile = (float *)(void *)(panel + l->scratch_panel_bytes), *up = tile + TILE_FLOATS;
    if (p1 > w->panels)
        p1 = w->panels;
    for (int64_t p = p0; p < p1; p++) {
        int64_t o = p * CP_LANES;
        int lanes = w->m - o < CP_LANES ? (int)(w->m - o) : CP_LANES;
        const float *up_bias = NULL;
        panel_times(l, w, p, &a, act, r0, rows, panel, tile);
        if (fused) {
            panel_times(l, &l->w[1], p, &a, act, r0, rows, panel, up);
            up_bias = l->w[1].bias ? l->w[1].bias + o : NULL;
        }
        l->table.finish(&l->epilogue, tile, w->bias ? w->bias + o : NULL, up, up_bias, rows, lanes,
                        out[i] + (size_t)r0 * ld[i] + (size_t)o, ld[i]);
    }
}
