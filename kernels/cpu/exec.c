/*
 * The program walker: one step, all workers of the pool, one barrier at the end of most records.
 *
 * The records of a step run in order; each is cut into items drawn by ticket, so a slow worker
 * holds nobody up but at the barrier. Two things save barriers. A LINEAR's prologue (add, norm,
 * quantize) on few rows is done by every worker for itself: cheaper than meeting. Records that only
 * read the batch (EMBED, ROPE) are split by row number and meet after the last of them. So a dense
 * layer in a decode step passes five: qkv, attention, o_proj, gate and up, down.
 */
#include "kernels/cpu/run.h"

#include "base/clock.h"
#include "kernels/quant.h"

#include <string.h>

/* Elements of a prologue that every worker may as well do alone: a few us. */
enum { PROLOGUE_ALONE = 16384 };
/* An item takes milliseconds at most where weights are in memory: the clock need not be read for
 * each. */
enum { ITEMS_A_BEAT = 16 };
/* A step that gives way does so after at most about this, and rarely more often. */
enum { GIVE_WAY_NS = 5000000 };

bool cp_cpu_prologue_alone(int n_rows, int k)
{
    return n_rows == 1 || (int64_t)n_rows * k <= PROLOGUE_ALONE;
}

static void beat(const cpu_worker *w, int64_t now)
{
    if (w->id == 0 && w->batch->beat) /* relaxed: a time to look at, it orders nothing */
        atomic_store_explicit(w->batch->beat, now, memory_order_relaxed);
}

static void beat_by_items(cpu_worker *w)
{
    if (w->id == 0 && w->n_items++ % ITEMS_A_BEAT == 0)
        beat(w, cp_now_ns());
}

int64_t cp_cpu_item(cpu_worker *w, int64_t n)
{
    beat_by_items(w);
    return cp_pool_ticket(w->pool, n, 1);
}

int64_t cp_cpu_weight_item(cpu_worker *w, int64_t n)
{
    beat_by_items(w);
    return cp_pool_share(w->pool, n, &w->share);
}

/* Zeroes and copies. Each worker does its own slice of every page, in list order: a chain of copies
 * stays right. */
static bool pages_first(cpu_worker *w)
{
    cp_prepared *p = w->run->p;
    const cp_batch *b = w->batch;
    if (!b->n_zero_pages && !b->n_copies && !b->n_state_copies)
        return false;
    size_t lines = p->page_bytes / CPU_LINE, id = (size_t)w->id,
           n = (size_t)cp_pool_active(w->pool);
    size_t from = lines * id / n * CPU_LINE, to = lines * (id + 1) / n * CPU_LINE;
    for (int i = 0; i < b->n_zero_pages; i++)
        memset(cp_host_page(p, b->zero_pages[i]) + from, 0, to - from);
    for (int i = 0; i < b->n_copies; i++)
        memcpy(cp_host_page(p, b->copies[i].dst) + from, cp_host_page(p, b->copies[i].src) + from,
               to - from);
    lines = p->state_bytes / CPU_LINE;
    from = lines * id / n * CPU_LINE;
    to = lines * (id + 1) / n * CPU_LINE;
    for (int i = 0; i < b->n_state_copies; i++)
        memcpy(cp_host_state_slot(p, b->state_copies[i].dst) + from,
               cp_host_state_slot(p, b->state_copies[i].src) + from, to - from);
    return true;
}

/* x = (rmsnorm(in) + x) * mix, span by span. */
static void mix(const cpu_worker *w, const cp_op *op, float *x, const float *in, int n)
{
    const cp_prepared *p = w->run->p;
    int span = (int)p->prog->weights[op->u.embed.norm].t->ne[0];
    const float *norm = cp_host_vector(p, op->u.embed.norm);
    for (int at = 0; at < n; at += span)
        w->run->vec->rmsnorm(x + at, in + at, norm, x + at, span, op->u.embed.eps);
    w->run->vec->scale(x, op->u.embed.mix, n);
}

bool cp_cpu_embed(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    cp_prepared *p = w->run->p;
    const cp_tensor *t = p->prog->weights[op->u.embed.table].t;
    for (int r = w->id; r < w->batch->n_rows; r += cp_pool_active(w->pool)) {
        float *x = cp_host_row(p, op->u.embed.out, r);
        int32_t id = w->run->ids.tok[r];
        CP_ASSERT(id >= 0 && id < t->ne[1]);
        cp_dequant_row(t, id, x);
        w->run->vec->scale(x, op->u.embed.scale, (int)t->ne[0]);
        if (op->u.embed.in >= 0)
            mix(w, op, x, cp_host_row(p, op->u.embed.in, r), (int)t->ne[0]);
    }
    return true;
}

bool cp_cpu_rope(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    for (int r = w->id; r < w->batch->n_rows; r += cp_pool_active(w->pool))
        w->run->vec->rope_row(cp_host_row(w->run->p, op->u.rope.out, r), op->u.rope.inv_freq,
                              op->u.rope.n_rot / 2, w->batch->pos[r], op->u.rope.mscale);
    return true;
}

bool cp_cpu_gather(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    cp_prepared *p = w->run->p;
    size_t bytes = (size_t)p->prog->mats[op->u.gather.in].width * sizeof(float);
    for (int i = w->id; i < w->batch->n_out; i += cp_pool_active(w->pool))
        memcpy(cp_host_row(p, op->u.gather.out, i),
               cp_host_row(p, op->u.gather.in, w->batch->out_rows[i]), bytes);
    return true;
}

/* One row: add, scale, norms, x_out when it is this worker's to write, activations. */
static void prologue_row(cpu_worker *w, const cp_op *op, const cp_linear *l, int r, int n,
                         bool mine, void *act)
{
    cp_prepared *p = w->run->p;
    const cp_vec *v = w->run->vec;
    int k = cp_linear_k(l);
    const float *x = cp_host_row(p, op->u.linear.in, r);
    float *keep = op->u.linear.x_out >= 0 && mine ? cp_host_row(p, op->u.linear.x_out, r) : NULL;
    float *sum = keep ? keep : w->s->row[0];
    if (op->u.linear.add >= 0) {
        const float *add = cp_host_row(p, op->u.linear.add, r);
        if (op->u.linear.add_norm >= 0)
            v->rmsnorm(sum, add, cp_host_vector(p, op->u.linear.add_norm), x, k, op->u.linear.eps);
        else
            v->add(sum, x, add, k);
        x = sum;
    } else if (keep || op->u.linear.in_scale != 1.0f) {
        x = memcpy(sum, x, (size_t)k * sizeof(float));
    }
    if (op->u.linear.in_scale != 1.0f)
        v->scale(sum, op->u.linear.in_scale, k);
    if (op->u.linear.norm >= 0) {
        v->rmsnorm(w->s->row[1], x, cp_host_vector(p, op->u.linear.norm), NULL, k,
                   op->u.linear.eps);
        x = w->s->row[1];
    }
    cp_linear_prep_row(l, x, r, n, act);
}

bool cp_cpu_linear(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    cp_prepared *p = w->run->p;
    const cp_linear *l = bound->linear;
    void *act;
    int n = cp_op_rows(op, w->batch), active = cp_pool_active(w->pool);
    if (w->run->threads == 1 || cp_cpu_prologue_alone(n, cp_linear_k(l))) {
        act = w->run->threads == 1 ? w->run->act : w->s->act;
        for (int r = 0; r < n; r++)
            prologue_row(w, op, l, r, n, r % active == w->id, act);
    } else {
        int64_t r;
        act = w->run->act;
        while ((r = cp_cpu_item(w, n)) < n)
            prologue_row(w, op, l, (int)r, n, true, act);
        if (!cp_pool_barrier(w->pool, w->id))
            return false;
    }
    float *out[4] = {0};
    size_t ld[4] = {0};
    for (int i = 0; i < op->u.linear.n_w; i++) {
        cp_mat s = op->u.linear.w[i].out;
        if (s < 0) /* up of a gated record */
            continue;
        out[i] = cp_host_row(p, s, 0);
        ld[i] = p->ld[s];
    }
    const float *mul = NULL;
    size_t ld_mul = 0;
    if (op->u.linear.mul >= 0) {
        mul = cp_host_row(p, op->u.linear.mul, 0) + op->u.linear.mul_at;
        ld_mul = p->ld[op->u.linear.mul];
    }
    int64_t i, items = cp_linear_items(l, n);
    cp_gemm_scratch_begin(w->s->linear);
    while ((i = cp_cpu_weight_item(w, items)) < items)
        cp_linear_item(l, i, n, act, w->s->linear, out, ld, mul, ld_mul);
    return true;
}

bool cp_cpu_shortconv(cpu_worker *w, const cp_op *op, const cpu_op *bound)
{
    (void)bound;
    cp_prepared *p = w->run->p;
    int d = op->u.shortconv.d, chunks = (d + CPU_CONV_LANES - 1) / CPU_CONV_LANES;
    int group = op->u.shortconv.group, layer = op->u.shortconv.layer_in_group;
    int64_t i, n = (int64_t)w->batch->n_seqs * chunks;
    while ((i = cp_cpu_item(w, n)) < n) {
        const cp_batch_seq *q = &w->batch->seqs[i / chunks];
        int c0 = (int)(i % chunks) * CPU_CONV_LANES;
        cp_conv c = {.d = d,
                     .taps = op->u.shortconv.l_cache,
                     .n_rows = q->n_rows,
                     .c0 = c0,
                     .n = d - c0 < CPU_CONV_LANES ? d - c0 : CPU_CONV_LANES,
                     .w = cp_host_vector(p, op->u.shortconv.conv),
                     .x = cp_host_row(p, op->u.shortconv.in, q->row0),
                     .y = cp_host_row(p, op->u.shortconv.out, q->row0),
                     .ld_x = p->ld[op->u.shortconv.in],
                     .ld_y = p->ld[op->u.shortconv.out]};
        if (q->state_in)
            c.in = cp_host_state(p, q->state_in, group, layer);
        if (q->state_out)
            c.out = cp_host_state(p, q->state_out, group, layer);
        if (q->state_save)
            c.save = cp_host_state(p, q->state_save, group, layer);
        w->run->vec->conv(&c);
    }
    return true;
}

static bool reads_batch_only(const cp_op *op)
{
    return (op->kind == CP_OP_EMBED && op->u.embed.in < 0) || op->kind == CP_OP_ROPE;
}

static cpu_op_fn *const fns[CP_OP_COUNT] = {
#define X(kind, name) [CP_OP_##kind] = cp_cpu_##name,
    CP_OPS(X)
#undef X
};

static void walk(cp_pool *pool, int id, void *arg)
{
    cpu_worker *shared = arg;
    cpu_run *run = shared->run;
    cp_prepared *p = run->p;
    cpu_worker w = {
        .run = run, .pool = pool, .id = id, .batch = shared->batch, .s = &run->scratch[id]};
    int64_t then = id == 0 ? cp_now_ns() : 0;
    cp_isa_enter(run->isa);
    int at = cp_pool_join_point(pool); /* > 0: it comes back, with the run at this record */
    int from = at > 0 ? at : shared->from, to = shared->to;
    bool stay = from > 0 || !pages_first(&w) || cp_pool_barrier(pool, id);
    for (int i = from; i < to && stay; i++) {
        const cp_op *op = &p->ops[i];
        if (cp_op_rows(op, w.batch) == 0)
            continue;
        stay = fns[op->kind](&w, op, &run->ops[i]);
        /* The end of the run is the last record's barrier. */
        bool last = i + 1 == to;
        if (stay && !last && !(reads_batch_only(op) && reads_batch_only(op + 1)))
            stay = cp_pool_barrier_join(pool, id, i + 1);
        if (id == 0) {
            int64_t now = cp_now_ns();
            p->op_ns[op->kind] += (uint64_t)(now - then);
            p->op_records[op->kind]++;
            run->busy_ns += now - then;
            then = now;
            beat(&w, now);
        }
    }
    cp_isa_leave(run->isa);
}

/* One run of the pool. */
static void walk_records(cpu_run *run, const cp_batch *batch, int from, int to)
{
    cpu_worker w = {.run = run, .batch = batch, .from = from, .to = to};
    uint64_t before = cp_pool_barriers(run->pool);
    cp_pool_run(run->pool, walk, &w);
    run->p->barriers += cp_pool_barriers(run->pool) - before;
}

/* As many records at a time as take a few milliseconds, found out on the way: whoever waits has the
 * pool in between, for a step of his each time. */
static void walk_giving_way(cpu_run *run, const cp_batch *batch, int from, int to)
{
    int64_t begun = cp_now_ns(), busy = run->busy_ns;
    for (int n = 1; from < to;) {
        int64_t before = run->busy_ns;
        int end = n < to - from ? from + n : to;
        walk_records(run, batch, from, end);
        int64_t took = run->busy_ns - before;
        n = took < GIVE_WAY_NS / 2 ? 2 * n : took > GIVE_WAY_NS && n > 1 ? n / 2 : n;
        from = end;
    }
    *batch->waited_ns += cp_now_ns() - begun - (run->busy_ns - busy);
}

void cp_cpu_walk(cpu_run *run, const cp_batch *batch, int from, int to)
{
    if (batch->waited_ns)
        walk_giving_way(run, batch, from, to);
    else
        walk_records(run, batch, from, to);
}
