/*
 * Finding the files of a model. What a layer is, is asked of its first bytes wherever a media type
 * leaves a doubt: producers label gzip as plain tar and files as tars. Of an image only models/ is
 * looked at, its layers from the bottom up: a whiteout removes what lies below its layer, a file
 * replaces what had its path.
 */
#include "loader/oci/content/files.h"
#include "base/io.h"
#include "base/map.h"
#include "loader/oci/content/choice.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 512,
    ARENA_BYTES = 64 << 20,
    MEMBERS_OF_ALL = CP_MEMBERS_MAX,
    LOOK_MAX = 16 << 20, /* of a compressed layer that is only looked into */
};

typedef enum bytes_kind { BYTES_OTHER, BYTES_GGUF, BYTES_TAR, BYTES_PACKED } bytes_kind;

static bytes_kind kind_of(const uint8_t *p, size_t n)
{
    if (n >= 4 && memcmp(p, "GGUF", 4) == 0)
        return BYTES_GGUF;
    if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b)
        return BYTES_PACKED;
    if (n >= 4 && memcmp(p, "\x28\xb5\x2f\xfd", 4) == 0)
        return BYTES_PACKED;
    if (n >= 4 && (p[0] & 0xf0) == 0x50 && memcmp(p + 1, "\x2a\x4d\x18", 3) == 0)
        return BYTES_PACKED; /* a skippable zstd frame */
    if (n >= 262 && memcmp(p + 257, "ustar", 5) == 0)
        return BYTES_TAR;
    return BYTES_OTHER;
}

/* What a layer is in fact: RAW, TAR, or TAR_GZIP for anything compressed; ANY: none of them. */
typedef struct opened {
    int fd;
    uint64_t size;
    cp_layer_form form;
} opened;

static cp_code open_layer(const cp_layout *l, const cp_descriptor *d, cp_layer_form form,
                          opened *out, cp_err *err)
{
    uint8_t head[HEAD_BYTES];
    if (!d->sha256)
        return cp_fail(err, CP_CORRUPT, "a layer's digest is not sha256, which alone is built");
    cp_code code = cp_blob_open(l, d->raw, &out->fd, &out->size, err);
    if (code)
        return code == CP_NOT_FOUND
                   ? cp_fail(err, CP_CORRUPT, "%s lacks the blob %s", l->path, d->digest)
                   : code;
    out->form = form;
    if (form == CP_FORM_RAW)
        return CP_OK;
    ssize_t n = cp_io_pread(out->fd, head, sizeof(head), 0);
    if (n < 0) {
        close(out->fd);
        return cp_fail(err, CP_IO, "%s: read: %s", d->digest, strerror(errno));
    }
    switch (kind_of(head, (size_t)n)) {
    case BYTES_GGUF: /* also where the type says tar: a pusher's default for any file */
        out->form = CP_FORM_RAW;
        break;
    case BYTES_PACKED:
        out->form = CP_FORM_TAR_GZIP;
        break;
    case BYTES_TAR:
        out->form = CP_FORM_TAR;
        break;
    case BYTES_OTHER: /* a tar without a magic is still one if it is called so */
        out->form = form == CP_FORM_ANY ? CP_FORM_ANY : CP_FORM_TAR;
        break;
    }
    return CP_OK;
}

static void hex_of(const cp_descriptor *d, char hex[CP_HEX_STR])
{
    cp_digest_hex(d->raw, hex);
}

static bool is_extracted(const cp_places *places, const char *hex, bool image)
{
    cp_members *m;
    int place;
    if (cp_members_extracted(&m, places, hex, image, &place, NULL) != CP_OK)
        return false;
    cp_members_free(m);
    return true;
}

typedef cp_code unpack_fn(const cp_places *places, const char *hex, int fd, uint64_t size,
                          bool image, const cp_extract_progress *progress, cp_err *err);

/* f with each compressed layer that is extracted, or is not. Twice: how much there is, then do it.
 */
static cp_code each_packed(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                           const cp_places *places, bool extracted, unpack_fn *f,
                           cp_extract_progress *told, cp_err *err)
{
    cp_code code = CP_OK;
    for (int pass = 0; !code && pass < 2; pass++)
        for (size_t i = 0; !code && i < plan->n; i++) {
            const cp_plan_layer *p = &plan->layer[i];
            const cp_descriptor *d = &m->layer[p->layer];
            char hex[CP_HEX_STR];
            opened o;
            if (p->role == CP_ROLE_IGNORED || p->form == CP_FORM_RAW)
                continue;
            code = open_layer(l, d, p->form, &o, err);
            if (code)
                break;
            hex_of(d, hex);
            if (o.form == CP_FORM_TAR_GZIP && is_extracted(places, hex, plan->image) == extracted) {
                if (pass == 0) {
                    told->total += o.size; /* sizes sum below 2^64: cp_manifest.bytes */
                } else {
                    code = f(places, hex, o.fd, o.size, plan->image, told, err);
                    told->base += o.size;
                }
            }
            close(o.fd);
            if (code)
                cp_err_prefix(err, "%s", d->digest);
        }
    return code;
}

/* See files.h. */
cp_code cp_files_prepare(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                         const cp_places *places, cp_progress_fn *progress, void *arg, cp_err *err)
{
    cp_extract_progress told = {.fn = progress, .arg = arg};
    return each_packed(l, m, plan, places, false, cp_extract, &told, err);
}

/* See files.h. */
cp_code cp_files_check(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                       const cp_places *places, cp_progress_fn *progress, void *arg, cp_err *err)
{
    cp_extract_progress told = {.fn = progress, .arg = arg};
    return each_packed(l, m, plan, places, true, cp_extract_check, &told, err);
}

/* ---- listing ---- */

typedef struct lister {
    const cp_layout *l;
    const cp_manifest *m;
    const cp_plan *plan;
    const cp_places *places;
    cp_files *out;
    size_t n_members; /* of all layers */
    const char *unbuilt;
    bool look;   /* into layers that are not extracted */
    bool unseen; /* one of them was too large for that */
} lister;

static cp_code add(lister *x, const cp_file *f, cp_err *err)
{
    cp_files *o = x->out;
    if (o->n == CP_FILES_MAX)
        return cp_fail(err, CP_CORRUPT, "the model has more than %d files", CP_FILES_MAX);
    cp_file *e = &o->v[o->n];
    *e = *f;
    e->path = cp_arena_strndup(o->arena, f->path, strlen(f->path));
    if (!e->path)
        return cp_fail(err, CP_CORRUPT, "file paths take more than %d bytes", ARENA_BYTES);
    o->n++;
    return CP_OK;
}

/* Is path p the folder `dir` ("" = the top), or below it? */
static bool below(const char *p, const char *dir)
{
    size_t n = strlen(dir);
    return n == 0 || (strncmp(p, dir, n) == 0 && p[n] == '/');
}

/*
 * Of the files of an image's lower layers drop what member e hides: a file, a link or a whiteout
 * its path and all below it, an opaque folder all below it, a folder the file that had its path;
 * and what lies deeper than a file makes an end of that file.
 */
static void hide(cp_files *f, const cp_member *e)
{
    bool same = e->kind != CP_MEMBER_OPAQUE, deep = e->kind != CP_MEMBER_DIR,
         above = e->kind != CP_MEMBER_OPAQUE && e->kind != CP_MEMBER_WHITEOUT;
    size_t kept = 0;
    for (size_t i = 0; i < f->n; i++) {
        const char *p = f->v[i].path;
        bool gone = (same && strcmp(p, e->path) == 0) || (deep && below(p, e->path)) ||
                    (above && below(e->path, p));
        if (!gone)
            f->v[kept++] = f->v[i];
    }
    f->n = kept;
}

/* What a member is, by name and first bytes. */
static void classify(lister *x, const cp_member *e, cp_file *f)
{
    f->role = CP_ROLE_IGNORED;
    switch (cp_name_kind_of(e->path, &f->note)) {
    case CP_NAME_GGUF:
        f->role = CP_ROLE_WEIGHTS;
        break;
    case CP_NAME_TEMPLATE:
        if (e->size <= CP_TEMPLATE_MAX_BYTES)
            f->role = CP_ROLE_TEMPLATE;
        else
            f->note = "a template of more than 1 MiB";
        break;
    case CP_NAME_OTHER:
        if (e->gguf) {
            f->role = CP_ROLE_WEIGHTS;
            f->note = NULL;
        }
        break;
    case CP_NAME_UNBUILT:
        x->unbuilt = cp_arena_strndup(x->out->arena, e->path, strnlen(e->path, 200));
        break;
    case CP_NAME_DATA:
        break;
    }
}

/*
 * The path of a tar's only file: where the annotation ends in the member's name it knows the whole
 * path (some packers tar the base name alone).
 */
static const char *only_path(const cp_descriptor *d, const cp_members *ms)
{
    const cp_member *only = NULL;
    for (size_t i = 0; i < ms->n; i++)
        if (ms->v[i].kind == CP_MEMBER_FILE) {
            if (only)
                return NULL;
            only = &ms->v[i];
        }
    return only && strcmp(cp_path_base(d->filepath), cp_path_base(only->path)) == 0 ? d->filepath
                                                                                    : NULL;
}

static cp_code add_members(lister *x, size_t layer, const cp_members *ms, int place, cp_err *err)
{
    const char *only = x->plan->image ? NULL : only_path(&x->m->layer[layer], ms);
    cp_code code = CP_OK;
    x->n_members += ms->n;
    if (x->n_members > MEMBERS_OF_ALL)
        return cp_fail(err, CP_CORRUPT, "the layers have more than %d members", MEMBERS_OF_ALL);
    /* All of it before any file of this layer is there: whiteouts are for the layers below. */
    for (size_t i = 0; x->plan->image && i < ms->n; i++)
        hide(x->out, &ms->v[i]);
    for (size_t i = 0; !code && i < ms->n; i++) {
        const cp_member *e = &ms->v[i];
        bool left_out = e->kind == CP_MEMBER_LEFT_OUT;
        if (e->kind != CP_MEMBER_FILE && !left_out)
            continue;
        cp_file f = {.path = only && !left_out ? only : e->path,
                     .layer = layer,
                     .in_tar = true,
                     .left_out = left_out,
                     .note = left_out ? cp_member_left_out(e->type) : NULL,
                     .offset = e->offset,
                     .size = e->size,
                     .number = e->number,
                     .place = place};
        memcpy(f.digest, e->digest, sizeof(f.digest));
        if (!left_out)
            classify(x, e, &f);
        code = add(x, &f, err);
    }
    return code;
}

/* The members of an uncompressed tar, by mapping it. */
static cp_code map_members(const opened *o, const char *what, bool image, cp_members **out,
                           cp_err *err)
{
    cp_map map;
    if (o->size == 0 || o->size > SIZE_MAX)
        return cp_fail(err, CP_CORRUPT, "%s: %" PRIu64 " bytes is no tar", what, o->size);
    cp_code code = cp_map_open(&map, o->fd, (size_t)o->size, what, err);
    if (code)
        return code;
    code = cp_members_of_tar(out, map.p, map.n, image, err);
    if (!code && cp_map_poisoned(&map)) {
        cp_members_free(*out);
        *out = NULL;
        code = cp_fail(err, CP_CORRUPT, "%s: shrank while it was read", what);
    }
    cp_map_close(&map);
    return code;
}

/* The members of a compressed tar. */
static cp_code packed_members(lister *x, const opened *o, const char *hex, cp_members **out,
                              int *place, cp_err *err)
{
    cp_code code = cp_members_extracted(out, x->places, hex, x->plan->image, place, err);
    if (code != CP_NOT_FOUND || !x->look)
        return code;
    if (o->size <= LOOK_MAX)
        return cp_extract_look(out, o->fd, o->size, x->plan->image, err);
    x->unseen = true;
    return CP_OK;
}

static cp_code list_layer(lister *x, const cp_plan_layer *p, cp_err *err)
{
    const cp_descriptor *d = &x->m->layer[p->layer];
    char hex[CP_HEX_STR];
    opened o;
    cp_members *ms = NULL;
    int place = 0;
    cp_file f = {.path = d->filepath,
                 .role = p->role,
                 .note = p->note,
                 .layer = p->layer,
                 .size = d->size,
                 .number = CP_MEMBER_IN_PLACE};
    if (p->role == CP_ROLE_IGNORED)
        return add(x, &f, err);
    cp_code code = open_layer(x->l, d, p->form, &o, err);
    if (code)
        return code;
    hex_of(d, hex);
    switch (o.form) {
    case CP_FORM_TAR:
        code = map_members(&o, d->digest, x->plan->image, &ms, err);
        break;
    case CP_FORM_TAR_GZIP:
    case CP_FORM_TAR_ZSTD:
        code = packed_members(x, &o, hex, &ms, &place, err);
        break;
    case CP_FORM_ANY:
        cp_name_kind_of("", &f.note);
        f.role = CP_ROLE_IGNORED;
        code = add(x, &f, err);
        break;
    case CP_FORM_RAW:
        code = add(x, &f, err);
        break;
    }
    close(o.fd);
    if (!code && ms)
        code = add_members(x, p->layer, ms, place, err);
    else if (code && code != CP_NOT_FOUND)
        cp_err_prefix(err, "%s", d->digest);
    cp_members_free(ms);
    return code;
}

static int by_path(const void *a, const void *b)
{
    const cp_file *const *x = a, *const *y = b;
    return strcmp((*x)->path, (*y)->path);
}

/* Of what is used, no path may name two different files; the same layer twice is one file. */
static cp_code check_paths(const lister *x, cp_err *err)
{
    cp_files *f = x->out;
    cp_file **sorted = cp_xcalloc(f->n ? f->n : 1, sizeof(*sorted));
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++)
        if (f->v[i].role != CP_ROLE_IGNORED && f->v[i].path[0])
            sorted[n++] = &f->v[i];
    if (n)
        qsort(sorted, n, sizeof(*sorted), by_path);
    cp_code code = CP_OK;
    for (size_t i = 1; !code && i < n; i++) {
        cp_file *a = sorted[i - 1], *b = sorted[i];
        if (strcmp(a->path, b->path) != 0)
            continue;
        if (a->layer == b->layer || a->in_tar || b->in_tar ||
            strcmp(x->m->layer[a->layer].digest, x->m->layer[b->layer].digest) != 0)
            code = cp_fail(err, CP_CORRUPT, "layers %zu and %zu both hold '%.200s'", a->layer,
                           b->layer, b->path);
        a->role = CP_ROLE_IGNORED;
        a->note = "the same layer again";
    }
    free(sorted);
    return code;
}

/* Of several models that their names tell apart one stays, by the plan's wish (choice.h);
 * files->why says which. */
static cp_code choose(cp_files *files, const cp_plan *plan, cp_err *err)
{
    const cp_variant_wish w = {.variant = plan->variant, .memory_budget = plan->memory_budget};
    cp_choice_file *f = cp_xcalloc(files->n ? files->n : 1, sizeof(*f));
    size_t n = 0;
    for (size_t i = 0; i < files->n; i++)
        if (files->v[i].role == CP_ROLE_WEIGHTS)
            f[n++] =
                (cp_choice_file){.path = files->v[i].path, .size = files->v[i].size, .here = true};
    cp_code code = cp_choice_among(f, n, &w, files->why, err);
    for (size_t i = 0, k = 0; !code && i < files->n; i++)
        if (files->v[i].role == CP_ROLE_WEIGHTS && !f[k++].keep) {
            files->v[i].role = CP_ROLE_IGNORED;
            files->v[i].note = CP_CHOICE_NOT_TAKEN;
        }
    free(f);
    return code;
}

/* Why no weights were found. */
static cp_code no_weights(const lister *x, cp_err *err)
{
    const cp_files *f = x->out;
    const cp_file *link = NULL;
    for (size_t i = 0; i < f->n; i++) { /* the one that looks most like the way to them */
        const char *note;
        if (f->v[i].left_out && (!link || cp_name_kind_of(f->v[i].path, &note) == CP_NAME_GGUF))
            link = &f->v[i];
    }
    if (x->unbuilt)
        return cp_fail(err, CP_UNSUPPORTED, "weights in '%s'; supported: GGUF", x->unbuilt);
    const char *what = x->plan->image ? "the image has no GGUF file under /models"
                                      : "none of its files is GGUF, which alone is built";
    return link ? cp_fail(err, CP_CORRUPT,
                          "%s; '%.200s' is %s, and links are not followed: put the file itself "
                          "there",
                          what, link->path, link->note)
                : cp_fail(err, CP_UNSUPPORTED, "%s", what);
}

/* All layers into x->out. */
static cp_code list_all(lister *x, cp_err *err)
{
    const cp_plan *plan = x->plan;
    const cp_files *f = x->out;
    bool weights = false;
    cp_code code = CP_OK;
    for (size_t i = 0; !code && i < plan->n; i++)
        code = list_layer(x, &plan->layer[i], err);
    if (!code)
        code = check_paths(x, err);
    if (!code)
        code = choose(x->out, plan, err);
    for (size_t i = 0; i < f->n; i++)
        weights = weights || f->v[i].role == CP_ROLE_WEIGHTS;
    return !code && !weights && !x->unseen ? no_weights(x, err) : code;
}

static cp_files *new_files(void)
{
    cp_files *f = cp_xcalloc(1, sizeof(*f));
    f->arena = cp_arena_new(ARENA_BYTES);
    f->v = cp_xcalloc(CP_FILES_MAX, sizeof(*f->v));
    return f;
}

/* See files.h. */
cp_code cp_files_list(cp_files **out, const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                      const cp_places *places, cp_err *err)
{
    lister x = {.l = l, .m = m, .plan = plan, .places = places, .out = new_files()};
    cp_code code = list_all(&x, err);
    *out = code ? NULL : x.out;
    if (code)
        cp_files_free(x.out);
    return code;
}

/* See files.h. */
cp_code cp_files_look(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                      const cp_places *places, cp_err *err)
{
    lister x = {.l = l, .m = m, .plan = plan, .places = places, .out = new_files(), .look = true};
    cp_code code = list_all(&x, err);
    cp_files_free(x.out);
    return code == CP_NOT_FOUND && x.unseen ? CP_OK : code;
}

/* See files.h. */
cp_code cp_file_open(const cp_layout *l, const cp_manifest *m, const cp_places *places,
                     const cp_file *f, int *fd, uint64_t *offset, cp_err *err)
{
    const cp_descriptor *d = &m->layer[f->layer];
    char hex[CP_HEX_STR];
    *fd = -1;
    *offset = f->number >= 0 ? 0 : f->offset;
    if (f->number >= 0) {
        hex_of(d, hex);
        return cp_extracted_open(places, f->place, hex, f->number, fd, err);
    }
    return cp_blob_of(l, d, fd, err);
}

/* See files.h. */
void cp_files_left_out(const cp_files *f, char out[CP_LEFT_OUT_MAX])
{
    enum { NAMED = 4 };
    size_t n = 0, at = 0;
    char names[CP_LEFT_OUT_MAX] = "";
    for (size_t i = 0; i < f->n; i++) {
        const cp_file *e = &f->v[i];
        if (!e->left_out || ++n > NAMED)
            continue;
        at += cp_snprintf(names + at, sizeof(names) - at, "%s%.48s (%s)", n > 1 ? ", " : "",
                          e->path, e->note);
    }
    out[0] = '\0';
    if (n)
        cp_snprintf(out, CP_LEFT_OUT_MAX, "%zu member%s left out: %s%s", n, n > 1 ? "s" : "", names,
                    n > NAMED ? ", ..." : "");
}

/* See files.h. */
void cp_files_free(cp_files *f)
{
    if (!f)
        return;
    cp_arena_free(f->arena);
    free(f->v);
    free(f);
}
