/*
 * kernels: batches and the backends that run programs over them. Knows no model.
 *
 * A cp_backend (cpu, cuda, ref) is opened once per process; cp_backend_prepare() binds a program to
 * it (packs weights, takes the step arena and the page pool) and gives a cp_prepared, which hides
 * all of that. A cp_batch is flat arrays of the caller, rebuilt each step and read-only for the
 * backend. Backends may be asked by several threads at once; a cp_prepared is one thread's at a
 * time: its loader's until the engine's thread has it.
 */
#ifndef CP_KERNELS_KERNELS_H
#define CP_KERNELS_KERNELS_H

#include "base/pool.h"
#include "kernels/program.h"

/* ---- one step's batch: flat arrays, rebuilt each step, read-only for the backend ---- */
typedef struct cp_batch_seq {
    /* The engine's slot, [0, max_seqs), at most once a batch, and the count of its tenants: what a
     * backend keeps from step to step it keeps by them. Another epoch sees nothing of it. */
    int slot;
    uint32_t epoch;
    int row0, n_rows; /* rows [row0, row0 + n_rows) have positions pos0, pos0 + 1, ... */
    int pos0;
    /* The ids at positions 0, 1, ..., as far as there are any. Below pos0 those of one epoch are
     * what they were; from pos0 on a batch may say others (drafts that were wrong). NULL, 0: no row
     * of the sequence wants its history. */
    const int32_t *tokens;
    int n_tokens;
    const uint32_t *const
        *pages; /* [n_groups] page ids, entry i holds positions [i*P, (i+1)*P); 0 = null page */
    uint32_t state_in, state_out; /* state slots; state_in 0: start from zeroes; may be equal */
    uint32_t state_save; /* checkpoint: state after the last row is also stored here; 0: none */
    int adapter;         /* LoRA slot; -1: none (not built) */
} cp_batch_seq;

typedef struct cp_page_copy {
    uint32_t src, dst;
} cp_page_copy;

/* What to do with one output row. All pointers live until collect returns (those of a batch too);
 * where a backend takes several steps, until submit returns. */
typedef struct cp_sample_in {
    float temperature, top_p, min_p;       /* temperature 0: greedy */
    int top_k;                             /* <= 0: off */
    float repetition, presence, frequency; /* 1, 0, 0: off */
    /* History for the penalties: the prompt, [0, n_prompt), and the output, [n_prompt, n_tokens).
     * The beginning of the sequence's tokens. */
    const int32_t *tokens;
    int n_prompt, n_tokens;
    const struct cp_logit_bias {
        int32_t id;
        float bias;
    } * bias;
    int n_bias;
    const int32_t *banned; /* ids that must not come (min_tokens, ignore_eos): -inf */
    int n_banned;
    const uint32_t *mask; /* allowed ids, one bit each; NULL: all (grammar) */
    uint64_t seed, position;
    uint32_t choice;
    int32_t target; /* >= 0: score this id instead of sampling (prompt log-probabilities) */
    int n_top;      /* -1: no log-probabilities wanted; else 0..20 alternatives */
} cp_sample_in;
typedef struct cp_sample_out {
    int32_t id;    /* sampled, or target; ties go to the lowest id */
    float logprob; /* of id, from the raw logits; only when n_top >= 0 */
    int n_top;
    struct {
        int32_t id;
        float logprob;
    } top[CP_MAX_TOP]; /* descending log-probability, then ascending id */
    bool finite;       /* false: a logit was NaN or all were -inf */
} cp_sample_out;

typedef struct cp_batch {
    int n_rows, n_seqs, n_out;
    /* Rows, grouped by sequence in the order of seqs; pos and row_seq say of each row what seqs say
     * of all, and submit asserts that they agree. */
    const int32_t *tok;      /* [n_rows] ids in [0, n_vocab), or CP_TOK_PREV */
    const int32_t *pos;      /* [n_rows] */
    const int32_t *row_seq;  /* [n_rows] index into seqs */
    const int32_t *out_rows; /* [n_out] ascending row indices */
    const cp_batch_seq *seqs;
    /* Before the forward, in this order: pages that are zeroed (what a step does not write of a
     * page reads as zero), pages that are copied (copy on write), and state slots. */
    const uint32_t *zero_pages;
    int n_zero_pages;
    const cp_page_copy *copies;
    int n_copies;
    const cp_page_copy *state_copies;
    int n_state_copies;
    const cp_sample_in *samples; /* [n_out] */
    cp_sample_out *results;      /* [n_out] */
    /* Whoever works on the step, or waits for it in collect, stores cp_now_ns() here at least every
     * few seconds (the CPU: after each operation and within it): a long step is alive. May be NULL.
     */
    _Atomic int64_t *beat;
    /* Not NULL: nobody waits for the step (a warm-up), so it gives way. Where others wait for the
     * device, it goes to them between its operations, and the ns that they had are added here. */
    int64_t *waited_ns;
    /* samples[].mask is filled between submit and cp_backend_sample, which then must come: the
     * masks are made while the forward runs. */
    bool masks_later;
    float *logits_copy; /* tests and oracles: receives [n_out, n_vocab]; NULL in serving */
} cp_batch;

/* ---- backends ---- */
typedef struct cp_backend cp_backend;
typedef struct cp_prepared cp_prepared;
/* Who multiplies float weights with many rows on a GPU: kernels that give a row the same bits in
 * any company, or cuBLAS, which does not. */
typedef enum cp_gemm { CP_GEMM_OWN, CP_GEMM_CUBLAS } cp_gemm;
typedef struct cp_backend_config {
    /* A backend's name, with ":N" where it has several devices, or a device's own UUID; NULL: the
     * first backend that is built. */
    const char *device;
    /* cuda only: bytes of the device that may be taken (0: 90 % of what is free); every record has
     * the bits of ref, which is slower; float weights. */
    uint64_t device_bytes;
    bool exact;
    cp_gemm gemm;
    cp_pool *pool;       /* compute pool; NULL: single thread */
    const char *isa_cap; /* "base" ...; NULL: CAPSTAN_CPU, else the default. ref: "amx" is a law */
    bool act_f32; /* ref only: linears with f32 activations for every weight type (oracles) */
    const struct cp_panel_door *panels; /* who opens files of packed weights; NULL: this process */
} cp_backend_config;
/* Are packed weights that are found compared with the weights, byte by byte? */
typedef enum cp_cache_check {
    CP_CACHE_TRUST,     /* no: their own sums tell what is torn */
    CP_CACHE_CHECK,     /* yes; CP_CORRUPT with the file's name when they differ */
    CP_CACHE_CHECK_ONLY /* and nothing is packed or written: for verifying, a step would be slow */
} cp_cache_check;
typedef struct cp_prepare_config {
    int max_rows, max_out; /* largest batch */
    int max_seqs;
    int page_positions;     /* P */
    uint32_t n_pages;       /* pages incl. the null page 0; the backend allocates the pool */
    uint32_t n_state_slots; /* incl. the null slot 0 */
    cp_dtype kv_type;       /* CP_DTYPE_BF16 or CP_DTYPE_F16 */
    /* Files of packed weights under cache_key (the model's digest): read from the first folder
     * (NULL: none), else from the second, and written there. cache_dir NULL: memory; "": there
     * should be one, so it is logged that there is none. */
    const char *cache_read_dir, *cache_dir, *cache_key;
    cp_cache_check cache_check;
    const _Atomic bool *cancel; /* true: prepare ends with CP_CANCELLED where it next looks */
} cp_prepare_config;

/* CP_USAGE for a device that is not built or that the backend cannot have, and for a level that is
 * not built or not there. CP_UNSUPPORTED, CP_DEVICE_FAILED: the device cannot be opened here. */
cp_code cp_backend_open(cp_backend **out, const cp_backend_config *cfg, cp_err *err);
void cp_backend_close(cp_backend *b);
const char *const *cp_backend_names(void);        /* those that are built; ends with NULL */
const char *cp_backend_name(const cp_backend *b); /* "cpu" */
void cp_backend_device(const cp_backend *b, char *out, size_t n); /* its only name: "cuda:0" */
const char *cp_backend_level(const cp_backend *b);                /* "avx2"; for ref "ref" */
/* The level that there is when nobody chooses, and why; at most n bytes. */
void cp_backend_default_level(const cp_backend *b, char *out, size_t n);
/* "operation type level" lines. */
void cp_backend_describe(const cp_backend *b, void (*line)(void *arg, const char *text), void *arg);
int cp_backend_page_positions(const cp_backend *b); /* the P it wishes */
/* Steps of a program that may be in flight. 1: it works in submit, and nothing overlaps. More: it
 * keeps their order, zeroes and copies included, and submit takes copies of what it is given. */
int cp_backend_depth(const cp_backend *b);
bool cp_backend_supports(const cp_backend *b, cp_role role, cp_dtype t);
/* Bytes of the memory that programs are prepared in: in all, and what can be had now. */
cp_code cp_backend_memory(const cp_backend *b, uint64_t *total, uint64_t *available, cp_err *err);
/* What prepare takes of it beside pages and state slots: packed weights, arena, vectors, scratch.
 * Errors as prepare's; nothing is packed. */
cp_code cp_backend_model_bytes(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                               uint64_t *bytes, cp_err *err);
/* What pages and state slots of all models may take where nobody says it, when the models take
 * `models` bytes beside; how: the same in words, at most n bytes. CP_NO_MEMORY: nothing is left,
 * with the arithmetic. */
cp_code cp_backend_kv_bytes(const cp_backend *b, uint64_t models, uint64_t *bytes, char *how,
                            size_t n, cp_err *err);
/* prog must outlive the result. Errors: CP_UNSUPPORTED (weight type, shape), CP_NO_MEMORY (with the
 * arithmetic), CP_CORRUPT (cache_check; the model's file shrank meanwhile), CP_CANCELLED. */
cp_code cp_backend_prepare(cp_backend *b, const cp_program *prog, const cp_prepare_config *cfg,
                           cp_prepared **out, cp_err *err);
void cp_prepared_free(cp_prepared *p);
size_t cp_prepared_bytes(const cp_prepared *p); /* memory taken beside the mapped weights */
/*
 * Enqueue zeroes, copies, forward and SAMPLE of one step; then wait for the oldest one in flight,
 * whose batch may be touched again when collect returns. With masks_later submit leaves out SAMPLE;
 * the masks are filled in, and sample enqueues it, before any other submit or the step's collect.
 * An error of any of the three ends the step. CP_MODEL_FAILED: what steps read was lost (a file of
 * packed weights shrank), this one's results are void and so will be those of all others.
 * CP_DEVICE_FAILED: so it is with every program of the backend.
 */
cp_code cp_backend_submit(cp_prepared *p, const cp_batch *batch, cp_err *err);
cp_code cp_backend_sample(cp_prepared *p, const cp_batch *batch, cp_err *err);
cp_code cp_backend_collect(cp_prepared *p, cp_err *err);
/* Of a kind since prepare, by worker 0, its waiting included; 0 on cuda. The thread of steps. */
typedef struct cp_op_time {
    uint64_t ns, records;
} cp_op_time;
cp_op_time cp_prepared_op_time(const cp_prepared *p, cp_op_kind kind);
/* Barriers passed in the last step. */
uint64_t cp_prepared_barriers(const cp_prepared *p);

#endif
