/* selftest: see selftest.h. The parts, and how their lines are written. */
#include "bench/selftest/selftest.h"

#include "base/clock.h"
#include "base/mem.h"
#include "bench/selftest/run.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* One part under way. Its line is {"part": ..., "rows": [{...}, ...], "ok": ...}. */
typedef struct self {
    const cp_selftest_config *cfg;
    cp_buf rows;
    int n_rows;
    bool ok;
    int64_t until; /* ns; what is not begun by then is left out */
    bool cut;
} self;

/* A row: text is the inside of a JSON object. */
__attribute__((format(printf, 2, 3))) static void row(self *s, const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    cp_buf_printf(&s->rows, "%s{%s}", s->n_rows++ ? ", " : "", text);
    if (!s->cfg->json) {
        fputs("  ", s->cfg->out);
        for (const char *c = text; *c; c++)
            if (*c != '"')
                fputc(*c, s->cfg->out);
        fputc('\n', s->cfg->out);
        fflush(s->cfg->out);
    }
}

static bool late(self *s)
{
    s->cut |= cp_now_ns() > s->until;
    return s->cut;
}

/* Text as a JSON string would hold it, without what it may not hold. */
static const char *plain(char *text)
{
    for (char *c = text; *c; c++)
        *c = (unsigned char)*c < ' ' || *c == '"' || *c == '\\' ? ' ' : *c;
    return text;
}

static cp_code open_device(const self *s, bool exact, cp_gemm gemm, cp_backend **b, cp_err *err)
{
    const char *device = s->cfg->device;
    cp_backend_config cfg = {.device = device, .exact = exact, .gemm = gemm, .pool = s->cfg->pool};
    if (device && strcmp(device, "auto") != 0)
        return cp_backend_open(b, &cfg, err);
    cfg.device = "cuda";
    if (cp_backend_open(b, &cfg, err) == CP_OK)
        return CP_OK;
    cfg.device = "cpu";
    return cp_backend_open(b, &cfg, err);
}

static bool on_cuda(const cp_backend *b)
{
    return strcmp(cp_backend_name(b), "cuda") == 0;
}

/* ---- device ---- */

static cp_code part_device(self *s, cp_err *err)
{
    cp_backend *b;
    char words[256], name[64];
    uint64_t total = 0, available = 0;
    cp_code rc = open_device(s, false, CP_GEMM_OWN, &b, err);
    if (rc != CP_OK)
        return rc;
    cp_backend_default_level(b, words, sizeof(words));
    cp_snprintf(name, sizeof(name), "%s", cp_backend_level(b));
    rc = cp_backend_memory(b, &total, &available, err);
    row(s,
        "\"backend\": \"%s\", \"level\": \"%s\", \"words\": \"%s\", \"memory\": %" PRIu64
        ", \"available\": %" PRIu64,
        cp_backend_name(b), plain(name), plain(words), total, available);
    cp_backend_close(b);
    return rc;
}

/* ---- equal ---- */

enum { PROMPT = 33, OTHER = 7, DECODE = 3, OUTS = 2 * (1 + DECODE) };

/* Two sequences side by side, or the first alone in chunks of 7: its outputs, the prompt's last row
 * and DECODE rows; out[sequence][1 + DECODE][vocab]. */
static cp_code outputs(cp_backend *b, const self_model *m, bool alone, float *out, cp_err *err)
{
    self_run r;
    size_t vocab = (size_t)m->shape.vocab;
    int n = alone ? 1 : 2;
    cp_code rc = cp_self_run_open(&r, b, m, 64, 2, PROMPT + DECODE + 1, err);
    for (int at = 0; alone && at + OTHER < PROMPT && rc == CP_OK; at += OTHER)
        rc = cp_self_run_step(&r, &(self_part_of_step){0, at, OTHER}, 1, false, err);
    for (int step = 0; step <= DECODE && rc == CP_OK; step++) {
        int from = alone ? (PROMPT - 1) / OTHER * OTHER : 0;
        const self_part_of_step parts[2] = {
            {0, step ? PROMPT + step - 1 : from, step ? 1 : PROMPT - from},
            {1, step ? OTHER + step - 1 : 0, step ? 1 : OTHER}};
        rc = cp_self_run_step(&r, parts, n, true, err);
        for (int i = 0; i < n && rc == CP_OK; i++)
            memcpy(out + ((size_t)i * (1 + DECODE) + (size_t)step) * vocab,
                   r.logits + (size_t)i * vocab, vocab * sizeof(float));
    }
    cp_self_run_close(&r);
    return rc;
}

static double nmse(const float *x, const float *want, size_t n)
{
    double e = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        e += ((double)x[i] - (double)want[i]) * ((double)x[i] - (double)want[i]);
        w += (double)want[i] * (double)want[i];
    }
    return w > 0 ? e / w : e > 0 ? 1.0 : 0.0;
}

static size_t differing(const float *x, const float *want, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += memcmp(&x[i], &want[i], sizeof(float)) != 0;
    return count;
}

/* The device in one numerics mode against ref's outputs. */
static cp_code compare(self *s, const self_model *m, const char *type, bool exact,
                       const float *want, cp_err *err)
{
    size_t vocab = (size_t)m->shape.vocab, n = OUTS * vocab;
    float *x = cp_xcalloc(2 * n, sizeof(float)), *alone = x + n;
    cp_backend *b = NULL;
    cp_code rc = open_device(s, exact, CP_GEMM_OWN, &b, err);
    if (rc == CP_OK)
        rc = outputs(b, m, false, x, err);
    if (rc == CP_OK)
        rc = outputs(b, m, true, alone, err);
    if (rc == CP_OK) {
        size_t apart = differing(x, want, n), moved = differing(alone, x, n / 2);
        double e = nmse(x, want, n);
        bool good = (exact ? apart == 0 : e <= 1e-3) && moved == 0;
        row(s,
            "\"type\": \"%s\", \"numerics\": \"%s\", \"outputs\": %zu, \"not_ref\": %zu, "
            "\"nmse\": %.3g, \"not_alone\": %zu, \"ok\": %s",
            type, exact ? "exact" : "default", n, apart, e, moved, good ? "true" : "false");
        s->ok &= good;
    }
    cp_backend_close(b);
    free(x);
    return rc;
}

static const cp_dtype equal_types[] = {
    CP_DTYPE_Q4_0,   CP_DTYPE_Q6_K,  CP_DTYPE_BF16, /* these alone where small */
    CP_DTYPE_Q4_1,   CP_DTYPE_Q5_0,  CP_DTYPE_Q5_1,  CP_DTYPE_Q8_0,  CP_DTYPE_Q4_K,
    CP_DTYPE_Q5_K,   CP_DTYPE_Q2_K,  CP_DTYPE_Q3_K,  CP_DTYPE_TQ2_0, CP_DTYPE_IQ4_NL,
    CP_DTYPE_IQ4_XS, CP_DTYPE_MXFP4, CP_DTYPE_NVFP4, CP_DTYPE_F16,   CP_DTYPE_F32};
enum { N_EQUAL = sizeof(equal_types) / sizeof(equal_types[0]), N_EQUAL_SMALL = 3 };

/* Small models of every kind of panel and of float weights: exact numerics have ref's bits, and in
 * either numerics a sequence has the same bits alone and in chunks as beside another. */
static cp_code part_equal(self *s, cp_err *err)
{
    static const self_shape shape = {"small", 256, 4, 2, 64, 512, 2, 320};
    cp_backend_config ref_cfg = {.device = "ref"};
    cp_backend *ref = NULL, *b = NULL;
    cp_code rc = cp_backend_open(&ref, &ref_cfg, err);
    if (rc == CP_OK)
        rc = open_device(s, false, CP_GEMM_OWN, &b, err);
    bool cuda = rc == CP_OK && on_cuda(b);
    for (int i = 0; i < (s->cfg->small ? N_EQUAL_SMALL : N_EQUAL) && rc == CP_OK; i++) {
        self_model m;
        const char *type = cp_dtype_info((uint32_t)equal_types[i])->name;
        float *want = cp_xcalloc(OUTS * (size_t)shape.vocab, sizeof(float));
        if (!cp_backend_supports(b, CP_ROLE_LINEAR, equal_types[i])) {
            row(s, "\"type\": \"%s\", \"supported\": false", type);
            free(want);
            continue;
        }
        rc = cp_self_model_new(&m, &shape, equal_types[i], 17 + (uint64_t)i, err);
        if (rc == CP_OK)
            rc = outputs(ref, &m, false, want, err);
        for (int exact = cuda; exact >= 0 && rc == CP_OK; exact--)
            rc = compare(s, &m, type, exact, want, err);
        cp_self_model_free(&m);
        free(want);
    }
    cp_backend_close(b);
    cp_backend_close(ref);
    return rc;
}

/* ---- ceilings ---- */

/* GB/s of copies from page to page, reads and writes counted. */
static cp_code copy_rate(self *s, cp_backend *b, cp_err *err)
{
    self_shape shape = {"copies", 256, 8, 8, 128, 256, s->cfg->small ? 1 : 16, 256};
    self_model m;
    self_run r;
    int seqs = s->cfg->small ? 4 : 64, n;
    double seconds = 0;
    cp_code rc = cp_self_model_new(&m, &shape, CP_DTYPE_Q8_0, 1, err);
    if (rc == CP_OK)
        rc = cp_self_run_open(&r, b, &m, 8, seqs, 256, err);
    if (rc == CP_OK) {
        n = ((int)r.cfg.n_pages - 1) / 2;
        rc = cp_self_run_copies(&r, n, &seconds, err);
        double bytes = 2.0 * n * (double)cp_program_page_bytes(&m.prog, r.cfg.page_positions);
        if (rc == CP_OK)
            row(s, "\"what\": \"page copies\", \"bytes\": %.0f, \"us\": %.1f, \"gb_s\": %.1f",
                bytes, seconds * 1e6, bytes / seconds * 1e-9);
        cp_self_run_close(&r);
    }
    cp_self_model_free(&m);
    return rc;
}

/* Microseconds from one record that does nothing to the next. */
static cp_code launch_gap(self *s, cp_backend *b, cp_err *err)
{
    enum { FEW = 16, MANY = 272 };
    double seconds[2] = {0};
    cp_code rc = CP_OK;
    for (int i = 0; i < 2 && rc == CP_OK; i++) {
        self_model m;
        self_run r;
        cp_self_ropes_new(&m, i ? MANY : FEW);
        rc = cp_self_run_open(&r, b, &m, 1, 1, 64, err);
        if (rc == CP_OK)
            rc = cp_self_run_time(&r, &(self_part_of_step){0, 5, 1}, 1, s->cfg->small ? 2 : 20,
                                  &seconds[i], err);
        cp_self_run_close(&r);
        cp_self_model_free(&m);
    }
    if (rc == CP_OK)
        row(s, "\"what\": \"record after record\", \"us\": %.2f, \"step_us\": %.1f",
            (seconds[1] - seconds[0]) * 1e6 / (MANY - FEW), seconds[0] * 1e6);
    return rc;
}

/* A step of one linear weight after another. */
static cp_code linear_row(self *s, cp_gemm gemm, cp_dtype type, int k, int outputs, const int *rows,
                          int n_rows, cp_err *err)
{
    cp_tensor t = {.type = type, .ne = {k, outputs, 1, 1}};
    double bytes = (double)outputs * (double)cp_tensor_row_bytes(&t);
    int n = s->cfg->small ? 2 : (int)(256e6 / bytes) + 2; /* past a cache of the second level */
    cp_backend *b;
    self_model m;
    self_run r = {0};
    cp_code rc = open_device(s, false, gemm, &b, err);
    if (rc != CP_OK)
        return rc;
    rc = cp_self_linears_new(&m, type, k, outputs, n, 3, err);
    if (rc == CP_OK)
        rc = cp_self_run_open(&r, b, &m, rows[n_rows - 1], 1, rows[n_rows - 1], err);
    for (int i = 0; i < n_rows && rc == CP_OK && !late(s); i++) {
        double seconds;
        rc = cp_self_run_time(&r, &(self_part_of_step){0, 0, rows[i]}, 1, s->cfg->small ? 1 : 20,
                              &seconds, err);
        seconds /= n;
        if (rc == CP_OK)
            row(s,
                "\"type\": \"%s\", \"gemm\": \"%s\", \"k\": %d, \"m\": %d, \"rows\": %d, "
                "\"us\": %.2f, \"weights_gb_s\": %.1f, \"tflop_s\": %.3f",
                cp_dtype_info((uint32_t)type)->name, gemm == CP_GEMM_OWN ? "own" : "cublas", k,
                outputs, rows[i], seconds * 1e6, bytes / seconds * 1e-9,
                2.0 * k * outputs * rows[i] / seconds * 1e-12);
    }
    cp_self_run_close(&r);
    cp_self_model_free(&m);
    cp_backend_close(b);
    return rc;
}

/* What the machine allows: memory, launches, and a library's products beside our own. */
static cp_code part_ceilings(self *s, cp_err *err)
{
    static const int rows[] = {64, 512, 2048};
    cp_backend *b;
    cp_code rc = open_device(s, false, CP_GEMM_OWN, &b, err);
    if (rc != CP_OK)
        return rc;
    bool cuda = on_cuda(b);
    rc = copy_rate(s, b, err);
    if (rc == CP_OK)
        rc = launch_gap(s, b, err);
    cp_backend_close(b);
    int k = s->cfg->small ? 256 : 4096;
    for (int lib = 0; lib <= cuda && rc == CP_OK; lib++) {
        cp_err why = {0};
        cp_code got = linear_row(s, lib ? CP_GEMM_CUBLAS : CP_GEMM_OWN, CP_DTYPE_BF16, k, k, rows,
                                 s->cfg->small ? 1 : 3, &why);
        if (got != CP_OK && lib) /* a machine without the library is a machine, too */
            row(s, "\"gemm\": \"cublas\", \"missing\": \"%s\"", plain(why.msg));
        else if (got != CP_OK)
            rc = cp_fail(err, got, "%s", why.msg);
    }
    return rc;
}

/* ---- linears ---- */

/* Linears of the shapes that people run, at one row and at many. */
static cp_code part_linears(self *s, cp_err *err)
{
    static const cp_dtype types[] = {CP_DTYPE_Q4_0, CP_DTYPE_Q4_K, CP_DTYPE_Q6_K,
                                     CP_DTYPE_Q8_0, CP_DTYPE_BF16, CP_DTYPE_MXFP4};
    static const int shapes[][2] = {
        {4096, 14336}, {2048, 8192}, {8192, 28672}, {14336, 4096}, {4096, 4096}};
    static const int rows[] = {1, 2, 4, 8, 16, 32, 64, 512, 2048};
    int n_types = s->cfg->small ? 2 : (int)(sizeof(types) / sizeof(types[0]));
    int n_shapes = s->cfg->small ? 1 : (int)(sizeof(shapes) / sizeof(shapes[0]));
    cp_code rc = CP_OK;
    for (int i = 0; i < n_shapes; i++)
        for (int t = 0; t < n_types && rc == CP_OK && !late(s); t++)
            rc = linear_row(s, CP_GEMM_OWN, types[t], s->cfg->small ? 512 : shapes[i][0],
                            s->cfg->small ? 256 : shapes[i][1], rows, s->cfg->small ? 4 : 9, err);
    return rc;
}

/* ---- models ---- */

typedef struct load {
    int seqs, rows, depth; /* rows of each sequence; positions before them */
} load;

static cp_code model_rows(self *s, const self_shape *shape, cp_dtype type, const load *loads,
                          int n_loads, cp_err *err)
{
    cp_backend *b;
    self_model m;
    cp_code rc = open_device(s, false, CP_GEMM_OWN, &b, err);
    if (rc != CP_OK)
        return rc;
    rc = cp_self_model_new(&m, shape, type, 5, err);
    for (int i = 0; i < n_loads && rc == CP_OK && !late(s); i++) {
        const load *l = &loads[i];
        self_part_of_step parts[64];
        self_run r;
        double seconds = 0;
        cp_err why = {0};
        for (int q = 0; q < l->seqs; q++)
            parts[q] = (self_part_of_step){q, l->depth, l->rows};
        cp_code got =
            cp_self_run_open(&r, b, &m, l->seqs * l->rows, l->seqs, l->depth + l->rows, &why);
        if (got == CP_OK)
            got = cp_self_run_time(&r, parts, l->seqs, s->cfg->small ? 1 : 10, &seconds, &why);
        cp_self_run_close(&r);
        if (got == CP_OK)
            row(s,
                "\"model\": \"%s\", \"type\": \"%s\", \"sequences\": %d, \"rows\": %d, "
                "\"depth\": %d, \"ms\": %.3f, \"rows_s\": %.1f",
                shape->name, cp_dtype_info((uint32_t)type)->name, l->seqs, l->rows, l->depth,
                seconds * 1e3, l->seqs * l->rows / seconds);
        else if (got == CP_NO_MEMORY)
            row(s, "\"model\": \"%s\", \"sequences\": %d, \"depth\": %d, \"no_memory\": \"%s\"",
                shape->name, l->seqs, l->depth, plain(why.msg));
        else
            rc = cp_fail(err, got, "%s", why.msg);
    }
    cp_self_model_free(&m);
    cp_backend_close(b);
    return rc;
}

/* Steps of models of real shapes: decode at several widths and depths, prompts. */
static cp_code part_models(self *s, cp_err *err)
{
    static const self_shape shapes[] = {{"8B", 4096, 32, 8, 128, 14336, 32, 128256},
                                        {"1B", 2048, 32, 8, 64, 8192, 16, 128256}};
    static const self_shape small = {"small", 256, 4, 2, 64, 512, 2, 320};
    static const cp_dtype types[] = {CP_DTYPE_Q4_0, CP_DTYPE_Q4_K, CP_DTYPE_BF16};
    static const load loads[] = {{1, 1, 0},     {8, 1, 0},    {32, 1, 0},
                                 {64, 1, 0},    {1, 1, 4096}, {32, 1, 4096},
                                 {1, 1, 32768}, {1, 512, 0},  {1, 2048, 0}};
    static const load small_loads[] = {{1, 1, 0}, {4, 1, 40}, {1, 24, 0}};
    cp_code rc = CP_OK;
    if (s->cfg->small)
        return model_rows(s, &small, CP_DTYPE_Q4_0, small_loads, 3, err);
    for (int t = 0; t < 3 && rc == CP_OK; t++)
        for (int i = 0; i < 2 && rc == CP_OK && !late(s); i++)
            rc = model_rows(s, &shapes[i], types[t], loads, sizeof(loads) / sizeof(loads[0]), err);
    return rc;
}

/* ---- all of them ---- */

#define PARTS(X) X(device) X(equal) X(ceilings) X(linears) X(models)

const char *const *cp_selftest_parts(void)
{
#define X(name) #name,
    static const char *const names[] = {PARTS(X) NULL};
#undef X
    return names;
}

static bool run_part(const cp_selftest_config *cfg, const char *name,
                     cp_code (*part)(self *, cp_err *))
{
    self s = {.cfg = cfg, .ok = true};
    cp_err why = {0};
    int64_t t0 = cp_now_ns();
    s.until = t0 + (int64_t)((cfg->seconds > 0 ? cfg->seconds : 60) * 1e9);
    if (!cfg->json)
        fprintf(cfg->out, "%s\n", name);
    s.ok = part(&s, &why) == CP_OK && s.ok;
    double took = (double)(cp_now_ns() - t0) * 1e-9;
    if (cfg->json)
        fprintf(cfg->out,
                "{\"part\": \"%s\", \"seconds\": %.1f, \"cut\": %s, \"error\": \"%s\", "
                "\"ok\": %s, \"rows\": [%s]}\n",
                name, took, s.cut ? "true" : "false", plain(why.msg), s.ok ? "true" : "false",
                s.rows.p ? s.rows.p : "");
    else
        fprintf(cfg->out, "  %s%s%s (%.1f s)\n", s.ok ? "ok" : "NOT OK", why.msg[0] ? ": " : "",
                why.msg, took);
    fflush(cfg->out);
    cp_buf_fini(&s.rows);
    return s.ok;
}

cp_code cp_selftest(const cp_selftest_config *cfg, bool *ok, cp_err *err)
{
    bool any = false;
    *ok = true;
#define X(name)                                                                                    \
    if (!cfg->part || strcmp(cfg->part, #name) == 0) {                                             \
        *ok &= run_part(cfg, #name, part_##name);                                                  \
        any = true;                                                                                \
    }
    PARTS(X)
#undef X
#define X(name) " " #name
    return any ? CP_OK : cp_fail(err, CP_USAGE, "no part %s; there are:" PARTS(X), cfg->part);
#undef X
}
