/*
 * compare: our logits against a reference's, teacher-forced, streamed so that 262,144-wide rows
 * need no disk.
 *
 *   compare REF BACKEND LEVEL KVTYPE THREADS CHUNK [check=LEVEL2,N]   < frames
 *
 * stdin: frames of u32 n, i32 ids[n], f32 logits[n][n_vocab] (little endian); each frame is a
 * window of its own. BACKEND cpu or ref (ref runs with f32 activations). Prints one JSON object:
 * tokens, nmse, top-1 agreement over all and where the reference's margin exceeds 0.2 and 0.5,
 * perplexities of both. check: the first N tokens of each window also run at LEVEL2 and must have
 * the same bits (exit 1 otherwise): int8 linears are bit-equal across levels, so the slow level
 * need not run the whole text.
 */
#include "tests/support/forward.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WINDOW 4096

typedef struct totals {
    uint64_t tokens, scored, agree, n02, agree02, n05, agree05, check_rows;
    double num, den, nll_ours, nll_ref;
} totals;

static bool read_all(void *p, size_t n)
{
    return fread(p, 1, n, stdin) == n;
}

static double log_sum_exp(const float *x, int n)
{
    double m = (double)x[0], s = 0;
    for (int i = 1; i < n; i++) {
        m = (double)x[i] > m ? (double)x[i] : m;
    }
    for (int i = 0; i < n; i++) {
        s += exp((double)x[i] - m);
    }
    return m + log(s);
}

static int argmax(const float *x, int n, float *margin)
{
    int best = 0;
    float second = -INFINITY;
    for (int i = 1; i < n; i++) {
        if (x[i] > x[best]) {
            second = x[best];
            best = i;
        } else if (x[i] > second) {
            second = x[i];
        }
    }
    *margin = x[best] - second;
    return best;
}

static void add_row(totals *t, const float *ours, const float *ref, int vocab, int32_t next)
{
    float margin, ignored;
    for (int i = 0; i < vocab; i++) {
        double d = (double)ours[i] - (double)ref[i];
        t->num += d * d;
        t->den += (double)ref[i] * (double)ref[i];
    }
    bool same = argmax(ref, vocab, &margin) == argmax(ours, vocab, &ignored);
    t->tokens++;
    t->agree += same;
    t->n02 += margin > 0.2f;
    t->agree02 += same && margin > 0.2f;
    t->n05 += margin > 0.5f;
    t->agree05 += same && margin > 0.5f;
    if (next >= 0) {
        t->scored++;
        t->nll_ours += log_sum_exp(ours, vocab) - (double)ours[next];
        t->nll_ref += log_sum_exp(ref, vocab) - (double)ref[next];
    }
}

static cp_forward *open_forward(char **argv, const char *level, cp_err *err)
{
    cp_forward_config cfg = {.path = argv[1],
                             .backend = argv[2],
                             .level = strcmp(level, "best") ? level : NULL,
                             .act_f32 = strcmp(argv[2], "ref") == 0,
                             .kv_type = strcmp(argv[4], "f16") ? CP_DTYPE_BF16 : CP_DTYPE_F16,
                             .threads = (int)strtol(argv[5], NULL, 10),
                             .max_rows = (int)strtol(argv[6], NULL, 10),
                             .max_positions = MAX_WINDOW,
                             .seed = 3};
    cp_forward *f = NULL;
    return cp_forward_open(&f, &cfg, err) ? NULL : f;
}

int main(int argc, char **argv)
{
    cp_err err = {0};
    char level2[32] = "";
    int n_check = 0;
    if (argc < 7 || (argc > 7 && sscanf(argv[7], "check=%31[^,],%d", level2, &n_check) != 2)) {
        fprintf(
            stderr,
            "usage: compare REF BACKEND LEVEL KVTYPE THREADS CHUNK [check=LEVEL2,N] < frames\n");
        return 2;
    }
    int chunk = (int)strtol(argv[6], NULL, 10), rc = 0;
    cp_forward *f = open_forward(argv, argv[3], &err),
               *g = f && n_check ? open_forward(argv, level2, &err) : NULL;
    if (!f || (n_check && !g)) {
        fprintf(stderr, "compare: %s\n", err.msg);
        return 1;
    }
    int vocab = cp_model_hparams(cp_forward_model(f))->n_vocab;
    size_t row = (size_t)vocab * sizeof(float);
    float *ours = cp_xmalloc((size_t)chunk * row), *ref = cp_xmalloc(row),
          *twin = cp_xmalloc((size_t)chunk * row);
    int32_t ids[MAX_WINDOW];
    totals t = {0};
    uint32_t n;
    while (rc == 0 && read_all(&n, sizeof n)) {
        if (n == 0 || n > MAX_WINDOW || !read_all(ids, n * sizeof *ids)) {
            fprintf(stderr, "compare: bad frame\n");
            return 1;
        }
        cp_forward_reset(f);
        if (g) {
            cp_forward_reset(g);
        }
        for (uint32_t at = 0; at < n && rc == 0; at += (uint32_t)chunk) {
            int rows = (int)(n - at < (uint32_t)chunk ? n - at : (uint32_t)chunk);
            bool twice = g && (int)at < n_check;
            if (cp_forward_run(f, ids + at, rows, chunk, ours, &err) ||
                (twice && cp_forward_run(g, ids + at, rows, chunk, twin, &err))) {
                fprintf(stderr, "compare: %s\n", err.msg);
                return 1;
            }
            if (twice && memcmp(ours, twin, (size_t)rows * row) != 0) {
                fprintf(stderr, "compare: levels %s and %s differ within rows %u..%u\n", argv[3],
                        level2, at, at + (uint32_t)rows);
                rc = 1;
            }
            t.check_rows += twice ? (uint64_t)rows : 0;
            for (int r = 0; r < rows && read_all(ref, row); r++) {
                uint32_t pos = at + (uint32_t)r;
                add_row(&t, ours + (size_t)r * (size_t)vocab, ref, vocab,
                        pos + 1 < n ? ids[pos + 1] : -1);
            }
        }
        fprintf(stderr, "\r%llu tokens, NMSE %.3e", (unsigned long long)t.tokens, t.num / t.den);
    }
    fprintf(stderr, "\n");
    printf("{\"tokens\":%llu,\"level\":\"%s\",\"nmse\":%.4e,\"top1\":%.5f,\"n_margin_0.2\":%llu,"
           "\"top1_margin_0.2\":%.5f,"
           "\"n_margin_0.5\":%llu,\"top1_margin_0.5\":%.5f,\"ppl\":%.5f,\"ppl_ref\":%.5f,\"ppl_"
           "ratio\":%.5f,"
           "\"bit_equal_rows\":%llu}\n",
           (unsigned long long)t.tokens, cp_backend_level(cp_forward_backend(f)), t.num / t.den,
           (double)t.agree / (double)t.tokens, (unsigned long long)t.n02,
           (double)t.agree02 / (double)t.n02, (unsigned long long)t.n05,
           (double)t.agree05 / (double)t.n05, exp(t.nll_ours / (double)t.scored),
           exp(t.nll_ref / (double)t.scored), exp((t.nll_ours - t.nll_ref) / (double)t.scored),
           (unsigned long long)t.check_rows);
    cp_forward_close(f);
    cp_forward_close(g);
    free(ours);
    free(ref);
    free(twin);
    return rc;
}
