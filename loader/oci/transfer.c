/*
 * The transfer of blobs. The calling thread hands out ranges, writes what arrives and marks units;
 * a worker a blob follows the contiguous front. The order of hand-out is the order of the file, so
 * the front is never further behind than what is in flight. A blob is begun only when no range of
 * an earlier one is left to hand out. A blob that another process is pulling is looked at again ten
 * times a second.
 */
#include "loader/oci/transfer.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "loader/oci/store/blobs.h"
#include "loader/oci/store/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    HASH_CHUNK = 256 << 10,
    RANGE_UNITS_MIN = 2,    /* at the end of a blob ranges shrink, so that all end together */
    WHOLE_BYTES = 4 << 20,  /* up to this a blob is asked for without a range */
    FLUSH_BYTES = 8 << 20,  /* written back behind the front */
    SYNC_BYTES = 256 << 20, /* made durable behind the front */
    TICK_MS = 100,
    ACTIVE_MAX = CP_CONNECTIONS_MAX + 4,
};

typedef enum blob_state {
    BLOB_WAITING, /* not begun, or another process has it */
    BLOB_ACTIVE,  /* has a partial and a worker */
    BLOB_DONE,
} blob_state;

typedef struct run run;

typedef struct blob {
    run *r;
    const cp_descriptor *d;
    blob_state state;
    cp_partial *p;
    uint8_t *taken;      /* [units] a fetch has it */
    uint64_t next_unit;  /* none below it is free to hand out */
    uint64_t front_unit; /* all below it are marked */
    bool whole;          /* asked for without ranges */
    bool whole_taken;
    int n_fetches;
    bool again;         /* wrong bytes were thrown away once */
    uint64_t resumed;   /* bytes that an earlier process had written */
    int64_t look_at;    /* when to try a busy blob again, ns */
    uint64_t elsewhere; /* bytes that another process has of it */

    pthread_t worker;
    pthread_mutex_t mutex; /* guards front and stop */
    pthread_cond_t moved;
    uint64_t front; /* bytes that can be hashed */
    bool stop;

    /* guarded by run.mutex */
    bool finished;
    bool wrong; /* the digest */
    cp_code code;
    cp_err err;
} blob;

typedef struct slot {
    cp_fetch fetch;
    blob *b; /* NULL: free */
    uint64_t at;
} slot;

struct run {
    const cp_transfer *t;
    blob *blobs;
    size_t n_done, first_waiting;
    blob *active[ACTIVE_MAX];
    int n_active, active_limit;
    slot slots[CP_CONNECTIONS_MAX];
    int n_slots, n_busy;
    bool no_ranges;
    uint64_t written, fault_at;
    uint64_t finished_bytes;
    int64_t reported;
    pthread_mutex_t mutex;
    pthread_cond_t any; /* a worker has finished */
    cp_code code;       /* of the first failure */
    cp_err err;
};

/* ---- worker: hash, sync, publish ---- */

/* The front once it is beyond `at`; `at` itself when the worker shall stop. */
static uint64_t wait_front(blob *b, uint64_t at)
{
    pthread_mutex_lock(&b->mutex);
    while (b->front <= at && !b->stop)
        pthread_cond_wait(&b->moved, &b->mutex);
    uint64_t front = b->stop ? at : b->front;
    pthread_mutex_unlock(&b->mutex);
    return front;
}

/* Hash the blob as it becomes contiguous. CP_CANCELLED: stopped. */
static cp_code hash_front(blob *b, uint8_t digest[32], cp_err *err)
{
    uint8_t *chunk = malloc(HASH_CHUNK);
    if (!chunk)
        return cp_fail(err, CP_NO_MEMORY, "%s: no memory to hash it", b->d->digest);
    cp_sha256 *h = cp_sha256_new();
    cp_code code = CP_OK;
    int fd = cp_partial_fd(b->p);
    uint64_t at = 0, flushed = 0, synced = 0;
    while (!code && at < b->d->size) {
        uint64_t front = wait_front(b, at);
        uint64_t rest = front - at;
        if (rest == 0) {
            code = CP_CANCELLED;
            break;
        }
        ssize_t n = cp_io_pread(fd, chunk, rest < HASH_CHUNK ? (size_t)rest : HASH_CHUNK, at);
        if (n <= 0) {
            code = cp_fail(err, CP_IO, "%s: read at %" PRIu64 ": %s", b->d->digest, at,
                           n < 0 ? strerror(errno) : "the file became shorter");
            break;
        }
        cp_sha256_add(h, chunk, (size_t)n);
        at += (uint64_t)n;
        if (at - flushed >= FLUSH_BYTES) { /* so that a sync has little left to wait for */
            sync_file_range(fd, (off_t)flushed, (off_t)(at - flushed), SYNC_FILE_RANGE_WRITE);
            flushed = at;
        }
        if (at - synced >= SYNC_BYTES && at < b->d->size) {
            code = cp_partial_sync(b->p, err);
            synced = at;
        }
    }
    cp_sha256_done(h, digest);
    free(chunk);
    return code;
}

static void *work(void *arg)
{
    blob *b = arg;
    uint8_t digest[32];
    cp_err err = {0};
    bool wrong = false;
    cp_code code = hash_front(b, digest, &err);
    if (!code && memcmp(digest, b->d->raw, 32) != 0) {
        char text[CP_DIGEST_STR];
        cp_digest_format(digest, text);
        wrong = true;
        code =
            cp_fail(&err, CP_CORRUPT, "%s: the bytes received have digest %s", b->d->digest, text);
    }
    if (!code)
        code = cp_partial_publish(b->p, b->r->t->places, &err);
    pthread_mutex_lock(&b->r->mutex);
    b->code = code;
    b->err = err;
    b->wrong = wrong;
    b->finished = true;
    pthread_cond_signal(&b->r->any);
    pthread_mutex_unlock(&b->r->mutex);
    return NULL;
}

static void stop_worker(blob *b)
{
    pthread_mutex_lock(&b->mutex);
    b->stop = true;
    pthread_cond_signal(&b->moved);
    pthread_mutex_unlock(&b->mutex);
    pthread_join(b->worker, NULL);
}

/* ---- the calling thread ---- */

static void fail(run *r, cp_code code, const cp_err *err)
{
    if (r->code)
        return;
    r->code = code;
    r->err = err ? *err : (cp_err){.code = code};
}

static void advance_front(blob *b)
{
    uint64_t n = cp_partial_units(b->p), unit = b->front_unit;
    while (unit < n && cp_partial_has(b->p, unit))
        unit++;
    if (unit == b->front_unit)
        return;
    b->front_unit = unit;
    pthread_mutex_lock(&b->mutex);
    b->front = unit == n ? b->d->size : unit * CP_UNIT;
    pthread_cond_signal(&b->moved);
    pthread_mutex_unlock(&b->mutex);
}

/* A worker for b from the front as it is. */
static cp_code start_worker(blob *b, cp_err *err)
{
    pthread_mutex_init(&b->mutex, NULL);
    pthread_cond_init(&b->moved, NULL);
    b->front = b->front_unit = b->next_unit = 0;
    b->stop = b->finished = b->wrong = b->whole_taken = false;
    memset(b->taken, 0, cp_partial_units(b->p));
    advance_front(b);
    if (pthread_create(&b->worker, NULL, work, b) == 0)
        return CP_OK;
    pthread_mutex_destroy(&b->mutex);
    pthread_cond_destroy(&b->moved);
    return cp_fail(err, CP_NO_MEMORY, "no thread to hash %s", b->d->digest);
}

static void end_blob(blob *b)
{
    run *r = b->r;
    int i = 0;
    while (r->active[i] != b)
        i++;
    memmove(&r->active[i], &r->active[i + 1], (size_t)(r->n_active - i - 1) * sizeof(*r->active));
    r->n_active--;
    pthread_mutex_destroy(&b->mutex);
    pthread_cond_destroy(&b->moved);
    free(b->taken);
    b->taken = NULL;
}

/* Has another process finished it meanwhile? */
static bool is_there(blob *b)
{
    run *r = b->r;
    if (!cp_blob_recorded(r->t->layout, b->d, r->t->places))
        return false;
    b->elsewhere = 0;
    b->state = BLOB_DONE;
    r->n_done++;
    r->finished_bytes += b->d->size;
    return true;
}

/* Begin a blob unless another process has it. */
static cp_code activate(blob *b, cp_err *err)
{
    run *r = b->r;
    bool busy;
    if (is_there(b)) /* asked first, so that no space is reserved for it */
        return CP_OK;
    cp_code code = cp_partial_open(&b->p, r->t->layout, b->d, &busy, err);
    if (code)
        return code;
    if (busy) {
        uint64_t allocated;
        b->look_at = cp_now_ns() + TICK_MS * INT64_C(1000000);
        cp_partial_peek(r->t->layout, b->d, &b->elsewhere, &allocated);
        return CP_OK;
    }
    b->elsewhere = 0;
    if (is_there(b)) {
        cp_partial_remove(b->p);
        b->p = NULL;
        return CP_OK;
    }
    b->resumed = cp_partial_done(b->p);
    b->whole = b->resumed == 0 && (r->no_ranges || b->d->size <= WHOLE_BYTES);
    b->taken = cp_xcalloc((size_t)cp_partial_units(b->p) + 1, 1);
    code = start_worker(b, err);
    if (code) {
        cp_partial_close(b->p);
        b->p = NULL;
        free(b->taken);
        b->taken = NULL;
        return code;
    }
    b->state = BLOB_ACTIVE;
    r->active[r->n_active++] = b;
    return CP_OK;
}

/* See cp_fetch.data. Units that are there already are passed over (a server without ranges). */
static cp_code on_data(void *arg, uint64_t at, const void *bytes, size_t n, cp_err *err)
{
    slot *s = arg;
    blob *b = s->b;
    run *r = b->r;
    const uint8_t *p = bytes;
    uint64_t end = s->fetch.from + s->fetch.n;
    if (at != s->at || n > end - at)
        return cp_fail(err, CP_CORRUPT,
                       "%s: bytes at %" PRIu64 " (%zu of them) where %" PRIu64 " to %" PRIu64
                       " were due",
                       b->d->digest, at, n, s->at, end);
    while (n > 0) {
        uint64_t unit = s->at / CP_UNIT, unit_end = (unit + 1) * CP_UNIT;
        if (unit_end > end)
            unit_end = end;
        size_t k = n < unit_end - s->at ? n : (size_t)(unit_end - s->at);
        if (!cp_partial_has(b->p, unit)) {
            cp_code code = cp_partial_write(b->p, s->at, p, k, err);
            if (!code && s->at + k == unit_end)
                code = cp_partial_mark(b->p, unit, err);
            if (code)
                return code;
            r->written += k;
            if (r->written >= r->fault_at)
                cp_fault_kill();
        }
        s->at += k;
        p += k;
        n -= k;
    }
    advance_front(b);
    return CP_OK;
}

/* The slot's fetch has ended. What did not arrive is not handed out again: either all of it did, or
 * the whole blob is asked for next, or the run ends. */
static void give_back(slot *s)
{
    blob *b = s->b;
    b->whole_taken = false;
    b->n_fetches--;
    s->b = NULL;
    b->r->n_busy--;
}

/* Ask for b without ranges from now on; what runs of it would only be refused too. */
static void go_whole(blob *b)
{
    run *r = b->r;
    b->whole = true;
    r->no_ranges = true;
    for (int i = 0; i < r->n_slots; i++)
        if (r->slots[i].b == b) {
            cp_registry_cancel(r->t->registry, &r->slots[i].fetch);
            give_back(&r->slots[i]);
        }
}

/* See cp_fetch.done. */
static void on_done(void *arg, cp_code code, const cp_err *err)
{
    slot *s = arg;
    blob *b = s->b;
    run *r = b->r;
    uint64_t end = s->fetch.from + s->fetch.n;
    bool was_whole = b->whole;
    cp_err own;
    give_back(s);
    if (code == CP_OK && s->at != end) {
        code = cp_fail(&own, CP_CORRUPT, "%s: the body ended at %" PRIu64 " of %" PRIu64 " bytes",
                       b->d->digest, s->at, end);
        err = &own;
    }
    if (code == CP_UNSUPPORTED && !was_whole)
        go_whole(b);
    else if (code)
        fail(r, code, err);
}

/* How many units of b may be asked for at once: a connection's part of what is left, and at most
 * CP_RANGE_UNITS. */
static uint64_t range_limit(const blob *b)
{
    uint64_t left = 0, n = cp_partial_units(b->p);
    uint64_t enough = (uint64_t)b->r->n_slots * CP_RANGE_UNITS;
    for (uint64_t unit = b->next_unit; unit < n && left < enough; unit++)
        left += !b->taken[unit] && !cp_partial_has(b->p, unit);
    uint64_t limit = left / (uint64_t)b->r->n_slots;
    return limit < RANGE_UNITS_MIN ? RANGE_UNITS_MIN : limit;
}

/* The next range of b, marked as taken. */
static bool take_range(blob *b, uint64_t *from, uint64_t *n)
{
    uint64_t units = cp_partial_units(b->p), first, last;
    if (b->whole) {
        if (b->whole_taken || b->front_unit == units)
            return false;
        b->whole_taken = true;
        *from = 0;
        *n = b->d->size;
        return true;
    }
    while (b->next_unit < units && (b->taken[b->next_unit] || cp_partial_has(b->p, b->next_unit)))
        b->next_unit++;
    first = last = b->next_unit;
    if (first == units)
        return false;
    for (uint64_t limit = range_limit(b);
         last < units && last - first < limit && !b->taken[last] && !cp_partial_has(b->p, last);
         last++)
        b->taken[last] = 1;
    *from = first * CP_UNIT;
    *n = (last == units ? b->d->size : last * CP_UNIT) - *from;
    return true;
}

/* A blob with a range to hand out; begins one if need be. NULL: none for now. */
static blob *pick(run *r, uint64_t *from, uint64_t *n, cp_err *err)
{
    for (int i = 0; i < r->n_active; i++)
        if (take_range(r->active[i], from, n))
            return r->active[i];
    int64_t now = cp_now_ns();
    for (size_t i = r->first_waiting; i < r->t->n && r->n_active < r->active_limit; i++) {
        blob *b = &r->blobs[i];
        if (b->state != BLOB_WAITING) {
            r->first_waiting += i == r->first_waiting;
            continue;
        }
        if (b->look_at > now)
            continue;
        cp_code code = activate(b, err);
        if (code) {
            fail(r, code, err);
            return NULL;
        }
        if (b->state == BLOB_ACTIVE && take_range(b, from, n))
            return b;
    }
    return NULL;
}

/* Hand out ranges while connections are free. */
static void fill(run *r)
{
    cp_err err = {0};
    for (int i = 0; i < r->n_slots && !r->code; i++) {
        slot *s = &r->slots[i];
        uint64_t from, n;
        if (s->b)
            continue;
        blob *b = pick(r, &from, &n, &err);
        if (!b)
            return;
        s->b = b;
        s->at = from;
        s->fetch = (cp_fetch){.digest = b->d->digest,
                              .total = b->d->size,
                              .from = from,
                              .n = n,
                              .upstream_only = b->again,
                              .data = on_data,
                              .done = on_done,
                              .arg = s};
        b->n_fetches++;
        r->n_busy++;
        cp_code code = cp_registry_fetch(r->t->registry, &s->fetch, &err);
        if (code) {
            give_back(s);
            fail(r, code, &err);
        }
    }
}

/* What a finished worker says about its blob. */
static void settle(blob *b)
{
    run *r = b->r;
    pthread_join(b->worker, NULL);
    if (b->wrong && !b->again && (b->resumed > 0 || r->t->mirrored)) {
        /* Old bytes, or a mirror's: once more from the start. */
        pthread_mutex_destroy(&b->mutex);
        pthread_cond_destroy(&b->moved);
        b->again = true;
        cp_code code = cp_partial_reset(b->p, &b->err);
        if (!code)
            code = start_worker(b, &b->err);
        if (!code)
            return;
        pthread_mutex_init(&b->mutex, NULL); /* for end_blob */
        pthread_cond_init(&b->moved, NULL);
        b->code = code;
        b->wrong = false;
    }
    end_blob(b);
    if (b->wrong)
        cp_partial_remove(b->p);
    else
        cp_partial_close(b->p);
    b->p = NULL;
    b->state = BLOB_DONE;
    r->n_done++;
    r->finished_bytes += b->d->size;
    if (b->code)
        fail(r, b->code, &b->err);
}

static void reap(run *r)
{
    for (int i = r->n_active - 1; i >= 0; i--) {
        blob *b = r->active[i];
        pthread_mutex_lock(&r->mutex);
        bool finished = b->finished;
        pthread_mutex_unlock(&r->mutex);
        if (finished && b->n_fetches == 0) /* else the last one's `done` is about to come */
            settle(b);
    }
}

static void report(run *r)
{
    int64_t now = cp_now_ns();
    const cp_transfer *t = r->t;
    if (!t->progress || (now - r->reported < TICK_MS * INT64_C(1000000) && r->n_done < t->n))
        return;
    r->reported = now;
    uint64_t done = t->done + r->finished_bytes, arrived = 0;
    for (int i = 0; i < r->n_active; i++) {
        done += cp_partial_done(r->active[i]->p);
        arrived += r->active[i]->front_unit == cp_partial_units(r->active[i]->p);
    }
    for (int i = 0; i < r->n_slots; i++)
        if (r->slots[i].b && !r->slots[i].b->whole)
            done += r->slots[i].at % CP_UNIT;
    size_t waiting = t->n - r->n_done - (size_t)r->n_active;
    for (size_t i = r->first_waiting; waiting > 0 && i < t->n; i++)
        if (r->blobs[i].state == BLOB_WAITING) {
            done += r->blobs[i].elsewhere;
            waiting--;
        }
    bool hashing = r->n_done < t->n && (size_t)arrived == t->n - r->n_done;
    t->progress(t->arg, hashing ? "verifying" : "pulling", done < t->total ? done : t->total,
                t->total);
}

/* Nothing runs on the network: wait for a worker, or to look again at a busy blob. */
static void wait_any(run *r)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    bool finished = false;
    pthread_mutex_lock(&r->mutex);
    for (int i = 0; i < r->n_active; i++)
        finished = finished || r->active[i]->finished;
    if (!finished)
        pthread_cond_timedwait(&r->any, &r->mutex, &until);
    pthread_mutex_unlock(&r->mutex);
}

static void init(run *r, const cp_transfer *t)
{
    r->t = t;
    r->n_slots = t->connections < 1                    ? CP_CONNECTIONS_DEFAULT
                 : t->connections > CP_CONNECTIONS_MAX ? CP_CONNECTIONS_MAX
                                                       : t->connections;
    r->active_limit = r->n_slots + 4;
    r->fault_at = cp_fault_after("bytes");
    r->blobs = cp_xcalloc(t->n ? t->n : 1, sizeof(*r->blobs));
    for (size_t i = 0; i < t->n; i++) {
        r->blobs[i].r = r;
        r->blobs[i].d = t->blob[i];
    }
    pthread_mutex_init(&r->mutex, NULL);
    cp_clock_cond_init(&r->any);
}

static void fini(run *r)
{
    for (int i = 0; i < r->n_slots; i++)
        if (r->slots[i].b) {
            cp_registry_cancel(r->t->registry, &r->slots[i].fetch);
            r->slots[i].b = NULL;
        }
    while (r->n_active > 0) {
        blob *b = r->active[0];
        stop_worker(b);
        end_blob(b);
        if (b->finished && b->wrong)
            cp_partial_remove(b->p);
        else
            cp_partial_close(b->p);
    }
    pthread_mutex_destroy(&r->mutex);
    pthread_cond_destroy(&r->any);
    free(r->blobs);
}

/* See transfer.h. */
cp_code cp_transfer_run(const cp_transfer *t, cp_err *err)
{
    run *r = cp_xcalloc(1, sizeof(*r));
    init(r, t);
    while (r->n_done < t->n && !r->code) {
        int running;
        cp_err own = {0};
        fill(r);
        if (r->code)
            break;
        if (r->n_busy > 0) {
            cp_code code = cp_registry_step(t->registry, TICK_MS, &running, &own);
            if (code)
                fail(r, code, &own);
        } else if (r->n_done < t->n) {
            wait_any(r);
        }
        reap(r);
        report(r);
    }
    fini(r);
    cp_code code = r->code;
    if (code && err)
        *err = r->err;
    free(r);
    return code;
}
