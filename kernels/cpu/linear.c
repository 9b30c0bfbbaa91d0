/*
 * linear: LINEAR records bound to weights, and their work items.
 *
 * An item is a run of panels of one weight (of both, when gate and up are fused) times a chunk of
 * rows, chunk-major, so that consecutive items share activations in L2 while their panels stream.
 * Few rows: long runs, since weights come from memory. Many rows: short runs over up to
 * CPU_CHUNK rows, so that two workers end together. Neither choice reaches the bits: a lane
 * owns an output and sees K in order.
 */
#include "kernels/cpu/linear.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MAX_WEIGHTS 4 /* of a record */

struct cp_linear {
    cp_gemm_table table;
    cp_gemm_inputs in;
    cp_epilogue epilogue;
    int n_w, max_rows;
    cp_gemm_weight w[MAX_WEIGHTS];
};

/* ---- open ---- */

cp_code cp_linear_open(cp_linear **out, const cp_program *prog, const cp_op *op, cp_isa isa,
                       int max_rows, cp_err *err)
{
    CP_ASSERT(op->kind == CP_OP_LINEAR && max_rows > 0);
    int n_w = op->u.linear.n_w;
    int gated = op->u.linear.mul >= 0 ? 1 : 2; /* weights of a gated record */
    if (n_w < 1 || n_w > MAX_WEIGHTS || (op->u.linear.act != CP_ACT_NONE && n_w != gated))
        return cp_fail(err, CP_UNSUPPORTED, "a linear of %d weights", n_w);
    cp_linear *l = cp_xcalloc(1, sizeof *l);
    cp_code code = CP_OK;
    cp_isa_gemm(&l->table, isa);
    l->in.table = &l->table;
    l->n_w = n_w;
    l->max_rows = max_rows;
    l->epilogue.act = op->u.linear.act;
    l->epilogue.scale = op->u.linear.scale;
    l->epilogue.softcap = op->u.linear.softcap;
    for (int i = 0; i < n_w && code == CP_OK; i++) {
        const cp_tensor *t = prog->weights[op->u.linear.w[i].w].t;
        cp_wref b = op->u.linear.w[i].bias;
        code = cp_gemm_weight_bind(&l->w[i], &l->in, t, b >= 0 ? prog->weights[b].t : NULL, err);
        if (code == CP_OK && t->ne[2] != 1)
            code = cp_fail(err, CP_UNSUPPORTED, "%s: %lld matrices; a linear takes one", t->name,
                           (long long)t->ne[2]);
    }
    if (code == CP_OK && l->epilogue.act != CP_ACT_NONE && n_w == 2 && l->w[0].m != l->w[1].m)
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
        cp_gemm_weight_fini(&l->w[i]);
    free(l);
}

int cp_linear_weights(cp_linear *l, cp_gemm_weight **out)
{
    for (int i = 0; i < l->n_w; i++)
        out[i] = &l->w[i];
    return l->n_w;
}

int cp_linear_k(const cp_linear *l)
{
    return l->in.k;
}

size_t cp_linear_act_bytes(const cp_linear *l, int n)
{
    return cp_gemm_layout_of(&l->in, n).bytes;
}

void cp_linear_prep_row(const cp_linear *l, const float *x, int r, int n, void *act)
{
    CP_ASSERT(r >= 0 && r < n && n <= l->max_rows);
    cp_gemm_layout a = cp_gemm_layout_of(&l->in, n);
    cp_gemm_put_row(&l->in, &a, x, r, act);
}

/* ---- items ---- */

/* Panels an item takes of weight w. */
static int64_t run_length(const cp_linear *l, const cp_gemm_weight *w, int n)
{
    int64_t run = 2;
    if (n <= CPU_FEW_ROWS) {
        int64_t total = 0;
        for (int i = 0; i < l->n_w; i++)
            total += l->w[i].panels;
        run = (int64_t)(CPU_ITEM_BYTES / w->panel_bytes);
        if (run > total / CPU_MIN_ITEMS)
            run = total / CPU_MIN_ITEMS;
    }
    return run < 1 ? 1 : run;
}

static int64_t weight_items(const cp_linear *l, const cp_gemm_weight *w, int n)
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
    int rows = cp_gemm_chunk_rows(&l->table, n);
    return chunk_items(l, n) * ((n + rows - 1) / rows);
}

size_t cp_linear_scratch_bytes(const cp_linear *l)
{
    return cp_gemm_scratch_bytes(&l->in);
}

/* tile[rows][16] = columns of a matrix that begin at x. */
static void load_columns(const float *x, size_t ld, int rows, int lanes, float *tile)
{
    for (int r = 0; r < rows; r++)
        memcpy(tile + (size_t)r * CP_LANES, x + (size_t)r * ld, (size_t)lanes * sizeof *x);
}

static int lanes_of(const cp_gemm_weight *w, int64_t p)
{
    int64_t left = w->m - p * CP_LANES;
    return left < CP_LANES ? (int)left : CP_LANES;
}

/* The outputs of panel p, from its tile, to where the rows' outputs of this weight begin. */
static void finish(const cp_linear *l, const cp_gemm_weight *w, int64_t p, const float *tile,
                   const float *up, const float *up_bias, int rows, float *out, size_t ld)
{
    l->table.finish(&l->epilogue, tile, cp_gemm_bias(w, 0, p), up, up_bias, rows, lanes_of(w, p),
                    out + p * CP_LANES, ld);
}

void cp_linear_item(const cp_linear *l, int64_t item, int n, const void *act, void *scratch,
                    float *const out[4], const size_t ld[4], const float *mul, size_t ld_mul)
{
    cp_gemm_layout a = cp_gemm_layout_of(&l->in, n);
    bool fused = l->epilogue.act != CP_ACT_NONE;
    int64_t per_chunk = chunk_items(l, n);
    int rows = cp_gemm_chunk_rows(&l->table, n), r0 = (int)(item / per_chunk) * rows, i = 0;
    CP_ASSERT(item >= 0 && r0 < n);
    rows = rows < n - r0 ? rows : n - r0;
    item %= per_chunk;
    while (!fused && item >= weight_items(l, &l->w[i], n)) {
        item -= weight_items(l, &l->w[i], n);
        i++;
    }
    const cp_gemm_weight *w = &l->w[i];
    int64_t run = run_length(l, w, n), p0 = item * run, p1 = p0 + run;
    float *tile = cp_gemm_scratch_tiles(&l->in, scratch), *up = tile + CPU_TILE_FLOATS;
    float *to = out[i] + (size_t)r0 * ld[i];
    if (p1 > w->panels)
        p1 = w->panels;
    for (int64_t p = p0; p < p1; p++) {
        const cp_gemm_weight *const ws[] = {w, fused ? &l->w[1] : w};
        bool next = !fused && p + 1 < p1, fuses = fused && !mul;
        bool both = rows == 1 && (next || fuses) &&
                    cp_gemm_panel_pair(&l->in, ws, (const int64_t[]){p, p + next}, &a, act, r0,
                                       (float *const[]){tile, up});
        if (!both)
            cp_gemm_panel(&l->in, w, 0, p, &a, act, r0, rows, scratch, tile);
        if (mul)
            load_columns(mul + (size_t)r0 * ld_mul + (size_t)(p * CP_LANES), ld_mul, rows,
                         lanes_of(w, p), up);
        else if (fused && !both)
            cp_gemm_panel(&l->in, &l->w[1], 0, p, &a, act, r0, rows, scratch, up);
        finish(l, w, p, tile, up, fuses ? cp_gemm_bias(&l->w[1], 0, p) : NULL, rows, to, ld[i]);
        if (both && next)
            finish(l, w, ++p, up, NULL, NULL, rows, to, ld[i]);
    }
}
