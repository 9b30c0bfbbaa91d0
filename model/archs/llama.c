/* llama: Llama 2/3.x, SmolLM 1/2, Mistral (text), TinyLlama, R1-Distill-Llama and kin. The GGUF
 * converter permutes the rows of Q and K, so that RoPE turns neighbours (2i, 2i + 1). With
 * experts (Mixtral) their weights, of a softmax over all of them, are normalized. */
#include "model/arch.h"

const cp_arch cp_arch_llama = {
    .name = "llama",
    .covers = "Llama 2 to 3.3, SmolLM 1 and 2, Mistral 7B, Nemo and Small, TinyLlama, "
              "R1-Distill-Llama and their fine-tunes; Mixtral",
    .built = "dense, or experts (Mixtral); optional biases; llama3 rope factors",
    .real = "SmolLM2-135M-Instruct Q4_1: logits and perplexity against transformers in fp32",
    .rope = CP_ROPE_NORM,
    .act = CP_ACT_SILU,
    .gate = CP_GATE_SOFTMAX,
    .normalize_experts = true,
    .final_norm = "output_norm",
};
