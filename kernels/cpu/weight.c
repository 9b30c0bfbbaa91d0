/*
 * weight: see weight.h.
 */
#include "kernels/cpu/weight.h"

#include "base/mem.h"
#include "kernels/math.h"

#include <stdlib.h>
#include <string.h>

/* ---- bind ---- */

static cp_code bind_bias(cp_gemm_weight *w, const cp_tensor *bias, cp_err *err)
{
    size_t padded = (size_t)w->panels * CP_LANES;
    if (bias->ne[0] != w->m || bias->ne[1] != w->n_matrices || !cp_dtype_info((uint32_t)bias->type))
        return cp_fail(err, CP_UNSUPPORTED,
                       "%s: bias has %lld x %lld values, the weight %lld outputs of %lld matrices",
                       bias->name, (long long)bias->ne[0], (long long)bias->ne[1], (long long)w->m,
                       (long long)w->n_matrices);
    w->bias = cp_alloc_aligned((size_t)w->n_matrices * padded * sizeof(float));
    if (!w->bias)
        return cp_fail(err, CP_NO_MEMORY, "%s: no memory for %lld bias values", bias->name,
                       (long long)(w->m * w->n_matrices));
    memset(w->bias, 0, (size_t)w->n_matrices * padded * sizeof(float));
    for (int64_t e = 0; e < w->n_matrices; e++)
        cp_dequant_row(bias, e, w->bias + (size_t)e * padded);
    return CP_OK;
}

static cp_code check_shape(const cp_gemm_inputs *in, const cp_tensor *t, cp_err *err)
{
    const cp_dtype_row *info = cp_dtype_info((uint32_t)t->type);
    int64_t matrices = t->ne[2], most = INT32_MAX / 64;
    if (cp_panel_kind_of(t->type) == CP_PANEL_COUNT)
        return cp_fail(err, CP_UNSUPPORTED, "%s: weight type %s is not supported", t->name,
                       info ? info->name : "(unknown)");
    if (t->ne[0] < 1 || t->ne[0] > most || t->ne[1] < 1 || t->ne[1] > most || matrices < 1 ||
        matrices > CP_EXPERTS_MAX || t->ne[3] != 1 || t->ne[0] % info->block)
        return cp_fail(err, CP_UNSUPPORTED,
                       "%s: shape %lld x %lld x %lld x %lld is no matrix of %s", t->name,
                       (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                       (long long)t->ne[3], info->name);
    if (in->k && in->k != (int)t->ne[0])
        return cp_fail(err, CP_UNSUPPORTED, "%s: %lld inputs, the weight before it %d", t->name,
                       (long long)t->ne[0], in->k);
    return CP_OK;
}

/* Activations rounded to bf16, in pairs or not. */
static bool wants16(const cp_gemm_table *t, cp_panel_kind kind)
{
    return kind == CP_PANEL_BF16 || (kind == CP_PANEL_F16 && t->f16_pairs);
}

cp_code cp_gemm_weight_bind(cp_gemm_weight *w, cp_gemm_inputs *in, const cp_tensor *t,
                            const cp_tensor *bias, cp_err *err)
{
    cp_code code = check_shape(in, t, err);
    if (code != CP_OK)
        return code;
    *w = (cp_gemm_weight){.t = t,
                          .unpack = cp_unpack_of(t->type),
                          .m = t->ne[1],
                          .panels = (t->ne[1] + CP_LANES - 1) / CP_LANES,
                          .n_matrices = t->ne[2],
                          .kind = cp_panel_kind_of(t->type)};
    in->k = (int)t->ne[0];
    w->panel_bytes = cp_panel_bytes(w->kind, t->ne[0]);
    if (!w->panel_bytes)
        return cp_fail(err, CP_UNSUPPORTED, "%s: panel size overflows", t->name);
    if (w->panel_bytes > in->panel_bytes)
        in->panel_bytes = w->panel_bytes;
    if (wants16(in->table, w->kind))
        in->want16 = true;
    else if (cp_panel_is_float(w->kind))
        in->want32 = true;
    else
        in->want8 = true;
    return bias ? bind_bias(w, bias, err) : CP_OK;
}

void cp_gemm_weight_fini(cp_gemm_weight *w)
{
    free(w->bias);
    w->bias = NULL;
}

/* ---- pack ---- */

/* The sink of a packing: arg is the list of the weights. */
static void take_panels(void *arg, int i, const uint8_t *panels)
{
    cp_gemm_weight *const *weights = arg;
    weights[i]->packed = panels;
}

static const cp_tensor **tensors_of(cp_gemm_weight *const *weights, int n)
{
    const cp_tensor **tensors = cp_xcalloc((size_t)n + 1, sizeof *tensors);
    for (int i = 0; i < n; i++)
        tensors[i] = weights[i]->t;
    return tensors;
}

cp_code cp_gemm_weights_pack(cp_gemm_weight *const *weights, int n, cp_panels *panels,
                             cp_pool *pool, cp_err *err)
{
    const cp_tensor **tensors = tensors_of(weights, n);
    void *sink = (void *)(uintptr_t)weights;
    cp_code code = cp_panels_pack(panels, tensors, n, pool, take_panels, sink, err);
    free(tensors);
    return code;
}

cp_code cp_gemm_weights_bytes(cp_gemm_weight *const *weights, int n, size_t *bytes, cp_err *err)
{
    const cp_tensor **tensors = tensors_of(weights, n);
    cp_code code = cp_panels_measure(tensors, n, bytes, err);
    free(tensors);
    return code;
}

size_t cp_gemm_weights_own_bytes(cp_gemm_weight *const *weights, int n)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        if (weights[i]->bias)
            bytes +=
                (size_t)(weights[i]->n_matrices * weights[i]->panels) * CP_LANES * sizeof(float);
    return bytes;
}

/* ---- inputs ---- */

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

/* Inputs of a row of pairs, the zeros at its end too. */
static size_t pair_inputs(const cp_gemm_inputs *in)
{
    size_t step = (size_t)in->table->pair_inputs;
    return ((size_t)in->k + step - 1) / step * step;
}

cp_gemm_layout cp_gemm_layout_of(const cp_gemm_inputs *in, int64_t n)
{
    cp_gemm_layout a = {0};
    size_t k = (size_t)in->k, rows = (size_t)n;
    a.stride8 = row_stride(k / CP_QBLOCK * sizeof(cp_act8));
    a.stride32 = row_stride(4 * k);
    a.stride16 = row_stride(in->table->bf16_pairs ? 2 * pair_inputs(in) : 4 * k);
    size_t most = a.stride8 > a.stride16 ? a.stride8 : a.stride16; /* read by tiles */
    a.at32 = in->want8 ? rows * a.stride8 : 0;
    a.at16 = a.at32 + (in->want32 ? rows * a.stride32 : 0);
    a.bytes = a.at16 + (in->want16 ? rows * a.stride16 : 0);
    a.bytes += (size_t)in->table->rows_beyond * most;
    return a;
}

static void put_bf16(const cp_gemm_inputs *in, const float *x, uint8_t *dst)
{
    if (in->table->bf16_pairs) {
        uint16_t *p = (uint16_t *)(void *)dst;
        for (int i = 0; i < in->k; i++)
            p[i] = cp_bf16_from_f32(x[i]);
        memset(p + in->k, 0, (pair_inputs(in) - (size_t)in->k) * sizeof *p);
        return;
    }
    float *p = (float *)(void *)dst;
    for (int i = 0; i < in->k; i++)
        p[i] = cp_f32_from_bf16(cp_bf16_from_f32(x[i]));
}

void cp_gemm_put_row(const cp_gemm_inputs *in, const cp_gemm_layout *a, const float *x, int64_t r,
                     void *act)
{
    uint8_t *base = act;
    if (in->want8)
        in->table->quantize(x, in->k, (cp_act8 *)(void *)(base + (size_t)r * a->stride8));
    if (in->want32)
        memcpy(base + a->at32 + (size_t)r * a->stride32, x, (size_t)in->k * sizeof *x);
    if (in->want16)
        put_bf16(in, x, base + a->at16 + (size_t)r * a->stride16);
}

static void copy_part(uint8_t *base, size_t stride, int64_t from, int64_t to)
{
    memcpy(base + (size_t)to * stride, base + (size_t)from * stride, stride);
}

void cp_gemm_copy_row(const cp_gemm_inputs *in, const cp_gemm_layout *a, int64_t from, int64_t to,
                      void *act)
{
    uint8_t *base = act;
    if (in->want8)
        copy_part(base, a->stride8, from, to);
    if (in->want32)
        copy_part(base + a->at32, a->stride32, from, to);
    if (in->want16)
        copy_part(base + a->at16, a->stride16, from, to);
}

/* ---- products ---- */

/* What is at the beginning of a scratch: rows [r0, r0 + rows) of the record's inputs are gathered
 * behind it. */
typedef struct gathered_rows {
    int64_t r0;
    int rows;
} __attribute__((aligned(64))) gathered_rows;

static size_t gathered_bytes(const cp_gemm_inputs *in)
{
    const cp_gemm_table *t = in->table;
    if (!in->want8 || !t->many_rows)
        return 0;
    size_t tiles = (CPU_CHUNK + (size_t)t->chunk_rows - 1) / (size_t)t->chunk_rows;
    return tiles * (size_t)(in->k / CP_QBLOCK) * t->gathered_bytes;
}

size_t cp_gemm_scratch_bytes(const cp_gemm_inputs *in)
{
    return sizeof(gathered_rows) + gathered_bytes(in) + in->panel_bytes +
           2 * CPU_TILE_FLOATS * sizeof(float);
}

void cp_gemm_scratch_begin(void *scratch)
{
    *(gathered_rows *)scratch = (gathered_rows){0};
}

static uint8_t *panel_of(const cp_gemm_inputs *in, void *scratch)
{
    return (uint8_t *)scratch + sizeof(gathered_rows) + gathered_bytes(in);
}

float *cp_gemm_scratch_tiles(const cp_gemm_inputs *in, void *scratch)
{
    return (float *)(void *)(panel_of(in, scratch) + in->panel_bytes);
}

/* The rows at act, gathered; r0: where they lie in the inputs. */
static const uint8_t *gather(const cp_gemm_inputs *in, const uint8_t *act, size_t stride,
                             int64_t r0, int rows, void *scratch)
{
    gathered_rows *have = scratch;
    uint8_t *to = (uint8_t *)scratch + sizeof(*have);
    if (have->r0 != r0 || have->rows != rows)
        in->table->gather(act, stride, in->k, rows, to);
    *have = (gathered_rows){.r0 = r0, .rows = rows};
    return to;
}

void cp_gemm_panel(const cp_gemm_inputs *in, const cp_gemm_weight *w, int64_t e, int64_t p,
                   const cp_gemm_layout *a, const void *act, int64_t r0, int rows, void *scratch,
                   float *tile)
{
    const cp_gemm_table *t = in->table;
    const uint8_t *panel = panel_of(in, scratch), *base = act;
    size_t at = 0, stride = a->stride8;
    bool quantized = !cp_panel_is_float(w->kind);
    if (w->packed) {
        panel = w->packed + (size_t)(e * w->panels + p) * w->panel_bytes;
    } else {
        int64_t left = w->m - p * CP_LANES;
        w->unpack(w->t, e * w->m + p * CP_LANES, left < CP_LANES ? (int)left : CP_LANES,
                  panel_of(in, scratch));
    }
    if (wants16(in->table, w->kind)) {
        at = a->at16;
        stride = a->stride16;
    } else if (!quantized) {
        at = a->at32;
        stride = a->stride32;
    }
    const uint8_t *first = base + at + (size_t)r0 * stride;
    if (quantized && t->many_rows && rows >= t->many_rows)
        t->many[w->kind](panel, in->k, gather(in, first, stride, r0, rows, scratch), 0, rows, tile);
    else
        t->gemm[w->kind](panel, in->k, first, stride, rows, tile);
}

bool cp_gemm_panel_pair(const cp_gemm_inputs *in, const cp_gemm_weight *const w[2],
                        const int64_t p[2], const cp_gemm_layout *a, const void *act, int64_t r0,
                        float *const tile[2])
{
    cp_gemm_pair_fn *pair = in->table->pair[w[0]->kind];
    if (!pair || w[1]->kind != w[0]->kind || !w[0]->packed || !w[1]->packed)
        return false;
    const uint8_t *const panel[2] = {w[0]->packed + (size_t)p[0] * w[0]->panel_bytes,
                                     w[1]->packed + (size_t)p[1] * w[1]->panel_bytes};
    pair(panel, in->k, (const uint8_t *)act + (size_t)r0 * a->stride8, tile);
    return true;
}

int cp_gemm_chunk_rows(const cp_gemm_table *table, int n)
{
    int whole = table->chunk_rows, most = CPU_CHUNK / whole * whole;
    int chunks = (n + most - 1) / most, rows = (n + chunks - 1) / chunks;
    return chunks > 1 ? (rows + whole - 1) / whole * whole : rows;
}
