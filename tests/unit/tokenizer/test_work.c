/*
 * How often pre-tokenizers look at a character of hostile texts. The scanners are compiled once
 * more here, with their two ways of reading a character counted.
 */
#include "tests.h"

#include "base/mem.h"
#include "tokenizer/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t n_looks;

static inline unsigned counted_at(const uint8_t *s, size_t i, size_t n, size_t *len)
{
    n_looks++;
    return cp_uni_at(s, i, n, len);
}

static inline size_t counted_decode(const uint8_t *s, size_t n, uint32_t *cp)
{
    n_looks++;
    return cp_uni_decode(s, n, cp);
}

/* clang-format off */
#define cp_uni_at         counted_at
#define cp_uni_decode     counted_decode
#define cp_scan_gpt2      counted_scan_gpt2
#define cp_scan_llama3    counted_scan_llama3
#define cp_scan_qwen2     counted_scan_qwen2
#define cp_scan_qwen35    counted_scan_qwen35
#define cp_scan_minicpm5  counted_scan_minicpm5
#define cp_scan_seed_coder counted_scan_seed_coder
#define cp_scan_o200k     counted_scan_o200k
#define cp_scan_tekken    counted_scan_tekken
#define cp_scan_deepseek3 counted_scan_deepseek3
#define cp_split_number   counted_split_number
#define cp_split_numbers3 counted_split_numbers3
#define cp_split_numbers  counted_split_numbers
#define cp_split_digits3  counted_split_digits3
#define cp_split_newline  counted_split_newline
#define cp_split_lines    counted_split_lines
#define cp_split_signs    counted_split_signs
#define cp_split_letters  counted_split_letters
#define cp_split_puncts   counted_split_puncts
#define cp_split_cjk      counted_split_cjk
#define cp_split_cjk1     counted_split_cjk1
#define cp_split_cased1   counted_split_cased1
#define cp_split_puncts1  counted_split_puncts1
#define cp_split_tail     counted_split_tail
#define cp_pretok_row     counted_pretok_row
#define cp_pretok_find    counted_pretok_find
#define cp_pretok_list    counted_pretok_list
#define cp_pretok_next    counted_pretok_next
/* clang-format on */

#include "tokenizer/pretok.c"
#include "tokenizer/scan.c"
#undef INLINE
#include "tokenizer/split.c"

/* Looks at s[0, n) by a row, for each character. */
static void expect_few_looks(const cp_pretok *p, const char *s, size_t n, const char *what)
{
    enum { PER_STEP = 6 };
    cp_pretok_at at = {0};
    uint64_t steps = 0;
    n_looks = 0;
    for (size_t k = 0; p->step[k]; k++)
        steps++;
    for (size_t i = 0; i < n;)
        i = cp_pretok_next(p, &at, (const uint8_t *)s, i, n);
    if (n_looks > PER_STEP * steps * n)
        fail_msg("%s: %llu looks at %zu bytes of %s", p->name, (unsigned long long)n_looks, n,
                 what);
}

static void each_row(const char *s, size_t n, const char *what)
{
    const cp_pretok *p, *last = NULL;
    for (size_t i = 0; (p = cp_pretok_row(i)); last = p, i++)
        if (!last || p->step != last->step)
            expect_few_looks(p, s, n, what);
}

/* A mebibyte of one letter, of spaces and of combining marks, and less of what makes alternatives
 * fail late, alone and before a long run of capitals: each row looks at a byte a bounded number of
 * times. */
void test_pretok_work(void **state)
{
    (void)state;
    enum { LONG = 3 }; /* of RUN */
    static const char *const RUN[] = {"e",
                                      " ",
                                      "\xCC\x81",
                                      "E",
                                      "\n",
                                      "\t ",
                                      "7",
                                      "'",
                                      "!",
                                      "\xE6\x96\x87",
                                      "\xE2\x80\x8B",
                                      "\xE6\x96\x87\x41\x42",
                                      "\xCC\x81\x41",
                                      " \xCC\x81",
                                      "12 ",
                                      "\xE2\x80\x8B!",
                                      "\xFF",
                                      " \n x",
                                      "\xC2\xA0\xC2\xA0z"};
    char *text = cp_xmalloc(1u << 20);
    for (size_t c = 0; c < sizeof RUN / sizeof RUN[0]; c++) {
        size_t len = strlen(RUN[c]), n = c < LONG ? 1u << 20 : 1u << 15;
        for (size_t i = 0; i < n; i++)
            text[i] = RUN[c][i % len];
        each_row(text, n, RUN[c]);
        memset(text + n / 2 / len * len, 'A', n - n / 2 / len * len);
        each_row(text, n, RUN[c]);
    }
    free(text);
}
