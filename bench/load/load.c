/*
 * A measurement from its options to its result: the server is asked what it takes, warmed up, and
 * measured once or, in a sweep, at rising rates.
 */
#include "bench/load/load.h"

#include "base/clock.h"
#include "bench/load/drive.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum {
    PLACES_MAX = 16384, /* streams at once */
    FILES_SPARE = 32,   /* descriptors that are no streams */
    WARM_PLACES = 8,    /* of a warm-up without --concurrency */
    DOUBLINGS = 14,
    BISECTIONS = 5,
    REST = 8 /* requests, one after the other */
};
static const size_t arena_bytes = (size_t)8 << 30; /* 19 runs of a million requests */
/* Talks of a warm-up, and of the runs of a sweep: each has prompts of its own. */
static const uint64_t warm_talks = (uint64_t)1 << 40, rest_talks = (uint64_t)1 << 41,
                      run_talks = (uint64_t)1 << 32;
/* A server keeps up while it completes this part of what is due. */
static const double keeps_up = 0.9;
/* Where the bisection of a sweep ends: these two rates are close enough. */
static const double close_rates = 1.1;

typedef struct measurement {
    const cp_load_config *cfg;
    cp_load_client *client;
    cp_load_prompts *prompts;
    cp_load_shape shape;
    cp_load_slo slo;
    cp_load_ramp ramp; /* seconds 0: none */
    uint32_t places;
    cp_load_result *result;
    double rest_ms;                   /* of a sweep: what a request takes on a server at rest */
    bool said[CP_LOAD_OUTCOME_COUNT]; /* what went wrong: once, in a sweep, too */
    bool interrupted;
} measurement;

/* ---- options ---- */

static cp_code check(measurement *m, cp_err *err)
{
    const cp_load_config *cfg = m->cfg;
    double none = (double)NAN;
    m->slo = (cp_load_slo){none, none, none, none};
    cp_code code = cfg->slo ? cp_load_slo_parse(&m->slo, cfg->slo, err) : CP_OK;
    if (!code && cfg->ramp)
        code = cp_load_ramp_parse(&m->ramp, cfg->ramp, err);
    if (code)
        return code;
    if (cfg->ramp && (cfg->rate > 0 || cfg->sweep))
        return cp_fail(err, CP_USAGE,
                       "--ramp: got it with %s; allowed: one of them, a ramp says both rates",
                       cfg->sweep ? "--sweep" : "--rate");
    if (cfg->concurrency == 0 && cfg->rate <= 0 && !cfg->ramp && !cfg->sweep)
        return cp_fail(err, CP_USAGE,
                       "bench serve: needs --concurrency C (so many at once), --rate R (requests a "
                       "second), --ramp or --sweep");
    return CP_OK;
}

/* As many streams as the limit of open files leaves, which is raised as far as it goes. */
static cp_code find_places(measurement *m, cp_err *err)
{
    struct rlimit rl;
    uint64_t most = PLACES_MAX;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &rl);
        if (rl.rlim_cur < most + FILES_SPARE)
            most = rl.rlim_cur > FILES_SPARE ? rl.rlim_cur - FILES_SPARE : 1;
    }
    if ((uint64_t)m->cfg->concurrency > most)
        return cp_fail(err, CP_USAGE,
                       "--concurrency: got %lld; allowed: up to %llu (the limit of open files, "
                       "`ulimit -n`)",
                       (long long)m->cfg->concurrency, (unsigned long long)most);
    m->places = (uint32_t)(m->cfg->concurrency ? (uint64_t)m->cfg->concurrency : most);
    return CP_OK;
}

/* ---- runs ---- */

/* Requests in a closed loop that no report shows; their median latency in ms, 0: none was
 * completed.
 */
static double aside(measurement *m, const char *phase, uint32_t places, int64_t requests,
                    uint64_t first_talk)
{
    cp_load_meter meter = {0};
    cp_load_server server;
    cp_load_plan plan = {.client = m->client,
                         .cfg = m->cfg,
                         .prompts = m->prompts,
                         .shape = &m->shape,
                         .places = places,
                         .requests = (uint64_t)requests,
                         .first_talk = first_talk,
                         .progress = {.phase = phase}};
    double none = (double)NAN;
    cp_load_slo slo = {none, none, none, none};
    m->interrupted = cp_load_drive(&plan, &slo, &meter, &server);
    double ms = cp_load_hist_percentile(&meter.e2e, 50);
    cp_load_meter_fini(&meter);
    return isnan(ms) ? 0 : ms;
}

static void note(cp_load_result *r, const char *text)
{
    const char **notes = cp_arena_alloc(r->arena, (r->n_notes + 1) * sizeof(*notes));
    for (size_t i = 0; i < r->n_notes; i++) {
        if (strcmp(r->notes[i], text) == 0)
            return;
    }
    if (!notes || !text)
        return;
    if (r->n_notes)
        memcpy(notes, r->notes, r->n_notes * sizeof(*notes));
    notes[r->n_notes++] = text;
    r->notes = notes;
}

/* What the first failures of each kind said. */
static void note_failures(measurement *m, const cp_load_meter *meter)
{
    for (int o = 0; o < CP_LOAD_OUTCOME_COUNT; o++) {
        bool wrong = o != CP_LOAD_OK && o != CP_LOAD_CANCELLED && meter->why[o][0];
        if (wrong && !m->said[o])
            note(m->result,
                 cp_arena_printf(m->result->arena, "%s: %s",
                                 cp_load_outcome_slug((cp_load_outcome)o), meter->why[o]));
    }
}

static void note_unasked(measurement *m, const cp_load_meter *meter)
{
    if (meter->unasked)
        note(m->result, cp_arena_printf(m->result->arena,
                                        "%llu turns of conversations were not asked: the one "
                                        "before them failed",
                                        (unsigned long long)meter->unasked));
}

static cp_load_run *new_run(cp_load_result *r)
{
    cp_load_run *runs = cp_arena_alloc(r->arena, (r->n_runs + 1) * sizeof(*runs));
    CP_ASSERT(runs);
    if (r->n_runs)
        memcpy(runs, r->runs, r->n_runs * sizeof(*runs));
    r->runs = runs;
    return &runs[r->n_runs++];
}

static cp_load_run *run_at(measurement *m, double rate, double rate_end, double ramp_s)
{
    cp_load_meter meter = {0};
    cp_load_run *run = new_run(m->result);
    cp_load_plan plan = {.client = m->client,
                         .cfg = m->cfg,
                         .prompts = m->prompts,
                         .shape = &m->shape,
                         .rate = rate,
                         .rate_end = rate_end,
                         .ramp_s = ramp_s,
                         .places = m->places,
                         .drop = rate > 0 && m->cfg->concurrency == 0,
                         .requests = (uint64_t)m->cfg->requests,
                         .first_talk = (m->result->n_runs - 1) * run_talks,
                         .scrape = true,
                         .progress = {.phase = "measuring",
                                      .rate = rate,
                                      .run = m->cfg->sweep ? (uint32_t)m->result->n_runs : 0}};
    *run = (cp_load_run){.rate = rate,
                         .rate_end = rate_end,
                         .concurrency = (uint32_t)m->cfg->concurrency,
                         .saturated_why = ""};
    m->interrupted = cp_load_drive(&plan, &m->slo, &meter, &run->server);
    cp_load_meter_finish(&meter, cp_now_ns(), m->result->arena, run);
    run->interrupted = m->interrupted;
    note_unasked(m, &meter);
    note_failures(m, &meter);
    cp_load_meter_fini(&meter);
    return run;
}

/* ---- a sweep ---- */

static double worst_within(double limit, double ms)
{
    return isnan(limit) || isnan(ms) ? 0 : ms / limit;
}

/*
 * A server is saturated where fewer than nine of ten of what was due were completed in the time
 * that the schedule and, at its end, a request on a server at rest take; and where a 99th
 * percentile breaks an objective.
 */
static void judge(measurement *m, cp_load_run *run)
{
    double first = run->n_rows ? run->rows[0].due_ms : 0, last = first;
    for (size_t i = 0; i < run->n_rows; i++)
        last = run->rows[i].due_ms > last ? run->rows[i].due_ms : last;
    double window = (last - first + m->rest_ms) * 1e-3;
    double due_s = window > 0 ? (double)run->requests / window : 0;
    const cp_load_slo *slo = &m->slo;
    if (run->request_s < keeps_up * due_s) {
        run->saturated = true;
        run->saturated_why = cp_arena_printf(m->result->arena,
                                             "%.3g requests a second were due, %.3g were completed",
                                             due_s, run->request_s);
    } else if (worst_within(slo->ttft, run->ttft.p99) > 1 ||
               worst_within(slo->itl, run->itl.p99) > 1 ||
               worst_within(slo->tpot, run->tpot.p99) > 1 ||
               worst_within(slo->e2e, run->e2e.p99) > 1) {
        run->saturated = true;
        run->saturated_why = "a 99th percentile broke an objective";
    }
}

/* True: held. */
static bool step(measurement *m, double rate)
{
    cp_load_run *run = run_at(m, rate, rate, 0);
    if (!m->interrupted)
        judge(m, run);
    return !run->saturated && !m->interrupted;
}

/* The bounds of what the server holds; 0: not known. */
typedef struct bounds {
    double low, high;
} bounds;

static void try_rate(measurement *m, bounds *b, double rate)
{
    bool held = step(m, rate);
    if (held)
        b->low = rate;
    else if (!m->interrupted)
        b->high = rate;
}

/* Doubled until the server gives way, or, where it does not hold the first rate, halved until it
 * holds one; then bisected. */
static void sweep(measurement *m)
{
    cp_load_saturation *s = &m->result->saturation;
    double rate = m->cfg->rate > 0 ? m->cfg->rate : 1;
    bounds b = {0};
    s->swept = true;
    for (int i = 0; i < DOUBLINGS && b.high <= 0 && !m->interrupted; i++, rate *= 2)
        try_rate(m, &b, rate);
    for (int i = 0; i < DOUBLINGS && b.low <= 0 && !m->interrupted; i++)
        try_rate(m, &b, b.high / 2);
    for (int i = 0; i < BISECTIONS && b.low > 0 && b.high > b.low * close_rates; i++) {
        if (!m->interrupted)
            try_rate(m, &b, sqrt(b.low * b.high));
    }
    s->kept_up = b.low > 0 ? b.low : (double)NAN;
    s->gave_way = b.high > 0 ? b.high : (double)NAN;
}

/* ---- the result ---- */

static const char *copy(cp_arena *a, const char *s)
{
    const char *to = cp_arena_strndup(a, s ? s : "", s ? strlen(s) : 0);
    return to ? to : "";
}

static cp_load_result *new_result(const measurement *m)
{
    static const char *const datasets[] = {"random", "shared-prefix", "sharegpt", "turns"};
    const cp_load_config *cfg = m->cfg;
    cp_arena *a = cp_arena_new(arena_bytes);
    cp_load_result *r = cp_arena_alloc(a, sizeof(*r));
    CP_ASSERT(r);
    char began[32];
    time_t now = (time_t)cp_wall_sec();
    struct tm tm;
    strftime(began, sizeof(began), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    *r = (cp_load_result){.url = copy(a, cp_load_client_url(m->client)),
                          .model = copy(a, cfg->model),
                          .endpoint = cfg->completions ? "completions" : "chat",
                          .dataset = datasets[cfg->dataset],
                          .began = copy(a, began),
                          .command = copy(a, cfg->command),
                          .server = copy(a, m->shape.server),
                          .version = copy(a, cfg->version),
                          .seed = cfg->seed,
                          .slo = m->slo,
                          .rows = cfg->rows,
                          .arena = a};
    r->saturation.kept_up = r->saturation.gave_way = (double)NAN;
    return r;
}

/* What the figures are worth. */
static void note_terms(measurement *m)
{
    cp_load_result *r = m->result;
    if (!m->shape.usage)
        note(r, "the server does not say how many tokens there were: output tokens are chunks of "
                "the stream, input tokens an estimate");
    if (!m->shape.ignore_eos)
        note(r, "the server does not take ignore_eos: answers may be shorter than --output-len");
    if (!m->shape.calibrated && cp_load_prompts_synthetic(m->prompts))
        note(r, "nobody could say how many tokens a word is: --input-len counts words");
}

static void note_lag(measurement *m)
{
    const cp_load_run *run = &m->result->runs[m->result->n_runs - 1];
    if (run->rate > 0 && run->lag.p99 > 10 && run->lag.p99 > run->ttft.p50 / 10)
        note(m->result, "many requests were sent later than they were due (see lag): they waited "
                        "for --concurrency, or this program was short of CPU; their latency counts "
                        "from when they were due");
}

/* Prompts that are meant to be new to the server, and are not. Their template is the same each
 * time, and no news. */
static void note_cached(measurement *m)
{
    const cp_load_run *run = &m->result->runs[m->result->n_runs - 1];
    cp_load_lengths input;
    double cached = 0;
    for (size_t i = 0; i < run->n_rows; i++)
        cached += run->rows[i].outcome == CP_LOAD_OK ? run->rows[i].cached_tokens : 0;
    if (m->cfg->dataset != CP_LOAD_RANDOM || !m->shape.calibrated ||
        cp_load_lengths_parse(&input, "--input-len", m->cfg->input_len, NULL))
        return;
    double own = cp_load_lengths_mean(&input) * (double)run->completed;
    double template_ = (double)run->input_tokens > own ? (double)run->input_tokens - own : 0;
    if (cached > template_ + own / 4)
        note(m->result, cp_arena_printf(m->result->arena,
                                        "%.0f of the input tokens came from the server's prefix "
                                        "cache: it has seen prompts of this --seed before",
                                        cached));
}

static cp_code measure(measurement *m, cp_err *err)
{
    const cp_load_config *cfg = m->cfg;
    cp_code code = check(m, err);
    if (!code)
        code = cp_load_prompts_open(&m->prompts, cfg, err);
    if (!code)
        code = find_places(m, err);
    if (!code)
        code = cp_load_client_open(&m->client, cfg->url, cfg->api_key, cfg->ca_pem, cfg->n_ca_pem,
                                   (int)m->places, cfg->interrupt_fd, err);
    if (!code && cfg->watch)
        cfg->watch(cfg->watch_arg, &(cp_load_progress){.phase = "asking the server"});
    if (!code)
        code = cp_load_ask_server(m->client, cfg, cp_load_prompts_synthetic(m->prompts), &m->shape,
                                  err);
    if (code)
        return code;
    cp_load_prompts_rate(m->prompts, m->shape.tokens_per_word);
    m->result = new_result(m);
    note_terms(m);
    if (cfg->warmup > 0)
        aside(m, "warm-up", cfg->concurrency ? m->places : WARM_PLACES, cfg->warmup, warm_talks);
    if (cfg->sweep && !m->interrupted)
        m->rest_ms =
            aside(m, "at rest", 1, cfg->requests < REST ? cfg->requests : REST, rest_talks);
    if (m->interrupted)
        return cp_fail(err, CP_CANCELLED, "interrupted before anything was measured");
    if (cfg->sweep)
        sweep(m);
    else
        run_at(m, cfg->ramp ? m->ramp.from : cfg->rate, cfg->ramp ? m->ramp.to : cfg->rate,
               m->ramp.seconds);
    note_lag(m);
    note_cached(m);
    return CP_OK;
}

cp_code cp_load_measure(const cp_load_config *cfg, cp_load_result **out, cp_err *err)
{
    measurement m = {.cfg = cfg};
    cp_code code = measure(&m, err);
    cp_load_client_close(m.client);
    cp_load_prompts_close(m.prompts);
    if (code)
        cp_load_result_free(m.result);
    else
        *out = m.result;
    return code;
}
