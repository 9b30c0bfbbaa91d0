/*
 * Log-linear buckets in nanoseconds: below 1,024 ns one each, above it every octave is cut into
 * 1,024 equal ones.
 */
#include "bench/load/hist.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUB_BITS = 10,
    SUB = 1 << SUB_BITS,
    TOP_BITS = 42,
    BUCKETS = (TOP_BITS - SUB_BITS + 1) * SUB
};
/* Buckets of a plot's bar. */
enum { BAR = SUB / 16 };

static size_t bucket_of(int64_t ns)
{
    if (ns < SUB)
        return ns < 0 ? 0 : (size_t)ns;
    if (ns >> TOP_BITS)
        return BUCKETS - 1;
    int octave = 63 - __builtin_clzll((unsigned long long)ns) - SUB_BITS;
    return (size_t)octave * SUB + (size_t)(ns >> octave);
}

/* The least time of a bucket; of bucket BUCKETS the end of the last. */
static int64_t bucket_low(size_t i)
{
    if (i < SUB)
        return (int64_t)i;
    size_t octave = i / SUB - 1;
    return (int64_t)(SUB + i % SUB) << octave;
}

void cp_load_hist_add(cp_load_hist *h, int64_t ns)
{
    ns = ns < 0 ? 0 : ns;
    if (!h->n)
        h->n = cp_xcalloc(BUCKETS, sizeof(*h->n));
    h->n[bucket_of(ns)]++;
    h->min_ns = h->count == 0 || ns < h->min_ns ? ns : h->min_ns;
    h->max_ns = ns > h->max_ns ? ns : h->max_ns;
    h->sum_ns += (double)ns;
    h->count++;
}

void cp_load_hist_merge(cp_load_hist *h, const cp_load_hist *other)
{
    if (other->count == 0)
        return;
    if (!h->n)
        h->n = cp_xcalloc(BUCKETS, sizeof(*h->n));
    for (size_t i = 0; i < BUCKETS; i++)
        h->n[i] += other->n[i];
    h->min_ns = h->count == 0 || other->min_ns < h->min_ns ? other->min_ns : h->min_ns;
    h->max_ns = other->max_ns > h->max_ns ? other->max_ns : h->max_ns;
    h->sum_ns += other->sum_ns;
    h->count += other->count;
}

void cp_load_hist_clear(cp_load_hist *h)
{
    uint64_t *n = h->n;
    if (n && h->count) /* only where something was counted */
        memset(n + bucket_of(h->min_ns), 0,
               (bucket_of(h->max_ns) - bucket_of(h->min_ns) + 1) * sizeof(*n));
    *h = (cp_load_hist){.n = n};
}

void cp_load_hist_fini(cp_load_hist *h)
{
    free(h->n);
    *h = (cp_load_hist){0};
}

/* The middle of a bucket, never outside of what was seen. */
static double value_of(const cp_load_hist *h, size_t i)
{
    double low = (double)bucket_low(i), v = low + ((double)bucket_low(i + 1) - low - 1) / 2;
    v = v < (double)h->min_ns ? (double)h->min_ns : v;
    return v > (double)h->max_ns ? (double)h->max_ns : v;
}

double cp_load_hist_percentile(const cp_load_hist *h, double percent)
{
    if (h->count == 0)
        return (double)NAN;
    double at = percent / 100 * (double)(h->count - 1);
    uint64_t rank = (uint64_t)at, seen = 0;
    double part = at - (double)rank, low = (double)NAN;
    size_t last = bucket_of(h->max_ns);
    for (size_t i = bucket_of(h->min_ns); i <= last; i++) {
        seen += h->n[i];
        if (isnan(low) && seen > rank)
            low = value_of(h, i);
        if (!isnan(low) && (part <= 0 || seen > rank + 1))
            return (low + part * (value_of(h, i) - low)) * 1e-6;
    }
    return (isnan(low) ? (double)h->max_ns : low) * 1e-6;
}

/* Bars of 64 buckets, from the first that holds something to the last. */
static void fill_buckets(const cp_load_hist *h, cp_arena *arena, cp_load_figures *out)
{
    size_t first = bucket_of(h->min_ns) / BAR, last = bucket_of(h->max_ns) / BAR;
    out->buckets = cp_arena_alloc(arena, (last - first + 1) * sizeof(*out->buckets));
    if (!out->buckets)
        return;
    out->n_buckets = last - first + 1;
    for (size_t b = first; b <= last; b++) {
        cp_load_bucket *bar = &out->buckets[b - first];
        bar->from_ms = (double)bucket_low(b * BAR) * 1e-6;
        bar->to_ms = (double)bucket_low((b + 1) * BAR) * 1e-6;
        for (size_t i = b * BAR; i < (b + 1) * BAR; i++)
            bar->count += h->n[i];
    }
}

void cp_load_hist_figures(const cp_load_hist *h, cp_arena *arena, cp_load_figures *out)
{
    double none = (double)NAN;
    *out = (cp_load_figures){h->count, none, none, none, none, none, none, NULL, 0};
    if (h->count == 0)
        return;
    out->mean = h->sum_ns / (double)h->count * 1e-6;
    out->p50 = cp_load_hist_percentile(h, 50);
    out->p90 = cp_load_hist_percentile(h, 90);
    out->p95 = cp_load_hist_percentile(h, 95);
    out->p99 = cp_load_hist_percentile(h, 99);
    out->max = (double)h->max_ns * 1e-6;
    fill_buckets(h, arena, out);
}
