/*
 * What stands behind an entry of an index: how far it is verified, how indexes that share others
 * are walked, entries by another digest than sha256.
 */
#include "base/io.h"
#include "loader/loader.h"
#include "loader/oci/store/blobs.h"
#include "tests/unit/loader/make_gguf.h"
#include "tests/unit/loader/make_layout.h"
#include "tests/unit/loader/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GGUF_V3  "application/vnd.docker.ai.gguf.v3"
#define CONFIG_T "application/vnd.docker.ai.model.config.v0.1+json"

typedef struct model {
    char manifest[72], weights[72], config[72];
    size_t bytes; /* of config and weights */
    char config_text[64];
} model;

static void blob_path(const cp_mkl *m, const char *digest, char out[512])
{
    snprintf(out, 512, "%s/blobs/%.6s/%s", m->store, digest, digest + 7);
}

static size_t size_of(const cp_mkl *m, const char *digest)
{
    char path[512];
    struct stat st;
    blob_path(m, digest, path);
    assert_int_equal(stat(path, &st), 0);
    return (size_t)st.st_size;
}

/* A model of the store under no name. */
static void make_model(cp_mkl *m, uint32_t salt, model *out)
{
    cp_mk g;
    cp_mk_tiny(&g, salt);
    cp_mkl_blob(m, g.b.p, g.b.n, out->weights);
    cp_mkl_layer(m, GGUF_V3, g.b.p, g.b.n, "");
    snprintf(out->config_text, sizeof(out->config_text), "{\"config\":{\"x\":%u}}", salt);
    cp_mkl_blob(m, out->config_text, strlen(out->config_text), out->config);
    cp_mkl_manifest(m, NULL, CONFIG_T, out->config_text, "", out->manifest);
    out->bytes = g.b.n + strlen(out->config_text);
    cp_mk_fini(&g);
}

/* Add an index's entry; more: JSON members, from ",", or "". */
static void add_entry(cp_buf *b, const char *type, const char *digest, size_t size,
                      const char *more)
{
    cp_buf_printf(b, "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu%s}",
                  b->n ? "," : "{\"schemaVersion\":2,\"manifests\":[", type, digest, size, more);
}

/* The index with these entries as a blob; b is empty then. */
static void make_index(cp_mkl *m, cp_buf *b, char digest[72])
{
    cp_buf_adds(b, "]}");
    cp_mkl_blob(m, b->p, b->n, digest);
    cp_buf_clear(b);
}

static void verifies(const cp_mkl *m, size_t bytes)
{
    cp_err err = {0};
    uint64_t have = 0;
    if (cp_store_verify(&m->opt, "m:1", NULL, NULL, &have, &err))
        fail_msg("verify: %s", err.msg);
    assert_int_equal(have, bytes);
}

static void verify_fails(const cp_mkl *m, const char *text)
{
    cp_err err = {0};
    cp_code code = cp_store_verify(&m->opt, "m:1", NULL, NULL, NULL, &err);
    if (code != CP_CORRUPT || !strstr(err.msg, text))
        fail_msg("verify: code %d '%s', wanted '%s'", code, err.msg, text);
}

/* Flip a byte in the middle of a blob: verify sees it; without the blob it fails only if that was
 * promised. The blob is put back. */
static void check_blob(cp_mkl *m, const char *digest, size_t all, size_t gone, bool promised)
{
    char path[512], aside[600], again[72];
    cp_buf b = {0};
    blob_path(m, digest, path);
    assert_int_equal(cp_file_read(path, 1 << 20, &b, NULL), CP_OK);
    chmod(path, 0644);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, (long)b.n / 2, SEEK_SET);
    fputc(b.p[b.n / 2] ^ 1, f);
    fclose(f);
    verify_fails(m, digest);
    snprintf(aside, sizeof(aside), "%s/aside", m->dir);
    assert_int_equal(rename(path, aside), 0);
    if (promised)
        verify_fails(m, digest);
    else
        verifies(m, all - gone);
    cp_mkl_blob(m, b.p, b.n, again);
    assert_string_equal(again, digest);
    verifies(m, all);
    cp_buf_fini(&b);
}

/* An index of this platform's model, another one's, a nested index with a third one, and something
 * that is no document: what is here is hashed, what is not here is no fault but in the model. */
static void verify_is_of_all_that_is_here(void **state)
{
    cp_mkl *m = *state;
    model own, other, deep;
    char nested[72], index[72], odd[72];
    cp_buf b = {0};
    make_model(m, 1, &own);
    make_model(m, 2, &other);
    make_model(m, 3, &deep);
    cp_mkl_blob(m, "something else", 14, odd);
    add_entry(&b, CP_MT_OCI_MANIFEST, deep.manifest, size_of(m, deep.manifest),
              ",\"platform\":{\"os\":\"linux\",\"architecture\":\"s390x\"}");
    make_index(m, &b, nested);
    add_entry(&b, CP_MT_OCI_MANIFEST, other.manifest, size_of(m, other.manifest),
              ",\"platform\":{\"os\":\"linux\",\"architecture\":\"riscv64\"}");
    add_entry(&b, CP_MT_OCI_INDEX, nested, size_of(m, nested),
              ",\"platform\":{\"os\":\"linux\",\"architecture\":\"s390x\"}");
    add_entry(&b, "application/x.odd", odd, 14,
              ",\"platform\":{\"os\":\"linux\",\"architecture\":\"ppc64le\"}");
    add_entry(&b, CP_MT_OCI_MANIFEST, own.manifest, size_of(m, own.manifest),
              ",\"platform\":{\"os\":\"linux\",\"architecture\":\"mips64le\"}");
    make_index(m, &b, index);
    cp_mkl_name(m, "m:1", CP_MT_OCI_INDEX, index, size_of(m, index));
    m->opt.platform = "linux/mips64le";
    size_t all = own.bytes + other.bytes + deep.bytes + 14;
    verifies(m, all);
    const struct {
        const char *digest;
        size_t gone; /* bytes that are not found without it */
        bool promised;
    } rows[] = {
        {own.weights, 0, true},
        {own.config, 0, true},
        {other.weights, other.bytes - strlen(other.config_text), false},
        {other.config, strlen(other.config_text), false},
        {other.manifest, other.bytes, false},
        {nested, deep.bytes, false},
        {deep.manifest, deep.bytes, false},
        {deep.weights, deep.bytes - strlen(deep.config_text), false},
        {odd, 14, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check_blob(m, rows[i].digest, all, rows[i].gone, rows[i].promised);
    cp_buf_fini(&b);
}

/* Indexes that list each other's children over and over are no more documents than there are; more
 * than the bound are refused, and keep every blob. */
static void shared_and_endless_indexes(void **state)
{
    cp_mkl *m = *state;
    model a;
    char digest[72], path[512], text[80];
    cp_buf b = {0}, top = {0};
    cp_gc_result g;
    cp_err err = {0};
    make_model(m, 1, &a);
    cp_strcopy(digest, sizeof(digest), a.manifest);
    for (int level = 0; level < 3; level++) {
        size_t size = size_of(m, digest);
        for (int i = 0; i < 300; i++)
            add_entry(&b, level ? CP_MT_OCI_INDEX : CP_MT_OCI_MANIFEST, digest, size, "");
        make_index(m, &b, digest);
    }
    cp_mkl_name(m, "shared:1", CP_MT_OCI_INDEX, digest, size_of(m, digest));
    char stray[72];
    cp_mkl_blob(m, "stray", 5, stray);
    if (cp_store_gc(&m->opt, false, &g, &err))
        fail_msg("gc: %s", err.msg);
    assert_int_equal(g.blobs, 1);
    blob_path(m, a.weights, path);
    assert_int_equal(access(path, F_OK), 0);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < 16384; k++) {
            snprintf(text, sizeof(text), "sha256:%064x", i * 16384 + k);
            add_entry(&b, CP_MT_OCI_MANIFEST, text, 1, "");
        }
        make_index(m, &b, digest);
        add_entry(&top, CP_MT_OCI_INDEX, digest, size_of(m, digest), "");
    }
    make_index(m, &top, digest);
    cp_mkl_name(m, "m:1", CP_MT_OCI_INDEX, digest, size_of(m, digest));
    assert_int_equal(cp_store_gc(&m->opt, false, &g, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "'m:1' cannot be read"));
    cp_buf_fini(&b);
    cp_buf_fini(&top);
}

/* The manifest of a model under a sha512 digest as well, named in index.json by that alone. */
static void name_by_sha512(cp_mkl *m, const model *a, char digest[CP_DIGEST_ANY])
{
    char from[512], to[600], *hex = digest + 7;
    uint8_t raw[64];
    cp_buf b = {0}, index = {0};
    blob_path(m, a->manifest, from);
    assert_int_equal(cp_file_read(from, 1 << 20, &b, NULL), CP_OK);
    cp_sha512_of(b.p, b.n, raw);
    memcpy(digest, "sha512:", 7);
    for (int i = 0; i < 64; i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
    snprintf(to, sizeof(to), "%s/blobs/sha512", m->store);
    mkdir(to, 0755);
    snprintf(to, sizeof(to), "%s/blobs/sha512/%s", m->store, hex);
    assert_int_equal(rename(from, to), 0);
    add_entry(&index, CP_MT_OCI_MANIFEST, digest, b.n, "");
    cp_buf_adds(&index, "]}");
    assert_int_equal(cp_layout_index_write(&m->l, index.p, index.n, NULL), CP_OK);
    cp_buf_fini(&b);
    cp_buf_fini(&index);
}

/* An entry by a sha512 digest and without a name goes by that, as one by sha256 does; garbage
 * beside it is collected, and its own blobs are not. */
static void entries_by_sha512(void **state)
{
    cp_mkl *m = *state;
    model a;
    char digest[CP_DIGEST_ANY], stray[72], path[512], ref[700];
    cp_store_entry *e;
    cp_loaded *got;
    cp_gc_result g;
    cp_err err = {0};
    size_t n;
    uint64_t freed;
    make_model(m, 1, &a);
    name_by_sha512(m, &a, digest);
    cp_mkl_blob(m, "stray", 5, stray);
    assert_int_equal(cp_store_list(&m->opt, &e, &n, NULL), CP_OK);
    assert_true(n == 1 && strcmp(e->name, digest) == 0 && strcmp(e->digest, digest) == 0);
    assert_true(e->bytes == a.bytes && strcmp(e->arch, "llama") == 0);
    cp_store_entries_free(e, n);
    if (cp_store_inspect(&m->opt, digest, &e, &err))
        fail_msg("inspect: %s", err.msg);
    assert_string_equal(e->name, digest);
    cp_store_entries_free(e, 1);
    snprintf(ref, sizeof(ref), "oci:%s:%s", m->store, digest);
    const char *const refs[] = {digest, ref};
    for (int i = 0; i < 2; i++) {
        if (cp_loader_open(&got, refs[i], &m->opt, &err))
            fail_msg("open %s: %s", refs[i], err.msg);
        cp_loaded_close(got);
        assert_int_equal(cp_store_verify(&m->opt, refs[i], NULL, NULL, NULL, NULL), CP_OK);
    }
    snprintf(path, sizeof(path), "%s/blobs/sha512/%0128d", m->store, 7);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fclose(f);
    if (cp_store_gc(&m->opt, true, &g, &err) || cp_store_gc(&m->opt, false, &g, &err))
        fail_msg("gc: %s", err.msg);
    assert_int_equal(g.blobs, 2);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(cp_store_verify(&m->opt, digest, NULL, NULL, NULL, NULL), CP_OK);
    /* One more or less is another one. */
    char last = digest[134];
    digest[134] = last == '0' ? '1' : '0';
    assert_int_equal(cp_store_inspect(&m->opt, digest, &e, NULL), CP_NOT_FOUND);
    assert_int_equal(cp_store_rm(&m->opt, digest, &freed, NULL), CP_NOT_FOUND);
    digest[134] = last;
    /* Its bytes are checked. */
    blob_path(m, digest, path);
    chmod(path, 0644);
    f = fopen(path, "r+b");
    assert_non_null(f);
    fputc(' ', f);
    fclose(f);
    assert_int_equal(cp_store_inspect(&m->opt, digest, &e, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "is not what its digest"));
    assert_int_equal(cp_store_gc(&m->opt, false, &g, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, digest));
    /* Lost, it keeps every blob until its name goes. */
    unlink(path);
    cp_mkl_blob(m, "stray", 5, stray);
    assert_int_equal(cp_store_gc(&m->opt, false, &g, &err), CP_CORRUPT);
    assert_int_equal(cp_store_rm(&m->opt, digest, &freed, NULL), CP_OK);
    assert_int_equal(cp_store_gc(&m->opt, false, &g, NULL), CP_OK);
    assert_int_equal(g.blobs, 3); /* weights, config, stray */
}

/* rm takes the blobs that an entry by sha512 alone needed; an algorithm that is not built keeps
 * all, and can be removed by its digest. */
static void entries_of_other_algorithms_go(void **state)
{
    cp_mkl *m = *state;
    model a;
    char digest[CP_DIGEST_ANY], path[512];
    cp_buf index = {0};
    cp_store_entry *e;
    cp_gc_result g;
    cp_err err = {0};
    uint64_t freed = 0;
    make_model(m, 1, &a);
    name_by_sha512(m, &a, digest);
    size_t size = size_of(m, digest);
    assert_int_equal(cp_store_rm(&m->opt, digest, &freed, NULL), CP_OK);
    assert_int_equal(freed, a.bytes + size);
    blob_path(m, digest, path);
    assert_int_not_equal(access(path, F_OK), 0);
    blob_path(m, a.weights, path);
    assert_int_not_equal(access(path, F_OK), 0);
    memcpy(digest, "blake3:", 7);
    digest[7 + 64] = '\0';
    add_entry(&index, CP_MT_OCI_MANIFEST, digest, 100, "");
    cp_buf_adds(&index, "]}");
    assert_int_equal(cp_layout_index_write(&m->l, index.p, index.n, NULL), CP_OK);
    assert_int_equal(cp_store_inspect(&m->opt, digest, &e, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "neither sha256 nor sha512"));
    assert_int_equal(cp_store_gc(&m->opt, false, &g, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, digest));
    assert_int_equal(cp_store_rm(&m->opt, digest, &freed, NULL), CP_OK);
    assert_int_equal(cp_store_gc(&m->opt, false, &g, NULL), CP_OK);
    cp_buf_fini(&index);
}

int cp_suite_index(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, cp_mkl_setup, cp_mkl_teardown)
    const struct CMUnitTest tests[] = {
        TEST(verify_is_of_all_that_is_here),
        TEST(shared_and_endless_indexes),
        TEST(entries_by_sha512),
        TEST(entries_of_other_algorithms_go),
    };
    return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
