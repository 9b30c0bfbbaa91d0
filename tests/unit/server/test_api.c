/*
 * The tables of APIs: what each row must have, and that a file (toy_api_json.c) and a row (toy.def)
 * are all that an API takes.
 */
#include "harness.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void check_api(const cp_api *a)
{
    assert_true(a->name && *a->name);
    assert_non_null(a->fields);
    assert_true(a->at && (a->at & (a->at - 1)) == 0); /* one bit */
    assert_non_null(a->parse);
    assert_non_null(a->error);
    assert_true(!a->other == !a->other_if);
    /* Fields whose text is used are fields that are read. */
    for (int i = 0; a->texts[i]; i++) {
        const cp_field *f = cp_field_find(a->fields, a->texts[i], a->at);
        if (!f && a->other)
            f = cp_field_find(a->other->fields, a->texts[i], a->other->at);
        if (!f && strcmp(a->texts[i], "model") == 0)
            continue; /* read before any table */
        assert_non_null(f);
    }
    /* It answers by itself, or it generates and can say all that there is to say. */
    assert_true(!(a->reply || a->act) == (a->begin && a->event && a->end && a->whole));
    assert_false(a->reply && a->act);
    if (!a->reply && !a->act)
        assert_true(a->id_prefix && a->prompt_field && a->top_field && a->stream_type);
}

static void test_every_row(void **state)
{
    (void)state;
    const cp_route *r;
    int n = 0;
    for (size_t i = 0; (r = cp_route_at(i)); i++) {
        assert_non_null(r->handle);
        assert_true(!r->api || r->method == CP_POST);
        if (!r->api)
            continue;
        check_api(r->api);
        if (r->api->other)
            check_api(r->api->other);
        n++;
        for (size_t k = 0; k < i; k++) { /* what two APIs of a table read is told apart */
            const cp_api *o = cp_route_at(k)->api;
            assert_true(!o || o->fields != r->api->fields || o->at != r->api->at);
        }
    }
    assert_int_equal(n, 9); /* the toy's, too */
}

static void is(h_answer *a, int status, const char *type, const char *body)
{
    char value[64];
    cp_buf_addc(&a->body, '\0');
    assert_int_equal(a->status, status);
    assert_string_equal(a->body.p, body);
    assert_string_equal(h_header(a, "Content-Type", value, sizeof(value)), type);
    h_answer_fini(a);
}

static void test_a_file_and_a_row(void **state)
{
    (void)state;
    static const char json[] = "application/json";
    harness h;
    h_open(&h, &(h_config){0});
    h_say(&h, "Hi");
    h_answer a = h_call(&h, "POST", "/toy", "", "{\"say\":\"x\"}");
    is(&a, 200, json, "{\"all\":\"Hi\"}");
    a = h_call(&h, "POST", "/toy", "", "{\"say\":\"x\",\"stream\":true}");
    is(&a, 200, "application/x-ndjson",
       "{\"more\":\"H\"}\n{\"more\":\"i\"}\n{\"why\":1}\n{\"tokens\":3}\n");
    a = h_call(&h, "POST", "/toy", "", "{\"say\":\"x\",\"count\":1,\"stream\":true}");
    is(&a, 200, "application/x-ndjson", "{\"more\":\"H\"}\n{\"why\":2}\n{\"tokens\":1}\n");
    a = h_call(&h, "POST", "/toy", "", "{\"say\":\"x\",\"count\":10}");
    is(&a, 400, json, "{\"oops\":\"invalid_value\"}");
    a = h_call(&h, "POST", "/toy", "", "{}");
    is(&a, 400, json, "{\"oops\":\"missing_field\"}");
    a = h_call(&h, "GET", "/toy", "", NULL);
    is(&a, 405, json, "{\"oops\":\"method_not_allowed\"}");
    /* An error inside of a stream, in its words. */
    cp_fake_set_hold_after(h.fake, 1);
    int fd = h_connect(&h);
    h_request(fd, "POST", "/toy", "", "{\"say\":\"x\",\"stream\":true}");
    char head[2048] = "";
    for (size_t n = 0; !strstr(head, "more");) {
        ssize_t k = recv(fd, head + n, sizeof(head) - 1 - n, 0);
        assert_true(k > 0);
        n += (size_t)k;
    }
    cp_fake_fail(h.fake, CP_MODEL_FAILED);
    for (size_t n = strlen(head); !strstr(head, "0\r\n\r\n");) {
        ssize_t k = recv(fd, head + n, sizeof(head) - 1 - n, 0);
        assert_true(k > 0);
        n += (size_t)k;
    }
    assert_non_null(strstr(head, "{\"oops\":\"model_failed\"}\n"));
    close(fd);
    cp_fake_set_hold_after(h.fake, 0);
    h_close(&h);
}

/* Who is not let in hears it from the API that was asked. */
static void test_errors_before_the_body(void **state)
{
    (void)state;
    cp_api_key key;
    cp_err err;
    assert_int_equal(cp_api_key_parse("sk-use", &key, &err), CP_OK);
    harness h;
    h_open(&h, &(h_config){.keys = &key, .n_keys = 1});
    h_answer a = h_call(&h, "POST", "/toy", "", "{\"say\":\"x\"}");
    is(&a, 401, "application/json", "{\"oops\":\"invalid_api_key\"}");
    a = h_call(&h, "POST", "/nowhere", "X-Api-Key: sk-use\r\n", "{}");
    assert_int_equal(a.status, 404);
    assert_string_equal(h_error_code(&a), "not_found");
    h_answer_fini(&a);
    h_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row),
        cmocka_unit_test(test_a_file_and_a_row),
        cmocka_unit_test(test_errors_before_the_body),
    };
    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
