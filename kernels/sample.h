/*
 * sample: the arithmetic of SAMPLE that all backends share: the random numbers, and exact integer
 * shares of a weight. The law as a whole stands at the top of ref/sample.c. Internal to kernels.
 */
#ifndef CP_KERNELS_SAMPLE_H
#define CP_KERNELS_SAMPLE_H

#include "kernels/math.h"

enum { CP_SAMPLE_CHUNK = 4096 }; /* elements a partial log-sum-exp */
/* min_p at or below this is off (its logarithm must be that of a normal number) */
#define CP_SAMPLE_MIN_P 1e-30f

/* exp(-22) * 2^30 < 0.5: what lies 22 temperatures below the best weighs nothing. */
#define CP_SAMPLE_NOTHING 22.0f

/* Temperatures below this are greedy: 1 / t must stay finite (vLLM's bound). */
#define CP_SAMPLE_GREEDY 1e-5f

__extension__ typedef unsigned __int128 cp_u128;

/*
 * Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): key = seed,
 * counter = position, choice, 0. The first 64 of its 128 bits: the same for the same arguments,
 * whatever else the server does.
 */
CP_MATH_FN uint64_t cp_sample_random(uint64_t seed, uint32_t choice, uint64_t position)
{
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32), c2 = choice, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        uint64_t a = (uint64_t)c0 * 0xd2511f53u, b = (uint64_t)c2 * 0xcd9e8d57u;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (uint64_t)c1 << 32 | c0;
}

/* floor(random / 2^64 * total): uniform in [0, total). */
CP_MATH_FN uint64_t cp_sample_scale(uint64_t random, uint64_t total)
{
    return (uint64_t)(((cp_u128)random * total) >> 64);
}

/* The least weight that holds top_p of the total. */
CP_MATH_FN uint64_t cp_sample_target(uint64_t total, float top_p)
{
    double t = (double)total * (double)top_p;
    uint64_t n = t > 0.0 ? (uint64_t)t : 0;
    return (double)n < t ? n + 1 : n;
}

#endif
