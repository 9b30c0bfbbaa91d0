/*
 * run: what the walker (exec.c) and its larger operations share. Internal to kernels/cpu.
 *
 * A cpu_run is one prepared program's part of the backend: bound linears, attention plans, worker
 * scratch. During a step every pool worker holds a `cpu_worker`, walks the records in the same
 * order and reaches the same barriers; what a worker may write is its own scratch, the items it
 * drew, and the rows that are its by number.
 */
#ifndef CP_KERNELS_CPU_RUN_H
#define CP_KERNELS_CPU_RUN_H

#include "kernels/cpu/experts.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/vec.h"
#include "kernels/host.h"
#include "kernels/plan.h"

#include <stdatomic.h>

enum {
    CPU_LINE = 64,
    CPU_TILE_QUERIES = 24, /* query vectors (rows x heads of a kv head) of an attention item */
    CPU_TILE_ROWS = 16,    /* rows of one, at most */
    CPU_PIECE_CHUNKS = 4,  /* chunks of logits in an item of SAMPLE, when workers share a row */
    CPU_RESULTS = 1024,    /* split results that wait for a merge, per kv head */
};

/* Attention records of equal geometry have one plan a step. */
typedef struct cpu_plan {
    const cp_batch *batch; /* of this step: as it is, or its output rows alone */
    cp_rows rows;
    int n_heads, k_dim, v_dim;
    int q_heads; /* query heads a kv head */
    cp_attn_shape shape;
    cp_attn_item *items; /* [cp_attn_max_items()] */
    int n_items;
} cpu_plan;

typedef struct cpu_scratch {
    uint8_t *act;        /* activations when every worker prepares its own */
    uint8_t *linear;     /* for cp_linear_item and cp_experts_item */
    cp_expert_plan plan; /* of EXPERTS */
    float *row[2];       /* one row each */
    float *q, *s, *o, *os, *m, *l, *ms, *ls;
    uint16_t *half; /* of a level's own attention (cp_attend) */
    int *lo, *hi;
    float *delta; /* columns of a DeltaNet's state that are kept nowhere */
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

/* The most likely ids of a piece of a row: descending logits, then ascending ids. */
typedef struct cpu_top {
    int n;
    int32_t id[CP_MAX_TOP];
    float x[CP_MAX_TOP];
} cpu_top;

typedef struct cpu_op {
    cp_linear *linear;
    cp_experts *experts;
    int plan; /* ATTENTION */
} cpu_op;

typedef struct cpu_run {
    cp_prepared *p;
    cp_isa isa;
    const cp_vec *vec;
    void (*attend)(const cp_attend *a); /* of vec, or the level's own */
    cp_pool *pool;
    int threads;
    cp_host_ids ids;
    int64_t busy_ns;          /* of worker 0 in records, since prepare */
    uint64_t fails_from;      /* tests: the step from which on the device has failed */
    cpu_op *ops;              /* [p->n_ops] */
    cp_gemm_weight **weights; /* [n_weights] those of ops, in a row */
    int n_weights;
    cp_panels *panels;
    cpu_plan *plans;
    int n_plans;
    cpu_scratch *scratch; /* [threads] */
    uint8_t *act;         /* shared activations, the largest of any record */
    size_t act_bytes;
    bool fused;             /* this step: one row a sequence, K and V are written by the items */
    cp_batch out;           /* this step's output rows as a batch, where a record is about them */
    cp_batch_seq *out_seqs; /* [max_out] */
    int32_t *out_pos;
    float *results;          /* [CPU_RESULTS][result_floats] of splits that wait for a merge */
    size_t result_floats;    /* one result: [n_heads][v_dim + 2], padded */
    int max_kv;              /* the most kv heads of a record */
    int max_delta;           /* the most v heads of a DELTANET record */
    _Atomic int *delta_done; /* [max_seqs * max_delta] parts of the head that are done; 0 at rest */
    _Atomic int *merges;     /* [CPU_RESULTS * max_kv] results that have arrived; 0 at rest */
    /* SAMPLE, a row each */
    float *block_max;             /* [max_out][n_blocks] */
    float *chunk_max, *chunk_sum; /* [max_out][n_chunks] */
    cpu_top *tops;                /* [max_out][n_pieces] */
    _Atomic int *row_done;        /* pieces of the row that are done; 0 at rest */
    _Atomic int *row_nan;
    int n_blocks, n_chunks, n_pieces;
} cpu_run;

typedef struct cpu_worker {
    cpu_run *run;
    cp_pool *pool;
    int id;
    const cp_batch *batch;
    cpu_scratch *s;
    int from, to;     /* records of this run */
    unsigned n_items; /* that worker 0 has asked for */
    cp_share share;   /* of the record's items */
} cpu_worker;

/* A record that has rows, on every worker; bound: what prepare made of it. False: this worker
 * leaves the run. */
typedef bool cpu_op_fn(cpu_worker *w, const cp_op *op, const cpu_op *bound);
#define X(kind, name) cpu_op_fn cp_cpu_##name;
CP_OPS(X)
#undef X

/* attention.c: before the first step; at the start of each, by the engine's thread. */
void cp_cpu_attention_bind(cpu_run *run);
void cp_cpu_attention_plan(cpu_run *run, const cp_batch *batch);
void cp_cpu_delta_bind(cpu_run *run); /* delta.c: before the first step */
/* exec.c: the next item of the record's n, drawn by all workers; >= n: none is left. Worker 0's
 * items beat (cp_batch.beat), so a record that takes long is alive. */
int64_t cp_cpu_item(cpu_worker *w, int64_t n);
/* The same of items whose weights lie one behind the other, drawn in shares. */
int64_t cp_cpu_weight_item(cpu_worker *w, int64_t n);
/* Whether every worker prepares its own activations (no barrier); records [from, to) of the step on
 * all of them, from 0 with what is done to pages first. */
bool cp_cpu_prologue_alone(int n_rows, int k);
void cp_cpu_walk(cpu_run *run, const cp_batch *batch, int from, int to);

#endif
