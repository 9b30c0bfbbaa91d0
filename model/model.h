/*
 * model: from mapped tensors and metadata to a forward program.
 *
 * A cp_model is built once per loaded model and immutable: any thread may read it; it borrows the
 * cp_loaded. Architectures are rows (archs/x.c): names, traits, weight names; the builder turns a
 * row and the hyper-parameters into the program. Nothing here computes.
 */
#ifndef CP_MODEL_MODEL_H
#define CP_MODEL_MODEL_H

#include "base/code.h"
#include "kernels/kernels.h"
#include "loader/loader.h"

typedef struct cp_model cp_model;

/* Numbers that others need. Lengths in elements or positions. */
typedef struct cp_hparams {
    char arch[32];
    char name[128]; /* general.name, or "" */
    int n_layers, d_model, n_vocab;
    int ctx_train; /* the file's context_length */
    int n_heads_max, n_kv_max;
    uint64_t n_params;
    /* What a model may have beside: 0 where it has none. */
    int n_experts, n_experts_used, n_experts_shared;
    int window, n_window_layers; /* positions; layers that see no more */
    int n_state_layers;          /* recurrent ones */
    size_t state_bytes;          /* of a sequence, over all of them */
    int n_mtp;                   /* blocks that guess further tokens: skipped */
} cp_hparams;

/* Errors: CP_UNSUPPORTED (architecture or feature, with the list of what is built), CP_CORRUPT (a
 * missing key or tensor, a shape that differs: named). */
cp_code cp_model_open(cp_model **out, const cp_loaded *file, cp_err *err);
void cp_model_close(cp_model *m);
/* What a file's metadata alone says: all of cp_hparams but n_vocab and n_params. Errors as
 * cp_model_open's; what was read until then stands in out. */
cp_code cp_model_recognise(cp_hparams *out, const cp_meta *meta, cp_err *err);
const cp_hparams *cp_model_hparams(const cp_model *m);
const cp_program *cp_model_program(const cp_model *m);
/* Name of the i-th architecture that is built; NULL: there are i. */
const char *cp_model_arch(int i);

#endif
