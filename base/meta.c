/*
 * A metadata view keeps its records in file order, and an open-addressing hash index over the keys
 * (FNV-1a, load at most 1/2), so that a file with a hundred thousand keys still opens in linear
 * time.
 */
#include "base/meta.h"

#include "base/code.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct cp_meta {
    cp_meta_kv *kvs;
    size_t n, cap;
    uint32_t *index; /* record number + 1; 0 = empty */
    size_t slots;    /* power of two */
};

cp_meta *cp_meta_new(void)
{
    return cp_xcalloc(1, sizeof(cp_meta));
}

void cp_meta_free(cp_meta *m)
{
    if (!m)
        return;
    free(m->kvs);
    free(m->index);
    free(m);
}

static uint64_t hash(const char *p, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * UINT64_C(0x100000001b3);
    return h ^ h >> 29;
}

/* The slot that holds key, or the empty slot where it belongs. */
static uint32_t *slot_of(const cp_meta *m, const char *key, size_t n)
{
    for (size_t i = hash(key, n);; i++) {
        uint32_t *s = &m->index[i & (m->slots - 1)];
        if (!*s)
            return s;
        const cp_str *k = &m->kvs[*s - 1].key;
        if (k->n == n && (n == 0 || memcmp(k->p, key, n) == 0))
            return s;
    }
}

static void grow(cp_meta *m)
{
    m->cap = m->cap ? m->cap * 2 : 32;
    CP_ASSERT(m->cap <= UINT32_MAX / 2);
    m->kvs = cp_xrealloc(m->kvs, m->cap * sizeof(*m->kvs));
    free(m->index);
    m->slots = m->cap * 2;
    m->index = cp_xcalloc(m->slots, sizeof(*m->index));
    for (size_t i = 0; i < m->n; i++)
        *slot_of(m, m->kvs[i].key.p, m->kvs[i].key.n) = (uint32_t)i + 1;
}

bool cp_meta_put(cp_meta *m, const cp_meta_kv *kv)
{
    if (m->n == m->cap)
        grow(m);
    uint32_t *s = slot_of(m, kv->key.p, kv->key.n);
    if (*s)
        return false;
    m->kvs[m->n] = *kv;
    *s = (uint32_t)++m->n;
    return true;
}

size_t cp_meta_count(const cp_meta *m)
{
    return m->n;
}

const cp_meta_kv *cp_meta_at(const cp_meta *m, size_t i)
{
    return i < m->n ? &m->kvs[i] : NULL;
}

const cp_meta_kv *cp_meta_find(const cp_meta *m, const char *key)
{
    if (m->n == 0)
        return NULL;
    uint32_t s = *slot_of(m, key, strlen(key));
    return s ? &m->kvs[s - 1] : NULL;
}

static bool is_unsigned(cp_meta_type t)
{
    return t == CP_META_U8 || t == CP_META_U16 || t == CP_META_U32 || t == CP_META_U64;
}

static bool is_signed(cp_meta_type t)
{
    return t == CP_META_I8 || t == CP_META_I16 || t == CP_META_I32 || t == CP_META_I64;
}

bool cp_meta_u64(const cp_meta *m, const char *key, uint64_t *out)
{
    const cp_meta_kv *kv = cp_meta_find(m, key);
    if (!kv)
        return false;
    if (is_signed(kv->type) && kv->v.i >= 0) {
        *out = (uint64_t)kv->v.i;
        return true;
    }
    if (!is_unsigned(kv->type))
        return false;
    *out = kv->v.u;
    return true;
}

bool cp_meta_i64(const cp_meta *m, const char *key, int64_t *out)
{
    const cp_meta_kv *kv = cp_meta_find(m, key);
    if (!kv)
        return false;
    if (is_unsigned(kv->type) && kv->v.u <= INT64_MAX) {
        *out = (int64_t)kv->v.u;
        return true;
    }
    if (!is_signed(kv->type))
        return false;
    *out = kv->v.i;
    return true;
}

bool cp_meta_f64(const cp_meta *m, const char *key, double *out)
{
    const cp_meta_kv *kv = cp_meta_find(m, key);
    if (!kv)
        return false;
    if (kv->type == CP_META_F32 || kv->type == CP_META_F64)
        *out = kv->v.f;
    else if (is_unsigned(kv->type))
        *out = (double)kv->v.u;
    else if (is_signed(kv->type))
        *out = (double)kv->v.i;
    else
        return false;
    return true;
}

bool cp_meta_bool(const cp_meta *m, const char *key, bool *out)
{
    const cp_meta_kv *kv = cp_meta_find(m, key);
    if (!kv || kv->type != CP_META_BOOL)
        return false;
    *out = kv->v.u != 0;
    return true;
}

bool cp_meta_str(const cp_meta *m, const char *key, cp_str *out)
{
    const cp_meta_kv *kv = cp_meta_find(m, key);
    if (!kv || kv->type != CP_META_STRING)
        return false;
    *out = kv->v.s;
    return true;
}

/* Bytes of one array element as they lie in the file; 0 for strings and nested arrays. */
static size_t elem_bytes(cp_meta_type t)
{
    switch (t) {
    case CP_META_U8:
    case CP_META_I8:
    case CP_META_BOOL:
        return 1;
    case CP_META_U16:
    case CP_META_I16:
        return 2;
    case CP_META_U32:
    case CP_META_I32:
    case CP_META_F32:
        return 4;
    case CP_META_U64:
    case CP_META_I64:
    case CP_META_F64:
        return 8;
    case CP_META_STRING:
    case CP_META_ARRAY:
        break;
    }
    return 0;
}

/* The bits of element i, zero-extended; false: not a numeric array, or i is past its end. */
static bool elem_bits(const cp_meta_kv *kv, uint64_t i, uint64_t *bits)
{
    if (kv->type != CP_META_ARRAY || i >= kv->count)
        return false;
    size_t n = elem_bytes(kv->elem);
    if (n == 0)
        return false;
    const uint8_t *p = (const uint8_t *)kv->v.a + i * n;
    uint64_t x = 0;
    for (size_t b = 0; b < n; b++)
        x |= (uint64_t)p[b] << (8 * b);
    *bits = x;
    return true;
}

bool cp_meta_arr_i64(const cp_meta_kv *kv, uint64_t i, int64_t *out)
{
    uint64_t x;
    if (!elem_bits(kv, i, &x) || kv->elem == CP_META_F32 || kv->elem == CP_META_F64)
        return false;
    if (kv->elem == CP_META_U64 && x > INT64_MAX)
        return false;
    if (kv->elem == CP_META_I8)
        *out = (int8_t)x;
    else if (kv->elem == CP_META_I16)
        *out = (int16_t)x;
    else if (kv->elem == CP_META_I32)
        *out = (int32_t)x;
    else if (kv->elem == CP_META_BOOL)
        *out = x != 0;
    else
        *out = (int64_t)x;
    return true;
}

bool cp_meta_arr_f64(const cp_meta_kv *kv, uint64_t i, double *out)
{
    uint64_t x;
    int64_t whole;
    if (!elem_bits(kv, i, &x) || kv->elem == CP_META_BOOL)
        return false;
    if (kv->elem == CP_META_F32) {
        uint32_t bits = (uint32_t)x;
        float f;
        memcpy(&f, &bits, sizeof(f));
        *out = (double)f;
    } else if (kv->elem == CP_META_F64) {
        memcpy(out, &x, sizeof(*out));
    } else if (kv->elem == CP_META_U64) {
        *out = (double)x;
    } else {
        if (!cp_meta_arr_i64(kv, i, &whole))
            return false;
        *out = (double)whole;
    }
    return true;
}

bool cp_meta_arr_str(const cp_meta_kv *kv, uint64_t i, cp_str *out)
{
    if (kv->type != CP_META_ARRAY || kv->elem != CP_META_STRING || i >= kv->count)
        return false;
    *out = ((const cp_str *)kv->v.a)[i];
    return true;
}
