/*
 * Opening a tokenizer: metadata to tables. Every array of the metadata is checked against the
 * vocabulary's size and every id against its range before anything is built; afterwards nothing can
 * be out of range. All look-ups are open-addressing hash tables filled at most half, so opening
 * costs O(bytes of the vocabulary).
 */
#include "tokenizer/internal.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEY(s) "tokenizer.ggml." s

/* ---- byte-level spelling ---- */

/* Printable bytes stand for themselves, the 68 others for U+0100 and up, in order. */
uint32_t cp_tok_byte_to_cp(uint8_t b)
{
    if (b <= 32)
        return 256u + b;
    if (b < 127 || (b >= 161 && b != 173))
        return b;
    return b == 173 ? 256u + 67 : 256u + 33 + (b - 127u);
}

int cp_tok_cp_to_byte(uint32_t cp)
{
    if (cp < 256)
        return cp > 32 && cp != 173 && (cp < 127 || cp >= 161) ? (int)cp : -1;
    if (cp <= 256 + 32)
        return (int)cp - 256;
    if (cp < 256 + 67)
        return (int)cp - (256 + 33) + 127;
    return cp == 256 + 67 ? 173 : -1;
}

/* ---- tables ---- */

static cp_code no_memory(cp_err *err)
{
    return cp_fail(err, CP_NO_MEMORY, "tokenizer: out of memory");
}

int32_t cp_tokenizer_find(const cp_tokenizer *t, const char *s, size_t n)
{
    return cp_tok_words_find(&t->by_text, s, n);
}

static cp_code index_text(cp_tokenizer *t, cp_err *err)
{
    if (!cp_tok_words_init(&t->by_text, (size_t)t->n, t->text))
        return no_memory(err);
    for (int32_t i = 0; i < t->n; i++)
        cp_tok_words_add(&t->by_text, i);
    return CP_OK;
}

/* An array of n elements that may be absent (*out NULL then). */
static cp_code meta_array(const cp_meta *meta, const char *key, uint64_t n, const cp_meta_kv **out,
                          cp_err *err)
{
    *out = cp_meta_find(meta, key);
    if (!*out)
        return CP_OK;
    if ((*out)->type != CP_META_ARRAY || (*out)->elem == CP_META_ARRAY)
        return cp_fail(err, CP_CORRUPT, "%s is not a flat array", key);
    if ((*out)->count != n)
        return cp_fail(err, CP_CORRUPT, "%s has %llu elements, the vocabulary %llu", key,
                       (unsigned long long)(*out)->count, (unsigned long long)n);
    return CP_OK;
}

static cp_code load_tokens(cp_tokenizer *t, const cp_meta *meta, cp_err *err)
{
    const cp_meta_kv *kv = cp_meta_find(meta, KEY("tokens")), *types, *scores;
    cp_code rc;
    if (!kv || kv->type != CP_META_ARRAY || kv->elem != CP_META_STRING)
        return cp_fail(err, CP_CORRUPT, "tokenizer.ggml.tokens is not an array of strings");
    if (kv->count == 0 || kv->count > CP_TOK_MAX_TOKENS)
        return cp_fail(err, CP_CORRUPT, "the vocabulary has %llu tokens, allowed are 1 to %d",
                       (unsigned long long)kv->count, CP_TOK_MAX_TOKENS);
    t->n = (int32_t)kv->count;
    t->text = kv->v.a;
    if ((rc = meta_array(meta, KEY("token_type"), kv->count, &types, err)) ||
        (rc = meta_array(meta, KEY("scores"), kv->count, &scores, err)))
        return rc;
    if (t->spm && !scores)
        return cp_fail(err, CP_CORRUPT, "tokenizer.ggml.scores is missing");
    t->type = malloc((size_t)t->n);
    t->flags = calloc((size_t)t->n, 1);
    t->score = t->spm ? malloc((size_t)t->n * sizeof *t->score) : NULL;
    if (!t->type || !t->flags || (t->spm && !t->score))
        return no_memory(err);
    for (int32_t i = 0; i < t->n; i++) {
        int64_t type = CP_TT_NORMAL;
        double score = 0;
        if (t->text[i].n > CP_TOK_MAX_TEXT)
            return cp_fail(err, CP_CORRUPT, "token %d has %zu bytes, allowed are %d", i,
                           t->text[i].n, CP_TOK_MAX_TEXT);
        if (types &&
            (!cp_meta_arr_i64(types, (uint64_t)i, &type) || type < 0 || type >= CP_TT_LIMIT))
            return cp_fail(err, CP_CORRUPT, "token %d has type %lld", i, (long long)type);
        if (t->spm && (!cp_meta_arr_f64(scores, (uint64_t)i, &score) || isnan(score)))
            return cp_fail(err, CP_CORRUPT, "token %d has no valid score", i);
        t->type[i] = (uint8_t)type;
        if (t->spm)
            t->score[i] = (float)score;
    }
    return index_text(t, err);
}

/* "<0xAB>" to 0xAB, or -1. */
static int byte_token_value(cp_str s)
{
    int v = 0;
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s.p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Decode text into dst (never longer than text); returns the length. Characters that stand for no
 * byte stay, and *all is false then. */
static size_t decode_byte_level(cp_str s, char *dst, bool *all)
{
    size_t n = 0;
    *all = true;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = cp_uni_decode((const uint8_t *)s.p + i, s.n - i, &cp);
        int b = cp_tok_cp_to_byte(cp);
        if (b >= 0) {
            dst[n++] = (char)b;
        } else {
            memcpy(dst + n, s.p + i, len);
            n += len;
            *all = false;
        }
        i += len;
    }
    return n;
}

/* U+2581 becomes a space. */
static size_t decode_spm(cp_str s, char *dst)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.n - i >= 3 && memcmp(s.p + i, "\xE2\x96\x81", 3) == 0) {
            dst[n++] = ' ';
            i += 3;
        } else {
            dst[n++] = s.p[i++];
        }
    }
    return n;
}

/* The bytes behind token i into t->piece[i], from `dst` on where they differ from its spelling;
 * returns how many of those there are. What merging may make of text is a word and has no seam
 * inside it. */
static size_t build_piece(cp_tokenizer *t, int32_t i, char *dst)
{
    cp_str s = t->text[i];
    int b = t->type[i] == CP_TT_BYTE ? byte_token_value(s) : -1;
    bool all = false, shown = t->flags[i] & (CP_TF_HIDDEN | CP_TF_ADDED | CP_TF_SPECIAL);
    bool made = !(t->flags[i] & CP_TF_NO_TEXT);
    size_t n = 0;
    if (t->chars && made)
        cp_tok_seams_add(&t->seams, s.p, s.n);
    if (!t->chars && (made || !shown)) {
        n = decode_byte_level(s, dst, &all);
        if (made)
            cp_tok_seams_add(&t->seams, dst, n);
    }
    if (shown) {
        t->piece[i] = s;
        return 0;
    }
    if (b >= 0) {
        *dst = (char)b;
        n = 1;
    } else if (t->chars) {
        n = decode_spm(s, dst);
    }
    t->piece[i] = (cp_str){dst, n};
    if (made && all)
        cp_tok_words_add(&t->by_piece, i);
    return n;
}

static cp_code build_pieces(cp_tokenizer *t, cp_err *err)
{
    size_t total = 0, at = 0;
    for (int32_t i = 0; i < t->n; i++)
        if (!cp_add(total, t->text[i].n, &total))
            return cp_fail(err, CP_CORRUPT, "the vocabulary's spellings overflow");
    t->piece = malloc((size_t)t->n * sizeof *t->piece);
    t->pool = malloc(total + 1);
    t->whole = calloc((size_t)t->n, sizeof *t->whole);
    if (!t->piece || !t->pool || !t->whole || !cp_tok_seams_init(&t->seams) ||
        (!t->chars && !cp_tok_words_init(&t->by_piece, (size_t)t->n, t->piece)))
        return no_memory(err);
    t->words = t->chars ? &t->by_text : &t->by_piece;
    for (int32_t i = 0; i < t->n; i++)
        at += build_piece(t, i, t->pool + at);
    return CP_OK;
}

static void build_byte_ids(cp_tokenizer *t)
{
    static const char HEX[] = "0123456789ABCDEF";
    for (int b = 0; b < 256; b++) {
        char c = (char)b;
        if (!t->chars) {
            char u[4];
            size_t n = cp_utf8_encode(cp_tok_byte_to_cp((uint8_t)b), u);
            t->byte_id[b] = cp_tokenizer_find(t, u, n);
            continue;
        }
        char name[6] = {'<', '0', 'x', HEX[b >> 4], HEX[b & 15], '>'};
        int32_t id = cp_tokenizer_find(t, name, sizeof name), same = cp_tokenizer_find(t, &c, 1);
        t->byte_id[b] = id >= 0 || !t->spm ? id : same >= 0 ? same : t->unk;
        if (b < 128)
            t->ascii_id[b] = same >= 0 && (t->flags[same] & CP_TF_NO_TEXT) ? -1 : same;
    }
}

/*
 * Merges are "left right", split at the first space after position 1. A rule whose parts or product
 * are no tokens can never apply and is left out; of equal rules the first one counts.
 */
static cp_code load_merges(cp_tokenizer *t, const cp_meta *meta, cp_err *err)
{
    const cp_meta_kv *kv = cp_meta_find(meta, KEY("merges"));
    if (!kv || kv->type != CP_META_ARRAY || kv->elem != CP_META_STRING)
        return cp_fail(err, CP_CORRUPT, "tokenizer.ggml.merges is not an array of strings");
    if (kv->count > CP_TOK_MAX_TOKENS)
        return cp_fail(err, CP_CORRUPT, "%llu merges, allowed are %d",
                       (unsigned long long)kv->count, CP_TOK_MAX_TOKENS);
    const cp_str *rule = kv->v.a;
    uint32_t cap = 16;
    while (cap < 2 * kv->count)
        cap *= 2;
    t->pair = malloc(cap * sizeof *t->pair);
    if (!t->pair || !cp_tok_filter_init(&t->pair_filter, (size_t)kv->count))
        return no_memory(err);
    for (uint32_t i = 0; i < cap; i++)
        t->pair[i] = (cp_tok_pair){-1, -1, -1, 0};
    t->pair_mask = cap - 1;
    cp_buf both = {0};
    for (uint32_t r = 0; r < kv->count; r++) {
        cp_str s = rule[r];
        const char *sp = s.n > 1 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
        if (!sp)
            continue;
        size_t nl = (size_t)(sp - s.p), nr = s.n - nl - 1;
        int32_t left = cp_tokenizer_find(t, s.p, nl), right = cp_tokenizer_find(t, sp + 1, nr);
        if (left < 0 || right < 0)
            continue;
        cp_buf_clear(&both);
        cp_buf_add(&both, s.p, nl);
        if (!cp_buf_add(&both, sp + 1, nr)) {
            cp_buf_fini(&both);
            return no_memory(err);
        }
        int32_t id = cp_tokenizer_find(t, both.p, both.n);
        if (id < 0 || (t->flags[id] & CP_TF_NO_TEXT))
            continue;
        uint64_t hash = cp_tok_hash2((uint32_t)left, (uint32_t)right);
        uint32_t h = (uint32_t)hash & t->pair_mask;
        cp_tok_filter_add(&t->pair_filter, hash);
        while (t->pair[h].id >= 0 && (t->pair[h].left != left || t->pair[h].right != right))
            h = (h + 1) & t->pair_mask;
        if (t->pair[h].id < 0)
            t->pair[h] = (cp_tok_pair){left, right, id, r};
    }
    cp_buf_fini(&both);
    return CP_OK;
}

/* ---- opening ---- */

static bool is(cp_str s, const char *z)
{
    return s.n == strlen(z) && memcmp(s.p, z, s.n) == 0;
}

/* Choose the family and the pre-tokenizer row; refuse by name what is not built. */
static cp_code choose_family(cp_tokenizer *t, const cp_meta *meta, cp_err *err)
{
    char built[400];
    cp_str model, pre = {"default", 7};
    if (!cp_meta_str(meta, KEY("model"), &model))
        return cp_fail(err, CP_CORRUPT, "tokenizer.ggml.model is missing");
    if (is(model, "llama")) {
        t->spm = true;
        t->chars = true;
        t->add_bos = true;
        t->add_space_prefix = true;
        return CP_OK;
    }
    bool gemma4 = is(model, "gemma4");
    if (!gemma4 && !is(model, "gpt2"))
        return cp_fail(err, CP_UNSUPPORTED,
                       "tokenizer model '%.*s' is not built; built: gpt2, llama, gemma4",
                       (int)(model.n < 64 ? model.n : 64), model.p);
    if (cp_meta_str(meta, KEY("pre"), &pre) && pre.n == 0)
        pre = (cp_str){"default", 7};
    t->pre = cp_pretok_find(gemma4 ? model : pre); /* that model has one of its own */
    if (!t->pre) {
        cp_pretok_list(built, sizeof built);
        return cp_fail(err, CP_UNSUPPORTED, "pre-tokenizer '%.*s' is not built; built: %s",
                       (int)(pre.n < 64 ? pre.n : 64), pre.p, built);
    }
    t->chars = t->pre->chars;
    t->add_bos = t->pre->bos != CP_BOS_KEY;
    return CP_OK;
}

static cp_code build(cp_tokenizer *t, const cp_meta *meta, cp_err *err)
{
    cp_code rc;
    if ((rc = choose_family(t, meta, err)) || (rc = load_tokens(t, meta, err)) ||
        (rc = cp_tok_special_flags(t, meta, err)) || (rc = build_pieces(t, err)))
        return rc;
    build_byte_ids(t);
    if (!t->spm && (rc = load_merges(t, meta, err)))
        return rc;
    if (!t->pre || t->pre->bos != CP_BOS_FORCED)
        cp_meta_bool(meta, KEY("add_bos_token"), &t->add_bos);
    cp_meta_bool(meta, KEY("add_eos_token"), &t->add_eos);
    if (t->spm)
        cp_meta_bool(meta, KEY("add_space_prefix"), &t->add_space_prefix);
    t->add_bos = t->add_bos && t->bos >= 0;
    t->add_eos = t->add_eos && t->eos >= 0;
    return cp_tok_special_trie(t, err);
}

cp_code cp_tokenizer_open(cp_tokenizer **out, const cp_meta *meta, cp_err *err)
{
    *out = NULL;
    cp_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return no_memory(err);
    cp_code rc = build(t, meta, err);
    if (rc) {
        cp_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return CP_OK;
}

void cp_tokenizer_close(cp_tokenizer *t)
{
    if (!t)
        return;
    free(t->piece);
    free(t->pool);
    free(t->type);
    free(t->flags);
    free(t->score);
    cp_tok_words_fini(&t->by_text);
    cp_tok_words_fini(&t->by_piece);
    free(t->whole);
    free(t->seams.chars);
    free(t->seams.bytes);
    free(t->pair);
    free(t->pair_filter.bit);
    free(t->edge);
    free(t->node_id);
    free(t->eog);
    free(t);
}

/* ---- accessors ---- */

static bool in_range(const cp_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n;
}

int32_t cp_tokenizer_size(const cp_tokenizer *t)
{
    return t->n;
}

int32_t cp_tokenizer_bos(const cp_tokenizer *t)
{
    return t->bos;
}

int32_t cp_tokenizer_eos(const cp_tokenizer *t)
{
    return t->eos;
}

bool cp_tokenizer_add_bos(const cp_tokenizer *t)
{
    return t->add_bos;
}

bool cp_tokenizer_is_eog(const cp_tokenizer *t, int32_t id)
{
    return in_range(t, id) && (t->flags[id] & CP_TF_EOG);
}

const int32_t *cp_tokenizer_eogs(const cp_tokenizer *t, size_t *n)
{
    *n = t->n_eog;
    return t->eog;
}

bool cp_tokenizer_is_special(const cp_tokenizer *t, int32_t id)
{
    return in_range(t, id) && (t->flags[id] & CP_TF_HIDDEN);
}

cp_str cp_tokenizer_piece(const cp_tokenizer *t, int32_t id)
{
    return in_range(t, id) ? t->piece[id] : (cp_str){"", 0};
}
