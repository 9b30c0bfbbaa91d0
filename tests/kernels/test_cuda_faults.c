/*
 * test_cuda_faults: every call of the driver and of cuBLAS that a backend's life makes fails once,
 * and so does every kernel: in open, in prepare, in steps, at the end. Whatever it is, the error is
 * said, nothing is used that is gone, and all that was taken is given back. Only where something
 * was given back, or everything was over, may it go unnoticed.
 */
#include "tests/kernels/fake_driver.h"
#include "tests/kernels/mixed.h"

#include "kernels/cuda/driver.h"

#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQS = 2, STEPS = 3, FEW_ROWS = 8, BLAS_ROWS = 70, VOCAB = MIXED_VOCAB };

static fake_driver fake;

static const char *const calls[] = {
#define X(member, symbol, parameters) #symbol,
    CUDA_DRIVER(X)
#undef X
        "kernel",
    "cublasCreate_v2",
    "cublasSetStream_v2",
    "cublasSetWorkspace_v2",
    "cublasGemmEx",
    "enqueue",
    "cublasDestroy_v2",
};
enum { CALLS = sizeof calls / sizeof *calls };

/* Names of errors are asked for after errors alone, and have no row among what fails. */
static bool can_fail(const char *name)
{
    return strncmp(name, "cuGetError", 10) != 0;
}

static bool gives_back(const char *name)
{
    return strstr(name, "Free") || strstr(name, "Destroy") || strstr(name, "Unload") ||
           strstr(name, "Release");
}

/* Every other one of these is refused with an error that leaves the context whole, so that what was
 * enqueued before may still run. */
static bool enqueues(const char *name)
{
    return strstr(name, "Launch") || strstr(name, "Memcpy") || strstr(name, "Memset") ||
           strstr(name, "Record") || strstr(name, "WaitEvent");
}

typedef struct life {
    cp_code code;
    bool in_step;
    char says[sizeof(((cp_err *)0)->msg)];
    uint64_t before_end[CALLS]; /* calls made when all results were there */
    int32_t ids[STEPS][SEQS];
} life;

static void fill_samples(cp_batch *b, cp_batch_seq *seqs, cp_sample_in *in, const int32_t *tokens)
{
    for (int i = 0; i < b->n_seqs; i++) {
        seqs[i].tokens = tokens;
        seqs[i].n_tokens = seqs[i].pos0 + seqs[i].n_rows;
        in[i] = (cp_sample_in){.temperature = 0.8f,
                               .top_p = 0.9f,
                               .repetition = 1.1f,
                               .tokens = tokens,
                               .n_prompt = 1,
                               .n_tokens = seqs[i].n_tokens,
                               .target = -1,
                               .n_top = 3};
    }
}

static cp_code one_step(cp_prepared *p, cp_batch *b, bool masks_later, cp_err *err)
{
    b->masks_later = masks_later;
    cp_code rc = cp_backend_submit(p, b, err);
    if (rc == CP_OK && masks_later)
        rc = cp_backend_sample(p, b, err);
    return rc == CP_OK ? cp_backend_collect(p, err) : rc;
}

/* The first step brings in prompts, of n rows and of one; the last one's masks come late, and its
 * logits are copied. */
static cp_code steps(rig *r, cp_prepared *p, int n, life *l, cp_err *err)
{
    const rig_seq seqs[STEPS][SEQS] = {
        {{0, n, 0, 1, 0}, {0, 1, 0, 2, 0}},
        {{n, 1, 1, 1, 0}, {1, 1, 2, 2, 0}},
        {{n + 1, 1, 1, 1, 3}, {2, 2, 2, 2, 0}},
    };
    static const uint32_t zeroes[] = {1, 2, 3};
    static const cp_page_copy copies[] = {{4, 5}}, states[] = {{1, 3}};
    int32_t tokens[BLAS_ROWS + 2];
    for (int i = 0; i < BLAS_ROWS + 2; i++)
        tokens[i] = i % VOCAB;
    cp_code rc = CP_OK;
    for (int step = 0; step < STEPS && rc == CP_OK; step++) {
        rig_batch b;
        cp_sample_in in[SEQS];
        cp_sample_out out[SEQS] = {{0}};
        float *logits = calloc((size_t)SEQS * VOCAB, sizeof(*logits));
        rig_batch_init(&b, r, seqs[step], SEQS, false);
        fill_samples(&b.b, b.seqs, in, tokens);
        for (int i = 0; i < b.b.n_rows; i++)
            b.tok[i] = tokens[b.pos[i]];
        b.b.samples = in;
        b.b.results = out;
        b.b.logits_copy = step == STEPS - 1 ? logits : NULL;
        b.b.zero_pages = zeroes;
        b.b.n_zero_pages = step ? 0 : 3;
        b.b.copies = copies;
        b.b.n_copies = step == 1;
        b.b.state_copies = states;
        b.b.n_state_copies = step == 1;
        rc = one_step(p, &b.b, step == STEPS - 1, err);
        for (int i = 0; i < SEQS; i++)
            l->ids[step][i] = out[i].id;
        free(logits);
        rig_batch_fini(&b);
    }
    return rc;
}

static void live(rig *r, int n, life *l)
{
    cp_err err = {0};
    cp_backend *b = NULL;
    cp_prepared *p = NULL;
    cp_backend_config cfg = {.device = "cuda", .exact = r->exact, .gemm = r->gemm};
    *l = (life){.code = cp_backend_open(&b, &cfg, &err)};
    if (l->code == CP_OK)
        l->code = cp_backend_prepare(b, &r->prog, &r->cfg, &p, &err);
    if (l->code == CP_OK) {
        l->in_step = true;
        l->code = steps(r, p, n, l, &err);
    }
    for (int c = 0; c < CALLS; c++)
        l->before_end[c] = can_fail(calls[c]) ? fake.calls(calls[c]) : 0;
    snprintf(l->says, sizeof(l->says), "%s", err.msg);
    if (p)
        cp_prepared_free(p);
    if (b)
        cp_backend_close(b);
}

static void check(const life *l, const life *whole, int c, uint64_t n)
{
    const char *name = calls[c];
    if (fake.count("injected") != 1)
        fail_msg("%s:%d was not made", name, (int)n);
    if (fake.leaks())
        fail_msg("%s:%d: %d things were not given back; %s", name, (int)n, (int)fake.leaks(),
                 l->says);
    if (fake.count("faults"))
        fail_msg("%s:%d: %s; %s", name, (int)n, fake.fault(), l->says);
    if (l->code == CP_OK && !gives_back(name) && n <= whole->before_end[c])
        fail_msg("%s:%d went unnoticed", name, (int)n);
    bool right = l->code == CP_OK || l->code == CP_DEVICE_FAILED ||
                 (!l->in_step && (l->code == CP_NO_MEMORY || l->code == CP_UNSUPPORTED));
    if (!right || (l->code != CP_OK && !l->says[0]))
        fail_msg("%s:%d: %s: '%s'", name, (int)n, cp_code_info(l->code)->name, l->says);
}

static void make_rig(rig *r)
{
    rig_init(r, 5);
    r->cfg.n_pages = 24;
    r->cfg.max_seqs = SEQS;
    r->cfg.max_rows = 128;
    mixed_build(r, 0);
}

/* Of the calls whose names begin so; rows: of the first step. */
static void fail_each(rig *r, int rows, const char *const *begins, int least)
{
    life whole, l;
    uint64_t made[CALLS] = {0};
    int lives = 0;
    unsetenv("FAKE_FAIL");
    setenv("FAKE_RACE", "0", 1); /* the same kernels run again and again */
    fake.reset();
    live(r, rows, &whole);
    if (whole.code != CP_OK)
        fail_msg("%s", whole.says);
    assert_int_equal(fake.leaks(), 0);
    assert_int_equal(fake.count("faults"), 0);
    for (int c = 0; c < CALLS; c++) {
        for (const char *const *b = begins; *b && !made[c]; b++)
            made[c] = can_fail(calls[c]) && strncmp(calls[c], *b, strlen(*b)) == 0
                          ? fake.calls(calls[c])
                          : 0;
    }
    for (int c = 0; c < CALLS; c++) {
        for (uint64_t n = 1; n <= made[c]; n++, lives++) {
            char text[64];
            snprintf(text, sizeof(text), "%s:%d%s", calls[c], (int)n,
                     enqueues(calls[c]) && n % 2 ? ":701" : "");
            setenv("FAKE_FAIL", text, 1);
            fake.reset();
            live(r, rows, &l);
            check(&l, &whole, c, n);
        }
    }
    print_message("%d lives, each with one failure\n", lives);
    assert_true(lives >= least);
    unsetenv("FAKE_FAIL");
    fake.reset();
}

static void each_call_fails_once(void **state)
{
    (void)state;
    rig r;
    make_rig(&r);
    fail_each(&r, FEW_ROWS, (const char *const[]){"cu", "kernel", NULL}, 100);
    rig_fini(&r);
}

/* A product of a float weight beside the rest, and rows enough for it. */
static void so_does_each_of_cublas(void **state)
{
    (void)state;
    rig r;
    make_rig(&r);
    r.gemm = CP_GEMM_CUBLAS;
    for (cp_mat x = 0, done = 0; !done; x++) {
        done = r.mats[x].rows == CP_ROWS_ALL && r.mats[x].width == 64;
        if (done)
            rig_linear(&r, x, rig_weight(&r, CP_DTYPE_BF16, 64, 64, CP_ROLE_LINEAR),
                       rig_mat(&r, 64, CP_ROWS_ALL), CP_ROWS_ALL);
    }
    fail_each(&r, BLAS_ROWS, (const char *const[]){"cublas", "enqueue", NULL}, 6);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_fails_once),
        cmocka_unit_test(so_does_each_of_cublas),
    };
    if (!fake_driver_there())
        return 77;
    fake = fake_driver_find();
    return cmocka_run_group_tests_name("cuda faults", tests, NULL, NULL);
}
