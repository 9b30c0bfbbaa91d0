/*
 * fake: what the files of the fake driver share. Internal to tests/fakes/libcuda.
 *
 * One lock is held from fake_enter() to fake_leave() of each call, and work of streams runs under
 * it, in whichever call makes it run. Handles are never reused nor freed: a dead one is refused.
 */
#ifndef CP_TESTS_FAKE_H
#define CP_TESTS_FAKE_H

#include "tests/fakes/libcuda/api.h"
#include "tests/fakes/libcuda/libcuda_fake.h"
#include "tests/ptxvm/ptxvm.h"

typedef enum fake_call {
#define CALL(name, kind, code) FAKE_##name,
#include "tests/fakes/libcuda/calls.def"
#undef CALL
    FAKE_CALLS
} fake_call;

typedef struct fake_counts {
#define COUNT(name) uint64_t name;
#include "tests/fakes/libcuda/counts.def"
#undef COUNT
} fake_counts;

enum { FAKE_DEVICES = 8, FAKE_CONTEXT_BYTES = 4 << 20 };
enum {
    FAKE_BLOCK_THREADS = 1024,
    FAKE_SM_THREADS = 2048,
    FAKE_SM_BLOCKS = 32,
    FAKE_SHARED = 48 << 10,
    /* of the smallest devices that kernels run on (sm_86, 89, 120), whatever FAKE_CC is */
    FAKE_SHARED_OPTIN = 99 << 10,
    FAKE_SHARED_SM = 100 << 10,
};

typedef struct fake_stream fake_stream;

typedef struct fake_device {
    int index;
    int retained;
    CUresult broken; /* an error that stays */
    size_t used;
    fake_stream *null; /* the default stream */
} fake_device;

/* One piece of work. What it reads by value lies behind it. */
typedef struct fake_op fake_op;
struct fake_op {
    fake_op *next;
    CUresult (*run)(fake_op *op); /* NULL: waits alone */
    fake_stream *stream;
    uint64_t at;       /* its number in its stream, from 1 */
    fake_stream *wait; /* before it that stream must have done wait_for; NULL: nothing */
    uint64_t wait_for;
    CUdeviceptr to, from;
    void *host;   /* the host's end of a copy; NULL: the bytes lie behind the op */
    bool pinned;  /* host is, and must still be */
    uint64_t sum; /* of the pinned source when it was enqueued */
    size_t n;
    unsigned value; /* of a memset */
    struct fake_event *event;
    struct fake_function *f;
    int (*call)(void *context);
    unsigned grid[3], block[3];
    size_t shared;
    size_t n_data;
    _Alignas(16) unsigned char data[];
};

struct fake_stream {
    fake_stream *next;
    fake_device *device;
    bool blocking; /* it and the default stream wait for each other */
    bool dead;
    bool slow; /* eager: its work seldom runs before it is waited for */
    uint64_t issued, done;
    fake_op *first, **last;
};

typedef struct fake_event {
    struct fake_event *next;
    fake_device *device;
    bool dead, timed;
    fake_stream *stream; /* of the latest record; NULL: none yet */
    uint64_t at;         /* its number there */
    uint64_t ns;         /* when it ran */
} fake_event;

typedef struct fake_memory_range {
    struct fake_memory_range *next;
    fake_device *device;
    uint64_t address; /* the device's; 0: pinned and not mapped */
    unsigned char *host;
    size_t n, mapped;
    bool pinned;
    struct fake_memory_range *pinned_next; /* of those that are pinned and not freed */
} fake_memory_range;

typedef struct fake_image fake_image; /* module.c */

typedef struct fake_function {
    struct fake_function *next;
    struct fake_module *module;
    ptx_kernel *kernel;
    int parameters;
    size_t dynamic_max; /* as set by the attribute; 0: not */
} fake_function;

typedef struct fake_module {
    struct fake_module *next;
    fake_device *device;
    fake_image *image;
    fake_function *functions;
    bool dead;
} fake_module;

typedef struct fake_state {
    bool ready, initialized;
    /* the environment */
    uint64_t seed;
    bool eager, race;
    bool hold;      /* fake_hold */
    uint64_t limit; /* of the warp instructions of a block */
    int gpus, cc, driver;
    size_t memory;
    fake_call fail; /* FAKE_CALLS: none */
    uint64_t fail_at;
    CUresult fail_code;
    const char *coverage, *report;

    struct fake_state *past; /* before the last reset */
    uint64_t generation;     /* of resets */
    uint64_t rng;
    CUresult answer; /* of the call of kind BACK that is in here */
    uint64_t calls[FAKE_CALLS];
    fake_counts count;
    ptx_stats stats;
    int handles; /* of libraries above: cuBLAS */
    fake_device devices[FAKE_DEVICES];
    fake_stream *streams;
    fake_event *events;
    fake_memory_range *ranges;
    fake_module *modules;
    uint64_t next_address;
    char fault[1024];
} fake_state;

extern fake_state fake;

/* ---- state.c ---- */

/* Takes the lock and counts. Anything but CUDA_SUCCESS: what the call answers, at once. */
CUresult fake_enter(fake_call call);
/* Releases the lock; what the call answers. */
CUresult fake_leave(CUresult r);
/* Whether the environment wants this one to fail; counts. */
bool fake_hit(fake_call call);
/* Whether an error of that code breaks a context for good. */
bool fake_stays(CUresult r);
/* The device whose context is current; NULL: none. */
fake_device *fake_here(void);
void fake_set_here(fake_device *d);
/* Something is wrong with what the program did: said on stderr and kept. Returns r. */
CUresult fake_wrong(CUresult r, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t fake_below(uint64_t n); /* [0, n) */
/* A child of fork() has the lock that its parent held, and must say so, once. */
void fake_lock_in_child(void);
void *fake_new(size_t n); /* zeroes; the process ends where there is no memory */

/* ---- stream.c ---- */

fake_stream *fake_stream_new(fake_device *d, bool blocking);
/* NULL: no handle of a stream of the current context. */
fake_stream *fake_stream_of(CUstream handle);
fake_op *fake_op_new(CUresult (*run)(fake_op *op), size_t n_data);
/* Puts it behind what the stream has; the op is the stream's then. */
CUresult fake_push(fake_stream *s, fake_op *op);
/* Runs what must be done before work number `at` of s is, and it. */
CUresult fake_run_to(fake_stream *s, uint64_t at);
CUresult fake_run_device(fake_device *d);
/* Work that has not run yet uses this memory, or kernels of this module (NULL: not asked). */
bool fake_in_use(const fake_memory_range *m, const fake_module *module);
/* eager: some of what may run does. */
void fake_progress(void);

/* ---- memory.c ---- */

fake_memory_range *fake_range_of_host(const void *host, size_t n, bool *partly);
/* n bytes of device memory; NULL, with words: they are not all in one allocation that lives. */
void *fake_bytes(CUdeviceptr at, size_t n, const char *what);
uint64_t fake_leaked_ranges(bool pinned);

/* ---- module.c ---- */

/* Append the counts of the lines of PTX to the file that FAKE_COVERAGE names. */
void fake_cover(void);
/* The text with the fault that FAKE_MUTANT orders, to be freed; NULL: none for it. */
char *fake_mutant(const char *text);

/* ---- mutants.c ---- */

typedef CUresult fake_launch_fn(fake_op *op, ptx_kernel *k, const ptx_options *o);
typedef struct fake_image_text {
    const char *text;
    uint64_t sum;
} fake_image_text;
/* run(op, its kernel, o), and all that FAKE_MUTANTS asks for. image: the kernel's module. */
CUresult fake_mutants_launch(fake_op *op, fake_launch_fn *run, const ptx_options *o,
                             const fake_image_text *image);
/* At exit: the verdicts that are left. */
void fake_mutants_end(void);

#endif
