/*
 * linear: every weight matrix product of the cpu backend, one kernel family over panels of 16
 * outputs.
 *
 * A cp_linear is one LINEAR record bound to its weights at prepare time, and immutable once its
 * panels are packed. The program walker (exec.c)
 * calls: prep for row ranges (any worker), a barrier, then items by ticket (any worker, own
 * scratch), a barrier. Bits do not depend on which worker, how many rows or whether panels were
 * packed before (ARCHITECTURE §5). It hides weight types, panels, unpack functions and the ISA.
 */
#ifndef CP_KERNELS_CPU_LINEAR_H
#define CP_KERNELS_CPU_LINEAR_H

#include "kernels/cpu/isa.h"
#include "kernels/kernels.h"

typedef struct cp_linear cp_linear;
typedef struct cp_panels cp_panels; /* packed weights of one model: mapped files, or memory */

/* Whether a weight type can be used in LINEAR or EMBED. */
bool cp_linear_supports(cp_dtype t);
/* op must be a LINEAR record of prog. max_rows: the largest row count. */
cp_code cp_linear_open(cp_linear **out, const cp_program *prog, const cp_op *op, cp_isa isa,
                       int max_rows, cp_err *err);
void cp_linear_close(cp_linear *l);
int cp_linear_k(const cp_linear *l);
/* Bytes of activation scratch for n rows (64-byte aligned by the caller), and of scratch a worker
 * needs in item(). */
size_t cp_linear_act_bytes(const cp_linear *l, int n);
size_t cp_linear_scratch_bytes(const cp_linear *l);
/* x[k] f32 (after add and norm) becomes row r of the activations in act (int8 blocks, f32 and/or
 * bf16, as weights want). */
void cp_linear_prep_row(const cp_linear *l, const float *x, int r, int n, void *act);
/* Work items for n rows; each item writes disjoint outputs. out[i]: base of weight i's output slot,
 * rows ld[i] apart. */
int64_t cp_linear_items(const cp_linear *l, int n);
void cp_linear_item(const cp_linear *l, int64_t item, int n, const void *act, void *scratch,
                    float *const out[4], const size_t ld[4]);

/* x[ne0] f32 = row `row` of t (embedding look-up). Any supported type. */
void cp_dequant_row(const cp_tensor *t, int64_t row, float *x);

/*
 * Packed panels. Files of them lie in folders under the model's key: looked for in read_dir (NULL:
 * none), which is never written, then in dir, where what is found nowhere is packed to. dir NULL:
 * memory; "": wanted, and there is none, which is logged as every other reason for memory is.
 */
typedef struct cp_panels_config {
    const char *read_dir, *dir, *key;
    cp_cache_check check;
} cp_panels_config;
void cp_panels_open(cp_panels **out, const cp_panels_config *cfg); /* NULL: memory */
void cp_panels_close(cp_panels *p);
/* Pack every weight of the linears, or map those that are packed already, using pool when not NULL;
 * blocking; any thread, not during a step that uses them. CP_NO_MEMORY; CP_CORRUPT: what check
 * found, or the model's file shrank. */
cp_code cp_panels_pack(cp_panels *p, cp_linear *const *linears, int n, cp_pool *pool, cp_err *err);
/* CP_MODEL_FAILED: bytes of a mapped file were lost since (base/map.h). Any thread. */
cp_code cp_panels_lost(const cp_panels *p, cp_err *err);
size_t cp_panels_bytes(const cp_panels *p);

#endif
