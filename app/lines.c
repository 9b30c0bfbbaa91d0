/* This file cuts standard input into lines: see lines.h. */
#include "app/lines.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 16 << 20 };

bool cp_interrupted(int interrupts)
{
    struct signalfd_siginfo info;
    return read(interrupts, &info, sizeof info) == (ssize_t)sizeof info;
}

/* A line out of what was read, without its newline; the last one may have none. */
static bool take_line(cp_lines *in, cp_buf *line)
{
    const char *nl = in->ahead.n ? memchr(in->ahead.p, '\n', in->ahead.n) : NULL;
    size_t n = nl ? (size_t)(nl - in->ahead.p) : in->ahead.n;
    if (!nl && (!in->end || n == 0)) {
        return false;
    }
    cp_buf_add(line, in->ahead.p, n);
    n += nl != NULL;
    memmove(in->ahead.p, in->ahead.p + n, in->ahead.n - n);
    in->ahead.n -= n;
    return true;
}

static cp_code read_ahead(cp_lines *in, cp_err *err)
{
    char piece[65536];
    ssize_t n = read(STDIN_FILENO, piece, sizeof piece);
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
        return cp_fail(err, CP_IO, "cannot read stdin: %s", strerror(errno));
    }
    in->end = n == 0;
    if (n > 0 && (in->ahead.n > LINE_BYTES_MAX || !cp_buf_add(&in->ahead, piece, (size_t)n))) {
        return cp_fail(err, CP_TOO_LARGE, "a line of stdin is longer than %d bytes",
                       LINE_BYTES_MAX);
    }
    return CP_OK;
}

cp_code cp_lines_next(cp_lines *in, cp_buf *line, cp_news *what, cp_err *err)
{
    cp_buf_clear(line);
    for (;;) {
        struct pollfd p[] = {{.fd = in->interrupts, .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
        *what = CP_NEWS_LINE;
        if (take_line(in, line)) {
            return CP_OK;
        }
        if (in->end) {
            *what = CP_NEWS_END;
            return CP_OK;
        }
        (void)poll(p, 2, -1);
        if (cp_interrupted(in->interrupts)) {
            cp_buf_clear(&in->ahead);
            *what = CP_NEWS_DROPPED;
            return CP_OK;
        }
        cp_code rc = p[1].revents ? read_ahead(in, err) : CP_OK;
        if (rc) {
            return rc;
        }
    }
}

char *cp_line_trim(cp_buf *line)
{
    if (!cp_buf_addc(line, '\0') || line->failed) {
        return NULL;
    }
    char *s = line->p + strspn(line->p, " \t\r\f\v");
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r\f\v", s[n - 1])) {
        n--;
    }
    s[n] = 0;
    return s;
}

void cp_lines_fini(cp_lines *in)
{
    cp_buf_fini(&in->ahead);
}
