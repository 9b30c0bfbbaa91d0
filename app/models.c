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
#include "app/rows.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

cp_app_models *cp_app_models_new(const cp_options *o, cp_stack *stack, cp_server *server)
{
    cp_app_models *ms = cp_xcalloc(1, sizeof *ms);
    *ms = (cp_app_models){.o = o, .stack = stack, .server = server};
    pthread_mutex_init(&ms->turn, NULL);
    pthread_mutex_init(&ms->lock, NULL);
    pthread_cond_init(&ms->change, NULL);
    return ms;
}

void cp_app_models_expect(cp_app_models *ms, const int n[CP_DEVICES])
{
    memcpy(ms->expected, n, sizeof ms->expected);
}

void cp_app_row_free(cp_app_row *r)
{
    cp_app_model_close(&r->m);
    cp_metrics_free(r->metrics);
    cp_arena_free(r->arena);
    free(r->ref);
    free(r);
}

void cp_app_models_free(cp_app_models *ms)
{
    if (!ms) {
        return;
    }
    for (cp_app_row *r = ms->list, *next; r; r = next) {
        next = r->next;
        CP_ASSERT(!r->loading && !r->leaving);
        cp_app_row_free(r);
    }
    pthread_mutex_destroy(&ms->turn);
    pthread_mutex_destroy(&ms->lock);
    pthread_cond_destroy(&ms->change);
    free(ms);
}

/* ---- the list ---- */

cp_app_row *cp_app_row_new(const cp_model_options *mo, bool configured, cp_err *err)
{
    cp_app_row *r = cp_xcalloc(1, sizeof *r);
    r->ref = cp_xstrdup(mo->ref);
    r->configured = configured;
    r->loading = true;
    if (cp_app_row_set(r, mo, err)) {
        cp_app_row_free(r);
        return NULL;
    }
    r->metrics = cp_metrics_new(cp_app_id(&r->mo));
    return r;
}

cp_code cp_app_row_set(cp_app_row *r, const cp_model_options *mo, cp_err *err)
{
    cp_arena *arena = cp_arena_new(CP_APP_NAMES_BYTES);
    cp_model_options copy;
    if (!cp_model_options_copy(&copy, mo, arena)) {
        cp_arena_free(arena);
        return cp_fail(err, CP_INVALID_VALUE, "%.200s has too many names", mo->ref);
    }
    cp_arena_free(r->arena); /* mo may have lain in it */
    r->arena = arena;
    r->mo = copy;
    return CP_OK;
}

void cp_app_row_add(cp_app_models *ms, cp_app_row *r)
{
    pthread_mutex_lock(&ms->lock);
    atomic_store(&r->cancel, ms->ending);
    r->serial = ++ms->rows;
    cp_app_row **end = &ms->list;
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
    for (cp_app_row *r = ms->list; r; r = r->next) {
        atomic_store(&r->cancel, true);
    }
    pthread_mutex_unlock(&ms->lock);
}

static void list_remove(cp_app_models *ms, cp_app_row *r)
{
    pthread_mutex_lock(&ms->lock);
    cp_app_row **at = &ms->list;
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
    pthread_cond_broadcast(&ms->change);
    pthread_mutex_unlock(&ms->lock);
}

static bool has_name(const cp_app_row *r, const char *name)
{
    size_t n, i = 0;
    const char *const *names = cp_app_names(&r->mo, &n);
    while (i < n && strcmp(names[i], name) != 0) {
        i++;
    }
    return i < n;
}

/* The model of this name: the one that stays, where another is about to go. With the lock. */
static cp_app_row *find(const cp_app_models *ms, const char *name)
{
    cp_app_row *leaving = NULL;
    for (cp_app_row *r = ms->list; r; r = r->next) {
        if (!r->shadow && has_name(r, name)) {
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
    const cp_app_row *at = ms->list;
    while (at && at->serial != serial) {
        at = at->next;
    }
    return at != NULL;
}

/* ---- load ---- */

/* What is left of --kv-bytes for a model that asks for `want` (0: all of it). */
static cp_code share(cp_app_models *ms, cp_app_row *r, const cp_options *o, uint64_t want,
                     cp_err *err)
{
    uint64_t total = o->kv_bytes, taken = 0;
    pthread_mutex_lock(&ms->lock);
    for (const cp_app_row *at = ms->list; at; at = at->next) {
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
                   cp_app_id(&r->mo), (double)taken / 1048576.0, (double)total / 1048576.0,
                   (double)left / 1048576.0, asks);
}

/* Of whom a load's progress is told. */
typedef struct watcher {
    cp_server *server;
    cp_served *served;
    cp_load_clock *clock;
} watcher;

static void watch(void *arg, const char *phase, uint64_t done, uint64_t total, uint64_t rate)
{
    const watcher *w = arg;
    cp_load_clock_phase(w->clock, phase);
    cp_server_phase(w->server, w->served, phase, done, total, rate);
}

static cp_code open_file(cp_app_models *ms, cp_app_row *r, const cp_options *options, cp_err *err)
{
    const cp_model_options *mo = &r->mo;
    cp_progress p;
    watcher w = {ms->server, r->served, &r->clock};
    cp_options o = *options; /* with what is this model's own */
    o.platform = mo->platform;
    o.variant = mo->variant;
    o.source[CP_OPT_platform] = mo->platform ? CP_FROM_FILE : CP_FROM_DEFAULT;
    o.source[CP_OPT_variant] = mo->variant ? CP_FROM_FILE : CP_FROM_DEFAULT;
    cp_progress_init(&p, cp_app_id(&r->mo), false);
    p.watch = watch;
    p.watch_arg = &w;
    cp_code rc = cp_app_model_open(&r->m, r->ref, mo->chat_template_file, &o, ms->stack->opener,
                                   cp_progress_report, &p, err);
    cp_progress_end(&p);
    return rc;
}

static cp_dtype kv_dtype(const cp_model_options *mo)
{
    return mo->kv_type == CP_KV_TYPE_F16 ? CP_DTYPE_F16 : CP_DTYPE_BF16;
}

static cp_code add_to_engine(cp_app_models *ms, cp_app_row *r, const cp_options *o, cp_err *err)
{
    const cp_model_options *mo = &r->mo;
    int *expected = &ms->expected[r->device];
    cp_load_clock_phase(&r->clock, "warming");
    cp_server_phase(ms->server, r->served, "warming", 0, 0, 0);
    cp_engine_model em = {.name = cp_app_id(&r->mo),
                          .backend = ms->stack->devices.of[r->device].backend,
                          .ctx = (int)mo->ctx,
                          .kv_bytes = r->kv_bytes,
                          .kv_sharers = r->kv_bytes ? 0 : *expected,
                          .max_seqs = (int)mo->max_seqs,
                          .max_batch_rows = (int)mo->max_batch_rows,
                          .prefill_chunk = (int)o->prefill_chunk,
                          .step_ms = (int)o->step_ms,
                          .kv_type = kv_dtype(mo),
                          .prefix_cache = o->prefix_cache,
                          .metrics = r->metrics,
                          .cancel = &r->cancel};
    *expected -= r->kv_bytes == 0 && *expected > 0;
    return cp_app_model_add(&r->m, ms->stack, &em, err);
}

cp_sampling_defaults cp_app_row_defaults(const cp_app_row *r, const cp_options *o,
                                         const cp_model_options *mo)
{
    return cp_app_sampling_defaults(r->m.file, cp_app_id(mo), o->sampling_defaults, &mo->sampling);
}

static cp_code publish(cp_app_models *ms, cp_app_row *r, const cp_options *o, cp_err *err)
{
    const cp_model_options *mo = &r->mo;
    const cp_app_model *m = &r->m;
    cp_engine_memory mem;
    char fingerprint[160], numerics[64];
    cp_engine_describe(m->engine, &mem);
    const char *digest = cp_loaded_digest(m->file), *hex = strchr(digest, ':');
    cp_device_numerics(&ms->stack->devices.of[r->device], o, numerics, sizeof numerics);
    cp_snprintf(fingerprint, sizeof fingerprint, "capstan-%s-%s-%s-%.12s", cp_app_build(), numerics,
                kv_dtype(mo) == CP_DTYPE_F16 ? "f16" : "bf16", hex ? hex + 1 : "");
    cp_server_model sm = {.tokenizer = m->tokenizer,
                          .templates = m->templates,
                          .digest = digest,
                          .quantization = cp_loaded_quant(m->file),
                          .fingerprint = fingerprint,
                          .defaults = cp_app_row_defaults(r, o, mo),
                          .ref = r->ref,
                          .kv_bytes = mem.kv_bytes,
                          .engine = m->engine,
                          .created = cp_wall_sec(),
                          .metrics = r->metrics};
    return cp_server_publish_model(ms->server, r->served, &sm, err);
}

static void describe(const cp_app_models *ms, const cp_app_row *r)
{
    cp_engine_memory mem;
    char states[128] = "", traits[256], templates[128] = "", device[64] = "";
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
    if (r->device > 0) {
        cp_snprintf(device, sizeof device, "device %s, ", ms->stack->devices.of[r->device].name);
    }
    cp_log_each(
        CP_LOG_INFO,
        "model %s: %sarchitecture %s, quantization %s, %.1f M parameters, context %d of %d, KV "
        "cache %.1f MiB, %d full-length sequence%s%s; chat template %s%s",
        cp_app_id(&r->mo), device, h->arch, cp_loaded_quant(r->m.file), (double)h->n_params / 1e6,
        mem.ctx, h->ctx_train, (double)mem.kv_bytes / 1048576.0, mem.full_seqs,
        mem.full_seqs == 1 ? " fits" : "s fit", states, templates[0] ? templates : "none", traits);
}

/* Everything that a model is goes, whatever there is of it: the engine lets go of its requests
 * first, as the server waits for what they are to say. By one thread: see `leaving`. */
void cp_app_row_end(cp_app_models *ms, cp_app_row *r, int64_t end_ns)
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
    cp_app_row_free(r);
}

static cp_code cancelled(const cp_app_row *r, cp_err *err)
{
    if (!atomic_load(&r->cancel)) {
        return CP_OK;
    }
    return cp_fail(err, CP_CANCELLED, "%s: unloaded while it was loading", cp_app_id(&r->mo));
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

/* What the options say of it, too, in strings of the row's own: a reload frees the options. */
static cp_code fill(cp_app_models *ms, cp_app_row *r, const cp_options *o, cp_err *err)
{
    cp_model_options filled = r->mo;
    cp_code rc = cp_model_options_fill(&filled, o, err);
    if (rc) {
        return rc;
    }
    pthread_mutex_lock(&ms->lock); /* who looks for a name reads it */
    rc = cp_app_row_set(r, &filled, err);
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

static cp_code load(cp_app_models *ms, cp_app_row *r, const cp_options *o, uint64_t kv_bytes,
                    cp_err *err)
{
    o = o ? o : ms->o;
    cp_code rc = cancelled(r, err); /* it waited for its turn */
    rc = rc ? rc : fill(ms, r, o, err);
    rc = rc ? rc : cp_devices_find(&ms->stack->devices, r->mo.device, &r->device, err);
    rc = rc ? rc : share(ms, r, o, kv_bytes, err);
    cp_load_clock_begin(&r->clock, r->metrics, "mapping");
    rc = rc ? rc : open_file(ms, r, o, err);
    rc = rc ? rc : add_to_engine(ms, r, o, err);
    rc = rc ? rc : publish(ms, r, o, err);
    cp_load_clock_end(&r->clock);
    if (rc == CP_OK) {
        describe(ms, r);
    }
    return rc;
}

/* The load is over, rc so far. From here on who unloads the model takes it apart, unless its loader
 * does: where it failed, or somebody wanted it unloaded meanwhile. */
static cp_code settle(cp_app_models *ms, cp_app_row *r, cp_code rc, cp_err *err)
{
    pthread_mutex_lock(&ms->lock);
    rc = rc ? rc : cancelled(r, err);
    r->loading = false;
    r->leaving = rc != CP_OK;
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

cp_code cp_app_row_load(cp_app_models *ms, cp_app_row *r, const cp_options *o, uint64_t kv_bytes,
                        cp_err *err)
{
    cp_server_count_model(r->served, r->metrics); /* zeroes, from before its turn on */
    pthread_mutex_lock(&ms->turn);
    cp_code rc = load(ms, r, o, kv_bytes, err);
    pthread_mutex_unlock(&ms->turn);
    rc = settle(ms, r, rc, err);
    if (rc) {
        cp_server_phase(ms->server, r->served, "failed", 0, 0, 0);
        cp_app_row_end(ms, r, cp_now_ns());
    }
    return ended(ms, rc, err);
}

cp_code cp_app_models_load(cp_app_models *ms, const cp_model_options *mo, uint64_t kv_bytes,
                           bool configured, cp_err *err)
{
    size_t n;
    cp_app_row *r = cp_app_row_new(mo, configured, err);
    if (!r) {
        return CP_INVALID_VALUE;
    }
    const char *const *ids = cp_app_names(&r->mo, &n);
    cp_code rc = cp_server_reserve_model(ms->server, ids, n, &r->served, err);
    if (rc) {
        cp_app_row_free(r);
        return rc;
    }
    cp_app_row_add(ms, r);
    return cp_app_row_load(ms, r, NULL, kv_bytes, err);
}

/* ---- unload ---- */

cp_code cp_app_models_unload(cp_app_models *ms, const char *name, int64_t drain_ms, cp_err *err)
{
    int64_t end_ns = drain_ms > 0 ? cp_now_ns() + drain_ms * 1000000 : 0;
    pthread_mutex_lock(&ms->lock);
    cp_app_row *r = find(ms, name);
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
        cp_log(CP_LOG_INFO, "model %s: unloading", cp_app_id(&r->mo));
        cp_app_row_end(ms, r, end_ns);
        cp_log(CP_LOG_INFO, "model %s: unloaded", name);
    }
    return CP_OK;
}
