/* gemma4: text part of Gemma 4 (E2B to 31B). Window and full layers differ in head size and
 * KV heads; the last layers may share the caches of earlier ones; E2B and E4B add an embedding of
 * its own to each layer. Norm weights are stored plain. Partial rotation of full layers stands in
 * the file's rope_freqs. The 26B's experts stand beside a dense feed-forward. */
#include "model/arch.h"

static float gemma4_scale(const struct cp_model_params *p)
{
    (void)p;
    return 1.0f;
}

const cp_arch cp_arch_gemma4 = {
    .name = "gemma4",
    .covers = "Gemma 4 E2B, E4B, 12B, 26B-A4B and 31B",
    .built =
        "text; windows with head sizes of their own, shared caches, an embedding of each layer's "
        "own, K for V, experts beside a dense feed-forward",
    .real = "random ones at the E2B's shapes, Q4_0: prompt and ids as in llama.cpp, "
            "log-probabilities 0.001 apart at most",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_GELU_TANH,
    .embed_sqrt_d = true,
    .qk_norm = true,
    .v_norm = true,
    .k_eq_v = true,
    .layer_scale = true,
    .post_norms = true,
    .gate = CP_GATE_SOFTMAX,
    .normalize_experts = true,
    .dense_too = true,
    .window_period = 6,
    .freq_base_swa = 10000.0,
    .final_norm = "output_norm",
    .attn_scale = gemma4_scale,
};
