/*
 * test_panels: files of packed weights. Whatever lies there, and wherever a packing is killed, the
 * outputs stay those of weights unpacked on read, the next packing succeeds and nothing is left.
 */
#include "kernels/cpu/linear.h"
#include "kernels/unpack.h"
#include "tests/kernels/weights.h"

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { K = 512, OUTS = 600, ENTRY = 112, HEAD = 224 };
#define KEY "sha256:abc"

/* A folder, and one LINEAR over three tensors. */
typedef struct room {
    char dir[64];
    cp_tensor w[3];
    cp_weight weights[3];
    cp_program prog;
    cp_op op;
    cp_linear *l;
    float x[K], want[3][OUTS]; /* unpacked on read */
} room;

static void outputs(const room *r, float y[3][OUTS])
{
    float *out[4] = {y[0], y[1], y[2]};
    size_t ld[4] = {OUTS, OUTS, OUTS};
    void *act = cp_alloc_aligned(cp_linear_act_bytes(r->l, 1));
    void *scratch = cp_alloc_aligned(cp_linear_scratch_bytes(r->l));
    cp_gemm_scratch_begin(scratch);
    cp_linear_prep_row(r->l, r->x, 0, 1, act);
    for (int64_t i = 0; i < cp_linear_items(r->l, 1); i++)
        cp_linear_item(r->l, i, 1, act, scratch, out, ld, NULL, 0);
    free(scratch);
    free(act);
}

static void room_init(room *r, uint64_t seed)
{
    static const cp_dtype types[3] = {CP_DTYPE_Q4_K, CP_DTYPE_Q6_K, CP_DTYPE_F32};
    static const int64_t m[3] = {OUTS, 33, 20};
    cp_err err;
    cp_isa isa;
    memset(r, 0, sizeof *r);
    snprintf(r->dir, sizeof r->dir, "/tmp/cp-panels-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    r->op.kind = CP_OP_LINEAR;
    r->op.u.linear.scale = 1.0f;
    r->op.u.linear.n_w = 3;
    for (int i = 0; i < 3; i++) {
        r->w[i] = cp_test_tensor(types[i], K, m[i], seed + (uint64_t)i);
        r->weights[i].t = &r->w[i];
        r->op.u.linear.w[i].w = (cp_wref)i;
        r->op.u.linear.w[i].bias = -1;
    }
    r->prog.weights = r->weights;
    r->prog.n_weights = 3;
    assert_int_equal(cp_isa_detect("", &isa, &err), CP_OK);
    assert_int_equal(cp_linear_open(&r->l, &r->prog, &r->op, isa, 1, &err), CP_OK);
    for (int i = 0; i < K; i++)
        r->x[i] = cp_test_uniform(&seed);
    outputs(r, r->want);
}

/* The files of a folder; the name of the last that does not end in .tmp. */
static int list(const char *dir, char name[256], int *temps)
{
    int n = 0;
    const struct dirent *e;
    DIR *d = opendir(dir);
    assert_non_null(d);
    *temps = 0;
    for (name[0] = '\0'; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (e->d_name[0] == '.')
            continue;
        n++;
        if (len > 4 && strcmp(e->d_name + len - 4, ".tmp") == 0)
            ++*temps;
        else
            snprintf(name, 256, "%s", e->d_name);
    }
    closedir(d);
    return n;
}

/* The one file in dir. */
static void the_file(const char *dir, char path[512])
{
    char name[256];
    int temps;
    assert_int_equal(list(dir, name, &temps), 1);
    assert_int_equal(temps, 0);
    snprintf(path, 512, "%s/%s", dir, name);
}

static void empty(const char *dir)
{
    char name[256], path[512];
    int temps;
    while (list(dir, name, &temps) > temps) {
        snprintf(path, sizeof path, "%s/%s", dir, name);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(temps, 0); /* no temporary file is left */
}

static void room_fini(room *r)
{
    cp_linear_close(r->l);
    for (int i = 0; i < 3; i++)
        cp_test_free(&r->w[i]);
    empty(r->dir);
    assert_int_equal(rmdir(r->dir), 0);
}

/* Does the process map dir's file, by its name? */
static bool mapped(const char *dir)
{
    char line[1024];
    bool found = false;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        found = found || (strstr(line, dir) && strstr(line, ".panels\n"));
    fclose(f);
    return found;
}

static void nothing(void *arg, int i, const uint8_t *panels)
{
    (void)arg;
    (void)i;
    (void)panels;
}

/* Packs, or maps, and checks the bits. True: from or into a file of dir. */
static bool use(room *r, const cp_panels_config *cfg, const char *dir)
{
    cp_panels *p;
    cp_pool *pool;
    cp_err err = {0};
    float y[3][OUTS];
    assert_int_equal(cp_pool_open(&pool, 2, &err), CP_OK);
    cp_panels_open(&p, cfg);
    if (cp_test_pack(r->l, p, pool, &err) != CP_OK)
        fail_msg("%s", err.msg);
    bool file = mapped(dir);
    outputs(r, y);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(y[i], r->want[i], (size_t)r->w[i].ne[1] * sizeof(float));
    assert_int_equal(cp_panels_lost(p, &err), CP_OK);
    cp_panels_close(p);
    cp_pool_close(pool);
    return file;
}

static bool use_own(room *r)
{
    return use(r, &(cp_panels_config){.dir = r->dir, .key = KEY}, r->dir);
}

static ino_t inode(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_ino : 0;
}

static void poke(const char *path, long at, uint8_t flip)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_true(fputc(c ^ flip, f) != EOF);
    fclose(f);
}

/* ---- finding ---- */

static void a_file_is_used_again(void **state)
{
    (void)state;
    room r;
    char path[512], again[512];
    struct stat st;
    room_init(&r, 1);
    mode_t mask = umask(022);
    assert_true(use_own(&r));
    umask(mask);
    the_file(r.dir, path);
    /* key, packing, layout: another release's file has another name */
    assert_non_null(strstr(path, "/sha256-abc-0.v1-"));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_true(use_own(&r));
    the_file(r.dir, again);
    assert_true(inode(again) == st.st_ino);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_mtime > 1000); /* marked as used */
    room_fini(&r);
}

/* Every byte of the header and entries, some of the data, a cut and a grown file, another key that
 * maps to the same name, a writable file, a link: refused, replaced, and the results stay right. */
static void a_hostile_file_is_replaced(void **state)
{
    (void)state;
    room r;
    char path[512];
    struct stat st;
    room_init(&r, 1);
    assert_true(use_own(&r));
    the_file(r.dir, path);
    ino_t was = inode(path);
    assert_int_equal(stat(path, &st), 0);
    long table = HEAD + 3 * ENTRY; /* padding follows */
    for (long at = 0; at < st.st_size; at += at < table ? 13 : 40009) {
        if (at >= table && at < 4096)
            at = 4096;
        int held = open(path, O_RDONLY); /* so that its inode is not given again */
        poke(path, at, 0x41);
        assert_true(use_own(&r));
        assert_true(inode(path) != was); /* replaced, not repaired in place */
        close(held);
        was = inode(path);
        if (at < table) {
            assert_true(use_own(&r));
            assert_true(inode(path) == was);
        }
    }
    off_t sizes[] = {st.st_size - 4096, st.st_size + 4096, 3, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct stat now;
        assert_int_equal(truncate(path, sizes[i]), 0);
        assert_true(use_own(&r));
        assert_int_equal(stat(path, &now), 0);
        assert_true(now.st_size == st.st_size);
    }
    assert_int_equal(chmod(path, 0666), 0);
    assert_true(use_own(&r));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0022, 0);
    was = inode(path);
    int held = open(path, O_RDONLY);
    assert_true(use(&r, &(cp_panels_config){.dir = r.dir, .key = "sha256/abc"}, r.dir));
    assert_true(inode(path) != was);
    close(held);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_true(use_own(&r));
    if (geteuid() == 0) {
        was = inode(path);
        held = open(path, O_RDONLY);
        assert_int_equal(chown(path, 65534, 65534), 0);
        assert_true(use_own(&r));
        assert_true(inode(path) != was);
        close(held);
    }
    room_fini(&r);
}

/* No directory, or one that cannot be made: memory. */
static void nowhere_is_memory(void **state)
{
    (void)state;
    room r;
    room_init(&r, 1);
    assert_false(use(&r, &(cp_panels_config){.dir = "/proc/nowhere/at/all", .key = KEY}, r.dir));
    assert_false(use(&r, &(cp_panels_config){.dir = "", .key = KEY}, r.dir));
    assert_false(use(&r, &(cp_panels_config){.dir = r.dir}, r.dir));
    assert_false(use(&r, NULL, r.dir));
    room_fini(&r);
}

/* Others can put files into the folder: it is neither read nor written. */
static void a_folder_of_many_is_not_used(void **state)
{
    (void)state;
    room r;
    char name[256];
    int temps;
    room_init(&r, 1);
    assert_true(use_own(&r));
    assert_int_equal(chmod(r.dir, 0777), 0);
    assert_false(use_own(&r));
    empty(r.dir);
    assert_false(use_own(&r));
    assert_int_equal(list(r.dir, name, &temps), 0);
    assert_int_equal(chmod(r.dir, 0700), 0);
    room_fini(&r);
}

/* What others packed is read; what is wrong there is packed to one's own. */
static void the_read_only_folder_comes_first(void **state)
{
    (void)state;
    room r;
    char theirs[512], own[64] = "/tmp/cp-panels-XXXXXX", name[256];
    int temps;
    room_init(&r, 1);
    assert_non_null(mkdtemp(own));
    assert_true(use_own(&r));
    the_file(r.dir, theirs);
    cp_panels_config both = {.read_dir = r.dir, .dir = own, .key = KEY};
    assert_true(use(&r, &both, r.dir));
    assert_int_equal(list(own, name, &temps), 0);
    poke(theirs, 5000, 1);
    ino_t was = inode(theirs);
    assert_true(use(&r, &both, own));
    assert_true(inode(theirs) == was);
    assert_int_equal(list(own, name, &temps), 1);
    empty(own);
    assert_int_equal(rmdir(own), 0);
    room_fini(&r);
}

/* Another table in the same folder under the same key: a file each. */
static void two_programs_have_a_file_each(void **state)
{
    (void)state;
    room a, b;
    char name[256];
    int temps;
    room_init(&a, 1);
    room_init(&b, 1);
    cp_linear_close(b.l);
    cp_err err;
    b.op.u.linear.n_w = 2; /* as a release that fuses otherwise */
    memset(b.want[2], 0, sizeof b.want[2]);
    assert_int_equal(cp_linear_open(&b.l, &b.prog, &b.op, CP_ISA_BASE, 1, &err), CP_OK);
    cp_panels *p;
    for (int i = 0; i < 2; i++) {
        assert_true(use_own(&a));
        cp_panels_open(&p, &(cp_panels_config){.dir = a.dir, .key = KEY});
        assert_int_equal(cp_test_pack(b.l, p, NULL, &err), CP_OK);
        cp_panels_close(p);
        assert_int_equal(list(a.dir, name, &temps), 2);
    }
    room_fini(&b);
    room_fini(&a);
}

/* ---- bytes ---- */

static uint64_t digest_of(const char *path)
{
    uint64_t h = 0xcbf29ce484222325u;
    int c;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    while ((c = fgetc(f)) != EOF)
        h = (h ^ (uint64_t)c) * 0x100000001b3u;
    fclose(f);
    return h;
}

/* Panels of 256 KiB, so that what is summed as one is more than what a run of the pool packs. The
 * digest is that of release 0.1.0: files of users stay good. */
static void a_file_has_the_bytes_it_always_had(void **state)
{
    (void)state;
    for (int threads = 0; threads <= 3; threads++) {
        room r;
        char path[512];
        cp_err err = {0};
        cp_pool *pool = NULL;
        cp_panels *p;
        room_init(&r, 1);
        cp_tensor big = cp_test_tensor(CP_DTYPE_F32, 4096, 590, 9);
        const cp_tensor *tensors[] = {&r.w[0], &big, &r.w[1], &r.w[2], &big};
        if (threads)
            assert_int_equal(cp_pool_open(&pool, threads, &err), CP_OK);
        cp_panels_open(&p, &(cp_panels_config){.dir = r.dir, .key = KEY});
        assert_int_equal(cp_panels_pack(p, tensors, 5, pool, nothing, NULL, &err), CP_OK);
        the_file(r.dir, path);
        assert_int_equal(digest_of(path), 0x71002a74afde4f4);
        cp_panels_close(p);
        cp_pool_close(pool);
        cp_test_free(&big);
        room_fini(&r);
    }
}

/* ---- beside steps ---- */

typedef struct loading {
    cp_pool *pool;
    pthread_t packer, engine;
    cp_tensor w;
    const uint8_t *panels;
    uint64_t step_at; /* which run of the pool was the step */
    const char *dir;  /* of the cache; NULL: memory */
    bool cancels;     /* the step gives the packing up */
    _Atomic bool cancel;
} loading;

static void keep_panels(void *arg, int i, const uint8_t *panels)
{
    loading *l = arg;
    assert_int_equal(i, 0);
    l->panels = panels;
}

static void *pack_a_model(void *arg)
{
    loading *l = arg;
    cp_err err = {0};
    cp_panels *p;
    const cp_tensor *tensors[] = {&l->w};
    size_t bytes = cp_panel_bytes(CP_PANEL_F32, l->w.ne[0]);
    uint8_t *want = cp_alloc_aligned(bytes);
    cp_panels_open(&p, NULL);
    assert_int_equal(cp_panels_pack(p, tensors, 1, l->pool, keep_panels, l, &err), CP_OK);
    for (int64_t r = 0; r < l->w.ne[1]; r += CP_LANES) {
        cp_unpack_of(CP_DTYPE_F32)(&l->w, r, CP_LANES, want);
        assert_memory_equal(l->panels + (size_t)(r / CP_LANES) * bytes, want, bytes);
    }
    free(want);
    cp_panels_close(p);
    return NULL;
}

static void step(cp_pool *p, int id, void *arg)
{
    loading *l = arg;
    if (id != 0)
        return;
    l->step_at = cp_pool_turns_now(p).runs;
    atomic_store(&l->cancel, l->cancels);
}

static void *make_a_step(void *arg)
{
    loading *l = arg;
    cp_pool_run(l->pool, step, l);
    return NULL;
}

static void *pack_in_vain(void *arg)
{
    loading *l = arg;
    cp_err err = {0};
    cp_panels *p;
    const cp_tensor *tensors[] = {&l->w};
    cp_panels_open(&p, &(cp_panels_config){.dir = l->dir, .key = KEY, .cancel = &l->cancel});
    assert_int_equal(cp_panels_pack(p, tensors, 1, l->pool, keep_panels, l, &err), CP_CANCELLED);
    assert_null(l->panels);
    assert_int_equal(cp_panels_bytes(p), 0);
    cp_panels_close(p);
    return NULL;
}

static void wait_for_waiters(cp_pool *p, int n)
{
    while (cp_pool_turns_now(p).waiting < n)
        sched_yield();
}

/* Keeps the pool until a packing waits for it, and behind that a step. */
static void hold(cp_pool *p, int id, void *arg)
{
    loading *l = arg;
    if (id != 0)
        return;
    void *(*pack)(void *) = l->cancels ? pack_in_vain : pack_a_model;
    assert_int_equal(pthread_create(&l->packer, NULL, pack, l), 0);
    wait_for_waiters(p, 1);
    assert_int_equal(pthread_create(&l->engine, NULL, make_a_step, l), 0);
    wait_for_waiters(p, 2);
}

/* The runs of the pool are: hold, a slice of the packing, the step, the other slices. */
static void a_step_gets_in_between_two_slices(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        loading l = {.w = cp_test_tensor(CP_DTYPE_F32, 1024, 6400, 1)};
        size_t most = (size_t)threads * (CP_PANELS_SLICE + (256 << 10));
        size_t bytes = cp_panel_bytes(CP_PANEL_F32, 1024) * 400;
        cp_err err;
        assert_int_equal(cp_pool_open(&l.pool, threads, &err), CP_OK);
        cp_pool_run(l.pool, hold, &l);
        pthread_join(l.packer, NULL);
        pthread_join(l.engine, NULL);
        uint64_t slices = cp_pool_turns_now(l.pool).runs - 2;
        assert_int_equal(l.step_at, 3);
        assert_true(slices >= (bytes + most - 1) / most);
        assert_true(slices > 2);
        cp_pool_close(l.pool);
        cp_test_free(&l.w);
    }
}

/* Nothing of it is left, and at most the slice that waits already is made, whether it packs or sums
 * up what is there; at one thread all of it would be four slices at least. */
static void a_packing_that_is_given_up_ends_after_its_slice(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) { /* into memory, into a file, from a file */
        room r;
        cp_err err;
        char name[256];
        int temps;
        room_init(&r, 1);
        loading l = {.w = cp_test_tensor(CP_DTYPE_F32, 1024, 6400, 1), .cancels = true};
        l.dir = how == 0 ? NULL : r.dir;
        if (how == 2) {
            cp_panels *p;
            const cp_tensor *tensors[] = {&l.w};
            cp_panels_open(&p, &(cp_panels_config){.dir = r.dir, .key = KEY});
            assert_int_equal(cp_panels_pack(p, tensors, 1, NULL, nothing, NULL, &err), CP_OK);
            cp_panels_close(p);
        }
        assert_int_equal(cp_pool_open(&l.pool, 1, &err), CP_OK);
        cp_pool_run(l.pool, hold, &l);
        pthread_join(l.packer, NULL);
        pthread_join(l.engine, NULL);
        assert_in_range(cp_pool_turns_now(l.pool).runs, 3, 4); /* hold and step among them */
        assert_int_equal(list(r.dir, name, &temps), how == 2);
        assert_int_equal(temps, 0);
        cp_pool_close(l.pool);
        cp_test_free(&l.w);
        room_fini(&r);
    }
}

/* ---- checking ---- */

static void never_packed(void *arg, int i, const uint8_t *panels)
{
    (void)arg;
    (void)panels;
    fail_msg("tensor %d has panels", i);
}

/* A file with right sums that holds another model's values: trusted, but not where it is compared.
 */
static void values_of_another_model_are_found(void **state)
{
    (void)state;
    room r, other;
    char path[512], name[256];
    cp_panels *p;
    cp_err err = {0};
    int temps;
    room_init(&r, 1);
    room_init(&other, 50);
    cp_panels_config cfg = {.dir = r.dir, .key = KEY, .check = CP_CACHE_CHECK_ONLY};
    cp_panels_open(&p, &cfg); /* nothing there: nothing is packed */
    const cp_tensor *tensors[] = {&r.w[0], &r.w[1], &r.w[2]};
    assert_int_equal(cp_panels_pack(p, tensors, 3, NULL, never_packed, NULL, &err), CP_OK);
    assert_int_equal(cp_panels_bytes(p), 0);
    cp_panels_close(p);
    assert_int_equal(list(r.dir, name, &temps), 0);

    assert_true(use(&other, &(cp_panels_config){.dir = r.dir, .key = KEY}, r.dir));
    the_file(r.dir, path);
    for (int only = 0; only < 2; only++) {
        cfg.check = only ? CP_CACHE_CHECK_ONLY : CP_CACHE_CHECK;
        cp_panels_open(&p, &cfg);
        assert_int_equal(cp_test_pack(r.l, p, NULL, &err), CP_CORRUPT);
        assert_non_null(strstr(err.msg, path));
        assert_non_null(strstr(err.msg, "delete that file"));
        cp_panels_close(p);
    }
    cfg.check = CP_CACHE_CHECK;
    assert_true(use(&other, &cfg, r.dir)); /* its own model */
    assert_int_equal(unlink(path), 0);
    assert_true(use(&r, &cfg, r.dir));
    assert_true(use(&r, &cfg, r.dir));
    poke(path, 4096, 1); /* a flipped bit is a difference too */
    cp_panels_open(&p, &cfg);
    assert_int_equal(cp_test_pack(r.l, p, NULL, &err), CP_CORRUPT);
    cp_panels_close(p);
    room_fini(&other);
    room_fini(&r);
}

/* ---- losing ---- */

static void a_file_that_shrinks_is_an_error(void **state)
{
    (void)state;
    for (int fresh = 0; fresh < 2; fresh++) {
        room r;
        char path[512];
        cp_panels *p;
        cp_err err = {0};
        float y[3][OUTS];
        room_init(&r, 1);
        if (!fresh)
            assert_true(use_own(&r));
        cp_panels_open(&p, &(cp_panels_config){.dir = r.dir, .key = KEY});
        assert_int_equal(cp_test_pack(r.l, p, NULL, &err), CP_OK);
        assert_int_equal(cp_panels_lost(p, &err), CP_OK);
        the_file(r.dir, path);
        assert_int_equal(truncate(path, 4096), 0);
        outputs(&r, y); /* zeroes, not a SIGBUS */
        assert_int_equal(cp_panels_lost(p, &err), CP_MODEL_FAILED);
        assert_non_null(strstr(err.msg, path));
        cp_panels_close(p);
        assert_true(use_own(&r));
        room_fini(&r);
    }
}

/* Its zeroes must not become a file with right sums. */
static void a_model_that_shrinks_is_not_packed(void **state)
{
    (void)state;
    room r;
    char path[] = "/tmp/cp-weights-XXXXXX", name[256];
    int temps, fd = mkstemp(path);
    cp_map map;
    cp_panels *p;
    cp_err err = {0};
    room_init(&r, 1);
    unlink(path);
    size_t n = (size_t)OUTS * cp_tensor_row_bytes(&r.w[0]);
    assert_int_equal(write(fd, r.w[0].data, n), (ssize_t)n);
    assert_int_equal(cp_map_open(&map, fd, n, "weights", &err), CP_OK);
    const void *was = r.w[0].data;
    r.w[0].data = map.p;
    assert_int_equal(ftruncate(fd, 8192), 0);
    for (int memory = 0; memory < 2; memory++) {
        cp_panels_open(&p, &(cp_panels_config){.dir = memory ? NULL : r.dir, .key = KEY});
        assert_int_equal(cp_test_pack(r.l, p, NULL, &err), CP_CORRUPT);
        cp_panels_close(p);
        assert_int_equal(list(r.dir, name, &temps), 0);
    }
    r.w[0].data = was;
    cp_map_close(&map);
    close(fd);
    room_fini(&r);
}

static void no_room_for_the_file_is_memory(void **state)
{
    (void)state;
    room r;
    struct rlimit was, now;
    char name[256];
    int temps;
    room_init(&r, 1);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    now = (struct rlimit){8192, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
    assert_false(use_own(&r)); /* and no SIGXFSZ */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(list(r.dir, name, &temps), 0);
    room_fini(&r);
}

/* ---- dying ---- */

static int pack_in_child(room *r, const char *fault)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        cp_panels *p;
        cp_err err;
        setenv("CAPSTAN_FAULT", fault, 1);
        cp_panels_open(&p, &(cp_panels_config){.dir = r->dir, .key = KEY});
        _exit(cp_test_pack(r->l, p, NULL, &err) == CP_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

/* At every point, with a file system of every kind, over nothing and over a file that is refused.
 */
static void a_kill_anywhere_leaves_nothing(void **state)
{
    (void)state;
    static const char *const kinds[] = {"", "tmpfile:fail,", "tmpfile:fail,flock:fail,"};
    static const struct {
        const char *point;
        int kinds; /* bits */
        bool over; /* only where a file is replaced */
    } points[] = {{"named", 6, false},     {"created", 7, false},   {"reserved", 7, false},
                  {"packing=1", 7, false}, {"packing=2", 7, false}, {"packing=4", 7, false},
                  {"packed", 7, false},    {"unlinked", 1, true},   {"placed", 7, false}};
    room r;
    int kills = 0;
    room_init(&r, 1);
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        for (int kind = 0; kind < 3; kind++)
            for (int over = points[i].over; over < 2; over++) {
                char fault[128], name[256], path[512];
                int temps;
                if (!(points[i].kinds >> kind & 1))
                    continue;
                if (over) {
                    assert_true(use_own(&r));
                    the_file(r.dir, path);
                    poke(path, 5000, 1);
                }
                snprintf(fault, sizeof fault, "%s%s:kill", kinds[kind], points[i].point);
                assert_int_equal(pack_in_child(&r, fault), SIGKILL);
                kills++;
                if (kind == 0 && list(r.dir, name, &temps) > 0)
                    assert_int_equal(temps, 0);
                /* Without locks it goes an hour later. */
                if (kind == 2 && list(r.dir, name, &temps) > 0 && temps) {
                    setenv("CAPSTAN_FAULT", "flock:fail", 1);
                    assert_true(use_own(&r));
                    assert_int_equal(list(r.dir, name, &temps), 2);
                    assert_int_equal(temps, 1);
                    unsetenv("CAPSTAN_FAULT");
                }
                assert_true(use_own(&r));
                the_file(r.dir, path);
                empty(r.dir);
            }
    print_message("%d kills\n", kills);
    room_fini(&r);
}

static void put(const char *dir, const char *name, char path[512])
{
    snprintf(path, 512, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    close(fd);
}

/* A leftover with this process' pid stopped earlier releases; one that is being written stays. */
static void leftovers_of_earlier_releases_go(void **state)
{
    (void)state;
    room r;
    char old[512], busy[512], other[512], pid[64];
    room_init(&r, 1);
    snprintf(pid, sizeof pid, "sha256-abc-0.panels.%ld.tmp", (long)getpid());
    put(r.dir, pid, old);
    put(r.dir, "sha256-abc-0.v1-0.panels.00c0ffee.tmp", busy);
    put(r.dir, "notes.tmp", other);
    int fd = open(busy, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_true(use_own(&r));
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(access(busy, F_OK), 0);
    close(fd);
    assert_true(use_own(&r));
    assert_int_equal(access(busy, F_OK), -1);
    assert_int_equal(unlink(other), 0);
    room_fini(&r);
}

/* Without locks a leftover is known by its age alone. */
static void without_locks_age_decides(void **state)
{
    (void)state;
    room r;
    char old[512], young[512];
    struct timespec long_ago[2] = {{1000, 0}, {1000, 0}};
    room_init(&r, 1);
    put(r.dir, "x.panels.1.tmp", old);
    put(r.dir, "x.panels.2.tmp", young);
    assert_int_equal(utimensat(AT_FDCWD, old, long_ago, 0), 0);
    setenv("CAPSTAN_FAULT", "tmpfile:fail,flock:fail", 1);
    assert_true(use_own(&r));
    unsetenv("CAPSTAN_FAULT");
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(access(young, F_OK), 0);
    assert_true(use_own(&r));
    room_fini(&r);
}

/* Each ends with the right bits, and one file is there. */
static void many_pack_at_once(void **state)
{
    (void)state;
    static const char *const kinds[] = {"x:fail", "tmpfile:fail", "tmpfile:fail,flock:fail"};
    room r;
    char path[512];
    room_init(&r, 1);
    for (int i = 0; i < 24; i++) {
        pid_t pid[4];
        for (int k = 0; k < 4; k++) {
            pid[k] = fork();
            assert_true(pid[k] >= 0);
            if (pid[k] == 0) {
                cp_panels *p;
                cp_err err;
                float y[3][OUTS];
                setenv("CAPSTAN_FAULT", kinds[i % 3], 1);
                cp_panels_open(&p, &(cp_panels_config){.dir = r.dir, .key = KEY});
                if (cp_test_pack(r.l, p, NULL, &err) != CP_OK)
                    _exit(1);
                outputs(&r, y);
                for (int t = 0; t < 3; t++)
                    if (memcmp(y[t], r.want[t], (size_t)r.w[t].ne[1] * sizeof(float)) != 0)
                        _exit(2);
                _exit(0);
            }
        }
        for (int k = 0; k < 4; k++) {
            int status;
            assert_int_equal(waitpid(pid[k], &status, 0), pid[k]);
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0);
        }
        the_file(r.dir, path);
        if (i % 2) /* next over nothing, or over a file that is refused */
            empty(r.dir);
        else
            poke(path, 5000, 1);
    }
    room_fini(&r);
}

/* ---- several matrices in a tensor ---- */

static void keep(void *arg, int i, const uint8_t *panels)
{
    ((const uint8_t **)arg)[i] = panels;
}

/* Panels of t in memory (dir NULL) or in dir's file. */
static const uint8_t *panels_of(cp_panels **p, const char *dir, const cp_tensor *t)
{
    cp_err err = {0};
    const uint8_t *at = NULL;
    cp_panels_open(p, &(cp_panels_config){.dir = dir, .key = KEY});
    assert_int_equal(cp_panels_pack(*p, &t, 1, NULL, keep, &at, &err), CP_OK);
    assert_non_null(at);
    return at;
}

/* Each of the matrices has the panels that it has alone, in memory, in a file, and in that file
 * when it is mapped again; its last panel is its own. */
static void matrices_pack_as_each_alone(void **state)
{
    enum { M = 33, N = 5, PER_MATRIX = 3 };
    (void)state;
    room r;
    room_init(&r, 91);
    cp_tensor all = cp_test_matrices(CP_DTYPE_Q4_K, K, M, N, 92);
    size_t bytes = PER_MATRIX * cp_panel_bytes(cp_panel_kind_of(all.type), K);
    cp_panels *p[3], *one;
    const char *dirs[3] = {NULL, r.dir, r.dir};
    const uint8_t *at[3];
    for (int i = 0; i < 3; i++)
        at[i] = panels_of(&p[i], dirs[i], &all);
    for (int e = 0; e < N; e++) {
        cp_tensor matrix = all;
        matrix.ne[2] = 1;
        matrix.data = (const uint8_t *)all.data + (size_t)(e * M) * cp_tensor_row_bytes(&all);
        const uint8_t *want = panels_of(&one, NULL, &matrix);
        for (int i = 0; i < 3; i++)
            assert_memory_equal(at[i] + (size_t)e * bytes, want, bytes);
        cp_panels_close(one);
    }
    for (int i = 0; i < 3; i++)
        cp_panels_close(p[i]);
    cp_test_free(&all);
    room_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_used_again),
        cmocka_unit_test(a_hostile_file_is_replaced),
        cmocka_unit_test(nowhere_is_memory),
        cmocka_unit_test(a_folder_of_many_is_not_used),
        cmocka_unit_test(the_read_only_folder_comes_first),
        cmocka_unit_test(two_programs_have_a_file_each),
        cmocka_unit_test(a_file_has_the_bytes_it_always_had),
        cmocka_unit_test(a_step_gets_in_between_two_slices),
        cmocka_unit_test(a_packing_that_is_given_up_ends_after_its_slice),
        cmocka_unit_test(values_of_another_model_are_found),
        cmocka_unit_test(a_file_that_shrinks_is_an_error),
        cmocka_unit_test(a_model_that_shrinks_is_not_packed),
        cmocka_unit_test(no_room_for_the_file_is_memory),
        cmocka_unit_test(a_kill_anywhere_leaves_nothing),
        cmocka_unit_test(leftovers_of_earlier_releases_go),
        cmocka_unit_test(without_locks_age_decides),
        cmocka_unit_test(many_pack_at_once),
        cmocka_unit_test(matrices_pack_as_each_alone),
    };
    cp_log_setup(CP_LOG_ERROR, false);
    return cmocka_run_group_tests_name("panels", tests, NULL, NULL);
}
