/*
 * front: the table of functions through which the front end sees the engine.
 */
#ifndef CP_ENGINE_FRONT_H
#define CP_ENGINE_FRONT_H

#include "engine/engine_internal.h"

cp_engine_api cp_front_table(cp_engine *e);

#endif
