/*
 * rig: see rig.h. Inputs come from one generator and go into every machine alike; what a record
 * writes is then compared by its bits.
 */
#include "tests/kernels/rig.h"

#include "base/mem.h"
#include "kernels/cpu/isa.h"
#include "kernels/math.h"
#include "tests/kernels/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void rig_init(rig *r, uint64_t seed)
{
    memset(r, 0, sizeof(*r));
    r->seed = seed * 0x9e3779b97f4a7c15u + 1;
    r->prog.ops = r->ops;
    r->prog.mats = r->mats;
    r->prog.weights = r->weights;
    r->prog.logits = -1;
    r->cfg = (cp_prepare_config){.max_rows = 64,
                                 .max_out = 64,
                                 .max_seqs = 16,
                                 .page_positions = 32,
                                 .n_pages = 256,
                                 .n_state_slots = 16,
                                 .kv_type = CP_DTYPE_BF16};
}

void rig_fini(rig *r)
{
    for (int i = 0; i < r->prog.n_weights; i++)
        cp_test_free(&r->tensors[i]);
    for (int i = 0; i < 5; i++)
        cp_pool_close(r->pools[i]);
}

uint64_t rig_random(rig *r, uint64_t below)
{
    return (cp_test_random(&r->seed) >> 11) % below;
}

float rig_uniform(rig *r)
{
    return cp_test_uniform(&r->seed);
}

/* Where kernels/math.h changes its way, denormals, and what is nearly something else. */
float rig_odd(uint64_t n)
{
    static const float values[] = {
        0.0f,         1.0f,       0x1p-140f,       2.0f,      CP_TANH_SMALL,  20.0f,
        CP_EXP_MAX,   CP_EXP_MIN, CP_SWIGLU_LIMIT, 0x1p-126f, 0x1.fffffep-1f, 0.70710678f,
        -0.88137358f, /* cp_logf(1 + e^x) is of sqrt(2) */
        0x1p-14f,     1.0f};
    uint64_t all = sizeof values / sizeof *values;
    return n / all % 2 ? -values[n % all] : values[n % all];
}

cp_mat rig_mat(rig *r, int width, cp_rows rows)
{
    assert_true(r->prog.n_mats < RIG_MATS);
    r->mats[r->prog.n_mats] = (struct cp_mat_desc){width, rows};
    return (cp_mat)r->prog.n_mats++;
}

static cp_wref add_weight(rig *r, cp_tensor t, cp_role role)
{
    int i = r->prog.n_weights++;
    assert_true(i < RIG_WEIGHTS);
    r->tensors[i] = t;
    r->weights[i] = (cp_weight){&r->tensors[i], role};
    return (cp_wref)i;
}

cp_wref rig_weight(rig *r, cp_dtype t, int64_t k, int64_t m, cp_role role)
{
    return add_weight(r, cp_test_tensor(t, k, m, cp_test_random(&r->seed)), role);
}

cp_wref rig_experts(rig *r, cp_dtype t, int64_t k, int64_t m, int64_t n_expert)
{
    return add_weight(r, cp_test_matrices(t, k, m, n_expert, cp_test_random(&r->seed)),
                      CP_ROLE_LINEAR);
}

cp_wref rig_vector(rig *r, int64_t n, int64_t rows)
{
    return rig_vector_around(r, n, rows, 1.0f);
}

cp_wref rig_vector_around(rig *r, int64_t n, int64_t rows, float centre)
{
    cp_tensor t = cp_test_tensor(CP_DTYPE_F32, n, rows, cp_test_random(&r->seed));
    float *w = cp_xcalloc((size_t)(n * rows), sizeof(*w));
    memcpy(w, t.data, (size_t)(n * rows) * sizeof(*w));
    for (int64_t i = 0; i < n * rows; i++)
        w[i] = centre * (1.0f + 0.5f * rig_uniform(r));
    cp_test_free(&t);
    t.data = w;
    return add_weight(r, t, CP_ROLE_VECTOR);
}

cp_op *rig_op(rig *r, cp_op_kind kind, cp_rows rows)
{
    assert_true(r->prog.n_ops < RIG_OPS);
    cp_op *op = &r->ops[r->prog.n_ops++];
    memset(op, 0, sizeof(*op));
    op->kind = kind;
    op->rows = rows;
    if (kind == CP_OP_EMBED)
        op->u.embed.in = op->u.embed.norm = -1;
    if (kind == CP_OP_SUM)
        op->u.sum.norm = op->u.sum.shared_norm = -1;
    return op;
}

cp_op *rig_linear(rig *r, cp_mat in, cp_wref w, cp_mat out, cp_rows rows)
{
    cp_op *op = rig_op(r, CP_OP_LINEAR, rows);
    op->u.linear.in = in;
    op->u.linear.add = op->u.linear.x_out = -1;
    op->u.linear.add_norm = op->u.linear.norm = -1;
    op->u.linear.mul = -1;
    op->u.linear.eps = 1e-5f;
    op->u.linear.in_scale = op->u.linear.scale = 1.0f;
    op->u.linear.n_w = 1;
    op->u.linear.w[0].w = w;
    op->u.linear.w[0].bias = -1;
    op->u.linear.w[0].out = out;
    return op;
}

int rig_group(rig *r, cp_kv_group g)
{
    r->prog.groups[r->prog.n_groups] = g;
    return r->prog.n_groups++;
}

static const char *test_device(void)
{
    return getenv("CAPSTAN_TEST_DEVICE");
}

int rig_threads(void)
{
    return test_device() ? 1 : 3;
}

const char *const *rig_levels(void)
{
    static const char *levels[CP_ISA_COUNT + 1];
    const char *only = getenv("CAPSTAN_TEST_LEVEL");
    int n = 0;
    levels[0] = test_device();
    if (levels[0])
        return levels;
    for (int i = 0; i < CP_ISA_COUNT; i++)
        if (cp_isa_there((cp_isa)i) && (!only || strcmp(only, cp_isa_name((cp_isa)i)) == 0))
            levels[n++] = cp_isa_name((cp_isa)i);
    return levels;
}

const char *const *rig_backends(void)
{
    static const char *names[8];
    size_t n = 0;
    for (const char *const *name = cp_backend_names(); *name; name++)
        if (strcmp(*name, "cuda") != 0 || getenv("CAPSTAN_LIBCUDA"))
            names[n++] = *name;
    assert_true(n < sizeof(names) / sizeof(names[0]));
    return names;
}

bool rig_has(const char *device)
{
    const char *const *name = rig_backends();
    while (*name && strcmp(*name, device) != 0)
        name++;
    return *name != NULL;
}

machine machine_open_on(rig *r, const char *device, const char *level, int threads)
{
    cp_err err = {0};
    machine m = {.r = r, .level = level};
    cp_backend_config cfg = {.device = device,
                             .device_bytes = r->device_bytes,
                             .exact = r->exact,
                             .gemm = r->gemm,
                             .isa_cap = level};
    if (level) {
        if (!r->pools[threads])
            assert_int_equal(cp_pool_open(&r->pools[threads], threads, &err), CP_OK);
        cfg.pool = r->pools[threads];
    }
    if (cp_backend_open(&m.b, &cfg, &err) != CP_OK ||
        cp_backend_prepare(m.b, &r->prog, &r->cfg, &m.p, &err) != CP_OK)
        fail_msg("%s", err.msg);
    return m;
}

machine machine_open(rig *r, const char *level, int threads)
{
    if (!level || !test_device())
        return machine_open_on(r, level ? "cpu" : "ref", level, threads);
    r->exact = true;
    return machine_open_on(r, test_device(), NULL, 1);
}

void machine_close(machine *m)
{
    cp_prepared_free(m->p);
    cp_backend_close(m->b);
}

static void put(machine *m, cp_addr to, const void *from, size_t n)
{
    cp_err err = {0};
    if (n && m->b->row->put(m->b, to, from, n, &err) != CP_OK)
        fail_msg("%s", err.msg);
}

/* A copy of n bytes of the machine's memory; the caller frees it. */
static void *fetch(const machine *m, cp_addr from, size_t n)
{
    cp_err err = {0};
    void *to = cp_xmalloc(n + 1);
    if (n && m->b->row->get(m->b, to, from, n, &err) != CP_OK)
        fail_msg("%s", err.msg);
    return to;
}

void machine_put_row(machine *m, cp_mat s, int r, const float *x)
{
    const cp_prepared *p = m->p;
    put(m, p->mats[s] + (size_t)r * p->ld[s] * sizeof(float), x,
        (size_t)p->prog->mats[s].width * sizeof(float));
}

float *machine_row(const machine *m, cp_mat s, int r)
{
    const cp_prepared *p = m->p;
    return fetch(m, p->mats[s] + (size_t)r * p->ld[s] * sizeof(float),
                 (size_t)p->prog->mats[s].width * sizeof(float));
}

void *machine_page(const machine *m, uint32_t page)
{
    const cp_prepared *p = m->p;
    return fetch(m, p->pages.at + (size_t)page * p->page_bytes, p->page_bytes);
}

void machine_put_page(machine *m, uint32_t page, const void *bytes)
{
    const cp_prepared *p = m->p;
    put(m, p->pages.at + (size_t)page * p->page_bytes, bytes, p->page_bytes);
}

void machine_get_row(const machine *m, cp_mat s, int r, float *x)
{
    const cp_prepared *p = m->p;
    size_t n = (size_t)p->prog->mats[s].width * sizeof(float);
    float *row = fetch(m, p->mats[s] + (size_t)r * p->ld[s] * sizeof(float), n);
    memcpy(x, row, n);
    free(row);
}

static int rows_of(const machine *m, cp_mat s)
{
    const cp_prepared *p = m->p;
    return p->prog->mats[s].rows == CP_ROWS_OUT ? p->cfg.max_out : p->cfg.max_rows;
}

void machine_fill(machine *m, uint64_t seed)
{
    const cp_prepared *p = m->p;
    uint64_t s = seed * 2 + 1;
    for (int i = 0; i < p->prog->n_mats; i++) {
        int rows = rows_of(m, (cp_mat)i), width = p->prog->mats[i].width;
        size_t n = (size_t)rows * p->ld[i];
        float *x = cp_xcalloc(n, sizeof(*x));
        for (size_t c = 0; c < n; c++) { /* between the rows: what no record may write */
            size_t kind = m->r->odd ? (c / p->ld[i] + seed / 2) % 6 : 0;
            float v = kind == 1 || kind == 3 ? rig_odd(cp_test_random(&s) >> 11)
                                             : 2.0f * cp_test_uniform(&s);
            x[c] = c % p->ld[i] >= (size_t)width ? 1e30f : kind == 3 ? -fabsf(v) : v;
        }
        put(m, p->mats[i], x, n * sizeof(*x));
        free(x);
    }
    size_t n = p->page_bytes ? p->pages.bytes - p->page_bytes : 0;
    uint16_t *kv = cp_xmalloc(n + 1);
    bool f16 = p->cfg.kv_type == CP_DTYPE_F16;
    for (size_t i = 0; i < n / 2; i++) {
        float x = cp_test_uniform(&s);
        kv[i] = f16 ? cp_f16_from_f32(x) : cp_bf16_from_f32(x);
    }
    put(m, p->pages.at + p->page_bytes, kv, n);
    free(kv);
    n = p->state_bytes ? p->states.bytes - p->state_bytes : 0;
    float *st = cp_xmalloc(n + 1);
    for (size_t i = 0; i < n / sizeof(float); i++)
        st[i] = cp_test_uniform(&s);
    put(m, p->states.at + p->state_bytes, st, n);
    free(st);
}

void machine_step(machine *m, const cp_batch *b)
{
    cp_err err = {0};
    cp_batch beating = *b;
    _Atomic int64_t beat = 0;
    beating.beat = &beat;
    assert_int_equal(cp_backend_submit(m->p, &beating, &err), CP_OK);
    assert_int_equal(cp_backend_collect(m->p, &err), CP_OK);
    assert_true(atomic_load(&beat) > 0); /* after the record that the program has */
}

void machines_equal(const machine *a, const machine *b, cp_mat s, int rows, const char *what)
{
    size_t ld = a->p->ld[s], width = (size_t)a->p->prog->mats[s].width;
    size_t n = (size_t)rows_of(a, s) * ld;
    float *x = fetch(a, a->p->mats[s], n * sizeof(float));
    float *y = fetch(b, b->p->mats[s], n * sizeof(float));
    for (size_t at = 0; at < n; at++) {
        if (memcmp(&x[at], &y[at], sizeof(float)) != 0)
            fail_msg("%s: matrix %d row %zu element %zu: %a (%s), %a (%s)%s", what, s, at / ld,
                     at % ld, (double)x[at], cp_backend_level(a->b), (double)y[at],
                     cp_backend_level(b->b),
                     at % ld >= width || at / ld >= (size_t)rows ? "; no record writes there" : "");
    }
    free(x);
    free(y);
}

static void equal_memory(const machine *a, const machine *b, const cp_mem *x, const cp_mem *y,
                         size_t unit, const char *name, const char *what)
{
    uint8_t *u = fetch(a, x->at, x->bytes), *v = fetch(b, y->at, y->bytes);
    for (size_t i = 0; i < x->bytes; i++)
        if (u[i] != v[i])
            fail_msg("%s: %s %zu byte %zu differs", what, name, i / unit, i % unit);
    free(u);
    free(v);
}

void machines_equal_memory(const machine *a, const machine *b, const char *what)
{
    equal_memory(a, b, &a->p->pages, &b->p->pages, a->p->page_bytes, "page", what);
    equal_memory(a, b, &a->p->states, &b->p->states, a->p->state_bytes, "state", what);
}

void rig_batch_init(rig_batch *b, rig *r, const rig_seq *seqs, int n_seqs, bool all_out)
{
    int groups = r->prog.n_groups, positions = r->cfg.page_positions, rows = 0, row = 0;
    memset(b, 0, sizeof(*b));
    b->n_groups = groups;
    for (int s = 0; s < n_seqs; s++)
        rows += seqs[s].n_rows;
    assert_true(rows <= r->cfg.max_rows);
    b->seqs = cp_xcalloc((size_t)n_seqs, sizeof(*b->seqs));
    b->tables = cp_xcalloc((size_t)(n_seqs * groups + 1), sizeof(*b->tables));
    b->lists = cp_xcalloc((size_t)(n_seqs * groups + 1), sizeof(*b->lists));
    b->tok = cp_xcalloc((size_t)rows, sizeof(*b->tok));
    b->pos = cp_xcalloc((size_t)rows, sizeof(*b->pos));
    b->row_seq = cp_xcalloc((size_t)rows, sizeof(*b->row_seq));
    b->out_rows = cp_xcalloc((size_t)rows, sizeof(*b->out_rows));
    /* A random permutation of the pages, dealt out. */
    uint32_t *deck = cp_xcalloc(r->cfg.n_pages, sizeof(*deck)), next = 1;
    for (uint32_t i = 1; i < r->cfg.n_pages; i++)
        deck[i] = i;
    for (uint32_t i = r->cfg.n_pages - 1; i > 1; i--) {
        uint32_t j = 1 + (uint32_t)rig_random(r, i), t = deck[i];
        deck[i] = deck[j];
        deck[j] = t;
    }
    for (int s = 0; s < n_seqs; s++) {
        int pages = (seqs[s].pos0 + seqs[s].n_rows + positions - 1) / positions;
        for (int g = 0; g < groups; g++) {
            uint32_t *t = cp_xcalloc((size_t)pages, sizeof(*t));
            for (int i = 0; i < pages; i++) {
                assert_true(next < r->cfg.n_pages);
                t[i] = deck[next++];
                /* What a window has passed is the null page. */
                const cp_kv_group *kv = &r->prog.groups[g];
                if (kv->kind == CP_GROUP_WINDOW &&
                    (i + 1) * positions <= seqs[s].pos0 - kv->window + 1)
                    t[i] = 0;
            }
            b->tables[s * groups + g] = t;
            b->lists[s * groups + g] = t;
        }
        cp_batch_seq q = {.slot = s,
                          .row0 = row,
                          .n_rows = seqs[s].n_rows,
                          .pos0 = seqs[s].pos0,
                          .pages = b->lists + s * groups,
                          .state_in = seqs[s].state_in,
                          .state_out = seqs[s].state_out,
                          .state_save = seqs[s].state_save,
                          .adapter = -1};
        memcpy(&b->seqs[s], &q, sizeof(q));
        for (int i = 0; i < seqs[s].n_rows; i++, row++) {
            b->pos[row] = seqs[s].pos0 + i;
            b->row_seq[row] = s;
            b->tok[row] = (int32_t)rig_random(r, 1u << 20);
            if (all_out || i == seqs[s].n_rows - 1)
                b->out_rows[b->b.n_out++] = row;
        }
    }
    free(deck);
    b->b.n_rows = rows;
    b->b.n_seqs = n_seqs;
    b->b.tok = b->tok;
    b->b.pos = b->pos;
    b->b.row_seq = b->row_seq;
    b->b.out_rows = b->out_rows;
    b->b.seqs = b->seqs;
}

void rig_batch_fini(rig_batch *b)
{
    for (int i = 0; i < b->b.n_seqs * b->n_groups; i++)
        free(b->tables[i]);
    free(b->tables);
    free(b->lists);
    free(b->seqs);
    free(b->tok);
    free(b->pos);
    free(b->row_seq);
    free(b->out_rows);
}
