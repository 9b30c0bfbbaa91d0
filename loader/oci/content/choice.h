/*
 * Which of several complete models in one artifact is meant: GGUF files that differ by the
 * quantization in their names, pushed or copied side by side.
 *
 * Pure functions over names and sizes; any thread. Shards of one model (NAME-00001-of-00003.gguf)
 * are one alternative. Names that tell no quantization may be shards too, so without a request such
 * files all stay, and what they hold decides when they are opened.
 */
#ifndef CP_LOADER_OCI_CONTENT_CHOICE_H
#define CP_LOADER_OCI_CONTENT_CHOICE_H

#include "loader/oci/content/variant.h"
#include "loader/oci/store/layout.h"
#include "loader/packagings/packaging.h"

/* Why a file is ignored that was not chosen. */
#define CP_CHOICE_NOT_TAKEN "another of the artifact's models was taken"

typedef struct cp_choice_file {
    const char *path; /* "" or not *.gguf: it stays, whatever is chosen */
    uint64_t size;
    bool here; /* its bytes need not be fetched */
    bool keep; /* out */
} cp_choice_file;

/*
 * Keep one of the alternatives: the one that w->variant names (the quantization, the first
 * file's name, that without .gguf and shard number, KEY=VALUE with key quant or file), else of
 * those that are here, or of all if none is, the largest that fits. why: one line for the log, ""
 * when there was no choice. Errors as cp_variant_choose; CP_NOT_FOUND too when what was named is
 * not here although another is. w NULL: no wishes.
 */
cp_code cp_choice_among(cp_choice_file *f, size_t n, const cp_variant_wish *w, char why[256],
                        cp_err *err);

/* The same of a plan's weight layers; the others become CP_ROLE_IGNORED. l NULL: nothing counts as
 * here or missing. The wish stays in the plan, for what tars hold. */
cp_code cp_choice_of_layers(cp_plan *plan, const cp_manifest *m, const cp_layout *l,
                            const cp_variant_wish *w, char why[256], cp_err *err);

#endif
