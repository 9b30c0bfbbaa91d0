/*
 * test_cuda_loads: how kernels read what a step of a few rows waits for. Of weights, with their
 * scales, and of the keys and values of attention at least nine bytes of ten come by loads of 16.
 */
#include "tests/kernels/rig.h"

#include "kernels/cuda/cuda.h"
#include "tests/fakes/libcuda/libcuda_fake.h"
#include "tests/kernels/attention.h"
#include "tests/kernels/weights.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Bytes that were read of a region, by loads of 16 and of fewer; what several lanes of a warp read
 * at once counts once. */
typedef struct region {
    cp_addr at;
    size_t bytes;
    uint64_t wide, narrow;
} region;

static bool read_before(uint32_t mask, const uint64_t *address, int lane)
{
    for (int l = 0; l < lane; l++)
        if (mask >> l & 1 && address[l] == address[lane])
            return true;
    return false;
}

static void note(void *arg, uint32_t mask, const uint64_t *address, unsigned n)
{
    region *r = arg;
    for (int l = 0; l < 32; l++)
        if (mask >> l & 1 && address[l] >= r->at && address[l] - r->at < r->bytes &&
            !read_before(mask, address, l))
            *(n == 16 ? &r->wide : &r->narrow) += n;
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

static void report(const char *what, const region *r)
{
    double share = (double)r->wide / (double)(r->wide + r->narrow);
    assert_true(r->wide > 0);
    printf("%-10s %.1f %% by 16 bytes\n", what, 100.0 * share);
    if (share < 0.9)
        fail_msg("%s: %.1f %% of the bytes come by loads of 16", what, 100.0 * share);
}

static void test_weights_come_by_16_bytes(void **state)
{
    (void)state;
    enum { K = 1024, M = 64 };
    bool seen[CP_PANEL_COUNT] = {false};
    for (const int *t = cp_test_types; *t >= 0; t++) {
        cp_panel_kind kind = cp_panel_kind_of((cp_dtype)*t);
        if (seen[kind])
            continue;
        seen[kind] = true;
        rig r;
        rig_init(&r, (uint64_t)kind + 1);
        cp_mat in = rig_mat(&r, K, CP_ROWS_ALL), out = rig_mat(&r, M, CP_ROWS_ALL);
        rig_linear(&r, in, rig_weight(&r, (cp_dtype)*t, K, M, CP_ROLE_LINEAR), out, CP_ROWS_ALL);
        machine m = machine_open_on(&r, "cuda", NULL, 1);
        rig_batch b;
        rig_batch_init(&b, &r, &(rig_seq){0, 1, 0, 0, 0}, 1, true);
        machine_fill(&m, 1);
        const cuda_weight *w = ((const cuda_run *)m.p->impl)->weights;
        region at = {.at = w->at, .bytes = w->matrix_bytes};
        watch(&at);
        machine_step(&m, &b.b);
        watch(NULL);
        report(cp_dtype_info((uint32_t)*t)->name, &at);
        rig_batch_fini(&b);
        machine_close(&m);
        rig_fini(&r);
    }
}

/* Rows of sequences that begin a split, are in the middle of one, and have several. */
static void test_pages_come_by_16_bytes(void **state)
{
    (void)state;
    static const attention_shape shapes[] = {
        {4, 2, 64, 64, 0}, {8, 1, 128, 128, 0}, {2, 2, 256, 256, 700}, {1, 2, 96, 96, 0}};
    static const rig_seq seqs[] = {{513, 1, 0, 0, 0}, {200, 1, 0, 0, 0}, {1300, 1, 0, 0, 0}};
    for (uint64_t seed = 0; seed < sizeof(shapes) / sizeof(shapes[0]); seed++) {
        attention_case c;
        char what[32];
        attention_case_init(&c, seed, &shapes[seed]);
        rig_batch_init(&c.b, &c.r, seqs, sizeof(seqs) / sizeof(seqs[0]), true);
        machine m = machine_open_on(&c.r, "cuda", NULL, 1);
        machine_fill(&m, 1);
        region at = {.at = m.p->pages.at, .bytes = m.p->pages.bytes};
        watch(&at);
        machine_step(&m, &c.b.b);
        watch(NULL);
        snprintf(what, sizeof(what), "K V of %d", shapes[seed].k_dim);
        report(what, &at);
        machine_close(&m);
        attention_case_fini(&c);
    }
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
        cmocka_unit_test(test_weights_come_by_16_bytes),
        cmocka_unit_test(test_pages_come_by_16_bytes),
    };
    return cmocka_run_group_tests_name("loads", loads, NULL, NULL);
}
