/*
 * panels: packed copies of weights, kept in memory or in an on-disk cache that all processes map.
 *
 * The file's whole layout (sizes, offsets, order) is computed from the model's own tensors and the
 * header and entries must equal it byte by byte, so nothing in a cache file is ever used as a size
 * or an offset; checksums catch what is torn, rotten or never reached the disk. Its name holds the
 * layout's version and a sum of the table, so that releases which pack differently have a file
 * each. A file that does not fit is replaced by a new one, so a reader sees a whole file or none.
 * It is written with write(2), so that a full disk is an error, and read through a guarded mapping
 * (base/map.h), so that one that shrinks ends this model, not the process. Kernels are safe on any
 * panel bytes. Without a directory, or when it cannot be written, panels live in memory.
 */
#include "kernels/panels.h"

#include "kernels/panel_file.h"
#include "kernels/unpack.h"

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
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
#define STRIP          32                  /* panels that have one sum; what a lane works on */
#define PIECE_BYTES    ((size_t)256 << 10) /* of a strip at a time, so that they stay in L2 */
#define HUGE_PAGE      ((size_t)2 << 20)
#define MAX_MAPPINGS   64

typedef struct file_head {
    char magic[8];
    uint32_t layout, n_entries;
    uint64_t bytes;     /* of the file */
    uint64_t table_sum; /* over the entries */
    char key[KEY_BYTES];
} file_head;

typedef struct file_entry {
    uint64_t offset, bytes;
    uint64_t sum; /* of the panels: see end_strip() */
    int64_t k, m;
    uint32_t kind, type;
    char name[NAME_BYTES]; /* of the tensor, cut */
} file_entry;

/* One mapping: a cache file, or anonymous memory (path NULL). */
typedef struct mapping {
    const uint8_t *base;
    size_t bytes;
    char *path;
    int fd; /* holds the file's lock; -1 */
    cp_map map;
} mapping;

struct cp_panels {
    cp_panels_config cfg; /* its strings are ours */
    mapping mappings[MAX_MAPPINGS];
    int n_mappings;
};

typedef enum work_kind {
    TO_MEMORY, /* pack into base */
    TO_FILE,   /* pack into scratch, write it */
    SUM,       /* of base */
    COMPARE    /* pack into scratch, compare it with base */
} work_kind;

/* Bytes of panels that one run of the pool takes a lane on by; see panels.h. Reading is faster. */
static const size_t slice_bytes[] = {[TO_MEMORY] = CP_PANELS_SLICE,
                                     [TO_FILE] = CP_PANELS_SLICE,
                                     [SUM] = 4 * CP_PANELS_SLICE,
                                     [COMPARE] = CP_PANELS_SLICE};

/* Of one tensor, what workers add to. */
typedef struct tally {
    _Atomic uint64_t sum;
    _Atomic bool differs;
} tally;

/* A tensor and what it packs to. */
typedef struct source {
    const cp_tensor *t;
    cp_unpack_fn *unpack;
    int64_t per_matrix, panels;
    size_t panel_bytes;
} source;

/* Eight multiply-xor sums, so that memory is the limit. */
typedef struct sums {
    uint64_t h[8], seed;
} sums;

/* A place in the work: one strip after another, each taken up where the slice before left it. */
typedef struct lane {
    int i;              /* source of the strip */
    int64_t panel, end; /* of the source: the next, and the strip's end; equal: it has no strip */
    sums sum;           /* of the strip so far */
    uint8_t *scratch;   /* [piece_bytes], or NULL */
} lane;

/* One cp_panels_pack in progress. */
typedef struct job {
    source *sources;     /* [n] one for each distinct tensor */
    file_entry *entries; /* [n] */
    int64_t *strip0;     /* [n + 1] number of the first strip of each */
    tally *tallies;      /* [n] */
    int *source_of;      /* [tensors of the caller] */
    int n;
    size_t head_bytes, bytes, piece_bytes; /* of the table, of all, of a worker's scratch */
    char name[CP_PANEL_NAME];              /* of the cache file */

    work_kind work;
    uint8_t *base;
    int fd;
    uint8_t *zeros;      /* [HUGE_PAGE], or NULL */
    pthread_mutex_t lay; /* guards laid */
    uint64_t laid;       /* of fd: it has pages so far */
    lane *lanes;         /* [n_lanes] one a worker; within a run of the pool each is one worker's */
    int n_lanes;
    _Atomic int64_t next, done; /* strips */
    int64_t fault_at;
    const _Atomic bool *cancel; /* the caller's, or NULL */
    _Atomic int error;          /* errno of a write: stop */
} job;

/* ---- open, close ---- */

static char *copy(const char *s)
{
    return s ? cp_xstrdup(s) : NULL;
}

void cp_panels_open(cp_panels **out, const cp_panels_config *cfg)
{
    cp_panels *p = cp_xcalloc(1, sizeof *p);
    p->cfg.check = cfg ? cfg->check : CP_CACHE_TRUST;
    p->cfg.cancel = cfg ? cfg->cancel : NULL;
    if (cfg && cfg->key && *cfg->key && strlen(cfg->key) < KEY_BYTES) {
        p->cfg = *cfg;
        p->cfg.key = copy(cfg->key);
        p->cfg.dir = copy(cfg->dir);
        p->cfg.read_dir = copy(cfg->read_dir);
    }
    p->cfg.door = cfg && cfg->door ? cfg->door : &cp_panel_door_here;
    *out = p;
}

static void mapping_fini(mapping *s)
{
    if (s->map.p)
        cp_map_close(&s->map);
    else if (s->base)
        munmap((void *)(uintptr_t)s->base, s->bytes);
    if (s->path && s->fd >= 0)
        close(s->fd);
    free(s->path);
    *s = (mapping){.fd = -1};
}

void cp_panels_close(cp_panels *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_mappings; i++)
        mapping_fini(&p->mappings[i]);
    free((char *)(uintptr_t)p->cfg.key);
    free((char *)(uintptr_t)p->cfg.dir);
    free((char *)(uintptr_t)p->cfg.read_dir);
    free(p);
}

size_t cp_panels_bytes(const cp_panels *p)
{
    size_t n = 0;
    for (int i = 0; i < p->n_mappings; i++)
        n += p->mappings[i].bytes;
    return n;
}

cp_code cp_panels_lost(const cp_panels *p, cp_err *err)
{
    for (int i = 0; i < p->n_mappings; i++)
        if (p->mappings[i].path && cp_map_poisoned(&p->mappings[i].map))
            return cp_fail(err, CP_MODEL_FAILED,
                           "%s: the packed weights shrank or cannot be read any more; the next "
                           "start packs them again",
                           p->mappings[i].path);
    return CP_OK;
}

/* ---- checksums ---- */

#define PRIME 0x9e3779b97f4a7c15u

static sums sum_begin(uint64_t seed)
{
    sums s = {.seed = seed};
    for (unsigned i = 0; i < 8; i++)
        s.h[i] = (seed + i + 1) * PRIME;
    return s;
}

/* n is a multiple of 64. */
static void sum_add(sums *s, const uint8_t *p, size_t n)
{
    uint64_t h[8], w;
    memcpy(h, s->h, sizeof h);
    for (size_t at = 0; at < n; at += 64)
        for (size_t i = 0; i < 8; i++) {
            memcpy(&w, p + at + 8 * i, sizeof w);
            h[i] = (h[i] ^ w) * PRIME;
            h[i] ^= h[i] >> 29;
        }
    memcpy(s->h, h, sizeof h);
}

static uint64_t sum_end(const sums *s)
{
    uint64_t all = s->seed;
    for (int i = 0; i < 8; i++)
        all = (all ^ s->h[i]) * PRIME + (all >> 31);
    return all ^ all >> 32;
}

static uint64_t sum_entries(const file_entry *e, int n)
{
    uint64_t sum = 0;
    _Static_assert(sizeof(file_entry) % 8 == 0 && sizeof(file_head) % 8 == 0, "no padding");
    for (int i = 0; i < n; i++) {
        uint8_t block[(sizeof *e + 63) / 64 * 64] = {0};
        memcpy(block, &e[i], sizeof *e);
        sums s = sum_begin((uint64_t)i);
        sum_add(&s, block, sizeof block);
        sum += sum_end(&s);
    }
    return sum;
}

/* ---- the job: which tensors, where in the file ---- */

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static bool same_weights(const cp_tensor *a, const cp_tensor *b)
{
    return a->data == b->data && a->type == b->type && a->ne[0] == b->ne[0] &&
           a->ne[1] == b->ne[1] && a->ne[2] == b->ne[2];
}

/* The number of t's source, which is new when no tensor before it was the same. */
static int add_source(job *j, const cp_tensor *t)
{
    for (int i = 0; i < j->n; i++)
        if (same_weights(j->sources[i].t, t))
            return i;
    cp_panel_kind kind = cp_panel_kind_of(t->type);
    int64_t per_matrix = (t->ne[1] + CP_LANES - 1) / CP_LANES;
    CP_ASSERT(kind != CP_PANEL_COUNT && t->ne[1] > 0 && t->ne[2] > 0 && t->ne[3] == 1);
    j->sources[j->n] = (source){.t = t,
                                .unpack = cp_unpack_of(t->type),
                                .per_matrix = per_matrix,
                                .panels = per_matrix * t->ne[2],
                                .panel_bytes = cp_panel_bytes(kind, t->ne[0])};
    return j->n++;
}

/* sha256-ab12…-0.v1-<sum of the table>.panels */
static void make_name(job *j, const cp_panels *p)
{
    char key[128];
    size_t n = 0;
    for (const char *c = p->cfg.key ? p->cfg.key : ""; *c && n < sizeof key - 1; c++) {
        bool plain = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') ||
                     (*c >= 'A' && *c <= 'Z') || *c == '_';
        key[n++] = plain ? *c : '-';
    }
    key[n] = '\0';
    cp_snprintf(j->name, sizeof j->name, "%s-%d.v%u-%016" PRIx64 ".panels", key, p->n_mappings,
                LAYOUT_VERSION, sum_entries(j->entries, j->n));
}

static cp_code job_init(job *j, const cp_panels *p, const cp_tensor *const *tensors, int n,
                        cp_err *err)
{
    size_t most = (size_t)n;
    memset(j, 0, sizeof *j);
    pthread_mutex_init(&j->lay, NULL);
    j->sources = cp_xcalloc(most, sizeof *j->sources);
    j->entries = cp_xcalloc(most, sizeof *j->entries);
    j->tallies = cp_xcalloc(most, sizeof *j->tallies);
    j->strip0 = cp_xcalloc(most + 1, sizeof *j->strip0);
    j->source_of = cp_xcalloc(most, sizeof *j->source_of);
    for (int i = 0; i < n; i++)
        j->source_of[i] = add_source(j, tensors[i]);
    j->head_bytes = up(sizeof(file_head) + (size_t)j->n * sizeof(file_entry), DATA_ALIGN);
    size_t at = j->head_bytes;
    for (int i = 0; i < j->n; i++) {
        const source *w = &j->sources[i];
        file_entry *e = &j->entries[i];
        size_t bytes;
        if (!w->panel_bytes || !cp_mul((size_t)w->panels, w->panel_bytes, &bytes) ||
            bytes > SIZE_MAX / 4 || at > SIZE_MAX / 4)
            return cp_fail(err, CP_NO_MEMORY, "%s: panels overflow", w->t->name);
        e->offset = at;
        e->bytes = bytes;
        e->k = w->t->ne[0];
        e->m = w->t->ne[1];
        e->kind = (uint32_t)cp_panel_kind_of(w->t->type);
        e->type = (uint32_t)w->t->type;
        cp_strcopy(e->name, sizeof e->name, w->t->name ? w->t->name : "");
        at = up(at + bytes, DATA_ALIGN);
        size_t piece = w->panel_bytes > PIECE_BYTES ? w->panel_bytes : PIECE_BYTES;
        j->piece_bytes = piece > j->piece_bytes ? piece : j->piece_bytes;
        j->strip0[i + 1] = j->strip0[i] + (w->panels + STRIP - 1) / STRIP;
    }
    j->bytes = at;
    make_name(j, p);
    return CP_OK;
}

static void job_fini(job *j)
{
    free(j->sources);
    free(j->entries);
    free(j->tallies);
    free(j->strip0);
    free(j->source_of);
    pthread_mutex_destroy(&j->lay);
}

static void unpack(const source *w, int64_t p0, int64_t p1, uint8_t *to)
{
    for (int64_t p = p0; p < p1; p++, to += w->panel_bytes) {
        int64_t row = p % w->per_matrix * CP_LANES, left = w->t->ne[1] - row;
        w->unpack(w->t, p / w->per_matrix * w->t->ne[1] + row,
                  left < CP_LANES ? (int)left : CP_LANES, to);
    }
}

/* False: none is left. A strip's sum starts from its first panel's number. */
static bool begin_strip(job *j, lane *l)
{
    int64_t strip = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
    if (strip >= j->strip0[j->n])
        return false;
    while (strip >= j->strip0[l->i + 1])
        l->i++;
    int64_t panels = j->sources[l->i].panels;
    l->panel = (strip - j->strip0[l->i]) * STRIP;
    l->end = l->panel + STRIP < panels ? l->panel + STRIP : panels;
    l->sum = sum_begin((uint64_t)l->panel);
    return true;
}

static void end_strip(job *j, const lane *l)
{
    /* relaxed, as the next: the pool's end orders them */
    atomic_fetch_add_explicit(&j->tallies[l->i].sum, sum_end(&l->sum), memory_order_relaxed);
    int64_t done = atomic_fetch_add_explicit(&j->done, 1, memory_order_relaxed) + 1;
    if (j->work == TO_FILE && done >= j->fault_at)
        cp_fault_kill();
}

/*
 * The file's pages up to `end`, a huge page's bytes at a time before panels are written to them:
 * what is written at once a file system may keep as one page, and cp_map_open_at maps as such.
 * Zeros until then. Strips are begun in the file's order, so little is laid ahead of the panels.
 */
static bool lay_pages(job *j, uint64_t end)
{
    bool good = true;
    pthread_mutex_lock(&j->lay);
    while (good && j->laid < end) {
        uint64_t left = j->bytes - j->laid, n = left < HUGE_PAGE ? left : HUGE_PAGE;
        good = cp_io_pwrite(j->fd, j->zeros, n, j->laid);
        j->laid += good ? n : 0;
    }
    pthread_mutex_unlock(&j->lay);
    return good;
}

/* The next panels of the lane's strip; returns their bytes. */
static size_t do_piece(job *j, lane *l)
{
    const source *w = &j->sources[l->i];
    int64_t step = (int64_t)(j->piece_bytes / w->panel_bytes);
    int64_t end = l->panel + step < l->end ? l->panel + step : l->end;
    uint64_t at = j->entries[l->i].offset + (uint64_t)l->panel * w->panel_bytes;
    size_t n = (size_t)(end - l->panel) * w->panel_bytes;
    uint8_t *here = j->base ? j->base + at : NULL;
    uint8_t *to = j->work == TO_MEMORY ? here : l->scratch;
    if (j->work != SUM)
        unpack(w, l->panel, end, to);
    if (j->work != TO_MEMORY)
        sum_add(&l->sum, j->work == SUM ? here : to, n);
    if (j->work == COMPARE && memcmp(here, to, n) != 0)
        atomic_store_explicit(&j->tallies[l->i].differs, true, memory_order_relaxed);
    if (j->work == TO_FILE && !(lay_pages(j, at + n) && cp_io_pwrite(j->fd, to, n, at)))
        atomic_store_explicit(&j->error, errno, memory_order_relaxed);
    l->panel = end;
    return n;
}

/* Takes the lane on by `bytes` bytes of panels, or a piece more. */
static void advance(job *j, lane *l, size_t bytes)
{
    for (size_t n = 0; n < bytes && !atomic_load_explicit(&j->error, memory_order_relaxed);) {
        if (l->panel == l->end && !begin_strip(j, l))
            return;
        n += do_piece(j, l);
        if (l->panel == l->end)
            end_strip(j, l);
    }
}

/* A run of the pool. Whoever takes part draws lanes: with a worker at rest, another has two. */
static void slice(cp_pool *pool, int id, void *arg)
{
    job *j = arg;
    (void)id;
    for (int64_t t; (t = cp_pool_ticket(pool, j->n_lanes, 1)) < j->n_lanes;)
        advance(j, &j->lanes[t], slice_bytes[j->work]);
}

static bool cancelled(const job *j)
{
    /* relaxed: it orders nothing, and is looked at again */
    return j->cancel && atomic_load_explicit(j->cancel, memory_order_relaxed);
}

static bool going_on(job *j)
{
    if (cancelled(j))
        atomic_store(&j->error, ECANCELED);
    return atomic_load(&j->done) < j->strip0[j->n] && !atomic_load(&j->error);
}

/* Slice by slice, so that the engine's steps have their turns of the pool in between. */
static void run_slices(job *j, cp_pool *pool)
{
    while (going_on(j))
        if (pool)
            cp_pool_run(pool, slice, j);
        else
            advance(j, &j->lanes[0], SIZE_MAX);
}

/* True: all of it was done; errno says why not. */
static bool run_all(job *j, cp_pool *pool, work_kind work, const uint8_t *base, int fd)
{
    uint64_t fault = cp_fault_after("packing");
    uint8_t *scratch = NULL;
    j->work = work;
    j->base = (uint8_t *)(uintptr_t)base;
    j->fd = fd;
    j->laid = 0;
    j->fault_at = fault > INT64_MAX ? INT64_MAX : (int64_t)fault;
    j->n_lanes = pool ? cp_pool_threads(pool) : 1;
    if (work == TO_FILE || work == COMPARE) {
        scratch = cp_alloc_aligned((size_t)j->n_lanes * j->piece_bytes);
        if (!scratch) {
            errno = ENOMEM;
            return false;
        }
    }
    j->zeros = work == TO_FILE ? cp_xcalloc(1, HUGE_PAGE) : NULL;
    j->lanes = cp_xcalloc((size_t)j->n_lanes, sizeof *j->lanes);
    for (int i = 0; scratch && i < j->n_lanes; i++)
        j->lanes[i].scratch = scratch + (size_t)i * j->piece_bytes;
    atomic_store(&j->next, 0);
    atomic_store(&j->done, 0);
    atomic_store(&j->error, 0);
    for (int i = 0; i < j->n; i++) {
        atomic_store(&j->tallies[i].sum, 0);
        atomic_store(&j->tallies[i].differs, false);
    }
    run_slices(j, pool);
    free(j->lanes);
    free(j->zeros);
    free(scratch);
    errno = atomic_load(&j->error);
    return !errno;
}

/* Weights whose file shrank while they were read packed to nothing that may be kept. */
static cp_code check_source(const job *j, cp_err *err)
{
    for (int i = 0; i < j->n; i++)
        if (cp_map_lost(j->sources[i].t->data))
            return cp_fail(err, CP_CORRUPT,
                           "%s: the model's file shrank or cannot be read any more",
                           j->entries[i].name);
    return CP_OK;
}

/* ---- the cache file ---- */

static file_head make_head(const cp_panels *p, const job *j)
{
    file_head h = {.layout = LAYOUT_VERSION, .n_entries = (uint32_t)j->n, .bytes = j->bytes};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    cp_strcopy(h.key, sizeof h.key, p->cfg.key);
    h.table_sum = sum_entries(j->entries, j->n);
    return h;
}

/* CP_CORRUPT: a tensor's panels are not what its weights pack to. */
static cp_code compare(job *j, const mapping *s, const file_entry *got, cp_pool *pool, cp_err *err)
{
    if (!run_all(j, pool, COMPARE, s->base, -1))
        return cp_fail(err, CP_NO_MEMORY, "%s: %s", s->path, strerror(errno));
    cp_code code = check_source(j, err);
    for (int i = 0; code == CP_OK && i < j->n; i++)
        if (atomic_load(&j->tallies[i].differs) || atomic_load(&j->tallies[i].sum) != got[i].sum)
            code = cp_fail(err, CP_CORRUPT,
                           "%s: holds other values than its model (tensor %s); delete that file, "
                           "the next start packs it again",
                           s->path, j->entries[i].name);
    return code;
}

/*
 * The mapped file is what this model would write: everything but the data sums, then those.
 * CP_IO: it is not; CP_CORRUPT: it says that it is, and a comparison (cfg.check) shows that not.
 */
static cp_code check_file(const cp_panels *p, job *j, const mapping *s, cp_pool *pool, cp_err *err)
{
    const file_entry *got = (const file_entry *)(const void *)(s->base + sizeof(file_head));
    file_entry *want = cp_xcalloc((size_t)j->n + 1, sizeof *want);
    cp_code code = CP_OK;
    memcpy(want, j->entries, (size_t)j->n * sizeof *want);
    for (int i = 0; i < j->n; i++)
        j->entries[i].sum = got[i].sum;
    file_head h = make_head(p, j);
    if (memcmp(got, j->entries, (size_t)j->n * sizeof *got) != 0 ||
        memcmp(s->base, &h, sizeof h) != 0)
        code = cp_fail(err, CP_IO, "%s: its header is not this model's, or torn", s->path);
    else if (p->cfg.check)
        code = compare(j, s, got, pool, err);
    else
        run_all(j, pool, SUM, s->base, -1);
    for (int i = 0; code == CP_OK && !p->cfg.check && i < j->n; i++)
        if (atomic_load(&j->tallies[i].sum) != got[i].sum)
            code = cp_fail(err, CP_IO, "%s: torn or rotten: wrong sum of tensor %s", s->path,
                           j->entries[i].name);
    if (cp_map_poisoned(&s->map))
        code = cp_fail(err, CP_IO, "%s: shrank or cannot be read", s->path);
    memcpy(j->entries, want, (size_t)j->n * sizeof *want);
    free(want);
    return code;
}

static cp_code map_file(mapping *s, const char *dir, const job *j, int fd, cp_err *err)
{
    size_t n = strlen(dir) + strlen(j->name) + 2;
    *s = (mapping){.bytes = j->bytes, .fd = fd, .path = cp_xmalloc(n)};
    cp_snprintf(s->path, n, "%s/%s", dir, j->name);
    cp_code code = cp_map_open(&s->map, fd, j->bytes, s->path, err);
    s->base = s->map.p;
    cp_map_want_huge(&s->map);
    if (code != CP_OK)
        mapping_fini(s);
    return code;
}

/* Maps an existing cache file if it may be used and is sound. CP_NOT_FOUND: absent. */
static cp_code map_existing(const cp_panels *p, const char *dir, job *j, cp_pool *pool, mapping *s,
                            cp_err *err)
{
    const cp_panel_door *door = p->cfg.door;
    int fd = door->open(door->arg, dir, j->name, j->bytes, err);
    if (fd < 0)
        return err->code;
    cp_code code = map_file(s, dir, j, fd, err);
    if (code == CP_OK)
        code = check_file(p, j, s, pool, err);
    if (code != CP_OK)
        mapping_fini(s);
    return code;
}

static bool write_head(const cp_panels *p, job *j, int fd)
{
    for (int i = 0; i < j->n; i++)
        j->entries[i].sum = atomic_load(&j->tallies[i].sum);
    file_head h = make_head(p, j);
    return cp_io_pwrite(fd, (const uint8_t *)&h, sizeof h, 0) &&
           cp_io_pwrite(fd, (const uint8_t *)j->entries, (size_t)j->n * sizeof *j->entries,
                        sizeof h);
}

/* The new file under its name, so that the process' maps tell it, else as it is. */
static int reopen(const cp_panel_door *door, const cp_panel_new *f, const job *j)
{
    struct stat a, b;
    int fd = door->open(door->arg, f->path, j->name, j->bytes, NULL);
    if (fd >= 0 && fstat(fd, &a) == 0 && fstat(f->fd, &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
        return fd;
    if (fd >= 0)
        close(fd);
    return dup(f->fd);
}

/* Packed panels in a fresh cache file, or those that somebody else packed meanwhile. */
static cp_code pack_to_file(const cp_panels *p, job *j, cp_pool *pool, mapping *s, cp_err *err)
{
    const cp_panel_door *door = p->cfg.door;
    cp_panel_new f;
    cp_code code = door->create(door->arg, &f, p->cfg.dir, j->name, j->bytes, err);
    if (code != CP_OK)
        return code;
    if (!run_all(j, pool, TO_FILE, NULL, f.fd) || !write_head(p, j, f.fd))
        code = cp_fail(err, CP_IO, "%s/%s: %s", p->cfg.dir, j->name, strerror(errno));
    cp_fault_point("packed");
    if (code == CP_OK)
        code = check_source(j, err);
    int failed = code == CP_OK ? door->place(door->arg, &f, false) : 0;
    if (failed == EEXIST) {
        cp_err ignored;
        if (map_existing(p, p->cfg.dir, j, pool, s, &ignored) == CP_OK) {
            door->close(door->arg, &f);
            return CP_OK;
        }
        failed = door->place(door->arg, &f, true);
    }
    if (failed)
        cp_log(CP_LOG_WARN, "panels: %s/%s: packed, and lost with this process: %s", p->cfg.dir,
               j->name, strerror(failed));
    if (code == CP_OK)
        code = map_file(s, p->cfg.dir, j, failed ? dup(f.fd) : reopen(door, &f, j), err);
    door->close(door->arg, &f);
    return code;
}

static cp_code pack_to_memory(job *j, cp_pool *pool, mapping *s, cp_err *err)
{
    void *base = mmap(NULL, j->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return cp_fail(err, CP_NO_MEMORY, "no memory for %zu bytes of packed weights", j->bytes);
    *s = (mapping){.base = base, .bytes = j->bytes, .fd = -1};
    madvise(base, j->bytes, MADV_HUGEPAGE);
    run_all(j, pool, TO_MEMORY, base, -1);
    mprotect(base, j->bytes, PROT_READ);
    return check_source(j, err);
}

/* From the first folder that has them, else packed into the second, else into memory. What is
 * cancelled is cut short, whatever is answered then. */
static cp_code take(const cp_panels *p, job *j, cp_pool *pool, mapping *s, cp_err *err)
{
    const char *const dirs[] = {p->cfg.read_dir, p->cfg.dir};
    cp_err why = {0};
    if (p->cfg.dir && *p->cfg.dir)
        p->cfg.door->sweep(p->cfg.door->arg, p->cfg.dir);
    for (int i = 0; i < 2; i++) {
        if (!dirs[i] || !*dirs[i])
            continue;
        cp_code code = map_existing(p, dirs[i], j, pool, s, &why);
        if (code == CP_OK || cancelled(j))
            return CP_OK;
        if (code == CP_CORRUPT)
            return cp_fail(err, code, "%s", why.msg);
        if (code != CP_NOT_FOUND)
            cp_log(CP_LOG_WARN, "panels: not used: %s", why.msg);
    }
    if (p->cfg.check == CP_CACHE_CHECK_ONLY)
        return CP_OK;
    if (!p->cfg.dir)
        return pack_to_memory(j, pool, s, err);
    cp_code code = *p->cfg.dir ? pack_to_file(p, j, pool, s, &why)
                               : cp_fail(&why, CP_IO, "%s: no folder can be written", j->name);
    if (code == CP_OK || cancelled(j))
        return CP_OK;
    if (code == CP_CORRUPT)
        return cp_fail(err, code, "%s", why.msg);
    cp_log(CP_LOG_WARN, "panels: kept in memory, %zu bytes, packed anew at every start: %s",
           j->bytes, why.msg);
    return pack_to_memory(j, pool, s, err);
}

cp_code cp_panels_pack(cp_panels *p, const cp_tensor *const *tensors, int n, cp_pool *pool,
                       cp_panels_sink *sink, void *arg, cp_err *err)
{
    job j;
    if (p->n_mappings == MAX_MAPPINGS)
        return cp_fail(err, CP_NO_MEMORY, "more than %d packings of one model", MAX_MAPPINGS);
    mapping *s = &p->mappings[p->n_mappings];
    *s = (mapping){.fd = -1};
    cp_code code = job_init(&j, p, tensors, n, err);
    j.cancel = p->cfg.cancel;
    if (code == CP_OK)
        code = take(p, &j, pool, s, err);
    if (cancelled(&j))
        code = cp_fail(err, CP_CANCELLED, "packing was given up");
    if (code == CP_OK && s->base) {
        p->n_mappings++;
        for (int i = 0; i < n; i++)
            sink(arg, i, s->base + j.entries[j.source_of[i]].offset);
    } else {
        mapping_fini(s);
    }
    job_fini(&j);
    return code;
}

cp_code cp_panels_measure(const cp_tensor *const *tensors, int n, size_t *bytes, cp_err *err)
{
    const cp_panels none = {0};
    job j;
    cp_code code = job_init(&j, &none, tensors, n, err);
    *bytes = j.bytes;
    job_fini(&j);
    return code;
}
