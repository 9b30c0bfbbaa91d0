/*
 * Pulls of artifacts whose weights are not all there, or are none: refused in every packaging, with
 * nothing fetched where the manifest tells, and without a name in any case.
 */
#include "loader/oci/pull.h"
#include "tests/unit/loader/make_gguf.h"
#include "tests/unit/loader/make_tar.h"
#include "tests/unit/loader/pull_room.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MP_C    "application/vnd.cncf.model.config.v1+json"
#define MP_W    "application/vnd.cncf.model.weight.v1."
#define DK1_C   "application/vnd.docker.ai.model.config.v0.1+json"
#define DK2_C   "application/vnd.docker.ai.model.config.v0.2+json"
#define DK_W    "application/vnd.docker.ai.gguf.v3"
#define OL_C    "application/vnd.docker.container.image.v1+json"
#define OL_W    "application/vnd.ollama.image.model"
#define OR_C    "application/vnd.oci.empty.v1+json"
#define IMAGE_C "application/vnd.oci.image.config.v1+json"
#define LAYER   "application/vnd.oci.image.layer.v1.tar"
#define OCTETS  "application/octet-stream"

/* Shard no (from 1) of count, or a whole model where count is 0. */
static void gguf(cp_buf *out, unsigned no, unsigned count)
{
    cp_mk m;
    char name[32];
    cp_mk_init(&m, 3);
    cp_mk_kv_str(&m, "general.architecture", "llama");
    if (count) {
        cp_mk_kv_u16(&m, "split.no", (uint16_t)(no - 1));
        cp_mk_kv_u16(&m, "split.count", (uint16_t)count);
    }
    snprintf(name, sizeof(name), "tensor.%u", no);
    cp_mk_tensor(&m, name, CP_DTYPE_F32, 1, (const uint64_t[]){8});
    cp_mk_finish(&m);
    cp_buf_clear(out);
    cp_buf_add(out, m.b.p, m.b.n);
    cp_mk_fini(&m);
}

/*
 * What a layer or a member holds, by a word: "2/3" the second shard of three, "gguf" a whole model,
 * "empty", "text", "tar" (of a model), else members NAME=WORD, by blanks, as a tar; "z " before it:
 * compressed.
 */
static void bytes_of(const char *word, cp_buf *out)
{
    unsigned no, count;
    cp_buf inner = {0};
    cp_buf_clear(out);
    if (sscanf(word, "%u/%u", &no, &count) == 2) {
        gguf(out, no, count);
    } else if (strcmp(word, "gguf") == 0) {
        gguf(out, 1, 0);
    } else if (strcmp(word, "text") == 0) {
        cp_buf_adds(out, "no model at all");
    } else if (strcmp(word, "tar") == 0) {
        gguf(&inner, 1, 0);
        cp_mk_tar_member(out, "m.gguf", '0', inner.p, inner.n);
        cp_mk_tar_end(out);
    } else if (strcmp(word, "empty") != 0) {
        char text[200], *rest = NULL;
        bool packed = strncmp(word, "z ", 2) == 0;
        cp_buf tar = {0};
        cp_strcopy(text, sizeof(text), word + (packed ? 2 : 0));
        for (char *p = strtok_r(text, " ", &rest); p; p = strtok_r(NULL, " ", &rest)) {
            char *eq = strchr(p, '=');
            assert_non_null(eq);
            *eq = '\0';
            if (sscanf(eq + 1, "%u/%u", &no, &count) == 2)
                gguf(&inner, no, count);
            else if (strcmp(eq + 1, "gguf") == 0)
                gguf(&inner, 1, 0);
            else
                cp_buf_clear(&inner);
            cp_mk_tar_member(&tar, p, '0', inner.p ? inner.p : "", inner.n);
        }
        cp_mk_tar_end(&tar);
        if (packed)
            cp_mk_compress(out, &tar, "gzip");
        else
            cp_buf_add(out, tar.p, tar.n);
        cp_buf_fini(&tar);
    }
    cp_buf_fini(&inner);
}

typedef struct layer {
    const char *type, *name, *holds; /* media type, file name or "", bytes_of's word */
} layer;

static void serve(const cp_room *r, const char *config_type, const layer *layers)
{
    cp_buf json = {0}, b = {0};
    char digest[CP_DIGEST_STR];
    cp_fake_blob_of(r->fake, "{}", 2, digest);
    cp_buf_printf(&json,
                  "{\"schemaVersion\":2,\"mediaType\":\"" CP_MT_OCI_MANIFEST
                  "\",\"config\":{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":2},\"layers\":[",
                  config_type, digest);
    for (const layer *l = layers; l->type; l++) {
        bytes_of(l->holds, &b);
        cp_fake_blob_of(r->fake, b.p ? b.p : "", b.n, digest);
        cp_buf_printf(&json, "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu",
                      l > layers ? "," : "", l->type, digest, b.n);
        if (l->name[0])
            cp_buf_printf(&json, ",\"annotations\":{\"org.opencontainers.image.title\":\"%s\"}",
                          l->name);
        cp_buf_adds(&json, "}");
    }
    cp_buf_adds(&json, "]}");
    cp_fake_manifest(r->fake, "v1", CP_MT_OCI_MANIFEST, json.p, json.n, digest);
    cp_buf_fini(&json);
    cp_buf_fini(&b);
}

#define SHARD(type, n, holds)                                                                      \
    {                                                                                              \
        type, "m-0000" n "-of-00003.gguf", holds                                                   \
    }

static void refused(void **state)
{
    const cp_room *r = *state;
    static const struct {
        const char *config;
        layer layers[4];
        const char *text;
        bool early; /* nothing may be fetched */
    } rows[] = {
        /* A shard is missing: the names tell. */
        {MP_C,
         {SHARD(MP_W "raw", "1", "1/3"), SHARD(MP_W "raw", "3", "3/3")},
         "'m-00002-of-00003.gguf' is missing",
         true},
        {MP_C,
         {SHARD(MP_W "raw", "2", "2/3"), SHARD(MP_W "raw", "3", "3/3")},
         "'m-00001-of-00003.gguf' is missing",
         true},
        {MP_C, {SHARD(MP_W "raw", "1", "1/3")}, "1 of 3 shards", true},
        {MP_C,
         {SHARD(MP_W "raw", "1", "1/3"), SHARD(MP_W "raw", "2", "2/3")},
         "'m-00003-of-00003.gguf' is missing",
         true},
        {MP_C, {SHARD(MP_W "tar", "1", "m-00001-of-00003.gguf=1/3")}, "of 3 shards", true},
        {DK2_C, {SHARD(DK_W, "1", "1/3"), SHARD(DK_W, "3", "3/3")}, "is missing", true},
        {OR_C, {SHARD(OCTETS, "1", "1/3"), SHARD(LAYER, "3", "3/3")}, "is missing", true},
        {MP_C,
         {{MP_W "raw", "m-00004-of-00003.gguf", "1/3"}, SHARD(MP_W "raw", "1", "1/3")},
         "is no shard of 3",
         true},
        /* Only the files tell. */
        {DK1_C, {{DK_W, "", "1/3"}, {DK_W, "", "3/3"}}, "shard 2 of 3 is missing", false},
        {OL_C, {{OL_W, "", "2/3"}}, "shard 1 of 3 is missing", false},
        {OR_C,
         {{LAYER "+gzip", "d", "z d/m-00001-of-00003.gguf=1/3 d/m-00003-of-00003.gguf=3/3"}},
         "'d/m-00002-of-00003.gguf' is missing",
         false},
        {IMAGE_C,
         {{LAYER, "", "models/m-00001-of-00002.gguf=1/2"}},
         "'models/m-00002-of-00002.gguf' is missing",
         false},
        {IMAGE_C, {{LAYER "+gzip", "", "z models/a=1/2"}}, "shard 2 of 2 is missing", false},
        /* No byte at all. */
        {MP_C, {{MP_W "raw", "m.gguf", "empty"}}, "'m.gguf' has 0 bytes", true},
        {MP_C, {{MP_W "tar", "m.gguf", "empty"}}, "has 0 bytes", true},
        {MP_C,
         {SHARD(MP_W "raw", "1", "1/3"), SHARD(MP_W "raw", "2", "empty"),
          SHARD(MP_W "raw", "3", "3/3")},
         "'m-00002-of-00003.gguf' has 0 bytes",
         true},
        {DK1_C, {{DK_W, "", "empty"}}, "layer 0 has 0 bytes", true},
        {OL_C, {{OL_W, "", "empty"}}, "has 0 bytes", true},
        {OR_C, {{OCTETS, "m.gguf", "empty"}}, "has 0 bytes", true},
        {IMAGE_C, {{LAYER, "", "empty"}}, "has 0 bytes", true},
        {IMAGE_C, {{LAYER, "", "models/m.gguf=empty"}}, "'models/m.gguf' has 0 bytes", false},
        {MP_C, {{MP_W "tar+gzip", "m.gguf", "z m.gguf=empty"}}, "'m.gguf' has 0 bytes", false},
        /* No model. */
        {MP_C,
         {{MP_W "raw", "m.gguf", "tar"}},
         "'m.gguf' is a tar archive, and its type says that it is the model itself",
         false},
        {DK1_C, {{DK_W, "", "tar"}}, "layer 0 is a tar archive, and", false},
        {OL_C, {{OL_W, "", "z m.gguf=gguf"}}, "layer 0 is compressed with gzip, and", false},
        {MP_C, {{MP_W "raw", "m.gguf", "text"}}, "'m.gguf' is no GGUF file", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_pull_options opt = {.loader.store = r->store};
        char out[72];
        cp_err err = {0};
        cp_index *x;
        uint64_t before = r->fake->sent;
        serve(r, rows[i].config, rows[i].layers);
        cp_code code = cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, &err);
        if (code != CP_CORRUPT || !strstr(err.msg, rows[i].text))
            fail_msg("row %zu: code %d '%s', wanted '%s'", i, code, err.msg, rows[i].text);
        if (rows[i].early && r->fake->sent != before)
            fail_msg("row %zu: %d bytes were sent", i, (int)(r->fake->sent - before));
        assert_int_equal(cp_layout_index(&r->l, &x, NULL, NULL), CP_OK);
        assert_int_equal(x->n, 0);
        cp_index_free(x);
        assert_int_equal(cp_room_count(r, "capstan/leases"), 0);
    }
}

/* What is whole comes, whatever lies beside it. */
static void taken(void **state)
{
    const cp_room *r = *state;
    static const struct {
        const char *config;
        layer layers[4];
        const char *variant;
    } rows[] = {
        {MP_C,
         {SHARD(MP_W "raw", "3", "3/3"), SHARD(MP_W "raw", "1", "1/3"),
          SHARD(MP_W "raw", "2", "2/3")},
         NULL},
        {DK1_C, {{DK_W, "", "2/2"}, {DK_W, "", "1/2"}}, NULL},
        {OR_C, {{OCTETS, "m.gguf", "gguf"}, {OCTETS, "gitattributes", "empty"}}, NULL},
        {OR_C,
         {{OCTETS, "m-Q4_0.gguf", "gguf"}, {OCTETS, "m-Q8_0-00001-of-00002.gguf", "1/2"}},
         "Q4_0"},
        {OR_C,
         {{LAYER "+gzip", "d",
           "z d/m-00001-of-00002.gguf=1/2 d/m-00002-of-00002.gguf=2/2 d/e=empty"}},
         NULL},
        {IMAGE_C,
         {{LAYER, "", "models/m-00001-of-00002.gguf=1/2"},
          {LAYER "+gzip", "", "z models/m-00002-of-00002.gguf=2/2"}},
         NULL},
        /* The same layer twice is one file. */
        {MP_C,
         {{MP_W "raw", "m-00001-of-00001.gguf", "1/1"},
          {MP_W "raw", "m-00001-of-00001.gguf", "1/1"}},
         NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_pull_options opt = {.loader = {.store = r->store, .variant = rows[i].variant}};
        char out[72];
        cp_err err = {0};
        cp_loaded *m;
        serve(r, rows[i].config, rows[i].layers);
        if (cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, &err))
            fail_msg("row %zu: %s", i, err.msg);
        if (cp_loader_open(&m, "r.example/m:v1", &opt.loader, &err))
            fail_msg("row %zu: %s", i, err.msg);
        cp_loaded_close(m);
    }
}

int cp_suite_whole(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refused, cp_room_setup, cp_room_teardown),
        cmocka_unit_test_setup_teardown(taken, cp_room_setup, cp_room_teardown),
    };
    return cmocka_run_group_tests_name("whole", tests, NULL, NULL);
}
