/*
 * This file keeps the table of served models: see served.h. It has one lock, which a request takes
 * once or twice for a few comparisons. A row does not move while somebody holds it.
 */
#include "server/served.h"

#include <stdlib.h>
#include <string.h>

void cp_served_init(cp_served_table *t)
{
    *t = (cp_served_table){0};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->put, NULL);
}

static void free_row(cp_served *m)
{
    for (size_t i = 0; i < m->n_ids; i++)
        free(m->ids[i]);
    free(m->ids);
    free(m->ref);
    free(m->digest);
    free(m->quantization);
    free(m->fingerprint);
    free(m);
}

void cp_served_fini(cp_served_table *t)
{
    for (int i = 0; i < t->n; i++)
        free_row(t->list[i]);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->put);
}

/* With the lock. */
static cp_served *find(const cp_served_table *t, const char *name, size_t n)
{
    for (int i = 0; i < t->n; i++) {
        cp_served *m = t->list[i];
        for (size_t k = 0; k < m->n_ids; k++)
            if (strlen(m->ids[k]) == n && memcmp(m->ids[k], name, n) == 0)
                return m;
    }
    return NULL;
}

static cp_served *first(const cp_served_table *t, cp_model_state state)
{
    for (int i = 0; i < t->n; i++)
        if (t->list[i]->state == state)
            return t->list[i];
    return NULL;
}

/* ---- coming and going ---- */

static char *copy(const char *s)
{
    return cp_xstrdup(s ? s : "");
}

static cp_served *new_row(const char *const *ids, size_t n_ids)
{
    cp_served *m = cp_xcalloc(1, sizeof(*m));
    m->ids = cp_xcalloc(n_ids, sizeof(*m->ids));
    m->n_ids = n_ids;
    for (size_t i = 0; i < n_ids; i++)
        m->ids[i] = copy(ids[i]);
    return m;
}

cp_code cp_served_reserve(cp_served_table *t, const char *const *ids, size_t n_ids, cp_served **out,
                          cp_err *err)
{
    cp_code code = CP_OK;
    CP_ASSERT(n_ids > 0);
    pthread_mutex_lock(&t->lock);
    if (t->n == CP_SERVED_MAX)
        code = cp_fail(err, CP_OVERLOADED, "more than %d models", CP_SERVED_MAX);
    for (size_t i = 0; i < n_ids && code == CP_OK; i++)
        if (find(t, ids[i], strlen(ids[i])))
            code = cp_fail_param(err, CP_INVALID_VALUE, "alias", "two models are called '%.200s'",
                                 ids[i]);
    if (code == CP_OK)
        *out = t->list[t->n++] = new_row(ids, n_ids);
    pthread_mutex_unlock(&t->lock);
    return code;
}

cp_code cp_served_publish(cp_served_table *t, cp_served *m, const cp_server_model *cfg,
                          const cp_engine_api *e, cp_err *err)
{
    cp_engine_limits limits = {0};
    if (!e->limits(e->self, cfg->engine, &limits))
        return cp_fail(err, CP_INTERNAL, "the engine has no model '%s'", m->ids[0]);
    m->tokenizer = cfg->tokenizer;
    m->templates = cfg->templates;
    m->ref = copy(cfg->ref);
    m->kv_bytes = cfg->kv_bytes;
    m->digest = copy(cfg->digest);
    m->quantization = copy(cfg->quantization);
    m->fingerprint = copy(cfg->fingerprint);
    m->defaults = cfg->defaults;
    m->limits = limits;
    m->engine = cfg->engine;
    m->created = cfg->created;
    m->metrics = cfg->metrics;
    pthread_mutex_lock(&t->lock);
    CP_ASSERT(m->state == CP_MODEL_LOADING);
    m->state = CP_MODEL_READY;
    pthread_mutex_unlock(&t->lock);
    return CP_OK;
}

void cp_served_unload(cp_served_table *t, cp_served *m, int64_t end_ns)
{
    pthread_mutex_lock(&t->lock);
    m->state = CP_MODEL_DRAINING;
    m->end_ns = end_ns;
    pthread_mutex_unlock(&t->lock);
}

void cp_served_hasten(cp_served_table *t, const char *name, int64_t end_ns)
{
    pthread_mutex_lock(&t->lock);
    cp_served *m = find(t, name, strlen(name));
    if (m && m->state == CP_MODEL_DRAINING && (m->end_ns == 0 || m->end_ns > end_ns))
        m->end_ns = end_ns;
    pthread_mutex_unlock(&t->lock);
}

void cp_served_phase(cp_served *m, const char *phase, uint64_t done, uint64_t total, uint64_t rate)
{
    atomic_store_explicit(&m->phase, phase, memory_order_relaxed);
    atomic_store_explicit(&m->load_done, done, memory_order_relaxed);
    atomic_store_explicit(&m->load_total, total, memory_order_relaxed);
    atomic_store_explicit(&m->load_rate, rate, memory_order_relaxed);
}

cp_model_state cp_served_state(cp_served_table *t, const cp_served *m)
{
    pthread_mutex_lock(&t->lock);
    cp_model_state state = m->state;
    pthread_mutex_unlock(&t->lock);
    return state;
}

void cp_served_forget(cp_served_table *t, cp_served *m)
{
    pthread_mutex_lock(&t->lock);
    CP_ASSERT(m->state != CP_MODEL_READY && "served-3");
    while (m->refs > 0)
        pthread_cond_wait(&t->put, &t->lock);
    int i = 0;
    while (t->list[i] != m)
        i++;
    memmove(t->list + i, t->list + i + 1, sizeof(cp_served *) * (size_t)(t->n - i - 1));
    t->n--;
    pthread_mutex_unlock(&t->lock);
    free_row(m);
}

/* ---- references ---- */

/* With the lock: why `name` (NULL: any) is answered by no model; m: the row of that name. */
static cp_code refuse(const cp_served_table *t, const char *name, const cp_served *m, cp_err *err)
{
    if (m && m->state == CP_MODEL_DRAINING)
        return cp_fail_param(err, CP_MODEL_NOT_FOUND, "model",
                             "the model '%.200s' is being unloaded; GET /v1/models lists what does "
                             "not go",
                             name);
    if (m || (!name && first(t, CP_MODEL_LOADING)))
        return cp_fail(err, CP_LOADING, "the model is still loading");
    if (!name)
        return cp_fail_param(err, CP_MODEL_NOT_FOUND, "model", "no model is loaded");
    return cp_fail_param(err, CP_MODEL_NOT_FOUND, "model",
                         "the model '%.200s' does not exist; GET /v1/models lists what does", name);
}

cp_code cp_served_get(cp_served_table *t, const char *name, size_t n, cp_served **out, cp_err *err)
{
    cp_code code = CP_OK;
    pthread_mutex_lock(&t->lock);
    cp_served *m = name ? find(t, name, n) : first(t, CP_MODEL_READY);
    if (m && m->state == CP_MODEL_READY) {
        m->refs++;
        *out = m;
    } else {
        code = refuse(t, name, m, err);
    }
    pthread_mutex_unlock(&t->lock);
    return code;
}

/* With the lock. */
static void put(cp_served_table *t, cp_served *m)
{
    CP_ASSERT(m->refs > 0 && "served-2");
    if (--m->refs == 0)
        pthread_cond_broadcast(&t->put);
}

void cp_served_put(cp_served_table *t, cp_served *m)
{
    if (m)
        cp_served_put_all(t, &m, 1);
}

int cp_served_all(cp_served_table *t, unsigned states, cp_served *list[CP_SERVED_MAX])
{
    int n = 0;
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < t->n; i++) {
        if (!(states >> t->list[i]->state & 1))
            continue;
        t->list[i]->refs++;
        list[n++] = t->list[i];
    }
    pthread_mutex_unlock(&t->lock);
    return n;
}

void cp_served_put_all(cp_served_table *t, cp_served *const *list, int n)
{
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < n; i++)
        put(t, list[i]);
    pthread_mutex_unlock(&t->lock);
}

bool cp_served_is_over(cp_served_table *t, const cp_served *m, int64_t now_ns)
{
    pthread_mutex_lock(&t->lock);
    bool over = m->state == CP_MODEL_DRAINING && m->end_ns != 0 && now_ns >= m->end_ns;
    pthread_mutex_unlock(&t->lock);
    return over;
}

bool cp_served_any(cp_served_table *t)
{
    pthread_mutex_lock(&t->lock);
    bool any = first(t, CP_MODEL_READY) != NULL;
    pthread_mutex_unlock(&t->lock);
    return any;
}
