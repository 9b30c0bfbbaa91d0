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

/* ---- groups.c ---- */
/* Paged groups that a model may have at most. Of models of this time the one with most work a group
 * (gemma-3 27B, 10 full and 52 window layers) then leaves 3 of 65 places of its pages empty. */
#define CP_PAGED_GROUPS 16
/* Layers that a page holds for a model of so many full and window layers (not both 0): the number
 * that leaves the smallest share of places empty, with at most max_groups (>= 2) groups. The share
 * is taken of a short sequence's pages and of a long one's, and the larger counts. */
int cp_layers_per_page(int n_full, int n_window, int max_groups);
/* Sets groups and n_groups of g: full, then window groups, then one of recurrent layers; place[i] =
 * {group, layer in group} of layer i. CP_UNSUPPORTED: unequal pages, no attention layer. */
cp_code cp_layer_groups(cp_program *g, const cp_params *p, int (*place)[2], cp_err *err);

#endif
