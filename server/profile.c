/*
 * This file answers /debug/profile: what the steps of each model took, operation by operation,
 * since its load, or (?seconds=N) in the N seconds after the request. The engine keeps sums; a
 * window is the difference of two looks at them, and the answer waits for the second.
 *
 *   {"seconds":2.0,"models":[{"id":"m","steps":40,"step_seconds":1.31,"operations":[
 *     {"op":"linear","records":4840,"seconds":1.02,"share":0.779},...],"other_seconds":0.05}]}
 */
#include "server/profile.h"

#include "base/clock.h"
#include "server/emit.h"
#include "server/handlers.h"
#include "server/query.h"
#include "server/reply.h"

#include <stdlib.h>
#include <string.h>

enum { SECONDS_MAX = 60 };

/* A model at the first look. */
typedef struct look {
    const cp_resident *engine;
    cp_engine_profile profile;
} look;

struct cp_profile_wait {
    int64_t since_ns, until_ns;
    int n;
    look look[CP_SERVED_MAX];
};

/* What has come since the first look; all, where the model was not there then. */
static void subtract(cp_engine_profile *now, const cp_engine_profile *before)
{
    now->steps -= before->steps;
    now->step_ns -= before->step_ns;
    for (int i = 0; i < now->n; i++) {
        for (int k = 0; k < before->n; k++) {
            if (strcmp(now->op[i].name, before->op[k].name) != 0)
                continue;
            now->op[i].ns -= before->op[k].ns;
            now->op[i].records -= before->op[k].records;
        }
    }
}

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

static void emit_operations(cp_buf *b, const cp_engine_profile *p)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->n; i++) {
        sum += p->op[i].ns;
        cp_buf_printf(b, "%s{\"op\":\"%s\",\"records\":%llu,\"seconds\":%.6f,\"share\":%.4f}",
                      i ? "," : "", p->op[i].name, (unsigned long long)p->op[i].records,
                      seconds(p->op[i].ns),
                      p->step_ns ? (double)p->op[i].ns / (double)p->step_ns : 0.0);
    }
    cp_buf_printf(b, "],\"other_seconds\":%.6f",
                  p->step_ns > sum ? seconds(p->step_ns - sum) : 0.0);
}

static void emit_model(cp_call *c, const cp_served *m, const struct cp_profile_wait *w, cp_buf *b)
{
    const cp_engine_api *e = &c->s->engine;
    cp_engine_profile now;
    e->profile(e->self, m->engine, &now);
    for (int i = 0; i < w->n; i++)
        if (w->look[i].engine == m->engine && w->look[i].profile.since_ns == now.since_ns)
            subtract(&now, &w->look[i].profile);
    cp_buf_adds(b, "{\"id\":");
    cp_emit_str(b, m->id, strlen(m->id));
    cp_buf_printf(b, ",\"steps\":%llu,\"step_seconds\":%.6f,\"operations\":[",
                  (unsigned long long)now.steps, seconds(now.step_ns));
    emit_operations(b, &now);
    cp_buf_addc(b, '}');
}

static int models_of(cp_call *c, cp_served *models[CP_SERVED_MAX])
{
    return c->s->engine.profile ? cp_served_all(&c->s->models, 1u << CP_MODEL_READY, models) : 0;
}

static void answer(cp_call *c, const struct cp_profile_wait *w)
{
    cp_served *models[CP_SERVED_MAX];
    int n = models_of(c, models);
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"seconds\":");
    if (w->since_ns)
        cp_buf_printf(&b, "%.3f", (double)(cp_now_ns() - w->since_ns) * 1e-9);
    else
        cp_buf_adds(&b, "null");
    cp_buf_adds(&b, ",\"models\":[");
    for (int i = 0; i < n; i++) {
        cp_buf_adds(&b, i ? "," : "");
        emit_model(c, models[i], w, &b);
    }
    cp_buf_adds(&b, "]}");
    cp_served_put_all(&c->s->models, models, n);
    cp_call_json(c, &b);
}

/* 0: none was given; -1: what was given is no window. */
static int window_of(const cp_http_req *q)
{
    char name[CP_QUERY_TEXT], value[CP_QUERY_TEXT], *end;
    const char *at = cp_http_query(q);
    while (cp_query_next(&at, name, value)) {
        if (strcmp(name, "seconds") != 0)
            continue;
        long n = strtol(value, &end, 10);
        return *value && !*end && n >= 1 && n <= SECONDS_MAX ? (int)n : -1;
    }
    return 0;
}

static void begin_window(cp_call *c, int n_seconds)
{
    cp_served *models[CP_SERVED_MAX];
    const cp_engine_api *e = &c->s->engine;
    struct cp_profile_wait *w = cp_xcalloc(1, sizeof(*w));
    int n = models_of(c, models);
    for (int i = 0; i < n; i++) {
        w->look[i].engine = models[i]->engine;
        e->profile(e->self, models[i]->engine, &w->look[i].profile);
    }
    cp_served_put_all(&c->s->models, models, n);
    w->n = n;
    w->since_ns = cp_now_ns();
    w->until_ns = w->since_ns + n_seconds * INT64_C(1000000000);
    c->profile = w;
    cp_call_move(c, CP_CALL_PREPARING);
}

void cp_handle_profile(cp_call *c)
{
    int n = window_of(c->q);
    cp_err err;
    if (n > 0)
        begin_window(c, n);
    else if (n == 0)
        answer(c, &(struct cp_profile_wait){.n = 0});
    else
        cp_call_error(c, 0,
                      cp_fail_param(&err, CP_INVALID_VALUE, "seconds",
                                    "'seconds' is no whole number of seconds; allowed: 1 to %d",
                                    SECONDS_MAX),
                      &err);
}

void cp_profile_tick(cp_call *c, int64_t now_ns)
{
    bool over = now_ns >= c->profile->until_ns || atomic_load(&c->s->drain) != CP_RUN;
    if (cp_call_wanted(c) && over)
        answer(c, c->profile);
}
