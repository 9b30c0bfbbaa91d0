/*
 * See fake_registry.h.
 */
#include "tests/unit/loader/fake_registry.h"

#include <stdlib.h>
#include <string.h>

cp_fake *cp_fake_now;

struct cp_registry {
    char name[CP_REF_NAME_MAX];
};

cp_fake *cp_fake_new(void)
{
    cp_fake_now = cp_xcalloc(1, sizeof(*cp_fake_now));
    cp_fake_now->wrong_at = UINT64_MAX;
    return cp_fake_now;
}

void cp_fake_free(cp_fake *f)
{
    for (size_t i = 0; i < f->n_blobs; i++)
        free(f->blob[i].p);
    for (size_t i = 0; i < f->n_manifests; i++)
        free(f->manifest[i].p);
    free(f);
    cp_fake_now = NULL;
}

static cp_fake_item *put(cp_fake_item *list, size_t *count, const char *name, const void *p,
                         size_t n)
{
    cp_fake_item *it = NULL;
    for (size_t i = 0; i < *count && !it; i++)
        if (strcmp(list[i].name, name) == 0)
            it = &list[i];
    if (!it)
        it = &list[(*count)++];
    CP_ASSERT(*count <= CP_FAKE_ITEMS);
    free(it->p);
    it->p = cp_xmalloc(n + 1);
    memcpy(it->p, p, n);
    it->n = n;
    cp_strcopy(it->name, sizeof(it->name), name);
    return it;
}

const cp_fake_item *cp_fake_blob_of(cp_fake *f, const void *p, size_t n, char digest[CP_DIGEST_STR])
{
    uint8_t raw[32];
    cp_sha256_of(p, n, raw);
    cp_digest_format(raw, digest);
    return put(f->blob, &f->n_blobs, digest, p, n);
}

const cp_fake_item *cp_fake_blob(cp_fake *f, size_t n, uint32_t salt, char digest[CP_DIGEST_STR])
{
    uint8_t *p = cp_xmalloc(n + 1);
    uint32_t x = salt * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (uint8_t)(x >> 24);
    }
    const cp_fake_item *it = cp_fake_blob_of(f, p, n, digest);
    free(p);
    return it;
}

void cp_fake_manifest(cp_fake *f, const char *tag, const char *media_type, const void *p, size_t n,
                      char digest[CP_DIGEST_STR])
{
    uint8_t raw[32];
    cp_sha256_of(p, n, raw);
    cp_digest_format(raw, digest);
    cp_strcopy(put(f->manifest, &f->n_manifests, digest, p, n)->media_type, 128, media_type);
    if (tag)
        cp_strcopy(put(f->manifest, &f->n_manifests, tag, p, n)->media_type, 128, media_type);
}

static const cp_fake_item *find(const cp_fake_item *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}

/* ---- the functions of loader/oci/remote/registry.h ---- */

cp_code cp_registry_open(cp_registry **out, const cp_ref *ref, const cp_registry_options *opt,
                         cp_err *err)
{
    (void)opt, (void)err;
    *out = cp_xcalloc(1, sizeof(**out));
    cp_snprintf((*out)->name, sizeof((*out)->name), "%s/%s", ref->registry, ref->repository);
    return CP_OK;
}

void cp_registry_close(cp_registry *r)
{
    free(r);
}

cp_code cp_registry_manifest(cp_registry *r, const char *reference, cp_buf *body,
                             char media_type[128], cp_err *err)
{
    const cp_fake_item *it = find(cp_fake_now->manifest, cp_fake_now->n_manifests, reference);
    cp_fake_now->n_manifest_gets++;
    if (!it)
        return cp_fail(err, CP_NOT_FOUND, "%s has no manifest %s", r->name, reference);
    cp_buf_add(body, it->p, it->n);
    cp_strcopy(media_type, 128, it->media_type);
    return CP_OK;
}

cp_code cp_registry_fetch(cp_registry *r, cp_fetch *f, cp_err *err)
{
    cp_fake *k = cp_fake_now;
    (void)r, (void)err;
    CP_ASSERT(k->n_running < CP_FAKE_RUNNING && f->n > 0 && f->from + f->n <= f->total);
    f->impl = k;
    k->at[k->n_running] = f->from;
    k->running[k->n_running++] = f;
    k->n_fetches++;
    k->n_ranged += f->n != f->total;
    k->n_upstream += f->upstream_only;
    if (f->n != f->total && f->n > k->longest)
        k->longest = f->n;
    if (k->n_running > k->most_running)
        k->most_running = k->n_running;
    return CP_OK;
}

void cp_registry_cancel(cp_registry *r, cp_fetch *f)
{
    cp_fake *k = cp_fake_now;
    (void)r;
    for (int i = 0; i < k->n_running; i++)
        if (k->running[i] == f) {
            k->n_running--;
            memmove(&k->running[i], &k->running[i + 1],
                    (size_t)(k->n_running - i) * sizeof(k->running[0]));
            memmove(&k->at[i], &k->at[i + 1], (size_t)(k->n_running - i) * sizeof(k->at[0]));
            f->impl = NULL;
            return;
        }
}

static void end(cp_fetch *f, cp_code code, const char *text)
{
    cp_err err = {.code = code};
    cp_registry_cancel(NULL, f);
    cp_strcopy(err.msg, sizeof(err.msg), text);
    f->done(f->arg, code, &err);
}

/* The next chunk of fetch i. */
static void serve(cp_fake *k, int i)
{
    cp_fetch *f = k->running[i];
    const cp_fake_item *it = find(k->blob, k->n_blobs, f->digest);
    uint8_t chunk[1 << 16];
    cp_err err = {0};
    if (!it) {
        end(f, CP_NOT_FOUND, "no such blob");
        return;
    }
    if (k->no_ranges && f->n != f->total) {
        end(f, CP_UNSUPPORTED, "no ranges here");
        return;
    }
    if (k->fail_after && k->sent >= k->fail_after) {
        end(f, CP_NETWORK, "the line is dead");
        return;
    }
    uint64_t at = k->at[i], last = f->from + f->n;
    size_t n = k->chunk && k->chunk < sizeof(chunk) ? k->chunk : sizeof(chunk);
    if (n > last - at)
        n = (size_t)(last - at);
    if (k->short_body && at + n == last)
        n--;
    memcpy(chunk, it->p + at, n);
    if (k->wrong_left > 0 && k->wrong_at >= at && k->wrong_at < at + n) {
        chunk[k->wrong_at - at] ^= 1;
        k->wrong_left--;
    }
    k->at[i] += n;
    k->sent += n;
    cp_code code = n ? f->data(f->arg, at, chunk, n, &err) : CP_OK;
    if (!code && k->long_body && at + n == last)
        code = f->data(f->arg, last, chunk, 1, &err);
    if (code)
        end(f, code, err.msg);
    else if (at + n == last || (k->short_body && at + n + 1 == last))
        end(f, CP_OK, "");
}

cp_code cp_registry_step(cp_registry *r, int timeout_ms, int *running, cp_err *err)
{
    cp_fake *k = cp_fake_now;
    (void)r, (void)timeout_ms, (void)err;
    if (k->n_running > 0) {
        int i = k->reversed ? k->n_running - 1 : (int)(k->n_fetches + k->sent / 7) % k->n_running;
        serve(k, i);
    }
    *running = k->n_running;
    return CP_OK;
}

uint64_t cp_registry_received(const cp_registry *r)
{
    (void)r;
    return cp_fake_now->sent;
}

const char *cp_registry_name(const cp_registry *r)
{
    return r->name;
}

const char *cp_registry_host(const cp_registry *r)
{
    return r->name;
}
