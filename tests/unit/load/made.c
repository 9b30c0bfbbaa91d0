/* Results that nobody measured. */
#include "tests/unit/load/made.h"

#include <math.h>
#include <stdlib.h>

enum { MANY = 100000, OCTAVE = 16, BUCKETS = 640 };

const char *const made_names[MADE_KINDS] = {"nothing", "empty", "one",  "usual",
                                            "hostile", "many",  "sweep"};

/* Numerical Recipes' generator: good enough to look irregular. */
static double draw(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) * 0x1p-24;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static cp_load_figures nobody(void)
{
    return (cp_load_figures){.mean = (double)NAN,
                             .p50 = (double)NAN,
                             .p90 = (double)NAN,
                             .p95 = (double)NAN,
                             .p99 = (double)NAN,
                             .max = (double)NAN};
}

/* Figures of n values, which are sorted for it. */
static cp_load_figures figures(double *v, size_t n)
{
    cp_load_figures f = nobody();
    if (n == 0)
        return f;
    qsort(v, n, sizeof(v[0]), ascending);
    f = (cp_load_figures){.count = n,
                          .p50 = v[n / 2],
                          .p90 = v[n * 9 / 10],
                          .p95 = v[n * 95 / 100],
                          .p99 = v[n * 99 / 100],
                          .max = v[n - 1]};
    for (size_t i = 0; i < n; i++)
        f.mean += v[i] / (double)n;
    f.buckets = cp_xcalloc(BUCKETS, sizeof(f.buckets[0]));
    int first = (int)floor(log2(fmax(v[0], 1e-3)) * OCTAVE);
    for (size_t i = 0; i < n; i++) {
        int b = (int)floor(log2(fmax(v[i], 1e-3)) * OCTAVE) - first;
        b = b < 0 ? 0 : b >= BUCKETS ? BUCKETS - 1 : b;
        f.buckets[b].count++;
        f.n_buckets = (size_t)b + 1;
    }
    for (size_t b = 0; b < f.n_buckets; b++) {
        f.buckets[b].from_ms = pow(2, (double)(first + (int)b) / OCTAVE);
        f.buckets[b].to_ms = pow(2, (double)(first + (int)b + 1) / OCTAVE);
    }
    return f;
}

/* How a made server behaves. */
typedef struct behaviour {
    double rate, ttft, tpot, wait; /* wait: ms that each request waits longer than the one before */
    int trouble;                   /* each so many-th request fails; 0: none */
} behaviour;

static cp_load_row one(const behaviour *b, size_t i, uint32_t *seed)
{
    double tail = draw(seed) < 0.03 ? 4 : 1;
    cp_load_row w = {.due_ms = ((double)i + draw(seed)) * 1e3 / b->rate,
                     .input_tokens = 64,
                     .output_tokens = 16 + (uint32_t)(draw(seed) * 100),
                     .usage = true,
                     .good = true,
                     .status = 200};
    w.sent_ms = w.due_ms + 0.02 + 0.1 * draw(seed);
    w.first_ms = w.sent_ms + (double)i * b->wait + b->ttft * tail * (0.7 + 0.6 * draw(seed));
    w.last_ms = w.first_ms + (w.output_tokens - 1) * b->tpot * (0.9 + 0.2 * draw(seed));
    w.end_ms = w.last_ms + 0.2;
    if (b->trouble > 0 && i % (size_t)b->trouble == (size_t)b->trouble - 1) {
        w.outcome = (uint8_t)(1 + i / (size_t)b->trouble % (CP_LOAD_OUTCOME_COUNT - 1));
        w.good = false;
        w.status = w.outcome == CP_LOAD_REFUSED ? 429 : w.outcome == CP_LOAD_CUT ? 200 : 0;
        w.first_ms = w.outcome == CP_LOAD_CUT ? w.first_ms : (double)NAN;
        w.last_ms = (double)NAN;
        w.end_ms = w.sent_ms + (w.outcome == CP_LOAD_TIMEOUT ? 30000 : 40 * draw(seed));
    }
    return w;
}

static void make_seconds(cp_load_run *r)
{
    double end = 0;
    for (size_t i = 0; i < r->n_rows; i++)
        end = fmax(end, r->rows[i].end_ms);
    r->duration_s = end / 1e3;
    r->n_seconds = (size_t)r->duration_s + 1;
    r->seconds = cp_xcalloc(r->n_seconds, sizeof(r->seconds[0]));
    for (size_t i = 0; i < r->n_rows; i++) {
        const cp_load_row *w = &r->rows[i];
        r->seconds[(size_t)(w->due_ms / 1e3)].due++;
        r->seconds[(size_t)(w->sent_ms / 1e3)].sent++;
        cp_load_second *s = &r->seconds[(size_t)(w->end_ms / 1e3)];
        if (w->outcome == CP_LOAD_OK)
            s->completed++;
        else
            s->failed++;
        for (size_t k = (size_t)(w->sent_ms / 1e3); k < (size_t)(w->end_ms / 1e3); k++)
            r->seconds[k].in_flight++;
        s->output_tokens += w->outcome == CP_LOAD_OK ? w->output_tokens : 0;
    }
    for (size_t i = 0; i < r->n_seconds; i++) {
        cp_load_second *s = &r->seconds[i];
        bool any = s->completed > 0;
        s->ttft_p50 = any ? r->ttft.p50 * (0.9 + 0.02 * (double)(i % 11)) : (double)NAN;
        s->ttft_p99 = any ? r->ttft.p99 * (0.7 + 0.05 * (double)(i % 7)) : (double)NAN;
        s->itl_p50 = any ? r->itl.p50 * (0.95 + 0.01 * (double)(i % 5)) : (double)NAN;
        s->itl_p99 = any ? r->itl.p99 * (0.8 + 0.04 * (double)(i % 9)) : (double)NAN;
        s->server_running = fmin(s->in_flight, 24);
        s->server_waiting = s->in_flight > 24 ? s->in_flight - 24 : 0;
        s->server_kv_usage = s->server_running / 32;
    }
}

/* Rows, and from them everything else. */
static void make_run(cp_load_run *r, size_t n, const behaviour *b)
{
    double *v = cp_xcalloc(5 * (n + 1), sizeof(v[0]));
    double *ttft = v, *itl = v + n + 1, *tpot = itl + n + 1, *e2e = tpot + n + 1,
           *lag = e2e + n + 1;
    size_t ok = 0;
    uint32_t seed = 7;
    *r = (cp_load_run){
        .rate = b->rate, .rate_end = b->rate, .requests = n, .n_rows = n, .saturated_why = ""};
    r->rows = cp_xcalloc(n + 1, sizeof(r->rows[0]));
    for (size_t i = 0; i < n; i++) {
        cp_load_row *w = &r->rows[i];
        *w = one(b, i, &seed);
        r->by_outcome[w->outcome]++;
        lag[i] = w->sent_ms - w->due_ms;
        if (w->outcome != CP_LOAD_OK)
            continue;
        ttft[ok] = w->first_ms - w->due_ms;
        tpot[ok] = (w->last_ms - w->first_ms) / (w->output_tokens - 1);
        itl[ok] = tpot[ok] * (0.5 + draw(&seed));
        e2e[ok++] = w->end_ms - w->due_ms;
        r->output_tokens += w->output_tokens;
        r->input_tokens += w->input_tokens;
    }
    r->completed = ok;
    r->failed = n - ok;
    r->ttft = figures(ttft, ok);
    r->itl = figures(itl, ok);
    r->tpot = figures(tpot, ok);
    r->e2e = figures(e2e, ok);
    r->lag = figures(lag, n);
    free(v);
    make_seconds(r);
    r->request_s = (double)ok / r->duration_s;
    r->output_tok_s = (double)r->output_tokens / r->duration_s;
    r->input_tok_s = (double)r->input_tokens / r->duration_s;
    r->goodput = (double)ok / (double)n * 0.97;
    r->goodput_request_s = r->request_s * 0.97;
    r->own_cpu_s = 0.31;
    r->own_cpu_us_chunk = 11.2;
    r->server = (cp_load_server){.kind = "vllm", .scrapes = 12, .failed_scrapes = 1};
    for (int i = 0; i < CP_LOAD_GAUGE_COUNT; i++) {
        r->server.first[i] = i == CP_LOAD_PREEMPTIONS ? (double)NAN : 100 * i;
        r->server.last[i] = i == CP_LOAD_PREEMPTIONS ? (double)NAN : 1234.5 * (i + 1);
        r->server.mean[i] = r->server.max[i] = 0.5 * i;
    }
}

static void make_empty(cp_load_run *r)
{
    *r = (cp_load_run){.concurrency = 8,
                       .goodput = (double)NAN,
                       .goodput_request_s = (double)NAN,
                       .duration_s = (double)NAN,
                       .request_s = (double)NAN,
                       .output_tok_s = (double)NAN,
                       .input_tok_s = (double)NAN,
                       .own_cpu_s = (double)NAN,
                       .own_cpu_us_chunk = (double)NAN,
                       .interrupted = true,
                       .saturated_why = ""};
    r->ttft = r->itl = r->tpot = r->e2e = r->lag = nobody();
}

static void make_sweep(cp_load_result *r)
{
    r->n_runs = 9;
    r->runs = cp_xcalloc(r->n_runs, sizeof(r->runs[0]));
    for (size_t i = 0; i < r->n_runs; i++) {
        behaviour b = {.rate =
                           (double)(1u << (i < 6 ? i : 5)) + (i < 6 ? 0 : 8.0 * (double)(i - 5)),
                       .ttft = 40 + 12 * (double)i,
                       .tpot = 6 + (double)i};
        b.wait = i < 6 ? 0 : 20 * (double)(i - 5);
        make_run(&r->runs[i], 200, &b);
        r->runs[i].saturated = i >= 6;
        if (i >= 6)
            r->runs[i].saturated_why = "what was in flight kept growing";
    }
    r->saturation = (cp_load_saturation){.swept = true, .kept_up = 32, .gave_way = 40};
}

/* Ends of elements, attributes and styles, entities, what is no UTF-8, what turns the writing. */
static const char hostile[] =
    "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>"
    "\" onload='alert(3)' x=\"&lt;&#60; \xE2\x80\xAE"
    "abc \xFF\xC0\xAF \x01\x1B[31m ]]> <!-- {{7*7}}";

cp_load_result *made_new(made_kind kind)
{
    static const char *plain_note[] = {"tokens are counted from chunks: the server sends no usage"};
    static const char *hostile_note[] = {hostile, "</li></ul><h1>"};
    const behaviour usual = {.rate = 8,
                             .ttft = 180,
                             .tpot = 21,
                             .trouble = kind == MADE_ONE ? 0 : 15},
                    many = {.rate = 28, .ttft = 90, .tpot = 12, .trouble = 40};
    bool bad = kind == MADE_HOSTILE;
    cp_load_result *r = cp_xcalloc(1, sizeof(*r));
    *r =
        (cp_load_result){.url = "http://127.0.0.1:8080",
                         .model = bad ? hostile : "SmolLM2-135M",
                         .endpoint = "chat",
                         .dataset = bad ? hostile : "random",
                         .began = "2026-11-30T12:00:00Z",
                         .command = bad ? hostile
                                        : "capstan bench serve --url http://127.0.0.1:8080 --model "
                                          "SmolLM2-135M --rate 8 --requests 400 --slo ttft=500",
                         .server = bad ? hostile : "capstan/0.1.0",
                         .version = "capstan 0.1.0",
                         .seed = 1,
                         .slo = {.ttft = 500, .itl = (double)NAN, .tpot = 40, .e2e = (double)NAN},
                         .saturation = {.kept_up = (double)NAN, .gave_way = (double)NAN},
                         .notes = bad ? hostile_note : plain_note,
                         .n_notes = bad ? 2 : 1};
    if (kind == MADE_NOTHING)
        return r;
    if (kind == MADE_SWEEP) {
        make_sweep(r);
        return r;
    }
    r->n_runs = 1;
    r->runs = cp_xcalloc(1, sizeof(r->runs[0]));
    if (kind == MADE_EMPTY)
        make_empty(r->runs);
    else
        make_run(r->runs,
                 kind == MADE_ONE    ? 1
                 : kind == MADE_MANY ? MANY
                                     : 400,
                 kind == MADE_MANY ? &many : &usual);
    if (bad) {
        r->runs->saturated_why = hostile;
        r->runs->server.kind = hostile;
        r->runs->rows[3].outcome = 200; /* no outcome that there is */
    }
    return r;
}

void made_free(cp_load_result *r)
{
    for (size_t i = 0; i < r->n_runs; i++) {
        cp_load_run *run = &r->runs[i];
        free(run->ttft.buckets);
        free(run->itl.buckets);
        free(run->tpot.buckets);
        free(run->e2e.buckets);
        free(run->lag.buckets);
        free(run->seconds);
        free(run->rows);
    }
    free(r->runs);
    free(r);
}
