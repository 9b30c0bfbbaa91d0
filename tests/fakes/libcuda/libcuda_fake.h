/*
 * libcuda_fake: a CUDA driver without a GPU, for tests. It exports what kernels/cuda opens of
 * libcuda.so.1 and runs kernels' PTX on the machine of tests/ptxvm. What a real driver may do late
 * or in another order, this one does as late, or in as odd an order, as it may:
 *
 *   FAKE_MODE=lazy     (default) nothing runs until something waits for it, and then only what must
 *   FAKE_MODE=eager    at each call some of what may run does, of a stream picked by the seed;
 *                      where the seed is a multiple of 4 all of it does, at once
 *   FAKE_SEED=n        the order of the above, of the machine's warps, and when queries say yes
 *   FAKE_MEMORY=512M   of a device; FAKE_GPUS=1 devices; FAKE_CC=80 their compute capability
 *   FAKE_DRIVER_VERSION=13000   also decides which PTX is refused
 *   FAKE_FAIL=call:n[:code]     the n-th call of that name fails (tests/fakes/libcuda/calls.def);
 *                      codes of a broken context stay, as the real one's do
 *   FAKE_RACE=0        without the machine's race detectors
 *   FAKE_LIMIT=n       a block that executes more instructions of warps is a fault (2^33)
 *   FAKE_REPORT=file   at exit: calls, counts, leaks and the last fault as JSON
 *   FAKE_MUTANT=kernel:line:text  that line of the PTX of the module that has the kernel is this
 *   FAKE_MUTANTS=file  many such faults in one run, a child of the process for each that shows;
 *   FAKE_VERDICTS=file what became of each is appended to it (mutants.c)
 *   FAKE_PATIENCE=n    launches of its kernel after which such a child gives up
 *   FAKE_COVERAGE=file at exit: appends how often each line of PTX ran
 *
 * Pinned memory is read when a copy runs, and a copy whose source was written between call and run
 * is a fault; pageable memory is read at the call. Arguments of kernels are copied at the call.
 * Memory holds 0xff before it is written, may not be freed while work in a stream names it (a real
 * driver may wait then, and promises nothing), is refused once it is freed, and its address has bit
 * 52 set: no host can follow it. What is not given back is reported at exit.
 *
 * These are for tests that link with it or find it by dlsym; they may come from any thread.
 */
#ifndef CP_TESTS_LIBCUDA_FAKE_H
#define CP_TESTS_LIBCUDA_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* Read the environment again and begin anew; what is left over of before is forgotten. No other
 * thread may be in a call. */
void fake_reset(void);
/* How often a call was made, by its name with the version ("cuMemAlloc_v2"); a name that there is
 * not ends the process, as do unknown counts. */
uint64_t fake_calls(const char *name);
/* By the names in tests/fakes/libcuda/counts.def. */
uint64_t fake_count(const char *name);
/* Allocations, handles and contexts that are not given back. */
uint64_t fake_leaks(void);
/* From now on fn is told of kernels' loads from global memory: n bytes at the address of each lane
 * of mask. NULL: no more. */
void fake_watch(void (*fn)(void *arg, uint32_t mask, const uint64_t *address, unsigned n),
                void *arg);
/* While on, no query says that work has ended, whether it has or not. */
void fake_hold(bool on);
/* The last fault in words; "" if there was none. */
const char *fake_fault(void);

/*
 * For a library above the driver, which the fake cuBLAS is.
 */

/* One of its calls, by its row in calls.def: 0, or what it answers at once. handles: how many more
 * there are of its handles. */
int fake_library(const char *name, int handles);
/* run(context) is one piece of work of a stream of the current context, with the n bytes of context
 * copied now; it returns a CUresult, as this does. */
int fake_enqueue(void *stream, int (*run)(void *context), const void *context, size_t n);
/* Where n bytes of device memory lie; NULL, with a fault in words, if they are not all in one
 * allocation. */
void *fake_memory(uint64_t device, size_t n, const char *what);
/* Within such a run: a number that follows from the seed and what came before. */
uint64_t fake_random(void);
/* Add to one of the counts. */
void fake_add(const char *name, uint64_t n);

#pragma GCC visibility pop

#endif
