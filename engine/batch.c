/*
 * batch: the plan as flat arrays for the backend.
 *
 * Rebuilt each step from the sequences, never the state itself. Rows of a sequence are contiguous
 * and ascend in position; sequences stand oldest first. Pages are passed as pointers to the
 * kv-cache's own tables, tokens and bans as pointers to the sequences': nothing changes them until
 * the step is over, or until cp_sched_sent, where the backend has taken copies by then.
 */
#include "engine/batch.h"
#include "base/mem.h"
#include "engine/sampler.h"

#include <stdlib.h>

cp_code cp_step_init(cp_step *b, int max_rows, int max_out, int max_seqs, cp_err *err)
{
    size_t rows = (size_t)max_rows, outs = (size_t)max_out, seqs = (size_t)max_seqs;
    *b = (cp_step){.max_rows = max_rows, .max_out = max_out, .max_seqs = max_seqs};
    b->tok = calloc(rows, sizeof(*b->tok));
    b->pos = calloc(rows, sizeof(*b->pos));
    b->row_seq = calloc(rows, sizeof(*b->row_seq));
    b->out_rows = calloc(outs, sizeof(*b->out_rows));
    b->seqs = calloc(seqs, sizeof(*b->seqs));
    b->samples = calloc(outs, sizeof(*b->samples));
    b->results = calloc(outs, sizeof(*b->results));
    b->out_request = calloc(outs, sizeof(cp_request *));
    b->out_choice = calloc(outs, sizeof(*b->out_choice));
    if (!b->tok || !b->pos || !b->row_seq || !b->out_rows || !b->seqs || !b->samples ||
        !b->results || !b->out_request || !b->out_choice) {
        cp_step_fini(b);
        return cp_fail(err, CP_NO_MEMORY, "no memory for a batch of %d rows, %d outputs", max_rows,
                       max_out);
    }
    return CP_OK;
}

void cp_step_fini(cp_step *b)
{
    free(b->tok);
    free(b->pos);
    free(b->row_seq);
    free(b->out_rows);
    free(b->seqs);
    free(b->samples);
    free(b->results);
    free(b->out_request);
    free(b->out_choice);
    *b = (cp_step){0};
}

/* Rows and outputs of the i-th sequence of the plan, from row n on. */
static void add_seq(cp_step *b, const cp_sched *s, int i, int n)
{
    const cp_seq *q = s->plan[i];
    int end = q->n_done + q->rows, first = end - q->outs, o = q->out0;
    cp_batch_seq *bs = &b->seqs[i];
    *bs = (cp_batch_seq){.slot = q->slot,
                         .epoch = CP_PLANTED(125) ? 0 : (uint32_t)q->gen,
                         .row0 = n,
                         .n_rows = q->rows,
                         .pos0 = q->n_done,
                         .tokens = q->tokens,
                         .n_tokens = q->n_known + q->n_pending + q->n_spec,
                         .pages = cp_kv_tables(s->kv, q->kv),
                         .adapter = -1};
    cp_kv_state(s->kv, q->kv, &bs->state_in, &bs->state_out, &bs->state_save);
    for (int p = q->n_done; p < end; p++, n++) {
        b->tok[n] = q->tokens[p];
        b->pos[n] = CP_PLANTED(103) && q->rows > 2 ? p + 1 : p;
        b->row_seq[n] = i;
        if (p < first)
            continue;
        cp_sample_fill(&b->samples[o], q, p);
        b->out_request[o] = q->task->r;
        b->out_choice[o] = q->choice;
        b->out_rows[o++] = n;
    }
}

void cp_step_build(cp_step *b, const cp_sched *s)
{
    int n = 0, o = 0;
    CP_ASSERT(s->plan_rows <= b->max_rows && s->plan_outs <= b->max_out && "sched-2");
    for (int i = 0; i < s->n_plan; i++) {
        CP_ASSERT(s->plan[i]->out0 == o && "sched-3");
        add_seq(b, s, i, n);
        n += s->plan[i]->rows;
        o += s->plan[i]->outs;
    }
    CP_ASSERT(n == s->plan_rows && o == s->plan_outs && "sched-3");
    b->batch = (cp_batch){.n_rows = n,
                          .n_seqs = s->n_plan,
                          .n_out = o,
                          .tok = b->tok,
                          .pos = b->pos,
                          .row_seq = b->row_seq,
                          .out_rows = b->out_rows,
                          .seqs = b->seqs,
                          .samples = b->samples,
                          .results = b->results};
    uint32_t n_fresh;
    b->batch.zero_pages = cp_kv_fresh(s->kv, &n_fresh);
    b->batch.n_zero_pages = (int)n_fresh;
    b->batch.copies = cp_kv_copies(s->kv, &b->batch.n_copies);
}
