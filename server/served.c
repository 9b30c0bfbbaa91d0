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

void cp_served_names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

static void free_row(cp_served *m)
{
    cp_served_names_free(m->names, m->n_names);
    free(m->id);
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

static bool has_name(const cp_served *m, const char *name, size_t n)
{
    size_t k = 0;
    while (k < m->n_names && (strlen(m->names[k]) != n || memcmp(m->names[k], name, n) != 0))
        k++;
    return k < m->n_names;
}

/* With the lock. */
static cp_served *find(const cp_served_table *t, const char *name, size_t n)
{
    for (int i = 0; i < t->n; i++) {
        cp_served *m = t->list[i];
        if (!m->hidden && has_name(m, name, n))
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

static char **copy_names(const char *const *names, size_t n)
{
    char **all = cp_xcalloc(n, sizeof(*all));
    for (size_t i = 0; i < n; i++)
        all[i] = copy(names[i]);
    return all;
}

static cp_served *new_row(const char *const *ids, size_t n_ids, bool hidden)
{
    cp_served *m = cp_xcalloc(1, sizeof(*m));
    m->id = copy(ids[0]);
    m->names = copy_names(ids, n_ids);
    m->n_names = n_ids;
    m->hidden = hidden;
    return m;
}

static cp_code reserve(cp_served_table *t, const char *const *ids, size_t n_ids, bool hidden,
                       cp_served **out, cp_err *err)
{
    cp_code code = CP_OK;
    CP_ASSERT(n_ids > 0);
    pthread_mutex_lock(&t->lock);
    if (t->n == CP_SERVED_MAX)
        code = cp_fail(err, CP_OVERLOADED, "more than %d models", CP_SERVED_MAX);
    for (size_t i = 0; i < n_ids && code == CP_OK && !hidden; i++)
        if (find(t, ids[i], strlen(ids[i])))
            code = cp_fail_param(err, CP_INVALID_VALUE, "alias", "two models are called '%.200s'",
                                 ids[i]);
    if (code == CP_OK)
        *out = t->list[t->n++] = new_row(ids, n_ids, hidden);
    pthread_mutex_unlock(&t->lock);
    return code;
}

cp_code cp_served_reserve(cp_served_table *t, const char *const *ids, size_t n_ids, cp_served **out,
                          cp_err *err)
{
    return reserve(t, ids, n_ids, false, out, err);
}

cp_code cp_served_shadow(cp_served_table *t, const char *const *ids, size_t n_ids, cp_served **out,
                         cp_err *err)
{
    return reserve(t, ids, n_ids, true, out, err);
}

/* ---- moves ---- */

static bool is_moved(const cp_server_move *moves, size_t n, const cp_served *m)
{
    size_t i = 0;
    while (i < n && moves[i].row != m)
        i++;
    return i < n;
}

static bool claims(const cp_server_move *v, const char *name)
{
    size_t k = 0;
    while (k < v->n_ids && strcmp(v->ids[k], name) != 0)
        k++;
    return !v->goes && k < v->n_ids;
}

/* Does somebody of the moves want a name of m? */
static bool is_claimed(const cp_server_move *moves, size_t n, const cp_served *m)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < m->n_names; k++)
            if (claims(&moves[i], m->names[k]))
                return true;
    }
    return false;
}

/* With the lock. A model that goes by itself gives its names up to a move; one that stays does not.
 */
static cp_code check_moves(const cp_served_table *t, const cp_server_move *moves, size_t n,
                           cp_err *err)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < moves[i].n_ids && !moves[i].goes; k++) {
            const char *name = moves[i].ids[k];
            for (size_t j = 0; j < i; j++)
                if (claims(&moves[j], name))
                    return cp_fail(err, CP_USAGE, "two models are called '%.200s'", name);
            const cp_served *m = find(t, name, strlen(name));
            if (m && m->state != CP_MODEL_DRAINING && !is_moved(moves, n, m))
                return cp_fail(err, CP_USAGE,
                               "a model that was loaded at run time is called '%.200s'", name);
        }
    }
    return CP_OK;
}

static void name_anew(cp_served *m, const cp_server_move *v)
{
    cp_served_names_free(m->names, m->n_names);
    m->names = copy_names(v->ids, v->n_ids);
    m->n_names = v->n_ids;
}

static void move_one(cp_served *m, const cp_server_move *v)
{
    if (v->goes) {
        m->state = CP_MODEL_DRAINING;
        return;
    }
    CP_ASSERT(strcmp(m->id, v->ids[0]) == 0 && (m->staged || m->state != CP_MODEL_LOADING));
    name_anew(m, v);
    m->hidden = false;
    m->state = m->staged ? CP_MODEL_READY : m->state;
    m->staged = false;
    if (v->defaults)
        m->defaults = *v->defaults;
}

/* What the moves bring or keep stands first, in their order. */
static void order(cp_served_table *t, const cp_server_move *moves, size_t n)
{
    cp_served *list[CP_SERVED_MAX];
    int at = 0;
    for (size_t i = 0; i < n; i++)
        if (!moves[i].goes)
            list[at++] = moves[i].row;
    for (int i = 0, first = at; i < t->n; i++) {
        int k = 0;
        while (k < first && list[k] != t->list[i])
            k++;
        if (k == first)
            list[at++] = t->list[i];
    }
    CP_ASSERT(at == t->n);
    memcpy(t->list, list, sizeof(*list) * (size_t)at);
}

cp_code cp_served_move(cp_served_table *t, const cp_server_move *moves, size_t n, bool dry,
                       cp_err *err)
{
    pthread_mutex_lock(&t->lock);
    cp_code code = check_moves(t, moves, n, err);
    if (code == CP_OK && !dry) {
        for (int i = 0; i < t->n; i++) {
            cp_served *m = t->list[i];
            bool gone = m->state == CP_MODEL_DRAINING;
            for (size_t k = 0; k < n; k++)
                gone = gone || (moves[k].row == m && moves[k].goes);
            m->hidden = m->hidden || (gone && is_claimed(moves, n, m));
        }
        for (size_t i = 0; i < n; i++)
            move_one(moves[i].row, &moves[i]);
        order(t, moves, n);
    }
    pthread_mutex_unlock(&t->lock);
    return code;
}

void cp_server_count_model(cp_served *x, cp_metrics *metrics)
{
    if (x)
        atomic_store(&x->metrics, metrics);
}

/* The weights, as labels of capstan_model_info. */
static void set_info(cp_served *m)
{
    cp_buf b = {0};
    cp_metrics_add_label(&b, "digest", m->digest);
    cp_metrics_add_label(&b, "quantization", m->quantization);
    cp_metrics_add_label(&b, "fingerprint", m->fingerprint);
    if (!b.failed)
        cp_metrics_set_info(m->metrics, CP_M_MODEL_INFO, b.p);
    cp_buf_fini(&b);
}

cp_code cp_served_publish(cp_served_table *t, cp_served *m, const cp_server_model *cfg,
                          const cp_engine_api *e, cp_err *err)
{
    cp_engine_limits limits = {0};
    if (!e->limits(e->self, cfg->engine, &limits))
        return cp_fail(err, CP_INTERNAL, "the engine has no model '%s'", m->id);
    m->tokenizer = cfg->tokenizer;
    m->templates = cfg->templates;
    m->ref = copy(cfg->ref);
    m->kv_bytes = cfg->kv_bytes;
    m->digest = copy(cfg->digest);
    m->quantization = copy(cfg->quantization);
    m->fingerprint = copy(cfg->fingerprint);
    m->limits = limits;
    m->engine = cfg->engine;
    m->created = cfg->created;
    if (cfg->metrics)
        cp_server_count_model(m, cfg->metrics);
    set_info(m);
    pthread_mutex_lock(&t->lock);
    CP_ASSERT(m->state == CP_MODEL_LOADING && !m->staged);
    m->defaults = cfg->defaults;
    m->staged = m->hidden;
    m->state = m->hidden ? CP_MODEL_LOADING : CP_MODEL_READY;
    pthread_mutex_unlock(&t->lock);
    return CP_OK;
}

void cp_served_unload(cp_served_table *t, cp_served *m, int64_t end_ns)
{
    pthread_mutex_lock(&t->lock);
    if (m->state != CP_MODEL_DRAINING || end_ns != 0)
        m->end_ns = end_ns; /* an end that somebody has set since stays */
    m->state = CP_MODEL_DRAINING;
    pthread_mutex_unlock(&t->lock);
}

void cp_served_hasten(cp_served_table *t, const char *name, int64_t end_ns)
{
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < t->n; i++) {
        cp_served *m = t->list[i];
        if (m->state == CP_MODEL_DRAINING && has_name(m, name, strlen(name)) &&
            (m->end_ns == 0 || m->end_ns > end_ns))
            m->end_ns = end_ns;
    }
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
        if (!(states >> t->list[i]->state & 1) ||
            (t->list[i]->hidden && !(states & CP_SERVED_HIDDEN)))
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

void cp_served_defaults(cp_served_table *t, const cp_served *m, cp_sampling_defaults *out)
{
    pthread_mutex_lock(&t->lock);
    *out = m->defaults;
    pthread_mutex_unlock(&t->lock);
}

char **cp_served_names(cp_served_table *t, const cp_served *m, size_t *n)
{
    pthread_mutex_lock(&t->lock);
    char **names = copy_names((const char *const *)m->names, m->n_names);
    *n = m->n_names;
    pthread_mutex_unlock(&t->lock);
    return names;
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
