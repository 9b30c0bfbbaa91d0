/*
 * progress: shows a person and a log how far something is that takes long.
 *
 * On a terminal that is a bar with bytes, rate and time left, as much of it as fits into its width;
 * elsewhere, and on a terminal that says it is dumb, it is a log line every 5 s. A cp_progress is a
 * value of its caller's and belongs to one thread; cp_progress_report is a cp_progress_fn. With a
 * watcher, the numbers go there, too (the server's probes), or go nowhere else (a pull that another
 * process started). Every line goes to stderr.
 */
#ifndef CP_APP_PROGRESS_H
#define CP_APP_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* phase is a static string. */
typedef void cp_progress_watch_fn(void *arg, const char *phase, uint64_t done, uint64_t total,
                                  uint64_t bytes_per_second);

typedef struct cp_progress {
    const char *what; /* named in log lines, borrowed */
    cp_progress_watch_fn *watch;
    void *watch_arg;
    bool terminal, quiet;
    bool standing; /* a bar stands on the terminal's last line */
    size_t drawn;  /* its columns */
    const char *phase;
    int64_t begin_ns, line_ns;  /* of the phase; of the last line or bar */
    uint64_t begin_bytes, rate; /* done when the phase was first seen: a pull that is resumed */
    uint64_t done, total;
} cp_progress;

/* what: "mymodel:v1". quiet: the watcher only. */
void cp_progress_init(cp_progress *p, const char *what, bool quiet);
void cp_progress_report(void *p, const char *phase, uint64_t done, uint64_t total);
/* End of all phases: the bar is closed. */
void cp_progress_end(cp_progress *p);

/* The static string of a phase that this program knows, else NULL. */
const char *cp_progress_phase(const char *name, uint64_t n);

#endif
