/* Vocabularies for tests; see vocab.h. */
#include "vocab.h"
#include "base/io.h"
#include "base/utf8.h"

#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

vocab *vocab_new(void)
{
    return cp_xcalloc(1, sizeof(vocab));
}

void vocab_free(vocab *v)
{
    for (size_t i = 0; i < v->n_mem; i++)
        free(v->mem[i]);
    free(v);
}

cp_str vocab_own(vocab *v, const char *p, size_t n)
{
    char *q = cp_xmalloc(n + 1);
    if (n)
        memcpy(q, p, n);
    q[n] = '\0';
    assert_true(v->n_mem < 4 * MAX_TOKENS);
    v->mem[v->n_mem++] = q;
    return (cp_str){q, n};
}

void vocab_token(vocab *v, const char *text, int type, float score)
{
    assert_true(v->n < MAX_TOKENS);
    v->token[v->n] = vocab_own(v, text, strlen(text));
    v->type[v->n] = type;
    v->score[v->n++] = score;
}

void vocab_merge(vocab *v, const char *rule)
{
    assert_true(v->n_merges < MAX_TOKENS);
    v->merge[v->n_merges++] = vocab_own(v, rule, strlen(rule));
}

static cp_meta_kv *extra(vocab *v, const char *key, cp_meta_type type)
{
    assert_true(v->n_extra < 32);
    cp_meta_kv *kv = &v->extra[v->n_extra++];
    *kv = (cp_meta_kv){.key = vocab_own(v, key, strlen(key)), .type = type, .count = 1};
    return kv;
}

void vocab_str(vocab *v, const char *key, const char *s)
{
    cp_str own = vocab_own(v, s, strlen(s));
    extra(v, key, CP_META_STRING)->v.s = own;
}

void vocab_int(vocab *v, const char *key, int64_t x)
{
    extra(v, key, CP_META_I64)->v.i = x;
}

void vocab_bool(vocab *v, const char *key, bool x)
{
    extra(v, key, CP_META_BOOL)->v.u = x;
}

void vocab_bytes(vocab *v, bool spm)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        if (spm) {
            cp_snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        } else {
            size_t n = cp_utf8_encode(cp_tok_byte_to_cp((uint8_t)b), name);
            name[n] = '\0';
        }
        vocab_token(v, name, spm ? CP_TT_BYTE : CP_TT_NORMAL, 0);
    }
}

static void put_array(cp_meta *m, const char *key, cp_meta_type elem, size_t n, const void *p)
{
    cp_meta_kv kv = {.key = {key, strlen(key)}, .type = CP_META_ARRAY, .elem = elem, .count = n};
    kv.v.a = p;
    assert_true(cp_meta_put(m, &kv));
}

cp_meta *vocab_meta(vocab *v)
{
    cp_meta *m = cp_meta_new();
    for (size_t i = 0; i < v->n_extra; i++)
        assert_true(cp_meta_put(m, &v->extra[i]));
    put_array(m, "tokenizer.ggml.tokens", CP_META_STRING, v->n, v->token);
    put_array(m, "tokenizer.ggml.token_type", CP_META_I32, v->n, v->type);
    if (v->scores)
        put_array(m, "tokenizer.ggml.scores", CP_META_F32, v->n, v->score);
    else
        put_array(m, "tokenizer.ggml.merges", CP_META_STRING, v->n_merges, v->merge);
    return m;
}

cp_tokenizer *vocab_open(vocab *v, cp_meta **meta)
{
    cp_err err = {0};
    cp_tokenizer *t = NULL;
    *meta = vocab_meta(v);
    if (cp_tokenizer_open(&t, *meta, &err) != CP_OK)
        fail_msg("cp_tokenizer_open: %s", err.msg);
    return t;
}

size_t vector_unescape(char *s)
{
    char *out = s;
    for (const char *p = s; *p;) {
        if (p[0] == '\\' && p[1] == 'x') {
            char hex[3] = {p[2], p[3], '\0'};
            *out++ = (char)strtol(hex, NULL, 16);
            p += 4;
        } else {
            *out++ = *p++;
        }
    }
    *out = '\0';
    return (size_t)(out - s);
}

char *vector_read(const char *name)
{
    char path[512];
    cp_buf b = {0};
    cp_snprintf(path, sizeof path, "%s/tests/unit/tokenizer/vectors/%s.txt", CP_SOURCE_DIR, name);
    cp_err err = {0};
    if (cp_file_read(path, 8 << 20, &b, &err) != CP_OK)
        fail_msg("%s", err.msg);
    return b.p;
}

static int32_t *parse_ids(const char *s, size_t *n)
{
    cp_ids ids = {0};
    char *end;
    for (;; s = end) {
        long x = strtol(s, &end, 10);
        if (end == s)
            break;
        assert_true(cp_ids_add(&ids, (int32_t)x));
    }
    *n = ids.n;
    return ids.id;
}

static void parse_line(vocab *v, char *line, vector_case **cases, size_t *n)
{
    char *f[6] = {0}, *save = NULL;
    size_t k = 0;
    char *ids = strncmp(line, "case ", 5) == 0 ? strstr(line, " :") : NULL;
    if (ids) {
        *ids = '\0';
        ids += 2;
    }
    bool empty = ids && strlen(line) == 7; /* the empty text */
    for (char *w = strtok_r(line, " ", &save); w && k < 6; w = strtok_r(NULL, " ", &save))
        f[k++] = w;
    if (k == 4 && strcmp(f[0], "key") == 0) {
        vector_unescape(f[3]);
        if (f[2][0] == 's')
            vocab_str(v, f[1], f[3]);
        else if (f[2][0] == 'b')
            vocab_bool(v, f[1], f[3][0] == '1');
        else
            vocab_int(v, f[1], strtol(f[3], NULL, 10));
    } else if (k == 4 && strcmp(f[0], "token") == 0) {
        vector_unescape(f[3]);
        vocab_token(v, f[3], (int)strtol(f[1], NULL, 10), strtof(f[2], NULL));
    } else if (k == 2 && strcmp(f[0], "merge") == 0) {
        vector_unescape(f[1]);
        vocab_merge(v, f[1]);
    } else if (strcmp(f[0], "case") == 0 && ids && (k == 3 || empty)) {
        size_t len = empty ? 0 : vector_unescape(f[2]);
        *cases = cp_xrealloc(*cases, (*n + 1) * sizeof **cases);
        vector_case *c = &(*cases)[(*n)++];
        c->special = f[1][0] == '1';
        c->text = vocab_own(v, empty ? "" : f[2], len);
        c->id = parse_ids(ids, &c->n);
    } else {
        fail_msg("bad line: %s", line);
    }
}

void vector_load(vocab *v, const char *name, vector_case **cases, size_t *n)
{
    char *text = vector_read(name), *save = NULL;
    *cases = NULL;
    *n = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (line[0] != '#')
            parse_line(v, line, cases, n);
    v->scores = strncmp(name, "spm", 3) == 0;
    free(text);
}
