/* This file divides --kv-bytes: see shares.h. */
#include "app/shares.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { EVERY = -1 };

/* The models of the options, as they are divided among. */
typedef struct models {
    const cp_options *o;
    int *device; /* [o->n_models] */
    uint64_t *share;
} models;

static bool is_on(const models *m, int i, int device)
{
    return device == EVERY || m->device[i] == device;
}

/* Of those on the device: what kv_bytes ask for, and how many have none. */
static int without(const models *m, int device, uint64_t *fixed)
{
    int n = 0;
    *fixed = 0;
    for (int i = 0; i < m->o->n_models; i++) {
        if (is_on(m, i, device)) {
            *fixed += m->share[i];
            n += m->share[i] == 0;
        }
    }
    return n;
}

static cp_code divide(const models *m, int device, uint64_t total, const char *how, cp_err *err)
{
    uint64_t fixed;
    int others = without(m, device, &fixed);
    if (fixed > total || (others && fixed == total)) {
        return cp_fail(
            err, CP_NO_MEMORY,
            "the models' kv_bytes take %.1f MiB of --kv-bytes %.1f MiB%s%s, %d models are left",
            (double)fixed / 1048576.0, (double)total / 1048576.0, *how ? ", which is " : "", how,
            others);
    }
    for (int i = 0; i < m->o->n_models; i++) {
        if (is_on(m, i, device) && m->share[i] == 0) {
            m->share[i] = (total - fixed) / (uint64_t)others;
        }
    }
    return CP_OK;
}

static int count(const models *m, int device)
{
    int n = 0;
    for (int i = 0; i < m->o->n_models; i++) {
        n += is_on(m, i, device);
    }
    return n;
}

/* Where no total is given. */
static cp_code divide_default(const models *m, const cp_device *d, int device, int *unsaid,
                              cp_err *err)
{
    uint64_t total, fixed;
    char how[128] = "";
    if (count(m, device) < 2 || !cp_device_is_cpu(d)) {
        *unsaid = without(m, device, &fixed);
        return CP_OK;
    }
    cp_code rc = cp_backend_kv_bytes(d->backend, 0, &total, how, sizeof how, err);
    return rc ? rc : divide(m, device, total, how, err);
}

static cp_code find_devices(const models *m, const cp_devices *devices, cp_err *err)
{
    cp_code rc = CP_OK;
    for (int i = 0; i < m->o->n_models && rc == CP_OK; i++) {
        const cp_model_options *mo = &m->o->models[i];
        m->share[i] = mo->kv_bytes;
        if ((rc = cp_devices_find(devices, mo->device, &m->device[i], err))) {
            cp_err_prefix(err, "%.200s", mo->ref);
        }
    }
    return rc;
}

cp_code cp_app_shares(const cp_options *o, const cp_devices *devices, uint64_t *share,
                      int unsaid[CP_DEVICES], cp_err *err)
{
    models m = {o, cp_xcalloc((size_t)o->n_models, sizeof(int)), share};
    memset(unsaid, 0, CP_DEVICES * sizeof *unsaid);
    cp_code rc = find_devices(&m, devices, err);
    if (rc == CP_OK && o->kv_bytes) {
        rc = divide(&m, EVERY, o->kv_bytes, "", err);
    }
    for (int i = 0; i < devices->n && rc == CP_OK && o->kv_bytes == 0; i++) {
        rc = divide_default(&m, &devices->of[i], i, &unsaid[i], err);
    }
    free(m.device);
    return rc;
}
