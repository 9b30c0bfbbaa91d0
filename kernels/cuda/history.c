/*
 * history: see history.h.
 */
#include "kernels/cuda/history.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

void cp_cuda_histories_init(cuda_histories *h, int max_seqs, int n_vocab)
{
    *h = (cuda_histories){.max_seqs = max_seqs, .n_vocab = n_vocab};
    h->tenants = cp_xcalloc((size_t)max_seqs, sizeof(*h->tenants));
    h->changed = cp_xcalloc((size_t)max_seqs, sizeof(*h->changed));
}

void cp_cuda_histories_fini(cuda_histories *h)
{
    for (int i = 0; h->tenants && i < h->max_seqs; i++)
        free(h->tenants[i].ids);
    free(h->tenants);
    free(h->changed);
    free(h->seen);
}

void cp_cuda_histories_begin(cuda_histories *h)
{
    h->step++;
    h->n_changed = 0;
}

void cp_cuda_histories_end(cuda_histories *h)
{
    h->collected = h->step;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* Entry i of a list of `seen`, which has room for n. */
static void list_ids(cuda_histories *h, size_t *n, const int32_t *ids, int from, int to,
                     int n_prompt, int change)
{
    for (int i = from; i < to; i++)
        if (ids[i] == CP_TOK_PREV || (ids[i] >= 0 && ids[i] < h->n_vocab))
            h->seen[(*n)++] = (cuda_seen){.id = ids[i], .change = i < n_prompt ? 0 : change};
}

static void reserve(cuda_histories *h, size_t n)
{
    if (n <= h->capacity)
        return;
    h->capacity = 2 * n;
    h->seen = cp_xrealloc(h->seen, h->capacity * sizeof(*h->seen));
}

/* How many of a row's ids are those that the device has counted, and stay so. */
static int common(const cuda_tenant *t, const cp_batch_seq *q, const cp_sample_in *in, int n)
{
    int most = min_int(t->n, n), same = min_int(most, q->pos0);
    while (same < most && t->ids[same] == in->tokens[same])
        same++;
    return same;
}

/* The slot's history becomes ids [0, n) of the row's. */
static void follow(cuda_histories *h, cuda_run *run, const cp_batch_seq *q, const cp_sample_in *in,
                   int n)
{
    cuda_tenant *t = &h->tenants[q->slot];
    /* what a step brought that never came to its end may not have been counted */
    bool known =
        t->step && t->step <= h->collected && t->epoch == q->epoch && t->n_prompt == in->n_prompt;
    int same = known ? common(t, q, in, n) : 0;
    bool clear = !known || (same < t->n && same < t->n_prompt);
    size_t n_seen = 0;
    same = clear ? 0 : same;
    reserve(h, (size_t)(t->n - same) + (size_t)(n - same));
    if (!clear)
        list_ids(h, &n_seen, t->ids, same, t->n, 0, -1);
    list_ids(h, &n_seen, in->tokens, same, n, in->n_prompt, 1);
    if (clear || n_seen)
        h->changed[h->n_changed++] =
            (cuda_history){.slot = q->slot,
                           .clear = clear,
                           .n = (int32_t)n_seen,
                           .seen = cp_cuda_put(run, h->seen, n_seen * sizeof(*h->seen))};
    if (n > t->capacity) {
        t->capacity = 2 * n;
        t->ids = cp_xrealloc(t->ids, (size_t)t->capacity * sizeof(*t->ids));
    }
    if (n > same)
        memcpy(t->ids + same, in->tokens + same, (size_t)(n - same) * sizeof(*t->ids));
    t->n = n;
    t->n_prompt = in->n_prompt;
    t->epoch = q->epoch;
    t->step = h->step;
    t->tokens = in->tokens;
}

void cp_cuda_histories_row(cuda_histories *h, cuda_run *run, const cp_batch_seq *q,
                           const cp_sample_in *in, cuda_sample *row)
{
    cuda_tenant *t = &h->tenants[q->slot];
    size_t n_seen = 0;
    int from = in->n_tokens; /* what comes with the row */
    if (t->step != h->step) {
        while (from > 0 && in->tokens[from - 1] == CP_TOK_PREV)
            from--;
        follow(h, run, q, in, from);
    } else {
        bool ours = in->n_tokens >= t->n && in->n_prompt == t->n_prompt;
        if (ours && in->tokens != t->tokens)
            ours = memcmp(in->tokens, t->ids, (size_t)t->n * sizeof(*t->ids)) == 0;
        from = ours ? t->n : 0;
    }
    row->of_slot = from > 0;
    reserve(h, (size_t)(in->n_tokens - from));
    list_ids(h, &n_seen, in->tokens, from, in->n_tokens, in->n_prompt, 1);
    row->n_seen = (int32_t)n_seen;
    if (n_seen)
        row->seen = cp_cuda_put(run, h->seen, n_seen * sizeof(*h->seen));
}
