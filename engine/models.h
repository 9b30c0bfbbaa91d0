/*
 * models: how models come into the engine and leave it. The table's functions are the engine
 * thread's, or of whoever has joined it.
 */
#ifndef CP_ENGINE_MODELS_H
#define CP_ENGINE_MODELS_H

#include "engine/engine_internal.h"

/* cp_engine_load with the model given as a bare program. */
cp_code cp_engine_load_program(cp_engine *e, const cp_engine_model *cfg, const cp_engine_desc *desc,
                               cp_resident **out, cp_err *err);
void cp_models_arrive(cp_engine *e); /* what was loaded comes into e->models */
void cp_models_retire(cp_engine *e); /* what has been drained leaves it */
void cp_models_free(cp_engine *e);   /* all of them; no thread runs */

#endif
