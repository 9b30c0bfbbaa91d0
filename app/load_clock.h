/*
 * load_clock: how long each phase of a model's load takes, for capstan_model_load_seconds.
 *
 * A value of the loading thread's. Phases are those that progress names; a load may come back to
 * one.
 */
#ifndef CP_APP_LOAD_CLOCK_H
#define CP_APP_LOAD_CLOCK_H

#include "base/metrics.h"

typedef struct cp_load_clock {
    cp_metrics *metrics; /* borrowed */
    int phase;           /* the series of the phase under way; -1: of none that is shown */
    int64_t since_ns;
} cp_load_clock;

void cp_load_clock_begin(cp_load_clock *c, cp_metrics *metrics, const char *phase);
/* The time so far belongs to the phase before; the same phase again: the time so far is shown. */
void cp_load_clock_phase(cp_load_clock *c, const char *phase);
/* The load is over. */
void cp_load_clock_end(cp_load_clock *c);

#endif
