/*
 * resident: what the engine holds of one model, from its memory to its scheduler.
 */
#ifndef CP_ENGINE_RESIDENT_H
#define CP_ENGINE_RESIDENT_H

#include "engine/engine_internal.h"

/* How cfg's program is prepared, but for the counts of pages and state slots, which are none. */
cp_prepare_config cp_resident_prepare_config(const cp_engine_model *cfg, const cp_engine_desc *d,
                                             int page_positions);
/* Memory, packed weights, pages, scheduler. On an error nothing is left. Any thread. */
cp_code cp_resident_open(cp_engine *e, cp_resident **out, const cp_engine_model *cfg,
                         const cp_engine_desc *d, cp_err *err);
void cp_resident_free(cp_engine *e, cp_resident *m); /* no task is left; NULL is fine */

#endif
