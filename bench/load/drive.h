/*
 * One run: requests are due, sent, answered, and followed by the next, until all that were asked
 * for are over or the interrupt comes. One thread. What is seen goes into a cp_load_meter.
 */
#ifndef CP_BENCH_LOAD_DRIVE_H
#define CP_BENCH_LOAD_DRIVE_H

#include "bench/load/ask.h"
#include "bench/load/meter.h"

typedef struct cp_load_plan {
    cp_load_client *client;
    const cp_load_config *cfg;
    const cp_load_prompts *prompts;
    const cp_load_shape *shape;
    double rate, rate_end, ramp_s; /* rate 0: closed loop */
    uint32_t places;               /* requests out at once at most */
    bool drop;                     /* open loop: what finds no place is dropped; else it waits */
    uint64_t requests, first_talk;
    bool scrape;               /* ask the server's /metrics beside */
    cp_load_progress progress; /* phase, rate and run are the caller's */
} cp_load_plan;

/* The meter is begun here. True: the interrupt came. */
bool cp_load_drive(const cp_load_plan *plan, const cp_load_slo *slo, cp_load_meter *meter,
                   cp_load_server *server);

#endif
