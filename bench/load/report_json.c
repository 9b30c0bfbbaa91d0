/*
 * The result as one JSON object. It is written, not built: a run of a million requests has a
 * million rows.
 */
#include "bench/load/report.h"
#include "bench/load/words.h"

#include <math.h>
#include <string.h>

/* A number, or null; decimals: as many as make sense of it. */
static void number(cp_buf *out, double v, int decimals)
{
    if (isfinite(v))
        cp_buf_printf(out, "%.*f", decimals, v);
    else
        cp_buf_adds(out, "null");
}

static void key(cp_buf *out, const char *name)
{
    char before = out->n ? out->p[out->n - 1] : '{';
    cp_buf_printf(out, "%s\"%s\":", before == '{' || before == '[' ? "" : ",", name);
}

static void put(cp_buf *out, const char *name, double v, int decimals)
{
    key(out, name);
    number(out, v, decimals);
}

static void put_count(cp_buf *out, const char *name, uint64_t v)
{
    key(out, name);
    cp_buf_printf(out, "%llu", (unsigned long long)v);
}

static void put_text(cp_buf *out, const char *name, const char *text)
{
    key(out, name);
    if (!*text) {
        cp_buf_adds(out, "null");
        return;
    }
    cp_buf_addc(out, '"');
    cp_load_escape(out, text, strlen(text));
    cp_buf_addc(out, '"');
}

static void put_bool(cp_buf *out, const char *name, bool v)
{
    key(out, name);
    cp_buf_adds(out, v ? "true" : "false");
}

static void figures(cp_buf *out, const char *name, const cp_load_figures *f)
{
    key(out, name);
    cp_buf_addc(out, '{');
    put(out, "mean", f->mean, 3);
    put(out, "p50", f->p50, 3);
    put(out, "p90", f->p90, 3);
    put(out, "p95", f->p95, 3);
    put(out, "p99", f->p99, 3);
    put(out, "max", f->max, 3);
    cp_buf_addc(out, '}');
}

static void put_run(cp_buf *out, const cp_load_run *r)
{
    put_count(out, "completed", r->completed);
    put_count(out, "failed", r->failed);
    put(out, "duration_s", r->duration_s, 3);
    put(out, "output_tok_s", r->output_tok_s, 3);
#define X(id, field, name, what) figures(out, #field "_ms", &r->field);
    CP_LOAD_LATENCIES(X)
#undef X
    put(out, "request_s", r->request_s, 4);
    put(out, "input_tok_s", r->input_tok_s, 3);
    put_count(out, "input_tokens", r->input_tokens);
    put_count(out, "output_tokens", r->output_tokens);
    put_text(out, "tokens_from", !r->completed ? "" : r->no_usage ? "chunks" : "usage");
    if (r->rate > 0)
        put(out, "rate", r->rate, 4);
    if (r->rate_end > 0 && (r->rate_end < r->rate || r->rate_end > r->rate))
        put(out, "rate_end", r->rate_end, 4);
    if (r->concurrency)
        put_count(out, "concurrency", r->concurrency);
    key(out, "outcomes");
    cp_buf_addc(out, '{');
    for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++)
        put_count(out, cp_load_outcome_slug((cp_load_outcome)o), r->by_outcome[o]);
    cp_buf_addc(out, '}');
    put_bool(out, "interrupted", r->interrupted);
    put(out, "own_cpu_us_chunk", r->own_cpu_us_chunk, 2);
}

static void put_slo(cp_buf *out, const cp_load_slo *s)
{
    key(out, "slo");
    cp_buf_addc(out, '{');
    put(out, "ttft", s->ttft, 3);
    put(out, "itl", s->itl, 3);
    put(out, "tpot", s->tpot, 3);
    put(out, "e2e", s->e2e, 3);
    cp_buf_addc(out, '}');
}

static void put_server(cp_buf *out, const cp_load_server *s)
{
    key(out, "server");
    cp_buf_addc(out, '{');
    put_text(out, "kind", s->kind);
    put_count(out, "scrapes", s->scrapes);
    for (int g = 0; g < CP_LOAD_GAUGE_COUNT && s->scrapes; g++) {
        key(out, cp_load_gauge_name((cp_load_gauge)g));
        if (cp_load_gauge_counts((cp_load_gauge)g)) {
            number(out, s->last[g] - s->first[g], 0);
            continue;
        }
        cp_buf_addc(out, '{');
        put(out, "mean", s->mean[g], 4);
        put(out, "max", s->max[g], 4);
        cp_buf_addc(out, '}');
    }
    cp_buf_addc(out, '}');
}

static void put_requests(cp_buf *out, const cp_load_run *r)
{
    key(out, "requests");
    cp_buf_addc(out, '[');
    for (size_t i = 0; i < r->n_rows; i++) {
        const cp_load_row *row = &r->rows[i];
        cp_buf_adds(out, i ? ",{" : "{");
        put(out, "due_ms", row->due_ms, 3);
        put(out, "sent_ms", row->sent_ms, 3);
        put(out, "first_ms", row->first_ms, 3);
        put(out, "last_ms", row->last_ms, 3);
        put(out, "end_ms", row->end_ms, 3);
        put_count(out, "input_tokens", row->input_tokens);
        put_count(out, "output_tokens", row->output_tokens);
        put_count(out, "cached_tokens", row->cached_tokens);
        put_count(out, "turn", row->turn);
        put_text(out, "outcome", cp_load_outcome_slug((cp_load_outcome)row->outcome));
        put_count(out, "status", row->status);
        put_bool(out, "good", row->good);
        cp_buf_addc(out, '}');
    }
    cp_buf_addc(out, ']');
}

static void put_sweep(cp_buf *out, const cp_load_result *r)
{
    key(out, "runs");
    cp_buf_addc(out, '[');
    for (size_t i = 0; i < r->n_runs; i++) {
        cp_buf_adds(out, i ? ",{" : "{");
        put_run(out, &r->runs[i]);
        put(out, "goodput", r->runs[i].goodput, 4);
        put_bool(out, "saturated", r->runs[i].saturated);
        put_text(out, "saturated_why", r->runs[i].saturated_why);
        cp_buf_addc(out, '}');
    }
    cp_buf_addc(out, ']');
    key(out, "saturation");
    cp_buf_addc(out, '{');
    put(out, "kept_up", r->saturation.kept_up, 4);
    put(out, "gave_way", r->saturation.gave_way, 4);
    cp_buf_addc(out, '}');
}

static void put_terms(cp_buf *out, const cp_load_result *r)
{
    put_text(out, "url", r->url);
    put_text(out, "model", r->model);
    put_text(out, "endpoint", r->endpoint);
    put_text(out, "dataset", r->dataset);
    put_count(out, "seed", r->seed);
    put_text(out, "began", r->began);
    put_text(out, "command", r->command);
    put_text(out, "server_header", r->server);
    put_text(out, "version", r->version);
    key(out, "notes");
    cp_buf_addc(out, '[');
    for (size_t i = 0; i < r->n_notes; i++) {
        cp_buf_adds(out, i ? ",\"" : "\"");
        cp_load_escape(out, r->notes[i], strlen(r->notes[i]));
        cp_buf_addc(out, '"');
    }
    cp_buf_addc(out, ']');
}

void cp_load_report_json(const cp_load_result *r, cp_buf *out)
{
    const cp_load_run *last = &r->runs[r->n_runs - 1];
    cp_buf_addc(out, '{');
    put_run(out, last);
    put_terms(out, r);
    if (r->rows) {
        put(out, "goodput", last->goodput, 4);
        put(out, "goodput_request_s", last->goodput_request_s, 4);
        put_slo(out, &r->slo);
        put_server(out, &last->server);
        put_requests(out, last);
    }
    if (r->saturation.swept)
        put_sweep(out, r);
    cp_buf_addc(out, '}');
}
