/*
 * Layouts for tests.
 */
#include "tests/unit/loader/make_layout.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/folder.h"
#include "tests/unit/loader/suites.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *walk)
{
    (void)st, (void)flag, (void)walk;
    return remove(path);
}

/* See make_layout.h. */
int cp_mkl_setup(void **state)
{
    cp_mkl *m = cp_xcalloc(1, sizeof(*m));
    char cache[128];
    snprintf(m->dir, sizeof(m->dir), "/tmp/capstan-layout-XXXXXX");
    if (!mkdtemp(m->dir))
        return -1;
    snprintf(m->store, sizeof(m->store), "%s/store", m->dir);
    snprintf(m->cache, sizeof(m->cache), "%s/capstan", m->store);
    snprintf(cache, sizeof(cache), "%s/cache", m->dir);
    setenv("XDG_CACHE_HOME", cache, 1);
    m->opt.store = m->store;
    *state = m;
    if (cp_folder_make(&m->l, m->store, NULL) != CP_OK)
        return -1;
    cp_places_of(&m->places, m->store, m->l.dir, true, true);
    return m->places.n == 1 && m->places.write == 0 ? 0 : -1;
}

/* See make_layout.h. */
int cp_mkl_teardown(void **state)
{
    cp_mkl *m = *state;
    cp_layout_close(&m->l);
    cp_buf_fini(&m->layers);
    nftw(m->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(m);
    return 0;
}

/* See make_layout.h. */
void cp_mkl_blob(cp_mkl *m, const void *p, size_t n, char digest[72])
{
    cp_descriptor d;
    cp_err err = {0};
    if (cp_blob_put(&m->l, p, n, &d, &err))
        fail_msg("%s", err.msg);
    memcpy(digest, d.digest, 72);
}

/* See make_layout.h. */
void cp_mkl_layer(cp_mkl *m, const char *media_type, const void *p, size_t n, const char *notes)
{
    char digest[72];
    cp_mkl_blob(m, p, n, digest);
    cp_buf_printf(&m->layers, "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu%s}",
                  m->layers.n ? "," : "", media_type, digest, n, notes);
}

/* See make_layout.h. */
void cp_mkl_name(cp_mkl *m, const char *name, const char *media_type, const char *digest,
                 size_t size)
{
    cp_buf raw = {0}, json = {0};
    cp_index *x;
    cp_descriptor d = {.media_type = media_type, .artifact_type = "", .size = size};
    cp_strcopy(d.digest, sizeof(d.digest), digest);
    assert_int_equal(cp_layout_index(&m->l, &x, &raw, NULL), CP_OK);
    assert_int_equal(cp_index_put(&json, raw.p, raw.n, name, &d, NULL), CP_OK);
    assert_int_equal(cp_layout_index_write(&m->l, json.p, json.n, NULL), CP_OK);
    cp_index_free(x);
    cp_buf_fini(&raw);
    cp_buf_fini(&json);
}

/* See make_layout.h. */
void cp_mkl_manifest(cp_mkl *m, const char *name, const char *config_type, const char *config,
                     const char *more, char digest[72])
{
    cp_buf json = {0};
    char config_digest[72];
    cp_mkl_blob(m, config, strlen(config), config_digest);
    cp_buf_printf(&json,
                  "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"%s\",\"digest\":\"%s\","
                  "\"size\":%zu},\"layers\":[%s]%s}",
                  config_type, config_digest, strlen(config), m->layers.p ? m->layers.p : "", more);
    cp_mkl_blob(m, json.p, json.n, digest);
    if (name)
        cp_mkl_name(m, name, CP_MT_OCI_MANIFEST, digest, json.n);
    cp_buf_clear(&m->layers);
    cp_buf_fini(&json);
}
