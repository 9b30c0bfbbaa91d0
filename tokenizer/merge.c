/*
 * Merging: a word to ids. The best adjacent pair of symbols (lowest merge rank, or for
 * SentencePiece highest score; the leftmost on ties) becomes one, until no pair may. Symbols begin
 * as bytes, or as characters.
 *
 * A short word, nearly all of them, takes a plain scan over a few numbers. A long one is a doubly
 * linked list with its pairs in a binary heap; entries whose symbols have changed meanwhile are
 * recognized by their length and dropped. Every symbol is merged away at most once, so n symbols
 * cost O(n) look-ups and O(n log n) steps of the heap.
 */
#include "tokenizer/internal.h"

#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct cp_tok_sym {
    uint32_t off, len; /* bytes of the word; len 0: merged away */
    int32_t id;        /* -1: not a token */
    int32_t prev, next;
} sym;

typedef struct cp_tok_cand {
    uint64_t key; /* priority (lower first) << 32 | index of the left symbol */
    uint32_t right, len;
    int32_t id; /* what the pair becomes */
} cand;

#define SHORT_WORD 48 /* bytes up to which a word is merged by scanning */
#define NO_PAIR    UINT32_MAX

/* ---- what two symbols become ---- */

static const cp_tok_pair *find_pair(const cp_tokenizer *t, int32_t left, int32_t right)
{
    uint64_t hash = cp_tok_hash2((uint32_t)left, (uint32_t)right);
    if (!cp_tok_filter_has(&t->pair_filter, hash))
        return NULL;
    for (uint32_t h = (uint32_t)hash & t->pair_mask;; h = (h + 1) & t->pair_mask) {
        const cp_tok_pair *p = &t->pair[h];
        if (p->id < 0)
            return NULL;
        if (p->left == left && p->right == right)
            return p;
    }
}

/* The token that spells s and may come from ordinary text, or -1. */
static int32_t find_text(const cp_tokenizer *t, const uint8_t *s, size_t n)
{
    int32_t id = cp_tok_words_find(&t->by_text, s, n);
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

/*
 * What neighbours become, the symbols `left` and `right` whose bytes are s[0, n) together, and its
 * priority (lower first). -1 and NO_PAIR: they do not.
 */
static inline int32_t product(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, size_t n,
                              int32_t left, int32_t right, uint32_t *prio)
{
    w->looks++;
    if (t->spm) {
        int32_t id = find_text(t, s, n);
        *prio = id >= 0 ? score_prio(t->score[id]) : NO_PAIR;
        return id;
    }
    const cp_tok_pair *p = left < 0 || right < 0 ? NULL : find_pair(t, left, right);
    *prio = p ? p->rank : NO_PAIR;
    return p ? p->id : -1;
}

/* The token of the symbol that begins at s[i] (-1: none), and its length. */
static inline int32_t first_symbol(const cp_tokenizer *t, const uint8_t *s, size_t i, size_t n,
                                   size_t *len)
{
    *len = 1;
    if (!t->chars)
        return t->byte_id[s[i]];
    if (s[i] < 0x80)
        return t->ascii_id[s[i]];
    uint32_t cp;
    *len = cp_uni_decode(s + i, n - i, &cp);
    return find_text(t, s + i, *len);
}

/* A character s[0, n) that is no token is spelled with bytes; a byte that is none vanishes. */
static bool put_symbol(const cp_tokenizer *t, const uint8_t *s, size_t n, int32_t id, cp_ids *out)
{
    if (id >= 0)
        return cp_ids_add(out, id);
    for (size_t k = 0; t->chars && k < n; k++) {
        id = t->byte_id[s[k]];
        if (id >= 0 && !cp_ids_add(out, id))
            return false;
    }
    return true;
}

/* ---- short words ---- */

/* Symbol k is s[off[k], off[k + 1]); it and its right neighbour become next[k]. */
typedef struct symbols {
    uint32_t off[SHORT_WORD + 1], prio[SHORT_WORD];
    int32_t id[SHORT_WORD], next[SHORT_WORD];
    size_t n;
} symbols;

static inline void look(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, symbols *v,
                        size_t k)
{
    v->next[k] = product(t, w, s + v->off[k], v->off[k + 2] - v->off[k], v->id[k], v->id[k + 1],
                         &v->prio[k]);
}

/* Symbol k takes its right neighbour in. */
static inline void join(symbols *v, size_t k)
{
    size_t behind = v->n - k - 2;
    v->id[k] = v->next[k];
    memmove(v->off + k + 1, v->off + k + 2, (behind + 1) * sizeof *v->off);
    memmove(v->id + k + 1, v->id + k + 2, behind * sizeof *v->id);
    if (behind > 0) {
        memmove(v->next + k + 1, v->next + k + 2, (behind - 1) * sizeof *v->next);
        memmove(v->prio + k + 1, v->prio + k + 2, (behind - 1) * sizeof *v->prio);
    }
    v->n--;
}

/* Quadratic, but without heap, links or allocation. */
static bool merge_short(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, size_t n,
                        cp_ids *out)
{
    symbols v;
    v.n = 0;
    for (size_t i = 0, len; i < n; i += len, v.n++) {
        v.off[v.n] = (uint32_t)i;
        v.id[v.n] = first_symbol(t, s, i, n, &len);
    }
    v.off[v.n] = (uint32_t)n;
    for (size_t k = 0; k + 1 < v.n; k++)
        look(t, w, s, &v, k);
    while (v.n > 1) {
        uint64_t best = UINT64_MAX; /* priority, then place */
        for (size_t k = 0; k + 1 < v.n; k++) {
            uint64_t key = (uint64_t)v.prio[k] << 32 | k;
            best = key < best ? key : best;
        }
        size_t k = (size_t)(best & UINT32_MAX);
        if (v.next[k] < 0)
            break;
        join(&v, k);
        if (k > 0)
            look(t, w, s, &v, k - 1);
        if (k + 1 < v.n)
            look(t, w, s, &v, k);
    }
    for (size_t k = 0; k < v.n; k++)
        if (!put_symbol(t, s + v.off[k], v.off[k + 1] - v.off[k], v.id[k], out))
            return false;
    return true;
}

/* ---- long words ---- */

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

static bool push_pair(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, int32_t left,
                      int32_t right)
{
    if (left < 0 || right < 0)
        return true;
    const sym *a = &w->sym[left], *b = &w->sym[right];
    uint32_t prio;
    int32_t id = product(t, w, s + a->off, (size_t)a->len + b->len, a->id, b->id, &prio);
    if (id < 0)
        return true;
    return heap_push(w, (cand){.key = (uint64_t)prio << 32 | (uint32_t)left,
                               .right = (uint32_t)right,
                               .len = a->len + b->len,
                               .id = id});
}

/* Merge w->sym[0, n_sym), which are linked in order, as far as it goes. What is left has len > 0.
 */
static bool merge_all(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s)
{
    w->n_heap = 0;
    for (size_t i = 1; i < w->n_sym; i++)
        if (!push_pair(t, w, s, (int32_t)i - 1, (int32_t)i))
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
        if (!push_pair(t, w, s, a->prev, left) || !push_pair(t, w, s, left, a->next))
            return false;
    }
    return true;
}

bool cp_tok_merge(const cp_tokenizer *t, cp_tok_work *w, const uint8_t *s, size_t n, cp_ids *out)
{
    if (n <= SHORT_WORD)
        return merge_short(t, w, s, n, out);
    w->n_sym = 0;
    for (size_t i = 0; i < n;) {
        size_t len;
        int32_t id = first_symbol(t, s, i, n, &len), at = (int32_t)w->n_sym;
        if (!add_sym(w, (sym){.off = (uint32_t)i,
                              .len = (uint32_t)len,
                              .id = id,
                              .prev = at - 1,
                              .next = i + len < n ? at + 1 : -1}))
            return false;
        i += len;
    }
    if (!merge_all(t, w, s))
        return false;
    for (int32_t i = 0; i >= 0; i = w->sym[i].next)
        if (!put_symbol(t, s + w->sym[i].off, w->sym[i].len, w->sym[i].id, out))
            return false;
    return true;
}
