/* qwen2: Qwen 2 and 2.5, QwQ, R1-Distill-Qwen. Biases on q, k and v, which are read wherever a file
 * has them. */
#include "model/arch.h"

const cp_arch cp_arch_qwen2 = {
    .name = "qwen2",
    .covers = "Qwen2 and 2.5 (Coder too), QwQ, R1-Distill-Qwen",
    .built = "dense; biases of q, k and v",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SILU,
    .final_norm = "output_norm",
};
