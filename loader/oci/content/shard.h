/*
 * Names of the files that a split model has: which are shards of one set, and which number each is.
 * A pure function over a path; any thread. What the files say of themselves is not looked at.
 */
#ifndef CP_LOADER_OCI_CONTENT_SHARD_H
#define CP_LOADER_OCI_CONTENT_SHARD_H

#include <stdbool.h>
#include <stddef.h>

/* A shard's place by its name: PREFIX-%05d-of-%05d.gguf. The prefix has *n_prefix bytes, no counts
 * from 1. False: the name is not of that form. */
bool cp_shard_name(const char *path, size_t *n_prefix, unsigned *no, unsigned *count);

#endif
