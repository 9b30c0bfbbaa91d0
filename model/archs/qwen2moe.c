/* qwen2moe: Qwen 1.5 and 2 with experts and one that all rows share, under a gate of its own.
 * Biases of q, k and v; the weights of the experts used are not normalized. */
#include "model/arch.h"

const cp_arch cp_arch_qwen2moe = {
    .name = "qwen2moe",
    .covers = "Qwen1.5-MoE A2.7B, Qwen2 57B-A14B",
    .built = "experts and a shared one; biases of q, k and v",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SILU,
    .gate = CP_GATE_SOFTMAX,
    .final_norm = "output_norm",
};
