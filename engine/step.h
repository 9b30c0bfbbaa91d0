/*
 * step: one step of one model, in two halves.
 */
#ifndef CP_ENGINE_STEP_H
#define CP_ENGINE_STEP_H

#include "engine/engine_internal.h"

/* Sweep, plan, gather, submit. A backend that works on its own has work then; on the CPU the work
 * is done when this returns. */
void cp_resident_begin_step(cp_engine *e, cp_resident *m);
/* Collect, commit. True: a step ran. What happened is still to be announced. */
bool cp_resident_end_step(cp_engine *e, cp_resident *m);

#endif
