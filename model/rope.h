/* Rotary positions: the frequencies that a program's ROPE takes. Private to model/. */
#ifndef CP_MODEL_ROPE_H
#define CP_MODEL_ROPE_H

#include "base/dtype.h"

/* YaRN (arXiv 2309.00071 §3): what turns often within the old context keeps its frequency, what
 * turns seldom is slowed down by factor, and between there is a ramp. */
typedef struct cp_yarn {
    double factor;               /* 0: no yarn */
    double ext;                  /* share of the unscaled frequencies, 1 */
    double attn;                 /* multiplies cos and sin */
    double beta_fast, beta_slow; /* turns within old_ctx where the ramp begins and ends */
    int old_ctx;
    bool exact; /* the ramp's ends are not rounded to whole dimensions */
} cp_yarn;

/* inv[n_rot / 2]: base^(-2 i / n_rot) * scale / factors_i, with yarn over that. The factors (NULL:
 * none) are llama3's scaling, or 1e30 for what gemma4 does not rotate; the GGUF converter stores
 * them as the tensor rope_freqs. */
void cp_rope_frequencies(float *inv, int n_rot, double base, double scale, const cp_tensor *factors,
                         const cp_yarn *yarn);
/* What cos and sin are multiplied with: 1 without yarn. */
float cp_rope_mscale(const cp_yarn *yarn);

#endif
