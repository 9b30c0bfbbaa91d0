/*
 * Unicode tables and NFC. Classes lie in a two-stage table (blocks of 256 code points, equal blocks
 * shared). NFC is the algorithm of UAX #15: full canonical decomposition, canonical ordering,
 * composition with the last starter. Runs of combining marks are ordered by a counting sort when
 * long, so hostile runs stay linear.
 */
#include "tokenizer/unicode.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

struct uc_decomp {
    uint32_t cp;
    uint16_t off, len; /* into uc_decomp_pool */
};
struct uc_compose {
    uint32_t a, b, c;
};

#include "tokenizer/generated/unicode_tables.inc"

/* Hangul syllables decompose and compose by arithmetic (Unicode, section 3.12). */
enum {
    S_BASE = 0xAC00,
    L_BASE = 0x1100,
    V_BASE = 0x1161,
    T_BASE = 0x11A7,
    L_COUNT = 19,
    V_COUNT = 21,
    T_COUNT = 28,
    S_COUNT = L_COUNT * V_COUNT * T_COUNT
};

#define RAW_BYTE  0x80000000u /* an invalid byte b travels through NFC as RAW_BYTE | b */
#define SHORT_RUN 32          /* marks up to which insertion sort is used */

const char *cp_uni_version(void)
{
    return UNICODE_VERSION;
}

static unsigned combining_class(uint32_t cp)
{
    if (cp > 0x10FFFF)
        return 0;
    return uc_ccc_block[(size_t)uc_ccc_index[cp >> 8] << 8 | (cp & 0xFF)];
}

bool cp_uni_is_nfc(const uint8_t *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        if (s[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t cp;
        i += cp_uni_decode(s + i, n - i, &cp);
        if (cp_uni_class(cp) & CP_UNI_NFC_CHECK)
            return false;
    }
    return true;
}

static const struct uc_decomp *find_decomp(uint32_t cp)
{
    size_t lo = 0, hi = sizeof uc_decomp / sizeof uc_decomp[0];
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (uc_decomp[mid].cp < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < sizeof uc_decomp / sizeof uc_decomp[0] && uc_decomp[lo].cp == cp)
        return &uc_decomp[lo];
    return NULL;
}

/* The primary composite of a and b, or 0. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b - T_BASE - 1 < T_COUNT - 1)
        return a + (b - T_BASE);
    size_t lo = 0, hi = sizeof uc_compose / sizeof uc_compose[0];
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (uc_compose[mid].a < a || (uc_compose[mid].a == a && uc_compose[mid].b < b))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < sizeof uc_compose / sizeof uc_compose[0] && uc_compose[lo].a == a &&
        uc_compose[lo].b == b)
        return uc_compose[lo].c;
    return 0;
}

/* Append the full decomposition of cp to v; returns how many code points that were (at most 4). */
static size_t decompose(uint32_t cp, uint32_t *v)
{
    if (cp - S_BASE < S_COUNT) {
        uint32_t s = cp - S_BASE;
        v[0] = L_BASE + s / (V_COUNT * T_COUNT);
        v[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        v[2] = T_BASE + s % T_COUNT;
        return s % T_COUNT ? 3 : 2;
    }
    const struct uc_decomp *d = cp < 0xC0 || cp > 0x10FFFF ? NULL : find_decomp(cp);
    if (!d) {
        v[0] = cp;
        return 1;
    }
    memcpy(v, uc_decomp_pool + d->off, d->len * sizeof *v);
    return d->len;
}

/* Order a run of marks (no starters in it) by combining class, stably. tmp has room for n. */
static void order_run(uint32_t *v, size_t n, uint32_t *tmp)
{
    if (n <= SHORT_RUN) {
        for (size_t i = 1; i < n; i++) {
            uint32_t c = v[i];
            unsigned k = combining_class(c);
            size_t j = i;
            for (; j > 0 && combining_class(v[j - 1]) > k; j--)
                v[j] = v[j - 1];
            v[j] = c;
        }
        return;
    }
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[combining_class(v[i]) + 1]++;
    for (size_t k = 1; k < 257; k++)
        at[k] += at[k - 1];
    for (size_t i = 0; i < n; i++)
        tmp[at[combining_class(v[i])]++] = v[i];
    memcpy(v, tmp, n * sizeof *v);
}

/* Compose v[0, n) in place; returns the new length. */
static size_t compose_all(uint32_t *v, size_t n)
{
    size_t out = 0, starter = SIZE_MAX;
    unsigned last = 0; /* class of v[out - 1]; between starter and i classes only ascend */
    for (size_t i = 0; i < n; i++) {
        unsigned k = combining_class(v[i]);
        if (starter != SIZE_MAX && (out == starter + 1 || last < k)) {
            uint32_t c = compose(v[starter], v[i]);
            if (c) {
                v[starter] = c;
                continue;
            }
        }
        if (k == 0)
            starter = out;
        last = k;
        v[out++] = v[i];
    }
    return out;
}

bool cp_uni_nfc(const uint8_t *s, size_t n, cp_buf *out)
{
    /* One code point of L bytes decomposes into at most 4; two per byte is the worst (U+0390: 2
     * bytes, 3). */
    size_t cap;
    if (!cp_mul(n + 2, 2 * sizeof(uint32_t), &cap))
        return false;
    uint32_t *v = malloc(cap), *tmp = malloc(cap);
    bool ok = v && tmp;
    size_t m = 0;
    for (size_t i = 0; ok && i < n;) {
        uint32_t cp;
        size_t len = cp_uni_decode(s + i, n - i, &cp);
        m += decompose(cp == CP_UNI_INVALID ? RAW_BYTE | s[i] : cp, v + m);
        i += len;
    }
    for (size_t i = 0; ok && i < m;) {
        size_t j = i;
        while (j < m && combining_class(v[j]) != 0)
            j++;
        if (j - i > 1)
            order_run(v + i, j - i, tmp);
        i = j + 1;
    }
    if (ok) {
        m = compose_all(v, m);
        ok = cp_buf_reserve(out, n);
    }
    for (size_t i = 0; ok && i < m; i++) {
        char b[4];
        if (v[i] & RAW_BYTE)
            ok = cp_buf_addc(out, (char)(v[i] & 0xFF));
        else
            ok = cp_buf_add(out, b, cp_utf8_encode(v[i], b));
    }
    free(v);
    free(tmp);
    return ok;
}
