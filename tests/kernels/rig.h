/*
 * rig: small programs for the kernel tests. A rig owns a program, its random weights and matrices;
 * a machine is that program prepared on one backend, level and thread count, with pages, states and
 * input matrices filled from a seed, so that two machines of a rig start equal. Everything asserts.
 */
#ifndef CP_TESTS_KERNELS_RIG_H
#define CP_TESTS_KERNELS_RIG_H

#include "kernels/backend.h"

enum { RIG_OPS = 64, RIG_MATS = 64, RIG_WEIGHTS = 96 };

typedef struct rig {
    cp_program prog;
    cp_op ops[RIG_OPS];
    struct cp_mat_desc mats[RIG_MATS];
    cp_weight weights[RIG_WEIGHTS];
    cp_tensor tensors[RIG_WEIGHTS];
    cp_prepare_config cfg;
    uint64_t device_bytes; /* as cp_backend_config's, with the next two */
    bool exact;
    bool odd; /* machine_fill: a row of three has values at which something changes, and ties */
    cp_gemm gemm;
    uint64_t seed;
    cp_pool *pools[5]; /* by thread count; shared by the rig's machines */
} rig;

typedef struct machine {
    cp_backend *b;
    cp_prepared *p;
    const rig *r;
    const char *level; /* what it was opened with */
} machine;

/* A sequence of a batch: rows at positions [pos0, pos0 + n_rows). */
typedef struct rig_seq {
    int pos0, n_rows;
    uint32_t state_in, state_out, state_save;
} rig_seq;

typedef struct rig_batch {
    cp_batch b;
    cp_batch_seq *seqs;
    uint32_t **tables; /* [n_seqs * n_groups] */
    const uint32_t **lists;
    int32_t *tok, *pos, *row_seq, *out_rows;
    int n_groups;
} rig_batch;

void rig_init(rig *r, uint64_t seed);
void rig_fini(rig *r);
uint64_t rig_random(rig *r, uint64_t below);
float rig_uniform(rig *r); /* [-1, 1) */
/* Value n of those at which something changes, or that round or compare oddly; over and over. */
float rig_odd(uint64_t n);
cp_mat rig_mat(rig *r, int width, cp_rows rows);
cp_wref rig_weight(rig *r, cp_dtype t, int64_t k, int64_t m, cp_role role);
cp_wref rig_experts(rig *r, cp_dtype t, int64_t k, int64_t m, int64_t n_expert);
cp_wref rig_vector(rig *r, int64_t n, int64_t rows); /* F32, around 1 */
cp_wref rig_vector_around(rig *r, int64_t n, int64_t rows, float centre);
cp_op *rig_op(rig *r, cp_op_kind kind, cp_rows rows);
/* A LINEAR record of one weight without prologue; change what the test is about. */
cp_op *rig_linear(rig *r, cp_mat in, cp_wref w, cp_mat out, cp_rows rows);
int rig_group(rig *r, cp_kv_group g);

/* Levels of the cpu backend that this machine has, ascending, of which CAPSTAN_TEST_LEVEL may name
 * the only one; NULL-terminated. Where CAPSTAN_TEST_DEVICE names a device, it alone: tests of the
 * levels are then of it. */
const char *const *rig_levels(void);
int rig_threads(void); /* thread counts that are worth a try: 1 to this */
/* backend "ref" (level NULL) or "cpu" at a level with 1 to 4 threads; or that device, with exact
 * numerics. */
machine machine_open(rig *r, const char *level, int threads);
/* Backends of the build that open here; NULL-terminated. cuda is among them where CAPSTAN_LIBCUDA
 * names a driver for it: tests do not run on a GPU that happens to be there. */
const char *const *rig_backends(void);
bool rig_has(const char *device); /* among them */
/* On the backend of that name; level and threads are the cpu's. */
machine machine_open_on(rig *r, const char *device, const char *level, int threads);
void machine_close(machine *m);
/* Equal for equal seeds: all matrices, K/V of all pages but page 0, all states but slot 0. */
void machine_fill(machine *m, uint64_t seed);
void machine_step(machine *m, const cp_batch *b);
/* The machine's memory by its row's functions: one row of a matrix; a copy of a page, to be freed.
 */
void machine_put_row(machine *m, cp_mat s, int r, const float *x);
float *machine_row(const machine *m, cp_mat s, int r); /* a copy, to be freed */
void *machine_page(const machine *m, uint32_t page);
void machine_put_page(machine *m, uint32_t page, const void *bytes);
void machine_get_row(const machine *m, cp_mat s, int r, float *x);
/* Fails with the first differing element; it looks beyond the `rows` rows of the step and beside
 * them, too, where nothing but what machine_fill put may stand. */
void machines_equal(const machine *a, const machine *b, cp_mat s, int rows, const char *what);
/* Whole page pool and state pool. */
void machines_equal_memory(const machine *a, const machine *b, const char *what);

/* A batch over seqs; pages are drawn without repetition in random order, and entries that a WINDOW
 * group has passed are the null page. Every row wants an output when all_out, else each last one.
 */
void rig_batch_init(rig_batch *b, rig *r, const rig_seq *seqs, int n_seqs, bool all_out);
void rig_batch_fini(rig_batch *b);

#endif
