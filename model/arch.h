/*
 * arch: an architecture is a row of names and traits. Private to model/.
 *
 * Rows know nothing of a file: model/hparams.h reads one by its row. Adding one takes archs/x.c, a
 * line in CP_ARCHS and a tiny random golden (tests/golden).
 */
#ifndef CP_MODEL_ARCH_H
#define CP_MODEL_ARCH_H

#include "base/meta.h"
#include "kernels/kernels.h"

struct cp_model_params;

typedef struct cp_arch {
    const char *name; /* GGUF general.architecture */
    /* For docs/MODELS.md: which models; what is built of them, and what not. `real`: the weights
     * that were run, and against what; NULL: none can be had, the shapes are real at most. */
    const char *covers, *built, *real;
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
    cp_gate gate;           /* of experts, where the file does not say; 0: no experts */
    bool normalize_experts; /* their weights sum to 1, where the file does not say */
    bool dense_too;         /* beside a dense feed-forward, each under norms of its own */
    bool window_as_full;    /* window layers rotate as full ones do */
    bool yarn_exact;        /* yarn's ramp is not rounded to whole dimensions */
    bool sinks;             /* a logit a head joins the denominators of attention */
    bool short_conv;        /* layers without KV heads are gated short convolutions */
    bool deltanet;          /* layers that are not full attention are Gated DeltaNet */
    bool attn_gate;         /* attn_q gives per head q and the output's gate */
    const char *ffn_norm;   /* the feed-forward's pre-norm without ".weight"; NULL: ffn_norm */
    const char *final_norm; /* tensor name without ".weight" */
    /* Query scale when it is not 1/sqrt(head_dim); NULL: it is. */
    float (*attn_scale)(const struct cp_model_params *p);
} cp_arch;

/* The built rows, X(name of cp_arch_<name>): the one list to extend. */
#define CP_ARCHS(X)                                                                                \
    X(gemma3)                                                                                      \
    X(gemma4)                                                                                      \
    X(gptoss)                                                                                      \
    X(lfm2)                                                                                        \
    X(llama)                                                                                       \
    X(qwen2)                                                                                       \
    X(qwen2moe)                                                                                    \
    X(qwen3)                                                                                       \
    X(qwen35)                                                                                      \
    X(qwen35moe)                                                                                   \
    X(qwen3moe)

#define CP_ARCH_DECLARE(name) extern const cp_arch cp_arch_##name;
CP_ARCHS(CP_ARCH_DECLARE)
#undef CP_ARCH_DECLARE
extern const cp_arch *const cp_archs[]; /* NULL-terminated */
/* The row of a file. CP_CORRUPT: it names none. CP_UNSUPPORTED: an architecture that is not built,
 * by its family's name where it is known (known.c), with the list of those that are; or a file that
 * is no model but belongs to one. */
cp_code cp_arch_find(const cp_arch **out, const cp_meta *meta, cp_err *err);
/* The i-th architecture that is known and not built; NULL: there are i. */
const char *cp_arch_unbuilt(int i);

#endif
