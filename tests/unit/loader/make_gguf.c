/*
 * The GGUF writer of the tests, written from ggml's docs/gguf.md and sharing nothing with the
 * parser but the table of type sizes.
 */
#include "tests/unit/loader/make_gguf.h"
#include "base/dtype.h"
#include "tests/unit/loader/suites.h"

#include <stdio.h>
#include <string.h>

void cp_mk_u(cp_mk *m, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        cp_buf_addc(&m->b, (char)(uint8_t)(v >> (8 * i)));
}

void cp_mk_init(cp_mk *m, uint32_t version)
{
    *m = (cp_mk){.align = 32};
    cp_buf_adds(&m->b, "GGUF");
    cp_mk_u(m, version, 4);
    cp_mk_u(m, 0, 8);
    cp_mk_u(m, 0, 8);
}

void cp_mk_fini(cp_mk *m)
{
    cp_buf_fini(&m->b);
}

void cp_mk_text(cp_mk *m, const char *s)
{
    cp_mk_u(m, strlen(s), 8);
    cp_buf_adds(&m->b, s);
}

void cp_mk_key(cp_mk *m, const char *key, uint32_t type)
{
    cp_mk_text(m, key);
    cp_mk_u(m, type, 4);
    m->n_kv++;
}

void cp_mk_kv_u32(cp_mk *m, const char *key, uint32_t v)
{
    cp_mk_key(m, key, CP_META_U32);
    cp_mk_u(m, v, 4);
}

void cp_mk_kv_u16(cp_mk *m, const char *key, uint32_t v)
{
    cp_mk_key(m, key, CP_META_U16);
    cp_mk_u(m, v, 2);
}

void cp_mk_kv_str(cp_mk *m, const char *key, const char *v)
{
    cp_mk_key(m, key, CP_META_STRING);
    cp_mk_text(m, v);
}

void cp_mk_array(cp_mk *m, const char *key, uint32_t elem, uint64_t count)
{
    cp_mk_key(m, key, CP_META_ARRAY);
    cp_mk_u(m, elem, 4);
    cp_mk_u(m, count, 8);
}

void cp_mk_tensor(cp_mk *m, const char *name, uint32_t type, int n_dims, const uint64_t *ne)
{
    const cp_dtype_row *row = cp_dtype_info(type);
    uint64_t elems = 1;
    cp_mk_text(m, name);
    cp_mk_u(m, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++) {
        cp_mk_u(m, ne[i], 8);
        elems *= ne[i];
    }
    cp_mk_u(m, type, 4);
    cp_mk_u(m, m->data, 8);
    m->n_tensors++;
    if (row)
        m->data += elems / (uint64_t)row->block * (uint64_t)row->bytes;
    m->data = (m->data + m->align - 1) / m->align * m->align;
}

void cp_mk_finish(cp_mk *m)
{
    for (int i = 0; i < 8; i++) {
        m->b.p[8 + i] = (char)(uint8_t)(m->n_tensors >> (8 * i));
        m->b.p[16 + i] = (char)(uint8_t)(m->n_kv >> (8 * i));
    }
    if (m->n_tensors)
        while (m->b.n % m->align)
            cp_buf_addc(&m->b, 0);
    for (uint64_t i = 0; i < m->data; i++)
        cp_buf_addc(&m->b, (char)(uint8_t)(i * 7 + 1));
    assert_false(m->b.failed);
}

void cp_mk_tiny(cp_mk *m, uint32_t salt)
{
    static const char *const tokens[] = {"<s>", "a", "", "\xff"};
    cp_mk_init(m, 3);
    cp_mk_kv_str(m, "general.architecture", "llama");
    cp_mk_kv_str(m, "general.name", "Tiny \"T\"");
    cp_mk_kv_str(m, "general.license", "mit");
    cp_mk_kv_u32(m, "general.file_type", 15);
    cp_mk_kv_u32(m, "test.salt", salt);
    cp_mk_array(m, "tokenizer.ggml.tokens", CP_META_STRING, 4);
    for (int i = 0; i < 4; i++)
        cp_mk_text(m, tokens[i]);
    cp_mk_tensor(m, "token_embd.weight", CP_DTYPE_Q8_0, 2, (const uint64_t[]){64, 3});
    cp_mk_tensor(m, "output_norm.weight", CP_DTYPE_F32, 1, (const uint64_t[]){5});
    cp_mk_finish(m);
}

void cp_mk_save(const cp_mk *m, const char *path)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(m->b.p, 1, m->b.n, f), m->b.n);
    assert_int_equal(fclose(f), 0);
}
