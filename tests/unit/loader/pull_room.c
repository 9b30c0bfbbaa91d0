/*
 * See pull_room.h. Also main of test_loader_pull.
 */
#include "tests/unit/loader/pull_room.h"
#include "base/io.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/folder.h"
#include "loader/oci/store/record.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *walk)
{
    (void)st, (void)flag, (void)walk;
    return remove(path);
}

int cp_room_setup(void **state)
{
    cp_room *r = cp_xcalloc(1, sizeof(*r));
    char cache[128];
    snprintf(r->dir, sizeof(r->dir), "/tmp/capstan-pull-XXXXXX");
    if (!mkdtemp(r->dir))
        return -1;
    snprintf(cache, sizeof(cache), "%s/cache", r->dir);
    snprintf(r->store, sizeof(r->store), "%s/store", r->dir);
    snprintf(r->records, sizeof(r->records), "%s/capstan/records", r->store);
    setenv("XDG_CACHE_HOME", cache, 1);
    unsetenv("CAPSTAN_FAULT");
    if (cp_folder_make(&r->l, r->store, NULL))
        return -1;
    cp_places_of(&r->places, r->store, r->l.dir, true, true);
    r->fake = cp_fake_new();
    cp_ref ref = {.registry = "r.example", .repository = "m"};
    cp_registry_open(&r->registry, &ref, NULL, NULL);
    *state = r;
    return 0;
}

int cp_room_teardown(void **state)
{
    cp_room *r = *state;
    cp_registry_close(r->registry);
    cp_fake_free(r->fake);
    cp_layout_close(&r->l);
    nftw(r->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(r);
    return 0;
}

cp_descriptor cp_room_descriptor(const cp_fake_item *it)
{
    cp_descriptor d = {.sha256 = true, .size = it->n, .media_type = "x"};
    cp_strcopy(d.digest, sizeof(d.digest), it->name);
    assert_true(cp_digest_parse(d.digest, d.raw));
    return d;
}

const char *cp_room_path(const cp_room *r, char out[512], const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(out, 512, "%s/", r->store);
    va_start(ap, fmt);
    vsnprintf(out + n, 512 - (size_t)n, fmt, ap);
    va_end(ap);
    return out;
}

size_t cp_room_count(const cp_room *r, const char *folder)
{
    char path[512];
    DIR *d = opendir(cp_room_path(r, path, "%s", folder));
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d)
        closedir(d);
    return n;
}

void cp_room_has_blob(const cp_room *r, const cp_fake_item *it)
{
    cp_descriptor d = cp_room_descriptor(it);
    char path[512];
    struct stat st;
    cp_buf b = {0};
    cp_room_path(r, path, "blobs/sha256/%s", it->name + strlen("sha256:"));
    if (stat(path, &st) != 0)
        fail_msg("%s is missing", path);
    mode_t mask = umask(022);
    umask(mask);
    assert_int_equal(st.st_mode & 0777, 0666 & ~mask);
    assert_int_equal(st.st_size, it->n);
    assert_int_equal(cp_file_read(path, it->n, &b, NULL), CP_OK);
    assert_true(it->n == 0 || memcmp(b.p, it->p, it->n) == 0);
    cp_buf_fini(&b);
    assert_true(cp_blob_recorded(&r->l, &d, &r->places));
}

int cp_room_child(int (*fn)(void *arg), void *arg)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fn(arg));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

int main(void)
{
    return cp_suite_partial() + cp_suite_transfer() + cp_suite_pull() + cp_suite_whole() > 0;
}
