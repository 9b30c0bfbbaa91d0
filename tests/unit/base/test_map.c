/*
 * Mappings: a file that shrinks is a flag, not a death; a SIGBUS that is not ours still kills.
 */
#include "base/jobs.h"
#include "base/map.h"
#include "base/pool.h"
#include "tests/unit/base/suites.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 20 };

static size_t page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* A temporary file of PAGES pages, all bytes 0x5a; its name is unlinked. */
static int make_file(void)
{
    char name[] = "/tmp/capstan-map-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    char *bytes = malloc(PAGES * page());
    assert_non_null(bytes);
    memset(bytes, 0x5a, PAGES * page());
    assert_int_equal(write(fd, bytes, PAGES * page()), PAGES * page());
    free(bytes);
    return fd;
}

static unsigned sum(const cp_map *m)
{
    unsigned s = 0;
    for (size_t i = 0; i < m->n; i += 512)
        s += ((const volatile uint8_t *)m->p)[i];
    return s;
}

/* Where in a huge page a byte lies is the same in the file and in memory; nothing else is mapped.
 */
static void large_files_lie_as_huge_pages_do(void **state)
{
    enum { HUGE_PAGE = 2 << 20, BYTES = 3 * HUGE_PAGE + 700, MARK = 2 * HUGE_PAGE + 12345 };
    (void)state;
    char name[] = "/tmp/capstan-map-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    assert_int_equal(pwrite(fd, "mark", 4, MARK), 4);
    for (size_t offset = 0; offset < 3 * page(); offset += page() + 1) {
        cp_map m;
        unsigned char there;
        assert_int_equal(cp_map_open_at(&m, fd, offset, BYTES - offset, "large", NULL), CP_OK);
        assert_int_equal(((uintptr_t)m.p - offset) % HUGE_PAGE, 0);
        assert_memory_equal(m.p + (MARK - offset), "mark", 4);
        uintptr_t from = (uintptr_t)m.p - m.lead,
                  to = ((uintptr_t)m.p + m.n + page() - 1) / page() * page();
        assert_int_equal(mincore((void *)from, page(), &there), 0);
        assert_int_equal(mincore((void *)(to - page()), page(), &there), 0);
        assert_int_equal(mincore((void *)to, page(), &there), -1);
        cp_map_close(&m);
    }
    close(fd);
}

static void shrunk_file_poisons(void **state)
{
    (void)state;
    cp_map a, b;
    int fd = make_file(), other = make_file();
    assert_int_equal(cp_map_open(&a, fd, PAGES * page(), "a", NULL), CP_OK);
    assert_int_equal(cp_map_open(&b, other, PAGES * page() - 100, "b", NULL), CP_OK);
    cp_map_willneed(&a, 5000);
    unsigned whole = sum(&a);
    assert_false(cp_map_poisoned(&a));
    assert_int_equal(ftruncate(fd, (off_t)(4 * page())), 0);
    assert_int_equal(sum(&a), whole / PAGES * 4); /* what is gone reads as zeroes */
    assert_true(cp_map_poisoned(&a));
    assert_int_equal(sum(&a), whole / PAGES * 4);
    assert_int_equal(sum(&b), (PAGES * page() - 100 + 511) / 512 * 0x5a);
    assert_false(cp_map_poisoned(&b));
    close(fd);
    cp_map_close(&a);
    /* The slot's next owner starts clean. */
    assert_int_equal(cp_map_open(&a, other, PAGES * page(), "a again", NULL), CP_OK);
    assert_false(cp_map_poisoned(&a));
    assert_int_equal(sum(&a), whole);
    assert_int_equal(ftruncate(other, 0), 0);
    assert_int_equal(sum(&a) + sum(&b), 0);
    assert_true(cp_map_poisoned(&a) && cp_map_poisoned(&b));
    cp_map_close(&a);
    cp_map_close(&b);
    cp_map_close(&b);
    close(other);
}

/* Resident KiB of the mapping that begins at p; -1: there is none. */
static int resident_kib(const void *p)
{
    char line[512], head[32];
    int kib = -1;
    bool ours = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    int n = snprintf(head, sizeof(head), "%lx-", (unsigned long)(uintptr_t)p);
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, head, (size_t)n) == 0)
            ours = true;
        else if (ours && sscanf(line, "Rss: %d kB", &kib) == 1)
            break;
    }
    fclose(f);
    return kib;
}

static void what_is_forgotten_is_read_again(void **state)
{
    (void)state;
    cp_map m;
    int fd = make_file();
    assert_int_equal(cp_map_open_at(&m, fd, 100, PAGES * page() - 100, "m", NULL), CP_OK);
    unsigned whole = sum(&m);
    const uint8_t *begin = m.p - m.lead;
    assert_int_equal(resident_kib(begin), PAGES * (int)page() / 1024);
    cp_map_forget(&m);
    assert_int_equal(resident_kib(begin), 0);
    assert_int_equal(sum(&m), whole);
    assert_false(cp_map_poisoned(&m));
    cp_map_close(&m);
    cp_map_forget(&(cp_map){0});
    close(fd);
}

static void *read_all(void *arg)
{
    return (void *)(uintptr_t)sum(arg);
}

static void any_thread_may_meet_the_end(void **state)
{
    (void)state;
    cp_map m;
    pthread_t t[4];
    int fd = make_file();
    assert_int_equal(cp_map_open(&m, fd, PAGES * page(), "m", NULL), CP_OK);
    assert_int_equal(ftruncate(fd, 0), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, read_all, &m), 0);
    for (int i = 0; i < 4; i++) {
        void *s;
        pthread_join(t[i], &s);
        assert_null(s);
    }
    assert_true(cp_map_poisoned(&m));
    cp_map_close(&m);
    close(fd);
}

static void by_worker_1(cp_pool *pool, int id, void *arg)
{
    (void)pool;
    if (id == 1)
        sum(arg);
}

static void as_a_job(void *arg)
{
    sum(arg);
}

/* They block the signals from outside, but not this one. */
static void workers_and_jobs_may_meet_the_end(void **state)
{
    (void)state;
    for (int jobs = 0; jobs < 2; jobs++) {
        cp_map m;
        int fd = make_file();
        assert_int_equal(cp_map_open(&m, fd, PAGES * page(), "m", NULL), CP_OK);
        assert_int_equal(ftruncate(fd, 0), 0);
        if (jobs) {
            cp_jobs *j;
            assert_int_equal(cp_jobs_open(&j, 1, 1, NULL), CP_OK);
            assert_true(cp_jobs_submit(j, as_a_job, &m));
            cp_jobs_close(j);
        } else {
            cp_pool *p;
            assert_int_equal(cp_pool_open(&p, 2, NULL), CP_OK);
            cp_pool_run(p, by_worker_1, &m);
            cp_pool_close(p);
        }
        assert_true(cp_map_poisoned(&m));
        assert_true(cp_map_lost(m.p + 5000));
        cp_map_close(&m);
        close(fd);
    }
    assert_false(cp_map_lost(state));
}

/* Run f in a child whose action before ours was the default one; the signal that ended it, or 0. */
static int death(void (*f)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        cp_map m;
        int fd = make_file();
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGBUS, SIG_DFL); /* cmocka's handler */
        if (cp_map_open(&m, fd, PAGES * page(), "m", NULL) == CP_OK)
            f();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch_foreign(void)
{
    int fd = make_file();
    const volatile uint8_t *p = mmap(NULL, page(), PROT_READ, MAP_PRIVATE, fd, 0);
    if (ftruncate(fd, 0) == 0)
        (void)p[0];
}

static void send_sigbus(void)
{
    kill(getpid(), SIGBUS);
}
static void do_nothing(void) {}

static void foreign_sigbus_still_kills(void **state)
{
    (void)state;
    assert_int_equal(death(do_nothing), 0);
    assert_int_equal(death(touch_foreign), SIGBUS);
    assert_int_equal(death(send_sigbus), SIGBUS);
}

int suite_map(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_files_lie_as_huge_pages_do),
        cmocka_unit_test(shrunk_file_poisons),
        cmocka_unit_test(what_is_forgotten_is_read_again),
        cmocka_unit_test(any_thread_may_meet_the_end),
        cmocka_unit_test(workers_and_jobs_may_meet_the_end),
        cmocka_unit_test(foreign_sigbus_still_kills),
    };
    return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
