/*
 * Opening models from every packaging, over real layouts: one GGUF file, wrapped in every way, is
 * the same model; images stack; shards come from anywhere; extras are read; damage is seen.
 */
#include "loader/loader.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/store/blobs.h"
#include "tests/unit/loader/make_gguf.h"
#include "tests/unit/loader/make_layout.h"
#include "tests/unit/loader/make_tar.h"
#include "tests/unit/loader/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CNCF     "application/vnd.cncf.model."
#define CNCF_C   CNCF "config.v1+json"
#define AI       "application/vnd.docker.ai."
#define OLLAMA   "application/vnd.ollama.image."
#define EMPTY_C  "application/vnd.oci.empty.v1+json"
#define IMAGE_C  "application/vnd.oci.image.config.v1+json"
#define LAYER    "application/vnd.oci.image.layer.v1.tar"
#define PATH(p)  ",\"annotations\":{\"org.cncf.model.filepath\":\"" p "\"}"
#define TITLE(p) ",\"annotations\":{\"org.opencontainers.image.title\":\"" p "\"}"

/* A GGUF file with test.salt, shard no of count when count > 0. */
static void gguf(cp_buf *out, uint32_t salt, unsigned no, unsigned count)
{
    cp_mk m;
    if (count == 0) {
        cp_mk_tiny(&m, salt);
    } else {
        char name[32];
        cp_mk_init(&m, 3);
        cp_mk_kv_str(&m, "general.architecture", "llama");
        cp_mk_kv_u32(&m, "test.salt", salt);
        cp_mk_kv_u16(&m, "split.no", (uint16_t)no);
        cp_mk_kv_u16(&m, "split.count", (uint16_t)count);
        snprintf(name, sizeof(name), "tensor.%u", no);
        cp_mk_tensor(&m, name, CP_DTYPE_F32, 1, (const uint64_t[]){8});
        cp_mk_finish(&m);
    }
    cp_buf_clear(out);
    cp_buf_add(out, m.b.p, m.b.n);
    cp_mk_fini(&m);
}

static cp_loaded *open_ok(const cp_mkl *m, const char *ref)
{
    cp_loaded *out;
    cp_err err = {0};
    if (cp_loader_open(&out, ref, &m->opt, &err))
        fail_msg("open %s: %s", ref, err.msg);
    return out;
}

static void refused(const cp_mkl *m, const char *ref, cp_code want, const char *text)
{
    cp_loaded *out;
    cp_err err = {0};
    cp_code code = cp_loader_open(&out, ref, &m->opt, &err);
    if (code != want || !strstr(err.msg, text))
        fail_msg("open %s: code %d '%s', wanted %d '%s'", ref, code, err.msg, want, text);
    assert_null(out);
}

/* The model opens and is that of `salt`; every tensor byte is the maker's. */
static void is_model(const cp_mkl *m, const char *ref, uint32_t salt)
{
    cp_loaded *got = open_ok(m, ref);
    uint64_t have = 0;
    cp_buf want = {0};
    cp_gguf *g;
    assert_true(cp_meta_u64(cp_loaded_meta(got), "test.salt", &have) && have == salt);
    gguf(&want, salt, 0, 0);
    assert_int_equal(cp_loaded_bytes(got), want.n);
    assert_int_equal(cp_gguf_parse(&g, (const uint8_t *)want.p, want.n, NULL), CP_OK);
    assert_int_equal(cp_loaded_n_tensors(got), 2);
    /* The file's data section, byte i = i * 7 + 1. */
    const cp_tensor *t = cp_loaded_tensor(got, 0);
    for (size_t i = 0; i < t->bytes; i++)
        assert_int_equal(((const uint8_t *)t->data)[i], (uint8_t)(i * 7 + 1));
    cp_gguf_free(g);
    cp_buf_fini(&want);
    cp_loaded_close(got);
}

static void add_tar(cp_mkl *m, const char *type, const cp_buf *tar, const char *filter,
                    const char *notes)
{
    cp_buf packed = {0};
    if (filter)
        cp_mk_compress(&packed, tar, filter);
    else
        cp_buf_add(&packed, tar->p, tar->n);
    cp_mkl_layer(m, type, packed.p, packed.n, notes);
    cp_buf_fini(&packed);
}

static void every_packaging(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0}, t = {0};
    char d[72];
    static const char filler[10000];
    static const struct {
        const char *name, *config, *type, *notes, *member, *filter;
        bool tar;
        const char *format;
    } rows[] = {
        {"mp:raw", CNCF_C, CNCF "weight.v1.raw", PATH("m.gguf"), NULL, NULL, false, "modelpack"},
        {"mp:tar", CNCF_C, CNCF "weight.v1.tar", PATH("d/m.gguf"), "m.gguf", NULL, true,
         "modelpack"},
        {"mp:gz", CNCF_C, CNCF "weight.v1.tar+gzip", PATH("m.gguf"), "m.gguf", "gzip", true,
         "modelpack"},
        {"mp:zst", CNCF_C, CNCF "weight.v1.tar+zstd", PATH("m.gguf"), "m.gguf", "zstd", true,
         "modelpack"},
        {"mp:odd", CNCF_C, CNCF "weight.v1.raw", PATH("weights"), NULL, NULL, false, "modelpack"},
        {"mp:lie", CNCF_C, CNCF "weight.v1.tar", PATH("m.gguf"), "m.gguf", "zstd", true,
         "modelpack"}, /* compressed, and called plain */
        {"dk:01", AI "model.config.v0.1+json", AI "gguf.v3", "", NULL, NULL, false, "docker"},
        {"dk:02", AI "model.config.v0.2+json", AI "model.file", PATH("m.gguf"), NULL, NULL, false,
         "docker"},
        {"ol:1", "application/vnd.docker.container.image.v1+json", OLLAMA "model", "", NULL, NULL,
         false, "ollama"},
        {"or:raw", EMPTY_C, LAYER, TITLE("m.gguf"), NULL, NULL, false, "oras"},
        {"or:silent", EMPTY_C, "application/octet-stream", "", NULL, NULL, false, "oras"},
        {"or:folder", EMPTY_C, LAYER "+gzip", TITLE("folder"), "folder/m.gguf", "gzip", true,
         "oras"},
        {"im:tar", IMAGE_C, LAYER, "", "models/m.gguf", NULL, true, "image"},
        {"im:gz", IMAGE_C, LAYER "+gzip", "", "models/m.gguf", "gzip", true, "image"},
        {"im:zst", IMAGE_C, LAYER "+zstd", "", "./models/sub/m.gguf", "zstd", true, "image"},
        {"im:files", IMAGE_C, "application/octet-stream", TITLE("m.gguf"), NULL, NULL, false,
         "image"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_store_entry *e;
        uint32_t salt = (uint32_t)(100 + i);
        gguf(&g, salt, 0, 0);
        cp_buf_clear(&t);
        if (rows[i].tar) {
            /* Beyond the first page, where an image has anything in front. */
            if (strncmp(rows[i].member, "models/", 7) == 0)
                cp_mk_tar_member(&t, "etc/blob", '0', filler, sizeof(filler));
            cp_mk_tar_member(&t, rows[i].member, '0', g.p, g.n);
            cp_mk_tar_end(&t);
            add_tar(m, rows[i].type, &t, rows[i].filter, rows[i].notes);
        } else {
            cp_mkl_layer(m, rows[i].type, g.p, g.n, rows[i].notes);
        }
        cp_mkl_manifest(m, rows[i].name, rows[i].config, "{}", "", d);
        is_model(m, rows[i].name, salt);
        is_model(m, rows[i].name, salt);
        assert_int_equal(cp_store_inspect(&m->opt, rows[i].name, &e, NULL), CP_OK);
        assert_string_equal(e->format, rows[i].format);
        assert_string_equal(e->arch, "llama");
        assert_string_equal(e->quant, "Q4_K_M");
        assert_string_equal(e->digest, d);
        /* A model in a tar has its layer's digest. */
        cp_loaded *got = open_ok(m, rows[i].name);
        assert_string_equal(cp_loaded_digest(got), e->layers[0].digest);
        cp_loaded_close(got);
        cp_store_entries_free(e, 1);
    }
    cp_buf_fini(&g);
    cp_buf_fini(&t);
}

/* Layers of an image, bottom up: each a list of members, "-" ends a layer, "." ends the image. A
 * name "NAME=SALT" is a GGUF file, "NAME>TYPE" a member of that tar type, any other is as it is. */
static void image(cp_mkl *m, const char *name, const char *const *members)
{
    cp_buf t = {0}, g = {0};
    char d[72];
    for (;; members++) {
        const char *e = *members, *eq = strpbrk(e, "=>");
        char path[128];
        if (strcmp(e, "-") == 0 || strcmp(e, ".") == 0) {
            cp_mk_tar_end(&t);
            /* Even layers lie in place, odd ones are compressed. */
            add_tar(m, LAYER, &t, m->layers.n % 2 ? "gzip" : NULL, "");
            cp_buf_clear(&t);
            if (e[0] == '.')
                break;
            continue;
        }
        snprintf(path, sizeof(path), "%.*s", eq ? (int)(eq - e) : 100, e);
        if (eq && *eq == '>') {
            cp_mk_tar_member(&t, path, eq[1], "", 0);
        } else if (eq) {
            gguf(&g, (uint32_t)strtoul(eq + 1, NULL, 10), 0, 0);
            cp_mk_tar_member(&t, path, '0', g.p, g.n);
        } else {
            cp_mk_tar_member(&t, path, path[strlen(path) - 1] == '/' ? '5' : '0', "", 0);
        }
    }
    cp_mkl_manifest(m, name, IMAGE_C, "{\"architecture\":\"amd64\"}", "", d);
    cp_buf_fini(&t);
    cp_buf_fini(&g);
}

static void stacked(void **state)
{
    cp_mkl *m = *state;
    static const struct {
        const char *members[16];
        uint32_t salt; /* 0: refused */
        const char *text;
    } rows[] = {
        {{"models/a.gguf=1", "-", "models/a.gguf=2", "."}, 2, ""},
        {{"etc/passwd", "-", "models/a.gguf=1", "-", "usr/x", "."}, 1, ""},
        {{"models/a.gguf=1", "models/b.gguf=2", "-", "models/.wh.a.gguf", "."}, 2, ""},
        {{"models/a.gguf=1", "-", "models/.wh..wh..opq", "models/b.gguf=2", "."}, 2, ""},
        {{"models/s/a.gguf=1", "models/b.gguf=2", "-", "models/s/.wh..wh..opq", "."}, 2, ""},
        {{"models/s/a.gguf=1", "models/b.gguf=2", "-", "models/.wh.s", "."}, 2, ""},
        {{"models/a.gguf=1", "-", ".wh.models", "-", "models/b.gguf=2", "."}, 2, ""},
        {{"models/a.gguf=1", "-", ".wh..wh..opq", "-", "models/b.gguf=2", "."}, 2, ""},
        /* A whiteout hides what lies below its layer, not what is in it. */
        {{"models/a.gguf=1", "-", "models/a.gguf=2", "models/.wh.a.gguf", "."}, 2, ""},
        {{"models/a.gguf=1", "-", "models/.wh.a.gguf", "-", "models/a.gguf=3", "."}, 3, ""},
        /* A folder where a file was, a file where a folder was. */
        {{"models/a.gguf=1", "-", "models/a.gguf/", "models/a.gguf/b.gguf=2", "."}, 2, ""},
        {{"models/a.gguf/b.gguf=1", "-", "models/a.gguf=2", "."}, 2, ""},
        {{"models/a.gguf=1", "-", "models=2", "-", "models/c.gguf=3", "."}, 3, ""},
        /* A like name is another. */
        {{"models/ab.gguf=1", "-", "models/.wh.a", "."}, 1, ""},
        {{"models/s/a.gguf=1", "-", "models/", "models/s/", "."}, 1, ""},
        {{"models/a.gguf=1", "-", "models/.wh.a.gguf", "."}, 0, "no GGUF file under /models"},
        {{"model/a.gguf=1", "."}, 0, "no GGUF file under /models"},
        {{"models/a.safetensors", "."}, 0, "weights in 'models/a.safetensors'"},
        /* A link, wherever it leads, is no file; it takes the place of what had its path. */
        {{"models/model.file>2", "models/tiny/tiny.gguf=1", "."}, 1, ""}, /* as RamaLama builds */
        {{"models/tiny.gguf=1", "models/model.file>2", "."}, 1, ""},
        {{"models/a.gguf=1", "models/x>1", "models/y>3", "models/z>4", "models/p>6", "."}, 1, ""},
        {{"models/x>2", "-", "models/.wh.x", "models/a.gguf=1", "."}, 1, ""},
        {{"models/a.gguf=1", "-", "models/a.gguf>2", "models/b.gguf=2", "."}, 2, ""},
        {{"models/d/a.gguf=1", "models/b.gguf=2", "-", "models/d>2", "."}, 2, ""},
        {{"models/d>2", "-", "models/d/a.gguf=1", "."}, 1, ""},
        {{"models/a.gguf=1", "-", "models/.wh.a.gguf>1", "models/b.gguf=2", "."}, 2, ""},
        {{"models/m.gguf>2", "."}, 0, "'models/m.gguf' is a symbolic link, and links are not"},
        {{"models/m.gguf>1", "usr/m>0", "."}, 0, "'models/m.gguf' is a hard link, and links"},
        {{"models>2", "."}, 0, "'models' is a symbolic link, and links are not followed"},
        {{"models/m.gguf>2", "-", "models/.wh.m.gguf", "."}, 0, "no GGUF file under /models"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char name[32];
        snprintf(name, sizeof(name), "car:%zu", i);
        image(m, name, rows[i].members);
        if (rows[i].salt)
            is_model(m, name, rows[i].salt);
        else
            refused(m, name, strstr(rows[i].text, "links") ? CP_CORRUPT : CP_UNSUPPORTED,
                    rows[i].text);
    }
    image(m, "car:ab", (const char *const[]){"models/a.gguf=1", "models/b.gguf=2", "."});
    refused(m, "car:ab", CP_USAGE,
            "holds 2 separate GGUF files; name one as variant: models/a.gguf, models/b.gguf");
}

static bool has_note(const cp_loaded *m, const char *text)
{
    for (size_t i = 0; i < cp_loaded_n_notes(m); i++)
        if (strstr(cp_loaded_note(m, i), text))
            return true;
    return false;
}

/* Links and special files beside the weights are left out and named, in every packaging. */
static void links(void **state)
{
    cp_mkl *m = *state;
    static const struct {
        const char *config, *type, *notes, *folder, *filter;
    } rows[] = {
        {CNCF_C, CNCF "weight.v1.tar", PATH("m.gguf"), "", NULL},
        {CNCF_C, CNCF "weight.v1.tar+gzip", PATH("m.gguf"), "", "gzip"},
        {CNCF_C, CNCF "weight.v1.tar+zstd", PATH("m.gguf"), "", "zstd"},
        {EMPTY_C, LAYER "+gzip", TITLE("folder"), "folder/", "gzip"},
        {IMAGE_C, LAYER, "", "models/", NULL},
        {IMAGE_C, LAYER "+gzip", "", "models/", "gzip"},
    };
    static const struct {
        char type;
        const char *kind;
    } kinds[] = {{'1', "a hard link"}, {'2', "a symbolic link"}, {'3', "a device"},
                 {'4', "a device"},    {'6', "a pipe"},          {'V', "no file by its tar type"}};
    cp_buf g = {0}, t = {0};
    char d[72], path[64], text[128];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) * 6; i++) {
        const char *folder = rows[i / 6].folder;
        uint32_t salt = (uint32_t)i;
        gguf(&g, salt, 0, 0);
        cp_buf_clear(&t);
        snprintf(path, sizeof(path), "%sbefore", folder);
        cp_mk_tar_member(&t, path, kinds[i % 6].type, "", 0);
        snprintf(path, sizeof(path), "%sm.gguf", folder);
        cp_mk_tar_member(&t, path, '0', g.p, g.n);
        snprintf(path, sizeof(path), "%safter.gguf", folder);
        cp_mk_tar_member(&t, path, '2', "", 0);
        cp_mk_tar_end(&t);
        add_tar(m, rows[i / 6].type, &t, rows[i / 6].filter, rows[i / 6].notes);
        cp_mkl_manifest(m, "links:1", rows[i / 6].config, "{}", "", d);
        is_model(m, "links:1", salt);
        cp_loaded *got = open_ok(m, "links:1"); /* again, from what is extracted */
        snprintf(text, sizeof(text), "2 members left out: %sbefore (%s), %safter.gguf (a symb",
                 folder, kinds[i % 6].kind, folder);
        if (!has_note(got, text))
            fail_msg("no note '%s'", text);
        cp_loaded_close(got);
    }
    /* Of many a few are named, in one line. */
    cp_buf_clear(&t);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), "x%d", i);
        cp_mk_tar_member(&t, path, '2', "", 0);
    }
    cp_mk_tar_member(&t, "m.gguf", '0', g.p, g.n);
    add_tar(m, CNCF "weight.v1.tar", &t, NULL, PATH("m.gguf"));
    cp_mkl_manifest(m, "links:40", CNCF_C, "{}", "", d);
    cp_loaded *got = open_ok(m, "links:40");
    assert_int_equal(cp_loaded_n_notes(got), 1);
    assert_true(has_note(got, "40 members left out: x0 (a symbolic link), x1 (") &&
                has_note(got, ", ..."));
    cp_loaded_close(got);
    /* A file and a link of one name: whose it is would depend on the reader. */
    cp_mk_tar_member(&t, "m.gguf", '2', "", 0);
    add_tar(m, CNCF "weight.v1.tar", &t, NULL, PATH("m.gguf"));
    cp_mkl_manifest(m, "links:both", CNCF_C, "{}", "", d);
    refused(m, "links:both", CP_CORRUPT, "'m.gguf' is in it twice");
    cp_buf_fini(&g);
    cp_buf_fini(&t);
}

static void inspects(const cp_mkl *m, const char *ref, cp_code want, const char *text)
{
    cp_store_entry *e;
    cp_err err = {0};
    cp_code code = cp_store_inspect(&m->opt, ref, &e, &err);
    if (code != want || !strstr(err.msg, text))
        fail_msg("inspect %s: code %d '%s', wanted %d '%s'", ref, code, err.msg, want, text);
    if (!code)
        cp_store_entries_free(e, 1);
}

/* Where layers hold links and no file, inspect says so, also of layers that nobody has extracted,
 * which stay so; what holds no model for another reason is told as it is. */
static void inspect_of_links_alone(void **state)
{
    cp_mkl *m = *state;
    static const struct {
        const char *config, *type, *notes, *path, *filter;
    } rows[] = {
        {IMAGE_C, LAYER, "", "models/m.gguf", NULL},
        {IMAGE_C, LAYER "+gzip", "", "models/m.gguf", "gzip"},
        {IMAGE_C, LAYER "+zstd", "", "models/m", "zstd"},
        {EMPTY_C, LAYER "+gzip", TITLE("folder"), "folder/m.gguf", "gzip"},
        {CNCF_C, CNCF "weight.v1.tar", PATH("m.gguf"), "m.gguf", NULL},
        {CNCF_C, CNCF "weight.v1.tar+gzip", PATH("m.gguf"), "m.gguf", "gzip"},
    };
    cp_buf t = {0};
    char d[72], path[512];
    cp_store_entry *e;
    size_t n;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_buf_clear(&t);
        cp_mk_tar_member(&t, rows[i].path, '2', "", 0);
        cp_mk_tar_end(&t);
        add_tar(m, rows[i].type, &t, rows[i].filter, rows[i].notes);
        cp_mkl_manifest(m, "links:only", rows[i].config, "{}", "", d);
        inspects(m, "links:only", CP_CORRUPT, "is a symbolic link, and links are not followed");
        inspects(m, "links:only", CP_CORRUPT, "links:only: ");
        snprintf(path, sizeof(path), "%s/extracted", m->cache);
        assert_int_equal(rmdir(path), 0); /* it is empty */
        assert_int_equal(cp_store_list(&m->opt, &e, &n, NULL), CP_OK);
        assert_true(n == 1 && e->n_layers == 1);
        cp_store_entries_free(e, n);
    }
    refused(m, "links:only", CP_CORRUPT, "links are not followed");
    inspects(m, "links:only", CP_CORRUPT, "links are not followed"); /* extracted now */
    inspects(m, "links:none", CP_NOT_FOUND, "is not in the store");
    image(m, "car:empty", (const char *const[]){"etc/passwd", "-", "usr/x", "."});
    inspects(m, "car:empty", CP_OK, "");
    image(m, "car:deep", (const char *const[]){"models/x>2", "-", "models/a.gguf=1", "."});
    inspects(m, "car:deep", CP_OK, "");
    cp_buf_fini(&t);
}

static void shards(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0}, t = {0};
    char d[72], first[72], whole[72];
    cp_loaded *got;
    /* Three layers, in the wrong order, under names that say nothing. */
    static const unsigned order[] = {2, 0, 1};
    for (int i = 0; i < 3; i++) {
        gguf(&g, 7, order[i], 3);
        cp_mkl_layer(m, AI "gguf.v3", g.p, g.n, "");
    }
    cp_mkl_manifest(m, "dk:3", AI "model.config.v0.1+json", "{}", "", d);
    got = open_ok(m, "dk:3");
    assert_int_equal(cp_loaded_n_tensors(got), 3);
    for (unsigned i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof(name), "tensor.%u", i);
        assert_string_equal(cp_loaded_tensor(got, i)->name, name);
    }
    memcpy(whole, cp_loaded_digest(got), sizeof(whole));
    cp_loaded_close(got);
    /* Of several layers: the digest of theirs, in the shards' order. */
    cp_sha256 *h = cp_sha256_new();
    for (unsigned i = 0; i < 3; i++) {
        uint8_t one[32];
        gguf(&g, 7, i, 3);
        cp_sha256_of(g.p, g.n, one);
        cp_sha256_add(h, one, 32);
    }
    uint8_t all[32];
    cp_sha256_done(h, all);
    cp_digest_format(all, first);
    assert_string_equal(whole, first);
    /* All in one tar, in place and extracted. */
    static const char *const filters[] = {NULL, "zstd"};
    for (int k = 0; k < 2; k++) {
        cp_buf_clear(&t);
        for (int i = 0; i < 3; i++) {
            char name[32];
            snprintf(name, sizeof(name), "models/%d.gguf", i);
            gguf(&g, 7, order[i], 3);
            cp_mk_tar_member(&t, name, '0', g.p, g.n);
        }
        add_tar(m, LAYER, &t, filters[k], "");
        cp_mkl_manifest(m, "car:3", IMAGE_C, "{}", "", d);
        got = open_ok(m, "car:3");
        assert_int_equal(cp_loaded_n_tensors(got), 3);
        assert_string_equal(cp_loaded_tensor(got, 2)->name, "tensor.2");
        memcpy(first, cp_loaded_digest(got), sizeof(first));
        assert_string_not_equal(first, whole);
        cp_loaded_close(got);
        cp_store_entry *e;
        assert_int_equal(cp_store_inspect(&m->opt, "car:3", &e, NULL), CP_OK);
        assert_string_equal(e->layers[0].digest, first);
        cp_store_entries_free(e, 1);
    }
    /* A tar for each, whose only member has the base name of the annotated path. */
    for (unsigned i = 0; i < 2; i++) {
        gguf(&g, 7, i, 2);
        cp_buf_clear(&t);
        cp_mk_tar_member(&t, "m.gguf", '0', g.p, g.n);
        add_tar(m, CNCF "weight.v1.tar", &t, NULL, i ? PATH("a/m.gguf") : PATH("b/m.gguf"));
    }
    cp_mkl_manifest(m, "mp:2", CNCF_C, "{}", "", d);
    got = open_ok(m, "mp:2");
    assert_int_equal(cp_loaded_n_tensors(got), 2);
    cp_loaded_close(got);
    /* One is missing. */
    for (unsigned i = 0; i < 2; i++) {
        gguf(&g, 7, i, 3);
        cp_mkl_layer(m, AI "gguf.v3", g.p, g.n, "");
    }
    cp_mkl_manifest(m, "dk:2of3", AI "model.config.v0.1+json", "{}", "", d);
    refused(m, "dk:2of3", CP_CORRUPT, "2 of 3 shards are there");
    cp_buf_fini(&g);
    cp_buf_fini(&t);
}

static void extras(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0}, t = {0};
    char d[72];
    static const char params[] = "{\"temperature\":0.3,\"num_ctx\":2048,\"stop\":[\"x\"]}";
    gguf(&g, 1, 0, 0);
    cp_mkl_layer(m, OLLAMA "model", g.p, g.n, "");
    cp_mkl_layer(m, OLLAMA "template", "{{ .Prompt }}", 13, "");
    cp_mkl_layer(m, OLLAMA "system", "Be kind.", 8, "");
    cp_mkl_layer(m, OLLAMA "params", params, strlen(params), "");
    cp_mkl_layer(m, OLLAMA "license", "MIT", 3, "");
    cp_mkl_manifest(m, "ol:x", "application/vnd.docker.container.image.v1+json", "{}", "", d);
    cp_loaded *got = open_ok(m, "ol:x");
    assert_string_equal(cp_loaded_params(got), params);
    assert_int_equal(cp_loaded_context_size(got), 2048);
    assert_int_equal(cp_loaded_template(got).n, 0);
    assert_int_equal(cp_loaded_n_notes(got), 3);
    assert_true(has_note(got, "layer 1 (application/vnd.ollama.image.template) ignored: a Go"));
    assert_true(has_note(got, "layer 2 (application/vnd.ollama.image.system) ignored: a system"));
    cp_loaded_close(got);

    cp_mkl_layer(m, AI "gguf.v3", g.p, g.n, "");
    cp_mkl_layer(m, AI "chat.template.jinja", "{{ jinja }}", 11, "");
    cp_mkl_layer(m, AI "chat.template.jinja", "{{ other }}", 11, "");
    cp_mkl_layer(m, AI "mmproj", "GGUF", 4, "");
    cp_mkl_manifest(m, "dk:x", AI "model.config.v0.1+json",
                    "{\"config\":{\"format\":\"gguf\",\"context_size\":8192}}", "", d);
    got = open_ok(m, "dk:x");
    assert_int_equal(cp_loaded_context_size(got), 8192);
    assert_null(cp_loaded_params(got));
    assert_int_equal(cp_loaded_template(got).n, 11);
    assert_memory_equal(cp_loaded_template(got).p, "{{ jinja }}", 11);
    assert_true(has_note(got, "layer 2 (") && has_note(got, "another of its kind"));
    assert_true(has_note(got, "layer 3 (") && has_note(got, "a projector"));
    cp_loaded_close(got);

    /* In a folder's tar, compressed; the well-known name goes first. */
    cp_mk_tar_member(&t, "models/m.gguf", '0', g.p, g.n);
    cp_mk_tar_file(&t, "models/a.jinja", "no");
    cp_mk_tar_file(&t, "models/chat_template.jinja", "{{ yes }}");
    cp_mk_tar_file(&t, "models/config.json", "{}");
    add_tar(m, LAYER, &t, "gzip", "");
    cp_mkl_manifest(m, "car:x", IMAGE_C, "{}", "", d);
    got = open_ok(m, "car:x");
    assert_int_equal(cp_loaded_template(got).n, 9);
    assert_memory_equal(cp_loaded_template(got).p, "{{ yes }}", 9);
    assert_true(has_note(got, "models/config.json) ignored: the GGUF file carries its own"));
    assert_true(has_note(got, "models/a.jinja) ignored: there is another of its kind"));
    cp_loaded_close(got);

    static const struct {
        const char *params, *text;
    } bad[] = {
        {"[]", "params: it is no JSON object"},
        {"{\"num_ctx\":-1}", "params: 'num_ctx' is no integer"},
        {"{\"num_ctx\":\"1\"}", "params: 'num_ctx' is no integer"},
        {"{\"num_ctx\":4294967296}", "params: 'num_ctx' is no integer"},
        {"{", "params: it is no JSON"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cp_mkl_layer(m, OLLAMA "model", g.p, g.n, "");
        cp_mkl_layer(m, OLLAMA "params", bad[i].params, strlen(bad[i].params), "");
        cp_mkl_manifest(m, "ol:bad", "c", "{}", "", d);
        refused(m, "ol:bad", CP_CORRUPT, bad[i].text);
    }
    cp_buf_clear(&t);
    for (int i = 0; i <= CP_TEMPLATE_MAX_BYTES; i++)
        cp_buf_addc(&t, ' ');
    cp_mkl_layer(m, AI "gguf.v3", g.p, g.n, "");
    cp_mkl_layer(m, AI "chat.template.jinja", t.p, t.n, "");
    cp_mkl_manifest(m, "dk:long", AI "model.config.v0.1+json", "{}", "", d);
    refused(m, "dk:long", CP_CORRUPT, "1048577 bytes, the limit is 1048576");
    cp_buf_fini(&g);
    cp_buf_fini(&t);
}

static void put_file(const char *folder, const char *name, const cp_buf *b)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->p, 1, b->n, f), b->n);
    fclose(f);
}

/* Encoders and drafters beside a model are told by their names, in an artifact and in a folder, and
 * never taken for it. */
static void sidecars(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0}, other = {0};
    char d[72], folder[96], path[512];
    static const char *const names[] = {"mmproj-m-F16.gguf", "MTP-m.gguf", "dflash-m.gguf",
                                        "eagle3-m.gguf"};
    gguf(&g, 1, 0, 0);
    gguf(&other, 2, 0, 0);
    cp_mkl_layer(m, "application/octet-stream", other.p, other.n, TITLE("mmproj-m-F16.gguf"));
    cp_mkl_layer(m, "application/octet-stream", other.p, other.n, TITLE("MTP-m.gguf"));
    cp_mkl_layer(m, "application/octet-stream", g.p, g.n, TITLE("m.gguf"));
    cp_mkl_layer(m, "application/octet-stream", other.p, other.n, TITLE("dflash-m.gguf"));
    cp_mkl_layer(m, "application/octet-stream", other.p, other.n, TITLE("eagle3-m.gguf"));
    cp_mkl_manifest(m, "sc:1", EMPTY_C, "{}", "", d);
    is_model(m, "sc:1", 1);
    cp_loaded *got = open_ok(m, "sc:1");
    assert_int_equal(cp_loaded_n_notes(got), 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(has_note(got, names[i]));
    assert_true(has_note(got, "eagle3-m.gguf) ignored: a drafter (EAGLE-3)"));
    cp_loaded_close(got);
    cp_mkl_layer(m, CNCF "weight.v1.raw", other.p, other.n, PATH("mtp-m.gguf"));
    cp_mkl_manifest(m, "sc:2", CNCF_C, "{}", "", d);
    refused(m, "sc:2", CP_CORRUPT, "no weight layer (layer 0: a drafter (MTP)");

    snprintf(folder, sizeof(folder), "%s/beside", m->dir);
    assert_int_equal(mkdir(folder, 0755), 0);
    for (size_t i = 0; i < 4; i++)
        put_file(folder, names[i], &other);
    put_file(folder, "m.gguf", &g);
    put_file(folder, "another-model.gguf", &other);
    put_file(folder, "mmproj-notes.txt", &other);
    snprintf(path, sizeof(path), "%s/m.gguf", folder);
    is_model(m, path, 1);
    got = open_ok(m, path);
    assert_int_equal(cp_loaded_n_notes(got), 4);
    assert_true(has_note(got, "MTP-m.gguf beside it ignored: a drafter (MTP)"));
    assert_true(has_note(got, "mmproj-m-F16.gguf beside it ignored: a projector"));
    cp_loaded_close(got);
    cp_buf_fini(&g);
    cp_buf_fini(&other);
}

/* Flip one bit of a file of the store. */
static void flip(const cp_mkl *m, const char *path, long at)
{
    char name[512];
    snprintf(name, sizeof(name), "%s/%s", m->store, path);
    chmod(name, 0644);
    FILE *f = fopen(name, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static void damage(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0}, t = {0};
    char d[72], path[256];
    cp_store_entry *e;
    gguf(&g, 1, 0, 0);
    cp_mk_tar_member(&t, "models/m.gguf", '0', g.p, g.n);
    add_tar(m, LAYER, &t, "gzip", "");
    cp_mkl_manifest(m, "car:1", IMAGE_C, "{\"a\":1}", "", d);
    is_model(m, "car:1", 1);
    assert_int_equal(cp_store_inspect(&m->opt, "car:1", &e, NULL), CP_OK);
    const char *hex = e->layers[0].digest + 7;
    /* The extracted file, although the blob is whole and recorded. */
    snprintf(path, sizeof(path), "capstan/extracted/%s/0", hex);
    flip(m, path, 200);
    refused(m, "car:1", CP_CORRUPT, "remove that folder to extract it again");
    flip(m, path, 200);
    is_model(m, "car:1", 1);
    /* Gone: made again. */
    uint64_t folders = 0, bytes = 0;
    assert_int_equal(cp_extract_remove(m->cache, hex, false, &folders, &bytes, NULL), CP_OK);
    assert_int_equal(folders, 1);
    is_model(m, "car:1", 1);
    /* The compressed blob, although what was extracted from it is whole. */
    snprintf(path, sizeof(path), "blobs/sha256/%s", hex);
    flip(m, path, 30);
    refused(m, "car:1", CP_CORRUPT, "expected sha256:");
    flip(m, path, 30);
    is_model(m, "car:1", 1);
    /* rm takes the extracted files along. */
    uint64_t freed = 0;
    char folder[512];
    struct stat st;
    snprintf(folder, sizeof(folder), "%s/capstan/extracted/%s", m->store, hex);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(cp_store_rm(&m->opt, "car:1", &freed, NULL), CP_OK);
    assert_int_not_equal(stat(folder, &st), 0);
    snprintf(folder, sizeof(folder), "%s/capstan/records", m->store);
    assert_int_equal(rmdir(folder), 0); /* with them went all records */
    cp_store_entries_free(e, 1);
    cp_buf_fini(&g);
    cp_buf_fini(&t);
}

/* The config counts too, for every packaging. */
static void damaged_config(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0};
    cp_descriptor c;
    char d[72], path[512];
    static const char config[] = "{\"config\":{\"context_size\":8}}";
    gguf(&g, 1, 0, 0);
    cp_mkl_layer(m, CNCF "weight.v1.raw", g.p, g.n, PATH("m.gguf"));
    cp_mkl_manifest(m, "mp:1", CNCF_C, config, "", d);
    is_model(m, "mp:1", 1);
    assert_int_equal(cp_blob_put(&m->l, config, strlen(config), &c, NULL), CP_OK);
    snprintf(path, sizeof(path), "blobs/sha256/%s", c.digest + 7);
    flip(m, path, 5);
    refused(m, "mp:1", CP_CORRUPT, "expected sha256:");
    snprintf(path, sizeof(path), "%s/blobs/sha256/%s", m->store, c.digest + 7);
    unlink(path);
    refused(m, "mp:1", CP_CORRUPT, "lacks the blob");
    cp_buf_fini(&g);
}

static void collisions(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0}, h = {0};
    char d[72];
    gguf(&g, 1, 0, 0);
    gguf(&h, 2, 0, 0);
    cp_mkl_layer(m, CNCF "weight.v1.raw", g.p, g.n, PATH("m.gguf"));
    cp_mkl_layer(m, CNCF "weight.v1.raw", h.p, h.n, PATH("../m.gguf"));
    cp_mkl_manifest(m, "mp:two", CNCF_C, "{}", "", d);
    refused(m, "mp:two", CP_CORRUPT, "layers 0 and 1 both hold 'm.gguf'");
    cp_mkl_layer(m, CNCF "weight.v1.raw", g.p, g.n, PATH("m.gguf"));
    cp_mkl_layer(m, CNCF "weight.v1.raw", g.p, g.n, PATH("m.gguf"));
    cp_mkl_manifest(m, "mp:same", CNCF_C, "{}", "", d);
    is_model(m, "mp:same", 1);
    /* A layer that is not what anything calls it. */
    cp_mkl_layer(m, "application/octet-stream", "neither", 7, "");
    cp_mkl_manifest(m, "or:no", EMPTY_C, "{}", "", d);
    refused(m, "or:no", CP_UNSUPPORTED, "none of its files is GGUF");
    cp_mkl_layer(m, CNCF "weight.v1.tar", "neither", 7, PATH("m.gguf"));
    cp_mkl_manifest(m, "mp:no", CNCF_C, "{}", "", d);
    refused(m, "mp:no", CP_CORRUPT, "tar: no header at 0");
    cp_mkl_layer(m, "application/octet-stream", "GGUX....", 8, TITLE("m.gguf"));
    cp_mkl_manifest(m, "mp:bad", CNCF_C, "{}", "", d);
    refused(m, "mp:bad", CP_CORRUPT, "is no GGUF file");
    cp_buf_fini(&g);
    cp_buf_fini(&h);
}

/* A nested index whose entries say nothing of sizes: their manifests do. */
static void variants(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0}, json = {0};
    char small[72], large[72], index[72];
    cp_loader_options opt = m->opt;
    cp_loaded *got;
    cp_err err = {0};
    gguf(&g, 1, 0, 0);
    cp_mkl_layer(m, AI "gguf.v3", g.p, g.n, "");
    cp_mkl_manifest(m, NULL, AI "model.config.v0.1+json", "{}", "", small);
    gguf(&g, 2, 0, 0);
    cp_mkl_layer(m, AI "gguf.v3", g.p, g.n, "");
    char *pad = calloc(1, 5 << 20);
    cp_mkl_layer(m, AI "license", pad, 5 << 20, "");
    free(pad);
    cp_mkl_manifest(m, NULL, AI "model.config.v0.1+json", "{}", "", large);
    /* Their sizes differ by a digit or two, so ask the layout. */
    const char *digests[] = {small, large};
    cp_buf_adds(&json, "{\"schemaVersion\":2,\"manifests\":[");
    for (int i = 0; i < 2; i++) {
        uint8_t raw[32];
        uint64_t size;
        int fd;
        assert_true(cp_digest_parse(digests[i], raw));
        assert_int_equal(cp_blob_open(&m->l, raw, &fd, &size, NULL), CP_OK);
        close(fd);
        cp_buf_printf(&json,
                      "%s{\"mediaType\":\"" CP_MT_OCI_MANIFEST
                      "\",\"digest\":\"%s\",\"size\":%llu,\"annotations\":{\"q\":\"%d\"}}",
                      i ? "," : "", digests[i], (unsigned long long)size, i);
    }
    cp_buf_adds(&json, "]}");
    cp_mkl_blob(m, json.p, json.n, index);
    cp_mkl_name(m, "many:1", CP_MT_OCI_INDEX, index, json.n);
    is_model(m, "many:1", 2);
    opt.memory_budget = 4 << 20;
    assert_int_equal(cp_loader_open(&got, "many:1", &opt, NULL), CP_OK);
    uint64_t salt = 0;
    assert_true(cp_meta_u64(cp_loaded_meta(got), "test.salt", &salt) && salt == 1);
    assert_true(has_note(got, "the largest (0 MiB) that fits into 4 MiB"));
    cp_loaded_close(got);
    opt.variant = "q=1";
    assert_int_equal(cp_loader_open(&got, "many:1", &opt, NULL), CP_OK);
    assert_true(cp_meta_u64(cp_loaded_meta(got), "test.salt", &salt) && salt == 2);
    cp_loaded_close(got);
    opt.platform = "nonsense";
    assert_int_equal(cp_loader_open(&got, "many:1", &opt, &err), CP_USAGE);
    cp_buf_fini(&g);
    cp_buf_fini(&json);
}

/* An index whose only entry is the manifest, with an annotation q=7. */
static void name_index(cp_mkl *m, const char *name, const char *manifest)
{
    cp_buf json = {0};
    char digest[72];
    uint8_t raw[32];
    uint64_t size;
    int fd;
    assert_true(cp_digest_parse(manifest, raw));
    assert_int_equal(cp_blob_open(&m->l, raw, &fd, &size, NULL), CP_OK);
    close(fd);
    cp_buf_printf(&json,
                  "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" CP_MT_OCI_MANIFEST
                  "\",\"digest\":\"%s\",\"size\":%llu,\"annotations\":{\"q\":\"7\"}}]}",
                  manifest, (unsigned long long)size);
    cp_mkl_blob(m, json.p, json.n, digest);
    cp_mkl_name(m, name, CP_MT_OCI_INDEX, digest, json.n);
    cp_buf_fini(&json);
}

/* Models of several quantizations in one artifact: raw layers, and the folder of an image. */
static void side_by_side(void **state)
{
    cp_mkl *m = *state;
    cp_buf g = {0};
    char d[72], q8[72], path[300];
    cp_loaded *got;
    gguf(&g, 1, 0, 0);
    cp_mkl_layer(m, LAYER, g.p, g.n, TITLE("m-Q4_0.gguf"));
    gguf(&g, 2, 0, 0);
    cp_mkl_layer(m, LAYER, g.p, g.n, TITLE("m-Q8_0.gguf"));
    cp_sha256_of(g.p, g.n, (uint8_t *)path);
    cp_digest_format((const uint8_t *)path, q8);
    cp_mkl_manifest(m, "or:two", EMPTY_C, "{}", "", d);
    name_index(m, "index:two", d);
    image(m, "car:two", (const char *const[]){"models/m-Q4_0.gguf=1", "models/m-Q8_0.gguf=2", "."});
    static const char *const names[] = {"or:two", "car:two"};
    for (int i = 0; i < 2; i++) {
        m->opt.variant = "Q4_0";
        is_model(m, names[i], 1);
        m->opt.variant = "Q8_0";
        is_model(m, names[i], 2);
        got = open_ok(m, names[i]);
        assert_true(has_note(got, "variant m-Q8_0 taken of 2: named by --variant"));
        assert_true(has_note(got, "m-Q4_0.gguf) ignored: another of the artifact's models"));
        cp_loaded_close(got);
        m->opt.variant = "Q5_0";
        refused(m, names[i], CP_NOT_FOUND, "no variant 'Q5_0'; there are: m-Q4_0");
        m->opt.variant = NULL;
        m->opt.memory_budget = 1;
        refused(m, names[i], CP_NO_MEMORY, "none of 2 variants fits");
        m->opt.memory_budget = 0;
    }
    /* A wish that an index has answered is not asked of what it leads to. */
    m->opt.variant = "q=7";
    is_model(m, "index:two", 1);
    m->opt.variant = NULL;
    /* A pull has brought one only. */
    snprintf(path, sizeof(path), "%s/blobs/sha256/%s", m->store, q8 + 7);
    assert_int_equal(unlink(path), 0);
    is_model(m, "or:two", 1);
    m->opt.variant = "Q8_0";
    refused(m, "or:two", CP_NOT_FOUND, "'m-Q8_0' is not here");
    m->opt.variant = NULL;
    cp_buf_fini(&g);
}

int cp_suite_files(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, cp_mkl_setup, cp_mkl_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_packaging), TEST(links),    TEST(stacked),      TEST(shards),
        TEST(extras),          TEST(sidecars), TEST(damage),       TEST(damaged_config),
        TEST(collisions),      TEST(variants), TEST(side_by_side), TEST(inspect_of_links_alone),
    };
    return cmocka_run_group_tests_name("files", tests, NULL, NULL);
}
