/* The program builder; private to model/. */
#ifndef CP_MODEL_BUILDER_H
#define CP_MODEL_BUILDER_H

#include "model/hparams.h"

/* Fill g (zeroed first) for p over file's tensors. inv_full, inv_window: n_rot / 2 inverse
 * frequencies that outlive g. Errors as cp_model_open; g must be given to cp_program_fini in any
 * case. */
cp_code cp_program_build(cp_program *g, const cp_model_params *p, const cp_loaded *file,
                         const float *inv_full, const float *inv_window, cp_err *err);
void cp_program_fini(cp_program *g);

/* ---- groups.c ---- */
/* Paged groups that a model may have at most. Of models of this time the one with most work a group
 * (gemma-3 27B, 10 full and 52 window layers) then leaves 3 of 65 places of its pages empty. */
#define CP_PAGED_GROUPS 16
/* Layers that cache alike. */
typedef struct cp_layer_class {
    cp_kv_group like; /* its n_layers: places in a page */
    int n;            /* layers in all */
} cp_layer_class;
/* Sets the places in a page of n paged classes (1 to max_groups): those that leave the smallest
 * share of pages empty, with at most max_groups groups. The share is taken of a short sequence's
 * pages and of a long one's, and the larger counts. */
void cp_layers_per_page(cp_layer_class *c, int n, int max_groups);
/* Sets groups and n_groups of g: full, then window groups, then one of recurrent layers; place[i] =
 * {group, layer in group} of layer i, which is another layer's where it shares its cache.
 * CP_UNSUPPORTED: too many ways to cache, no attention layer. */
cp_code cp_layer_groups(cp_program *g, const cp_model_params *p, int (*place)[2], cp_err *err);

#endif
