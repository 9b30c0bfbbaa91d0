/*
 * engine_internal: what engine.c, backend.c, memory.c and engine_metrics.c share, and the seam for
 * tests: an engine opened with its own table of backend functions and models given as bare
 * programs runs without kernels/ and model/.
 */
#ifndef CP_ENGINE_ENGINE_INTERNAL_H
#define CP_ENGINE_ENGINE_INTERNAL_H

#include "engine/sched.h"

/* The functions of kernels.h (and the loader's flag) that the engine calls. */
typedef struct cp_engine_backend {
    int (*page_positions)(const cp_backend *b);
    cp_code (*prepare)(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                       cp_prepared **out, cp_err *err);
    void (*prepared_free)(cp_prepared *p);
    cp_code (*submit)(cp_prepared *p, const cp_batch *batch, cp_err *err);
    cp_code (*collect)(cp_prepared *p, cp_err *err);
    void (*zero_page)(cp_prepared *p, uint32_t page);
    bool (*poisoned)(const cp_loaded *file);
} cp_engine_backend;

/* What the engine must know of a model. */
typedef struct cp_engine_desc {
    const cp_program *program;
    int ctx_train;
    size_t page_bytes, state_bytes;                  /* of one page, one state slot */
    const char *digest, *cache_read_dir, *cache_dir; /* cp_prepare_config; NULL: none */
} cp_engine_desc;

cp_code cp_engine_open_with(cp_engine **out, const cp_engine_config *cfg,
                            const cp_engine_backend *backend, cp_err *err);
cp_code cp_engine_add_program(cp_engine *e, const cp_engine_model *m, const cp_engine_desc *desc,
                              int *index, cp_err *err);
int cp_engine_page_positions(const cp_engine *e);

/* memory.c: how a model's KV bytes are spent. */
typedef struct cp_memory_plan {
    int ctx;           /* positions a sequence may have */
    uint32_t n_pages;  /* incl. the null page; 0: no paged group */
    uint32_t n_states; /* incl. the null slot; 0: no STATE group */
    uint64_t kv_bytes; /* of pages and slots */
    int full_seqs;     /* sequences of ctx positions that fit at once */
} cp_memory_plan;
cp_code cp_memory_plan_make(cp_memory_plan *out, const cp_engine_model *m,
                            const cp_engine_desc *desc, int page_positions, cp_err *err);

/* engine_metrics.c */
void cp_metrics_step(cp_metrics *m, int64_t ns);
void cp_metrics_publish(const cp_sched *s, cp_sched_stats *seen, uint64_t *seen_evictions);

#endif
