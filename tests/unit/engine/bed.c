/*
 * bed: see bed.h.
 */
#include "tests/unit/engine/bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static cp_code add(bed *b, const cp_program *prog, const bed_options *o, cp_metrics *metrics,
                   cp_resident **out, cp_err *err)
{
    static const char not_null;
    cp_engine_model m = {.name = "m",
                         .file = o->file ? (const cp_loaded *)(const void *)&not_null : NULL,
                         .ctx = o->ctx ? o->ctx : 48,
                         .kv_bytes = 100 * (uint64_t)(o->pages ? o->pages : 64),
                         .max_seqs = o->max_seqs ? o->max_seqs : 4,
                         .max_batch_rows = o->rows ? o->rows : 32,
                         .prefill_chunk = o->chunk ? o->chunk : 8,
                         .kv_type = CP_DTYPE_BF16,
                         .prefix_cache = true,
                         .metrics = metrics,
                         .step_ms = o->step_ms,
                         .cancel = o->cancel};
    cp_engine_desc d = {.program = prog, .ctx_train = 1000, .page_bytes = 100, .digest = "d"};
    return cp_engine_load_program(b->e, &m, &d, out, err);
}

cp_code bed_load(bed *b, bed_options o, cp_resident **out, cp_err *err)
{
    return add(b, &b->prog2, &o, NULL, out, err);
}

static void told(void *arg)
{
    fake *f = arg;
    atomic_fetch_add(&f->told, 1);
}

void bed_open(bed *b, bed_options o)
{
    cp_err err;
    memset(b, 0, sizeof(*b));
    fake_init(&b->f);
    fake_clock(&b->f, o.row_ns);
    b->prog.n_groups = 1;
    b->prog.groups[0] = (cp_kv_group){.kind = CP_GROUP_FULL};
    b->prog.n_vocab = FAKE_VOCAB;
    b->prog2 = b->prog;
    b->prog2.n_vocab = FAKE_VOCAB + 1;
    cp_engine_config cfg = {.device_failed = told,
                            .device_failed_arg = &b->f,
                            .max_queue = o.max_queue ? o.max_queue : 64,
                            .max_queue_tokens = o.max_queue_tokens ? o.max_queue_tokens : 10000};
    assert_int_equal(cp_engine_open_with(&b->e, &cfg, &fake_backend, &err), CP_OK);
    b->api = cp_engine_front(b->e);
    b->metrics = cp_metrics_new("m");
    assert_int_equal(add(b, &b->prog, &o, b->metrics, &b->model, &err), CP_OK);
    b->f.model = b->model;
    if (o.two)
        assert_int_equal(bed_load(b, o, &b->model2, &err), CP_OK);
    front_open(&b->fr, b->api);
    if (!o.not_started)
        assert_int_equal(cp_engine_start(b->e, &err), CP_OK);
}

void bed_close(bed *b)
{
    fake_gate(&b->f, false);
    cp_engine_stop(b->e);
    front_close(&b->fr);
    cp_engine_close(b->e);
    cp_metrics_free(b->metrics);
    assert_int_equal(b->f.n_prepared, 0);
    assert_int_equal(atomic_load(&b->f.freed_elsewhere), 0);
}

void bed_submit(bed *b, fake_req *q)
{
    cp_err err = {0};
    assert_int_equal(b->api->submit(b->api->self, &q->r, &err), CP_OK);
}

void bed_refuses(bed *b, fake_req *q, cp_code code)
{
    cp_err err = {0};
    assert_int_equal(b->api->submit(b->api->self, &q->r, &err), code);
    assert_true(err.msg[0] != '\0');
    assert_int_equal(atomic_load(&q->freed), 0);
}

void expect_tokens(const fake_req *q, int choice, int n)
{
    int32_t want[64];
    assert_int_equal(q->n_tokens[choice], n);
    for (int i = 0; i < n; i++) {
        want[i] = fake_token(q->prompt, q->r.n_prompt, want, i, q->r.sampling.seed, choice);
        assert_int_equal(q->tokens[choice][i], want[i]);
    }
}
