/*
 * The HTML report: one page with everything in it, read without scripts, on light and dark paper.
 *
 * Sizes are bounded whatever was measured: at most SHOWN runs are shown in full, and share POINTS
 * points for single requests; the page says where it leaves something out.
 */
#include "bench/load/html.h"
#include "bench/load/report.h"
#include "bench/load/report_plots.h"

#include <math.h>
#include <string.h>

enum { POINTS = 3000, SHOWN = 16, SWEEP_ROWS = 240, NOTES = 50 };

static bool given(const char *s)
{
    return s && s[0];
}

/* Small pieces. */

static void fact(cp_buf *out, const char *name, const char *value)
{
    if (!given(value))
        return;
    cp_buf_printf(out, "<dt>%s</dt><dd><bdi>", name);
    cp_html_text(out, value);
    cp_buf_adds(out, "</bdi></dd>");
}

/* What was measured. */

static void load_words(cp_buf *out, const cp_load_run *r)
{
    if (r->rate > 0) {
        cp_html_number(out, r->rate, CP_HTML_PLAIN);
        if (isfinite(r->rate_end) && r->rate_end > 0 && r->rate_end != r->rate) {
            cp_buf_adds(out, " to ");
            cp_html_number(out, r->rate_end, CP_HTML_PLAIN);
        }
        cp_buf_printf(out, " request%s a second", r->rate == 1 && !(r->rate_end > 1) ? "" : "s");
        if (r->concurrency > 0)
            cp_buf_printf(out, ", at most %u at a time", r->concurrency);
    } else {
        cp_buf_printf(out, "%u request%s at a time", r->concurrency,
                      r->concurrency == 1 ? "" : "s");
    }
}

static void slo_words(cp_buf *out, const cp_load_slo *s)
{
    const double v[] = {s->ttft, s->itl, s->tpot, s->e2e};
    static const char *const names[] = {"TTFT", "ITL", "TPOT", "E2E"};
    bool any = false;
    for (size_t i = 0; i < 4; i++) {
        if (!isfinite(v[i]))
            continue;
        cp_buf_printf(out, "%s%s \xE2\x89\xA4 %s", any ? ", " : "<dt>SLO</dt><dd>", names[i],
                      cp_html_say(v[i], CP_HTML_MS).s);
        any = true;
    }
    if (any)
        cp_buf_adds(out, "</dd>");
}

static void facts(cp_buf *out, const cp_load_result *r)
{
    cp_buf_adds(out, "<h2>What was measured</h2><dl class=\"facts\">");
    fact(out, "Server", r->server);
    fact(out, "Address", r->url);
    fact(out, "Model", r->model);
    fact(out, "Endpoint", r->endpoint);
    fact(out, "Prompts", r->dataset);
    if (r->n_runs == 1) {
        cp_buf_adds(out, "<dt>Load</dt><dd>");
        load_words(out, &r->runs[0]);
        cp_buf_adds(out, "</dd>");
    }
    slo_words(out, &r->slo);
    cp_buf_printf(out, "<dt>Seed</dt><dd>%llu</dd>", (unsigned long long)r->seed);
    fact(out, "Began", r->began);
    fact(out, "Measured by", r->version);
    cp_buf_adds(out, "</dl>");
    if (given(r->command)) {
        cp_buf_adds(out, "<pre><code>");
        cp_html_text(out, r->command);
        cp_buf_adds(out, "</code></pre>");
    }
}

static void notes(cp_buf *out, const cp_load_result *r)
{
    if (r->n_notes == 0)
        return;
    cp_buf_adds(out, "<ul class=\"notes\">");
    for (size_t i = 0; i < r->n_notes && i < NOTES; i++) {
        cp_buf_adds(out, "<li><bdi>");
        cp_html_text(out, r->notes[i]);
        cp_buf_adds(out, "</bdi></li>");
    }
    cp_buf_adds(out, "</ul>");
}

/* The figures. */

static void tile(cp_buf *out, const char *name, double v, cp_html_unit unit, const char *below,
                 double w, cp_html_unit below_unit)
{
    cp_buf_printf(out, "<li><span>%s</span><b>", name);
    cp_html_number(out, v, unit);
    cp_buf_printf(out, "</b><span>%s ", below);
    cp_html_number(out, w, below_unit);
    cp_buf_adds(out, "</span></li>");
}

/* The run whose figures a reader sees first: the highest rate that the server held, else the last.
 */
static const cp_load_run *best(const cp_load_result *r)
{
    const cp_load_run *b = &r->runs[r->n_runs - 1];
    for (size_t i = 0; i < r->n_runs && r->saturation.swept; i++) {
        const cp_load_run *run = &r->runs[i];
        if (!run->saturated && (b->saturated || run->rate > b->rate))
            b = run;
    }
    return b;
}

static void tiles(cp_buf *out, const cp_load_result *result)
{
    const cp_load_run *r = best(result);
    if (result->n_runs > 1) {
        cp_buf_printf(out, "<p class=\"lead\">%s ",
                      r->saturated || !result->saturation.swept
                          ? "The last run,"
                          : "The highest load that the server held,");
        load_words(out, r);
        cp_buf_adds(out, ":</p>");
    }
    cp_buf_adds(out, "<ul class=\"tiles\">");
    tile(out, "Output tokens/s", r->output_tok_s, CP_HTML_PLAIN, "input", r->input_tok_s,
         CP_HTML_PLAIN);
    tile(out, "Requests/s", r->request_s, CP_HTML_PLAIN, "in", r->duration_s, CP_HTML_SECONDS);
    tile(out, "TTFT, median", r->ttft.p50, CP_HTML_MS, "p99", r->ttft.p99, CP_HTML_MS);
    tile(out, "TPOT, median", r->tpot.p50, CP_HTML_MS, "p99", r->tpot.p99, CP_HTML_MS);
    tile(out, "E2E, median", r->e2e.p50, CP_HTML_MS, "p99", r->e2e.p99, CP_HTML_MS);
    if (isfinite(r->goodput))
        tile(out, "Goodput", r->goodput, CP_HTML_SHARE, "good/s", r->goodput_request_s,
             CP_HTML_PLAIN);
    tile(out, "Answered", (double)r->completed, CP_HTML_PLAIN, "failed", (double)r->failed,
         CP_HTML_PLAIN);
    cp_buf_adds(out, "</ul>");
}

static void figures(cp_buf *out, const cp_load_run *r)
{
    static const char *const columns[] = {"ms",  "count", "mean", "p50", "p90",
                                          "p95", "p99",   "max",  "",    NULL};
    cp_html_table_begin(out, "Latencies in milliseconds", columns);
#define X(id, field, name, what)                                                                   \
    {                                                                                              \
        const cp_load_figures *f = &r->field;                                                      \
        cp_buf_printf(out, "<tr><th scope=\"row\">%s</th>", name);                                 \
        cp_html_cell(out, (double)f->count, 0);                                                    \
        const double v[] = {f->mean, f->p50, f->p90, f->p95, f->p99, f->max};                      \
        for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)                                      \
            cp_html_cell(out, v[i], 2);                                                            \
        cp_buf_printf(out, "<td class=\"words\">%s</td></tr>", what);                              \
    }
    CP_LOAD_LATENCIES(X)
#undef X
    cp_html_table_end(out);
}

static void outcomes(cp_buf *out, const cp_load_run *r)
{
    static const char *const columns[] = {"outcome", "requests", "share", "", "", NULL};
    cp_buf_adds(out, "<h3>Outcomes</h3>");
    cp_html_table_begin(out, "How requests ended", columns);
    for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++) {
        double share = r->requests > 0 ? (double)r->by_outcome[o] / (double)r->requests : 0;
        if (r->by_outcome[o] == 0 && o != CP_LOAD_OK)
            continue;
        cp_buf_adds(out, "<tr><th scope=\"row\">");
        cp_load_plot_swatch(out, (cp_load_outcome)o);
        cp_buf_printf(out, "%s</th>", cp_load_outcome_slug((cp_load_outcome)o));
        cp_html_cell(out, (double)r->by_outcome[o], 0);
        cp_html_cell_unit(out, r->requests > 0 ? share : (double)NAN, CP_HTML_SHARE);
        cp_buf_printf(
            out,
            "<td class=\"bars\"><span class=\"bar %s\" style=\"width:%.1f%%\"></span></td>"
            "<td class=\"words\">%s</td></tr>",
            cp_load_plot_css((cp_load_outcome)o), fmin(share, 1) * 100,
            cp_load_outcome_words((cp_load_outcome)o));
    }
    cp_html_table_end(out);
}

/* Beside the latencies: what was moved, and what it cost this program. */
static void totals(cp_buf *out, const cp_load_run *r)
{
    cp_buf_adds(out, "<dl><dt>Requests</dt><dd>");
    cp_html_fixed(out, (double)r->requests, 0);
    cp_buf_adds(out, " due, ");
    cp_html_fixed(out, (double)r->completed, 0);
    cp_buf_adds(out, " answered in full, ");
    cp_html_fixed(out, (double)r->failed, 0);
    cp_buf_adds(out, " not");
    if (r->interrupted)
        cp_buf_adds(out, "; the run was interrupted");
    cp_buf_adds(out, "</dd><dt>Tokens</dt><dd>");
    cp_html_fixed(out, (double)r->input_tokens, 0);
    cp_buf_adds(out, " in, ");
    cp_html_fixed(out, (double)r->output_tokens, 0);
    cp_buf_adds(out, " out");
    if (r->no_usage > 0) {
        cp_buf_adds(out, "; of ");
        cp_html_fixed(out, (double)r->no_usage, 0);
        cp_buf_adds(out, " requests the server did not say how many");
    }
    cp_buf_adds(out, "</dd><dt>Duration</dt><dd>");
    cp_html_fixed(out, r->duration_s, 2);
    cp_buf_adds(out, " s</dd><dt>Own CPU time</dt><dd>");
    cp_html_fixed(out, r->own_cpu_s, 2);
    cp_buf_adds(out, " s, ");
    cp_html_number(out, r->own_cpu_us_chunk, CP_HTML_PLAIN);
    cp_buf_adds(out, " \xC2\xB5s a chunk</dd></dl>");
}

static void server(cp_buf *out, const cp_load_server *s)
{
    static const char *const columns[] = {"", "first", "last", "growth", "mean", "max", NULL};
    if (s->scrapes == 0)
        return;
    cp_buf_adds(out, "<h3>What the server says</h3>");
    cp_html_table_begin(out, "The server's own metrics", columns);
    for (int i = 0; i < CP_LOAD_GAUGE_COUNT; i++) {
        if (!isfinite(s->last[i]))
            continue;
        bool grows = cp_load_gauge_counts((cp_load_gauge)i);
        cp_buf_printf(out, "<tr><th scope=\"row\">%s</th>", cp_load_gauge_words((cp_load_gauge)i));
        cp_html_cell_unit(out, s->first[i], CP_HTML_PLAIN);
        cp_html_cell_unit(out, s->last[i], CP_HTML_PLAIN);
        cp_html_cell_unit(out, grows ? s->last[i] - s->first[i] : (double)NAN, CP_HTML_PLAIN);
        cp_html_cell_unit(out, grows ? (double)NAN : s->mean[i], CP_HTML_PLAIN);
        cp_html_cell_unit(out, grows ? (double)NAN : s->max[i], CP_HTML_PLAIN);
        cp_buf_adds(out, "</tr>");
    }
    cp_html_table_end(out);
    cp_buf_printf(out, "<p class=\"small\">%u scrapes of /metrics", s->scrapes);
    if (given(s->kind)) {
        cp_buf_adds(out, " under the names of ");
        cp_html_text(out, s->kind);
    }
    cp_buf_printf(out, ", %u failed.</p>", s->failed_scrapes);
}

static void run(cp_buf *out, const cp_load_run *r, size_t points)
{
    figures(out, r);
    totals(out, r);
    outcomes(out, r);
    cp_load_plot_latencies(out, r);
    cp_load_plot_seconds(out, r);
    cp_load_plot_requests(out, r, points);
    server(out, &r->server);
}

/* A sweep. */

static void sweep_row(cp_buf *out, const cp_load_run *r)
{
    cp_buf_adds(out, "<tr><th scope=\"row\">");
    cp_html_number(out, r->rate > 0 ? r->rate : r->concurrency, CP_HTML_PLAIN);
    cp_buf_adds(out, r->rate > 0 ? "/s</th>" : "</th>");
    cp_html_cell(out, r->request_s, 2);
    cp_html_cell(out, r->output_tok_s, 0);
    cp_html_cell_unit(out, r->goodput, CP_HTML_SHARE);
    cp_html_cell(out, r->ttft.p50, 2);
    cp_html_cell(out, r->ttft.p99, 2);
    cp_html_cell(out, r->tpot.p50, 2);
    cp_html_cell(out, r->tpot.p99, 2);
    cp_html_cell(out, r->e2e.p99, 2);
    cp_html_cell(out, (double)r->failed, 0);
    cp_buf_adds(out, "<td class=\"words\">");
    cp_html_text(out, r->saturated ? r->saturated_why : "kept up");
    cp_buf_adds(out, "</td></tr>");
}

static void sweep(cp_buf *out, const cp_load_result *r)
{
    static const char *const columns[] = {"load",     "answered/s", "tokens/s", "goodput",
                                          "TTFT p50", "TTFT p99",   "TPOT p50", "TPOT p99",
                                          "E2E p99",  "failed",     "",         NULL};
    const cp_load_saturation *s = &r->saturation;
    cp_buf_adds(out, "<h2>By load</h2>");
    if (s->swept && isfinite(s->gave_way)) {
        cp_buf_printf(out, "<p>The server kept up with %s requests a second and gave way at ",
                      isfinite(s->kept_up) ? cp_html_say(s->kept_up, CP_HTML_PLAIN).s
                                           : "no rate of");
        cp_buf_printf(out, "%s.</p>", cp_html_say(s->gave_way, CP_HTML_PLAIN).s);
    } else if (s->swept && isfinite(s->kept_up)) {
        cp_buf_printf(out,
                      "<p>The server kept up with %s requests a second, the most that was "
                      "tried.</p>",
                      cp_html_say(s->kept_up, CP_HTML_PLAIN).s);
    }
    cp_load_plot_sweep(out, r);
    cp_html_table_begin(out, "Figures by load, latencies in milliseconds", columns);
    size_t skip = r->n_runs > SWEEP_ROWS ? r->n_runs - SWEEP_ROWS : 0;
    for (size_t i = skip; i < r->n_runs; i++)
        sweep_row(out, &r->runs[i]);
    cp_html_table_end(out);
    if (skip > 0)
        cp_buf_printf(out, "<p class=\"small\">The last %d of %zu runs.</p>", SWEEP_ROWS,
                      r->n_runs);
}

static void runs(cp_buf *out, const cp_load_result *r)
{
    size_t skip = r->n_runs > SHOWN ? r->n_runs - SHOWN : 0;
    sweep(out, r);
    cp_buf_adds(out, "<h2>Each run</h2>");
    if (skip > 0)
        cp_buf_printf(out, "<p class=\"small\">The last %d of %zu.</p>", SHOWN, r->n_runs);
    for (size_t i = skip; i < r->n_runs; i++) {
        cp_buf_printf(out, "<details class=\"run\"><summary>Run %zu: ", i + 1);
        load_words(out, &r->runs[i]);
        cp_buf_adds(out, "</summary>");
        run(out, &r->runs[i], POINTS / (r->n_runs - skip));
        cp_buf_adds(out, "</details>");
    }
}

static void head(cp_buf *out, const cp_load_result *r)
{
    /* The policy makes sure that even a text that was not escaped could load and run nothing. */
    cp_buf_adds(out, "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">"
                     "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                     "style-src 'unsafe-inline'; img-src data:\">"
                     "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
                     "<link rel=\"icon\" href=\"data:,\"><title>");
    cp_html_text(out, given(r->model) ? r->model : "Load report");
    cp_buf_adds(out, ": load report</title><style>");
    for (const char *const *part = cp_html_style; *part; part++)
        cp_buf_adds(out, *part);
    cp_buf_adds(out, "</style></head><body><main><h1><bdi>");
    cp_html_text(out, given(r->model) ? r->model : "Load report");
    cp_buf_adds(out, "</bdi></h1><p class=\"sub\">Measured at <bdi>");
    cp_html_text(out, r->url);
    cp_buf_adds(out, "</bdi>");
    if (given(r->began)) {
        cp_buf_adds(out, " on <bdi>");
        cp_html_text(out, r->began);
        cp_buf_adds(out, "</bdi>");
    }
    if (r->n_runs == 1) {
        cp_buf_adds(out, ", ");
        load_words(out, &r->runs[0]);
    } else if (r->n_runs > 1) {
        cp_buf_printf(out, ", %zu runs", r->n_runs);
    }
    cp_buf_adds(out, "</p>");
}

void cp_load_report_html(const cp_load_result *r, cp_buf *out)
{
    head(out, r);
    if (r->n_runs > 0)
        tiles(out, r);
    notes(out, r);
    facts(out, r);
    if (r->n_runs == 1) {
        cp_buf_adds(out, "<h2>Figures</h2>");
        run(out, &r->runs[0], POINTS);
    } else if (r->n_runs > 1) {
        runs(out, r);
    } else {
        cp_buf_adds(out, "<p>Nothing was measured.</p>");
    }
    cp_buf_adds(
        out, "<footer>Latencies count from the time at which a request was due, not from when it "
             "was sent; percentiles are right within 0.1&nbsp;%.</footer></main></body></html>\n");
}
