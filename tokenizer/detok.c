/*
 * Decoding. Whole sequences give the exact bytes of the tokens. A stream gives valid UTF-8 only:
 * bytes that may still become a character are held back (at most 3), bytes that cannot become
 * U+FFFD, one for each maximal part of an ill-formed sequence (Unicode, section 3.9, table 3-8).
 */
#include "tokenizer/internal.h"

#include "base/utf8.h"

#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD"

/* The bytes that id adds to a text; *first is cleared by the first one that shows. */
static cp_str shown(const cp_tokenizer *t, int32_t id, bool skip_special, bool *first)
{
    cp_str s = cp_tokenizer_piece(t, id);
    if (s.n == 0 || (skip_special && cp_tokenizer_is_special(t, id)))
        return (cp_str){"", 0};
    if (*first && t->add_space_prefix && s.p[0] == ' ')
        s = (cp_str){s.p + 1, s.n - 1};
    *first = false;
    return s;
}

cp_code cp_tokenizer_decode(const cp_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                            cp_buf *out, cp_err *err)
{
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n)
            return cp_fail(err, CP_INVALID_VALUE, "token id %d, allowed are 0 to %d", ids[i],
                           t->n - 1);
        cp_str s = shown(t, ids[i], skip_special, &first);
        if (!cp_buf_add(out, s.p, s.n))
            return cp_fail(err, CP_NO_MEMORY, "decoding %zu tokens: out of memory", n);
    }
    return CP_OK;
}

void cp_detok_init(cp_detok *d, const cp_tokenizer *t, bool first, bool skip_special)
{
    *d = (cp_detok){.t = t, .first = first, .skip_special = skip_special};
}

bool cp_detok_push(cp_detok *d, int32_t id, cp_buf *out)
{
    cp_str s = shown(d->t, id, d->skip_special, &d->first);
    d->broke = false;
    for (size_t i = 0; i < s.n;) {
        uint8_t b = (uint8_t)s.p[i];
        if (d->n_held > 0) {
            if (!cp_utf8_follows(d->held[0], d->n_held, b)) {
                cp_buf_adds(out, REPLACEMENT);
                d->n_held = 0;
                d->broke = d->broke || i == 0;
                continue; /* b begins anew */
            }
            d->held[d->n_held++] = b;
            if (d->n_held == cp_utf8_need(d->held[0])) {
                cp_buf_add(out, d->held, d->n_held);
                d->n_held = 0;
            }
        } else if (b < 0x80) {
            size_t end = i + 1;
            while (end < s.n && (uint8_t)s.p[end] < 0x80)
                end++;
            cp_buf_add(out, s.p + i, end - i);
            i = end;
            continue;
        } else if (cp_utf8_need(b) > 0) {
            d->held[d->n_held++] = b;
        } else {
            cp_buf_adds(out, REPLACEMENT);
        }
        i++;
    }
    return !out->failed;
}

bool cp_detok_finish(cp_detok *d, cp_buf *out)
{
    if (d->n_held > 0)
        cp_buf_adds(out, REPLACEMENT);
    d->n_held = 0;
    return !out->failed;
}
