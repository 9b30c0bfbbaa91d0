/* The figures of a run out of what was seen, and their JSON. */
#include "tests/unit/load/suites.h"

#include "bench/load/meter.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MS ((int64_t)1000000)
static const int64_t begin = 5000 * MS;

static cp_load_slo no_slo(void)
{
    double none = (double)NAN;
    return (cp_load_slo){none, none, none, none};
}

/* A request of 4 tokens: sent 10 ms after it was due, the first token at 40, then every 20. */
static void answer(cp_load_meter *m, int64_t due, uint64_t usage_tokens)
{
    cp_load_stream s = {.first_ns = due + 40 * MS,
                        .last_ns = due + 100 * MS,
                        .end_ns = due + 100 * MS,
                        .chunks = 4,
                        .n_gaps = 3,
                        .gaps_ns = 60.0 * MS,
                        .usage = usage_tokens > 0,
                        .prompt_tokens = 9,
                        .completion_tokens = usage_tokens};
    uint32_t gaps[] = {20000, 20000, 20000};
    s.gaps = gaps;
    cp_load_meter_due(m, due, due);
    size_t row = cp_load_meter_sent(m, due, due, due + 10 * MS, 0);
    for (int i = 0; i < 4; i++)
        cp_load_meter_token(m, due, due + (40 + 20 * i) * MS, i ? 20 * MS : -1);
    cp_load_meter_end(m, row, due, due + 110 * MS, CP_LOAD_OK, 200, &s, 33);
}

static void failure(cp_load_meter *m, int64_t due, cp_load_outcome outcome, int status)
{
    cp_load_stream s = {.why = "because"};
    cp_load_meter_due(m, due, due);
    size_t row = cp_load_meter_sent(m, due, due, due, 0);
    cp_load_meter_end(m, row, due, due + 5 * MS, outcome, status, &s, 33);
}

static cp_load_result *result(cp_load_meter *m, int64_t now)
{
    cp_arena *a = cp_arena_new(64 << 20);
    cp_load_result *r = cp_arena_alloc(a, sizeof(*r));
    *r = (cp_load_result){.url = "u",
                          .model = "m\"",
                          .endpoint = "chat",
                          .dataset = "random",
                          .began = "",
                          .command = "",
                          .server = "",
                          .version = "",
                          .slo = m->slo,
                          .n_runs = 1,
                          .rows = true,
                          .arena = a};
    r->runs = cp_arena_alloc(a, sizeof(*r->runs));
    r->runs->saturated_why = r->runs->server.kind = "";
    cp_load_meter_finish(m, now, a, r->runs);
    return r;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= fabs(b) * 0.001;
}

static void figures_count_from_due(void **state)
{
    (void)state;
    cp_load_meter m;
    cp_load_slo slo = no_slo();
    cp_load_meter_begin(&m, begin, &slo);
    answer(&m, begin, 5); /* the server counts its end token */
    answer(&m, begin + 1000 * MS, 0);
    failure(&m, begin + 2500 * MS, CP_LOAD_REFUSED, 503);
    cp_load_result *r = result(&m, begin + 3000 * MS);
    const cp_load_run *run = r->runs;
    assert_int_equal(run->requests, 3);
    assert_int_equal(run->completed, 2);
    assert_int_equal(run->failed, 1);
    assert_int_equal(run->by_outcome[CP_LOAD_REFUSED], 1);
    assert_true(near(run->ttft.p50, 40) && run->ttft.count == 2);
    assert_true(near(run->e2e.p50, 100) && near(run->itl.p50, 20) && run->itl.count == 6);
    assert_true(near(run->tpot.max, 20) && near(run->tpot.mean, 17.5)); /* 60/4 and 60/3 */
    assert_true(near(run->lag.max, 10));
    assert_int_equal(run->output_tokens, 9); /* 5 by usage, 4 by chunks */
    assert_int_equal(run->input_tokens, 9 + 33);
    assert_int_equal(run->no_usage, 1);
    assert_true(near(run->duration_s, 2.505)); /* first due to last end */
    assert_true(isnan(run->goodput));
    assert_int_equal(run->n_seconds, 3);
    assert_int_equal(run->seconds[0].output_tokens, 4);
    assert_int_equal(run->seconds[0].completed, 1);
    assert_int_equal(run->seconds[2].failed, 1);
    assert_true(near(run->seconds[1].itl_p99, 20));
    assert_true(isnan(run->rows[2].first_ms) && run->rows[2].status == 503);
    cp_load_result_free(r);
    cp_load_meter_fini(&m);
}

/* 40 ms to the first token, gaps of 20, TPOT 20, 100 in all; half of what was due failed, and what
 * Ctrl-C cancelled is not judged. */
static void goodput_is_of_all_that_was_due(void **state)
{
    (void)state;
    double none = (double)NAN;
    const struct {
        cp_load_slo slo;
        double want;
    } rows[] = {{{41, none, none, none}, 0.5},  {{39, none, none, none}, 0},
                {{none, 21, none, none}, 0.5},  {{none, 19, none, none}, 0},
                {{none, none, 21, none}, 0.5},  {{none, none, 19, none}, 0},
                {{none, none, none, 101}, 0.5}, {{none, none, none, 99}, 0},
                {{41, 21, 21, 101}, 0.5},       {{41, 21, 21, 99}, 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_load_meter m;
        cp_load_meter_begin(&m, begin, &rows[i].slo);
        answer(&m, begin, 0);
        failure(&m, begin + 200 * MS, CP_LOAD_CUT, 200);
        failure(&m, begin + 300 * MS, CP_LOAD_CANCELLED, 0);
        cp_load_result *r = result(&m, begin + 400 * MS);
        assert_true(fabs(r->runs->goodput - rows[i].want) < 1e-9);
        assert_int_equal(r->runs->failed, 1);
        cp_load_result_free(r);
        cp_load_meter_fini(&m);
    }
}

/* What waited for a place was due long ago: the second in which it was due counts it. */
static void late_requests(void **state)
{
    (void)state;
    cp_load_meter m;
    cp_load_slo slo = no_slo();
    cp_load_meter_begin(&m, begin, &slo);
    cp_load_meter_due(&m, begin + 100 * MS, begin + 2200 * MS);
    cp_load_meter_unsent(&m, begin + 100 * MS, begin + 2200 * MS, CP_LOAD_DROPPED, "full");
    cp_load_result *r = result(&m, begin + 2300 * MS);
    assert_int_equal(r->runs->seconds[0].due, 1);
    assert_int_equal(r->runs->seconds[0].failed, 0);
    assert_int_equal(r->runs->seconds[2].failed, 1);
    assert_true(isnan(r->runs->rows[0].sent_ms));
    cp_load_result_free(r);
    cp_load_meter_fini(&m);
}

static void json(void **state)
{
    (void)state;
    cp_load_meter m;
    cp_load_slo slo = no_slo();
    cp_buf text = {0};
    cp_load_meter_begin(&m, begin, &slo);
    answer(&m, begin, 5);
    failure(&m, begin + 200 * MS, CP_LOAD_UNREACHED, 0);
    cp_load_result *r = result(&m, begin + 400 * MS);
    cp_load_report_json(r, &text);
    json_t *doc = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(doc);
    assert_int_equal(json_integer_value(json_object_get(doc, "completed")), 1);
    assert_int_equal(json_integer_value(json_object_get(doc, "failed")), 1);
    static const char *const names[] = {"ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "lag_ms"};
    static const char *const keys[] = {"mean", "p50", "p90", "p95", "p99", "max"};
    for (size_t i = 0; i < 5; i++) {
        json_t *f = json_object_get(doc, names[i]);
        assert_int_equal(json_object_size(f), 6);
        for (size_t k = 0; k < 6; k++)
            assert_true(json_is_real(json_object_get(f, keys[k])));
    }
    assert_true(json_is_null(json_object_get(doc, "goodput")));
    assert_string_equal(json_string_value(json_object_get(doc, "model")), "m\"");
    json_t *rows = json_object_get(doc, "requests");
    assert_int_equal(json_array_size(rows), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 1), "outcome")),
                        "unreached");
    assert_true(json_is_null(json_object_get(json_array_get(rows, 1), "first_ms")));
    json_decref(doc);
    cp_buf_clear(&text);
    cp_load_report_text(r, &text);
    assert_non_null(strstr(text.p, "1 of 2 requests completed"));
    assert_non_null(strstr(text.p, "1 unreached: no connection"));
    cp_buf_fini(&text);
    cp_load_result_free(r);
    cp_load_meter_fini(&m);
}

/* Nothing came at all: no figure is a number, and JSON says null. */
static void an_empty_run(void **state)
{
    (void)state;
    cp_load_meter m;
    cp_load_slo slo = no_slo();
    cp_buf text = {0};
    cp_load_meter_begin(&m, begin, &slo);
    cp_load_result *r = result(&m, begin + 400 * MS);
    cp_load_report_json(r, &text);
    json_t *doc = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(doc);
    assert_true(json_is_null(json_object_get(json_object_get(doc, "ttft_ms"), "p50")));
    json_decref(doc);
    cp_buf_fini(&text);
    cp_load_result_free(r);
    cp_load_meter_fini(&m);
}

int suite_meter(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_count_from_due), cmocka_unit_test(goodput_is_of_all_that_was_due),
        cmocka_unit_test(late_requests),          cmocka_unit_test(json),
        cmocka_unit_test(an_empty_run),
    };
    return cmocka_run_group_tests_name("meter", tests, NULL, NULL);
}
