/*
 * The plots of the HTML report, and the tables beneath them.
 *
 * Sizes are bounded whatever the run was: a time line has at most BINS points, a curve KNOTS, a
 * scatter plot what its caller allows; captions say where something is left out.
 */
#include "bench/load/report_plots.h"

#include "bench/load/html.h"

#include <math.h>
#include <stdlib.h>

enum { BINS = 240, KNOTS = 400, SLOWEST = 20 };
#define LAG_SHOWN 0.05 /* of the median E2E: less is of no interest */

static void figure_begin(cp_buf *out, const char *title)
{
    cp_buf_printf(out, "<figure><figcaption>%s<small>", title);
}

static void key(cp_buf *out, const char *css, const char *text)
{
    cp_buf_adds(out, "<span class=\"key\">");
    cp_html_swatch(out, CP_HTML_DOT, css);
    cp_buf_printf(out, "%s</span>", text);
}

static void figure_plot(cp_html_plot *p, const char *says)
{
    cp_buf_adds(p->out, "</small></figcaption>");
    cp_html_plot_begin(p, says);
}

static void figure_end(cp_html_plot *p)
{
    cp_html_plot_end(p);
    cp_buf_adds(p->out, "</figure>");
}

static void figure_none(cp_buf *out, const char *why)
{
    cp_buf_printf(out, "</small></figcaption><p class=\"none\">%s</p></figure>", why);
}

static double most(const double *v, size_t n)
{
    double m = (double)NAN;
    for (size_t i = 0; i < n; i++)
        m = isfinite(v[i]) && !(v[i] <= m) ? v[i] : m;
    return m;
}

/* The smallest that is positive. */
static double least(const double *v, size_t n)
{
    double m = (double)NAN;
    for (size_t i = 0; i < n; i++)
        m = isfinite(v[i]) && v[i] > 0 && !(v[i] >= m) ? v[i] : m;
    return m;
}

/* Where the last that is there stands; 0: none is. */
static size_t last_of(const double *v, size_t n)
{
    while (n > 1 && !isfinite(v[n - 1]))
        n--;
    return n > 0 ? n - 1 : 0;
}

/* The names of two lines (b may be NULL) at their ends, pushed apart where they would touch. */
static void end_labels(cp_html_plot *p, const double *x, const double *a, const double *b, size_t n,
                       const char *const *name, const char *const *css)
{
    size_t i = last_of(a, n), k = b ? last_of(b, n) : i;
    double up = cp_html_py(p, a[i]), low = b ? cp_html_py(p, b[k]) : up;
    if (b && fabs(up - low) < 13) {
        double mid = (up + low) / 2, by = low < up ? 7 : -7;
        up = mid + by;
        low = mid - by;
    }
    if (isfinite(a[i]))
        cp_html_end_label(p, x[i], up, name[0], css[0]);
    if (b && isfinite(b[k]))
        cp_html_end_label(p, x[k], low, name[1], css[1]);
}

/* The distribution of a latency. */

typedef struct knots {
    double share[KNOTS + 8], ms[KNOTS + 8];
    size_t n;
} knots;

static void knot(knots *k, double share, double ms)
{
    if (k->n > 0 && share <= k->share[k->n - 1])
        return;
    k->share[k->n] = share;
    k->ms[k->n++] = ms;
}

/* Buckets give the curve its shape, the exact percentiles its height: between two of these no
 * bucket's border may lie above the upper or below the lower one. */
static void curve(const cp_load_figures *f, knots *k)
{
    const double at[] = {0.5, 0.9, 0.95, 0.99, 1}, v[] = {f->p50, f->p90, f->p95, f->p99, f->max};
    const size_t n = sizeof(at) / sizeof(at[0]);
    size_t next = 0, every = f->n_buckets / KNOTS + 1;
    uint64_t total = 0, sum = 0;
    double floor_ms = 0;
    k->n = 0;
    for (size_t i = 0; i < f->n_buckets; i++)
        total += f->buckets[i].count;
    if (total > 0)
        knot(k, 0, fmin(f->buckets[0].from_ms, f->p50));
    for (size_t i = 0; i < f->n_buckets && total > 0; i++) {
        sum += f->buckets[i].count;
        double share = (double)sum / (double)total;
        for (; next < n && at[next] <= share; next++) {
            knot(k, at[next], v[next]);
            floor_ms = v[next];
        }
        double ms = fmax(f->buckets[i].to_ms, floor_ms);
        if (share < 1 && i % every == 0)
            knot(k, share, next < n ? fmin(ms, v[next]) : ms);
    }
    for (; next < n; next++)
        knot(k, at[next], v[next]);
}

/* The value at a share, along the curve. */
static double read_curve(const knots *k, double share)
{
    for (size_t i = 0; i < k->n; i++) {
        if (k->share[i] < share)
            continue;
        if (i == 0 || k->share[i] - share < 1e-12)
            return k->ms[i];
        double t = (share - k->share[i - 1]) / (k->share[i] - k->share[i - 1]);
        return k->ms[i - 1] + t * (k->ms[i] - k->ms[i - 1]);
    }
    return (double)NAN;
}

static void distribution(cp_buf *out, const char *name, const char *what, const cp_load_figures *f)
{
    knots k;
    cp_buf_printf(out, "<figure><figcaption>%s<small>%s", name, what);
    if (f->count == 0) {
        figure_none(out, "no request came so far");
        return;
    }
    curve(f, &k);
    double nines = fmin(fmax(log10(2 * (double)f->count), 1), 4), x[KNOTS + 8];
    for (size_t i = 0; i < k.n; i++)
        x[i] = k.share[i] < 1 ? fmin(-log10(1 - k.share[i]), nines) : nines;
    cp_html_plot p = {.out = out,
                      .margin = true,
                      .x = {.hi = nines, .unit = CP_HTML_NINES, .words = "percentile"},
                      .y = cp_html_axis_of(k.ms[0], f->max, CP_HTML_MS, "")};
    cp_html_words says, half = cp_html_say(f->p50, CP_HTML_MS),
                        tail = cp_html_say(f->p99, CP_HTML_MS),
                        top = cp_html_say(f->max, CP_HTML_MS);
    cp_snprintf(says.s, sizeof(says.s), "%s by percentile: median %s, p99 %s, max %s", name, half.s,
                tail.s, top.s);
    figure_plot(&p, says.s);
    cp_html_area(&p, x, k.ms, k.n, false, "c1");
    cp_html_line(&p, x, k.ms, k.n, false, "c1");
    double at[] = {log10(2), 1, 2}, v[] = {f->p50, f->p90, f->p99};
    size_t n = nines >= 2 ? 3 : 2;
    cp_html_marks(&p, at, v, n, CP_HTML_DOT, "c1 big");
    for (size_t i = 0; i < n && at[i] < 0.87 * nines; i++) /* beyond is the label of the end */
        cp_html_label(&p, at[i], v[i], cp_html_say(v[i], CP_HTML_MS).s, "");
    double py = cp_html_py(&p, f->max);
    cp_html_end_label(&p, nines, py - 6, top.s, "");
    cp_html_end_label(&p, nines, py + 7, "max", "c7");
    figure_end(&p);
}

void cp_load_plot_latencies(cp_buf *out, const cp_load_run *r)
{
    cp_buf_adds(out, "<h3>Latency</h3><div class=\"plots\">");
    distribution(out, "TTFT", "due to first token", &r->ttft);
    distribution(out, "ITL", "between two pieces of the stream that carry tokens", &r->itl);
    distribution(out, "TPOT", "first to last token, over tokens - 1", &r->tpot);
    distribution(out, "E2E", "due to the end of the answer", &r->e2e);
    if (r->lag.max > LAG_SHOWN * r->e2e.p50)
        distribution(out, "Lag", "due to sent", &r->lag);
    cp_buf_adds(out, "</div>");
    static const char *const columns[] = {"ms",  "p1",  "p5",  "p10",   "p25", "p50", "p75",
                                          "p90", "p95", "p99", "p99.9", "max", NULL};
    static const double at[] = {0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1};
    cp_buf_adds(out, "<details><summary>The curves as a table</summary>");
    cp_html_table_begin(out, "Latency by percentile", columns);
#define X(id, field, name, what)                                                                   \
    if (r->field.count > 0) {                                                                      \
        knots k;                                                                                   \
        curve(&r->field, &k);                                                                      \
        cp_buf_printf(out, "<tr><th scope=\"row\">%s</th>", name);                                 \
        for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)                                    \
            cp_html_cell(out, read_curve(&k, at[i]), 2);                                           \
        cp_buf_adds(out, "</tr>");                                                                 \
    }
    CP_LOAD_LATENCIES(X)
#undef X
    cp_html_table_end(out);
    cp_buf_adds(out,
                "<p class=\"small\">p50, p90, p95, p99 and max as measured; the others are read "
                "off the curve (within 5&nbsp;%).</p></details>");
}

/* The time line. */

typedef struct line {
    size_t n, width; /* points; seconds of each */
    double at[BINS], in_flight[BINS], tokens[BINS], running[BINS], waiting[BINS], kv[BINS];
    double ttft50[BINS], ttft99[BINS], itl50[BINS], itl99[BINS], completed[BINS], failed[BINS];
} line;

static double more(double a, double b)
{
    return !(a >= b) && isfinite(b) ? b : a;
}

/* Running mean of those that are there: after it, *n of them. */
static double mean(double m, double v, size_t *n)
{
    if (!isfinite(v))
        return m;
    ++*n;
    return *n == 1 ? v : m + (v - m) / (double)*n;
}

static void bin(line *l, size_t b, const cp_load_second *s, size_t n)
{
    size_t n_ttft = 0, n_itl = 0, n_tokens = 0, n_completed = 0, n_failed = 0;
    l->at[b] = (double)(b * l->width);
    l->in_flight[b] = l->tokens[b] = l->completed[b] = l->failed[b] = 0;
    l->running[b] = l->waiting[b] = l->kv[b] = (double)NAN;
    l->ttft50[b] = l->ttft99[b] = l->itl50[b] = l->itl99[b] = (double)NAN;
    for (size_t i = 0; i < n; i++) {
        l->in_flight[b] = fmax(l->in_flight[b], s[i].in_flight);
        l->tokens[b] = mean(l->tokens[b], (double)s[i].output_tokens, &n_tokens);
        l->completed[b] = mean(l->completed[b], s[i].completed, &n_completed);
        l->failed[b] = mean(l->failed[b], s[i].failed, &n_failed);
        l->running[b] = more(l->running[b], s[i].server_running);
        l->waiting[b] = more(l->waiting[b], s[i].server_waiting);
        l->kv[b] = more(l->kv[b], s[i].server_kv_usage);
        l->ttft50[b] = mean(l->ttft50[b], s[i].ttft_p50, &n_ttft);
        l->ttft99[b] = more(l->ttft99[b], s[i].ttft_p99);
        l->itl50[b] = mean(l->itl50[b], s[i].itl_p50, &n_itl);
        l->itl99[b] = more(l->itl99[b], s[i].itl_p99);
    }
}

static void bins(line *l, const cp_load_run *r)
{
    l->width = (r->n_seconds + BINS - 1) / BINS;
    l->n = 0;
    for (size_t i = 0; i < r->n_seconds; i += l->width, l->n++)
        bin(l, l->n, r->seconds + i, r->n_seconds - i < l->width ? r->n_seconds - i : l->width);
}

static cp_html_axis seconds_axis(const line *l)
{
    return (cp_html_axis){
        .hi = (double)(l->n * l->width), .unit = CP_HTML_SECONDS, .words = "since the run began"};
}

/* What each column says when it is pointed at. */
static void hovers(cp_html_plot *p, const line *l, const double *a, const double *b,
                   cp_html_unit unit)
{
    for (size_t i = 0; i < l->n; i++) {
        cp_html_words w, x = cp_html_say(a[i], unit), y = b ? cp_html_say(b[i], unit) : x;
        if (b)
            cp_snprintf(w.s, sizeof(w.s), "second %.0f: p50 %s, p99 %s", l->at[i], x.s, y.s);
        else
            cp_snprintf(w.s, sizeof(w.s), "second %.0f: %s", l->at[i], x.s);
        cp_html_hover(p, l->at[i], l->at[i] + (double)l->width, w.s);
    }
}

static void line_in_flight(cp_buf *out, const line *l)
{
    double running = most(l->running, l->n), waiting = most(l->waiting, l->n);
    cp_html_plot p = {.out = out, .x = seconds_axis(l)};
    p.y = cp_html_from_zero(fmax(fmax(fmax(most(l->in_flight, l->n), running), waiting), 4),
                            CP_HTML_PLAIN, "requests");
    figure_begin(out, "Requests in flight");
    key(out, "c1", "as sent from here");
    if (isfinite(running))
        key(out, "c3", "running, says the server");
    if (isfinite(waiting))
        key(out, "c2", "waiting, says the server");
    figure_plot(&p, "Requests in flight over the run");
    cp_html_area(&p, l->at, l->in_flight, l->n, true, "c1");
    cp_html_line(&p, l->at, l->in_flight, l->n, true, "c1");
    if (isfinite(running))
        cp_html_line(&p, l->at, l->running, l->n, true, "c3");
    if (isfinite(waiting))
        cp_html_line(&p, l->at, l->waiting, l->n, true, "c2");
    hovers(&p, l, l->in_flight, NULL, CP_HTML_PLAIN);
    figure_end(&p);
}

static void line_tokens(cp_buf *out, const line *l)
{
    cp_html_plot p = {.out = out, .x = seconds_axis(l)};
    p.y = cp_html_from_zero(most(l->tokens, l->n), CP_HTML_PLAIN, "tokens a second");
    figure_begin(out, "Output tokens");
    cp_buf_adds(out, "as chunks of streams carry them");
    figure_plot(&p, "Output tokens a second over the run");
    cp_html_area(&p, l->at, l->tokens, l->n, true, "c3");
    cp_html_line(&p, l->at, l->tokens, l->n, true, "c3");
    hovers(&p, l, l->tokens, NULL, CP_HTML_PLAIN);
    figure_end(&p);
}

static void line_latency(cp_buf *out, const line *l, const char *name, const double *p50,
                         const double *p99)
{
    static const char *const names[] = {"p50", "p99"}, *const css[] = {"c1", "c2"};
    double x[BINS], hi = more(most(p50, l->n), most(p99, l->n));
    cp_html_plot p = {.out = out, .x = seconds_axis(l), .margin = true};
    cp_html_words says;
    figure_begin(out, name);
    cp_buf_adds(out, "of what came in each second: ");
    key(out, "c1", "p50");
    key(out, "c2", "p99");
    if (!isfinite(hi)) {
        figure_none(out, "no token came");
        return;
    }
    for (size_t i = 0; i < l->n; i++)
        x[i] = l->at[i] + (double)l->width / 2;
    p.y = cp_html_axis_of(least(p50, l->n), hi, CP_HTML_MS, "");
    cp_snprintf(says.s, sizeof(says.s), "%s by second, median and p99", name);
    figure_plot(&p, says.s);
    cp_html_line(&p, x, p99, l->n, false, css[1]);
    cp_html_line(&p, x, p50, l->n, false, css[0]);
    end_labels(&p, x, p50, p99, l->n, names, css);
    hovers(&p, l, p50, p99, CP_HTML_MS);
    figure_end(&p);
}

static void line_table(cp_buf *out, const line *l)
{
    static const char *const columns[] = {
        "second",  "in flight", "completed/s", "failed/s", "tokens/s", "TTFT p50", "TTFT p99",
        "ITL p50", "ITL p99",   "running",     "waiting",  "KV cache", NULL};
    cp_buf_adds(out, "<details><summary>The time line as a table</summary>");
    cp_html_table_begin(out, "Time line, latencies in milliseconds", columns);
    for (size_t i = 0; i < l->n; i++) {
        cp_buf_printf(out, "<tr><th scope=\"row\">%.0f</th>", l->at[i]);
        cp_html_cell(out, l->in_flight[i], 0);
        cp_html_cell(out, l->completed[i], l->width > 1);
        cp_html_cell(out, l->failed[i], l->width > 1);
        cp_html_cell(out, l->tokens[i], 0);
        cp_html_cell(out, l->ttft50[i], 2);
        cp_html_cell(out, l->ttft99[i], 2);
        cp_html_cell(out, l->itl50[i], 2);
        cp_html_cell(out, l->itl99[i], 2);
        cp_html_cell(out, l->running[i], 0);
        cp_html_cell(out, l->waiting[i], 0);
        cp_html_cell_unit(out, l->kv[i], CP_HTML_SHARE);
        cp_buf_adds(out, "</tr>");
    }
    cp_html_table_end(out);
    cp_buf_adds(out, "</details>");
}

void cp_load_plot_seconds(cp_buf *out, const cp_load_run *r)
{
    line l;
    if (r->n_seconds == 0)
        return;
    bins(&l, r);
    cp_buf_adds(out, "<h3>Over time</h3><div class=\"plots\">");
    line_in_flight(out, &l);
    line_tokens(out, &l);
    line_latency(out, &l, "TTFT", l.ttft50, l.ttft99);
    line_latency(out, &l, "ITL", l.itl50, l.itl99);
    cp_buf_adds(out, "</div>");
    if (l.width > 1)
        cp_buf_printf(
            out,
            "<p class=\"small\">A point is %zu seconds: the most of what is in flight and "
            "of p99, the mean of the others.</p>",
            l.width);
    line_table(out, &l);
}

/* Requests, one mark each. */

typedef enum pick { PICK_E2E, PICK_TTFT } pick;

/* In the order of cp_load_outcome. */
static const struct {
    cp_html_mark mark;
    const char *css;
} looks[CP_LOAD_OUTCOME_COUNT] = {
    [CP_LOAD_OK] = {CP_HTML_DOT, "c1"},           [CP_LOAD_REFUSED] = {CP_HTML_TRIANGLE, "c2"},
    [CP_LOAD_CUT] = {CP_HTML_CROSS, "c4"},        [CP_LOAD_ERROR] = {CP_HTML_DIAMOND, "c5"},
    [CP_LOAD_UNREACHED] = {CP_HTML_SQUARE, "c6"}, [CP_LOAD_TIMEOUT] = {CP_HTML_WEDGE, "c2"},
    [CP_LOAD_DROPPED] = {CP_HTML_PLUS, "c7"},     [CP_LOAD_CANCELLED] = {CP_HTML_RING, "c7"},
};

void cp_load_plot_swatch(cp_buf *out, cp_load_outcome o)
{
    cp_html_swatch(out, looks[o].mark, looks[o].css);
}

const char *cp_load_plot_css(cp_load_outcome o)
{
    return looks[o].css;
}

static double latency(const cp_load_row *w, pick what)
{
    return (what == PICK_E2E ? w->end_ms : w->first_ms) - w->due_ms;
}

typedef struct cloud {
    size_t every[CP_LOAD_OUTCOME_COUNT]; /* each so many-th is shown */
    bool thinned;
} cloud;

/* Those that were answered get half of the points, the other outcomes, whose marks are larger, a
 * quarter. */
static cloud thin(const cp_load_run *r, size_t points)
{
    size_t n[CP_LOAD_OUTCOME_COUNT] = {0}, kinds = 0;
    cloud c = {.thinned = false};
    for (size_t i = 0; i < r->n_rows; i++)
        n[r->rows[i].outcome % CP_LOAD_OUTCOME_COUNT]++;
    for (int o = 1; o < CP_LOAD_OUTCOME_COUNT; o++)
        kinds += n[o] > 0;
    for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++) {
        size_t share = o == CP_LOAD_OK ? points / 2 : points / 4 / (kinds > 0 ? kinds : 1);
        c.every[o] = n[o] / (share > 0 ? share : 1) + 1;
        c.thinned = c.thinned || c.every[o] > 1;
    }
    return c;
}

/* The points of one outcome that are shown, at most cap. */
static size_t points_of(const cp_load_run *r, const cloud *c, int o, pick what, double *x,
                        double *y, size_t cap)
{
    size_t n = 0, seen = 0;
    for (size_t i = 0; i < r->n_rows && n < cap; i++) {
        const cp_load_row *w = &r->rows[i];
        if (w->outcome != o || seen++ % c->every[o] != 0)
            continue;
        x[n] = w->due_ms / 1e3;
        y[n] = latency(w, what);
        if (what == PICK_E2E && !isfinite(y[n]))
            y[n] = 0; /* it was never sent: a mark on the axis */
        n++;
    }
    return n;
}

static void scatter(cp_buf *out, const cp_load_run *r, const cloud *c, pick what, size_t points)
{
    double hi = (double)NAN, lo = (double)NAN, end = 0;
    for (size_t i = 0; i < r->n_rows; i++) {
        double v = latency(&r->rows[i], what);
        if (what == PICK_TTFT && r->rows[i].outcome != CP_LOAD_OK)
            continue;
        hi = more(hi, v);
        lo = v > 0 && !(lo <= v) ? v : lo;
        end = fmax(end, r->rows[i].due_ms / 1e3);
    }
    figure_begin(out, what == PICK_E2E ? "Due to end of every request"
                                       : "TTFT of every answered request");
    for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++) {
        if (r->by_outcome[o] == 0 || (what == PICK_TTFT && o != CP_LOAD_OK))
            continue;
        cp_buf_adds(out, "<span class=\"key\">");
        cp_load_plot_swatch(out, (cp_load_outcome)o);
        cp_buf_printf(out, "%s</span>", cp_load_outcome_slug((cp_load_outcome)o));
    }
    double *x = calloc(points + 1, sizeof(x[0])), *y = calloc(points + 1, sizeof(y[0]));
    if (!isfinite(hi) || !x || !y) {
        figure_none(out, "no request came so far");
    } else {
        cp_html_plot p = {.out = out};
        p.x = cp_html_from_zero(end > 0 ? end : 1, CP_HTML_SECONDS, "due, since the run began");
        p.x.hi = end > 0 ? end * 1.02 : 1;
        p.y = cp_html_axis_of(lo, hi, CP_HTML_MS, "");
        figure_plot(&p, what == PICK_E2E
                            ? "Time from due to end of each request, by when it was due"
                            : "TTFT of each request, by when it was due");
        for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++) {
            size_t n =
                what == PICK_TTFT && o != CP_LOAD_OK ? 0 : points_of(r, c, o, what, x, y, points);
            if (n > 0)
                cp_html_marks(&p, x, y, n, looks[o].mark, looks[o].css);
        }
        figure_end(&p);
    }
    free(x);
    free(y);
}

/* The requests that took longest, at most SLOWEST, longest first. */
static size_t slowest(const cp_load_run *r, const cp_load_row *top[SLOWEST])
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_rows; i++) {
        const cp_load_row *w = &r->rows[i];
        double v = latency(w, PICK_E2E);
        if (!isfinite(v) || (n == SLOWEST && v <= latency(top[n - 1], PICK_E2E)))
            continue;
        size_t at = n < SLOWEST ? n++ : n - 1;
        for (; at > 0 && latency(top[at - 1], PICK_E2E) < v; at--)
            top[at] = top[at - 1];
        top[at] = w;
    }
    return n;
}

static void scatter_table(cp_buf *out, const cp_load_run *r)
{
    static const char *const columns[] = {"due, s",     "due to sent",  "TTFT",
                                          "due to end", "input tokens", "output",
                                          "status",     "outcome",      NULL};
    const cp_load_row *top[SLOWEST];
    size_t n = slowest(r, top);
    cp_buf_printf(out, "<details><summary>The %zu requests that took longest</summary>", n);
    cp_html_table_begin(out, "The slowest requests, latencies in milliseconds", columns);
    for (size_t i = 0; i < n; i++) {
        const cp_load_row *w = top[i];
        cp_buf_adds(out, "<tr>");
        cp_html_cell(out, w->due_ms / 1e3, 3);
        cp_html_cell(out, w->sent_ms - w->due_ms, 2);
        cp_html_cell(out, latency(w, PICK_TTFT), 2);
        cp_html_cell(out, latency(w, PICK_E2E), 2);
        cp_html_cell(out, w->input_tokens, 0);
        cp_html_cell(out, w->output_tokens, 0);
        cp_buf_printf(out, "<td>%u</td><td>%s</td></tr>", w->status,
                      w->outcome < CP_LOAD_OUTCOME_COUNT
                          ? cp_load_outcome_slug((cp_load_outcome)w->outcome)
                          : "");
    }
    cp_html_table_end(out);
    cp_buf_adds(out, "</details>");
}

void cp_load_plot_requests(cp_buf *out, const cp_load_run *r, size_t points)
{
    if (r->n_rows == 0)
        return;
    cloud c = thin(r, points);
    cp_buf_adds(out, "<h3>Requests</h3><div class=\"plots\">");
    scatter(out, r, &c, PICK_E2E, points);
    scatter(out, r, &c, PICK_TTFT, points);
    cp_buf_adds(out, "</div>");
    if (c.thinned) {
        const char *before = "<p class=\"small\">Shown are, of each kind: ";
        for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++) {
            if (r->by_outcome[o] == 0)
                continue;
            cp_buf_printf(out, "%s%s one in %zu", before, cp_load_outcome_slug((cp_load_outcome)o),
                          c.every[o]);
            before = ", ";
        }
        cp_buf_adds(out, ".</p>");
    }
    scatter_table(out, r);
}

/* A sweep. */

typedef struct steps {
    size_t n;
    bool closed; /* by concurrency, else by rate */
    double at[BINS], tokens[BINS], done[BINS], good[BINS];
    double ttft50[BINS], ttft99[BINS], tpot50[BINS], tpot99[BINS];
} steps;

static double load_of(const steps *s, const cp_load_run *r)
{
    return s->closed ? r->concurrency : r->rate;
}

/* The runs by load, ascending: a sweep that halves its steps does not go upward. */
static void sort_steps(steps *s, const cp_load_result *r)
{
    const cp_load_run *by[BINS];
    s->n = r->n_runs < BINS ? r->n_runs : BINS;
    s->closed = r->runs[0].rate <= 0;
    for (size_t i = 0; i < s->n; i++) {
        const cp_load_run *run = &r->runs[r->n_runs - s->n + i];
        size_t at = i;
        for (; at > 0 && load_of(s, by[at - 1]) > load_of(s, run); at--)
            by[at] = by[at - 1];
        by[at] = run;
    }
    for (size_t i = 0; i < s->n; i++) {
        const cp_load_run *run = by[i];
        s->at[i] = load_of(s, run);
        s->tokens[i] = run->output_tok_s;
        s->done[i] = run->request_s;
        s->good[i] = run->goodput_request_s;
        s->ttft50[i] = run->ttft.p50;
        s->ttft99[i] = run->ttft.p99;
        s->tpot50[i] = run->tpot.p50;
        s->tpot99[i] = run->tpot.p99;
    }
}

/* Where the server gave way, and what it held. */
static void saturation(cp_html_plot *p, const cp_load_result *r)
{
    cp_html_words w;
    const cp_load_saturation *s = &r->saturation;
    if (s->swept && isfinite(s->gave_way)) {
        cp_snprintf(w.s, sizeof(w.s), "gave way at %s/s",
                    cp_html_say(s->gave_way, CP_HTML_PLAIN).s);
        cp_html_rule(p, s->gave_way, w.s);
    } else if (s->swept && isfinite(s->kept_up)) {
        cp_snprintf(w.s, sizeof(w.s), "kept up at %s/s", cp_html_say(s->kept_up, CP_HTML_PLAIN).s);
        cp_html_rule(p, s->kept_up, w.s);
    }
}

typedef struct pair {
    const char *title, *words, *name[2];
    const double *y[2];
    const char *css[2];
    cp_html_unit unit;
    bool diagonal; /* and where y would be x */
} pair;

static void step_plot(cp_buf *out, const cp_load_result *r, const steps *s, const pair *d)
{
    double hi = more(most(d->y[0], s->n), d->y[1] ? most(d->y[1], s->n) : (double)NAN);
    cp_html_plot p = {.out = out, .margin = true};
    size_t n = d->y[1] && isfinite(most(d->y[1], s->n)) ? 2 : 1;
    figure_begin(out, d->title);
    for (size_t i = 0; i < n; i++)
        key(out, d->css[i], d->name[i]);
    p.x = cp_html_from_zero(s->at[s->n - 1], CP_HTML_PLAIN,
                            s->closed ? "requests at a time" : "requests due a second");
    p.x.hi = s->at[s->n - 1] > 0 ? s->at[s->n - 1] * 1.02 : 1;
    if (d->unit == CP_HTML_MS)
        p.y = cp_html_axis_of(least(d->y[0], s->n), hi, d->unit, d->words);
    else
        p.y = cp_html_from_zero(d->diagonal ? more(hi, s->at[s->n - 1]) : hi, d->unit, d->words);
    figure_plot(&p, d->title);
    if (d->diagonal)
        cp_html_line(&p, s->at, s->at, s->n, false, "c7 thin");
    saturation(&p, r);
    for (size_t i = 0; i < n; i++) {
        cp_html_line(&p, s->at, d->y[i], s->n, false, d->css[i]);
        cp_html_marks(&p, s->at, d->y[i], s->n, CP_HTML_DOT,
                      d->css[i][1] == '1' ? "c1 big" : "c2 big");
    }
    end_labels(&p, s->at, d->y[0], n > 1 ? d->y[1] : NULL, s->n, d->name, d->css);
    figure_end(&p);
}

void cp_load_plot_sweep(cp_buf *out, const cp_load_result *r)
{
    steps s;
    if (r->n_runs < 2)
        return;
    sort_steps(&s, r);
    const pair plots[] = {
        {"Output tokens by load",
         "tokens a second",
         {"output"},
         {s.tokens},
         {"c1"},
         CP_HTML_PLAIN,
         false},
        {"Answered by load",
         "requests a second",
         {"answered", "good"},
         {s.done, s.good},
         {"c1", "c2"},
         CP_HTML_PLAIN,
         !s.closed},
        {"TTFT by load", "", {"p50", "p99"}, {s.ttft50, s.ttft99}, {"c1", "c2"}, CP_HTML_MS, false},
        {"TPOT by load",
         "",
         {"p50", "p99"},
         {s.tpot50, s.tpot99},
         {"c1", "c2"},
         CP_HTML_MS,
         false}};
    cp_buf_adds(out, "<div class=\"plots\">");
    for (size_t i = 0; i < sizeof(plots) / sizeof(plots[0]); i++)
        step_plot(out, r, &s, &plots[i]);
    cp_buf_adds(out, "</div>");
    if (!s.closed)
        cp_buf_adds(out,
                    "<p class=\"small\">The thin dotted line is where every request that is due is "
                    "answered in time.</p>");
}
