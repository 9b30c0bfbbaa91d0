/*
 * arch: an architecture is a row of names and traits. Private to model/.
 *
 * Rows know nothing of a file: model/hparams.h reads one by its row. Adding one takes archs/x.c, a
 * line in archs.c and a tiny random golden (tests/golden).
 */
#ifndef CP_MODEL_ARCH_H
#define CP_MODEL_ARCH_H

#include "kernels/kernels.h"

struct cp_params;

typedef struct cp_arch {
    const char *name; /* GGUF general.architecture */
    cp_rope_kind rope;
    cp_act act;
    bool embed_sqrt_d; /* embeddings times sqrt(d_model) */
    bool qk_norm;      /* per-head RMSNorm of Q and K before RoPE */
    bool v_norm;       /* per-head RMSNorm of V, without a weight */
    bool k_eq_v;       /* a layer without attn_v takes K, as it was projected, for V */
    bool layer_scale;  /* each layer's output times layer_output_scale, where the file has it */
    bool post_norms;   /* branch outputs are normed before the residual add */
    int window_period; /* default: layer il is full iff il % period == period - 1; 0: no windows */
    double freq_base_swa;   /* default base of window layers */
    bool short_conv;        /* layers without KV heads are gated short convolutions */
    const char *final_norm; /* tensor name without ".weight" */
    /* Query scale when it is not 1/sqrt(head_dim); NULL: it is. */
    float (*attn_scale)(const struct cp_params *p);
} cp_arch;

/* The built rows, NULL-terminated. */
extern const cp_arch *const cp_archs[];
extern const cp_arch cp_arch_llama, cp_arch_gemma3, cp_arch_lfm2;

#endif
