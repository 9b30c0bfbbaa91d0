/* This file carries out what clients ask for: see host.h. */
#include "app/host.h"

#include "base/log.h"

/*
 * What a client hears of a load that failed: a file that is no model, or one that it named wrongly,
 * is its mistake; what it can do nothing about may be gone when it comes again. The words stay, as
 * who may load models is to know what happened.
 */
static cp_code for_client(cp_code code, cp_err *err)
{
    static const struct {
        cp_code from, to;
        const char *param;
    } rows[] = {
        {CP_USAGE, CP_INVALID_VALUE, "ref"},       {CP_CORRUPT, CP_INVALID_VALUE, "ref"},
        {CP_UNSUPPORTED, CP_INVALID_VALUE, "ref"}, {CP_NOT_FOUND, CP_NOT_FOUND, "ref"},
        {CP_TEMPLATE, CP_TEMPLATE, "ref"},         {CP_CANCELLED, CP_MODEL_NOT_FOUND, "ref"},
        {CP_NETWORK, CP_MODEL_FAILED, ""},         {CP_IO, CP_MODEL_FAILED, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (code == rows[i].from) {
            err->code = code = rows[i].to;
            if (!*err->param) {
                cp_strcopy(err->param, sizeof err->param, rows[i].param);
            }
            break;
        }
    }
    cp_printable(err->msg); /* it may quote a file or a server */
    return code;
}

static bool run(void *self, void (*fn)(void *arg), void *arg)
{
    const cp_app_host *h = self;
    return cp_orders_give(h->orders, fn, arg);
}

static cp_code load(void *self, const cp_model_options *mo, cp_err *err)
{
    const cp_app_host *h = self;
    cp_code code = cp_app_models_load(h->models, mo, mo->kv_bytes, false, err);
    if (code == CP_OK) {
        return CP_OK;
    }
    cp_log(CP_LOG_WARN, "%.200s was not loaded: %s", mo->ref, err->msg);
    return for_client(code, err);
}

static cp_code unload(void *self, const char *name, int64_t drain_ms, cp_err *err)
{
    const cp_app_host *h = self;
    cp_code code = cp_app_models_unload(h->models, name, drain_ms, err);
    if (code == CP_MODEL_NOT_FOUND) {
        cp_strcopy(err->param, sizeof err->param, "model");
    }
    return code;
}

cp_server_host cp_app_host_table(cp_app_host *h)
{
    return (cp_server_host){.self = h, .run = run, .load = load, .unload = unload};
}
