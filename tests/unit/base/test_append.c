/*
 * Lines that a thread appends: order and wholeness, a buffer that is full, a file that was moved
 * away or cannot be written.
 */
#include "tests/unit/base/suites.h"

#include "base/append.h"
#include "base/io.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { NEVER_MS = 3600000 };

static cp_append *open_at(const char *path, size_t bytes)
{
    cp_append *a = NULL;
    cp_err err;
    const cp_append_config cfg = {.path = path, .bytes = bytes};
    assert_int_equal(cp_append_open(&a, &cfg, &err), CP_OK);
    return a;
}

static void check_file(const char *path, const char *want)
{
    cp_buf b = {0};
    assert_int_equal(cp_file_read(path, 1 << 20, &b, NULL), CP_OK);
    assert_string_equal(b.p ? b.p : "", want);
    cp_buf_fini(&b);
}

static void lines_come_to_the_end_in_order(void **state)
{
    (void)state;
    char path[64];
    temp_file(path, "before\n");
    cp_append *a = open_at(path, 4096);
    cp_append_line(a, "one", 3);
    cp_append_line(a, "", 0);
    cp_append_line(a, "three", 5);
    assert_true(cp_append_close(a, NEVER_MS));
    check_file(path, "before\none\n\nthree\n");
    unlink(path);
    cp_err err;
    const cp_append_config nowhere = {.path = "/none/there/x", .bytes = 64};
    assert_int_equal(cp_append_open(&a, &nowhere, &err), CP_IO);
    assert_non_null(strstr(err.msg, "/none/there/x"));
    assert_true(cp_append_close(NULL, 0));
}

/* What was moved away keeps the lines before, the new file gets those after. */
static void a_file_that_was_moved_is_opened_anew(void **state)
{
    (void)state;
    char path[64], moved[80];
    temp_file(path, "");
    cp_snprintf(moved, sizeof(moved), "%s.1", path);
    cp_append *a = open_at(path, 4096);
    cp_append_line(a, "old", 3);
    while (cp_append_lines(a) < 1)
        usleep(1000);
    assert_int_equal(rename(path, moved), 0);
    cp_append_reopen(a);
    cp_append_line(a, "new", 3);
    assert_true(cp_append_close(a, NEVER_MS));
    check_file(moved, "old\n");
    check_file(path, "new\n");
    unlink(path);
    unlink(moved);
}

/* A pipe that nobody reads holds the writer up; what then finds no room is dropped, the rest comes
 * whole. */
typedef struct stuck {
    int pipe[2];
    cp_buf got;
} stuck;

static cp_code open_pipe(void *arg, const char *path, int *fd, cp_err *err)
{
    (void)path;
    (void)err;
    *fd = dup(((stuck *)arg)->pipe[1]);
    return CP_OK;
}

static void *read_all(void *arg)
{
    stuck *s = arg;
    cp_fd_read(s->pipe[0], "pipe", 64 << 20, &s->got, NULL);
    return NULL;
}

static void what_finds_no_room_is_dropped_and_counted(void **state)
{
    (void)state;
    stuck s = {.pipe = {-1, -1}};
    cp_append *a = NULL;
    cp_err err;
    enum { LINES = 4000 };
    char line[101];
    memset(line, 'x', sizeof(line));
    assert_int_equal(pipe(s.pipe), 0);
    const cp_append_config cfg = {.path = "p", .bytes = 64 << 10, .open = open_pipe, .arg = &s};
    assert_int_equal(cp_append_open(&a, &cfg, &err), CP_OK);
    close(s.pipe[1]);
    for (int i = 0; i < LINES; i++) {
        cp_snprintf(line, 6, "%05d", i);
        line[5] = 'x';
        cp_append_line(a, line, 100);
    }
    uint64_t dropped = cp_append_dropped(a);
    assert_true(dropped > 0); /* a pipe holds 64 KiB, and so do the two buffers */
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, read_all, &s), 0);
    while (cp_append_lines(a) + dropped < LINES)
        usleep(1000);
    assert_int_equal(cp_append_dropped(a), dropped);
    assert_true(cp_append_close(a, NEVER_MS));
    pthread_join(reader, NULL);
    close(s.pipe[0]);
    assert_int_equal(s.got.n, (LINES - dropped) * 101);
    int last = -1;
    for (size_t at = 0; at < s.got.n; at += 101) {
        int number = (int)strtol(s.got.p + at, NULL, 10);
        assert_true(number > last && s.got.p[at + 100] == '\n');
        last = number;
    }
    cp_buf_fini(&s.got);
}

/* What nobody reads cannot be ended, and does not keep whoever closes it. */
static void who_closes_does_not_wait_for_ever(void **state)
{
    (void)state;
    stuck s = {.pipe = {-1, -1}};
    cp_append *a = NULL;
    cp_err err;
    enum { BYTES = 256 << 10 };
    char *line = cp_xcalloc(1, BYTES);
    memset(line, 'x', BYTES);
    assert_int_equal(pipe(s.pipe), 0);
    const cp_append_config cfg = {.path = "p", .bytes = 2 * BYTES, .open = open_pipe, .arg = &s};
    assert_int_equal(cp_append_open(&a, &cfg, &err), CP_OK);
    cp_append_line(a, line, BYTES); /* four times what a pipe holds */
    assert_false(cp_append_close(a, 10));
    /* Its thread gets on, ends, and closes the file. */
    close(s.pipe[1]);
    read_all(&s);
    assert_int_equal(s.got.n, BYTES + 1);
    close(s.pipe[0]);
    cp_buf_fini(&s.got);
    free(line);
}

static cp_code open_full(void *arg, const char *path, int *fd, cp_err *err)
{
    (void)arg;
    (void)path;
    (void)err;
    *fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    return CP_OK;
}

static void what_cannot_be_written_is_counted(void **state)
{
    (void)state;
    cp_append *a = NULL;
    cp_err err;
    const cp_append_config cfg = {.path = "full", .bytes = 4096, .open = open_full};
    assert_int_equal(cp_append_open(&a, &cfg, &err), CP_OK);
    cp_append_line(a, "lost", 4);
    while (cp_append_dropped(a) < 1)
        usleep(1000);
    assert_int_equal(cp_append_lines(a), 0);
    assert_true(cp_append_close(a, NEVER_MS));
}

/* A disk that has room for ten bytes: what it took counts, and what comes once there is more room
 * begins a line of its own. */
static void what_a_full_disk_took_is_told_apart(void **state)
{
    (void)state;
    char path[64];
    struct rlimit old, ten;
    temp_file(path, "");
    cp_append *a = open_at(path, 4096);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    ten = (struct rlimit){.rlim_cur = 10, .rlim_max = old.rlim_max};
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &ten), 0);
    cp_append_line(a, "1234", 4);
    while (cp_append_lines(a) < 1)
        usleep(1000);
    cp_append_line(a, "abcdefgh", 8);
    while (cp_append_dropped(a) < 1)
        usleep(1000);
    cp_append_line(a, "nothing of it", 13);
    while (cp_append_dropped(a) < 2)
        usleep(1000);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, before);
    cp_append_line(a, "whole", 5);
    while (cp_append_lines(a) < 2)
        usleep(1000);
    assert_int_equal(cp_append_dropped(a), 2);
    assert_true(cp_append_close(a, NEVER_MS));
    check_file(path, "1234\nabcde\nwhole\n");
    unlink(path);
}

/* Holds the thread up where it opens the file, so that lines come to it in one buffer. */
typedef struct gate {
    sem_t held, go;
} gate;

static cp_code open_held(void *arg, const char *path, int *fd, cp_err *err)
{
    gate *g = arg;
    sem_post(&g->held);
    sem_wait(&g->go);
    return cp_append_open_path(NULL, path, fd, err);
}

static void lines_that_the_disk_took_are_not_lost(void **state)
{
    (void)state;
    char path[64];
    struct rlimit old, ten;
    gate g;
    cp_append *a = NULL;
    cp_err err;
    temp_file(path, "");
    assert_int_equal(sem_init(&g.held, 0, 0), 0);
    assert_int_equal(sem_init(&g.go, 0, 1), 0);
    const cp_append_config cfg = {.path = path, .bytes = 4096, .open = open_held, .arg = &g};
    assert_int_equal(cp_append_open(&a, &cfg, &err), CP_OK);
    sem_wait(&g.held);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    ten = (struct rlimit){.rlim_cur = 10, .rlim_max = old.rlim_max};
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &ten), 0);
    cp_append_reopen(a);
    sem_wait(&g.held);
    for (int i = 0; i < 6; i++)
        cp_append_line(a, "123", 3);
    sem_post(&g.go);
    while (cp_append_lines(a) + cp_append_dropped(a) < 6)
        usleep(1000);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, before);
    assert_int_equal(cp_append_lines(a), 2);
    assert_true(cp_append_close(a, NEVER_MS));
    check_file(path, "123\n123\n12");
    sem_destroy(&g.held);
    sem_destroy(&g.go);
    unlink(path);
}

int suite_append(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_to_the_end_in_order),
        cmocka_unit_test(a_file_that_was_moved_is_opened_anew),
        cmocka_unit_test(what_finds_no_room_is_dropped_and_counted),
        cmocka_unit_test(who_closes_does_not_wait_for_ever),
        cmocka_unit_test(what_cannot_be_written_is_counted),
        cmocka_unit_test(what_a_full_disk_took_is_told_apart),
        cmocka_unit_test(lines_that_the_disk_took_are_not_lost),
    };
    return cmocka_run_group_tests_name("append", tests, NULL, NULL);
}
