/*
 * Encoding: text is cut at special tokens; what lies between is normalized or escaped, cut into
 * pieces by the pre-tokenizer and at seams, and each piece is a token or merged. A text is one text
 * whatever its spans: marks only forbid special tokens that touch them, they never cut what the
 * pre-tokenizer sees.
 */
#include "tokenizer/internal.h"

#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

void cp_ids_fini(cp_ids *ids)
{
    cp_paid_free(ids->account, ids->id, ids->cap * sizeof *ids->id);
    *ids = (cp_ids){0};
}

bool cp_ids_add(cp_ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *p = cp_paid_realloc(ids->account, ids->id, ids->cap * sizeof *p, cap * sizeof *p);
        if (!p)
            return false;
        ids->id = p;
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return true;
}

/* White space of the C locale, which is what strip flags eat. */
static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A space becomes U+2581, with one more in front when `prefix`. */
static bool escape_spaces(cp_buf *out, const char *s, size_t n, bool prefix)
{
    static const char BAR[] = "\xE2\x96\x81";
    cp_buf_clear(out);
    out->max = 4 * CP_TOK_MAX_INPUT;
    cp_buf_reserve(out, n + n / 4 + 4);
    if (prefix)
        cp_buf_add(out, BAR, 3);
    for (size_t i = 0; i < n;) {
        const char *q = memchr(s + i, ' ', n - i);
        size_t end = q ? (size_t)(q - s) : n;
        cp_buf_add(out, s + i, end - i);
        if (q)
            cp_buf_add(out, BAR, 3);
        i = end + 1;
    }
    return !out->failed;
}

/* What lies between two seams: one token, if merging would make it of these bytes. */
static bool encode_word(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, size_t n,
                        cp_ids *out)
{
    int32_t id = cp_tok_words_find(t->words, s, n);
    uint8_t whole =
        id < 0 ? CP_WHOLE_NO : atomic_load_explicit(&t->whole[id], memory_order_relaxed);
    if (whole == CP_WHOLE_YES)
        return cp_ids_add(out, id);
    size_t before = out->n;
    if (!cp_tok_merge(t, w, s, n, out))
        return false;
    if (whole == CP_WHOLE_UNKNOWN) {
        whole = out->n == before + 1 && out->id[before] == id ? CP_WHOLE_YES : CP_WHOLE_NO;
        atomic_store_explicit(&t->whole[id], whole, memory_order_relaxed);
    }
    return true;
}

static bool is_ascii(const uint8_t *s, size_t n)
{
    uint8_t all = 0;
    for (size_t i = 0; i < n; i++)
        all |= s[i];
    return all < 0x80;
}

static bool encode_piece(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, size_t n,
                         cp_ids *out)
{
    bool lines = t->chars && t->pre && s[0] == '\n'; /* runs of line feeds are tokens as they are */
    int32_t id =
        t->pre && (t->pre->ignore_merges || lines) ? cp_tok_words_find(t->words, s, n) : -1;
    if (id >= 0 && !(t->flags[id] & CP_TF_NO_TEXT))
        return cp_ids_add(out, id);
    if (is_ascii(s, n))
        return encode_word(t, w, s, n, out);
    for (size_t i = 0; i < n;) {
        size_t end = cp_tok_seams_next(&t->seams, s, i, n);
        if (!encode_word(t, w, s + i, end - i, out))
            return false;
        i = end;
    }
    return true;
}

bool cp_tok_fragment(const cp_tokenizer *t, cp_tok_work *w, const char *s, size_t n, bool prefix,
                     cp_ids *out)
{
    const uint8_t *p = (const uint8_t *)s;
    bool nfc = t->pre && t->pre->nfc && !cp_uni_is_nfc(p, n);
    if (t->chars || nfc) {
        cp_buf_clear(&w->text);
        if (t->chars ? !escape_spaces(&w->text, s, n, prefix) : !cp_uni_nfc(p, n, &w->text))
            return false;
        p = (const uint8_t *)w->text.p;
        n = w->text.n;
    }
    if (!t->pre)
        return n == 0 || encode_piece(t, w, p, n, out);
    cp_pretok_at at = {0};
    for (size_t i = 0; i < n;) {
        size_t end = cp_pretok_next(t->pre, &at, p, i, n);
        if (!encode_piece(t, w, p + i, end - i, out))
            return false;
        i = end;
    }
    return true;
}

static bool encode_all(const cp_tokenizer *t, cp_tok_work *w, cp_tok_finder *f, const char *text,
                       size_t n, cp_ids *out)
{
    bool prefix =
        t->add_space_prefix; /* SentencePiece: at the start and after each special token */
    for (size_t at = 0; at < n;) {
        cp_tok_match m = {n, n, -1};
        cp_tok_special_find(t, f, text, n, at, &m);
        size_t end = m.begin, next = m.end;
        if (m.id >= 0) {
            while ((t->flags[m.id] & CP_TF_LSTRIP) && end > at && is_blank(text[end - 1]))
                end--;
            while ((t->flags[m.id] & CP_TF_RSTRIP) && next < n && is_blank(text[next]))
                next++;
        }
        if (end > at) {
            if (!cp_tok_fragment(t, w, text + at, end - at, prefix, out))
                return false;
        }
        if (m.id >= 0 && !cp_ids_add(out, m.id))
            return false;
        prefix = t->add_space_prefix;
        at = next;
    }
    return true;
}

cp_code cp_tokenizer_encode(const cp_tokenizer *t, const char *text, size_t n, bool add_special,
                            bool parse_special, const cp_span *untrusted, size_t n_untrusted,
                            cp_ids *out, cp_err *err)
{
    if (n > CP_TOK_MAX_INPUT)
        return cp_fail(err, CP_TOO_LARGE, "text of %zu bytes, allowed are %zu", n,
                       CP_TOK_MAX_INPUT);
    size_t n_before = out->n;
    cp_tok_work w = {.account = out->account, .text = {.account = out->account}};
    cp_tok_finder f = {.parse_special = parse_special, .span = untrusted, .n_span = n_untrusted};
    bool ok = !(add_special && t->add_bos) || cp_ids_add(out, t->bos);
    ok = ok && encode_all(t, &w, &f, text, n, out);
    ok = ok && (!(add_special && t->add_eos) || cp_ids_add(out, t->eos));
    cp_tok_work_fini(&w);
    if (ok)
        return CP_OK;
    out->n = n_before;
    return cp_fail(err, CP_NO_MEMORY, "tokenizing %zu bytes: out of memory", n);
}
