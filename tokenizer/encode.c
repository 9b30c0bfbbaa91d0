/*
 * Encoding: text is cut at special tokens, what lies between goes through the family's merging. A
 * text is one text whatever its spans: marks only forbid special tokens that touch them, they never
 * cut what the pre-tokenizer sees.
 */
#include "tokenizer/internal.h"

#include <stdlib.h>

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
            bool ok = t->spm ? cp_tok_spm(t, w, text + at, end - at, prefix, out)
                             : cp_tok_bpe(t, w, text + at, end - at, out);
            if (!ok)
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
