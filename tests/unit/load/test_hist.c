/* The histogram against sorting: every percentile within 0.1 % over the whole range. */
#include "tests/unit/load/suites.h"

#include "bench/load/hist.h"
#include "bench/load/random.h"

#include <math.h>
#include <stdlib.h>

enum { N = 20000 };

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* numpy.percentile of sorted times, in ms. */
static double exact(const int64_t *v, size_t n, double percent)
{
    double at = percent / 100 * (double)(n - 1);
    size_t i = (size_t)at, j = i + 1 < n ? i + 1 : i;
    return ((double)v[i] + (at - (double)i) * (double)(v[j] - v[i])) * 1e-6;
}

static void check(const int64_t *times, size_t n)
{
    static const double percents[] = {0, 1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100};
    cp_load_hist h = {0};
    int64_t *sorted = cp_xmalloc(n * sizeof(*sorted));
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        cp_load_hist_add(&h, times[i]);
        sorted[i] = times[i];
        sum += (double)times[i];
    }
    qsort(sorted, n, sizeof(*sorted), ascending);
    for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        double want = exact(sorted, n, percents[i]);
        double got = cp_load_hist_percentile(&h, percents[i]);
        assert_true(fabs(got - want) <= want * 0.001);
    }
    cp_arena *a = cp_arena_new(1 << 20);
    cp_load_figures f;
    cp_load_hist_figures(&h, a, &f);
    assert_int_equal(f.count, n);
    assert_true(fabs(f.mean - sum / (double)n * 1e-6) <= f.mean * 1e-9);
    assert_true(fabs(f.max - (double)sorted[n - 1] * 1e-6) <= f.max * 1e-12);
    uint64_t counted = 0;
    for (size_t i = 0; i < f.n_buckets; i++) {
        assert_true(f.buckets[i].from_ms < f.buckets[i].to_ms);
        assert_true(i == 0 || f.buckets[i].from_ms <= f.buckets[i - 1].to_ms * (1 + 1e-12));
        assert_true(f.buckets[i].to_ms * 1e6 < 2048 ||
                    f.buckets[i].to_ms <= f.buckets[i].from_ms * 1.0626);
        counted += f.buckets[i].count;
    }
    assert_int_equal(counted, n);
    cp_arena_free(a);
    cp_load_hist_fini(&h);
    free(sorted);
}

/* From a microsecond to an hour, even in the logarithm. */
static int64_t any_time(cp_load_rng *r)
{
    return (int64_t)(1e3 * pow(3.6e9, cp_load_rng_unit(r)));
}

static void percentiles_agree_with_sorting(void **state)
{
    (void)state;
    static int64_t times[N];
    for (uint64_t seed = 1; seed <= 5; seed++) {
        cp_load_rng r = cp_load_rng_for(seed, CP_LOAD_FOR_ORDER, 0);
        for (size_t i = 0; i < N; i++)
            times[i] = any_time(&r);
        check(times, N);
        for (size_t i = 0; i < N; i++) /* two humps, far apart */
            times[i] = 20000000 + (int64_t)cp_load_rng_below(&r, 1000000) +
                       (cp_load_rng_unit(&r) < 0.01 ? 900000000 : 0);
        check(times, N);
    }
}

static void few_times(void **state)
{
    (void)state;
    const int64_t two[] = {1000000, 3000000}, one[] = {3600000000000};
    check(two, 2);
    check(one, 1);
    cp_load_hist h = {0};
    assert_true(isnan(cp_load_hist_percentile(&h, 50)));
    cp_load_hist_add(&h, 1000000);
    cp_load_hist_add(&h, 3000000);
    assert_true(fabs(cp_load_hist_percentile(&h, 50) - 2) < 0.002); /* between the two */
    cp_load_hist_clear(&h);
    assert_true(isnan(cp_load_hist_percentile(&h, 50)));
    cp_load_hist_add(&h, -5); /* a clock that went back is no time at all */
    assert_true(cp_load_hist_percentile(&h, 100) == 0);
    cp_load_hist_add(&h, INT64_MAX);
    assert_true(isfinite(cp_load_hist_percentile(&h, 99)));
    cp_load_hist_fini(&h);
}

static void parts_add_up(void **state)
{
    (void)state;
    cp_load_hist whole = {0}, part[3] = {{0}}, sum = {0};
    cp_load_rng r = cp_load_rng_for(9, CP_LOAD_FOR_ORDER, 0);
    for (size_t i = 0; i < N; i++) {
        int64_t t = any_time(&r);
        cp_load_hist_add(&whole, t);
        cp_load_hist_add(&part[i % 3], t);
    }
    for (size_t i = 0; i < 3; i++)
        cp_load_hist_merge(&sum, &part[i]);
    assert_int_equal(sum.count, whole.count);
    assert_int_equal(sum.min_ns, whole.min_ns);
    assert_int_equal(sum.max_ns, whole.max_ns);
    for (double p = 0; p <= 100; p += 0.5)
        assert_true(fabs(cp_load_hist_percentile(&sum, p) - cp_load_hist_percentile(&whole, p)) <
                    1e-9);
    cp_load_hist_clear(&sum); /* nothing of before may be left */
    cp_load_hist_add(&sum, 5000000);
    assert_true(fabs(cp_load_hist_percentile(&sum, 0) - 5) < 0.005);
    cp_load_hist_fini(&whole);
    cp_load_hist_fini(&sum);
    for (size_t i = 0; i < 3; i++)
        cp_load_hist_fini(&part[i]);
}

int suite_hist(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_agree_with_sorting),
        cmocka_unit_test(few_times),
        cmocka_unit_test(parts_add_up),
    };
    return cmocka_run_group_tests_name("hist", tests, NULL, NULL);
}
