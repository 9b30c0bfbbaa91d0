/* This file opens and closes the standard descriptors: see stdio.h. */
#include "app/stdio.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

cp_code cp_stdio_open(cp_err *err)
{
    /* A file as large as it may be (ulimit -f) is an error of its write, not the end of a server
     * whose log it is, nor of a pull that would leave its temporary file. */
    (void)signal(SIGXFSZ, SIG_IGN);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            continue;
        }
        /* The lowest free number is fd itself: those below it are open by now. */
        if (open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) != fd) {
            return cp_fail(err, CP_IO, "descriptor %d is closed, and /dev/null: %s", fd,
                           strerror(errno));
        }
    }
    return CP_OK;
}

cp_code cp_stdio_read(size_t max, cp_buf *out, cp_err *err)
{
    /* The descriptor itself: /dev/stdin cannot be opened where it is a socket or another user's. */
    return cp_fd_read(STDIN_FILENO, "cannot read stdin", max, out, err);
}

cp_code cp_stdio_flush(cp_err *err)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return CP_OK;
    }
    return cp_fail(err, CP_IO, "cannot write stdout: %s",
                   errno ? strerror(errno) : "an earlier write failed");
}

int cp_stdio_close(int rc)
{
    cp_err err = {0};
    bool failed = cp_stdio_flush(&err) != CP_OK;
    /* Some file systems say only here that there was no room. */
    if (fclose(stdout) != 0 && !failed) {
        failed = true;
        cp_fail(&err, CP_IO, "cannot write stdout: %s", strerror(errno));
    }
    if (!failed || rc) {
        return rc; /* a command that failed has said why */
    }
    fprintf(stderr, "capstan: %s\n", err.msg);
    return cp_code_info(err.code)->exit;
}
