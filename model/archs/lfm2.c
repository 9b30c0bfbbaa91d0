/* lfm2: LFM2 / LFM2.5 dense. Layers without KV heads are gated short convolutions with a recurrent
 * state; the others are attention with QK-norm. The final norm's tensor is called
 * token_embd_norm. */
#include "model/arch.h"

const cp_arch cp_arch_lfm2 = {
    .name = "lfm2",
    .covers = "LFM2 and LFM2.5, dense ones",
    .built = "short convolutions with a recurrent state, QK-norm",
    .rope = CP_ROPE_NEOX,
    .act = CP_ACT_SILU,
    .qk_norm = true,
    .short_conv = true,
    .final_norm = "token_embd_norm",
};
