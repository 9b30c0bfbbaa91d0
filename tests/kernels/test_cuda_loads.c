/*
 * test_cuda_loads: how kernels read what a step of one row waits for. Of the codes of weights, and
 * of the keys and values of attention, at least nine bytes of ten come by loads of 16 bytes.
 * Scales, which lie beside codes and are a ninth of them and less, are printed and not held to it.
 */
#include "tests/kernels/rig.h"

#include "kernels/cuda/cuda.h"
#include "kernels/panel_kinds.h"
#include "tests/fakes/libcuda/libcuda_fake.h"
#include "tests/kernels/mixed.h"
#include "tests/kernels/weights.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Of a dense layer of a decode step in default numerics; q, k and v are of two kinds here, which
 * takes one more. */
enum { LAYER_LAUNCHES = 9 };

/* What lies at a byte of a region: how much of `period` bytes, from `head` on in blocks of `block`
 * bytes, is codes; the rest are scales. block 0: all is. */
typedef struct region {
    cp_addr at;
    size_t bytes, panel, super, head, block, codes;
    uint64_t wide, narrow, scales; /* bytes of codes by loads of 16 and of fewer; of scales */
} region;

static void note(void *arg, uint32_t mask, const uint64_t *address, unsigned n)
{
    region *r = arg;
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1) || address[l] < r->at || address[l] - r->at >= r->bytes)
            continue;
        size_t off = (size_t)(address[l] - r->at);
        bool code = true;
        if (r->block) {
            off = off % r->panel % r->super;
            code = off >= r->head && (off - r->head) % r->block < r->codes;
        }
        if (!code)
            r->scales += n;
        else if (n == 16)
            r->wide += n;
        else
            r->narrow += n;
    }
}

static void watch(region *r)
{
    const char *path = getenv("CAPSTAN_LIBCUDA");
    void *driver = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    union {
        void *p;
        void (*fn)(void (*)(void *, uint32_t, const uint64_t *, unsigned), void *);
    } u = {.p = driver ? dlsym(driver, "fake_watch") : NULL};
    if (!u.p)
        fail_msg("no driver with fake_watch at CAPSTAN_LIBCUDA");
    u.fn(r ? note : NULL, r);
    dlclose(driver);
}

/* How blocks of a kind lie in a panel of k inputs. */
static void describe(region *r, cp_panel_kind kind, int64_t k)
{
    static const struct {
        int bits, block, head;
    } kinds[] = {
#define X(name, bits, codes, form, offset, block, head) [CP_PANEL_##name] = {bits, block, head},
        CP_INT_PANELS(X)
#undef X
    };
    r->panel = cp_panel_bytes(kind, k);
    r->head = (size_t)kinds[kind].head;
    r->block = (size_t)kinds[kind].block;
    r->codes = (size_t)kinds[kind].bits * 64; /* 16 outputs of 32 inputs */
    r->super = r->head + CP_SUPER * r->block;
}

static void report(const char *what, const region *r)
{
    double codes = (double)(r->wide + r->narrow);
    assert_true(codes > 0);
    printf("%-6s codes %.1f %% by 16 bytes, with scales %.1f %%\n", what,
           100.0 * (double)r->wide / codes,
           100.0 * (double)r->wide / (codes + (double)r->scales / 4)); /* four lanes read each */
    if ((double)r->wide < 0.9 * codes)
        fail_msg("%s: %.1f %% of the bytes come by loads of 16", what,
                 100.0 * (double)r->wide / codes);
}

static void test_codes_of_weights_come_by_16_bytes(void **state)
{
    (void)state;
    enum { K = 1024, M = 64 };
    static const cp_dtype types[] = {CP_DTYPE_Q4_0, CP_DTYPE_Q4_1,  CP_DTYPE_Q5_0, CP_DTYPE_Q5_1,
                                     CP_DTYPE_Q8_0, CP_DTYPE_Q4_K,  CP_DTYPE_Q5_K, CP_DTYPE_Q6_K,
                                     CP_DTYPE_Q2_K, CP_DTYPE_MXFP4, CP_DTYPE_BF16, CP_DTYPE_F16};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        rig r;
        rig_init(&r, i + 1);
        cp_mat in = rig_mat(&r, K, CP_ROWS_ALL), out = rig_mat(&r, M, CP_ROWS_ALL);
        rig_linear(&r, in, rig_weight(&r, types[i], K, M, CP_ROLE_LINEAR), out, CP_ROWS_ALL);
        machine m = machine_open_on(&r, "cuda", NULL, 1);
        rig_batch b;
        rig_batch_init(&b, &r, &(rig_seq){0, 1, 0, 0, 0}, 1, true);
        machine_fill(&m, 1);
        const cuda_weight *w = ((const cuda_run *)m.p->impl)->weights;
        region at = {.at = w->at, .bytes = w->matrix_bytes};
        if (!w->file_order)
            describe(&at, w->kind, K);
        watch(&at);
        machine_step(&m, &b.b);
        watch(NULL);
        report(cp_dtype_info((uint32_t)types[i])->name, &at);
        rig_batch_fini(&b);
        machine_close(&m);
        rig_fini(&r);
    }
}

/* ---- launches ---- */

static uint64_t launches(void)
{
    const char *path = getenv("CAPSTAN_LIBCUDA");
    void *driver = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    union {
        void *p;
        uint64_t (*fn)(const char *);
    } u = {.p = driver ? dlsym(driver, "fake_count") : NULL};
    if (!u.p)
        fail_msg("no driver with fake_count at CAPSTAN_LIBCUDA");
    uint64_t n = u.fn("launches");
    dlclose(driver);
    return n;
}

/* Of a decode step of two sequences, after one that has settled what is done once. */
static int launches_of_step(int layers)
{
    rig r;
    rig_init(&r, 3);
    mixed_build(&r, layers);
    machine m = machine_open_on(&r, "cuda", NULL, 1);
    const rig_seq seqs[] = {{40, 1, 0, 0, 0}, {7, 1, 0, 0, 0}};
    rig_batch b;
    rig_batch_init(&b, &r, seqs, 2, true);
    cp_sample_in in[2];
    cp_sample_out out[2];
    for (int i = 0; i < 2; i++) {
        in[i] = (cp_sample_in){.repetition = 1.0f, .top_p = 1.0f, .target = -1, .n_top = -1};
        b.tok[i] %= MIXED_VOCAB;
    }
    b.b.samples = in;
    b.b.results = out;
    machine_fill(&m, 1);
    machine_step(&m, &b.b);
    uint64_t before = launches();
    machine_step(&m, &b.b);
    int n = (int)(launches() - before);
    rig_batch_fini(&b);
    machine_close(&m);
    rig_fini(&r);
    return n;
}

static void test_a_dense_layer_takes_few_launches(void **state)
{
    (void)state;
    int one = launches_of_step(1), three = launches_of_step(3);
    printf("a decode step of one layer: %d launches; a further layer: %.1f\n", one,
           (three - one) / 2.0);
    assert_true(three - one <= 2 * LAYER_LAUNCHES);
}

int main(void)
{
    const char *const *name = cp_backend_names();
    while (*name && strcmp(*name, "cuda") != 0)
        name++;
    if (!*name) {
        puts("skipped: cuda is not built");
        return 77;
    }
    const struct CMUnitTest loads[] = {
        cmocka_unit_test(test_codes_of_weights_come_by_16_bytes),
        cmocka_unit_test(test_a_dense_layer_takes_few_launches),
    };
    return cmocka_run_group_tests_name("loads", loads, NULL, NULL);
}
