/*
 * loop: the engine thread.
 */
#ifndef CP_ENGINE_LOOP_H
#define CP_ENGINE_LOOP_H

#include "engine/engine_internal.h"

void *cp_loop_main(void *e); /* the thread's function; returns when e->stopping */
/* All that was submitted ends with `code`. On the engine thread, or after it has been joined. */
void cp_loop_fail_all(cp_engine *e, cp_code code);

#endif
