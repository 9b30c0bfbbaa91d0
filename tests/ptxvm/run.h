/*
 * run: modules, kernels, blocks and warps as the machine itself sees them. Internal to
 * tests/ptxvm; functions of instructions need machine.h alone, but for those of memory and warps.
 */
#ifndef CP_PTXVM_RUN_H
#define CP_PTXVM_RUN_H

#include "tests/ptxvm/machine.h"
#include "tests/ptxvm/ptxvm.h"

/* ---- modules ---- */

typedef enum ptx_space {
    PTX_GENERIC,
    PTX_GLOBAL, /* and constant memory: one range of addresses */
    PTX_SHARED,
    PTX_LOCAL,
    PTX_PARAM,
    PTX_SPACES
} ptx_space;

/* Where a space lies among generic addresses; global addresses are their own. */
#define PTX_WINDOW_SHIFT 60
static inline uint64_t ptx_window(ptx_space space)
{
    return space <= PTX_GLOBAL ? 0 : (uint64_t)(space - PTX_GLOBAL) << PTX_WINDOW_SHIFT;
}

typedef struct ptx_constant {
    uint64_t value;
    uint32_t at;
    uint8_t width;
    bool dynamic; /* the start of dynamic shared memory */
    int next;     /* of its hash bucket; -1: none */
} ptx_constant;

enum { PTX_SPECIALS = 19, PTX_BUCKETS = 256, PTX_SINK_BYTES = 256 };
extern const char *const ptx_special_names[PTX_SPECIALS];

struct ptx_kernel {
    char *name;
    ptx_module *module;
    ptx_inst *code;
    uint64_t *executed; /* [n_code] */
    size_t n_code, cap_code;
    ptx_constant *constants;
    size_t n_constants, cap_constants;
    int buckets[PTX_BUCKETS];
    uint32_t special[PTX_SPECIALS]; /* place in the register file; 0: not used */
    size_t reg_bytes;               /* of a warp; the sink lies at 0 */
    size_t param_bytes, shared_bytes, local_bytes;
    unsigned max_threads;
};

typedef struct ptx_data {
    uint64_t device;
    void *host;
} ptx_data;

struct ptx_module {
    char *text;
    ptx_kernel **kernels;
    size_t n_kernels, cap_kernels;
    ptx_data *data; /* variables of the module in global and constant memory */
    size_t n_data, cap_data;
};

/* Room for one more element after n; never NULL (out of memory ends the process). */
void *ptx_more(void *array, size_t *cap, size_t n, size_t size);
void *ptx_zeroed(size_t n, size_t size);
/* Line number `line` of text, without leading blanks; its length in *n, cut to 100. */
const char *ptx_line_text(const char *text, int line, int *n);
/* The first row of that text, and how many follow each other. NULL: no row. */
const ptx_row *const *ptx_rows_of(const char *text, size_t n_text, size_t *n_rows);

/* ---- memory ---- */

/* What blocks did to 64 bytes in the launch of that number (race_global.c). */
typedef struct ptx_chunk {
    uint64_t read, written, constant; /* a bit a byte; constant: read as such */
    uint32_t launch, owner, spread;
    uint32_t traced, trace; /* of the running block, if it is 1 less than traced */
} ptx_chunk;

typedef struct ptx_range {
    uint64_t device, end;
    unsigned char *host;
    ptx_chunk *chunks; /* NULL until a launch wants them; of [device / 64, ...) */
} ptx_range;

/* The range that holds all of [first, end), or NULL. Under the lock. */
ptx_range *ptx_range_of(uint64_t first, uint64_t end);
/* Bytes from the end of the last range before the address to it; UINT64_MAX: there is none. */
uint64_t ptx_range_gap(uint64_t address);
void ptx_memory_lock(void);
void ptx_memory_unlock(void);

/* ---- blocks and warps ---- */

/* What threads did to a byte; for the word at a multiple of 4 if it is not split (race.c). */
typedef struct ptx_cell {
    uint32_t write_epoch, write_sync, read_epoch, read_sync, read_lanes;
    uint16_t writer, read_warp;
    bool atomic, mixed, split; /* mixed: atomics of several lanes of the writer's warp */
} ptx_cell;

/* The bytes that cells are about: of shared memory, or from that global address on. */
typedef struct ptx_place {
    ptx_cell *cells;
    uint64_t base; /* 0: shared memory */
} ptx_place;

/* Of a chunk that the running block touched. */
typedef struct ptx_trace {
    ptx_cell cells[64];
} ptx_trace;

typedef struct ptx_group {
    uint32_t mask;
    int32_t pc;
} ptx_group;

typedef struct ptx_copy { /* a cp.async of a lane that nothing has waited for */
    uint64_t src;
    uint32_t dst, group;
    uint8_t lane, n, take;
} ptx_copy;

typedef enum ptx_status { PTX_RUNS, PTX_WAITS, PTX_DONE, PTX_FAILED } ptx_status;

enum { PTX_SYNCS = 64 };
typedef struct ptx_state {
    ptx_warp w; /* first: a ptx_warp is a ptx_state */
    unsigned number;
    ptx_status status;
    uint32_t mask, full; /* the running lanes; the lanes that the warp started with */
    int32_t pc, meet;    /* meet: the nearest pc of another group, where the lanes meet */
    int n_others;
    ptx_group others[32];
    uint32_t syncs, full_sync; /* bar.warp.sync so far; the last of them that had every lane */
    uint32_t sync_mask[PTX_SYNCS];
    ptx_copy *copies;
    size_t n_copies, cap_copies;
    uint32_t committed[32];
} ptx_state;

struct ptx_block {
    ptx_kernel *kernel;
    ptx_options options;
    ptx_stats stats;
    const unsigned char *params;
    unsigned char *shared, *local;
    size_t shared_bytes;
    uint8_t *pending; /* [shared_bytes / 4]: copies under way into the word */
    uint32_t n_pending;
    ptx_cell *cells; /* [shared_bytes], NULL: races are not looked for */
    ptx_state *warps;
    unsigned n_warps, n_threads;
    unsigned grid[3], dim[3], id[3];
    uint32_t number;   /* of the block in its launch */
    uint32_t epoch;    /* barriers of the launch so far: never the same in two blocks */
    uint64_t executed; /* warp instructions of this block */
    uint64_t random;
    ptx_range *range; /* the one last used */
    struct ptx_spread *spreads;
    size_t n_spreads, cap_spreads;
    ptx_trace *traces; /* of this block */
    size_t n_traces, cap_traces;
    uint32_t launch;
    bool failed;
    char *err;
    size_t n_err;
};

static inline ptx_state *ptx_state_of(ptx_warp *w)
{
    return (ptx_state *)(void *)w;
}

/* Run the warp for at most quantum instructions, or to a barrier or its end. */
ptx_status ptx_run(ptx_state *s, uint64_t quantum);

/* ---- access: reach.c, race.c, count.c ---- */

typedef enum ptx_use {
    PTX_LOAD,
    PTX_STORE,
    PTX_ATOMIC,
    PTX_ASYNC,
    PTX_CONSTANT /* a load of what nobody writes in the launch */
} ptx_use;
static inline bool ptx_reads(ptx_use use)
{
    return use == PTX_LOAD || use == PTX_CONSTANT;
}

/*
 * Where n bytes at each lane's address lie on the host, for the lanes of w->mask, with every check:
 * alignment, bounds, races, copies under way; and the counts. n: 1, 2, 4, 8 or 16. PTX_ASYNC: a
 * store to shared memory that happens later. False: a fault was reported.
 */
bool ptx_reach(ptx_warp *w, const ptx_inst *i, ptx_space space, const uint64_t address[32],
               unsigned n, ptx_use use, unsigned char *at[32]);
/* Addresses of the memory operand at op[n], whose offset is literal k. */
void ptx_addresses(const ptx_warp *w, const ptx_inst *i, int n, int k, uint64_t address[32]);

/* Of the mask's lanes. False: a fault was reported. */
bool ptx_race_shared(ptx_warp *w, const ptx_inst *i, uint32_t mask, const uint64_t address[32],
                     unsigned n, ptx_use use);
/* One lane's n bytes at place->cells[at]. */
bool ptx_race_lane(ptx_warp *w, const ptx_inst *i, const ptx_place *place, int lane, uint32_t at,
                   unsigned n, ptx_use use);
bool ptx_race_global(ptx_warp *w, const ptx_inst *i, ptx_range *r, uint32_t mask,
                     const uint64_t address[32], unsigned n, ptx_use use);

void ptx_count_global(ptx_block *b, uint32_t mask, const uint64_t address[32], unsigned n,
                      ptx_use use);
void ptx_count_shared(ptx_block *b, uint32_t mask, const uint64_t address[32], unsigned n);

/* Lanes leave the kernel: false, and a fault, when copies of theirs are under way. */
bool ptx_async_left(ptx_warp *w, const ptx_inst *i, uint32_t lanes);

#define PTX_EACH(l, mask)                                                                          \
    for (uint32_t l##_left = (mask), l = 0;                                                        \
         l##_left && ((l = (uint32_t)__builtin_ctz(l##_left)), true); l##_left &= l##_left - 1)

#endif
