/*
 * A budget is three numbers under a mutex. Only cp_account_begin waits, on a condition that every
 * end of work and every return of memory signals while somebody waits.
 */
#include "base/budget.h"

#include "base/alloc.h"
#include "base/code.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    ARRIVING_PART = 4,       /* what arrives has a quarter */
    MALLOC_MAPS = 128 << 10, /* from this size on a block is pages of its own */
    PAGE = 4096,
    SMALL_BYTES = 16 << 10, /* arrive as long as there is any room */
    EBB_LEAST = 16 << 20    /* a tide worth noticing */
};

struct cp_budget {
    _Atomic uint64_t limit; /* written under the lock */
    pthread_mutex_t lock;   /* guards what follows */
    pthread_cond_t freed;
    uint64_t used, arriving, peak;
    uint64_t working, ended; /* works going on, and those that are over */
    int waiting;
};

cp_budget *cp_budget_new(uint64_t limit_bytes)
{
    cp_budget *b = cp_xcalloc(1, sizeof(*b));
    b->limit = limit_bytes;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->freed, NULL);
    return b;
}

void cp_budget_free(cp_budget *b)
{
    if (!b)
        return;
    CP_ASSERT(b->used == 0 && b->arriving == 0 && b->working == 0);
    pthread_cond_destroy(&b->freed);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

uint64_t cp_budget_limit(const cp_budget *b)
{
    return b->limit;
}

void cp_budget_set_limit(cp_budget *b, uint64_t limit_bytes)
{
    pthread_mutex_lock(&b->lock);
    b->limit = limit_bytes;
    pthread_cond_broadcast(&b->freed);
    pthread_mutex_unlock(&b->lock);
}

uint64_t cp_budget_arriving_max(const cp_budget *b)
{
    return b->limit / ARRIVING_PART;
}

uint64_t cp_budget_used(cp_budget *b)
{
    pthread_mutex_lock(&b->lock);
    uint64_t used = b->used;
    pthread_mutex_unlock(&b->lock);
    return used;
}

bool cp_budget_ebbed(cp_budget *b)
{
    pthread_mutex_lock(&b->lock);
    bool ebbed = b->peak > EBB_LEAST && b->used < b->peak / 8;
    if (ebbed)
        b->peak = b->used;
    pthread_mutex_unlock(&b->lock);
    return ebbed;
}

size_t cp_malloc_bytes(size_t n)
{
    size_t all;
    if (!cp_add(n, PAGE + 16, &all))
        return SIZE_MAX;
    if (n >= MALLOC_MAPS)
        return (n + 16 + PAGE - 1) & ~(size_t)(PAGE - 1);
    all = (n + 8 + 15) & ~(size_t)15;
    return all < 32 ? 32 : all;
}

/* Under the lock: n more bytes, if they fit. */
static bool fits(const cp_budget *b, const cp_account *a, uint64_t n)
{
    uint64_t limit = b->limit; /* may have come to lie below what is used */
    if (b->used > limit || n > limit - b->used)
        return false;
    return !a->arriving || a->held + n <= SMALL_BYTES ||
           b->arriving + n <= cp_budget_arriving_max(b);
}

static void add(cp_budget *b, cp_account *a, uint64_t n)
{
    a->held += n;
    b->used += n;
    b->arriving += a->arriving ? n : 0;
    if (b->used > b->peak)
        b->peak = b->used;
}

static bool refuse(cp_account *a, uint64_t n)
{
    const cp_budget *b = a->budget;
    uint64_t most = a->arriving ? cp_budget_arriving_max(b) : b->limit;
    a->refused = true;
    a->never = a->never || n > most || a->held > most - n;
    return false;
}

bool cp_account_take(cp_account *a, size_t n)
{
    cp_budget *b = a->budget;
    if (!b)
        return true;
    uint64_t own = n < a->reserve ? n : a->reserve, more = n - own;
    bool ok = true;
    if (more > 0) {
        pthread_mutex_lock(&b->lock);
        ok = fits(b, a, more);
        if (ok)
            add(b, a, more);
        pthread_mutex_unlock(&b->lock);
    }
    if (!ok)
        return refuse(a, more);
    a->reserve -= own;
    return true;
}

void cp_account_give(cp_account *a, size_t n)
{
    cp_budget *b = a->budget;
    if (!b || n == 0)
        return;
    CP_ASSERT(n <= a->held - a->reserve);
    pthread_mutex_lock(&b->lock);
    a->held -= n;
    b->used -= n;
    b->arriving -= a->arriving ? n : 0;
    if (b->waiting > 0)
        pthread_cond_broadcast(&b->freed);
    pthread_mutex_unlock(&b->lock);
}

bool cp_account_begin(cp_account *a, size_t n)
{
    cp_budget *b = a->budget;
    if (!b)
        return true;
    CP_ASSERT(!a->working);
    pthread_mutex_lock(&b->lock);
    if (a->arriving)
        b->arriving -= a->held;
    a->arriving = false;
    uint64_t limit = b->limit;
    bool never = n > limit || a->held > limit - n;
    uint64_t until = b->ended + b->working; /* what began later is not waited for */
    b->waiting++;
    while (!never && !fits(b, a, n) && b->ended < until)
        pthread_cond_wait(&b->freed, &b->lock);
    b->waiting--;
    bool ok = !never && fits(b, a, n);
    if (ok) {
        add(b, a, n);
        b->working++;
        a->working = true;
        a->reserve = n;
    }
    pthread_mutex_unlock(&b->lock);
    return ok || refuse(a, n);
}

void cp_account_end(cp_account *a)
{
    cp_budget *b = a->budget;
    if (!b || !a->working)
        return;
    pthread_mutex_lock(&b->lock);
    a->held -= a->reserve;
    b->used -= a->reserve;
    a->reserve = 0;
    a->working = false;
    b->working--;
    b->ended++;
    pthread_cond_broadcast(&b->freed);
    pthread_mutex_unlock(&b->lock);
}

void cp_account_move(cp_account *to, cp_account *from)
{
    CP_ASSERT(to->held == 0 && !from->working);
    *to = *from;
    *from = (cp_account){.budget = to->budget};
}

void cp_account_close(cp_account *a)
{
    cp_account_end(a);
    cp_account_give(a, a->held);
}
