/*
 * The parts below a vocabulary: UTF-8, NFC, the pre-tokenizers' piece borders, the incremental
 * detokenizer.
 */
#include "tests.h"

#include "base/utf8.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"
#include "vocab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Overlong forms, surrogates, values above U+10FFFF and cut sequences are invalid, one byte each.
 */
void test_utf8_is_strict(void **state)
{
    (void)state;
    static const char *const BAD[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x80\x80",
                                      "\xED\xA0\x80",
                                      "\xF0\x80\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xF4\x90\x80\x80",
                                      "\xE2\x82",
                                      "\xF0\x9F\x98",
                                      "\xC3",
                                      "\xFF"};
    uint32_t cp;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        const uint8_t *s = (const uint8_t *)BAD[i];
        assert_int_equal(cp_uni_decode(s, strlen(BAD[i]), &cp), 1);
        assert_int_equal(cp, CP_UNI_INVALID);
        assert_int_equal(cp_uni_class(cp), 0);
    }
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char b[4];
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        size_t n = cp_utf8_encode(c, b);
        assert_int_equal(cp_uni_decode((const uint8_t *)b, n, &cp), n);
        assert_int_equal(cp, c);
    }
}

void test_byte_spelling_is_a_bijection(void **state)
{
    (void)state;
    for (int b = 0; b < 256; b++)
        assert_int_equal(cp_tok_cp_to_byte(cp_tok_byte_to_cp((uint8_t)b)), b);
    int known = 0;
    for (uint32_t cp = 0; cp < 1024; cp++)
        known += cp_tok_cp_to_byte(cp) >= 0;
    assert_int_equal(known, 256);
    assert_int_equal(cp_tok_byte_to_cp(' '), 0x120);
    assert_int_equal(cp_tok_byte_to_cp(173), 0x143);
}

void test_nfc_vectors(void **state)
{
    (void)state;
    char *text = vector_read("nfc"), *save = NULL;
    size_t n = 0;
    assert_string_equal(cp_uni_version(), "15.1.0");
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *mid = strstr(line, " : ");
        if (line[0] == '#')
            continue;
        assert_non_null(mid);
        *mid = '\0';
        char *in = line + 4, *want = mid + 3;
        size_t n_in = vector_unescape(in), n_want = vector_unescape(want);
        cp_buf out = {0};
        assert_true(cp_uni_nfc((const uint8_t *)in, n_in, &out));
        assert_int_equal(out.n, n_want);
        assert_memory_equal(out.p, want, n_want);
        if (cp_uni_is_nfc((const uint8_t *)in, n_in)) {
            assert_int_equal(n_in, n_want);
            assert_memory_equal(in, want, n_in);
        }
        cp_buf_fini(&out);
        n++;
    }
    assert_true(n > 400);
    free(text);
}

/* Invalid bytes pass and separate; a long run of marks is ordered as a short one is. */
void test_nfc_of_hostile_text(void **state)
{
    (void)state;
    static const char BAD[] = "e\xFF\xCC\x81 e\xCC\x81\xE2\x82";
    static const char GOOD[] = "e\xFF\xCC\x81 \xC3\xA9\xE2\x82";
    cp_buf out = {0}, in = {0};
    assert_true(cp_uni_nfc((const uint8_t *)BAD, sizeof BAD - 1, &out));
    assert_int_equal(out.n, sizeof GOOD - 1);
    assert_memory_equal(out.p, GOOD, out.n);
    const size_t pairs = 200000;
    cp_buf_adds(&in, "q");
    for (size_t i = 0; i < pairs; i++)
        cp_buf_adds(&in, "\xCC\x81\xCC\xA3"); /* U+0301 (230), U+0323 (220) */
    cp_buf_clear(&out);
    assert_true(cp_uni_nfc((const uint8_t *)in.p, in.n, &out));
    assert_int_equal(out.n, in.n);
    for (size_t i = 0; i < 2 * pairs; i++)
        assert_memory_equal(out.p + 1 + 2 * i, i < pairs ? "\xCC\xA3" : "\xCC\x81", 2);
    cp_buf_fini(&in);
    cp_buf_fini(&out);
}

/* The pieces of s by a row, against lengths in a line. */
static void expect_pieces(const cp_pretok *p, const char *s, size_t len, const char *want)
{
    cp_pretok_at at = {0};
    for (size_t i = 0; i < len;) {
        size_t end = cp_pretok_next(p, &at, (const uint8_t *)s, i, len);
        char *after;
        if (strtol(want, &after, 10) != (long)(end - i))
            fail_msg("%s: piece of %zu bytes at %zu of %s, expected %s", p->name, end - i, i, s,
                     want);
        want = after;
        i = end;
    }
    assert_true(*want == '\0');
}

/* Piece borders of every family, against a regular-expression engine; a row whose steps no vector
 * has walked is a row without a test. */
void test_pretok_vectors(void **state)
{
    (void)state;
    char *text = vector_read("pretok"), *save = NULL, *s = NULL;
    size_t len = 0, n = 0, n_walked = 0;
    cp_pretok_step *const *walked[64];
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "text ", 5) == 0) {
            s = line + 5;
            len = vector_unescape(s);
            continue;
        }
        if (line[0] == '#')
            continue;
        char *name = line + 4, *sp = strchr(name, ' ');
        assert_true(s && sp && strncmp(line, "pre ", 4) == 0);
        *sp = '\0';
        const cp_pretok *p = cp_pretok_find((cp_str){name, strlen(name)});
        assert_non_null(p);
        expect_pieces(p, s, len, sp + 1);
        n++;
        if (n_walked == 0 || walked[n_walked - 1] != p->step) {
            walked[n_walked] = p->step;
            n_walked += n_walked < 63;
        }
    }
    assert_true(n > 1000);
    const cp_pretok *p;
    for (size_t i = 0; (p = cp_pretok_row(i)); i++) {
        bool seen = false;
        for (size_t k = 0; k < n_walked; k++)
            seen = seen || walked[k] == p->step;
        if (!seen)
            fail_msg("no vector in pretok.txt walks the steps of '%s'", p->name);
    }
    free(text);
}

static void push_all(cp_detok *d, const int32_t *id, size_t n, cp_buf *out)
{
    for (size_t i = 0; i < n; i++)
        assert_true(cp_detok_push(d, id[i], out));
}

/* Every byte alone: characters come out whole, ill-formed sequences as U+FFFD for each maximal
 * part. */
void test_detok_holds_back_partial_characters(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } T[] = {
        {"plain", "plain"},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
        {"a\xFFz", "a\xEF\xBF\xBDz"},
        {"\xE2\x82z", "\xEF\xBF\xBDz"},
        {"\xE2\x82\xE2\x82\xAC", "\xEF\xBF\xBD\xE2\x82\xAC"},
        {"\xF0\x9F\x98", "\xEF\xBF\xBD"},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xE0\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
    };
    vocab *v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "gpt2");
    vocab_str(v, "tokenizer.ggml.pre", "gpt-2");
    vocab_bytes(v, false);
    cp_meta *m;
    cp_tokenizer *t = vocab_open(v, &m);
    for (size_t i = 0; i < sizeof T / sizeof T[0]; i++) {
        cp_buf out = {0};
        cp_detok d;
        cp_detok_init(&d, t, true, true);
        for (const char *p = T[i].in; *p; p++) {
            uint8_t b = (uint8_t)*p;
            size_t before = out.n;
            push_all(&d, &(int32_t){b}, 1, &out);
            assert_true(d.n_held <= 3);
            uint32_t cp;
            for (size_t k = before; k < out.n;) {
                k += cp_uni_decode((const uint8_t *)out.p + k, out.n - k, &cp);
                assert_true(cp != CP_UNI_INVALID);
            }
        }
        assert_true(cp_detok_finish(&d, &out));
        assert_int_equal(d.n_held, 0);
        assert_string_equal(out.p, T[i].out);
        cp_buf_fini(&out);
    }
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}

/* SentencePiece: the first space of the text goes, and only there; hidden tokens do not count as
 * text. */
void test_detok_drops_the_first_space(void **state)
{
    (void)state;
    vocab *v = vocab_new();
    vocab_str(v, "tokenizer.ggml.model", "llama");
    vocab_token(v, "<unk>", CP_TT_UNKNOWN, 0);
    vocab_token(v, "<s>", CP_TT_CONTROL, 0);
    vocab_token(v, "</s>", CP_TT_CONTROL, 0);
    vocab_token(v, "\xE2\x96\x81hi", CP_TT_NORMAL, 0);
    vocab_bytes(v, true);
    v->scores = true;
    cp_meta *m;
    cp_tokenizer *t = vocab_open(v, &m);
    static const int32_t IDS[] = {1, 3, 3, 2};
    cp_buf out = {0};
    cp_detok d;
    cp_detok_init(&d, t, true, true);
    push_all(&d, IDS, 4, &out);
    assert_string_equal(out.p, "hi hi");
    cp_buf_clear(&out);
    cp_detok_init(&d, t, false, true); /* goes on after a prompt */
    push_all(&d, IDS, 4, &out);
    assert_string_equal(out.p, " hi hi");
    cp_buf_clear(&out);
    assert_int_equal(cp_tokenizer_decode(t, IDS, 4, true, &out, NULL), CP_OK);
    assert_string_equal(out.p, "hi hi");
    cp_buf_clear(&out);
    assert_int_equal(cp_tokenizer_decode(t, IDS, 4, false, &out, NULL), CP_OK);
    assert_string_equal(out.p, "<s> hi hi</s>");
    cp_err err = {0};
    assert_int_equal(cp_tokenizer_decode(t, &(int32_t){9999}, 1, true, &out, &err),
                     CP_INVALID_VALUE);
    assert_int_equal(cp_tokenizer_piece(t, -1).n, 0);
    assert_int_equal(cp_tokenizer_piece(t, 4 + 0x41).p[0], 0x41);
    cp_buf_fini(&out);
    cp_tokenizer_close(t);
    cp_meta_free(m);
    vocab_free(v);
}
