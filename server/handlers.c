/* These handlers answer what the server says of itself: see handlers.h. */
#include "server/handlers.h"

#include "server/api/oip.h"
#include "server/emit.h"
#include "server/reply.h"

#include <string.h>

/* ---- probes ---- */

static bool is_live(const cp_server *s)
{
    const cp_engine_api *e = &s->engine;
    return !atomic_load(&s->ready_to_serve) || !e->alive || e->alive(e->self);
}

static bool is_ready(cp_server *s)
{
    return atomic_load(&s->ready_to_serve) && atomic_load(&s->drain) == CP_RUN &&
           cp_served_any(&s->models);
}

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
    probe(c, is_ready(c->s));
}

void cp_handle_live(cp_call *c)
{
    probe(c, is_live(c->s));
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

/* As vLLM says it: the requests for text, from their head to the end of their answer. */
void cp_handle_in_flight(cp_call *c)
{
    int n = 0;
    for (const cp_call *at = c->s->calls; at; at = at->next)
        n += at->q && cp_call_generates(at);
    cp_buf b = {0};
    cp_buf_printf(&b, "{\"server_load\":%d}", n);
    cp_call_json(c, &b);
}

static void emit_model(const cp_served *m, cp_buf *b)
{
    cp_buf_adds(b, "{\"id\":");
    cp_emit_str(b, m->id, strlen(m->id));
    cp_buf_printf(b,
                  ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"capstan\","
                  "\"max_model_len\":%d,\"quantization\":",
                  (long long)m->created, m->limits.ctx);
    cp_emit_str(b, m->quantization, strlen(m->quantization));
    cp_buf_adds(b, ",\"digest\":");
    cp_emit_str(b, m->digest, strlen(m->digest));
    /* what KServe's clients of protocol v1 read */
    cp_buf_adds(b, ",\"name\":");
    cp_emit_str(b, m->id, strlen(m->id));
    cp_buf_adds(b, ",\"ready\":true}");
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

/* The model that the path names; false: the call has its error. Given back by the caller. */
static bool named_model(cp_call *c, cp_served **m)
{
    cp_err err;
    cp_code code = cp_served_get(&c->s->models, c->named, strlen(c->named), m, &err);
    if (code != CP_OK)
        cp_call_error(c, 0, code, &err);
    return code == CP_OK;
}

void cp_handle_model(cp_call *c)
{
    cp_served *m;
    if (!named_model(c, &m))
        return;
    cp_buf b = {0};
    emit_model(m, &b);
    cp_served_put(&c->s->models, m);
    cp_call_json(c, &b);
}

/* ---- the Open Inference Protocol ---- */

void cp_handle_oip_server(cp_call *c)
{
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"name\":\"capstan\",\"version\":");
    cp_emit_str(&b, c->s->version, strlen(c->s->version));
    cp_buf_adds(&b, ",\"extensions\":[]}");
    cp_call_json(c, &b);
}

/* Both keys: texts of the protocol and its clients do not agree on which one tells of readiness. */
static void oip_health(cp_call *c, bool live, bool ready, bool good)
{
    cp_buf b = {0};
    cp_buf_printf(&b, "{\"live\":%s,\"ready\":%s}", live ? "true" : "false",
                  ready ? "true" : "false");
    cp_call_reply(c, good ? 200 : 503, "application/json", &b);
}

void cp_handle_oip_live(cp_call *c)
{
    bool live = is_live(c->s);
    oip_health(c, live, is_ready(c->s), live);
}

void cp_handle_oip_ready(cp_call *c)
{
    bool ready = is_ready(c->s);
    oip_health(c, is_live(c->s), ready, ready);
}

void cp_handle_oip_models(cp_call *c)
{
    cp_served *models[CP_SERVED_MAX];
    int n = cp_served_all(&c->s->models, 1u << CP_MODEL_READY, models);
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"models\":[");
    for (int i = 0; i < n; i++) {
        cp_buf_adds(&b, i > 0 ? "," : "");
        cp_emit_str(&b, models[i]->id, strlen(models[i]->id));
    }
    cp_served_put_all(&c->s->models, models, n);
    cp_buf_adds(&b, "]}");
    cp_call_json(c, &b);
}

void cp_handle_oip_model(cp_call *c)
{
    cp_served *m;
    if (!named_model(c, &m))
        return;
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"name\":");
    cp_emit_str(&b, m->id, strlen(m->id));
    cp_buf_adds(&b, ",\"versions\":[\"" CP_OIP_VERSION "\"],\"platform\":\"capstan\",");
    cp_oip_tensors(&b);
    cp_buf_addc(&b, '}');
    cp_served_put(&c->s->models, m);
    cp_call_json(c, &b);
}

void cp_handle_oip_model_ready(cp_call *c)
{
    cp_served *m;
    if (!named_model(c, &m))
        return;
    bool ready = is_ready(c->s);
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"name\":");
    cp_emit_str(&b, m->id, strlen(m->id));
    cp_buf_printf(&b, ",\"ready\":%s}", ready ? "true" : "false");
    cp_served_put(&c->s->models, m);
    cp_call_reply(c, ready ? 200 : 503, "application/json", &b);
}
