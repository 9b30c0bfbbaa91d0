/*
 * Marked strings: bytes with the ranges that came from the request, and the builder that carries
 * marks along.
 *
 * A substring shares its parent's bytes. Concatenation appends in place when the left side is the
 * newest string of its block (as a loop that grows one variable does), so building a text piece by
 * piece stays linear; spans are appended the same way and never changed once written.
 */
#include "chat/jinja/value.h"

#include <stdlib.h>
#include <string.h>

/* Index of the first span that ends behind off. */
static uint32_t span_from(const jj_str *s, size_t off)
{
    uint32_t lo = 0, hi = s->n_spans;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->spans[mid].end <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool cp_jj_str_mark(const jj_str *s, size_t off, size_t *end)
{
    *end = s->n;
    if (s->all || !s->n_spans)
        return s->all;
    uint32_t i = span_from(s, off);
    if (i == s->n_spans)
        return false;
    if (off < s->spans[i].begin) {
        if (s->spans[i].begin < s->n)
            *end = s->spans[i].begin;
        return false;
    }
    if (s->spans[i].end < s->n)
        *end = s->spans[i].end;
    return true;
}

bool cp_jj_str_is(const jj_str *s, const char *lit)
{
    size_t n = strlen(lit);
    return s->n == n && memcmp(s->p, lit, n) == 0;
}

/* A lead byte, or a byte that stands alone because it is invalid, begins a code point. */
size_t cp_jj_str_len_cp(jj_ctx *x, const jj_str *s)
{
    size_t n = 0;
    if (!cp_jj_work(x, s->n, JJ_COUNT))
        return 0;
    for (size_t off = 0; off < s->n; n++) {
        uint32_t cp;
        off += (unsigned char)s->p[off] < 0x80 ? 1 : cp_jj_utf8_next(s->p, s->n, off, &cp);
    }
    return n;
}

size_t cp_jj_str_off_cp(jj_ctx *x, const jj_str *s, size_t i)
{
    size_t off = 0;
    for (; i && off < s->n; i--) {
        uint32_t cp;
        off += (unsigned char)s->p[off] < 0x80 ? 1 : cp_jj_utf8_next(s->p, s->n, off, &cp);
    }
    cp_jj_work(x, off, JJ_COUNT);
    return off;
}

const cp_val *cp_jj_sub(jj_ctx *x, const cp_val *v, size_t begin, size_t end)
{
    const jj_str *s = &v->u.s;
    if (begin == 0 && end == s->n)
        return v;
    if (begin >= end)
        return &cp_jj_empty;
    cp_val *r = cp_jj_alloc(x, sizeof(*r));
    if (!r)
        return NULL;
    r->type = JJ_STR;
    r->u.s = (jj_str){.p = s->p + begin, .n = end - begin, .all = s->all};
    if (s->all || !s->n_spans)
        return r;
    uint32_t from = span_from(s, begin), n = 0;
    while (from + n < s->n_spans && s->spans[from + n].begin < end)
        n++;
    if (!n)
        return r;
    if (n == 1 && s->spans[from].begin <= begin && s->spans[from].end >= end) {
        r->u.s.all = true;
        return r;
    }
    jj_span *spans =
        cp_jj_work(x, n * sizeof(*spans), JJ_COPY) ? cp_jj_alloc(x, n * sizeof(*spans)) : NULL;
    if (!spans)
        return NULL;
    for (uint32_t i = 0; i < n; i++) {
        jj_span t = s->spans[from + i];
        spans[i].begin = t.begin > begin ? t.begin - begin : 0;
        spans[i].end = (t.end < end ? t.end : end) - begin;
    }
    r->u.s.spans = spans;
    r->u.s.n_spans = n;
    return r;
}

static bool too_long(jj_ctx *x)
{
    cp_jj_fail(x, "a text grows above %d MiB", JJ_MAX_OUTPUT >> 20);
    return false;
}

/* Append s to a block; the block has room. */
static void block_append(jj_block *b, const jj_str *s)
{
    if (s->all && s->n) {
        b->spans[b->n_spans++] = (jj_span){b->used, b->used + s->n};
    } else {
        for (uint32_t i = 0; i < s->n_spans; i++)
            b->spans[b->n_spans++] =
                (jj_span){s->spans[i].begin + b->used, s->spans[i].end + b->used};
    }
    if (s->n)
        memcpy(b->data + b->used, s->p, s->n);
    b->used += s->n;
}

const cp_val *cp_jj_concat(jj_ctx *x, const cp_val *av, const cp_val *bv)
{
    const jj_str *a = &av->u.s, *b = &bv->u.s;
    if (!b->n)
        return av;
    if (!a->n)
        return bv;
    size_t n = a->n + b->n, more = b->all ? 1 : b->n_spans;
    if (n > JJ_MAX_OUTPUT) {
        too_long(x);
        return NULL;
    }
    cp_val *r = cp_jj_alloc(x, sizeof(*r));
    jj_block *blk = a->blk;
    bool in_place = blk && a->p == blk->data && a->n == blk->used && a->n_spans == blk->n_spans &&
                    n <= blk->cap && blk->n_spans + more <= blk->cap_spans;
    size_t marks = in_place ? more : a->n_spans + more;
    if (!r || !cp_jj_work(x, in_place ? b->n : n, JJ_COPY) ||
        !cp_jj_work(x, marks, sizeof(jj_span)))
        return NULL;
    if (!in_place) {
        size_t spans = (a->all ? 1 : a->n_spans) + more;
        blk = cp_jj_alloc(x, sizeof(*blk));
        if (!blk)
            return NULL;
        blk->cap = n + n / 2 + 32;
        blk->cap_spans = spans + spans / 2 + 4;
        blk->data = cp_jj_alloc(x, blk->cap);
        blk->spans = cp_jj_alloc(x, blk->cap_spans * sizeof(*blk->spans));
        if (!blk->data || !blk->spans)
            return NULL;
        block_append(blk, a);
    }
    block_append(blk, b);
    r->type = JJ_STR;
    r->u.s = (jj_str){
        .p = blk->data, .n = n, .spans = blk->spans, .n_spans = (uint32_t)blk->n_spans, .blk = blk};
    return r;
}

/* ---- search ---- */

enum { SHORT_NEEDLE = 16 };

/* What passing over a byte costs: a search may compare a short needle anew at every place. */
static size_t search_weight(const jj_str *needle)
{
    return needle->n == 1 ? JJ_COPY : needle->n <= SHORT_NEEDLE ? JJ_COUNT : JJ_SCAN;
}

size_t cp_jj_find(jj_ctx *x, const jj_str *hay, size_t from, const jj_str *needle)
{
    if (from > hay->n || needle->n > hay->n - from || x->code != CP_OK)
        return hay->n;
    if (!needle->n)
        return from;
    /* One byte: faster, and a sanitizer checks memmem's whole haystack at each call. */
    const char *p = needle->n == 1 ? memchr(hay->p + from, needle->p[0], hay->n - from)
                                   : memmem(hay->p + from, hay->n - from, needle->p, needle->n);
    size_t at = p ? (size_t)(p - hay->p) : hay->n;
    size_t passed = p ? at + needle->n - from : hay->n - from;
    return cp_jj_work(x, passed, search_weight(needle)) ? at : hay->n;
}

/* Knuth, Morris and Pratt from the right: linear whatever the needle, for a number a byte of it. */
static size_t rfind_long(jj_ctx *x, const jj_str *hay, size_t end, const jj_str *needle)
{
    size_t n = needle->n, k = 0;
    const char *last = needle->p + n - 1; /* byte i from the right is last[-i] */
    bool paid = cp_jj_work(x, n, JJ_SCAN);
    uint32_t *border = paid ? cp_jj_alloc(x, (n + 1) * sizeof(*border)) : NULL;
    if (!border)
        return hay->n;
    for (size_t i = 1; i < n; i++) {
        while (k && *(last - k) != *(last - i))
            k = border[k];
        k += *(last - k) == *(last - i);
        border[i + 1] = (uint32_t)k;
    }
    k = 0;
    for (size_t i = end; i-- > 0;) {
        while (k && *(last - k) != hay->p[i])
            k = border[k];
        k += *(last - k) == hay->p[i];
        if (k == n)
            return cp_jj_work(x, end - i, JJ_SCAN) ? i : hay->n;
    }
    cp_jj_work(x, end, JJ_SCAN);
    return hay->n;
}

size_t cp_jj_rfind(jj_ctx *x, const jj_str *hay, size_t end, const jj_str *needle)
{
    if (needle->n > end || x->code != CP_OK)
        return hay->n;
    if (!needle->n)
        return end;
    if (needle->n > SHORT_NEEDLE)
        return rfind_long(x, hay, end, needle);
    size_t i = end - needle->n + 1, at = hay->n;
    while (at == hay->n && i > 0) {
        const char *p = memrchr(hay->p, needle->p[0], i);
        i = p ? (size_t)(p - hay->p) : 0;
        if (p && memcmp(p, needle->p, needle->n) == 0)
            at = i;
    }
    return cp_jj_work(x, end - i, needle->n == 1 ? JJ_COPY : JJ_SCAN) ? at : hay->n;
}

static bool in_set(const jj_str *set, uint32_t cp)
{
    if (!set)
        return cp_jj_is_space(cp);
    for (size_t off = 0; off < set->n;) {
        uint32_t c;
        off += cp_jj_utf8_next(set->p, set->n, off, &c);
        if (c == cp)
            return true;
    }
    return false;
}

void cp_jj_strip(jj_ctx *x, const jj_str *s, const jj_str *set, int sides, size_t *begin,
                 size_t *end)
{
    size_t b = 0, e = s->n;
    uint32_t cp;
    cp_jj_work(x, set ? set->n : 0, JJ_SCAN);
    while ((sides & 1) && b < e) {
        size_t k = cp_jj_utf8_next(s->p, e, b, &cp);
        if (!in_set(set, cp) || !cp_jj_work(x, 1 + (set ? set->n : 0), JJ_SCAN))
            break;
        b += k;
    }
    while ((sides & 2) && e > b) {
        size_t p = e - 1;
        while (p > b && e - p < 4 && ((unsigned char)s->p[p] & 0xc0) == 0x80)
            p--;
        if (cp_jj_utf8_next(s->p, e, p, &cp) != e - p) {
            p = e - 1; /* not a whole character: the last byte stands alone */
            cp_jj_utf8_next(s->p, e, p, &cp);
        }
        if (!in_set(set, cp) || !cp_jj_work(x, 1 + (set ? set->n : 0), JJ_SCAN))
            break;
        e = p;
    }
    *begin = b;
    *end = e;
}

/* ---- builder ---- */

/* A bigger array of the same content; NULL and a failure when there is no memory. */
static void *regrow(jj_ctx *x, const jj_sb *b, void *old, size_t old_bytes, size_t bytes)
{
    void *p;
    if (b->a) {
        p = cp_jj_alloc(x, bytes);
        if (p && old_bytes)
            memcpy(p, old, old_bytes);
    } else {
        p = cp_paid_realloc(b->account, old, old_bytes, bytes);
        if (!p)
            cp_jj_fail_memory(x);
    }
    return p;
}

bool cp_jj_sb_add(jj_ctx *x, jj_sb *b, const char *p, size_t n, bool marked)
{
    if (x->code != CP_OK)
        return false;
    if (!n)
        return true;
    if (n > JJ_MAX_OUTPUT - b->n)
        return too_long(x);
    if (b->cap - b->n < n + 1) { /* one byte of room for a final NUL */
        size_t cap = b->n + n + 1 > b->cap * 2 ? b->n + n + 1 : b->cap * 2;
        cap = cap < 64 ? 64 : cap;
        char *grown = regrow(x, b, b->p, b->cap, cap);
        if (!grown)
            return false;
        b->p = grown;
        b->cap = cap;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
    if (!marked)
        return true;
    if (b->n_spans && b->spans[b->n_spans - 1].end == b->n - n) {
        b->spans[b->n_spans - 1].end = b->n;
        return true;
    }
    if (b->n_spans == b->cap_spans) {
        size_t cap = b->cap_spans ? b->cap_spans * 2 : 4;
        jj_span *grown =
            regrow(x, b, b->spans, b->cap_spans * sizeof(*b->spans), cap * sizeof(*b->spans));
        if (!grown)
            return false;
        b->spans = grown;
        b->cap_spans = cap;
    }
    b->spans[b->n_spans++] = (jj_span){b->n - n, b->n};
    return true;
}

bool cp_jj_sb_adds(jj_ctx *x, jj_sb *b, const char *lit)
{
    return cp_jj_sb_add(x, b, lit, strlen(lit), false);
}

bool cp_jj_sb_add_str(jj_ctx *x, jj_sb *b, const jj_str *s, size_t begin, size_t end)
{
    if (!cp_jj_work(x, end - begin, JJ_COPY))
        return false;
    while (begin < end) {
        size_t stop;
        if (!cp_jj_work(x, JJ_PIECE, JJ_COPY))
            return false;
        bool marked = cp_jj_str_mark(s, begin, &stop);
        if (stop > end)
            stop = end;
        if (!cp_jj_sb_add(x, b, s->p + begin, stop - begin, marked))
            return false;
        begin = stop;
    }
    return x->code == CP_OK;
}

bool cp_jj_sb_add_cp(jj_ctx *x, jj_sb *b, uint32_t cp, bool marked)
{
    char utf8[4];
    return cp_jj_sb_add(x, b, utf8, cp_jj_utf8_put(cp, utf8), marked);
}

bool cp_jj_sb_pad(jj_ctx *x, jj_sb *b, const char *fill, size_t n_fill, size_t times)
{
    size_t bytes;
    if (!cp_mul(n_fill, times, &bytes) || bytes > JJ_MAX_OUTPUT)
        return too_long(x);
    if (!cp_jj_work(x, bytes, JJ_SCAN))
        return false;
    for (; times; times--) {
        if (!cp_jj_sb_add(x, b, fill, n_fill, false))
            return false;
    }
    return true;
}

const cp_val *cp_jj_sb_take(jj_ctx *x, jj_sb *b)
{
    CP_ASSERT(b->a);
    if (x->code != CP_OK)
        return NULL;
    if (!b->n)
        return &cp_jj_empty;
    cp_val *v = cp_jj_alloc(x, sizeof(*v));
    if (!v)
        return NULL;
    v->type = JJ_STR;
    v->u.s = (jj_str){.p = b->p, .n = b->n, .spans = b->spans, .n_spans = (uint32_t)b->n_spans};
    *b = (jj_sb){.a = b->a};
    return v;
}

void cp_jj_sb_fini(jj_sb *b)
{
    if (b->a)
        return;
    cp_paid_free(b->account, b->p, b->cap);
    cp_paid_free(b->account, b->spans, b->cap_spans * sizeof(*b->spans));
    *b = (jj_sb){0};
}
