/*
 * What a packaging brings beyond weights: a chat template, sampling options, a context length, and
 * notes about what was chosen and what is left out.
 *
 * A caller-owned value that owns its texts; immutable once read. loader.c's only.
 */
#ifndef CP_LOADER_EXTRAS_H
#define CP_LOADER_EXTRAS_H

#include "loader/oci/resolve.h"

enum {
    CP_PARAMS_MAX_BYTES = 64 << 10, /* of sampling options */
    CP_NOTES_MAX = 64,
};

typedef struct cp_extras {
    cp_buf chat_template, params; /* n = 0: none */
    int64_t context_size;         /* 0: none */
    char *notes[CP_NOTES_MAX];
    size_t n_notes;
} cp_extras;

/* From a prepared r. CP_CORRUPT: options that are no JSON object, a text that is too long. */
cp_code cp_extras_read(cp_extras *x, const cp_resolved *r, bool verify_always, cp_err *err);
void cp_extras_fini(cp_extras *x);

typedef void cp_ignored_fn(void *arg, const char *line);
/* The line that says why file f of m is ignored. */
void cp_ignored_file(const cp_manifest *m, const cp_file *f, const char *why, cp_ignored_fn *tell,
                     void *arg);
/* Tell of GGUF files beside one given by path which by their names belong to a model and are none:
 * an encoder, a drafter. */
void cp_ignored_neighbours(const char *path, cp_ignored_fn *tell, void *arg);

#endif
