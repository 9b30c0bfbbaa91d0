/*
 * Partial blobs: what a killed process, a power cut, another blob's map and a second process leave
 * or find.
 */
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/blobs_dir.h"
#include "loader/oci/store/partial.h"
#include "tests/unit/loader/pull_room.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNITS = 21, SIZE = (UNITS - 1) * CP_UNIT + 777, BOOT_AT = 8, HEADER = 96 };

static cp_partial *take(const cp_room *r, const cp_fake_item *it)
{
    cp_descriptor d = cp_room_descriptor(it);
    cp_partial *p;
    bool busy;
    cp_err err = {0};
    if (cp_partial_open(&p, &r->l, &d, &busy, &err) != CP_OK)
        fail_msg("open: %s", err.msg);
    assert_false(busy);
    return p;
}

static void put(cp_partial *p, const cp_fake_item *it, uint64_t unit)
{
    uint64_t at = unit * CP_UNIT, n = it->n - at < CP_UNIT ? it->n - at : CP_UNIT;
    assert_int_equal(cp_partial_write(p, at, it->p + at, n, NULL), CP_OK);
    assert_int_equal(cp_partial_mark(p, unit, NULL), CP_OK);
}

static const cp_fake_item *make(const cp_room *r)
{
    char digest[CP_DIGEST_STR];
    return cp_fake_blob(r->fake, SIZE, 5, digest);
}

static void map_path(const cp_room *r, const cp_fake_item *it, char out[512])
{
    cp_room_path(r, out, "capstan/partial/%s.map", it->name + strlen("sha256:"));
}

/* Overwrite n bytes of a file at `at`. */
static void poke(const char *path, long at, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, at), n);
    close(fd);
}

static void counts_units(void **state)
{
    const cp_room *r = *state;
    const cp_fake_item *it = make(r);
    cp_partial *p = take(r, it);
    assert_int_equal(cp_partial_units(p), UNITS);
    assert_int_equal(cp_partial_done(p), 0);
    put(p, it, UNITS - 1);
    assert_int_equal(cp_partial_done(p), 777);
    put(p, it, 3);
    put(p, it, 3);
    assert_int_equal(cp_partial_done(p), 777 + CP_UNIT);
    assert_true(cp_partial_has(p, 3) && !cp_partial_has(p, 4));
    for (uint64_t i = 0; i < UNITS; i++)
        put(p, it, i);
    assert_int_equal(cp_partial_done(p), SIZE);
    assert_int_equal(cp_partial_publish(p, &r->places, NULL), CP_OK);
    cp_partial_close(p);
    cp_room_has_blob(r, it);
    assert_int_equal(cp_room_count(r, "capstan/partial"), 0);
}

typedef struct job {
    const cp_room *r;
    const cp_fake_item *it;
    bool sync;
} job;

/* Writes units 0..9, syncs if asked to, writes 10..12 and dies. */
static int half(void *arg)
{
    const job *j = arg;
    cp_partial *p = take(j->r, j->it);
    for (uint64_t i = 0; i < 10; i++)
        put(p, j->it, i);
    if (j->sync && cp_partial_sync(p, NULL) != CP_OK)
        return 1;
    for (uint64_t i = 10; i < 13; i++)
        put(p, j->it, i);
    raise(SIGKILL);
    return 1;
}

static void kill_loses_nothing(void **state)
{
    const cp_room *r = *state;
    job j = {r, make(r), false};
    assert_true(WIFSIGNALED(cp_room_child(half, &j)));
    cp_partial *p = take(r, j.it);
    assert_int_equal(cp_partial_done(p), 13 * CP_UNIT);
    for (uint64_t i = 13; i < UNITS; i++)
        put(p, j.it, i);
    assert_int_equal(cp_partial_publish(p, &r->places, NULL), CP_OK);
    cp_partial_close(p);
    cp_room_has_blob(r, j.it);
}

/* What another user began is begun anew: he could still write it when it is a verified blob. */
static void others_beginnings_are_not_continued(void **state)
{
    const cp_room *r = *state;
    static const char *const suffixes[] = {"", ".map"};
    for (int i = geteuid() == 0 ? 0 : 1; i < 2; i++) { /* only root can give the data away */
        char path[512];
        struct stat st;
        job j = {r, make(r), false};
        assert_true(WIFSIGNALED(cp_room_child(half, &j)));
        cp_room_path(r, path, "capstan/partial/%s%s", j.it->name + 7, suffixes[i]);
        assert_int_equal(chmod(path, 0666), 0);
        if (geteuid() == 0)
            assert_int_equal(chown(path, 4242, 4242), 0);
        cp_partial *p = take(r, j.it);
        assert_int_equal(cp_partial_done(p), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_uid, geteuid());
        cp_partial_remove(p);
    }
}

/* After a reboot the marks of what was not synced are void, and stay so. */
static void power_cut_keeps_what_was_synced(void **state)
{
    const cp_room *r = *state;
    char path[512];
    job j = {r, make(r), true};
    map_path(r, j.it, path);
    assert_true(WIFSIGNALED(cp_room_child(half, &j)));
    poke(path, BOOT_AT, "another-boot", 12);
    for (int i = 0; i < 2; i++) {
        cp_partial *p = take(r, j.it);
        assert_int_equal(cp_partial_done(p), 10 * CP_UNIT);
        assert_true(cp_partial_has(p, 9) && !cp_partial_has(p, 10));
        cp_partial_close(p);
    }
    cp_partial *p = take(r, j.it);
    put(p, j.it, 20);
    cp_partial_close(p);
    p = take(r, j.it);
    assert_true(cp_partial_has(p, 20)); /* the new boot's own marks count */
    cp_partial_remove(p);
    j.sync = false;
    assert_true(WIFSIGNALED(cp_room_child(half, &j)));
    poke(path, BOOT_AT, "another-boot", 12);
    p = take(r, j.it);
    assert_int_equal(cp_partial_done(p), 0);
    cp_partial_close(p);
}

/* A map that is not this file's, or not whole, counts for nothing. */
static void strange_maps_are_dropped(void **state)
{
    const cp_room *r = *state;
    char path[512], data[512], moved[520];
    const cp_fake_item *it = make(r);
    map_path(r, it, path);
    cp_room_path(r, data, "capstan/partial/%s", it->name + strlen("sha256:"));
    for (int i = 0; i < 7; i++) {
        cp_partial *p = take(r, it);
        put(p, it, 0);
        put(p, it, 7);
        cp_partial_close(p);
        p = take(r, it);
        assert_int_equal(cp_partial_done(p), 2 * CP_UNIT);
        cp_partial_close(p);
        switch (i) {
        case 0: /* another form */
            poke(path, 0, "CPMAP9", 6);
            break;
        case 1: /* another digest */
            poke(path, 48, "x", 1);
            break;
        case 2: /* another size */
            poke(path, 80, "\x01", 1);
            break;
        case 3: /* cut short */
            assert_int_equal(truncate(path, HEADER + 1), 0);
            break;
        case 4: /* the data file was replaced */
            snprintf(moved, sizeof(moved), "%s.old", data);
            assert_int_equal(rename(data, moved), 0);
            close(open(data, O_WRONLY | O_CREAT, 0600));
            assert_int_equal(truncate(data, SIZE), 0);
            break;
        case 5: /* the data file was cut */
            assert_int_equal(truncate(data, 5), 0);
            break;
        default: /* the map is a link */
            unlink(path);
            assert_int_equal(symlink("/etc/hostname", path), 0);
        }
        p = take(r, it);
        if (cp_partial_done(p) != 0)
            fail_msg("case %d: %d bytes were believed", i, (int)cp_partial_done(p));
        cp_partial_close(p);
    }
}

static void reset_forgets(void **state)
{
    const cp_room *r = *state;
    const cp_fake_item *it = make(r);
    char path[512];
    cp_partial *p = take(r, it);
    put(p, it, 0);
    assert_int_equal(cp_partial_sync(p, NULL), CP_OK);
    assert_int_equal(cp_partial_reset(p, NULL), CP_OK);
    assert_int_equal(cp_partial_done(p), 0);
    put(p, it, 2);
    cp_partial_close(p);
    p = take(r, it);
    assert_true(!cp_partial_has(p, 0) && cp_partial_has(p, 2));
    cp_partial_close(p);
    map_path(r, it, path);
    poke(path, BOOT_AT, "another-boot", 12);
    p = take(r, it);
    assert_int_equal(cp_partial_done(p), 0); /* its sync is forgotten too */
    cp_partial_close(p);
}

static int try_lock(void *arg)
{
    const job *j = arg;
    cp_descriptor d = cp_room_descriptor(j->it);
    cp_partial *p;
    bool busy;
    if (cp_partial_open(&p, &j->r->l, &d, &busy, NULL) != CP_OK)
        return 3;
    return busy ? 7 : 0;
}

static void one_process_holds_it(void **state)
{
    const cp_room *r = *state;
    job j = {r, make(r), false};
    uint64_t done, allocated, bytes = 0;
    cp_descriptor d = cp_room_descriptor(j.it);
    const char *hex = j.it->name + strlen("sha256:");
    cp_partial *p = take(r, j.it);
    int dir = cp_blobs_partial(&r->l, false);
    put(p, j.it, 0);
    assert_int_equal(WEXITSTATUS(cp_room_child(try_lock, &j)), 7);
    cp_partial_peek(&r->l, &d, &done, &allocated);
    assert_int_equal(done, CP_UNIT);
    assert_true(allocated >= CP_UNIT); /* all of it where the file system reserves */
    assert_false(cp_partial_sweep(dir, hex, false, &bytes));
    assert_true(bytes == 0 && cp_room_count(r, "capstan/partial") == 3);
    cp_partial_close(p);
    assert_int_equal(WEXITSTATUS(cp_room_child(try_lock, &j)), 0);
    assert_true(cp_partial_sweep(dir, hex, true, &bytes));
    assert_true(bytes >= CP_UNIT && cp_room_count(r, "capstan/partial") == 3);
    assert_true(cp_partial_sweep(dir, hex, false, &bytes));
    assert_int_equal(cp_room_count(r, "capstan/partial"), 0);
    assert_false(cp_partial_sweep(-1, hex, false, &bytes));
    close(dir);
}

/* Dies at the named point of publishing. */
static int publish(void *arg)
{
    const job *j = arg;
    cp_partial *p = take(j->r, j->it);
    for (uint64_t i = 0; i < UNITS; i++)
        put(p, j->it, i);
    cp_partial_publish(p, &j->r->places, NULL);
    return 0;
}

static void dies_while_publishing(void **state)
{
    const cp_room *r = *state;
    static const char *const points[] = {"fsync", "rename", "renamed"};
    job j = {r, make(r), false};
    cp_descriptor d = cp_room_descriptor(j.it);
    char fault[32], path[512];
    for (size_t i = 0; i < 3; i++) {
        snprintf(fault, sizeof(fault), "%s:kill", points[i]);
        setenv("CAPSTAN_FAULT", fault, 1);
        int status = cp_room_child(publish, &j);
        unsetenv("CAPSTAN_FAULT");
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_false(cp_blob_recorded(&r->l, &d, &r->places));
        cp_partial *p = take(r, j.it);
        if (i < 2) { /* all is there but the name */
            assert_int_equal(cp_partial_done(p), SIZE);
        } else { /* the name is there, unrecorded */
            assert_int_equal(cp_partial_done(p), 0);
            assert_int_equal(access(cp_room_path(r, path, "blobs/sha256/%s", j.it->name + 7), R_OK),
                             0);
            for (uint64_t k = 0; k < UNITS; k++)
                put(p, j.it, k);
        }
        assert_int_equal(cp_partial_publish(p, &r->places, NULL), CP_OK);
        cp_partial_close(p);
        cp_room_has_blob(r, j.it);
        assert_int_equal(cp_room_count(r, "capstan/partial"), 0);
        unlink(cp_room_path(r, path, "blobs/sha256/%s", j.it->name + 7));
    }
}

/* A verified blob stays, one of unknown worth gives way. */
static void publishes_over_what_is_there(void **state)
{
    const cp_room *r = *state;
    job j = {r, make(r), false};
    char path[512];
    struct stat a, b;
    assert_int_equal(cp_room_child(publish, &j), 0);
    cp_room_path(r, path, "blobs/sha256/%s", j.it->name + 7);
    assert_int_equal(stat(path, &a), 0);
    assert_int_equal(cp_room_child(publish, &j), 0);
    assert_int_equal(stat(path, &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    cp_room_has_blob(r, j.it);
    chmod(path, 0644);
    poke(path, 5, "?????", 5);
    assert_int_equal(cp_room_child(publish, &j), 0);
    cp_room_has_blob(r, j.it);
    assert_int_equal(cp_room_count(r, "capstan/partial"), 0);
}

static void refuses(void **state)
{
    const cp_room *r = *state;
    const cp_fake_item *it = make(r);
    cp_descriptor d = cp_room_descriptor(it);
    cp_partial *p;
    bool busy;
    cp_err err = {0};
    char path[512];
    d.size = CP_BLOB_MAX + 1;
    assert_int_equal(cp_partial_open(&p, &r->l, &d, &busy, &err), CP_CORRUPT);
    assert_non_null(strstr(err.msg, "the limit is"));
    d.size = CP_BLOB_MAX; /* more than any disk here has */
    assert_int_equal(cp_partial_open(&p, &r->l, &d, &busy, &err), CP_IO);
    d.size = SIZE;
    cp_room_path(r, path, "capstan/partial/%s", it->name + 7);
    unlink(path);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    assert_int_equal(cp_partial_open(&p, &r->l, &d, &busy, &err), CP_IO);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(cp_partial_open(&p, &r->l, &d, &busy, &err), CP_CORRUPT);
}

int cp_suite_partial(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, cp_room_setup, cp_room_teardown)
    const struct CMUnitTest tests[] = {
        T(counts_units),
        T(kill_loses_nothing),
        T(others_beginnings_are_not_continued),
        T(power_cut_keeps_what_was_synced),
        T(strange_maps_are_dropped),
        T(reset_forgets),
        T(one_process_holds_it),
        T(dies_while_publishing),
        T(publishes_over_what_is_there),
        T(refuses),
    };
#undef T
    return cmocka_run_group_tests_name("partial", tests, NULL, NULL);
}
