/*
 * wake: a futex. Producers bump `wakes`, and wake the thread if it said that it sleeps.
 */
#include "engine/wake.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void cp_engine_wake(cp_engine *e)
{
    /* seq_cst pairs with the sleeper: either it sees the bump, or we see it asleep */
    atomic_fetch_add(&e->wakes, 1);
    if (atomic_load(&e->asleep))
        syscall(SYS_futex, &e->wakes, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void cp_engine_sleep(cp_engine *e, uint32_t seen, int64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    atomic_store(&e->asleep, true);
    if (atomic_load(&e->wakes) == seen)
        syscall(SYS_futex, &e->wakes, FUTEX_WAIT_PRIVATE, seen, &ts, NULL, 0);
    atomic_store(&e->asleep, false);
}
