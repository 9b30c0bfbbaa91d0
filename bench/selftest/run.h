/*
 * run: a model of shape.h prepared on a backend, and steps of it. Internal to bench/selftest.
 */
#ifndef CP_BENCH_SELFTEST_RUN_H
#define CP_BENCH_SELFTEST_RUN_H

#include "bench/selftest/shape.h"

typedef struct self_run {
    const self_model *m;
    cp_prepared *p;
    cp_prepare_config cfg;
    uint32_t *pages; /* [max_seqs][pages of a sequence], ids */
    int n_pages;     /* of a sequence */
    float *logits;   /* [max_out][vocab] of the last step */
} self_run;

/* Sequences of at most max_pos positions each. */
cp_code cp_self_run_open(self_run *r, cp_backend *b, const self_model *m, int max_rows,
                         int max_seqs, int max_pos, cp_err *err);
void cp_self_run_close(self_run *r);

typedef struct self_part_of_step {
    int slot, pos0, n_rows;
} self_part_of_step;
/* One step: rows of sequences, whose ids follow from slot and position; the last row of each wants
 * an output where the model has any. logits: into r->logits. */
cp_code cp_self_run_step(self_run *r, const self_part_of_step *parts, int n, bool logits,
                         cp_err *err);
/* Seconds of the middle one of n such steps, after one that warms up. */
cp_code cp_self_run_time(self_run *r, const self_part_of_step *parts, int n_parts, int n,
                         double *seconds, cp_err *err);
/* Seconds of a step that only copies n pages. */
cp_code cp_self_run_copies(self_run *r, int n, double *seconds, cp_err *err);

#endif
