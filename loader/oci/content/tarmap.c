/*
 * The tar parser. It reads POSIX pax and ustar (IEEE 1003.1, pax utility, "ustar Interchange
 * Format" and "pax Header Block") and what GNU tar's manual calls "Standard format". Extended
 * headers of one member are gathered before its own header; a number that could be read in two
 * ways is refused rather than guessed. For example, the header of models/m.gguf with 1,000,000
 * bytes, all in octal:
 *
 *     offset   0  "models/m.gguf\0..."     name, 100 bytes
 *     offset 124  "00003641100\0"          size: 1,000,000, so 1954 blocks of 512 follow
 *     offset 148  "010343\0 "              sum of the header's bytes, these eight taken as blanks
 *     offset 156  "0"                      a file ("5" a folder, "2" a symbolic link, "x" pax)
 *     offset 257  "ustar\0" "00"           magic and version
 */
#include "loader/oci/content/tarmap.h"

#include <inttypes.h>
#include <string.h>

enum {
    BLOCK = 512,
    NAME = 0,
    NAME_N = 100,
    SIZE = 124,
    SIZE_N = 12,
    SUM = 148,
    SUM_N = 8,
    TYPE = 156,
    MAGIC = 257,
    PREFIX = 345,
    PREFIX_N = 155,
    MAX_EXTENDED = 16, /* extended headers of one member */
};

/* See tarmap.h. */
void cp_tar_init(cp_tar *t, const cp_tar_source *source)
{
    *t = (cp_tar){.source = *source, .meta.max = CP_TAR_META_MAX + 1};
}

/* See tarmap.h. */
void cp_tar_fini(cp_tar *t)
{
    cp_buf_fini(&t->meta);
}

static cp_code memory_read(void *arg, void *p, size_t n, size_t *got, cp_err *err)
{
    (void)err;
    cp_tar_memory *m = arg;
    *got = n < m->n - m->at ? n : m->n - m->at;
    if (p && *got)
        memcpy(p, m->p + m->at, *got);
    m->at += *got;
    return CP_OK;
}

/* See tarmap.h. */
cp_tar_source cp_tar_from_memory(cp_tar_memory *m)
{
    return (cp_tar_source){.read = memory_read, .arg = m, .limit = m->n};
}

/* As many of n bytes as there are; p NULL: pass over them. */
static cp_code take(cp_tar *t, void *p, uint64_t n, uint64_t *got, cp_err *err)
{
    *got = 0;
    while (*got < n) {
        uint64_t rest = n - *got;
        size_t k = 0, want = rest > SIZE_MAX ? SIZE_MAX : (size_t)rest;
        cp_code code = t->source.read(t->source.arg, p ? (char *)p + *got : NULL, want, &k, err);
        if (code)
            return code;
        CP_ASSERT(k <= want);
        if (k == 0)
            break;
        *got += k;
        t->at += k;
    }
    return CP_OK;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* A numeric field: octal digits between blanks, or GNU's base-256. False: neither, or too big. */
static bool number(const uint8_t *p, size_t n, uint64_t *out)
{
    uint64_t v = 0;
    if (p[0] & 0x80) {
        if (p[0] != 0x80)
            return false; /* negative, or 2^88 and more */
        for (size_t i = 1; i < n; i++) {
            if (v >> 55)
                return false;
            v = v << 8 | p[i];
        }
        *out = v;
        return true;
    }
    size_t i = 0;
    while (i < n && p[i] == ' ')
        i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++)
        v = v << 3 | (uint64_t)(p[i] - '0'); /* at most 12 digits: 36 bits */
    for (; i < n; i++)
        if (p[i] != ' ' && p[i] != '\0')
            return false;
    *out = v;
    return true;
}

/* Old programs summed signed chars; both are taken. */
static bool checksum_right(const uint8_t h[BLOCK])
{
    uint64_t want;
    int64_t plain = 0, with_sign = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        uint8_t c = i >= SUM && i < SUM + SUM_N ? ' ' : h[i];
        plain += c;
        with_sign += (int8_t)c;
    }
    return number(h + SUM, SUM_N, &want) && ((int64_t)want == plain || (int64_t)want == with_sign);
}

/* One record "LEN key=value\n" of a pax header at p[n]; *used is LEN. */
static cp_code pax_record(cp_tar *t, bool global, const char *p, size_t n, size_t *used,
                          cp_err *err)
{
    size_t len = 0, i = 0;
    for (; i < n && i < 8 && p[i] >= '0' && p[i] <= '9'; i++)
        len = 10 * len + (size_t)(p[i] - '0');
    if (i == 0 || i >= n || p[i] != ' ' || len > n || len < i + 3 || p[len - 1] != '\n')
        return cp_fail(err, CP_CORRUPT, "tar: a pax record at %" PRIu64 " has a wrong length",
                       t->at);
    const char *key = p + i + 1, *end = p + len - 1, *eq = memchr(key, '=', (size_t)(end - key));
    if (!eq)
        return cp_fail(err, CP_CORRUPT, "tar: a pax record at %" PRIu64 " has no '='", t->at);
    size_t k = (size_t)(eq - key), v = (size_t)(end - eq) - 1;
    const char *value = eq + 1;
    *used = len;
    if (k >= 11 && memcmp(key, "GNU.sparse.", 11) == 0)
        return cp_fail(err, CP_UNSUPPORTED, "tar: a sparse member, which is not built");
    bool path = k == 4 && memcmp(key, "path", 4) == 0, size = k == 4 && memcmp(key, "size", 4) == 0;
    if ((!path && !size) || v == 0)
        return CP_OK;
    if (global || (path ? t->long_path[0] != '\0' : t->has_size))
        return cp_fail(err, CP_CORRUPT, "tar: pax '%.4s' is given %s", key,
                       global ? "for all members" : "twice");
    if (path) {
        if (v > CP_TAR_PATH_MAX || memchr(value, '\0', v))
            return cp_fail(err, CP_CORRUPT, "tar: a path has %zu bytes or a NUL; the limit is %d",
                           v, CP_TAR_PATH_MAX);
        memcpy(t->long_path, value, v);
        t->long_path[v] = '\0';
        return CP_OK;
    }
    uint64_t bytes = 0;
    for (size_t d = 0; d < v; d++)
        if (value[d] < '0' || value[d] > '9' || __builtin_mul_overflow(bytes, 10u, &bytes) ||
            __builtin_add_overflow(bytes, (uint64_t)(value[d] - '0'), &bytes))
            return cp_fail(err, CP_CORRUPT, "tar: a pax size is no number below 2^64");
    t->long_size = bytes;
    t->has_size = true;
    return CP_OK;
}

/* An extended header of `size` bytes: its contents are kept for the member that follows. */
static cp_code extended(cp_tar *t, char type, uint64_t size, cp_err *err)
{
    if (size > CP_TAR_META_MAX)
        return cp_fail(err, CP_CORRUPT,
                       "tar: an extended header of %" PRIu64 " bytes, the limit is %d", size,
                       CP_TAR_META_MAX);
    uint64_t got;
    unsigned pad = (unsigned)(-size & (BLOCK - 1));
    cp_buf_clear(&t->meta);
    if (!cp_buf_reserve(&t->meta, (size_t)size + 1))
        return cp_fail(err, CP_NO_MEMORY, "tar: no memory for an extended header");
    cp_code code = take(t, t->meta.p, size, &got, err);
    if (!code && got == size)
        code = take(t, NULL, pad, &got, err);
    if (code)
        return code;
    if (got != pad) /* no member can follow */
        return cp_fail(err, CP_CORRUPT, "tar: ends within an extended header at %" PRIu64, t->at);
    if (type == 'K') /* a long link target: nothing follows links */
        return CP_OK;
    if (type == 'L') {
        size_t n = strnlen(t->meta.p, (size_t)size);
        if (n == 0 || n > CP_TAR_PATH_MAX || t->long_path[0])
            return cp_fail(err, CP_CORRUPT,
                           "tar: a long name of %zu bytes, or twice; the limit is %d", n,
                           CP_TAR_PATH_MAX);
        memcpy(t->long_path, t->meta.p, n);
        t->long_path[n] = '\0';
        return CP_OK;
    }
    size_t used = 0;
    for (size_t at = 0; !code && at < size; at += used)
        code = pax_record(t, type == 'g', t->meta.p + at, (size_t)size - at, &used, err);
    return code;
}

/* Prefix and name of a header into t->path. */
static void header_path(cp_tar *t, const uint8_t h[BLOCK])
{
    size_t n = strnlen((const char *)h + NAME, NAME_N), k = 0;
    if (memcmp(h + MAGIC, "ustar\0", 6) == 0) { /* GNU keeps other things there */
        k = strnlen((const char *)h + PREFIX, PREFIX_N);
        memcpy(t->path, h + PREFIX, k);
        if (k)
            t->path[k++] = '/';
    }
    memcpy(t->path + k, h + NAME, n);
    t->path[k + n] = '\0';
}

/* A member's own header. */
static cp_code member(cp_tar *t, const uint8_t h[BLOCK], uint64_t size, cp_tar_member *out,
                      cp_err *err)
{
    char type = (char)h[TYPE];
    if (type == 'S' || type == 'M')
        return cp_fail(err, CP_UNSUPPORTED, "tar: a %s member, which is not built",
                       type == 'S' ? "sparse" : "multi-volume");
    header_path(t, h);
    if (t->long_path[0])
        memcpy(t->path, t->long_path, sizeof(t->path));
    if (t->has_size)
        size = t->long_size;
    t->long_path[0] = '\0';
    t->has_size = false;
    size_t n = strlen(t->path);
    if (n == 0)
        return cp_fail(err, CP_CORRUPT, "tar: a member without a name at %" PRIu64, t->at - BLOCK);
    bool file = type == '0' || type == '\0' || type == '7',
         header_only = type >= '1' && type <= '6';
    if (header_only && size)
        return cp_fail(err, CP_CORRUPT, "tar: member '%.100s' of type '%c' has %" PRIu64 " bytes",
                       t->path, type, size);
    /* v7 has no type for folders */
    bool dir = type == '5' || (file && size == 0 && t->path[n - 1] == '/');
    if (size > t->source.limit - t->at)
        return cp_fail(err, CP_CORRUPT,
                       "tar: member '%.100s' claims %" PRIu64 " bytes, %" PRIu64 " are left",
                       t->path, size, t->source.limit - t->at);
    *out = (cp_tar_member){.path = t->path,
                           .kind = dir    ? CP_TAR_DIR
                                   : file ? CP_TAR_FILE
                                          : CP_TAR_OTHER,
                           .type = type ? type : '0',
                           .offset = t->at,
                           .size = size};
    t->left = size;
    t->pad = (unsigned)(-size & (BLOCK - 1));
    return CP_OK;
}

/* Zeros up to the end of the source, `seen` of them already read. */
static cp_code check_tail(cp_tar *t, uint64_t seen, cp_err *err)
{
    uint8_t chunk[4 * BLOCK];
    for (;;) {
        uint64_t got;
        cp_code code = take(t, chunk, sizeof(chunk), &got, err);
        if (code || got == 0)
            return code;
        seen += got;
        if (!is_zero(chunk, (size_t)got) || seen > CP_TAR_TAIL_MAX)
            return cp_fail(err, CP_CORRUPT, "tar: more than zeros, or than %d bytes, after its end",
                           CP_TAR_TAIL_MAX);
    }
}

/* What is left of the current member. */
static cp_code pass_over(cp_tar *t, bool *end, cp_err *err)
{
    uint64_t got, n = t->left;
    cp_code code = take(t, NULL, n, &got, err);
    if (code)
        return code;
    if (got != n)
        return cp_fail(err, CP_CORRUPT, "tar: ends %" PRIu64 " bytes before '%.100s' does", n - got,
                       t->path);
    t->left = 0;
    n = t->pad;
    t->pad = 0;
    code = take(t, NULL, n, &got, err);
    *end = got < n; /* within the padding: nothing is missing */
    return code;
}

/* See tarmap.h. */
cp_code cp_tar_next(cp_tar *t, cp_tar_member *out, bool *end, cp_err *err)
{
    *end = false;
    cp_code code = pass_over(t, end, err);
    t->long_path[0] = '\0';
    t->has_size = false;
    for (int i = 0; !code && !*end; i++) {
        uint8_t h[BLOCK];
        uint64_t got, size;
        code = take(t, h, BLOCK, &got, err);
        if (code)
            return code;
        if (is_zero(h, (size_t)got)) { /* got 0 included */
            if (i)
                return cp_fail(err, CP_CORRUPT, "tar: an extended header without a member");
            if (got == 0 && t->n == 0)
                return cp_fail(err, CP_CORRUPT, "tar: it is empty");
            *end = true;
            return check_tail(t, got, err);
        }
        if (got < BLOCK || !checksum_right(h) || !number(h + SIZE, SIZE_N, &size))
            return cp_fail(err, CP_CORRUPT, "tar: no header at %" PRIu64, t->at - got);
        if (++t->n > CP_TAR_MEMBERS_MAX || i > MAX_EXTENDED)
            return cp_fail(err, CP_CORRUPT,
                           "tar: more than %d members or %d extended headers of one",
                           CP_TAR_MEMBERS_MAX, MAX_EXTENDED);
        char type = (char)h[TYPE];
        if (type != 'x' && type != 'g' && type != 'L' && type != 'K')
            return member(t, h, size, out, err);
        code = extended(t, type, size, err);
    }
    return code;
}

/* See tarmap.h. */
cp_code cp_tar_data(cp_tar *t, void *p, size_t n, size_t *got, cp_err *err)
{
    uint64_t k, want = n < t->left ? n : t->left;
    cp_code code = take(t, p, want, &k, err);
    *got = (size_t)k;
    t->left -= k;
    if (!code && k < want)
        code = cp_fail(err, CP_CORRUPT, "tar: ends %" PRIu64 " bytes before '%.100s' does", t->left,
                       t->path);
    return code;
}

/* See tarmap.h. */
cp_code cp_tar_plain_path(const char *path, char out[CP_TAR_PATH_MAX + 1], cp_err *err)
{
    size_t n = 0;
    if (path[0] == '/')
        return cp_fail(err, CP_CORRUPT, "tar: path '%.200s' is absolute", path);
    for (const char *p = path; *p;) {
        size_t k = strcspn(p, "/");
        if (k == 2 && p[0] == '.' && p[1] == '.')
            return cp_fail(err, CP_CORRUPT, "tar: path '%.200s' leaves its folder", path);
        if (k && !(k == 1 && p[0] == '.')) {
            if (n)
                out[n++] = '/';
            memcpy(out + n, p, k);
            n += k;
        }
        p += k + (p[k] == '/');
    }
    out[n] = '\0';
    return CP_OK;
}
