#include "model/rope.h"

#include <math.h>

#define TWO_PI 6.283185307179586

/* The dimension whose pair turns so many times within the old context. */
static double dimension_of(double turns, int n_rot, double base, int old_ctx)
{
    return n_rot * log(old_ctx / (turns * TWO_PI)) / (2.0 * log(base));
}

typedef struct ramp {
    double low, high;
} ramp;

static ramp ramp_of(const cp_yarn *y, int n_rot, double base)
{
    ramp r = {dimension_of(y->beta_fast, n_rot, base, y->old_ctx),
              dimension_of(y->beta_slow, n_rot, base, y->old_ctx)};
    if (!y->exact) {
        r.low = floor(r.low);
        r.high = ceil(r.high);
    }
    r.low = fmax(r.low, 0.0);
    r.high = fmin(r.high, n_rot - 1.0);
    return r;
}

void cp_rope_frequencies(float *inv, int n_rot, double base, double scale, const cp_tensor *factors,
                         const cp_yarn *yarn)
{
    ramp r = {0, 0};
    if (yarn->factor != 0.0) {
        r = ramp_of(yarn, n_rot, base);
    }
    for (int i = 0; i < n_rot / 2; i++) {
        double f = factors ? (double)((const float *)factors->data)[i] : 1.0;
        double period = pow(base, 2.0 * i / n_rot) * f;
        if (yarn->factor == 0.0) {
            inv[i] = (float)(scale / period);
            continue;
        }
        double along = (i - r.low) / fmax(r.high - r.low, 0.001);
        double keep = (1.0 - fmin(fmax(along, 0.0), 1.0)) * yarn->ext;
        inv[i] = (float)((1.0 - keep) / (yarn->factor * period) + keep / period);
    }
}

float cp_rope_mscale(const cp_yarn *yarn)
{
    return yarn->factor != 0.0 ? (float)yarn->attn : 1.0f;
}
