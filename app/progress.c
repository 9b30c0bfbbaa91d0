/* This file shows progress on a terminal, in a log, and to a watcher: see progress.h. */
#include "app/progress.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_EVERY_NS  ((int64_t)100000000)
#define LINE_EVERY_NS ((int64_t)5000000000)

enum {
    DEFAULT_COLUMNS = 80,
    LINE_MAX_COLUMNS = 160,
    BAR_MIN = 5,
    BAR_MAX = 30,
    BAR_FRAME = 3 /* "[" and "] " */
};

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

/* Where a line can be drawn again: a terminal that knows how to go back. */
static bool can_draw(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

void cp_progress_init(cp_progress *p, const char *what, bool quiet)
{
    *p = (cp_progress){.what = what, .quiet = quiet, .terminal = can_draw()};
}

/* "12.0 of 93.0 MiB, 3.1 MiB/s, 25 s left", or the first `parts` of it. */
static void describe(const cp_progress *p, int parts, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    if (parts > 0 && p->total) {
        n = cp_snprintf(out, cap, "%.1f of %.1f MiB", (double)p->done / 1048576.0,
                        (double)p->total / 1048576.0);
    } else if (parts > 0 && p->done) {
        n = cp_snprintf(out, cap, "%.1f MiB", (double)p->done / 1048576.0);
    }
    if (parts > 1 && p->rate) {
        n += cp_snprintf(out + n, cap - n, ", %.1f MiB/s", (double)p->rate / 1048576.0);
        if (parts > 2 && p->total > p->done) {
            cp_snprintf(out + n, cap - n, ", %" PRIu64 " s left",
                        (p->total - p->done + p->rate - 1) / p->rate);
        }
    }
}

/* Columns that a line may have: one less than the terminal, as some wrap when the last is written.
 * Asked each time: it may have been resized. */
static size_t line_room(void)
{
    struct winsize w = {0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0) {
        return DEFAULT_COLUMNS - 1;
    }
    return w.ws_col - 1u < LINE_MAX_COLUMNS ? w.ws_col - 1u : LINE_MAX_COLUMNS;
}

/* What a line shows, best first. */
static const struct {
    bool phase, bar;
    int parts; /* of the description */
} looks[] = {{true, true, 3},  {true, true, 2},  {true, true, 1},
             {true, false, 1}, {true, false, 0}, {false, false, 0}};

/* The first look that fits into room columns, else what fits of the last. Returns its length. */
static size_t compose(const cp_progress *p, size_t room, char line[LINE_MAX_COLUMNS + 1])
{
    char text[128], percent[16] = "", bar[BAR_MAX + 1];
    /* More than was announced, as of a file that grows, is all of it. */
    double part = !p->total ? 0 : p->done < p->total ? (double)p->done / (double)p->total : 1;
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        char phase[16] = "";
        bool with_bar = looks[i].bar && p->total;
        describe(p, looks[i].parts, text, sizeof text);
        if (looks[i].phase) {
            cp_snprintf(phase, sizeof phase, "%-10s ", p->phase);
        }
        if (p->total) { /* rounded down: 100 is all of it */
            cp_snprintf(percent, sizeof percent, looks[i].phase ? "%3d %%" : "%d%%",
                        (int)(part * 100.0));
        }
        size_t n = strlen(phase) + strlen(percent) + (*text && p->total ? 2 : 0) + strlen(text);
        size_t cells = room > n + BAR_FRAME ? room - n - BAR_FRAME : 0;
        bool last = i + 1 == sizeof looks / sizeof *looks;
        if (!last && (with_bar ? cells < BAR_MIN : n > room)) {
            continue;
        }
        cells = cells > BAR_MAX ? BAR_MAX : cells;
        memset(bar, '.', cells);
        memset(bar, '#', (size_t)(part * (double)cells));
        bar[cells] = '\0';
        cp_snprintf(line, room + 1, "%s%s%s%s%s%s%s", phase, with_bar ? "[" : "",
                    with_bar ? bar : "", with_bar ? "] " : "", percent,
                    *text && p->total ? "  " : "", text);
        break;
    }
    size_t n = strlen(line);
    while (n > 0 && line[n - 1] == ' ') {
        n--;
    }
    line[n] = '\0';
    return n;
}

static void draw(cp_progress *p)
{
    char line[LINE_MAX_COLUMNS + 1];
    size_t room = line_room(), n = compose(p, room, line);
    /* blanks over what is left of a longer line before, of a wider terminal as much as fits */
    size_t old = p->drawn < room ? p->drawn : room;
    fprintf(stderr, "\r%s%*s", line, old > n ? (int)(old - n) : 0, "");
    p->drawn = n;
    p->standing = true;
}

static void close_bar(cp_progress *p)
{
    if (p->standing) {
        draw(p);
        fputc('\n', stderr);
        p->drawn = 0;
        p->standing = false;
    }
}

/* Does phase a come after phase b in a load? */
static bool comes_after(const char *a, const char *b)
{
    int at[2] = {-1, -1};
    for (int i = 0; i < (int)(sizeof phases / sizeof *phases); i++) {
        at[0] = strcmp(phases[i], a) == 0 ? i : at[0];
        at[1] = strcmp(phases[i], b) == 0 ? i : at[1];
    }
    return at[0] > at[1];
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
        /* The last report of a phase may have come before its end: reports are not that frequent.
         * A later phase says that it is over, an earlier one that work begins again. */
        if (p->phase && p->total && comes_after(phase, p->phase)) {
            p->done = p->total;
        }
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
        if (!p->standing || now - p->line_ns >= BAR_EVERY_NS || (total && done == total)) {
            p->line_ns = now;
            draw(p);
        }
    } else if (now - p->line_ns >= LINE_EVERY_NS) {
        char text[128];
        p->line_ns = now;
        describe(p, 3, text, sizeof text);
        cp_log(CP_LOG_INFO, "%s: %s%s%s", p->what, phase, *text ? ": " : "", text);
    }
}

void cp_progress_end(cp_progress *p)
{
    close_bar(p);
    p->phase = NULL;
}
