/*
 * SAMPLE: see sample.cu. What rows want is put as they want it, but for what the host can say as
 * well (1 / temperature, log(min_p), the random bits), and biases and bans, which become one list
 * by id. Results lie in pinned memory when the step has ended.
 */
#include "kernels/cuda/sampling.h"

#include "base/mem.h"
#include "kernels/cuda/bind.h"
#include "kernels/cuda/history.h"

#include <stdlib.h>
#include <string.h>

enum { USUAL_CHANGES = 32, PART_ALIGN = 256 };

typedef struct kernels {
    cuda_kernel history, scan, pick;
} kernels;

typedef struct ordered {
    int32_t id;
    int place; /* in its list */
    float add;
} ordered;

/* run->sample */
typedef struct sampling {
    kernels kernels;
    cuda_sample_args args;
    cuda_histories histories;
    cuda_sample *rows;   /* [max_out] */
    int *keeper;         /* [max_seqs] the row whose id a slot keeps; -1 */
    const void *results; /* of the step in flight */
    ordered *ordered;    /* scratch */
    cuda_change *changes;
    int capacity; /* of both */
} sampling;

/* Where everything lies in the scratch, and how much there is. */
typedef struct parts {
    size_t changed, raw_max, changed_max, chunk_max, chunk_sum, results, total;
} parts;

static size_t after(size_t at, size_t n)
{
    return (at + n + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
}

static int chunks_of(int n_vocab)
{
    return (n_vocab + CP_SAMPLE_CHUNK - 1) / CP_SAMPLE_CHUNK;
}

static int blocks_of(int n_vocab)
{
    return (n_vocab + CUDA_SAMPLE_BLOCK - 1) / CUDA_SAMPLE_BLOCK;
}

/* A row of counts: whole fours. */
static size_t counts_of(int n_vocab)
{
    return ((size_t)n_vocab + 3) / 4 * 4;
}

static parts parts_of(const cuda_run *run, const cp_op *op)
{
    const cp_prepared *p = run->p;
    size_t rows = (size_t)p->cfg.max_out;
    size_t chunks = rows * (size_t)chunks_of(p->prog->n_vocab) * sizeof(float);
    size_t blocks = rows * (size_t)blocks_of(p->prog->n_vocab) * sizeof(float);
    parts s = {0};
    s.raw_max = after(s.changed, rows * p->ld[op->u.sample.logits] * sizeof(float));
    s.changed_max = after(s.raw_max, blocks);
    s.chunk_max = after(s.changed_max, blocks);
    s.chunk_sum = after(s.chunk_max, chunks);
    s.results = after(s.chunk_sum, chunks);
    s.total = after(s.results, rows * sizeof(cuda_sample_out));
    return s;
}

static size_t kept_bytes(const cuda_run *run)
{
    const cp_prepared *p = run->p;
    return (size_t)p->cfg.max_seqs * counts_of(p->prog->n_vocab) * sizeof(uint32_t);
}

cp_code cp_cuda_measure_sample(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepare_config *cfg = &run->p->cfg;
    size_t *kept = o->own = cp_xcalloc(1, sizeof(*kept));
    (void)err;
    cp_cuda_want(run, parts_of(run, op).total);
    *kept = cp_cuda_keep(run, kept_bytes(run));
    cp_cuda_want_fetch(run, (size_t)cfg->max_out * sizeof(cuda_sample_out));
    cp_cuda_want_put(run, sizeof(cuda_samples));
    cp_cuda_want_put(run, (size_t)cfg->max_out * sizeof(cuda_sample));
    cp_cuda_want_put(run, (size_t)cfg->max_seqs * sizeof(cuda_history));
    for (int i = 0; i < cfg->max_out; i++) {
        cp_cuda_want_put(run, USUAL_CHANGES * sizeof(cuda_change));
        cp_cuda_want_put(run, 2 * USUAL_CHANGES * sizeof(cuda_seen));
        cp_cuda_want_put(run, (size_t)(run->p->prog->n_vocab + 31) / 32 * sizeof(uint32_t));
    }
    return CP_OK;
}

static cp_code find_kernels(cuda_run *run, kernels *k, cp_err *err)
{
    cp_code rc = cp_cuda_kernel(run, "k_sample_history", &k->history, err);
    if (rc == CP_OK)
        rc = cp_cuda_kernel(run, "k_sample_scan", &k->scan, err);
    return rc == CP_OK ? cp_cuda_kernel(run, "k_sample_pick", &k->pick, err) : rc;
}

cp_code cp_cuda_bind_sample(cuda_run *run, const cp_op *op, cuda_op *o, cp_err *err)
{
    const cp_prepared *p = run->p;
    int n_vocab = p->prog->n_vocab;
    parts at = parts_of(run, op);
    size_t rows = (size_t)p->cfg.max_out;
    sampling *s = run->sample = cp_xcalloc(1, sizeof(*s));
    s->args = (cuda_sample_args){.step = run->step,
                                 .logits = p->mats[op->u.sample.logits],
                                 .changed = run->scratch.at + at.changed,
                                 .raw_max = run->scratch.at + at.raw_max,
                                 .changed_max = run->scratch.at + at.changed_max,
                                 .chunk_max = run->scratch.at + at.chunk_max,
                                 .chunk_sum = run->scratch.at + at.chunk_sum,
                                 .counts = run->kept.at + *(const size_t *)o->own,
                                 .last = run->last,
                                 .results = run->scratch.at + at.results,
                                 .ld = cp_cuda_ld(run, op->u.sample.logits),
                                 .ld_counts = (int32_t)counts_of(n_vocab),
                                 .n_vocab = n_vocab,
                                 .n_chunks = chunks_of(n_vocab),
                                 .n_blocks = blocks_of(n_vocab)};
    cp_cuda_histories_init(&s->histories, p->cfg.max_seqs, n_vocab);
    s->rows = cp_xcalloc(rows + 1, sizeof(*s->rows));
    s->keeper = cp_xcalloc((size_t)p->cfg.max_seqs, sizeof(*s->keeper));
    return find_kernels(run, &s->kernels, err);
}

void cp_cuda_sample_fini(cuda_run *run)
{
    sampling *s = run->sample;
    if (!s)
        return;
    cp_cuda_histories_fini(&s->histories);
    free(s->rows);
    free(s->keeper);
    free(s->ordered);
    free(s->changes);
    free(s);
    run->sample = NULL;
}

/* ---- fill ---- */

static int by_id(const void *a, const void *b)
{
    const ordered *s = a, *t = b;
    if (s->id != t->id)
        return s->id < t->id ? -1 : 1;
    return s->place < t->place ? -1 : s->place > t->place;
}

static void reserve(sampling *s, int n)
{
    if (n <= s->capacity)
        return;
    s->capacity = 2 * n;
    s->ordered = cp_xrealloc(s->ordered, (size_t)s->capacity * sizeof(*s->ordered));
    s->changes = cp_xrealloc(s->changes, (size_t)s->capacity * sizeof(*s->changes));
}

/* Biases, then bans, by id. */
static void put_changes(cuda_run *run, const cp_sample_in *in, cuda_sample *row)
{
    sampling *s = run->sample;
    int n = 0, n_vocab = run->p->prog->n_vocab;
    reserve(s, in->n_bias + in->n_banned);
    for (int i = 0; i < in->n_bias; i++)
        if (in->bias[i].id >= 0 && in->bias[i].id < n_vocab) {
            s->ordered[n] = (ordered){in->bias[i].id, n, in->bias[i].bias};
            n++;
        }
    for (int i = 0; i < in->n_banned; i++)
        if (in->banned[i] >= 0 && in->banned[i] < n_vocab) {
            s->ordered[n] = (ordered){in->banned[i], n, -INFINITY};
            n++;
        }
    if (n == 0)
        return;
    qsort(s->ordered, (size_t)n, sizeof(*s->ordered), by_id);
    for (int i = 0; i < n; i++)
        s->changes[i] = (cuda_change){s->ordered[i].id, s->ordered[i].add};
    row->n_changes = n;
    row->changes = cp_cuda_put(run, s->changes, (size_t)n * sizeof(*s->changes));
}

static void fill_row(cuda_run *run, const cp_batch_seq *q, const cp_sample_in *in, cuda_sample *row)
{
    sampling *s = run->sample;
    bool greedy = !(in->temperature >= CP_SAMPLE_GREEDY);
    *row =
        (cuda_sample){.temperature = in->temperature,
                      .inv_t = greedy ? 0.0f : 1.0f / in->temperature,
                      .z_min = in->min_p > CP_SAMPLE_MIN_P ? cp_logf(in->min_p) : -INFINITY,
                      .top_p = in->top_p,
                      .repetition = in->repetition,
                      .presence = in->presence,
                      .frequency = in->frequency,
                      .top_k = in->top_k,
                      .target = in->target,
                      .n_top = in->n_top < CP_MAX_TOP ? in->n_top : CP_MAX_TOP,
                      .slot = q->slot,
                      .greedy = greedy,
                      .random = greedy ? 0 : cp_sample_random(in->seed, in->choice, in->position)};
    if (in->target >= 0)
        return;
    row->penalties = in->repetition != 1.0f || in->presence != 0.0f || in->frequency != 0.0f;
    if (row->penalties)
        cp_cuda_histories_row(&s->histories, run, q, in, row);
    put_changes(run, in, row);
    if (in->mask)
        row->mask = cp_cuda_put(run, in->mask,
                                (size_t)(run->p->prog->n_vocab + 31) / 32 * sizeof(uint32_t));
}

cp_code cp_cuda_sample_fill(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    sampling *s = run->sample;
    (void)err;
    if (!batch->samples)
        return CP_OK;
    for (int i = 0; i < run->p->cfg.max_seqs; i++)
        s->keeper[i] = -1;
    cp_cuda_histories_begin(&s->histories);
    for (int o = 0; o < batch->n_out; o++) {
        const cp_batch_seq *q = &batch->seqs[batch->row_seq[batch->out_rows[o]]];
        fill_row(run, q, &batch->samples[o], &s->rows[o]);
        if (s->rows[o].target < 0)
            s->keeper[q->slot] = o;
    }
    for (int i = 0; i < run->p->cfg.max_seqs; i++)
        if (s->keeper[i] >= 0)
            s->rows[s->keeper[i]].keeps = 1;
    cuda_samples all = {.n_rows = batch->n_out,
                        .n_histories = s->histories.n_changed,
                        .rows = cp_cuda_put(run, s->rows, (size_t)batch->n_out * sizeof(*s->rows)),
                        .histories =
                            cp_cuda_put(run, s->histories.changed,
                                        (size_t)s->histories.n_changed * sizeof(cuda_history))};
    run->host.samples = cp_cuda_put(run, &all, sizeof(all));
    return CP_OK;
}

/* ---- enqueue, collect ---- */

cp_code cp_cuda_enqueue_sample(cuda_run *run, const cp_op *op, const cuda_op *o,
                               const cp_batch *batch, cp_err *err)
{
    sampling *s = run->sample;
    const cuda_sample_args *a = &s->args;
    unsigned rows = (unsigned)batch->n_out;
    (void)op;
    (void)o;
    if (!batch->samples || !rows)
        return CP_OK;
    cp_code rc =
        cp_cuda_launch(run, s->kernels.history, (cuda_dim){(unsigned)s->histories.n_changed, 1, 1},
                       (cuda_dim){CUDA_HISTORY_THREADS, 1, 1}, 0, a, err);
    if (rc == CP_OK)
        rc = cp_cuda_launch(run, s->kernels.scan, (cuda_dim){(unsigned)a->n_chunks, rows, 1},
                            (cuda_dim){CUDA_SCAN_THREADS, 1, 1}, 0, a, err);
    if (rc == CP_OK)
        rc = cp_cuda_launch(run, s->kernels.pick, (cuda_dim){rows, 1, 1},
                            (cuda_dim){CUDA_PICK_THREADS, 1, 1}, 0, a, err);
    return rc == CP_OK
               ? cp_cuda_fetch(run, a->results, rows * sizeof(cuda_sample_out), &s->results, err)
               : rc;
}

static cp_sample_out result_of(const cuda_sample_out *r)
{
    cp_sample_out out = {
        .id = r->id, .logprob = r->logprob, .n_top = r->n_top, .finite = r->finite != 0};
    for (int i = 0; i < r->n_top; i++) {
        out.top[i].id = r->top_id[i];
        out.top[i].logprob = r->top_logprob[i];
    }
    return out;
}

cp_code cp_cuda_sample_collect(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    sampling *s = run->sample;
    const cuda_sample_out *results = s->results;
    (void)err;
    for (int o = 0; o < batch->n_out && batch->samples; o++)
        batch->results[o] = result_of(&results[o]);
    if (batch->samples)
        cp_cuda_histories_end(&s->histories);
    return CP_OK;
}
