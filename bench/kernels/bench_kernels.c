/*
 * bench_kernels: how fast linears are, beside what the machine allows in the same run.
 *
 * For each weight type and row count: a set of equal matrices larger than the caches is multiplied
 * once through; printed are the weights' rate (GB/s), the products (GOP/s, 2 an multiply-add) and
 * beside them a plain read of the same bytes and the peak of byte products in registers. Every
 * figure is the best of a few passes; compare ratios only, and only within a run.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/linear.h"

#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MAX_N      512
#define MAX_LAYERS 2048
#define MAX_COUNTS 32
#define PASSES     5

typedef struct options {
    const char *type, *level;
    int64_t k, m, mb;
    int threads;
    int rows[MAX_COUNTS], n_rows; /* row counts to measure */
    bool unpacked, cpu;
} options;

typedef struct bench {
    cp_pool *pool;
    cp_isa isa;
    cp_linear *l[MAX_LAYERS];
    int layers, n, k;
    void *act;
    void *scratch[64];
    float *out;
    size_t m;
    const uint8_t *bytes; /* for the plain read */
    size_t n_bytes;
    _Atomic uint64_t sink;
    bool cpu; /* measure processor time instead of elapsed time */
} bench;

/* ---- the floor: a plain read of the packed bytes ---- */

static uint64_t read_bytes(const uint8_t *p, size_t n)
{
    uint64_t s[8] = {0}, w;
    for (size_t at = 0; at + 64 <= n; at += 64) {
        __builtin_prefetch(p + at + 1024);
        for (size_t i = 0; i < 8; i++) {
            memcpy(&w, p + at + 8 * i, 8);
            s[i] ^= w;
        }
    }
    return s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

static void read_worker(cp_pool *p, int id, void *arg)
{
    bench *b = arg;
    size_t step = 64 << 10;
    int64_t n = (int64_t)(b->n_bytes / step);
    (void)id;
    for (int64_t t; (t = cp_pool_ticket(p, n, 1)) < n;)
        atomic_fetch_xor(&b->sink, read_bytes(b->bytes + (size_t)t * step, step));
}

/* ---- the ceiling: vpmaddubsw into int16 accumulators, in registers ---- */

#define PEAK_LOOPS 4000000
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void peak_worker(cp_pool *p, int id, void *arg)
{
    bench *b = arg;
    __m256i acc[8], w = _mm256_set1_epi8((char)(id + 1)), a = _mm256_set1_epi8(1);
    (void)p;
    UNROLL for (int i = 0; i < 8; i++) acc[i] = _mm256_set1_epi16((short)i);
    for (int k = 0; k < PEAK_LOOPS; k++) {
        UNROLL for (int i = 0; i < 8; i++)
        {
            __asm__ volatile("" : "+x"(a)); /* or the product would be taken out of the loop */
            acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(w, a));
        }
    }
    UNROLL for (int i = 1; i < 8; i++) acc[0] = _mm256_xor_si256(acc[0], acc[i]);
    atomic_fetch_xor(&b->sink, (uint64_t)_mm256_extract_epi64(acc[0], 0));
}
#endif

/* ---- linears ---- */

static void linear_worker(cp_pool *p, int id, void *arg)
{
    bench *b = arg;
    float *out[4] = {b->out};
    size_t ld[4] = {b->m};
    bool stays = true;
    cp_share share = {0};
    cp_isa_enter(b->isa);
    for (int i = 0; i < b->layers && stays; i++) {
        int64_t n = cp_linear_items(b->l[i], b->n);
        cp_gemm_scratch_begin(b->scratch[id]);
        for (int64_t t; (t = cp_pool_share(p, n, &share)) < n;)
            cp_linear_item(b->l[i], t, b->n, b->act, b->scratch[id], out, ld, NULL, 0);
        stays = cp_pool_barrier(p, id);
    }
    cp_isa_leave(b->isa);
}

/* Elapsed time, or the processor time of a worker: what counts on a busy machine. */
static double seconds(const bench *b)
{
    struct timespec t;
    if (!b->cpu)
        return (double)cp_now_ns() * 1e-9;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec + (double)t.tv_nsec * 1e-9) / cp_pool_threads(b->pool);
}

static double best_seconds(bench *b, cp_pool_fn *fn, int passes)
{
    double best = 1e9;
    for (int i = 0; i < passes; i++) {
        double t0 = seconds(b);
        cp_pool_run(b->pool, fn, b);
        double s = seconds(b) - t0;
        best = s < best ? s : best;
    }
    return best;
}

/* Bytes that make every field of every type a number of ordinary size: speed asks for no more. */
static void fill(uint8_t *p, size_t n)
{
    uint64_t s = 88172645463325252u;
    for (size_t i = 0; i < n; i++) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        p[i] = (uint8_t)(0x20 | (s >> 32 & 0x1f));
    }
}

static void die(const cp_err *err)
{
    fprintf(stderr, "bench_kernels: %s\n", err->msg);
    exit(1);
}

static void measure(bench *b, cp_dtype type, const options *o, cp_isa isa, double peak)
{
    cp_panel_kind kind = cp_panel_kind_of(type);
    size_t panel = cp_panel_bytes(kind, o->k), panels = ((size_t)o->m + 15) / 16;
    cp_tensor t = {.name = "bench", .type = type, .n_dims = 2, .ne = {o->k, o->m, 1, 1}};
    cp_program prog = {0};
    cp_op op = {.kind = CP_OP_LINEAR};
    cp_weight *w = cp_xcalloc(MAX_LAYERS, sizeof *w);
    cp_tensor *copies = cp_xcalloc(MAX_LAYERS, sizeof *copies);
    cp_panels *store;
    cp_err err = {0};
    t.bytes = (size_t)o->m * cp_tensor_row_bytes(&t);
    size_t each = o->unpacked ? t.bytes : panel * panels;
    b->layers = (int)(((size_t)o->mb << 20) / each) + 1;
    b->layers = b->layers > MAX_LAYERS ? MAX_LAYERS : b->layers;
    uint8_t *file = cp_alloc_aligned(t.bytes * (size_t)b->layers);
    if (!file)
        exit(1);
    fill(file, t.bytes * (size_t)b->layers);
    prog.weights = w;
    op.u.linear.n_w = 1;
    op.u.linear.scale = 1.0f;
    op.u.linear.w[0].bias = -1;
    for (int i = 0; i < b->layers; i++) {
        copies[i] = t;
        copies[i].data = file + t.bytes * (size_t)i;
        w[i].t = &copies[i];
        op.u.linear.w[0].w = (cp_wref)i;
        if (cp_linear_open(&b->l[i], &prog, &op, isa, MAX_N, &err) != CP_OK)
            die(&err);
    }
    cp_panels_open(&store, NULL);
    double pack_s = 0;
    if (!o->unpacked) {
        int64_t t0 = cp_now_ns();
        cp_gemm_weight **weights = cp_xcalloc(MAX_LAYERS, sizeof *weights);
        for (int i = 0; i < b->layers; i++)
            cp_linear_weights(b->l[i], weights + i);
        if (cp_gemm_weights_pack(weights, b->layers, store, b->pool, &err) != CP_OK)
            die(&err);
        free(weights);
        pack_s = (double)(cp_now_ns() - t0) * 1e-9;
    }
    b->isa = isa;
    b->k = (int)o->k;
    b->m = (size_t)o->m;
    b->act = cp_alloc_aligned(cp_linear_act_bytes(b->l[0], MAX_N));
    b->out = cp_alloc_aligned(MAX_N * b->m * sizeof(float));
    for (int i = 0; i < cp_pool_threads(b->pool); i++)
        b->scratch[i] = cp_alloc_aligned(cp_linear_scratch_bytes(b->l[0]));
    b->bytes = file;
    b->n_bytes = t.bytes * (size_t)b->layers;
    double floor = (double)b->n_bytes / best_seconds(b, read_worker, PASSES);
    printf("%s %" PRId64 "x%" PRId64 " %s %s: panels %.2f bits/weight, packed at %.1f GB/s, plain "
           "read %.1f GB/s, vpmaddubsw peak %.0f GOP/s\n",
           cp_dtype_info((uint32_t)type)->name, o->k, o->m, cp_isa_name(isa),
           o->unpacked ? "unpacked" : "packed", (double)panel * 8 / 16 / (double)o->k,
           pack_s > 0 ? (double)each * b->layers / pack_s * 1e-9 : 0.0, floor * 1e-9, peak * 1e-9);
    float *x = cp_xcalloc((size_t)o->k, sizeof *x);
    int all = b->layers;
    for (int i = 0; i < o->n_rows; i++) {
        b->n = o->rows[i];
        b->layers = b->n >= 64 ? (all + 15) / 16 : all;
        for (int r = 0; r < b->n; r++) {
            for (int64_t j = 0; j < o->k; j++)
                x[j] = (float)((j * 37 + r * 11) % 101 - 50);
            cp_linear_prep_row(b->l[0], x, r, b->n, b->act);
        }
        double sec = best_seconds(b, linear_worker, b->n >= 64 ? 3 : PASSES);
        double rate = (double)each * b->layers / sec;
        double ops = 2.0 * (double)o->k * (double)o->m * b->n * b->layers / sec;
        printf("  n %3d  %6.1f GB/s (%3.0f %% of plain)  %7.1f GOP/s (%3.0f %% of peak)\n", b->n,
               rate * 1e-9, 100 * rate / floor, ops * 1e-9, peak > 0 ? 100 * ops / peak : 0.0);
        fflush(stdout);
    }
    b->layers = all;
    for (int i = 0; i < b->layers; i++)
        cp_linear_close(b->l[i]);
    cp_panels_close(store);
    for (int i = 0; i < cp_pool_threads(b->pool); i++)
        free(b->scratch[i]);
    free(x);
    free(b->act);
    free(b->out);
    free(file);
    free(copies);
    free(w);
}

static int64_t number(const char *s)
{
    char *end;
    long long v = strtoll(s, &end, 10);
    if (*end || v < 1 || v > 1 << 28) {
        fprintf(stderr, "bench_kernels: not a number: %s\n", s);
        exit(2);
    }
    return v;
}

static void row_counts(options *o, const char *list)
{
    char word[16];
    o->n_rows = 0;
    while (*list && o->n_rows < MAX_COUNTS) {
        size_t len = strcspn(list, ",");
        snprintf(word, sizeof word, "%.*s", (int)len, list);
        int64_t n = number(word);
        o->rows[o->n_rows++] = (int)(n < MAX_N ? n : MAX_N);
        list += len + (list[len] == ',');
    }
}

static options parse(int argc, char **argv)
{
    options o = {.k = 576, .m = 1536, .mb = 96, .threads = cp_pool_default_threads()};
    row_counts(&o, "1,2,4,8,16,64,128,512");
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(a, "--unpacked")) {
            o.unpacked = true;
            continue;
        }
        if (!strcmp(a, "--cpu")) {
            o.cpu = true;
            continue;
        }
        if (!v) {
            fprintf(stderr,
                    "usage: bench_kernels [--type T] [--level L] [--k K] [--m M] [--mb MiB] "
                    "[--threads N] [--rows N,N,...] [--unpacked] [--cpu]\n");
            exit(2);
        }
        i++;
        if (!strcmp(a, "--type"))
            o.type = v;
        else if (!strcmp(a, "--level"))
            o.level = v;
        else if (!strcmp(a, "--k"))
            o.k = number(v);
        else if (!strcmp(a, "--m"))
            o.m = number(v);
        else if (!strcmp(a, "--mb"))
            o.mb = number(v);
        else if (!strcmp(a, "--threads"))
            o.threads = (int)number(v);
        else if (!strcmp(a, "--rows"))
            row_counts(&o, v);
    }
    return o;
}

int main(int argc, char **argv)
{
    static bench b;
    options o = parse(argc, argv);
    cp_err err = {0};
    cp_isa isa;
    double peak = 0;
    b.cpu = o.cpu;
    if (o.threads > 64)
        o.threads = 64;
    if (cp_isa_detect(o.level, &isa, &err) != CP_OK ||
        cp_pool_open(&b.pool, o.threads, &err) != CP_OK)
        die(&err);
#if defined(__x86_64__)
    if (cp_isa_over(isa, CP_ISA_AVX2))
        peak = 8.0 * 64 * PEAK_LOOPS * o.threads / best_seconds(&b, peak_worker, 3);
#endif
    for (uint32_t i = 0; i < CP_DTYPE_LIMIT; i++) {
        const cp_dtype_row *info = cp_dtype_info(i);
        if (info && cp_panel_kind_of((cp_dtype)i) != CP_PANEL_COUNT && o.k % info->block == 0 &&
            (!o.type || !strcmp(o.type, info->name)))
            measure(&b, (cp_dtype)i, &o, isa, peak);
    }
    cp_pool_close(b.pool);
    return 0;
}
