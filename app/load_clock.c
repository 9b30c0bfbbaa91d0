/* This file times the phases of a load: see load_clock.h. */
#include "app/load_clock.h"

#include "base/clock.h"

#include <string.h>

/* The series of a phase, by its label; -1: it has none. */
static int series_of(const char *phase)
{
    char label[64];
    cp_snprintf(label, sizeof label, "phase=\"%s\"", phase);
    for (int id = CP_M_LOAD_RESOLVING; id <= CP_M_LOAD_WARMING; id++) {
        if (strcmp(cp_metric_info((cp_metric)id)->label, label) == 0) {
            return id;
        }
    }
    return -1;
}

void cp_load_clock_begin(cp_load_clock *c, cp_metrics *metrics, const char *phase)
{
    *c = (cp_load_clock){.metrics = metrics, .phase = series_of(phase), .since_ns = cp_now_ns()};
}

static void note(cp_load_clock *c)
{
    int64_t now = cp_now_ns(), us = (now - c->since_ns) / 1000;
    if (c->phase >= 0) {
        cp_metric_add(c->metrics, (cp_metric)c->phase, us);
    }
    c->since_ns += us * 1000;
}

void cp_load_clock_phase(cp_load_clock *c, const char *phase)
{
    note(c);
    c->phase = series_of(phase);
}

void cp_load_clock_end(cp_load_clock *c)
{
    note(c);
    c->phase = -1;
}
