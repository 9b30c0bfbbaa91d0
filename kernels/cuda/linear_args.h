/*
 * linear_args: what LINEAR and EXPERTS hand to their kernels, in words that C and CUDA share.
 * Internal to kernels/cuda.
 *
 * A block computes CUDA_OUTPUTS outputs of up to four tiles of eight rows; its warps take segments
 * of K, and one ordered sum follows. A launch has weights of one k and of one kind, or of several
 * kinds of panels: all that a record has of these, side by side. Of a record of experts, "rows" are
 * places: the pairs of a row and a rank, in the order of experts, each of which begins at a whole
 * tile.
 */
#ifndef CP_KERNELS_CUDA_LINEAR_ARGS_H
#define CP_KERNELS_CUDA_LINEAR_ARGS_H

#include "kernels/cuda/act.h"
#include "kernels/cuda/step.h"
#include "kernels/panel_kinds.h"

enum {
    CUDA_OUTPUTS = 32,
    CUDA_SEGMENT_WARPS = 8, /* of a block, at most */
    CUDA_TILES = 4,         /* of a block, at most: as many, or 2, or 1 */
    CUDA_PARTS = 4,
    CUDA_PROLOGUE_THREADS = 256,
    CUDA_EPILOGUE_THREADS = 256,
    CUDA_SORT_THREADS = 512
};

/* Kinds of panels, by number. */
enum {
#define X(name, bits, codes, form, offset, block, head) CUDA_KIND_##name,
    CP_INT_PANELS(X)
#undef X
        CUDA_KINDS
};

/* A matrix, or one of each expert, from the first output that is wanted. */
typedef struct cuda_matrix {
    CUDA_PTR(const uint8_t) w;         /* panels, or rows in file order; 0: none */
    CUDA_PTR(const float) bias;        /* 0: none */
    int64_t matrix_bytes, matrix_bias; /* from one expert to the next: bytes, values */
    int64_t row_bytes;                 /* of a panel, of a row in file order */
    int32_t kind;                      /* of panels; for k_linear_m alone */
} cuda_matrix;

/* One product, or gate and up. */
typedef struct cuda_part {
    cuda_matrix w[2];          /* w[1]: up */
    CUDA_PTR(float) out;       /* [rows][ld], of experts [rows][n_used][m] */
    CUDA_PTR(const float) mul; /* [rows][ld_mul], in the place of up; 0: none */
    CUDA_PTR(float) up_sums;   /* [rows][ld], of k_epilogue: what up's product left */
    int32_t m, ld, ld_mul;
    int32_t block0; /* the first block of this part */
} cuda_part;

/* Up to CUDA_TILES tiles of places that one expert has. */
typedef struct cuda_expert_item {
    int32_t expert, place, n;
} cuda_expert_item;

/* Where the pairs of a step went. */
typedef struct cuda_places {
    CUDA_PTR(int32_t) place;          /* [rows * n_used] of a pair */
    CUDA_PTR(int32_t) pair;           /* of a place; what no pair has is not written */
    CUDA_PTR(int32_t) n_items;        /* [3] by log2 of the tiles of an item */
    CUDA_PTR(cuda_expert_item) items; /* [3][max_items] */
    int32_t max_items;
    int32_t n_used; /* 0: no experts, rows lie as they are */
} cuda_places;

typedef struct cuda_linear_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const void) act;     /* cuda_act, or rows of f32, bf16 or f16 */
    CUDA_PTR(const float) scales; /* of f16 rows: what products of 32 inputs are multiplied with */
    cuda_places places;
    int32_t out_rows;  /* the rows are the step's outputs */
    int32_t k, act_ld; /* act_ld: values of a row */
    int32_t n_parts;
    int32_t activation; /* cp_act */
    float scale, softcap;
    cuda_handed handed; /* of the only part */
    cuda_part parts[CUDA_PARTS];
} cuda_linear_args;

typedef struct cuda_prologue_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) in;
    CUDA_PTR(const float) add; /* [rows][ld]; add 0: none */
    CUDA_PTR(float) x_out;     /* 0: none */
    CUDA_PTR(const float) add_norm;
    CUDA_PTR(const float) norm;
    CUDA_PTR(cuda_act) act; /* each of the four may be 0 */
    CUDA_PTR(float) f32;    /* [rows][ld32] */
    CUDA_PTR(uint16_t) bf16;
    CUDA_PTR(uint16_t) f16;        /* [rows][ld16], zeroes behind k */
    CUDA_PTR(float) f16_scales;    /* what f16 was divided by */
    CUDA_PTR(const int32_t) place; /* [rows * n_used], or 0: row r is written to place r */
    int32_t n_used, by_rank;
    int32_t f16_by_row; /* all of a row by one power, for cuBLAS */
    int32_t out_rows, k;
    int32_t ld, ld_add, ld_x_out, ld32, ld16;
    float eps, in_scale;
} cuda_prologue_args;

typedef struct cuda_sort_args {
    CUDA_PTR(const cuda_step) step;
    CUDA_PTR(const float) ids; /* [rows][ld] */
    cuda_places places;
    int32_t out_rows, ld, n_expert;
} cuda_sort_args;

/* Which of the three widths a launch takes for n rows, of which a matrix meets 1 in `spread`. */
static inline int cuda_log2_tiles(int n, int spread)
{
    int each = n / spread;
    return each <= CUDA_TILE ? 0 : each <= 2 * CUDA_TILE ? 1 : 2;
}

#endif
