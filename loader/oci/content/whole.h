/*
 * Is all there that a model's weight files say belongs together? For a pull, which gives no name to
 * what cannot be opened.
 *
 * Pure functions, but for the blobs that cp_whole_files reads; any thread. Shards are told by their
 * names (NAME-00001-of-00003.gguf), and once the files are here by what they say themselves.
 */
#ifndef CP_LOADER_OCI_CONTENT_WHOLE_H
#define CP_LOADER_OCI_CONTENT_WHOLE_H

#include "loader/oci/content/files.h"

/* What a plan's chosen weight layers tell by size and name, before anything is fetched. CP_CORRUPT:
 * one has no bytes, or a shard is missing. */
cp_code cp_whole_layers(const cp_plan *plan, const cp_manifest *m, cp_err *err);
/* The same of listed files, and what their first bytes and metadata say. CP_CORRUPT: as above, or
 * one is no GGUF file. One that this version cannot parse is left to who opens it. */
cp_code cp_whole_files(const cp_layout *l, const cp_manifest *m, const cp_places *places,
                       const cp_files *files, cp_err *err);

#endif
