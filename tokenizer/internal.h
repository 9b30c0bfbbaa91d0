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

#include <stdatomic.h>

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

/* Strings to ids, open addressing. `key` is the string itself up to 8 bytes, else a hash. */
typedef struct cp_tok_slot {
    uint64_t key;
    uint32_t len;
    int32_t next_id; /* id + 1; 0: free */
} cp_tok_slot;

/* Bits of what is in a hash table, by hash: most look-ups find nothing, and a clear bit says so
 * without a look at the table, which is larger than a processor's caches. */
typedef struct cp_tok_filter {
    uint64_t *bit;
    uint32_t mask;
} cp_tok_filter;

typedef struct cp_tok_words {
    cp_tok_slot *slot;
    uint32_t mask;
    cp_tok_filter filter;
    const cp_str *str; /* [id]; not its own */
    size_t longest;    /* bytes */
} cp_tok_words;

/* Pairs of neighbours inside tokens: characters (hashed, so a bit may be set for nothing), and
 * bytes at the border of characters that a token cuts. */
typedef struct cp_tok_seams {
    uint64_t *chars, *bytes;
} cp_tok_seams;

/* An edge of the trie of special tokens. An empty slot has to == 0 (the root has no parent). */
typedef struct cp_tok_edge {
    uint32_t from, byte, to;
} cp_tok_edge;

/* Whether merging a token's own spelling gives the token, found when it is first asked for; every
 * thread that finds it finds the same. */
enum { CP_WHOLE_UNKNOWN, CP_WHOLE_YES, CP_WHOLE_NO };

struct cp_tokenizer {
    int32_t n;          /* tokens */
    bool spm;           /* merges by score (SentencePiece BPE); otherwise by the list of merges */
    bool chars;         /* merges begin with characters, spaces as U+2581; otherwise with bytes */
    const cp_str *text; /* [n], spelled as in the file; the metadata's */
    cp_str *piece;      /* [n], the bytes behind it */
    char *pool;
    uint8_t *type, *flags; /* [n] */
    float *score;          /* [n], spm only */

    cp_tok_words by_text, by_piece; /* by_piece: bytes only, what merging may make */
    const cp_tok_words *words;      /* the one to look pieces of text up in */
    _Atomic uint8_t *whole;         /* [n], CP_WHOLE_* */
    cp_tok_seams seams;
    int32_t byte_id[256];  /* -1: the vocabulary has no token for the byte */
    int32_t ascii_id[128]; /* chars only: of the character, as byte_id */

    const cp_pretok *pre; /* NULL: none */
    cp_tok_pair *pair;    /* (left, right) -> merge, open addressing; not spm */
    uint32_t pair_mask;
    cp_tok_filter pair_filter;

    cp_tok_edge *edge; /* trie of special tokens: (node, byte) -> node, open addressing */
    uint32_t edge_mask, n_nodes;
    int32_t *node_id;        /* [n_nodes], -1: no token ends here */
    bool special_first[256]; /* bytes that begin a special token */

    int32_t bos, eos, unk; /* -1: none */
    bool add_bos, add_eos, add_space_prefix;
    int32_t *eog;
    size_t n_eog;
};

/* 64-bit hash of a pair of numbers. */
static inline uint64_t cp_tok_hash2(uint32_t a, uint32_t b)
{
    uint64_t h = ((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

/* words.c */
/* Room for n entries; false: out of memory. */
bool cp_tok_filter_init(cp_tok_filter *f, size_t n);
static inline void cp_tok_filter_add(cp_tok_filter *f, uint64_t hash)
{
    uint32_t i = (uint32_t)(hash >> 38) & f->mask;
    f->bit[i / 64] |= (uint64_t)1 << i % 64;
}
static inline bool cp_tok_filter_has(const cp_tok_filter *f, uint64_t hash)
{
    uint32_t i = (uint32_t)(hash >> 38) & f->mask;
    return f->bit[i / 64] >> i % 64 & 1;
}
/* A table for n strings; then those that are in it, of equal ones the first counts. False: out of
 * memory. */
bool cp_tok_words_init(cp_tok_words *w, size_t n, const cp_str *str);
void cp_tok_words_fini(cp_tok_words *w);
void cp_tok_words_add(cp_tok_words *w, int32_t id);
/* The id of s, or -1. */
int32_t cp_tok_words_find(const cp_tok_words *w, const void *s, size_t n);
/* Seams: add the spelling of each token that merging may make; then the next place behind i that no
 * token lies across, or n. Borders between two ASCII characters never count as one. */
bool cp_tok_seams_init(cp_tok_seams *m);
void cp_tok_seams_add(cp_tok_seams *m, const void *text, size_t n);
size_t cp_tok_seams_next(const cp_tok_seams *m, const uint8_t *s, size_t i, size_t n);

/* tokenizer.c */
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
    cp_buf text;    /* escaped or normalized fragment */
    uint64_t looks; /* pairs looked up, for tests that count work */
    cp_account *account;
} cp_tok_work;
void cp_tok_work_fini(cp_tok_work *w);

/* merge.c: append what merging makes of s[0, n), n > 0. False: out of memory. */
bool cp_tok_merge(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, size_t n, cp_ids *out);
/* encode.c: append the ids of a fragment of ordinary text; `prefix`: with a space in front. */
bool cp_tok_fragment(const cp_tokenizer *t, cp_tok_work *w, const char *s, size_t n, bool prefix,
                     cp_ids *out);

#endif
