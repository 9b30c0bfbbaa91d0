/* Schedules: their statistics for fixed seeds, and that a seed is a schedule. */
#include "tests/unit/load/suites.h"

#include "bench/load/arrivals.h"

#include <math.h>

enum { N = 20000 };

/* Mean of the gaps in seconds, and their deviation over their mean. */
static double gaps(double rate, double burstiness, uint64_t seed, double *variation)
{
    cp_load_arrivals a;
    cp_load_arrivals_begin(&a, rate, rate, 0, burstiness, seed);
    int64_t last = cp_load_arrivals_next(&a);
    assert_int_equal(last, 0);
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        int64_t t = cp_load_arrivals_next(&a);
        assert_true(t >= last);
        double gap = (double)(t - last) * 1e-9;
        sum += gap;
        squares += gap * gap;
        last = t;
    }
    double mean = sum / N;
    *variation = sqrt(squares / N - mean * mean) / mean;
    return mean;
}

/* A gamma of shape B has a deviation of 1/sqrt(B) of its mean; of N gaps the mean is off by no more
 * than 4 deviations over sqrt(N). */
static void gaps_have_their_mean_and_shape(void **state)
{
    (void)state;
    static const double shapes[] = {0.1, 0.5, 1, 4, 100, 1e6};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        double variation, want = 1 / sqrt(shapes[i]);
        double mean = gaps(7, shapes[i], 11 + i, &variation);
        assert_true(fabs(mean * 7 - 1) < 4 * want / sqrt(N));
        assert_true(fabs(variation / want - 1) < 0.1);
    }
}

/* Of a Poisson process, counts of equal spans have their mean for a variance. */
static void a_poisson_process(void **state)
{
    (void)state;
    enum { SPANS = 2000 };
    static int counts[SPANS];
    cp_load_arrivals a;
    cp_load_arrivals_begin(&a, 10, 10, 0, 1, 5);
    for (int i = 0; i < SPANS; i++)
        counts[i] = 0;
    for (;;) {
        int64_t span = cp_load_arrivals_next(&a) / 1000000000;
        if (span >= SPANS)
            break;
        counts[span]++;
    }
    double mean = 0, variance = 0;
    for (int i = 0; i < SPANS; i++)
        mean += (double)counts[i] / SPANS;
    for (int i = 0; i < SPANS; i++)
        variance += (counts[i] - mean) * (counts[i] - mean) / SPANS;
    assert_true(fabs(mean - 10) < 0.3);
    assert_true(fabs(variance / mean - 1) < 0.15);
}

/* On a ramp from 10 to 30 in 100 s: 10 t + t^2 / 10 are due after t, then 30 a second. */
static void a_ramp_is_linear_in_the_rate(void **state)
{
    (void)state;
    cp_load_arrivals a;
    cp_load_arrivals_begin(&a, 10, 30, 100, 1e6, 3);
    for (int i = 0; i < 4000; i++) {
        double t = (double)cp_load_arrivals_next(&a) * 1e-9;
        double due = t <= 100 ? 10 * t + t * t / 10 : 2000 + 30 * (t - 100);
        assert_true(fabs(due - i) < 1);
    }
    cp_load_arrivals_begin(&a, 30, 10, 100, 1e6, 3); /* and down */
    for (int i = 0; i < 4000; i++) {
        double t = (double)cp_load_arrivals_next(&a) * 1e-9;
        double due = t <= 100 ? 30 * t - t * t / 10 : 2000 + 10 * (t - 100);
        assert_true(fabs(due - i) < 1);
    }
}

static void a_seed_is_a_schedule(void **state)
{
    (void)state;
    cp_load_arrivals a, b, c;
    cp_load_arrivals_begin(&a, 3, 3, 0, 0.7, 42);
    cp_load_arrivals_begin(&b, 3, 3, 0, 0.7, 42);
    cp_load_arrivals_begin(&c, 3, 3, 0, 0.7, 43);
    int same = 0;
    for (int i = 0; i < 1000; i++) {
        int64_t t = cp_load_arrivals_next(&a);
        assert_int_equal(t, cp_load_arrivals_next(&b));
        same += t == cp_load_arrivals_next(&c);
    }
    assert_true(same < 5);
}

static void a_tiny_rate_stays_in_range(void **state)
{
    (void)state;
    cp_load_arrivals a;
    cp_load_arrivals_begin(&a, 0.001, 0.001, 0, 0.01, 1);
    int64_t last = 0;
    for (int i = 0; i < 100000; i++) {
        int64_t t = cp_load_arrivals_next(&a);
        assert_true(t >= last && t <= INT64_MAX / 2);
        last = t;
    }
}

int suite_arrivals(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaps_have_their_mean_and_shape), cmocka_unit_test(a_poisson_process),
        cmocka_unit_test(a_ramp_is_linear_in_the_rate),   cmocka_unit_test(a_seed_is_a_schedule),
        cmocka_unit_test(a_tiny_rate_stays_in_range),
    };
    return cmocka_run_group_tests_name("arrivals", tests, NULL, NULL);
}
