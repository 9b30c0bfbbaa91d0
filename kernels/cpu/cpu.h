/*
 * cpu: what the walker and its operations share. Internal to kernels/cpu.
 *
 * cp_vec is the table of vector functions of one ISA level: ops_<level>.c compile the same ops.inc,
 * attend.inc and pick.inc over v16. A cpu_run is one prepared program's part of the backend: bound
 * linears, attention plans, worker scratch. During a step every pool worker holds a `worker`, walks
 * the records in the same order and reaches the same barriers; what a worker may write is its own
 * scratch, the items it drew, and the rows that are its by number.
 */
#ifndef CP_KERNELS_CPU_CPU_H
#define CP_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/linear.h"
#include "kernels/sample.h"

#include <stdatomic.h>

enum {
    CPU_LINE = 64,
    CPU_BLOCK = 64,        /* logits a block maximum covers */
    CPU_TILE_QUERIES = 24, /* query vectors (rows x heads of a group) of an attention item */
    CPU_TILE_ROWS = 16,    /* rows of one, at most */
    CPU_PARTS = 1024,      /* split results that wait for a merge, per kv head */
    CPU_CONV_LANES = 64,   /* channels of a short convolution item */
    CPU_TAPS_MAX = 16,
};

/* The queries of some rows and one kv head against the keys of one split. */
typedef struct cp_attend {
    const float *q; /* [n][k_dim] after norm and rope */
    int n, k_dim, v_dim;
    const int *lo, *hi; /* [n] visible positions of each, absolute, lo < hi, inside the split */
    float scale, softcap;
    bool f16;
    const uint8_t *pages;
    size_t page_bytes, head_off; /* of this layer and kv head in a page */
    const uint32_t *table;
    int positions; /* P */
    float *s;      /* scratch [n][CP_SPLIT] */
    float *o;      /* [n][v_dim]: receives the sum of p v */
    float *m, *l;  /* [n]: receive maximum and sum of p */
} cp_attend;

typedef struct cp_conv {
    int d, taps, n_rows; /* channels of the layer, taps, rows of the sequence */
    int c0, n;           /* channels [c0, c0 + n) are done, n <= CPU_CONV_LANES */
    const float *w;      /* [d][taps] */
    const float *x;      /* first row: b | c | x; rows ld_x apart */
    float *y;            /* first row; rows ld_y apart */
    size_t ld_x, ld_y;
    const float *in; /* [taps - 1][d] or NULL */
    float *out, *save;
} cp_conv;

/* What SAMPLE's weights depend on. */
typedef struct cp_weigh {
    float max, inv_t, z_min;
} cp_weigh;

typedef struct cp_vec {
    void (*add)(float *y, const float *a, const float *b, int n);
    /* y = rmsnorm(x) * w; y may be x. add, when not NULL: y = add + that. */
    void (*rmsnorm)(float *y, const float *x, const float *w, const float *add, int n, float eps);
    void (*scale)(float *x, float s, int n);
    void (*rope_row)(float *cs, const float *inv_freq, int half, int pos, float mscale);
    void (*rotate)(float *x, const float *cs, int n_rot, cp_rope_kind kind);
    /* K and V of position j of a page; head: the K block's start. */
    void (*store_kv)(uint16_t *head, const float *k, const float *v, int k_dim, int v_dim,
                     int positions, int j, bool f16);
    void (*attend)(const cp_attend *a);
    /* (m, l, o) of splits so far take in the next split's. */
    void (*merge)(float *m, float *l, float *o, float ms, float ls, const float *os, int n);
    void (*finish)(float *out, const float *o, float m, float l, const float *sink, int n);
    void (*conv)(const cp_conv *c);
    /* Maxima of blocks of CPU_BLOCK logits; returns whether there is a NaN. */
    bool (*block_max)(const float *x, int n, float *max);
    float (*exp_sum)(const float *x, int n, float max); /* lane tree of exp(x - max) */
    uint64_t (*weigh_sum)(const float *x, int n, const cp_weigh *w);
    void (*weigh)(const float *x, int n, const cp_weigh *w, uint32_t *weight);
    /* Append ids base + i of x[i] >= at_least; returns how many. */
    int (*collect)(const float *x, int n, float at_least, int32_t base, int32_t *ids);
} cp_vec;

extern const cp_vec cp_vec_base;
#if defined(__x86_64__)
extern const cp_vec cp_vec_avx2, cp_vec_avx512;
#endif
/* The table of a level: its own, or that of the level it stands on (isa.c). */
const cp_vec *cp_vec_of(cp_isa isa);

/* Work of ATTENTION: rows of one sequence (a tile), all or some of their splits. */
typedef struct attn_item {
    int seq, row0, n_rows; /* rows [row0, row0 + n_rows) of the batch */
    int split0, split1;    /* splits [split0, split1) */
    int unit;              /* -1: all splits here, no merge; else index of the merge counter */
    int part;              /* partial result of split0; the tile's first is part0 */
    int part0, n_parts;
} attn_item;

/* Attention records of equal geometry have one plan a step. */
typedef struct attn_plan {
    int window, n_heads, n_kv, k_dim, v_dim;
    int tile_rows;
    attn_item *items; /* capacity max_rows + CPU_PARTS */
    int n_items;
} attn_plan;

typedef struct cpu_scratch {
    uint8_t *act;    /* activations when every worker prepares its own */
    uint8_t *linear; /* for cp_linear_item */
    float *row[2];   /* one row each */
    float *q, *s, *o, *os, *m, *l, *ms, *ls;
    int *lo, *hi;
    /* SAMPLE; [n_vocab] each, touched only as far as a row needs them */
    uint32_t *count; /* zero between rows */
    int32_t *ids;    /* candidates */
    float *x;        /* their logits, or block maxima to select from */
    uint32_t *weight;
    uint64_t *key, *key2;
    uint32_t *weight2;
    float *raw; /* logits as they were, of ids that penalties touched */
    int32_t *touched;
    uint8_t *mem;
    size_t mem_bytes;
} cpu_scratch;

typedef struct cpu_op {
    cp_linear *linear;
    int plan; /* ATTENTION */
} cpu_op;

typedef struct cpu_run {
    cp_prepared *p;
    const cp_vec *vec;
    cp_pool *pool;
    int threads;
    cpu_op *ops; /* [p->n_ops] */
    cp_panels *panels;
    attn_plan *plans;
    int n_plans;
    cpu_scratch *scratch; /* [threads] */
    uint8_t *act;         /* shared activations, the largest of any record */
    size_t act_bytes;
    bool fused; /* this step: one row a sequence, K and V are written by the items */
    float *parts;
    size_t part_floats;  /* one part: [n_heads][v_dim + 2], padded */
    _Atomic int *merges; /* [CPU_PARTS * max n_kv] split results that have arrived; 0 at rest */
    /* SAMPLE, a row each */
    float *block_max; /* [max_out][n_blocks] */
    float *chunk_max, *chunk_sum;
    _Atomic int *row_done; /* pieces of the row that are done; 0 at rest */
    _Atomic int *row_nan;
    int n_blocks, n_chunks;
} cpu_run;

typedef struct worker {
    cpu_run *run;
    cp_pool *pool;
    int id;
    const cp_batch *batch;
    cpu_scratch *s;
} worker;

/* attention.c: plans of a step (engine thread), the record (workers). */
cp_code cp_cpu_attention_prepare(cpu_run *run, cp_err *err);
void cp_cpu_attention_plan(cpu_run *run, const cp_batch *batch);
bool cp_cpu_attention(worker *w, const cp_op *op, const cpu_op *x);
/* sample.c */
void cp_cpu_sample(worker *w, const cp_op *op);
/* exec.c: whether every worker prepares its own activations (no barrier); one step on all. */
bool cp_cpu_prologue_alone(int n_rows, int k);
void cp_cpu_step(cp_prepared *p, const cp_batch *batch);

#endif
