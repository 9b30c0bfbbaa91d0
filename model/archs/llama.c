/* llama: Llama 2/3.x, SmolLM 1/2, Mistral (text), TinyLlama, R1-Distill-Llama and kin. The GGUF
 * converter permutes the rows of Q and K, so that RoPE turns neighbours (2i, 2i + 1). Mixtral's
 * experts are not built: refused by name. */
#include "model/arch.h"

const cp_arch cp_arch_llama = {
    .name = "llama",
    .rope = CP_ROPE_NORM,
    .act = CP_ACT_SILU,
    .final_norm = "output_norm",
};
