/*
 * The cpu backend's row: picks the ISA level, binds the linears of a program, packs their panels
 * and takes the workers' scratch. Vector functions are chosen here once; the level of the linears
 * is theirs (kernels/cpu/linear.h).
 */
#include "kernels/cpu/run.h"

#include "base/fault.h"
#include "base/mem.h"
#include "kernels/sample.h"

#include <inttypes.h>
#include <stdlib.h>

typedef struct cpu_backend {
    cp_isa isa;
    cp_pool *pool;
    bool own_pool;
} cpu_backend;

static cp_code open_cpu(cp_backend *b, cp_err *err)
{
    cp_isa isa = CP_ISA_BASE;
    cp_code rc = cp_host_device(b, err);
    if (rc == CP_OK)
        rc = cp_isa_detect(b->cfg.isa_cap, &isa, err);
    if (rc != CP_OK)
        return rc;
    cpu_backend *c = cp_xcalloc(1, sizeof(*c));
    c->isa = isa;
    c->pool = b->cfg.pool;
    if (!c->pool) {
        rc = cp_pool_open(&c->pool, 1, err);
        c->own_pool = true;
    }
    if (rc != CP_OK) {
        free(c);
        return rc;
    }
    b->impl = c;
    return CP_OK;
}

static void close_cpu(cp_backend *b)
{
    cpu_backend *c = b->impl;
    if (c->own_pool)
        cp_pool_close(c->pool);
    free(c);
}

static const char *level(const cp_backend *b)
{
    const cpu_backend *c = b->impl;
    return cp_isa_name(c->isa);
}

/* What the scratch of one worker must hold, from the records. */
typedef struct needs {
    size_t act_alone, linear, row, pairs, experts, q, s, half, o, ml, delta, vocab;
} needs;

static size_t at_least(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void need_attention(const cpu_run *run, needs *n)
{
    for (int i = 0; i < run->n_plans; i++) {
        const cpu_plan *a = &run->plans[i];
        size_t queries = (size_t)a->shape.tile_rows * (size_t)a->q_heads;
        n->q = at_least(n->q, queries * (size_t)a->k_dim);
        n->o = at_least(n->o, queries * (size_t)a->v_dim);
        n->s = at_least(n->s, queries * CP_SPLIT);
        if (run->attend != run->vec->attend)
            n->half = at_least(n->half, CP_ATTEND_ROWS * cp_attend_inputs(a->k_dim));
        n->ml = at_least(n->ml, queries);
        n->row = at_least(n->row, (size_t)(a->k_dim > a->v_dim ? a->k_dim : a->v_dim));
    }
}

static void need_delta(const cpu_run *run, needs *n)
{
    const cp_prepared *p = run->p;
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == CP_OP_DELTANET)
            n->delta =
                at_least(n->delta, (size_t)p->ops[i].u.deltanet.shape.k_dim * CPU_DELTA_COLUMNS);
}

/* A record that multiplies: k inputs each, of which few enough are prepared by every worker alone:
 * act_alone bytes then, act for the most rows, scratch in an item. */
static void need_products(cpu_run *run, needs *need, int k, size_t act_alone, size_t act,
                          size_t scratch)
{
    need->act_alone = at_least(need->act_alone, act_alone);
    need->linear = at_least(need->linear, scratch);
    need->row = at_least(need->row, (size_t)k);
    run->act_bytes = at_least(run->act_bytes, act);
}

/* The record is the program's own, so that names and indices are the builder's. */
static cp_code bind_linear(cpu_run *run, int i, int rows, needs *need, cp_err *err)
{
    const cpu_backend *c = run->p->b->impl;
    const cp_program *prog = run->p->prog;
    cp_code rc = cp_linear_open(&run->ops[i].linear, prog, &prog->ops[i], c->isa, rows, err);
    if (rc != CP_OK)
        return rc;
    cp_linear *l = run->ops[i].linear;
    int k = cp_linear_k(l), alone = 1;
    while (alone < rows && cp_cpu_prologue_alone(alone + 1, k))
        alone++;
    need_products(run, need, k, cp_linear_act_bytes(l, alone), cp_linear_act_bytes(l, rows),
                  cp_linear_scratch_bytes(l));
    run->n_weights += cp_linear_weights(l, run->weights + run->n_weights);
    return CP_OK;
}

static cp_code bind_experts(cpu_run *run, int i, int rows, needs *need, cp_err *err)
{
    const cpu_backend *c = run->p->b->impl;
    const cp_program *prog = run->p->prog;
    cp_code rc = cp_experts_open(&run->ops[i].experts, prog, &prog->ops[i], c->isa, rows, err);
    if (rc != CP_OK)
        return rc;
    cp_experts *x = run->ops[i].experts;
    int k = cp_experts_k(x), alone = 1;
    while (alone < rows && cp_cpu_prologue_alone(cp_experts_inputs(x, alone + 1), k))
        alone++;
    need_products(run, need, k, cp_experts_act_bytes(x, alone), cp_experts_act_bytes(x, rows),
                  cp_experts_scratch_bytes(x));
    need->pairs = at_least(need->pairs, cp_experts_pairs(x, rows));
    need->experts = at_least(need->experts, (size_t)cp_experts_count(x));
    run->n_weights += cp_experts_weights(x, run->weights + run->n_weights);
    return CP_OK;
}

static cp_code bind_products(cpu_run *run, needs *need, cp_err *err)
{
    const cp_prepared *p = run->p;
    cp_code rc = CP_OK;
    run->weights = cp_xcalloc(4 * (size_t)p->n_ops + 1, sizeof(*run->weights));
    for (int i = 0; i < p->n_ops && rc == CP_OK; i++) {
        int rows = p->ops[i].rows == CP_ROWS_OUT ? p->cfg.max_out : p->cfg.max_rows;
        rows = rows > 0 ? rows : 1;
        if (p->ops[i].kind == CP_OP_LINEAR)
            rc = bind_linear(run, i, rows, need, err);
        if (p->ops[i].kind == CP_OP_EXPERTS)
            rc = bind_experts(run, i, rows, need, err);
    }
    return rc;
}

static void need_sample(cpu_run *run, needs *need)
{
    const cp_prepared *p = run->p;
    if (p->n_ops == p->n_forward)
        return;
    need->vocab = (size_t)p->prog->n_vocab;
    run->n_blocks = (p->prog->n_vocab + CPU_BLOCK - 1) / CPU_BLOCK;
    run->n_chunks = (p->prog->n_vocab + CP_SAMPLE_CHUNK - 1) / CP_SAMPLE_CHUNK;
    run->n_pieces = (run->n_chunks + CPU_PIECE_CHUNKS - 1) / CPU_PIECE_CHUNKS;
}

/* The next n bytes from line boundary *at of base; base NULL: only count. */
static void *carve(uint8_t *base, size_t *at, size_t n)
{
    void *p = base ? base + *at : NULL;
    *at += (n + CPU_LINE - 1) / CPU_LINE * CPU_LINE;
    return p;
}

/* Point the scratch into mem; returns the bytes it takes (mem NULL: only that). */
static size_t lay_out(cpu_scratch *s, const needs *n, uint8_t *mem)
{
    size_t at = 0;
    s->act = carve(mem, &at, n->act_alone);
    s->linear = carve(mem, &at, n->linear);
    size_t ids = n->pairs * sizeof(int32_t), experts = n->experts ? n->experts + 1 : 0;
    s->plan.place = carve(mem, &at, ids);
    s->plan.pair = carve(mem, &at, ids);
    s->plan.begin = carve(mem, &at, experts * sizeof(int32_t));
    s->plan.active = carve(mem, &at, experts * sizeof(int32_t));
    s->plan.item0 = carve(mem, &at, experts * sizeof(int64_t));
    s->row[0] = carve(mem, &at, n->row * sizeof(float));
    s->row[1] = carve(mem, &at, n->row * sizeof(float));
    s->q = carve(mem, &at, n->q * sizeof(float));
    s->s = carve(mem, &at, n->s * sizeof(float));
    s->half = carve(mem, &at, n->half * sizeof(uint16_t));
    s->o = carve(mem, &at, n->o * sizeof(float));
    s->os = carve(mem, &at, n->o * sizeof(float));
    s->m = carve(mem, &at, n->ml * sizeof(float));
    s->l = carve(mem, &at, n->ml * sizeof(float));
    s->ms = carve(mem, &at, n->ml * sizeof(float));
    s->ls = carve(mem, &at, n->ml * sizeof(float));
    s->lo = carve(mem, &at, n->ml * sizeof(int));
    s->hi = carve(mem, &at, n->ml * sizeof(int));
    s->delta = carve(mem, &at, n->delta * sizeof(float));
    s->count = carve(mem, &at, n->vocab * sizeof(uint32_t));
    s->ids = carve(mem, &at, n->vocab * sizeof(int32_t));
    s->x = carve(mem, &at, n->vocab * sizeof(float));
    s->weight = carve(mem, &at, n->vocab * sizeof(uint32_t));
    s->weight2 = carve(mem, &at, n->vocab * sizeof(uint32_t));
    s->key = carve(mem, &at, n->vocab * sizeof(uint64_t));
    s->key2 = carve(mem, &at, n->vocab * sizeof(uint64_t));
    s->raw = carve(mem, &at, n->vocab * sizeof(float));
    s->touched = carve(mem, &at, n->vocab * sizeof(int32_t));
    return at;
}

/* One row's part of what SAMPLE keeps between its passes. */
static size_t sample_row_bytes(const cpu_run *run)
{
    return ((size_t)run->n_blocks + 2 * (size_t)run->n_chunks) * sizeof(float) +
           (size_t)run->n_pieces * sizeof(cpu_top) + 2 * sizeof(_Atomic int);
}

static size_t results_bytes(const cpu_run *run)
{
    return CPU_RESULTS * run->result_floats * sizeof(float);
}

static size_t merges_bytes(const cpu_run *run)
{
    return (size_t)CPU_RESULTS * (size_t)run->max_kv * sizeof(*run->merges);
}

static size_t delta_bytes(const cpu_run *run)
{
    return (size_t)run->p->cfg.max_seqs * (size_t)run->max_delta * sizeof(*run->delta_done);
}

/* All that take_scratch takes, and the biases that weights have. */
static size_t scratch_bytes(const cpu_run *run, const needs *need)
{
    cpu_scratch probe;
    return (lay_out(&probe, need, NULL) + CPU_LINE) * (size_t)run->threads + run->act_bytes +
           cp_gemm_weights_own_bytes(run->weights, run->n_weights) + results_bytes(run) +
           merges_bytes(run) + delta_bytes(run) +
           (size_t)run->p->cfg.max_out * sample_row_bytes(run);
}

static cp_code take_sample(cpu_run *run, cp_err *err)
{
    const cp_prepared *p = run->p;
    size_t rows = (size_t)p->cfg.max_out;
    run->tops = cp_alloc_aligned((rows * (size_t)run->n_pieces + 1) * sizeof(*run->tops));
    run->block_max = cp_alloc_aligned((rows * (size_t)run->n_blocks + 1) * sizeof(float));
    run->chunk_max = cp_alloc_aligned((rows * (size_t)run->n_chunks + 1) * sizeof(float));
    run->chunk_sum = cp_alloc_aligned((rows * (size_t)run->n_chunks + 1) * sizeof(float));
    run->row_done = cp_alloc_aligned((rows + 1) * sizeof(*run->row_done));
    run->row_nan = cp_alloc_aligned((rows + 1) * sizeof(*run->row_nan));
    if (run->tops && run->block_max && run->chunk_max && run->chunk_sum && run->row_done &&
        run->row_nan)
        return CP_OK;
    return cp_fail(err, CP_NO_MEMORY, "sampling: %d rows of %d logits", p->cfg.max_out,
                   p->prog->n_vocab);
}

static cp_code take_scratch(cpu_run *run, const needs *need, cp_err *err)
{
    cpu_scratch probe;
    size_t bytes = lay_out(&probe, need, NULL) + CPU_LINE;
    run->scratch = cp_xcalloc((size_t)run->threads, sizeof(*run->scratch));
    for (int i = 0; i < run->threads; i++) {
        cpu_scratch *s = &run->scratch[i];
        s->mem = cp_host_map(bytes);
        if (!s->mem)
            return cp_fail(err, CP_NO_MEMORY, "scratch: %d workers x %zu bytes", run->threads,
                           bytes);
        s->mem_bytes = bytes;
        lay_out(s, need, s->mem);
    }
    run->act = cp_host_map(run->act_bytes);
    if (run->act_bytes && !run->act)
        return cp_fail(err, CP_NO_MEMORY, "activations: %zu bytes", run->act_bytes);
    if (run->n_plans) {
        run->results = cp_host_map(results_bytes(run));
        run->merges = cp_alloc_aligned(merges_bytes(run));
        if (!run->results || !run->merges)
            return cp_fail(err, CP_NO_MEMORY, "attention: %zu bytes of split results",
                           results_bytes(run));
    }
    if (run->max_delta) {
        run->delta_done = cp_alloc_aligned(delta_bytes(run));
        if (!run->delta_done)
            return cp_fail(err, CP_NO_MEMORY, "deltanet: %zu bytes of counters", delta_bytes(run));
    }
    return take_sample(run, err);
}

/* The run of p, bound to its program: what must be known before memory is taken. */
static cp_code bind(cp_prepared *p, needs *need, cp_err *err)
{
    const cpu_backend *c = p->b->impl;
    cpu_run *run = cp_xcalloc(1, sizeof(*run));
    p->impl = run;
    run->p = p;
    cp_host_ids_init(&run->ids, &p->cfg);
    run->fails_from = cp_fault_fails_from("device");
    run->isa = c->isa;
    run->vec = cp_isa_vec(c->isa);
    run->attend = cp_isa_attend(c->isa) ? cp_isa_attend(c->isa) : run->vec->attend;
    run->pool = c->pool;
    run->threads = cp_pool_threads(c->pool);
    run->ops = cp_xcalloc((size_t)p->n_ops + 1, sizeof(*run->ops));
    cp_cpu_attention_bind(run);
    cp_cpu_delta_bind(run);
    cp_code rc = bind_products(run, need, err);
    need_attention(run, need);
    need_delta(run, need);
    need_sample(run, need);
    return rc;
}

static cp_code measure(cp_prepared *p, cp_own_bytes *bytes, cp_err *err)
{
    needs need = {0};
    size_t packed = 0;
    cp_code rc = bind(p, &need, err);
    const cpu_run *run = p->impl;
    if (rc == CP_OK)
        rc = cp_gemm_weights_bytes(run->weights, run->n_weights, &packed, err);
    *bytes = (cp_own_bytes){.weights = packed, .scratch = scratch_bytes(run, &need)};
    return rc;
}

static cp_code prepare(cp_prepared *p, cp_err *err)
{
    needs need = {0};
    cp_code rc = bind(p, &need, err);
    cpu_run *run = p->impl;
    if (rc != CP_OK)
        return rc;
    cp_panels_open(&run->panels, &(cp_panels_config){.read_dir = p->cfg.cache_read_dir,
                                                     .dir = p->cfg.cache_dir,
                                                     .key = p->cfg.cache_key,
                                                     .check = p->cfg.cache_check,
                                                     .cancel = p->cfg.cancel,
                                                     .door = p->b->cfg.panels});
    rc = cp_gemm_weights_pack(run->weights, run->n_weights, run->panels, run->pool, err);
    if (rc == CP_OK)
        rc = take_scratch(run, &need, err);
    if (rc == CP_OK)
        p->bytes += cp_panels_bytes(run->panels) + scratch_bytes(run, &need);
    return rc;
}

static void fini(cp_prepared *p)
{
    cpu_run *run = p->impl;
    if (!run)
        return;
    for (int i = 0; i < run->threads && run->scratch; i++)
        cp_host_unmap(run->scratch[i].mem, run->scratch[i].mem_bytes);
    for (int i = 0; i < p->n_ops; i++) {
        cp_linear_close(run->ops[i].linear);
        cp_experts_close(run->ops[i].experts);
    }
    for (int i = 0; i < run->n_plans; i++)
        free(run->plans[i].items);
    if (run->panels)
        cp_panels_close(run->panels);
    cp_host_unmap(run->results, results_bytes(run));
    cp_host_unmap(run->act, run->act_bytes);
    cp_host_ids_fini(&run->ids);
    free(run->scratch);
    free(run->plans);
    free(run->out_seqs);
    free(run->out_pos);
    free(run->merges);
    free(run->delta_done);
    free(run->tops);
    free(run->block_max);
    free(run->chunk_max);
    free(run->chunk_sum);
    free(run->row_done);
    free(run->row_nan);
    free(run->weights);
    free(run->ops);
    free(run);
}

/* The engine's thread is worker 0: the work is done when submit returns. */
static cp_code submit(cp_prepared *p, const cp_batch *batch, cp_err *err)
{
    (void)err;
    cpu_run *run = p->impl;
    p->barriers = 0;
    cp_host_ids_begin(&run->ids, batch);
    cp_cpu_attention_plan(run, batch);
    cp_cpu_walk(run, batch, 0, batch->masks_later ? p->n_forward : p->n_ops);
    if (!batch->masks_later)
        cp_host_ids_keep(&run->ids, batch);
    return CP_OK;
}

static cp_code sample(cp_prepared *p, const cp_batch *batch, cp_err *err)
{
    (void)err;
    cpu_run *run = p->impl;
    cp_cpu_walk(run, batch, p->n_forward, p->n_ops);
    cp_host_ids_keep(&run->ids, batch);
    return CP_OK;
}

static cp_code collect(cp_prepared *p, cp_err *err)
{
    const cpu_run *run = p->impl;
    if (p->n_steps >= run->fails_from)
        return cp_fail(err, CP_DEVICE_FAILED, "step %" PRIu64 " fails by CAPSTAN_FAULT",
                       p->n_steps);
    return cp_panels_lost(run->panels, err);
}

static void default_level(const cp_backend *b, char *out, size_t n)
{
    (void)b;
    cp_cpu cpu = cp_isa_this_cpu();
    char why[192], levels[96];
    cp_isa_describe_default(&cpu, why, sizeof why);
    cp_isa_describe_levels(&cpu, levels, sizeof levels);
    cp_snprintf(out, n, "%s, of %s", why, levels);
}

/* 32 positions a page: a K or V block of one head is 4 KiB at 64 dims, and a prefix hit loses at
 * most 31. */
const cp_backend_row cp_backend_cpu = {.name = "cpu",
                                       .page_positions = 32,
                                       .depth = 1,
                                       .open = open_cpu,
                                       .close = close_cpu,
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
