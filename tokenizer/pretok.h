/*
 * Pre-tokenizers of BPE: one row a value of `tokenizer.ggml.pre`. A row is a list of steps; each
 * cuts the pieces that the one before it left, exactly as the model's regular expressions do when
 * they are applied in that order. Merges never cross a piece. Pure, any thread.
 */
#ifndef CP_TOKENIZER_PRETOK_H
#define CP_TOKENIZER_PRETOK_H

#include "base/meta.h"
#include "tokenizer/steps.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CP_PRETOK_STEPS 6

/* Whether BOS goes in front of a text: CP_BOS_KEY as tokenizer.ggml.add_bos_token says, by default
 * off; CP_BOS_ON the same with default on; CP_BOS_FORCED whatever it says. */
enum { CP_BOS_KEY, CP_BOS_ON, CP_BOS_FORCED };

typedef struct cp_pretok {
    const char *name;            /* value of tokenizer.ggml.pre */
    cp_pretok_step *const *step; /* at most CP_PRETOK_STEPS, NULL behind the last */
    bool ignore_merges;          /* a piece that is a vocabulary entry is taken whole */
    bool nfc;                    /* the model's own tokenizer normalizes to NFC first */
    bool chars;                  /* text as it is, spaces as U+2581: no byte-level spelling */
    uint8_t bos;
} cp_pretok;

/* Where each step's current piece ends; zero-initialised at the begin of a text. */
typedef struct cp_pretok_at {
    size_t stop[CP_PRETOK_STEPS];
} cp_pretok_at;

/* The row of a name, or NULL when it is not built. */
const cp_pretok *cp_pretok_find(cp_str name);
/* Row i, or NULL behind the last one. */
const cp_pretok *cp_pretok_row(size_t i);
/* "gpt-2, smollm, ...": what is built, for messages. */
void cp_pretok_list(char *dst, size_t cap);

/* The end of the piece of s[0, n) that begins at i, for i from 0 on and then each end in turn. */
size_t cp_pretok_next(const cp_pretok *p, cp_pretok_at *at, const uint8_t *s, size_t i, size_t n);

#endif
