/* qwen35moe: qwen35 with experts in every layer, and one that all rows share under a gate of its
 * own. The weights of those used are normalized. */
#include "model/arch.h"

const cp_arch cp_arch_qwen35moe = {
    .name = "qwen35moe",
    .covers = "Qwen3.5 and Qwen3.6 35B-A3B, Qwen3.5 397B-A17B (text)",
    .built = "as qwen35, with experts and a shared one",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SILU,
    .qk_norm = true,
    .deltanet = true,
    .attn_gate = true,
    .gate = CP_GATE_SOFTMAX,
    .normalize_experts = true,
    .ffn_norm = "post_attention_norm",
    .final_norm = "output_norm",
};
