/*
 * serve: listens first, loads the models on a thread of its own, then serves until a signal. main
 * waits for what the signal thread (signals.h) tells it and closes everything in order; where that
 * takes too long the signal thread ends the process.
 */
#include "app/command.h"
#include "app/compose.h"
#include "app/exporter.h"
#include "app/host.h"
#include "app/signals.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/jobs.h"
#include "base/log.h"
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
    ORDERS = 16,         /* loads and unloads at once, a thread each */
    ORDERS_END_MS = 1000 /* for loads to come to a stop at which they can end */
};

typedef struct serving {
    const cp_options *o;
    cp_stack stack;
    cp_jobs *jobs;
    cp_signals *signals;
    cp_child exporter; /* of traces */
    cp_server *server;
    cp_metrics *metrics;
    cp_app_models *models;
    cp_app_host host;
    cp_err load_err; /* written by the loader thread before `loaded` */
    _Atomic bool device_failed;
    _Atomic int loaded; /* 0 loading, 1 ready, -1 failed; release by the loader, acquire by main */
} serving;

/* ---- keys ---- */

typedef struct key_list {
    cp_api_key *p;
    size_t n;
} key_list;

static cp_code add_key(key_list *k, const char *line, cp_err *err)
{
    k->p = cp_xrealloc(k->p, (k->n + 1) * sizeof *k->p);
    return cp_api_key_parse(line, &k->p[k->n++], err);
}

static cp_code read_keys(const cp_options *o, key_list *k, cp_err *err)
{
    cp_code rc = CP_OK;
    for (int i = 0; i < o->api_key.n && rc == CP_OK; i++) {
        rc = add_key(k, o->api_key.p[i], err);
    }
    if (rc || !o->api_key_file || !*o->api_key_file) {
        return rc;
    }
    cp_buf b = {0};
    if ((rc = cp_file_read(o->api_key_file, 1 << 20, &b, err))) {
        return rc;
    }
    int number = 0;
    for (char *line = b.p, *next; line && *line && rc == CP_OK; line = next) {
        number++;
        size_t n = strcspn(line, "\r\n");
        next = line + n + (line[n] != 0);
        line[n] = 0;
        line += strspn(line, " \t");
        if (*line && *line != '#' && (rc = add_key(k, line, err))) {
            cp_err_prefix(err, "%s:%d", o->api_key_file, number);
        }
    }
    cp_buf_fini(&b);
    return rc;
}

/* ---- models ---- */

/* Every [[model]] kv_bytes first, the rest of the total in equal parts. One model alone, for which
 * nothing is said, gets what the backend can give beside it: 0. So does each of several on a GPU,
 * beside its equal part of what the others are to have, weights included. */
static cp_code share_memory(const serving *s, uint64_t *share, cp_err *err)
{
    const cp_options *o = s->o;
    uint64_t total = o->kv_bytes, fixed = 0;
    char how[128] = "";
    int others = 0;
    for (int i = 0; i < o->n_models; i++) {
        share[i] = o->models[i].kv_bytes;
        fixed += share[i];
        others += share[i] == 0;
    }
    if (total == 0 && (o->n_models == 1 || !cp_stack_on_cpu(&s->stack))) {
        cp_app_models_expect(s->models, others);
        return CP_OK;
    }
    if (total == 0) {
        cp_code rc = cp_backend_kv_bytes(s->stack.backend, 0, &total, how, sizeof how, err);
        if (rc) {
            return rc;
        }
    }
    if (fixed > total || (others && fixed == total)) {
        return cp_fail(
            err, CP_NO_MEMORY,
            "the models' kv_bytes take %.1f MiB of --kv-bytes %.1f MiB%s%s, %d models are left",
            (double)fixed / 1048576.0, (double)total / 1048576.0, *how ? ", which is " : "", how,
            others);
    }
    for (int i = 0; i < o->n_models; i++) {
        share[i] = share[i] ? share[i] : (total - fixed) / (uint64_t)others;
    }
    return CP_OK;
}

static void *load_all(void *arg)
{
    serving *s = arg;
    uint64_t *share = cp_xcalloc((size_t)s->o->n_models, sizeof *share);
    cp_code rc = share_memory(s, share, &s->load_err);
    for (int i = 0; i < s->o->n_models && rc == CP_OK; i++) {
        rc = cp_app_models_load(s->models, &s->o->models[i], share[i], &s->load_err);
    }
    if (rc == CP_OK) {
        rc = cp_engine_start(s->stack.engine, &s->load_err);
    }
    free(share);
    if (rc == CP_OK) {
        cp_server_ready(s->server);
        char device[64];
        cp_stack_words(&s->stack, device, sizeof device);
        cp_log(CP_LOG_INFO, "ready: %d model%s, %d thread%s, %s", s->o->n_models,
               s->o->n_models == 1 ? "" : "s", s->stack.threads, s->stack.threads == 1 ? "" : "s",
               device);
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
    bool draining = false, clean = true;
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
        if (news & CP_SIGNAL_RELOAD) {
            cp_log(CP_LOG_WARN, "SIGHUP ignored: options are read at start only");
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
    if (!cp_orders_end(s->host.orders, ORDERS_END_MS)) {
        cp_log(CP_LOG_INFO, "stopped beside a load or unload that did not end");
        cp_signals_leave(s->signals, exit_code);
    }
}

static cp_code open_server(serving *s, cp_err *err)
{
    const cp_options *o = s->o;
    key_list keys = {0};
    cp_code rc = read_keys(o, &keys, err);
    char info[256];
    cp_snprintf(info, sizeof info, "version=\"%s\",isa=\"%s\"", cp_app_version(),
                cp_backend_level(s->stack.backend));
    s->metrics = cp_metrics_new(NULL);
    cp_metrics_set_info(s->metrics, info);
    if (rc == CP_OK) {
        cp_server_config cfg = {.host = o->host,
                                .port = (int)o->port,
                                .uds = o->uds && *o->uds ? o->uds : NULL,
                                .keys = keys.p,
                                .n_keys = keys.n,
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
                                .trace_fd = s->exporter.pid ? s->exporter.fd : 0};
        rc = cp_server_open(&s->server, &cfg, err);
    }
    if (rc == CP_OK && keys.n == 0 && cp_server_exposed(s->server)) {
        cp_log(
            CP_LOG_WARN,
            "NO KEY IS ASKED FOR: whoever reaches %s can use this server; set --api-key-file, or "
            "--host 127.0.0.1",
            cp_server_url(s->server));
    }
    free(keys.p);
    return rc;
}

int cp_cmd_serve(const cp_options *o)
{
    serving s = {.o = o};
    cp_err err = {0};
    pthread_t loader;
    int rc;
#ifdef __GLIBC__
    /* A large block is pages of its own and goes back when it is freed; by default the bound grows
     * with the blocks that are freed, up to 32 MiB. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
    /* children before threads; then signals: every other thread inherits that they are blocked */
    if ((o->otlp_endpoint && *o->otlp_endpoint &&
         cp_exporter_start(&s.exporter, o->otlp_endpoint, cp_app_version(), &err)) ||
        cp_signals_open(&s.signals, o->uds && *o->uds ? o->uds : NULL,
                        o->drain_grace + o->drain_timeout, &err) ||
        cp_stack_open(&s.stack, o, &err) || cp_stack_engine(&s.stack, o, end_in_order, &s, &err) ||
        cp_jobs_open(&s.jobs, JOBS_THREADS, (int)o->max_connections, &err) ||
        open_server(&s, &err)) {
        rc = cp_app_fail(&err);
        goto done;
    }
    s.models = cp_app_models_new(o, &s.stack, s.server);
    s.host = (cp_app_host){.models = s.models, .orders = cp_orders_new(ORDERS)};
    const cp_server_host table = cp_app_host_table(&s.host);
    cp_server_set_host(s.server, &table);
    cp_signals_serve(s.signals, s.server);
    fprintf(stderr, "listening on %s\n", cp_server_url(s.server));
    if (pthread_create(&loader, NULL, load_all, &s) != 0) {
        cp_fail(&err, CP_IO, "cannot start the loader thread");
        rc = cp_app_fail(&err);
        goto done;
    }
    rc = wait_for_end(&s);
    pthread_join(loader, NULL);
    end_orders(&s, rc);
done:
    if (s.server) {
        cp_signals_serve(s.signals, NULL);
    }
    /* The engine's last words reach their calls while the server still stands; the calls' memory
     * goes with the server, that of the models after both. */
    if (s.stack.engine) {
        cp_engine_stop(s.stack.engine);
    }
    cp_server_close(s.server);
    cp_jobs_close(s.jobs);
    cp_stack_close(&s.stack);
    cp_app_models_free(s.models);
    if (s.host.orders) {
        (void)cp_orders_end(s.host.orders, 0);
    }
    cp_orders_free(s.host.orders);
    cp_metrics_free(s.metrics);
    cp_child_stop(&s.exporter, CP_EXPORTER_END_MS);
    return cp_signals_close(s.signals) ? 1 : rc;
}
