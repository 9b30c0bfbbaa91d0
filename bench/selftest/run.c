/* run: see run.h. */
#include "bench/selftest/run.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

cp_code cp_self_run_open(self_run *r, cp_backend *b, const self_model *m, int max_rows,
                         int max_seqs, int max_pos, cp_err *err)
{
    int P = cp_backend_page_positions(b);
    memset(r, 0, sizeof(*r));
    r->m = m;
    r->n_pages = (max_pos + P - 1) / P;
    r->cfg = (cp_prepare_config){.max_rows = max_rows,
                                 .max_out = max_seqs,
                                 .max_seqs = max_seqs,
                                 .page_positions = P,
                                 .n_pages = (uint32_t)(1 + max_seqs * r->n_pages),
                                 .n_state_slots = 1,
                                 .kv_type = CP_DTYPE_BF16};
    cp_code rc = cp_backend_prepare(b, &m->prog, &r->cfg, &r->p, err);
    if (rc != CP_OK)
        return rc;
    r->pages = cp_xcalloc((size_t)max_seqs * (size_t)r->n_pages, sizeof(*r->pages));
    for (int i = 0; i < max_seqs * r->n_pages; i++) /* neighbours do not lie side by side */
        r->pages[i] = (uint32_t)(1 + (i % r->n_pages) * max_seqs + i / r->n_pages);
    r->logits = cp_xcalloc((size_t)max_seqs * (size_t)m->prog.n_vocab + 1, sizeof(float));
    return CP_OK;
}

void cp_self_run_close(self_run *r)
{
    cp_prepared_free(r->p);
    free(r->pages);
    free(r->logits);
    memset(r, 0, sizeof(*r));
}

/* What a batch points at. */
typedef struct arrays {
    int32_t *tok, *pos, *row_seq, *out_rows;
    cp_batch_seq *seqs;
    const uint32_t **pages;
    cp_sample_in *samples;
    cp_sample_out *results;
} arrays;

static int32_t id_at(const self_run *r, int slot, int pos)
{
    return (int32_t)((uint32_t)(pos * 31 + slot * 7 + 3) % (uint32_t)r->m->shape.vocab);
}

static void fill_seq(const self_run *r, const self_part_of_step *part, int s, arrays *a,
                     cp_batch *b)
{
    cp_batch_seq *q = &a->seqs[s];
    a->pages[s] = r->pages + (size_t)part->slot * (size_t)r->n_pages;
    *q = (cp_batch_seq){.slot = part->slot,
                        .epoch = 1,
                        .row0 = b->n_rows,
                        .n_rows = part->n_rows,
                        .pos0 = part->pos0,
                        .pages = &a->pages[s],
                        .adapter = -1};
    for (int i = 0; i < part->n_rows; i++) {
        int row = b->n_rows++;
        a->pos[row] = part->pos0 + i;
        a->row_seq[row] = s;
        a->tok[row] = r->m->shape.vocab ? id_at(r, part->slot, part->pos0 + i) : 0;
    }
    if (r->m->prog.logits < 0)
        return;
    a->samples[b->n_out] =
        (cp_sample_in){.repetition = 1.0f, .top_p = 1.0f, .target = -1, .n_top = -1};
    a->out_rows[b->n_out++] = b->n_rows - 1;
}

static cp_code run_batch(self_run *r, const cp_batch *b, cp_err *err)
{
    cp_code rc = cp_backend_submit(r->p, b, err);
    return rc == CP_OK ? cp_backend_collect(r->p, err) : rc;
}

cp_code cp_self_run_step(self_run *r, const self_part_of_step *parts, int n, bool logits,
                         cp_err *err)
{
    size_t rows = (size_t)r->cfg.max_rows, seqs = (size_t)r->cfg.max_seqs;
    arrays a = {.tok = cp_xcalloc(rows, sizeof(int32_t)),
                .pos = cp_xcalloc(rows, sizeof(int32_t)),
                .row_seq = cp_xcalloc(rows, sizeof(int32_t)),
                .out_rows = cp_xcalloc(seqs, sizeof(int32_t)),
                .seqs = cp_xcalloc(seqs, sizeof(cp_batch_seq)),
                .pages = cp_xcalloc(seqs, sizeof(*a.pages)),
                .samples = cp_xcalloc(seqs, sizeof(cp_sample_in)),
                .results = cp_xcalloc(seqs, sizeof(cp_sample_out))};
    cp_batch b = {.tok = a.tok,
                  .pos = a.pos,
                  .row_seq = a.row_seq,
                  .out_rows = a.out_rows,
                  .seqs = a.seqs,
                  .n_seqs = n,
                  .samples = a.samples,
                  .results = a.results,
                  .logits_copy = logits ? r->logits : NULL};
    for (int s = 0; s < n; s++)
        fill_seq(r, &parts[s], s, &a, &b);
    cp_code rc = run_batch(r, &b, err);
    free(a.tok);
    free(a.pos);
    free(a.row_seq);
    free(a.out_rows);
    free(a.seqs);
    free(a.pages);
    free(a.samples);
    free(a.results);
    return rc;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { TIMES = 64 };

cp_code cp_self_run_time(self_run *r, const self_part_of_step *parts, int n_parts, int n,
                         double *seconds, cp_err *err)
{
    double took[TIMES];
    n = n < TIMES ? n : TIMES;
    for (int i = -1; i < n; i++) {
        int64_t t0 = cp_now_ns();
        cp_code rc = cp_self_run_step(r, parts, n_parts, false, err);
        if (rc != CP_OK)
            return rc;
        if (i >= 0)
            took[i] = (double)(cp_now_ns() - t0) * 1e-9;
    }
    qsort(took, (size_t)n, sizeof(took[0]), by_size);
    *seconds = took[n / 2];
    return CP_OK;
}

cp_code cp_self_run_copies(self_run *r, int n, double *seconds, cp_err *err)
{
    cp_page_copy *copies = cp_xcalloc((size_t)n + 1, sizeof(*copies));
    uint32_t half = (r->cfg.n_pages - 1) / 2;
    for (int i = 0; i < n; i++)
        copies[i] = (cp_page_copy){1 + (uint32_t)i % half, 1 + half + (uint32_t)i % half};
    cp_batch b = {.copies = copies, .n_copies = n};
    double best = 1e9;
    cp_code rc = CP_OK;
    for (int i = 0; i < 5 && rc == CP_OK; i++) {
        int64_t t0 = cp_now_ns();
        rc = run_batch(r, &b, err);
        double s = (double)(cp_now_ns() - t0) * 1e-9;
        best = s < best ? s : best;
    }
    free(copies);
    *seconds = best;
    return rc;
}
