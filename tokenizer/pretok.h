/*
 * Pre-tokenizers of byte-level BPE: one row a value of `tokenizer.ggml.pre`, a hand-written scanner
 * a family. A scanner cuts text into pieces exactly as the family's regular expression does; merges
 * never cross a piece. Pure, any thread.
 */
#ifndef CP_TOKENIZER_PRETOK_H
#define CP_TOKENIZER_PRETOK_H

#include "base/meta.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The end of the piece that begins at i, in (i, n]. */
typedef size_t cp_pretok_scan(const uint8_t *s, size_t i, size_t n);

typedef struct cp_pretok {
    const char *name; /* value of tokenizer.ggml.pre */
    cp_pretok_scan *scan;
    bool split_numbers; /* every \p{N} is a piece of its own before the scanner runs */
    bool ignore_merges; /* a piece that is a vocabulary entry is taken whole */
    bool add_bos;       /* default of tokenizer.ggml.add_bos_token */
    bool nfc;           /* the model's own tokenizer normalizes to NFC first */
} cp_pretok;

/* The row of a name, or NULL when it is not built. */
const cp_pretok *cp_pretok_find(cp_str name);
/* "gpt-2, smollm, ...": what is built, for messages. */
void cp_pretok_list(char *dst, size_t cap);

/*
 * The end of the piece of s[0, n) that begins at i. *stop carries the scanner's horizon from call
 * to call: 0 at first, i ascending.
 */
size_t cp_pretok_next(const cp_pretok *p, const uint8_t *s, size_t i, size_t n, size_t *stop);

#endif
