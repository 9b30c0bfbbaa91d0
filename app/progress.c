/* Progress on a terminal, in a log, and for a watcher: see progress.h. */
#include "app/progress.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR_EVERY_NS  ((int64_t)100000000)
#define LINE_EVERY_NS ((int64_t)5000000000)

static const char *const phases[] = {"resolving", "pulling", "verifying", "extracting",
                                     "packing",   "mapping", "warming",   "done"};

const char *cp_progress_phase(const char *name, uint64_t n)
{
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        if (strlen(phases[i]) == n && memcmp(phases[i], name, n) == 0) {
            return phases[i];
        }
    }
    return NULL;
}

void cp_progress_init(cp_progress *p, const char *what, bool quiet)
{
    *p = (cp_progress){.what = what, .quiet = quiet, .terminal = isatty(STDERR_FILENO) != 0};
}

/* "12.0 of 93.0 MiB, 3.1 MiB/s, 25 s left" */
static void describe(const cp_progress *p, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    if (p->total) {
        n = cp_snprintf(out, cap, "%.1f of %.1f MiB", (double)p->done / 1048576.0,
                        (double)p->total / 1048576.0);
    } else if (p->done) {
        n = cp_snprintf(out, cap, "%.1f MiB", (double)p->done / 1048576.0);
    }
    if (p->rate) {
        n += cp_snprintf(out + n, cap - n, ", %.1f MiB/s", (double)p->rate / 1048576.0);
        if (p->total > p->done) {
            cp_snprintf(out + n, cap - n, ", %" PRIu64 " s left",
                        (p->total - p->done + p->rate - 1) / p->rate);
        }
    }
}

static void draw(cp_progress *p)
{
    char text[128], line[224], bar[31];
    describe(p, text, sizeof text);
    double part = p->total ? (double)p->done / (double)p->total : 0;
    int full = part >= 1 ? 30 : (int)(part * 30.0);
    memset(bar, '.', 30);
    memset(bar, '#', (size_t)full);
    bar[30] = '\0';
    int n = (int)(p->total ? cp_snprintf(line, sizeof line, "%-10s [%s] %3.0f %%  %s", p->phase,
                                         bar, part * 100.0, text)
                           : cp_snprintf(line, sizeof line, "%-10s %s", p->phase, text));
    /* blanks over what is left of a longer line before */
    fprintf(stderr, "\r%s%*s", line, p->drawn > n ? p->drawn - n : 0, "");
    p->drawn = n;
}

static void close_bar(cp_progress *p)
{
    if (p->drawn) {
        draw(p);
        fputc('\n', stderr);
        p->drawn = 0;
    }
}

static void measure(cp_progress *p, int64_t now, uint64_t done)
{
    int64_t ns = now - p->begin_ns;
    if (ns > 0 && done > p->begin_bytes) {
        p->rate = (uint64_t)((double)(done - p->begin_bytes) * 1e9 / (double)ns);
    }
}

void cp_progress_report(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    cp_progress *p = arg;
    int64_t now = cp_now_ns();
    bool changed = !p->phase || strcmp(p->phase, phase) != 0;
    if (changed) {
        close_bar(p);
        p->phase = phase;
        p->begin_ns = p->line_ns = now;
        p->begin_bytes = done;
        p->rate = 0;
    }
    measure(p, now, done);
    p->done = done;
    p->total = total;
    if (p->watch) {
        p->watch(p->watch_arg, phase, done, total, p->rate);
    }
    if (p->quiet || strcmp(phase, "done") == 0) {
        return;
    }
    if (p->terminal) { /* what counts no bytes is over before one could read it */
        if (!done && !total) {
            return;
        }
        if (!p->drawn || now - p->line_ns >= BAR_EVERY_NS || (total && done == total)) {
            p->line_ns = now;
            draw(p);
        }
    } else if (now - p->line_ns >= LINE_EVERY_NS) {
        char text[128];
        p->line_ns = now;
        describe(p, text, sizeof text);
        cp_log(CP_LOG_INFO, "%s: %s%s%s", p->what, phase, *text ? ": " : "", text);
    }
}

void cp_progress_end(cp_progress *p)
{
    close_bar(p);
    p->phase = NULL;
}
