/* This file answers /metrics. What is only known when somebody looks is set here. */
#include "server/handlers.h"

#include "base/log.h"
#include "server/query.h"
#include "server/reply.h"

#include <string.h>

/* A counter that somebody else has counted. */
static void catch_up(cp_metrics *m, cp_metric id, uint64_t now)
{
    cp_metric_add(m, id, (int64_t)now - cp_metric_get(m, id));
}

static void set_process(const cp_server *s)
{
    static const int drain[] = {
        [CP_RUN] = 0, [CP_GRACE] = 1, [CP_REFUSE] = 2, [CP_CUT] = 3, [CP_DRAINED] = 3};
    cp_metric_set(s->metrics, CP_M_CONNECTIONS, cp_http_connections(s->http));
    cp_metric_set(s->metrics, CP_M_BUDGET_BODIES, (int64_t)cp_budget_used(s->budget));
    cp_metric_set(s->metrics, CP_M_BUDGET_LIMIT_BODIES, (int64_t)cp_budget_limit(s->budget));
    catch_up(s->metrics, CP_M_LOG_DROPPED, cp_log_dropped());
    if (s->audit) {
        catch_up(s->metrics, CP_M_AUDIT_WRITTEN, cp_append_lines(s->audit));
        catch_up(s->metrics, CP_M_AUDIT_DROPPED, cp_append_dropped(s->audit));
    }
    cp_metric_set(s->metrics, CP_M_DRAIN_STATE, drain[atomic_load(&s->drain)]);
}

/* 1 for one of its states: what has failed is so whatever else it is. */
static void set_state(cp_metrics *m, cp_model_state state)
{
    bool failed = cp_metric_get(m, CP_M_STATE_FAILED) != 0;
    cp_metric_set(m, CP_M_STATE_LOADING, !failed && state == CP_MODEL_LOADING);
    cp_metric_set(m, CP_M_STATE_READY, !failed && state == CP_MODEL_READY);
    cp_metric_set(m, CP_M_STATE_DRAINING, !failed && state == CP_MODEL_DRAINING);
}

/* References to the models of one state are added to those of others; returns how many there are.
 */
static int add_models(cp_server *s, cp_model_state state, cp_served **models, int n)
{
    cp_served *some[CP_SERVED_MAX];
    int k = cp_served_all(&s->models, 1u << state, some);
    for (int i = 0; i < k; i++) {
        if (n == CP_SERVED_MAX) { /* they were no more than that, but one has changed its state */
            cp_served_put(&s->models, some[i]);
            continue;
        }
        set_state(some[i]->metrics, state);
        models[n++] = some[i];
    }
    return n;
}

/* ---- families that are asked for ---- */

/* NAME, or NAME* for all that begin so. */
static bool matches(const char *name, const char *family)
{
    size_t n = strlen(name);
    return n > 0 && name[n - 1] == '*' ? strncmp(name, family, n - 1) == 0
                                       : strcmp(name, family) == 0;
}

/* The next value of name[] in the query at *at, which moves on; false: there is none. */
static bool next_name(const char **at, char value[CP_QUERY_TEXT])
{
    char name[CP_QUERY_TEXT];
    while (cp_query_next(at, name, value))
        if (strcmp(name, "name[]") == 0)
            return true;
    return false;
}

static bool is_asked_for(void *arg, const char *family)
{
    char name[CP_QUERY_TEXT];
    const char *at = arg;
    bool found = false;
    while (!found && next_name(&at, name))
        found = matches(name, family);
    return found;
}

void cp_handle_metrics(cp_call *c)
{
    cp_server *s = c->s;
    cp_metrics *list[CP_SERVED_MAX + 1];
    cp_served *models[CP_SERVED_MAX];
    char name[CP_QUERY_TEXT];
    const char *query = cp_http_query(c->q), *at = query;
    int n = 0;
    set_process(s);
    cp_trace_collect(s->trace_fd, s->metrics);
    if (s->metrics)
        list[n++] = s->metrics;
    int n_models = add_models(s, CP_MODEL_LOADING, models, 0);
    n_models = add_models(s, CP_MODEL_READY, models, n_models);
    n_models = add_models(s, CP_MODEL_DRAINING, models, n_models);
    for (int i = 0; i < n_models; i++)
        if (models[i]->metrics)
            list[n++] = models[i]->metrics;
    cp_buf b = {0};
    cp_metrics_write(&b, list, n, next_name(&at, name) ? is_asked_for : NULL,
                     (void *)(uintptr_t)query);
    cp_served_put_all(&s->models, models, n_models);
    cp_call_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}
