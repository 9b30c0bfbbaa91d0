/*
 * host: `capstan serve` whose models come and go by its standard input.
 *
 * It takes serve's arguments, loads the models that they name and serves. A line is a command,
 * which runs on a thread of its own; its answer is a line of standard output:
 *
 *   N load NAME PATH KV_BYTES    N ok, or N CODE and why
 *   N unload NAME DRAIN_MS
 *
 * At the end of its input it waits for its commands and closes everything in order.
 */
#include "app/command.h"
#include "app/compose.h"
#include "app/models.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/mem.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { JOBS_THREADS = 2, LINE = 4096 };

typedef struct host {
    cp_options *o;
    cp_stack stack;
    cp_jobs *jobs;
    cp_metrics *metrics;
    cp_server *server;
    cp_app_models *models;
    _Atomic int running; /* commands */
} host;

typedef struct order {
    host *h;
    char line[LINE];
} order;

static cp_code load(host *h, char *name, char *path, uint64_t kv_bytes, cp_err *err)
{
    cp_model_options mo = h->o->models[0]; /* the defaults, and what serve's options say */
    const char *alias = name;
    mo.ref = path;
    mo.alias.p = &alias;
    mo.alias.n = 1;
    return cp_app_models_load(h->models, &mo, kv_bytes, false, err);
}

static cp_code obey(host *h, char *line, char **id, cp_err *err)
{
    char *at = NULL, *word[5] = {0};
    for (int i = 0; i < 5 && (word[i] = strtok_r(i ? NULL : line, " \n", &at)); i++) {
    }
    *id = word[0] ? word[0] : line;
    if (word[4] && strcmp(word[1], "load") == 0)
        return load(h, word[2], word[3], strtoull(word[4], NULL, 10), err);
    if (word[3] && strcmp(word[1], "unload") == 0)
        return cp_app_models_unload(h->models, word[2], strtoll(word[3], NULL, 10), err);
    return cp_fail(err, CP_USAGE, "what?");
}

static void *run(void *arg)
{
    order *d = arg;
    char *id;
    cp_err err = {0};
    cp_code code = obey(d->h, d->line, &id, &err);
    if (code == CP_OK)
        printf("%s ok\n", id);
    else
        printf("%s %s %s\n", id, cp_code_info(code)->name, err.msg);
    fflush(stdout);
    atomic_fetch_sub(&d->h->running, 1);
    free(d);
    return NULL;
}

static void obey_input(host *h)
{
    order *d = cp_xcalloc(1, sizeof(*d));
    while (fgets(d->line, LINE, stdin)) {
        pthread_t t;
        d->h = h;
        atomic_fetch_add(&h->running, 1);
        CP_ASSERT(pthread_create(&t, NULL, run, d) == 0);
        pthread_detach(t);
        d = cp_xcalloc(1, sizeof(*d));
    }
    free(d);
    while (atomic_load(&h->running) > 0)
        usleep(1000);
}

static cp_code open_all(host *h, cp_err *err)
{
    const cp_options *o = h->o;
    cp_code rc = cp_stack_open(&h->stack, o, NULL, err);
    rc = rc ? rc : cp_stack_engine(&h->stack, o, NULL, NULL, err);
    rc = rc ? rc : cp_jobs_open(&h->jobs, JOBS_THREADS, 1024, err);
    if (rc)
        return rc;
    h->metrics = cp_metrics_new(NULL);
    cp_server_config cfg = {.host = o->host,
                            .port = (int)o->port,
                            .engine = cp_engine_front(h->stack.engine),
                            .jobs = h->jobs,
                            .version = "test",
                            .metrics = h->metrics};
    rc = cp_server_open(&h->server, &cfg, err);
    if (rc)
        return rc;
    fprintf(stderr, "listening on %s\n", cp_server_url(h->server));
    h->models = cp_app_models_new(o, &h->stack, h->server);
    rc = cp_engine_start(h->stack.engine, err);
    for (int i = 0; i < o->n_models && rc == CP_OK; i++)
        rc = cp_app_models_load(h->models, &o->models[i], o->models[i].kv_bytes, true, err);
    if (rc == CP_OK)
        cp_server_ready(h->server);
    return rc;
}

int main(int argc, char **argv)
{
    extern char **environ;
    cp_err err = {0};
    host h = {0};
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 128 << 10); /* as serve does */
#endif
    cp_code rc = cp_options_parse(&h.o, argc, argv, environ, &err);
    rc = rc ? rc : open_all(&h, &err);
    if (rc == CP_OK)
        obey_input(&h);
    if (h.stack.engine)
        cp_engine_stop(h.stack.engine);
    cp_server_close(h.server);
    if (h.jobs)
        cp_jobs_close(h.jobs);
    cp_stack_close(&h.stack);
    cp_app_models_free(h.models);
    cp_metrics_free(h.metrics);
    cp_options_free(h.o);
    return rc ? cp_app_fail(&err) : 0;
}
