/* Reads and writes go on until all is done: short counts, signals, ends of files, errors. */
#include "tests/unit/base/suites.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { BYTES = 1 << 20, PIECE = 1000 };

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static void on_signal(int n)
{
    (void)n;
}

typedef struct feeder {
    int fd;
    pthread_t peer; /* interrupted before each piece */
    uint8_t *bytes;
    size_t n;
} feeder;

/* One end of a pipe, a piece at a time, so that the other's calls are short or interrupted. */
static void *give(void *arg)
{
    feeder *f = arg;
    for (size_t at = 0; at < f->n; at += PIECE) {
        pthread_kill(f->peer, SIGUSR1);
        size_t n = f->n - at < PIECE ? f->n - at : PIECE;
        if (write(f->fd, f->bytes + at, n) != (ssize_t)n) /* below PIPE_BUF: whole */
            break;
    }
    close(f->fd);
    return NULL;
}

static void *take(void *arg)
{
    feeder *f = arg;
    for (size_t at = 0; at < f->n;) {
        pthread_kill(f->peer, SIGUSR1);
        ssize_t n = read(f->fd, f->bytes + at, f->n - at < PIECE ? f->n - at : PIECE);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    return NULL;
}

static uint8_t *filled(void)
{
    uint8_t *p = malloc(BYTES);
    assert_non_null(p);
    for (size_t i = 0; i < BYTES; i++)
        p[i] = pattern(i);
    return p;
}

static void a_read_takes_all_pieces(void **state)
{
    (void)state;
    int fd[2];
    pthread_t t;
    uint8_t *from = filled(), *to = calloc(1, BYTES + PIECE);
    assert_int_equal(pipe(fd), 0);
    feeder f = {.fd = fd[1], .peer = pthread_self(), .bytes = from, .n = BYTES};
    assert_int_equal(pthread_create(&t, NULL, give, &f), 0);
    assert_int_equal(cp_io_read(fd[0], to, BYTES / 2), BYTES / 2);
    /* The stream ends before the rest is full. */
    assert_int_equal(cp_io_read(fd[0], to + BYTES / 2, BYTES / 2 + PIECE), BYTES / 2);
    assert_int_equal(cp_io_read(fd[0], to, PIECE), 0);
    pthread_join(t, NULL);
    assert_memory_equal(from, to, BYTES);
    close(fd[0]);
    free(from);
    free(to);
}

static void a_write_gives_all_pieces(void **state)
{
    (void)state;
    int fd[2];
    pthread_t t;
    uint8_t *from = filled(), *to = calloc(1, BYTES);
    assert_int_equal(pipe(fd), 0);
    feeder f = {.fd = fd[0], .peer = pthread_self(), .bytes = to, .n = BYTES};
    assert_int_equal(pthread_create(&t, NULL, take, &f), 0);
    assert_true(cp_io_write(fd[1], from, BYTES)); /* more than a pipe holds */
    close(fd[1]);
    pthread_join(t, NULL);
    assert_memory_equal(from, to, BYTES);
    close(fd[0]);
    free(from);
    free(to);
}

static void places_in_files_are_kept(void **state)
{
    (void)state;
    char path[64], back[8] = "";
    temp_file(path, "0123456789");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(cp_io_pwrite(fd, "abc", 3, 8));
    assert_int_equal(cp_io_pread(fd, back, 6, 6), 5); /* the file ends at 11 */
    assert_memory_equal(back, "67abc", 5);
    assert_int_equal(cp_io_pread(fd, back, 4, 11), 0);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
    assert_true(cp_io_pwrite(fd, "", 0, 0));
    close(fd);
    unlink(path);
}

/* The half of a write that still fits is done; the call that fails says why. */
static void an_error_in_the_middle_is_told(void **state)
{
    (void)state;
    char path[64];
    struct rlimit was, small;
    uint8_t *from = filled();
    temp_file(path, "");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){PIECE, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    bool whole = cp_io_write(fd, from, 2 * PIECE);
    int why = errno;
    bool placed = cp_io_pwrite(fd, from, 2 * PIECE, 0);
    int why_placed = errno;
    setrlimit(RLIMIT_FSIZE, &was);
    signal(SIGXFSZ, before);
    assert_false(whole);
    assert_int_equal(why, EFBIG);
    assert_false(placed);
    assert_int_equal(why_placed, EFBIG);
    assert_int_equal(lseek(fd, 0, SEEK_END), PIECE);
    close(fd);
    assert_int_equal(cp_io_read(fd, from, 1), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(cp_io_pread(fd, from, 1, 0), -1);
    assert_int_equal(errno, EBADF);
    unlink(path);
    free(from);
}

static void close_keeps_errno(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    errno = ENOSPC;
    cp_io_close(-1);
    cp_io_close(fd);
    cp_io_close(fd); /* EBADF within */
    assert_int_equal(errno, ENOSPC);
}

static void whole_files(void **state)
{
    (void)state;
    char path[64];
    cp_buf b = {0};
    cp_err err;
    temp_file(path, "hello");
    assert_int_equal(cp_file_read(path, 5, &b, &err), CP_OK);
    assert_string_equal(b.p, "hello");
    assert_int_equal(cp_file_read(path, 5, &b, &err), CP_OK);
    assert_string_equal(b.p, "hellohello");
    assert_int_equal(cp_file_read(path, 4, &b, &err), CP_TOO_LARGE);
    unlink(path);
    assert_int_equal(cp_file_read(path, 5, &b, &err), CP_NOT_FOUND);
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(cp_file_read("/", 5, &b, &err), CP_IO);
    cp_buf_fini(&b);
}

static int setup(void **state)
{
    (void)state;
    struct sigaction a = {.sa_handler = on_signal}; /* no SA_RESTART: calls end with EINTR */
    return sigaction(SIGUSR1, &a, NULL);
}

int suite_io(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_takes_all_pieces),
        cmocka_unit_test(a_write_gives_all_pieces),
        cmocka_unit_test(places_in_files_are_kept),
        cmocka_unit_test(an_error_in_the_middle_is_told),
        cmocka_unit_test(close_keeps_errno),
        cmocka_unit_test(whole_files),
    };
    return cmocka_run_group_tests_name("io", tests, setup, NULL);
}
