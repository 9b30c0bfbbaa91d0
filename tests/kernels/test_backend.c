/*
 * test_backend: the seam that every backend stands behind (kernels.h), walked with one program on
 * each row, level and a few worker counts: what a slot sampled is the next step's id, and nobody
 * else's.
 */
#include "tests/kernels/mixed.h"

#include "base/mem.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = MIXED_VOCAB, SEQS = 3, LONGEST = 40 };

/* Sequences of a test and the latest step's batch over them. */
typedef struct talk {
    int32_t tokens[SEQS][LONGEST];
    int n[SEQS], done[SEQS], slot[SEQS];
    uint32_t epoch[SEQS];
    uint32_t pages[SEQS][2][2];
    const uint32_t *tables[SEQS][3];
    int32_t tok[SEQS * LONGEST], pos[SEQS * LONGEST], row_seq[SEQS * LONGEST], out_rows[SEQS];
    cp_batch_seq seqs[SEQS];
    cp_sample_in in[SEQS];
    cp_sample_out out[SEQS];
    float logits[SEQS * VOCAB];
    cp_batch b;
} talk;

static void talk_init(talk *t)
{
    static const int slots[SEQS] = {5, 0, 3};
    memset(t, 0, sizeof(*t));
    for (int s = 0; s < SEQS; s++) {
        t->slot[s] = slots[s];
        t->epoch[s] = 7 + (uint32_t)s;
        t->n[s] = 2 + s;
        for (int i = 0; i < t->n[s]; i++)
            t->tokens[s][i] = 11 * s + 3 * i;
        for (int g = 0; g < 2; g++) {
            for (int i = 0; i < 2; i++)
                t->pages[s][g][i] = (uint32_t)(1 + 4 * s + 2 * g + i);
            t->tables[s][g] = t->pages[s][g];
        }
    }
}

/* Greedy, with a penalty that nothing outweighs: these ids come one after another, each once. */
static const struct cp_logit_bias wishes[] = {{90, 900.0f}, {17, 800.0f}, {64, 700.0f},
                                              {33, 600.0f}, {71, 500.0f}, {2, 400.0f}};

/* The next step: all known rows of the sequences in `who` (ends with -1), each one's last row
 * sampled with penalties over its whole history. */
static cp_batch *talk_batch(talk *t, const int *who)
{
    cp_batch *b = &t->b;
    *b = (cp_batch){.tok = t->tok,
                    .pos = t->pos,
                    .row_seq = t->row_seq,
                    .out_rows = t->out_rows,
                    .seqs = t->seqs,
                    .samples = t->in,
                    .results = t->out,
                    .logits_copy = t->logits};
    for (; *who >= 0; who++, b->n_seqs++, b->n_out++) {
        int s = *who;
        cp_batch_seq q = {.slot = t->slot[s],
                          .epoch = t->epoch[s],
                          .row0 = b->n_rows,
                          .n_rows = t->n[s] - t->done[s],
                          .pos0 = t->done[s],
                          .tokens = t->tokens[s],
                          .n_tokens = t->n[s],
                          .pages = t->tables[s],
                          .state_in = t->done[s] ? (uint32_t)(1 + s) : 0,
                          .state_out = (uint32_t)(1 + s),
                          .adapter = -1};
        memcpy(&t->seqs[b->n_seqs], &q, sizeof(q));
        for (int p = t->done[s]; p < t->n[s]; p++, b->n_rows++) {
            t->tok[b->n_rows] = t->tokens[s][p];
            t->pos[b->n_rows] = p;
            t->row_seq[b->n_rows] = b->n_seqs;
        }
        t->out_rows[b->n_out] = b->n_rows - 1;
        t->in[b->n_out] = (cp_sample_in){.top_p = 1.0f,
                                         .repetition = 1.0f,
                                         .presence = 1e4f,
                                         .bias = wishes,
                                         .n_bias = sizeof(wishes) / sizeof(wishes[0]),
                                         .tokens = t->tokens[s],
                                         .n_prompt = 2 + s,
                                         .n_tokens = t->n[s],
                                         .target = -1,
                                         .n_top = 3};
        t->done[s] = t->n[s];
    }
    return b;
}

/* Run it; each sequence gets the next token, as an id or as CP_TOK_PREV. */
static void talk_step(talk *t, machine *m, const int *who, bool by_id)
{
    machine_step(m, talk_batch(t, who));
    for (int i = 0; i < t->b.n_out; i++) {
        assert_true(t->out[i].finite);
        t->tokens[who[i]][t->n[who[i]]++] = by_id ? t->out[i].id : CP_TOK_PREV;
    }
}

static void seam_rig(rig *r)
{
    rig_init(r, 21);
    r->cfg.n_pages = 16;
    r->cfg.max_seqs = 6;
    mixed_build(r, 0);
}

/* All machines of the rig: ref, and cpu at each level on one and on two workers. */
static int open_all(rig *r, machine *m)
{
    int n = 0;
    m[n++] = machine_open(r, NULL, 1);
    for (const char *const *level = rig_levels(); *level; level++)
        for (int threads = 1; threads <= 2; threads++)
            m[n++] = machine_open(r, *level, threads);
    return n;
}

enum { MACHINES = 20 };

/* A token that a slot sampled need not be known to go on: the step takes it by the mark, wherever
 * the sequence stands in the batch, and so does the history of the penalties. */
static void the_id_before_by_its_mark(void **state)
{
    (void)state;
    static const int steps[][SEQS + 1] = {{0, 1, 2, -1}, {2, 0, -1},    {1, 2, 0, -1},
                                          {0, -1},       {1, 0, 2, -1}, {2, -1}};
    rig r;
    machine m[MACHINES];
    seam_rig(&r);
    int n_m = open_all(&r, m);
    machine other = machine_open(&r, NULL, 1);
    for (int k = 0; k < n_m; k++) {
        talk by_id, by_mark;
        talk_init(&by_id);
        talk_init(&by_mark);
        for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
            talk_step(&by_id, &other, steps[i], true);
            talk_step(&by_mark, &m[k], steps[i], false);
            for (int o = 0; o < by_id.b.n_out; o++) {
                int s = steps[i][o], before = by_id.n[s] - 2;
                assert_int_equal(by_id.out[o].id, wishes[by_id.n[s] - 3 - s].id);
                assert_int_equal(by_id.out[o].id, by_mark.out[o].id);
                assert_memory_equal(by_id.out[o].top, by_mark.out[o].top, sizeof(by_id.out[o].top));
                by_mark.tokens[s][before] = by_id.tokens[s][before]; /* known by now */
            }
            size_t bytes = (size_t)by_id.b.n_out * VOCAB * sizeof(float);
            assert_memory_equal(by_id.logits, by_mark.logits, bytes);
        }
    }
    machine_close(&other);
    for (int k = 0; k < n_m; k++)
        machine_close(&m[k]);
    rig_fini(&r);
}

/* Whether the step ends the process by an assertion. In a child: of machines without threads. */
static bool aborts(machine *m, const cp_batch *b)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(60);
        cp_backend_submit(m->p, b, NULL);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/* The mark means nothing to a slot's new tenant, nor where nothing was sampled yet. */
static void no_id_of_another_tenant(void **state)
{
    (void)state;
    static const int who[] = {0, -1};
    rig r;
    seam_rig(&r);
    for (int k = 0; k < 2; k++) {
        machine m = machine_open(&r, k ? rig_levels()[0] : NULL, 1);
        talk t, old;
        talk_init(&t);
        t.tokens[0][1] = CP_TOK_PREV;
        assert_true(aborts(&m, talk_batch(&t, who)));
        talk_init(&t);
        talk_batch(&t, who);
        t.in[0].target = 3; /* scored, nothing sampled */
        machine_step(&m, &t.b);
        t.tokens[0][t.n[0]++] = CP_TOK_PREV;
        assert_true(aborts(&m, talk_batch(&t, who)));
        talk_init(&t);
        talk_step(&t, &m, who, false);
        old = t;
        assert_false(aborts(&m, talk_batch(&t, who)));
        t = old;
        t.epoch[0]++;
        assert_true(aborts(&m, talk_batch(&t, who)));
        machine_close(&m);
    }
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_id_before_by_its_mark),
        cmocka_unit_test(no_id_of_another_tenant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
