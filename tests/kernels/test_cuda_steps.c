/*
 * test_cuda_steps: the cuda backend's host side over the fake driver from step to step: two steps
 * of which nothing has run, one that fails and the next, and what is said while a device works.
 */
#include "tests/kernels/fake_driver.h"
#include "tests/kernels/rig.h"

#include "base/clock.h"
#include "base/log.h"
#include "kernels/cuda/run.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_ROT = 8, VOCAB = 64, MANY = 40000 };

static fake_driver fake;

static const float inv_freq[N_ROT / 2] = {1.0f, 0.25f, 0.0625f, 0.015625f};

/* Angles of the rows' positions, pages, and logits that are put there by hand. */
static void steps_rig(rig *r, cp_mat *angles)
{
    rig_init(r, 3);
    *angles = rig_mat(r, N_ROT, CP_ROWS_ALL);
    cp_op *rope = rig_op(r, CP_OP_ROPE, CP_ROWS_ALL);
    rope->u.rope.out = *angles;
    rope->u.rope.n_rot = N_ROT;
    rope->u.rope.inv_freq = inv_freq;
    rope->u.rope.mscale = 1.0f;
    r->prog.n_vocab = VOCAB;
    r->prog.logits = rig_mat(r, VOCAB, CP_ROWS_OUT);
    rig_group(
        r, (cp_kv_group){.kind = CP_GROUP_FULL, .n_layers = 1, .n_kv = 1, .k_dim = 2, .v_dim = 2});
    r->cfg.page_positions = 16;
    r->cfg.max_rows = r->cfg.max_out = 8;
    r->cfg.max_seqs = 2;
    r->cfg.n_pages = 2 * MANY + 16;
}

/* ---- two steps in flight ---- */

/* A step is sent before anything of the one before has run: both are as they would be alone, lists
 * that are read where they are among them. Pages tell of the first step, angles of the second. */
static void two_steps_of_which_none_has_run(void **state)
{
    (void)state;
    static uint32_t zeroes[2][MANY];
    rig r;
    cp_mat angles;
    cp_err err = {0};
    steps_rig(&r, &angles);
    for (int i = 0; i < MANY; i++) {
        zeroes[0][i] = (uint32_t)(1 + 2 * i);
        zeroes[1][i] = (uint32_t)(2 + 2 * i);
    }
    for (int few = 0; few < 2; few++) {
        fake_driver_begin(&fake, "");
        machine ref = machine_open(&r, NULL, 1), m = machine_open_on(&r, "cuda", NULL, 1);
        machine_fill(&ref, 5);
        machine_fill(&m, 5);
        for (int pair = 0; pair < 2; pair++) {
            rig_batch b[2];
            for (int i = 0; i < 2; i++) {
                rig_seq q = {.pos0 = 11 * i + 40 * pair, .n_rows = 3};
                rig_batch_init(&b[i], &r, &q, 1, false);
                b[i].b.zero_pages = zeroes[i] + 9 * pair;
                b[i].b.n_zero_pages = few ? 2 + i : MANY - 100 * pair - 10 * i;
                machine_step(&ref, &b[i].b);
                assert_int_equal(m.b->row->submit(m.p, &b[i].b, &err), CP_OK);
            }
            assert_int_equal(m.b->row->collect(m.p, &err), CP_OK);
            machines_equal(&ref, &m, angles, 3, "angles of the second step");
            machines_equal_memory(&ref, &m, "pages of both");
            for (int i = 0; i < 2; i++)
                rig_batch_fini(&b[i]);
        }
        machine_close(&ref);
        machine_close(&m);
        fake_driver_is_clean(&fake, "in the end");
    }
    rig_fini(&r);
}

/* ---- a step that fails ---- */

typedef struct talk {
    int32_t tokens[4], tok[1], pos[1], row[1];
    cp_batch_seq seq;
    cp_sample_in in;
    cp_sample_out out;
    cp_batch b;
} talk;

/* A row at position pos of a sequence whose tokens up to there are counted. */
static void talk_at(talk *t, int pos, const uint32_t *const *pages)
{
    static const int32_t tokens[] = {7, 9, 9, 9};
    memset(t, 0, sizeof(*t));
    memcpy(t->tokens, tokens, sizeof(tokens));
    t->tok[0] = tokens[pos];
    t->pos[0] = pos;
    cp_batch_seq q = {.epoch = 4,
                      .n_rows = 1,
                      .pos0 = pos,
                      .tokens = t->tokens,
                      .n_tokens = pos + 1,
                      .pages = pages,
                      .adapter = -1};
    memcpy(&t->seq, &q, sizeof(q));
    t->in = (cp_sample_in){.top_p = 1.0f,
                           .repetition = 1.0f,
                           .frequency = 0.5f,
                           .tokens = t->tokens,
                           .n_tokens = pos + 1,
                           .target = -1,
                           .n_top = 2};
    t->b = (cp_batch){.n_rows = 1,
                      .n_seqs = 1,
                      .n_out = 1,
                      .tok = t->tok,
                      .pos = t->pos,
                      .row_seq = t->row,
                      .out_rows = t->row,
                      .seqs = &t->seq,
                      .samples = &t->in,
                      .results = &t->out};
}

/* 9 is ahead of 5 by so little that a second 9 which was counted puts it behind. */
static void put_logits(machine *m)
{
    float x[VOCAB] = {[5] = 2.0f, [9] = 3.2f};
    machine_put_row(m, m->p->prog->logits, 0, x);
}

static cp_code run(machine *m, talk *t, cp_err *err)
{
    put_logits(m);
    cp_code rc = cp_backend_submit(m->p, &t->b, err);
    return rc == CP_OK ? cp_backend_collect(m->p, err) : rc;
}

/* A step whose lists find no memory fails, and the one after it is right: what the first brought
 * was not counted, and is. Returns how often pinned memory was asked for. */
static uint64_t three_steps(const char *setting, bool fails)
{
    static uint32_t zeroes[MANY];
    static const uint32_t page[] = {1}, *const pages[] = {page};
    rig r;
    cp_mat angles;
    cp_err err = {0};
    talk t;
    for (int i = 0; i < MANY; i++)
        zeroes[i] = (uint32_t)(2 + i);
    fake_driver_begin(&fake, setting);
    steps_rig(&r, &angles);
    machine m = machine_open_on(&r, "cuda", NULL, 1);
    talk_at(&t, 1, pages);
    assert_int_equal(run(&m, &t, &err), CP_OK);
    assert_int_equal(t.out.id, 9); /* 3.2 - 0.5 */
    talk_at(&t, 2, pages);
    t.b.zero_pages = zeroes;
    t.b.n_zero_pages = MANY;
    cp_code rc = run(&m, &t, &err);
    uint64_t asked = fake.calls("cuMemHostAlloc");
    assert_int_equal(rc, fails ? CP_NO_MEMORY : CP_OK);
    assert_true(!fails || strstr(err.msg, "pinned memory"));
    talk_at(&t, 3, pages);
    assert_int_equal(run(&m, &t, &err), CP_OK);
    assert_int_equal(t.out.id, 5); /* 3.2 - 3 * 0.5: the third was not left out */
    assert_true(!fails || fake.count("injected") == 1);
    machine_close(&m);
    fake_driver_is_clean(&fake, setting);
    rig_fini(&r);
    return asked;
}

static void a_step_fails_and_the_next_is_right(void **state)
{
    (void)state;
    char setting[64];
    uint64_t n = three_steps("", false);
    snprintf(setting, sizeof(setting), "FAKE_FAIL=cuMemHostAlloc:%d", (int)n);
    three_steps(setting, true);
}

/* A slot's next tenant shares no token with the one before, though its first ones were computed by
 * somebody else: they are taken from pages, and counted all the same. */
static void a_new_tenant_of_a_slot(void **state)
{
    (void)state;
    static const uint32_t page[] = {1}, *const pages[] = {page};
    rig r;
    cp_mat angles;
    cp_err err = {0};
    talk t;
    fake_driver_begin(&fake, "");
    steps_rig(&r, &angles);
    machine m = machine_open_on(&r, "cuda", NULL, 1);
    for (int pos = 2; pos < 4; pos++) {
        talk_at(&t, pos, pages);
        t.in.frequency = 0.7f;
        assert_int_equal(run(&m, &t, &err), CP_OK);
        assert_int_equal(t.out.id, 5); /* 3.2 - 2 * 0.7 */
    }
    talk_at(&t, 2, pages);
    t.tokens[0] = 1;
    t.tokens[1] = 2;
    t.in.frequency = 0.7f;
    cp_batch_seq q = t.seq;
    q.epoch++;
    memcpy(&t.seq, &q, sizeof(q));
    assert_int_equal(run(&m, &t, &err), CP_OK);
    assert_int_equal(t.out.id, 9); /* 3.2 - 0.7 */
    machine_close(&m);
    fake_driver_is_clean(&fake, "in the end");
    rig_fini(&r);
}

/* What finds no room anywhere is written somewhere all the same, and nothing else is there: the
 * step's other lists are still being written. */
static void each_list_has_a_place(void **state)
{
    (void)state;
    enum { LISTS = 4, BYTES = 1 << 20 };
    rig r;
    cp_mat angles;
    uint8_t *list[LISTS];
    uint64_t at;
    cp_err err = {0};
    fake_driver_begin(&fake, "");
    steps_rig(&r, &angles);
    machine m = machine_open_on(&r, "cuda", NULL, 1);
    cuda_run *running = m.p->impl;
    char setting[64];
    int asked = (int)fake.calls("cuMemHostAlloc");
    machine_close(&m);
    snprintf(setting, sizeof(setting), "FAKE_FAIL=cuMemHostAlloc:%d:700", asked + 1); /* for good */
    fake_driver_begin(&fake, setting);
    m = machine_open_on(&r, "cuda", NULL, 1);
    running = m.p->impl;
    for (int step = 0; step < 2; step++) {
        cp_cuda_blob_begin(running);
        for (int i = 0; i < LISTS; i++) {
            list[i] = cp_cuda_room(running, BYTES, &at);
            memset(list[i], i + 1, BYTES);
        }
        for (int i = 0; i < LISTS; i++)
            for (int k = 0; k < BYTES; k += 4095)
                assert_int_equal(list[i][k], i + 1);
        assert_int_equal(cp_cuda_blob_copy(running, &err), CP_DEVICE_FAILED);
        assert_non_null(strstr(err.msg, "cuMemHostAlloc"));
    }
    machine_close(&m);
    rig_fini(&r);
}

/* ---- waiting ---- */

typedef struct waiting {
    machine *m;
    cp_code code;
} waiting;

static void *collect(void *arg)
{
    waiting *w = arg;
    cp_err err = {0};
    w->code = w->m->b->row->collect(w->m->p, &err);
    return NULL;
}

/* While a device is at work the heart beats; when it has ended, so has collect. */
static void a_long_step_is_alive(void **state)
{
    (void)state;
    rig r;
    rig_batch b;
    cp_mat angles;
    cp_err err = {0};
    _Atomic int64_t beat = 0;
    rig_seq q = {.pos0 = 3, .n_rows = 2};
    fake_driver_begin(&fake, "");
    steps_rig(&r, &angles);
    machine m = machine_open_on(&r, "cuda", NULL, 1);
    rig_batch_init(&b, &r, &q, 1, false);
    b.b.beat = &beat;
    fake.hold(true);
    assert_int_equal(m.b->row->submit(m.p, &b.b, &err), CP_OK);
    waiting w = {.m = &m, .code = CP_IO};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, collect, &w), 0);
    alarm(60); /* it would be for ever */
    int64_t seen = atomic_load(&beat);
    for (int beats = 0; beats < 5; seen = atomic_load(&beat))
        beats += atomic_load(&beat) != seen; /* for as long as it takes */
    alarm(0);
    fake.hold(false);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(w.code, CP_OK);
    assert_true(atomic_load(&beat) >= seen);
    machine_close(&m);
    fake_driver_is_clean(&fake, "in the end");
    rig_batch_fini(&b);
    rig_fini(&r);
}

/* A wait adds a 64th to a step at most, asks every 5 ms, and is patient for two minutes. */
static void patience_ends(void **state)
{
    (void)state;
    static const int64_t ms = 1000000, s = 1000000000;
    static const struct {
        int64_t waited, nap;
        bool beats;
    } rows[] = {{0, 0, true},
                {3 * ms, 0, true},
                {4 * ms, 4 * ms / 64, true},
                {64 * ms, ms, true},
                {319 * ms, 319 * ms / 64, true},
                {320 * ms, 5 * ms, true},
                {120 * s - 1, 5 * ms, true},
                {120 * s, 5 * ms, false},
                {7200 * s, 5 * ms, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cuda_patience got = cp_cuda_patience(rows[i].waited);
        assert_int_equal(got.nap_ns, rows[i].nap);
        assert_int_equal(got.beats, rows[i].beats);
    }
}

int main(void)
{
    if (!fake_driver_there())
        return 77;
    cp_log_setup(CP_LOG_ERROR, false); /* that the driver is a fake is known */
    fake = fake_driver_find();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_steps_of_which_none_has_run),
        cmocka_unit_test(a_step_fails_and_the_next_is_right),
        cmocka_unit_test(a_new_tenant_of_a_slot),
        cmocka_unit_test(each_list_has_a_place),
        cmocka_unit_test(a_long_step_is_alive),
        cmocka_unit_test(patience_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
