/* gemma3: text part of Gemma 3 (270M to 27B). Windows of 512 or 1024, every sixth layer full;
 * QK-norm; four norms; the converter has added Gemma's +1 to the norm weights. */
#include "model/hparams.h"

#include <math.h>

static float gemma3_scale(const cp_model_params *p)
{
    /* 27B (62 layers) scales by d_model / n_heads, all others by the head size. */
    double base =
        p->pub.n_layers == 62 ? (double)p->pub.d_model / p->layer[0].n_heads : p->head_dim_k;
    return (float)(1.0 / sqrt(base));
}

const cp_arch cp_arch_gemma3 = {
    .name = "gemma3",
    .covers = "Gemma 3 270M to 27B, FunctionGemma",
    .built = "text; windows, QK-norm, norms behind each branch",
    .real = "gemma-3-270m Q4_K_M: logits and perplexity against transformers in fp32",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_GELU_TANH,
    .embed_sqrt_d = true,
    .qk_norm = true,
    .post_norms = true,
    .window_period = 6,
    .freq_base_swa = 10000.0,
    .final_norm = "output_norm",
    .attn_scale = gemma3_scale,
};
