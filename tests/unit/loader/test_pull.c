/*
 * Whole pulls against a registry in memory: what is named, fetched, reused, refused, and what is
 * left when one dies.
 */
#include "loader/oci/pull.h"
#include "loader/oci/store/digest_set.h"
#include "loader/oci/store/lease.h"
#include "loader/oci/store/record.h"
#include "tests/unit/loader/make_gguf.h"
#include "tests/unit/loader/pull_room.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GGUF_V3 "application/vnd.docker.ai.gguf.v3"
static const char config_json[] = "{\"config\":{\"format\":\"gguf\"}}";

typedef struct model {
    char digest[CP_DIGEST_STR], weights[CP_DIGEST_STR], config[CP_DIGEST_STR];
    size_t weights_bytes, bytes, manifest_bytes;
} model;

static cp_pull_options options(const cp_room *r)
{
    return (cp_pull_options){.loader.store = r->store};
}

/* A GGUF file with a tensor of n floats. */
static void weights(cp_mk *m, uint64_t n, uint32_t salt)
{
    cp_mk_init(m, 3);
    cp_mk_kv_str(m, "general.architecture", "llama");
    cp_mk_kv_u32(m, "general.file_type", 15);
    cp_mk_kv_u32(m, "test.salt", salt);
    cp_mk_tensor(m, "token_embd.weight", CP_DTYPE_F32, 1, &n);
    cp_mk_finish(m);
}

/* A model of about kib KiB on the registry under tag (NULL: by digest only). */
static void serve(const cp_room *r, const char *tag, size_t kib, uint32_t salt, model *out)
{
    cp_mk m;
    cp_buf json = {0};
    weights(&m, kib * 256, salt);
    const cp_fake_item *w = cp_fake_blob_of(r->fake, m.b.p, m.b.n, out->weights);
    cp_descriptor layer = cp_room_descriptor(w);
    layer.media_type = GGUF_V3;
    cp_descriptor config =
        cp_room_descriptor(cp_fake_blob_of(r->fake, config_json, strlen(config_json), out->config));
    config.media_type = "application/vnd.docker.ai.model.config.v0.1+json";
    assert_int_equal(cp_manifest_write(&json, NULL, &config, &layer, 1, NULL), CP_OK);
    cp_fake_manifest(r->fake, tag, CP_MT_OCI_MANIFEST, json.p, json.n, out->digest);
    out->weights_bytes = m.b.n;
    out->bytes = m.b.n + config.size;
    out->manifest_bytes = json.n;
    cp_buf_fini(&json);
    cp_mk_fini(&m);
}

static char phases[128];

static void seen(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    (void)arg, (void)done, (void)total;
    size_t n = strlen(phases);
    if (!strstr(phases, phase))
        cp_snprintf(phases + n, sizeof(phases) - n, "%s ", phase);
}

static void pulls(const cp_room *r, const char *ref, const char *digest)
{
    cp_pull_options opt = options(r);
    char out[72];
    cp_err err = {0};
    phases[0] = '\0';
    if (cp_pull(&opt, ref, seen, NULL, out, &err) != CP_OK)
        fail_msg("pull %s: %s", ref, err.msg);
    assert_string_equal(out, digest);
    assert_int_equal(cp_room_count(r, "capstan/partial"), 0);
}

static void refused(const cp_room *r, const cp_pull_options *o, const char *ref, cp_code want,
                    const char *text)
{
    cp_pull_options opt = o ? *o : options(r);
    char out[72];
    cp_err err = {0};
    cp_code code = cp_pull(&opt, ref, NULL, NULL, out, &err);
    if (code != want || err.code != want || !strstr(err.msg, text))
        fail_msg("pull %s: code %d '%s', wanted %d '%s'", ref, code, err.msg, want, text);
    assert_int_equal(cp_room_count(r, "capstan/leases"), 0);
}

static cp_code opens(const cp_room *r, const char *ref)
{
    cp_loader_options opt = {.store = r->store};
    cp_loaded *m;
    cp_code code = cp_loader_open(&m, ref, &opt, NULL);
    cp_loaded_close(m);
    return code;
}

static uint64_t sent_since(const cp_room *r, uint64_t *mark)
{
    uint64_t n = r->fake->sent - *mark;
    *mark = r->fake->sent;
    return n;
}

static void names_and_maps(void **state)
{
    const cp_room *r = *state;
    model a;
    uint64_t mark = 0;
    cp_store_entry *e;
    cp_loader_options opt = {.store = r->store};
    serve(r, "v1", 5000, 1, &a);
    pulls(r, "r.example/m:v1", a.digest);
    assert_int_equal(strncmp(phases, "resolving pulling ", 18), 0); /* "verifying" if it shows */
    assert_non_null(strstr(phases, "done "));
    assert_int_equal(cp_room_count(r, "capstan/leases"), 0);
    assert_int_equal(sent_since(r, &mark), a.bytes);
    assert_int_equal(cp_store_inspect(&opt, "r.example/m:v1", &e, NULL), CP_OK);
    assert_string_equal(e->name, "r.example/m:v1");
    assert_string_equal(e->format, "docker");
    cp_store_entries_free(e, 1);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
    /* Again: the tag is asked for, nothing else. */
    uint64_t gets = r->fake->n_manifest_gets;
    pulls(r, "r.example/m:v1", a.digest);
    assert_true(sent_since(r, &mark) == 0 && r->fake->n_manifest_gets == gets + 1);
    refused(r, NULL, "r.example/m:v2", CP_NOT_FOUND, "has no manifest v2");
    refused(r, NULL, "./x.gguf", CP_USAGE, "no name on a registry");
    refused(r, NULL, "oci:/x", CP_USAGE, "no name on a registry");
}

static void default_names(void **state)
{
    const cp_room *r = *state;
    model a;
    cp_store_entry *e;
    size_t n;
    cp_loader_options opt = {.store = r->store};
    serve(r, "latest", 1, 1, &a);
    pulls(r, "tiny", a.digest);
    assert_int_equal(cp_store_list(&opt, &e, &n, NULL), CP_OK);
    assert_int_equal(n, 1);
    assert_string_equal(e[0].name, "docker.io/ai/tiny:latest");
    cp_store_entries_free(e, n);
    assert_int_equal(opens(r, "tiny"), CP_OK);
}

/* A tag that moved: the name follows, what only the old one used goes. */
static void follows_the_tag(void **state)
{
    const cp_room *r = *state;
    model a, b;
    serve(r, "v1", 100, 1, &a);
    pulls(r, "r.example/m:v1", a.digest);
    serve(r, "v1", 120, 2, &b);
    pulls(r, "r.example/m:v1", b.digest);
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 3);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
}

static void pinned(void **state)
{
    const cp_room *r = *state;
    model a, b;
    char ref[256];
    serve(r, "v1", 10, 1, &a);
    serve(r, "latest", 10, 2, &b);
    snprintf(ref, sizeof(ref), "r.example/m@%s", a.digest);
    pulls(r, ref, a.digest);
    assert_int_equal(opens(r, ref), CP_OK);
    assert_int_equal(opens(r, "r.example/m"), CP_NOT_FOUND); /* it is not :latest */
    snprintf(ref, sizeof(ref), "r.example/m:v1@%s", a.digest);
    pulls(r, ref, a.digest);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
    /* Something else is sent under that digest. */
    char digest[CP_DIGEST_STR], other[CP_DIGEST_STR];
    cp_fake_manifest(r->fake, NULL, CP_MT_OCI_MANIFEST, "{}", 2, digest);
    memcpy(other, digest, sizeof(other));
    other[70] = other[70] == 'a' ? 'b' : 'a';
    cp_strcopy(r->fake->manifest[r->fake->n_manifests - 1].name, 128, other);
    snprintf(ref, sizeof(ref), "r.example/m@%s", other);
    refused(r, NULL, ref, CP_CORRUPT, "what the registry sent has digest");
}

/* An index of the two models; size_off makes the first entry's size wrong. */
static void serve_index(const cp_room *r, const char *tag, const model *amd, const model *arm,
                        int size_off, char digest[CP_DIGEST_STR])
{
    cp_buf b = {0};
    cp_buf_printf(&b,
                  "{\"schemaVersion\":2,\"mediaType\":\"" CP_MT_OCI_INDEX "\",\"manifests\":["
                  "{\"mediaType\":\"" CP_MT_OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,"
                  "\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}},"
                  "{\"mediaType\":\"" CP_MT_OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,"
                  "\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}}]}",
                  amd->digest, amd->manifest_bytes + (size_t)size_off, arm->digest,
                  arm->manifest_bytes);
    cp_fake_manifest(r->fake, tag, CP_MT_OCI_INDEX, b.p, b.n, digest);
    cp_buf_fini(&b);
}

static void indexes(void **state)
{
    const cp_room *r = *state;
    model amd, arm;
    char digest[CP_DIGEST_STR], ref[256];
    cp_loader_options opt = {.store = r->store};
    cp_pull_options other = options(r);
    cp_loaded *m;
    char out[72];
    serve(r, NULL, 10, 1, &amd);
    serve(r, NULL, 10, 2, &arm);
    serve_index(r, "v1", &amd, &arm, 0, digest);
    other.loader.platform = "linux/arm64";
    assert_int_equal(cp_pull(&other, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK);
    assert_string_equal(out, digest);
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 4); /* index, manifest, config, weights */
    opt.platform = other.loader.platform;
    snprintf(ref, sizeof(ref), "r.example/m@%s", digest);
    assert_int_equal(cp_loader_open(&m, ref, &opt, NULL), CP_OK);
    assert_string_equal(cp_loaded_digest(m), arm.weights);
    cp_loaded_close(m);
    opt.platform = "linux/amd64"; /* not here yet: a pull can bring it */
    assert_int_equal(cp_loader_open(&m, ref, &opt, NULL), CP_NOT_FOUND);
    other.loader.platform = opt.platform;
    assert_int_equal(cp_pull(&other, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK);
    assert_int_equal(cp_loader_open(&m, ref, &opt, NULL), CP_OK);
    assert_string_equal(cp_loaded_digest(m), amd.weights);
    cp_loaded_close(m);
    serve_index(r, "v2", &amd, &arm, 1, digest);
    refused(r, &other, "r.example/m:v2", CP_CORRUPT, "its descriptor says");
}

/* Without a wish what was pulled is what opens, whatever a fresh choice would be. */
static void opens_what_is_here(void **state)
{
    const cp_room *r = *state;
    model small, large;
    cp_buf b = {0};
    char digest[CP_DIGEST_STR], out[72];
    cp_pull_options opt = options(r);
    cp_loader_options lopt = {.store = r->store};
    cp_loaded *m;
    serve(r, NULL, 10, 1, &small);
    serve(r, NULL, 2000, 2, &large);
    cp_buf_printf(&b,
                  "{\"schemaVersion\":2,\"manifests\":["
                  "{\"mediaType\":\"" CP_MT_OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,"
                  "\"modelMetadata\":{\"vram\":\"20KB\"}},"
                  "{\"mediaType\":\"" CP_MT_OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,"
                  "\"modelMetadata\":{\"vram\":\"3MB\"}}]}",
                  small.digest, small.manifest_bytes, large.digest, large.manifest_bytes);
    cp_fake_manifest(r->fake, "v1", CP_MT_OCI_INDEX, b.p, b.n, digest);
    cp_buf_fini(&b);
    opt.loader.memory_budget = 1 << 20;
    assert_int_equal(cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK);
    for (int i = 0; i < 2; i++) {
        lopt.memory_budget = i ? UINT64_C(1) << 40 : 0;
        assert_int_equal(cp_loader_open(&m, "r.example/m:v1", &lopt, NULL), CP_OK);
        assert_string_equal(cp_loaded_digest(m), small.weights);
        cp_loaded_close(m);
    }
}

/* Weights that `pack` brought are not fetched; an unrecorded blob is hashed, a wrong one replaced.
 */
static void reuses_blobs(void **state)
{
    const cp_room *r = *state;
    model a;
    cp_mk m;
    char path[512], digest[72], blob[512];
    uint64_t mark = 0;
    cp_loader_options opt = {.store = r->store};
    weights(&m, 256 * 900, 7);
    snprintf(path, sizeof(path), "%s/w.gguf", r->dir);
    cp_mk_save(&m, path);
    cp_mk_fini(&m);
    assert_int_equal(cp_store_pack(&opt, path, "packed", "modelpack", NULL, NULL, digest, NULL),
                     CP_OK);
    serve(r, "v1", 900, 7, &a);
    pulls(r, "r.example/m:v1", a.digest);
    assert_int_equal(sent_since(r, &mark), strlen(config_json));
    snprintf(path, sizeof(path), "%s/%s", r->records, a.weights + 7);
    assert_int_equal(unlink(path), 0);
    pulls(r, "r.example/m:v1", a.digest);
    assert_non_null(strstr(phases, "verifying"));
    assert_int_equal(sent_since(r, &mark), 0);
    assert_int_equal(access(path, F_OK), 0); /* recorded now */
    cp_room_path(r, blob, "blobs/sha256/%s", a.weights + 7);
    chmod(blob, 0644);
    assert_int_equal(truncate(blob, 100), 0);
    pulls(r, "r.example/m:v1", a.digest);
    assert_int_equal(sent_since(r, &mark), a.weights_bytes);
    assert_int_equal(opens(r, "packed"), CP_OK);
}

static void room_is_checked(void **state)
{
    const cp_room *r = *state;
    model a, b;
    cp_pull_options opt = options(r);
    char out[72];
    serve(r, "v1", 1000, 1, &a);
    serve(r, "v2", 1000, 2, &b);
    opt.store_quota = a.bytes + 4096; /* the manifest counts too */
    assert_int_equal(cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK);
    refused(r, &opt, "r.example/m:v2", CP_IO, "over the quota: the store holds 10");
    assert_int_equal(cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK);
    assert_int_equal(r->fake->sent, a.bytes);
    /* More than any disk here has: the arithmetic, before anything is fetched. */
    cp_buf json = {0};
    char digest[CP_DIGEST_STR];
    cp_buf_printf(&json,
                  "{\"schemaVersion\":2,\"config\":{\"mediaType\":"
                  "\"application/vnd.docker.ai.model.config.v0.1+json\",\"digest\":\"%s\","
                  "\"size\":%zu},\"layers\":[{\"mediaType\":\"" GGUF_V3 "\",\"digest\":\"%s\","
                  "\"size\":%llu}]}",
                  a.config, strlen(config_json), b.weights, 16ull << 40);
    cp_fake_manifest(r->fake, "huge", CP_MT_OCI_MANIFEST, json.p, json.n, digest);
    cp_buf_fini(&json);
    refused(r, NULL, "r.example/m:huge", CP_IO, "no space: 17592186044");
    assert_int_equal(r->fake->sent, a.bytes);
}

static void hostile_manifests(void **state)
{
    const cp_room *r = *state;
    model a;
    char digest[CP_DIGEST_STR];
    serve(r, "v1", 1, 1, &a);
    static const struct {
        const char *config, *layers, *type;
        cp_code code;
        const char *text;
    } rows[] = {
        {"\"size\":5000000", "", CP_MT_OCI_MANIFEST, CP_CORRUPT, "the config claims 5000000"},
        {"\"size\":2",
         ",{\"mediaType\":\"" GGUF_V3 "\",\"digest\":\"sha256:"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":7},"
         "{\"mediaType\":\"" GGUF_V3 "\",\"digest\":\"sha256:"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":8}",
         CP_MT_OCI_MANIFEST, CP_CORRUPT, "two sizes"},
        {"\"size\":2",
         ",{\"mediaType\":\"" GGUF_V3 "\",\"digest\":\"sha256:"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"size\":"
         "9000000000000000000}",
         CP_MT_OCI_MANIFEST, CP_CORRUPT, "the limit is"},
        {"\"size\":2",
         ",{\"mediaType\":\"" GGUF_V3 "\",\"digest\":\"sha256:../../../../etc/passwd\",\"size\":7}",
         CP_MT_OCI_MANIFEST, CP_CORRUPT, "digest"},
        {"\"size\":2", "", CP_MT_DOCKER_MANIFEST, CP_CORRUPT, "was sent as"},
        {"\"size\":2", "", CP_MT_OCI_INDEX, CP_CORRUPT, "index"},
        {"\"size\":-1", "", CP_MT_OCI_MANIFEST, CP_CORRUPT, "size"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_buf json = {0};
        cp_buf_printf(&json,
                      "{\"schemaVersion\":2,\"mediaType\":\"" CP_MT_OCI_MANIFEST
                      "\",\"config\":{\"mediaType\":"
                      "\"application/vnd.docker.ai.model.config.v0.1+json\",\"digest\":\"%s\",%s},"
                      "\"layers\":[{\"mediaType\":\"" GGUF_V3
                      "\",\"digest\":\"%s\",\"size\":%zu}%s]}",
                      a.config, rows[i].config, a.weights, a.weights_bytes, rows[i].layers);
        cp_fake_manifest(r->fake, "bad", rows[i].type, json.p, json.n, digest);
        cp_buf_fini(&json);
        refused(r, NULL, "r.example/m:bad", rows[i].code, rows[i].text);
    }
    assert_int_equal(r->fake->sent, 0);
    /* An index that names itself a manifest, four deep, and one without entries. */
    cp_fake_manifest(r->fake, "bad", CP_MT_OCI_INDEX, "{\"schemaVersion\":2,\"manifests\":[]}", 34,
                     digest);
    refused(r, NULL, "r.example/m:bad", CP_NOT_FOUND, "no entry for linux/");
}

static void deep_indexes(void **state)
{
    const cp_room *r = *state;
    model a;
    serve(r, "v1", 1, 1, &a);
    char inner[CP_DIGEST_STR], third[CP_DIGEST_STR] = "", tag[16];
    const char *type = CP_MT_OCI_MANIFEST;
    size_t size = a.manifest_bytes;
    memcpy(inner, a.digest, sizeof(inner));
    for (int depth = 1; depth <= 4; depth++) {
        cp_buf b = {0};
        cp_buf_printf(&b,
                      "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"%s\",\"digest\":"
                      "\"%s\",\"size\":%zu}]}",
                      type, inner, size);
        snprintf(tag, sizeof(tag), "d%d", depth);
        cp_fake_manifest(r->fake, tag, depth == 2 ? "text/plain" : CP_MT_OCI_INDEX, b.p, b.n,
                         inner);
        if (depth == 3)
            memcpy(third, inner, sizeof(third));
        size = b.n;
        type = CP_MT_OCI_INDEX;
        cp_buf_fini(&b);
    }
    pulls(r, "r.example/m:d3", third);
    assert_int_equal(opens(r, "r.example/m:d3"), CP_OK);
    refused(r, NULL, "r.example/m:d4", CP_CORRUPT, "nested more than 3 deep");
}

static cp_gc_result gc(const cp_room *r, bool dry_run)
{
    cp_loader_options opt = {.store = r->store};
    cp_gc_result out;
    cp_err err = {0};
    if (cp_store_gc(&opt, dry_run, &out, &err) != CP_OK)
        fail_msg("gc: %s", err.msg);
    return out;
}

static int pull_child(void *arg)
{
    const cp_room *r = arg;
    cp_pull_options opt = options(r);
    char out[72];
    return cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, NULL) != CP_OK;
}

static void dies_and_goes_on(void **state)
{
    cp_room *r = *state;
    static const char *const points[] = {"bytes=1500000:kill", "fsync:kill",    "rename:kill",
                                         "renamed:kill",       "manifest:kill", "index:kill",
                                         "indexed:kill"};
    for (uint32_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        model a;
        uint64_t mark = r->fake->sent;
        serve(r, "v1", 2000, 50 + i, &a);
        setenv("CAPSTAN_FAULT", points[i], 1);
        assert_true(WIFSIGNALED(cp_room_child(pull_child, r)));
        unsetenv("CAPSTAN_FAULT");
        pulls(r, "r.example/m:v1", a.digest);
        uint64_t sent = sent_since(r, &mark);
        if (sent > (i == 0 ? 1500000 : strlen(config_json)))
            fail_msg("%s: %d bytes were sent again", points[i], (int)sent);
        assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
        gc(r, false); /* what "indexed" had replaced was nobody's any more */
        assert_int_equal(cp_room_count(r, "blobs/sha256"), 3);
        assert_int_equal(cp_room_count(r, "capstan/leases"), 0);
    }
}

static void two_pull_at_once(void **state)
{
    cp_room *r = *state;
    model a;
    int status;
    serve(r, "v1", 9000, 1, &a);
    r->fake->chunk = 4096;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(pull_child(r));
    pulls(r, "r.example/m:v1", a.digest);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 3);
}

/* ---- gc, verify, rm beside others ---- */

static void gc_removes_what_nothing_names(void **state)
{
    cp_room *r = *state;
    model a, b;
    char path[512], hex[65];
    serve(r, "v1", 3000, 1, &a);
    serve(r, "v2", 2000, 2, &b);
    pulls(r, "r.example/m:v1", a.digest);
    pulls(r, "r.example/m:v2", b.digest);
    cp_gc_result g = gc(r, false);
    assert_true(g.blobs == 0 && g.bytes == 0 && g.partials == 0 && g.extracted == 0);
    /* A name lost, a pull that died, leftovers of an extraction, a void lease. */
    setenv("CAPSTAN_FAULT", "bytes=1500000:kill", 1);
    serve(r, "v1", 5000, 3, &a);
    assert_true(WIFSIGNALED(cp_room_child(pull_child, r)));
    unsetenv("CAPSTAN_FAULT");
    assert_int_equal(cp_room_count(r, "capstan/leases"), 1);
    assert_int_equal(cp_layout_index_write(&r->l, "{\"manifests\":[]}", 16, NULL), CP_OK);
    memset(hex, 'c', 64);
    hex[64] = '\0';
    mkdir(cp_room_path(r, path, "capstan/extracted"), 0755);
    assert_int_equal(mkdir(cp_room_path(r, path, "capstan/extracted/%s", hex), 0755), 0);
    cp_gc_result dry = gc(r, true);
    assert_true(dry.blobs == 5 && dry.partials == 1 && dry.extracted == 1);
    assert_true(dry.bytes >= 5000 << 10);
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 5);
    g = gc(r, false);
    assert_memory_equal(&g, &dry, sizeof(g));
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 0);
    assert_int_equal(cp_room_count(r, "capstan/partial"), 0);
    assert_int_equal(cp_room_count(r, "capstan/leases"), 0);
    assert_int_equal(cp_room_count(r, "capstan/records"), 0);
    g = gc(r, false);
    assert_true(g.blobs == 0 && g.bytes == 0);
    cp_loader_options none = {.store = "/nowhere/at/all"};
    assert_int_equal(cp_store_gc(&none, false, &g, NULL), CP_OK);
}

/* What is no blob by its whole name is not ours; a record without its file is of no use. */
static void gc_takes_whole_names_alone(void **state)
{
    cp_room *r = *state;
    model a;
    char path[512], hex[65];
    static const struct {
        const char *folder, *suffix;
    } others[] = {{"blobs/sha256", ".bak"},
                  {"blobs/sha256", "a"},
                  {"capstan/cache", ".bak"},
                  {"capstan/extracted", ".bak"}};
    serve(r, "v1", 100, 1, &a);
    pulls(r, "r.example/m:v1", a.digest);
    memset(hex, 'c', 64);
    hex[64] = '\0';
    mkdir(cp_room_path(r, path, "capstan/extracted"), 0755);
    mkdir(cp_room_path(r, path, "capstan/cache"), 0755);
    for (size_t i = 0; i < 4; i++) {
        cp_room_path(r, path, "%s/%s%s", others[i].folder, hex, others[i].suffix);
        int fd = open(path, O_WRONLY | O_CREAT, 0644);
        assert_true(fd >= 0 && write(fd, "0123456789", 10) == 10);
        close(fd);
    }
    assert_int_equal(mkdir(cp_room_path(r, path, "blobs/sha256/%s", hex), 0755), 0);
    size_t records = cp_room_count(r, "capstan/records");
    for (int i = 0; i < 2; i++) { /* of a file that is gone, and of a writer that died */
        struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
        cp_room_path(r, path, "capstan/records/%s%s%s", i ? "." : "", hex,
                     i ? ".0123456789abcdef" : "");
        assert_int_equal(mknod(path, S_IFREG | 0644, 0), 0);
        assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    }
    cp_gc_result dry = gc(r, true);
    assert_int_equal(cp_room_count(r, "capstan/records"), records + 2);
    cp_gc_result g = gc(r, false);
    assert_memory_equal(&g, &dry, sizeof(g));
    assert_true(g.blobs == 0 && g.bytes == 0 && g.extracted == 0);
    assert_int_equal(cp_room_count(r, "capstan/records"), records);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
    for (size_t i = 0; i < 4; i++) {
        cp_room_path(r, path, "%s/%s%s", others[i].folder, hex, others[i].suffix);
        assert_int_equal(access(path, F_OK), 0);
    }
}

/* What an import that was killed left goes; what somebody writes, or just began, stays. */
static void gc_removes_killed_imports(void **state)
{
    cp_room *r = *state;
    static const char *const names[] = {"blobs/sha256/.capstan-tmp-1-0",
                                        "blobs/sha256/.capstan-tmp-2-0",
                                        "blobs/sha256/.capstan-tmp-3-0", "blobs/sha256/other"};
    struct timespec old[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};
    model a;
    char path[512];
    int fd[4];
    serve(r, "v1", 10, 1, &a);
    pulls(r, "r.example/m:v1", a.digest);
    for (int i = 0; i < 4; i++) {
        fd[i] = open(cp_room_path(r, path, "%s", names[i]), O_RDWR | O_CREAT | O_EXCL, 0644);
        assert_int_equal(ftruncate(fd[i], 1000), 0);
        if (i != 2)
            assert_int_equal(futimens(fd[i], old), 0);
    }
    assert_int_equal(flock(fd[1], LOCK_EX), 0);
    cp_gc_result dry = gc(r, true);
    assert_int_equal(dry.bytes, 1000);
    assert_int_equal(access(cp_room_path(r, path, "%s", names[0]), F_OK), 0);
    cp_gc_result g = gc(r, false);
    assert_memory_equal(&g, &dry, sizeof(g));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(access(cp_room_path(r, path, "%s", names[i]), F_OK), i ? 0 : -1);
        close(fd[i]);
    }
    assert_int_equal(gc(r, false).bytes, 1000); /* its writer is gone */
}

/* What a process has mapped stays, named or not. */
static void gc_keeps_what_is_mapped(void **state)
{
    cp_room *r = *state;
    model a;
    cp_loaded *m;
    cp_loader_options opt = {.store = r->store};
    uint64_t freed = 0;
    serve(r, "v1", 100, 1, &a);
    pulls(r, "r.example/m:v1", a.digest);
    assert_int_equal(cp_loader_open(&m, "r.example/m:v1", &opt, NULL), CP_OK);
    assert_int_equal(cp_store_rm(&opt, "r.example/m:v1", &freed, NULL), CP_OK);
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 1); /* the weights */
    cp_gc_result g = gc(r, false);
    assert_true(g.blobs == 0 && g.bytes == 0);
    cp_loaded_close(m);
    g = gc(r, false);
    assert_true(g.blobs == 1 && g.bytes == a.weights_bytes);
}

/* A model's caches lie in a folder of their own, count, and go with its weights. */
static void caches_go_with_their_weights(void **state)
{
    cp_room *r = *state;
    model a, b;
    cp_loaded *m;
    char path[CP_DIR_MAX], orphan[512];
    static const char packed[1 << 16];
    cp_loader_options opt = {.store = r->store};
    serve(r, "v1", 100, 1, &a);
    serve(r, "v2", 100, 2, &b);
    pulls(r, "r.example/m:v1", a.digest);
    assert_int_equal(cp_loader_open(&m, "r.example/m:v1", &opt, NULL), CP_OK);
    cp_snprintf(path, sizeof(path), "%s/packed", cp_loaded_cache_dir(m));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    assert_int_equal(write(fd, packed, sizeof(packed)), sizeof(packed));
    close(fd);
    cp_pull_options limited = options(r);
    limited.store_quota = a.bytes + b.bytes + sizeof(packed) / 2;
    refused(r, &limited, "r.example/m:v2", CP_IO, "over the quota");
    cp_room_path(r, orphan, "capstan/cache/%064d", 7);
    assert_int_equal(mkdir(orphan, 0755), 0);
    cp_gc_result g = gc(r, false); /* the weights are named */
    assert_int_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(orphan, F_OK), 0);
    assert_int_equal(cp_store_rm(&opt, "r.example/m:v1", NULL, NULL), CP_OK);
    assert_int_equal(access(path, F_OK), 0); /* and now mapped */
    cp_loaded_close(m);
    g = gc(r, true);
    assert_true(g.blobs == 1 && g.bytes == a.weights_bytes + sizeof(packed));
    assert_int_equal(access(path, F_OK), 0);
    g = gc(r, false);
    assert_true(g.blobs == 1 && g.bytes == a.weights_bytes + sizeof(packed));
    assert_int_equal(cp_room_count(r, "capstan/cache"), 0);
}

typedef struct holder {
    cp_room *r;
    model a;
    int ready, leave;
} holder;

/* A pull that has its blobs, no name yet, and waits. */
static int hold(void *arg)
{
    holder *h = arg;
    cp_digest_set s = {0};
    cp_lease lease;
    uint8_t raw[32];
    char c;
    cp_digest_parse(h->a.weights, raw);
    cp_digest_set_add(&s, raw);
    if (cp_lease_take(&lease, &h->r->l, &s, NULL) != CP_OK || write(h->ready, "x", 1) != 1 ||
        read(h->leave, &c, 1) != 1)
        return 1;
    return 0; /* without dropping it: as if killed */
}

static void gc_meanwhile(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    if (strcmp(phase, "pulling") == 0)
        gc(arg, false);
}

/* All is here but the config, nothing is named, and gc runs while that is fetched. */
static void pulls_beside_gc(void **state)
{
    cp_room *r = *state;
    cp_pull_options opt = options(r);
    model a;
    char path[512], out[72];
    serve(r, "v1", 3000, 1, &a);
    setenv("CAPSTAN_FAULT", "manifest:kill", 1);
    assert_true(WIFSIGNALED(cp_room_child(pull_child, r)));
    unsetenv("CAPSTAN_FAULT");
    assert_int_equal(unlink(cp_room_path(r, path, "blobs/sha256/%s", a.config + 7)), 0);
    assert_int_equal(cp_pull(&opt, "r.example/m:v1", gc_meanwhile, r, out, NULL), CP_OK);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
}

static void gc_keeps_what_is_leased(void **state)
{
    holder h = {.r = *state};
    cp_loader_options opt = {.store = h.r->store};
    int ready[2], leave[2], status;
    char c;
    serve(h.r, "v1", 3000, 1, &h.a);
    setenv("CAPSTAN_FAULT", "manifest:kill", 1);
    assert_true(WIFSIGNALED(cp_room_child(pull_child, h.r)));
    unsetenv("CAPSTAN_FAULT");
    assert_int_equal(cp_room_count(h.r, "blobs/sha256"), 2);
    assert_true(pipe(ready) == 0 && pipe(leave) == 0);
    h.ready = ready[1];
    h.leave = leave[0];
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(leave[1]); /* so that it ends with this process */
        _exit(hold(&h));
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    /* A beginning of the same blob that nobody works on right now. */
    char path[512];
    close(open(cp_room_path(h.r, path, "capstan/partial/%s", h.a.weights + 7), O_CREAT, 0600));
    cp_gc_result g = gc(h.r, false);
    assert_true(g.blobs == 1 && g.partials == 0); /* the config alone */
    assert_int_equal(cp_store_rm(&opt, "r.example/m:v1", NULL, NULL), CP_NOT_FOUND);
    assert_int_equal(write(leave[1], "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    g = gc(h.r, false);
    assert_true(g.blobs == 1 && g.partials == 1);
    assert_int_equal(cp_room_count(h.r, "blobs/sha256"), 0);
}

static void gc_is_careful_beside_a_broken_entry(void **state)
{
    cp_room *r = *state;
    model a, b;
    char path[512];
    cp_gc_result g;
    cp_err err = {0};
    cp_loader_options opt = {.store = r->store};
    serve(r, "v1", 10, 1, &a);
    serve(r, "v2", 10, 2, &b);
    pulls(r, "r.example/m:v1", a.digest);
    pulls(r, "r.example/m:v2", b.digest);
    assert_int_equal(cp_store_rm(&opt, "r.example/m:v1", NULL, NULL), CP_OK);
    cp_room_path(r, path, "blobs/sha256/%s", b.digest + 7);
    chmod(path, 0644);
    assert_int_equal(truncate(path, 9), 0);
    size_t n = cp_room_count(r, "blobs/sha256");
    assert_int_equal(cp_store_gc(&opt, false, &g, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "'r.example/m:v2' cannot be read"));
    assert_int_equal(cp_room_count(r, "blobs/sha256"), n);
    pulls(r, "r.example/m:v2", b.digest); /* heals */
    assert_int_equal(cp_store_gc(&opt, false, &g, NULL), CP_OK);
}

/* A pull brings one entry of an index: where none is left, what it needed is unknown. */
static void gc_is_careful_beside_an_empty_index(void **state)
{
    const cp_room *r = *state;
    model amd, arm;
    char path[512], digest[CP_DIGEST_STR], out[72];
    cp_gc_result g;
    cp_err err = {0};
    cp_loader_options opt = {.store = r->store};
    cp_pull_options pull = options(r);
    pull.loader.platform = "linux/arm64";
    serve(r, NULL, 10, 1, &amd);
    serve(r, NULL, 10, 2, &arm);
    serve_index(r, "v1", &amd, &arm, 0, digest);
    assert_int_equal(cp_pull(&pull, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK);
    assert_int_equal(cp_store_gc(&opt, false, &g, NULL), CP_OK);
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 4);
    assert_int_equal(unlink(cp_room_path(r, path, "blobs/sha256/%s", arm.digest + 7)), 0);
    assert_int_equal(cp_store_gc(&opt, false, &g, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "'r.example/m:v1' cannot be read"));
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 3);
    assert_int_equal(cp_pull(&pull, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK); /* heals */
    assert_int_equal(cp_store_gc(&opt, false, &g, NULL), CP_OK);
    assert_int_equal(cp_room_count(r, "blobs/sha256"), 4);
}

static void verify_hashes_everything(void **state)
{
    cp_room *r = *state;
    model a;
    char path[512];
    uint64_t bytes;
    uint8_t raw[32];
    cp_err err = {0};
    cp_loader_options opt = {.store = r->store};
    serve(r, "v1", 3000, 1, &a);
    pulls(r, "r.example/m:v1", a.digest);
    phases[0] = '\0';
    assert_int_equal(cp_store_verify(&opt, "r.example/m:v1", seen, NULL, &bytes, &err), CP_OK);
    assert_int_equal(bytes, a.bytes);
    assert_string_equal(phases, "verifying ");
    assert_int_equal(cp_store_verify(&opt, "r.example/m:v9", NULL, NULL, NULL, &err), CP_NOT_FOUND);
    /* A flipped byte under a record that says all is well: written by this user in his own store,
     * a start believes it, verify does not. Where others can write it, neither does. */
    cp_room_path(r, path, "blobs/sha256/%s", a.weights + 7);
    chmod(path, 0644);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "x", 1, 2000000), 1);
    assert_true(cp_digest_parse(a.weights, raw));
    char name[CP_RECORD_NAME], record[512];
    cp_record_name_blob(name, raw);
    cp_record_write(&r->places, name, fd, raw);
    close(fd);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
    assert_int_equal(cp_store_verify(&opt, "r.example/m:v1", NULL, NULL, NULL, &err), CP_CORRUPT);
    snprintf(record, sizeof(record), "%s/%s", r->records, a.weights + 7);
    assert_int_equal(chmod(record, 0664), 0);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_CORRUPT);
    assert_int_equal(cp_store_verify(&opt, "r.example/m:v1", NULL, NULL, NULL, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, a.weights));
    unlink(path);
    assert_int_equal(cp_store_verify(&opt, "r.example/m:v1", NULL, NULL, NULL, &err), CP_CORRUPT);
    pulls(r, "r.example/m:v1", a.digest);
    assert_int_equal(cp_store_verify(&opt, "r.example/m:v1", NULL, NULL, NULL, &err), CP_OK);
    unlink(cp_room_path(r, path, "blobs/sha256/%s", a.config + 7));
    assert_int_equal(cp_store_verify(&opt, "r.example/m:v1", NULL, NULL, NULL, &err), CP_CORRUPT);
}

/* Of several models in one artifact only the one that is meant comes; another one later. */
static void brings_one_of_several(void **state)
{
    const cp_room *r = *state;
    static const char *const quants[] = {"Q4_0", "Q8_0"};
    cp_pull_options opt = options(r);
    cp_buf json = {0};
    cp_err err = {0};
    char digest[2][CP_DIGEST_STR], config[CP_DIGEST_STR], out[72];
    size_t bytes[2];
    uint64_t mark = 0;
    cp_fake_blob_of(r->fake, "{}", 2, config);
    cp_buf_printf(&json,
                  "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/"
                  "vnd.oci.empty.v1+json\",\"digest\":\"%s\",\"size\":2},\"layers\":[",
                  config);
    for (int i = 0; i < 2; i++) {
        cp_mk m;
        weights(&m, 1000 + 1000 * (uint64_t)i, (uint32_t)i);
        cp_fake_blob_of(r->fake, m.b.p, m.b.n, digest[i]);
        bytes[i] = m.b.n;
        cp_buf_printf(&json,
                      "%s{\"mediaType\":\"application/octet-stream\",\"digest\":\"%s\","
                      "\"size\":%zu,\"annotations\":{\"org.opencontainers.image.title\":"
                      "\"m-%s.gguf\"}}",
                      i ? "," : "", digest[i], m.b.n, quants[i]);
        cp_mk_fini(&m);
    }
    cp_buf_adds(&json, "]}");
    cp_fake_manifest(r->fake, "v1", CP_MT_OCI_MANIFEST, json.p, json.n, out);
    opt.loader.variant = "q4_0";
    if (cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, &err))
        fail_msg("pull: %s", err.msg);
    assert_int_equal(sent_since(r, &mark), bytes[0] + 2);
    assert_int_equal(opens(r, "r.example/m:v1"), CP_OK);
    opt.loader.variant = NULL; /* the largest */
    assert_int_equal(cp_pull(&opt, "r.example/m:v1", NULL, NULL, out, NULL), CP_OK);
    assert_int_equal(sent_since(r, &mark), bytes[1]);
    opt.loader.variant = "Q2_K";
    refused(r, &opt, "r.example/m:v1", CP_NOT_FOUND, "no variant 'Q2_K'; there are: m-Q4_0");
    /* A wish that an index has answered is not asked of what it leads to. */
    cp_buf index = {0};
    cp_buf_printf(&index,
                  "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" CP_MT_OCI_MANIFEST
                  "\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"q\":\"7\"}}]}",
                  out, json.n);
    cp_fake_manifest(r->fake, "v2", CP_MT_OCI_INDEX, index.p, index.n, config);
    opt.loader.variant = "q=7";
    if (cp_pull(&opt, "r.example/m:v2", NULL, NULL, out, &err))
        fail_msg("pull: %s", err.msg);
    cp_buf_fini(&index);
    cp_buf_fini(&json);
}

int cp_suite_pull(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, cp_room_setup, cp_room_teardown)
    const struct CMUnitTest tests[] = {
        T(names_and_maps),
        T(default_names),
        T(follows_the_tag),
        T(pinned),
        T(indexes),
        T(brings_one_of_several),
        T(opens_what_is_here),
        T(reuses_blobs),
        T(room_is_checked),
        T(hostile_manifests),
        T(deep_indexes),
        T(dies_and_goes_on),
        T(two_pull_at_once),
        T(gc_removes_what_nothing_names),
        T(gc_removes_killed_imports),
        T(gc_takes_whole_names_alone),
        T(caches_go_with_their_weights),
        T(gc_keeps_what_is_mapped),
        T(pulls_beside_gc),
        T(gc_keeps_what_is_leased),
        T(gc_is_careful_beside_a_broken_entry),
        T(gc_is_careful_beside_an_empty_index),
        T(verify_hashes_everything),
    };
#undef T
    return cmocka_run_group_tests_name("pull", tests, NULL, NULL);
}
