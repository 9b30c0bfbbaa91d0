/*
 * batch: a plan as flat arrays.
 */
#ifndef CP_ENGINE_BATCH_H
#define CP_ENGINE_BATCH_H

#include "engine/state.h"

typedef struct cp_step {
    cp_batch batch;
    int32_t *tok, *pos, *row_seq, *out_rows; /* [max_rows], out_rows [max_out] */
    cp_batch_seq *seqs;                      /* [max_seqs] */
    cp_sample_in *samples;                   /* [max_out] */
    cp_sample_out *results;                  /* [max_out] */
    cp_request **out_request;                /* [max_out] for probes */
    int32_t *out_choice;
    int max_rows, max_out, max_seqs;
} cp_step;
cp_code cp_step_init(cp_step *b, int max_rows, int max_out, int max_seqs, cp_err *err);
void cp_step_fini(cp_step *b);
/* Gather s's plan. Valid until the next call, and until the plan is sent or committed. */
void cp_step_build(cp_step *b, const cp_sched *s);

#endif
