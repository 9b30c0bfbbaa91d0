/*
 * Metrics: what a scrape prints for counters, gauges, histograms and errors, with several models,
 * and that counting from several threads loses nothing.
 */
#include "tests/unit/base/suites.h"

#include "base/clock.h"
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
    cp_metrics_set_info(m[2], CP_M_BUILD_INFO, "version=\"1\",commit=\"c\"");
    cp_buf b = {0};
    cp_metrics_write(&b, m, 3, NULL, NULL);
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
    cp_metrics_write(&b, &m, 1, NULL, NULL);
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

/* What vLLM calls a series is the same count, with its labels, and its buckets as prometheus_client
 * writes them. */
static void second_names_show_the_same_counts(void **state)
{
    (void)state;
    cp_metrics *m = cp_metrics_new("m");
    cp_metric_set(m, CP_M_SEQUENCES_PREFILL, 2);
    cp_metric_set(m, CP_M_SEQUENCES_DECODE, 3);
    cp_metric_set(m, CP_M_SEQUENCES_WAITING, 5);
    cp_metric_set(m, CP_M_SEQUENCES_PREEMPTED, 1);
    cp_metric_set(m, CP_M_DEFERRED, 2);
    cp_metric_add(m, CP_M_PROMPT_TOKENS, 100);
    cp_metric_add(m, CP_M_PROMPT_TOKENS_CACHED, 40);
    cp_metric_add(m, CP_M_FINISHED_CANCELLED, 7);
    cp_metric_observe(m, CP_M_TTFT, 0.03);
    cp_metric_observe(m, CP_M_INTER_TOKEN, 0.011);
    cp_metric_observe(m, CP_M_REQUEST_PROMPT_TOKENS, 3);
    cp_metric_observe(m, CP_M_REQUEST_PROMPT_TOKENS, 1500000);
    cp_metric_observe(m, CP_M_STEP_TOKENS, 9);
    cp_metric_observe(m, CP_M_REQUEST_CHOICES, 3);
    cp_metric_observe(m, CP_M_E2E, 7);
    cp_buf b = {0};
    cp_metrics_write(&b, &m, 1, NULL, NULL);
#define VLLM(name, rest) "vllm:" name "{engine=\"0\",model_name=\"m\"" rest
    check_line(&b, "# TYPE vllm:num_requests_running gauge");
    check_line(&b, VLLM("num_requests_running", "} 5"));
    check_line(&b, VLLM("num_requests_waiting", "} 6"));
    check_line(&b, VLLM("num_requests_waiting_by_reason", ",reason=\"capacity\"} 4"));
    check_line(&b, VLLM("num_requests_waiting_by_reason", ",reason=\"deferred\"} 2"));
    check_line(&b, VLLM("kv_cache_usage_perc", "} 0"));
    check_line(&b, "# TYPE vllm:prompt_tokens_total counter");
    check_line(&b, VLLM("prompt_tokens_total", "} 100"));
    check_line(&b, VLLM("prompt_tokens_by_source_total", ",source=\"local_compute\"} 60"));
    check_line(&b, VLLM("prompt_tokens_by_source_total", ",source=\"local_cache_hit\"} 40"));
    check_line(&b, VLLM("request_success_total", ",finished_reason=\"abort\"} 7"));
    check_line(&b, "# TYPE vllm:time_to_first_token_seconds histogram");
    check_line(&b, VLLM("time_to_first_token_seconds_bucket", ",le=\"0.02\"} 0"));
    check_line(&b, VLLM("time_to_first_token_seconds_bucket", ",le=\"0.04\"} 1"));
    check_line(&b, VLLM("time_to_first_token_seconds_bucket", ",le=\"1.0\"} 1"));
    check_line(&b, VLLM("time_to_first_token_seconds_sum", "} 0.03"));
    check_line(&b, VLLM("inter_token_latency_seconds_bucket", ",le=\"0.01\"} 0"));
    check_line(&b, VLLM("inter_token_latency_seconds_bucket", ",le=\"0.025\"} 1"));
    check_line(&b, VLLM("request_prompt_tokens_bucket", ",le=\"2.0\"} 0"));
    check_line(&b, VLLM("request_prompt_tokens_bucket", ",le=\"5.0\"} 1"));
    check_line(&b, VLLM("request_prompt_tokens_bucket", ",le=\"1e+06\"} 1"));
    check_line(&b, VLLM("request_prompt_tokens_bucket", ",le=\"2e+06\"} 2"));
    check_line(&b, VLLM("iteration_tokens_total_bucket", ",le=\"8.0\"} 0"));
    check_line(&b, VLLM("iteration_tokens_total_bucket", ",le=\"16.0\"} 1"));
    check_line(&b, VLLM("request_params_n_bucket", ",le=\"5.0\"} 1"));
    check_line(&b, VLLM("e2e_request_latency_seconds_bucket", ",le=\"5.0\"} 0"));
    check_line(&b, VLLM("e2e_request_latency_seconds_bucket", ",le=\"10.0\"} 1"));
    assert_null(strstr(b.p, "request_params_n_bucket{engine=\"0\",model_name=\"m\",le=\"4.0\"}"));
    assert_null(strstr(b.p, "capstan_request_prompt_tokens_bucket{model=\"m\",le=\"5\"}"));
    cp_buf_clear(&b);
    cp_metric_set(m, CP_M_KV_PAGES_FREE, 5);
    cp_metric_set(m, CP_M_KV_PAGES_CACHED, 2);
    cp_metric_set(m, CP_M_KV_PAGES_USED, 1);
    cp_metrics_set_context(m, 2048);
    cp_metrics_set_info(m, CP_M_CACHE_INFO, "block_size=\"64\"");
    cp_metrics_write(&b, &m, 1, NULL, NULL);
    check_line(&b, VLLM("kv_cache_usage_perc", "} 0.125"));
    check_line(&b, VLLM("gpu_cache_usage_perc", "} 0.125"));
    check_line(&b, VLLM("cache_config_info", ",block_size=\"64\"} 1"));
    check_line(&b, VLLM("request_prompt_tokens_bucket", ",le=\"2000.0\"} 1"));
    check_line(&b, VLLM("request_prompt_tokens_bucket", ",le=\"+Inf\"} 2"));
    assert_null(strstr(b.p, VLLM("request_prompt_tokens_bucket", ",le=\"5000.0\"}")));
    cp_buf_fini(&b);
    cp_metrics_free(m);
}

/* An age and a time are counted by the monotonic clock, a span in microseconds; what nobody has
 * said is absent. */
static void times_are_printed_as_of_now(void **state)
{
    (void)state;
    cp_metrics *m = cp_metrics_new("m");
    cp_buf b = {0};
    cp_metrics_write(&b, &m, 1, NULL, NULL);
    check_line(&b, "capstan_queue_oldest_seconds{model=\"m\"} 0.000");
    check_line(&b, "capstan_engine_last_step_timestamp_seconds{model=\"m\"} 0.000");
    assert_null(strstr(b.p, "capstan_model_info"));
    assert_null(strstr(b.p, "vllm:cache_config_info"));
    cp_buf_clear(&b);
    cp_metric_set(m, CP_M_QUEUE_OLDEST, cp_now_ns() - 5000000000);
    cp_metric_set(m, CP_M_LAST_STEP, cp_now_ns() - 5000000000);
    cp_metric_add(m, CP_M_LOAD_MAPPING, 1500000);
    cp_metrics_set_info(m, CP_M_MODEL_INFO, "digest=\"d\"");
    int64_t wall = cp_wall_sec();
    cp_metrics_write(&b, &m, 1, NULL, NULL);
    const char *age = strstr(b.p, "\ncapstan_queue_oldest_seconds{model=\"m\"} ");
    const char *stamp = strstr(b.p, "\ncapstan_engine_last_step_timestamp_seconds{model=\"m\"} ");
    assert_non_null(age);
    assert_non_null(stamp);
    double seconds = strtod(strchr(age, '}') + 2, NULL);
    double since = strtod(strchr(stamp, '}') + 2, NULL);
    assert_true(seconds >= 5 && seconds < 3600);
    assert_true(since > (double)wall - 3600 && since <= (double)wall - 3);
    check_line(&b, "capstan_model_load_seconds{model=\"m\",phase=\"mapping\"} 1.500000");
    check_line(&b, "capstan_model_info{model=\"m\",digest=\"d\"} 1");
    cp_buf_fini(&b);
    cp_metrics_free(m);
}

static bool is_ttft(void *arg, const char *family)
{
    ++*(int *)arg;
    return strcmp(family, "vllm:time_to_first_token_seconds") == 0;
}

/* What is not asked for is not there, header included. */
static void a_filter_leaves_the_rest_out(void **state)
{
    (void)state;
    cp_metrics *m[] = {cp_metrics_new("m"), cp_metrics_new(NULL)};
    cp_buf b = {0};
    int asked = 0;
    cp_metrics_write(&b, m, 2, is_ttft, &asked);
    assert_int_equal(strncmp(b.p, "# HELP vllm:time_to_first_token_seconds ", 40), 0);
    assert_null(strstr(b.p, "capstan_"));
    assert_null(strstr(b.p, "process_"));
    assert_int_equal(b.n, strlen(b.p));
    assert_true(asked > 60);
    cp_buf_fini(&b);
    cp_metrics_free(m[0]);
    cp_metrics_free(m[1]);
}

static void null_counts_nothing(void **state)
{
    (void)state;
    cp_metric_add(NULL, CP_M_PREEMPTIONS, 1);
    cp_metric_set(NULL, CP_M_KV_PAGES_FREE, 1);
    cp_metric_observe(NULL, CP_M_TTFT, 1);
    cp_metric_request(NULL, 200);
    cp_metric_error(NULL, CP_IO);
    cp_metrics_set_info(NULL, CP_M_BUILD_INFO, "");
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
    cp_metrics_write(&b, &m, 1, NULL, NULL);
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
        cmocka_unit_test(second_names_show_the_same_counts),
        cmocka_unit_test(times_are_printed_as_of_now),
        cmocka_unit_test(a_filter_leaves_the_rest_out),
        cmocka_unit_test(null_counts_nothing),
        cmocka_unit_test(threads_lose_no_count),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
