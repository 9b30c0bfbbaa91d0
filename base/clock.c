/*
 * These clocks are thin wrappers over clock_gettime. CLOCK_MONOTONIC never steps, so differences of
 * cp_now_ns() are durations even while the wall clock is being set.
 */
#include "base/clock.h"

#include "base/str.h"

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

void cp_clock_text(char out[CP_CLOCK_TEXT])
{
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(out, CP_CLOCK_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
    cp_snprintf(out + n, CP_CLOCK_TEXT - n, ".%03dZ", (int)(ts.tv_nsec / 1000000));
}

struct timespec cp_clock_after(int ms)
{
    int64_t at = cp_now_ns() + (int64_t)ms * 1000000;
    return (struct timespec){.tv_sec = (time_t)(at / 1000000000),
                             .tv_nsec = (long)(at % 1000000000)};
}

void cp_clock_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}
