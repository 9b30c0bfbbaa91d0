/* Which files and folders are believed: owner and mode decide, and the kind. */
#include "tests/unit/base/suites.h"

#include "base/trust.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void owner_and_mode_decide(void **state)
{
    (void)state;
    static const struct {
        mode_t mode;
        bool trusted;
    } rows[] = {{0600, true},  {0644, true},  {0444, true},  {0755, true},
                {0664, false}, {0646, false}, {0666, false}, {02775, false}};
    char file[64], dir[64] = "/tmp/capstan-test-XXXXXX";
    temp_file(file, "x");
    assert_non_null(mkdtemp(dir));
    int f = open(file, O_RDONLY), d = open(dir, O_RDONLY | O_DIRECTORY);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(fchmod(f, rows[i].mode), 0);
        assert_int_equal(fchmod(d, rows[i].mode), 0);
        assert_int_equal(cp_fd_trusted(f), rows[i].trusted);
        assert_int_equal(cp_dir_fd_trusted(d), rows[i].trusted);
        assert_true(cp_dir_fd_owned(d));
        assert_false(cp_fd_trusted(d));
        assert_false(cp_dir_fd_trusted(f));
    }
    fchmod(f, 0644);
    fchmod(d, 0755);
    if (geteuid() == 0) { /* only root can give a file away, and root owns the rest of them */
        assert_int_equal(fchown(f, 4242, 4242), 0);
        assert_int_equal(fchown(d, 4242, 4242), 0);
        assert_false(cp_fd_trusted(f));
        assert_false(cp_dir_fd_trusted(d));
        assert_false(cp_dir_fd_owned(d));
        assert_int_equal(seteuid(4242), 0);
        assert_true(cp_fd_trusted(f)); /* its own */
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(fchown(f, 0, 0), 0);
        assert_int_equal(seteuid(4242), 0);
        assert_true(cp_fd_trusted(f)); /* root's */
        assert_int_equal(seteuid(0), 0);
    }
    assert_false(cp_fd_trusted(-1));
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_false(cp_fd_trusted(pipes[0]));
    close(pipes[0]);
    close(pipes[1]);
    close(f);
    close(d);
    unlink(file);
    rmdir(dir);
}

int suite_trust(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(owner_and_mode_decide)};
    return cmocka_run_group_tests_name("trust", tests, NULL, NULL);
}
