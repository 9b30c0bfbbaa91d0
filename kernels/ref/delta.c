/*
 * Reference DELTAPREP and DELTANET (Gated DeltaNet): a row after another, a head after another, as
 * program.h says them.
 */
#include "base/mem.h"
#include "kernels/ref/ref.h"

#include <stdlib.h>
#include <string.h>

/* ---- DELTAPREP ---- */

/* One channel of a sequence's rows: y = silu(convolution), and what it leaves behind. */
static void convolve(cp_prepared *p, const cp_op *op, const cp_batch_seq *q, int c)
{
    const cp_delta_shape *s = &op->u.deltaprep.shape;
    int group = op->u.deltaprep.group, layer = op->u.deltaprep.layer_in_group, keep = s->taps - 1;
    size_t d = cp_delta_channels(s);
    const float *w = cp_host_vector(p, op->u.deltaprep.conv) + (size_t)c * (size_t)s->taps;
    float hist[CP_CONV_TAPS_MAX]; /* oldest first */
    for (int t = 0; t < keep; t++)
        hist[t] = q->state_in
                      ? cp_host_state(p, q->state_in, group, layer)[(size_t)t * d + (size_t)c]
                      : 0.0f;
    for (int r = q->row0; r < q->row0 + q->n_rows; r++) {
        float y = 0.0f;
        hist[keep] = cp_host_row(p, op->u.deltaprep.in, r)[c];
        for (int t = 0; t < s->taps; t++)
            y = fmaf(w[t], hist[t], y);
        cp_host_row(p, op->u.deltaprep.out, r)[c] = cp_siluf(y);
        memmove(hist, hist + 1, (size_t)keep * sizeof(*hist));
    }
    uint32_t slots[2] = {q->state_out, q->state_save};
    for (int i = 0; i < 2; i++)
        for (int t = 0; slots[i] && t < keep; t++)
            cp_host_state(p, slots[i], group, layer)[(size_t)t * d + (size_t)c] = hist[t];
}

/* x / |x| * scale */
static void to_unit(float *x, int n, float eps, float scale)
{
    float squares[CP_PARTIALS] = {0};
    for (int i = 0; i < n; i++)
        squares[i % CP_PARTIALS] = fmaf(x[i], x[i], squares[i % CP_PARTIALS]);
    float r = 1.0f / sqrtf(cp_ref_tree(squares) + eps);
    for (int i = 0; i < n; i++)
        x[i] = (x[i] * r) * scale;
}

void cp_ref_deltaprep(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    const cp_delta_shape *s = &op->u.deltaprep.shape;
    const float *a = cp_host_vector(p, op->u.deltaprep.a),
                *dt = cp_host_vector(p, op->u.deltaprep.dt);
    for (int i = 0; i < b->n_seqs; i++)
        for (int c = 0; c < (int)cp_delta_channels(s); c++)
            convolve(p, op, &b->seqs[i], c);
    for (int r = 0; r < b->n_rows; r++) {
        float *x = cp_host_row(p, op->u.deltaprep.out, r);
        for (int h = 0; h < 2 * s->n_k; h++)
            to_unit(x + h * s->k_dim, s->k_dim, op->u.deltaprep.eps,
                    h < s->n_k ? op->u.deltaprep.scale : 1.0f);
        const float *alpha = cp_host_row(p, op->u.deltaprep.alpha, r);
        const float *beta = cp_host_row(p, op->u.deltaprep.beta, r);
        float *gates = cp_host_row(p, op->u.deltaprep.gates, r);
        for (int h = 0; h < s->n_v; h++) {
            gates[h] = cp_expf(a[h] * cp_softplusf(alpha[h] + dt[h]));
            gates[s->n_v + h] = cp_sigmoidf(beta[h]);
        }
    }
}

/* ---- DELTANET ---- */

/* Sum of x[i] S[i][j] over i: four partial sums. s: column j of a tile. */
static float along(const float *x, const float *s, int k_dim)
{
    float p[CP_DELTA_PARTIALS] = {0};
    for (int i = 0; i < k_dim; i++)
        p[i % CP_DELTA_PARTIALS] = fmaf(x[i], s[i * CP_DELTA_COLUMNS], p[i % CP_DELTA_PARTIALS]);
    for (int h = CP_DELTA_PARTIALS / 2; h; h /= 2)
        for (int j = 0; j < h; j++)
            p[j] += p[j + h];
    return p[0];
}

/* One row through the S of v head h; o[v_dim]. */
static void step(const cp_delta_shape *s, const float *qkv, const float *gates, int h, float *state,
                 float *o)
{
    const float *q = qkv + (h % s->n_k) * s->k_dim, *k = q + s->n_k * s->k_dim;
    const float *v = qkv + 2 * s->n_k * s->k_dim + h * s->v_dim;
    float decay = gates[h], beta = gates[s->n_v + h];
    for (int j = 0; j < cp_delta_tiles(s) * CP_DELTA_COLUMNS; j++) {
        float *col =
            state + j / CP_DELTA_COLUMNS * CP_DELTA_COLUMNS * s->k_dim + j % CP_DELTA_COLUMNS;
        float m = along(k, col, s->k_dim), want = j < s->v_dim ? v[j] : 0.0f;
        float d = beta * fmaf(-decay, m, want);
        for (int i = 0; i < s->k_dim; i++)
            col[i * CP_DELTA_COLUMNS] = fmaf(k[i], d, decay * col[i * CP_DELTA_COLUMNS]);
        if (j < s->v_dim)
            o[j] = along(q, col, s->k_dim);
    }
}

void cp_ref_deltanet(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    const cp_delta_shape *s = &op->u.deltanet.shape;
    int group = op->u.deltanet.group, layer = op->u.deltanet.layer_in_group;
    size_t at = cp_delta_state_at(s) / sizeof(float);
    size_t head = (cp_delta_state_bytes(s) / sizeof(float) - at) / (size_t)s->n_v;
    const float *norm = cp_host_vector(p, op->u.deltanet.norm);
    float *state = cp_xcalloc(head, sizeof(*state));
    for (int i = 0; i < b->n_seqs * s->n_v; i++) {
        const cp_batch_seq *q = &b->seqs[i / s->n_v];
        int h = i % s->n_v;
        memset(state, 0, head * sizeof(*state));
        if (q->state_in)
            memcpy(state, cp_host_state(p, q->state_in, group, layer) + at + (size_t)h * head,
                   head * sizeof(*state));
        for (int r = q->row0; r < q->row0 + q->n_rows; r++) {
            float *o = cp_host_row(p, op->u.deltanet.out, r) + h * s->v_dim;
            const float *z = cp_host_row(p, op->u.deltanet.z, r) + h * s->v_dim;
            step(s, cp_host_row(p, op->u.deltanet.in, r), cp_host_row(p, op->u.deltanet.gates, r),
                 h, state, o);
            cp_ref_rmsnorm(o, o, norm, s->v_dim, op->u.deltanet.eps);
            for (int j = 0; j < s->v_dim; j++)
                o[j] = o[j] * cp_siluf(z[j]);
        }
        uint32_t slots[2] = {q->state_out, q->state_save};
        for (int j = 0; j < 2; j++)
            if (slots[j])
                memcpy(cp_host_state(p, slots[j], group, layer) + at + (size_t)h * head, state,
                       head * sizeof(*state));
    }
    free(state);
}
