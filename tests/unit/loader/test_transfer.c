/*
 * Transfers against a registry in memory: ranges, resuming, servers that ignore ranges, wrong and
 * short and long bodies, failures, two processes.
 */
#include "loader/oci/store/partial.h"
#include "loader/oci/transfer.h"
#include "tests/unit/loader/pull_room.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, MANY = 40 };

typedef struct set {
    const cp_room *r;
    const cp_fake_item *it[MANY];
    size_t n;
    int connections;
    bool mirrored;
    uint64_t last_done;
    bool went_back;
    char phases[64];
} set;

static void add(set *s, size_t n, uint32_t salt)
{
    char digest[CP_DIGEST_STR];
    s->it[s->n++] = cp_fake_blob(s->r->fake, n, salt, digest);
}

static void seen(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    set *s = arg;
    s->went_back = s->went_back || done < s->last_done || done > total;
    s->last_done = done;
    if (!strstr(s->phases, phase) && strlen(s->phases) + strlen(phase) + 2 < sizeof(s->phases)) {
        size_t n = strlen(s->phases);
        cp_snprintf(s->phases + n, sizeof(s->phases) - n, "%s ", phase);
    }
}

static cp_code move(set *s, cp_err *err)
{
    cp_descriptor d[MANY];
    const cp_descriptor *list[MANY];
    cp_transfer t = {.layout = &s->r->l,
                     .registry = s->r->registry,
                     .places = &s->r->places,
                     .blob = list,
                     .n = s->n,
                     .connections = s->connections,
                     .mirrored = s->mirrored,
                     .progress = seen,
                     .arg = s};
    for (size_t i = 0; i < s->n; i++) {
        d[i] = cp_room_descriptor(s->it[i]);
        list[i] = &d[i];
        t.total += d[i].size;
    }
    s->last_done = 0;
    s->went_back = false;
    return cp_transfer_run(&t, err);
}

static void moves(set *s)
{
    cp_err err = {0};
    if (move(s, &err) != CP_OK)
        fail_msg("transfer: %s", err.msg);
    for (size_t i = 0; i < s->n; i++)
        cp_room_has_blob(s->r, s->it[i]);
    assert_int_equal(cp_room_count(s->r, "capstan/partial"), 0);
    assert_int_equal(s->r->fake->n_running, 0);
}

static void refused(set *s, cp_code want, const char *text)
{
    cp_err err = {0};
    cp_code code = move(s, &err);
    if (code != want || err.code != want || !strstr(err.msg, text))
        fail_msg("code %d '%s', wanted %d '%s'", code, err.msg, want, text);
    assert_int_equal(s->r->fake->n_running, 0);
}

static uint64_t sent_since(const set *s, uint64_t *mark)
{
    uint64_t n = s->r->fake->sent - *mark;
    *mark = s->r->fake->sent;
    return n;
}

static void blobs_of_all_sizes(void **state)
{
    set s = {.r = *state};
    static const size_t sizes[] = {0,       1,           MIB - 1,      MIB, MIB + 1, 4 * MIB,
                                   5 * MIB, 7 * MIB + 1, 33 * MIB + 5, 2,   3 * MIB, 900000};
    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        add(&s, sizes[i], i);
    uint64_t total = 0, mark = 0;
    for (size_t i = 0; i < s.n; i++)
        total += s.it[i]->n;
    moves(&s);
    assert_int_equal(sent_since(&s, &mark), total); /* each byte once */
    assert_true(!s.went_back && s.last_done == total);
    assert_true(s.r->fake->longest <= 16 * MIB);
    moves(&s); /* all there: nothing is asked for */
    assert_int_equal(sent_since(&s, &mark), 0);
}

static void connections_are_used(void **state)
{
    static const int counts[] = {1, 3, 8, 32};
    for (size_t i = 0; i < 4; i++) {
        set s = {.r = *state, .connections = counts[i]};
        add(&s, 40 * MIB, (uint32_t)i);
        s.r->fake->most_running = 0;
        s.r->fake->reversed = i % 2;
        s.r->fake->chunk = i == 1 ? 1000 : 0;
        moves(&s);
        if (counts[i] <= 8)
            assert_int_equal(s.r->fake->most_running, counts[i]);
        assert_true(s.r->fake->most_running <= counts[i] && s.r->fake->longest <= 16 * MIB);
    }
}

/* A server that ignores ranges: once without, units that are there are not written again. */
static void ranges_ignored(void **state)
{
    set s = {.r = *state};
    uint64_t mark = 0;
    s.r->fake->no_ranges = true;
    add(&s, 20 * MIB + 3, 1);
    add(&s, 6 * MIB, 2);
    moves(&s);
    assert_int_equal(sent_since(&s, &mark), s.it[0]->n + s.it[1]->n);
    /* Taken up with ranges refused: the whole comes again. */
    set t = {.r = *state};
    add(&t, 30 * MIB, 3);
    s.r->fake->no_ranges = false;
    s.r->fake->fail_after = s.r->fake->sent + 9 * MIB;
    refused(&t, CP_NETWORK, "the line is dead");
    s.r->fake->fail_after = 0;
    s.r->fake->no_ranges = true;
    s.r->fake->wrong_at = 3; /* in a unit that is there already */
    s.r->fake->wrong_left = 1;
    sent_since(&s, &mark);
    moves(&t);
    assert_int_equal(s.r->fake->wrong_left, 0);
    assert_int_equal(sent_since(&s, &mark), t.it[0]->n);
}

static void resumes_after_failure(void **state)
{
    set s = {.r = *state};
    uint64_t mark = 0, total;
    add(&s, 50 * MIB + 9, 1);
    add(&s, 10, 2);
    total = s.it[0]->n + s.it[1]->n;
    for (int i = 1; i <= 4; i++) {
        s.r->fake->fail_after = s.r->fake->sent + 10 * MIB;
        refused(&s, CP_NETWORK, "the line is dead");
    }
    s.r->fake->fail_after = 0;
    moves(&s);
    /* A failure costs less than a unit a connection. */
    uint64_t sent = sent_since(&s, &mark);
    assert_true(sent >= total && sent <= total + 4 * 4 * MIB);
}

static int run_child(void *arg)
{
    return move(arg, NULL) != CP_OK;
}

static void resumes_after_kill(void **state)
{
    set s = {.r = *state};
    char fault[64];
    uint64_t mark = 0, total;
    add(&s, 30 * MIB + 100, 7);
    add(&s, 9 * MIB, 8);
    total = s.it[0]->n + s.it[1]->n;
    for (uint64_t n = 1; n < 12 * MIB; n += 4 * MIB - 12345) {
        snprintf(fault, sizeof(fault), "bytes=%llu:kill", (unsigned long long)n);
        setenv("CAPSTAN_FAULT", fault, 1);
        int status = cp_room_child(run_child, &s);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    unsetenv("CAPSTAN_FAULT");
    moves(&s);
    /* 3 kills after 4 MiB steps: 1 + 4 + 8 MiB were written, all but < 1 MiB a connection count. */
    uint64_t sent = sent_since(&s, &mark);
    assert_true(sent < total - 12 * MIB + 3 * 4 * MIB + MIB);
    assert_true(sent < total);
}

static void killed_while_publishing(void **state)
{
    static const char *const points[] = {"fsync:kill", "rename:kill", "renamed:kill"};
    for (uint32_t i = 0; i < 3; i++) {
        set s = {.r = *state};
        uint64_t mark = 0;
        add(&s, 5 * MIB + i, i);
        setenv("CAPSTAN_FAULT", points[i], 1);
        assert_true(WIFSIGNALED(cp_room_child(run_child, &s)));
        unsetenv("CAPSTAN_FAULT");
        sent_since(&s, &mark);
        moves(&s);
        if (i < 2) /* only the hash is done again */
            assert_int_equal(sent_since(&s, &mark), 0);
    }
}

static void wrong_bytes(void **state)
{
    set s = {.r = *state};
    uint64_t mark = 0;
    add(&s, 6 * MIB, 1);
    s.r->fake->wrong_at = 2 * MIB + 5;
    s.r->fake->wrong_left = 1;
    refused(&s, CP_CORRUPT, "the bytes received have digest sha256:");
    assert_int_equal(cp_room_count(s.r, "capstan/partial"), 0);
    assert_int_equal(cp_room_count(s.r, "blobs/sha256"), 0);
    assert_int_equal(sent_since(&s, &mark), s.it[0]->n); /* it was not asked twice */
    /* Mirrors: once more, past them. */
    s.mirrored = true;
    s.r->fake->wrong_left = 1;
    moves(&s);
    assert_int_equal(sent_since(&s, &mark), 2 * s.it[0]->n);
    assert_true(s.r->fake->n_upstream > 0);
    set t = {.r = *state, .mirrored = true};
    add(&t, 6 * MIB, 2);
    s.r->fake->wrong_left = 9;
    refused(&t, CP_CORRUPT, "the bytes received");
    assert_int_equal(sent_since(&s, &mark), 2 * t.it[0]->n);
}

/* What an earlier process left is wrong: fetched again from the start, without a word. */
static void wrong_leftovers(void **state)
{
    set s = {.r = *state};
    add(&s, 12 * MIB, 1);
    s.r->fake->wrong_at = 5;
    s.r->fake->wrong_left = 1;
    s.r->fake->fail_after = 6 * MIB;
    refused(&s, CP_NETWORK, "the line is dead");
    assert_int_equal(s.r->fake->wrong_left, 0);
    s.r->fake->fail_after = 0;
    moves(&s);
}

static void short_and_long_bodies(void **state)
{
    set s = {.r = *state};
    add(&s, 3 * MIB, 1);
    s.r->fake->short_body = true;
    refused(&s, CP_CORRUPT, "the body ended at");
    s.r->fake->short_body = false;
    s.r->fake->long_body = true;
    refused(&s, CP_CORRUPT, "were due");
    s.r->fake->long_body = false;
    moves(&s);
    set t = {.r = *state};
    char digest[CP_DIGEST_STR];
    cp_fake_item absent = *cp_fake_blob(s.r->fake, 10, 99, digest);
    memset(absent.name + 7, 'a', 64);
    t.it[t.n++] = &absent;
    refused(&t, CP_NOT_FOUND, "no such blob");
}

/* Two at once: together they fetch each blob once; the one that waits says how far it is. */
static void two_processes(void **state)
{
    set s = {.r = *state};
    int out[2], status;
    add(&s, 24 * MIB, 1);
    add(&s, 5 * MIB, 2);
    add(&s, 9 * MIB, 3);
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        s.r->fake->chunk = 4096;
        cp_code code = move(&s, NULL);
        ssize_t k = write(out[1], &s.r->fake->sent, sizeof(s.r->fake->sent));
        _exit(code || k != sizeof(s.r->fake->sent));
    }
    s.r->fake->chunk = 4096;
    moves(&s);
    uint64_t other = 0;
    assert_int_equal(read(out[0], &other, sizeof(other)), sizeof(other));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(other + s.r->fake->sent, 38 * MIB);
    assert_false(s.went_back);
    close(out[0]);
    close(out[1]);
}

/* The first dies in the middle: the second goes on where it was. */
static void second_process_takes_over(void **state)
{
    set s = {.r = *state};
    int status;
    add(&s, 24 * MIB, 1);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("CAPSTAN_FAULT", "bytes=12000000:kill", 1);
        s.r->fake->chunk = 512;
        _exit(move(&s, NULL) != CP_OK);
    }
    for (uint64_t done = 0, allocated; done == 0; usleep(100)) {
        cp_descriptor d = cp_room_descriptor(s.it[0]);
        cp_partial_peek(&s.r->l, &d, &done, &allocated);
    }
    moves(&s);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_true(s.r->fake->sent <= 24 * MIB - 12000000 + 4 * MIB);
}

static void blob_without_space(void **state)
{
    set s = {.r = *state};
    add(&s, 10, 1);
    cp_fake_item huge = *s.it[0];
    huge.n = (size_t)CP_BLOB_MAX;
    s.it[s.n++] = &huge;
    cp_err err = {0};
    assert_int_equal(move(&s, &err), CP_IO);
}

int cp_suite_transfer(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, cp_room_setup, cp_room_teardown)
    const struct CMUnitTest tests[] = {
        T(blobs_of_all_sizes),    T(connections_are_used),      T(ranges_ignored),
        T(resumes_after_failure), T(resumes_after_kill),        T(killed_while_publishing),
        T(wrong_bytes),           T(wrong_leftovers),           T(short_and_long_bodies),
        T(two_processes),         T(second_process_takes_over), T(blob_without_space),
    };
#undef T
    return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
