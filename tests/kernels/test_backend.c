/*
 * test_backend: the seam that every backend stands behind (kernels.h, kernels/backend.h). Each row
 * that is built is walked, function by function, with the same program: what it says of itself, its
 * memory, steps, ids that a slot sampled (nobody else sees them), masks that come late. Which call
 * may follow which is held by assertions.
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
    r->exact = true; /* every row has the bits of ref */
    mixed_build(r, 0);
}

enum { MACHINES = 20 };

/* All machines of the rig: each row that is built; cpu at each level, on one and on two workers. */
static int open_all(rig *r, machine *m)
{
    int n = 0;
    for (const char *const *name = rig_backends(); *name; name++) {
        bool cpu = strcmp(*name, "cpu") == 0;
        if (!cpu)
            m[n++] = machine_open_on(r, *name, NULL, 1);
        for (const char *const *level = rig_levels(); cpu && *level; level++)
            for (int threads = 1; threads <= 2; threads++)
                m[n++] = machine_open(r, *level, threads);
    }
    assert_true(n <= MACHINES);
    return n;
}

static void close_all(rig *r, machine *m, int n)
{
    for (int i = 0; i < n; i++)
        machine_close(&m[i]);
    rig_fini(r);
}

/* ref by the law of m's level. */
static machine ref_of(rig *r, const machine *m)
{
    bool tiles = m->level && strcmp(m->level, "amx") == 0;
    return machine_open_on(r, "ref", tiles ? "amx" : NULL, 1);
}

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
    for (int k = 0; k < n_m; k++) {
        machine other = ref_of(&r, &m[k]);
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
        machine_close(&other);
    }
    close_all(&r, m, n_m);
}

/* A step of one sequence: two rows that are sampled, to the first two wishes, and one behind them
 * that is scored. */
static void talk_drafts(talk *t, machine *m)
{
    static const int who[] = {0, -1};
    t->n[0] = 3;
    t->tokens[0][2] = 6;
    cp_batch *b = talk_batch(t, who);
    b->n_out = 3;
    for (int o = 0; o < 3; o++) {
        t->out_rows[o] = o;
        t->in[o] = (cp_sample_in){.top_p = 1.0f,
                                  .repetition = 1.0f,
                                  .bias = &wishes[o],
                                  .n_bias = 1,
                                  .tokens = t->tokens[0],
                                  .n_prompt = 1 + o,
                                  .n_tokens = 1 + o,
                                  .target = o < 2 ? -1 : 5};
    }
    machine_step(m, b);
    assert_int_equal(t->out[0].id, wishes[0].id);
    assert_int_equal(t->out[1].id, wishes[1].id);
}

/* Of several rows of a slot the last one that was sampled is what the mark stands for. */
static void the_id_of_the_last_sampled_row(void **state)
{
    (void)state;
    static const int who[] = {0, -1};
    rig r;
    machine m[MACHINES];
    seam_rig(&r);
    int n_m = open_all(&r, m);
    for (int k = 0; k < n_m; k++) {
        machine other = ref_of(&r, &m[k]);
        talk by_id, by_mark;
        talk_init(&by_id);
        talk_init(&by_mark);
        talk_drafts(&by_id, &other);
        talk_drafts(&by_mark, &m[k]);
        by_id.tokens[0][by_id.n[0]++] = wishes[1].id;
        by_mark.tokens[0][by_mark.n[0]++] = CP_TOK_PREV;
        talk_step(&by_id, &other, who, true);
        talk_step(&by_mark, &m[k], who, false);
        assert_memory_equal(by_id.logits, by_mark.logits, VOCAB * sizeof(float));
        assert_int_equal(by_id.out[0].id, by_mark.out[0].id);
        machine_close(&other);
    }
    close_all(&r, m, n_m);
}

/* ---- what a row says of itself, and its memory ---- */

static void count_line(void *arg, const char *text)
{
    int *kinds = arg;
    for (int i = 0; i < CP_OP_COUNT; i++)
        kinds[i] += strncmp(text, cp_op_names[i], strlen(cp_op_names[i])) == 0;
}

static void walk_words(cp_backend *b)
{
    char text[256] = "";
    int kinds[CP_OP_COUNT] = {0}, positions = cp_backend_page_positions(b);
    assert_true(strlen(cp_backend_level(b)) > 0);
    cp_backend_device(b, text, sizeof(text));
    assert_memory_equal(text, cp_backend_name(b), strlen(cp_backend_name(b)));
    cp_backend_default_level(b, text, sizeof(text));
    assert_true(strlen(text) > 0);
    assert_true(positions >= 16 && CP_SPLIT % positions == 0);
    assert_true(cp_backend_depth(b) >= 1);
    assert_true(cp_backend_supports(b, CP_ROLE_LINEAR, CP_DTYPE_Q4_0));
    assert_true(cp_backend_supports(b, CP_ROLE_EMBED, CP_DTYPE_F16));
    assert_true(cp_backend_supports(b, CP_ROLE_VECTOR, CP_DTYPE_F32));
    assert_false(cp_backend_supports(b, CP_ROLE_VECTOR, CP_DTYPE_Q4_0));
    cp_backend_describe(b, count_line, kinds);
    for (int i = 0; i < CP_OP_COUNT; i++)
        assert_true(kinds[i] > 0);
}

static void walk_memory(cp_backend *b)
{
    enum { N = 100003, AT = 64 * 5, PART = 777 };
    static uint8_t from[N], to[N];
    cp_err err = {0};
    cp_mem m = {0}, other = {0};
    assert_int_equal(b->row->take(b, &m, N, true, &err), CP_OK);
    assert_int_equal(b->row->take(b, &other, N, false, &err), CP_OK);
    assert_true(m.at && m.at % 64 == 0 && m.bytes == N && other.at != m.at);
    memset(to, 1, N);
    assert_int_equal(b->row->get(b, to, m.at, N, &err), CP_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(to[i], 0);
    for (int i = 0; i < N; i++)
        from[i] = (uint8_t)(i % 251 + 1);
    assert_int_equal(b->row->put(b, other.at, from, N, &err), CP_OK);
    assert_int_equal(b->row->put(b, m.at + AT, from, PART, &err), CP_OK);
    assert_int_equal(b->row->get(b, to, m.at, N, &err), CP_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(to[i], i >= AT && i < AT + PART ? from[i - AT] : 0);
    b->row->give(b, &m);
    assert_int_equal(m.at, 0);
    assert_int_equal(b->row->get(b, to, other.at, N, &err), CP_OK);
    assert_memory_equal(from, to, N);
    b->row->give(b, &other);
    /* more than there is: an error that says so, not a crash */
    assert_int_equal(b->row->take(b, &m, SIZE_MAX / 2, true, &err), CP_NO_MEMORY);
    assert_non_null(strstr(err.msg, "bytes"));
    uint64_t total, available, kv;
    char how[128] = "";
    assert_int_equal(cp_backend_memory(b, &total, &available, &err), CP_OK);
    assert_true(available > 0 && available <= total);
    assert_int_equal(cp_backend_kv_bytes(b, 1 << 20, &kv, how, sizeof(how), &err), CP_OK);
    assert_true(kv > 0 && kv < total);
    assert_non_null(strstr(how, " MiB"));
}

/* Every function of a row is there: none is optional. One that is added to the row and not to this
 * list does not build. */
#define ROW_FUNCTIONS(X)                                                                           \
    X(open)                                                                                        \
    X(close)                                                                                       \
    X(level)                                                                                       \
    X(device)                                                                                      \
    X(default_level)                                                                               \
    X(supports)                                                                                    \
    X(take)                                                                                        \
    X(give)                                                                                        \
    X(put)                                                                                         \
    X(get)                                                                                         \
    X(memory)                                                                                      \
    X(kv_bytes)                                                                                    \
    X(measure)                                                                                     \
    X(prepare)                                                                                     \
    X(fini)                                                                                        \
    X(submit)                                                                                      \
    X(sample)                                                                                      \
    X(collect)

#define X(function) +1
enum { N_ROW_FUNCTIONS = ROW_FUNCTIONS(X) };
#undef X
_Static_assert(sizeof(cp_backend_row) - offsetof(cp_backend_row, open) ==
                   N_ROW_FUNCTIONS * sizeof(void (*)(void)),
               "a function of the row is not in the list");

static void walk_functions(const cp_backend_row *row)
{
#define X(function)                                                                                \
    if (!row->function)                                                                            \
        fail_msg("the row %s has no function " #function, row->name);
    ROW_FUNCTIONS(X)
#undef X
}

static void every_row_walked(void **state)
{
    (void)state;
    int n = 0;
    for (const char *const *name = rig_backends(); *name; name++, n++) {
        cp_err err = {0};
        cp_backend *b = NULL;
        assert_int_equal(cp_backend_open(&b, &(cp_backend_config){.device = *name}, &err), CP_OK);
        assert_string_equal(b->row->name, *name);
        walk_functions(b->row);
        walk_words(b);
        walk_memory(b);
        cp_backend_close(b);
    }
    assert_true(n >= 2);
}

static bool is_built(const char *name)
{
    const char *const *n = cp_backend_names();
    while (*n && strcmp(*n, name) != 0)
        n++;
    return *n != NULL;
}

/* No name: the first one. A device that is not there is refused, with what is. */
static void a_device_by_its_name(void **state)
{
    (void)state;
    static const struct wrong {
        const char *device, *says;
    } wrong[] = {{"cpu:1", "device cpu:1: there is one of the kind, cpu"},
                 {"ref:0", "device ref:0: there is one of the kind, ref"},
                 {"cp", "device cp is not built; built:"},
                 {"cpu-", "device cpu- is not built; built:"},
                 {"GPU", "device GPU is not built; built:"},
                 {"", "device  is not built; built:"}};
    static const struct wrong unbuilt[] = {{"cuda", "device cuda is not built; built: cpu ref"},
                                           {"cuda:1", "device cuda:1 is not built; built: cpu ref"},
                                           {"GPU-7f5e", "device GPU-7f5e is not built; built: cpu "
                                                        "ref"}};
    static const struct wrong built[] = {{"cuda:x", "device cuda:x: wanted: cuda, cuda:N or a "},
                                         {"cuda:", "device cuda:: wanted: cuda, cuda:N or a "},
                                         {"cuda:1x", "device cuda:1x: wanted: cuda, cuda:N or "},
                                         {"cuda:-1", "device cuda:-1: wanted: cuda, cuda:N or "}};
    cp_err err = {0};
    cp_backend *b = NULL;
    assert_int_equal(cp_backend_open(&b, &(cp_backend_config){0}, &err), CP_OK);
    assert_string_equal(cp_backend_name(b), cp_backend_names()[0]);
    cp_backend_close(b);
    const struct wrong *more = is_built("cuda") ? built : unbuilt;
    size_t n = sizeof(wrong) / sizeof(wrong[0]);
    size_t n_more =
        is_built("cuda") ? sizeof(built) / sizeof(built[0]) : sizeof(unbuilt) / sizeof(unbuilt[0]);
    for (size_t i = 0; i < n + n_more; i++) {
        const struct wrong *w = i < n ? &wrong[i] : &more[i - n];
        cp_backend_config cfg = {.device = w->device};
        assert_int_equal(cp_backend_open(&b, &cfg, &err), CP_USAGE);
        if (strncmp(err.msg, w->says, strlen(w->says)) != 0)
            fail_msg("%s: %s", w->device, err.msg);
    }
}

/* What cannot be had is said with all that a program wants: weights, KV cache, arena, workspace. */
static void memory_at_an_end(void **state)
{
    (void)state;
    static const char *const parts[] = {"page pool", "weights ",   "KV cache ",
                                        "arena ",    "workspace ", "can be had"};
    rig r;
    seam_rig(&r);
    rig_group(&r,
              (cp_kv_group){
                  .kind = CP_GROUP_FULL, .n_layers = 64, .n_kv = 64, .k_dim = 256, .v_dim = 256});
    r.cfg.n_pages = UINT32_MAX; /* no machine addresses so many of these */
    for (const char *const *name = rig_backends(); *name; name++) {
        cp_err err = {0};
        cp_backend *b = NULL;
        cp_prepared *p = NULL;
        assert_int_equal(cp_backend_open(&b, &(cp_backend_config){.device = *name}, &err), CP_OK);
        assert_int_equal(cp_backend_prepare(b, &r.prog, &r.cfg, &p, &err), CP_NO_MEMORY);
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
            if (!strstr(err.msg, parts[i]))
                fail_msg("no '%s' in: %s", parts[i], err.msg);
        cp_backend_close(b);
    }
    rig_fini(&r);
}

/* ---- steps ---- */

/* Whether fn ends the process by an assertion: tried in a child, of machines without threads. */
static bool aborts(void (*fn)(machine *m, talk *t, const void *arg), machine *m, talk *t,
                   const void *arg)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(60);
        fn(m, t, arg);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGABRT);
    return WIFSIGNALED(status);
}

/* The next step of the sequences in arg. */
static void submit(machine *m, talk *t, const void *who)
{
    cp_backend_submit(m->p, talk_batch(t, who), NULL);
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
        talk t;
        talk_init(&t);
        t.tokens[0][1] = CP_TOK_PREV; /* nothing was sampled at all */
        assert_true(aborts(submit, &m, &t, who));
        talk_init(&t);
        talk_batch(&t, who);
        t.in[0].target = 3; /* scored, nothing sampled */
        machine_step(&m, &t.b);
        t.tokens[0][t.n[0]++] = CP_TOK_PREV;
        assert_true(aborts(submit, &m, &t, who));
        talk_init(&t);
        talk_step(&t, &m, who, false);
        assert_false(aborts(submit, &m, &t, who));
        t.tokens[0][t.n[0]++] = 5; /* what follows an id cannot be known before it is */
        assert_true(aborts(submit, &m, &t, who));
        t.n[0]--;
        t.epoch[0]++;
        assert_true(aborts(submit, &m, &t, who));
        machine_close(&m);
    }
    rig_fini(&r);
}

/* What a program is said to take is what it takes when it is prepared, beside pages and states; and
 * what cannot be prepared cannot be measured. */
static void measured_as_prepared(void **state)
{
    (void)state;
    rig r;
    machine m[MACHINES];
    seam_rig(&r);
    int n_m = open_all(&r, m);
    for (int k = 0; k < n_m; k++) {
        cp_err err = {0};
        uint64_t bytes = 0;
        const cp_prepared *p = m[k].p;
        assert_int_equal(cp_backend_model_bytes(m[k].b, &r.prog, &r.cfg, &bytes, &err), CP_OK);
        assert_true(bytes > 0);
        assert_int_equal(bytes + p->pages.bytes + p->states.bytes, cp_prepared_bytes(p));
        machine_close(&m[k]);
    }
    cp_backend *b = NULL;
    cp_err err = {0};
    uint64_t bytes;
    r.ops[0].u.embed.table = RIG_WEIGHTS;
    assert_int_equal(cp_backend_open(&b, &(cp_backend_config){0}, &err), CP_OK);
    assert_int_equal(cp_backend_model_bytes(b, &r.prog, &r.cfg, &bytes, &err), CP_UNSUPPORTED);
    cp_backend_close(b);
    rig_fini(&r);
}

/* What a batch allows each sequence: of what it wishes for, the second, the third, the first. */
static void fill_masks(uint32_t mask[SEQS][(VOCAB + 31) / 32], cp_sample_in *in)
{
    for (int s = 0; s < SEQS; s++) {
        int32_t id = wishes[(s + 1) % SEQS].id;
        memset(mask[s], 0, sizeof(mask[s]));
        mask[s][id / 32] |= 1u << id % 32;
        in[s].mask = mask[s];
    }
}

/* Masks that are filled in between submit and sample are those that count, and they are not looked
 * at before. */
static void masks_that_come_late(void **state)
{
    (void)state;
    static const int who[] = {2, 0, 1, -1};
    static uint32_t mask[SEQS][(VOCAB + 31) / 32];
    rig r;
    machine m[MACHINES];
    seam_rig(&r);
    int n_m = open_all(&r, m);
    for (int k = 0; k < n_m; k++) {
        talk now, late;
        cp_err err = {0};
        talk_init(&now);
        talk_init(&late);
        talk_batch(&now, who);
        fill_masks(mask, now.in);
        machine_step(&m[k], &now.b);
        talk_batch(&late, who);
        late.b.masks_later = true;
        for (int s = 0; s < SEQS; s++) {
            late.in[s].mask = (const uint32_t *)(uintptr_t)64; /* whoever reads it dies */
            late.out[s].id = -7;
        }
        assert_int_equal(cp_backend_submit(m[k].p, &late.b, &err), CP_OK);
        for (int s = 0; s < SEQS; s++)
            assert_int_equal(late.out[s].id, -7);
        fill_masks(mask, late.in);
        assert_int_equal(cp_backend_sample(m[k].p, &late.b, &err), CP_OK);
        assert_int_equal(cp_backend_collect(m[k].p, &err), CP_OK);
        for (int s = 0; s < SEQS; s++) {
            assert_int_equal(now.out[s].id, wishes[(s + 1) % SEQS].id);
            assert_memory_equal(&now.out[s], &late.out[s], sizeof(now.out[s]));
        }
        assert_memory_equal(now.logits, late.logits, sizeof(now.logits));
    }
    close_all(&r, m, n_m);
}

static uint64_t runs_of_pools(const rig *r)
{
    uint64_t runs = 0;
    for (size_t i = 0; i < sizeof(r->pools) / sizeof(*r->pools); i++)
        runs += r->pools[i] ? cp_pool_turns_now(r->pools[i]).runs : 0;
    return runs;
}

/* A step that gives way takes a pool for more than one turn, and computes what it would at once. */
static void a_step_that_gives_way(void **state)
{
    (void)state;
    static const int who[] = {2, 0, 1, -1};
    static uint32_t mask[SEQS][(VOCAB + 31) / 32];
    rig r;
    machine m[MACHINES];
    seam_rig(&r);
    int n_m = open_all(&r, m);
    for (int k = 0; k < n_m; k++) {
        talk at_once, gives_way;
        talk *both[] = {&at_once, &gives_way};
        int64_t waited = 0;
        uint64_t runs[2];
        for (int i = 0; i < 2; i++) {
            talk_init(both[i]);
            talk_batch(both[i], who);
            fill_masks(mask, both[i]->in);
            both[i]->b.waited_ns = i == 0 ? NULL : &waited;
            runs[i] = runs_of_pools(&r);
            machine_step(&m[k], &both[i]->b);
            runs[i] = runs_of_pools(&r) - runs[i];
        }
        assert_true(runs[0] == 0 ? runs[1] == 0 : runs[1] > runs[0]);
        assert_memory_equal(at_once.out, gives_way.out, sizeof(at_once.out));
        assert_memory_equal(at_once.logits, gives_way.logits, sizeof(at_once.logits));
    }
    close_all(&r, m, n_m);
}

/* Calls by letters: submit, submit with masks_later (l), sample, sample of another batch (x),
 * collect. */
static void call(machine *m, talk *t, const void *arg)
{
    const char *calls = arg;
    static const int who[] = {0, -1};
    cp_batch other = {0};
    for (; *calls; calls++) {
        cp_err err = {0};
        cp_code rc = CP_OK;
        if (*calls == 's' || *calls == 'l') {
            talk_init(t);
            talk_batch(t, who)->masks_later = *calls == 'l';
            rc = cp_backend_submit(m->p, &t->b, &err);
        } else if (*calls == 'm' || *calls == 'x') {
            rc = cp_backend_sample(m->p, *calls == 'x' ? &other : &t->b, &err);
        } else {
            rc = cp_backend_collect(m->p, &err);
        }
        CP_ASSERT(rc == CP_OK);
    }
}

static void calls_in_their_order(void **state)
{
    (void)state;
    static const struct order {
        const char *calls;
        bool right;
    } orders[] = {{"scsc", true}, {"lmclmc", true}, {"sclmcsc", true}, {"c", false},
                  {"m", false},   {"scc", false},   {"sm", false},     {"ss", false},
                  {"lc", false},  {"ll", false},    {"ls", false},     {"lmm", false},
                  {"lx", false},  {"lmcm", false},  {"lms", false}};
    rig r;
    seam_rig(&r);
    for (int k = 0; k < 2; k++) {
        machine m = machine_open(&r, k ? rig_levels()[0] : NULL, 1);
        talk t;
        for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
            bool aborted = aborts(call, &m, &t, orders[i].calls);
            if (aborted == orders[i].right)
                fail_msg("%s on %s %s", orders[i].calls, cp_backend_level(m.b),
                         aborted ? "aborts" : "goes through");
        }
        machine_close(&m);
    }
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_walked),
        cmocka_unit_test(a_device_by_its_name),
        cmocka_unit_test(measured_as_prepared),
        cmocka_unit_test(masks_that_come_late),
        cmocka_unit_test(a_step_that_gives_way),
        cmocka_unit_test(calls_in_their_order),
        cmocka_unit_test(the_id_before_by_its_mark),
        cmocka_unit_test(the_id_of_the_last_sampled_row),
        cmocka_unit_test(no_id_of_another_tenant),
        cmocka_unit_test(memory_at_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
