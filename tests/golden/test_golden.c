/*
 * Tiny random models against transformers' fp32 logits (tests/golden/make_tiny.py): every
 * architecture row needs a golden here. NMSE over all positions, for ref with f32 activations and
 * for cpu at every level, whole and in odd chunks.
 */
#include "base/io.h"
#include "tests/support/cmocka.h"
#include "tests/support/forward.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC 0x4C475043u
#define BAR   1e-4 /* NMSE against fp32: int8 activations and bf16 pages stay below it */

typedef struct golden {
    cp_buf file;
    cp_cursor c;
    uint32_t n_seqs, n_vocab;
} golden;

static void golden_open(golden *g, const char *arch)
{
    char path[512];
    cp_err err;
    memset(g, 0, sizeof *g);
    cp_snprintf(path, sizeof path, "%s/%s.bin", CP_GOLDEN_DIR, arch);
    if (cp_file_read(path, 1 << 24, &g->file, &err)) {
        fail_msg("architecture '%s' has no golden: %s", arch, err.msg);
    }
    uint32_t magic = 0;
    g->c = (cp_cursor){(const uint8_t *)g->file.p, g->file.n, 0};
    assert_true(cp_cur_u32(&g->c, &magic) && cp_cur_u32(&g->c, &g->n_seqs) &&
                cp_cur_u32(&g->c, &g->n_vocab));
    assert_int_equal(magic, MAGIC);
}

static double check(const char *arch, const cp_forward_config *base, int chunk)
{
    char path[512];
    cp_err err = {0};
    cp_forward *f;
    cp_forward_config cfg = *base;
    golden g;
    golden_open(&g, arch);
    cp_snprintf(path, sizeof path, "%s/%s.gguf", CP_GOLDEN_DIR, arch);
    cfg.path = path;
    cfg.max_rows = 64;
    cfg.max_positions = 64;
    cfg.seed = 7;
    if (cp_forward_open(&f, &cfg, &err)) {
        fail_msg("%s: %s", arch, err.msg);
    }
    double num = 0, den = 0;
    for (uint32_t s = 0; s < g.n_seqs; s++) {
        uint32_t n;
        const uint8_t *ids, *want;
        assert_true(cp_cur_u32(&g.c, &n) && n <= 64 && cp_cur_bytes(&g.c, n * 4, &ids) &&
                    cp_cur_bytes(&g.c, (size_t)n * g.n_vocab * 4, &want));
        int32_t tokens[64];
        memcpy(tokens, ids, n * 4);
        float *got = cp_xcalloc((size_t)n * g.n_vocab, sizeof *got);
        cp_forward_reset(f);
        if (cp_forward_run(f, tokens, (int)n, chunk, got, &err)) {
            fail_msg("%s: %s", arch, err.msg);
        }
        for (size_t i = 0; i < (size_t)n * g.n_vocab; i++) {
            float w;
            memcpy(&w, want + 4 * i, 4);
            num += ((double)got[i] - (double)w) * ((double)got[i] - (double)w);
            den += (double)w * (double)w;
        }
        free(got);
    }
    cp_forward_close(f);
    cp_buf_fini(&g.file);
    return num / den;
}

static void every_architecture_matches_transformers(void **state)
{
    (void)state;
    static const char *const levels[] = {"base", "avx2", "avxvnni", "avx512", "vnni", "bf16"};
    for (const char *const *arch = cp_model_archs(); *arch; arch++) {
        cp_forward_config ref = {
            .backend = "ref", .act_f32 = true, .kv_type = CP_DTYPE_F16, .threads = 1};
        double e = check(*arch, &ref, 64);
        print_message("%-8s ref  f32 activations, f16 pages: NMSE %.2e\n", *arch, e);
        assert_true(e <= BAR);
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
            cp_backend *b;
            cp_backend_config bc = {.device = "cpu", .isa_cap = levels[i]};
            if (cp_backend_open(&b, &bc, NULL)) {
                continue; /* not on this machine */
            }
            cp_backend_close(b);
            for (int chunk = 5; chunk <= 64; chunk += 59) {
                cp_forward_config cpu = {
                    .backend = "cpu", .level = levels[i], .kv_type = CP_DTYPE_BF16, .threads = 2};
                e = check(*arch, &cpu, chunk);
                print_message("%-8s cpu  %-7s bf16 pages, chunks of %2d: NMSE %.2e\n", *arch,
                              levels[i], chunk, e);
                assert_true(e <= BAR);
            }
        }
    }
}

/* The logits of the golden's longest sequence, by a program with so many layers a page. */
static float *logits_of(const char *backend, int layers_per_page, size_t *n)
{
    enum { N = 64 };
    cp_err err = {0};
    cp_forward *f;
    cp_forward_config cfg = {.path = CP_GOLDEN_DIR "/gemma3.gguf",
                             .backend = backend,
                             .kv_type = CP_DTYPE_BF16,
                             .threads = 1,
                             .max_rows = N,
                             .max_positions = N,
                             .seed = 7,
                             .layers_per_page = layers_per_page};
    int32_t tokens[N];
    for (int i = 0; i < N; i++) {
        tokens[i] = (i * 37 + 5) % 300;
    }
    assert_int_equal(cp_forward_open(&f, &cfg, &err), 0);
    *n = (size_t)N * (size_t)cp_model_hparams(cp_forward_model(f))->n_vocab;
    float *out = cp_xcalloc(*n, sizeof *out);
    assert_int_equal(cp_forward_run(f, tokens, N, 5, out, &err), 0);
    cp_forward_close(f);
    return out;
}

/* gemma3's layers (1 full, 5 window) in pages of 1, and of 2, 3, 4 with places that no layer uses.
 */
static void empty_places_in_pages_change_no_bit(void **state)
{
    (void)state;
    static const char *const backends[] = {"ref", "cpu"};
    for (size_t i = 0; i < 2; i++) {
        size_t n, m;
        float *want = logits_of(backends[i], 0, &n);
        for (int size = 1; size <= 4; size++) {
            float *got = logits_of(backends[i], size, &m);
            assert_int_equal(n, m);
            assert_memory_equal(got, want, n * sizeof *got);
            free(got);
        }
        free(want);
    }
}

/* Logits of N tokens in steps of 5, with `drafts` wrong rows after each step that are truncated. */
static float *logits_past(const char *arch, const char *backend, const char *level, int drafts,
                          size_t *n)
{
    enum { N = 60 };
    cp_err err = {0};
    cp_forward *f;
    char path[512];
    cp_snprintf(path, sizeof path, "%s/%s.gguf", CP_GOLDEN_DIR, arch);
    cp_forward_config cfg = {.path = path,
                             .backend = backend,
                             .level = level,
                             .kv_type = CP_DTYPE_BF16,
                             .threads = 1,
                             .max_rows = N,
                             .max_positions = 2 * N,
                             .seed = 7};
    assert_int_equal(cp_forward_open(&f, &cfg, &err), 0);
    size_t vocab = (size_t)cp_model_hparams(cp_forward_model(f))->n_vocab;
    float *out = cp_xcalloc(N * vocab, sizeof *out), *lost = cp_xcalloc(N * vocab, sizeof *lost);
    int32_t tokens[N], wrong[N];
    for (int i = 0; i < N; i++) {
        tokens[i] = (i * 37 + 5) % 300;
        wrong[i] = (i * 53 + 11) % 300;
    }
    for (int i = 0; i < N; i += 5) {
        assert_int_equal(cp_forward_run(f, tokens + i, 5, 5, out + (size_t)i * vocab, &err), 0);
        if (drafts > 0) {
            assert_int_equal(cp_forward_run(f, wrong, drafts, drafts, lost, &err), 0);
            cp_forward_truncate(f, i + 5);
        }
    }
    cp_forward_close(f);
    free(lost);
    *n = N * vocab;
    return out;
}

/* What wrong drafts wrote behind a sequence's end changes no bit of what comes after: of any
 * architecture without a recurrent state. */
static void truncated_drafts_leave_no_trace(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama", "gemma3"};
    static const char *const levels[] = {NULL, "base", "avx2", "avxvnni", "avx512", "vnni", "bf16"};
    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
            cp_backend *b;
            cp_backend_config bc = {.device = "cpu", .isa_cap = levels[l]};
            if (levels[l] && cp_backend_open(&b, &bc, NULL))
                continue; /* not on this machine */
            if (levels[l])
                cp_backend_close(b);
            size_t n, m;
            const char *name = levels[l] ? "cpu" : "ref";
            float *want = logits_past(archs[a], name, levels[l], 0, &n);
            for (int drafts = 1; drafts <= 40; drafts += 13) { /* within a page, and over pages */
                float *got = logits_past(archs[a], name, levels[l], drafts, &m);
                assert_int_equal(n, m);
                assert_memory_equal(got, want, n * sizeof *got);
                free(got);
            }
            free(want);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_matches_transformers),
        cmocka_unit_test(empty_places_in_pages_change_no_bit),
        cmocka_unit_test(truncated_drafts_leave_no_trace),
    };
    return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
