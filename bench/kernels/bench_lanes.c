/*
 * bench_lanes: what the lane tree of 64 partial sums (kernels/program.h) costs or gains beside one
 * of 16: norms and attention alone, both forms in one process, in alternating turns.
 *
 * A turn is some hundred microseconds of processor time of each form; printed are the median of the
 * turns' ratios, 16 over 64 (above 1: 64 is faster), and the middle half of them.
 *
 * usage: bench_lanes [TURNS]
 */
#include "kernels/cpu/isa.h"
#include "kernels/cpu/vec.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern const cp_vec lanes16_base;
#if defined(__x86_64__)
extern const cp_vec lanes16_avx2, lanes16_avx512;
#endif

#define POSITIONS 32 /* of a page */
#define MAX_TURNS 2001
#define MAX_N     4096

typedef struct level {
    cp_isa isa;
    const cp_vec *form[2]; /* 16 and 64 partial sums */
} level;

typedef struct job {
    const char *name;
    int n;   /* norm: width; attention: query vectors */
    int dim; /* attention: of a head; 0: a norm */
} job;

static float x[MAX_N], y[MAX_N], w[MAX_N];
static cp_attend attend;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static double turn(const cp_vec *v, const job *j, int repeats)
{
    double t0 = now();
    for (int i = 0; i < repeats; i++) {
        if (j->dim)
            v->attend(&attend);
        else
            v->rmsnorm(y, x, w, NULL, j->n, 1e-5f);
    }
    return (now() - t0) / repeats;
}

/* One split of CP_SPLIT positions, all visible, for n queries. */
static void set_attend(const job *j)
{
    static uint32_t table[CP_SPLIT / POSITIONS];
    static int lo[8], hi[8];
    static float q[8 * 128], s[8 * CP_SPLIT], o[8 * 128], m[8], l[8];
    static uint16_t pages[2 * 128 * CP_SPLIT];
    for (int i = 0; i < CP_SPLIT / POSITIONS; i++)
        table[i] = (uint32_t)i;
    for (int i = 0; i < 8; i++)
        hi[i] = CP_SPLIT;
    for (size_t i = 0; i < sizeof q / sizeof *q; i++)
        q[i] = sinf((float)i);
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        pages[i] = (uint16_t)(0x3e00 + i % 251 + (i % 3 ? 0x8000 : 0)); /* bf16 of 0.1 to 1 */
    attend = (cp_attend){.q = q,
                         .n = j->n,
                         .k_dim = j->dim,
                         .v_dim = j->dim,
                         .lo = lo,
                         .hi = hi,
                         .scale = 0.1f,
                         .pages = (const uint8_t *)pages,
                         .page_bytes = 4 * (size_t)j->dim * POSITIONS,
                         .table = table,
                         .positions = POSITIONS,
                         .s = s,
                         .o = o,
                         .m = m,
                         .l = l};
}

static int ascending(const void *a, const void *b)
{
    double p = *(const double *)a, q = *(const double *)b;
    return (p > q) - (p < q);
}

static void measure(const level *lv, job j, int turns)
{
    static double us[2][MAX_TURNS], ratio[MAX_TURNS];
    if (j.dim)
        set_attend(&j);
    double once = turn(lv->form[0], &j, 3);
    int repeats = 1 + (int)(300.0 / (once + 0.01));
    turn(lv->form[1], &j, repeats);
    for (int i = 0; i < turns; i++) {
        int first = i % 2;
        us[first][i] = turn(lv->form[first], &j, repeats);
        us[!first][i] = turn(lv->form[!first], &j, repeats);
        ratio[i] = us[0][i] / us[1][i];
    }
    for (int f = 0; f < 2; f++)
        qsort(us[f], (size_t)turns, sizeof(double), ascending);
    qsort(ratio, (size_t)turns, sizeof(double), ascending);
    printf("%-6s %-9s %4d %4d  %9.3f us  %9.3f us   %.3f (%.3f..%.3f)\n", cp_isa_name(lv->isa),
           j.name, j.n, j.dim, us[0][turns / 2], us[1][turns / 2], ratio[turns / 2],
           ratio[turns / 4], ratio[turns * 3 / 4]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const level levels[] = {
        {CP_ISA_BASE, {&lanes16_base, &cp_vec_base}},
#if defined(__x86_64__)
        {CP_ISA_AVX2, {&lanes16_avx2, &cp_vec_avx2}},
        {CP_ISA_AVX512, {&lanes16_avx512, &cp_vec_avx512}},
#endif
    };
    static const job jobs[] = {
        {"norm", 64, 0},       {"norm", 128, 0},     {"norm", 256, 0},      {"norm", 576, 0},
        {"norm", 640, 0},      {"norm", 2048, 0},    {"norm", 4096, 0},     {"attention", 1, 64},
        {"attention", 3, 64},  {"attention", 8, 64}, {"attention", 1, 128}, {"attention", 4, 128},
        {"attention", 8, 128},
    };
    int turns = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 101;
    if (turns < 1 || turns > MAX_TURNS)
        return 2;
    for (int i = 0; i < MAX_N; i++) {
        x[i] = sinf((float)i);
        w[i] = 1.0f + 0.1f * cosf((float)i);
    }
    printf("level  what         n  dim     16 sums      64 sums      ratio (middle half of %d)\n",
           turns);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        for (size_t k = 0; k < sizeof jobs / sizeof *jobs && cp_isa_there(levels[i].isa); k++)
            measure(&levels[i], jobs[k], turns);
    return 0;
}
