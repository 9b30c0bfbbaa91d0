/* launch: what the machine's functions over fibers (ptx.cpp) tell them of a launch. */
#ifndef CP_FIBERS_LAUNCH_CUH
#define CP_FIBERS_LAUNCH_CUH

#include "tests/fibers/fibers.cuh"

typedef struct fibers_launch {
    const char *name;
    void *function;
    void (*call)(void *function, const void *params);
    const void *params;
    uint3 grid, block;
    size_t shared;                   /* dynamic, bytes */
    char *shared_first, *shared_end; /* static, of all kernels */
    uint64_t seed;
} fibers_launch;

/* False: err says what went wrong where. One launch at a time. */
bool fibers_run(const fibers_launch *l, char *err, size_t n_err);

#endif
