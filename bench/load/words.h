/*
 * Text for prompts: common English words, each one token of most vocabularies, so that lengths in
 * words are nearly lengths in tokens before anybody has counted. Letters and blanks only: the text
 * needs no escaping in JSON. Pure functions; any thread.
 */
#ifndef CP_BENCH_LOAD_WORDS_H
#define CP_BENCH_LOAD_WORDS_H

#include "base/mem.h"
#include "bench/load/random.h"

/* n words, a blank in front of each but the first of an empty buffer. */
void cp_load_words(cp_buf *out, cp_load_rng *r, uint32_t n);

/* Append text[n] as it stands between the quotes of a JSON string. */
void cp_load_escape(cp_buf *out, const char *text, size_t n);

#endif
