/* The table of served models: see models.h. */
#include "server/served.h"

#include <stdlib.h>
#include <string.h>

cp_served *cp_served_at(const cp_served_table *t, int i)
{
    return i < atomic_load_explicit(&t->n, memory_order_acquire) ? t->list[i] : NULL;
}

cp_served *cp_served_find(const cp_served_table *t, const char *name, size_t n)
{
    cp_served *m;
    for (int i = 0; (m = cp_served_at(t, i)); i++)
        for (size_t k = 0; k < m->n_ids; k++)
            if (strlen(m->ids[k]) == n && memcmp(m->ids[k], name, n) == 0)
                return m;
    return NULL;
}

static void free_served(cp_served *m)
{
    for (size_t i = 0; i < m->n_ids; i++)
        free(m->ids[i]);
    free(m->ids);
    free(m->digest);
    free(m->quantization);
    free(m->fingerprint);
    free(m);
}

void cp_served_fini(cp_served_table *t)
{
    for (int i = 0; i < atomic_load(&t->n); i++)
        free_served(t->list[i]);
    atomic_store(&t->n, 0);
}

static char *copy(const char *s)
{
    return cp_xstrdup(s ? s : "");
}

cp_code cp_served_add(cp_served_table *t, const cp_server_model *m, const cp_engine_api *e,
                      cp_err *err)
{
    int n = atomic_load(&t->n);
    if (n == CP_SERVED_MAX)
        return cp_fail(err, CP_OVERLOADED, "more than %d models", CP_SERVED_MAX);
    for (size_t i = 0; i < m->n_ids; i++)
        if (cp_served_find(t, m->ids[i], strlen(m->ids[i])))
            return cp_fail(err, CP_INVALID_VALUE, "two models are called '%s'", m->ids[i]);
    cp_engine_limits limits = {0};
    if (m->n_ids == 0 || !e->limits(e->self, m->engine, &limits))
        return cp_fail(err, CP_INTERNAL, "the engine has no model '%s'", m->n_ids ? m->ids[0] : "");
    cp_served *x = cp_xcalloc(1, sizeof(*x));
    *x = (cp_served){.ids = cp_xcalloc(m->n_ids, sizeof(*x->ids)),
                     .n_ids = m->n_ids,
                     .tokenizer = m->tokenizer,
                     .template_ = m->template_,
                     .digest = copy(m->digest),
                     .quantization = copy(m->quantization),
                     .fingerprint = copy(m->fingerprint),
                     .defaults = m->defaults,
                     .limits = limits,
                     .engine = m->engine,
                     .created = m->created,
                     .metrics = m->metrics};
    for (size_t i = 0; i < m->n_ids; i++)
        x->ids[i] = copy(m->ids[i]);
    t->list[n] = x;
    atomic_store_explicit(&t->n, n + 1, memory_order_release);
    return CP_OK;
}
