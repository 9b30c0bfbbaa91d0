/* This file opens devices and finds them by name: see devices.h. */
#include "app/devices.h"

#include "base/log.h"
#include "base/mem.h"

#include <string.h>

static bool is(const cp_device *d, const char *backend)
{
    return strcmp(cp_backend_name(d->backend), backend) == 0;
}

bool cp_device_is_cpu(const cp_device *d)
{
    return is(d, "cpu");
}

bool cp_devices_have_gpu(const cp_devices *d)
{
    int i = 0;
    while (i < d->n && !is(&d->of[i], "cuda")) {
        i++;
    }
    return i < d->n;
}

/* ---- words ---- */

static const char *gemm_name(const cp_options *o)
{
    return o->gemm == CP_GEMM_CUBLAS ? "cublas" : "own";
}

static const char *numerics_name(const cp_options *o)
{
    return o->numerics == CP_NUMERICS_EXACT ? "exact" : "default";
}

/* The CPU's level stands in the line at start. */
static void say(const cp_device *d, const cp_options *o)
{
    char words[256];
    if (cp_device_is_cpu(d)) {
        return;
    }
    cp_backend_default_level(d->backend, words, sizeof words);
    cp_log(CP_LOG_INFO, "device %s: %s; gemm %s, numerics %s%s", cp_backend_name(d->backend), words,
           gemm_name(o), numerics_name(o),
           o->gemm == CP_GEMM_CUBLAS ? "; with cublas float models are not batch-invariant" : "");
}

void cp_device_numerics(const cp_device *d, const cp_options *o, char *out, size_t n)
{
    const char *level = cp_backend_level(d->backend);
    if (cp_device_is_cpu(d)) {
        cp_snprintf(out, n, "%s", level);
    } else {
        cp_snprintf(out, n, "%s-%s-%s-%s", cp_backend_name(d->backend), level, gemm_name(o),
                    numerics_name(o));
    }
}

void cp_device_words(const cp_device *d, char *out, size_t n)
{
    const char *level = cp_backend_level(d->backend);
    if (cp_device_is_cpu(d)) {
        cp_snprintf(out, n, "ISA level %s", level);
    } else {
        cp_snprintf(out, n, "device %s, %s", cp_backend_name(d->backend), level);
    }
}

/* ---- open ---- */

/* What opening takes beside a device's name. */
typedef struct needs {
    const cp_options *o;
    cp_pool *pool;
    cp_opener *opener;
} needs;

static cp_code open_backend(cp_backend **out, const needs *with, const char *device, cp_err *err)
{
    const cp_options *o = with->o;
    cp_backend_config cfg = {.panels = cp_opener_panels(with->opener),
                             .device = device,
                             .device_bytes = o->device_bytes,
                             .exact = o->numerics == CP_NUMERICS_EXACT,
                             .gemm = (cp_gemm)o->gemm,
                             .pool = with->pool};
    return cp_backend_open(out, &cfg, err);
}

static int find_own(const cp_devices *d, const char *name)
{
    for (int i = 0; i < d->n; i++) {
        if (strcmp(d->of[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static int find(const cp_devices *d, const char *name)
{
    for (int i = 0; i < d->n_names; i++) {
        if (strcmp(d->names[i].name, name) == 0) {
            return d->names[i].device;
        }
    }
    return find_own(d, name);
}

/* b under its name, and under the one by which it was asked for. One that is there already under
 * another name is not opened twice: its memory is one budget. */
static cp_code keep(cp_devices *d, const needs *with, const char *name, cp_backend *b, cp_err *err)
{
    cp_device new = {.backend = b};
    cp_backend_device(b, new.name, sizeof new.name);
    int at = find_own(d, new.name);
    if (at >= 0) {
        cp_backend_close(b);
    } else if (d->n < CP_DEVICES) {
        at = d->n++;
        d->of[at] = new;
        say(&new, with->o);
    }
    if (at < 0 || d->n_names == 2 * CP_DEVICES) {
        cp_backend_close(at < 0 ? b : NULL);
        return cp_fail(err, CP_USAGE, "device %s: a process has %d devices at most", name,
                       CP_DEVICES);
    }
    d->names[d->n_names++] = (struct cp_device_name){name, at};
    return CP_OK;
}

static cp_code add(cp_devices *d, const needs *with, const char *name, const char *said,
                   cp_err *err)
{
    cp_backend *b;
    if (find(d, name) >= 0) {
        return CP_OK;
    }
    cp_code rc = open_backend(&b, with, name, err);
    if (rc) {
        return rc != CP_USAGE ? cp_err_prefix(err, "%s %s", said, name) : rc;
    }
    return keep(d, with, name, b, err);
}

/* A GPU, else the CPU: why no GPU can be had is said in one line. */
static cp_code add_any(cp_devices *d, const needs *with, cp_err *err)
{
    cp_err why = {0};
    if (add(d, with, "cuda", "--device", &why) == CP_OK) {
        return CP_OK;
    }
    cp_log(CP_LOG_INFO, "device cpu: %s", why.msg);
    return add(d, with, "cpu", "--device", err);
}

static bool is_auto(const char *name)
{
    return !name || strcmp(name, "auto") == 0;
}

cp_code cp_devices_open(cp_devices *d, const cp_options *o, cp_pool *pool, cp_opener *opener,
                        cp_err *err)
{
    const needs with = {o, pool, opener};
    return is_auto(o->device) ? add_any(d, &with, err) : add(d, &with, o->device, "--device", err);
}

cp_code cp_devices_add(cp_devices *d, const cp_options *o, cp_pool *pool, cp_opener *opener,
                       cp_err *err)
{
    const needs with = {o, pool, opener};
    cp_code rc = CP_OK;
    for (int i = 0; i < o->n_models && rc == CP_OK; i++) {
        const char *name = o->models[i].device;
        rc = is_auto(name) ? CP_OK : add(d, &with, name, "[[model]] device", err);
    }
    return rc ? rc : add(d, &with, "cpu", "device", err);
}

void cp_devices_close(cp_devices *d)
{
    for (int i = 0; i < d->n; i++) {
        cp_backend_close(d->of[i].backend);
    }
    memset(d, 0, sizeof *d);
}

/* "cuda": the first of the GPUs that are open. */
static int find_backend(const cp_devices *d, const char *name)
{
    for (int i = 0; i < d->n; i++) {
        if (is(&d->of[i], name)) {
            return i;
        }
    }
    return -1;
}

cp_code cp_devices_find(const cp_devices *d, const char *name, int *index, cp_err *err)
{
    char open[256] = "";
    size_t at = 0;
    *index = is_auto(name) ? 0 : find(d, name);
    *index = *index >= 0 ? *index : find_backend(d, name);
    if (*index >= 0) {
        return CP_OK;
    }
    for (int i = 0; i < d->n && at < sizeof open; i++) {
        at += cp_snprintf(open + at, sizeof open - at, "%s%s", at ? ", " : "", d->of[i].name);
    }
    return cp_fail_param(err, CP_INVALID_VALUE, "device",
                         "device %.100s is not open in this process, which has %s; a restart with "
                         "--device or a [[model]] that names it opens it",
                         name, open);
}
