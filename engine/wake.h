/*
 * wake: how the engine thread sleeps, and how others wake it.
 */
#ifndef CP_ENGINE_WAKE_H
#define CP_ENGINE_WAKE_H

#include "engine/engine_internal.h"

void cp_engine_wake(cp_engine *e); /* any thread */
/* Sleeps for `ns`, or until somebody has woken it since e->wakes was `seen`. */
void cp_engine_sleep(cp_engine *e, uint32_t seen, int64_t ns);

#endif
