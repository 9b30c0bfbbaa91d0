/*
 * memory: how a model's KV bytes are spent.
 */
#ifndef CP_ENGINE_MEMORY_H
#define CP_ENGINE_MEMORY_H

#include "engine/engine.h"
#include "kv-cache/kv.h"

/* What the engine must know of a model. */
typedef struct cp_engine_desc {
    const cp_program *program;
    int ctx_train;
    size_t page_bytes, state_bytes;                  /* of one page, one state slot */
    const char *digest, *cache_read_dir, *cache_dir; /* cp_prepare_config; NULL: none */
} cp_engine_desc;

typedef struct cp_memory_plan {
    int ctx;              /* positions a sequence may have */
    uint32_t n_pages;     /* incl. the null page; 0: no paged group */
    uint32_t n_states;    /* incl. the null slot; 0: no STATE group */
    size_t state_bytes;   /* of a slot */
    int checkpoint_every; /* positions from one checkpoint to the next; 0: no STATE group */
    uint64_t kv_bytes;    /* of pages and slots */
    int full_seqs;        /* sequences of ctx positions that fit at once */
} cp_memory_plan;
/* kv says what pages are like (groups, page_positions, depth). CP_NO_MEMORY with the arithmetic
 * where not even one sequence fits. */
cp_code cp_memory_plan_make(cp_memory_plan *out, const cp_engine_model *m,
                            const cp_engine_desc *desc, const cp_kv_config *kv, cp_err *err);

#endif
