/*
 * What a supervisor is told of a slow device: the real server before the real engine, over a device
 * whose steps wait at a gate and whose clock the test sets. /livez is 200 as long as operations of
 * a step end one after the other, however long the step takes, and 503 when none does.
 */
#include "harness.h"

#include "tests/unit/engine/bed.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#define SECONDS(n) (INT64_C(1000000000) * (n))
#define TEXT       "{\"prompt\":\"ab\",\"max_tokens\":2}"

typedef struct place {
    bed b;
    harness h;
} place;

/* The clock stands still but for what a test does. */
static void place_open(place *p)
{
    bed_open(&p->b, (bed_options){.row_ns = 1});
    h_open(&p->h, &(h_config){.engine = p->b.api, .resident = p->b.model});
}

static void place_close(place *p)
{
    cp_engine_stop(p->b.e);
    h_close(&p->h);
    bed_close(&p->b);
}

static void expect_status(const place *p, const char *path, int status)
{
    h_answer a = h_call(&p->h, "GET", path, "", NULL);
    assert_int_equal(a.status, status);
    h_answer_fini(&a);
}

/* A request, whose first step waits at the gate. */
static int begin(place *p)
{
    int fd = h_connect(&p->h);
    fake_gate(&p->b.f, true);
    h_request(fd, "POST", "/v1/completions", "", TEXT);
    fake_await_gate(&p->b.f);
    return fd;
}

static void end(place *p, int fd, int status, const char *code)
{
    h_answer a = {0};
    fake_gate(&p->b.f, false);
    assert_true(h_read(fd, &a));
    assert_int_equal(a.status, status);
    if (*code)
        assert_string_equal(h_error_code(&a), code);
    h_answer_fini(&a);
    close(fd);
}

static void livez_follows_the_heart_of_a_step(void **state)
{
    (void)state;
    place p;
    place_open(&p);
    expect_status(&p, "/livez", 200);
    int fd = begin(&p);
    expect_status(&p, "/livez", 200);
    for (int op = 0; op < 3; op++) {
        atomic_fetch_add(&p.b.f.clock_ns, SECONDS(25)); /* an operation takes long */
        expect_status(&p, "/livez", 200);
        atomic_fetch_add(&p.b.f.clock_ns, SECONDS(75)); /* it does not end */
        expect_status(&p, "/livez", 503);
        expect_status(&p, "/readyz", 200); /* that is for balancers, and asks for no heart */
        expect_status(&p, "/startupz", 200);
        atomic_store(p.b.f.beat, atomic_load(&p.b.f.clock_ns)); /* it has ended after all */
        expect_status(&p, "/livez", 200);
    }
    end(&p, fd, 200, "");
    expect_status(&p, "/livez", 200);
    place_close(&p);
}

static void livez_ends_with_the_device(void **state)
{
    (void)state;
    place p;
    place_open(&p);
    p.b.f.device_at = 1;
    int fd = begin(&p);
    expect_status(&p, "/livez", 200);
    end(&p, fd, 503, "device_failed");
    expect_status(&p, "/livez", 503);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(livez_follows_the_heart_of_a_step),
        cmocka_unit_test(livez_ends_with_the_device),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
