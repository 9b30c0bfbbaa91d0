/*
 * pages: the kv-cache alone, driven by a seed, with two steps in flight.
 *
 * Sequences come (a prefix hit, a fork), take steps of some rows, and go, whatever is in flight.
 * Half of a step's rows are drafts of which some turn out wrong: they are truncated. The scheduler
 * would ask for less (it forks no drafts); here every order of calls that kv.h allows is drawn. A
 * shadow of pages and slots says what a row would read; any breach ends in CP_ASSERT with its
 * number.
 */
#ifndef CP_TESTS_SIM_PAGES_H
#define CP_TESTS_SIM_PAGES_H

#include "tests/sim/sim.h"

typedef struct pages_result {
    cp_kv_stats kv;
    int64_t truncations, hits, forks;
} pages_result;

/* The groups, page size and pools of `shape`. in_order: a step is called done as soon as it was
 * sent, as where a backend keeps the order of steps; else when the next but one is planned, at the
 * latest. */
void pages_run(const sim_config *shape, bool in_order, uint64_t seed, int64_t steps,
               pages_result *out);

#endif
