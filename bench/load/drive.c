/*
 * Places and what happens in them. A place holds a talk from its first turn to its last; a talk of
 * one turn is an ordinary request. In an open loop talks come by the schedule, which is read twice:
 * by what is due, and, later where there was no place, by what is sent.
 */
#include "bench/load/drive.h"

#include "base/clock.h"
#include "bench/load/arrivals.h"
#include "bench/load/scrape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCRAPE_MS = 1000,
    SCRAPE_TIMEOUT_MS = 5000,
    WATCH_MS = 200,
    METRICS_MAX = 8 << 20,
    AT_ONCE = 8 /* requests that are begun before answers are looked at again: a connection takes
                   longer to open than a token to read, and tokens must not wait for a thousand */
};

typedef struct drive drive;

typedef struct place {
    drive *d;
    cp_load_call call;
    cp_load_stream stream;
    cp_buf history, body;
    cp_load_ask ask;
    uint64_t talk;
    uint32_t turn, turns;
    uint32_t input_tokens; /* of the whole request, by our own estimate */
    int64_t due_ns;
    size_t row;
    struct place *next_free;
} place;

/* The server's /metrics. */
typedef struct gauge_call {
    drive *d;
    cp_load_call call;
    cp_buf text;
    bool out, off;
    int64_t next_ns;
} gauge_call;

struct drive {
    const cp_load_plan *plan;
    cp_load_meter *meter;
    cp_load_server *server;
    place **places; /* made when first needed */
    uint32_t n_places, in_use;
    place *free;
    cp_load_arrivals due, sent; /* the schedule, as far as each has come */
    int64_t begin_ns, next_due_ns;
    uint64_t came, begun;             /* talks that were due, that were sent or dropped */
    uint64_t came_turns, begun_turns; /* the requests in them */
    bool stopping;
    gauge_call gauges;
    int64_t next_watch_ns;
};

/* ---- a place ---- */

static void on_token(void *arg, int64_t now_ns, int64_t gap_ns)
{
    place *p = arg;
    cp_load_meter_token(p->d->meter, p->due_ns, now_ns, gap_ns);
}

static bool on_data(cp_load_call *call, const char *bytes, size_t n, int64_t now_ns)
{
    place *p = call->arg;
    return cp_load_stream_feed(&p->stream, call->status, call->events, bytes, n, now_ns);
}

/* free_ns: since when it could have been sent, what this program's own delay counts from. */
static void send_turn(place *p, int64_t due_ns, int64_t free_ns)
{
    const cp_load_plan *plan = p->d->plan;
    cp_load_prompts_turn(plan->prompts, p->talk, p->turn, &p->history, &p->ask);
    p->input_tokens += p->ask.input_tokens;
    cp_load_body(&p->body, plan->cfg, plan->shape, &p->history, &p->ask);
    p->due_ns = due_ns;
    p->call.body = p->body.p;
    p->call.n_body = p->body.n;
    cp_load_stream_begin(&p->stream, p->turns > 1, on_token, p);
    cp_load_client_start(plan->client, &p->call);
    p->row = cp_load_meter_sent(p->d->meter, due_ns, free_ns, p->call.sent_ns, p->turn);
}

static void next_talks(drive *d, int64_t now_ns);

static void on_end(cp_load_call *call, cp_load_ending how, int64_t now_ns)
{
    place *p = call->arg;
    drive *d = p->d;
    cp_load_outcome outcome = cp_load_stream_end(&p->stream, call->status, how, call->problem);
    cp_load_meter_end(d->meter, p->row, p->due_ns, now_ns, outcome, call->status, &p->stream,
                      p->input_tokens);
    if (outcome == CP_LOAD_OK && !d->stopping && p->turn + 1 < p->turns) {
        cp_load_prompts_answer(d->plan->prompts, p->talk, p->turn, &p->stream.answer, &p->history);
        p->input_tokens +=
            p->stream.usage ? (uint32_t)p->stream.completion_tokens : p->stream.chunks;
        p->turn++;
        int64_t due = cp_now_ns();
        cp_load_meter_due(d->meter, due, due);
        send_turn(p, due, now_ns);
        return;
    }
    d->meter->unasked += outcome == CP_LOAD_CANCELLED ? 0 : p->turns - p->turn - 1;
    p->next_free = d->free;
    d->free = p;
    d->in_use--;
    next_talks(d, now_ns);
}

static place *take_place(drive *d)
{
    place *p = d->free;
    if (p) {
        d->free = p->next_free;
    } else {
        p = d->places[d->n_places++] = cp_xcalloc(1, sizeof(*p));
        p->d = d;
        p->call.path = cp_load_path(d->plan->cfg);
        p->call.timeout_ms = d->plan->cfg->timeout_ms;
        p->call.data = on_data;
        p->call.end = on_end;
        p->call.arg = p;
    }
    d->in_use++;
    return p;
}

/* ---- talks ---- */

/* Turns that a talk may have of the requests that are left; *taken counts them. */
static uint32_t turns_of(const drive *d, uint64_t talk, uint64_t *taken)
{
    uint64_t left = d->plan->requests - *taken;
    uint32_t turns = cp_load_prompts_turns(d->plan->prompts, d->plan->first_talk + talk);
    turns = turns < left ? turns : (uint32_t)left;
    *taken += turns;
    return turns;
}

static void begin_talk(drive *d, int64_t due_ns, int64_t free_ns)
{
    place *p = take_place(d);
    p->talk = d->plan->first_talk + d->begun;
    p->turns = turns_of(d, d->begun++, &d->begun_turns);
    p->turn = 0;
    p->input_tokens = 0;
    cp_buf_clear(&p->history);
    send_turn(p, due_ns, free_ns);
}

static int64_t next_sent(drive *d)
{
    return d->begin_ns + cp_load_arrivals_next(&d->sent);
}

/* Fill places that are free, a few. */
static void next_talks(drive *d, int64_t now_ns)
{
    const cp_load_plan *plan = d->plan;
    for (int n = 0; n < AT_ONCE && !d->stopping && d->in_use < plan->places; n++) {
        if (plan->rate > 0) {
            if (d->begun == d->came)
                return;
            int64_t due = next_sent(d);
            begin_talk(d, due, due);
        } else {
            if (d->came_turns == plan->requests)
                return;
            turns_of(d, d->came++, &d->came_turns);
            int64_t due = cp_now_ns(); /* no schedule wants it sooner */
            cp_load_meter_due(d->meter, due, due);
            begin_talk(d, due, now_ns);
        }
    }
}

/* Open loop: what is due by now. */
static void take_due(drive *d, int64_t now_ns)
{
    const cp_load_plan *plan = d->plan;
    for (int n = 0; n < AT_ONCE && d->came_turns < plan->requests && d->next_due_ns <= now_ns;
         n++) {
        int64_t due = d->next_due_ns;
        cp_load_meter_due(d->meter, due, now_ns);
        turns_of(d, d->came++, &d->came_turns);
        d->next_due_ns = d->begin_ns + cp_load_arrivals_next(&d->due);
        if (plan->drop && d->in_use == plan->places) {
            turns_of(d, d->begun++, &d->begun_turns);
            (void)next_sent(d);
            cp_load_meter_unsent(d->meter, due, now_ns, CP_LOAD_DROPPED,
                                 "as many requests were out as this program can hold");
        }
        next_talks(d, now_ns);
    }
}

/* Is there something that could be sent now? */
static bool more_to_send(const drive *d)
{
    bool due = d->plan->rate > 0 ? d->begun < d->came : d->came_turns < d->plan->requests;
    return due && d->in_use < d->plan->places;
}

/* ---- beside ---- */

static bool gauges_data(cp_load_call *call, const char *p, size_t n, int64_t now_ns)
{
    (void)now_ns;
    gauge_call *g = call->arg;
    return cp_buf_add(&g->text, p, n);
}

static void gauges_end(cp_load_call *call, cp_load_ending how, int64_t now_ns)
{
    (void)now_ns;
    gauge_call *g = call->arg;
    cp_load_meter *m = g->d->meter;
    double value[CP_LOAD_GAUGE_COUNT];
    bool ok = how == CP_LOAD_WHOLE && call->status == 200;
    cp_load_scrape_add(g->d->server, ok && g->text.p ? g->text.p : "", ok ? g->text.n : 0, value);
    m->running = value[CP_LOAD_RUNNING];
    m->waiting = value[CP_LOAD_WAITING];
    m->kv = value[CP_LOAD_KV_USAGE];
    g->out = false;
    g->off = g->d->server->scrapes == 0; /* it has none that we know */
}

static void scrape(drive *d)
{
    gauge_call *g = &d->gauges;
    g->d = d;
    g->text.max = METRICS_MAX;
    cp_buf_clear(&g->text);
    g->call.path = "/metrics";
    g->call.timeout_ms = SCRAPE_TIMEOUT_MS;
    g->call.data = gauges_data;
    g->call.end = gauges_end;
    g->call.arg = g;
    g->out = true;
    cp_load_client_start(d->plan->client, &g->call);
}

/* One more, and wait for it; false: the interrupt came. */
static bool scrape_now(drive *d)
{
    if (!d->gauges.out)
        scrape(d);
    while (d->gauges.out) {
        if (cp_load_client_wait(d->plan->client, INT64_MAX) && d->gauges.out) {
            cp_load_client_cancel(d->plan->client, &d->gauges.call);
            return false;
        }
    }
    return true;
}

static void show(drive *d, int64_t now_ns)
{
    const cp_load_config *cfg = d->plan->cfg;
    cp_load_meter *m = d->meter;
    cp_load_progress now = d->plan->progress;
    cp_load_meter_tick(m, now_ns);
    now.done = m->done;
    now.total = d->plan->requests;
    now.failed = m->failed;
    now.in_flight = m->in_flight;
    now.seconds = (double)(now_ns - d->begin_ns) * 1e-9;
    if (m->n_seconds > 1)
        now.output_tok_s = (double)m->seconds[m->n_seconds - 2].output_tokens;
    cfg->watch(cfg->watch_arg, &now);
}

/* What has its time beside the requests; returns the next of these times. */
static int64_t take_beside(drive *d, int64_t now_ns)
{
    gauge_call *g = &d->gauges;
    if (d->plan->scrape && !g->off && now_ns >= g->next_ns) {
        g->next_ns = now_ns + SCRAPE_MS * (int64_t)1000000;
        if (!g->out)
            scrape(d);
    }
    if (d->plan->cfg->watch && now_ns >= d->next_watch_ns) {
        d->next_watch_ns = now_ns + WATCH_MS * (int64_t)1000000;
        show(d, now_ns);
    }
    int64_t at = d->plan->cfg->watch ? d->next_watch_ns : INT64_MAX;
    return d->plan->scrape && !g->off && g->next_ns < at ? g->next_ns : at;
}

/* ---- the run ---- */

/* Everything that is out, and what waits, ends here. */
static void stop(drive *d)
{
    d->stopping = true;
    for (uint32_t i = 0; i < d->n_places; i++) {
        if (d->places[i]->call.running)
            cp_load_client_cancel(d->plan->client, &d->places[i]->call);
    }
    for (; d->begun < d->came; d->begun++)
        cp_load_meter_unsent(d->meter, next_sent(d), cp_now_ns(), CP_LOAD_CANCELLED, "");
    if (d->gauges.out)
        cp_load_client_cancel(d->plan->client, &d->gauges.call);
}

static bool run(drive *d)
{
    const cp_load_plan *plan = d->plan;
    for (;;) {
        int64_t now = cp_now_ns(), until = take_beside(d, now);
        if (plan->rate > 0)
            take_due(d, now);
        next_talks(d, now);
        if (d->in_use == 0 && d->begun == d->came && d->came_turns == plan->requests)
            return false;
        if (plan->rate > 0 && d->came_turns < plan->requests && d->next_due_ns < until)
            until = d->next_due_ns;
        if (cp_load_client_wait(plan->client, more_to_send(d) ? now : until)) {
            stop(d);
            return true;
        }
    }
}

static void drive_fini(drive *d)
{
    for (uint32_t i = 0; i < d->n_places; i++) {
        place *p = d->places[i];
        cp_load_call_fini(&p->call);
        cp_load_stream_fini(&p->stream);
        cp_buf_fini(&p->history);
        cp_buf_fini(&p->body);
        free(p);
    }
    free(d->places);
    cp_load_call_fini(&d->gauges.call);
    cp_buf_fini(&d->gauges.text);
}

bool cp_load_drive(const cp_load_plan *plan, const cp_load_slo *slo, cp_load_meter *meter,
                   cp_load_server *server)
{
    drive d = {.plan = plan, .meter = meter, .server = server};
    d.places = cp_xcalloc(plan->places, sizeof(*d.places));
    cp_load_scrape_begin(server);
    cp_load_meter_begin(meter, cp_now_ns(), slo);
    bool interrupted = plan->scrape && !scrape_now(&d);
    if (!interrupted) { /* the first scrape is no part of the run */
        double now[] = {meter->running, meter->waiting, meter->kv};
        cp_load_meter_fini(meter);
        cp_load_meter_begin(meter, cp_now_ns(), slo);
        meter->running = now[0];
        meter->waiting = now[1];
        meter->kv = now[2];
        d.begin_ns = meter->begin_ns;
        d.gauges.next_ns = d.begin_ns + SCRAPE_MS * (int64_t)1000000;
        cp_load_arrivals_begin(&d.due, plan->rate, plan->rate_end, plan->ramp_s,
                               plan->cfg->burstiness, plan->cfg->seed);
        d.sent = d.due;
        d.next_due_ns = d.begin_ns + cp_load_arrivals_next(&d.due);
        interrupted = run(&d);
    }
    if (!interrupted && plan->scrape && !d.gauges.off)
        interrupted = !scrape_now(&d);
    cp_load_scrape_end(server);
    if (plan->cfg->watch)
        show(&d, cp_now_ns());
    drive_fini(&d);
    return interrupted;
}
