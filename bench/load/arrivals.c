/* Arrivals as a renewal process of mean 1, mapped through the inverse of the rate's integral. */
#include "bench/load/arrivals.h"

#include <math.h>

void cp_load_arrivals_begin(cp_load_arrivals *a, double rate, double rate_end, double ramp_s,
                            double burstiness, uint64_t seed)
{
    *a = (cp_load_arrivals){.rate = rate,
                            .rate_end = ramp_s > 0 ? rate_end : rate,
                            .ramp_s = ramp_s,
                            .burstiness = burstiness,
                            .rng = cp_load_rng_for(seed, CP_LOAD_FOR_ARRIVALS, 0)};
}

/* Seconds after which `due` requests are due: on the ramp rate t + slope t^2 / 2 = due, solved in
 * the form that does not cancel. */
static double time_of(const cp_load_arrivals *a, double due)
{
    double on_ramp = (a->rate + a->rate_end) / 2 * a->ramp_s;
    if (due >= on_ramp)
        return a->ramp_s + (due - on_ramp) / a->rate_end;
    double slope = (a->rate_end - a->rate) / a->ramp_s;
    return 2 * due / (a->rate + sqrt(a->rate * a->rate + 2 * slope * due));
}

int64_t cp_load_arrivals_next(cp_load_arrivals *a)
{
    if (a->begun)
        a->due += cp_load_rng_gamma(&a->rng, a->burstiness) / a->burstiness;
    a->begun = true;
    double ns = time_of(a, a->due) * 1e9;
    return ns < 9e18 ? (int64_t)ns : INT64_MAX / 2; /* centuries; sums with a clock stay in range */
}
