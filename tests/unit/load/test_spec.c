/* The small languages of options, right and wrong. */
#include "tests/unit/load/suites.h"

#include "bench/load/spec.h"

#include <math.h>
#include <string.h>

static void lengths(void **state)
{
    (void)state;
    cp_load_lengths l;
    cp_load_rng r = cp_load_rng_for(1, CP_LOAD_FOR_LENGTHS, 0);
    assert_int_equal(cp_load_lengths_parse(&l, "--input-len", "77", NULL), CP_OK);
    assert_int_equal(cp_load_lengths_draw(&l, &r), 77);
    assert_int_equal(cp_load_lengths_parse(&l, "--input-len", "uniform:10:12", NULL), CP_OK);
    int seen[3] = {0};
    for (int i = 0; i < 3000; i++) {
        uint32_t v = cp_load_lengths_draw(&l, &r);
        assert_in_range(v, 10, 12);
        seen[v - 10]++;
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(seen[i], 850, 1150);
    assert_int_equal(cp_load_lengths_parse(&l, "--input-len", "normal:500:100", NULL), CP_OK);
    double sum = 0, squares = 0;
    for (int i = 0; i < 10000; i++) {
        double v = cp_load_lengths_draw(&l, &r);
        sum += v;
        squares += v * v;
    }
    double mean = sum / 10000;
    assert_true(fabs(mean - 500) < 4 && fabs(sqrt(squares / 10000 - mean * mean) - 100) < 4);
    assert_int_equal(cp_load_lengths_parse(&l, "--input-len", "normal:2:1000", NULL), CP_OK);
    for (int i = 0; i < 1000; i++) /* never less than one */
        assert_in_range(cp_load_lengths_draw(&l, &r), 1, CP_LOAD_LENGTH_MAX);
}

static void wrong_lengths(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "0",
                                        "-1",
                                        "1.5",
                                        "1048577",
                                        "12x",
                                        "x",
                                        "uniform:1",
                                        "uniform:5:4",
                                        "uniform:1:2:3",
                                        "uniform:1:2.5",
                                        "normal:5",
                                        "normal::",
                                        "1e3",
                                        "nan",
                                        "0x10",
                                        " 5",
                                        "5 ",
                                        "normal:1:0"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        cp_load_lengths l;
        cp_err err;
        assert_int_equal(cp_load_lengths_parse(&l, "--output-len", texts[i], &err), CP_USAGE);
        assert_non_null(strstr(err.msg, "--output-len: got '"));
        assert_non_null(strstr(err.msg, "allowed: N, uniform:LEAST:MOST"));
    }
}

static void ramps(void **state)
{
    (void)state;
    cp_load_ramp r;
    assert_int_equal(cp_load_ramp_parse(&r, "1:20.5:90s", NULL), CP_OK);
    assert_true(r.from > 0.99 && r.to > 20.4 && r.to < 20.6 && fabs(r.seconds - 90) < 1e-9);
    assert_int_equal(cp_load_ramp_parse(&r, "5:2:2m", NULL), CP_OK);
    assert_true(fabs(r.seconds - 120) < 1e-9);
    static const char *const texts[] = {"",        "1",      "1:2",     "1:2:3",
                                        "0:2:3s",  "1:0:3s", "1:2:3h",  "1:2:0s",
                                        "1:2:3s ", ":::",    "-1:2:3s", "1:2:2000m"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(cp_load_ramp_parse(&r, texts[i], NULL), CP_USAGE);
}

static void objectives(void **state)
{
    (void)state;
    cp_load_slo s;
    assert_int_equal(cp_load_slo_parse(&s, "ttft=200,tpot=50.5", NULL), CP_OK);
    assert_true(fabs(s.ttft - 200) < 1e-9 && fabs(s.tpot - 50.5) < 1e-9);
    assert_true(isnan(s.itl) && isnan(s.e2e));
    static const char *const texts[] = {
        "",        "ttft",          "ttft=", "ttft=0",        "ttft=-1",
        "ttft=1,", "ttft=1,ttft=2", "lag=1", "ttft=1 tpot=2", "TTFT=1"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(cp_load_slo_parse(&s, texts[i], NULL), CP_USAGE);
}

int suite_spec(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths),
        cmocka_unit_test(wrong_lengths),
        cmocka_unit_test(ramps),
        cmocka_unit_test(objectives),
    };
    return cmocka_run_group_tests_name("spec", tests, NULL, NULL);
}
