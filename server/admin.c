/* This file shows the table of models to who administers it: see admin.h. */
#include "server/admin.h"

#include "server/emit.h"
#include "server/handlers.h"
#include "server/reply.h"

#include <string.h>

static void emit_text(cp_buf *b, const char *key, const char *text)
{
    cp_buf_printf(b, ",\"%s\":", key);
    cp_emit_str(b, text, strlen(text));
}

/* How far its load is; a phase that counts no bytes has none. */
static void emit_load(const cp_served *m, cp_buf *b)
{
    const char *phase = atomic_load_explicit(&m->phase, memory_order_relaxed);
    emit_text(b, "phase", phase ? phase : "waiting");
    cp_buf_printf(b, ",\"bytes_done\":%llu,\"bytes_total\":%llu,\"bytes_per_second\":%llu",
                  (unsigned long long)atomic_load_explicit(&m->load_done, memory_order_relaxed),
                  (unsigned long long)atomic_load_explicit(&m->load_total, memory_order_relaxed),
                  (unsigned long long)atomic_load_explicit(&m->load_rate, memory_order_relaxed));
}

/* What is known of it once it has been there. */
static void emit_facts(const cp_served *m, cp_buf *b)
{
    emit_text(b, "ref", m->ref);
    emit_text(b, "quantization", m->quantization);
    emit_text(b, "digest", m->digest);
    cp_buf_printf(b, ",\"created\":%lld,\"max_model_len\":%d,\"kv_bytes\":%llu",
                  (long long)m->created, m->limits.ctx, (unsigned long long)m->kv_bytes);
}

static void emit_row(cp_served_table *t, const cp_served *m, cp_buf *b)
{
    static const char *const words[] = {[CP_MODEL_LOADING] = "loading",
                                        [CP_MODEL_READY] = "ready",
                                        [CP_MODEL_DRAINING] = "draining",
                                        [CP_MODEL_GONE] = "gone"};
    cp_model_state state = cp_served_state(t, m);
    cp_buf_adds(b, "{\"id\":");
    cp_emit_str(b, m->id, strlen(m->id));
    cp_buf_adds(b, ",\"object\":\"model\",\"aliases\":[");
    size_t n;
    char **names = cp_served_names(t, m, &n);
    for (size_t i = 0; i < n; i++) {
        cp_buf_adds(b, i ? "," : "");
        cp_emit_str(b, names[i], strlen(names[i]));
    }
    cp_served_names_free(names, n);
    cp_buf_addc(b, ']');
    emit_text(b, "state", words[state]);
    if (state == CP_MODEL_LOADING)
        emit_load(m, b);
    else if (m->digest) /* it was published before it was drained */
        emit_facts(m, b);
    cp_buf_addc(b, '}');
}

void cp_handle_admin_models(cp_call *c)
{
    static const unsigned all =
        1u << CP_MODEL_LOADING | 1u << CP_MODEL_READY | 1u << CP_MODEL_DRAINING | CP_SERVED_HIDDEN;
    cp_served_table *t = &c->s->models;
    cp_served *models[CP_SERVED_MAX];
    int n = cp_served_all(t, all, models);
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < n; i++) {
        cp_buf_adds(&b, i ? "," : "");
        emit_row(t, models[i], &b);
    }
    cp_served_put_all(t, models, n);
    cp_buf_adds(&b, "]}");
    cp_call_json(c, &b);
}

bool cp_admin_emit(cp_server *s, const char *name, cp_buf *out)
{
    cp_served *m;
    cp_err err;
    if (cp_served_get(&s->models, name, strlen(name), &m, &err) != CP_OK)
        return false;
    emit_row(&s->models, m, out);
    cp_served_put(&s->models, m);
    return true;
}

/* ---- the doors ---- */

static cp_code check_drain(const cp_server *s, cp_err *err)
{
    if (atomic_load(&s->drain) == CP_RUN)
        return CP_OK;
    return cp_fail(err, CP_OVERLOADED, "the server is shutting down");
}

cp_code cp_admin_load(cp_server *s, const cp_model_options *mo, cp_err *err)
{
    cp_code code = check_drain(s, err);
    return code ? code : s->host.load(s->host.self, mo, err);
}

cp_code cp_admin_unload(cp_server *s, const char *name, int64_t drain_ms, cp_err *err)
{
    return s->host.unload(s->host.self, name, drain_ms, err);
}
