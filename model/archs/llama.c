/* llama: Llama 2/3.x, SmolLM 1/2, Mistral (text), TinyLlama, R1-Distill-Llama and kin. GGUF files
 * hold Q and K rows permuted for interleaved RoPE (models reference §2.5). Mixtral's experts are
 * not built: refused by name. */
#include "model/arch.h"

const cp_arch cp_arch_llama = {
    .name = "llama",
    .rope = CP_ROPE_NORM,
    .act = CP_ACT_SILU,
    .final_norm = "output_norm",
};
