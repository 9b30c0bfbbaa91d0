/*
 * This file loads and unloads models: see models.h. A model is taken apart in the order in which
 * nothing can reach it any more: its names in the server, its place in the engine, then what both
 * have borrowed.
 */
#include "app/models.h"

#include "app/command.h"
#include "app/defaults.h"
#include "app/progress.h"
#include "app/recognised.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A model of the list. Its loader owns it until it serves, then who unloads it. */
typedef struct row {
    struct row *next;
    uint64_t serial; /* tells it from one that comes to lie where it lay */
    char *ref, **ids;
    size_t n_ids;
    cp_app_model m;
    cp_served *served;
    uint64_t kv_bytes;
    _Atomic bool cancel; /* the load is to end */
    /* Guarded by the list's lock. One thread takes a row apart: its loader, while it is loading, or
     * the one that has set `leaving`. */
    bool loading, leaving;
} row;

struct cp_app_models {
    const cp_options *o;
    cp_stack *stack;
    cp_server *server;
    pthread_mutex_t turn; /* one load at a time */
    int expected;         /* loads to come that say no kv_bytes; guarded by turn */
    pthread_mutex_t lock; /* guards what follows; never held over anything that takes long */
    pthread_cond_t change;
    row *list;
    uint64_t rows;
    bool ending; /* nothing is loaded any more */
};

cp_app_models *cp_app_models_new(const cp_options *o, cp_stack *stack, cp_server *server)
{
    cp_app_models *ms = cp_xcalloc(1, sizeof *ms);
    *ms = (cp_app_models){.o = o, .stack = stack, .server = server};
    pthread_mutex_init(&ms->turn, NULL);
    pthread_mutex_init(&ms->lock, NULL);
    pthread_cond_init(&ms->change, NULL);
    return ms;
}

void cp_app_models_expect(cp_app_models *ms, int n)
{
    ms->expected = n;
}

static void row_free(row *r)
{
    cp_app_model_close(&r->m);
    for (size_t i = 0; i < r->n_ids; i++) {
        free(r->ids[i]);
    }
    free(r->ids);
    free(r->ref);
    free(r);
}

void cp_app_models_free(cp_app_models *ms)
{
    if (!ms) {
        return;
    }
    for (row *r = ms->list, *next; r; r = next) {
        next = r->next;
        CP_ASSERT(!r->loading && !r->leaving);
        row_free(r);
    }
    pthread_mutex_destroy(&ms->turn);
    pthread_mutex_destroy(&ms->lock);
    pthread_cond_destroy(&ms->change);
    free(ms);
}

/* ---- the list ---- */

static row *row_new(const cp_model_options *mo)
{
    row *r = cp_xcalloc(1, sizeof *r);
    const char *const *ids = mo->alias.n ? mo->alias.p : (const char *const *)&mo->ref;
    r->n_ids = mo->alias.n ? (size_t)mo->alias.n : 1;
    r->ids = cp_xcalloc(r->n_ids, sizeof *r->ids);
    for (size_t i = 0; i < r->n_ids; i++) {
        r->ids[i] = cp_xstrdup(ids[i]);
    }
    r->ref = cp_xstrdup(mo->ref);
    r->loading = true;
    return r;
}

static void list_add(cp_app_models *ms, row *r)
{
    pthread_mutex_lock(&ms->lock);
    atomic_store(&r->cancel, ms->ending);
    r->serial = ++ms->rows;
    row **end = &ms->list;
    while (*end) {
        end = &(*end)->next;
    }
    *end = r;
    pthread_mutex_unlock(&ms->lock);
}

void cp_app_models_end(cp_app_models *ms)
{
    pthread_mutex_lock(&ms->lock);
    ms->ending = true;
    for (row *r = ms->list; r; r = r->next) {
        atomic_store(&r->cancel, true);
    }
    pthread_mutex_unlock(&ms->lock);
}

static void list_remove(cp_app_models *ms, row *r)
{
    pthread_mutex_lock(&ms->lock);
    row **at = &ms->list;
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
    pthread_cond_broadcast(&ms->change);
    pthread_mutex_unlock(&ms->lock);
}

static bool has_name(const row *r, const char *name)
{
    size_t i = 0;
    while (i < r->n_ids && strcmp(r->ids[i], name) != 0) {
        i++;
    }
    return i < r->n_ids;
}

/* The model of this name: the one that stays, where another is about to go. With the lock. */
static row *find(const cp_app_models *ms, const char *name)
{
    row *leaving = NULL;
    for (row *r = ms->list; r; r = r->next) {
        if (has_name(r, name)) {
            if (!r->leaving) {
                return r;
            }
            leaving = r;
        }
    }
    return leaving;
}

/* With the lock. */
static bool is_listed(const cp_app_models *ms, uint64_t serial)
{
    const row *at = ms->list;
    while (at && at->serial != serial) {
        at = at->next;
    }
    return at != NULL;
}

/* ---- load ---- */

/* What is left of --kv-bytes for a model that asks for `want` (0: all of it). */
static cp_code share(cp_app_models *ms, row *r, uint64_t want, cp_err *err)
{
    uint64_t total = ms->o->kv_bytes, taken = 0;
    pthread_mutex_lock(&ms->lock);
    for (const row *at = ms->list; at; at = at->next) {
        taken += at->kv_bytes;
    }
    uint64_t left = total > taken ? total - taken : 0;
    bool fits = total == 0 || (left > 0 && want <= left); /* no total: want, or the default */
    r->kv_bytes = fits ? want ? want : left : 0;
    pthread_mutex_unlock(&ms->lock);
    if (fits) {
        return CP_OK;
    }
    char asks[64] = "and it says no kv_bytes";
    if (want > 0) {
        cp_snprintf(asks, sizeof asks, "and it asks for %.1f MiB", (double)want / 1048576.0);
    }
    return cp_fail(err, CP_NO_MEMORY,
                   "%s: the models that are loaded take %.1f MiB of --kv-bytes %.1f MiB, which "
                   "leaves %.1f MiB, %s",
                   r->ids[0], (double)taken / 1048576.0, (double)total / 1048576.0,
                   (double)left / 1048576.0, asks);
}

/* Of whom a load's progress is told. */
typedef struct watcher {
    cp_server *server;
    cp_served *served;
} watcher;

static void watch(void *arg, const char *phase, uint64_t done, uint64_t total, uint64_t rate)
{
    const watcher *w = arg;
    cp_server_phase(w->server, w->served, phase, done, total, rate);
}

static cp_code open_file(cp_app_models *ms, row *r, const cp_model_options *mo, cp_err *err)
{
    cp_progress p;
    watcher w = {ms->server, r->served};
    cp_options o = *ms->o; /* with what is this model's own */
    o.platform = mo->platform;
    o.variant = mo->variant;
    o.source[CP_OPT_platform] = mo->platform ? CP_FROM_FILE : CP_FROM_DEFAULT;
    o.source[CP_OPT_variant] = mo->variant ? CP_FROM_FILE : CP_FROM_DEFAULT;
    cp_progress_init(&p, r->ids[0], false);
    p.watch = watch;
    p.watch_arg = &w;
    cp_code rc =
        cp_app_model_open(&r->m, r->ref, mo->chat_template_file, &o, cp_progress_report, &p, err);
    cp_progress_end(&p);
    return rc;
}

static cp_dtype kv_dtype(const cp_model_options *mo)
{
    return mo->kv_type == CP_KV_TYPE_F16 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
}

static cp_code add_to_engine(cp_app_models *ms, row *r, const cp_model_options *mo, cp_err *err)
{
    const cp_options *o = ms->o;
    cp_server_phase(ms->server, r->served, "warming", 0, 0, 0);
    cp_engine_model em = {.name = r->ids[0],
                          .ctx = (int)mo->ctx,
                          .kv_bytes = r->kv_bytes,
                          .kv_sharers = r->kv_bytes ? 0 : ms->expected,
                          .max_seqs = (int)mo->max_seqs,
                          .max_batch_rows = (int)mo->max_batch_rows,
                          .prefill_chunk = (int)o->prefill_chunk,
                          .step_ms = (int)o->step_ms,
                          .kv_type = kv_dtype(mo),
                          .prefix_cache = o->prefix_cache,
                          .cancel = &r->cancel};
    ms->expected -= r->kv_bytes == 0 && ms->expected > 0;
    return cp_app_model_add(&r->m, ms->stack, &em, err);
}

static cp_code publish(cp_app_models *ms, row *r, const cp_model_options *mo, cp_err *err)
{
    const cp_app_model *m = &r->m;
    cp_engine_memory mem;
    char fingerprint[160], numerics[64];
    cp_engine_describe(m->engine, &mem);
    const char *digest = cp_loaded_digest(m->file), *hex = strchr(digest, ':');
    cp_stack_numerics(ms->stack, ms->o, numerics, sizeof numerics);
    cp_snprintf(fingerprint, sizeof fingerprint, "capstan-%s-%s-%s-%.12s", cp_app_build(), numerics,
                kv_dtype(mo) == CP_DTYPE_F16 ? "f16" : "bf16", hex ? hex + 1 : "");
    cp_server_model sm = {.tokenizer = m->tokenizer,
                          .templates = m->templates,
                          .digest = digest,
                          .quantization = cp_loaded_quant(m->file),
                          .fingerprint = fingerprint,
                          .defaults = cp_app_sampling_defaults(
                              m->file, r->ids[0], ms->o->sampling_defaults, &mo->sampling),
                          .ref = r->ref,
                          .kv_bytes = mem.kv_bytes,
                          .engine = m->engine,
                          .created = cp_wall_sec(),
                          .metrics = m->metrics};
    return cp_server_publish_model(ms->server, r->served, &sm, err);
}

static void describe(const row *r)
{
    cp_engine_memory mem;
    char states[128] = "", traits[256], templates[128] = "";
    const cp_hparams *h = cp_model_hparams(r->m.model);
    cp_engine_describe(r->m.engine, &mem);
    if (mem.state_slots > 0) {
        cp_snprintf(states, sizeof states,
                    ", %u state slots of %.1f KiB (%.1f MiB), a checkpoint every %d positions",
                    mem.state_slots, (double)mem.state_bytes / 1024.0,
                    (double)mem.state_slots * (double)mem.state_bytes / 1048576.0,
                    mem.checkpoint_every);
    }
    cp_recognised_traits(h, traits, sizeof traits);
    for (int use = 0, n = 0; use < CP_TEMPLATE_USES; use++) {
        if (r->m.templates.of[use]) {
            n += (int)cp_snprintf(templates + n, sizeof templates - (size_t)n, "%s%s",
                                  n ? ", " : "", cp_template_names[use]);
        }
    }
    cp_log(CP_LOG_INFO,
           "model %s: architecture %s, quantization %s, %.1f M parameters, context %d of %d, KV "
           "cache %.1f MiB, %d full-length sequence%s%s; chat template %s%s",
           r->ids[0], h->arch, cp_loaded_quant(r->m.file), (double)h->n_params / 1e6, mem.ctx,
           h->ctx_train, (double)mem.kv_bytes / 1048576.0, mem.full_seqs,
           mem.full_seqs == 1 ? " fits" : "s fit", states, templates[0] ? templates : "none",
           traits);
}

/* Everything that a model is goes, whatever there is of it: the engine lets go of its requests
 * first, as the server waits for what they are to say. By one thread: see `leaving`. */
static void take_apart(cp_app_models *ms, row *r, int64_t end_ns)
{
    if (r->m.engine) {
        cp_server_unload_model(ms->server, r->served, end_ns);
        cp_engine_unload(ms->stack->engine, r->m.engine, end_ns);
    }
    cp_server_forget_model(ms->server, r->served);
    if (r->m.engine) {
        cp_engine_forget(ms->stack->engine, r->m.engine);
    }
    /* Its memory first: who waits for its end, or for its part of --kv-bytes, finds it free. */
    cp_app_model_close(&r->m);
#ifdef __GLIBC__
    malloc_trim(0); /* small blocks of a vocabulary stay with the allocator until it is asked */
#endif
    list_remove(ms, r);
    row_free(r);
}

static cp_code cancelled(const row *r, cp_err *err)
{
    if (!atomic_load(&r->cancel)) {
        return CP_OK;
    }
    return cp_fail(err, CP_CANCELLED, "%s: unloaded while it was loading", r->ids[0]);
}

/* The words for a load that was given up because the process ends. */
static cp_code ended(cp_app_models *ms, cp_code rc, cp_err *err)
{
    pthread_mutex_lock(&ms->lock);
    bool ending = ms->ending;
    pthread_mutex_unlock(&ms->lock);
    return ending && rc == CP_CANCELLED ? cp_fail(err, CP_OVERLOADED, "the server is shutting down")
                                        : rc;
}

static cp_code load(cp_app_models *ms, row *r, const cp_model_options *mo, uint64_t kv_bytes,
                    cp_err *err)
{
    cp_model_options full = *mo;    /* nobody changes the options during a turn */
    cp_code rc = cancelled(r, err); /* it waited for its turn */
    rc = rc ? rc : cp_model_options_fill(&full, ms->o, err);
    rc = rc ? rc : share(ms, r, kv_bytes, err);
    rc = rc ? rc : open_file(ms, r, &full, err);
    rc = rc ? rc : add_to_engine(ms, r, &full, err);
    rc = rc ? rc : publish(ms, r, &full, err);
    if (rc == CP_OK) {
        describe(r);
    }
    return rc;
}

/* The load is over, rc so far. From here on who unloads the model takes it apart, unless its loader
 * does: where it failed, or somebody wanted it unloaded meanwhile. */
static cp_code settle(cp_app_models *ms, row *r, cp_code rc, cp_err *err)
{
    pthread_mutex_lock(&ms->lock);
    rc = rc ? rc : cancelled(r, err);
    r->loading = false;
    r->leaving = rc != CP_OK;
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

cp_code cp_app_models_load(cp_app_models *ms, const cp_model_options *mo, uint64_t kv_bytes,
                           cp_err *err)
{
    row *r = row_new(mo);
    cp_code rc =
        cp_server_reserve_model(ms->server, (const char *const *)r->ids, r->n_ids, &r->served, err);
    if (rc) {
        row_free(r);
        return rc;
    }
    list_add(ms, r);
    pthread_mutex_lock(&ms->turn);
    rc = load(ms, r, mo, kv_bytes, err);
    pthread_mutex_unlock(&ms->turn);
    rc = settle(ms, r, rc, err);
    if (rc) {
        cp_server_phase(ms->server, r->served, "failed", 0, 0, 0);
        take_apart(ms, r, cp_now_ns());
    }
    return ended(ms, rc, err);
}

/* ---- unload ---- */

cp_code cp_app_models_unload(cp_app_models *ms, const char *name, int64_t drain_ms, cp_err *err)
{
    int64_t end_ns = drain_ms > 0 ? cp_now_ns() + drain_ms * 1000000 : 0;
    pthread_mutex_lock(&ms->lock);
    row *r = find(ms, name);
    bool mine = r && !r->loading && !r->leaving, given_up = r && r->loading;
    if (mine) {
        r->leaving = true;
    } else if (r) { /* its loader, or who came first, takes it apart */
        uint64_t serial = r->serial;
        if (given_up) {
            cp_log(CP_LOG_INFO, "model %s: its load is given up at its next stop", name);
        }
        atomic_store(&r->cancel, true);
        if (end_ns) {
            cp_server_hasten(ms->server, name, end_ns);
        }
        while (is_listed(ms, serial)) {
            pthread_cond_wait(&ms->change, &ms->lock);
        }
    }
    pthread_mutex_unlock(&ms->lock);
    if (!r) {
        return cp_fail(err, CP_MODEL_NOT_FOUND, "the model '%.200s' does not exist", name);
    }
    if (mine) {
        cp_log(CP_LOG_INFO, "model %s: unloading", r->ids[0]);
        take_apart(ms, r, end_ns);
        cp_log(CP_LOG_INFO, "model %s: unloaded", name);
    }
    return CP_OK;
}
