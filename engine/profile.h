/*
 * profile: how long the steps of a model took, and their operations, as sums since its load.
 *
 * Whoever runs a step adds it; any thread may read the sums, without a lock and each for itself.
 */
#ifndef CP_ENGINE_PROFILE_H
#define CP_ENGINE_PROFILE_H

#include "engine/engine.h"

#include <stdatomic.h>

typedef struct cp_profile {
    int64_t since_ns;             /* cp_now_ns() of the model's load; only read */
    cp_op_time seen[CP_OP_COUNT]; /* what the backend had told of before; who runs steps */
    /* relaxed: sums to look at, they order nothing; one thread writes */
    _Atomic uint64_t steps, step_ns;
    _Atomic uint64_t ns[CP_OP_COUNT], records[CP_OP_COUNT];
} cp_profile;

/* What an operation's kind has taken since the backend prepared the program. A kind for each. */
void cp_profile_op(cp_profile *p, cp_op_kind kind, const cp_op_time *now, bool counted);
/* A step of so long is over. */
void cp_profile_step(cp_profile *p, int64_t ns);
void cp_profile_read(const cp_profile *p, cp_engine_profile *out);

#endif
