/* qwen3moe: Qwen3 with experts. Every layer routes by a softmax over all of them; the weights of
 * those used are normalized. QK-norm, and a head size of its own. */
#include "model/arch.h"

const cp_arch cp_arch_qwen3moe = {
    .name = "qwen3moe",
    .covers = "Qwen3 30B-A3B and 235B-A22B, Qwen3-Coder",
    .built = "experts; QK-norm, a head size of its own",
    .real =
        "random ones of 16 experts, 2 used, Q4_0: prompt and ids as in llama.cpp, "
        "log-probabilities 0.004 apart in the mean; two layers at the 30B-A3B's shapes, Q4_K and "
        "Q6_K: base, avx2, avx512 and vnni give `ref`'s bits",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SILU,
    .qk_norm = true,
    .gate = CP_GATE_SOFTMAX,
    .normalize_experts = true,
    .final_norm = "output_norm",
};
