/*
 * lines: gives what is typed, a line at a time, and tells of Ctrl-C at the prompt. A cp_lines
 * belongs to one thread and reads standard input; SIGINT must be blocked in the process and stand
 * behind the caller's signalfd.
 */
#ifndef CP_APP_LINES_H
#define CP_APP_LINES_H

#include "base/code.h"
#include "base/mem.h"

#include <stdbool.h>

typedef struct cp_lines {
    int interrupts; /* signalfd of SIGINT, not blocking */
    cp_buf ahead;   /* read and not yet taken */
    bool end;
} cp_lines;

typedef enum cp_news { CP_NEWS_LINE, CP_NEWS_DROPPED, CP_NEWS_END } cp_news;

/* Was SIGINT sent since the last call? */
bool cp_interrupted(int interrupts);
/* The next line without its newline, or news of Ctrl-C, which drops what was typed of it. CP_IO,
 * and CP_TOO_LARGE above 16 MiB. */
cp_code cp_lines_next(cp_lines *in, cp_buf *line, cp_news *what, cp_err *err);
/* The line without blanks around it, NUL-terminated within line; NULL: out of memory. */
char *cp_line_trim(cp_buf *line);
void cp_lines_fini(cp_lines *in);

#endif
