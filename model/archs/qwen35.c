/* qwen35: Qwen3.5, 3.6 and kin, dense (0.8B to 27B). Three of four layers are Gated DeltaNet, the
 * fourth is attention with QK-norm, a rotary part of each head and an output gate. The
 * feed-forward's pre-norm is called post_attention_norm; the converter has added 1 to all norms but
 * the DeltaNet's and tiled its v heads over the k heads. For text the file's interleaved mrope is
 * NEOX. */
#include "model/arch.h"

const cp_arch cp_arch_qwen35 = {
    .name = "qwen35",
    .covers = "Qwen3.5 0.8B to 27B, Qwen3.6 27B (text)",
    .built = "Gated DeltaNet and gated attention; blocks that predict further tokens are skipped",
    .real = "random ones at the 0.8B's shapes, Q4_K_M: prompt and ids as in llama.cpp, "
            "log-probabilities 0.10 apart in the mean",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SILU,
    .qk_norm = true,
    .deltanet = true,
    .attn_gate = true,
    .ffn_norm = "post_attention_norm",
    .final_norm = "output_norm",
};
