/* Hyper-parameters of one file, read once from its metadata and checked; private to model/. Keys
 * are the GGUF specification's, ARCH.context_length and so on. */
#ifndef CP_MODEL_HPARAMS_H
#define CP_MODEL_HPARAMS_H

#include "base/meta.h"
#include "model/arch.h"
#include "model/model.h"
#include "model/rope.h"

#define CP_MAX_LAYERS 512

typedef enum cp_mixer_kind {
    CP_MIXER_ATTENTION,
    CP_MIXER_SHORTCONV,
    CP_MIXER_DELTANET
} cp_mixer_kind;
typedef enum cp_ffn_kind { CP_FFN_DENSE, CP_FFN_EXPERTS, CP_FFN_BOTH } cp_ffn_kind;
typedef struct cp_layer_params {
    cp_mixer_kind mixer;
    cp_ffn_kind ffn;
    int n_heads, n_kv; /* n_kv 0: no attention in this layer */
    int d_ff;
    bool window;      /* sliding-window layer */
    int k_dim, v_dim; /* head sizes */
    int kv_from;      /* the layer whose K and V it reads: itself, or an earlier one */
} cp_layer_params;

/* Of all layers with experts; how many there are stands in cp_hparams. */
typedef struct cp_expert_params {
    int n_used, d_ff;
    int d_ff_shared; /* of the shared expert; 0: none */
    int n_groups, n_groups_used;
    cp_gate gate;
    bool normalize;
    float scale;
} cp_expert_params;

typedef struct cp_model_params {
    cp_hparams pub;
    const cp_arch *arch;
    int head_dim_k, head_dim_v, n_rot; /* of full layers */
    int n_rot_window;
    int n_per_layer;  /* width of a layer's own embedding; 0: none */
    int first_reader; /* from this layer on none caches anything of its own; n_layers: there is none
                       */
    float final_softcap;
    float eps;
    double freq_base, freq_base_swa;
    double
        freq_scale; /* 1 / linear factor; applies to full layers only where the arch has windows */
    cp_yarn yarn;   /* of full layers, too */
    int window;     /* positions; 0: none */
    float attn_scale; /* 0: 1 / sqrt(head_dim) */
    cp_expert_params experts;
    int l_cache;          /* short convolution taps; 0: none */
    cp_delta_shape delta; /* of all DeltaNet layers */
    cp_layer_params layer[CP_MAX_LAYERS];
} cp_model_params;

/* Fill p from meta. CP_UNSUPPORTED and CP_CORRUPT as cp_model_open. */
cp_code cp_params_read(cp_model_params *p, const cp_meta *meta, cp_err *err);

#endif
