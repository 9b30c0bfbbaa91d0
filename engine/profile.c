/* This file adds up the times of steps and their operations: see profile.h. */
#include "engine/profile.h"

static void add(_Atomic uint64_t *sum, uint64_t n)
{
    uint64_t so_far = atomic_load_explicit(sum, memory_order_relaxed);
    atomic_store_explicit(sum, so_far + n, memory_order_relaxed);
}

void cp_profile_op(cp_profile *p, cp_op_kind kind, const cp_op_time *now, bool counted)
{
    cp_op_time *seen = &p->seen[kind];
    if (counted && now->records > seen->records) {
        add(&p->ns[kind], now->ns - seen->ns);
        add(&p->records[kind], now->records - seen->records);
    }
    *seen = *now;
}

void cp_profile_step(cp_profile *p, int64_t ns)
{
    add(&p->step_ns, (uint64_t)ns);
    add(&p->steps, 1);
}

static const char *const names[CP_OP_COUNT] = {
#define X(kind, name) [CP_OP_##kind] = #name,
    CP_OPS(X)
#undef X
};

void cp_profile_read(const cp_profile *p, cp_engine_profile *out)
{
    *out = (cp_engine_profile){.since_ns = p->since_ns,
                               .steps = atomic_load_explicit(&p->steps, memory_order_relaxed),
                               .step_ns = atomic_load_explicit(&p->step_ns, memory_order_relaxed)};
    for (int k = 0; k < CP_OP_COUNT; k++) {
        uint64_t records = atomic_load_explicit(&p->records[k], memory_order_relaxed);
        if (records > 0)
            out->op[out->n++] =
                (struct cp_engine_op){.name = names[k],
                                      .ns = atomic_load_explicit(&p->ns[k], memory_order_relaxed),
                                      .records = records};
    }
}
