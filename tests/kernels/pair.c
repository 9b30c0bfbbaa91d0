/*
 * pair: see pair.h.
 */
#include "tests/kernels/pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

bool pair_is_built(void)
{
    for (const char *const *name = cp_backend_names(); *name; name++)
        if (strcmp(*name, "cuda") == 0)
            return true;
    printf("skipped: the cuda backend is not built (no nvcc)\n");
    return false;
}

pair pair_open(rig *r, bool exact)
{
    pair p = {.r = r, .ref = machine_open(r, NULL, 1)};
    r->exact = r->odd = exact;
    p.cuda = machine_open_on(r, "cuda", NULL, 1);
    return p;
}

void pair_close(pair *p)
{
    machine_close(&p->cuda);
    machine_close(&p->ref);
}

void given_fill(machine *m, uint64_t seed, const given *g)
{
    machine_fill(m, seed);
    for (int row = 0; g && row < g->n; row++)
        machine_put_row(m, g->m, row, g->x + row * g->width);
}

void pair_batch(pair *p, const cp_batch *b, const given *g)
{
    uint64_t seed = rig_random(p->r, 1u << 30);
    given_fill(&p->ref, seed, g);
    given_fill(&p->cuda, seed, g);
    machine_step(&p->ref, b);
    machine_step(&p->cuda, b);
}

void pair_step(pair *p, int n, const given *g)
{
    rig_seq q = {.n_rows = n};
    rig_batch b;
    rig_batch_init(&b, p->r, &q, 1, false);
    pair_batch(p, &b.b, g);
    rig_batch_fini(&b);
}

void pair_step_out(pair *p, int n, const cp_mat *outs)
{
    rig_seq q = {.n_rows = n + 1};
    rig_batch b;
    rig_batch_init(&b, p->r, &q, 1, true);
    b.b.n_out = n;
    pair_batch(p, &b.b, NULL);
    rig_batch_fini(&b);
    for (int i = 0; outs[i] >= 0; i++) {
        float *want = machine_row(&p->ref, outs[i], n), *got = machine_row(&p->cuda, outs[i], n);
        assert_memory_equal(got, want, (size_t)p->r->mats[outs[i]].width * sizeof *got);
        free(want);
        free(got);
    }
}

void pair_equal(pair *p, int n, const cp_mat *outs, const char *what)
{
    for (int i = 0; outs[i] >= 0; i++) {
        bool out = p->r->mats[outs[i]].rows == CP_ROWS_OUT;
        int most = out ? p->r->cfg.max_out : p->r->cfg.max_rows;
        machines_equal(&p->ref, &p->cuda, outs[i], n + (n < most), what);
    }
}

double pair_distance(const pair *p, cp_mat out, int n)
{
    double off = 0.0, all = 0.0;
    if (n < p->r->cfg.max_out && n < p->r->cfg.max_rows) {
        float *a = machine_row(&p->ref, out, n), *b = machine_row(&p->cuda, out, n);
        assert_memory_equal(a, b, (size_t)p->r->mats[out].width * sizeof *a);
        free(a);
        free(b);
    }
    for (int row = 0; row < n; row++) {
        float *a = machine_row(&p->ref, out, row), *b = machine_row(&p->cuda, out, row);
        for (int o = 0; o < p->r->mats[out].width; o++) {
            double d = (double)b[o] - (double)a[o];
            off += d * d;
            all += (double)a[o] * (double)a[o];
        }
        free(a);
        free(b);
    }
    return off / all;
}
