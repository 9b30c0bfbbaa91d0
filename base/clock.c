/*
 * Clocks: thin wrappers over clock_gettime. CLOCK_MONOTONIC never steps, so differences of
 * cp_now_ns() are durations even while the wall clock is being set.
 */
#include "base/clock.h"

#include <time.h>

int64_t cp_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t cp_wall_sec(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec;
}
