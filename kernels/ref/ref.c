/*
 * The reference backend: its walker, and the operations that take a few lines. Zeroes and copies
 * first, in list order, then the records in program order.
 */
#include "kernels/ref/ref.h"

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/quant.h"

#include <stdlib.h>
#include <string.h>

/* x = (rmsnorm(in) + x) * mix, span by span. */
static void mix(const cp_prepared *p, const cp_op *op, float *x, const float *in, int n)
{
    int span = (int)p->prog->weights[op->u.embed.norm].t->ne[0];
    const float *w = cp_host_vector(p, op->u.embed.norm);
    float *y = cp_xcalloc((size_t)span, sizeof(*y));
    for (int at = 0; at < n; at += span) {
        cp_ref_rmsnorm(y, in + at, w, span, op->u.embed.eps);
        for (int i = 0; i < span; i++)
            x[at + i] = (y[i] + x[at + i]) * op->u.embed.mix;
    }
    free(y);
}

void cp_ref_embed(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    const int32_t *tok = ((const cp_host_ids *)p->impl)->tok;
    const cp_tensor *t = p->prog->weights[op->u.embed.table].t;
    for (int r = 0; r < b->n_rows; r++) {
        float *x = cp_host_row(p, op->u.embed.out, r);
        CP_ASSERT(tok[r] >= 0 && tok[r] < t->ne[1]);
        cp_dequant_row(t, tok[r], x);
        for (int64_t i = 0; i < t->ne[0]; i++)
            x[i] = x[i] * op->u.embed.scale;
        if (op->u.embed.in >= 0)
            mix(p, op, x, cp_host_row(p, op->u.embed.in, r), (int)t->ne[0]);
    }
}

/* cos and sin of the f32 angle, each rounded to f32, then times mscale. */
void cp_ref_rope(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    int half = op->u.rope.n_rot / 2;
    for (int r = 0; r < b->n_rows; r++) {
        float *x = cp_host_row(p, op->u.rope.out, r);
        for (int i = 0; i < half; i++) {
            float sine, cosine, angle = (float)b->pos[r] * op->u.rope.inv_freq[i];
            cp_sincosf(angle, &sine, &cosine);
            x[i] = cosine * op->u.rope.mscale;
            x[half + i] = sine * op->u.rope.mscale;
        }
    }
}

void cp_ref_gather(cp_prepared *p, const cp_op *op, const cp_batch *b)
{
    size_t width = (size_t)p->prog->mats[op->u.gather.in].width;
    for (int i = 0; i < b->n_out; i++)
        memcpy(cp_host_row(p, op->u.gather.out, i), cp_host_row(p, op->u.gather.in, b->out_rows[i]),
               width * sizeof(float));
}

/*
 * y[i] = sum over taps t ascending of conv[t] * (b*x)[i - (L-1) + t], by fmaf from 0; out = c * y.
 * State: the last L - 1 rows of b*x, oldest first, [L-1][d].
 */
void cp_ref_shortconv(cp_prepared *p, const cp_op *op, const cp_batch *batch)
{
    int d = op->u.shortconv.d, taps = op->u.shortconv.l_cache, keep = taps - 1;
    int group = op->u.shortconv.group, layer = op->u.shortconv.layer_in_group;
    const float *w = cp_host_vector(p, op->u.shortconv.conv);
    float *hist = cp_xcalloc((size_t)taps, sizeof(*hist)); /* of one channel, oldest first */
    for (int s = 0; s < batch->n_seqs; s++) {
        const cp_batch_seq *q = &batch->seqs[s];
        const float *in = q->state_in ? cp_host_state(p, q->state_in, group, layer) : NULL;
        float *out = q->state_out ? cp_host_state(p, q->state_out, group, layer) : NULL;
        float *save = q->state_save ? cp_host_state(p, q->state_save, group, layer) : NULL;
        for (int c = 0; c < d; c++) {
            for (int t = 0; t < keep; t++)
                hist[t] = in ? in[(size_t)t * (size_t)d + (size_t)c] : 0.0f;
            for (int r = q->row0; r < q->row0 + q->n_rows; r++) {
                const float *x = cp_host_row(p, op->u.shortconv.in, r);
                hist[keep] = x[c] * x[2 * d + c];
                float y = 0.0f;
                for (int t = 0; t < taps; t++)
                    y = fmaf(w[(size_t)c * (size_t)taps + (size_t)t], hist[t], y);
                cp_host_row(p, op->u.shortconv.out, r)[c] = x[d + c] * y;
                memmove(hist, hist + 1, (size_t)keep * sizeof(*hist));
            }
            for (int t = 0; t < keep; t++) {
                size_t at = (size_t)t * (size_t)d + (size_t)c;
                if (out)
                    out[at] = hist[t];
                if (save)
                    save[at] = hist[t];
            }
        }
    }
    free(hist);
}

static cp_ref_fn *const fns[CP_OP_COUNT] = {
#define X(kind, name) [CP_OP_##kind] = cp_ref_##name,
    CP_OPS(X)
#undef X
};

static void walk(cp_prepared *p, const cp_batch *b, int from, int to)
{
    for (int i = from; i < to; i++) {
        const cp_op *op = &p->ops[i];
        int64_t start = cp_now_ns();
        fns[op->kind](p, op, b);
        int64_t now = cp_now_ns();
        p->op_ns[op->kind] += (uint64_t)(now - start);
        p->op_records[op->kind]++;
        if (b->beat)
            atomic_store_explicit(b->beat, now, memory_order_relaxed);
    }
}

static cp_code sample(cp_prepared *p, const cp_batch *b, cp_err *err)
{
    (void)err;
    walk(p, b, p->n_forward, p->n_ops);
    cp_host_ids_keep(p->impl, b);
    return CP_OK;
}

static cp_code submit(cp_prepared *p, const cp_batch *b, cp_err *err)
{
    cp_host_ids_begin(p->impl, b);
    for (int i = 0; i < b->n_zero_pages; i++)
        memset(cp_host_page(p, b->zero_pages[i]), 0, p->page_bytes);
    for (int i = 0; i < b->n_copies; i++)
        memcpy(cp_host_page(p, b->copies[i].dst), cp_host_page(p, b->copies[i].src), p->page_bytes);
    for (int i = 0; i < b->n_state_copies; i++)
        memcpy(cp_host_state_slot(p, b->state_copies[i].dst),
               cp_host_state_slot(p, b->state_copies[i].src), p->state_bytes);
    walk(p, b, 0, p->n_forward);
    return b->masks_later ? CP_OK : sample(p, b, err);
}

static cp_code collect(cp_prepared *p, cp_err *err)
{
    (void)p;
    (void)err;
    return CP_OK;
}

static cp_code open_ref(cp_backend *b, cp_err *err)
{
    return cp_host_device(b, err);
}

static void close_ref(cp_backend *b)
{
    (void)b;
}

static const char *level(const cp_backend *b)
{
    (void)b;
    return "ref";
}

static void default_level(const cp_backend *b, char *out, size_t n)
{
    cp_snprintf(out, n, "%s", level(b));
}

static cp_code measure(cp_prepared *p, cp_own_bytes *bytes, cp_err *err)
{
    (void)p;
    (void)err;
    *bytes = (cp_own_bytes){0};
    return CP_OK;
}

static cp_code prepare(cp_prepared *p, cp_err *err)
{
    (void)err;
    p->impl = cp_xcalloc(1, sizeof(cp_host_ids));
    cp_host_ids_init(p->impl, &p->cfg);
    return CP_OK;
}

static void fini(cp_prepared *p)
{
    if (p->impl)
        cp_host_ids_fini(p->impl);
    free(p->impl);
}

const cp_backend_row cp_backend_ref = {.name = "ref",
                                       .page_positions = 32,
                                       .depth = 1,
                                       .open = open_ref,
                                       .close = close_ref,
                                       .level = level,
                                       .device = cp_host_name,
                                       .default_level = default_level,
                                       .supports = cp_host_supports,
                                       .take = cp_host_take,
                                       .give = cp_host_give,
                                       .put = cp_host_put,
                                       .get = cp_host_get,
                                       .memory = cp_host_memory,
                                       .kv_bytes = cp_host_kv_bytes,
                                       .measure = measure,
                                       .prepare = prepare,
                                       .fini = fini,
                                       .submit = submit,
                                       .sample = sample,
                                       .collect = collect};
