/*
 * test_cuda_host: the cuda backend's host side over the fake driver (tests/fakes/libcuda): budgets,
 * that all memory goes back, and what a step copies. What kernels compute is other tests' matter.
 */
#include "tests/kernels/fake_driver.h"
#include "tests/kernels/mixed.h"

#include "base/log.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_ROT = 8, ROWS = 6 };

static fake_driver fake;

static void begin(const char *setting)
{
    fake_driver_begin(&fake, setting);
}

static void nothing_is_left(const char *when)
{
    fake_driver_is_clean(&fake, when);
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
    rig_group(r, (cp_kv_group){.kind = CP_GROUP_WINDOW,
                               .n_layers = 1,
                               .n_kv = 1,
                               .k_dim = 2,
                               .v_dim = 2,
                               .window = 8});
    rig_group(r, (cp_kv_group){.kind = CP_GROUP_STATE, .n_layers = 1, .state_bytes = 4096 + 192});
    r->cfg.page_positions = 16;
}

static void mixed_rig(rig *r)
{
    rig_init(r, 5);
    r->cfg.n_pages = 24;
    mixed_build(r, 0);
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

/* So it is with a program of every kind of record, of whose weights one goes to cuBLAS. */
static void all_is_said(void **state)
{
    (void)state;
    rig r;
    cp_err err = {0};
    cp_backend *b;
    cp_prepared *p;
    begin("");
    mixed_rig(&r);
    cp_mat wide = rig_mat(&r, 64, CP_ROWS_ALL), x = rig_mat(&r, 64, CP_ROWS_ALL);
    rig_linear(&r, x, rig_weight(&r, CP_DTYPE_BF16, 64, 64, CP_ROLE_LINEAR), wide, CP_ROWS_ALL);
    cp_backend_config cfg = {.device = "cuda", .gemm = CP_GEMM_CUBLAS};
    assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_OK);
    assert_int_equal(cp_backend_prepare(b, &r.prog, &r.cfg, &p, &err), CP_OK);
    uint64_t taken = fake.count("memory"), said = cp_prepared_bytes(p);
    assert_true(taken >= said && taken - said < 512 * fake.calls("cuMemAlloc_v2"));
    rig_batch batch;
    rig_batch_init(&batch, &r, (const rig_seq[]){{.n_rows = 64, .state_out = 1}}, 1, false);
    for (int i = 0; i < 64; i++)
        batch.tok[i] %= MIXED_VOCAB;
    assert_int_equal(cp_backend_submit(p, &batch.b, &err), CP_OK);
    assert_int_equal(cp_backend_collect(p, &err), CP_OK);
    assert_true(fake.count("gemms") > 0);
    assert_int_equal(fake.count("gemms_own_workspace"), 0); /* nor does the library take any */
    assert_int_equal(fake.count("memory"), taken);
    rig_batch_fini(&batch);
    cp_prepared_free(p);
    cp_backend_close(b);
    nothing_is_left("in the end");
    rig_fini(&r);
}

/* What the KV cache may take can be had beside the model, and little is left then. */
static void the_rest_is_for_pages(void **state)
{
    (void)state;
    enum { ROUNDING = 64 * 512 };
    rig r;
    char how[128];
    cp_err err = {0};
    cp_backend *b;
    cp_prepared *p;
    uint64_t model = 0, kv = 0, total, left;
    begin("");
    mixed_rig(&r);
    cp_backend_config cfg = {.device = "cuda", .device_bytes = (uint64_t)16 << 20};
    size_t page = cp_program_page_bytes(&r.prog, r.cfg.page_positions);
    size_t states = r.cfg.n_state_slots * cp_program_state_at(&r.prog, r.prog.n_groups);
    for (int whole = 0; whole < 2; whole++) { /* then without what is too little for a page */
        assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_OK);
        assert_int_equal(cp_backend_model_bytes(b, &r.prog, &r.cfg, &model, &err), CP_OK);
        assert_int_equal(cp_backend_kv_bytes(b, model, &kv, how, sizeof(how), &err), CP_OK);
        cfg.device_bytes -= (kv - states) % page;
        if (!whole)
            cp_backend_close(b);
    }
    assert_int_equal((kv - states) % page, 0);
    r.cfg.n_pages = (uint32_t)((kv - states) / page);
    if (cp_backend_prepare(b, &r.prog, &r.cfg, &p, &err) != CP_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(cp_backend_memory(b, &total, &left, &err), CP_OK);
    assert_true(left <= ROUNDING);
    cp_prepared_free(p);

    cp_backend_close(b);
    nothing_is_left("in the end");
    rig_fini(&r);
}

/* What is left is no more than the device has, whatever the budget says. */
static void others_use_the_device_too(void **state)
{
    (void)state;
    enum { REST = 8 << 20 };
    cp_err err = {0};
    cp_backend *b, *other;
    cp_mem m;
    uint64_t total, left;
    begin("");
    cp_backend_config cfg = {.device = "cuda", .device_bytes = 2 * REST};
    assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_OK);
    cfg.device_bytes = (uint64_t)512 << 20;
    assert_int_equal(cp_backend_open(&other, &cfg, &err), CP_OK);
    assert_int_equal(other->row->memory(other, &total, &left, &err), CP_OK);
    assert_int_equal(other->row->take(other, &m, left - REST, false, &err), CP_OK);
    assert_int_equal(b->row->memory(b, &total, &left, &err), CP_OK);
    assert_int_equal(left, REST);
    other->row->give(other, &m);
    assert_int_equal(b->row->memory(b, &total, &left, &err), CP_OK);
    assert_int_equal(left, 2 * REST);
    cp_backend_close(other);
    cp_backend_close(b);
    nothing_is_left("in the end");
}

/* Of a cap that is no multiple of the driver's blocks the broken one cannot be had; what could not
 * be had is not in the book. */
static void the_last_block(void **state)
{
    (void)state;
    cp_err err = {0};
    cp_backend *b;
    cp_mem m, rest;
    uint64_t total, left;
    begin("");
    cp_backend_config cfg = {.device = "cuda", .device_bytes = 3 * 512 + 100};
    assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_OK);
    if (b->row->take(b, &m, 1, false, &err) != CP_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(b->row->memory(b, &total, &left, &err), CP_OK);
    assert_int_equal(left, 2 * 512 + 100);
    assert_int_equal(b->row->take(b, &rest, 2 * 512 + 100, false, &err), CP_NO_MEMORY);
    assert_int_equal(b->row->take(b, &rest, 2 * 512, false, &err), CP_OK);
    assert_true(fake.count("memory_peak") <= cfg.device_bytes);
    b->row->give(b, &rest);
    b->row->give(b, &m);
    cp_backend_close(b);
    nothing_is_left("in the end");

    begin("FAKE_FAIL=cuMemAlloc_v2:1");
    cfg.device_bytes = 1 << 20;
    assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_OK);
    assert_int_equal(b->row->take(b, &m, 1 << 20, false, &err), CP_NO_MEMORY);
    assert_int_equal(b->row->take(b, &m, 1 << 20, false, &err), CP_OK);
    b->row->give(b, &m);
    cp_backend_close(b);
    nothing_is_left("refused once");
}

/* Page 0 and state slot 0 are zeroes to every step. */
static void nulls_are_zeroes(void **state)
{
    (void)state;
    rig r;
    rig_batch batch;
    cp_err err = {0};
    begin("");
    mixed_rig(&r);
    machine m = machine_open_on(&r, "cuda", NULL, 1);
    rig_batch_init(&batch, &r, (const rig_seq[]){{.n_rows = 1, .state_out = 1}}, 1, false);
    batch.tok[0] = 0;
    machine_step(&m, &batch.b);
    size_t n[] = {m.p->page_bytes, m.p->state_bytes};
    cp_addr at[] = {m.p->pages.at, m.p->states.at};
    for (int i = 0; i < 2; i++) {
        uint8_t *bytes = malloc(n[i]);
        assert_true(n[i] > 0);
        assert_int_equal(m.b->row->get(m.b, bytes, at[i], n[i], &err), CP_OK);
        for (size_t k = 0; k < n[i]; k++)
            assert_int_equal(bytes[k], 0);
        free(bytes);
    }
    machine_close(&m);
    nothing_is_left("in the end");
    rig_batch_fini(&batch);
    rig_fini(&r);
}

/* A step whose end cannot be enqueued is over when submit says so: nothing of it still reads the
 * pinned memory that the next one fills. */
static void a_failed_step_has_ended(void **state)
{
    (void)state;
    rig r;
    rig_batch batch;
    cp_err err = {0};
    char setting[64] = "";
    uint64_t launches = 0;
    for (int round = 0; round < 2; round++) {
        begin(setting);
        mixed_rig(&r);
        machine m = machine_open_on(&r, "cuda", NULL, 1);
        rig_batch_init(&batch, &r, (const rig_seq[]){{.n_rows = 1, .state_out = 1}}, 1, false);
        batch.tok[0] = 0;
        if (round == 0) {
            machine_step(&m, &batch.b);
            launches = fake.calls("cuLaunchKernel");
            cp_snprintf(setting, sizeof(setting), "FAKE_FAIL=cuLaunchKernel:%d:2", (int)launches);
        } else {
            assert_int_not_equal(cp_backend_submit(m.p, &batch.b, &err), CP_OK);
            assert_int_equal(fake.count("kernels"), launches - 1);
        }
        machine_close(&m);
        nothing_is_left("in the end");
        rig_batch_fini(&batch);
        rig_fini(&r);
    }
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
    one += (uint64_t)r.cfg.n_state_slots * cp_program_state_at(&r.prog, r.prog.n_groups);
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
    uint64_t pinned = 0, found = fake.calls("cuModuleGetFunction");
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
    assert_int_equal(fake.calls("cuModuleGetFunction"), found); /* no step loads a kernel */
    machine_close(&ref);
    machine_close(&m);
    nothing_is_left("in the end");
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* Zeroes of pages, copies of pages and copies of states, each alone in a step. */
static void each_alone(void **state)
{
    (void)state;
    static const uint32_t zeroes[] = {3, 5};
    static const cp_page_copy copies[] = {{7, 9}, {2, 3}};
    /* the first of the tables that lie behind the lists has a page 2, should it be read as one */
    static const rig_seq far[] = {{.pos0 = 40, .n_rows = 2}, {.pos0 = 0, .n_rows = 4}};
    rig r;
    rig_batch b;
    cp_mat angles, out;
    begin("");
    host_rig(&r, &angles, &out);
    machine ref = machine_open(&r, NULL, 1), m = machine_open_on(&r, "cuda", NULL, 1);
    machine_fill(&ref, 5);
    machine_fill(&m, 5);
    rig_batch_init(&b, &r, far, 2, false);
    b.b.zero_pages = zeroes;
    b.b.copies = b.b.state_copies = copies;
    for (int kind = 0; kind < 4; kind++) { /* the last: none of them */
        b.b.n_zero_pages = kind == 0 ? 2 : 0;
        b.b.n_copies = kind == 1 ? 2 : 0;
        b.b.n_state_copies = kind == 2 ? 2 : 0;
        machine_step(&ref, &b.b);
        machine_step(&m, &b.b);
        machines_equal_memory(&ref, &m, "pages and states");
    }
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
    for (int seed = 1; seed <= 8; seed++) {
        char text[32];
        begin("FAKE_MODE=eager");
        snprintf(text, sizeof(text), "%d", seed);
        setenv("FAKE_SEED", text, 1);
        fake.reset();
        machine ref = machine_open(&r, NULL, 1), m = machine_open_on(&r, "cuda", NULL, 1);
        for (int step = 0; step < 4; step++) {
            rig_seq q[] = {{.pos0 = 7 * step, .n_rows = 1 + step}, {.pos0 = 40, .n_rows = 2}};
            rig_batch_init(&b, &r, q, 1 + step % 2, step == 1);
            machine_step(&ref, &b.b);
            machine_step(&m, &b.b);
            machines_equal(&ref, &m, angles, b.b.n_rows, "angles");
            machines_equal(&ref, &m, out, b.b.n_out, "output rows");
            rig_batch_fini(&b);
        }
        machine_close(&ref);
        machine_close(&m);
        nothing_is_left("in the end");
    }
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
    if (!fake_driver_there())
        return 77;
    cp_log_setup(CP_LOG_ERROR, false); /* that the driver is a fake is known */
    fake = fake_driver_find();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_as_measured),
        cmocka_unit_test(all_is_said),
        cmocka_unit_test(the_rest_is_for_pages),
        cmocka_unit_test(others_use_the_device_too),
        cmocka_unit_test(the_last_block),
        cmocka_unit_test(nulls_are_zeroes),
        cmocka_unit_test(a_failed_step_has_ended),
        cmocka_unit_test(budgets_are_absolute),
        cmocka_unit_test(a_device_that_is_full),
        cmocka_unit_test(lists_of_any_length),
        cmocka_unit_test(each_alone),
        cmocka_unit_test(in_any_order_that_is_allowed),
        cmocka_unit_test(as_many_rows_as_there_may_be),
        cmocka_unit_test(more_outputs_than_a_grid_has_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
