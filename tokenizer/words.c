/*
 * What the vocabulary says about strings: which token spells one (an open-addressing table; a
 * string of up to 8 bytes is its own key, so nothing else is read), and where no token can lie
 * across a border between two characters (the seams). Merging works on each side of such a border
 * alone, whatever the other holds, as every product of a merge is a token.
 */
#include "tokenizer/internal.h"

#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

#define SEAM_BITS 19 /* log2 of the bits for pairs of characters */

enum { SHORT_KEY = 8 };

static uint32_t load32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* s[0, n) as a number, n from 1 to SHORT_KEY; else a hash of it. */
static uint64_t key_of(const uint8_t *s, size_t n)
{
    if (n <= SHORT_KEY)
        return n >= 4
                   ? load32(s) | (uint64_t)load32(s + n - 4) << 8 * (n - 4)
                   : s[0] | (uint64_t)s[n / 2] << 8 * (n / 2) | (uint64_t)s[n - 1] << 8 * (n - 1);
    uint64_t h = n, w;
    for (size_t i = 0;; i = i + 16 < n ? i + 8 : n - 8) {
        w = load32(s + i) | (uint64_t)load32(s + i + 4) << 32;
        h = (h ^ w) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
        if (i + 8 == n)
            return h;
    }
}

static uint64_t hash_of(uint64_t key, size_t n)
{
    uint64_t h = (key ^ (uint64_t)n << 56) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}

bool cp_tok_filter_init(cp_tok_filter *f, size_t n)
{
    uint32_t bits = 64; /* at least 8 an entry, up to what the hash can tell apart */
    while (bits < 8 * n && bits < 1u << 24)
        bits *= 2;
    *f = (cp_tok_filter){.bit = calloc(bits / 64, sizeof *f->bit), .mask = bits - 1};
    return f->bit != NULL;
}

bool cp_tok_words_init(cp_tok_words *w, size_t n, const cp_str *str)
{
    uint32_t cap = 16;
    while (cap < n + n / 2)
        cap *= 2;
    *w = (cp_tok_words){.slot = calloc(cap, sizeof *w->slot), .mask = cap - 1, .str = str};
    return w->slot && cp_tok_filter_init(&w->filter, n);
}

void cp_tok_words_fini(cp_tok_words *w)
{
    free(w->slot);
    free(w->filter.bit);
}

/* The slot that holds s, or the free one where it belongs. */
static cp_tok_slot *find_slot(const cp_tok_words *w, const void *s, size_t n, uint64_t key,
                              uint64_t hash)
{
    for (uint32_t h = (uint32_t)hash & w->mask;; h = (h + 1) & w->mask) {
        cp_tok_slot *v = &w->slot[h];
        if (v->next_id == 0 || (v->key == key && v->len == n &&
                                (n <= SHORT_KEY || memcmp(w->str[v->next_id - 1].p, s, n) == 0)))
            return v;
    }
}

void cp_tok_words_add(cp_tok_words *w, int32_t id)
{
    const cp_str *s = &w->str[id];
    if (s->n == 0)
        return;
    uint64_t key = key_of((const uint8_t *)s->p, s->n), hash = hash_of(key, s->n);
    cp_tok_slot *v = find_slot(w, s->p, s->n, key, hash);
    if (v->next_id)
        return;
    *v = (cp_tok_slot){key, (uint32_t)s->n, id + 1};
    cp_tok_filter_add(&w->filter, hash);
    if (s->n > w->longest)
        w->longest = s->n;
}

int32_t cp_tok_words_find(const cp_tok_words *w, const void *s, size_t n)
{
    if (n == 0 || n > w->longest)
        return -1;
    uint64_t key = key_of(s, n), hash = hash_of(key, n);
    return cp_tok_filter_has(&w->filter, hash) ? find_slot(w, s, n, key, hash)->next_id - 1 : -1;
}

/* ---- seams ---- */

static bool get_bit(const uint64_t *v, uint32_t i)
{
    return v[i / 64] >> i % 64 & 1;
}

static void set_bit(uint64_t *v, uint32_t i)
{
    v[i / 64] |= (uint64_t)1 << i % 64;
}

/* The bit of two characters, and that of the two bytes at a border. */
static uint32_t char_bit(uint32_t a, uint32_t b)
{
    return (uint32_t)(cp_tok_hash2(a, b) >> 8) & ((1u << SEAM_BITS) - 1);
}

static uint32_t byte_bit(uint8_t a, uint8_t b)
{
    return (uint32_t)a << 8 | b;
}

bool cp_tok_seams_init(cp_tok_seams *m)
{
    m->chars = calloc(((size_t)1 << SEAM_BITS) / 64, sizeof *m->chars);
    m->bytes = calloc(65536 / 64, sizeof *m->bytes);
    return m->chars && m->bytes;
}

/* The character that ends before s[at], at > 0, or CP_UNI_INVALID. */
static uint32_t char_before(const uint8_t *s, size_t at)
{
    uint32_t cp;
    for (size_t back = 1; back <= 4 && back <= at; back++)
        if (cp_uni_decode(s + at - back, back, &cp) == back && cp != CP_UNI_INVALID)
            return cp;
    return CP_UNI_INVALID;
}

void cp_tok_seams_add(cp_tok_seams *m, const void *text, size_t n)
{
    const uint8_t *s = text;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) == 0x80 || (s[i] < 0x80 && s[i - 1] < 0x80))
            continue; /* inside a character, or between two that never count */
        uint32_t a = char_before(s, i), b;
        cp_uni_decode(s + i, n - i, &b);
        if (a == CP_UNI_INVALID || b == CP_UNI_INVALID)
            set_bit(m->bytes, byte_bit(s[i - 1], s[i]));
        else
            set_bit(m->chars, char_bit(a, b));
    }
}

size_t cp_tok_seams_next(const cp_tok_seams *m, const uint8_t *s, size_t i, size_t n)
{
    uint32_t a, b;
    size_t at = i + cp_uni_decode(s + i, n - i, &a);
    while (at < n) {
        size_t len = cp_uni_decode(s + at, n - at, &b);
        if ((a >= 0x80 || b >= 0x80) && a != CP_UNI_INVALID && b != CP_UNI_INVALID &&
            !get_bit(m->chars, char_bit(a, b)) && !get_bit(m->bytes, byte_bit(s[at - 1], s[at])))
            return at;
        at += len;
        a = b;
    }
    return n;
}
