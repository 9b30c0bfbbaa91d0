/*
 * The table of backends, and the part of prepare, submit, sample and collect that is the same for
 * all: which row, program check, where things lie in the row's memory, what a batch must hold, and
 * which call may follow which.
 */
#include "kernels/backend.h"

#include "base/mem.h"
#include "kernels/quant.h"

#include <stdlib.h>
#include <string.h>

/* In the order in which they are thought of where no device is named. */
#if CAPSTAN_CUDA
#define BACKENDS(X) X(cpu) X(cuda) X(ref)
#else
#define BACKENDS(X) X(cpu) X(ref)
#endif

static const cp_backend_row *const backends[] = {
#define X(name) &cp_backend_##name,
    BACKENDS(X)
#undef X
};
enum { N_BACKENDS = sizeof(backends) / sizeof(backends[0]) };

const char *const *cp_backend_names(void)
{
    static const char *const names[] = {
#define X(name) #name,
        BACKENDS(X)
#undef X
            NULL};
    return names;
}

static bool is_uuid(const char *device)
{
    return strncmp(device, "GPU-", 4) == 0 || strncmp(device, "MIG-", 4) == 0;
}

/* The row that device is one of: NAME or NAME:N, or a GPU's UUID. */
static const cp_backend_row *row_of(const char *device)
{
    size_t n = strcspn(device, ":");
    if (is_uuid(device)) {
        device = "cuda";
        n = strlen(device);
    }
    for (int i = 0; i < N_BACKENDS; i++)
        if (strlen(backends[i]->name) == n && strncmp(backends[i]->name, device, n) == 0)
            return backends[i];
    return NULL;
}

cp_code cp_backend_open(cp_backend **out, const cp_backend_config *cfg, cp_err *err)
{
    const cp_backend_row *row = cfg->device ? row_of(cfg->device) : backends[0];
#define X(name) " " #name
    if (!row)
        return cp_fail(err, CP_USAGE, "device %s is not built; built:" BACKENDS(X), cfg->device);
#undef X
    cp_backend *b = cp_xcalloc(1, sizeof(*b));
    b->row = row;
    b->cfg = *cfg;
    cp_code rc = row->open(b, err);
    if (rc != CP_OK) {
        free(b);
        return rc;
    }
    *out = b;
    return CP_OK;
}

void cp_backend_close(cp_backend *b)
{
    if (!b)
        return;
    b->row->close(b);
    free(b);
}

const char *cp_backend_name(const cp_backend *b)
{
    return b->row->name;
}

void cp_backend_device(const cp_backend *b, char *out, size_t n)
{
    b->row->device(b, out, n);
}

const char *cp_backend_level(const cp_backend *b)
{
    return b->row->level(b);
}

void cp_backend_default_level(const cp_backend *b, char *out, size_t n)
{
    b->row->default_level(b, out, n);
}

int cp_backend_page_positions(const cp_backend *b)
{
    return b->row->page_positions;
}

int cp_backend_depth(const cp_backend *b)
{
    return b->row->depth;
}

bool cp_backend_supports(const cp_backend *b, cp_role role, cp_dtype t)
{
    return b->row->supports(b, role, t);
}

cp_code cp_backend_memory(const cp_backend *b, uint64_t *total, uint64_t *available, cp_err *err)
{
    return b->row->memory(b, total, available, err);
}

cp_code cp_backend_kv_bytes(const cp_backend *b, uint64_t models, uint64_t *bytes, char *how,
                            size_t n, cp_err *err)
{
    return b->row->kv_bytes(b, models, bytes, how, n, err);
}

void cp_backend_describe(const cp_backend *b, void (*line)(void *arg, const char *text), void *arg)
{
    static const cp_dtype kv[] = {CP_DTYPE_BF16, CP_DTYPE_F16};
    const char *level = cp_backend_level(b);
    for (int kind = 0; kind < CP_OP_COUNT; kind++) {
        bool weights = kind == CP_OP_LINEAR || kind == CP_OP_EXPERTS || kind == CP_OP_EMBED;
        cp_role role = kind == CP_OP_EMBED ? CP_ROLE_EMBED : CP_ROLE_LINEAR;
        for (uint32_t t = 0; t < CP_DTYPE_LIMIT; t++) {
            const cp_dtype_row *row = cp_dtype_info(t);
            bool has = weights                   ? cp_backend_supports(b, role, (cp_dtype)t)
                       : kind == CP_OP_ATTENTION ? t == (uint32_t)kv[0] || t == (uint32_t)kv[1]
                                                 : t == (uint32_t)CP_DTYPE_F32;
            char text[96];
            if (!row || !has)
                continue;
            cp_snprintf(text, sizeof(text), "%s %s %s", cp_op_names[kind], row->name, level);
            line(arg, text);
        }
    }
}

/* ---- prepare ---- */

/* Memory of the row for a program; n 0: none. */
static cp_code take(cp_prepared *p, cp_mem *m, size_t n, bool zeroed, cp_err *err)
{
    if (n == 0)
        return CP_OK;
    cp_code rc = p->b->row->take(p->b, m, n, zeroed, err);
    if (rc == CP_OK)
        p->bytes += n;
    return rc;
}

static void give(cp_prepared *p, cp_mem *m)
{
    if (m->at)
        p->b->row->give(p->b, m);
}

/* The step arena: every matrix [rows][ld], one behind another, from its start; *total: its bytes.
 */
static cp_code lay_out_mats(cp_prepared *p, size_t *total, cp_err *err)
{
    const cp_program *prog = p->prog;
    bool ok = true;
    *total = 0;
    for (int i = 0; i < prog->n_mats && ok; i++) {
        int n = prog->mats[i].rows == CP_ROWS_OUT ? p->cfg.max_out : p->cfg.max_rows;
        size_t bytes;
        p->ld[i] = ((size_t)prog->mats[i].width + 15) / 16 * 16;
        p->mats[i] = *total;
        ok = cp_mul((size_t)n, p->ld[i] * sizeof(float), &bytes) && cp_add(*total, bytes, total);
    }
    return ok ? CP_OK
              : cp_fail(err, CP_NO_MEMORY, "step arena: %d matrices of %d rows overflow",
                        prog->n_mats, p->cfg.max_rows);
}

static cp_code take_arena(cp_prepared *p, cp_err *err)
{
    size_t total;
    cp_code rc = lay_out_mats(p, &total, err);
    if (rc != CP_OK)
        return rc;
    rc = take(p, &p->arena, total, true, err);
    if (rc != CP_OK)
        cp_err_prefix(err, "step arena, %d matrices of %d rows", p->prog->n_mats, p->cfg.max_rows);
    for (int i = 0; i < p->prog->n_mats; i++)
        p->mats[i] += p->arena.at;
    return rc;
}

static cp_code lay_out_pools(cp_prepared *p, size_t *pages, size_t *states, cp_err *err)
{
    const cp_program *prog = p->prog;
    for (int i = 0; i < prog->n_groups; i++)
        p->state_off[i] = cp_program_state_at(prog, i);
    p->state_bytes = cp_program_state_at(prog, prog->n_groups);
    p->page_bytes = cp_program_page_bytes(prog, p->cfg.page_positions);
    if (!cp_mul(p->cfg.n_pages, p->page_bytes, pages) ||
        !cp_mul(p->cfg.n_state_slots, p->state_bytes, states))
        return cp_fail(err, CP_NO_MEMORY, "page pool: %u pages x %zu bytes, %u states x %zu bytes",
                       p->cfg.n_pages, p->page_bytes, p->cfg.n_state_slots, p->state_bytes);
    return CP_OK;
}

static cp_code make_pools(cp_prepared *p, cp_err *err)
{
    size_t pages = 0, states = 0;
    cp_code rc = lay_out_pools(p, &pages, &states, err);
    if (rc != CP_OK)
        return rc;
    rc = take(p, &p->pages, pages, false, err); /* zeroed when they are handed out */
    if (rc != CP_OK) {
        cp_err_prefix(err, "page pool, %u pages x %zu bytes", p->cfg.n_pages, p->page_bytes);
        return rc;
    }
    rc = take(p, &p->states, states, false, err); /* read when they were written */
    if (rc != CP_OK)
        cp_err_prefix(err, "state slots, %u x %zu bytes", p->cfg.n_state_slots, p->state_bytes);
    return rc;
}

/* Floats that a vector takes: whole groups of 32. */
static size_t vector_floats(const cp_tensor *t)
{
    size_t n = (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    return (n + 31) / 32 * 32;
}

static cp_code put_vector(cp_prepared *p, cp_addr to, const cp_tensor *t, cp_err *err)
{
    size_t rows = (size_t)(t->ne[1] * t->ne[2] * t->ne[3]), n = (size_t)t->ne[0];
    float *v = cp_alloc_aligned(rows * n * sizeof(float));
    if (!v)
        return cp_fail(err, CP_NO_MEMORY, "tensor %s: no memory", t->name);
    for (size_t r = 0; r < rows; r++)
        cp_dequant_row(t, (int64_t)r, v + r * n);
    cp_code rc = p->b->row->put(p->b, to, v, rows * n * sizeof(float), err);
    free(v);
    return rc;
}

/* Bytes of all vectors. */
static cp_code measure_vectors(const cp_prepared *p, size_t *total, cp_err *err)
{
    const cp_program *prog = p->prog;
    *total = 0;
    for (int i = 0; i < prog->n_weights; i++) {
        const cp_tensor *t = prog->weights[i].t;
        if (prog->weights[i].role != CP_ROLE_VECTOR)
            continue;
        if (!cp_backend_supports(p->b, CP_ROLE_VECTOR, t->type))
            return cp_fail(err, CP_UNSUPPORTED, "tensor %s: type %d cannot be a vector", t->name,
                           (int)t->type);
        *total += vector_floats(t) * sizeof(float);
    }
    return CP_OK;
}

/* Norm weights, biases, conv taps, as f32. They are few: all are copied, so that each begins at a
 * line and ends in zeroes, and no step reads them from a file. */
static cp_code load_vectors(cp_prepared *p, cp_err *err)
{
    const cp_program *prog = p->prog;
    size_t total;
    cp_code rc = measure_vectors(p, &total, err);
    if (rc != CP_OK)
        return rc;
    rc = take(p, &p->vector_mem, total, true, err);
    if (rc != CP_OK)
        cp_err_prefix(err, "vectors");
    cp_addr at = p->vector_mem.at;
    for (int i = 0; i < prog->n_weights && rc == CP_OK; i++) {
        if (prog->weights[i].role != CP_ROLE_VECTOR)
            continue;
        p->vectors[i] = at;
        rc = put_vector(p, at, prog->weights[i].t, err);
        at += vector_floats(prog->weights[i].t) * sizeof(float);
    }
    return rc;
}

/* The program's records, and SAMPLE. */
static void take_ops(cp_prepared *p)
{
    const cp_program *prog = p->prog;
    p->ops = cp_xcalloc((size_t)prog->n_ops + 1, sizeof(*p->ops));
    for (int i = 0; i < prog->n_ops; i++)
        p->ops[i] = prog->ops[i];
    p->n_ops = p->n_forward = prog->n_ops;
    if (prog->logits < 0)
        return;
    cp_op *op = &p->ops[p->n_ops++];
    op->kind = CP_OP_SAMPLE;
    op->rows = CP_ROWS_OUT;
    op->layer = -1;
    op->u.sample.logits = prog->logits;
}

/* A checked program on b, without memory of the row. */
static cp_code open_bare(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                         cp_prepared **out, cp_err *err)
{
    cp_code rc = cp_program_check(b, prog, cfg, err);
    if (rc != CP_OK)
        return rc;
    cp_prepared *p = cp_xcalloc(1, sizeof(*p));
    p->b = b;
    p->prog = prog;
    p->cfg = *cfg;
    p->mats = cp_xcalloc((size_t)prog->n_mats + 1, sizeof(*p->mats));
    p->ld = cp_xcalloc((size_t)prog->n_mats + 1, sizeof(*p->ld));
    p->vectors = cp_xcalloc((size_t)prog->n_weights + 1, sizeof(*p->vectors));
    p->tenants = cp_xcalloc((size_t)cfg->max_seqs, sizeof(*p->tenants));
    take_ops(p);
    *out = p;
    return CP_OK;
}

/* Bytes of the parts of a program. */
typedef struct parts {
    size_t arena, vectors, pages, states;
    cp_own_bytes own;
} parts;

static cp_code measure(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                       parts *m, cp_err *err)
{
    cp_prepared *p;
    cp_code rc = open_bare(b, prog, cfg, &p, err);
    if (rc != CP_OK)
        return rc;
    *m = (parts){0};
    rc = lay_out_mats(p, &m->arena, err);
    if (rc == CP_OK)
        rc = lay_out_pools(p, &m->pages, &m->states, err);
    if (rc == CP_OK)
        rc = measure_vectors(p, &m->vectors, err);
    if (rc == CP_OK)
        rc = b->row->measure(p, &m->own, err);
    cp_prepared_free(p);
    return rc;
}

static double mib(uint64_t n)
{
    return (double)n / 1048576.0;
}

/* Memory is at an end: all that the program wants stands beside what could not be had. */
static cp_code say_parts(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                         cp_err *err)
{
    parts m;
    uint64_t total, available;
    if (measure(b, prog, cfg, &m, NULL) != CP_OK ||
        b->row->memory(b, &total, &available, NULL) != CP_OK)
        return CP_NO_MEMORY;
    uint64_t kv = (uint64_t)m.pages + m.states, arena = (uint64_t)m.arena + m.vectors;
    uint64_t all = m.own.weights + kv + arena + m.own.scratch + m.own.workspace;
    cp_err first = *err;
    return cp_fail(err, CP_NO_MEMORY,
                   "%s; weights %.1f MiB + KV cache %.1f MiB + arena %.1f MiB + scratch %.1f MiB + "
                   "workspace %.1f MiB = %.1f MiB, and %.1f MiB of %.1f MiB can be had",
                   first.msg, mib(m.own.weights), mib(kv), mib(arena), mib(m.own.scratch),
                   mib(m.own.workspace), mib(all), mib(available), mib(total));
}

cp_code cp_backend_prepare(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                           cp_prepared **out, cp_err *err)
{
    cp_prepared *p;
    cp_err mine;
    err = err ? err : &mine;
    cp_code rc = open_bare(b, prog, cfg, &p, err);
    if (rc != CP_OK)
        return rc;
    rc = take_arena(p, err);
    if (rc == CP_OK)
        rc = make_pools(p, err);
    if (rc == CP_OK)
        rc = load_vectors(p, err);
    if (rc == CP_OK)
        rc = b->row->prepare(p, err);
    if (rc == CP_OK) {
        *out = p;
        return CP_OK;
    }
    cp_prepared_free(p);
    return rc == CP_NO_MEMORY ? say_parts(b, prog, cfg, err) : rc;
}

cp_code cp_backend_model_bytes(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                               uint64_t *bytes, cp_err *err)
{
    parts m;
    cp_code rc = measure(b, prog, cfg, &m, err);
    if (rc == CP_OK)
        *bytes = (uint64_t)m.arena + m.vectors + m.own.weights + m.own.scratch + m.own.workspace;
    return rc;
}

void cp_prepared_free(cp_prepared *p)
{
    if (!p)
        return;
    CP_ASSERT(!p->in_flight);
    p->b->row->fini(p);
    give(p, &p->arena);
    give(p, &p->vector_mem);
    give(p, &p->pages);
    give(p, &p->states);
    free(p->ops);
    free(p->tenants);
    free(p->vectors);
    free(p->ld);
    free(p->mats);
    free(p);
}

size_t cp_prepared_bytes(const cp_prepared *p)
{
    return p->bytes;
}

/* ---- steps ---- */

/* Rows of one sequence say what it says of them, and it may ask for the id before. */
static void assert_rows(const cp_prepared *p, const cp_batch *b, int s)
{
    const cp_batch_seq *q = &b->seqs[s];
    const struct cp_tenant *t = &p->tenants[q->slot];
    for (int i = 0; i < q->n_rows; i++) {
        int row = q->row0 + i, pos = q->pos0 + i;
        CP_ASSERT(b->pos[row] == pos && b->row_seq[row] == s);
        CP_ASSERT(!q->tokens || (pos < q->n_tokens && b->tok[row] == q->tokens[pos]));
        CP_ASSERT(b->tok[row] != CP_TOK_PREV ||
                  (i == q->n_rows - 1 && t->sampled && t->epoch == q->epoch));
    }
}

static void assert_seq(const cp_prepared *p, const cp_batch *b, int s)
{
    const cp_program *prog = p->prog;
    const cp_batch_seq *q = &b->seqs[s];
    int P = p->cfg.page_positions;
    CP_ASSERT(q->slot >= 0 && q->slot < p->cfg.max_seqs && q->pos0 >= 0 && q->n_rows > 0);
    CP_ASSERT(p->tenants[q->slot].step != p->n_steps); /* once a batch */
    if (p->state_bytes) {
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
    CP_ASSERT(p->in_flight < cp_backend_depth(p->b) && !p->unsampled);
    assert_batch(p, batch);
    note_tenants(p, batch);
    cp_code rc = p->b->row->submit(p, batch, err);
    if (rc != CP_OK)
        return rc;
    p->in_flight++;
    p->unsampled = batch->masks_later ? batch : NULL;
    return CP_OK;
}

cp_code cp_backend_sample(cp_prepared *p, const cp_batch *batch, cp_err *err)
{
    CP_ASSERT(batch && p->unsampled == batch);
    p->unsampled = NULL;
    cp_code rc = p->b->row->sample(p, batch, err);
    p->in_flight -= rc != CP_OK;
    return rc;
}

cp_code cp_backend_collect(cp_prepared *p, cp_err *err)
{
    CP_ASSERT(p->in_flight > (p->unsampled ? 1 : 0));
    p->in_flight--;
    return p->b->row->collect(p, err);
}

cp_op_time cp_prepared_op_time(const cp_prepared *p, cp_op_kind kind)
{
    CP_ASSERT((unsigned)kind < CP_OP_COUNT);
    return (cp_op_time){.ns = p->op_ns[kind], .records = p->op_records[kind]};
}

uint64_t cp_prepared_barriers(const cp_prepared *p)
{
    return p->barriers;
}
