/*
 * JSON of OCI indexes and manifests (image-spec: image-index.md, manifest.md, descriptor.md).
 * Parsed values are copied into an arena and the JSON tree is dropped. An index is edited as a
 * tree, so that whatever other tools wrote into it (platforms, annotations, other artifacts)
 * stays. jansson keeps the order of keys, hence the same values give the same bytes. A manifest,
 * for example:
 *
 *     {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
 *      "config":{"mediaType":"application/vnd.cncf.model.config.v1+json",
 *                "digest":"sha256:44..","size":2},
 *      "layers":[{"mediaType":"application/vnd.cncf.model.weight.v1.raw",
 *                 "digest":"sha256:6f..","size":270000000,
 *                 "annotations":{"org.cncf.model.filepath":"m.gguf"}}]}
 */
#include "loader/oci/store/manifest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1024, ARENA_BYTES = 64 << 20 };
static const char untested_key[] = "org.cncf.model.file.mediatype.untested";

static cp_code load(json_t **out, const char *what, const char *json, size_t n, cp_err *err)
{
    *out = NULL;
    if (n > CP_MANIFEST_MAX_BYTES)
        return cp_fail(err, CP_CORRUPT, "%s has %zu bytes, the limit is %d", what, n,
                       CP_MANIFEST_MAX_BYTES);
    json_error_t e;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &e);
    if (!root)
        return cp_fail(err, CP_CORRUPT, "%s is no JSON: line %d column %d: %s", what, e.line,
                       e.column, e.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return cp_fail(err, CP_CORRUPT, "%s is no JSON object", what);
    }
    *out = root;
    return CP_OK;
}

/* A string member as an arena copy; "" when absent. */
static cp_code text(cp_arena *a, const json_t *obj, const char *key, const char **out, cp_err *err)
{
    const json_t *v = json_object_get(obj, key);
    *out = "";
    if (!v || json_is_null(v))
        return CP_OK;
    if (!json_is_string(v))
        return cp_fail(err, CP_CORRUPT, "'%s' is no string", key);
    const char *s = json_string_value(v);
    size_t n = json_string_length(v);
    if (n > MAX_TEXT)
        return cp_fail(err, CP_CORRUPT, "'%s' has %zu bytes, the limit is %d", key, n, MAX_TEXT);
    for (size_t i = 0; i < n; i++)
        if (!s[i] || cp_control(s + i)) /* NUL comes as \u0000 */
            return cp_fail(err, CP_CORRUPT, "'%s' holds the control character %#x", key,
                           (unsigned char)s[i + cp_control(s + i) / 2]);
    *out = cp_arena_strndup(a, s, n);
    return *out ? CP_OK : cp_fail(err, CP_NO_MEMORY, "no memory for '%s'", key);
}

/* algorithm:encoded by the OCI grammar; only sha256 is decoded. */
static cp_code digest(const char *s, cp_descriptor *d, cp_err *err)
{
    if (!cp_strcopy(d->digest, sizeof(d->digest), s))
        d->digest[0] = '\0';
    d->sha256 = cp_digest_parse(s, d->raw);
    if (d->sha256)
        return CP_OK;
    const char *colon = strchr(s, ':');
    size_t algorithm = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789+._-");
    if (!colon || algorithm == 0 || s[algorithm] != ':' || colon[1] == '\0' ||
        strncmp(s, "sha256:", 7) == 0)
        return cp_fail(err, CP_CORRUPT, "digest is not sha256: and 64 lower-case hex digits");
    return CP_OK;
}

/* Some packers write `../` in front (files given by absolute path): strip that, refuse the rest. */
static cp_code filepath(const char **path, cp_err *err)
{
    const char *p = *path;
    while (strncmp(p, "../", 3) == 0)
        p += 3;
    *path = p;
    if (p[0] == '/' || strchr(p, '\\'))
        return cp_fail(err, CP_CORRUPT, "file path '%s' is absolute or has a backslash", p);
    while (*p) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return cp_fail(err, CP_CORRUPT, "file path '%s' leaves its folder", *path);
        p += n + (p[n] == '/');
    }
    return CP_OK;
}

/* A scalar as text; NULL: none, or too long to be one. */
static const char *scalar(cp_arena *a, const json_t *v)
{
    if (json_is_string(v)) {
        const char *s = json_string_value(v);
        size_t n = json_string_length(v);
        for (size_t i = 0; i < n; i++)
            if (!s[i] || cp_control(s + i))
                return NULL;
        return n > MAX_TEXT ? NULL : cp_arena_strndup(a, s, n);
    }
    if (json_is_integer(v))
        return cp_arena_printf(a, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v))
        return cp_arena_printf(a, "%g", json_real_value(v));
    return json_is_boolean(v) ? json_is_true(v) ? "true" : "false" : NULL;
}

/* What an index's entry says of itself: data for choosing, so what does not fit is left out. */
static cp_code traits(cp_arena *a, const json_t *v, cp_descriptor *d, cp_err *err)
{
    static const char *const objects[] = {"modelMetadata", "annotations"};
    cp_trait all[CP_TRAITS_MAX];
    size_t n = 0;
    for (int k = 0; k < 2; k++) {
        json_t *o = json_object_get(v, objects[k]);
        for (void *i = json_object_iter(o); i && n < CP_TRAITS_MAX;
             i = json_object_iter_next(o, i)) {
            const char *key = json_object_iter_key(i);
            const char *value = scalar(a, json_object_iter_value(i));
            if (!value || strlen(key) > MAX_TEXT)
                continue;
            all[n].key = cp_arena_strndup(a, key, strlen(key));
            all[n].value = value;
            all[n].metadata = k == 0;
            n += all[n].key != NULL;
        }
    }
    if (n == 0)
        return CP_OK;
    cp_trait *copy = cp_arena_alloc(a, n * sizeof(*copy));
    if (!copy)
        return cp_fail(err, CP_NO_MEMORY, "no memory for annotations");
    memcpy(copy, all, n * sizeof(*copy));
    d->trait = copy;
    d->n_traits = n;
    return CP_OK;
}

/*
 * ModelPack's "file metadata", a JSON text within a JSON text. It is a hint from packers that
 * differ in it, so what cannot be read is no error. typeflag is a digit for some and its character
 * code for others.
 */
static void file_metadata(cp_arena *a, const json_t *notes, cp_descriptor *d)
{
    static const char *const keys[] = {
        "org.cncf.model.file.metadata+json", "org.cnai.model.file.metadata+json",
        "org.cncf.model.file.metadata", "org.cnai.model.file.metadata"};
    const char *s = NULL;
    for (size_t i = 0; !s && i < sizeof(keys) / sizeof(keys[0]); i++)
        s = json_string_value(json_object_get(notes, keys[i]));
    json_t *root = s && strlen(s) <= 16 * MAX_TEXT ? json_loads(s, 0, NULL) : NULL;
    json_int_t type = json_integer_value(json_object_get(root, "typeflag"));
    const char *name;
    d->link = type == 2 || type == '2';
    if (d->filepath[0] == '\0' && text(a, root, "name", &name, NULL) == CP_OK &&
        filepath(&name, NULL) == CP_OK)
        d->filepath = name;
    json_decref(root);
}

/* files: the descriptor may name a file (a layer, not an index's entry). */
static cp_code descriptor(cp_arena *a, const json_t *v, bool files, cp_descriptor *d, cp_err *err)
{
    static const char *const name_keys[] = {"org.cncf.model.filepath", "org.cnai.model.filepath",
                                            "org.opencontainers.image.title"};
    *d = (cp_descriptor){.media_type = "", .filepath = ""};
    if (!json_is_object(v))
        return cp_fail(err, CP_CORRUPT, "a descriptor is no object");
    const json_t *platform = json_object_get(v, "platform"),
                 *notes = json_object_get(v, "annotations");
    if ((platform && !json_is_object(platform) && !json_is_null(platform)) ||
        (notes && !json_is_object(notes) && !json_is_null(notes)))
        return cp_fail(err, CP_CORRUPT, "'platform' or 'annotations' is no object");
    const json_t *size = json_object_get(v, "size");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return cp_fail(err, CP_CORRUPT, "a descriptor's 'size' is no integer >= 0");
    d->size = (uint64_t)json_integer_value(size);
    const char *digest_text;
    cp_code code = text(a, v, "mediaType", &d->media_type, err);
    if (!code)
        code = text(a, v, "artifactType", &d->artifact_type, err);
    if (!code)
        code = text(a, v, "digest", &digest_text, err);
    if (!code)
        code = digest(digest_text, d, err);
    if (!code)
        code = text(a, notes, CP_ANNOTATION_NAME, &d->ref_name, err);
    if (!code)
        code = text(a, platform, "os", &d->os, err);
    if (!code)
        code = text(a, platform, "architecture", &d->arch, err);
    if (!code)
        code = text(a, platform, "variant", &d->cpu, err);
    const char *untested = json_string_value(json_object_get(notes, untested_key));
    d->untested = untested && strcmp(untested, "true") == 0;
    for (size_t i = 0;
         files && !code && d->filepath[0] == '\0' && i < sizeof(name_keys) / sizeof(name_keys[0]);
         i++)
        code = text(a, notes, name_keys[i], &d->filepath, err);
    if (!code && files)
        file_metadata(a, notes, d);
    else if (!code)
        code = traits(a, v, d, err);
    return code ? code : filepath(&d->filepath, err);
}

static cp_code descriptors(cp_arena *a, const json_t *list, const char *key, cp_descriptor **out,
                           size_t *n, cp_err *err)
{
    if (!json_is_array(list))
        return cp_fail(err, CP_CORRUPT, "'%s' is no array", key);
    size_t count = json_array_size(list);
    if (count > CP_MANIFEST_MAX_ITEMS)
        return cp_fail(err, CP_CORRUPT, "'%s' has %zu entries, the limit is %d", key, count,
                       CP_MANIFEST_MAX_ITEMS);
    *out = cp_arena_alloc(a, (count ? count : 1) * sizeof(**out));
    if (!*out)
        return cp_fail(err, CP_NO_MEMORY, "no memory for %zu entries", count);
    for (size_t i = 0; i < count; i++) {
        cp_code code =
            descriptor(a, json_array_get(list, i), strcmp(key, "layers") == 0, &(*out)[i], err);
        if (code) {
            cp_err_prefix(err, "%s[%zu]", key, i);
            return code;
        }
    }
    *n = count;
    return CP_OK;
}

/* See manifest.h. */
cp_code cp_index_parse(cp_index **out, const char *json, size_t n, cp_err *err)
{
    *out = NULL;
    json_t *root;
    cp_code code = load(&root, "index", json, n, err);
    if (code)
        return code;
    cp_index *x = cp_xcalloc(1, sizeof(*x));
    x->arena = cp_arena_new(ARENA_BYTES);
    if (json_object_get(root, "layers"))
        code = cp_fail(err, CP_CORRUPT, "index has layers as well");
    else
        code = descriptors(x->arena, json_object_get(root, "manifests"), "manifests", &x->item,
                           &x->n, err);
    json_decref(root);
    if (code)
        cp_index_free(x);
    else
        *out = x;
    return code;
}

/* See manifest.h. */
void cp_index_free(cp_index *x)
{
    if (!x)
        return;
    cp_arena_free(x->arena);
    free(x);
}

/* See manifest.h. */
cp_code cp_manifest_parse(cp_manifest **out, const char *json, size_t n, cp_err *err)
{
    *out = NULL;
    json_t *root;
    cp_code code = load(&root, "manifest", json, n, err);
    if (code)
        return code;
    cp_manifest *m = cp_xcalloc(1, sizeof(*m));
    m->arena = cp_arena_new(ARENA_BYTES);
    const json_t *version = json_object_get(root, "schemaVersion");
    if (!json_is_integer(version) || json_integer_value(version) != 2)
        code = cp_fail(err, CP_CORRUPT, "manifest: 'schemaVersion' is not 2");
    else if (json_object_get(root, "manifests"))
        code = cp_fail(err, CP_CORRUPT, "manifest has 'manifests' as well");
    if (!code)
        code = text(m->arena, root, "mediaType", &m->media_type, err);
    if (!code)
        code = text(m->arena, root, "artifactType", &m->artifact_type, err);
    if (!code &&
        (code = descriptor(m->arena, json_object_get(root, "config"), false, &m->config, err)))
        cp_err_prefix(err, "config");
    if (!code)
        code = descriptors(m->arena, json_object_get(root, "layers"), "layers", &m->layer,
                           &m->n_layers, err);
    m->bytes = m->config.size;
    for (size_t i = 0; !code && i < m->n_layers; i++)
        if (__builtin_add_overflow(m->bytes, m->layer[i].size, &m->bytes))
            code = cp_fail(err, CP_CORRUPT, "manifest: sizes of its layers overflow");
    json_decref(root);
    if (code)
        cp_manifest_free(m);
    else
        *out = m;
    return code;
}

/* See manifest.h. */
void cp_manifest_free(cp_manifest *m)
{
    if (!m)
        return;
    cp_arena_free(m->arena);
    free(m);
}

/* See manifest.h. */
bool cp_media_type_is_index(const char *media_type)
{
    return strcmp(media_type, CP_MT_OCI_INDEX) == 0 || strcmp(media_type, CP_MT_DOCKER_LIST) == 0;
}

/* Dump root into out and drop it. */
static cp_code finish(cp_buf *out, json_t *root, cp_err *err)
{
    char *dump = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    bool ok = dump && cp_buf_adds(out, dump);
    free(dump);
    if (ok && out->n > CP_MANIFEST_MAX_BYTES)
        return cp_fail(err, CP_TOO_LARGE, "the index would have %zu bytes, the limit is %d", out->n,
                       CP_MANIFEST_MAX_BYTES);
    return ok ? CP_OK : cp_fail(err, CP_NO_MEMORY, "cannot write JSON");
}

static const char *name_of(const json_t *entry)
{
    const char *s = json_string_value(
        json_object_get(json_object_get(entry, "annotations"), CP_ANNOTATION_NAME));
    return s ? s : "";
}

/* See manifest.h. */
cp_code cp_index_put(cp_buf *out, const char *json, size_t n, const char *ref_name,
                     const cp_descriptor *d, cp_err *err)
{
    json_t *root;
    cp_code code = load(&root, "index", json, n, err);
    if (code)
        return code;
    json_t *list = json_object_get(root, "manifests");
    if (!json_is_array(list)) {
        json_decref(root);
        return cp_fail(err, CP_CORRUPT, "index: 'manifests' is no array");
    }
    for (size_t i = json_array_size(list); i-- > 0;)
        if (strcmp(name_of(json_array_get(list, i)), ref_name) == 0)
            json_array_remove(list, i);
    json_t *e = json_pack("{s:s, s:s, s:I}", "mediaType", d->media_type, "digest", d->digest,
                          "size", (json_int_t)d->size);
    if (e && d->artifact_type && d->artifact_type[0])
        json_object_set_new(e, "artifactType", json_string(d->artifact_type));
    json_t *notes = json_pack("{s:s}", CP_ANNOTATION_NAME, ref_name);
    if (!e || !notes || json_object_set(e, "annotations", notes) || json_array_append(list, e))
        code = cp_fail(err, CP_NO_MEMORY, "index: cannot add '%s'", ref_name);
    json_decref(notes);
    json_decref(e);
    if (!code)
        return finish(out, root, err);
    json_decref(root);
    return code;
}

/* See manifest.h. */
cp_code cp_index_drop(cp_buf *out, const char *json, size_t n, const bool *drop, cp_err *err)
{
    json_t *root;
    cp_code code = load(&root, "index", json, n, err);
    if (code)
        return code;
    json_t *list = json_object_get(root, "manifests");
    for (size_t i = json_array_size(list); i-- > 0;)
        if (drop[i])
            json_array_remove(list, i);
    return finish(out, root, err);
}

static json_t *descriptor_json(const cp_descriptor *d)
{
    json_t *o = json_pack("{s:s, s:s, s:I}", "mediaType", d->media_type, "digest", d->digest,
                          "size", (json_int_t)d->size);
    if (o && d->filepath && d->filepath[0])
        json_object_set_new(o, "annotations",
                            json_pack("{s:s, s:s}", "org.cncf.model.filepath", d->filepath,
                                      "org.opencontainers.image.title", d->filepath));
    return o;
}

/* See manifest.h. */
cp_code cp_manifest_write(cp_buf *out, const char *artifact_type, const cp_descriptor *config,
                          const cp_descriptor *layer, size_t n_layers, cp_err *err)
{
    json_t *root = json_pack("{s:i, s:s}", "schemaVersion", 2, "mediaType", CP_MT_OCI_MANIFEST);
    if (artifact_type && artifact_type[0])
        json_object_set_new(root, "artifactType", json_string(artifact_type));
    json_object_set_new(root, "config", descriptor_json(config));
    json_t *list = json_array();
    for (size_t i = 0; i < n_layers; i++)
        json_array_append_new(list, descriptor_json(&layer[i]));
    if (json_array_size(list) != n_layers || json_object_set_new(root, "layers", list)) {
        json_decref(root);
        return cp_fail(err, CP_NO_MEMORY, "cannot write the manifest");
    }
    return finish(out, root, err);
}

/* See manifest.h. */
bool cp_json_quote(cp_buf *out, const char *s, size_t n)
{
    json_t *v = json_stringn(s, n);
    char *dump = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    bool ok = cp_buf_adds(out, dump ? dump : "\"\"");
    free(dump);
    json_decref(v);
    return ok;
}

/* See manifest.h. */
cp_code cp_json_positive(const char *json, size_t n, const char *outer, const char *inner,
                         int64_t *out, cp_err *err)
{
    json_t *root;
    cp_code code = load(&root, "it", json, n, err);
    if (code)
        return code;
    const json_t *v = json_object_get(outer ? json_object_get(root, outer) : root, inner);
    if (v && !json_is_null(v)) {
        int64_t k = (int64_t)json_integer_value(v);
        if (!json_is_integer(v) || k < 0 || k > INT32_MAX)
            code = cp_fail(err, CP_CORRUPT, "'%s' is no integer from 0 to %d", inner, INT32_MAX);
        else if (k > 0)
            *out = k;
    }
    json_decref(root);
    return code;
}

/* See manifest.h. */
cp_code cp_layout_version_check(const char *json, size_t n, cp_err *err)
{
    json_t *root;
    cp_code code = load(&root, "oci-layout", json, n, err);
    if (code)
        return code;
    const char *v = json_string_value(json_object_get(root, "imageLayoutVersion"));
    if (!v || strncmp(v, "1.", 2) != 0)
        code = cp_fail(err, CP_CORRUPT, "oci-layout: imageLayoutVersion is not 1.x");
    json_decref(root);
    return code;
}
