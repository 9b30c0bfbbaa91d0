/*
 * ptxvm: a machine that executes PTX on the host, as strictly as the tests of the CUDA kernels want
 * it. A module is PTX text; every instruction must have its full opcode in the machine's tables,
 * or the load fails with line and text. A launch runs the blocks one after another on the caller's
 * thread and is deterministic for a seed. It ends at the first fault: an access outside live
 * memory or not aligned, a barrier or a warp operation that not all lanes reach, a race between
 * threads of a block in shared or global memory (also inside a warp), two blocks that touch one
 * byte of which one writes, a write to what is read as constant, a read of what cp.async has not
 * brought yet, a trap. Shared and local memory start as NaNs,
 * with shuffle in some blocks as large numbers.
 *
 * Launches, and what changes memory, exclude one another; a module belongs to one thread at a time.
 */
#ifndef CP_PTXVM_H
#define CP_PTXVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ptx_module ptx_module;
typedef struct ptx_kernel ptx_kernel;

/* False: err names line and text. */
bool ptx_load(ptx_module **out, const char *text, char *err, size_t n_err);
void ptx_unload(ptx_module *m);                        /* NULL: nothing */
ptx_kernel *ptx_find(ptx_module *m, const char *name); /* NULL: none */
size_t ptx_n_kernels(const ptx_module *m);
ptx_kernel *ptx_kernel_at(ptx_module *m, size_t n);

const char *ptx_name(const ptx_kernel *k);
size_t ptx_param_bytes(const ptx_kernel *k);
size_t ptx_shared_bytes(const ptx_kernel *k);  /* static */
size_t ptx_local_bytes(const ptx_kernel *k);   /* of a thread */
unsigned ptx_max_threads(const ptx_kernel *k); /* launch bounds; 1024 without */

/*
 * Device memory: [device, device + n) is backed by the bytes at host. device is any number below
 * 2^56 that no live range holds; with a bit set that no host address has (52), a dereference on the
 * host faults. False: the range overlaps another.
 */
bool ptx_memory_add(uint64_t device, void *host, size_t n);
void ptx_memory_remove(uint64_t device);
/* NULL: not all inside one range. */
void *ptx_memory_host(uint64_t device, size_t n);

/* A warp's loads of global memory (also cp.async's): n bytes at the address of each lane of mask.
 */
typedef void ptx_watch_fn(void *arg, uint32_t mask, const uint64_t address[32], unsigned n);
typedef struct ptx_options {
    uint64_t seed;
    uint64_t limit; /* warp instructions of a block; 0: 2^33. More is a fault: the kernel hangs */
    bool race;      /* find races: between threads of a block, and between blocks */
    bool shuffle;   /* blocks, and the warps of a block, take turns in an order by seed */
    bool count;     /* sectors, banks and bytes of the statistics */
    ptx_watch_fn *watch; /* NULL: nobody asks */
    void *watch_arg;
} ptx_options;

/* What launches did, summed: a launch adds to it. */
typedef struct ptx_stats {
    uint64_t warp_instructions, lane_instructions;
    uint64_t blocks, barriers, diverged_branches;
    /* with count: global memory. A request is one instruction of a warp; its sectors are the
     * different 32-byte pieces that it touches; fresh sectors, those that no request of the launch
     * had touched before (loads and stores apart). */
    uint64_t load_requests, load_bytes, load_bytes_128, load_sectors, load_sectors_fresh;
    uint64_t store_requests, store_bytes, store_sectors, store_sectors_fresh;
    uint64_t async_bytes; /* of cp.async, which the loads above include */
    /* with count: shared memory. Wavefronts: 128 bytes each, banks of 4 bytes; ideal without
     * conflicts. */
    uint64_t shared_requests, shared_wavefronts, shared_wavefronts_ideal;
} ptx_stats;

/* params: n_params == ptx_param_bytes(k) bytes. shared: dynamic bytes. o and s may be NULL. False:
 * err says what, with kernel, block, warp, line and text. */
bool ptx_launch(ptx_kernel *k, const unsigned grid[3], const unsigned block[3], size_t shared,
                const void *params, size_t n_params, const ptx_options *o, ptx_stats *s, char *err,
                size_t n_err);

/* How often the launches so far executed the n-th instruction of a kernel. */
typedef struct ptx_line {
    int line; /* of the module's text, from 1 */
    const char *opcode;
    uint64_t executed;
} ptx_line;
size_t ptx_n_lines(const ptx_kernel *k);
ptx_line ptx_line_at(const ptx_kernel *k, size_t n);

#endif
