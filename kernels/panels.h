/*
 * panels: the packed weights of one model, from files that all processes map, or in memory.
 *
 * A cp_panels belongs to one prepared program. What is packed into it lies there, immutable, until
 * it is closed; any thread may read it. It hides where files lie and how they are named, checked
 * and made (panel_file.h); the layout of a panel stands in unpack.h. Internal to kernels.
 */
#ifndef CP_KERNELS_PANELS_H
#define CP_KERNELS_PANELS_H

#include "kernels/kernels.h"

typedef struct cp_panels cp_panels;

/* Bytes of panels that a run of the pool packs for each of its threads (and at most a panel or 256
 * KiB more): some milliseconds at most, after which a step that waits has its turn. */
#define CP_PANELS_SLICE ((size_t)1 << 20)

/*
 * Files lie in folders under the model's key: looked for in read_dir (NULL: none), which is never
 * written, then in dir, where what is found nowhere is packed to. dir NULL: memory; "": wanted, and
 * there is none, which is logged as every other reason for memory is.
 */
typedef struct cp_panels_config {
    const char *read_dir, *dir, *key;
    cp_cache_check check;
    const _Atomic bool *cancel;       /* true: packing ends after the slice at hand; NULL: never */
    const struct cp_panel_door *door; /* see panel_file.h; NULL: this process opens them */
} cp_panels_config;
void cp_panels_open(cp_panels **out, const cp_panels_config *cfg); /* NULL: memory */
void cp_panels_close(cp_panels *p);

/* Told of tensor i of the list where its panels lie, cp_panel_bytes() apart: ceil(ne1 / 16) of each
 * of its ne2 matrices, one after another. */
typedef void cp_panels_sink(void *arg, int i, const uint8_t *panels);
/* Pack the tensors, one matrix or several, of types that have a panel kind, or map those that are
 * packed already, using pool when not NULL, and tell sink of each. Equal tensors lie there once.
 * Blocking; any thread. CP_NO_MEMORY; CP_CORRUPT: what check found, or the model's file shrank;
 * CP_CANCELLED. CP_OK without a word to sink: the check wants nothing to be packed. The pool is
 * taken for a slice at a time. */
cp_code cp_panels_pack(cp_panels *p, const cp_tensor *const *tensors, int n, cp_pool *pool,
                       cp_panels_sink *sink, void *arg, cp_err *err);
/* What these tensors' panels take, wherever they come to lie. CP_NO_MEMORY on overflow. Pure. */
cp_code cp_panels_measure(const cp_tensor *const *tensors, int n, size_t *bytes, cp_err *err);
/* CP_MODEL_FAILED: bytes of a mapped file were lost since (base/map.h). Any thread. */
cp_code cp_panels_lost(const cp_panels *p, cp_err *err);
size_t cp_panels_bytes(const cp_panels *p);

#endif
