/*
 * This file maps files and handles SIGBUS within them.
 *
 * The handler may run on any thread at any instruction, so it reads a fixed table through lock-free
 * atomics. A slot's generation is odd while it changes; the handler re-reads it, so that a slot
 * reused in between is not mistaken. On a hit everything from the faulting page to the end of the
 * mapping becomes zero pages at once: the model is lost anyway, and one mmap(2) beats a fault a
 * page. The bare system call is safe in a handler, and no sanitizer stands between.
 */
#include "base/map.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_MAPS = 1024, ALT_STACK_BYTES = 64 << 10, HUGE_PAGE = 2 << 20 };

typedef struct map_slot {
    _Atomic uint32_t gen; /* odd: free or changing */
    _Atomic uintptr_t start, end;
    _Atomic bool poisoned;
} map_slot;

/* The handler has no argument of ours: this is the one place that needs globals. */
static struct {
    map_slot slot[MAX_MAPS];
    pthread_mutex_t lock; /* guards slots and `previous`; the handler never takes it */
    pthread_once_t once;
    struct sigaction previous;
    uintptr_t page;
    bool used[MAX_MAPS];
} maps = {.lock = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT};

/* Zero pages from addr's page to the end of the mapping that holds it. False: not ours. */
static bool patch(uintptr_t addr)
{
    for (int i = 0; i < MAX_MAPS; i++) {
        map_slot *s = &maps.slot[i];
        uint32_t gen = atomic_load_explicit(&s->gen, memory_order_acquire);
        /* acquire: the second look at gen comes after these */
        uintptr_t start = atomic_load_explicit(&s->start, memory_order_acquire);
        uintptr_t end = atomic_load_explicit(&s->end, memory_order_acquire);
        if (gen & 1 || addr < start || addr >= end ||
            atomic_load_explicit(&s->gen, memory_order_relaxed) != gen)
            continue;
        uintptr_t from = addr & ~(maps.page - 1);
        /* The flag first: who sees a zero has a flag to see. */
        atomic_store_explicit(&s->poisoned, true, memory_order_release);
        return syscall(SYS_mmap, from, end - from, PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (long)from;
    }
    return false;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    (void)context;
    int saved = errno;
    bool fault = info->si_code > 0; /* not sent by kill(2) */
    if (!fault || !patch((uintptr_t)info->si_addr)) {
        /* Returning runs the faulting instruction again, now under the previous action. */
        sigaction(SIGBUS, &maps.previous, NULL);
        if (!fault)
            raise(sig); /* delivered when this handler returns */
    }
    errno = saved;
}

static void init_table(void)
{
    maps.page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < MAX_MAPS; i++)
        atomic_store_explicit(&maps.slot[i].gen, 1, memory_order_relaxed);
}

/*
 * Make ours the action for SIGBUS, again if something replaced it since. The handler asks for an
 * alternate stack; the thread that installs it gets one when it has none. Threads without one run
 * it on their own stack, which a fault in a mapping leaves intact.
 */
static bool install(void)
{
    struct sigaction now, ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGBUS, NULL, &now) != 0)
        return false;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus)
        return true;
    stack_t alt;
    if (sigaltstack(NULL, &alt) == 0 && (alt.ss_flags & SS_DISABLE)) {
        void *p =
            mmap(NULL, ALT_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        alt = (stack_t){.ss_sp = p, .ss_size = ALT_STACK_BYTES};
        if (p != MAP_FAILED)
            sigaltstack(&alt, NULL);
    }
    maps.previous = now;
    return sigaction(SIGBUS, &ours, NULL) == 0;
}

static int slot_take(uintptr_t start, uintptr_t end)
{
    int found = -1;
    pthread_mutex_lock(&maps.lock);
    for (int i = 0; i < MAX_MAPS && found < 0; i++)
        if (!maps.used[i])
            found = i;
    if (found >= 0) {
        map_slot *s = &maps.slot[found];
        maps.used[found] = true;
        atomic_store_explicit(&s->poisoned, false, memory_order_relaxed);
        atomic_store_explicit(&s->start, start, memory_order_relaxed);
        atomic_store_explicit(&s->end, end, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->gen, 1, memory_order_release); /* even: in use */
    }
    pthread_mutex_unlock(&maps.lock);
    return found;
}

static void slot_give(int i)
{
    pthread_mutex_lock(&maps.lock);
    CP_ASSERT(maps.used[i]);
    atomic_fetch_add_explicit(&maps.slot[i].gen, 1, memory_order_acq_rel); /* odd: free */
    atomic_store_explicit(&maps.slot[i].start, 0, memory_order_relaxed);
    atomic_store_explicit(&maps.slot[i].end, 0, memory_order_relaxed);
    maps.used[i] = false;
    pthread_mutex_unlock(&maps.lock);
}

/* Large files lie at an address by which huge pages of the page cache, where its file system makes
 * such, are mapped as they are: weights are read from memory once a step, and looking up small
 * pages takes a fifth of that time. */
static void *map_pages(size_t n, int fd, uint64_t at)
{
    int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint8_t *room = NULL;
    if (n < HUGE_PAGE || n > SIZE_MAX - HUGE_PAGE)
        return mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, (off_t)at);
    if ((room = mmap(NULL, n + HUGE_PAGE, PROT_NONE, kind, -1, 0)) == MAP_FAILED)
        return MAP_FAILED;
    size_t before = (size_t)(at - (uintptr_t)room) & (HUGE_PAGE - 1);
    size_t end = before + ((n + maps.page - 1) & ~(maps.page - 1));
    void *p = mmap(room + before, n, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)at);
    if (p == MAP_FAILED) {
        int saved = errno;
        munmap(room, n + HUGE_PAGE);
        errno = saved;
        return MAP_FAILED;
    }
    if (before)
        munmap(room, before);
    munmap(room + end, n + HUGE_PAGE - end);
    return p;
}

/* See map.h. */
cp_code cp_map_open(cp_map *m, int fd, size_t n, const char *what, cp_err *err)
{
    return cp_map_open_at(m, fd, 0, n, what, err);
}

/* See map.h. MAP_PRIVATE: nobody's write through us, and the page cache is shared all the same. */
cp_code cp_map_open_at(cp_map *m, int fd, uint64_t offset, size_t n, const char *what, cp_err *err)
{
    *m = (cp_map){0};
    pthread_once(&maps.once, init_table);
    pthread_mutex_lock(&maps.lock);
    bool ready = install();
    pthread_mutex_unlock(&maps.lock);
    if (!ready)
        return cp_fail(err, CP_IO, "%s: cannot install a SIGBUS handler", what);
    size_t whole, lead = (size_t)(offset & (maps.page - 1)), mapped;
    if (n == 0 || !cp_add(n, lead, &mapped) || !cp_add(mapped, maps.page - 1, &whole) ||
        offset > INT64_MAX - mapped)
        return cp_fail(err, CP_CORRUPT, "%s: cannot map %zu bytes at %llu", what, n,
                       (unsigned long long)offset);
    void *p = map_pages(mapped, fd, offset - lead);
    if (p == MAP_FAILED)
        return cp_fail(err, CP_IO, "%s: mmap of %zu bytes: %s", what, n, strerror(errno));
    whole &= ~(maps.page - 1);
    int slot = slot_take((uintptr_t)p, (uintptr_t)p + whole);
    if (slot < 0) {
        munmap(p, mapped);
        return cp_fail(err, CP_NO_MEMORY, "%s: more than %d mapped files", what, MAX_MAPS);
    }
    *m = (cp_map){.p = (const uint8_t *)p + lead, .n = n, .lead = lead, .slot = slot};
    return CP_OK;
}

/* See map.h. */
void cp_map_close(cp_map *m)
{
    if (!m->p)
        return;
    slot_give(m->slot);
    munmap((void *)((uintptr_t)m->p - m->lead), m->n + m->lead);
    *m = (cp_map){0};
}

/* See map.h. */
bool cp_map_poisoned(const cp_map *m)
{
    return m->p && atomic_load_explicit(&maps.slot[m->slot].poisoned, memory_order_relaxed);
}

/* See map.h. */
bool cp_map_lost(const void *p)
{
    bool lost = false;
    uintptr_t at = (uintptr_t)p;
    pthread_mutex_lock(&maps.lock);
    for (int i = 0; i < MAX_MAPS; i++) {
        const map_slot *s = &maps.slot[i]; /* relaxed: the lock keeps it as it is */
        if (maps.used[i] && at >= atomic_load_explicit(&s->start, memory_order_relaxed) &&
            at < atomic_load_explicit(&s->end, memory_order_relaxed))
            lost = atomic_load_explicit(&s->poisoned, memory_order_relaxed);
    }
    pthread_mutex_unlock(&maps.lock);
    return lost;
}

/* See map.h. */
void cp_map_willneed(const cp_map *m, size_t off)
{
    if (!m->p || off >= m->n)
        return;
    uintptr_t from = ((uintptr_t)m->p + off) & ~(maps.page - 1);
    madvise((void *)from, (uintptr_t)m->p + m->n - from, MADV_WILLNEED);
}

/* See map.h. */
void cp_map_want_huge(const cp_map *m)
{
    if (m->p)
        madvise((void *)((uintptr_t)m->p - m->lead), m->n + m->lead, MADV_HUGEPAGE);
}

/* See map.h. */
void cp_map_forget(const cp_map *m)
{
    if (m->p) /* nothing was ever written: every page is the file's, or a zero page of a poisoned
                 one */
        madvise((void *)((uintptr_t)m->p - m->lead), m->n + m->lead, MADV_DONTNEED);
}
