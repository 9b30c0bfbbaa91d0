/* This file divides --kv-bytes: see shares.h. */
#include "app/shares.h"

cp_code cp_app_shares(const cp_options *o, const cp_stack *stack, uint64_t *share, int *unsaid,
                      cp_err *err)
{
    uint64_t total = o->kv_bytes, fixed = 0;
    char how[128] = "";
    int others = 0;
    *unsaid = 0;
    for (int i = 0; i < o->n_models; i++) {
        share[i] = o->models[i].kv_bytes;
        fixed += share[i];
        others += share[i] == 0;
    }
    if (total == 0 && (o->n_models == 1 || !cp_stack_on_cpu(stack))) {
        *unsaid = others;
        return CP_OK;
    }
    if (total == 0) {
        cp_code rc = cp_backend_kv_bytes(stack->backend, 0, &total, how, sizeof how, err);
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
