/*
 * fibers: runs the blocks of a launch, one after another, and the threads of a block as fibers on
 * this one thread of the system. Warps take turns in an order by seed, lanes of a warp too; a fiber
 * gives way only where it waits. What cp.async brings is there when it was waited for, not before.
 */
#include "tests/fibers/fibers.cuh"

#include "tests/fibers/launch.cuh"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __asan_unpoison_memory_region(at, n)            ((void)0)
#define __sanitizer_start_switch_fiber(keep, stack, n)  ((void)0)
#define __sanitizer_finish_switch_fiber(keep, stack, n) ((void)0)
#endif

enum { STACK = 128 << 10 };
enum state { READY, AT_BARRIER, IN_WARP, ENDED };

struct copy {
    void *to;
    const void *from;
    unsigned n;
    bool committed_last; /* of its group */
};
struct task : fiber {
    void *sp, *fake_stack;
    state at;
    const char *file; /* where it waits */
    int line;
    std::vector<copy> copies;
    unsigned groups; /* committed and not waited for */
};
struct warp {
    uint32_t alive, mask, arrived;
    fibers_warp_fn *fn;
    const char *file;
    int line;
};

fiber *fibers_now;
uint3 fibers_block, fibers_block_dim, fibers_grid_dim;
char *fibers_dynamic_shared;

static task tasks[1024];
static warp warps[32];
static unsigned n_threads, n_alive, n_waiting;
static char *stacks;
static void *scheduler_sp, *scheduler_fake;
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
static jmp_buf out;
static char message[512];
static uint64_t random_state;
static const fibers_launch *launch;

extern "C" void fibers_switch(void **save, void *load);
__asm__(".text\n.globl fibers_switch\n.hidden fibers_switch\nfibers_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

static uint32_t draw(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % below);
}

static task *now(void)
{
    return (task *)fibers_now;
}

/* From a fiber to the loop of run_block(). */
static void give_way(void)
{
    task *t = now();
    __sanitizer_start_switch_fiber(t->at == ENDED ? NULL : &t->fake_stack, scheduler_stack,
                                   scheduler_stack_bytes);
    fibers_switch(&t->sp, scheduler_sp);
    __sanitizer_finish_switch_fiber(t->fake_stack, &scheduler_stack, &scheduler_stack_bytes);
}

void fibers_fail(const char *format, ...)
{
    char what[256];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof(what), format, list);
    va_end(list);
    const task *t = now();
    snprintf(message, sizeof(message), "fibers: %s: block %u %u %u, thread %u: %s (%s:%d)",
             launch->name, fibers_block.x, fibers_block.y, fibers_block.z, t ? t->thread.x : 0,
             what, t && t->file ? t->file : "begin", t ? t->line : 0);
    if (t) { /* this stack is left for good */
        now()->at = ENDED;
        give_way();
    }
    longjmp(out, 1);
}

static void fiber_main(void)
{
    __sanitizer_finish_switch_fiber(NULL, &scheduler_stack, &scheduler_stack_bytes);
    launch->call(launch->function, launch->params);
    task *t = now();
    if (!t->copies.empty())
        fibers_fail("ends with a cp.async that nobody waited for");
    t->at = ENDED;
    n_alive--;
    warps[t->warp].alive &= ~(1u << t->lane);
    give_way();
    abort();
}

static void begin_thread(unsigned i)
{
    task *t = &tasks[i];
    t->thread = {i % fibers_block_dim.x, i / fibers_block_dim.x % fibers_block_dim.y,
                 i / fibers_block_dim.x / fibers_block_dim.y};
    t->lane = (int)(i % 32);
    t->warp = (int)(i / 32);
    t->at = READY;
    t->file = NULL;
    t->line = 0;
    t->groups = 0;
    t->copies.clear();
    /* who ended here before did so within its frames */
    __asan_unpoison_memory_region(stacks + (size_t)i * STACK, STACK);
    void **sp = (void **)(stacks + (size_t)(i + 1) * STACK);
    *--sp = NULL;
    *--sp = (void *)fiber_main;
    t->sp = sp - 6;
    warps[i / 32].alive |= 1u << i % 32;
}

static void resume(task *t)
{
    fibers_now = t;
    __sanitizer_start_switch_fiber(&scheduler_fake, stacks + (t - tasks) * STACK, STACK);
    fibers_switch(&scheduler_sp, t->sp);
    __sanitizer_finish_switch_fiber(scheduler_fake, NULL, NULL);
    if (message[0])
        longjmp(out, 1);
    fibers_now = NULL;
}

/* The lanes of a warp until none of them can go on. True: one could. */
static bool run_warp(unsigned w)
{
    bool any = false;
    unsigned first = w * 32, n = n_threads - first < 32 ? n_threads - first : 32;
    for (bool again = true; again; any |= again) {
        again = false;
        unsigned turn = draw(n);
        for (unsigned i = 0; i < n; i++) {
            task *t = &tasks[first + (i + turn) % n];
            if (t->at == READY) {
                resume(t);
                again = true;
            }
        }
    }
    return any;
}

/* All that live have come to a barrier: the same one. */
static void pass_barrier(void)
{
    const task *one = NULL;
    for (unsigned i = 0; i < n_threads; i++) {
        task *t = &tasks[i];
        if (t->at != AT_BARRIER)
            continue;
        if (one && (one->line != t->line || strcmp(one->file, t->file) != 0))
            fibers_fail("threads %u and %u wait in two barriers, %s:%d and %s:%d", one->thread.x,
                        t->thread.x, one->file, one->line, t->file, t->line);
        one = t;
        t->at = READY;
    }
    if (n_alive != n_threads)
        fibers_fail("a barrier at %s:%d after %u threads have ended", one->file, one->line,
                    n_threads - n_alive);
    n_waiting = 0;
}

static void run_block(void)
{
    /* NaN in every format; by hand, as sanitizers watch the gaps between variables */
    char *at = launch->shared_first;
    size_t n = (size_t)(launch->shared_end - at);
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(0xff) : "memory");
    fibers_dynamic_shared = (char *)aligned_alloc(128, (launch->shared + 255) / 128 * 128);
    memset(fibers_dynamic_shared, 0xff, launch->shared);
    memset(warps, 0, sizeof(warps));
    n_alive = n_threads;
    n_waiting = 0;
    for (unsigned i = 0; i < n_threads; i++)
        begin_thread(i);
    unsigned n_warps = (n_threads + 31) / 32;
    while (n_alive) {
        bool any = false;
        for (unsigned i = 0, turn = draw(n_warps); i < n_warps; i++)
            any |= run_warp((i + turn) % n_warps);
        if (n_alive && n_waiting == n_alive)
            pass_barrier();
        else if (!any)
            fibers_fail("%u of %u threads wait in a barrier, the others elsewhere", n_waiting,
                        n_alive);
    }
    free(fibers_dynamic_shared);
    fibers_dynamic_shared = NULL;
}

void fibers_syncthreads(const char *file, int line)
{
    task *t = now();
    t->file = file;
    t->line = line;
    t->at = AT_BARRIER;
    n_waiting++;
    give_way();
}

void fibers_warp(uint32_t mask, void *slot, fibers_warp_fn *fn, const char *file, int line)
{
    task *t = now();
    warp *w = &warps[t->warp];
    t->slot = slot;
    t->file = file;
    t->line = line;
    if (!(mask >> t->lane & 1))
        fibers_fail("lane %d is not in its own mask %08x", t->lane, mask);
    if (mask & ~w->alive)
        fibers_fail("mask %08x names lanes that have ended; alive: %08x", mask, w->alive);
    if (!w->arrived)
        *w = {w->alive, mask, 0, fn, file, line};
    else if (w->mask != mask || w->fn != fn || w->line != line)
        fibers_fail("another lane waits with mask %08x in %s:%d", w->mask, w->file, w->line);
    w->arrived |= 1u << t->lane;
    if (w->arrived != mask) {
        t->at = IN_WARP;
        give_way();
        return;
    }
    fiber *lane[32];
    for (int i = 0; i < 32; i++)
        lane[i] = &tasks[t->warp * 32 + i];
    fn(lane, mask);
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            ((task *)lane[i])->at = READY;
    w->arrived = 0;
}

void fibers_async(void *to, const void *from, unsigned n)
{
    if (((uintptr_t)to | (uintptr_t)from) % 16 || (n && n != 16))
        fibers_fail("cp.async of %u bytes from %p to %p", n, from, to);
    now()->copies.push_back({to, from, n, false});
}

void fibers_async_commit(void)
{
    task *t = now();
    t->groups++;
    if (t->copies.empty() || t->copies.back().committed_last)
        t->copies.push_back({NULL, NULL, 0, true}); /* an empty group */
    t->copies.back().committed_last = true;
}

void fibers_async_wait(unsigned pending)
{
    task *t = now();
    size_t done = 0;
    for (; t->groups > pending; done++) {
        const copy &c = t->copies[done];
        if (c.to && c.n)
            memcpy(c.to, c.from, 16);
        else if (c.to)
            memset(c.to, 0, 16);
        t->groups -= c.committed_last;
    }
    t->copies.erase(t->copies.begin(), t->copies.begin() + (long)done);
}

bool fibers_run(const fibers_launch *l, char *err, size_t n_err)
{
    launch = l;
    message[0] = 0;
    random_state = l->seed;
    n_threads = l->block.x * l->block.y * l->block.z;
    fibers_block_dim = l->block;
    fibers_grid_dim = l->grid;
    if (!stacks)
        stacks = (char *)mmap(NULL, 1024 * (size_t)STACK, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (setjmp(out)) {
        free(fibers_dynamic_shared);
        fibers_dynamic_shared = NULL;
        fibers_now = NULL;
        snprintf(err, n_err, "%s", message);
        return false;
    }
    for (fibers_block.z = 0; fibers_block.z < l->grid.z; fibers_block.z++)
        for (fibers_block.y = 0; fibers_block.y < l->grid.y; fibers_block.y++)
            for (fibers_block.x = 0; fibers_block.x < l->grid.x; fibers_block.x++)
                run_block();
    return true;
}
