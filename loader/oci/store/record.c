/*
 * Records of verified files, and the hashing that they save. ctime cannot be set by a program, so
 * an edit in place that restores mtime does not match either. A record is one line, "sha256:<64
 * hex> <size> <mtime_ns> <ctime_ns> <inode>\n", for example
 *
 *     sha256:6f1e...9c 270000000 1764478574123456789 1764478574123456789 131077
 *
 * A record is replaced by rename, so that a reader sees the old one or the new one.
 */
#include "loader/oci/store/record.h"
#include "base/io.h"
#include "base/mem.h"
#include "loader/oci/store/fsys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HASH_CHUNK = 1 << 20, RECORD_MAX = 256, LEFT_SECONDS = 60 };

static int64_t ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* See record.h. */
void cp_record_name_blob(char name[CP_RECORD_NAME], const uint8_t digest[32])
{
    char hex[CP_HEX_STR];
    cp_digest_hex(digest, hex);
    cp_snprintf(name, CP_RECORD_NAME, "blobs/sha256/%s", hex);
}

/* See record.h. */
void cp_record_name_extracted(char name[CP_RECORD_NAME], const char *layer_hex, int number)
{
    cp_snprintf(name, CP_RECORD_NAME, "extracted/%s/%d", layer_hex, number);
}

/* See record.h. */
void cp_record_key_extracted(char key[CP_HEX_STR], const char *layer_hex, int number)
{
    char name[CP_RECORD_NAME];
    uint8_t d[32];
    cp_record_name_extracted(name, layer_hex, number);
    cp_sha256_of(name, strlen(name), d);
    cp_digest_hex(d, key);
}

static bool is_temp(const char *name)
{
    return name[0] == '.' && cp_is_hex(name + 1, 64) && name[65] == '.' &&
           cp_is_hex(name + 66, 16) && !name[82];
}

/* See record.h. */
bool cp_record_is_name(const char *name)
{
    return is_temp(name) || (cp_is_hex(name, 64) && !name[64]);
}

/* See record.h. */
void cp_record_temps_sweep(int dir)
{
    cp_fs_list list = cp_fs_list_of(dir);
    struct stat st;
    time_t now = time(NULL);
    for (const char *name; (name = cp_fs_list_next(&list));)
        if (is_temp(name) && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            now - st.st_mtime > LEFT_SECONDS)
            unlinkat(dir, name, 0);
    cp_fs_list_close(&list);
}

/*
 * The record's file name in place i: in a store's own folder a blob's digest. In the user's cache,
 * which serves any number of layouts, the digest of its path; what was extracted lies there once.
 */
static void key_of(const cp_places *p, int i, const char *name, char key[CP_HEX_STR])
{
    static const char blobs[] = "blobs/sha256/";
    char path[2 * CP_DIR_MAX];
    uint8_t d[32];
    bool blob = strncmp(name, blobs, strlen(blobs)) == 0;
    if (blob && p->own[i]) {
        cp_strcopy(key, CP_HEX_STR, name + strlen(blobs));
        return;
    }
    cp_snprintf(path, sizeof(path), "%s%s%s", blob ? p->layout : "", blob ? "/" : "", name);
    cp_sha256_of(path, strlen(path), d);
    cp_digest_hex(d, key);
}

/* The record's text for the state st of a file. */
static size_t record_text(char out[RECORD_MAX], const char *digest, const struct stat *st)
{
    return cp_snprintf(out, RECORD_MAX, "%s %lld %" PRId64 " %" PRId64 " %llu\n", digest,
                       (long long)st->st_size, ns(st->st_mtim), ns(st->st_ctim),
                       (unsigned long long)st->st_ino);
}

/* The digest that the record `key` in folder dir gives the file whose state is st. */
static bool match(int dir, const char *key, const struct stat *st, uint8_t digest[32])
{
    char have[RECORD_MAX], want[RECORD_MAX], text[CP_DIGEST_STR] = {0};
    int rec = cp_places_file(dir, key);
    if (rec < 0)
        return false;
    ssize_t n = cp_io_read(rec, have, sizeof(have) - 1);
    bool ok = n > CP_DIGEST_STR - 1;
    if (ok) {
        /* Compared as text with what we would write now: nothing of the record is interpreted but
         * the digest. */
        have[n] = '\0';
        memcpy(text, have, CP_DIGEST_STR - 1);
        ok = cp_digest_parse(text, digest);
    }
    if (ok) {
        record_text(want, text, st);
        ok = strcmp(have, want) == 0;
    }
    if (ok)
        cp_places_used(rec);
    close(rec);
    return ok;
}

/* See record.h. */
bool cp_record_match(const cp_places *p, const char *name, int fd, uint8_t digest[32])
{
    struct stat st;
    bool ok = false;
    for (int i = 0; p && !ok && i < p->n && fstat(fd, &st) == 0; i++) {
        char key[CP_HEX_STR];
        int dir = cp_places_open(p, i, "records", false);
        key_of(p, i, name, key);
        ok = dir >= 0 && match(dir, key, &st, digest);
        cp_io_close(dir);
    }
    return ok;
}

/* See record.h. */
void cp_record_write(const cp_places *p, const char *name, int fd, const uint8_t digest[32])
{
    char key[CP_HEX_STR], tmp[CP_HEX_STR + 40], text[RECORD_MAX], shown[CP_DIGEST_STR];
    struct stat st;
    uint64_t rnd = 0;
    if (!p || p->write < 0 || fstat(fd, &st) != 0 ||
        getrandom(&rnd, sizeof(rnd), GRND_NONBLOCK) < 0)
        return;
    int dir = cp_places_open(p, p->write, "records", true);
    cp_digest_format(digest, shown);
    size_t n = record_text(text, shown, &st);
    key_of(p, p->write, name, key);
    cp_snprintf(tmp, sizeof(tmp), ".%s.%016" PRIx64, key, rnd);
    int rec =
        dir < 0 ? -1 : openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (rec >= 0) {
        bool ok = cp_io_write(rec, text, n);
        ok = close(rec) == 0 && ok;
        if (!ok || renameat(dir, tmp, dir, key) != 0)
            unlinkat(dir, tmp, 0);
    }
    cp_io_close(dir);
}

/* SHA-256 of the first `size` bytes of fd. pread, not the map: a bad disk is an error code then,
 * not a signal. */
static cp_code hash_fd(const cp_verify *v, int fd, uint64_t size, uint8_t digest[32], cp_err *err)
{
    uint8_t *chunk = malloc(HASH_CHUNK);
    if (!chunk)
        return cp_fail(err, CP_NO_MEMORY, "%s: no memory to hash it", v->what);
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    cp_sha256 *h = cp_sha256_new();
    cp_code code = CP_OK;
    for (uint64_t at = 0; at < size;) {
        uint64_t rest = size - at;
        ssize_t n = cp_io_pread(fd, chunk, rest < HASH_CHUNK ? (size_t)rest : HASH_CHUNK, at);
        if (n <= 0) {
            code = n < 0 ? cp_fail(err, CP_IO, "%s: read at %" PRIu64 ": %s", v->what, at,
                                   strerror(errno))
                         : cp_fail(err, CP_CORRUPT, "%s: ends at %" PRIu64 " of %" PRIu64 " bytes",
                                   v->what, at, size);
            break;
        }
        cp_sha256_add(h, chunk, (size_t)n);
        at += (uint64_t)n;
        if (v->progress)
            v->progress(v->arg, "verifying", at, size);
    }
    cp_sha256_done(h, digest);
    free(chunk);
    return code;
}

static bool same_state(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && ns(a->st_mtim) == ns(b->st_mtim) &&
           ns(a->st_ctim) == ns(b->st_ctim);
}

/* See record.h. */
cp_code cp_verify_file(const cp_verify *v, int fd, uint8_t digest[32], bool *hashed, cp_err *err)
{
    uint8_t recorded[32];
    bool matched = cp_record_match(v->places, v->name, fd, recorded);
    if (hashed)
        *hashed = false;
    if (matched && !v->always && (!v->want || memcmp(recorded, v->want, 32) == 0)) {
        memcpy(digest, recorded, 32);
        return CP_OK;
    }
    struct stat before, after;
    if (fstat(fd, &before) != 0)
        return cp_fail(err, CP_IO, "%s: fstat: %s", v->what, strerror(errno));
    cp_code code = hash_fd(v, fd, (uint64_t)before.st_size, digest, err);
    if (code)
        return code;
    if (hashed)
        *hashed = true;
    if (fstat(fd, &after) != 0 || !same_state(&before, &after))
        return cp_fail(err, CP_CORRUPT, "%s: changed while it was hashed", v->what);
    const uint8_t *want = v->want ? v->want : matched ? recorded : NULL;
    if (want && memcmp(digest, want, 32) != 0) {
        char have_text[CP_DIGEST_STR], want_text[CP_DIGEST_STR];
        cp_digest_format(digest, have_text);
        cp_digest_format(want, want_text);
        return cp_fail(err, CP_CORRUPT, "%s: digest is %s, expected %s", v->what, have_text,
                       want_text);
    }
    if (!matched)
        cp_record_write(v->places, v->name, fd, digest);
    return CP_OK;
}
