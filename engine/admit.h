/*
 * admit: who may start in this step.
 */
#ifndef CP_ENGINE_ADMIT_H
#define CP_ENGINE_ADMIT_H

#include "engine/state.h"

/* Admit waiting entries, oldest first, as rows, slots and pages allow; what starts has its rows. */
void cp_admit(cp_sched *s);

#endif
