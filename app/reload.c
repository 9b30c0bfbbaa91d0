/*
 * This file reloads: see reload.h. All that can go wrong (a file, a key, a model that does not
 * load) goes wrong before the first change; what comes after cannot fail.
 */
#include "app/reload.h"

#include "app/keys.h"
#include "app/shares.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

enum { ORDERS = 1 + 64 /* the reload, and models that it drains */ };

struct cp_reload {
    const cp_options *first;
    cp_options *owned; /* of the last reload; NULL: the first ones count */
    cp_reload_parts parts;
    bool locked; /* keys are asked for */
    cp_orders *orders;
    pthread_mutex_t lock; /* guards what follows */
    bool running, again;
};

/* What one reload has read. */
typedef struct news {
    cp_options *o;
    cp_key_list keys;
    uint64_t *share;
    char fixed[256]; /* names of options that have changed and cannot, with commas */
} news;

cp_reload *cp_reload_new(const cp_options *first, const cp_reload_parts *parts)
{
    cp_reload *r = cp_xcalloc(1, sizeof *r);
    r->first = first;
    r->parts = *parts;
    r->locked = first->api_key.n > 0 || (first->api_key_file && *first->api_key_file);
    r->orders = cp_orders_new(ORDERS);
    pthread_mutex_init(&r->lock, NULL);
    cp_metric_set(parts->metrics, CP_M_CONFIG_RELOAD_SUCCESS, 1);
    cp_metric_set(parts->metrics, CP_M_CONFIG_RELOAD_TIME, cp_wall_sec());
    return r;
}

/* ---- reading ---- */

/* What cannot change stays, and is named. */
static void keep_fixed(const cp_reload *r, news *n)
{
    size_t at = 0;
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        cp_option id = (cp_option)i;
        if (cp_option_reloadable(id, CP_CMD_SERVE) != CP_RELOAD_false ||
            cp_option_same(n->o, r->first, id)) {
            continue;
        }
        cp_option_keep(n->o, id, r->first);
        at += cp_snprintf(n->fixed + at, sizeof n->fixed - at, "%s%s", at ? ", " : "",
                          cp_option_name(id));
        at = at < sizeof n->fixed ? at : sizeof n->fixed - 1;
    }
}

static cp_code read_options(const cp_reload *r, news *n, cp_err *err)
{
    cp_buf text = {0};
    cp_code rc = CP_OK;
    if (r->first->config && *r->first->config) {
        rc = cp_opener_read(r->parts.stack->opener, CP_FILE_CONFIG, r->first->config, &text, err);
    }
    rc = rc ? rc : cp_options_again(r->first, text.p ? text.p : "", text.n, &n->o, err);
    cp_buf_fini(&text);
    return rc;
}

/* A server that asks for keys does not open itself because a file was empty for a moment. */
static cp_code check_keys(const cp_reload *r, const news *n, cp_err *err)
{
    if (n->keys.n > 0 || !r->locked) {
        return CP_OK;
    }
    return cp_fail(err, CP_USAGE,
                   "no key is left; a server that asks for keys is opened by a restart without "
                   "api_key and api_key_file");
}

static cp_code read_all(const cp_reload *r, news *n, cp_err *err)
{
    int unsaid[CP_DEVICES];
    cp_code rc = read_options(r, n, err);
    rc = rc ? rc : cp_app_keys(n->o, r->parts.stack->opener, &n->keys, err);
    rc = rc ? rc : check_keys(r, n, err);
    if (rc) {
        return rc;
    }
    keep_fixed(r, n);
    n->share = cp_xcalloc((size_t)n->o->n_models, sizeof *n->share);
    return cp_app_shares(n->o, &r->parts.stack->devices, n->share, unsaid, err);
}

/* ---- changing ---- */

static void change_rules(cp_reload *r, const news *n)
{
    const cp_options *o = n->o;
    const cp_server_config cfg = {.keys = n->keys.p,
                                  .n_keys = n->keys.n,
                                  .cors_origins = o->cors_origin.p,
                                  .n_cors_origins = (size_t)o->cors_origin.n,
                                  .allowed_hosts = o->allowed_host.p,
                                  .n_allowed_hosts = (size_t)o->allowed_host.n,
                                  .body_bytes = o->body_bytes,
                                  .deadline_ms = o->deadline_ms,
                                  .drain_grace_ms = o->drain_grace,
                                  .drain_timeout_ms = o->drain_timeout};
    cp_server_change(r->parts.server, &cfg);
    cp_signals_drain(r->parts.signals, o->drain_grace + o->drain_timeout);
    cp_engine_set_queue(r->parts.stack->engine, (int)o->max_queue, (int64_t)o->max_queue_tokens);
    r->locked = r->locked || n->keys.n > 0;
}

static void say(const news *n, const cp_app_changes *c)
{
    if (*n->fixed) {
        cp_log(CP_LOG_WARN, "reload: %s changed, which counts after a restart only", n->fixed);
    }
    cp_log(CP_LOG_INFO,
           "reloaded; models: %d new, %d loaded anew, %d with other names or sampling, %d gone",
           c->fresh, c->anew, c->touched, c->gone);
}

static void reload(cp_reload *r)
{
    news n = {0};
    cp_err err = {0};
    cp_app_changes changes;
    cp_options *before = r->owned;
    cp_code rc = read_all(r, &n, &err);
    rc = rc ? rc : cp_app_models_reload(r->parts.models, n.o, n.share, r->orders, &changes, &err);
    if (rc == CP_OK) {
        change_rules(r, &n);
        r->owned = n.o;
        say(&n, &changes); /* in the words and at the level of before */
        cp_log_setup((cp_log_level)n.o->log_level, n.o->log_format == CP_LOG_FORMAT_JSON);
        cp_metric_set(r->parts.metrics, CP_M_CONFIG_RELOAD_TIME, cp_wall_sec());
    } else {
        cp_printable(err.msg); /* it may quote a file */
        cp_log(CP_LOG_ERROR, "reload: nothing changed: %s", err.msg);
    }
    cp_metric_set(r->parts.metrics, CP_M_CONFIG_RELOAD_SUCCESS, rc == CP_OK);
    cp_options_free(rc ? n.o : before);
    cp_app_keys_free(&n.keys);
    free(n.share);
}

/* ---- when ---- */

/* True: one more was asked for meanwhile. */
static bool goes_on(cp_reload *r)
{
    pthread_mutex_lock(&r->lock);
    bool more = r->again;
    r->again = false;
    r->running = more;
    pthread_mutex_unlock(&r->lock);
    return more;
}

static void run(void *arg)
{
    cp_reload *r = arg;
    do {
        reload(r);
    } while (goes_on(r));
}

void cp_reload_ask(cp_reload *r)
{
    pthread_mutex_lock(&r->lock);
    bool begin = !r->running;
    r->again = r->running;
    r->running = true;
    pthread_mutex_unlock(&r->lock);
    if (begin && !cp_orders_give(r->orders, run, r)) {
        goes_on(r);
        cp_log(CP_LOG_WARN, "SIGHUP ignored: the server is shutting down");
    }
}

bool cp_reload_end(cp_reload *r, int ms)
{
    pthread_mutex_lock(&r->lock);
    r->again = false;
    pthread_mutex_unlock(&r->lock);
    return cp_orders_end(r->orders, ms);
}

void cp_reload_free(cp_reload *r)
{
    if (!r) {
        return;
    }
    cp_orders_free(r->orders);
    pthread_mutex_destroy(&r->lock);
    cp_options_free(r->owned);
    free(r);
}
