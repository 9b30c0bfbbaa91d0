/* The program builder; private to model/. */
#ifndef CP_MODEL_BUILDER_H
#define CP_MODEL_BUILDER_H

#include "model/hparams.h"

/* Fill g (zeroed first) for p over file's tensors. inv_full, inv_window: n_rot / 2 inverse
 * frequencies that outlive g. Errors as cp_model_open; g must be given to cp_program_fini in any
 * case. */
cp_code cp_program_build(cp_program *g, const cp_params *p, const cp_loaded *file,
                         const float *inv_full, const float *inv_window, cp_err *err);
void cp_program_fini(cp_program *g);

#endif
