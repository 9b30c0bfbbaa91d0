/*
 * Records of verified files, and the hashing that they save. The line of a record:
 * "sha256:<64 hex> <size> <mtime_ns> <ctime_ns> <inode>\n". ctime cannot be set by a program, so an
 * edit in place that restores mtime does not match either.
 */
#include "loader/oci/record.h"
#include "base/mem.h"
#include "loader/oci/dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HASH_CHUNK = 1 << 20, RECORD_MAX = 256 };

static int64_t ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* See record.h. */
void cp_record_key_blob(char key[CP_DIGEST_STR], const uint8_t digest[32])
{
    char text[CP_DIGEST_STR];
    cp_digest_format(digest, text);
    cp_strcopy(key, CP_DIGEST_STR, text + strlen("sha256:"));
}

/* See record.h. */
void cp_record_key_extracted(char key[CP_DIGEST_STR], const char *layer_hex, int number)
{
    char name[2 * CP_DIGEST_STR];
    cp_snprintf(name, sizeof(name), "extracted/%s/%d", layer_hex, number);
    cp_record_key_path(key, name);
}

/* See record.h. */
void cp_record_key_path(char key[CP_DIGEST_STR], const char *absolute_path)
{
    uint8_t d[32];
    cp_sha256_of(absolute_path, strlen(absolute_path), d);
    cp_record_key_blob(key, d);
}

/* The record's text for the state st of a file. */
static size_t record_text(char out[RECORD_MAX], const char *digest, const struct stat *st)
{
    return cp_snprintf(out, RECORD_MAX, "%s %lld %" PRId64 " %" PRId64 " %llu\n", digest,
                       (long long)st->st_size, ns(st->st_mtim), ns(st->st_ctim),
                       (unsigned long long)st->st_ino);
}

/* See record.h. */
bool cp_record_match(const char *dir, const char *key, int fd, uint8_t digest[32])
{
    char path[CP_DIR_MAX + CP_DIGEST_STR + 2], have[RECORD_MAX], want[RECORD_MAX];
    struct stat st;
    if (!*dir || fstat(fd, &st) != 0)
        return false;
    cp_snprintf(path, sizeof(path), "%s/%s", dir, key);
    int rec = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (rec < 0)
        return false;
    ssize_t n = read(rec, have, sizeof(have) - 1);
    close(rec);
    if (n <= CP_DIGEST_STR - 1)
        return false;
    have[n] = '\0';
    /* Compared as text with what we would write now: nothing of the record is interpreted but the
     * digest. */
    char text[CP_DIGEST_STR] = {0};
    memcpy(text, have, CP_DIGEST_STR - 1);
    if (!cp_digest_parse(text, digest))
        return false;
    record_text(want, text, &st);
    return strcmp(have, want) == 0;
}

/* See record.h. */
void cp_record_write(const char *dir, const char *key, int fd, const uint8_t digest[32])
{
    char path[CP_DIR_MAX + CP_DIGEST_STR + 2], tmp[CP_DIR_MAX + CP_DIGEST_STR + 40];
    char text[RECORD_MAX], hex[CP_DIGEST_STR];
    struct stat st;
    uint64_t rnd = 0;
    if (!*dir || fstat(fd, &st) != 0 || !cp_dir_make(dir, 0777) ||
        getrandom(&rnd, sizeof(rnd), GRND_NONBLOCK) < 0)
        return;
    cp_digest_format(digest, hex);
    size_t n = record_text(text, hex, &st);
    cp_snprintf(path, sizeof(path), "%s/%s", dir, key);
    cp_snprintf(tmp, sizeof(tmp), "%s/.%s.%016" PRIx64, dir, key, rnd);
    int rec = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (rec < 0)
        return;
    bool ok = write(rec, text, n) == (ssize_t)n;
    ok = close(rec) == 0 && ok;
    if (!ok || rename(tmp, path) != 0)
        unlink(tmp);
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
        ssize_t n = pread(fd, chunk, rest < HASH_CHUNK ? (size_t)rest : HASH_CHUNK, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
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
    bool matched = cp_record_match(v->dir, v->key, fd, recorded);
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
        cp_record_write(v->dir, v->key, fd, digest);
    return CP_OK;
}
