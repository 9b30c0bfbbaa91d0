/*
 * tokenizer: text to token ids and back, from a model's metadata.
 *
 * A cp_tokenizer is built once per model and answers the same ever after: any thread may use it. A
 * cp_detok (incremental detokenizer) is a small value owned by one stream. It hides the families
 * (byte-level BPE, SentencePiece BPE, BPE over characters), the pre-tokenizer scanners, the Unicode
 * tables and the added-token automaton. Worst case is linear (or n log n) in the text.
 */
#ifndef CP_TOKENIZER_TOKENIZER_H
#define CP_TOKENIZER_TOKENIZER_H

#include "base/code.h"
#include "base/mem.h"
#include "base/meta.h"

typedef struct cp_tokenizer cp_tokenizer;

/* meta must outlive the tokenizer. CP_UNSUPPORTED names the model or `pre` that is not built and
 * lists what is; CP_CORRUPT for inconsistent tables. */
cp_code cp_tokenizer_open(cp_tokenizer **out, const cp_meta *meta, cp_err *err);
void cp_tokenizer_close(cp_tokenizer *t);

int32_t cp_tokenizer_size(const cp_tokenizer *t); /* vocabulary size; ids are [0, size) */
int32_t cp_tokenizer_bos(const cp_tokenizer *t);  /* -1: none */
int32_t cp_tokenizer_eos(const cp_tokenizer *t);  /* -1: none */
bool cp_tokenizer_add_bos(const cp_tokenizer *t); /* whether add_special puts BOS in front */
bool cp_tokenizer_is_eog(const cp_tokenizer *t,
                         int32_t id); /* eos, eot, eom and their kin end a generation */
/* All end-of-generation ids; n receives the count. Owned by the tokenizer. */
const int32_t *cp_tokenizer_eogs(const cp_tokenizer *t, size_t *n);
bool cp_tokenizer_is_special(const cp_tokenizer *t,
                             int32_t id); /* control or unknown: not shown in text */
/* The bytes that id stands for in the middle of a text (byte tokens are one byte; specials are
 * their spelling). */
cp_str cp_tokenizer_piece(const cp_tokenizer *t, int32_t id);
/* The id whose vocabulary entry spells exactly s, or -1. */
int32_t cp_tokenizer_find(const cp_tokenizer *t, const char *s, size_t n);

/* A byte range of the text that came from the request: a control token, or a user-defined one that
 * does not look like text (<think>), is never parsed where its match touches the range. */
typedef struct cp_span {
    size_t begin, end;
} cp_span;

typedef struct cp_ids {
    int32_t *id;
    size_t n, cap;
    cp_account *account; /* pays for the ids and for the work of encoding; NULL: nobody counts */
} cp_ids;                /* zero-initialised; free with cp_ids_fini */
void cp_ids_fini(cp_ids *ids);
bool cp_ids_add(cp_ids *ids, int32_t id);

/*
 * Append the ids of text[0, n) to out. add_special: BOS in front / EOS behind as the model says.
 * parse_special: control tokens spelled in the text become their ids, except where they touch one
 * of the untrusted spans (ascending, disjoint); user-defined tokens match with and without it, in
 * the spans only those that look like text. Invalid UTF-8
 * goes through byte by byte where the vocabulary has the bytes; bytes that it lacks become the
 * unknown token or vanish, as in the reference implementation. Errors: CP_NO_MEMORY, CP_TOO_LARGE
 * (n > 1 GiB).
 */
cp_code cp_tokenizer_encode(const cp_tokenizer *t, const char *text, size_t n, bool add_special,
                            bool parse_special, const cp_span *untrusted, size_t n_untrusted,
                            cp_ids *out, cp_err *err);

/* Whole-sequence decoding (the leading space that SentencePiece adds is dropped). skip_special
 * leaves control tokens out. */
cp_code cp_tokenizer_decode(const cp_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                            cp_buf *out, cp_err *err);

/*
 * Incremental, UTF-8-safe: bytes are held back while they are an incomplete but possible UTF-8
 * prefix. first = true when the stream begins the text (a leading space that the tokenizer adds is
 * dropped then); a stream that continues a prompt uses false. finish emits what is held (an
 * incomplete sequence becomes U+FFFD).
 */
typedef struct cp_detok {
    const cp_tokenizer *t;
    uint8_t held[4];
    uint8_t n_held;
    bool broke; /* by the last push: what was held before became U+FFFD, in front of its own text */
    bool first, skip_special;
} cp_detok;
void cp_detok_init(cp_detok *d, const cp_tokenizer *t, bool first, bool skip_special);
bool cp_detok_push(cp_detok *d, int32_t id,
                   cp_buf *out); /* appends valid UTF-8; false: out of memory */
bool cp_detok_finish(cp_detok *d, cp_buf *out);

#endif
