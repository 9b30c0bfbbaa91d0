/*
 * experts: see experts.h. An item is a run of panels of one expert times a chunk of its rows,
 * sized as a LINEAR's: by bytes where the expert has few rows, since its weights come from memory.
 */
#include "kernels/cpu/experts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct cp_experts {
    cp_gemm_table table;
    cp_gemm_inputs in;
    cp_epilogue epilogue;
    int n_w, n_used, max_rows;
    bool by_rank;
    int m;          /* outputs of an expert that the record takes */
    int64_t panels; /* they are in */
    cp_gemm_weight w[2];
    int64_t first[2]; /* the first of these panels */
};

/* ---- open ---- */

cp_code cp_experts_open(cp_experts **out, const cp_program *prog, const cp_op *op, cp_isa isa,
                        int max_rows, cp_err *err)
{
    CP_ASSERT(op->kind == CP_OP_EXPERTS && max_rows > 0);
    cp_experts *x = cp_xcalloc(1, sizeof *x);
    cp_code code = CP_OK;
    cp_isa_gemm(&x->table, isa);
    x->in.table = &x->table;
    x->epilogue = (cp_epilogue){.act = op->u.experts.act, .scale = 1.0f};
    x->n_w = op->u.experts.act == CP_ACT_NONE ? 1 : 2;
    x->n_used = prog->mats[op->u.experts.ids].width;
    x->by_rank = op->u.experts.by_rank;
    x->max_rows = max_rows;
    x->m = prog->mats[op->u.experts.out].width / x->n_used;
    x->panels = (x->m + CP_LANES - 1) / CP_LANES;
    for (int i = 0; i < x->n_w && code == CP_OK; i++) {
        cp_wref b = op->u.experts.w[i].bias;
        x->first[i] = op->u.experts.w[i].first / CP_LANES;
        code = cp_gemm_weight_bind(&x->w[i], &x->in, prog->weights[op->u.experts.w[i].w].t,
                                   b >= 0 ? prog->weights[b].t : NULL, err);
    }
    if (code != CP_OK) {
        cp_experts_close(x);
        return code;
    }
    *out = x;
    return CP_OK;
}

void cp_experts_close(cp_experts *x)
{
    if (!x)
        return;
    for (int i = 0; i < x->n_w; i++)
        cp_gemm_weight_fini(&x->w[i]);
    free(x);
}

int cp_experts_weights(cp_experts *x, cp_gemm_weight **out)
{
    for (int i = 0; i < x->n_w; i++)
        out[i] = &x->w[i];
    return x->n_w;
}

int cp_experts_k(const cp_experts *x)
{
    return x->in.k;
}

int cp_experts_inputs(const cp_experts *x, int n)
{
    return x->by_rank ? n * x->n_used : n;
}

int cp_experts_count(const cp_experts *x)
{
    return (int)x->w[0].n_matrices;
}

size_t cp_experts_pairs(const cp_experts *x, int n)
{
    return (size_t)n * (size_t)x->n_used;
}

size_t cp_experts_act_bytes(const cp_experts *x, int n)
{
    return cp_gemm_layout_of(&x->in, (int64_t)n * x->n_used).bytes;
}

size_t cp_experts_scratch_bytes(const cp_experts *x)
{
    return cp_gemm_scratch_bytes(&x->in);
}

/* ---- who goes where ---- */

/* Panels an item takes of an expert with n rows, when n_active have some. */
static int64_t run_length(const cp_experts *x, int n, int n_active)
{
    int64_t run = 2;
    if (n <= CPU_FEW_ROWS) {
        int64_t total = x->panels * x->n_w * n_active;
        run = (int64_t)(CPU_ITEM_BYTES / x->in.panel_bytes);
        if (run > total / CPU_MIN_ITEMS)
            run = total / CPU_MIN_ITEMS;
    }
    return run < 1 ? 1 : run;
}

static int64_t runs_of(const cp_experts *x, int n, int n_active)
{
    int64_t run = run_length(x, n, n_active);
    return (x->panels + run - 1) / run;
}

static int rows_of(const cp_expert_plan *plan, int e)
{
    return plan->begin[e + 1] - plan->begin[e];
}

void cp_experts_plan(const cp_experts *x, const float *ids, size_t ld, int n, cp_expert_plan *plan)
{
    int n_expert = cp_experts_count(x), pairs = n * x->n_used;
    int32_t *next = plan->active; /* until it is known which are */
    memset(plan->begin, 0, ((size_t)n_expert + 1) * sizeof *plan->begin);
    for (int i = 0; i < pairs; i++) {
        int e = (int)ids[(size_t)(i / x->n_used) * ld + (size_t)(i % x->n_used)];
        CP_ASSERT(e >= 0 && e < n_expert);
        plan->pair[i] = e; /* for a moment */
        plan->begin[e + 1]++;
    }
    for (int e = 0; e < n_expert; e++) {
        plan->begin[e + 1] += plan->begin[e];
        next[e] = plan->begin[e];
    }
    for (int i = 0; i < pairs; i++)
        plan->place[i] = next[plan->pair[i]]++;
    for (int i = 0; i < pairs; i++)
        plan->pair[plan->place[i]] = i;
    plan->n_active = 0;
    for (int e = 0; e < n_expert; e++)
        if (rows_of(plan, e))
            plan->active[plan->n_active++] = e;
    plan->item0[0] = 0;
    for (int i = 0; i < plan->n_active; i++) {
        int rows = rows_of(plan, plan->active[i]), chunk = cp_gemm_chunk_rows(&x->table, rows);
        plan->item0[i + 1] =
            plan->item0[i] + runs_of(x, rows, plan->n_active) * ((rows + chunk - 1) / chunk);
    }
}

void cp_experts_prep(const cp_experts *x, const cp_expert_plan *plan, const float *in, int i, int n,
                     void *act)
{
    cp_gemm_layout a = cp_gemm_layout_of(&x->in, (int64_t)n * x->n_used);
    CP_ASSERT(n <= x->max_rows);
    if (x->by_rank) {
        cp_gemm_put_row(&x->in, &a, in, plan->place[i], act);
        return;
    }
    const int32_t *place = plan->place + (size_t)i * (size_t)x->n_used;
    cp_gemm_put_row(&x->in, &a, in, place[0], act);
    for (int j = 1; j < x->n_used; j++)
        cp_gemm_copy_row(&x->in, &a, place[0], place[j], act);
}

/* ---- items ---- */

int64_t cp_experts_items(const cp_expert_plan *plan)
{
    return plan->item0[plan->n_active];
}

/* Which of the active experts an item belongs to. */
static int expert_of(const cp_expert_plan *plan, int64_t item)
{
    int lo = 0, hi = plan->n_active;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        *(plan->item0[mid] <= item ? &lo : &hi) = mid;
    }
    return lo;
}

/* Outputs [o, o + lanes) of the pairs at places [at, at + n), from tile to where they belong. */
static void scatter(const cp_experts *x, const cp_expert_plan *plan, int64_t at, int n,
                    const float *tile, int64_t o, int lanes, float *out, size_t ld)
{
    for (int c = 0; c < n; c++) {
        int pair = plan->pair[at + c];
        float *row = out + (size_t)(pair / x->n_used) * ld;
        memcpy(row + (size_t)(pair % x->n_used) * (size_t)x->m + (size_t)o, tile + CP_LANES * c,
               (size_t)lanes * sizeof *tile);
    }
}

void cp_experts_item(const cp_experts *x, const cp_expert_plan *plan, int64_t item, int n,
                     const void *act, void *scratch, float *out, size_t ld)
{
    cp_gemm_layout a = cp_gemm_layout_of(&x->in, (int64_t)n * x->n_used);
    CP_ASSERT(item >= 0 && item < cp_experts_items(plan));
    int i = expert_of(plan, item), e = plan->active[i], all = rows_of(plan, e);
    int64_t run = run_length(x, all, plan->n_active), runs = runs_of(x, all, plan->n_active);
    item -= plan->item0[i];
    int chunk = cp_gemm_chunk_rows(&x->table, all), r0 = (int)(item / runs) * chunk;
    int rows = chunk < all - r0 ? chunk : all - r0;
    int64_t at = plan->begin[e] + r0, p0 = item % runs * run, p1 = p0 + run;
    float *tile = cp_gemm_scratch_tiles(&x->in, scratch), *up = tile + CPU_TILE_FLOATS;
    for (int64_t p = p0; p < p1 && p < x->panels; p++) {
        int64_t o = p * CP_LANES, p_up = x->first[1] + p;
        int lanes = x->m - o < CP_LANES ? (int)(x->m - o) : CP_LANES;
        const float *up_bias = NULL;
        cp_gemm_panel(&x->in, &x->w[0], e, x->first[0] + p, &a, act, at, rows, scratch, tile);
        if (x->n_w == 2) {
            cp_gemm_panel(&x->in, &x->w[1], e, p_up, &a, act, at, rows, scratch, up);
            up_bias = cp_gemm_bias(&x->w[1], e, p_up);
        }
        x->table.finish(&x->epilogue, tile, cp_gemm_bias(&x->w[0], e, x->first[0] + p), up, up_bias,
                        rows, CP_LANES, tile, CP_LANES);
        scatter(x, plan, at, rows, tile, o, lanes, out, ld);
    }
}
