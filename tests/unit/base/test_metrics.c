/*
 * Metrics: what a scrape prints for counters, gauges, histograms and errors, with several models,
 * and that counting from several threads loses nothing.
 */
#include "tests/unit/base/suites.h"

#include "base/metrics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static bool has_line(const cp_buf *b, const char *line)
{
    size_t n = strlen(line);
    for (const char *s = b->p; (s = strstr(s, line)); s++) {
        if ((s == b->p || s[-1] == '\n') && s[n] == '\n')
            return true;
    }
    return false;
}

static void check_line(const cp_buf *b, const char *line)
{
    if (!has_line(b, line))
        fail_msg("no line: %s\n%s", line, b->p);
}

static void scrape_prints_each_family_once(void **state)
{
    (void)state;
    cp_metrics *m[] = {cp_metrics_new("a\"\\\n"), cp_metrics_new("b"), cp_metrics_new(NULL)};
    cp_metric_add(m[0], CP_M_PREEMPTIONS, 3);
    cp_metric_add(m[1], CP_M_PREEMPTIONS, 4);
    cp_metric_set(m[1], CP_M_KV_PAGES_FREE, 7);
    cp_metric_add(m[1], CP_M_KV_PAGES_FREE, -2);
    cp_metric_request(m[2], 200);
    cp_metric_request(m[2], 503);
    cp_metric_request(m[2], 418);
    cp_metric_error(m[2], CP_IO);
    cp_metric_error(m[2], CP_INTERNAL);
    cp_metric_error(m[2], CP_MODEL_NOT_FOUND);
    cp_metrics_set_info(m[2], "version=\"1\",commit=\"c\"");
    cp_buf b = {0};
    cp_metrics_write(&b, m, 3);
    assert_false(b.failed);
    check_line(&b, "# TYPE capstan_preemptions_total counter");
    check_line(&b, "capstan_preemptions_total{model=\"a\\\"\\\\\\n\"} 3");
    check_line(&b, "capstan_preemptions_total{model=\"b\"} 4");
    check_line(&b, "capstan_kv_pages{model=\"b\",state=\"free\"} 5");
    check_line(&b, "capstan_kv_pages{model=\"b\",state=\"used\"} 0");
    check_line(&b, "capstan_requests_total{code=\"200\"} 1");
    check_line(&b, "capstan_requests_total{code=\"503\"} 1");
    check_line(&b, "capstan_requests_total{code=\"other\"} 1");
    check_line(&b, "capstan_request_errors_total{error=\"internal_error\"} 2");
    check_line(&b, "capstan_request_errors_total{error=\"model_not_found\"} 1");
    check_line(&b, "capstan_build_info{version=\"1\",commit=\"c\"} 1");
    assert_non_null(strstr(b.p, "\nprocess_resident_memory_bytes "));
    assert_null(strstr(b.p, "process_resident_memory_bytes 0\n"));
    /* no series twice, each TYPE once */
    for (const char *l = b.p; *l; l += strcspn(l, "\n") + 1) {
        char series[300];
        size_t n = *l == '#' ? strcspn(l, "\n") : (size_t)(strchr(l, '\n') - l);
        while (*l != '#' && l[n - 1] != ' ')
            n--;
        cp_snprintf(series, sizeof(series), "\n%.*s", (int)n, l);
        const char *first = strstr(b.p, series + 1);
        if (first < l && (first == b.p || first[-1] == '\n'))
            fail_msg("twice:%s", series);
    }
    for (int i = 0; i < 3; i++)
        cp_metrics_free(m[i]);
    cp_buf_fini(&b);
}

static void histograms_are_cumulative(void **state)
{
    (void)state;
    cp_metrics *m = cp_metrics_new("m");
    cp_metric_observe(m, CP_M_TTFT, 0.0005); /* bounds are inclusive */
    cp_metric_observe(m, CP_M_TTFT, 0.3);
    cp_metric_observe_n(m, CP_M_TTFT, 0.5, 2);
    cp_metric_observe(m, CP_M_TTFT, 1e9);
    cp_metric_observe(m, CP_M_REQUEST_PROMPT_TOKENS, 5);
    assert_int_equal(cp_metric_get(m, CP_M_TTFT), 5);
    cp_buf b = {0};
    cp_metrics_write(&b, &m, 1);
    check_line(&b, "# TYPE capstan_time_to_first_token_seconds histogram");
    check_line(&b, "capstan_time_to_first_token_seconds_bucket{model=\"m\",le=\"0.0005\"} 1");
    check_line(&b, "capstan_time_to_first_token_seconds_bucket{model=\"m\",le=\"0.25\"} 1");
    check_line(&b, "capstan_time_to_first_token_seconds_bucket{model=\"m\",le=\"0.5\"} 4");
    check_line(&b, "capstan_time_to_first_token_seconds_bucket{model=\"m\",le=\"500\"} 4");
    check_line(&b, "capstan_time_to_first_token_seconds_bucket{model=\"m\",le=\"+Inf\"} 5");
    check_line(&b, "capstan_time_to_first_token_seconds_count{model=\"m\"} 5");
    check_line(&b, "capstan_time_to_first_token_seconds_sum{model=\"m\"} 1e+09");
    check_line(&b, "capstan_request_prompt_tokens_bucket{model=\"m\",le=\"4\"} 0");
    check_line(&b, "capstan_request_prompt_tokens_bucket{model=\"m\",le=\"8\"} 1");
    cp_buf_fini(&b);
    cp_metrics_free(m);
}

static void null_counts_nothing(void **state)
{
    (void)state;
    cp_metric_add(NULL, CP_M_PREEMPTIONS, 1);
    cp_metric_set(NULL, CP_M_KV_PAGES_FREE, 1);
    cp_metric_observe(NULL, CP_M_TTFT, 1);
    cp_metric_request(NULL, 200);
    cp_metric_error(NULL, CP_IO);
    cp_metrics_set_info(NULL, "");
    cp_metrics_free(NULL);
    assert_int_equal(cp_metric_get(NULL, CP_M_PREEMPTIONS), 0);
}

enum { COUNTERS = 4, COUNTS = 5000 };

static void *count(void *arg)
{
    for (int i = 0; i < COUNTS; i++) {
        cp_metric_add(arg, CP_M_ENGINE_STEPS, 1);
        cp_metric_observe(arg, CP_M_STEP_TIME, 1);
    }
    return NULL;
}

static void threads_lose_no_count(void **state)
{
    (void)state;
    cp_metrics *m = cp_metrics_new("m");
    pthread_t t[COUNTERS];
    for (int i = 0; i < COUNTERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, count, m), 0);
    for (int i = 0; i < COUNTERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(cp_metric_get(m, CP_M_ENGINE_STEPS), COUNTERS * COUNTS);
    cp_buf b = {0};
    cp_metrics_write(&b, &m, 1);
    check_line(&b, "capstan_step_duration_seconds_sum{model=\"m\"} 20000");
    check_line(&b, "capstan_step_duration_seconds_count{model=\"m\"} 20000");
    cp_buf_fini(&b);
    cp_metrics_free(m);
}

int suite_metrics(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scrape_prints_each_family_once),
        cmocka_unit_test(histograms_are_cumulative),
        cmocka_unit_test(null_counts_nothing),
        cmocka_unit_test(threads_lose_no_count),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
