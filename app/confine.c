/* This file carries --sandbox out: see confine.h. */
#include "app/confine.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sandbox.h"
#include "base/sandbox_try.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static cp_sandbox_config config_of(const cp_confine *c, bool device)
{
    const cp_options *o = c->o;
    return (cp_sandbox_config){.device = device, .socket = o->uds && *o->uds ? o->uds : NULL};
}

cp_code cp_confine_begin(cp_confine *c, const cp_options *o, cp_err *err)
{
    *c = (cp_confine){.o = o};
    if (o->sandbox == CP_SANDBOX_OFF) {
        return CP_OK;
    }
    if (!cp_sandbox_bare_cores()) {
        cp_log(CP_LOG_WARN, "sandbox: a core dump of this process would hold its memory: %s",
               strerror(errno));
    }
    return cp_opener_start(&c->opener, o, err);
}

static cp_code refused(const cp_confine *c, const cp_err *why, cp_err *err)
{
    return c->o->sandbox == CP_SANDBOX_ON
               ? cp_fail(err, CP_UNSUPPORTED, "--sandbox on: %s", why->msg)
               : CP_OK;
}

/* Whether a GPU will be found is not known yet: where there may be one its driver must be able to
 * start. /dev/dxg is a GPU's in a virtual machine of Windows. */
static bool may_be_gpu(const char *device)
{
    const char *driver = getenv("CAPSTAN_LIBCUDA");
    if (strcmp(device, "auto") != 0) {
        return strcmp(device, "cpu") != 0 && strcmp(device, "ref") != 0;
    }
    return (driver && *driver) || access("/dev/nvidiactl", F_OK) == 0 ||
           access("/dev/dxg", F_OK) == 0;
}

static bool may_have_gpu(const cp_options *o)
{
    bool may = may_be_gpu(o->device);
    for (int i = 0; i < o->n_models; i++) {
        const char *device = o->models[i].device;
        may = may || (strcmp(device, "auto") != 0 && may_be_gpu(device));
    }
    return may;
}

cp_code cp_confine_files(cp_confine *c, cp_err *err)
{
    if (!c->opener) {
        return CP_OK;
    }
    const cp_sandbox_config cfg = config_of(c, may_have_gpu(c->o));
    c->landlock = cp_sandbox_files(&cfg, &c->why_files);
    return c->landlock ? CP_OK : refused(c, &c->why_files, err);
}

static void say(const cp_confine *c, bool on_cpu)
{
    char files[64] = "no Landlock", why[600] = "";
    if (c->landlock) {
        cp_snprintf(files, sizeof files, "Landlock %d", c->landlock);
    }
    if (!c->landlock || !c->calls) {
        cp_snprintf(why, sizeof why, " (%.250s%s%.250s)", c->landlock ? "" : c->why_files.msg,
                    c->landlock || c->calls ? "" : "; ", c->calls ? "" : c->why_calls.msg);
    }
    cp_log(c->landlock && c->calls ? CP_LOG_INFO : CP_LOG_WARN, "sandbox: %s, %s%s%s", files,
           c->calls ? "seccomp" : "no seccomp", why,
           !c->calls || on_cpu ? ""
                               : "; beside a GPU's driver seccomp refuses a list of calls only");
}

cp_code cp_confine_calls(cp_confine *c, bool on_cpu, cp_err *err)
{
    if (!c->opener) {
        cp_log(CP_LOG_WARN, "sandbox: off");
        return CP_OK;
    }
    const cp_sandbox_config cfg = config_of(c, !on_cpu);
    c->calls = cp_sandbox_calls(&cfg, &c->why_calls) == CP_OK;
    cp_code rc = c->calls ? CP_OK : refused(c, &c->why_calls, err);
    if (rc == CP_OK) {
        say(c, on_cpu);
    }
    return rc;
}

void cp_confine_measure(const cp_confine *c, cp_metrics *m)
{
    cp_metric_set(m, CP_M_SANDBOX_LANDLOCK, c->landlock > 0);
    cp_metric_set(m, CP_M_SANDBOX_SECCOMP, c->calls);
}

void cp_confine_end(cp_confine *c)
{
    cp_opener_stop(c->opener);
    c->opener = NULL;
}

void cp_confine_try(const char *who)
{
    if (cp_fault_tries("escape")) {
        cp_sandbox_try(who);
    }
}
