/*
 * weight: what LINEAR and EXPERTS share: a weight bound to its panels, and rows of inputs in the
 * formats that weights want. Internal to kernels/cpu. A weight is immutable once it is packed; any
 * thread may multiply with it.
 */
#ifndef CP_KERNELS_CPU_WEIGHT_H
#define CP_KERNELS_CPU_WEIGHT_H

#include "kernels/cpu/gemm.h"
#include "kernels/panels.h"

enum {
    CPU_CHUNK = 132,           /* rows of an item at most */
    CPU_FEW_ROWS = 8,          /* up to here an item is sized by its weights' bytes */
    CPU_ITEM_BYTES = 48 << 10, /* weights an item of few rows */
    CPU_MIN_ITEMS = 16,
};
#define CPU_TILE_FLOATS ((size_t)CPU_CHUNK * CP_LANES)

/* A matrix, or n_matrices of one shape (experts), each in panels of its own. */
typedef struct cp_gemm_weight {
    const cp_tensor *t;
    cp_unpack_fn *unpack;
    const uint8_t *packed; /* all panels, or NULL: unpacked on read */
    float *bias;           /* [n_matrices][panels * 16], or NULL; owned */
    int64_t m;             /* outputs of a matrix */
    int64_t panels;        /* of a matrix */
    int64_t n_matrices;
    size_t panel_bytes;
    cp_panel_kind kind;
} cp_gemm_weight;

/* The formats that a record's weights want its inputs in, and the largest panel among them. */
typedef struct cp_gemm_inputs {
    const cp_gemm_table *table;
    int k;                      /* 0: no weight was opened yet */
    bool want8, want32, want16; /* int8 blocks, f32, bf16 */
    size_t panel_bytes;
} cp_gemm_inputs;

/* Binds w to t and to its bias (NULL: none) and adds to `in` what it wants; what is bound is given
 * to fini, of a bind that failed, too. CP_UNSUPPORTED: type or shape, named. */
cp_code cp_gemm_weight_bind(cp_gemm_weight *w, cp_gemm_inputs *in, const cp_tensor *t,
                            const cp_tensor *bias, cp_err *err);
void cp_gemm_weight_fini(cp_gemm_weight *w);
/* Pack all of them into panels, or map them, as cp_panels_pack does; before that, and where it
 * fails, they are unpacked on read. Any thread, not during a step that uses them. */
cp_code cp_gemm_weights_pack(cp_gemm_weight *const *weights, int n, cp_panels *panels,
                             cp_pool *pool, cp_err *err);
/* The bytes that packing them takes, and what they have of their own beside. */
size_t cp_gemm_weights_own_bytes(cp_gemm_weight *const *weights, int n);
cp_code cp_gemm_weights_bytes(cp_gemm_weight *const *weights, int n, size_t *bytes, cp_err *err);

/* Where n rows of inputs lie: [int8 blocks | f32 | bf16], each part there if a weight wants it, and
 * behind them room for what a kernel reads beyond. */
typedef struct cp_gemm_layout {
    size_t stride8, stride32, stride16; /* bytes a row */
    size_t at32, at16, bytes;           /* offsets of the parts, and the end */
} cp_gemm_layout;
cp_gemm_layout cp_gemm_layout_of(const cp_gemm_inputs *in, int64_t n);
/* x[k] becomes row r of act. */
void cp_gemm_put_row(const cp_gemm_inputs *in, const cp_gemm_layout *a, const float *x, int64_t r,
                     void *act);
/* Row `to` becomes what row `from` is. */
void cp_gemm_copy_row(const cp_gemm_inputs *in, const cp_gemm_layout *a, int64_t from, int64_t to,
                      void *act);
/*
 * A worker's scratch for the items of a record, aligned to 64 bytes: a panel, two tiles of sums,
 * and rows of the inputs as many columns' kernels want them, which stay for the next panel.
 */
size_t cp_gemm_scratch_bytes(const cp_gemm_inputs *in);
/* Before the worker's first item of each record. */
void cp_gemm_scratch_begin(void *scratch);
/* [2][CPU_TILE_FLOATS], for the caller. */
float *cp_gemm_scratch_tiles(const cp_gemm_inputs *in, void *scratch);
/* tile[rows][16] = panel p of matrix e of w times rows [r0, r0 + rows) of act. */
void cp_gemm_panel(const cp_gemm_inputs *in, const cp_gemm_weight *w, int64_t e, int64_t p,
                   const cp_gemm_layout *a, const void *act, int64_t r0, int rows, void *scratch,
                   float *tile);
/* Panel p[i] of weight w[i] for one row, r0, both at a time: tile[i][16], the same bits. False: one
 * by one, and nothing was done. */
bool cp_gemm_panel_pair(const cp_gemm_inputs *in, const cp_gemm_weight *const w[2],
                        const int64_t p[2], const cp_gemm_layout *a, const void *act, int64_t r0,
                        float *const tile[2]);
/* Its panel's bias, or NULL. */
static inline const float *cp_gemm_bias(const cp_gemm_weight *w, int64_t e, int64_t p)
{
    return w->bias ? w->bias + (e * w->panels + p) * CP_LANES : NULL;
}

/* Rows of a chunk when n are cut into as few as CPU_CHUNK allows; all but the last have so many. */
int cp_gemm_chunk_rows(const cp_gemm_table *table, int n);

#endif
