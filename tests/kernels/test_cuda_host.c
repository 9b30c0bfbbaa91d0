/*
 * test_cuda_host: the cuda backend's host side over the fake driver (tests/fakes/libcuda): budgets,
 * that all memory goes back, and what a step copies. The program is of operations without weights;
 * what kernels compute is other tests' matter.
 */
#include "tests/kernels/rig.h"

#include "base/log.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_ROT = 8, ROWS = 6 };

/* The fake that the backend opens, which counts. */
static struct fake {
    void (*reset)(void);
    uint64_t (*calls)(const char *name);
    uint64_t (*count)(const char *name);
    uint64_t (*leaks)(void);
    const char *(*fault)(void);
} fake;

static void find_fake(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    if (!library)
        fail_msg("%s", dlerror());
    fake.reset = (void (*)(void))(uintptr_t)dlsym(library, "fake_reset");
    fake.calls = (uint64_t(*)(const char *))(uintptr_t)dlsym(library, "fake_calls");
    fake.count = (uint64_t(*)(const char *))(uintptr_t)dlsym(library, "fake_count");
    fake.leaks = (uint64_t(*)(void))(uintptr_t)dlsym(library, "fake_leaks");
    fake.fault = (const char *(*)(void))(uintptr_t)dlsym(library, "fake_fault");
    assert_true(fake.reset && fake.calls && fake.count && fake.leaks && fake.fault);
}

/* The driver begins anew; setting: NAME=VALUE or "". */
static void begin(const char *setting)
{
    static const char *const names[] = {"FAKE_FAIL", "FAKE_MEMORY", "FAKE_MODE", "FAKE_SEED"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
    if (*setting) {
        char text[96];
        snprintf(text, sizeof(text), "%s", setting);
        char *value = strchr(text, '=');
        *value++ = 0;
        setenv(text, value, 1);
    }
    fake.reset();
}

static void nothing_is_left(const char *when)
{
    if (fake.leaks() || fake.count("memory") || fake.count("pinned") || fake.count("faults"))
        fail_msg("%s: %d things not given back, %s", when, (int)fake.leaks(), fake.fault());
}

/* Angles of the rows' positions, and those of output rows. */
static void host_rig(rig *r, cp_mat *angles, cp_mat *out)
{
    static const float inv_freq[N_ROT / 2] = {1.0f, 0.25f, 0.0625f, 0.015625f};
    rig_init(r, 3);
    *angles = rig_mat(r, N_ROT, CP_ROWS_ALL);
    *out = rig_mat(r, N_ROT, CP_ROWS_OUT);
    cp_op *rope = rig_op(r, CP_OP_ROPE, CP_ROWS_ALL);
    rope->u.rope.out = *angles;
    rope->u.rope.n_rot = N_ROT;
    rope->u.rope.inv_freq = inv_freq;
    rope->u.rope.mscale = 1.0f;
    cp_op *gather = rig_op(r, CP_OP_GATHER, CP_ROWS_OUT);
    gather->u.gather.in = *angles;
    gather->u.gather.out = *out;
    rig_group(
        r, (cp_kv_group){.kind = CP_GROUP_FULL, .n_layers = 1, .n_kv = 1, .k_dim = 2, .v_dim = 2});
    r->cfg.page_positions = 16;
}

static const rig_seq seqs[] = {{.pos0 = 0, .n_rows = 4}, {.pos0 = 40, .n_rows = 2}};

/* ---- memory ---- */

/* What a program is said to take is what the driver was asked for; all of it goes back. */
static void taken_as_measured(void **state)
{
    (void)state;
    rig r;
    cp_mat angles, out;
    cp_err err = {0};
    cp_backend *b;
    cp_prepared *p;
    begin("");
    host_rig(&r, &angles, &out);
    assert_int_equal(cp_backend_open(&b, &(cp_backend_config){.device = "cuda"}, &err), CP_OK);
    assert_int_equal(fake.count("memory"), 0);
    assert_int_equal(cp_backend_prepare(b, &r.prog, &r.cfg, &p, &err), CP_OK);
    uint64_t taken = fake.count("memory"), said = cp_prepared_bytes(p);
    assert_true(taken >= said && taken - said < 512 * fake.calls("cuMemAlloc_v2")); /* rounded up */
    cp_prepared_free(p);
    assert_int_equal(fake.count("memory"), 0);
    cp_backend_close(b);
    nothing_is_left("in the end");
    rig_fini(&r);
}

/* Two programs on one device within a budget; a third finds none, and does when one has gone. */
static void budgets_are_absolute(void **state)
{
    (void)state;
    rig r;
    cp_mat angles, out;
    cp_err err = {0};
    cp_backend *b;
    cp_prepared *p[3];
    uint64_t one = 0, total, left;
    begin("");
    host_rig(&r, &angles, &out);
    assert_int_equal(cp_backend_open(&b, &(cp_backend_config){.device = "cuda"}, &err), CP_OK);
    assert_int_equal(cp_backend_model_bytes(b, &r.prog, &r.cfg, &one, &err), CP_OK);
    one += (uint64_t)r.cfg.n_pages * cp_program_page_bytes(&r.prog, r.cfg.page_positions);
    cp_backend_close(b);

    cp_backend_config cfg = {.device = "cuda", .device_bytes = 2 * one + one / 2};
    assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(cp_backend_prepare(b, &r.prog, &r.cfg, &p[i], &err), CP_OK);
    assert_int_equal(cp_backend_memory(b, &total, &left, &err), CP_OK);
    assert_true(left < one && left + 16 * 512 > one / 2);
    assert_int_equal(cp_backend_prepare(b, &r.prog, &r.cfg, &p[2], &err), CP_NO_MEMORY);
    assert_non_null(strstr(err.msg, "(--device-bytes)"));
    assert_non_null(strstr(err.msg, "KV cache "));
    assert_true(fake.count("memory_peak") <= cfg.device_bytes);
    cp_prepared_free(p[0]);
    assert_int_equal(cp_backend_prepare(b, &r.prog, &r.cfg, &p[2], &err), CP_OK);
    cp_prepared_free(p[1]);
    cp_prepared_free(p[2]);
    cp_backend_close(b);
    nothing_is_left("in the end");

    /* more than the device has */
    cfg.device_bytes = (uint64_t)1 << 40;
    assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "--device-bytes is 1048576.0 MiB, and cuda:0 has 512.0 MiB"));
    nothing_is_left("refused");
    rig_fini(&r);
}

/* The driver says that there is no memory though the budget has some: others use the device too. */
static void a_device_that_is_full(void **state)
{
    (void)state;
    rig r;
    cp_mat angles, out;
    cp_err err = {0};
    cp_backend *b;
    cp_prepared *p;
    begin("FAKE_MEMORY=64M");
    host_rig(&r, &angles, &out);
    r.cfg.n_pages = 1 << 19; /* of 128 bytes */
    cp_backend_config cfg = {.device = "cuda", .device_bytes = (uint64_t)64 << 20};
    assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_OK);
    cp_mem others;
    assert_int_equal(b->row->take(b, &others, 1 << 20, false, &err), CP_OK);
    assert_int_equal(cp_backend_prepare(b, &r.prog, &r.cfg, &p, &err), CP_NO_MEMORY);
    assert_non_null(strstr(err.msg, "page pool"));
    b->row->give(b, &others);
    cp_backend_close(b);
    nothing_is_left("in the end");
    rig_fini(&r);
}

/* ---- steps ---- */

/* Lists beyond all that was measured are read where they are: out of pinned memory, which is taken
 * once for each of the two steps' places. */
static void lists_of_any_length(void **state)
{
    (void)state;
    enum { MANY = 8000 };
    static uint32_t zeroes[MANY];
    static cp_page_copy copies[MANY];
    rig r;
    rig_batch b;
    cp_mat angles, out;
    begin("");
    host_rig(&r, &angles, &out);
    r.cfg.max_rows = ROWS;
    r.cfg.max_seqs = 2;
    r.cfg.n_pages = 2 * MANY + 16;
    machine ref = machine_open(&r, NULL, 1), m = machine_open_on(&r, "cuda", NULL, 1);
    rig_batch_init(&b, &r, seqs, 2, false);
    for (uint32_t i = 0; i < MANY; i++) {
        zeroes[i] = 1 + 2 * i;
        copies[i] = (cp_page_copy){.src = 1 + 2 * (i / 2), .dst = 2 + 2 * i};
    }
    machine_fill(&ref, 5);
    machine_fill(&m, 5);
    uint64_t pinned = 0;
    for (int i = 0, n = MANY; i < 5; i++, n = i == 4 ? 3 : MANY) {
        b.b.zero_pages = zeroes;
        b.b.n_zero_pages = n;
        b.b.copies = copies;
        b.b.n_copies = n;
        machine_step(&ref, &b.b);
        machine_step(&m, &b.b);
        machines_equal(&ref, &m, angles, ROWS, "angles");
        machines_equal(&ref, &m, out, 2, "output rows");
        machines_equal_memory(&ref, &m, "pages");
        assert_true(i < 2 || fake.count("pinned") == pinned);
        pinned = fake.count("pinned");
    }
    assert_true(fake.calls("cuMemHostGetDevicePointer_v2") > 0);
    machine_close(&ref);
    machine_close(&m);
    nothing_is_left("in the end");
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* Steps one after another, in whatever order a driver runs what it may. */
static void in_any_order_that_is_allowed(void **state)
{
    (void)state;
    rig r;
    rig_batch b;
    cp_mat angles, out;
    begin("");
    host_rig(&r, &angles, &out);
    machine ref = machine_open(&r, NULL, 1);
    for (int seed = 1; seed <= 8; seed++) {
        char text[32];
        begin("FAKE_MODE=eager");
        snprintf(text, sizeof(text), "%d", seed);
        setenv("FAKE_SEED", text, 1);
        fake.reset();
        machine m = machine_open_on(&r, "cuda", NULL, 1);
        for (int step = 0; step < 4; step++) {
            rig_seq q[] = {{.pos0 = 7 * step, .n_rows = 1 + step}, {.pos0 = 40, .n_rows = 2}};
            rig_batch_init(&b, &r, q, 1 + step % 2, step == 1);
            machine_step(&ref, &b.b);
            machine_step(&m, &b.b);
            machines_equal(&ref, &m, angles, b.b.n_rows, "angles");
            machines_equal(&ref, &m, out, b.b.n_out, "output rows");
            rig_batch_fini(&b);
        }
        machine_close(&m);
        nothing_is_left("in the end");
    }
    machine_close(&ref);
    rig_fini(&r);
}

/* As many rows as --max-batch-rows may say: more than a grid has blocks in its second dimension. */
static void as_many_rows_as_there_may_be(void **state)
{
    (void)state;
    enum { MOST = 1 << 16 };
    rig r;
    rig_batch b;
    begin("");
    rig_init(&r, 4);
    r.cfg.max_rows = MOST;
    cp_op *op = rig_op(&r, CP_OP_SUM, CP_ROWS_ALL);
    op->u.sum.in = rig_mat(&r, 4, CP_ROWS_ALL);
    op->u.sum.weights = rig_mat(&r, 1, CP_ROWS_ALL);
    op->u.sum.out = rig_mat(&r, 4, CP_ROWS_ALL);
    op->u.sum.shared = op->u.sum.gate = -1;
    rig_batch_init(&b, &r, &(rig_seq){.n_rows = MOST}, 1, false);
    machine ref = machine_open(&r, NULL, 1), m = machine_open_on(&r, "cuda", NULL, 1);
    machine_fill(&ref, 5);
    machine_fill(&m, 5);
    machine_step(&ref, &b.b);
    machine_step(&m, &b.b);
    machines_equal(&ref, &m, op->u.sum.out, MOST, "sum");
    machine_close(&ref);
    machine_close(&m);
    nothing_is_left("in the end");
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* More outputs than a grid has blocks for are refused by name before a step could fail by them. */
static void more_outputs_than_a_grid_has_blocks(void **state)
{
    (void)state;
    enum { MOST = (65535 - 4) * 32 };
    cp_err err = {0};
    cp_backend *b;
    uint64_t bytes;
    begin("");
    assert_int_equal(cp_backend_open(&b, &(cp_backend_config){.device = "cuda"}, &err), CP_OK);
    for (int more = 0; more < 2; more++) {
        rig r;
        rig_init(&r, 5);
        cp_wref w = rig_weight(&r, CP_DTYPE_Q4_0, 32, MOST + more, CP_ROLE_LINEAR);
        cp_mat in = rig_mat(&r, 32, CP_ROWS_OUT);
        rig_linear(&r, in, w, rig_mat(&r, MOST + more, CP_ROWS_OUT), CP_ROWS_OUT);
        cp_code rc = cp_backend_model_bytes(b, &r.prog, &r.cfg, &bytes, &err);
        assert_int_equal(rc, more ? CP_UNSUPPORTED : CP_OK);
        rig_fini(&r);
    }
    assert_non_null(
        strstr(err.msg, "linear, layer 0: weights of 2096993 outputs; at most 2096992"));
    cp_backend_close(b);
    nothing_is_left("refused");
}

int main(void)
{
    const char *path = getenv("CAPSTAN_LIBCUDA");
    const char *const *name = cp_backend_names();
    while (*name && strcmp(*name, "cuda") != 0)
        name++;
    if (!*name || !path) {
        printf("skipped: %s\n",
               *name ? "CAPSTAN_LIBCUDA names no fake driver" : "cuda is not built");
        return 77;
    }
    cp_log_setup(CP_LOG_ERROR, false); /* that the driver is a fake is known */
    find_fake(path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_as_measured),
        cmocka_unit_test(budgets_are_absolute),
        cmocka_unit_test(a_device_that_is_full),
        cmocka_unit_test(lists_of_any_length),
        cmocka_unit_test(in_any_order_that_is_allowed),
        cmocka_unit_test(as_many_rows_as_there_may_be),
        cmocka_unit_test(more_outputs_than_a_grid_has_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
