/*
 * clock: tells monotonic time, which all timers and deadlines use; the wall clock is only printed.
 * Any thread may ask.
 */
#ifndef CP_BASE_CLOCK_H
#define CP_BASE_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

int64_t cp_now_ns(void);   /* CLOCK_MONOTONIC */
int64_t cp_wall_sec(void); /* CLOCK_REALTIME, seconds */
enum { CP_CLOCK_TEXT = 32 };
/* CLOCK_REALTIME as lines of logs have it: "2026-12-01T07:50:18.123Z". */
void cp_clock_text(char out[CP_CLOCK_TEXT]);
/* CLOCK_MONOTONIC in ms >= 0 milliseconds, as waits with a deadline want it. */
struct timespec cp_clock_after(int ms);
/* A condition for such waits: by default they are of the wall clock. */
void cp_clock_cond_init(pthread_cond_t *c);

#endif
