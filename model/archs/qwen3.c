/* qwen3: Qwen 3 dense. Norms of each head's q and k, and a head size that need not be d_model /
 * n_heads. */
#include "model/arch.h"

const cp_arch cp_arch_qwen3 = {
    .name = "qwen3",
    .covers = "Qwen3 0.6B to 32B",
    .built = "dense; QK-norm, a head size of its own",
    .real = "random ones at the 0.6B's shapes, Q4_K_M: prompt and ids as in llama.cpp, "
            "log-probabilities 0.06 apart in the mean",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SILU,
    .qk_norm = true,
    .final_norm = "output_norm",
};
