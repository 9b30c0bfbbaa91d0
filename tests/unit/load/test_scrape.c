/* Servers' own metrics, under the names of each. */
#include "tests/unit/load/suites.h"

#include "bench/load/scrape.h"

#include <math.h>
#include <string.h>

static const char capstan[] = "# HELP capstan_sequences Sequences by state\n"
                              "capstan_sequences{model=\"a\",state=\"waiting\"} 3\n"
                              "capstan_sequences{model=\"a\",state=\"prefill\"} 1\n"
                              "capstan_sequences{model=\"a\",state=\"decode\"} 4\n"
                              "capstan_sequences{model=\"b\",state=\"decode\"} 2\n"
                              "capstan_sequences{model=\"a\",state=\"preempted\"} 1\n"
                              "capstan_kv_pages{model=\"a\",state=\"free\"} 50\n"
                              "capstan_kv_pages{model=\"a\",state=\"cached\"} 25\n"
                              "capstan_kv_pages{model=\"a\",state=\"used\"} 25\n"
                              "capstan_prompt_tokens_total{model=\"a\"} 1000\n"
                              "capstan_prompt_tokens_cached_total{model=\"a\"} 400\n"
                              "capstan_generation_tokens_total{model=\"a\"} 77\n"
                              "capstan_preemptions_total{model=\"a\"} 0\n"
                              "capstan_prompt_tokens_totalx 5\n";
static const char vllm[] = "vllm:num_requests_running{engine=\"0\",model_name=\"m}{\"} 7.0\n"
                           "vllm:num_requests_waiting{model_name=\"m\"} 2.0\n"
                           "vllm:kv_cache_usage_perc{model_name=\"m\"} 0.25\n"
                           "vllm:prompt_tokens_total{model_name=\"m\"} 1.5e3 1700000000\n"
                           "vllm:prefix_cache_hits_total{model_name=\"m\"} 12\n"
                           "vllm:generation_tokens_total{model_name=\"m\"} 90\n"
                           "vllm:num_preemptions_total{model_name=\"m\"} 1\n";
static const char llamacpp[] = "llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\r\n"
                               "llamacpp:prompt_tokens_total 11\nllamacpp:tokens_predicted_total 5";

static void names(void **state)
{
    (void)state;
    static const struct {
        const char *text, *kind;
        double want[CP_LOAD_GAUGE_COUNT]; /* running waiting kv prompt cached output preemptions */
    } rows[] = {{capstan, "capstan", {7, 4, 0.25, 1000, 400, 77, 0}},
                {vllm, "vllm", {7, 2, 0.25, 1500, 12, 90, 1}},
                {llamacpp, "llamacpp", {1, 0, -1, 11, -1, 5, -1}},
                {"process_cpu_seconds_total 4\n", "", {-1, -1, -1, -1, -1, -1, -1}},
                {"", "", {-1, -1, -1, -1, -1, -1, -1}},
                {"vllm:num_requests_running{\nvllm:num_requests_waiting\nvllm:kv_cache_usage_perc "
                 "NaN\n{} 1\n{\n",
                 "",
                 {-1, -1, -1, -1, -1, -1, -1}}};
    char both[4096]; /* the same counts under a second name are not counted twice */
    cp_snprintf(both, sizeof(both), "%s%s", capstan, vllm);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double v[CP_LOAD_GAUGE_COUNT];
        const char *text = i == 0 ? both : rows[i].text;
        assert_string_equal(cp_load_scrape_read(text, strlen(text), v), rows[i].kind);
        for (int g = 0; g < CP_LOAD_GAUGE_COUNT; g++) {
            if (rows[i].want[g] < 0)
                assert_true(isnan(v[g]));
            else
                assert_true(fabs(v[g] - rows[i].want[g]) < 1e-9);
        }
    }
}

static void a_run_of_scrapes(void **state)
{
    (void)state;
    cp_load_server s;
    double v[CP_LOAD_GAUGE_COUNT];
    cp_load_scrape_begin(&s);
    static const char *const texts[] = {
        "vllm:num_requests_running 1\nvllm:prompt_tokens_total 100\n", "",
        "vllm:num_requests_running 5\nvllm:prompt_tokens_total 150\n",
        "vllm:num_requests_running 3\nvllm:prompt_tokens_total 250\n"};
    for (size_t i = 0; i < 4; i++)
        cp_load_scrape_add(&s, texts[i], strlen(texts[i]), v);
    cp_load_scrape_end(&s);
    assert_string_equal(s.kind, "vllm");
    assert_int_equal(s.scrapes, 3);
    assert_int_equal(s.failed_scrapes, 1);
    assert_true(fabs(s.mean[CP_LOAD_RUNNING] - 3) < 1e-9);
    assert_true(fabs(s.max[CP_LOAD_RUNNING] - 5) < 1e-9);
    assert_true(fabs(s.last[CP_LOAD_PROMPT_TOKENS] - s.first[CP_LOAD_PROMPT_TOKENS] - 150) < 1e-9);
    assert_true(isnan(s.mean[CP_LOAD_KV_USAGE]));
}

int suite_scrape(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(a_run_of_scrapes),
    };
    return cmocka_run_group_tests_name("scrape", tests, NULL, NULL);
}
