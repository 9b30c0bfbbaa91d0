/* gpt-oss: OpenAI's 20B and 120B. Every second layer sees a window of 128; a sink a head; biases
 * everywhere, of experts and router too; the router's weights are a softmax over the selected
 * logits; gate and up are bounded; YaRN on all layers, its ramp as in transformers (llama.cpp
 * rounds it to whole dimensions). The feed-forward's pre-norm is called post_attention_norm. */
#include "model/arch.h"

const cp_arch cp_arch_gptoss = {
    .name = "gpt-oss",
    .covers = "gpt-oss 20B and 120B, gpt-oss-safeguard",
    .built = "experts (MXFP4 as it is), windows, attention sinks, biases everywhere, YaRN as in "
             "transformers",
    .real = "random ones in four layers at the 20B's shapes, MXFP4 and Q8_0: prompt and ids as in "
            "llama.cpp, log-probabilities 0.03 apart in the mean",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SWIGLU_CLAMP,
    .sinks = true,
    .window_period = 2,
    .window_as_full = true,
    .yarn_exact = true,
    .gate = CP_GATE_SELECTED,
    .ffn_norm = "post_attention_norm",
    .final_norm = "output_norm",
};
