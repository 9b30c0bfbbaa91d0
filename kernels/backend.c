/*
 * The table of backends, and the part of prepare, submit and collect that is the same for all:
 * program check, step arena, page pool, state slots, vectors as f32. Memory is anonymous mappings:
 * zeroed by the system and touched only where a step writes, so that a large pool costs nothing at
 * start.
 */
#include "kernels/backend.h"

#include "base/mem.h"
#include "kernels/quant.h"
#include "kernels/unpack.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const cp_backend_row *const backends[] = {&cp_backend_cpu, &cp_backend_ref};
enum { N_BACKENDS = sizeof(backends) / sizeof(backends[0]) };

/* 32 positions: a K or V block of one head is 4 KiB at 64 dims, and a prefix hit loses <= 31. */
enum { PAGE_POSITIONS = 32 };

void *cp_anon_map(size_t n)
{
    if (!n)
        return NULL;
    void *p =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void cp_anon_unmap(void *p, size_t n)
{
    if (p)
        munmap(p, n);
}

cp_code cp_backend_open(cp_backend **out, const char *name, const cp_backend_config *cfg,
                        cp_err *err)
{
    for (int i = 0; i < N_BACKENDS; i++) {
        if (strcmp(backends[i]->name, name) != 0)
            continue;
        cp_backend *b = cp_xcalloc(1, sizeof(*b));
        b->row = backends[i];
        b->cfg = *cfg;
        cp_code rc = b->row->open(b, err);
        if (rc != CP_OK) {
            free(b);
            return rc;
        }
        *out = b;
        return CP_OK;
    }
    return cp_fail(err, CP_UNSUPPORTED, "backend %s is not built; built: cpu, ref", name);
}

void cp_backend_close(cp_backend *b)
{
    if (!b)
        return;
    b->row->close(b);
    free(b);
}

const char *cp_backend_level(const cp_backend *b)
{
    return b->row->level(b);
}

int cp_backend_page_positions(const cp_backend *b)
{
    (void)b;
    return PAGE_POSITIONS;
}

bool cp_backend_supports(const cp_backend *b, cp_role role, cp_dtype t)
{
    (void)b;
    if (role == CP_ROLE_VECTOR)
        return t == CP_DTYPE_F32 || t == CP_DTYPE_F16 || t == CP_DTYPE_BF16;
    return cp_panel_kind_of(t) != CP_PANEL_COUNT;
}

/* The step arena: every slot [rows][ld], 64-byte aligned, in one mapping. */
static cp_code lay_out_slots(cp_prepared *p, cp_err *err)
{
    const cp_program *prog = p->prog;
    size_t *off = cp_xcalloc((size_t)prog->n_slots + 1, sizeof(*off)), total = 0;
    bool ok = true;
    for (int i = 0; i < prog->n_slots && ok; i++) {
        int rows = prog->slots[i].rows == CP_ROWS_OUT ? p->cfg.max_out : p->cfg.max_rows;
        size_t bytes;
        p->ld[i] = ((size_t)prog->slots[i].width + 15) / 16 * 16;
        off[i] = total;
        ok = cp_mul((size_t)rows, p->ld[i] * sizeof(float), &bytes) && cp_add(total, bytes, &total);
    }
    p->arena = ok ? cp_anon_map(total) : NULL;
    if (p->arena) {
        p->arena_bytes = total;
        p->bytes += total;
    }
    for (int i = 0; p->arena && i < prog->n_slots; i++)
        p->slots[i] = (float *)(void *)(p->arena + off[i]);
    free(off);
    if (total && !p->arena)
        return cp_fail(err, CP_NO_MEMORY, "step arena: %d slots of %d rows take %zu bytes",
                       prog->n_slots, p->cfg.max_rows, total);
    return CP_OK;
}

static cp_code make_pools(cp_prepared *p, cp_err *err)
{
    const cp_program *prog = p->prog;
    for (int i = 0; i < prog->n_groups; i++) {
        const cp_kv_group *g = &prog->groups[i];
        if (g->kind != CP_GROUP_STATE) {
            p->page_bytes = cp_kv_page_bytes(g, p->cfg.page_positions);
            continue;
        }
        p->state_off[i] = p->state_bytes;
        p->state_bytes += (size_t)g->n_layers * g->state_bytes;
    }
    size_t n;
    if (p->page_bytes) {
        p->pages = cp_mul(p->cfg.n_pages, p->page_bytes, &n) ? cp_anon_map(n) : NULL;
        if (!p->pages)
            return cp_fail(err, CP_NO_MEMORY, "page pool: %u pages x %zu bytes cannot be had",
                           p->cfg.n_pages, p->page_bytes);
        p->bytes += n;
    }
    if (p->state_bytes) {
        p->states = cp_mul(p->cfg.n_state_slots, p->state_bytes, &n) ? cp_anon_map(n) : NULL;
        if (!p->states)
            return cp_fail(err, CP_NO_MEMORY, "state slots: %u slots x %zu bytes cannot be had",
                           p->cfg.n_state_slots, p->state_bytes);
        p->bytes += n;
    }
    return CP_OK;
}

/* Norm weights, biases, conv taps: f32 as they lie, others converted once. */
static cp_code load_vectors(cp_prepared *p, cp_err *err)
{
    const cp_program *prog = p->prog;
    for (int i = 0; i < prog->n_weights; i++) {
        const cp_tensor *t = prog->weights[i].t;
        if (prog->weights[i].role != CP_ROLE_VECTOR)
            continue;
        if (!cp_backend_supports(p->b, CP_ROLE_VECTOR, t->type))
            return cp_fail(err, CP_UNSUPPORTED, "tensor %s: type %d cannot be a vector", t->name,
                           (int)t->type);
        if (t->type == CP_DTYPE_F32 && (uintptr_t)t->data % sizeof(float) == 0) {
            p->vectors[i] = t->data;
            continue;
        }
        size_t rows = (size_t)(t->ne[1] * t->ne[2] * t->ne[3]), n = (size_t)t->ne[0];
        float *v = cp_alloc_aligned(rows * n * sizeof(float));
        if (!v)
            return cp_fail(err, CP_NO_MEMORY, "tensor %s: no memory", t->name);
        for (size_t r = 0; r < rows; r++)
            cp_dequant_row(t, (int64_t)r, v + r * n);
        p->owned[i] = v;
        p->vectors[i] = v;
        p->bytes += rows * n * sizeof(float);
    }
    return CP_OK;
}

/* SAMPLE follows the program's records unless the program has its own. */
static void take_ops(cp_prepared *p)
{
    const cp_program *prog = p->prog;
    bool sample = prog->logits >= 0;
    p->ops = cp_xcalloc((size_t)prog->n_ops + 1, sizeof(*p->ops));
    for (int i = 0; i < prog->n_ops; i++) {
        p->ops[i] = prog->ops[i];
        if (prog->ops[i].kind == CP_OP_SAMPLE)
            sample = false;
    }
    p->n_ops = prog->n_ops;
    if (sample) {
        cp_op *op = &p->ops[p->n_ops++];
        op->kind = CP_OP_SAMPLE;
        op->rows = CP_ROWS_OUT;
        op->layer = -1;
        op->u.sample.logits = prog->logits;
    }
}

cp_code cp_backend_prepare(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                           cp_prepared **out, cp_err *err)
{
    cp_code rc = cp_program_check(prog, cfg, err);
    if (rc != CP_OK)
        return rc;
    cp_prepared *p = cp_xcalloc(1, sizeof(*p));
    p->b = b;
    p->prog = prog;
    p->cfg = *cfg;
    p->slots = cp_xcalloc((size_t)prog->n_slots + 1, sizeof(*p->slots));
    p->ld = cp_xcalloc((size_t)prog->n_slots + 1, sizeof(*p->ld));
    p->vectors = cp_xcalloc((size_t)prog->n_weights + 1, sizeof(*p->vectors));
    p->owned = cp_xcalloc((size_t)prog->n_weights + 1, sizeof(*p->owned));
    p->tenants = cp_xcalloc((size_t)cfg->max_seqs, sizeof(*p->tenants));
    take_ops(p);
    rc = lay_out_slots(p, err);
    if (rc == CP_OK)
        rc = make_pools(p, err);
    if (rc == CP_OK)
        rc = load_vectors(p, err);
    if (rc == CP_OK)
        rc = b->row->prepare(p, err);
    if (rc != CP_OK) {
        cp_prepared_free(p);
        return rc;
    }
    *out = p;
    return CP_OK;
}

void cp_prepared_free(cp_prepared *p)
{
    if (!p)
        return;
    CP_ASSERT(!p->in_flight);
    p->b->row->fini(p);
    for (int i = 0; i < p->prog->n_weights; i++)
        free(p->owned[i]);
    cp_anon_unmap(p->arena, p->arena_bytes);
    cp_anon_unmap(p->pages, (size_t)p->cfg.n_pages * p->page_bytes);
    cp_anon_unmap(p->states, (size_t)p->cfg.n_state_slots * p->state_bytes);
    free(p->ops);
    free(p->tenants);
    free(p->owned);
    free(p->vectors);
    free(p->ld);
    free(p->slots);
    free(p);
}

size_t cp_prepared_bytes(const cp_prepared *p)
{
    return p->bytes;
}

/* Rows of one sequence say what it says of them, and it may ask for the id before. */
static void assert_rows(const cp_prepared *p, const cp_batch *b, int s)
{
    const cp_batch_seq *q = &b->seqs[s];
    const struct cp_tenant *t = &p->tenants[q->slot];
    for (int i = 0; i < q->n_rows; i++) {
        int row = q->row0 + i, pos = q->pos0 + i;
        CP_ASSERT(b->pos[row] == pos && b->row_seq[row] == s);
        CP_ASSERT(!q->tokens || (pos < q->n_tokens && b->tok[row] == q->tokens[pos]));
        CP_ASSERT(b->tok[row] != CP_TOK_PREV || (t->sampled && t->epoch == q->epoch));
    }
}

static void assert_seq(const cp_prepared *p, const cp_batch *b, int s)
{
    const cp_program *prog = p->prog;
    const cp_batch_seq *q = &b->seqs[s];
    int P = p->cfg.page_positions;
    CP_ASSERT(q->slot >= 0 && q->slot < p->cfg.max_seqs && q->pos0 >= 0 && q->n_rows > 0);
    CP_ASSERT(p->tenants[q->slot].step != p->n_steps); /* once a batch */
    if (p->states) {
        CP_ASSERT(q->state_in < p->cfg.n_state_slots && q->state_out < p->cfg.n_state_slots);
        CP_ASSERT(q->state_save < p->cfg.n_state_slots);
    }
    for (int g = 0; g < prog->n_groups; g++) {
        if (prog->groups[g].kind == CP_GROUP_STATE)
            continue;
        for (int e = q->pos0 / P; e <= (q->pos0 + q->n_rows - 1) / P; e++)
            CP_ASSERT(q->pages[g][e] > 0 && q->pages[g][e] < p->cfg.n_pages);
    }
}

static void note_tenants(cp_prepared *p, const cp_batch *b)
{
    for (int s = 0; s < b->n_seqs; s++) {
        struct cp_tenant *t = &p->tenants[b->seqs[s].slot];
        if (t->epoch != b->seqs[s].epoch)
            t->sampled = false;
        t->epoch = b->seqs[s].epoch;
    }
    for (int o = 0; o < b->n_out && b->samples; o++)
        if (b->samples[o].target < 0)
            p->tenants[b->seqs[b->row_seq[b->out_rows[o]]].slot].sampled = true;
}

/* Our own bugs (engine, kv-cache) end here rather than as a write outside the pool. */
static void assert_batch(cp_prepared *p, const cp_batch *b)
{
    CP_ASSERT(b->n_rows >= 0 && b->n_rows <= p->cfg.max_rows);
    CP_ASSERT(b->n_out >= 0 && b->n_out <= p->cfg.max_out);
    CP_ASSERT(b->n_seqs >= 0 && b->n_seqs <= p->cfg.max_seqs);
    int rows = 0;
    p->n_steps++;
    for (int s = 0; s < b->n_seqs; s++) {
        CP_ASSERT(b->seqs[s].row0 == rows);
        assert_seq(p, b, s);
        rows += b->seqs[s].n_rows;
        CP_ASSERT(rows <= b->n_rows);
        assert_rows(p, b, s);
        p->tenants[b->seqs[s].slot].step = p->n_steps;
    }
    CP_ASSERT(rows == b->n_rows);
    for (int i = 0; i < b->n_out; i++)
        CP_ASSERT(b->out_rows[i] > (i ? b->out_rows[i - 1] : -1) && b->out_rows[i] < b->n_rows);
    for (int i = 0; i < b->n_zero_pages; i++)
        CP_ASSERT(b->zero_pages[i] > 0 && b->zero_pages[i] < p->cfg.n_pages);
    for (int i = 0; i < b->n_copies; i++)
        CP_ASSERT(b->copies[i].src < p->cfg.n_pages && b->copies[i].dst < p->cfg.n_pages &&
                  b->copies[i].dst > 0);
    for (int i = 0; i < b->n_state_copies; i++)
        CP_ASSERT(b->state_copies[i].src < p->cfg.n_state_slots &&
                  b->state_copies[i].dst < p->cfg.n_state_slots && b->state_copies[i].dst > 0);
}

cp_code cp_backend_submit(cp_prepared *p, const cp_batch *batch, cp_err *err)
{
    (void)err;
    CP_ASSERT(!p->in_flight);
    assert_batch(p, batch);
    note_tenants(p, batch);
    /* The engine thread is worker 0: the step is done when this returns. */
    p->b->row->step(p, batch);
    p->in_flight = true;
    return CP_OK;
}

cp_code cp_backend_collect(cp_prepared *p, cp_err *err)
{
    CP_ASSERT(p->in_flight);
    p->in_flight = false;
    return p->b->row->lost ? p->b->row->lost(p, err) : CP_OK;
}

uint64_t cp_prepared_op_ns(const cp_prepared *p, cp_op_kind kind)
{
    return kind < CP_OP_COUNT ? p->op_ns[kind] : 0;
}

uint64_t cp_prepared_barriers(const cp_prepared *p)
{
    return p->barriers;
}

void cp_kernels_default_level(char *out, size_t n)
{
    cp_backend_cpu.default_level(out, n);
}

void cp_kernels_describe(void (*line)(void *arg, const char *text), void *arg)
{
    const char *level = cp_backend_cpu.level_here();
    char text[96];
    for (int kind = 0; kind < CP_OP_COUNT; kind++) {
        if (kind == CP_OP_LINEAR || kind == CP_OP_EMBED) {
            for (uint32_t t = 0; t < CP_DTYPE_LIMIT; t++) {
                const cp_dtype_row *row = cp_dtype_info(t);
                if (!row || cp_panel_kind_of((cp_dtype)t) == CP_PANEL_COUNT)
                    continue;
                cp_snprintf(text, sizeof(text), "%s %s %s", cp_op_names[kind], row->name, level);
                line(arg, text);
            }
            continue;
        }
        if (kind == CP_OP_ATTENTION) {
            cp_snprintf(text, sizeof(text), "%s BF16 %s", cp_op_names[kind], level);
            line(arg, text);
            cp_snprintf(text, sizeof(text), "%s F16 %s", cp_op_names[kind], level);
            line(arg, text);
            continue;
        }
        cp_snprintf(text, sizeof(text), "%s F32 %s", cp_op_names[kind], level);
        line(arg, text);
    }
}
