/*
 * Reference LINEAR: prologue (add, norms, x_out), activations in the format that the weight's type
 * asks for, one output element at a time with K ascending in segments, epilogue. With act_f32 every
 * weight is dequantized and meets f32 activations: that is what oracles compare.
 */
#include "base/mem.h"
#include "kernels/quant.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

void cp_ref_input_init(cp_ref_input *a, int k)
{
    size_t n = (size_t)k;
    *a = (cp_ref_input){.k = k};
    a->x = cp_xcalloc(4 * n, sizeof(float));
    a->t = a->x + n;
    a->w = a->x + 2 * n;
    a->xb = a->x + 3 * n;
    if (k % CP_QBLOCK == 0)
        a->act = cp_xcalloc(n / CP_QBLOCK, sizeof(*a->act));
}

void cp_ref_input_fini(cp_ref_input *a)
{
    free(a->act);
    free(a->x);
}

void cp_ref_input_set(cp_ref_input *a)
{
    for (int i = 0; i < a->k; i++)
        a->xb[i] = cp_f32_from_bf16(cp_bf16_from_f32(a->x[i]));
    if (a->act)
        cp_quantize_act_row(a->x, a->k, a->act);
}

static void prologue(cp_prepared *p, const cp_op *op, int r, cp_ref_input *a)
{
    int k = a->k;
    memcpy(a->x, cp_host_row(p, op->u.linear.in, r), (size_t)k * sizeof(float));
    if (op->u.linear.add >= 0) {
        const float *add = cp_host_row(p, op->u.linear.add, r);
        if (op->u.linear.add_norm >= 0) {
            cp_ref_rmsnorm(a->t, add, cp_host_vector(p, op->u.linear.add_norm), k,
                           op->u.linear.eps);
            add = a->t;
        }
        for (int i = 0; i < k; i++)
            a->x[i] = a->x[i] + add[i];
    }
    for (int i = 0; i < k && op->u.linear.in_scale != 1.0f; i++)
        a->x[i] = a->x[i] * op->u.linear.in_scale;
    if (op->u.linear.x_out >= 0)
        memcpy(cp_host_row(p, op->u.linear.x_out, r), a->x, (size_t)k * sizeof(float));
    if (op->u.linear.norm >= 0)
        cp_ref_rmsnorm(a->x, a->x, cp_host_vector(p, op->u.linear.norm), k, op->u.linear.eps);
    cp_ref_input_set(a);
}

/* int8 blocks of 32: exact dot a scale group, then fmaf with the scales, then with the minimum. */
static float dot_quantized(const cp_tensor *t, const uint8_t *data, const cp_ref_input *a, int from,
                           int to)
{
    float acc = 0.0f;
    for (int b = from / CP_QBLOCK; b < to / CP_QBLOCK; b++) {
        cp_qblock w;
        const cp_act8 *x = &a->act[b];
        cp_unquant_block(t->type, data, b, &w);
        int groups = w.group16 ? 2 : 1, len = CP_QBLOCK / groups;
        for (int g = 0; g < groups; g++) {
            int32_t dot = 0, sum = 0;
            for (int i = g * len; i < (g + 1) * len; i++) {
                dot += w.q[i] * x->q[i];
                sum += x->q[i];
            }
            acc = fmaf((float)dot, w.wd[g] * x->d, acc);
            if (w.has_min)
                acc = fmaf(w.wm[g], x->d * (float)sum, acc);
        }
    }
    return acc;
}

static float dot_float(const float *w, const float *x, int from, int to)
{
    float acc = 0.0f;
    for (int i = from; i < to; i++)
        acc = fmaf(w[i], x[i], acc);
    return acc;
}

/* Subnormal numbers count as zeros of their sign. */
static float flushed(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}

/* The bf16 of x, which counts for zero where it is subnormal. */
static float half(float x)
{
    return flushed(cp_f32_from_bf16(cp_bf16_from_f32(x)));
}

/* What lacks in the last 32 is zeros. */
float cp_ref_dot_tiles(const float *a, const float *b, int from, int to)
{
    float acc = 0.0f;
    for (int i = from; i < to; i += CP_TILE_INPUTS) {
        float sum[2] = {0.0f, 0.0f};
        for (int j = i; j < i + CP_TILE_INPUTS; j++) {
            float x = j < to ? half(a[j]) : 0.0f, y = j < to ? half(b[j]) : 0.0f;
            sum[j % 2] = flushed(fmaf(x, y, sum[j % 2]));
        }
        acc = flushed(acc + flushed(sum[0] + sum[1]));
    }
    return acc;
}

bool cp_ref_by_tiles(const cp_prepared *p, cp_dtype t)
{
    const char *level = p->b->cfg.isa_cap;
    return level && strcmp(level, "amx") == 0 && !p->b->cfg.act_f32 &&
           (t == CP_DTYPE_BF16 || t == CP_DTYPE_F16);
}

float cp_ref_dot(const cp_prepared *p, const cp_tensor *t, int64_t j, const cp_ref_input *a)
{
    const uint8_t *data = (const uint8_t *)t->data + (size_t)j * cp_tensor_row_bytes(t);
    bool quantized = !p->b->cfg.act_f32 && cp_quant_info(t->type).quantized;
    bool tiles = cp_ref_by_tiles(p, t->type);
    const float *x = !p->b->cfg.act_f32 && t->type == CP_DTYPE_BF16 ? a->xb : a->x;
    float y = 0.0f;
    if (!quantized)
        cp_dequant_row(t, j, a->w);
    for (int from = 0; from < a->k; from += CP_SEGMENT) {
        int to = a->k - from < CP_SEGMENT ? a->k : from + CP_SEGMENT;
        float acc = quantized ? dot_quantized(t, data, a, from, to)
                    : tiles   ? cp_ref_dot_tiles(a->w, x, from, to)
                              : dot_float(a->w, x, from, to);
        y = from ? y + acc : acc;
    }
    return y;
}

float cp_ref_act(cp_act act, float gate, float up)
{
    if (act == CP_ACT_SWIGLU_CLAMP)
        return cp_swiglu_clampf(gate, up);
    return (act == CP_ACT_SILU ? cp_siluf(gate) : cp_gelu_tanhf(gate)) * up;
}

/* acc + bias, times scale, soft cap. */
static float output(const cp_prepared *p, const cp_op *op, int i, int64_t j, const cp_ref_input *a)
{
    float y = cp_ref_dot(p, p->prog->weights[op->u.linear.w[i].w].t, j, a);
    if (op->u.linear.w[i].bias >= 0)
        y = y + cp_host_vector(p, op->u.linear.w[i].bias)[j];
    if (op->u.linear.scale != 1.0f)
        y = y * op->u.linear.scale;
    if (op->u.linear.softcap != 0.0f)
        y = op->u.linear.softcap * cp_tanhf(y / op->u.linear.softcap);
    return y;
}

void cp_ref_linear(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    int n_rows = cp_op_rows(op, b);
    cp_ref_input a;
    cp_ref_input_init(&a, p->prog->mats[op->u.linear.in].width);
    for (int r = 0; r < n_rows; r++) {
        prologue(p, op, r, &a);
        if (op->u.linear.act != CP_ACT_NONE) {
            float *out = cp_host_row(p, op->u.linear.w[0].out, r);
            int64_t n = p->prog->weights[op->u.linear.w[0].w].t->ne[1];
            const float *mul = op->u.linear.mul < 0
                                   ? NULL
                                   : cp_host_row(p, op->u.linear.mul, r) + op->u.linear.mul_at;
            for (int64_t j = 0; j < n; j++) {
                float g = output(p, op, 0, j, &a), u = mul ? mul[j] : output(p, op, 1, j, &a);
                out[j] = cp_ref_act(op->u.linear.act, g, u);
            }
            continue;
        }
        for (int i = 0; i < op->u.linear.n_w; i++) {
            float *out = cp_host_row(p, op->u.linear.w[i].out, r);
            int64_t n = p->prog->weights[op->u.linear.w[i].w].t->ne[1];
            for (int64_t j = 0; j < n; j++)
                out[j] = output(p, op, i, j, &a);
        }
    }
    cp_ref_input_fini(&a);
}
