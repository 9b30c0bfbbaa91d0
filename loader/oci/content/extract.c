/*
 * Extraction of compressed tars. libarchive only decompresses (one gzip or zstd filter, zstd's
 * window at most 2^27); what comes out goes through our own tar parser, so that nothing else
 * decides what a member is. A folder is made as .tmp-HEX under the lock, each file fsynced, then
 * its list, then renamed; a killed extraction leaves a .tmp folder that the next one removes.
 */
#include "loader/oci/content/extract.h"
#include "base/io.h"
#include "base/log.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/record.h"
#include "loader/packagings/packaging.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    IN_CHUNK = 256 << 10,
    TELL_EVERY = 16 << 20, /* bytes between two calls of a progress function */
    OUT_CHUNK = 1 << 20,
    NAME_MAX_BYTES = 80,
    LIST_MAX_BYTES = 80 << 20,
};

static const char temp_prefix[] = ".tmp-";

/* ---- folders ---- */

/* Below dir and through no link. Where the kernel or a filter lacks openat2, openat does: every
 * name is one of ours, a single component. */
static int open_beneath(int dir, const char *name, int flags, mode_t mode)
{
    struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
                           .mode = mode,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM) && !strchr(name, '/'))
        fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    return fd;
}

/* See extract.h. */
void cp_extract_each(int root, const char *hex, void (*f)(void *arg, const char *hex, int number),
                     void *arg)
{
    cp_fs_list list = cp_fs_list_take(cp_fs_open_folder(root, hex));
    for (const char *name; (name = cp_fs_list_next(&list));) {
        size_t n = strlen(name);
        if (n < 7 && strspn(name, "0123456789") == n) /* fewer than CP_MEMBERS_MAX */
            f(arg, hex, (int)strtol(name, NULL, 10));
    }
    cp_fs_list_close(&list);
}

static void drop_record(void *arg, const char *hex, int number)
{
    char key[CP_HEX_STR];
    cp_record_key_extracted(key, hex, number);
    unlinkat(*(const int *)arg, key, 0);
}

/* Remove folder `name` of root, whatever is in it, and from `records` (-1: none) those of its
 * files; one in the making (.tmp-HEX) has none. */
static bool remove_layer(int root, int records, const char *name, bool dry_run, uint64_t *bytes)
{
    if (!dry_run && records >= 0)
        cp_extract_each(root, name, drop_record, &records);
    return cp_dir_remove(root, name, dry_run, bytes);
}

/* A folder or a link in the lock's place was never locked by anybody, so it may go. */
static cp_code lock_root(int root, const char *cache_dir, int *lock, cp_err *err)
{
    uint64_t ignored = 0;
    struct stat st;
    *lock = cp_fs_lock_file(root, "lock", true);
    if (*lock < 0 && (errno == EISDIR || errno == ELOOP)) {
        /* Unless another process has just done so. */
        if (fstatat(root, "lock", &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode)) {
            cp_log(CP_LOG_WARN, "%s/extracted/lock: was no file; replaced", cache_dir);
            cp_dir_remove(root, "lock", false, &ignored);
        }
        *lock = cp_fs_lock_file(root, "lock", true);
    }
    if (*lock >= 0 && cp_fs_flock(*lock, LOCK_EX) == CP_FLOCK_FAILED) {
        close(*lock);
        *lock = -1;
    }
    return *lock >= 0 ? CP_OK
                      : cp_fail(err, CP_IO, "%s/extracted/lock: %s", cache_dir, strerror(errno));
}

/* ---- decompression ---- */

typedef struct unpacker {
    struct archive *a;
    int fd;
    uint64_t in, in_size, out, out_max;
    const cp_extract_progress *progress;
    cp_code failed; /* of reading fd */
    int saved_errno;
    uint8_t chunk[IN_CHUNK];
    uint8_t sink[IN_CHUNK]; /* what is passed over */
} unpacker;

static la_ssize_t feed(struct archive *a, void *arg, const void **out)
{
    (void)a;
    unpacker *u = arg;
    uint64_t rest = u->in_size - u->in;
    ssize_t n = cp_io_pread(u->fd, u->chunk, rest < IN_CHUNK ? (size_t)rest : IN_CHUNK, u->in);
    if (n < 0) {
        u->failed = CP_IO;
        u->saved_errno = errno;
        return -1;
    }
    uint64_t before = u->in;
    u->in += (uint64_t)n;
    *out = u->chunk;
    if (u->progress && u->progress->fn && (before / TELL_EVERY != u->in / TELL_EVERY || n == 0))
        u->progress->fn(u->progress->arg, "extracting", u->progress->base + u->in,
                        u->progress->total);
    return n;
}

static cp_code unpack_failed(const unpacker *u, cp_err *err)
{
    if (u->failed)
        return cp_fail(err, CP_IO, "layer: read at %" PRIu64 ": %s", u->in,
                       strerror(u->saved_errno));
    const char *text = archive_error_string(u->a);
    return cp_fail(err, CP_CORRUPT, "layer: cannot be decompressed: %s", text ? text : "no reason");
}

static cp_code unpack_open(unpacker *u, cp_err *err)
{
    struct archive_entry *entry;
    u->a = archive_read_new();
    if (!u->a)
        return cp_fail(err, CP_NO_MEMORY, "no memory for a decompressor");
    if (archive_read_support_filter_gzip(u->a) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(u->a) != ARCHIVE_OK ||
        archive_read_support_format_raw(u->a) != ARCHIVE_OK)
        return cp_fail(err, CP_UNSUPPORTED, "libarchive was built without gzip or zstd");
    if (archive_read_open(u->a, u, NULL, feed, NULL) != ARCHIVE_OK ||
        archive_read_next_header(u->a, &entry) != ARCHIVE_OK)
        return unpack_failed(u, err);
    if (archive_filter_count(u->a) != 2) /* the filter, and what reads the file */
        return cp_fail(err, CP_CORRUPT, "layer: compressed %d times over",
                       archive_filter_count(u->a) - 1);
    return CP_OK;
}

static cp_code unpack_read(void *arg, void *p, size_t n, size_t *got, cp_err *err)
{
    unpacker *u = arg;
    if (!p) {
        p = u->sink;
        n = n < sizeof(u->sink) ? n : sizeof(u->sink);
    }
    la_ssize_t k = archive_read_data(u->a, p, n);
    if (k < 0)
        return unpack_failed(u, err);
    *got = (size_t)k;
    u->out += (uint64_t)k;
    if (u->out > u->out_max)
        return cp_fail(err, CP_CORRUPT,
                       "layer: %" PRIu64 " bytes unpack to more than %" PRIu64
                       " (%d times their size)",
                       u->in_size, u->out_max, CP_EXTRACT_RATIO);
    return CP_OK;
}

/* ---- one layer ---- */

typedef struct extraction {
    const cp_places *places;
    const char *cache_dir, *hex; /* the place's folder, and the layer */
    int root, dir;               /* extracted/, and the folder in the making */
    bool image;
    bool dry; /* only look what would come out: no folder */
    unpacker *u;
    cp_members *members;
    uint8_t *chunk; /* [OUT_CHUNK] */
    int n_files;
} extraction;

static cp_code room_for(const extraction *x, uint64_t size, const char *path, cp_err *err)
{
    struct statvfs v;
    if (size > x->u->out_max)
        return cp_fail(err, CP_CORRUPT,
                       "layer: '%.200s' claims %" PRIu64 " bytes; %" PRIu64
                       " may unpack to %" PRIu64,
                       path, size, x->u->in_size, x->u->out_max);
    if (fstatvfs(x->dir, &v) != 0)
        return CP_OK;
    uint64_t free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    if (free_bytes < CP_EXTRACT_HEADROOM || size > free_bytes - CP_EXTRACT_HEADROOM)
        return cp_fail(err, CP_IO,
                       "%s: no space to extract '%.200s': %" PRIu64 " bytes + %d MiB, %" PRIu64
                       " are free",
                       x->cache_dir, path, size, CP_EXTRACT_HEADROOM >> 20, free_bytes);
    return CP_OK;
}

/* A new file for the next member, with its space. */
static cp_code create_file(const extraction *x, const cp_member *e, int *fd, cp_err *err)
{
    char name[NAME_MAX_BYTES];
    cp_code code = room_for(x, e->size, e->path, err);
    if (code)
        return code;
    cp_snprintf(name, sizeof(name), "%d", x->n_files);
    *fd = open_beneath(x->dir, name, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (*fd < 0)
        return cp_fail(err, CP_IO, "%s/extracted: create: %s", x->cache_dir, strerror(errno));
    if (e->size && fallocate(*fd, 0, 0, (off_t)e->size) != 0 &&
        (errno == ENOSPC || errno == EDQUOT))
        code = cp_fail(err, CP_IO, "%s: no space for %" PRIu64 " bytes", x->cache_dir, e->size);
    return code;
}

/* The current member of t into a new file; its first `n` bytes are in x->chunk already. */
static cp_code write_member(extraction *x, cp_tar *t, cp_member *e, size_t n, cp_err *err)
{
    int fd = -1;
    cp_code code = x->dry ? CP_OK : create_file(x, e, &fd, err);
    cp_sha256 *h = cp_sha256_new();
    while (!code && n > 0) {
        cp_sha256_add(h, x->chunk, n);
        if (!x->dry && !cp_io_write(fd, x->chunk, n))
            code = cp_fail(err, CP_IO, "%s/extracted: write: %s", x->cache_dir, strerror(errno));
        if (!code)
            code = cp_tar_data(t, x->chunk, OUT_CHUNK, &n, err);
    }
    cp_sha256_done(h, e->digest);
    if (!code && !x->dry && !cp_fs_sync(fd))
        code = cp_fail(err, CP_IO, "%s/extracted: fsync: %s", x->cache_dir, strerror(errno));
    cp_io_close(fd);
    e->number = x->n_files++;
    return code;
}

/* Is this member worth a file? What cannot be used is not written. */
static bool wanted(const cp_member *e)
{
    const char *note;
    switch (cp_name_kind_of(e->path, &note)) {
    case CP_NAME_GGUF:
        return true;
    case CP_NAME_TEMPLATE:
        return e->size <= CP_TEMPLATE_MAX_BYTES;
    case CP_NAME_OTHER:
        return e->gguf;
    case CP_NAME_UNBUILT:
    case CP_NAME_DATA:
        break;
    }
    return false;
}

static cp_code extract_members(extraction *x, cp_tar *t, cp_err *err)
{
    bool end = false;
    cp_tar_member from;
    cp_code code = cp_tar_next(t, &from, &end, err);
    for (cp_member *e; !code && !end; code = code ? code : cp_tar_next(t, &from, &end, err)) {
        code = cp_members_add(x->members, x->image, &from, &e, err);
        if (code || !e || e->kind != CP_MEMBER_FILE)
            continue;
        size_t n = 0, k = 1;
        while (!code && k && n < 4) { /* enough for a magic */
            code = cp_tar_data(t, x->chunk + n, OUT_CHUNK - n, &k, err);
            n += code ? 0 : k;
        }
        e->gguf = n >= 4 && memcmp(x->chunk, "GGUF", 4) == 0;
        e->number = CP_MEMBER_SKIPPED;
        if (!code && wanted(e))
            code = write_member(x, t, e, n, err);
    }
    return code ? code : cp_members_check(x->members, err);
}

static cp_code publish(extraction *x, const char *temp, cp_err *err)
{
    cp_buf list = {.max = LIST_MAX_BYTES};
    cp_members_write(x->members, x->hex, x->image, &list);
    int fd = list.failed ? -1 : open_beneath(x->dir, "list", O_WRONLY | O_CREAT | O_EXCL, 0644);
    cp_code code = CP_OK;
    if (fd < 0 || !cp_io_write(fd, list.p, list.n) || !cp_fs_sync(fd) || !cp_fs_sync(x->dir) ||
        renameat(x->root, temp, x->root, x->hex) != 0 || !cp_fs_sync(x->root))
        code = cp_fail(err, CP_IO, "%s/extracted/%s: %s", x->cache_dir, x->hex, strerror(errno));
    cp_io_close(fd);
    cp_buf_fini(&list);
    return code;
}

static void write_records(const extraction *x)
{
    char record[CP_RECORD_NAME], name[NAME_MAX_BYTES];
    for (size_t i = 0; i < x->members->n; i++) {
        const cp_member *e = &x->members->v[i];
        if (e->kind != CP_MEMBER_FILE || e->number < 0)
            continue;
        cp_snprintf(name, sizeof(name), "%d", e->number);
        int fd = open_beneath(x->dir, name, O_RDONLY, 0);
        cp_record_name_extracted(record, x->hex, e->number);
        if (fd >= 0) {
            cp_record_write(x->places, record, fd, e->digest);
            close(fd);
        }
    }
}

/* Unpack fd into x->members, and into files unless dry. */
static cp_code unpack(extraction *x, int fd, uint64_t size, const cp_extract_progress *progress,
                      cp_err *err)
{
    uint64_t out_max;
    if (__builtin_mul_overflow(size, (uint64_t)CP_EXTRACT_RATIO, &out_max) ||
        __builtin_add_overflow(out_max, (uint64_t)CP_EXTRACT_SLACK, &out_max))
        out_max = UINT64_MAX;
    x->u = cp_xcalloc(1, sizeof(*x->u));
    x->u->fd = fd;
    x->u->in_size = size;
    x->u->out_max = out_max;
    x->u->progress = progress;
    x->chunk = cp_xmalloc(OUT_CHUNK);
    x->members = cp_members_new();
    cp_tar t;
    cp_tar_source source = {.read = unpack_read, .arg = x->u, .limit = UINT64_MAX};
    cp_tar_init(&t, &source);
    cp_code code = unpack_open(x->u, err);
    if (!code)
        code = extract_members(x, &t, err);
    cp_tar_fini(&t);
    archive_read_free(x->u->a);
    free(x->chunk);
    free(x->u);
    return code;
}

/* The lock is held and the folder is not there. */
static cp_code extract_locked(extraction *x, int fd, uint64_t size,
                              const cp_extract_progress *progress, cp_err *err)
{
    char temp[NAME_MAX_BYTES];
    uint64_t ignored = 0;
    bool gone;
    int records = cp_places_open(x->places, x->places->write, "records", false);
    cp_snprintf(temp, sizeof(temp), "%s%s", temp_prefix, x->hex);
    /* A killed extraction's, and what is not whole, or of the other kind. */
    gone = remove_layer(x->root, -1, temp, false, &ignored) &&
           remove_layer(x->root, records, x->hex, false, &ignored);
    cp_io_close(records);
    if (!gone)
        return cp_fail(err, CP_IO,
                       "%s/extracted: what is there as %s or %s cannot be replaced: %s; remove it "
                       "by hand",
                       x->cache_dir, x->hex, temp, strerror(errno));
    if (mkdirat(x->root, temp, 0755) != 0 ||
        (x->dir = open_beneath(x->root, temp, O_RDONLY | O_DIRECTORY, 0)) < 0)
        return cp_fail(err, CP_IO, "%s/extracted/%s: %s", x->cache_dir, temp, strerror(errno));
    cp_code code = unpack(x, fd, size, progress, err);
    if (!code)
        code = publish(x, temp, err);
    if (!code)
        write_records(x);
    else
        cp_dir_remove(x->root, temp, false, &ignored);
    cp_members_free(x->members);
    close(x->dir);
    return code;
}

/* See extract.h. */
cp_code cp_extract(const cp_places *places, const char *hex, int fd, uint64_t size, bool image,
                   const cp_extract_progress *progress, cp_err *err)
{
    int lock;
    extraction x = {.places = places, .hex = hex, .image = image, .dir = -1};
    if (places->write < 0)
        return cp_fail(err, CP_IO,
                       "a compressed layer must be extracted, and neither a store of this user's "
                       "nor $XDG_CACHE_HOME/capstan is there for this user alone to write");
    x.cache_dir = places->dir[places->write];
    x.root = cp_places_open(places, places->write, "extracted", true);
    if (x.root < 0)
        return cp_fail(err, CP_IO, "%s/extracted: %s", x.cache_dir, strerror(errno));
    cp_code code = lock_root(x.root, x.cache_dir, &lock, err);
    if (!code) {
        cp_members *have = NULL; /* another process may have been faster */
        int place;
        if (cp_members_extracted(&have, places, hex, image, &place, NULL) != CP_OK)
            code = extract_locked(&x, fd, size, progress, err);
        cp_members_free(have);
        close(lock);
    }
    close(x.root);
    return code;
}

/* ---- what is there ---- */

static int folder_open(const cp_places *places, int place, const char *hex)
{
    char below[NAME_MAX_BYTES];
    cp_snprintf(below, sizeof(below), "extracted/%s", hex);
    return cp_places_open(places, place, below, false);
}

/* The list of folder dir; false: there is none that can be believed. */
static bool read_list(int dir, cp_buf *text)
{
    struct stat st;
    int fd = dir < 0 ? -1 : cp_places_file(dir, "list");
    bool ok = fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size < LIST_MAX_BYTES &&
              cp_buf_reserve(text, (size_t)st.st_size + 1);
    ok = ok && cp_io_read(fd, text->p, (size_t)st.st_size) == st.st_size;
    text->n = ok ? (size_t)st.st_size : 0;
    cp_io_close(fd);
    return ok;
}

/* What folder dir holds of layer hex; text gets its list as it stands. NULL: nothing whole. */
static cp_members *read_folder(int dir, const char *hex, bool image, cp_buf *text)
{
    cp_buf copy = {.max = LIST_MAX_BYTES};
    cp_members *m = cp_members_new();
    bool ok = read_list(dir, text) && cp_buf_add(&copy, text->p, text->n) &&
              cp_members_read(m, hex, image, &copy);
    /* Every file that the list names is there in its size. */
    for (size_t i = 0; ok && i < m->n; i++) {
        char name[NAME_MAX_BYTES];
        struct stat st;
        if (m->v[i].kind != CP_MEMBER_FILE || m->v[i].number < 0)
            continue;
        cp_snprintf(name, sizeof(name), "%d", m->v[i].number);
        int fd = cp_places_file(dir, name);
        ok = fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size == m->v[i].size;
        cp_io_close(fd);
    }
    cp_buf_fini(&copy);
    if (!ok) {
        cp_members_free(m);
        m = NULL;
    }
    return m;
}

/* As cp_members_extracted; text is empty, and gets the list as it stands. */
static cp_members *find_folder(const cp_places *places, const char *hex, bool image, int *place,
                               cp_buf *text)
{
    cp_members *m = NULL;
    for (*place = 0; *place < places->n; ++*place) {
        int dir = folder_open(places, *place, hex);
        m = dir < 0 ? NULL : read_folder(dir, hex, image, text);
        if (m)
            cp_places_used(dir);
        cp_io_close(dir);
        if (m)
            break;
        text->n = 0;
    }
    return m;
}

/* See extract.h. */
cp_code cp_members_extracted(cp_members **out, const cp_places *places, const char *hex, bool image,
                             int *place, cp_err *err)
{
    cp_buf text = {.max = LIST_MAX_BYTES};
    *out = find_folder(places, hex, image, place, &text);
    cp_buf_fini(&text);
    return *out ? CP_OK : cp_fail(err, CP_NOT_FOUND, "layer %s is not extracted", hex);
}

/* See extract.h. */
cp_code cp_extract_look(cp_members **out, int fd, uint64_t size, bool image, cp_err *err)
{
    extraction x = {.image = image, .dry = true, .root = -1, .dir = -1};
    cp_code code = unpack(&x, fd, size, NULL, err);
    if (code)
        cp_members_free(x.members);
    *out = code ? NULL : x.members;
    return code;
}

/* See extract.h. */
cp_code cp_extract_check(const cp_places *places, const char *hex, int fd, uint64_t size,
                         bool image, const cp_extract_progress *progress, cp_err *err)
{
    cp_buf have = {.max = LIST_MAX_BYTES}, want = {.max = LIST_MAX_BYTES};
    extraction x = {.hex = hex, .image = image, .dry = true, .root = -1, .dir = -1};
    int place;
    cp_members *m = find_folder(places, hex, image, &place, &have);
    cp_code code = CP_OK;
    if (m) {
        code = unpack(&x, fd, size, progress, err);
        if (!code)
            cp_members_write(x.members, hex, image, &want);
        if (!code && (have.n != want.n || memcmp(have.p, want.p, have.n) != 0))
            code = cp_fail(err, CP_CORRUPT,
                           "%s/extracted/%s: is not what the layer unpacks to; remove that folder "
                           "to extract it again",
                           places->dir[place], hex);
        cp_members_free(x.members);
    }
    cp_members_free(m);
    cp_buf_fini(&have);
    cp_buf_fini(&want);
    return code;
}

/* See extract.h. */
cp_code cp_extracted_open(const cp_places *places, int place, const char *hex, int number, int *fd,
                          cp_err *err)
{
    char name[NAME_MAX_BYTES];
    int dir = folder_open(places, place, hex);
    cp_snprintf(name, sizeof(name), "%d", number);
    *fd = dir < 0 ? -1 : cp_places_file(dir, name);
    int saved = errno;
    cp_io_close(dir);
    return *fd >= 0 ? CP_OK
                    : cp_fail(err, CP_NOT_FOUND, "extracted/%s/%s: %s", hex, name, strerror(saved));
}

/* A folder of ours, finished or not? */
static bool is_layer(const char *name)
{
    if (strncmp(name, temp_prefix, strlen(temp_prefix)) == 0)
        name += strlen(temp_prefix);
    return cp_is_hex(name, 64) && !name[64];
}

/* See extract.h. */
cp_code cp_extract_remove(const char *cache_dir, const char *hex, bool dry_run, uint64_t *folders,
                          uint64_t *bytes, cp_err *err)
{
    int lock = -1, own = open(cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW),
        root = cp_fs_open_folder(own, "extracted"), records = cp_fs_open_folder(own, "records");
    cp_io_close(own);
    if (root < 0) {
        cp_io_close(records);
        return CP_OK;
    }
    cp_code code = dry_run ? CP_OK : lock_root(root, cache_dir, &lock, err);
    cp_fs_list list = cp_fs_list_of(code ? -1 : root);
    for (const char *name; (name = cp_fs_list_next(&list));)
        if (is_layer(name) && (!hex || strcmp(name, hex) == 0) &&
            remove_layer(root, records, name, dry_run, bytes))
            ++*folders;
    cp_fs_list_close(&list);
    cp_io_close(lock);
    cp_io_close(records);
    close(root);
    return code;
}
