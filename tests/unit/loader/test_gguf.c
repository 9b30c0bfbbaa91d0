/*
 * GGUF: everything a file can hold is read right, and everything that can be wrong with it is
 * refused with a message that names it. Inputs are heap copies of exact size, so that a sanitizer
 * sees any read past the end.
 */
#include "base/dtype.h"
#include "loader/formats/format.h"
#include "loader/loader.h"
#include "tests/unit/loader/make_gguf.h"
#include "tests/unit/loader/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Parse a copy of exactly n bytes. The weights do not outlive the copy: ok says what it was. */
static cp_code parse_copy(const char *p, size_t n, cp_err *err)
{
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, p, n);
    cp_gguf *g;
    *err = (cp_err){0};
    cp_code code = cp_gguf_parse(&g, copy, n, err);
    assert_true((code == CP_OK) == (g != NULL));
    if (code)
        assert_true(err->msg[0] != '\0' && err->code == code);
    cp_gguf_free(g);
    free(copy);
    return code;
}

/* The file is refused with `want`, and the message says `text`. */
static void refused(cp_mk *m, cp_code want, const char *text)
{
    cp_err err;
    cp_code code = parse_copy(m->b.p, m->b.n, &err);
    if (code != want || !strstr(err.msg, text))
        fail_msg("got code %d '%s', wanted code %d '%s'", code, err.msg, want, text);
    cp_mk_fini(m);
}

/* A file with every metadata type and three tensors. */
static void make_full(cp_mk *m, uint32_t version)
{
    cp_mk_init(m, version);
    cp_mk_kv_str(m, "general.architecture", "llama");
    cp_mk_key(m, "t.u8", CP_META_U8), cp_mk_u(m, 200, 1);
    cp_mk_key(m, "t.i8", CP_META_I8), cp_mk_u(m, 0xfe, 1);
    cp_mk_key(m, "t.u16", CP_META_U16), cp_mk_u(m, 60000, 2);
    cp_mk_key(m, "t.i16", CP_META_I16), cp_mk_u(m, 0x8000, 2);
    cp_mk_key(m, "t.u32", CP_META_U32), cp_mk_u(m, 4000000000u, 4);
    cp_mk_key(m, "t.i32", CP_META_I32), cp_mk_u(m, 0xfffffffb, 4);
    cp_mk_key(m, "t.f32", CP_META_F32), cp_mk_u(m, 0x3fc00000, 4);
    cp_mk_key(m, "t.bool", CP_META_BOOL), cp_mk_u(m, 1, 1);
    cp_mk_key(m, "t.u64", CP_META_U64), cp_mk_u(m, UINT64_MAX, 8);
    cp_mk_key(m, "t.i64", CP_META_I64), cp_mk_u(m, (uint64_t)INT64_MIN, 8);
    cp_mk_key(m, "t.f64", CP_META_F64), cp_mk_u(m, 0xc004000000000000u, 8);
    cp_mk_array(m, "t.a.i16", CP_META_I16, 3);
    cp_mk_u(m, 1, 2), cp_mk_u(m, 0xffff, 2), cp_mk_u(m, 3, 2);
    cp_mk_array(m, "t.a.f32", CP_META_F32, 2);
    cp_mk_u(m, 0x3f800000, 4), cp_mk_u(m, 0xbf800000, 4);
    cp_mk_array(m, "t.a.bool", CP_META_BOOL, 2);
    cp_mk_u(m, 1, 1), cp_mk_u(m, 0, 1);
    cp_mk_array(m, "t.a.str", CP_META_STRING, 3);
    cp_mk_text(m, "one"), cp_mk_text(m, ""), cp_mk_text(m, "\xe4\xb8\x89");
    cp_mk_array(m, "t.a.none", CP_META_STRING, 0);
    cp_mk_tensor(m, "a.weight", CP_DTYPE_F32, 1, (const uint64_t[]){3});
    cp_mk_tensor(m, "b.weight", CP_DTYPE_Q4_K, 2, (const uint64_t[]){512, 2});
    cp_mk_tensor(m, "c", CP_DTYPE_Q8_0, 4, (const uint64_t[]){32, 2, 1, 3});
    cp_mk_finish(m);
}

static void reads_every_type(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        cp_mk m;
        cp_weights *w;
        cp_err err = {0};
        make_full(&m, version);
        assert_int_equal(cp_gguf_read(&w, (const uint8_t *)m.b.p, m.b.n, &err), CP_OK);
        uint64_t u;
        int64_t i;
        double f;
        bool b;
        cp_str s;
        assert_int_equal(cp_meta_count(w->meta), 17);
        assert_true(cp_meta_u64(w->meta, "t.u8", &u) && u == 200);
        assert_true(cp_meta_i64(w->meta, "t.i8", &i) && i == -2);
        assert_true(cp_meta_u64(w->meta, "t.u16", &u) && u == 60000);
        assert_true(cp_meta_i64(w->meta, "t.i16", &i) && i == -32768);
        assert_true(cp_meta_u64(w->meta, "t.u32", &u) && u == 4000000000u);
        assert_true(cp_meta_i64(w->meta, "t.i32", &i) && i == -5);
        assert_true(cp_meta_f64(w->meta, "t.f32", &f) && f >= 1.5 && f <= 1.5);
        assert_true(cp_meta_bool(w->meta, "t.bool", &b) && b);
        assert_true(cp_meta_u64(w->meta, "t.u64", &u) && u == UINT64_MAX);
        assert_true(cp_meta_i64(w->meta, "t.i64", &i) && i == INT64_MIN);
        assert_true(cp_meta_f64(w->meta, "t.f64", &f) && f >= -2.5 && f <= -2.5);
        assert_true(cp_meta_arr_i64(cp_meta_find(w->meta, "t.a.i16"), 1, &i) && i == -1);
        assert_true(cp_meta_arr_f64(cp_meta_find(w->meta, "t.a.f32"), 1, &f) && f < 0);
        assert_true(cp_meta_arr_i64(cp_meta_find(w->meta, "t.a.bool"), 0, &i) && i == 1);
        assert_true(cp_meta_arr_str(cp_meta_find(w->meta, "t.a.str"), 2, &s) && s.n == 3);
        assert_memory_equal(s.p, "\xe4\xb8\x89", 3);
        assert_true(cp_meta_arr_str(cp_meta_find(w->meta, "t.a.str"), 1, &s) && s.n == 0);
        assert_false(cp_meta_arr_str(cp_meta_find(w->meta, "t.a.none"), 0, &s));
        assert_int_equal(w->n_tensors, 3);
        assert_int_equal(w->n_params, 3 + 1024 + 192);
        const cp_tensor *t = w->tensors;
        const uint8_t *data = (const uint8_t *)m.b.p + w->data_offset;
        assert_string_equal(t[0].name, "a.weight");
        assert_true(t[0].n_dims == 1 && t[0].ne[0] == 3 && t[0].ne[1] == 1 && t[0].bytes == 12);
        assert_ptr_equal(t[0].data, data);
        assert_true(t[1].bytes == 4 * 144 && t[1].type == CP_DTYPE_Q4_K);
        assert_ptr_equal(t[1].data, data + 32);
        assert_true(t[2].bytes == 6 * 34 && t[2].ne[1] == 2 && t[2].ne[3] == 3);
        assert_ptr_equal(t[2].data, data + 32 + 576);
        assert_int_equal(cp_name_index_find(&w->index, t, "c"), 2);
        assert_int_equal(cp_name_index_find(&w->index, t, "d"), -1);
        cp_weights_free(w);
        cp_mk_fini(&m);
    }
}

/* A download that stopped anywhere: an error, never a crash, never a model. */
static void cut_at_every_offset(void **state)
{
    (void)state;
    cp_mk m;
    cp_err err;
    make_full(&m, 3);
    size_t padding = 32 - 6 * 34 % 32; /* of the last tensor: may be absent */
    for (size_t n = 0; n <= m.b.n; n++)
        assert_int_equal(parse_copy(m.b.p, n, &err), n + padding < m.b.n ? CP_CORRUPT : CP_OK);
    cp_mk_fini(&m);
}

/* Every byte of the header in turn takes hostile values; whatever is accepted must still be
 * walkable. */
static void mutate_every_offset(void **state)
{
    (void)state;
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    cp_mk m;
    cp_err err;
    make_full(&m, 3);
    int accepted = 0, rejected = 0;
    for (size_t at = 0; at < m.b.n - m.data; at++) {
        char old = m.b.p[at];
        for (size_t k = 0; k < 2 * sizeof(values); k++) {
            m.b.p[at] = k < sizeof(values) ? (char)values[k]
                                           : (char)(old ^ (char)values[k - sizeof(values)]);
            if (parse_copy(m.b.p, m.b.n, &err) == CP_OK)
                accepted++;
            else
                rejected++;
        }
        m.b.p[at] = old;
    }
    assert_true(rejected > 1000 && accepted > 100);
    cp_mk_fini(&m);
}

static void header_is_checked(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        int bytes;
        uint64_t v;
        cp_code code;
        const char *text;
    } rows[] = {
        {0, 1, 'X', CP_CORRUPT, "magic"},
        {4, 4, 0, CP_CORRUPT, "version 0"},
        {4, 4, 1, CP_UNSUPPORTED, "version 1; supported: 2, 3"},
        {4, 4, 4, CP_UNSUPPORTED, "version 4"},
        {4, 4, 3u << 24, CP_UNSUPPORTED, "big-endian"},
        {8, 8, 1000, CP_CORRUPT, "1000 tensors claimed"},
        {8, 8, UINT64_MAX, CP_CORRUPT, "tensors claimed"},
        {16, 8, 5000, CP_CORRUPT, "5000 keys claimed"},
        {16, 8, UINT64_MAX, CP_CORRUPT, "keys claimed"},
        {24, 8, UINT64_MAX, CP_CORRUPT, "a key at offset 24 claims"},
        {24, 8, 0, CP_CORRUPT, "key 0 at offset 24 is empty"},
        {32, 1, 0, CP_CORRUPT, "holds a NUL"},
        {52, 4, 13, CP_CORRUPT, "'general.architecture' at offset 24: unknown value type 13"},
        {56, 8, 1u << 31, CP_CORRUPT, "a string value at offset 56 claims"},
        {56, 8, 1u << 20, CP_CORRUPT, "a string value at offset 56 claims 1048576 bytes"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_mk m;
        make_full(&m, 3);
        for (int k = 0; k < rows[i].bytes; k++)
            m.b.p[rows[i].at + (size_t)k] = (char)(uint8_t)(rows[i].v >> (8 * k));
        refused(&m, rows[i].code, rows[i].text);
    }
}

static void metadata_is_checked(void **state)
{
    (void)state;
    cp_mk m;
    cp_mk_init(&m, 3);
    cp_mk_kv_u32(&m, "same", 1), cp_mk_kv_u32(&m, "same", 1);
    cp_mk_finish(&m);
    refused(&m, CP_CORRUPT, "key 'same' at offset 44 is there twice");

    cp_mk_init(&m, 3);
    cp_mk_key(&m, "b", CP_META_BOOL), cp_mk_u(&m, 2, 1);
    cp_mk_finish(&m);
    refused(&m, CP_CORRUPT, "'b': 2 is no bool");

    cp_mk_init(&m, 3);
    cp_mk_array(&m, "b", CP_META_BOOL, 2), cp_mk_u(&m, 1, 1), cp_mk_u(&m, 9, 1);
    cp_mk_finish(&m);
    refused(&m, CP_CORRUPT, "'b': element 1 is no bool: 9");

    cp_mk_init(&m, 3);
    cp_mk_array(&m, "nested", CP_META_ARRAY, 1), cp_mk_u(&m, 0, 8), cp_mk_u(&m, 0, 8);
    cp_mk_finish(&m);
    refused(&m, CP_UNSUPPORTED, "'nested' at offset 42 is an array of arrays");

    cp_mk_init(&m, 3);
    cp_mk_array(&m, "e", 77, 1), cp_mk_u(&m, 0, 8);
    cp_mk_finish(&m);
    refused(&m, CP_CORRUPT, "unknown element type 77");

    /* Nothing is allocated for what the file cannot hold. */
    static const uint64_t counts[] = {3, 1u << 27, 1u << 30, UINT64_MAX, UINT64_MAX / 8 + 2};
    static const uint32_t elems[] = {CP_META_STRING, CP_META_U64, CP_META_F32, CP_META_U8};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        for (size_t k = 0; k < sizeof(elems) / sizeof(elems[0]); k++) {
            cp_mk_init(&m, 3);
            cp_mk_array(&m, "big", elems[k], counts[i]), cp_mk_u(&m, 0, 2);
            cp_mk_finish(&m);
            refused(&m, CP_CORRUPT, "claims");
        }

    cp_mk_init(&m, 3);
    cp_mk_array(&m, "s", CP_META_STRING, 2), cp_mk_text(&m, "ok"), cp_mk_u(&m, 1000, 8);
    cp_mk_finish(&m);
    refused(&m, CP_CORRUPT, "string 1 of key 's'");

    cp_mk_init(&m, 3);
    cp_mk_kv_u32(&m, "k", 1);
    cp_mk_finish(&m);
    cp_buf_adds(&m.b, "a whole lot of trailing bytes, more than any padding");
    refused(&m, CP_CORRUPT, "bytes after the last record");
}

static void alignment_is_checked(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 3, 33, 1u << 31};
    cp_mk m;
    cp_err err;
    for (size_t i = 0; i < 4; i++) {
        cp_mk_init(&m, 3);
        cp_mk_kv_u32(&m, "general.alignment", bad[i]);
        cp_mk_finish(&m);
        refused(&m, CP_CORRUPT, "is no power of two");
    }
    cp_mk_init(&m, 3);
    cp_mk_kv_u16(&m, "general.alignment", 32);
    cp_mk_finish(&m);
    refused(&m, CP_CORRUPT, "general.alignment has type 2, not u32");
    for (uint32_t align = 1; align <= 4096; align *= 8) {
        cp_mk_init(&m, 3);
        m.align = align;
        cp_mk_kv_u32(&m, "general.alignment", align);
        cp_mk_tensor(&m, "x", CP_DTYPE_F16, 1, (const uint64_t[]){7});
        cp_mk_tensor(&m, "y", CP_DTYPE_F16, 1, (const uint64_t[]){7});
        cp_mk_finish(&m);
        assert_int_equal(parse_copy(m.b.p, m.b.n, &err), CP_OK);
        cp_mk_fini(&m);
    }
}

/* One tensor, written field by field. */
static void one_tensor(cp_mk *m, const char *name, uint32_t n_dims, const uint64_t ne[4],
                       uint32_t type, uint64_t offset)
{
    cp_mk_init(m, 3);
    cp_mk_text(m, name);
    cp_mk_u(m, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        cp_mk_u(m, ne[i < 4 ? i : 3], 8);
    cp_mk_u(m, type, 4);
    cp_mk_u(m, offset, 8);
    m->n_tensors = 1;
    m->data = 1024;
    cp_mk_finish(m);
}

static void tensors_are_checked(void **state)
{
    (void)state;
    static const char long_name[] =
        "0123456789012345678901234567890123456789012345678901234567890123";
    static const struct {
        const char *name;
        uint32_t n_dims;
        uint64_t ne[4];
        uint32_t type;
        uint64_t offset;
        cp_code code;
        const char *text;
    } rows[] = {
        {long_name, 1, {1}, 0, 0, CP_CORRUPT, "a tensor's name at offset 24 claims 64 bytes"},
        {"", 1, {1}, 0, 0, CP_CORRUPT, "name empty"},
        {"t", 5, {1, 1, 1, 1}, 0, 0, CP_CORRUPT, "'t' has 5 dimensions"},
        {"t", 1, {0}, 0, 0, CP_CORRUPT, "'t': dimension 0 is 0"},
        {"t", 2, {4, UINT64_MAX}, 0, 0, CP_CORRUPT, "'t': dimension 1 is -1"},
        {"t", 2, {1ull << 40, 1ull << 40}, 0, 0, CP_CORRUPT, "overflows"},
        {"t", 2, {1ull << 31, 1ull << 31}, 27, 0, CP_CORRUPT, "overflow"},
        {"t", 1, {33}, 8, 0, CP_CORRUPT, "row of 33 is no multiple of Q8_0's 32"},
        {"t", 1, {32}, 4, 0, CP_UNSUPPORTED, "'t' has the removed type 4"},
        {"t", 1, {32}, 36, 0, CP_UNSUPPORTED, "the removed type 36"},
        {"t", 1, {32}, 43, 0, CP_UNSUPPORTED, "an unknown type 43"},
        {"t", 1, {32}, UINT32_MAX, 0, CP_UNSUPPORTED, "an unknown type"},
        {"t", 1, {32}, 0, 32, CP_CORRUPT, "'t' has offset 32, expected 0"},
        {"t", 1, {32}, 0, 1, CP_CORRUPT, "'t' has offset 1, expected 0"},
        {"t", 1, {257}, 0, 0, CP_CORRUPT, "'t' ends at 1028 of the data section"},
        {"t", 1, {1}, 0, 0, CP_CORRUPT, "992 bytes after the last tensor's padding"},
        {"t\x1b[31m", 1, {0}, 0, 0, CP_CORRUPT, "'t?[31m'"},
    };
    cp_mk m;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        one_tensor(&m, rows[i].name, rows[i].n_dims, rows[i].ne, rows[i].type, rows[i].offset);
        refused(&m, rows[i].code, rows[i].text);
    }
    cp_mk_init(&m, 3);
    cp_mk_tensor(&m, "twice", 0, 1, (const uint64_t[]){8});
    cp_mk_tensor(&m, "twice", 0, 1, (const uint64_t[]){8});
    cp_mk_finish(&m);
    refused(&m, CP_CORRUPT, "tensor 'twice' at offset 61 is there twice");
    for (int shift = -32; shift <= 32; shift += 64) { /* overlap, hole */
        cp_mk_init(&m, 3);
        cp_mk_tensor(&m, "x", 0, 1, (const uint64_t[]){16});
        m.data += (uint64_t)(int64_t)shift;
        cp_mk_tensor(&m, "y", 0, 1, (const uint64_t[]){16});
        cp_mk_finish(&m);
        refused(&m, CP_CORRUPT,
                shift < 0 ? "'y' has offset 32, expected 64" : "'y' has offset 96, expected 64");
    }
}

/* Every type id: three blocks by five rows have fifteen blocks' bytes; a cut block is refused; no
 * other id is known. */
static void size_rule_of_every_type(void **state)
{
    (void)state;
    int known = 0;
    for (uint32_t id = 0; id < 80; id++) {
        const cp_dtype_row *row = cp_dtype_info(id);
        cp_mk m;
        cp_weights *w;
        if (!row) {
            one_tensor(&m, "t", 1, (const uint64_t[4]){256}, id, 0);
            refused(&m, CP_UNSUPPORTED, "type");
            continue;
        }
        known++;
        cp_mk_init(&m, 3);
        cp_mk_tensor(&m, "t", id, 2, (const uint64_t[]){3 * (uint64_t)row->block, 5});
        cp_mk_finish(&m);
        assert_int_equal(cp_gguf_read(&w, (const uint8_t *)m.b.p, m.b.n, NULL), CP_OK);
        assert_int_equal(w->tensors[0].bytes, 15 * row->bytes);
        assert_int_equal(cp_tensor_row_bytes(&w->tensors[0]), 3 * row->bytes);
        assert_string_equal(cp_weights_quant(w), row->name);
        cp_weights_free(w);
        cp_mk_fini(&m);
        if (row->block > 1) {
            one_tensor(&m, "t", 1, (const uint64_t[4]){3 * (uint64_t)row->block - 1}, id, 0);
            refused(&m, CP_CORRUPT, "is no multiple of");
        }
    }
    assert_int_equal(known, 35);
}

/* The size of a real vocabulary, and more tensors than any model has. */
static void many_tokens_and_tensors(void **state)
{
    (void)state;
    enum { TOKENS = 262144, TENSORS = 5000 };
    cp_mk m;
    cp_weights *w;
    cp_str s;
    char name[32];
    cp_mk_init(&m, 3);
    cp_mk_array(&m, "tokenizer.ggml.tokens", CP_META_STRING, TOKENS);
    for (int i = 0; i < TOKENS; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        cp_mk_text(&m, name);
    }
    for (int i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof(name), "blk.%d.weight", i);
        cp_mk_tensor(&m, name, CP_DTYPE_F32, 1, (const uint64_t[]){1});
    }
    cp_mk_finish(&m);
    assert_int_equal(cp_gguf_read(&w, (const uint8_t *)m.b.p, m.b.n, NULL), CP_OK);
    const cp_meta_kv *kv = cp_meta_find(w->meta, "tokenizer.ggml.tokens");
    assert_true(kv && kv->count == TOKENS);
    assert_true(cp_meta_arr_str(kv, TOKENS - 1, &s) && s.n == 7 && memcmp(s.p, "t262143", 7) == 0);
    for (int i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof(name), "blk.%d.weight", i);
        assert_int_equal(cp_name_index_find(&w->index, w->tensors, name), i);
    }
    cp_weights_free(w);
    cp_mk_fini(&m);
}

static void names_the_quantization(void **state)
{
    (void)state;
    static const struct {
        uint32_t file_type;
        const char *name;
    } rows[] = {{15, "Q4_K_M"},    {1024 + 15, "Q4_K_M"}, {7, "Q8_0"},  {0, "F32"},
                {38, "MXFP4_MOE"}, {4, "Q8_0"},           {999, "Q8_0"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_mk m;
        cp_weights *w;
        cp_mk_init(&m, 3);
        cp_mk_kv_u32(&m, "general.file_type", rows[i].file_type);
        cp_mk_tensor(&m, "big", CP_DTYPE_Q8_0, 1, (const uint64_t[]){64});
        cp_mk_tensor(&m, "small", CP_DTYPE_F32, 1, (const uint64_t[]){2});
        cp_mk_finish(&m);
        assert_int_equal(cp_gguf_read(&w, (const uint8_t *)m.b.p, m.b.n, NULL), CP_OK);
        assert_string_equal(cp_weights_quant(w), rows[i].name);
        cp_weights_free(w);
        cp_mk_fini(&m);
    }
}

static void open_model_reports_poison(void **state)
{
    (void)state;
    char path[] = "/tmp/capstan-poison-XXXXXX.gguf";
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    cp_mk m;
    cp_loaded *model;
    cp_mk_tiny(&m, 1);
    cp_mk_save(&m, path);
    assert_int_equal(cp_loader_open(&model, path, NULL, NULL), CP_OK);
    assert_false(cp_loaded_poisoned(model));
    const cp_tensor *t = cp_loaded_find(model, "output_norm.weight");
    assert_int_equal(*(const volatile uint8_t *)t->data, (uint8_t)(224 * 7 + 1));
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(*(const volatile uint8_t *)t->data, 0);
    assert_true(cp_loaded_poisoned(model));
    cp_loaded_close(model);
    cp_mk_fini(&m);
    close(fd);
    unlink(path);
}

int cp_suite_gguf(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_type),          cmocka_unit_test(cut_at_every_offset),
        cmocka_unit_test(mutate_every_offset),       cmocka_unit_test(header_is_checked),
        cmocka_unit_test(metadata_is_checked),       cmocka_unit_test(alignment_is_checked),
        cmocka_unit_test(tensors_are_checked),       cmocka_unit_test(size_rule_of_every_type),
        cmocka_unit_test(many_tokens_and_tensors),   cmocka_unit_test(names_the_quantization),
        cmocka_unit_test(open_model_reports_poison),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
