/*
 * blob: what changes from step to step goes to the device in one copy, before the step's first
 * launch, to an address that stays: the cuda_step, and behind it what it points at.
 *
 * It is written to pinned memory first, of which there are two places, so that a step can be filled
 * while nothing of the one before has run; the step before that has ended. Where SAMPLE is enqueued
 * apart a second copy follows, of what was put since and of the header again, out of its own place:
 * the first may not have run. What finds no room (long lists of a request, more pages than usual)
 * stays in pinned memory, where kernels can read it too: slower, and right.
 */
#include "kernels/cuda/run.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum {
    SLOTS = 2,
    PUT_ALIGN = 16,
    USUAL_ENTRIES = 1024, /* pages that a sequence's rows see, in all groups */
    SPARES = 24,          /* each twice the one before it */
    LEAST_SPARE = 1 << 16
};

/* Pinned memory that kernels read where it lies. */
typedef struct spare {
    uint8_t *pinned;
    CUdeviceptr at;
    size_t bytes, used;
} spare;

typedef struct slot {
    uint8_t *pinned; /* [bytes] */
    uint8_t *again;  /* [sizeof(cuda_step)] of the second copy */
    uint8_t *back;   /* [fetch_bytes] what is copied to the host */
    spare spares[SPARES];
    int n_spares;
} slot;

/* Memory that is not of the device: it lives as long as the step. */
typedef struct junk {
    struct junk *next;
    _Alignas(PUT_ALIGN) uint8_t bytes[];
} junk;

struct cuda_blob {
    cp_mem mem;
    size_t bytes, used, copied; /* of mem: put in this step, and enqueued to be copied */
    size_t fetched;             /* of back */
    slot slots[SLOTS];
    int slot;
    junk *junk; /* what found no room anywhere is written here, a piece each */
    cp_err err; /* why */
    bool failed;
};

static size_t round_up(size_t n)
{
    return (n + PUT_ALIGN - 1) / PUT_ALIGN * PUT_ALIGN;
}

size_t cp_cuda_blob_bytes(const cuda_run *run)
{
    const cp_prepare_config *cfg = &run->p->cfg;
    size_t rows = (size_t)cfg->max_rows, seqs = (size_t)cfg->max_seqs;
    size_t groups = (size_t)run->p->prog->n_groups;
    size_t n = round_up(sizeof(cuda_step));
    n += 3 * round_up(rows * sizeof(int32_t)) + round_up((size_t)cfg->max_out * sizeof(int32_t));
    n += round_up(seqs * sizeof(cuda_seq)) + round_up(groups * seqs * sizeof(cuda_table));
    n += seqs * USUAL_ENTRIES * sizeof(uint32_t);
    n += round_up((rows + seqs) * sizeof(uint32_t)); /* zeroed pages */
    n += 2 * round_up(2 * seqs * sizeof(cuda_copy));
    return n + run->put_bytes;
}

/* ---- open, free ---- */

static cp_code open_slot(cuda_run *run, slot *s, size_t bytes, cp_err *err)
{
    cp_code rc = cp_cuda_pinned_take(run->gpu, (void **)&s->pinned, bytes, err);
    if (rc == CP_OK)
        rc = cp_cuda_pinned_take(run->gpu, (void **)&s->again, sizeof(cuda_step), err);
    if (rc == CP_OK && run->fetch_bytes)
        rc = cp_cuda_pinned_take(run->gpu, (void **)&s->back, run->fetch_bytes, err);
    return rc;
}

cp_code cp_cuda_blob_open(cuda_run *run, cp_err *err)
{
    struct cuda_blob *b = run->blob = cp_xcalloc(1, sizeof(*b));
    b->bytes = cp_cuda_blob_bytes(run);
    cp_code rc = cp_cuda_take(run->gpu, &b->mem, b->bytes, false, err);
    if (rc != CP_OK)
        return cp_err_prefix(err, "steps' tables");
    run->step = b->mem.at;
    for (int i = 0; i < SLOTS && rc == CP_OK; i++)
        rc = open_slot(run, &b->slots[i], b->bytes, err);
    return rc;
}

static void free_junk(struct cuda_blob *b)
{
    while (b->junk) {
        junk *next = b->junk->next;
        free(b->junk);
        b->junk = next;
    }
}

void cp_cuda_blob_free(cuda_run *run)
{
    struct cuda_blob *b = run->blob;
    if (!b)
        return;
    for (int i = 0; i < SLOTS; i++) {
        slot *s = &b->slots[i];
        for (int k = 0; k < s->n_spares; k++)
            cp_cuda_pinned_give(run->gpu, s->spares[k].pinned);
        cp_cuda_pinned_give(run->gpu, s->pinned);
        cp_cuda_pinned_give(run->gpu, s->again);
        cp_cuda_pinned_give(run->gpu, s->back);
    }
    if (b->mem.at)
        cp_cuda_give(run->gpu, &b->mem);
    free_junk(b);
    free(b);
    run->blob = NULL;
}

/* ---- put ---- */

void cp_cuda_blob_begin(cuda_run *run)
{
    struct cuda_blob *b = run->blob;
    b->slot = (b->slot + 1) % SLOTS;
    slot *s = &b->slots[b->slot];
    for (int i = 0; i < s->n_spares; i++)
        s->spares[i].used = 0;
    b->used = round_up(sizeof(cuda_step));
    b->copied = b->fetched = 0;
    b->failed = false;
    free_junk(b);
}

/* A spare of the slot with room for n bytes, or NULL with the reason. */
static spare *find_spare(cuda_run *run, slot *s, size_t n, cp_err *err)
{
    for (int i = 0; i < s->n_spares; i++)
        if (s->spares[i].bytes - s->spares[i].used >= n)
            return &s->spares[i];
    if (s->n_spares == SPARES || n > SIZE_MAX / 4) {
        cp_fail(err, CP_NO_MEMORY, "a step's lists take %zu bytes and more", n);
        return NULL;
    }
    spare x = {.bytes = s->n_spares ? 2 * s->spares[s->n_spares - 1].bytes : LEAST_SPARE};
    while (x.bytes < n)
        x.bytes *= 2;
    if (cp_cuda_pinned_take(run->gpu, (void **)&x.pinned, x.bytes, err) != CP_OK)
        return NULL;
    CUresult result = run->gpu->api.pinned_address(&x.at, x.pinned, 0);
    if (cp_cuda_check(run->gpu, result, "pinned_address", err) != CP_OK) {
        cp_cuda_pinned_give(run->gpu, x.pinned);
        return NULL;
    }
    s->spares[s->n_spares] = x;
    return &s->spares[s->n_spares++];
}

static void *room_in_spare(cuda_run *run, size_t n, uint64_t *at)
{
    struct cuda_blob *b = run->blob;
    cp_err err;
    spare *x = find_spare(run, &b->slots[b->slot], round_up(n), &err);
    if (!x) {
        b->err = b->failed ? b->err : err;
        b->failed = true;
        junk *j = cp_xmalloc(sizeof(*j) + n);
        j->next = b->junk;
        b->junk = j;
        *at = b->mem.at;
        return j->bytes;
    }
    void *p = x->pinned + x->used;
    *at = x->at + x->used;
    x->used += round_up(n);
    return p;
}

void *cp_cuda_room(cuda_run *run, size_t n, uint64_t *at)
{
    struct cuda_blob *b = run->blob;
    if (n > b->bytes - b->used)
        return room_in_spare(run, n, at);
    void *p = b->slots[b->slot].pinned + b->used;
    *at = b->mem.at + b->used;
    b->used += round_up(n) < b->bytes - b->used ? round_up(n) : b->bytes - b->used;
    return p;
}

uint64_t cp_cuda_put(cuda_run *run, const void *from, size_t n)
{
    uint64_t at;
    void *to = cp_cuda_room(run, n, &at);
    if (n)
        memcpy(to, from, n);
    return at;
}

/* The header goes with the first copy, in front of what was put. */
cp_code cp_cuda_blob_copy(cuda_run *run, cp_err *err)
{
    struct cuda_blob *b = run->blob;
    slot *s = &b->slots[b->slot];
    if (b->failed)
        return cp_fail(err, b->err.code, "%s", b->err.msg);
    memcpy(b->copied ? s->again : s->pinned, &run->host, sizeof(run->host));
    if (b->copied)
        CUDA_TRY(run->gpu, copy_in(run->step, s->again, sizeof(run->host), run->stream->stream),
                 err);
    if (b->used > b->copied)
        CUDA_TRY(run->gpu,
                 copy_in(b->mem.at + b->copied, s->pinned + b->copied, b->used - b->copied,
                         run->stream->stream),
                 err);
    b->copied = b->used;
    return CP_OK;
}

cp_code cp_cuda_fetch(cuda_run *run, cp_addr from, size_t n, const void **to, cp_err *err)
{
    struct cuda_blob *b = run->blob;
    CP_ASSERT(n <= run->fetch_bytes - b->fetched);
    uint8_t *back = b->slots[b->slot].back + b->fetched;
    CUDA_TRY(run->gpu, copy_out(back, from, n, run->stream->stream), err);
    b->fetched +=
        round_up(n) < run->fetch_bytes - b->fetched ? round_up(n) : run->fetch_bytes - b->fetched;
    *to = back;
    return CP_OK;
}

/* ---- fill ---- */

static uint64_t put_seqs(cuda_run *run, const cp_batch *batch)
{
    uint64_t at;
    cuda_seq *to = cp_cuda_room(run, (size_t)batch->n_seqs * sizeof(*to), &at);
    for (int s = 0; s < batch->n_seqs; s++) {
        const cp_batch_seq *q = &batch->seqs[s];
        to[s] = (cuda_seq){.slot = q->slot,
                           .row0 = q->row0,
                           .n_rows = q->n_rows,
                           .pos0 = q->pos0,
                           .state_in = q->state_in,
                           .state_out = q->state_out,
                           .state_save = q->state_save};
    }
    return at;
}

/* The page ids that a sequence's rows may see. */
static cuda_table table_of(const cp_kv_group *g, const cp_batch_seq *q, int P, int *n)
{
    bool paged = g->kind != CP_GROUP_STATE;
    int window = g->kind == CP_GROUP_WINDOW ? g->window : 0;
    int page0 = paged ? cp_attn_first_visible(window, q->pos0) / P : 0;
    *n = paged ? (q->pos0 + q->n_rows - 1) / P - page0 + 1 : 0;
    return (cuda_table){.page0 = page0};
}

static void put_tables(cuda_run *run, const cp_batch *batch)
{
    const cp_program *prog = run->p->prog;
    int P = run->p->cfg.page_positions, n;
    size_t n_tables = (size_t)prog->n_groups * (size_t)batch->n_seqs, total = 0, i = 0;
    cuda_table *tables = cp_cuda_room(run, n_tables * sizeof(*tables), &run->host.tables);
    for (int g = 0; g < prog->n_groups; g++)
        for (int s = 0; s < batch->n_seqs; s++, i++) {
            tables[i] = table_of(&prog->groups[g], &batch->seqs[s], P, &n);
            tables[i].at = (int32_t)total;
            total += (size_t)n;
        }
    CP_ASSERT(total <= INT32_MAX);
    uint32_t *entries = cp_cuda_room(run, total * sizeof(*entries), &run->host.entries);
    for (int g = 0; g < prog->n_groups; g++)
        for (int s = 0; s < batch->n_seqs; s++) {
            const cp_batch_seq *q = &batch->seqs[s];
            cuda_table t = table_of(&prog->groups[g], q, P, &n);
            if (n > 0)
                memcpy(entries, q->pages[g] + t.page0, (size_t)n * sizeof(*entries));
            entries += n;
        }
}

static uint64_t put_copies(cuda_run *run, const cp_page_copy *from, int n)
{
    uint64_t at;
    cuda_copy *to = cp_cuda_room(run, (size_t)n * sizeof(*to), &at);
    for (int i = 0; i < n; i++)
        to[i] = (cuda_copy){.src = from[i].src, .dst = from[i].dst};
    return at;
}

void cp_cuda_blob_fill(cuda_run *run, const cp_batch *batch)
{
    size_t rows = (size_t)batch->n_rows * sizeof(int32_t);
    cuda_step *h = &run->host;
    *h = (cuda_step){.n_rows = batch->n_rows,
                     .n_seqs = batch->n_seqs,
                     .n_out = batch->n_out,
                     .n_zero_pages = batch->n_zero_pages,
                     .n_copies = batch->n_copies,
                     .n_state_copies = batch->n_state_copies};
    h->tok = cp_cuda_put(run, batch->tok, rows);
    h->pos = cp_cuda_put(run, batch->pos, rows);
    h->row_seq = cp_cuda_put(run, batch->row_seq, rows);
    h->out_rows = cp_cuda_put(run, batch->out_rows, (size_t)batch->n_out * sizeof(int32_t));
    h->seqs = put_seqs(run, batch);
    h->zero_pages = cp_cuda_put(run, batch->zero_pages,
                                (size_t)batch->n_zero_pages * sizeof(*batch->zero_pages));
    h->copies = put_copies(run, batch->copies, batch->n_copies);
    h->state_copies = put_copies(run, batch->state_copies, batch->n_state_copies);
    put_tables(run, batch);
}
