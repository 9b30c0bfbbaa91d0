/* The result for a person: what was asked for, what came of it, the latencies as a table. */
#include "bench/load/report.h"

#include <math.h>

static void number(cp_buf *out, double v, int width, int decimals)
{
    if (isfinite(v))
        cp_buf_printf(out, "%*.*f", width, decimals, v);
    else
        cp_buf_printf(out, "%*s", width, "-");
}

static void row(cp_buf *out, const char *name, const cp_load_figures *f)
{
    const double v[] = {f->mean, f->p50, f->p90, f->p95, f->p99, f->max};
    cp_buf_printf(out, "  %-6s", name);
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
        number(out, v[i], 11, 2);
    cp_buf_addc(out, '\n');
}

static void load_of(cp_buf *out, const cp_load_run *r)
{
    bool ramp = r->rate_end < r->rate || r->rate_end > r->rate;
    if (r->rate > 0 && ramp)
        cp_buf_printf(out, "open loop, %g to %g requests/s", r->rate, r->rate_end);
    else if (r->rate > 0)
        cp_buf_printf(out, "open loop, %.4g requests/s", r->rate);
    else
        cp_buf_adds(out, "closed loop");
    if (r->concurrency)
        cp_buf_printf(out, ", %u at once%s", r->concurrency, r->rate > 0 ? " at most" : "");
}

static void counts(cp_buf *out, const cp_load_run *r)
{
    cp_buf_printf(out, "  %llu of %llu requests completed in %.2f s",
                  (unsigned long long)r->completed, (unsigned long long)r->requests, r->duration_s);
    cp_buf_adds(out, r->interrupted ? ", then interrupted\n" : "\n");
    for (int o = CP_LOAD_OK + 1; o < CP_LOAD_OUTCOME_COUNT; o++) {
        if (r->by_outcome[o])
            cp_buf_printf(out, "  %8llu %s: %s\n", (unsigned long long)r->by_outcome[o],
                          cp_load_outcome_slug((cp_load_outcome)o),
                          cp_load_outcome_words((cp_load_outcome)o));
    }
    cp_buf_printf(out, "  %.3g requests/s, %.1f output tokens/s, %.1f input tokens/s\n",
                  r->request_s, r->output_tok_s, r->input_tok_s);
    if (r->completed)
        cp_buf_printf(out, "  a request: %.1f input tokens, %.1f output tokens%s\n",
                      (double)r->input_tokens / (double)r->completed,
                      (double)r->output_tokens / (double)r->completed,
                      r->no_usage ? " (chunks of the stream)" : "");
    if (!isnan(r->goodput))
        cp_buf_printf(out, "  goodput: %.1f %% of requests within the objectives, %.3g a second\n",
                      100 * r->goodput, r->goodput_request_s);
}

static void server(cp_buf *out, const cp_load_server *s)
{
    if (!s->scrapes)
        return;
    cp_buf_printf(out, "\n  the server's own figures (%s)\n", s->kind);
    for (int g = 0; g < CP_LOAD_GAUGE_COUNT; g++) {
        if (isnan(s->last[g]))
            continue;
        if (cp_load_gauge_counts((cp_load_gauge)g))
            cp_buf_printf(out, "  %-40s %14.0f\n", cp_load_gauge_words((cp_load_gauge)g),
                          s->last[g] - s->first[g]);
        else
            cp_buf_printf(out, "  %-40s %14.2f mean %10.2f max\n",
                          cp_load_gauge_words((cp_load_gauge)g), s->mean[g], s->max[g]);
    }
}

static void sweep(cp_buf *out, const cp_load_result *r)
{
    cp_buf_printf(out, "  %10s %10s %12s %10s %10s %10s %10s\n", "due/s", "done/s", "tokens/s",
                  "TTFT p50", "TTFT p99", "ITL p99", "failed");
    for (size_t i = 0; i < r->n_runs; i++) {
        const cp_load_run *run = &r->runs[i];
        cp_buf_printf(out, "  %10.3g %10.3g %12.1f", run->rate, run->request_s, run->output_tok_s);
        number(out, run->ttft.p50, 11, 2);
        number(out, run->ttft.p99, 11, 2);
        number(out, run->itl.p99, 11, 2);
        cp_buf_printf(out, " %10llu%s%s\n", (unsigned long long)run->failed,
                      run->saturated ? "  saturated: " : "", run->saturated_why);
    }
    cp_buf_adds(out, "  kept up at ");
    number(out, r->saturation.kept_up, 1, 3);
    cp_buf_adds(out, " requests/s, no longer at ");
    number(out, r->saturation.gave_way, 1, 3);
    cp_buf_adds(out, "\n\n  the last run:\n");
}

void cp_load_report_text(const cp_load_result *r, cp_buf *out)
{
    const cp_load_run *last = &r->runs[r->n_runs - 1];
    cp_buf_printf(out, "%s, model %s, %s, prompts %s\n", r->url, r->model, r->endpoint, r->dataset);
    if (r->saturation.swept)
        sweep(out, r);
    cp_buf_adds(out, "  ");
    load_of(out, last);
    cp_buf_addc(out, '\n');
    counts(out, last);
    cp_buf_printf(out, "\n  %-6s%11s%11s%11s%11s%11s%11s\n", "ms", "mean", "p50", "p90", "p95",
                  "p99", "max");
#define X(id, field, name, what) row(out, name, &last->field);
    CP_LOAD_LATENCIES(X)
#undef X
    server(out, &last->server);
    cp_buf_printf(out, "\n  own CPU: %.2f s", last->own_cpu_s);
    if (!isnan(last->own_cpu_us_chunk))
        cp_buf_printf(out, ", %.1f us a chunk", last->own_cpu_us_chunk);
    cp_buf_addc(out, '\n');
    for (size_t i = 0; i < r->n_notes; i++)
        cp_buf_printf(out, "  note: %s\n", r->notes[i]);
}
