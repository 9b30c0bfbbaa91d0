/*
 * The tokenizer over whole vocabularies: reference vectors, a plain re-implementation of merging,
 * special tokens and spans, roles of tokens, bytes that are no text, hostile metadata.
 */
#include "tests.h"

#include "base/utf8.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"
#include "vocab.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    vocab *v;
    cp_meta *m;
    cp_tokenizer *t;
    vector_case *cases;
    size_t n;
} fixture;

static fixture load(const char *name)
{
    fixture f = {.v = vocab_new()};
    vector_load(f.v, name, &f.cases, &f.n);
    f.t = vocab_open(f.v, &f.m);
    return f;
}

static void unload(fixture *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->cases[i].id);
    free(f->cases);
    cp_tokenizer_close(f->t);
    cp_meta_free(f->m);
    vocab_free(f->v);
}

static cp_ids encode(const cp_tokenizer *t, const char *s, size_t n, bool special)
{
    cp_ids ids = {0};
    cp_err err = {0};
    if (cp_tokenizer_encode(t, s, n, special, special, NULL, 0, &ids, &err) != CP_OK)
        fail_msg("encode: %s", err.msg);
    return ids;
}

static void expect_same(const char *what, const int32_t *got, size_t n_got, const int32_t *want,
                        size_t n)
{
    bool same = n_got == n;
    for (size_t i = 0; same && i < n; i++)
        same = got[i] == want[i];
    if (same)
        return;
    cp_buf b = {0};
    cp_buf_printf(&b, "%s: got", what);
    for (size_t i = 0; i < n_got; i++)
        cp_buf_printf(&b, " %d", got[i]);
    cp_buf_adds(&b, ", expected");
    for (size_t i = 0; i < n; i++)
        cp_buf_printf(&b, " %d", want[i]);
    print_error("%s\n", b.p);
    cp_buf_fini(&b);
    fail();
}

static void expect_ids(const char *what, const cp_ids *got, const int32_t *want, size_t n)
{
    expect_same(what, got->id, got->n, want, n);
}

static void expect(const cp_tokenizer *t, const char *text, bool parse, const cp_span *span,
                   size_t n_span, const int32_t *want, size_t n)
{
    cp_ids ids = {0};
    assert_int_equal(
        cp_tokenizer_encode(t, text, strlen(text), false, parse, span, n_span, &ids, NULL), CP_OK);
    expect_ids(text, &ids, want, n);
    cp_ids_fini(&ids);
}

#define IDS(...)                                                                                   \
    (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static const char *const FAMILIES[] = {"gpt-2",        "smollm",         "llama-bpe", "qwen2",
                                       "qwen35",       "gpt-4o",         "tekken",    "deepseek-v3",
                                       "deepseek-llm", "deepseek-coder", "falcon",    "minicpm5",
                                       "seed-coder",   "gemma4",         "spm",       "spm-bare"};
#define N_FAMILIES (sizeof FAMILIES / sizeof FAMILIES[0])

static void test_reference_vectors(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_FAMILIES; k++) {
        fixture f = load(FAMILIES[k]);
        assert_true(f.n > 100);
        for (size_t i = 0; i < f.n; i++) {
            cp_ids ids = encode(f.t, f.cases[i].text.p, f.cases[i].text.n, f.cases[i].special);
            expect_ids(f.cases[i].text.p, &ids, f.cases[i].id, f.cases[i].n);
            cp_ids_fini(&ids);
        }
        unload(&f);
    }
}

static uint32_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return (uint32_t)(*s >> 32);
}

/* ---- merging, the plain way: strings, and the whole list searched for every step ---- */

typedef struct part {
    size_t off, len;
} part;

static bool rule_is(cp_str rule, const char *s, part a, part b)
{
    return rule.n == a.len + b.len + 1 && memcmp(rule.p, s + a.off, a.len) == 0 &&
           rule.p[a.len] == ' ' && memcmp(rule.p + a.len + 1, s + b.off, b.len) == 0;
}

/* How good merging a and b is (higher is better), or -(double)INFINITY. */
static double gain(const fixture *f, const char *s, part a, part b)
{
    if (!f->v->scores) {
        for (size_t r = 0; r < f->v->n_merges; r++)
            if (rule_is(f->v->merge[r], s, a, b))
                return -(double)r;
        return -(double)INFINITY;
    }
    int32_t id = cp_tokenizer_find(f->t, s + a.off, a.len + b.len);
    if (id < 0 || f->v->type[id] == CP_TT_CONTROL || f->v->type[id] == CP_TT_BYTE)
        return -(double)INFINITY;
    return (double)f->v->score[id];
}

static void merge_plainly(const fixture *f, const char *s, size_t n, cp_ids *out)
{
    part *p = cp_xmalloc((n + 1) * sizeof *p);
    size_t k = 0;
    uint32_t cp;
    for (size_t i = 0; i < n; i += p[k++].len)
        p[k] = (part){i, cp_uni_decode((const uint8_t *)s + i, n - i, &cp)};
    for (;;) {
        size_t best = 0;
        double top = -(double)INFINITY;
        for (size_t i = 0; i + 1 < k; i++) {
            double g = gain(f, s, p[i], p[i + 1]);
            if (g > top) {
                top = g;
                best = i;
            }
        }
        if (isinf(top))
            break;
        p[best].len += p[best + 1].len;
        memmove(p + best + 1, p + best + 2, (k - best - 2) * sizeof *p);
        k--;
    }
    for (size_t i = 0; i < k; i++) {
        int32_t id = cp_tokenizer_find(f->t, s + p[i].off, p[i].len);
        if (id >= 0)
            assert_true(cp_ids_add(out, id));
        else
            for (size_t j = 0; f->t->chars && j < p[i].len; j++)
                assert_true(cp_ids_add(out, f->t->byte_id[(uint8_t)s[p[i].off + j]]));
    }
    free(p);
}

/* A piece of a text as the family spells it. */
static void spell(const cp_tokenizer *t, const char *s, size_t n, bool prefix, cp_buf *out)
{
    cp_buf_clear(out);
    if (prefix)
        cp_buf_adds(out, "\xE2\x96\x81");
    for (size_t i = 0; i < n; i++) {
        char b[4] = {s[i]};
        if (t->chars && s[i] == ' ')
            cp_buf_adds(out, "\xE2\x96\x81");
        else
            cp_buf_add(out, b, t->chars ? 1 : cp_utf8_encode(cp_tok_byte_to_cp((uint8_t)b[0]), b));
    }
}

/* Words of several scripts and what stands between, so that seams, whole words and both merging
 * routines are met. */
static void test_merging_equals_the_plain_way(void **state)
{
    (void)state;
    static const char *const PART[] = {"t",
                                       "h",
                                       "e",
                                       "n",
                                       "r",
                                       "a",
                                       "the",
                                       "text",
                                       "numbers",
                                       "in",
                                       "\xC3\xA9",
                                       "zq",
                                       " ",
                                       "\xE6\x96\x87",
                                       "\xE5\xAD\x97",
                                       "\xE6\x95\xB0\xE5\xAD\x97",
                                       "\xF0\x9F\x98\x80",
                                       "\xD1\x82\xD0\xB5",
                                       "\xE7\x81\xAB",
                                       " the"};
    uint64_t seed = 42;
    cp_buf text = {0}, spelled = {0};
    for (size_t k = 0; k < N_FAMILIES; k++) {
        fixture f = load(FAMILIES[k]);
        bool whole = f.t->pre && f.t->pre->ignore_merges;
        for (int round = 0; !whole && round < 150; round++) {
            cp_buf_clear(&text);
            size_t parts = 1 + next_random(&seed) % 40;
            size_t kinds =
                round % 2 ? sizeof PART / sizeof PART[0] : 12; /* letters alone: long words */
            for (size_t i = 0; i < parts; i++)
                cp_buf_adds(&text, PART[next_random(&seed) % kinds]);
            cp_ids want = {0}, got = encode(f.t, text.p, text.n, false);
            cp_pretok_at at = {0};
            for (size_t i = 0, end = text.n; i < text.n; i = end) {
                if (f.t->pre)
                    end = cp_pretok_next(f.t->pre, &at, (const uint8_t *)text.p, i, text.n);
                spell(f.t, text.p + i, end - i, f.t->add_space_prefix, &spelled);
                merge_plainly(&f, spelled.p, spelled.n, &want);
            }
            expect_ids(text.p, &got, want.id, want.n);
            cp_ids_fini(&want);
            cp_ids_fini(&got);
        }
        unload(&f);
    }
    cp_buf_fini(&text);
    cp_buf_fini(&spelled);
}

/* A mebibyte of one character: each pair is looked up a bounded number of times, however it merges,
 * and the bytes come back. */
static void test_a_run_of_one_character(void **state)
{
    (void)state;
    static const char *const NAME[] = {"gpt-2", "qwen35", "gemma4", "spm"};
    static const char *const RUN[] = {"e", " ", "\n", "'", "\xCC\x81", "\xE6\x96\x87"};
    const size_t n = 1u << 20;
    char *text = cp_xmalloc(n);
    for (size_t k = 0; k < sizeof NAME / sizeof NAME[0]; k++) {
        fixture f = load(NAME[k]);
        for (size_t c = 0; c < sizeof RUN / sizeof RUN[0]; c++) {
            size_t len = strlen(RUN[c]), used = n / len * len;
            for (size_t i = 0; i < used; i++)
                text[i] = RUN[c][i % len];
            cp_ids ids = {0};
            cp_tok_work w = {0};
            cp_buf back = {0};
            assert_true(cp_tok_fragment(f.t, &w, text, used, false, &ids));
            assert_true(w.looks <= 4 * used);
            assert_int_equal(cp_tokenizer_decode(f.t, ids.id, ids.n, false, &back, NULL), CP_OK);
            size_t first = c == 1 && f.t->add_space_prefix; /* decoding takes one space off */
            assert_int_equal(back.n, used - first);
            assert_memory_equal(back.p, text, used - first);
            cp_buf_fini(&back);
            cp_ids_fini(&ids);
            cp_tok_work_fini(&w);
        }
        unload(&f);
    }
    free(text);
}

/* Random bytes survive wherever the vocabulary has all bytes; smollm's vectors lack two. */
static void test_invalid_utf8_round_trips(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (size_t k = 0; k < N_FAMILIES; k++) {
        fixture f = load(FAMILIES[k]);
        bool lacks = strcmp(FAMILIES[k], "smollm") == 0;
        assert_int_equal(f.t->byte_id[0xF3] < 0, lacks);
        assert_int_equal(f.t->byte_id[0xC1] < 0, lacks);
        for (int round = 0; round < 200; round++) {
            char text[128], want[128];
            size_t n = next_random(&seed) % sizeof text, m = 0;
            for (size_t i = 0; i < n; i++) {
                text[i] = (char)(next_random(&seed) & (round % 2 ? 0xFF : 0xBF));
                uint8_t b = (uint8_t)text[i];
                if (!(lacks && (b == 0xF3 || b == 0xC1)))
                    want[m++] = text[i];
            }
            cp_ids ids = encode(f.t, text, n, false);
            cp_buf back = {0};
            assert_int_equal(cp_tokenizer_decode(f.t, ids.id, ids.n, false, &back, NULL), CP_OK);
            cp_buf nfc = {0};
            if (f.t->pre && f.t->pre->nfc) {
                assert_true(cp_uni_nfc((const uint8_t *)text, n, &nfc));
                m = nfc.n;
            }
            assert_int_equal(back.n, m);
            if (m)
                assert_memory_equal(back.p, nfc.p ? nfc.p : want, m);
            cp_buf_fini(&nfc);
            cp_buf_fini(&back);
            cp_ids_fini(&ids);
        }
        unload(&f);
    }
}

/* ---- special tokens ---- */

/* Ids: 0..255 bytes, then these. */
enum { A = 256, B, TOOL, TOOLBOX, SPACE_X, AB };

static vocab *special_vocab(void)
{
    vocab *v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "gpt2");
    vocab_str(v, "tokenizer.ggml.pre", "gpt-2");
    vocab_bytes(v, false);
    vocab_token(v, "<|a|>", CP_TT_CONTROL, 0);
    vocab_token(v, "<|b|>", CP_TT_CONTROL, 0);
    vocab_token(v, "<tool>", CP_TT_USER, 0);
    vocab_token(v, "<tool>box", CP_TT_USER, 0);
    vocab_token(v, "\xC4\xA0x", CP_TT_NORMAL, 0);
    vocab_token(v, "ab", CP_TT_NORMAL, 0);
    vocab_merge(v, "\xC4\xA0 x");
    vocab_merge(v, "a b");
    return v;
}

static void test_added_tokens_and_spans(void **state)
{
    (void)state;
    vocab *v = special_vocab();
    cp_meta *m;
    cp_tokenizer *t = vocab_open(v, &m);
    /* user-defined always, control only when parsed, the longest wins */
    expect(t, "<|a|>", true, NULL, 0, IDS(A));
    expect(t, "<|a|>", false, NULL, 0, IDS('<', '|', 'a', '|', '>'));
    expect(t, "<tool>", false, NULL, 0, IDS(TOOL));
    expect(t, "<tool>box<tool>bo", false, NULL, 0, IDS(TOOLBOX, TOOL, 'b', 'o'));
    /* a span that covers, begins in, ends in or only meets the match */
    expect(t, "<|a|>", true, &(cp_span){0, 5}, 1, IDS('<', '|', 'a', '|', '>'));
    expect(t, "<|a|>", true, &(cp_span){4, 9}, 1, IDS('<', '|', 'a', '|', '>'));
    expect(t, "<|a|>", true, &(cp_span){0, 1}, 1, IDS('<', '|', 'a', '|', '>'));
    expect(t, "<|a|>c<|b|>", true, &(cp_span){5, 6}, 1, IDS(A, 'c', B));
    expect(t, "<|a|><|b|>", true, &(cp_span){5, 10}, 1, IDS(A, '<', '|', 'b', '|', '>'));
    expect(t, "<tool>", true, &(cp_span){0, 6}, 1, IDS('<', 't', 'o', 'o', 'l', '>'));
    /* two spans; the second is met after the first has passed */
    expect(t, "<|a|><|a|><|a|>", true, (const cp_span[]){{0, 2}, {12, 13}}, 2,
           IDS('<', '|', 'a', '|', '>', A, '<', '|', 'a', '|', '>'));
    /* a border inside a piece does not cut it */
    expect(t, "ab x", true, (const cp_span[]){{0, 1}, {1, 2}, {3, 4}}, 3, IDS(AB, SPACE_X));
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

/* User-defined tokens in what a client wrote: text matches, a marker does not, neither alone nor
 * with a part of it outside, nor as the product of merges. */
static void test_user_defined_tokens_and_spans(void **state)
{
    (void)state;
    enum { THINK = 256, NEWLINES, SPACES, INST, TABLE, WORD, BAR, NEAR, DIVIDE };
    cp_meta *m;
    vocab *v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "gpt2");
    vocab_str(v, "tokenizer.ggml.pre", "gpt-2");
    vocab_bytes(v, false);
    vocab_token(v, "<think>", CP_TT_USER, 0);
    vocab_token(v, "\n\n", CP_TT_USER, 0);
    vocab_token(v, "  ", CP_TT_USER, 0);
    vocab_token(v, "[INST]", CP_TT_USER, 0);
    vocab_token(v, "<b>", CP_TT_USER, 0);
    vocab_token(v, "W\xC3\xB6rt", CP_TT_USER, 0);
    vocab_token(v, "\xEF\xBD\x9Cx", CP_TT_USER, 0); /* a fullwidth bar */
    vocab_token(v, "think", CP_TT_USER, 0);
    vocab_token(v, "\xC3\xB7", CP_TT_USER, 0); /* one character is text whatever it is */
    cp_tokenizer *t = vocab_open(v, &m);
    const char *all = "<think>\n\n  [INST]<b>W\xC3\xB6rt\xEF\xBD\x9Cx";
    const int32_t trusted[] = {THINK, NEWLINES, SPACES, INST, TABLE, WORD, BAR};
    for (int parse = 0; parse < 2; parse++)
        expect(t, all, parse, NULL, 0, trusted, sizeof(trusted) / sizeof(trusted[0]));
    expect(t, all, true, &(cp_span){0, strlen(all)}, 1,
           IDS('<', NEAR, '>', NEWLINES, SPACES, '[', 'I', 'N', 'S', 'T', ']', '<', 'b', '>', WORD,
               0xEF, 0xBD, 0x9C, 'x'));
    /* the template's opener, completed or begun by the client */
    expect(t, "<think>", true, &(cp_span){6, 7}, 1, IDS('<', NEAR, '>'));
    expect(t, "<think>", true, &(cp_span){0, 1}, 1, IDS('<', NEAR, '>'));
    expect(t, "\xC3\xB7", true, &(cp_span){0, 2}, 1, IDS(DIVIDE));
    expect(t, "<think>a<think>", true, &(cp_span){7, 8}, 1, IDS(THINK, 'a', THINK));
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);

    v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "llama");
    vocab_bool(v, "tokenizer.ggml.add_space_prefix", false);
    vocab_bytes(v, true);
    vocab_token(v, "<unk>", CP_TT_UNKNOWN, 0); /* 256 */
    vocab_token(v, "<", CP_TT_NORMAL, -1);
    vocab_token(v, "b", CP_TT_NORMAL, -2);
    vocab_token(v, ">", CP_TT_NORMAL, -3);
    vocab_token(v, "<b", CP_TT_NORMAL, -4);
    vocab_token(v, "<b>", CP_TT_USER, -5);
    v->scores = true;
    t = vocab_open(v, &m);
    expect(t, "<b>", true, NULL, 0, IDS(261));
    expect(t, "<b>", true, &(cp_span){0, 3}, 1, IDS(260, 259));
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

/* Ordinary text never becomes a control, unknown or byte token, whatever the merges say. */
static void test_text_never_merges_into_control(void **state)
{
    (void)state;
    cp_meta *m;
    vocab *v = special_vocab();
    vocab_token(v, "cd", CP_TT_CONTROL, 0);
    vocab_merge(v, "c d");
    cp_tokenizer *t = vocab_open(v, &m);
    expect(t, "cd", false, NULL, 0, IDS('c', 'd'));
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);

    v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "llama");
    vocab_bool(v, "tokenizer.ggml.add_space_prefix", false);
    vocab_int(v, "tokenizer.ggml.eos_token_id", 257);
    vocab_bytes(v, true);
    vocab_token(v, "<unk>", CP_TT_UNKNOWN, 0);
    vocab_token(v, "</s>", CP_TT_CONTROL, 0);
    vocab_token(v, "</", CP_TT_NORMAL, -1);
    vocab_token(v, "s>", CP_TT_NORMAL, -2);
    v->scores = true;
    t = vocab_open(v, &m);
    expect(t, "</s>", false, NULL, 0, IDS(258, 259));
    expect(t, "</s>", true, NULL, 0, IDS(257));
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

/* Phi-3's special tokens eat the white space that follows, except three. */
static void test_rstrip_by_model_name(void **state)
{
    (void)state;
    cp_meta *m;
    vocab *v = special_vocab();
    vocab_token(v, "<|endoftext|>", CP_TT_CONTROL, 0);
    vocab_str(v, "general.name", "My Phi-3 mini");
    cp_tokenizer *t = vocab_open(v, &m);
    expect(t, "<|a|> \n\tc <tool> d<|endoftext|> e", true, NULL, 0,
           IDS(A, 'c', ' ', TOOL, 'd', 262, ' ', 'e'));
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

/* ---- roles ---- */

static void expect_eogs(const cp_tokenizer *t, const int32_t *want, size_t n)
{
    size_t got_n;
    const int32_t *got = cp_tokenizer_eogs(t, &got_n);
    expect_same("end-of-generation ids", got, got_n, want, n);
    for (int32_t i = -1; i <= cp_tokenizer_size(t); i++) {
        bool in = false;
        for (size_t k = 0; k < n; k++)
            in = in || want[k] == i;
        assert_int_equal(cp_tokenizer_is_eog(t, i), in);
    }
}

static void test_end_of_generation(void **state)
{
    (void)state;
    cp_meta *m;
    vocab *v = special_vocab();                      /* 262 tokens */
    vocab_token(v, "<|im_end|>", CP_TT_NORMAL, 0);   /* 262: by spelling, whatever its type */
    vocab_token(v, "</s>", CP_TT_USER, 0);           /* 263: an HTML tag here */
    vocab_token(v, "<|fim_pad|>", CP_TT_USER, 0);    /* 264 */
    vocab_token(v, "<|fim_prefix|>", CP_TT_USER, 0); /* 265: control, but no end */
    vocab_token(v, "stop", CP_TT_NORMAL, 0);         /* 266: named by the file */
    vocab_token(v, "<|end|>", CP_TT_CONTROL, 0);     /* 267 */
    vocab_int(v, "tokenizer.ggml.eot_token_id", 266);
    vocab_int(v, "tokenizer.ggml.eos_token_id", A);
    cp_tokenizer *t = vocab_open(v, &m);
    expect_eogs(t, IDS(A, 262, 264, 266, 267));
    assert_int_equal(cp_tokenizer_eos(t), A);
    assert_int_equal(cp_tokenizer_bos(t), -1);
    assert_true(cp_tokenizer_is_special(t, 262) && cp_tokenizer_is_special(t, 265));
    assert_false(cp_tokenizer_is_special(t, 263) || cp_tokenizer_is_special(t, TOOL));
    expect(t, "<|im_end|></s>", true, NULL, 0, IDS(262, 263));
    expect(t, "</s>", false, NULL, 0, IDS(263));
    expect(t, "<|fim_prefix|>", true, NULL, 0, IDS(265));
    cp_tokenizer_close(t);
    cp_meta_free(m);

    /* harmony: <|end|> ends a message only, and the frame shows */
    vocab_token(v, "<|return|>", CP_TT_CONTROL, 0);  /* 268 */
    vocab_token(v, "<|call|>", CP_TT_CONTROL, 0);    /* 269 */
    vocab_token(v, "<|channel|>", CP_TT_CONTROL, 0); /* 270 */
    t = vocab_open(v, &m);
    expect_eogs(t, IDS(A, 262, 264, 266, 268, 269));
    assert_false(cp_tokenizer_is_special(t, 270));
    assert_true(cp_tokenizer_is_special(t, 268));
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

static void test_bos_and_eos_keys(void **state)
{
    (void)state;
    static const struct {
        const char *pre;
        int bos_key, eos_key; /* -1: absent */
        bool want_bos, want_eos;
    } T[] = {{"gpt-2", -1, -1, false, false}, {"llama-bpe", -1, -1, true, false},
             {"llama3", 0, 1, false, true},   {"qwen2", 1, 1, true, true},
             {"llama-v3", 1, 0, true, false}, {"smollm", -1, 1, false, true},
             {"tekken", -1, -1, true, false}, {"gemma4", 0, -1, true, false}};
    for (size_t i = 0; i < sizeof T / sizeof T[0]; i++) {
        vocab *v = vocab_new();
        vocab_str(v, "tokenizer.ggml.model", "gpt2");
        vocab_str(v, "tokenizer.ggml.pre", T[i].pre);
        vocab_int(v, "tokenizer.ggml.bos_token_id", 1);
        vocab_int(v, "tokenizer.ggml.eos_token_id", 2);
        if (T[i].bos_key >= 0)
            vocab_bool(v, "tokenizer.ggml.add_bos_token", T[i].bos_key);
        if (T[i].eos_key >= 0)
            vocab_bool(v, "tokenizer.ggml.add_eos_token", T[i].eos_key);
        vocab_bytes(v, false);
        cp_meta *m;
        cp_tokenizer *t = vocab_open(v, &m);
        assert_int_equal(cp_tokenizer_add_bos(t), T[i].want_bos);
        cp_ids ids = encode(t, "", 0, true);
        assert_int_equal(ids.n, T[i].want_bos + T[i].want_eos);
        if (T[i].want_bos)
            assert_int_equal(ids.id[0], 1);
        if (T[i].want_eos)
            assert_int_equal(ids.id[ids.n - 1], 2);
        cp_ids_fini(&ids);
        cp_tokenizer_close(t);
        cp_meta_free(m);
        vocab_free(v);
    }
}

/* A piece that is a token is taken whole under ignore_merges, and only there. */
static void test_ignore_merges(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        vocab *v = vocab_new();
        vocab_str(v, "tokenizer.ggml.model", "gpt2");
        vocab_str(v, "tokenizer.ggml.pre", whole ? "llama-bpe" : "gpt-2");
        vocab_bytes(v, false);
        vocab_token(v, "\xC4\xA0unmerged", CP_TT_NORMAL, 0);
        vocab_token(v, "control", CP_TT_CONTROL, 0);
        cp_meta *m;
        cp_tokenizer *t = vocab_open(v, &m);
        expect(t, "control", false, NULL, 0, IDS('c', 'o', 'n', 't', 'r', 'o', 'l'));
        cp_ids ids = encode(t, " unmerged", 9, false);
        assert_int_equal(ids.n, whole ? 1 : 9);
        cp_ids_fini(&ids);
        cp_tokenizer_close(t);
        cp_meta_free(m);
        vocab_free(v);
    }
}

/* Characters by rank: a run of line feeds that is a token is taken whole, whatever the rules say; a
 * character without token and bytes vanishes; BOS stands in front even where the file says no. */
static void test_characters_by_rank(void **state)
{
    (void)state;
    vocab *v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "gemma4");
    vocab_token(v, "<unk>", CP_TT_UNKNOWN, 0);
    vocab_token(v, "<bos>", CP_TT_CONTROL, 0);
    vocab_token(v, "a", CP_TT_NORMAL, 0);
    vocab_token(v, "b", CP_TT_NORMAL, 0);
    vocab_token(v, "\xE2\x96\x81", CP_TT_NORMAL, 0);
    vocab_token(v, "\xE2\x96\x81\x61", CP_TT_NORMAL, 0); /* 5 */
    vocab_token(v, "\n", CP_TT_NORMAL, 0);
    vocab_token(v, "\n\n", CP_TT_NORMAL, 0); /* 7 */
    vocab_merge(v, "\xE2\x96\x81 a");
    vocab_int(v, "tokenizer.ggml.bos_token_id", 1);
    vocab_int(v, "tokenizer.ggml.unknown_token_id", 0);
    vocab_bool(v, "tokenizer.ggml.add_bos_token", false);
    cp_meta *m;
    cp_tokenizer *t = vocab_open(v, &m);
    expect(t, " a\xE4\xB8\xAD\x62 b", true, NULL, 0, IDS(5, 3, 4, 3));
    expect(t, "\n\n", true, NULL, 0, IDS(7));
    expect(t, "a\n\n\n", true, NULL, 0, IDS(2, 6, 6, 6));
    cp_ids ids = encode(t, "", 0, true);
    expect_ids("BOS", &ids, IDS(1));
    cp_ids_fini(&ids);
    cp_buf out = {0};
    assert_int_equal(cp_tokenizer_decode(t, IDS(5, 3, 4), true, &out, NULL), CP_OK);
    assert_string_equal(out.p, " ab ");
    cp_buf_fini(&out);
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

/* ---- refusals ---- */

static void refuse(vocab *v, cp_code want, const char *words)
{
    cp_meta *m = vocab_meta(v);
    cp_err err = {0};
    cp_tokenizer *t = NULL;
    assert_int_equal(cp_tokenizer_open(&t, m, &err), want);
    assert_null(t);
    if (!strstr(err.msg, words))
        fail_msg("message '%s' lacks '%s'", err.msg, words);
    cp_meta_free(m);
    vocab_free(v);
}

static void test_refuses_what_is_not_built(void **state)
{
    (void)state;
    vocab *v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "bert");
    vocab_bytes(v, false);
    refuse(v, CP_UNSUPPORTED, "'bert' is not built; built: gpt2, llama, gemma4");
    v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "gpt2");
    vocab_str(v, "tokenizer.ggml.pre", "kimi-k2");
    vocab_bytes(v, false);
    refuse(v, CP_UNSUPPORTED, "'kimi-k2' is not built; built: gpt-2, mpt, olmo");
    v = vocab_new(); /* the list is whole */
    vocab_str(v, "tokenizer.ggml.model", "gpt2");
    vocab_str(v, "tokenizer.ggml.pre", "kimi-k2");
    vocab_bytes(v, false);
    refuse(v, CP_UNSUPPORTED, "deepseek-coder, gemma4");
    v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "gpt2");
    vocab_bytes(v, false);
    refuse(v, CP_UNSUPPORTED, "'default' is not built; built: gpt-2");
}

static vocab *good(bool spm)
{
    vocab *v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    if (!spm)
        vocab_str(v, "tokenizer.ggml.pre", "gpt-2");
    vocab_bytes(v, spm);
    v->scores = spm;
    return v;
}

/* Open metadata whose array `key` has been changed to elem, n, p. */
static void refuse_array(bool spm, const char *key, cp_meta_type elem, size_t n, const void *p,
                         const char *words)
{
    vocab *v = good(spm);
    cp_meta *all = vocab_meta(v), *m = cp_meta_new();
    for (size_t i = 0; i < cp_meta_count(all); i++) {
        cp_meta_kv kv = *cp_meta_at(all, i);
        if (kv.key.n == strlen(key) && memcmp(kv.key.p, key, kv.key.n) == 0) {
            kv.elem = elem;
            kv.count = n;
            kv.v.a = p;
        }
        assert_true(cp_meta_put(m, &kv));
    }
    cp_err err = {0};
    cp_tokenizer *t = NULL;
    assert_int_equal(cp_tokenizer_open(&t, m, &err), CP_CORRUPT);
    assert_null(t);
    if (!strstr(err.msg, words))
        fail_msg("message '%s' lacks '%s'", err.msg, words);
    cp_meta_free(all);
    cp_meta_free(m);
    vocab_free(v);
}

static void test_refuses_corrupt_metadata(void **state)
{
    (void)state;
    static const char *const IDS_OF[] = {"bos", "eos", "eot", "eom", "unknown", "fim_pad"};
    for (size_t i = 0; i < sizeof IDS_OF / sizeof IDS_OF[0]; i++) {
        char key[64];
        cp_snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", IDS_OF[i]);
        vocab *v = good(false);
        vocab_int(v, key, 256);
        refuse(v, CP_CORRUPT, "is 256, outside the vocabulary of 256");
        v = good(true);
        vocab_int(v, key, -2);
        refuse(v, CP_CORRUPT, "outside the vocabulary");
        v = good(false);
        vocab_str(v, key, "1");
        refuse(v, CP_CORRUPT, "is not an integer");
    }
    static int32_t types[256];
    static float scores[256];
    static const cp_str strings[256];
    refuse_array(false, "tokenizer.ggml.tokens", CP_META_I32, 256, types,
                 "not an array of strings");
    refuse_array(false, "tokenizer.ggml.tokens", CP_META_STRING, 0, strings, "has 0 tokens");
    refuse_array(false, "tokenizer.ggml.token_type", CP_META_I32, 255, types, "has 255 elements");
    refuse_array(false, "tokenizer.ggml.token_type", CP_META_STRING, 256, strings, "has type");
    types[9] = 7;
    refuse_array(false, "tokenizer.ggml.token_type", CP_META_I32, 256, types, "token 9 has type 7");
    refuse_array(false, "tokenizer.ggml.merges", CP_META_I32, 1, types, "not an array of strings");
    refuse_array(true, "tokenizer.ggml.scores", CP_META_F32, 100, scores, "has 100 elements");
    scores[5] = NAN;
    refuse_array(true, "tokenizer.ggml.scores", CP_META_F32, 256, scores,
                 "token 5 has no valid score");
    vocab *v = good(true);
    v->scores = false;
    refuse(v, CP_CORRUPT, "scores is missing");
    char *big = cp_xcalloc(1, CP_TOK_MAX_TEXT + 2);
    memset(big, 'x', CP_TOK_MAX_TEXT + 1);
    v = good(false);
    vocab_token(v, big, CP_TT_NORMAL, 0);
    refuse(v, CP_CORRUPT, "token 256 has 65537 bytes");
    free(big);
}

/* Odd but harmless: empty and repeated spellings, broken or impossible merges, an id that says
 * "none". */
static void test_tolerates_odd_vocabularies(void **state)
{
    (void)state;
    vocab *v = good(false);
    static const char *const MERGES[] = {"",    " ",    "a",      "a ",  " b",
                                         "a b", "a  b", "nope a", "a b", "b a"};
    for (size_t i = 0; i < sizeof MERGES / sizeof MERGES[0]; i++)
        vocab_merge(v, MERGES[i]);
    vocab_token(v, "", CP_TT_NORMAL, 0);
    vocab_token(v, "", CP_TT_CONTROL, 0);
    vocab_token(v, "ab", CP_TT_NORMAL, 0);
    vocab_token(v, "ab", CP_TT_NORMAL, 0);
    vocab_int(v, "tokenizer.ggml.bos_token_id", UINT32_MAX);
    cp_meta *m;
    cp_tokenizer *t = vocab_open(v, &m);
    expect(t, "ab", true, NULL, 0, IDS(258));
    assert_int_equal(cp_tokenizer_bos(t), -1);
    assert_int_equal(cp_tokenizer_find(t, "ab", 2), 258);
    assert_int_equal(cp_tokenizer_find(t, "", 0), -1);
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
    cp_ids ids = {0};
    cp_err err = {0};
    v = good(false);
    t = vocab_open(v, &m);
    assert_int_equal(
        cp_tokenizer_encode(t, "", CP_TOK_MAX_INPUT + 1, true, true, NULL, 0, &ids, &err),
        CP_TOO_LARGE);
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_is_strict),
        cmocka_unit_test(test_byte_spelling_is_a_bijection),
        cmocka_unit_test(test_nfc_vectors),
        cmocka_unit_test(test_nfc_of_hostile_text),
        cmocka_unit_test(test_pretok_vectors),
        cmocka_unit_test(test_pretok_work),
        cmocka_unit_test(test_detok_holds_back_partial_characters),
        cmocka_unit_test(test_detok_drops_the_first_space),
        cmocka_unit_test(test_reference_vectors),
        cmocka_unit_test(test_merging_equals_the_plain_way),
        cmocka_unit_test(test_a_run_of_one_character),
        cmocka_unit_test(test_invalid_utf8_round_trips),
        cmocka_unit_test(test_added_tokens_and_spans),
        cmocka_unit_test(test_user_defined_tokens_and_spans),
        cmocka_unit_test(test_text_never_merges_into_control),
        cmocka_unit_test(test_rstrip_by_model_name),
        cmocka_unit_test(test_end_of_generation),
        cmocka_unit_test(test_bos_and_eos_keys),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_characters_by_rank),
        cmocka_unit_test(test_refuses_what_is_not_built),
        cmocka_unit_test(test_refuses_corrupt_metadata),
        cmocka_unit_test(test_tolerates_odd_vocabularies),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
