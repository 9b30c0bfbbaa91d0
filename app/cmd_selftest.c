/* selftest: what a device computes beside the reference kernels, and how fast it is. */
#include "app/command.h"
#include "bench/selftest/selftest.h"

#include <stdio.h>

int cp_cmd_selftest(const cp_options *o)
{
    cp_err err = {0};
    bool ok = false;
    cp_selftest_config cfg = {.device = o->device,
                              .part = o->args.n ? o->args.p[0] : NULL,
                              .small = o->small,
                              .json = o->json,
                              .out = stdout};
    cp_code rc =
        cp_pool_open(&cfg.pool, o->threads ? (int)o->threads : cp_pool_default_threads(), &err);
    if (rc == CP_OK) {
        rc = cp_selftest(&cfg, &ok, &err);
    }
    cp_pool_close(cfg.pool);
    return rc ? cp_app_fail(&err) : ok ? 0 : 1;
}
