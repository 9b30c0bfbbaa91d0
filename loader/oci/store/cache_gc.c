/*
 * The user's cache: what was derived from layouts that have no folder of ours, or none that may be
 * used. Nobody else looks after it: its layouts come and go. In a store only the panels need this:
 * a release that packs otherwise leaves its files beside the model's for as long as that is there.
 * What was used says so by its mtime (cp_places_used): a record, a file of panels, the folder of an
 * extracted layer (a file there may not be touched, its record compares the ctime). What a process
 * has mapped is locked. Only names that this program gives are looked at: the folder may be the
 * user's own for something else.
 */
#include "loader/oci/store/cache_gc.h"
#include "base/io.h"
#include "loader/oci/content/extract.h"
#include "loader/oci/store/fsys.h"
#include "loader/oci/store/places.h"
#include "loader/oci/store/record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KEEP_SECONDS = 30 * 24 * 3600 };

typedef struct sweep {
    const cp_places *places;
    time_t now;
    bool dry_run;
    cp_gc_result *out;
} sweep;

static bool is_old(const sweep *s, const struct stat *st)
{
    return s->now - st->st_mtime > KEEP_SECONDS;
}

/* A process has it mapped. Where there are no locks, age alone speaks. */
static bool is_locked(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

/* Call f with each entry of folder fd (-1: none), and close it. */
static void each(const sweep *s, int fd, void (*f)(const sweep *s, int dir, const char *name))
{
    cp_fs_list list = cp_fs_list_take(fd);
    for (const char *name; (name = cp_fs_list_next(&list));)
        f(s, list.dir, name);
    cp_fs_list_close(&list);
}

static void sweep_file(const sweep *s, int dir, const char *name)
{
    struct stat st;
    int fd = cp_fs_open(dir, name);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && is_old(s, &st) && !is_locked(fd) &&
        (s->dry_run || unlinkat(dir, name, 0) == 0)) {
        s->out->cached++;
        s->out->bytes += (uint64_t)st.st_size;
    }
    cp_io_close(fd);
}

static void sweep_record(const sweep *s, int dir, const char *name)
{
    if (cp_record_is_name(name))
        sweep_file(s, dir, name);
}

/* A file of panels, or what a packing left. */
static void sweep_panels(const sweep *s, int dir, const char *name)
{
    if (strstr(name, ".panels"))
        sweep_file(s, dir, name);
}

/* The folder of a model's panels. It goes when it is empty and nobody looked into it for as long.
 */
static void sweep_model(const sweep *s, int dir, const char *name)
{
    struct stat st;
    if (!cp_is_hex(name, 64) || name[64])
        return;
    int fd = cp_fs_open_folder(dir, name);
    bool old = fd >= 0 && fstat(fd, &st) == 0 && is_old(s, &st);
    each(s, fd, sweep_panels);
    if (old && !s->dry_run)
        unlinkat(dir, name, AT_REMOVEDIR);
}

/* What was extracted from a layer, or left by an extraction that was killed. */
static void sweep_extracted(const sweep *s, int dir, const char *name)
{
    struct stat st;
    uint64_t folders = 0;
    int fd = cp_fs_open_folder(dir, name);
    bool old = fd >= 0 && fstat(fd, &st) == 0 && is_old(s, &st);
    cp_fs_list list = cp_fs_list_take(fd);
    for (const char *file; old && (file = cp_fs_list_next(&list));) {
        int at = cp_fs_open(list.dir, file);
        old = at < 0 || file[0] == '.' || !is_locked(at);
        cp_io_close(at);
    }
    cp_fs_list_close(&list);
    if (old) {
        cp_extract_remove(s->places->dir[0], name, s->dry_run, &folders, &s->out->bytes, NULL);
        s->out->cached += folders;
    }
}

/* See cache_gc.h. */
void cp_cache_gc_store(const cp_layout *l, bool dry_run, cp_gc_result *out)
{
    cp_places p;
    cp_places_of(&p, l->path, l->dir, true, false);
    sweep s = {.places = &p, .now = time(NULL), .dry_run = dry_run, .out = out};
    if (p.n > 0 && p.own[0])
        each(&s, cp_places_open(&p, 0, "cache", false), sweep_model);
}

/* See cache_gc.h. */
void cp_cache_gc(bool dry_run, cp_gc_result *out)
{
    cp_places p;
    cp_places_of(&p, NULL, -1, false, false);
    sweep s = {.places = &p, .now = time(NULL), .dry_run = dry_run, .out = out};
    each(&s, cp_places_open(&p, 0, "records", false), sweep_record);
    each(&s, cp_places_open(&p, 0, "extracted", false), sweep_extracted);
    each(&s, cp_places_open(&p, 0, "cache", false), sweep_model);
}
