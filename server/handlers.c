/* These handlers answer what the server says of itself: see handlers.h. */
#include "server/handlers.h"

#include "server/emit.h"
#include "server/head.h"
#include "server/reply.h"

#include <string.h>

/* ---- probes ---- */

/* {"status":"ok|loading|draining","phase":...}; a phase that counts bytes adds them. */
static void probe(cp_call *c, bool good)
{
    const cp_server *s = c->s;
    const char *status = "ok", *phase = "serving";
    if (atomic_load(&s->drain) != CP_RUN) {
        status = phase = "draining";
    } else if (!atomic_load(&s->ready_to_serve)) {
        status = "loading";
        phase = atomic_load(&s->phase);
    } else if (!cp_served_any(&c->s->models)) {
        status = "loading";
        phase = "no_model";
    }
    cp_buf b = {0};
    cp_buf_printf(&b, "{\"status\":\"%s\",\"phase\":", status);
    cp_emit_str(&b, phase, strlen(phase));
    unsigned long long done = atomic_load(&s->load_done), total = atomic_load(&s->load_total);
    if (strcmp(status, "loading") == 0 && (done || total)) {
        cp_buf_printf(&b, ",\"bytes_done\":%llu,\"bytes_total\":%llu,\"bytes_per_second\":%llu",
                      done, total, (unsigned long long)atomic_load(&s->load_rate));
    }
    cp_buf_addc(&b, '}');
    cp_call_reply(c, good ? 200 : 503, "application/json", &b);
}

void cp_handle_ready(cp_call *c)
{
    probe(c, atomic_load(&c->s->ready_to_serve) && atomic_load(&c->s->drain) == CP_RUN &&
                 cp_served_any(&c->s->models));
}

void cp_handle_live(cp_call *c)
{
    const cp_engine_api *e = &c->s->engine;
    probe(c, !atomic_load(&c->s->ready_to_serve) || !e->alive || e->alive(e->self));
}

void cp_handle_startup(cp_call *c)
{
    probe(c, atomic_load(&c->s->ready_to_serve));
}

/* ---- what the server says of itself ---- */

void cp_handle_version(cp_call *c)
{
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"version\":");
    cp_emit_str(&b, c->s->version, strlen(c->s->version));
    cp_buf_addc(&b, '}');
    cp_call_json(c, &b);
}

void cp_handle_metrics(cp_call *c)
{
    cp_server *s = c->s;
    cp_metrics *list[CP_SERVED_MAX + 1];
    cp_served *models[CP_SERVED_MAX];
    int n = 0;
    cp_metric_set(s->metrics, CP_M_CONNECTIONS, cp_http_connections(s->http));
    cp_metric_set(s->metrics, CP_M_BUDGET_BODIES, (int64_t)cp_budget_used(s->budget));
    cp_metric_set(s->metrics, CP_M_BUDGET_LIMIT_BODIES, (int64_t)cp_budget_limit(s->budget));
    if (s->metrics)
        list[n++] = s->metrics;
    int n_models =
        cp_served_all(&s->models, 1u << CP_MODEL_READY | 1u << CP_MODEL_DRAINING, models);
    for (int i = 0; i < n_models; i++)
        if (models[i]->metrics)
            list[n++] = models[i]->metrics;
    cp_buf b = {0};
    cp_metrics_write(&b, list, n);
    cp_served_put_all(&s->models, models, n_models);
    cp_call_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

static void emit_model(const cp_served *m, cp_buf *b)
{
    cp_buf_adds(b, "{\"id\":");
    cp_emit_str(b, m->ids[0], strlen(m->ids[0]));
    cp_buf_printf(b,
                  ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"capstan\","
                  "\"max_model_len\":%d,\"quantization\":",
                  (long long)m->created, m->limits.ctx);
    cp_emit_str(b, m->quantization, strlen(m->quantization));
    cp_buf_adds(b, ",\"digest\":");
    cp_emit_str(b, m->digest, strlen(m->digest));
    cp_buf_addc(b, '}');
}

void cp_handle_models(cp_call *c)
{
    cp_served *models[CP_SERVED_MAX];
    int n = cp_served_all(&c->s->models, 1u << CP_MODEL_READY, models);
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < n; i++) {
        if (i > 0)
            cp_buf_addc(&b, ',');
        emit_model(models[i], &b);
    }
    cp_served_put_all(&c->s->models, models, n);
    cp_buf_adds(&b, "]}");
    cp_call_json(c, &b);
}

static int hex(char ch)
{
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

/* The rest of a path, percent-decoded once; NULL: malformed. */
static const char *decode(const char *p, char out[CP_TARGET_MAX + 1])
{
    size_t n = 0;
    for (; *p; p++) {
        CP_ASSERT(n < CP_TARGET_MAX);
        if (*p != '%') {
            out[n++] = *p;
            continue;
        }
        int hi = hex(p[1]), lo = hi < 0 ? -1 : hex(p[2]);
        if (lo < 0 || hi * 16 + lo == 0)
            return NULL;
        out[n++] = (char)(hi * 16 + lo);
        p += 2;
    }
    out[n] = '\0';
    return out;
}

void cp_handle_model(cp_call *c)
{
    char name[CP_TARGET_MAX + 1];
    const char *rest = cp_http_path(c->q) + strlen(c->route->path);
    const char *id = decode(rest, name);
    cp_err err;
    cp_served *m;
    cp_code code = id ? cp_served_get(&c->s->models, id, strlen(id), &m, &err)
                      : cp_fail_param(&err, CP_MODEL_NOT_FOUND, "model",
                                      "'%.200s' is no model's name: a byte after %% is two "
                                      "hexadecimal digits, and not 00",
                                      rest);
    if (code != CP_OK) {
        cp_call_error(c, 0, code, &err);
        return;
    }
    cp_buf b = {0};
    emit_model(m, &b);
    cp_served_put(&c->s->models, m);
    cp_call_json(c, &b);
}
