/*
 * Vocabularies for tests: a growable list of metadata that becomes a cp_meta, and the vector files'
 * reader. A vocab owns all strings it was given; nothing here is fast or thread-safe.
 */
#ifndef TEST_TOKENIZER_VOCAB_H
#define TEST_TOKENIZER_VOCAB_H

#include "tokenizer/tokenizer.h"

#define MAX_TOKENS 2048

typedef struct vocab {
    cp_str token[MAX_TOKENS], merge[MAX_TOKENS];
    int32_t type[MAX_TOKENS];
    float score[MAX_TOKENS];
    size_t n, n_merges;
    bool scores; /* put the scores array */
    cp_meta_kv extra[32];
    size_t n_extra;
    char *mem[4 * MAX_TOKENS]; /* everything allocated */
    size_t n_mem;
} vocab;

/* One line of a vector file: its word, then fields (unescaped; NULL-terminated list). */
typedef struct vector_case {
    bool special;
    cp_str text;
    int32_t *id;
    size_t n;
} vector_case;

vocab *vocab_new(void);
void vocab_free(vocab *v);
cp_str vocab_own(vocab *v, const char *p, size_t n);
void vocab_token(vocab *v, const char *text, int type, float score);
void vocab_merge(vocab *v, const char *rule);
void vocab_str(vocab *v, const char *key, const char *s);
void vocab_int(vocab *v, const char *key, int64_t x);
void vocab_bool(vocab *v, const char *key, bool x);
/* 256 byte tokens as the family spells them ("gpt2" or "llama"). */
void vocab_bytes(vocab *v, bool spm);
/* The metadata; arrays live in the vocab. Free with cp_meta_free before vocab_free. */
cp_meta *vocab_meta(vocab *v);
/* Open; fails the test on error. */
cp_tokenizer *vocab_open(vocab *v, cp_meta **meta);

/* Undo the vector files' escapes in place; returns the length. */
size_t vector_unescape(char *s);
/* Read vectors/NAME.txt into v and *cases (freed by free() each .id, then the list; texts are v's).
 */
void vector_load(vocab *v, const char *name, vector_case **cases, size_t *n);
/* The whole of vectors/NAME.txt, NUL-terminated; free(). */
char *vector_read(const char *name);

#endif
