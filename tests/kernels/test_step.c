/*
 * test_step: whole forwards of a small model (full and window attention, a short convolution, gated
 * FFN, several weight types). A sequence's logits must have the same bits whatever the step looks
 * like: chunking, neighbours, pages, workers, level; and a dense layer of a decode step passes at
 * most six barriers, counted.
 */
#include "tests/kernels/mixed.h"

#include "base/mem.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = MIXED_VOCAB, WINDOW = MIXED_WINDOW };

/* A running sequence: its tokens, pages and the logits of every position. */
typedef struct stream {
    int n, done;
    int32_t *tok;
    uint32_t *table[2];
    const uint32_t *lists[3];
    float *logits; /* [n][VOCAB] */
} stream;

static void stream_init(stream *s, rig *tokens, int n, const uint32_t *pages)
{
    int count = (n + 31) / 32;
    memset(s, 0, sizeof(*s));
    s->n = n;
    s->tok = cp_xcalloc((size_t)n, sizeof(*s->tok));
    s->logits = cp_xcalloc((size_t)n * VOCAB, sizeof(float));
    for (int i = 0; i < n; i++)
        s->tok[i] = (int32_t)rig_random(tokens, VOCAB);
    for (int g = 0; g < 2; g++) {
        s->table[g] = cp_xcalloc((size_t)count, sizeof(uint32_t));
        for (int i = 0; i < count; i++)
            s->table[g][i] = pages[g * count + i];
        s->lists[g] = s->table[g];
    }
}

static void stream_fini(stream *s)
{
    free(s->tok);
    free(s->logits);
    free(s->table[0]);
    free(s->table[1]);
}

/* One step: rows[i] more rows of stream i (0: not in the batch); every row gives logits. */
static void advance(machine *m, stream *s, const int *rows, int n)
{
    enum { MAX = 700 };
    static int32_t tok[MAX], pos[MAX], row_seq[MAX], out[MAX];
    cp_batch_seq *seqs = cp_xcalloc((size_t)n, sizeof(*seqs));
    cp_batch b = {.tok = tok, .pos = pos, .row_seq = row_seq, .out_rows = out, .seqs = seqs};
    for (int i = 0; i < n; i++) {
        if (!rows[i])
            continue;
        cp_batch_seq q = {.slot = i,
                          .row0 = b.n_rows,
                          .n_rows = rows[i],
                          .pos0 = s[i].done,
                          .pages = s[i].lists,
                          .state_in = s[i].done ? (uint32_t)(1 + i) : 0,
                          .state_out = (uint32_t)(1 + i),
                          .adapter = -1};
        memcpy(&seqs[b.n_seqs], &q, sizeof(q));
        /* What lies wholly behind the window of every row is gone. */
        for (int p = 0; (p + 1) * 32 <= s[i].done - WINDOW + 1; p++)
            s[i].table[1][p] = 0;
        for (int j = 0; j < rows[i]; j++, b.n_rows++) {
            tok[b.n_rows] = s[i].tok[s[i].done + j];
            pos[b.n_rows] = s[i].done + j;
            row_seq[b.n_rows] = b.n_seqs;
            out[b.n_rows] = b.n_rows;
        }
        b.n_seqs++;
    }
    b.n_out = b.n_rows;
    b.logits_copy = cp_xcalloc((size_t)b.n_rows * VOCAB, sizeof(float));
    machine_step(m, &b);
    int at = 0;
    for (int i = 0; i < n; i++) {
        memcpy(s[i].logits + (size_t)s[i].done * VOCAB, b.logits_copy + (size_t)at * VOCAB,
               (size_t)rows[i] * VOCAB * sizeof(float));
        s[i].done += rows[i];
        at += rows[i];
    }
    free(b.logits_copy);
    free(seqs);
}

static void mixed_rig(rig *r)
{
    rig_init(r, 77);
    r->cfg.max_rows = r->cfg.max_out = 700;
    r->cfg.n_pages = 200;
    mixed_build(r, 0);
}

/* The stream's logits when it runs in chunks of `chunk`, beside `others` that take random rows. */
static void run_chunks(rig *r, const char *level, int threads, stream *s, int n, int chunk)
{
    machine m = machine_open(r, level, threads);
    machine_fill(&m, 1 + (uint64_t)chunk); /* garbage in every page must not matter */
    while (s[0].done < s[0].n) {
        int rows[4] = {0}, left = s[0].n - s[0].done;
        rows[0] = chunk < left ? chunk : left;
        for (int i = 1; i < n; i++) {
            left = s[i].n - s[i].done;
            rows[i] = (int)rig_random(r, 3) ? (int)rig_random(r, 20) : 1;
            rows[i] = rows[i] < left ? rows[i] : left;
        }
        advance(&m, s, rows, n);
    }
    machine_close(&m);
}

static void deal_pages(rig *r, uint32_t *deck, int n)
{
    for (int i = 0; i < n; i++)
        deck[i] = (uint32_t)(1 + i);
    for (int i = n - 1; i > 0; i--) {
        int j = (int)rig_random(r, (uint64_t)i + 1);
        uint32_t t = deck[i];
        deck[i] = deck[j];
        deck[j] = t;
    }
}

/* 600 positions: more than one attention split, many windows. */
static void same_bits_however_batched(void **state)
{
    (void)state;
    static const struct way {
        int chunk, threads, others;
    } ways[] = {{600, 1, 0}, {600, 3, 0}, {1, 1, 0}, {1, 2, 2}, {7, 2, 1}, {64, 2, 3}, {509, 3, 1}};
    rig r;
    mixed_rig(&r);
    float *want = NULL;
    size_t bytes = (size_t)600 * VOCAB * sizeof(float);
    for (const char *const *level = rig_levels(); *level; level++) {
        if (!strcmp(*level, "amx")) { /* its attention has a law of its own */
            free(want);
            want = NULL;
        }
        for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
            if (!strcmp(*level, "base") && ways[w].chunk == 1)
                continue; /* slow, and the same walker */
            rig tokens;
            stream s[4];
            uint32_t deck[199];
            rig_init(&tokens, 9);
            deal_pages(&r, deck, 199);
            stream_init(&s[0], &tokens, 600, deck);
            for (int i = 1; i <= ways[w].others; i++)
                stream_init(&s[i], &r, 300, deck + 38 + 20 * (i - 1));
            run_chunks(&r, *level, ways[w].threads, s, 1 + ways[w].others, ways[w].chunk);
            if (!want) {
                want = cp_xmalloc(bytes);
                memcpy(want, s[0].logits, bytes);
                for (int i = 0; i < 600 * VOCAB; i++)
                    assert_true(isfinite(want[i]));
            }
            for (int i = 0; i < 600 * VOCAB; i++)
                if (memcmp(&want[i], &s[0].logits[i], sizeof(float)) != 0)
                    fail_msg("%s, chunk %d, %d workers, %d neighbours: position %d differs", *level,
                             ways[w].chunk, ways[w].threads, ways[w].others, i / VOCAB);
            for (int i = 0; i <= ways[w].others; i++)
                stream_fini(&s[i]);
            rig_fini(&tokens);
        }
    }
    free(want);
    rig_fini(&r);
}

static void same_bits_as_ref(void **state)
{
    (void)state;
    rig r, tokens;
    stream s[2];
    uint32_t deck[199];
    mixed_rig(&r);
    deal_pages(&r, deck, 199);
    for (int i = 0; i < 2; i++) {
        rig_init(&tokens, 4);
        stream_init(&s[i], &tokens, 60, deck);
        rig_fini(&tokens);
    }
    run_chunks(&r, NULL, 1, &s[0], 1, 25);
    run_chunks(&r, *rig_levels(), 2, &s[1], 1, 11);
    assert_memory_equal(s[0].logits, s[1].logits, 60 * VOCAB * sizeof(float));
    stream_fini(&s[0]);
    stream_fini(&s[1]);
    rig_fini(&r);
}

/* Barriers of a decode step of n sequences with `layers` dense layers. */
static uint64_t decode_barriers(int layers, int n_seqs)
{
    rig r;
    rig_init(&r, 3);
    r.cfg.n_pages = 600;
    mixed_build(&r, layers);
    machine m = machine_open(&r, rig_levels()[0], 2);
    machine_fill(&m, 1);
    rig_seq q[16];
    for (int i = 0; i < n_seqs; i++)
        q[i] = (rig_seq){.pos0 = 20 + i, .n_rows = 1};
    rig_batch b;
    rig_batch_init(&b, &r, q, n_seqs, true);
    for (int i = 0; i < b.b.n_rows; i++)
        b.tok[i] %= VOCAB;
    machine_step(&m, &b.b);
    uint64_t n = cp_prepared_barriers(m.p);
    rig_batch_fini(&b);
    machine_close(&m);
    rig_fini(&r);
    return n;
}

static void five_barriers_a_dense_layer(void **state)
{
    (void)state;
    static const int seqs[] = {1, 2, 16};
    for (int i = 0; i < 3; i++) {
        uint64_t two = decode_barriers(2, seqs[i]), four = decode_barriers(4, seqs[i]);
        assert_int_equal(four - two, 2 * 5);
    }
}

/* What another thread sees of a heart: how many times it has beaten. */
typedef struct watch {
    _Atomic int64_t beat;
    _Atomic bool over;
    int beats;
} watch;

static void *count_beats(void *arg)
{
    watch *w = arg;
    int64_t last = 0;
    while (!atomic_load(&w->over)) {
        int64_t now = atomic_load_explicit(&w->beat, memory_order_relaxed);
        w->beats += now != last;
        last = now;
    }
    return NULL;
}

/* A record of hundreds of items beats more than once, at its end. (Whoever watches may be off the
 * CPU meanwhile: then it looks again.) */
static void the_heart_beats_within_a_record(void **state)
{
    (void)state;
    enum { K = 256, M = 2048, ROWS = 264, TRIES = 40 };
    rig r;
    rig_init(&r, 5);
    r.cfg.max_rows = ROWS;
    cp_mat in = rig_mat(&r, K, CP_ROWS_ALL), out = rig_mat(&r, M, CP_ROWS_ALL);
    rig_linear(&r, in, rig_weight(&r, CP_DTYPE_Q8_0, K, M, CP_ROLE_LINEAR), out, CP_ROWS_ALL);
    machine m = machine_open(&r, rig_levels()[0], 2);
    machine_fill(&m, 1);
    rig_seq q = {.pos0 = 0, .n_rows = ROWS};
    rig_batch b;
    rig_batch_init(&b, &r, &q, 1, false);
    int most = 0;
    for (int i = 0; i < TRIES && most < 3; i++) {
        watch w = {.beats = 0};
        pthread_t t;
        cp_err err;
        b.b.beat = &w.beat;
        assert_int_equal(pthread_create(&t, NULL, count_beats, &w), 0);
        assert_int_equal(cp_backend_submit(m.p, &b.b, &err), CP_OK);
        assert_int_equal(cp_backend_collect(m.p, &err), CP_OK);
        atomic_store(&w.over, true);
        pthread_join(t, NULL);
        most = w.beats > most ? w.beats : most;
    }
    assert_true(most >= 3);
    rig_batch_fini(&b);
    machine_close(&m);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_as_ref),
        cmocka_unit_test(same_bits_however_batched),
        cmocka_unit_test(five_barriers_a_dense_layer),
        cmocka_unit_test(the_heart_beats_within_a_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
