/*
 * Teacher-forced forwards for tests and oracles: a model file, a backend and plain page tables,
 * without the engine. A cp_forward belongs to one thread. Every page of one sequence is its own,
 * handed out in a drawn order, so that a kernel that ignores the table is caught.
 */
#ifndef CP_TESTS_SUPPORT_FORWARD_H
#define CP_TESTS_SUPPORT_FORWARD_H

#include "kernels/kernels.h"
#include "loader/loader.h"
#include "model/model.h"

typedef struct cp_forward cp_forward;

typedef struct cp_forward_config {
    const char *path;    /* a REF */
    const char *backend; /* "cpu", "ref", "cuda" */
    const char *level;   /* ISA cap; NULL: best */
    bool exact;          /* cuda's, as the next */
    cp_gemm gemm;
    bool act_f32;
    cp_dtype kv_type;
    int threads;
    int max_rows;        /* rows a step */
    int max_positions;   /* longest sequence */
    unsigned seed;       /* order of pages */
    int layers_per_page; /* attention layers a page, instead of what the model has; 0: that */
} cp_forward_config;

/* Opens everything or fails with err. */
cp_code cp_forward_open(cp_forward **out, const cp_forward_config *cfg, cp_err *err);
void cp_forward_close(cp_forward *f);
const cp_model *cp_forward_model(const cp_forward *f);
const cp_backend *cp_forward_backend(const cp_forward *f);
/* Forget the sequence: fresh, zeroed pages. */
void cp_forward_reset(cp_forward *f);
/* Positions >= n of the sequence never were; what was written there stays in its pages. */
void cp_forward_truncate(cp_forward *f, int n);
/* Append tokens[0, n) to the sequence in steps of at most `chunk` rows; logits[n][n_vocab] receives
 * every row's. */
cp_code cp_forward_run(cp_forward *f, const int32_t *tokens, int n, int chunk, float *logits,
                       cp_err *err);

#endif
