/*
 * The inside of a cp_tokenizer, shared by the room's files. Built by cp_tokenizer_open() in one go
 * and never changed afterwards, so any thread may read it. Strings of the vocabulary point into the
 * metadata; what differs from them (bytes behind byte-level or SentencePiece spelling) lies in one
 * pool.
 */
#ifndef CP_TOKENIZER_INTERNAL_H
#define CP_TOKENIZER_INTERNAL_H

#include "tokenizer/pretok.h"
#include "tokenizer/tokenizer.h"

/* tokenizer.ggml.token_type */
enum {
    CP_TT_UNDEFINED = 0,
    CP_TT_NORMAL = 1,
    CP_TT_UNKNOWN = 2,
    CP_TT_CONTROL = 3,
    CP_TT_USER = 4,
    CP_TT_UNUSED = 5,
    CP_TT_BYTE = 6,
    CP_TT_LIMIT
};

/* What a token does, derived from its type and, for some, from its spelling (special.c). */
enum {
    CP_TF_HIDDEN = 1,  /* control or unknown: not shown in text */
    CP_TF_SPECIAL = 2, /* matched in text when special tokens are parsed */
    CP_TF_ADDED = 4,   /* matched in text always, a marker not in untrusted text */
    CP_TF_NO_TEXT = 8, /* never the product of merging ordinary text */
    CP_TF_LSTRIP = 16, /* a match eats white space on its left */
    CP_TF_RSTRIP = 32, /* a match eats white space on its right */
    CP_TF_EOG = 64,
    CP_TF_MARKER = 128 /* an added token that does not look like text */
};

/* Limits on what a file may declare. */
#define CP_TOK_MAX_TOKENS (16 << 20)
#define CP_TOK_MAX_TEXT   (64 << 10) /* bytes of one token */
#define CP_TOK_MAX_INPUT  ((size_t)1 << 30)

/* A merge rule: left + right become id, lower ranks first. An empty slot has id -1. */
typedef struct cp_tok_pair {
    int32_t left, right, id;
    uint32_t rank;
} cp_tok_pair;

/* A slot of the text table: the upper half of the hash and id + 1; an empty slot has v == 0. */
typedef struct cp_tok_slot {
    uint32_t tag, v;
} cp_tok_slot;

/* An edge of the trie of special tokens. An empty slot has to == 0 (the root has no parent). */
typedef struct cp_tok_edge {
    uint32_t from, byte, to;
} cp_tok_edge;

struct cp_tokenizer {
    int32_t n;          /* tokens */
    bool spm;           /* SentencePiece BPE; otherwise byte-level BPE */
    const cp_str *text; /* [n], spelled as in the file; the metadata's */
    cp_str *piece;      /* [n], the bytes behind it */
    char *pool;
    uint8_t *type, *flags; /* [n] */
    float *score;          /* [n], SentencePiece only */
    size_t max_text;       /* longest text in bytes */

    cp_tok_slot *slot; /* text -> id, open addressing */
    uint32_t slot_mask;
    int32_t byte_id[256]; /* -1: the vocabulary has no token for the byte */

    const cp_pretok *pre; /* byte-level only */
    cp_tok_pair *pair;    /* (left, right) -> merge, open addressing */
    uint32_t pair_mask;

    cp_tok_edge *edge; /* trie of special tokens: (node, byte) -> node, open addressing */
    uint32_t edge_mask, n_nodes;
    int32_t *node_id;        /* [n_nodes], -1: no token ends here */
    bool special_first[256]; /* bytes that begin a special token */

    int32_t bos, eos, unk; /* -1: none */
    bool add_bos, add_eos, add_space_prefix;
    int32_t *eog;
    size_t n_eog;
};

/* 64-bit hash of a byte string and of a pair of numbers. */
uint64_t cp_tok_hash(const void *p, size_t n);
uint64_t cp_tok_hash2(uint32_t a, uint32_t b);
/* The printable code point that stands for a byte in byte-level vocabularies, and back (-1: none).
 */
uint32_t cp_tok_byte_to_cp(uint8_t b);
int cp_tok_cp_to_byte(uint32_t cp);

/* special.c: end-of-generation set, visibility and strip flags; then the trie over what matches in
 * text. */
cp_code cp_tok_special_flags(cp_tokenizer *t, const cp_meta *meta, cp_err *err);
cp_code cp_tok_special_trie(cp_tokenizer *t, cp_err *err);

/* A special token found in text[begin, end). */
typedef struct cp_tok_match {
    size_t begin, end;
    int32_t id;
} cp_tok_match;

/* What a search may match, and where it stands in the spans. */
typedef struct cp_tok_finder {
    bool parse_special;
    const cp_span *span; /* untrusted, ascending */
    size_t n_span, at;   /* spans before `at` end before the position searched */
} cp_tok_finder;

/* The first special token at or after `from`, the longest at its place. False: none. */
bool cp_tok_special_find(const cp_tokenizer *t, cp_tok_finder *f, const char *text, size_t n,
                         size_t from, cp_tok_match *m);

/* Scratch memory of one encode call; zero-initialised, freed by cp_tok_work_fini. */
typedef struct cp_tok_work {
    struct cp_tok_sym *sym;
    size_t n_sym, cap_sym;
    struct cp_tok_cand *heap;
    size_t n_heap, cap_heap;
    cp_buf text; /* escaped or normalized fragment */
    cp_account *account;
} cp_tok_work;
void cp_tok_work_fini(cp_tok_work *w);

/* merge.c: append the ids of one fragment of ordinary text. False: out of memory. */
bool cp_tok_bpe(const cp_tokenizer *t, cp_tok_work *w, const char *s, size_t n, cp_ids *out);
bool cp_tok_spm(const cp_tokenizer *t, cp_tok_work *w, const char *s, size_t n, bool prefix,
                cp_ids *out);

#endif
