/* What the server tells those who watch it: /metrics and its filter, the load in a header, why
 * requests were turned away. */
#include "harness.h"

#include "server/query.h"
#include "server/trace.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHAT  "/v1/chat/completions"
#define USER  "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define WHOLE "{" USER ",\"max_tokens\":3}"

/* The value of a series as it stands in /metrics; "": it is not there. */
static void metric(harness *h, const char *query, const char *series, char out[64])
{
    char path[2048], line[256];
    cp_snprintf(path, sizeof(path), "/metrics%s", query);
    h_answer a = h_call(h, "GET", path, "", NULL);
    assert_int_equal(a.status, 200);
    cp_snprintf(line, sizeof(line), "\n%s ", series);
    const char *at = a.body.p ? strstr(a.body.p, line) : NULL; /* nothing may be asked for */
    out[0] = '\0';
    if (at) {
        at += strlen(line);
        cp_snprintf(out, 64, "%.*s", (int)strcspn(at, "\n"), at);
    }
    h_answer_fini(&a);
}

static void check_metric(harness *h, const char *series, const char *want)
{
    char value[64];
    metric(h, "", series, value);
    if (strcmp(value, want) != 0)
        fail_msg("%s is '%s', not '%s'", series, value, want);
}

static void test_queries_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *query, *want; /* name=value; of each pair that counts */
    } rows[] = {
        {"", ""},
        {"a=1", "a=1;"},
        {"a=1&b", "a=1;b=;"},
        {"&&a=%41%2b&", "a=A+;"},
        {"name%5B%5D=x&name[]=y=z", "name[]=x;name[]=y=z;"},
        {"a=%4&b=%zz&c=%00&%=1&d=%41", "a=;b=;c=;d=A;"},
        {"=1&a=2", "a=2;"},
    };
    char name[CP_QUERY_TEXT], value[CP_QUERY_TEXT], all[256];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t n = 0;
        all[0] = '\0';
        for (const char *at = rows[i].query; cp_query_next(&at, name, value);)
            n += cp_snprintf(all + n, sizeof(all) - n, "%s=%s;", name, value);
        assert_string_equal(all, rows[i].want);
    }
    char long_query[2 * CP_QUERY_TEXT];
    memset(long_query, 'x', sizeof(long_query) - 1);
    long_query[sizeof(long_query) - 1] = '\0';
    const char *at = long_query;
    assert_false(cp_query_next(&at, name, value));
    long_query[1] = '=';
    at = long_query;
    assert_true(cp_query_next(&at, name, value));
    assert_string_equal(name, "x");
    assert_string_equal(value, "");
}

static void test_families_are_asked_for_by_name(void **state)
{
    (void)state;
    harness h;
    char value[64];
    h_open(&h, &(h_config){0});
    static const char running[] = "vllm:num_requests_running{engine=\"0\",model_name=\"smol\"}";
    static const char pages[] = "capstan_kv_pages{model=\"smol\",state=\"used\"}";
    metric(&h, "?name[]=vllm:num_requests_running", running, value);
    assert_string_equal(value, "0");
    metric(&h, "?name[]=vllm:num_requests_running", pages, value);
    assert_string_equal(value, "");
    metric(&h, "?x=1&name%5B%5D=none&name%5B%5D=capstan_kv_*", pages, value);
    assert_string_equal(value, "0");
    metric(&h, "?name[]=capstan_kv", pages, value);
    assert_string_equal(value, "");
    metric(&h, "?other=1", pages, value);
    assert_string_equal(value, "0");
    /* what is no name is nobody's, not everybody's; and any number of names counts */
    char query[1024] = "?name[]=";
    memset(query + strlen(query), 'x', 600);
    metric(&h, query, pages, value);
    assert_string_equal(value, "");
    cp_strcopy(query, sizeof(query), "?");
    for (int i = 0; i < 100; i++)
        memcpy(query + 1 + 9 * (size_t)i, "name[]=x&", 10);
    cp_strcopy(query + strlen(query), 64, "name[]=capstan_kv_pages");
    metric(&h, query, pages, value);
    assert_string_equal(value, "0");
    h_close(&h);
}

/* Zeroes before the first request, and while a model is loaded: an autoscaler finds its series. */
static void test_a_model_that_loads_has_its_series(void **state)
{
    (void)state;
    harness h;
    cp_err err;
    cp_served *x = NULL;
    static const char *const id = "coming";
    cp_metrics *m = cp_metrics_new(id);
    h_open(&h, &(h_config){0});
    assert_int_equal(cp_server_reserve_model(h.s, &id, 1, &x, &err), CP_OK);
    cp_server_count_model(x, m);
    check_metric(&h, "vllm:num_requests_waiting{engine=\"0\",model_name=\"coming\"}", "0");
    check_metric(&h, "capstan_model_state{model=\"coming\",state=\"loading\"}", "1");
    check_metric(&h, "capstan_model_state{model=\"coming\",state=\"ready\"}", "0");
    check_metric(&h, "capstan_model_state{model=\"smol\",state=\"ready\"}", "1");
    cp_metric_set(h.model_metrics, CP_M_STATE_FAILED, 1);
    check_metric(&h, "capstan_model_state{model=\"smol\",state=\"ready\"}", "0");
    check_metric(&h, "capstan_model_state{model=\"smol\",state=\"failed\"}", "1");
    cp_server_forget_model(h.s, x);
    check_metric(&h, "capstan_model_state{model=\"coming\",state=\"loading\"}", "");
    cp_metrics_free(m);
    h_close(&h);
}

static void test_the_load_is_told_who_asks(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    cp_metric_set(h.model_metrics, CP_M_KV_PAGES_FREE, 3);
    cp_metric_set(h.model_metrics, CP_M_KV_PAGES_USED, 1);
    cp_metric_set(h.model_metrics, CP_M_SEQUENCES_WAITING, 2);
    cp_metric_set(h.model_metrics, CP_M_SEQUENCES_PREEMPTED, 5);
    static const struct {
        const char *header, *want;
    } rows[] = {
        {"", NULL},
        {"endpoint-load-metrics-format: xml\r\n", NULL},
        {"endpoint-load-metrics-format: TEXT\r\n",
         "TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=7.0"},
        {"Endpoint-Load-Metrics-Format: json\r\n",
         "JSON {\"named_metrics\": {\"kv_cache_usage_perc\": 0.25, \"num_requests_waiting\": "
         "7.0}}"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int stream = 0; stream < 2; stream++) {
            char v[160];
            h_answer a = h_call(&h, "POST", CHAT, rows[i].header,
                                stream ? "{" USER ",\"stream\":true}" : WHOLE);
            assert_int_equal(a.status, 200);
            const char *got = h_header(&a, "endpoint-load-metrics", v, sizeof(v));
            if (!rows[i].want)
                assert_null(got);
            else
                assert_string_equal(got, rows[i].want);
            h_answer_fini(&a);
        }
    }
    h_close(&h);
}

static void check_load(harness *h, const char *want)
{
    h_answer a = h_call(h, "GET", "/load", "", NULL);
    assert_int_equal(a.status, 200);
    cp_buf_addc(&a.body, '\0');
    assert_string_equal(a.body.p, want);
    h_answer_fini(&a);
}

/* Whatever they wait for; what asks for no text is none of them, nor is one whose client has left.
 */
static void test_requests_in_flight_are_told(void **state)
{
    (void)state;
    harness h;
    h_open(&h, &(h_config){0});
    check_load(&h, "{\"server_load\":0}");
    cp_fake_set_hold(h.fake, CP_FAKE_QUEUE);
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = h_connect(&h);
        h_request(fd[i], "POST", CHAT, "", WHOLE);
    }
    h_wait_submitted(&h, 3);
    h_block_jobs(&h);
    int other = h_connect(&h);
    h_request(other, "POST", "/tokenize", "", "{\"content\":\"x\"}");
    h_wait_active(&h, 4);
    check_load(&h, "{\"server_load\":3}");
    cp_fake_set_hold(h.fake, CP_FAKE_STUCK); /* so that the engine does not let go of it */
    while (!cp_fake_read(h.fake).stuck)
        usleep(1000);
    close(fd[0]);
    while (cp_metric_get(h.process, CP_M_REQUESTS_ACTIVE) != 3)
        usleep(1000);
    check_load(&h, "{\"server_load\":2}");
    cp_fake_set_hold(h.fake, CP_FAKE_RUN);
    h_unblock_jobs(&h);
    close(other);
    close(fd[1]);
    close(fd[2]);
    h_wait_alone(&h);
    check_load(&h, "{\"server_load\":0}");
    h_close(&h);
}

static void test_a_key_for_metrics_alone(void **state)
{
    (void)state;
    harness h;
    cp_err err;
    cp_api_key keys[2];
    assert_int_equal(cp_api_key_parse("sk-use", &keys[0], &err), CP_OK);
    assert_int_equal(cp_api_key_parse("sk-watch scopes=metrics", &keys[1], &err), CP_OK);
    h_open(&h, &(h_config){.keys = keys, .n_keys = 2});
    static const char watch[] = "Authorization: Bearer sk-watch\r\n";
    static const struct {
        const char *path, *body;
        int status;
    } rows[] = {{"/metrics", NULL, 200},
                {"/load", NULL, 200},
                {"/v1/models", NULL, 403},
                {CHAT, WHOLE, 403}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        h_answer a = h_call(&h, rows[i].body ? "POST" : "GET", rows[i].path, watch, rows[i].body);
        assert_int_equal(a.status, rows[i].status);
        h_answer_fini(&a);
    }
    h_close(&h);
}

static void refused(harness *h, const char *body, int status)
{
    h_answer a = h_call(h, "POST", CHAT, "", body);
    assert_int_equal(a.status, status);
    h_answer_fini(&a);
}

static void test_rejections_have_a_reason(void **state)
{
    (void)state;
    harness h;
#define REJECTED(reason) "capstan_admission_rejected_total{reason=\"" reason "\"}"
    h_open(&h, &(h_config){.loading = true,
                           .max_queue = 1,
                           .deadline_ms = 150,
                           .grace_ms = 1,
                           .timeout_ms = 60000});
    refused(&h, WHOLE, 503);
    cp_server_ready(h.s);
    refused(&h, "{" USER ",\"max_tokens\":4097}", 400);
    refused(&h, "{nope", 400);
    check_metric(&h, REJECTED("loading"), "1");
    check_metric(&h, REJECTED("too_long"), "1");
    check_metric(&h, REJECTED("queue_full"), "0");
    check_metric(&h, REJECTED("draining"), "0");
    check_metric(&h, "capstan_drain_state", "0");
    cp_server_drain_begin(h.s);
    h_answer a;
    do {
        a = h_call(&h, "POST", CHAT, "", WHOLE);
        int status = a.status;
        h_answer_fini(&a);
        if (status == 503)
            break;
    } while (true);
    check_metric(&h, REJECTED("draining"), "1");
    char state_now[64];
    metric(&h, "", "capstan_drain_state", state_now);
    assert_true(strcmp(state_now, "2") == 0 || strcmp(state_now, "3") == 0);
    h_close(&h);
}

/* An engine whose model has gone when it is looked at again: another one has its place. */
typedef struct looked_at {
    _Atomic int n;
    cp_engine_profile seen[2];
} looked_at;

static void look(void *self, const cp_resident *model, cp_engine_profile *out)
{
    (void)model;
    looked_at *l = self;
    *out = l->seen[atomic_fetch_add(&l->n, 1) % 2];
}

static bool no_limits(void *self, const cp_resident *model, cp_engine_limits *out)
{
    (void)self;
    (void)model;
    *out = (cp_engine_limits){.ctx = 64};
    return true;
}

static bool always(void *self)
{
    (void)self;
    return true;
}

static void nobody(void *self, cp_mpsc *ready, void (*wake)(void *arg), void *arg)
{
    (void)self;
    (void)ready;
    (void)wake;
    (void)arg;
}

static void check_steps(looked_at *l, int want)
{
    cp_api_key key;
    cp_err err;
    assert_int_equal(cp_api_key_parse("sk-admin scopes=admin", &key, &err), CP_OK);
    const cp_engine_api api = {
        .self = l, .profile = look, .limits = no_limits, .alive = always, .set_front = nobody};
    harness h;
    h_open(&h, &(h_config){.keys = &key, .n_keys = 1, .engine = &api});
    h_answer a = h_call(&h, "GET", "/debug/profile?seconds=1", "X-Api-Key: sk-admin\r\n", NULL);
    assert_int_equal(a.status, 200);
    json_t *v = h_json(&a);
    const json_t *row = json_array_get(json_object_get(v, "models"), 0);
    assert_int_equal(json_integer_value(json_object_get(row, "steps")), want);
    const json_t *op = json_array_get(json_object_get(row, "operations"), 0);
    assert_int_equal(json_integer_value(json_object_get(op, "records")), 2 * want);
    json_decref(v);
    h_answer_fini(&a);
    h_close(&h);
}

static void test_a_window_has_what_came_in_it(void **state)
{
    (void)state;
    const cp_engine_profile before = {
        .since_ns = 7, .steps = 3, .step_ns = 30, .n = 1, .op = {{"linear", 20, 6}}};
    cp_engine_profile after = {
        .since_ns = 7, .steps = 5, .step_ns = 50, .n = 1, .op = {{"linear", 40, 10}}};
    check_steps(&(looked_at){.seen = {before, after}}, 2);
    after.since_ns = 8;
    check_steps(&(looked_at){.seen = {before, after}}, 5);
}

/* Nobody waits for a window at the end: it is answered with what it has seen. */
static void test_a_window_ends_with_the_server(void **state)
{
    (void)state;
    looked_at l = {.seen = {{.since_ns = 7, .steps = 3}, {.since_ns = 7, .steps = 5}}};
    cp_api_key key;
    cp_err err;
    assert_int_equal(cp_api_key_parse("sk-admin scopes=admin", &key, &err), CP_OK);
    const cp_engine_api api = {
        .self = &l, .profile = look, .limits = no_limits, .alive = always, .set_front = nobody};
    harness h;
    h_open(&h, &(h_config){.keys = &key, .n_keys = 1, .engine = &api, .grace_ms = 3600000});
    int fd = h_connect(&h);
    h_request(fd, "GET", "/debug/profile?seconds=60", "X-Api-Key: sk-admin\r\n", NULL);
    while (atomic_load(&l.n) == 0)
        usleep(1000);
    cp_server_drain_begin(h.s);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 200);
    json_t *v = h_json(&a);
    const json_t *row = json_array_get(json_object_get(v, "models"), 0);
    assert_int_equal(json_integer_value(json_object_get(row, "steps")), 2);
    assert_true(json_number_value(json_object_get(v, "seconds")) < 60);
    json_decref(v);
    h_answer_fini(&a);
    close(fd);
    h_close(&h);
}

/* Who sends traces reports on and on, and is heard whether somebody asks for metrics or not. */
static void test_reports_of_traces_do_not_pile_up(void **state)
{
    (void)state;
    const cp_trace_report r = {.exported = 1};
    int ends[2];
    harness h;
    long n = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    h_open(&h, &(h_config){.trace_fd = ends[0]});
    while (n < 2000) {
        if (send(ends[1], &r, sizeof(r), MSG_DONTWAIT) == (ssize_t)sizeof(r))
            n++;
        else
            usleep(1000);
    }
    check_metric(&h, "capstan_traces_total{result=\"exported\"}", "2000");
    h_close(&h);
    close(ends[0]);
    close(ends[1]);
}

/* Read on until spans of a whole request have word in them: how many requests were told of. */
static unsigned read_spans(int fd, const char *word)
{
    static char packet[CP_TRACE_PACKET + 1];
    uint32_t n, sum = 0;
    do {
        ssize_t bytes = recv(fd, packet, sizeof(packet) - 1, 0);
        assert_true(bytes > (ssize_t)sizeof(n));
        packet[bytes] = '\0';
        memcpy(&n, packet, sizeof(n));
        sum += n;
        assert_int_equal(packet[sizeof(n)], '{');
    } while (!strstr(packet + sizeof(n), word));
    return sum;
}

/* A choice of a request that failed ended by an error; nobody has cancelled it. */
static void test_spans_say_how_choices_ended(void **state)
{
    (void)state;
    int ends[2];
    harness h;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    h_open(&h, &(h_config){.trace_fd = ends[0]});
    cp_fake_set_hold(h.fake, CP_FAKE_QUEUE);
    int fd = h_connect(&h);
    h_request(fd, "POST", CHAT, "", WHOLE);
    h_wait_submitted(&h, 1);
    cp_fake_fail(h.fake, CP_DEADLINE);
    h_answer a;
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, 504);
    h_answer_fini(&a);
    assert_int_equal(read_spans(ends[1], "finish_reasons\",\"value\":{\"arrayValue\":{\"values\":[{"
                                         "\"stringValue\":\"error\"}]"),
                     1);
    a = h_call(&h, "POST", "/v2/nope", "", "{}"); /* no route, so no operation */
    assert_int_equal(a.status, 404);
    h_answer_fini(&a);
    assert_int_equal(read_spans(ends[1], "\"name\":\"POST unknown\""), 1);
    close(fd);
    h_close(&h);
    close(ends[0]);
    close(ends[1]);
}

/* More than a packet has room for, and what waits for the next tick when the server ends. */
static void test_spans_of_many_requests(void **state)
{
    (void)state;
    enum { MANY = 200 };
    int ends[2];
    harness h;
    char last[32];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    h_open(&h, &(h_config){.trace_fd = ends[0]});
    for (int i = 1; i <= MANY; i++) {
        cp_snprintf(last, sizeof(last), "/v2/number-%d", i);
        h_answer a = h_call(&h, "POST", last, "", "{}");
        assert_int_equal(a.status, 404);
        h_answer_fini(&a);
    }
    h_close(&h);
    close(ends[0]);
    assert_int_equal(read_spans(ends[1], last), MANY);
    close(ends[1]);
}

int run_watch_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queries_are_read),
        cmocka_unit_test(test_families_are_asked_for_by_name),
        cmocka_unit_test(test_a_model_that_loads_has_its_series),
        cmocka_unit_test(test_the_load_is_told_who_asks),
        cmocka_unit_test(test_requests_in_flight_are_told),
        cmocka_unit_test(test_a_key_for_metrics_alone),
        cmocka_unit_test(test_rejections_have_a_reason),
        cmocka_unit_test(test_a_window_has_what_came_in_it),
        cmocka_unit_test(test_a_window_ends_with_the_server),
        cmocka_unit_test(test_reports_of_traces_do_not_pile_up),
        cmocka_unit_test(test_spans_say_how_choices_ended),
        cmocka_unit_test(test_spans_of_many_requests),
    };
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
