/*
 * panels: packed copies of weights, kept in memory or in an on-disk cache that all processes map.
 *
 * The file's whole layout (sizes, offsets, order) is computed from the model's own linears and the
 * header and entries must equal it byte by byte, so nothing in a cache file is ever used as a size
 * or an offset; checksums catch what is torn or rotten. A file that does not fit is written anew
 * beside it and renamed over it, so a reader sees the old file or the new one. Kernels are safe on
 * any panel bytes. Without a directory, or when it cannot be written, panels live in memory.
 */
#include "kernels/cpu/linear.h"

#include "kernels/cpu/linear_row.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC          "CPPANELS"
#define LAYOUT_VERSION 1u
#define KEY_BYTES      192
#define NAME_BYTES     64
#define DATA_ALIGN     4096u
#define RUN            32 /* panels that are packed, or summed, as one piece of work */
#define MAX_SEGMENTS   64

typedef struct file_head {
    char magic[8];
    uint32_t layout, n_entries;
    uint64_t bytes;     /* of the file */
    uint64_t table_sum; /* over the entries */
    char key[KEY_BYTES];
} file_head;

typedef struct file_entry {
    uint64_t offset, bytes;
    uint64_t sum; /* of the panels: see sum_run */
    int64_t k, m;
    uint32_t kind, type;
    char name[NAME_BYTES]; /* of the tensor, cut */
} file_entry;

/* One mapping: a cache file, or anonymous memory. */
typedef struct segment {
    uint8_t *base;
    size_t bytes;
} segment;

struct cp_panels {
    char *dir, *key; /* NULL: memory only */
    segment segments[MAX_SEGMENTS];
    int n_segments;
};

/* A data sum that workers add to. */
typedef struct data_sum {
    _Atomic uint64_t v;
} data_sum;

/* One cp_panels_pack in progress. */
typedef struct job {
    const cp_linear_weight **weights; /* [n] one for each distinct tensor */
    file_entry *entries;              /* [n] */
    int64_t *run0;                    /* [n + 1] number of the first run of each */
    data_sum *sums;                   /* [n] */
    int n;
    size_t head_bytes, bytes;
    uint8_t *base;
    bool pack; /* false: only sum */
    _Atomic int64_t next;
} job;

/* ---- open, close ---- */

cp_code cp_panels_open(cp_panels **out, const char *dir, const char *key, cp_isa isa, cp_err *err)
{
    (void)isa; /* one layout for every level */
    (void)err;
    cp_panels *p = cp_xcalloc(1, sizeof *p);
    if (dir && *dir && key && *key && strlen(key) < KEY_BYTES) {
        p->dir = cp_xstrdup(dir);
        p->key = cp_xstrdup(key);
    }
    *out = p;
    return CP_OK;
}

void cp_panels_close(cp_panels *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_segments; i++)
        munmap(p->segments[i].base, p->segments[i].bytes);
    free(p->dir);
    free(p->key);
    free(p);
}

size_t cp_panels_bytes(const cp_panels *p)
{
    size_t n = 0;
    for (int i = 0; i < p->n_segments; i++)
        n += p->segments[i].bytes;
    return n;
}

/* ---- checksums ---- */

/* Eight multiply-xor lanes, so that memory is the limit; n is a multiple of 64. */
static uint64_t sum_bytes(const uint8_t *p, size_t n, uint64_t seed)
{
    const uint64_t prime = 0x9e3779b97f4a7c15u;
    uint64_t h[8], w, all = seed;
    for (unsigned i = 0; i < 8; i++)
        h[i] = (seed + i + 1) * prime;
    for (size_t at = 0; at < n; at += 64)
        for (size_t i = 0; i < 8; i++) {
            memcpy(&w, p + at + 8 * i, sizeof w);
            h[i] = (h[i] ^ w) * prime;
            h[i] ^= h[i] >> 29;
        }
    for (int i = 0; i < 8; i++)
        all = (all ^ h[i]) * prime + (all >> 31);
    return all ^ all >> 32;
}

static uint64_t sum_entries(const file_entry *e, int n)
{
    uint64_t sum = 0;
    _Static_assert(sizeof(file_entry) % 8 == 0 && sizeof(file_head) % 8 == 0, "no padding");
    for (int i = 0; i < n; i++) {
        uint8_t block[(sizeof *e + 63) / 64 * 64] = {0};
        memcpy(block, &e[i], sizeof *e);
        sum += sum_bytes(block, sizeof block, (uint64_t)i);
    }
    return sum;
}

/* ---- the job: which tensors, where in the file ---- */

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static bool same_weight(const cp_linear_weight *a, const cp_linear_weight *b)
{
    return a->t->data == b->t->data && a->t->type == b->t->type && a->m == b->m &&
           a->t->ne[0] == b->t->ne[0];
}

static int find(const job *j, const cp_linear_weight *w)
{
    for (int i = 0; i < j->n; i++)
        if (same_weight(j->weights[i], w))
            return i;
    return -1;
}

static cp_code job_init(job *j, cp_linear *const *linears, int n, cp_err *err)
{
    size_t most = (size_t)n * CP_LINEAR_WEIGHTS;
    memset(j, 0, sizeof *j);
    j->weights = cp_xcalloc(most, sizeof *j->weights);
    j->entries = cp_xcalloc(most, sizeof *j->entries);
    j->sums = cp_xcalloc(most, sizeof *j->sums);
    j->run0 = cp_xcalloc(most + 1, sizeof *j->run0);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < linears[i]->n_w; k++)
            if (find(j, &linears[i]->w[k]) < 0)
                j->weights[j->n++] = &linears[i]->w[k];
    j->head_bytes = up(sizeof(file_head) + (size_t)j->n * sizeof(file_entry), DATA_ALIGN);
    size_t at = j->head_bytes;
    for (int i = 0; i < j->n; i++) {
        const cp_linear_weight *w = j->weights[i];
        file_entry *e = &j->entries[i];
        size_t bytes;
        if (!cp_mul((size_t)w->panels, w->panel_bytes, &bytes) || bytes > SIZE_MAX / 4 ||
            at > SIZE_MAX / 4)
            return cp_fail(err, CP_NO_MEMORY, "%s: panels overflow", w->t->name);
        e->offset = at;
        e->bytes = bytes;
        e->k = w->t->ne[0];
        e->m = w->m;
        e->kind = (uint32_t)w->kind;
        e->type = (uint32_t)w->t->type;
        cp_strcopy(e->name, sizeof e->name, w->t->name ? w->t->name : "");
        at = up(at + bytes, DATA_ALIGN);
        j->run0[i + 1] = j->run0[i] + (w->panels + RUN - 1) / RUN;
    }
    j->bytes = at;
    return CP_OK;
}

static void job_fini(job *j)
{
    free(j->weights);
    free(j->entries);
    free(j->sums);
    free(j->run0);
}

/* Packs and sums, or only sums, one run of panels. */
static void do_run(job *j, int i, int64_t run)
{
    const cp_linear_weight *w = j->weights[i];
    int64_t p0 = run * RUN, p1 = p0 + RUN < w->panels ? p0 + RUN : w->panels;
    uint8_t *at = j->base + j->entries[i].offset + (size_t)p0 * w->panel_bytes;
    for (int64_t p = p0; j->pack && p < p1; p++) {
        int64_t left = w->m - p * CP_LANES;
        w->unpack(w->t, p * CP_LANES, left < CP_LANES ? (int)left : CP_LANES,
                  at + (size_t)(p - p0) * w->panel_bytes);
    }
    atomic_fetch_add_explicit(&j->sums[i].v,
                              sum_bytes(at, (size_t)(p1 - p0) * w->panel_bytes, (uint64_t)p0),
                              memory_order_relaxed); /* the pool's end orders it */
}

static void worker(cp_pool *pool, int id, void *arg)
{
    job *j = arg;
    int i = 0;
    (void)pool;
    (void)id;
    for (;;) {
        int64_t t = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (t >= j->run0[j->n])
            return;
        while (t >= j->run0[i + 1])
            i++;
        do_run(j, i, t - j->run0[i]);
    }
}

static void run_all(job *j, cp_pool *pool, uint8_t *base, bool pack)
{
    j->base = base;
    j->pack = pack;
    atomic_store(&j->next, 0);
    for (int i = 0; i < j->n; i++)
        atomic_store(&j->sums[i].v, 0);
    if (pool)
        cp_pool_run(pool, worker, j);
    else
        worker(NULL, 0, j);
}

/* ---- the cache file ---- */

static char *cache_path(const cp_panels *p)
{
    cp_buf b = {0};
    cp_buf_printf(&b, "%s/", p->dir);
    for (const char *c = p->key; *c && b.n < strlen(p->dir) + 100; c++) {
        bool plain = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') ||
                     (*c >= 'A' && *c <= 'Z') || *c == '_';
        cp_buf_addc(&b, plain ? *c : '-');
    }
    cp_buf_printf(&b, "-%d.panels", p->n_segments);
    char *path = b.failed ? NULL : cp_xstrdup(b.p);
    cp_buf_fini(&b);
    return path;
}

static file_head make_head(const cp_panels *p, const job *j)
{
    file_head h = {.layout = LAYOUT_VERSION, .n_entries = (uint32_t)j->n, .bytes = j->bytes};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    cp_strcopy(h.key, sizeof h.key, p->key);
    h.table_sum = sum_entries(j->entries, j->n);
    return h;
}

/* The mapped file is what this model would write: everything but the data sums, then those. */
static bool file_fits(const cp_panels *p, job *j, uint8_t *base, cp_pool *pool)
{
    const file_entry *got = (const file_entry *)(const void *)(base + sizeof(file_head));
    file_entry *want = cp_xcalloc((size_t)j->n + 1, sizeof *want);
    memcpy(want, j->entries, (size_t)j->n * sizeof *want);
    for (int i = 0; i < j->n; i++)
        j->entries[i].sum = got[i].sum;
    file_head h = make_head(p, j);
    bool fits =
        memcmp(got, j->entries, (size_t)j->n * sizeof *got) == 0 && memcmp(base, &h, sizeof h) == 0;
    if (fits) {
        run_all(j, pool, base, false);
        for (int i = 0; i < j->n; i++)
            fits = fits && atomic_load(&j->sums[i].v) == got[i].sum;
    }
    if (!fits)
        memcpy(j->entries, want, (size_t)j->n * sizeof *want);
    free(want);
    return fits;
}

/* Maps an existing cache file if it is ours, as long as expected, and sound. */
static uint8_t *map_existing(const cp_panels *p, const char *path, job *j, cp_pool *pool)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    uint8_t *base = MAP_FAILED;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_uid == geteuid() || st.st_uid == 0) &&
        !(st.st_mode & (S_IWGRP | S_IWOTH)) && st.st_size == (off_t)j->bytes)
        base = mmap(NULL, j->bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (base == MAP_FAILED)
        return NULL;
    if (file_fits(p, j, base, pool))
        return base;
    munmap(base, j->bytes);
    return NULL;
}

/* A new file beside path with its blocks reserved (a full disk must not become a fault later). */
static uint8_t *map_new(const char *temp, size_t bytes)
{
    int fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return NULL;
    uint8_t *base = MAP_FAILED;
    if (posix_fallocate(fd, 0, (off_t)bytes) == 0)
        base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (base != MAP_FAILED)
        return base;
    unlink(temp);
    return NULL;
}

static void write_head(const cp_panels *p, job *j, uint8_t *base)
{
    for (int i = 0; i < j->n; i++)
        j->entries[i].sum = atomic_load(&j->sums[i].v);
    file_head h = make_head(p, j);
    memcpy(base, &h, sizeof h);
    memcpy(base + sizeof h, j->entries, (size_t)j->n * sizeof *j->entries);
}

/* Packed panels in a fresh cache file; NULL when that is not possible. */
static uint8_t *pack_to_file(const cp_panels *p, const char *path, job *j, cp_pool *pool)
{
    cp_buf temp = {0};
    if (mkdir(p->dir, 0700) != 0 && errno != EEXIST)
        return NULL;
    cp_buf_printf(&temp, "%s.%ld.tmp", path, (long)getpid());
    if (temp.failed)
        return NULL;
    uint8_t *base = map_new(temp.p, j->bytes);
    if (base) {
        run_all(j, pool, base, true);
        write_head(p, j, base);
        if (rename(temp.p, path) != 0) {
            cp_log(CP_LOG_WARN, "panels: cannot rename %s: %s", temp.p, strerror(errno));
            unlink(temp.p); /* the mapping stays good for this process */
        }
        mprotect(base, j->bytes, PROT_READ);
    }
    cp_buf_fini(&temp);
    return base;
}

static uint8_t *pack_to_memory(job *j, cp_pool *pool)
{
    uint8_t *base =
        mmap(NULL, j->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    madvise(base, j->bytes, MADV_HUGEPAGE);
    run_all(j, pool, base, true);
    mprotect(base, j->bytes, PROT_READ);
    return base;
}

cp_code cp_panels_pack(cp_panels *p, cp_linear *const *linears, int n, cp_pool *pool, cp_err *err)
{
    job j;
    if (p->n_segments == MAX_SEGMENTS)
        return cp_fail(err, CP_NO_MEMORY, "more than %d packings of one model", MAX_SEGMENTS);
    cp_code code = job_init(&j, linears, n, err);
    uint8_t *base = NULL;
    if (code == CP_OK && p->dir) {
        char *path = cache_path(p);
        base = path ? map_existing(p, path, &j, pool) : NULL;
        if (!base && path)
            base = pack_to_file(p, path, &j, pool);
        free(path);
    }
    if (code == CP_OK && !base)
        base = pack_to_memory(&j, pool);
    if (code == CP_OK && !base)
        code = cp_fail(err, CP_NO_MEMORY, "no memory for %zu bytes of packed weights", j.bytes);
    if (code == CP_OK) {
        p->segments[p->n_segments++] = (segment){base, j.bytes};
        for (int i = 0; i < n; i++)
            for (int k = 0; k < linears[i]->n_w; k++) {
                cp_linear_weight *w = &linears[i]->w[k];
                w->packed = base + j.entries[find(&j, w)].offset;
            }
    }
    job_fini(&j);
    return code;
}
