/*
 * bed: an engine over the fake backend with one model or two, its front end, and what tests ask of
 * it.
 */
#ifndef CP_TESTS_UNIT_ENGINE_BED_H
#define CP_TESTS_UNIT_ENGINE_BED_H

#include "tests/unit/engine/fake.h"

typedef struct bed {
    fake f;
    front fr;
    cp_engine *e;
    const cp_engine_api *api;
    cp_program prog, prog2;
    cp_metrics *metrics;
    cp_resident *model, *model2;
} bed;

typedef struct bed_options {
    int max_seqs, ctx, pages, max_queue, chunk, rows, step_ms;
    int64_t max_queue_tokens, row_ns;
    bool two, file, not_started;
    const _Atomic bool *cancel;
} bed_options;

void bed_open(bed *b, bed_options o);
/* One more model, of b->prog2; what cp_engine_load_program says. *out NULL: it failed. */
cp_code bed_load(bed *b, bed_options o, cp_resident **out, cp_err *err);
void bed_close(bed *b);
void bed_submit(bed *b, fake_req *q);
/* It is refused with `code` and some words, and nothing is kept of it. */
void bed_refuses(bed *b, fake_req *q, cp_code code);
/* Choice `choice` of q has got its n right tokens, and no others. */
void expect_tokens(const fake_req *q, int choice, int n);

int suite_models(void); /* test_models.c */
int suite_time(void);   /* test_time.c */

#endif
