/*
 * Members of a layer: which ones count, and the list that an extracted folder keeps of them. A
 * list is text with a line a member, between a head that names the layer and a line with the
 * digest of all before it. A path comes last in its line, so it may hold blanks. For example,
 *
 *     capstan-extracted 2 sha256:ab12...ef image
 *     d models
 *     g 0 1048576 sha256:77ac...01 models/m.gguf
 *     s 5120 models/README
 *     l 2 models/latest
 *     sha256:90be...4d
 *
 * has a folder, a GGUF file that is extracted as "0", a file that was not worth extracting, and a
 * symbolic link (tar type 2). "f" is another extracted file, "w" a whiteout, "o" an opaque folder
 * (image-spec, layer.md, Whiteouts).
 */
#include "loader/oci/content/members.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES = 64 << 20, HEAD_MAX = 128 };
static const char head_format[] = "capstan-extracted 2 sha256:%s %s\n";

/* See members.h. */
cp_members *cp_members_new(void)
{
    cp_members *m = cp_xcalloc(1, sizeof(*m));
    m->arena = cp_arena_new(ARENA_BYTES);
    return m;
}

/* See members.h. */
void cp_members_free(cp_members *m)
{
    if (!m)
        return;
    cp_arena_free(m->arena);
    free(m->v);
    free(m);
}

static cp_code append(cp_members *m, cp_member_kind kind, const char *path, cp_member **out,
                      cp_err *err)
{
    if (m->n == CP_MEMBERS_MAX)
        return cp_fail(err, CP_CORRUPT, "tar: more than %d members that count", CP_MEMBERS_MAX);
    if ((m->n & (m->n - 1)) == 0)
        m->v = cp_xrealloc(m->v, (m->n ? 2 * m->n : 1) * sizeof(*m->v));
    cp_member *e = &m->v[m->n];
    *e = (cp_member){.kind = kind, .number = CP_MEMBER_IN_PLACE};
    e->path = cp_arena_strndup(m->arena, path, strlen(path));
    if (!e->path)
        return cp_fail(err, CP_CORRUPT, "tar: paths take more than %d bytes", ARENA_BYTES);
    m->n++;
    *out = e;
    return CP_OK;
}

/* Tar types that are neither files nor folders; the last row fits the rest. */
static const struct {
    char type;
    const char *kind;
} left_out[] = {
    {'1', "a hard link"}, {'2', "a symbolic link"}, {'3', "a device"},
    {'4', "a device"},    {'6', "a pipe"},          {'?', "no file by its tar type"},
};
enum { N_LEFT_OUT = sizeof(left_out) / sizeof(left_out[0]) };

static size_t left_out_row(char type)
{
    size_t i = 0;
    while (i < N_LEFT_OUT - 1 && left_out[i].type != type)
        i++;
    return i;
}

/* See members.h. */
const char *cp_member_left_out(char type)
{
    return left_out[left_out_row(type)].kind;
}

/* Whose presence or absence an image's member decides: models itself or below it. */
static bool in_models(const char *path)
{
    return strncmp(path, "models", 6) == 0 && (path[6] == '\0' || path[6] == '/');
}

/*
 * A whiteout's target: ".wh..wh..opq" makes its folder opaque, ".wh.NAME" removes NAME beside it.
 * False: no whiteout. Other names that begin with .wh..wh. are a storage driver's and mean nothing.
 */
static bool whiteout(const char *path, char target[CP_TAR_PATH_MAX + 1], cp_member_kind *kind)
{
    const char *base = cp_path_base(path);
    size_t folder = base > path ? (size_t)(base - path) - 1 : 0;
    if (strncmp(base, ".wh.", 4) != 0)
        return false;
    *kind = strcmp(base, ".wh..wh..opq") == 0 ? CP_MEMBER_OPAQUE : CP_MEMBER_WHITEOUT;
    memcpy(target, path, folder);
    target[folder] = '\0';
    if (*kind == CP_MEMBER_WHITEOUT)
        cp_snprintf(target + folder, CP_TAR_PATH_MAX + 1 - folder, "%s%s", folder ? "/" : "",
                    base + 4);
    return true;
}

static cp_code printable(const char *path, cp_err *err)
{
    for (const char *p = path; *p; p++)
        if (cp_control(p) || *p == '\\')
            return cp_fail(err, CP_CORRUPT, "tar: a path holds the character %#x",
                           (unsigned char)p[cp_control(p) / 2]);
    return CP_OK;
}

/* See members.h. */
cp_code cp_members_add(cp_members *m, bool image, const cp_tar_member *from, cp_member **out,
                       cp_err *err)
{
    char path[CP_TAR_PATH_MAX + 1], target[CP_TAR_PATH_MAX + 1];
    cp_member_kind kind = CP_MEMBER_FILE;
    *out = NULL;
    cp_code code = cp_tar_plain_path(from->path, path, err);
    if (code)
        return code;
    bool gone = image && whiteout(path, target, &kind);
    if (image && !in_models(gone ? target : path) &&
        !(gone && kind == CP_MEMBER_OPAQUE && !*target))
        return CP_OK;
    if (path[0] == '\0') /* the top folder itself */
        return from->kind == CP_TAR_DIR ? CP_OK : cp_fail(err, CP_CORRUPT, "tar: a file named '.'");
    if ((code = printable(path, err)))
        return code;
    if (gone && from->kind == CP_TAR_DIR)
        return cp_fail(err, CP_CORRUPT, "tar: the whiteout '%.200s' is a folder", path);
    if (gone) /* its name counts, also where some storage driver has made it a link */
        return append(m, kind, target, out, err);
    kind = from->kind == CP_TAR_DIR     ? CP_MEMBER_DIR
           : from->kind == CP_TAR_OTHER ? CP_MEMBER_LEFT_OUT
                                        : CP_MEMBER_FILE;
    code = append(m, kind, path, out, err);
    if (!code && kind == CP_MEMBER_LEFT_OUT)
        (*out)->type = left_out[left_out_row(from->type)].type;
    if (!code && kind == CP_MEMBER_FILE) {
        (*out)->offset = from->offset;
        (*out)->size = from->size;
    }
    return code;
}

static int by_path(const void *a, const void *b)
{
    const cp_member *const *x = a, *const *y = b;
    return strcmp((*x)->path, (*y)->path);
}

/* See members.h. */
cp_code cp_members_check(const cp_members *m, cp_err *err)
{
    const cp_member **sorted = cp_xcalloc(m->n ? m->n : 1, sizeof(*sorted));
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].kind == CP_MEMBER_FILE || m->v[i].kind == CP_MEMBER_LEFT_OUT)
            sorted[n++] = &m->v[i];
    if (n)
        qsort(sorted, n, sizeof(*sorted), by_path);
    cp_code code = CP_OK;
    for (size_t i = 1; !code && i < n; i++)
        if (strcmp(sorted[i]->path, sorted[i - 1]->path) == 0 &&
            (sorted[i]->kind == CP_MEMBER_FILE || sorted[i - 1]->kind == CP_MEMBER_FILE))
            code = cp_fail(err, CP_CORRUPT, "tar: '%.200s' is in it twice", sorted[i]->path);
    free(sorted);
    return code;
}

/* See members.h. */
cp_code cp_members_of_tar(cp_members **out, const uint8_t *p, size_t n, bool image, cp_err *err)
{
    cp_tar_memory memory = {.p = p, .n = n};
    cp_tar_source source = cp_tar_from_memory(&memory);
    cp_tar t;
    cp_tar_member from;
    bool end = false;
    cp_members *m = cp_members_new();
    cp_tar_init(&t, &source);
    cp_code code = cp_tar_next(&t, &from, &end, err);
    for (cp_member *e; !code && !end; code = code ? code : cp_tar_next(&t, &from, &end, err)) {
        code = cp_members_add(m, image, &from, &e, err);
        if (!code && e && e->kind == CP_MEMBER_FILE)
            e->gguf = e->size >= 4 && memcmp(p + e->offset, "GGUF", 4) == 0;
    }
    cp_tar_fini(&t);
    if (!code)
        code = cp_members_check(m, err);
    *out = code ? NULL : m;
    if (code)
        cp_members_free(m);
    return code;
}

static void digest_of(const cp_buf *b, char text[CP_DIGEST_STR])
{
    uint8_t d[32];
    cp_sha256_of(b->p ? b->p : "", b->n, d);
    cp_digest_format(d, text);
}

/* See members.h. */
void cp_members_write(const cp_members *m, const char *hex, bool image, cp_buf *out)
{
    char digest[CP_DIGEST_STR];
    cp_buf_printf(out, head_format, hex, image ? "image" : "tree");
    for (size_t i = 0; i < m->n; i++) {
        const cp_member *e = &m->v[i];
        if (e->kind == CP_MEMBER_LEFT_OUT) {
            cp_buf_printf(out, "l %c %s\n", e->type, e->path);
        } else if (e->kind != CP_MEMBER_FILE) {
            cp_buf_printf(out, "%c %s\n",
                          e->kind == CP_MEMBER_DIR        ? 'd'
                          : e->kind == CP_MEMBER_WHITEOUT ? 'w'
                                                          : 'o',
                          e->path);
        } else if (e->number < 0) {
            cp_buf_printf(out, "s %" PRIu64 " %s\n", e->size, e->path);
        } else {
            cp_digest_format(e->digest, digest);
            cp_buf_printf(out, "%c %d %" PRIu64 " %s %s\n", e->gguf ? 'g' : 'f', e->number, e->size,
                          digest, e->path);
        }
    }
    digest_of(out, digest);
    cp_buf_printf(out, "%s\n", digest);
}

/* One line of a list, without its newline. */
static bool read_line(cp_members *m, const char *line)
{
    static const struct {
        char letter;
        cp_member_kind kind;
    } kinds[] = {{'d', CP_MEMBER_DIR}, {'w', CP_MEMBER_WHITEOUT}, {'o', CP_MEMBER_OPAQUE}};
    char digest[CP_DIGEST_STR];
    int number, n = 0;
    uint64_t size;
    cp_member *e;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (line[0] == kinds[i].letter && line[1] == ' ')
            return append(m, kinds[i].kind, line + 2, &e, NULL) == CP_OK;
    if (line[0] == 'l' && line[1] == ' ' && line[2] && line[3] == ' ' && line[4]) {
        if (append(m, CP_MEMBER_LEFT_OUT, line + 4, &e, NULL))
            return false;
        e->type = line[2];
        return left_out[left_out_row(e->type)].type == e->type;
    }
    /* One blank before a path: it may begin with others. */
    if (sscanf(line, "s %" SCNu64 "%n", &size, &n) == 1 && line[n] == ' ' && line[n + 1]) {
        if (append(m, CP_MEMBER_FILE, line + n + 1, &e, NULL))
            return false;
        e->number = CP_MEMBER_SKIPPED;
        e->size = size;
        return true;
    }
    if ((line[0] != 'g' && line[0] != 'f') ||
        sscanf(line + 1, " %d %" SCNu64 " %71s%n", &number, &size, digest, &n) != 3 ||
        line[1 + n] != ' ' || !line[2 + n] || number < 0 ||
        append(m, CP_MEMBER_FILE, line + 2 + n, &e, NULL))
        return false;
    e->number = number;
    e->size = size;
    e->gguf = line[0] == 'g';
    return cp_digest_parse(digest, e->digest);
}

/* See members.h. */
bool cp_members_read(cp_members *m, const char *hex, bool image, cp_buf *text)
{
    char head[HEAD_MAX], digest[CP_DIGEST_STR];
    size_t k = cp_snprintf(head, sizeof(head), head_format, hex, image ? "image" : "tree"),
           tail = CP_DIGEST_STR; /* the digest's line, newline included */
    if (text->n < k + tail || memcmp(text->p, head, k) != 0 || text->p[text->n - 1] != '\n')
        return false;
    text->p[text->n - 1] = '\0';
    char *seal = text->p + text->n - tail;
    cp_buf before = {.p = text->p, .n = text->n - tail};
    digest_of(&before, digest);
    if (strcmp(seal, digest) != 0)
        return false;
    bool ok = true;
    for (char *line = text->p + k, *next; ok && line < seal; line = next) {
        char *nl = memchr(line, '\n', (size_t)(seal - line));
        next = nl ? nl + 1 : seal;
        ok = nl != NULL;
        if (nl) {
            *nl = '\0';
            ok = read_line(m, line);
        }
    }
    return ok;
}
