/* Random numbers of the load generator; the formulas are named where they stand. */
#include "bench/load/random.h"

#include <math.h>

__extension__ typedef unsigned __int128 wide;

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

cp_load_rng cp_load_rng_for(uint64_t seed, cp_load_purpose purpose, uint64_t index)
{
    uint64_t s = mix(seed + 0x9E3779B97F4A7C15u);
    s = mix(s ^ mix((uint64_t)purpose + 1));
    return (cp_load_rng){mix(s ^ mix(index + 0xD1B54A32D192ED03u))};
}

uint64_t cp_load_rng_next(cp_load_rng *r)
{
    r->state += 0x9E3779B97F4A7C15u;
    return mix(r->state);
}

uint64_t cp_load_rng_below(cp_load_rng *r, uint64_t n)
{
    /* the high half of a product: biased by n / 2^64, which nobody can see */
    return (uint64_t)(((wide)cp_load_rng_next(r) * n) >> 64);
}

double cp_load_rng_unit(cp_load_rng *r)
{
    return ((double)(cp_load_rng_next(r) >> 11) + 0.5) * 0x1p-53;
}

/* Box and Muller, one of the pair: a call costs the same whoever called before. */
double cp_load_rng_normal(cp_load_rng *r)
{
    double u = cp_load_rng_unit(r), v = cp_load_rng_unit(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); below shape 1 their
 * boost: gamma(a) = gamma(a + 1) * u^(1/a). */
double cp_load_rng_gamma(cp_load_rng *r, double shape)
{
    double boost = 1;
    if (shape < 1) {
        boost = pow(cp_load_rng_unit(r), 1 / shape);
        shape += 1;
    }
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = cp_load_rng_normal(r), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(cp_load_rng_unit(r)) < 0.5 * x * x + d - d * v + d * log(v))
            return boost * d * v;
    }
}
