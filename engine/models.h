/*
 * models: what the engine holds of a model, from its bytes of memory to its scheduler.
 */
#ifndef CP_ENGINE_MODELS_H
#define CP_ENGINE_MODELS_H

#include "engine/engine_internal.h"

/* The backend's wish for this engine's pages. */
int cp_engine_page_positions(const cp_engine *e);
/* cp_engine_add_model with the model given as a bare program. */
cp_code cp_engine_add_program(cp_engine *e, const cp_engine_model *m, const cp_engine_desc *desc,
                              int *index, cp_err *err);
/* The model of this index; NULL: there is none. Any thread. */
cp_resident *cp_models_at(const cp_engine *e, int index);
void cp_models_free(cp_engine *e); /* all of them; no thread runs */

#endif
