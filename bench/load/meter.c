/* Rows, seconds and histograms of a run. Latencies count from when a request was due. */
#include "bench/load/meter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const double none = (double)NAN;

double cp_load_cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* ---- seconds ---- */

static cp_load_second *open_second(cp_load_meter *m)
{
    if (m->n_seconds == m->cap_seconds) {
        m->cap_seconds = m->cap_seconds ? 2 * m->cap_seconds : 64;
        m->seconds = cp_xrealloc(m->seconds, m->cap_seconds * sizeof(*m->seconds));
    }
    cp_load_second *s = &m->seconds[m->n_seconds++];
    *s = (cp_load_second){.ttft_p50 = none, .ttft_p99 = none, .itl_p50 = none, .itl_p99 = none};
    return s;
}

static void close_second(cp_load_meter *m)
{
    cp_load_second *s = &m->seconds[m->n_seconds - 1];
    s->in_flight = m->in_flight;
    s->ttft_p50 = cp_load_hist_percentile(&m->second_ttft, 50);
    s->ttft_p99 = cp_load_hist_percentile(&m->second_ttft, 99);
    s->itl_p50 = cp_load_hist_percentile(&m->second_itl, 50);
    s->itl_p99 = cp_load_hist_percentile(&m->second_itl, 99);
    s->server_running = m->running;
    s->server_waiting = m->waiting;
    s->server_kv_usage = m->kv;
    cp_load_hist_clear(&m->second_ttft);
    cp_load_hist_clear(&m->second_itl);
}

void cp_load_meter_tick(cp_load_meter *m, int64_t now_ns)
{
    while (m->n_seconds < CP_LOAD_SECONDS_MAX &&
           now_ns - m->begin_ns >= (int64_t)m->n_seconds * 1000000000) {
        close_second(m);
        open_second(m);
    }
}

static cp_load_second *second_now(cp_load_meter *m, int64_t now_ns)
{
    cp_load_meter_tick(m, now_ns);
    return &m->seconds[m->n_seconds - 1];
}

void cp_load_meter_begin(cp_load_meter *m, int64_t now_ns, const cp_load_slo *slo)
{
    *m = (cp_load_meter){.begin_ns = now_ns,
                         .slo = *slo,
                         .first_due_ns = INT64_MAX,
                         .last_end_ns = now_ns,
                         .cpu_s = cp_load_cpu_s(),
                         .running = none,
                         .waiting = none,
                         .kv = none};
    open_second(m);
}

void cp_load_meter_fini(cp_load_meter *m)
{
    cp_load_hist *all[] = {&m->ttft, &m->itl,         &m->tpot,      &m->e2e,
                           &m->lag,  &m->second_ttft, &m->second_itl};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        cp_load_hist_fini(all[i]);
    free(m->seconds);
    free(m->rows);
    m->seconds = NULL;
    m->rows = NULL;
}

/* ---- requests ---- */

static double since(const cp_load_meter *m, int64_t ns)
{
    return ns ? (double)(ns - m->begin_ns) * 1e-6 : none;
}

void cp_load_meter_due(cp_load_meter *m, int64_t due_ns, int64_t now_ns)
{
    cp_load_meter_tick(m, now_ns);
    size_t i = (size_t)((due_ns - m->begin_ns) / 1000000000);
    m->seconds[i < m->n_seconds ? i : m->n_seconds - 1].due++;
    m->first_due_ns = due_ns < m->first_due_ns ? due_ns : m->first_due_ns;
}

static cp_load_row *new_row(cp_load_meter *m, int64_t due_ns)
{
    if (m->n_rows == m->cap_rows) {
        m->cap_rows = m->cap_rows ? 2 * m->cap_rows : 256;
        m->rows = cp_xrealloc(m->rows, m->cap_rows * sizeof(*m->rows));
    }
    cp_load_row *r = &m->rows[m->n_rows++];
    *r = (cp_load_row){.due_ms = since(m, due_ns),
                       .sent_ms = none,
                       .first_ms = none,
                       .last_ms = none,
                       .end_ms = none};
    return r;
}

size_t cp_load_meter_sent(cp_load_meter *m, int64_t due_ns, int64_t free_ns, int64_t now_ns,
                          uint32_t turn)
{
    second_now(m, now_ns)->sent++;
    m->in_flight++;
    cp_load_hist_add(&m->lag, now_ns - free_ns);
    cp_load_row *r = new_row(m, due_ns);
    r->sent_ms = since(m, now_ns);
    r->turn = turn;
    return m->n_rows - 1;
}

void cp_load_meter_token(cp_load_meter *m, int64_t due_ns, int64_t now_ns, int64_t gap_ns)
{
    second_now(m, now_ns)->output_tokens++;
    m->chunks++;
    if (gap_ns < 0)
        cp_load_hist_add(&m->second_ttft, now_ns - due_ns);
    else
        cp_load_hist_add(&m->second_itl, gap_ns);
}

/* Within a limit that was set; what was not measured (a single token has no gaps) breaks none. */
static bool within(double limit, double ms)
{
    return isnan(limit) || isnan(ms) || ms <= limit;
}

/* Of a request that was answered in full. */
static void take_answer(cp_load_meter *m, cp_load_row *r, int64_t due_ns, const cp_load_stream *s)
{
    double ttft = none, itl = none, tpot = none, e2e = (double)(s->end_ns - due_ns) * 1e-6;
    cp_load_hist_add(&m->e2e, s->end_ns - due_ns);
    for (uint32_t i = 0; i < s->n_gaps; i++)
        cp_load_hist_add(&m->itl, (int64_t)s->gaps[i] * 1000);
    if (s->chunks) {
        cp_load_hist_add(&m->ttft, s->first_ns - due_ns);
        ttft = (double)(s->first_ns - due_ns) * 1e-6;
    }
    if (s->chunks > 1)
        itl = s->gaps_ns / (s->chunks - 1) * 1e-6;
    if (s->chunks && r->output_tokens > 1) {
        int64_t each = (s->end_ns - s->first_ns) / (int64_t)(r->output_tokens - 1);
        cp_load_hist_add(&m->tpot, each);
        tpot = (double)each * 1e-6;
    }
    r->good = within(m->slo.ttft, ttft) && within(m->slo.itl, itl) && within(m->slo.tpot, tpot) &&
              within(m->slo.e2e, e2e);
    m->good += r->good;
    m->input_tokens += r->input_tokens;
    m->output_tokens += r->output_tokens;
    m->no_usage += !s->usage;
}

static void count(cp_load_meter *m, cp_load_row *r, int64_t now_ns, cp_load_outcome outcome,
                  const char *why)
{
    cp_load_second *second = second_now(m, now_ns);
    r->outcome = (uint8_t)outcome;
    m->by_outcome[outcome]++;
    m->done++;
    if (outcome == CP_LOAD_OK)
        second->completed++;
    else if (outcome != CP_LOAD_CANCELLED)
        second->failed++;
    m->failed += outcome != CP_LOAD_OK && outcome != CP_LOAD_CANCELLED;
    if (!m->why[outcome][0])
        cp_strcopy(m->why[outcome], CP_LOAD_WHY_MAX, why);
    m->last_end_ns = now_ns > m->last_end_ns ? now_ns : m->last_end_ns;
}

void cp_load_meter_end(cp_load_meter *m, size_t row, int64_t due_ns, int64_t now_ns,
                       cp_load_outcome outcome, int status, const cp_load_stream *s,
                       uint32_t input_tokens)
{
    cp_load_row *r = &m->rows[row];
    bool ok = outcome == CP_LOAD_OK;
    m->in_flight--;
    r->first_ms = since(m, s->first_ns);
    r->last_ms = since(m, s->last_ns);
    r->end_ms = since(m, ok && s->end_ns ? s->end_ns : now_ns);
    r->status = (uint16_t)status;
    r->usage = s->usage;
    r->input_tokens = s->usage ? (uint32_t)s->prompt_tokens : input_tokens;
    r->output_tokens = s->usage ? (uint32_t)s->completion_tokens : s->chunks;
    r->cached_tokens = (uint32_t)s->cached_tokens;
    if (ok && s->end_ns)
        take_answer(m, r, due_ns, s);
    count(m, r, now_ns, outcome, s->why);
}

void cp_load_meter_unsent(cp_load_meter *m, int64_t due_ns, int64_t now_ns, cp_load_outcome outcome,
                          const char *why)
{
    count(m, new_row(m, due_ns), now_ns, outcome, why);
}

/* ---- the end ---- */

static void *moved(cp_arena *arena, const void *p, size_t n, size_t size)
{
    void *to = n ? cp_arena_alloc(arena, n * size) : NULL;
    if (to)
        memcpy(to, p, n * size);
    return to;
}

void cp_load_meter_finish(cp_load_meter *m, int64_t now_ns, cp_arena *arena, cp_load_run *out)
{
    cp_load_meter_tick(m, m->last_end_ns < now_ns ? m->last_end_ns : now_ns);
    close_second(m);
    out->requests = m->done;
    out->completed = m->by_outcome[CP_LOAD_OK];
    out->failed = m->failed;
    memcpy(out->by_outcome, m->by_outcome, sizeof(out->by_outcome));
    double s = m->n_rows ? (double)(m->last_end_ns - m->first_due_ns) * 1e-9 : 0;
    out->duration_s = s;
    out->request_s = s > 0 ? (double)out->completed / s : 0;
    out->output_tok_s = s > 0 ? (double)m->output_tokens / s : 0;
    out->input_tok_s = s > 0 ? (double)m->input_tokens / s : 0;
    out->input_tokens = m->input_tokens;
    out->output_tokens = m->output_tokens;
    out->no_usage = m->no_usage;
    bool slo =
        !isnan(m->slo.ttft) || !isnan(m->slo.itl) || !isnan(m->slo.tpot) || !isnan(m->slo.e2e);
    uint64_t judged = out->completed + out->failed;
    out->goodput = slo && judged ? (double)m->good / (double)judged : none;
    out->goodput_request_s = slo && s > 0 ? (double)m->good / s : none;
    cp_load_hist_figures(&m->ttft, arena, &out->ttft);
    cp_load_hist_figures(&m->itl, arena, &out->itl);
    cp_load_hist_figures(&m->tpot, arena, &out->tpot);
    cp_load_hist_figures(&m->e2e, arena, &out->e2e);
    cp_load_hist_figures(&m->lag, arena, &out->lag);
    out->seconds = moved(arena, m->seconds, m->n_seconds, sizeof(*m->seconds));
    out->n_seconds = out->seconds ? m->n_seconds : 0;
    out->rows = moved(arena, m->rows, m->n_rows, sizeof(*m->rows));
    out->n_rows = out->rows ? m->n_rows : 0;
    out->own_cpu_s = cp_load_cpu_s() - m->cpu_s;
    out->own_cpu_us_chunk = m->chunks ? out->own_cpu_s * 1e6 / (double)m->chunks : none;
}
