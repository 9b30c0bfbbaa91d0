/*
 * bench engine, bench perplexity: measure the real scheduler, forward and sampler without HTTP.
 *
 * pp is the time from submission of a prompt to its first token, in steps of --max-batch-rows. tg
 * and batch are the time from the moment that every sequence has its first token (prompt and depth
 * are untimed) to the last token. Each is repeated 5 times, and the median, the least and the most
 * are printed. Sampling is greedy and part of the time.
 */
#include "app/command.h"
#include "app/compose.h"
#include "app/local.h"
#include "app/progress.h"
#include "base/clock.h"
#include "base/io.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPETITIONS 5

typedef struct bench {
    const cp_options *o;
    cp_stack stack;
    cp_app_model m;
    cp_local *local;
    uint64_t rng;
} bench;

static cp_code bench_open(bench *b, const cp_options *o, int ctx, int seqs, cp_err *err)
{
    memset(b, 0, sizeof *b);
    b->o = o;
    b->rng = 1;
    cp_engine_model em = {.ctx = ctx,
                          .kv_bytes = o->kv_bytes,
                          .max_seqs = seqs,
                          .max_batch_rows = (int)o->max_batch_rows,
                          .prefill_chunk = (int)o->prefill_chunk,
                          .kv_type = o->kv_type == CP_KV_TYPE_F16 ? CP_DTYPE_F16 : CP_DTYPE_BF16,
                          .prefix_cache = false};
    cp_options wide = *o;
    wide.max_queue = 8192;
    wide.max_queue_tokens = INT64_MAX;
    cp_progress p;
    cp_progress_init(&p, o->model, false);
    cp_code rc = cp_app_model_open(&b->m, o->model, NULL, o, NULL, cp_progress_report, &p, err);
    cp_progress_end(&p);
    if (rc || (rc = cp_stack_open(&b->stack, o, NULL, err)) ||
        (rc = cp_stack_engine(&b->stack, &wide, NULL, NULL, err)) ||
        (rc = cp_app_model_add(&b->m, &b->stack, &em, err)) ||
        (rc = cp_engine_start(b->stack.engine, err))) {
        return rc;
    }
    b->local = cp_local_open(cp_engine_front(b->stack.engine));
    return CP_OK;
}

static void bench_close(bench *b)
{
    if (b->local) {
        cp_engine_stop(b->stack.engine);
        cp_local_close(b->local);
    }
    cp_stack_close(&b->stack);
    cp_app_model_close(&b->m);
}

/* Ordinary ids in [0, vocabulary), drawn by a fixed seed. */
static int32_t *random_prompt(bench *b, int n)
{
    int32_t *ids = cp_xcalloc((size_t)n, sizeof *ids);
    uint32_t vocab = (uint32_t)cp_tokenizer_size(b->m.tokenizer);
    for (int i = 0; i < n; i++) {
        b->rng = b->rng * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((b->rng >> 33) % vocab);
    }
    return ids;
}

/* n_seqs sequences of n_prompt + n_gen tokens; seconds until all have a first token, and from there
 * to the end. */
static cp_code run_once(bench *b, int n_seqs, int n_prompt, int n_gen, double *prefill,
                        double *decode, cp_err *err)
{
    int32_t **prompt = cp_xcalloc((size_t)n_seqs, sizeof *prompt);
    int first = 0, left = n_seqs;
    cp_code rc = CP_OK;
    int64_t t0 = cp_now_ns(), t1 = t0;
    for (int i = 0; i < n_seqs && rc == CP_OK; i++) {
        cp_request *r = cp_local_request(b->local, 64, -1, -1);
        r->model = b->m.engine;
        r->prompt = prompt[i] = random_prompt(b, n_prompt);
        r->n_prompt = n_prompt;
        r->max_tokens = n_gen + 1;
        r->sampling.ignore_eos = true;
        rc = cp_local_submit(b->local, r, err);
        left -= rc != CP_OK;
    }
    while (left > 0 && rc == CP_OK) {
        cp_request *r;
        cp_event ev;
        cp_local_next(b->local, -1, &r, &ev);
        if (ev.type == CP_EV_TOKEN && ev.pos == 0 && ++first == n_seqs) {
            t1 = cp_now_ns();
        } else if (ev.type == CP_EV_END) {
            left--;
        } else if (ev.type == CP_EV_ERROR) {
            rc = cp_fail(err, (cp_code)ev.code, "a sequence failed: %s",
                         cp_code_info((cp_code)ev.code)->slug);
        }
    }
    int64_t t2 = cp_now_ns();
    *prefill = (double)(t1 - t0) * 1e-9;
    *decode = (double)(t2 - t1) * 1e-9;
    for (int i = 0; i < n_seqs; i++) {
        free(prompt[i]);
    }
    free(prompt);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One row of the result: test pp (tokens a second of prefill), tg or batch (of decode). */
static cp_code bench_row(bench *b, const char *test, int n_seqs, bool *first_row, cp_err *err)
{
    const cp_options *o = b->o;
    bool pp = strcmp(test, "pp") == 0;
    int n_prompt = pp             ? (int)o->n_prompt
                   : o->depth > 0 ? (int)o->depth
                                  : 1,
        n_gen = pp ? 0 : (int)o->n_gen;
    double v[REPETITIONS], prefill, decode;
    cp_code rc =
        run_once(b, n_seqs, n_prompt, n_gen < 4 ? n_gen : 4, &prefill, &decode, err); /* warm-up */
    for (int i = 0; i < REPETITIONS && rc == CP_OK; i++) {
        rc = run_once(b, n_seqs, n_prompt, n_gen, &prefill, &decode, err);
        v[i] = pp ? n_prompt / prefill : (double)n_seqs * n_gen / decode;
    }
    if (rc) {
        return rc;
    }
    qsort(v, REPETITIONS, sizeof *v, by_value);
    int depth = pp ? 0 : (int)o->depth;
    if (o->json) {
        printf("%s{\"test\":\"%s\",\"n_prompt\":%d,\"n_gen\":%d,\"depth\":%d,\"batch\":%d,"
               "\"threads\":%d,"
               "\"tok_s\":{\"median\":%.2f,\"min\":%.2f,\"max\":%.2f}}",
               *first_row ? "" : ",", test, pp ? n_prompt : 0, n_gen, depth, n_seqs,
               b->stack.threads, v[REPETITIONS / 2], v[0], v[REPETITIONS - 1]);
    } else {
        if (*first_row) {
            printf("%-6s %8s %6s %6s %6s %8s %12s %12s %12s\n", "test", "n_prompt", "n_gen",
                   "depth", "batch", "threads", "tok/s median", "min", "max");
        }
        printf("%-6s %8d %6d %6d %6d %8d %12.2f %12.2f %12.2f\n", test, pp ? n_prompt : 0, n_gen,
               depth, n_seqs, b->stack.threads, v[REPETITIONS / 2], v[0], v[REPETITIONS - 1]);
    }
    fflush(stdout);
    *first_row = false;
    return CP_OK;
}

int cp_cmd_bench_engine(const cp_options *o)
{
    bench b;
    cp_err err = {0};
    int64_t seqs = 1, longest = o->depth + o->n_gen;
    for (int i = 0; i < o->batch.n; i++) {
        seqs = o->batch.p[i] > seqs ? o->batch.p[i] : seqs;
    }
    longest = o->n_prompt > longest ? o->n_prompt : longest;
    cp_code rc = bench_open(&b, o, (int)longest + 2, (int)seqs, &err);
    bool first = true;
    if (rc == CP_OK) {
        fputs(o->json ? "[" : "", stdout);
        rc = o->n_prompt > 0 ? bench_row(&b, "pp", 1, &first, &err) : CP_OK;
        if (rc == CP_OK && o->n_gen > 0) {
            rc = bench_row(&b, "tg", 1, &first, &err);
        }
        for (int i = 0; i < o->batch.n && rc == CP_OK && o->n_gen > 0; i++) {
            if (o->batch.p[i] > 1) {
                rc = bench_row(&b, "batch", (int)o->batch.p[i], &first, &err);
            }
        }
        fputs(o->json ? "]\n" : "", stdout);
    }
    bench_close(&b);
    return rc ? cp_app_fail(&err) : 0;
}

/* Sum of negative log-probabilities of the window's second half, in nats. */
static cp_code score_window(bench *b, const int32_t *ids, int ctx, double *nll, cp_err *err)
{
    cp_request *r = cp_local_request(b->local, 1024, -1, 0);
    r->model = b->m.engine;
    r->prompt = ids;
    r->n_prompt = ctx;
    r->max_tokens = 0;
    cp_code rc = cp_local_submit(b->local, r, err);
    for (bool done = false; rc == CP_OK && !done;) {
        cp_event ev;
        cp_local_next(b->local, -1, &r, &ev);
        if (ev.type == CP_EV_PROMPT && ev.pos > ctx / 2) {
            *nll -= (double)ev.logprob;
        } else if (ev.type == CP_EV_ERROR) {
            rc = cp_fail(err, (cp_code)ev.code, "scoring failed: %s",
                         cp_code_info((cp_code)ev.code)->slug);
        }
        done = ev.type == CP_EV_END;
    }
    return rc;
}

int cp_cmd_bench_perplexity(const cp_options *o)
{
    bench b;
    cp_err err = {0};
    cp_buf text = {0};
    cp_ids ids = {0};
    int ctx = o->ctx > 0 ? (int)o->ctx : 512;
    cp_code rc = bench_open(&b, o, ctx + 1, 1, &err);
    if (rc || (rc = cp_file_read(o->file, (size_t)1 << 30, &text, &err)) ||
        (rc = cp_tokenizer_encode(b.m.tokenizer, text.p ? text.p : "", text.n, false, false, NULL,
                                  0, &ids, &err))) {
        goto done;
    }
    size_t windows = ids.n / (size_t)ctx;
    if (ctx < 4 || windows == 0) {
        rc = cp_fail(&err, CP_USAGE,
                     "--ctx %d: %s has %zu tokens; a window needs at least 4 and must fit", ctx,
                     o->file, ids.n);
        goto done;
    }
    int32_t bos = cp_tokenizer_bos(b.m.tokenizer);
    double nll = 0;
    int64_t targets = 0, last_ns = cp_now_ns();
    for (size_t w = 0; w < windows && rc == CP_OK; w++) {
        int32_t *at = ids.id + w * (size_t)ctx;
        at[0] = bos >= 0 ? bos : at[0];
        rc = score_window(&b, at, ctx, &nll, &err);
        targets += ctx - 1 - ctx / 2;
        if (cp_now_ns() - last_ns > 5000000000) {
            last_ns = cp_now_ns();
            fprintf(stderr, "window %zu of %zu: perplexity so far %.4f\n", w + 1, windows,
                    exp(nll / (double)targets));
        }
    }
    if (rc == CP_OK) {
        double mean = nll / (double)targets;
        printf(o->json ? "{\"tokens\":%lld,\"nll\":%.6f,\"ppl\":%.6f}\n"
                       : "tokens %lld  nll %.6f  perplexity %.6f\n",
               (long long)targets, mean, exp(mean));
    }
done:
    cp_ids_fini(&ids);
    cp_buf_fini(&text);
    bench_close(&b);
    return rc ? cp_app_fail(&err) : 0;
}
