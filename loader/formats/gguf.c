/*
 * GGUF versions 2 and 3 from bytes: header, metadata, tensor infos, data section.
 *
 * The bytes are hostile. One bounded cursor reads them, every count and length is compared with
 * what is left before anything is allocated for it, and the grammar is strict: no duplicate key or
 * tensor, offsets equal the running padded sum (so no overlap and no hole), nothing but padding
 * after the last tensor. Memory stays below about three times the size of the header. Source: ggml
 * docs/gguf.md; the checks are those of ggml/src/gguf.cpp, and arrays of arrays are refused as
 * there. Each value is read from the map once: it may change under us. The beginning of a file,
 * for example, little-endian:
 *
 *     47 47 55 46  03 00 00 00                      "GGUF", version 3
 *     02 00 00 00 00 00 00 00                       2 tensors
 *     01 00 00 00 00 00 00 00                       1 metadata pair:
 *     14 00 00 00 00 00 00 00  "general.architecture"   its key has 20 bytes
 *     08 00 00 00                                   its type is 8, a string
 *     05 00 00 00 00 00 00 00  "llama"              of 5 bytes
 */
#include "base/mem.h"
#include "loader/formats/foreign.h"
#include "loader/formats/format.h"
#include "loader/loader.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 18,
    MAX_STRING = 1 << 30, /* also array elements */
    MAX_KEY = 65535,
    MAX_NAME = 63,
    MAX_DIMS = 4,
    MIN_KV_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8,
    DEFAULT_ALIGNMENT = 32,
    MAX_ALIGNMENT = 1 << 30,
};

struct cp_gguf {
    cp_weights w;
};

/* Bytes of a fixed-size value of each metadata type; 0 for strings and arrays. */
static const uint8_t value_bytes[] = {
    [CP_META_U8] = 1,     [CP_META_I8] = 1,    [CP_META_U16] = 2, [CP_META_I16] = 2,
    [CP_META_U32] = 4,    [CP_META_I32] = 4,   [CP_META_F32] = 4, [CP_META_BOOL] = 1,
    [CP_META_STRING] = 0, [CP_META_ARRAY] = 0, [CP_META_U64] = 8, [CP_META_I64] = 8,
    [CP_META_F64] = 8,
};
enum { N_VALUE_TYPES = sizeof(value_bytes) / sizeof(value_bytes[0]) };

/* Where the parser stands, for messages. */
typedef struct reader {
    cp_cursor c;
    cp_weights *w;
    cp_err *err;
} reader;

static size_t left(const reader *r)
{
    return r->c.n - r->c.off;
}

static cp_code cut(reader *r, const char *what)
{
    return cp_fail(r->err, CP_CORRUPT, "GGUF: file ends within %s (offset %zu of %zu)", what,
                   r->c.off, r->c.n);
}

/* A name from the file for a message: printable ASCII only, at most 48 characters. */
typedef struct shown {
    char s[52];
} shown;

static shown show(const char *p, size_t n)
{
    shown out;
    size_t k = 0;
    for (; k < n && k < sizeof(out.s) - 4; k++)
        out.s[k] = p[k] >= ' ' && p[k] <= '~' ? p[k] : '?';
    if (k < n) {
        memcpy(out.s + k, "...", 3);
        k += 3;
    }
    out.s[k] = '\0';
    return out;
}

static cp_code read_string(reader *r, const char *what, uint64_t max, cp_str *out)
{
    size_t at = r->c.off;
    uint64_t n;
    if (!cp_cur_u64(&r->c, &n))
        return cut(r, what);
    if (n > max || n > left(r))
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: %s at offset %zu claims %llu bytes; %zu are left, the limit is %llu",
                       what, at, (unsigned long long)n, left(r), (unsigned long long)max);
    const uint8_t *p;
    if (!cp_cur_bytes(&r->c, (size_t)n, &p))
        return cut(r, what);
    *out = (cp_str){(const char *)p, (size_t)n};
    return CP_OK;
}

static uint64_t load_le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* One fixed-size value of kv->type, from its little-endian bytes. False: a bool that is neither 0
 * nor 1. */
static bool load_value(cp_meta_kv *kv, const uint8_t *p)
{
    uint64_t u = load_le(p, value_bytes[kv->type]);
    switch (kv->type) {
    case CP_META_I8:
        kv->v.i = (int8_t)u;
        return true;
    case CP_META_I16:
        kv->v.i = (int16_t)u;
        return true;
    case CP_META_I32:
        kv->v.i = (int32_t)u;
        return true;
    case CP_META_I64:
        kv->v.i = (int64_t)u;
        return true;
    case CP_META_F32: {
        uint32_t bits = (uint32_t)u;
        float f;
        memcpy(&f, &bits, sizeof(f));
        kv->v.f = (double)f;
        return true;
    }
    case CP_META_F64:
        memcpy(&kv->v.f, &u, sizeof(kv->v.f));
        return true;
    case CP_META_BOOL:
        kv->v.u = u;
        return u <= 1;
    default:
        kv->v.u = u;
        return true;
    }
}

/* Remember memory that lives as long as the weights. Frees p on failure. */
static bool own(cp_weights *w, void *p)
{
    if (w->n_owned == w->cap_owned) {
        size_t cap = w->cap_owned ? 2 * w->cap_owned : 8;
        void **grown = realloc(w->owned, cap * sizeof(*grown));
        if (!grown) {
            free(p);
            return false;
        }
        w->owned = grown;
        w->cap_owned = cap;
    }
    w->owned[w->n_owned++] = p;
    return true;
}

static cp_code read_string_array(reader *r, const char *key, cp_meta_kv *kv)
{
    if (kv->count > left(r) / 8)
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: key '%s' claims %llu strings; only %zu bytes are left", key,
                       (unsigned long long)kv->count, left(r));
    size_t count = (size_t)kv->count;
    cp_str *a = malloc(count ? count * sizeof(*a) : 1);
    if (!a || !own(r->w, a))
        return cp_fail(r->err, CP_NO_MEMORY, "GGUF: no memory for %zu strings of key '%s'", count,
                       key);
    for (size_t i = 0; i < count; i++) {
        uint64_t n;
        const uint8_t *p;
        size_t at = r->c.off;
        if (!cp_cur_u64(&r->c, &n) || n > MAX_STRING || n > left(r) ||
            !cp_cur_bytes(&r->c, (size_t)n, &p))
            return cp_fail(
                r->err, CP_CORRUPT,
                "GGUF: string %zu of key '%s' at offset %zu runs past the file's %zu bytes", i, key,
                at, r->c.n);
        a[i] = (cp_str){(const char *)p, (size_t)n};
    }
    kv->v.a = a;
    return CP_OK;
}

static cp_code read_array(reader *r, const char *key, cp_meta_kv *kv)
{
    size_t at = r->c.off;
    uint32_t elem;
    uint64_t count;
    if (!cp_cur_u32(&r->c, &elem) || !cp_cur_u64(&r->c, &count))
        return cut(r, "an array's header");
    if (elem >= N_VALUE_TYPES)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: key '%s' at offset %zu: unknown element type %u",
                       key, at, elem);
    if (elem == CP_META_ARRAY)
        return cp_fail(r->err, CP_UNSUPPORTED, "GGUF: key '%s' at offset %zu is an array of arrays",
                       key, at);
    if (count > MAX_STRING)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: key '%s' at offset %zu claims %llu elements", key,
                       at, (unsigned long long)count);
    kv->elem = (cp_meta_type)elem;
    kv->count = count;
    if (elem == CP_META_STRING)
        return read_string_array(r, key, kv);
    const uint8_t *p;
    size_t bytes;
    if (!cp_mul((size_t)count, value_bytes[elem], &bytes) || !cp_cur_bytes(&r->c, bytes, &p))
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: key '%s' at offset %zu claims %llu elements; only %zu bytes are left",
                       key, at, (unsigned long long)count, left(r));
    if (elem == CP_META_BOOL)
        for (size_t i = 0; i < bytes; i++)
            if (p[i] > 1)
                return cp_fail(r->err, CP_CORRUPT, "GGUF: key '%s': element %zu is no bool: %u",
                               key, i, p[i]);
    kv->v.a = p;
    return CP_OK;
}

static cp_code read_kv(reader *r, uint64_t i)
{
    size_t at = r->c.off;
    cp_meta_kv kv = {.count = 1};
    uint32_t type;
    cp_code code = read_string(r, "a key", MAX_KEY, &kv.key);
    if (code)
        return code;
    shown key = show(kv.key.p, kv.key.n);
    if (kv.key.n == 0 || memchr(kv.key.p, 0, kv.key.n))
        return cp_fail(r->err, CP_CORRUPT, "GGUF: key %llu at offset %zu is empty or holds a NUL",
                       (unsigned long long)i, at);
    if (!cp_cur_u32(&r->c, &type))
        return cut(r, "a value's type");
    if (type >= N_VALUE_TYPES)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: key '%s' at offset %zu: unknown value type %u",
                       key.s, at, type);
    kv.type = (cp_meta_type)type;
    if (type == CP_META_STRING) {
        code = read_string(r, "a string value", MAX_STRING, &kv.v.s);
    } else if (type == CP_META_ARRAY) {
        code = read_array(r, key.s, &kv);
    } else {
        const uint8_t *p;
        if (!cp_cur_bytes(&r->c, value_bytes[type], &p))
            return cut(r, "a value");
        if (!load_value(&kv, p))
            return cp_fail(r->err, CP_CORRUPT, "GGUF: key '%s': %u is no bool", key.s, p[0]);
    }
    if (code)
        return code;
    if (!cp_meta_put(r->w->meta, &kv))
        return cp_fail(r->err, CP_CORRUPT, "GGUF: key '%s' at offset %zu is there twice", key.s,
                       at);
    return CP_OK;
}

/* general.alignment, checked. */
static cp_code read_alignment(reader *r, uint64_t *out)
{
    const cp_meta_kv *kv = cp_meta_find(r->w->meta, "general.alignment");
    *out = DEFAULT_ALIGNMENT;
    if (!kv)
        return CP_OK;
    if (kv->type != CP_META_U32)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: general.alignment has type %d, not u32",
                       kv->type);
    if (kv->v.u == 0 || kv->v.u > MAX_ALIGNMENT || (kv->v.u & (kv->v.u - 1)))
        return cp_fail(r->err, CP_CORRUPT, "GGUF: general.alignment %llu is no power of two",
                       (unsigned long long)kv->v.u);
    *out = kv->v.u;
    return CP_OK;
}

static cp_code check_type(reader *r, const char *name, uint32_t type)
{
    if (cp_dtype_info(type))
        return CP_OK;
    bool removed =
        type == 4 || type == 5 || (type >= 31 && type <= 33) || (type >= 36 && type <= 38);
    return cp_fail(r->err, CP_UNSUPPORTED, "GGUF: tensor '%s' has %s type %u", name,
                   removed ? "the removed" : "an unknown", type);
}

/* Sizes of tensor t from its dims and type: bytes, and elements added to the total. */
static cp_code size_tensor(reader *r, cp_tensor *t, const char *shown_name)
{
    const cp_dtype_row *row = cp_dtype_info((uint32_t)t->type);
    int64_t elems = 1;
    for (int d = 0; d < MAX_DIMS; d++)
        if (__builtin_mul_overflow(elems, t->ne[d], &elems))
            return cp_fail(r->err, CP_CORRUPT,
                           "GGUF: tensor '%s': %lld x %lld x %lld x %lld overflows", shown_name,
                           (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                           (long long)t->ne[3]);
    if (t->ne[0] % row->block)
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: tensor '%s': row of %lld is no multiple of %s's %d", shown_name,
                       (long long)t->ne[0], row->name, row->block);
    if (!cp_mul((size_t)(elems / row->block), (size_t)row->bytes, &t->bytes) ||
        __builtin_add_overflow(r->w->n_params, (uint64_t)elems, &r->w->n_params))
        return cp_fail(r->err, CP_CORRUPT, "GGUF: tensor '%s': %lld elements of %s overflow",
                       shown_name, (long long)elems, row->name);
    return CP_OK;
}

/* One tensor info; *offset is where the data section has it. */
static cp_code read_tensor(reader *r, size_t i, uint64_t *offset)
{
    cp_weights *w = r->w;
    cp_tensor *t = &w->tensors[i];
    size_t at = r->c.off;
    cp_str name;
    cp_code code = read_string(r, "a tensor's name", MAX_NAME, &name);
    if (code)
        return code;
    shown sn = show(name.p, name.n);
    memcpy(w->names[i], name.p, name.n); /* the rest is zero */
    if (strlen(w->names[i]) != name.n || name.n == 0)
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: tensor %zu at offset %zu: name empty or with a NUL", i, at);
    t->name = w->names[i];
    w->n_tensors = i + 1;
    if (!cp_name_index_add(&w->index, w->tensors, i))
        return cp_fail(r->err, CP_CORRUPT, "GGUF: tensor '%s' at offset %zu is there twice", sn.s,
                       at);
    uint32_t n_dims, type;
    if (!cp_cur_u32(&r->c, &n_dims))
        return cut(r, "a tensor's dimensions");
    if (n_dims > MAX_DIMS)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: tensor '%s' has %u dimensions, more than %d",
                       sn.s, n_dims, MAX_DIMS);
    t->n_dims = (int)n_dims;
    for (uint32_t d = 0; d < MAX_DIMS; d++) {
        uint64_t v = 1;
        if (d < n_dims && !cp_cur_u64(&r->c, &v))
            return cut(r, "a tensor's dimensions");
        if (v == 0 || v > INT64_MAX)
            return cp_fail(r->err, CP_CORRUPT, "GGUF: tensor '%s': dimension %u is %lld", sn.s, d,
                           (long long)v);
        t->ne[d] = (int64_t)v;
    }
    if (!cp_cur_u32(&r->c, &type) || !cp_cur_u64(&r->c, offset))
        return cut(r, "a tensor's type and offset");
    code = check_type(r, sn.s, type);
    if (code)
        return code;
    t->type = (cp_dtype)type;
    return size_tensor(r, t, sn.s);
}

/*
 * Place tensor i: its offset must be the running padded sum `at`, and it must end within the file's
 * `room` bytes of data section. Moves *at behind it, padded; *end is where it ends, not padded.
 */
static cp_code place_tensor(reader *r, size_t i, uint64_t offset, uint64_t align, uint64_t *at,
                            uint64_t *end)
{
    cp_tensor *t = &r->w->tensors[i];
    shown name = show(t->name, strlen(t->name));
    if (offset != *at)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: tensor '%s' has offset %llu, expected %llu",
                       name.s, (unsigned long long)offset, (unsigned long long)*at);
    if (__builtin_add_overflow(offset, (uint64_t)t->bytes, end) ||
        __builtin_add_overflow(*end, align - 1, at))
        return cp_fail(r->err, CP_CORRUPT, "GGUF: tensor '%s': offset %llu + %zu bytes overflow",
                       name.s, (unsigned long long)offset, t->bytes);
    *at &= ~(align - 1);
    return CP_OK;
}

/* Magic, version and the two counts. */
static cp_code read_header(reader *r, uint64_t *n_tensors, uint64_t *n_kv)
{
    const uint8_t *magic;
    uint32_t version;
    if (!cp_cur_bytes(&r->c, 4, &magic))
        return cut(r, "the magic");
    if (memcmp(magic, "GGUF", 4) != 0)
        return cp_foreign_file(r->c.p, r->c.n, r->err);
    if (!cp_cur_u32(&r->c, &version))
        return cut(r, "the version");
    if (version && (version & 0xffff) == 0)
        return cp_fail(r->err, CP_UNSUPPORTED,
                       "GGUF: version field %#x: this is a big-endian file; convert it first",
                       version);
    if (version == 1 || version > 3)
        return cp_fail(r->err, CP_UNSUPPORTED, "GGUF: version %u; supported: 2, 3", version);
    if (version == 0)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: version 0");
    if (!cp_cur_u64(&r->c, n_tensors) || !cp_cur_u64(&r->c, n_kv))
        return cut(r, "the header");
    if (*n_kv > MAX_KEYS || *n_kv > left(r) / MIN_KV_BYTES)
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: %llu keys claimed; %zu bytes are left, the limit is %d",
                       (unsigned long long)*n_kv, left(r), MAX_KEYS);
    if (*n_tensors > MAX_TENSORS || *n_tensors > left(r) / MIN_TENSOR_BYTES)
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: %llu tensors claimed; %zu bytes are left, the limit is %d",
                       (unsigned long long)*n_tensors, left(r), MAX_TENSORS);
    return CP_OK;
}

/* All tensor infos, then the data section's bounds and every tensor's pointer into it. */
static cp_code read_tensors(reader *r, size_t n)
{
    cp_weights *w = r->w;
    uint64_t align, at = 0, end = 0, offset;
    cp_code code = read_alignment(r, &align);
    if (code)
        return code;
    w->tensors = calloc(n ? n : 1, sizeof(*w->tensors));
    w->names = calloc(n ? n : 1, sizeof(*w->names));
    if (!w->tensors || !w->names || !cp_name_index_init(&w->index, n))
        return cp_fail(r->err, CP_NO_MEMORY, "GGUF: no memory for %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        code = read_tensor(r, i, &offset);
        if (!code)
            code = place_tensor(r, i, offset, align, &at, &end);
        if (code)
            return code;
    }
    uint64_t size = r->c.n, start = ((uint64_t)r->c.off + align - 1) & ~(align - 1);
    if (n == 0) {
        if (size > start)
            return cp_fail(r->err, CP_CORRUPT,
                           "GGUF: %llu bytes after the last record of a file without tensors",
                           (unsigned long long)(size - r->c.off));
        w->data_offset = size;
        return CP_OK;
    }
    if (start > size || end > size - start)
        return cp_fail(r->err, CP_CORRUPT,
                       "GGUF: tensor '%s' ends at %llu of the data section, which begins at %llu; "
                       "the file has "
                       "%llu bytes (is the download complete?)",
                       show(w->tensors[n - 1].name, strlen(w->tensors[n - 1].name)).s,
                       (unsigned long long)end, (unsigned long long)start,
                       (unsigned long long)size);
    if (size - start > at)
        return cp_fail(r->err, CP_CORRUPT, "GGUF: %llu bytes after the last tensor's padding",
                       (unsigned long long)(size - start - at));
    w->data_offset = start;
    const uint8_t *p = r->c.p + start;
    for (size_t i = 0; i < n; i++) {
        w->tensors[i].data = p;
        p += i + 1 < n ? (w->tensors[i].bytes + align - 1) & ~(align - 1) : 0;
    }
    return CP_OK;
}

/* See format.h. O(file header); tensor data is not touched. */
cp_code cp_gguf_read(cp_weights **out, const uint8_t *p, size_t n, cp_err *err)
{
    *out = NULL;
    cp_weights *w = calloc(1, sizeof(struct cp_gguf));
    if (!w)
        return cp_fail(err, CP_NO_MEMORY, "GGUF: no memory");
    w->meta = cp_meta_new();
    reader r = {.c = {.p = p, .n = n}, .w = w, .err = err};
    uint64_t n_tensors = 0, n_kv = 0;
    cp_code code = read_header(&r, &n_tensors, &n_kv);
    for (uint64_t i = 0; !code && i < n_kv; i++)
        code = read_kv(&r, i);
    if (!code)
        code = read_tensors(&r, (size_t)n_tensors);
    if (code) {
        cp_weights_free(w);
        return code;
    }
    *out = w;
    return CP_OK;
}

/* See loader.h. */
cp_code cp_gguf_parse(cp_gguf **out, const uint8_t *p, size_t n, cp_err *err)
{
    cp_weights *w;
    cp_code code = cp_gguf_read(&w, p, n, err);
    *out = (cp_gguf *)w; /* its first member */
    return code;
}

/* See loader.h. */
void cp_gguf_free(cp_gguf *g)
{
    if (g)
        cp_weights_free(&g->w);
}
