/*
 * The store and opening from it, over real folders: packing, records, removal, hostile layouts, two
 * processes at once. Each test has a fresh folder with its own XDG directories.
 */
#include "base/digest.h"
#include "base/io.h"
#include "loader/found.h"
#include "loader/loader.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/layout.h"
#include "loader/oci/store/record.h"
#include "tests/unit/loader/make_gguf.h"
#include "tests/unit/loader/suites.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct room {
    char dir[64];
    char store[128];
    cp_loader_options opt;
} room;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *walk)
{
    (void)st, (void)flag, (void)walk;
    return remove(path);
}

static int setup(void **state)
{
    room *r = cp_xcalloc(1, sizeof(*r));
    char data[128], cache[128];
    snprintf(r->dir, sizeof(r->dir), "/tmp/capstan-store-XXXXXX");
    if (!mkdtemp(r->dir))
        return -1;
    snprintf(r->store, sizeof(r->store), "%s/deep/store", r->dir);
    snprintf(data, sizeof(data), "%s/data", r->dir);
    snprintf(cache, sizeof(cache), "%s/cache", r->dir);
    setenv("XDG_DATA_HOME", data, 1);
    setenv("XDG_CACHE_HOME", cache, 1);
    r->opt.store = r->store;
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    room *r = *state;
    nftw(r->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(r);
    return 0;
}

/* dir/name, in a static buffer of the caller's. */
static const char *at(const room *r, const char *name, char out[256])
{
    snprintf(out, 256, "%s/%s", r->dir, name);
    return out;
}

static void make_file(const room *r, const char *name, uint32_t salt)
{
    char path[256];
    cp_mk m;
    cp_mk_tiny(&m, salt);
    cp_mk_save(&m, at(r, name, path));
    cp_mk_fini(&m);
}

static void pack(const room *r, const char *file, const char *name, const char *format,
                 char digest[72])
{
    char path[256];
    cp_err err = {0};
    if (cp_store_pack(&r->opt, at(r, file, path), name, format, NULL, NULL, digest, &err))
        fail_msg("pack %s: %s", name, err.msg);
}

static void opens(const room *r, const char *ref)
{
    cp_loaded *m;
    cp_err err = {0};
    if (cp_loader_open(&m, ref, &r->opt, &err))
        fail_msg("open %s: %s", ref, err.msg);
    assert_int_equal(cp_loaded_n_tensors(m), 2);
    assert_non_null(cp_loaded_find(m, "token_embd.weight"));
    assert_null(cp_loaded_find(m, "absent"));
    assert_string_equal(cp_loaded_quant(m), "Q4_K_M");
    cp_loaded_close(m);
}

static void refused(const room *r, const char *ref, cp_code want, const char *text)
{
    cp_loaded *m;
    cp_err err = {0};
    cp_code code = cp_loader_open(&m, ref, &r->opt, &err);
    bool said = false;
    for (const char *p = text; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
        char one[200];
        snprintf(one, sizeof(one), "%.*s", (int)strcspn(p, "|"), p);
        said = said || strstr(err.msg, one);
    }
    if (code != want || !said)
        fail_msg("open %s: code %d '%s', wanted code %d '%s'", ref, code, err.msg, want, text);
    assert_null(m);
}

static size_t count_files(const char *dir)
{
    DIR *d = opendir(dir);
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.' || strlen(e->d_name) > 2;
    if (d)
        closedir(d);
    return n;
}

static size_t n_blobs(const room *r)
{
    char dir[256];
    snprintf(dir, sizeof(dir), "%s/blobs/sha256", r->store);
    return count_files(dir);
}

static void blob_path(const room *r, const char *digest, char out[256])
{
    snprintf(out, 256, "%s/blobs/sha256/%s", r->store, digest + strlen("sha256:"));
}

/* Write text into a file of the store (a read-only one too). */
static void overwrite(const char *path, const void *p, size_t n)
{
    chmod(path, 0644);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* Flip one byte in place. */
static void damage(const char *path, long offset)
{
    chmod(path, 0644);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, offset, SEEK_SET);
    int c = fgetc(f);
    fseek(f, offset, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static void packs_and_opens(void **state)
{
    const room *r = *state;
    char mp[72], dk[72], ref[512], path[256];
    cp_store_entry *e;
    size_t n;
    assert_int_equal(cp_store_list(&r->opt, &e, &n, NULL), CP_OK);
    assert_int_equal(n, 0);
    make_file(r, "tiny.gguf", 1);
    pack(r, "tiny.gguf", "ai/tiny", "modelpack", mp);
    pack(r, "tiny.gguf", "tiny:dock", "docker", dk);
    assert_int_equal(n_blobs(r), 5); /* one copy of the weights */
    assert_int_equal(cp_store_list(&r->opt, &e, &n, NULL), CP_OK);
    assert_int_equal(n, 2);
    assert_string_equal(e[0].name, "ai/tiny:latest");
    assert_string_equal(e[0].format, "modelpack");
    assert_string_equal(e[0].digest, mp);
    assert_string_equal(e[0].arch, "llama");
    assert_string_equal(e[0].quant, "Q4_K_M");
    assert_int_equal(e[0].n_layers, 1);
    assert_string_equal(e[0].layers[0].filepath, "tiny.gguf");
    assert_string_equal(e[0].layers[0].media_type, "application/vnd.cncf.model.weight.v1.raw");
    assert_true(e[0].bytes > e[0].layers[0].bytes && e[0].layers[0].bytes > 200);
    assert_string_equal(e[1].format, "docker");
    assert_string_equal(e[1].layers[0].media_type, "application/vnd.docker.ai.gguf.v3");
    assert_string_equal(e[1].layers[0].digest, e[0].layers[0].digest);
    cp_store_entries_free(e, n);
    opens(r, "ai/tiny");
    opens(r, "ai/tiny:latest");
    opens(r, "tiny:dock");
    opens(r, at(r, "tiny.gguf", path));
    snprintf(ref, sizeof(ref), "whatever@%s", dk);
    opens(r, ref);
    snprintf(ref, sizeof(ref), "oci:%s:tiny:dock", r->store);
    opens(r, ref);
    snprintf(ref, sizeof(ref), "oci:%s", r->store);
    refused(r, ref, CP_USAGE, "holds 2 entries");
    snprintf(ref, sizeof(ref), "oci:%s:tiny", r->store);
    refused(r, ref, CP_NOT_FOUND, "has no entry 'tiny'; it has: ai/tiny:latest, tiny:dock");
    refused(r, "tiny", CP_NOT_FOUND, "'tiny:latest' is not in the store");
    refused(r, "./absent.gguf", CP_NOT_FOUND, "No such file");
    refused(r, "oci:/nowhere/at/all", CP_NOT_FOUND, "no such directory");
    refused(r, "BAD", CP_USAGE, "lower-case");
    snprintf(ref, sizeof(ref), "oci:%s", r->dir);
    refused(r, ref, CP_CORRUPT, "no OCI image-layout");
    opens(r, r->dir); /* the one model in it */
    snprintf(ref, sizeof(ref), "%s/.", r->store);
    refused(r, ref, CP_USAGE, "holds 2 entries");
    refused(r, "/proc/self/fdinfo", CP_UNSUPPORTED, "is a directory");
}

/* A name in full form finds what a pull stores; a typed name goes first. */
static void looks_up_typed_then_canonical(void **state)
{
    const room *r = *state;
    char a[72], b[72];
    cp_store_entry *e;
    make_file(r, "a.gguf", 1);
    make_file(r, "b.gguf", 2);
    pack(r, "a.gguf", "docker.io/ai/m:1", "docker", a);
    assert_int_equal(cp_store_inspect(&r->opt, "m:1", &e, NULL), CP_OK);
    assert_string_equal(e->digest, a);
    cp_store_entries_free(e, 1);
    pack(r, "b.gguf", "m:1", "docker", b);
    assert_int_equal(cp_store_inspect(&r->opt, "docker://m:1", &e, NULL), CP_OK);
    assert_string_equal(e->digest, b);
    assert_string_equal(e->name, "m:1");
    cp_store_entries_free(e, 1);
    assert_int_equal(cp_store_inspect(&r->opt, "ai/m:1", &e, NULL), CP_OK);
    assert_string_equal(e->digest, a);
    cp_store_entries_free(e, 1);
}

static void packing_is_reproducible(void **state)
{
    room *r = *state;
    static const char *const formats[] = {"modelpack", "docker"};
    char first[72], again[72], other[72], second_store[256];
    make_file(r, "x.gguf", 7);
    for (size_t i = 0; i < 2; i++) {
        r->opt.store = r->store;
        pack(r, "x.gguf", "one", formats[i], first);
        pack(r, "x.gguf", "one", formats[i], again);
        assert_string_equal(first, again);
        make_file(r, "x.gguf", 7); /* another mtime */
        r->opt.store = at(r, "second", second_store);
        pack(r, "x.gguf", "two:t", formats[i], again);
        assert_string_equal(first, again);
        make_file(r, "x.gguf", 8);
        pack(r, "x.gguf", "two:t", formats[i], other);
        assert_string_not_equal(first, other);
        make_file(r, "x.gguf", 7);
    }
    r->opt.store = r->store;
    pack(r, "x.gguf", "one", "modelpack", other);
    assert_string_not_equal(first, other); /* the formats differ */
}

static void pack_refuses(void **state)
{
    const room *r = *state;
    char d[72], path[256], junk[256];
    cp_err err;
    make_file(r, "x.gguf", 7);
    at(r, "x.gguf", path);
    at(r, "junk", junk);
    overwrite(junk, "not a model", 11);
    assert_int_equal(cp_store_pack(&r->opt, path, "a", "zip", NULL, NULL, d, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, "allowed: modelpack, docker"));
    assert_int_equal(cp_store_pack(&r->opt, path, "A", "docker", NULL, NULL, d, &err), CP_USAGE);
    assert_int_equal(cp_store_pack(&r->opt, "/nowhere/x", "a", "docker", NULL, NULL, d, &err),
                     CP_NOT_FOUND);
    assert_int_equal(cp_store_pack(&r->opt, junk, "a", "docker", NULL, NULL, d, &err), CP_CORRUPT);
    assert_int_equal(cp_store_pack(&r->opt, r->dir, "a", "docker", NULL, NULL, d, &err),
                     CP_CORRUPT);
    assert_int_not_equal(access(r->store, F_OK), 0); /* none of these made a store */
}

static void replacing_a_name_frees_the_old_blobs(void **state)
{
    const room *r = *state;
    char d[72];
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "modelpack", d);
    make_file(r, "x.gguf", 2);
    pack(r, "x.gguf", "m", "modelpack", d);
    assert_int_equal(n_blobs(r), 3);
    opens(r, "m");
}

static void rm_keeps_shared_blobs(void **state)
{
    const room *r = *state;
    char d[72], dk[72], ref[128];
    uint64_t freed = 0;
    cp_store_entry *e;
    size_t n;
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "a", "modelpack", d);
    pack(r, "x.gguf", "b", "modelpack", d);
    pack(r, "x.gguf", "c", "docker", dk);
    assert_int_equal(n_blobs(r), 5);
    assert_int_equal(cp_store_rm(&r->opt, "a", &freed, NULL), CP_OK);
    assert_true(freed == 0 && n_blobs(r) == 5); /* b is the same manifest */
    assert_int_equal(cp_store_rm(&r->opt, "a", &freed, NULL), CP_NOT_FOUND);
    assert_int_equal(cp_store_rm(&r->opt, "b:latest", &freed, NULL), CP_OK);
    assert_true(freed > 0 && n_blobs(r) == 3); /* c still needs the weights */
    opens(r, "c");
    pack(r, "x.gguf", "cc", "docker", dk); /* other names keep what has the same digest */
    snprintf(ref, sizeof(ref), "d@%s", dk);
    assert_int_equal(cp_store_rm(&r->opt, ref, &freed, NULL), CP_NOT_FOUND);
    snprintf(ref, sizeof(ref), "c@%s", dk);
    assert_int_equal(cp_store_rm(&r->opt, ref, &freed, NULL), CP_OK);
    opens(r, "cc");
    snprintf(ref, sizeof(ref), "cc:v2@%s", dk);
    assert_int_equal(cp_store_rm(&r->opt, ref, &freed, NULL), CP_OK);
    assert_int_equal(n_blobs(r), 0);
    assert_int_equal(cp_store_list(&r->opt, &e, &n, NULL), CP_OK);
    assert_int_equal(n, 0);
    cp_store_entries_free(e, n);
    char records[256];
    snprintf(records, sizeof(records), "%s/capstan/records", r->store);
    assert_int_equal(count_files(records), 0);
}

/* What another entry cannot show keeps every blob: absence proves nothing then. */
static void rm_is_careful_beside_a_broken_entry(void **state)
{
    const room *r = *state;
    char a[72], b[72], path[256];
    uint64_t freed = 1;
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "a", "modelpack", a);
    pack(r, "x.gguf", "b", "docker", b);
    blob_path(r, b, path);
    damage(path, 20);
    cp_store_entry *e;
    size_t n;
    assert_int_equal(cp_store_list(&r->opt, &e, &n, NULL), CP_OK);
    assert_string_equal(e[1].format, "corrupt");
    cp_store_entries_free(e, n);
    assert_int_equal(cp_store_rm(&r->opt, "a", &freed, NULL), CP_OK);
    assert_int_equal(freed, 0);
    assert_int_equal(n_blobs(r), 5);
    assert_int_equal(cp_store_rm(&r->opt, "b", &freed, NULL),
                     CP_OK); /* a broken entry can be removed */
}

/* The same where its manifest is gone: what that needed is unknown. */
static void rm_and_gc_are_careful_beside_a_lost_manifest(void **state)
{
    const room *r = *state;
    char a[72], b[72], path[256];
    uint64_t freed = 1;
    cp_gc_result g;
    cp_err err = {0};
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "a", "modelpack", a);
    pack(r, "x.gguf", "b", "docker", b);
    blob_path(r, b, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(cp_store_rm(&r->opt, "a", &freed, NULL), CP_OK);
    assert_true(freed == 0 && n_blobs(r) == 4);
    assert_int_equal(cp_store_gc(&r->opt, false, &g, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "'b:latest' cannot be read"));
    assert_int_equal(n_blobs(r), 4);
    pack(r, "x.gguf", "b", "docker", b); /* heals */
    assert_int_equal(cp_store_gc(&r->opt, false, &g, NULL), CP_OK);
    opens(r, "b");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(cp_store_rm(&r->opt, "b", &freed, NULL), CP_OK);
    assert_int_equal(cp_store_gc(&r->opt, false, &g, NULL), CP_OK);
    assert_int_equal(n_blobs(r), 0);
}

/* index.json with these entries, each unnamed but for the last, which is `named` if that is given.
 */
static void write_index(const room *r, const char *const *digests, size_t n, const char *named)
{
    char path[256];
    cp_buf b = {0};
    cp_buf_adds(&b, "{\"schemaVersion\":2,\"manifests\":[");
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        blob_path(r, digests[i], path);
        assert_int_equal(stat(path, &st), 0);
        cp_buf_printf(&b,
                      "%s{\"mediaType\":\"" CP_MT_OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%d",
                      i ? "," : "", digests[i], (int)st.st_size);
        if (named && i + 1 == n)
            cp_buf_printf(&b, ",\"annotations\":{\"" CP_ANNOTATION_NAME "\":\"%s\"}", named);
        cp_buf_adds(&b, "}");
    }
    cp_buf_adds(&b, "]}");
    snprintf(path, sizeof(path), "%s/index.json", r->store);
    overwrite(path, b.p, b.n);
    cp_buf_fini(&b);
}

/* An entry without a name, as skopeo leaves one, has its digest for a name wherever one is taken.
 */
static void unnamed_entries_go_by_digest(void **state)
{
    const room *r = *state;
    char d[3][72], ref[512];
    const char *const digests[] = {d[0], d[1], d[2]};
    uint64_t freed = 0;
    cp_store_entry *e;
    cp_gc_result g;
    size_t n;
    cp_err err = {0};
    for (uint32_t i = 0; i < 3; i++) {
        make_file(r, "x.gguf", i);
        snprintf(ref, sizeof(ref), "m:%u", i);
        pack(r, "x.gguf", ref, "docker", d[i]);
    }
    write_index(r, digests, 3, "m:2");
    assert_int_equal(cp_store_list(&r->opt, &e, &n, NULL), CP_OK);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(strcmp(e[i].name, "m:2") == 0 || strcmp(e[i].name, e[i].digest) == 0);
    cp_store_entries_free(e, n);
    for (int i = 0; i < 2; i++) {
        if (cp_store_inspect(&r->opt, d[i], &e, &err))
            fail_msg("inspect %s: %s", d[i], err.msg);
        assert_string_equal(e->name, d[i]);
        assert_string_equal(e->digest, d[i]);
        cp_store_entries_free(e, 1);
        opens(r, d[i]);
        assert_int_equal(cp_store_verify(&r->opt, d[i], NULL, NULL, NULL, NULL), CP_OK);
        snprintf(ref, sizeof(ref), "oci:%s:%s", r->store, d[i]);
        opens(r, ref);
    }
    snprintf(ref, sizeof(ref), "oci:%s", r->store);
    refused(r, ref, CP_USAGE, d[0]);
    /* What has a name goes by that; no prefix of a digest is a name. */
    refused(r, d[2], CP_NOT_FOUND, "is not in the store");
    snprintf(ref, sizeof(ref), "%.30s", d[0]);
    refused(r, ref, CP_NOT_FOUND, "is not in the store");
    assert_int_equal(cp_store_rm(&r->opt, d[2], &freed, NULL), CP_NOT_FOUND);
    /* rm takes the one that is meant, not all that have no name. */
    size_t before = n_blobs(r);
    assert_int_equal(cp_store_rm(&r->opt, d[0], &freed, NULL), CP_OK);
    assert_true(freed > 200 && n_blobs(r) == before - 3);
    assert_int_equal(cp_store_rm(&r->opt, d[0], &freed, NULL), CP_NOT_FOUND);
    opens(r, d[1]);
    opens(r, "m:2");
    assert_int_equal(cp_store_gc(&r->opt, false, &g, NULL), CP_OK);
    assert_int_equal(g.blobs, 0);
    assert_int_equal(cp_store_rm(&r->opt, d[1], &freed, NULL), CP_OK);
    opens(r, "m:2");
    assert_int_equal(cp_store_rm(&r->opt, "m:2", &freed, NULL), CP_OK);
    assert_int_equal(n_blobs(r), 0);
}

static void damaged_blobs_are_refused(void **state)
{
    const room *r = *state;
    char d[72], path[256];
    cp_store_entry *e;
    struct stat st;
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "modelpack", d);
    assert_int_equal(cp_store_inspect(&r->opt, "m", &e, NULL), CP_OK);
    char weights[72];
    memcpy(weights, e->layers[0].digest, sizeof(weights));
    cp_store_entries_free(e, 1);
    blob_path(r, weights, path);
    assert_int_equal(stat(path, &st), 0);
    damage(path, st.st_size - 40); /* in a tensor: only the digest can tell */
    refused(r, "m", CP_CORRUPT, "digest is sha256:");
    damage(path, st.st_size - 40);
    opens(r, "m");
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    refused(r, "m", CP_CORRUPT, "its descriptor says");
    assert_int_equal(unlink(path), 0);
    refused(r, "m", CP_CORRUPT, "lacks the blob");
    assert_int_equal(symlink("/etc/hostname", path), 0);
    refused(r, "m", CP_CORRUPT, "is a symbolic link, and links are not followed there: put");
    unlink(path);
    assert_int_equal(mkdir(path, 0755), 0);
    refused(r, "m", CP_CORRUPT, "is no regular file");
    rmdir(path);
    pack(r, "x.gguf", "m", "modelpack", d); /* heals */
    opens(r, "m");
    blob_path(r, d, path);
    damage(path, 10);
    refused(r, "m", CP_CORRUPT, "blob has digest");
}

static void count_verified(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    assert_string_equal(phase, "verifying");
    if (done == total)
        *(uint64_t *)arg += total;
}

/* Model m, whose weights are not what their record says: opened only while nobody else can write
 * `path`. */
static void believed_only_while(const room *r, const char *path, mode_t loose, mode_t tight)
{
    assert_int_equal(chmod(path, loose), 0);
    refused(r, "m", CP_CORRUPT, "digest is");
    assert_int_equal(chmod(path, tight), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 4242, 0), 0);
        refused(r, "m", CP_CORRUPT, "digest is");
        assert_int_equal(chown(path, 0, 0), 0);
    }
    char moved[600];
    snprintf(moved, sizeof(moved), "%s.moved", path);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink(moved, path), 0);
    refused(r, "m", CP_CORRUPT, "digest is");
    unlink(path);
    assert_int_equal(rename(moved, path), 0);
    opens(r, "m");
}

/* A store of somebody else's: what lies in it is not read, what is made goes to this user's cache.
 * Root's may be read, and whose own records are of another file are not believed. */
static void stores_of_others(void **state)
{
    room *r = *state;
    char d[72], records[256], other[256];
    uint64_t verified = 0;
    if (geteuid() != 0)
        skip();
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "docker", d);
    r->opt.progress = count_verified;
    r->opt.progress_arg = &verified;
    opens(r, "m");
    assert_int_equal(verified, 0);
    assert_int_equal(chown(r->store, 4242, 4242), 0);
    opens(r, "m");
    assert_true(verified > 0);
    assert_int_equal(count_files(at(r, "cache/capstan/records", records)), 1);
    verified = 0;
    opens(r, "m");
    assert_int_equal(verified, 0);
    /* The cache's record under another file's name: that is another inode. */
    make_file(r, "y.gguf", 2);
    pack(r, "y.gguf", "n", "docker", d);
    assert_int_equal(count_files(records), 2);
    DIR *dir = opendir(records);
    char names[2][600];
    int n = 0;
    for (struct dirent *e; n < 2 && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            snprintf(names[n++], sizeof(names[0]), "%s/%s", records, e->d_name);
    closedir(dir);
    snprintf(other, sizeof(other), "%s/t", r->dir);
    assert_int_equal(rename(names[0], other) | rename(names[1], names[0]) | rename(other, names[1]),
                     0);
    opens(r, "m");
    opens(r, "n");
    assert_true(verified > 0);
}

/* Where root's and this user's word counts, and nobody else's. */
static void own_records_are_believed_until_always(void **state)
{
    room *r = *state;
    char d[72], path[256], record[512], name[CP_RECORD_NAME];
    uint8_t raw[32];
    struct stat st;
    cp_store_entry *e;
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "docker", d);
    assert_int_equal(cp_store_inspect(&r->opt, "m", &e, NULL), CP_OK);
    blob_path(r, e->layers[0].digest, path);
    assert_true(cp_digest_parse(e->layers[0].digest, raw));
    cp_store_entries_free(e, 1);
    stat(path, &st);
    damage(path, st.st_size - 40);
    refused(r, "m", CP_CORRUPT, "digest is");
    int fd = open(path, O_RDONLY);
    cp_places own = {.n = 1, .own = {true}};
    snprintf(own.dir[0], CP_DIR_MAX, "%s/capstan", r->store);
    cp_record_name_blob(name, raw);
    cp_record_write(&own, name, fd, raw); /* a record that lies */
    close(fd);
    uint64_t verified = 0;
    r->opt.progress = count_verified;
    r->opt.progress_arg = &verified;
    opens(r, "m");
    assert_int_equal(verified, 0);
    snprintf(record, sizeof(record), "oci:%s:m:latest", r->store);
    refused(r, record, CP_CORRUPT, "digest is"); /* not below a path that came from elsewhere */
    snprintf(record, sizeof(record), "%s/capstan/records/%s", r->store, path + strlen(path) - 64);
    believed_only_while(r, record, 0664, 0644); /* the record, its folder, the one above */
    *strrchr(record, '/') = '\0';
    believed_only_while(r, record, 0775, 0755);
    r->opt.verify_always = true;
    refused(r, "m", CP_CORRUPT, "digest is");
    damage(path, st.st_size - 40);
    verified = 0;
    opens(r, "m");
    assert_int_equal(verified, st.st_size);
}

/* A plain file: hashed once, the record holds while its state does. */
static void plain_files_have_records(void **state)
{
    room *r = *state;
    char path[256], records[256], digest[72];
    cp_loaded *m;
    make_file(r, "x.gguf", 1);
    at(r, "x.gguf", path);
    at(r, "cache/capstan/records", records);
    uint64_t verified = 0;
    r->opt.progress = count_verified;
    r->opt.progress_arg = &verified;
    assert_int_equal(cp_loader_open(&m, path, &r->opt, NULL), CP_OK);
    assert_int_equal(verified, cp_loaded_bytes(m));
    memcpy(digest, cp_loaded_digest(m), sizeof(digest));
    assert_true(strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 71);
    char cache[256];
    size_t n = strlen(at(r, "cache/capstan/cache/", cache));
    assert_memory_equal(cp_loaded_cache_dir(m), cache, n);
    assert_string_equal(cp_loaded_cache_dir(m) + n, digest + 7);
    assert_int_equal(access(cp_loaded_cache_dir(m), W_OK), 0);
    cp_loaded_close(m);
    assert_int_equal(count_files(records), 1);
    make_file(r, "x.gguf", 2);
    assert_int_equal(cp_loader_open(&m, path, &r->opt, NULL), CP_OK);
    assert_string_not_equal(cp_loaded_digest(m), digest);
    cp_loaded_close(m);
    assert_int_equal(count_files(records), 1);
    cp_store_entry *e;
    assert_int_equal(cp_store_inspect(&r->opt, path, &e, NULL), CP_OK);
    assert_string_equal(e->format, "gguf");
    assert_string_equal(e->layers[0].filepath, "x.gguf");
    assert_string_equal(e->arch, "llama");
    cp_store_entries_free(e, 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    assert_int_equal(cp_loader_open(&m, path, &r->opt, NULL),
                     CP_OK); /* no cache to be had: still opens */
    assert_string_equal(cp_loaded_cache_dir(m), "");
    cp_loaded_close(m);
}

/* An oci: layout is read in place: nothing is written into it. */
static void foreign_layouts_stay_untouched(void **state)
{
    room *r = *state;
    char d[72], ref[256], own[256], records[256];
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "docker", d);
    snprintf(own, sizeof(own), "%s/capstan", r->store);
    nftw(own, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    size_t before = count_files(r->store);
    snprintf(ref, sizeof(ref), "oci:%s", r->store);
    opens(r, ref);
    assert_int_equal(count_files(r->store), before);
    assert_int_equal(count_files(at(r, "cache/capstan/records", records)), 1);
    opens(r, ref);
    assert_int_equal(count_files(records), 1);
    opens(r, "m"); /* as the store it gets its folder back */
    assert_int_equal(count_files(r->store), before + 1);
}

static void hostile_layouts(void **state)
{
    const room *r = *state;
    char d[72], ref[512], index[256], version[256], path[256];
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "docker", d);
    snprintf(ref, sizeof(ref), "oci:%s:m:latest", r->store);
    snprintf(index, sizeof(index), "%s/index.json", r->store);
    snprintf(version, sizeof(version), "%s/oci-layout", r->store);
    cp_buf good = {0}, b = {0};
    assert_int_equal(cp_file_read(index, 1 << 20, &good, NULL), CP_OK);
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"manifests\":7}",
        "{\"manifests\":[{}]}",
        "{\"manifests\":[{\"digest\":\"sha256:zz\",\"size\":1}]}",
        "{\"manifests\":[],\"manifests\":[]}",
        "{\"manifests\":[],\"layers\":[]}",
        "{\"manifests\":[",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        overwrite(index, bad[i], strlen(bad[i]));
        refused(r, ref, CP_CORRUPT, "index");
        cp_store_entry *e;
        size_t n;
        assert_int_equal(cp_store_list(&r->opt, &e, &n, NULL), CP_CORRUPT);
        assert_int_equal(cp_store_rm(&r->opt, "m", NULL, NULL), CP_CORRUPT);
    }
    overwrite(index, "{\"manifests\":[]}", 16);
    refused(r, ref, CP_NOT_FOUND, "is empty");
    /* An index that is a link, too long, or says another size. */
    unlink(index);
    assert_int_equal(symlink("/etc/hostname", index), 0);
    refused(r, ref, CP_CORRUPT, "symbolic link");
    unlink(index);
    refused(r, ref, CP_CORRUPT, "no index.json");
    for (int i = 0; i <= CP_MANIFEST_MAX_BYTES; i++)
        cp_buf_addc(&b, ' ');
    overwrite(index, b.p, b.n);
    refused(r, ref, CP_CORRUPT, "the limit is");
    cp_buf_clear(&b);
    cp_buf_printf(&b, "{\"manifests\":[{\"mediaType\":\"x\",\"digest\":\"%s\",\"size\":3}]}", d);
    overwrite(index, b.p, b.n);
    snprintf(ref, sizeof(ref), "oci:%s", r->store);
    refused(r, ref, CP_CORRUPT, "its descriptor says 3");
    /* Nested indexes: a chain of four is one too many; three are followed. */
    cp_layout l;
    cp_descriptor in = {.media_type = CP_MT_OCI_INDEX};
    assert_int_equal(cp_layout_open(&l, r->store, NULL), CP_OK);
    cp_index *x;
    assert_int_equal(cp_index_parse(&x, good.p, good.n, NULL), CP_OK);
    char inner[72];
    memcpy(inner, x->item[0].digest, sizeof(inner));
    uint64_t inner_size = x->item[0].size;
    const char *inner_type = CP_MT_OCI_MANIFEST;
    for (int depth = 1; depth <= 4; depth++) {
        cp_buf_clear(&b);
        cp_buf_printf(&b,
                      "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"x\",\"digest\":\"%s\","
                      "\"size\":1,\"platform\":{"
                      "\"os\":\"unknown\",\"architecture\":\"unknown\"}},{\"mediaType\":\"%s\","
                      "\"digest\":\"%s\","
                      "\"size\":%llu}]}",
                      d, inner_type, inner, (unsigned long long)inner_size);
        assert_int_equal(cp_blob_put(&l, b.p, b.n, &in, NULL), CP_OK);
        memcpy(inner, in.digest, sizeof(inner));
        inner_size = in.size;
        inner_type = CP_MT_OCI_INDEX;
        cp_buf_clear(&b);
        cp_buf_printf(&b,
                      "{\"manifests\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%llu}]}",
                      inner_type, inner, (unsigned long long)inner_size);
        overwrite(index, b.p, b.n);
        if (depth <= 3)
            opens(r, ref);
        else
            refused(r, ref, CP_CORRUPT, "nested more than 3 deep");
    }
    cp_index_free(x);
    cp_layout_close(&l);
    overwrite(index, good.p, good.n);
    opens(r, ref);
    overwrite(version, "{\"imageLayoutVersion\":\"2.0.0\"}", 30);
    refused(r, ref, CP_CORRUPT, "imageLayoutVersion");
    overwrite(version, "{\"imageLayoutVersion\":\"1.0.0\"}", 30);
    /* Each part of it as a link, as a file, and as a folder: what it is, by its name. */
    static const char *const parts[] = {"oci-layout", "index.json", "blobs", "blobs/sha256"};
    for (size_t i = 0; i < 4; i++) {
        char moved[300], text[128];
        snprintf(path, sizeof(path), "%s/%s", r->store, parts[i]);
        snprintf(moved, sizeof(moved), "%s/moved", r->dir);
        assert_int_equal(rename(path, moved), 0);
        assert_int_equal(symlink(moved, path), 0);
        snprintf(text, sizeof(text), "/%s is a symbolic link, and links are not followed",
                 parts[i]);
        refused(r, ref, CP_CORRUPT, text);
        unlink(path);
        if (i < 2) {
            assert_int_equal(mkdir(path, 0755), 0);
            snprintf(text, sizeof(text), "/%s is no regular file", parts[i]);
            refused(r, ref, CP_CORRUPT, text);
            rmdir(path);
        } else {
            overwrite(path, "x", 1);
            snprintf(text, sizeof(text), "/%s is no folder, so there are no blobs", parts[i]);
            refused(r, ref, CP_CORRUPT, text);
            refused(r, "m", CP_CORRUPT, text);
            unlink(path);
            refused(r, ref, CP_CORRUPT, "lacks the blob|is missing");
        }
        assert_int_equal(rename(moved, path), 0);
        opens(r, ref);
    }
    cp_buf_fini(&b);
    cp_buf_fini(&good);
}

/* As `cp -a` does with a store whose blobs are a link to `disk`. */
static void copy_linked(const char *store, const char *to, const char *disk)
{
    static const char *const names[] = {"oci-layout", "index.json", "capstan/blobs.id"};
    char path[600];
    snprintf(path, sizeof(path), "%s/capstan", to);
    assert_true(mkdir(to, 0755) == 0 && mkdir(path, 0755) == 0);
    for (size_t i = 0; i < 3; i++) {
        cp_buf b = {0};
        snprintf(path, sizeof(path), "%s/%s", store, names[i]);
        assert_int_equal(cp_file_read(path, 1 << 20, &b, NULL), CP_OK);
        snprintf(path, sizeof(path), "%s/%s", to, names[i]);
        overwrite(path, b.p, b.n);
        cp_buf_fini(&b);
    }
    snprintf(path, sizeof(path), "%s/blobs", to);
    assert_int_equal(symlink(disk, path), 0);
}

/* A store's blobs behind a link, on whatever disk: everything works through it, for one store. */
static void blobs_on_another_disk(void **state)
{
    room *r = *state;
    char d[72], disk[256], blobs[300], path[600], file[256], ref[512], second[256], hex[65] = "";
    uint64_t freed = 0;
    cp_gc_result g;
    cp_err err = {0};
    struct stat st;
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "docker", d);
    at(r, "disk", disk);
    snprintf(blobs, sizeof(blobs), "%s/blobs", r->store);
    assert_int_equal(rename(blobs, disk), 0);
    assert_int_equal(symlink(disk, blobs), 0);
    opens(r, "m");
    assert_int_equal(cp_store_verify(&r->opt, "m", NULL, NULL, NULL, NULL), CP_OK);
    make_file(r, "y.gguf", 2);
    pack(r, "y.gguf", "n", "docker", d);
    opens(r, "n");
    assert_int_equal(n_blobs(r), 6);
    assert_int_equal(cp_store_rm(&r->opt, "n", &freed, NULL), CP_OK);
    assert_true(freed > 200 && n_blobs(r) == 3);
    memset(hex, 'c', 64);
    snprintf(path, sizeof(path), "%s/sha256/%s", disk, hex);
    overwrite(path, "0123456789", 10);
    assert_int_equal(cp_store_gc(&r->opt, true, &g, NULL), CP_OK);
    assert_true(g.blobs == 1 && g.bytes == 10 && n_blobs(r) == 4);
    assert_int_equal(cp_store_gc(&r->opt, false, &g, NULL), CP_OK);
    assert_true(g.blobs == 1 && g.bytes == 10 && n_blobs(r) == 3);
    /* As a layout it is one that holds a link. */
    snprintf(ref, sizeof(ref), "oci:%s", r->store);
    refused(r, ref, CP_CORRUPT, "/blobs is a symbolic link, and links are not followed there");
    /* A copy of it shares the folder, and has its id. */
    at(r, "copy", second);
    copy_linked(r->store, second, disk);
    r->opt.store = second;
    opens(r, "m");
    assert_int_equal(cp_store_rm(&r->opt, "m", &freed, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "deep/store, of which this is a copy: gc and rm would remove"));
    assert_int_equal(cp_store_gc(&r->opt, false, &g, &err), CP_CORRUPT);
    assert_int_equal(n_blobs(r), 3);
    r->opt.store = r->store; /* the first one goes on */
    assert_int_equal(cp_store_gc(&r->opt, false, &g, NULL), CP_OK);
    /* A disk that is not mounted leaves an empty folder. */
    at(r, "unmounted", path);
    assert_true(rename(disk, path) == 0 && mkdir(disk, 0755) == 0);
    assert_int_equal(
        cp_store_pack(&r->opt, at(r, "y.gguf", file), "z", "docker", NULL, NULL, d, &err), CP_IO);
    assert_non_null(strstr(err.msg, "is its disk mounted?"));
    assert_int_equal(rmdir(disk), 0); /* nothing was written */
    assert_int_equal(rename(path, disk), 0);
    assert_int_equal(cp_store_gc(&r->opt, false, &g, NULL), CP_OK);
    /* A second store that shares the folder: its gc would remove the first one's blobs. */
    at(r, "second", second);
    r->opt.store = second;
    pack(r, "x.gguf", "other", "docker", d);
    snprintf(blobs, sizeof(blobs), "%s/blobs", second);
    snprintf(path, sizeof(path), "%s/blobs-own", second);
    assert_int_equal(rename(blobs, path), 0);
    assert_int_equal(symlink(disk, blobs), 0);
    assert_int_equal(cp_store_gc(&r->opt, false, &g, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "blobs of another store"));
    assert_int_equal(cp_store_rm(&r->opt, "other", &freed, &err), CP_CORRUPT);
    unlink(blobs);
    assert_int_equal(symlink("../deep/store/blobs", blobs), 0); /* the same by way of the first */
    assert_int_equal(cp_store_gc(&r->opt, false, &g, &err), CP_CORRUPT);
    assert_int_equal(n_blobs(r), 3);
    /* Nor may it lead into another layout, which need not be a store of ours. */
    unlink(blobs);
    at(r, "third", second);
    r->opt.store = second;
    pack(r, "x.gguf", "third", "docker", d);
    at(r, "second", second);
    r->opt.store = second;
    assert_int_equal(symlink("../third/blobs", blobs), 0);
    refused(r, "other", CP_CORRUPT, "is a symbolic link into another layout, '../third/blobs'");
    assert_int_equal(cp_store_gc(&r->opt, false, &g, &err), CP_CORRUPT);
    /* Beside it, in the same store, is fine. */
    unlink(blobs);
    assert_int_equal(symlink("blobs-own", blobs), 0);
    opens(r, "other");
    assert_int_equal(cp_store_gc(&r->opt, false, &g, NULL), CP_OK);
    /* A disk that is not there, a link that somebody else made. */
    unlink(blobs);
    assert_int_equal(symlink("/nowhere/at/all", blobs), 0);
    refused(r, "other", CP_IO, "to '/nowhere/at/all': No such file or directory (is its disk");
    assert_int_equal(
        cp_store_pack(&r->opt, at(r, "x.gguf", file), "z", "docker", NULL, NULL, d, &err), CP_IO);
    assert_int_not_equal(stat("/nowhere", &st), 0);
    unlink(blobs);
    assert_int_equal(symlink("blobs-own", blobs), 0);
    if (geteuid() == 0) {
        assert_int_equal(lchown(blobs, 4242, 0), 0);
        refused(r, "other", CP_CORRUPT, "a symbolic link that neither this user nor root made");
        assert_int_equal(lchown(blobs, 0, 0), 0);
        assert_int_equal(chown(second, 4242, 0), 0); /* somebody else's store */
        refused(r, "other", CP_CORRUPT, "/blobs is a symbolic link, and links are not followed");
        assert_int_equal(chown(second, 0, 0), 0);
    }
    opens(r, "other");
}

/* Three processes pack and remove at once: every name that should be there is, and opens. */
static void processes_share_the_store(void **state)
{
    const room *r = *state;
    enum { WRITERS = 3, NAMES = 12 };
    pid_t pid[WRITERS];
    char d[72], name[32], path[256];
    for (uint32_t w = 0; w < WRITERS; w++) {
        snprintf(name, sizeof(name), "f%u.gguf", w);
        make_file(r, name, w);
    }
    for (int w = 0; w < WRITERS; w++) {
        pid[w] = fork();
        assert_true(pid[w] >= 0);
        if (pid[w] > 0)
            continue;
        for (int i = 0; i < NAMES; i++) {
            char n[32], f[32];
            snprintf(n, sizeof(n), "w%d:n%d", w, i);
            snprintf(f, sizeof(f), "f%d.gguf", (w + i) % WRITERS);
            if (cp_store_pack(&r->opt, at(r, f, path), n, i % 2 ? "docker" : "modelpack", NULL,
                              NULL, d, NULL))
                _exit(1);
            if (i % 3 == 2 && cp_store_rm(&r->opt, n, NULL, NULL))
                _exit(2);
        }
        _exit(0);
    }
    for (int w = 0; w < WRITERS; w++) {
        int status;
        assert_int_equal(waitpid(pid[w], &status, 0), pid[w]);
        assert_int_equal(status, 0);
    }
    cp_store_entry *e;
    size_t n;
    assert_int_equal(cp_store_list(&r->opt, &e, &n, NULL), CP_OK);
    assert_int_equal(n, WRITERS * NAMES / 3 * 2);
    for (size_t i = 0; i < n; i++)
        opens(r, e[i].name);
    cp_store_entries_free(e, n);
    for (int w = 0; w < WRITERS; w++)
        for (int i = 0; i < NAMES; i++) {
            snprintf(name, sizeof(name), "w%d:n%d", w, i);
            assert_int_equal(cp_store_rm(&r->opt, name, NULL, NULL),
                             i % 3 == 2 ? CP_NOT_FOUND : CP_OK);
        }
    assert_int_equal(n_blobs(r), 0);
}

/* While a pack's blobs have no name yet, nobody may get the lock under which unused blobs go. */
static void pack_guards_its_unnamed_blobs(void **state)
{
    const room *r = *state;
    char d[72], path[256];
    cp_layout l;
    int index, blobs, status;
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "a", "modelpack", d);
    assert_int_equal(n_blobs(r), 3);
    assert_int_equal(cp_layout_open(&l, r->store, NULL), CP_OK);
    assert_int_equal(cp_layout_lock_take(&l, CP_LOCK_INDEX, true, &index, NULL), CP_OK);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(index);
        _exit(cp_store_pack(&r->opt, at(r, "x.gguf", path), "b", "docker", NULL, NULL, d, NULL) !=
              CP_OK);
    }
    /* The child waits for the index once its config and manifest are there. */
    for (int i = 0; i < 10000 && n_blobs(r) < 5; i++)
        usleep(1000);
    assert_int_equal(n_blobs(r), 5);
    snprintf(path, sizeof(path), "%s/capstan/blobs.lock", r->store);
    blobs = open(path, O_RDWR | O_CLOEXEC);
    assert_true(blobs >= 0);
    assert_int_equal(flock(blobs, LOCK_EX | LOCK_NB), -1);
    close(index);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(flock(blobs, LOCK_EX | LOCK_NB), 0);
    close(blobs);
    cp_layout_close(&l);
    opens(r, "b");
}

static void make_shard(const room *r, const char *name, uint32_t no, uint32_t count, uint32_t total)
{
    cp_mk m;
    char path[256], tensor[16];
    cp_mk_init(&m, 3);
    cp_mk_kv_u16(&m, "split.no", no);
    cp_mk_kv_u16(&m, "split.count", count);
    if (no == 0) {
        cp_mk_kv_str(&m, "general.architecture", "llama");
        cp_mk_key(&m, "split.tensors.count", CP_META_I32);
        cp_mk_u(&m, total, 4);
    }
    for (uint32_t i = 0; i < 2; i++) {
        snprintf(tensor, sizeof(tensor), "t%u", 2 * no + i);
        cp_mk_tensor(&m, tensor, 0, 1, (const uint64_t[]){8 * (1 + no)});
    }
    cp_mk_finish(&m);
    cp_mk_save(&m, at(r, name, path));
    cp_mk_fini(&m);
}

static void split_models(void **state)
{
    const room *r = *state;
    char path[256];
    cp_loaded *m;
    make_shard(r, "m-00001-of-00003.gguf", 0, 3, 6);
    make_shard(r, "m-00002-of-00003.gguf", 1, 3, 0);
    at(r, "m-00002-of-00003.gguf", path);
    refused(r, path, CP_NOT_FOUND, "m-00003-of-00003.gguf");
    make_shard(r, "m-00003-of-00003.gguf", 2, 3, 0);
    for (int start = 1; start <= 3; start++) { /* any shard opens the model */
        char name[64];
        snprintf(name, sizeof(name), "m-%05d-of-00003.gguf", start);
        assert_int_equal(cp_loader_open(&m, at(r, name, path), &r->opt, NULL), CP_OK);
        assert_int_equal(cp_loaded_n_tensors(m), 6);
        cp_str arch;
        assert_true(cp_meta_str(cp_loaded_meta(m), "general.architecture", &arch));
        for (int i = 0; i < 6; i++) {
            snprintf(name, sizeof(name), "t%d", i);
            assert_ptr_equal(cp_loaded_find(m, name), cp_loaded_tensor(m, (size_t)i));
            assert_string_equal(cp_loaded_tensor(m, (size_t)i)->name, name);
        }
        cp_loaded_close(m);
    }
    make_shard(r, "m-00003-of-00003.gguf", 1, 3, 0); /* twice the second */
    refused(r, path, CP_CORRUPT, "shard 2 of 3 is missing");
    make_shard(r, "m-00003-of-00003.gguf", 2, 4, 0);
    refused(r, path, CP_CORRUPT, "shard");
    make_shard(r, "m-00003-of-00003.gguf", 2, 3, 0);
    make_shard(r, "m-00001-of-00003.gguf", 0, 3, 7);
    refused(r, at(r, "m-00001-of-00003.gguf", path), CP_CORRUPT,
            "hold 6 tensors, the first one says 7");
    make_shard(r, "alone.gguf", 0, 2, 4);
    refused(r, at(r, "alone.gguf", path), CP_CORRUPT, "one of 2 shards, but not named");
    char d[72];
    cp_err err;
    assert_int_equal(cp_store_pack(&r->opt, path, "a", "docker", NULL, NULL, d, &err),
                     CP_UNSUPPORTED);
}

/* What another process would get: the bytes, and descriptors of its own. */
static cp_code carried(const cp_found *f, size_t n, size_t n_fds, cp_found **out)
{
    cp_buf b = {0};
    int fds[4];
    assert_true(cp_found_write(f, &b));
    for (size_t i = 0; i < n_fds; i++)
        assert_true((fds[i] = dup(f->parts[i % f->n_parts].fd)) >= 0);
    char *exact = cp_xmalloc(b.n); /* a sanitizer sees a byte too many */
    memcpy(exact, b.p, n < b.n ? n : b.n);
    cp_code code = cp_found_read(out, exact, n < b.n ? n : b.n, fds, n_fds, NULL);
    for (size_t i = 0; code && i < n_fds; i++)
        close(fds[i]);
    free(exact);
    cp_buf_fini(&b);
    return code;
}

static void what_is_found_crosses_processes(void **state)
{
    const room *r = *state;
    char path[256];
    cp_found *f, *copy;
    cp_loaded *m;
    cp_buf b = {0};
    for (uint32_t no = 0; no < 3; no++) {
        char name[64];
        snprintf(name, sizeof(name), "m-%05u-of-00003.gguf", no + 1);
        make_shard(r, name, no, 3, no ? 0 : 6);
    }
    at(r, "m-00002-of-00003.gguf", path);
    assert_int_equal(cp_loader_find(&f, path, &r->opt, NULL), CP_OK);
    f->extras.notes[f->extras.n_notes++] = cp_xstrdup("a note");
    cp_buf_adds(&f->extras.chat_template, "{{ messages }}");
    f->extras.context_size = 4096;
    assert_int_equal(carried(f, SIZE_MAX, 3, &copy), CP_OK);
    assert_int_equal(cp_loader_map(&m, copy, NULL), CP_OK);
    assert_int_equal(cp_loaded_n_tensors(m), 6);
    assert_string_equal(cp_loaded_template(m).p, "{{ messages }}");
    assert_string_equal(cp_loaded_note(m, cp_loaded_n_notes(m) - 1), "a note");
    assert_int_equal(cp_loaded_context_size(m), 4096);
    assert_string_equal(cp_loaded_cache_dir(m), f->cache_dir);
    cp_loaded_close(m);
    assert_true(cp_found_write(f, &b));
    for (size_t n = 0; n < b.n; n++)
        assert_int_equal(carried(f, n, 3, &copy), CP_INTERNAL);
    assert_int_equal(carried(f, SIZE_MAX, 2, &copy), CP_INTERNAL);
    assert_int_equal(carried(f, SIZE_MAX, 4, &copy), CP_INTERNAL);
    cp_buf_fini(&b);
    cp_found_free(f);
    unlink(at(r, "m-00003-of-00003.gguf", path));
    at(r, "m-00001-of-00003.gguf", path);
    assert_int_equal(cp_loader_find(&f, path, &r->opt, NULL), CP_OK); /* it may not be needed */
    assert_int_equal(carried(f, SIZE_MAX, 1, &copy), CP_OK);
    cp_found_free(f);
    cp_err err;
    assert_int_equal(cp_loader_map(&m, copy, &err), CP_NOT_FOUND);
    assert_non_null(strstr(err.msg, "m-00003-of-00003.gguf"));
}

static void default_store_is_xdg(void **state)
{
    room *r = *state;
    char d[72], path[256];
    r->opt.store = NULL;
    make_file(r, "x.gguf", 1);
    pack(r, "x.gguf", "m", "docker", d);
    opens(r, "m");
    assert_int_equal(access(at(r, "data/capstan/store/index.json", path), R_OK), 0);
    setenv("XDG_DATA_HOME", "relative", 1); /* not absolute: does not count */
    setenv("HOME", at(r, "home", path), 1);
    pack(r, "x.gguf", "m", "docker", d);
    assert_int_equal(access(at(r, "home/.local/share/capstan/store/index.json", path), R_OK), 0);
    unsetenv("XDG_DATA_HOME");
    unsetenv("HOME");
    refused(r, "m", CP_USAGE, "neither --store nor");
}

#define FRESH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int cp_suite_store(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(unnamed_entries_go_by_digest),
        FRESH(blobs_on_another_disk),
        FRESH(packs_and_opens),
        FRESH(looks_up_typed_then_canonical),
        FRESH(packing_is_reproducible),
        FRESH(pack_refuses),
        FRESH(replacing_a_name_frees_the_old_blobs),
        FRESH(rm_keeps_shared_blobs),
        FRESH(rm_is_careful_beside_a_broken_entry),
        FRESH(rm_and_gc_are_careful_beside_a_lost_manifest),
        FRESH(damaged_blobs_are_refused),
        FRESH(own_records_are_believed_until_always),
        FRESH(stores_of_others),
        FRESH(plain_files_have_records),
        FRESH(foreign_layouts_stay_untouched),
        FRESH(hostile_layouts),
        FRESH(processes_share_the_store),
        FRESH(pack_guards_its_unnamed_blobs),
        FRESH(split_models),
        FRESH(what_is_found_crosses_processes),
        FRESH(default_store_is_xdg),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
