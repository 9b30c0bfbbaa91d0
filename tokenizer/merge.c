/*
 * Merging: a fragment of text to ids, for both families.
 *
 * Symbols form a doubly linked list; the best adjacent pair (byte-level: lowest merge rank,
 * SentencePiece: highest score; the leftmost on ties) is taken from a binary heap, merged, and its
 * new neighbour pairs are pushed. Entries whose symbols have changed meanwhile are recognized by
 * their length and dropped. Every symbol is merged away at most once, so a fragment of n symbols
 * costs O(n log n). Short pieces, nearly all of them, take a plain scan over a few numbers instead.
 */
#include "tokenizer/internal.h"

#include "base/utf8.h"
#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct cp_tok_sym {
    uint32_t off, len; /* bytes of the fragment; len 0: merged away */
    int32_t id;        /* -1: not a token */
    int32_t prev, next;
} sym;

typedef struct cp_tok_cand {
    uint64_t key; /* priority (lower first) << 32 | index of the left symbol */
    uint32_t right, len;
    int32_t id; /* what the pair becomes */
} cand;

/* Whether symbols a and b merge: priority (lower first) and the product's id. */
typedef bool pair_fn(const cp_tokenizer *t, const char *s, const sym *a, const sym *b,
                     uint32_t *prio, int32_t *id);

#define SHORT_PIECE 32 /* bytes up to which a piece is merged by scanning */

void cp_tok_work_fini(cp_tok_work *w)
{
    cp_paid_free(w->account, w->sym, w->cap_sym * sizeof *w->sym);
    cp_paid_free(w->account, w->heap, w->cap_heap * sizeof *w->heap);
    cp_buf_fini(&w->text);
    *w = (cp_tok_work){0};
}

static bool add_sym(cp_tok_work *w, sym v)
{
    if (w->n_sym == w->cap_sym) {
        size_t cap = w->cap_sym ? w->cap_sym * 2 : 256;
        sym *p = cp_paid_realloc(w->account, w->sym, w->cap_sym * sizeof *p, cap * sizeof *p);
        if (!p)
            return false;
        w->sym = p;
        w->cap_sym = cap;
    }
    w->sym[w->n_sym++] = v;
    return true;
}

static bool heap_push(cp_tok_work *w, cand c)
{
    if (w->n_heap == w->cap_heap) {
        size_t cap = w->cap_heap ? w->cap_heap * 2 : 256;
        cand *p = cp_paid_realloc(w->account, w->heap, w->cap_heap * sizeof *p, cap * sizeof *p);
        if (!p)
            return false;
        w->heap = p;
        w->cap_heap = cap;
    }
    size_t i = w->n_heap++;
    while (i > 0 && w->heap[(i - 1) / 2].key > c.key) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
    return true;
}

static cand heap_pop(cp_tok_work *w)
{
    cand top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0, n = w->n_heap;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= n)
            break;
        if (k + 1 < n && w->heap[k + 1].key < w->heap[k].key)
            k++;
        if (last.key <= w->heap[k].key)
            break;
        w->heap[i] = w->heap[k];
        i = k;
    }
    if (n > 0)
        w->heap[i] = last;
    return top;
}

static bool push_pair(const cp_tokenizer *t, cp_tok_work *w, pair_fn *pair, const char *s,
                      int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return true;
    const sym *a = &w->sym[left], *b = &w->sym[right];
    uint32_t prio;
    int32_t id;
    if (!pair(t, s, a, b, &prio, &id))
        return true;
    return heap_push(w, (cand){.key = (uint64_t)prio << 32 | (uint32_t)left,
                               .right = (uint32_t)right,
                               .len = a->len + b->len,
                               .id = id});
}

/* Merge w->sym[0, n_sym), which are linked in order, as far as it goes. What is left has len > 0.
 */
static bool merge_all(const cp_tokenizer *t, cp_tok_work *w, pair_fn *pair, const char *s)
{
    w->n_heap = 0;
    for (size_t i = 1; i < w->n_sym; i++)
        if (!push_pair(t, w, pair, s, (int32_t)i - 1, (int32_t)i))
            return false;
    while (w->n_heap > 0) {
        cand c = heap_pop(w);
        int32_t left = (int32_t)(c.key & 0xFFFFFFFFu);
        sym *a = &w->sym[left], *b = &w->sym[c.right];
        if (a->len == 0 || b->len == 0 || a->len + b->len != c.len)
            continue;
        a->len = c.len;
        a->id = c.id;
        b->len = 0;
        a->next = b->next;
        if (b->next >= 0)
            w->sym[b->next].prev = left;
        if (!push_pair(t, w, pair, s, a->prev, left) || !push_pair(t, w, pair, s, left, a->next))
            return false;
    }
    return true;
}

/* ---- byte-level BPE ---- */

static const cp_tok_pair *find_pair(const cp_tokenizer *t, int32_t left, int32_t right)
{
    uint32_t h = (uint32_t)cp_tok_hash2((uint32_t)left, (uint32_t)right) & t->pair_mask;
    for (;; h = (h + 1) & t->pair_mask) {
        const cp_tok_pair *p = &t->pair[h];
        if (p->id < 0)
            return NULL;
        if (p->left == left && p->right == right)
            return p;
    }
}

static bool pair_by_rank(const cp_tokenizer *t, const char *s, const sym *a, const sym *b,
                         uint32_t *prio, int32_t *id)
{
    (void)s;
    if (a->id < 0 || b->id < 0)
        return false;
    const cp_tok_pair *p = find_pair(t, a->id, b->id);
    if (!p)
        return false;
    *prio = p->rank;
    *id = p->id;
    return true;
}

/* The same result for a piece of at most SHORT_PIECE bytes: quadratic, but without heap, links or
 * allocation. */
static bool merge_short(const cp_tokenizer *t, const uint8_t *s, size_t n, cp_ids *out)
{
    int32_t id[SHORT_PIECE + 1], product[SHORT_PIECE + 1];
    uint32_t rank[SHORT_PIECE + 1]; /* of the pair (i, i + 1); UINT32_MAX: no rule */
    for (size_t i = 0; i < n; i++)
        id[i] = t->byte_id[s[i]];
    for (size_t i = 0; i + 1 < n; i++) {
        const cp_tok_pair *p = id[i] < 0 || id[i + 1] < 0 ? NULL : find_pair(t, id[i], id[i + 1]);
        rank[i] = p ? p->rank : UINT32_MAX;
        product[i] = p ? p->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == UINT32_MAX)
            break;
        id[best] = product[best];
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof *rank);
        memmove(product + best, product + best + 1, (n - best - 1) * sizeof *product);
        for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const cp_tok_pair *p =
                id[i] < 0 || id[i + 1] < 0 ? NULL : find_pair(t, id[i], id[i + 1]);
            rank[i] = p ? p->rank : UINT32_MAX;
            product[i] = p ? p->id : -1;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (id[i] >= 0 && !cp_ids_add(out, id[i]))
            return false;
    return true;
}

/* The token that spells the whole piece, or -1. */
static int32_t whole_piece(const cp_tokenizer *t, const uint8_t *s, size_t n, cp_buf *tmp)
{
    if (n > t->max_text)
        return -1;
    cp_buf_clear(tmp);
    for (size_t i = 0; i < n; i++) {
        char b[4];
        cp_buf_add(tmp, b, cp_utf8_encode(cp_tok_byte_to_cp(s[i]), b));
    }
    int32_t id = tmp->failed ? -1 : cp_tokenizer_find(t, tmp->p, tmp->n);
    return id >= 0 && (t->flags[id] & CP_TF_NO_TEXT) ? -1 : id;
}

static bool bpe_piece(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, size_t n,
                      cp_buf *tmp, cp_ids *out)
{
    if (t->pre->ignore_merges) {
        int32_t id = whole_piece(t, s, n, tmp);
        if (tmp->failed)
            return false;
        if (id >= 0)
            return cp_ids_add(out, id);
    }
    if (n <= SHORT_PIECE)
        return merge_short(t, s, n, out);
    w->n_sym = 0;
    for (size_t i = 0; i < n; i++)
        if (!add_sym(w, (sym){.off = (uint32_t)i,
                              .len = 1,
                              .id = t->byte_id[s[i]],
                              .prev = (int32_t)i - 1,
                              .next = i + 1 < n ? (int32_t)i + 1 : -1}))
            return false;
    if (!merge_all(t, w, pair_by_rank, NULL))
        return false;
    for (int32_t i = 0; i >= 0; i = w->sym[i].next)
        if (w->sym[i].id >= 0 && !cp_ids_add(out, w->sym[i].id))
            return false;
    return true;
}

bool cp_tok_bpe(const cp_tokenizer *t, cp_tok_work *w, const char *s, size_t n, cp_ids *out)
{
    const uint8_t *p = (const uint8_t *)s;
    if (t->pre->nfc && !cp_uni_is_nfc(p, n)) {
        cp_buf_clear(&w->text);
        if (!cp_uni_nfc(p, n, &w->text))
            return false;
        p = (const uint8_t *)w->text.p;
        n = w->text.n;
    }
    cp_buf tmp = {0};
    size_t stop = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < n;) {
        size_t end = cp_pretok_next(t->pre, p, i, n, &stop);
        ok = bpe_piece(t, w, p + i, end - i, &tmp, out);
        i = end;
    }
    cp_buf_fini(&tmp);
    return ok;
}

/* ---- SentencePiece BPE ---- */

/* The token that spells s and may come from ordinary text, or -1. */
static int32_t find_text(const cp_tokenizer *t, const char *s, size_t n)
{
    if (n > t->max_text)
        return -1;
    int32_t id = cp_tokenizer_find(t, s, n);
    return id >= 0 && (t->flags[id] & CP_TF_NO_TEXT) ? -1 : id;
}

/* A total order on floats without NaN: higher scores get lower numbers. */
static uint32_t score_prio(float f)
{
    uint32_t u;
    f += 0.0f; /* -0 and 0 are one score */
    memcpy(&u, &f, sizeof u);
    return u & 0x80000000u ? u : ~(u | 0x80000000u);
}

static bool pair_by_score(const cp_tokenizer *t, const char *s, const sym *a, const sym *b,
                          uint32_t *prio, int32_t *id)
{
    *id = find_text(t, s + a->off, (size_t)a->len + b->len);
    if (*id < 0)
        return false;
    *prio = score_prio(t->score[*id]);
    return true;
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

bool cp_tok_spm(const cp_tokenizer *t, cp_tok_work *w, const char *s, size_t n, bool prefix,
                cp_ids *out)
{
    if (!escape_spaces(&w->text, s, n, prefix))
        return false;
    s = w->text.p;
    n = w->text.n;
    w->n_sym = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t len = cp_uni_decode((const uint8_t *)s + i, n - i, &cp);
        int32_t at = (int32_t)w->n_sym;
        if (!add_sym(w, (sym){.off = (uint32_t)i,
                              .len = (uint32_t)len,
                              .id = -1,
                              .prev = at - 1,
                              .next = i + len < n ? at + 1 : -1}))
            return false;
        i += len;
    }
    if (w->n_sym == 0)
        return true;
    if (!merge_all(t, w, pair_by_score, s))
        return false;
    for (int32_t i = 0; i >= 0; i = w->sym[i].next) {
        const sym *v = &w->sym[i];
        int32_t id = v->id >= 0 ? v->id : find_text(t, s + v->off, v->len);
        if (id >= 0) {
            if (!cp_ids_add(out, id))
                return false;
            continue;
        }
        for (uint32_t k = 0; k < v->len; k++) {
            id = t->byte_id[(uint8_t)s[v->off + k]];
            if (id >= 0 && !cp_ids_add(out, id))
                return false;
        }
    }
    return true;
}
