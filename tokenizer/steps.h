/*
 * The steps that pre-tokenizer rows are made of (pretok.c): scan.c has those that cover a text with
 * words, numbers, signs and white space, split.c those that cut runs of one set of characters out
 * of it. All are pure and look at every byte of a text a bounded number of times.
 */
#ifndef CP_TOKENIZER_STEPS_H
#define CP_TOKENIZER_STEPS_H

#include <stddef.h>
#include <stdint.h>

/* The end of the piece of s[0, n) that begins at i, in (i, n]; i is the begin of a piece. */
typedef size_t cp_pretok_step(const uint8_t *s, size_t i, size_t n);

/* scan.c; the regular expressions stand there */
cp_pretok_step cp_scan_gpt2, cp_scan_llama3, cp_scan_qwen2, cp_scan_qwen35, cp_scan_minicpm5,
    cp_scan_seed_coder, cp_scan_o200k, cp_scan_tekken, cp_scan_deepseek3;

/* split.c: each match is a piece, and so is what lies between two */
cp_pretok_step cp_split_number;   /* \p{N} */
cp_pretok_step cp_split_numbers3; /* \p{N}{1,3} */
cp_pretok_step cp_split_numbers;  /* \p{N}+ */
cp_pretok_step cp_split_digits3;  /* [0-9][0-9][0-9] */
cp_pretok_step cp_split_newline;  /* [\r\n] */
cp_pretok_step cp_split_lines;    /* [^\n]+|[\n]+ */
cp_pretok_step cp_split_signs;    /* [\p{P}\$\+<=>\^~\|`]+ */
cp_pretok_step cp_split_letters;  /* \s?\p{L}+ */
cp_pretok_step cp_split_puncts;   /* \s?\p{P}+ */
cp_pretok_step cp_split_cjk;      /* the ranges of DeepSeek V3 */
cp_pretok_step cp_split_cjk1;     /* the ranges of DeepSeek's first models */
cp_pretok_step cp_split_cased1;   /* their letters with case, an optional space in front */
cp_pretok_step cp_split_puncts1;  /* their punctuation, an optional space in front */
cp_pretok_step cp_split_tail;     /* \s+$ */

#endif
