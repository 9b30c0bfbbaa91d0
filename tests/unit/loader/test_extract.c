/*
 * Extraction of compressed tars: what is written and what is not, bombs, damaged streams, a killed
 * extraction, two at once, removal.
 */
#include "loader/oci/content/extract.h"
#include "loader/oci/store/record.h"
#include "tests/unit/loader/make_layout.h"
#include "tests/unit/loader/make_tar.h"
#include "tests/unit/loader/suites.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static int file_of(const cp_buf *b)
{
    int fd = memfd_create("layer", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, b->p, b->n) == (ssize_t)b->n);
    return fd;
}

static cp_code found(const cp_mkl *m, bool image, cp_members **ms)
{
    int place;
    return cp_members_extracted(ms, &m->places, HEX, image, &place, NULL);
}

static cp_code extract(const cp_mkl *m, const cp_buf *packed, bool image, cp_err *err)
{
    int fd = file_of(packed);
    cp_code code = cp_extract(&m->places, HEX, fd, packed->n, image, NULL, err);
    close(fd);
    return code;
}

static void refuse(const cp_mkl *m, const cp_buf *packed, cp_code want, const char *text)
{
    cp_err err = {0};
    cp_members *ms;
    cp_code code = extract(m, packed, false, &err);
    if (code != want || !strstr(err.msg, text))
        fail_msg("code %d '%s', wanted %d '%s'", code, err.msg, want, text);
    assert_int_equal(found(m, false, &ms), CP_NOT_FOUND);
}

/* Files in CACHE/extracted/NAME; -1: no such folder. */
static int count(const cp_mkl *m, const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/extracted/%s", m->cache, name);
    DIR *d = opendir(path);
    int n = 0;
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* Files in CACHE/records. */
static int records(const cp_mkl *m)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/records", m->cache);
    DIR *d = opendir(path);
    int n = 0;
    for (const struct dirent *e; d && (e = readdir(d));)
        n += strlen(e->d_name) > 2;
    if (d)
        closedir(d);
    return n;
}

static void model_tar(cp_buf *t, const char *weights)
{
    cp_mk_tar_member(t, "models/", '5', "", 0);
    cp_mk_tar_file(t, "models/a.gguf", weights);
    cp_mk_tar_file(t, "models/chat_template.jinja", "{{ x }}");
    cp_mk_tar_file(t, "models/config.json", "{}");
    cp_mk_tar_file(t, "models/silent", "GGUF by its bytes");
    cp_mk_tar_file(t, "models/other", "GGU");
    cp_mk_tar_file(t, "models/mmproj.gguf", "GGUF projector");
    cp_mk_tar_end(t);
}

static void writes_what_counts(void **state)
{
    cp_mkl *m = *state;
    static const char *const filters[] = {"gzip", "zstd"};
    for (int i = 0; i < 2; i++) {
        cp_buf t = {0}, packed = {0};
        cp_members *ms;
        char digest[CP_DIGEST_STR], text[64] = {0}, name[CP_RECORD_NAME];
        uint8_t want[32], recorded[32];
        int fd;
        uint64_t folders = 0, bytes = 0;
        model_tar(&t, "GGUF weights");
        cp_mk_compress(&packed, &t, filters[i]);
        assert_int_equal(extract(m, &packed, true, NULL), CP_OK);
        assert_int_equal(found(m, true, &ms), CP_OK);
        assert_int_equal(ms->n, 7);
        assert_int_equal(ms->v[0].kind, CP_MEMBER_DIR);
        static const struct {
            const char *path;
            int number;
            bool gguf;
        } rows[] = {{"models/a.gguf", 0, true},
                    {"models/chat_template.jinja", 1, false},
                    {"models/config.json", CP_MEMBER_SKIPPED, false},
                    {"models/silent", 2, true},
                    {"models/other", CP_MEMBER_SKIPPED, false},
                    {"models/mmproj.gguf", CP_MEMBER_SKIPPED, true}};
        for (size_t k = 0; k < 6; k++) {
            assert_string_equal(ms->v[k + 1].path, rows[k].path);
            assert_int_equal(ms->v[k + 1].number, rows[k].number);
            if (rows[k].number >= 0)
                assert_int_equal(ms->v[k + 1].gguf, rows[k].gguf);
        }
        assert_int_equal(count(m, HEX), 4); /* three files and the list */
        cp_sha256_of("GGUF weights", 12, want);
        assert_memory_equal(ms->v[1].digest, want, 32);
        assert_int_equal(ms->v[1].size, 12);
        assert_int_equal(cp_extracted_open(&m->places, 0, HEX, 0, &fd, NULL), CP_OK);
        assert_int_equal(read(fd, text, sizeof(text)), 12);
        assert_string_equal(text, "GGUF weights");
        cp_record_name_extracted(name, HEX, 0);
        assert_true(cp_record_match(&m->places, name, fd, recorded));
        assert_memory_equal(recorded, want, 32);
        cp_digest_format(recorded, digest);
        close(fd);
        assert_int_equal(records(m), 3);
        cp_members_free(ms);
        /* The other reading of the same layer is another extraction. */
        assert_int_equal(found(m, false, &ms), CP_NOT_FOUND);
        assert_int_equal(cp_extract_remove(m->cache, HEX, true, &folders, &bytes, NULL), CP_OK);
        assert_true(folders == 1 && bytes > 12 && count(m, HEX) == 4);
        assert_int_equal(cp_extract_remove(m->cache, NULL, false, &folders, &bytes, NULL), CP_OK);
        assert_true(folders == 2 && count(m, HEX) == -1);
        assert_int_equal(records(m), 0); /* they were of its files */
        cp_buf_fini(&t);
        cp_buf_fini(&packed);
    }
}

/* Names that begin with blanks, or have nothing else, come back from the list as they went in. */
static void blank_names(void **state)
{
    cp_mkl *m = *state;
    static const char *const names[] = {" ", "  a.gguf", " b.txt ", "a.gguf"};
    cp_buf t = {0}, packed = {0};
    cp_members *ms;
    for (size_t i = 0; i < 4; i++)
        cp_mk_tar_file(&t, names[i], i % 2 ? "GGUF weights" : "text");
    cp_mk_compress(&packed, &t, "gzip");
    assert_int_equal(extract(m, &packed, false, NULL), CP_OK);
    assert_int_equal(found(m, false, &ms), CP_OK);
    assert_int_equal(ms->n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(ms->v[i].path, names[i]);
    cp_members_free(ms);
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

/* What is there whole is kept, what is damaged is made again. */
static void again(void **state)
{
    cp_mkl *m = *state;
    cp_buf t = {0}, packed = {0};
    char path[256];
    struct stat before, after;
    cp_members *ms;
    model_tar(&t, "GGUF weights");
    cp_mk_compress(&packed, &t, "zstd");
    assert_int_equal(extract(m, &packed, true, NULL), CP_OK);
    snprintf(path, sizeof(path), "%s/extracted/" HEX "/0", m->cache);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(extract(m, &packed, true, NULL), CP_OK);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    /* A file of another size. */
    assert_int_equal(chmod(path, 0644) | truncate(path, 5), 0);
    assert_int_equal(found(m, true, &ms), CP_NOT_FOUND);
    assert_int_equal(extract(m, &packed, true, NULL), CP_OK);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_size, 12);
    /* Any byte of the list: its digest is over all of it. */
    snprintf(path, sizeof(path), "%s/extracted/" HEX "/list", m->cache);
    assert_int_equal(stat(path, &before), 0);
    for (off_t i = 0; i < before.st_size; i++) {
        int fd = open(path, O_RDWR);
        char c = 0;
        if (fd < 0) {
            assert_int_equal(chmod(path, 0644), 0);
            fd = open(path, O_RDWR);
        }
        assert_int_equal(pread(fd, &c, 1, i), 1);
        c ^= 1;
        assert_int_equal(pwrite(fd, &c, 1, i), 1);
        if (found(m, true, &ms) != CP_NOT_FOUND)
            fail_msg("byte %d of the list does not count", (int)i);
        c ^= 1;
        assert_int_equal(pwrite(fd, &c, 1, i), 1);
        close(fd);
    }
    assert_int_equal(found(m, true, &ms), CP_OK);
    cp_members_free(ms);
    assert_int_equal(truncate(path, before.st_size / 2), 0);
    assert_int_equal(found(m, true, &ms), CP_NOT_FOUND);
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

/* Is what is extracted still what the layer unpacks to? */
static cp_code check(const cp_mkl *m, const cp_buf *packed, cp_err *err)
{
    int fd = file_of(packed);
    cp_code code = cp_extract_check(&m->places, HEX, fd, packed->n, true, NULL, err);
    close(fd);
    return code;
}

/* A list of other members that is whole in itself, in the right layer's folder: only unpacking
 * tells. The folder of another layer under this one's name: its list says so. */
static void whose_list(void **state)
{
    cp_mkl *m = *state;
    static const char other[] = "11" HEX;
    char from[256], to[256];
    cp_buf t = {0}, packed = {0}, t2 = {0}, packed2 = {0};
    cp_members *ms;
    cp_err err = {0};
    model_tar(&t, "GGUF weights");
    cp_mk_compress(&packed, &t, "gzip");
    model_tar(&t2, "GGUF changed");
    cp_mk_compress(&packed2, &t2, "gzip");
    assert_int_equal(check(m, &packed, &err), CP_OK); /* nothing is there */
    assert_int_equal(extract(m, &packed2, true, NULL), CP_OK);
    assert_int_equal(check(m, &packed2, &err), CP_OK);
    assert_int_equal(found(m, true, &ms), CP_OK);
    cp_members_free(ms);
    assert_int_equal(check(m, &packed, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "extracted/" HEX ": is not what the layer unpacks to; remove"));
    snprintf(from, sizeof(from), "%s/extracted/" HEX, m->cache);
    snprintf(to, sizeof(to), "%s/extracted/%.64s", m->cache, other);
    assert_int_equal(rename(from, to), 0);
    int place;
    char hex[65];
    snprintf(hex, sizeof(hex), "%.64s", other);
    assert_int_equal(cp_members_extracted(&ms, &m->places, hex, true, &place, NULL), CP_NOT_FOUND);
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
    cp_buf_fini(&t2);
    cp_buf_fini(&packed2);
}

/* What others can write is as good as absent: a file, the list, the folder, its parents. */
static void whose_files(void **state)
{
    cp_mkl *m = *state;
    static const char *const names[] = {("/" HEX "/0"), ("/" HEX "/list"), ("/" HEX), ""};
    cp_buf t = {0}, packed = {0};
    cp_members *ms;
    model_tar(&t, "GGUF weights");
    cp_mk_compress(&packed, &t, "gzip");
    assert_int_equal(extract(m, &packed, true, NULL), CP_OK);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[320];
        struct stat st;
        snprintf(path, sizeof(path), "%s/extracted%s", m->cache, names[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(chmod(path, (st.st_mode | 020) & 07777), 0);
        assert_int_equal(found(m, true, &ms), CP_NOT_FOUND);
        assert_int_equal(chmod(path, st.st_mode & 07777), 0);
        if (geteuid() == 0) {
            assert_int_equal(chown(path, 4242, 0), 0);
            assert_int_equal(found(m, true, &ms), CP_NOT_FOUND);
            assert_int_equal(chown(path, 0, 0), 0);
        }
        assert_int_equal(found(m, true, &ms), CP_OK);
        cp_members_free(ms);
    }
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

/* Frames and members one after the other, skippable frames between them. */
static void joined_streams(void **state)
{
    cp_mkl *m = *state;
    static const char skippable[] = "\x5a\x2a\x4d\x18\x04\x00\x00\x00note";
    static const char *const filters[] = {"gzip", "zstd"};
    for (int i = 0; i < 2; i++) {
        cp_buf t = {0}, half = {0}, packed = {0};
        uint64_t folders = 0, bytes = 0;
        cp_members *ms;
        model_tar(&t, "GGUF weights");
        if (i)
            cp_buf_add(&packed, skippable, 12);
        cp_buf_add(&half, t.p, 700);
        cp_mk_compress(&packed, &half, filters[i]);
        if (i)
            cp_buf_add(&packed, skippable, 12);
        cp_buf_clear(&half);
        cp_buf_add(&half, t.p + 700, t.n - 700);
        cp_mk_compress(&packed, &half, filters[i]);
        if (i)
            cp_buf_add(&packed, skippable, 12);
        assert_int_equal(extract(m, &packed, true, NULL), CP_OK);
        assert_int_equal(found(m, true, &ms), CP_OK);
        assert_int_equal(ms->n, 7);
        cp_members_free(ms);
        assert_int_equal(cp_extract_remove(m->cache, NULL, false, &folders, &bytes, NULL), CP_OK);
        cp_buf_fini(&t);
        cp_buf_fini(&half);
        cp_buf_fini(&packed);
    }
}

static void damaged_streams(void **state)
{
    cp_mkl *m = *state;
    static const char *const filters[] = {"gzip", "zstd"};
    cp_buf t = {0}, packed = {0}, twice = {0};
    /* A real tar is incompressible enough not to end in one block. */
    char noise[20000];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof(noise); i++) {
        x = x * 1664525 + 1013904223;
        noise[i] = (char)(x >> 24);
    }
    cp_mk_tar_member(&t, "a.gguf", '0', noise, sizeof(noise));
    cp_mk_tar_end(&t);
    for (int i = 0; i < 2; i++) {
        cp_buf_clear(&packed);
        cp_buf_clear(&twice);
        cp_mk_compress(&packed, &t, filters[i]);
        cp_mk_compress(&twice, &packed, filters[1 - i]);
        refuse(m, &twice, CP_CORRUPT, "compressed 2 times over");
        size_t n = packed.n;
        for (size_t cut = n / 7; cut < n - n / 7; cut += n / 7) {
            packed.n = cut;
            refuse(m, &packed, CP_CORRUPT, "cannot be decompressed");
        }
        packed.n = n;
        packed.p[1] ^= 1;
        refuse(m, &packed, CP_CORRUPT, "");
    }
    cp_buf_clear(&packed);
    cp_mk_compress(&packed, &(cp_buf){.p = noise, .n = 600}, "gzip");
    refuse(m, &packed, CP_CORRUPT, "tar: no header at 0");
    refuse(m, &t, CP_CORRUPT, "compressed 0 times over");
    assert_int_equal(count(m, ".tmp-" HEX), -1); /* nothing is left behind */
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
    cp_buf_fini(&twice);
}

static void hostile_members(void **state)
{
    cp_mkl *m = *state;
    static const struct {
        const char *path;
        char type;
        const char *text;
    } rows[] = {
        {"../x", '2', "leaves"},           {"/x", '1', "absolute"},
        {"x\ny", '2', "the character"},    {"x\x7f", '3', "the character"},
        {".", '2', "a file named '.'"},    {"first.gguf", '2', "is in it twice"},
        {"../x.gguf", '0', "leaves"},      {"/x.gguf", '0', "absolute"},
        {"a/../../x.gguf", '0', "leaves"}, {"a\\b", '0', "the character"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_buf t = {0}, packed = {0};
        cp_mk_tar_file(&t, "first.gguf", "GGUF");
        cp_mk_tar_member(&t, rows[i].path, rows[i].type, "", 0);
        cp_mk_compress(&packed, &t, "gzip");
        refuse(m, &packed, CP_CORRUPT, rows[i].text);
        cp_buf_fini(&t);
        cp_buf_fini(&packed);
    }
}

/* 200 MiB of zeros: by the size that the member claims, and, where nothing claims it, by what
 * comes out. */
static void bombs(void **state)
{
    cp_mkl *m = *state;
    const size_t n = (size_t)200 << 20;
    cp_buf t = {0}, packed = {0};
    assert_true(cp_buf_reserve(&t, n + 4096));
    cp_mk_tar_header(&t, "a.gguf", '0', n);
    memset(t.p + t.n, 0, n);
    t.n += n;
    cp_mk_compress(&packed, &t, "zstd");
    refuse(m, &packed, CP_CORRUPT, "claims 209715200 bytes");
    cp_buf_clear(&packed);
    cp_mk_tar_header(&t, "big.json", '0', n); /* skipped, yet it has to be read past */
    memmove(t.p, t.p + t.n - 512, 512);
    t.n -= 512;
    cp_mk_compress(&packed, &t, "zstd");
    refuse(m, &packed, CP_CORRUPT, "unpack to more than");
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

static void no_folder(void **state)
{
    cp_mkl *m = *state;
    cp_buf t = {0}, packed = {0};
    cp_err err = {0};
    model_tar(&t, "GGUF");
    cp_mk_compress(&packed, &t, "gzip");
    int fd = file_of(&packed);
    cp_places none = {.write = -1};
    assert_int_equal(cp_extract(&none, HEX, fd, packed.n, true, NULL, &err), CP_IO);
    assert_non_null(strstr(err.msg, "neither a store of this user's nor"));
    /* A link in the place of ours is not followed. */
    char path[256];
    snprintf(path, sizeof(path), "%s/extracted", m->cache);
    assert_int_equal(rmdir(path) | symlink("/tmp", path), 0);
    assert_int_equal(cp_extract(&m->places, HEX, fd, packed.n, true, NULL, &err), CP_IO);
    unlink(path);
    assert_int_equal(mkdir(path, 0755), 0);
    /* Nor below that, where it counts as absent: it goes, what it leads to stays. So do files. */
    char outside[256], inside[300];
    snprintf(outside, sizeof(outside), "%s/outside", m->cache);
    snprintf(inside, sizeof(inside), "%s/0", outside);
    assert_int_equal(mkdir(outside, 0755) | mknod(inside, S_IFREG | 0644, 0), 0);
    static const char *const names[] = {".tmp-" HEX, HEX};
    for (int i = 0; i < 4; i++) {
        struct stat st;
        uint64_t bytes = 0, folders = 0;
        snprintf(path, sizeof(path), "%s/extracted/%s", m->cache, names[i % 2]);
        assert_int_equal(i < 2 ? symlink(outside, path) : mknod(path, S_IFREG | 0644, 0), 0);
        assert_int_equal(cp_extract(&m->places, HEX, fd, packed.n, true, NULL, &err), CP_OK);
        snprintf(path, sizeof(path), "%s/extracted/" HEX, m->cache);
        assert_true(lstat(path, &st) == 0 && S_ISDIR(st.st_mode));
        assert_int_equal(access(inside, F_OK), 0);
        assert_int_equal(cp_extract_remove(m->cache, NULL, false, &folders, &bytes, NULL), CP_OK);
        assert_int_equal(symlink(outside, path), 0);
        assert_int_equal(cp_extract_remove(m->cache, HEX, false, &folders, &bytes, NULL), CP_OK);
        assert_true(lstat(path, &st) != 0 && access(inside, F_OK) == 0);
    }
    close(fd);
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

/* Whatever lies where an extraction puts its things gives way: a start must not fail by it. */
static void in_the_way(void **state)
{
    cp_mkl *m = *state;
    cp_buf t = {0}, packed = {0};
    cp_members *ms;
    char outside[256], kept[300], path[300];
    static const char *const folders[] = {
        HEX, HEX "/a", HEX "/a/b", ".tmp-" HEX, ".tmp-" HEX "/0", "lock", "lock/a",
    };
    model_tar(&t, "GGUF weights");
    cp_mk_compress(&packed, &t, "gzip");
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        snprintf(path, sizeof(path), "%s/extracted/%s", m->cache, folders[i]);
        assert_int_equal(mkdir(path, 0755), 0);
        snprintf(path, sizeof(path), "%s/extracted/%s/x", m->cache, folders[i]);
        assert_int_equal(mknod(path, S_IFREG | 0644, 0), 0);
    }
    cp_err err = {0};
    if (extract(m, &packed, true, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(found(m, true, &ms), CP_OK);
    cp_members_free(ms);
    assert_int_equal(count(m, HEX), 4);
    assert_int_equal(count(m, ".tmp-" HEX), -1);
    /* One that came later, and a damaged list. */
    snprintf(path, sizeof(path), "%s/extracted/" HEX "/later", m->cache);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(found(m, true, &ms), CP_OK);
    cp_members_free(ms);
    snprintf(path, sizeof(path), "%s/extracted/" HEX "/list", m->cache);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(extract(m, &packed, true, NULL), CP_OK);
    assert_int_equal(count(m, HEX), 4);
    /* A link is not followed: it goes, what it leads to stays. */
    snprintf(outside, sizeof(outside), "%s/outside", m->cache);
    snprintf(kept, sizeof(kept), "%s/kept", outside);
    assert_int_equal(mkdir(outside, 0755) | mknod(kept, S_IFREG | 0644, 0), 0);
    static const char *const links[] = {"lock", HEX "/l", ".tmp-" HEX "/l"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/extracted/.tmp-" HEX, m->cache);
        mkdir(path, 0755);
        snprintf(path, sizeof(path), "%s/extracted/" HEX "/list", m->cache);
        unlink(path);
        snprintf(path, sizeof(path), "%s/extracted/%s", m->cache, links[i]);
        unlink(path);
        assert_int_equal(symlink(outside, path), 0);
        if (extract(m, &packed, true, &err))
            fail_msg("%s: %s", links[i], err.msg);
        assert_int_equal(access(kept, F_OK), 0);
        assert_int_equal(count(m, HEX), 4);
    }
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

/* Dies at the n-th call of its progress function. */
typedef struct killer {
    int at, n;
} killer;

static void kill_self(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    killer *k = arg;
    assert_string_equal(phase, "extracting");
    assert_true(done <= total);
    if (k->n++ == k->at)
        raise(SIGKILL);
}

static void killed(void **state)
{
    cp_mkl *m = *state;
    cp_buf t = {0}, packed = {0};
    const size_t n = (size_t)40 << 20;
    uint8_t *noise = malloc(n);
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        noise[i] = (uint8_t)(x >> 24);
    }
    memcpy(noise, "GGUF", 4);
    assert_true(cp_buf_reserve(&t, n + 8192));
    cp_mk_tar_file(&t, "a.gguf", "GGUF 1");
    cp_mk_tar_member(&t, "b.gguf", '0', noise, n);
    cp_mk_tar_end(&t);
    cp_mk_compress(&packed, &t, "zstd");
    for (int at = 1; at <= 2; at++) {
        cp_members *ms;
        pid_t child = fork();
        if (child == 0) {
            killer k = {.at = at};
            cp_extract_progress p = {.fn = kill_self, .arg = &k, .total = packed.n};
            int fd = file_of(&packed);
            cp_extract(&m->places, HEX, fd, packed.n, false, &p, NULL);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_int_equal(count(m, HEX), -1);
        assert_true(count(m, ".tmp-" HEX) >= 1);
        assert_int_equal(found(m, false, &ms), CP_NOT_FOUND);
    }
    assert_int_equal(extract(m, &packed, false, NULL), CP_OK);
    assert_int_equal(count(m, ".tmp-" HEX), -1);
    assert_int_equal(count(m, HEX), 3);
    free(noise);
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

/* Four processes want the same: one does it, all find it. */
static void together(void **state)
{
    cp_mkl *m = *state;
    cp_buf t = {0}, packed = {0};
    cp_members *ms;
    model_tar(&t, "GGUF weights");
    cp_mk_compress(&packed, &t, "gzip");
    for (int i = 0; i < 4; i++)
        if (fork() == 0)
            _exit(extract(m, &packed, true, NULL) == CP_OK && found(m, true, &ms) == CP_OK ? 0 : 1);
    for (int i = 0; i < 4; i++) {
        int status;
        assert_true(wait(&status) > 0 && status == 0);
    }
    cp_buf_fini(&t);
    cp_buf_fini(&packed);
}

int cp_suite_extract(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, cp_mkl_setup, cp_mkl_teardown)
    const struct CMUnitTest tests[] = {
        TEST(writes_what_counts), TEST(blank_names),     TEST(again),    TEST(joined_streams),
        TEST(damaged_streams),    TEST(hostile_members), TEST(bombs),    TEST(no_folder),
        TEST(in_the_way),         TEST(killed),          TEST(together), TEST(whose_list),
        TEST(whose_files),
    };
    return cmocka_run_group_tests_name("extract", tests, NULL, NULL);
}
