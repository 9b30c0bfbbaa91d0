/*
 * This file puts modules together: it says which stands behind which, and decides nothing beyond
 * order and defaults. See compose.h.
 */
#include "app/compose.h"

#include "app/command.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

cp_code cp_stack_open(cp_stack *s, const cp_options *o, cp_opener *opener, cp_err *err)
{
    *s = (cp_stack){.opener = opener};
    s->threads = o->threads > 0 ? (int)o->threads : cp_pool_default_threads();
    cp_code rc = cp_pool_open(&s->pool, s->threads, err);
    rc = rc ? rc : cp_devices_open(&s->devices, o, s->pool, opener, err);
    if (rc) {
        cp_stack_close(s);
    }
    return rc;
}

cp_code cp_stack_add_devices(cp_stack *s, const cp_options *o, cp_err *err)
{
    return cp_devices_add(&s->devices, o, s->pool, s->opener, err);
}

cp_code cp_stack_engine(cp_stack *s, const cp_options *o, void (*device_failed)(void *arg),
                        void *arg, cp_err *err)
{
    cp_engine_config cfg = {.backend = s->devices.of[0].backend,
                            .device_failed = device_failed,
                            .device_failed_arg = arg,
                            .max_queue = (int)o->max_queue,
                            .max_queue_tokens = (int64_t)o->max_queue_tokens};
    return cp_engine_open(&s->engine, &cfg, err);
}

void cp_stack_close(cp_stack *s)
{
    cp_engine_close(s->engine);
    cp_devices_close(&s->devices);
    cp_pool_close(s->pool);
    memset(s, 0, sizeof *s);
}

/* The file's own, by name. A name that a template is not known by is said at start: no request
 * will be rendered with it. */
static void open_named(cp_app_model *m)
{
    const cp_meta *meta = cp_loaded_meta(m->file);
    for (int use = 0; use < CP_TEMPLATE_USES; use++) {
        char key[64] = "tokenizer.chat_template";
        cp_str s;
        cp_err e = {0};
        if (use != CP_TEMPLATE_DEFAULT)
            cp_snprintf(key, sizeof key, "tokenizer.chat_template.%s", cp_template_names[use]);
        if (cp_meta_str(meta, key, &s) && cp_template_open(&m->templates.of[use], s.p, s.n, &e)) {
            cp_log(CP_LOG_WARN, "%s: chat template '%s' not usable, %s: %s", m->ref,
                   cp_template_names[use],
                   use == CP_TEMPLATE_DEFAULT ? "chat answers chat_template_missing"
                                              : "the default serves in its place",
                   e.msg);
        }
    }
}

static cp_code open_named_file(cp_template **out, const char *file, cp_opener *opener, cp_err *err)
{
    cp_buf b = {0};
    cp_code rc = cp_opener_template(opener, file, &b, err);
    if (rc == CP_OK && cp_template_open(out, b.p ? b.p : "", b.n, err)) {
        rc = cp_err_prefix(err, "%s", file);
    }
    cp_buf_fini(&b);
    if (rc) {
        cp_strcopy(err->param, sizeof err->param, "chat_template_file");
    }
    return rc;
}

/*
 * The operator's file, else what the packaging brought, else the model file's own templates,
 * compiled. One that does not compile costs the chat endpoint only, but is an error when the
 * operator named it.
 */
static cp_code open_templates(cp_app_model *m, const char *file, cp_opener *opener, cp_err *err)
{
    cp_err e = {0};
    cp_template **one = &m->templates.of[CP_TEMPLATE_DEFAULT];
    cp_str s = cp_loaded_template(m->file);
    if (file && *file) {
        return open_named_file(one, file, opener, err);
    }
    if (s.n == 0) {
        open_named(m);
    } else if (cp_template_open(one, s.p, s.n, &e)) {
        cp_log(CP_LOG_WARN, "%s: chat template not usable, chat answers chat_template_missing: %s",
               m->ref, e.msg);
    }
    return CP_OK;
}

static cp_code open_file(cp_app_model *m, const char *ref, const cp_options *o, cp_opener *opener,
                         cp_progress_fn *progress, void *arg, cp_err *err)
{
    cp_found *f;
    cp_code rc = cp_opener_find(opener, &f, ref, o, progress, arg, err);
    rc = rc ? rc : cp_loader_map(&m->file, f, err);
    if (rc) {
        cp_app_err_ref(err, ref);
    }
    return rc;
}

cp_code cp_app_model_open(cp_app_model *m, const char *ref, const char *template_file,
                          const cp_options *o, cp_opener *opener, cp_progress_fn *progress,
                          void *arg, cp_err *err)
{
    memset(m, 0, sizeof *m);
    m->ref = ref;
    m->check = o->verify == CP_VERIFY_ALWAYS;
    cp_code rc = open_file(m, ref, o, opener, progress, arg, err);
    for (size_t i = 0; rc == CP_OK && i < cp_loaded_n_notes(m->file); i++) {
        cp_log_each(CP_LOG_INFO, "%s: %s", ref, cp_loaded_note(m->file, i));
    }
    if (rc) {
        return rc;
    }
    if ((rc = cp_model_open(&m->model, m->file, err)) ||
        (rc = cp_tokenizer_open(&m->tokenizer, cp_loaded_meta(m->file), err)) ||
        (rc = open_templates(m, template_file, opener, err))) {
        cp_err_prefix(err, "%s", ref);
        cp_app_model_close(m);
    }
    return rc;
}

/* The engine's words may begin with the model's name: once is enough. */
static void strip_name(cp_err *err, const char *name)
{
    size_t n = strlen(name);
    if (err && strncmp(err->msg, name, n) == 0 && strncmp(err->msg + n, ": ", 2) == 0) {
        memmove(err->msg, err->msg + n + 2, strlen(err->msg + n + 2) + 1);
    }
}

static cp_code load_model(cp_app_model *m, cp_stack *s, cp_engine_model *em, cp_err *err)
{
    char how[128] = "";
    cp_code rc = em->kv_bytes
                     ? CP_OK
                     : cp_engine_default_kv(s->engine, em, &em->kv_bytes, how, sizeof how, err);
    if (rc == CP_OK && (rc = cp_engine_load(s->engine, em, &m->engine, err)) == CP_OK) {
        return CP_OK;
    }
    strip_name(err, em->name);
    if (rc == CP_NO_MEMORY && em->kv_bytes && *how) { /* the sum that did not suffice */
        cp_err_prefix(err, "--kv-bytes is %s", how);
    }
    cp_err_prefix(err, "%s", m->ref);
    return rc;
}

cp_code cp_app_model_add(cp_app_model *m, cp_stack *s, const cp_engine_model *limits, cp_err *err)
{
    cp_engine_model em = *limits;
    em.name = em.name ? em.name : m->ref;
    em.model = m->model;
    em.file = m->file;
    em.cache_check = m->check ? CP_CACHE_CHECK : CP_CACHE_TRUST;
    int64_t wish = cp_loaded_context_size(m->file);
    em.ctx_wish = wish > 0 && wish <= INT32_MAX ? (int)wish : 0;
    cp_code rc = load_model(m, s, &em, err);
    if (rc) {
        return rc;
    }
    /* A first start packed the weights and touched all of the file, which steps read little of. */
    cp_loaded_forget(m->file);
    cp_engine_limits l;
    const cp_engine_api *api = cp_engine_front(s->engine);
    CP_ASSERT(api->limits(api->self, m->engine, &l));
    m->ctx = l.ctx;
    return CP_OK;
}

/* What a step needs is as small as it may be: none is made. The files are every device's. */
static cp_code packed_check(cp_loaded *file, const cp_options *o, cp_err *err)
{
    cp_stack s;
    cp_options cpu = *o;
    cp_model *model = NULL;
    cp_prepared *prepared = NULL;
    cp_code rc = cp_model_open(&model, file, err);
    if (rc) {
        return rc;
    }
    cpu.device = "cpu";
    if ((rc = cp_stack_open(&s, &cpu, NULL, err)) == CP_OK) {
        cp_backend *b = s.devices.of[0].backend;
        cp_prepare_config cfg = {.max_rows = 1,
                                 .max_out = 1,
                                 .max_seqs = 1,
                                 .page_positions = cp_backend_page_positions(b),
                                 .n_pages = 1,
                                 .n_state_slots = 1,
                                 .kv_type = CP_DTYPE_BF16,
                                 .cache_read_dir = cp_loaded_cache_dir_made(file),
                                 .cache_dir = cp_loaded_cache_dir(file),
                                 .cache_key = cp_loaded_digest(file),
                                 .cache_check = CP_CACHE_CHECK_ONLY};
        rc = cp_backend_prepare(b, cp_model_program(model), &cfg, &prepared, err);
        if (rc == CP_OK) {
            cp_prepared_free(prepared);
        }
        cp_stack_close(&s);
    }
    cp_model_close(model);
    return rc;
}

cp_code cp_app_packed_check(const char *ref, const cp_options *o, cp_err *err)
{
    cp_loader_options lo = cp_app_loader_options(o);
    cp_loaded *file = NULL;
    if (!cp_store_has_packed(&lo, ref)) {
        return CP_OK;
    }
    cp_code rc = cp_loader_open(&file, ref, &lo, err);
    if (rc == CP_USAGE) {
        return CP_OK; /* several models in one, and none is named */
    }
    rc = rc ? rc : packed_check(file, o, err);
    cp_loaded_close(file);
    return rc == CP_UNSUPPORTED ? CP_OK : rc;
}

void cp_app_model_close(cp_app_model *m)
{
    cp_templates_close(&m->templates);
    cp_tokenizer_close(m->tokenizer);
    cp_model_close(m->model);
    cp_loaded_close(m->file);
    memset(m, 0, sizeof *m);
}
