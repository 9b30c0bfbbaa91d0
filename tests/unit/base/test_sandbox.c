/*
 * The wall of system calls, in a child of its own: what malloc may do where every signal is
 * blocked.
 */
#include "tests/support/cmocka.h"

#include "base/mem.h"
#include "base/sandbox.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SKIPPED = 77 };

/* The heap of this thread's arena grows and shrinks, as when glibc frees what belongs to threads
 * that have ended; a call that a handler has to look at would be the end. */
static void *free_much(void *arg)
{
    enum { BLOCKS = 8, BYTES = 100 << 10 };
    void *block[BLOCKS];
    sigset_t all;
    (void)arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (int i = 0; i < BLOCKS; i++)
        block[i] = cp_xcalloc(1, BYTES);
    for (int i = 0; i < BLOCKS; i++)
        free(block[i]);
    return NULL;
}

static int child(void)
{
    cp_err why;
    pthread_t thread;
    if (cp_sandbox_calls(&(cp_sandbox_config){.device = false}, &why) != CP_OK)
        return SKIPPED;
    if (pthread_create(&thread, NULL, free_much, NULL) != 0)
        return 1;
    pthread_join(thread, NULL);
    return cp_sandbox_refused() == 0 ? 0 : 2;
}

static void memory_goes_back_where_signals_are_blocked(void **state)
{
    (void)state;
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
        skip();
    assert_true(WIFEXITED(status)); /* else by SIGSYS */
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_goes_back_where_signals_are_blocked),
    };
    return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
