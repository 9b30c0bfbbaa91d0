/*
 * Children that a server forks: what they keep, what they pass over, and what ends them.
 */
#include "tests/support/cmocka.h"

#include "app/child.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Answers every message by the same with its first byte raised, until the socket ends. */
static int echo(int fd, void *arg)
{
    char m[64];
    (void)arg;
    for (ssize_t n; (n = read(fd, m, sizeof m)) > 0;) {
        m[0]++;
        if (write(fd, m, (size_t)n) != n) {
            return 3;
        }
    }
    return 0;
}

static void ask(const cp_child *c, char say)
{
    char got = 0;
    assert_int_equal(write(c->fd, &say, 1), 1);
    assert_int_equal(read(c->fd, &got, 1), 1);
    assert_int_equal(got, say + 1);
}

static void it_talks_and_ends_with_its_socket(void **state)
{
    cp_child c;
    (void)state;
    assert_int_equal(cp_child_start(&c, "echo", SOCK_SEQPACKET, echo, NULL, NULL), CP_OK);
    ask(&c, 'a');
    pid_t pid = c.pid;
    cp_child_stop(&c, 10000);
    assert_int_equal(c.pid, 0);
    assert_int_equal(c.fd, -1);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1); /* it was waited for */
    cp_child_stop(&c, 0);
    cp_child_stop(&(cp_child){0}, 0);
}

static void signals_from_outside_pass_it_by(void **state)
{
    sigset_t blocked, old;
    cp_child c;
    (void)state;
    sigfillset(&blocked);
    sigprocmask(SIG_BLOCK, &blocked, &old);
    assert_int_equal(cp_child_start(&c, "echo", SOCK_SEQPACKET, echo, NULL, NULL), CP_OK);
    sigprocmask(SIG_SETMASK, &old, NULL);
    ask(&c, 'a'); /* its signals are set */
    kill(c.pid, SIGTERM);
    kill(c.pid, SIGINT);
    kill(c.pid, SIGHUP);
    ask(&c, 'b');
    kill(c.pid, SIGUSR1); /* nothing is blocked: this one ends it */
    char end;
    assert_int_equal(read(c.fd, &end, 1), 0);
    cp_child_stop(&c, 10000);
}

/* What is open beside the standard descriptors and the socket; the name. */
static int look(int fd, void *arg)
{
    char name[16] = "";
    (void)arg;
    prctl(PR_GET_NAME, name);
    for (int i = fd + 1; i < 256; i++) {
        if (fcntl(i, F_GETFD) >= 0) {
            return 4;
        }
    }
    return write(fd, name, strlen(name)) > 0 ? 0 : 5;
}

static void it_keeps_no_descriptor_but_its_end(void **state)
{
    char name[16] = "";
    int kept[2], status;
    cp_child c;
    (void)state;
    assert_int_equal(pipe(kept), 0);
    assert_int_equal(cp_child_start(&c, "looks", SOCK_STREAM, look, NULL, NULL), CP_OK);
    assert_int_equal(read(c.fd, name, sizeof name), 5);
    assert_string_equal(name, "looks");
    assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
    assert_int_equal(status, 0);
    cp_child_stop(&c, 0);
    close(kept[0]);
    close(kept[1]);
}

/* Holds the pipe's end that fd 1 is, whatever comes. */
static int stay(int fd, void *arg)
{
    (void)fd;
    (void)arg;
    while (pause() != 0) {
    }
    return 0;
}

static void it_dies_with_its_parent(void **state)
{
#ifdef __SANITIZE_THREAD__
    skip(); /* its runtime has a thread of its own in a process that was forked */
#endif
    int life[2];
    char none;
    (void)state;
    assert_int_equal(pipe(life), 0);
    pid_t parent = fork();
    if (parent == 0) {
        cp_child c;
        dup2(life[1], STDOUT_FILENO); /* the child keeps this one */
        close(life[0]);
        close(life[1]);
        _exit(cp_child_start(&c, "stays", SOCK_STREAM, stay, NULL, NULL) == CP_OK ? 0 : 1);
    }
    int status;
    close(life[1]);
    assert_int_equal(waitpid(parent, &status, 0), parent);
    assert_int_equal(status, 0);
    assert_int_equal(read(life[0], &none, 1), 0); /* nobody holds the other end any more */
    close(life[0]);
}

int main(void)
{
    alarm(60);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_talks_and_ends_with_its_socket),
        cmocka_unit_test(signals_from_outside_pass_it_by),
        cmocka_unit_test(it_keeps_no_descriptor_but_its_end),
        cmocka_unit_test(it_dies_with_its_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
