/*
 * serve: listens first, loads the models on a thread of its own, then serves until a signal. main
 * waits for what the signal thread (signals.h) tells it and closes everything in order; where that
 * takes too long the signal thread ends the process.
 */
#include "app/command.h"
#include "app/compose.h"
#include "app/confine.h"
#include "app/exporter.h"
#include "app/host.h"
#include "app/keys.h"
#include "app/opener.h"
#include "app/reload.h"
#include "app/shares.h"
#include "app/signals.h"
#include "base/append.h"
#include "base/clock.h"
#include "base/energy.h"
#include "base/jobs.h"
#include "base/log.h"
#include "server/listen.h"
#include "server/server.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    JOBS_THREADS = 2,
    DRAIN_POLL_MS = 50,
    ORDERS = 16, /* loads and unloads at once, a thread each */
    ORDERS_END_MS = 1000 /* for loads to come to a stop at which they can end */,
    AUDIT_END_MS = 2000 /* for what waits for --audit-log to be written */
};

typedef struct serving {
    const cp_options *o;
    cp_confine confine;
    cp_listener listener; /* until the server has it */
    cp_key_list keys;
    cp_stack stack;
    cp_jobs *jobs;
    cp_signals *signals;
    cp_child exporter; /* of traces */
    cp_server *server;
    cp_metrics *metrics;
    cp_append *audit;
    cp_energy *energy; /* NULL: no meters can be read */
    cp_app_models *models;
    cp_app_host host;
    cp_reload *reload;
    cp_err load_err; /* written by the loader thread before `loaded` */
    _Atomic bool device_failed;
    _Atomic int loaded; /* 0 loading, 1 ready, -1 failed; release by the loader, acquire by main */
} serving;

/* ---- models ---- */

static void escape_job(void *arg)
{
    cp_confine_try(arg);
}

/* For tests: on a thread that is younger than the walls, and on one that is older. */
static void try_to_escape(const serving *s)
{
    static char job[] = "a job";
    cp_confine_try("the loader");
    (void)cp_jobs_submit(s->jobs, escape_job, job);
}

static void *load_all(void *arg)
{
    serving *s = arg;
    uint64_t *share = cp_xcalloc((size_t)s->o->n_models, sizeof *share);
    int unsaid[CP_DEVICES];
    cp_code rc = cp_app_shares(s->o, &s->stack.devices, share, unsaid, &s->load_err);
    cp_app_models_expect(s->models, unsaid);
    for (int i = 0; i < s->o->n_models && rc == CP_OK; i++) {
        rc = cp_app_models_load(s->models, &s->o->models[i], share[i], true, &s->load_err);
    }
    if (rc == CP_OK) {
        rc = cp_engine_start(s->stack.engine, &s->load_err);
    }
    free(share);
    if (rc == CP_OK) {
        cp_server_ready(s->server);
        char device[64];
        cp_device_words(&s->stack.devices.of[0], device, sizeof device);
        cp_log(CP_LOG_INFO, "ready: %d model%s, %d thread%s, %s", s->o->n_models,
               s->o->n_models == 1 ? "" : "s", s->stack.threads, s->stack.threads == 1 ? "" : "s",
               device);
    }
    if (rc == CP_OK) {
        try_to_escape(s);
    }
    atomic_store_explicit(&s->loaded, rc == CP_OK ? 1 : -1, memory_order_release);
    cp_signals_nudge(s->signals);
    return NULL;
}

/* ---- life ---- */

/* The device has failed: nothing can be served any more, so whoever supervises the process is to
 * start it anew. */
static void end_in_order(void *arg)
{
    serving *s = arg;
    atomic_store(&s->device_failed, true);
    cp_signals_end();
}

/* Wait for the end: returns the exit code. */
static int wait_for_end(serving *s)
{
    bool draining = false, clean = true, reload = false;
    for (;;) {
        unsigned news = cp_signals_wait(s->signals, draining ? DRAIN_POLL_MS : -1);
        int loaded = atomic_load_explicit(&s->loaded, memory_order_acquire);
        if (loaded < 0) {
            return cp_app_fail(&s->load_err);
        }
        if ((news & CP_SIGNAL_END) && !loaded) {
            cp_log(CP_LOG_INFO, "stopped while loading");
            /* no request was taken; loading cannot be stopped */
            cp_signals_leave(s->signals, atomic_load(&s->device_failed));
        }
        if (news & CP_SIGNAL_END) {
            cp_log(CP_LOG_INFO, "draining");
            cp_app_models_end(s->models);
            draining = true;
        }
        if (news & CP_SIGNAL_AGAIN) {
            cp_log(CP_LOG_INFO, "second signal: stopping now");
        }
        if (s->audit && (news & CP_SIGNAL_RELOAD)) { /* it may have been moved away */
            cp_append_reopen(s->audit);
        }
        if (draining && (news & CP_SIGNAL_RELOAD)) {
            cp_log(CP_LOG_WARN, "SIGHUP ignored: the server is shutting down");
        }
        reload = (reload || (news & CP_SIGNAL_RELOAD)) && !draining;
        if (reload && loaded) { /* what is asked for before waits for the models of the start */
            reload = false;
            cp_reload_ask(s->reload);
        }
        if (draining && cp_server_drain_poll(s->server, &clean)) {
            cp_log(CP_LOG_INFO, "stopped%s", clean ? "" : ", some requests were cut off");
            return clean && !atomic_load(&s->device_failed) ? 0 : 1;
        }
    }
}

/* Loads that cannot be stopped (a pull, a file system that hangs) do not keep the process. */
static void end_orders(serving *s, int exit_code)
{
    cp_app_models_end(s->models);
    if (!cp_orders_end(s->host.orders, ORDERS_END_MS) || !cp_reload_end(s->reload, ORDERS_END_MS)) {
        cp_log(CP_LOG_INFO, "stopped beside a load, unload or reload that did not end");
        cp_signals_leave(s->signals, exit_code);
    }
}

static const char *uds_of(const cp_options *o)
{
    return o->uds && *o->uds ? o->uds : NULL;
}

/* What needs files or a port, while there is one thread. A key file may be a pipe, for which a
 * signal does not wait; the path of --uds is removed by who takes signals. */
static cp_code open_outside(serving *s, cp_err *err)
{
    const cp_options *o = s->o;
    cp_code rc = cp_confine_begin(&s->confine, o, err);
    if (rc == CP_OK && o->otlp_endpoint && *o->otlp_endpoint) {
        rc = cp_exporter_start(&s->exporter, o->otlp_endpoint, cp_app_version(), err);
    }
    rc = rc ? rc : cp_app_keys(o, NULL, &s->keys, err);
    cp_signals_hold(); /* every thread inherits that they are blocked */
    s->energy = cp_energy_open(NULL);
    rc = rc ? rc : cp_listen(&s->listener, o->host, (int)o->port, uds_of(o), err);
    return rc ? rc : cp_confine_files(&s->confine, err);
}

/* --audit-log; its buffer holds some thousand lines. */
static cp_code open_audit(serving *s, cp_err *err)
{
    enum { AUDIT_BYTES = 4 << 20 };
    const char *path = s->o->audit_log;
    const cp_append_config cfg = {.path = path,
                                  .bytes = AUDIT_BYTES,
                                  .open = s->confine.opener ? cp_opener_audit : NULL,
                                  .arg = s->confine.opener};
    cp_code rc = path && *path ? cp_append_open(&s->audit, &cfg, err) : CP_OK;
    return rc ? cp_err_prefix(err, "--audit-log") : CP_OK;
}

/* What computes, and its threads; then the last way out is closed. */
static cp_code open_inside(serving *s, cp_err *err)
{
    const cp_options *o = s->o;
    cp_code rc = cp_signals_open(&s->signals, uds_of(o), o->drain_grace + o->drain_timeout, err);
    rc = rc ? rc : cp_stack_open(&s->stack, o, s->confine.opener, err);
    rc = rc ? rc : cp_stack_add_devices(&s->stack, o, err);
    rc = rc ? rc : cp_stack_engine(&s->stack, o, end_in_order, s, err);
    rc = rc ? rc : cp_jobs_open(&s->jobs, JOBS_THREADS, (int)o->max_connections, err);
    rc = rc ? rc : open_audit(s, err);
    return rc ? rc : cp_confine_calls(&s->confine, !cp_devices_have_gpu(&s->stack.devices), err);
}

static cp_code open_server(serving *s, cp_err *err)
{
    const cp_options *o = s->o;
    char info[256];
    cp_snprintf(info, sizeof info, "version=\"%s\",isa=\"%s\"", cp_app_version(),
                cp_backend_level(s->stack.devices.of[0].backend));
    s->metrics = cp_metrics_new(NULL);
    cp_metrics_set_info(s->metrics, CP_M_BUILD_INFO, info);
    cp_confine_measure(&s->confine, s->metrics);
    cp_server_config cfg = {.listener = &s->listener,
                            .keys = s->keys.p,
                            .n_keys = s->keys.n,
                            .cors_origins = o->cors_origin.p,
                            .n_cors_origins = (size_t)o->cors_origin.n,
                            .allowed_hosts = o->allowed_host.p,
                            .n_allowed_hosts = (size_t)o->allowed_host.n,
                            .max_connections = (int)o->max_connections,
                            .engine = cp_engine_front(s->stack.engine),
                            .jobs = s->jobs,
                            .body_bytes = o->body_bytes,
                            .deadline_ms = o->deadline_ms,
                            .drain_grace_ms = o->drain_grace,
                            .drain_timeout_ms = o->drain_timeout,
                            .version = cp_app_version(),
                            .metrics = s->metrics,
                            .audit = s->audit,
                            .energy = s->energy,
                            .trace_fd = s->exporter.pid ? s->exporter.fd : 0};
    cp_code rc = cp_server_open(&s->server, &cfg, err);
    s->listener = (cp_listener){.fd = -1};
    if (rc == CP_OK && s->keys.n == 0 && cp_server_exposed(s->server)) {
        cp_log(
            CP_LOG_WARN,
            "NO KEY IS ASKED FOR: whoever reaches %s can use this server; set --api-key-file, or "
            "--host 127.0.0.1",
            cp_server_url(s->server));
    }
    return rc;
}

/* Until the end, with models that come and go; returns the exit code. */
static int serve(serving *s)
{
    cp_err err;
    pthread_t loader;
    s->models = cp_app_models_new(s->o, &s->stack, s->server);
    s->host = (cp_app_host){.models = s->models, .orders = cp_orders_new(ORDERS)};
    const cp_server_host table = cp_app_host_table(&s->host);
    cp_server_set_host(s->server, &table);
    s->reload = cp_reload_new(s->o, &(cp_reload_parts){.stack = &s->stack,
                                                       .server = s->server,
                                                       .models = s->models,
                                                       .signals = s->signals,
                                                       .metrics = s->metrics});
    cp_signals_serve(s->signals, s->server);
    fprintf(stderr, "listening on %s\n", cp_server_url(s->server));
    if (pthread_create(&loader, NULL, load_all, s) != 0) {
        cp_fail(&err, CP_IO, "cannot start the loader thread");
        return cp_app_fail(&err);
    }
    int rc = wait_for_end(s);
    pthread_join(loader, NULL);
    end_orders(s, rc);
    return rc;
}

/* Whatever there is of it; returns the exit code. */
static int close_all(serving *s, int rc)
{
    if (s->server) {
        cp_signals_serve(s->signals, NULL);
    }
    /* The engine's last words reach their calls while the server still stands; the calls' memory
     * goes with the server, that of the models after both. */
    if (s->stack.engine) {
        cp_engine_stop(s->stack.engine);
    }
    cp_server_close(s->server);
    cp_listener_close(&s->listener);
    cp_jobs_close(s->jobs);
    cp_stack_close(&s->stack);
    cp_app_models_free(s->models);
    if (s->reload) {
        (void)(cp_orders_end(s->host.orders, 0) && cp_reload_end(s->reload, 0));
    }
    cp_orders_free(s->host.orders);
    cp_reload_free(s->reload);
    bool audited = cp_append_close(s->audit, AUDIT_END_MS);
    cp_energy_close(s->energy);
    cp_metrics_free(s->metrics);
    cp_child_stop(&s->exporter, CP_EXPORTER_END_MS);
    if (!audited) { /* its thread may be asking the opener */
        cp_log(CP_LOG_ERROR, "%s takes no more: the last lines are lost", s->o->audit_log);
        cp_signals_leave(s->signals, rc);
    }
    cp_app_keys_free(&s->keys);
    cp_confine_end(&s->confine);
    return cp_signals_close(s->signals) ? 1 : rc;
}

int cp_cmd_serve(const cp_options *o)
{
    serving s = {.o = o, .listener.fd = -1};
    cp_err err = {0};
#ifdef __GLIBC__
    /* A large block is pages of its own and goes back when it is freed; by default the bound grows
     * with the blocks that are freed, up to 32 MiB. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
    bool opened = open_outside(&s, &err) == CP_OK && open_inside(&s, &err) == CP_OK &&
                  open_server(&s, &err) == CP_OK;
    return close_all(&s, opened ? serve(&s) : cp_app_fail(&err));
}
