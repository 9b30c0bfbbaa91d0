/*
 * region: the part of a document that a program writes, between two markers,
 *
 *     <!-- NAME: written by PROGRAM -->
 *     ...
 *     <!-- NAME end -->
 *
 * For the makers of documents (gen_api, gen_models), which run when the tree is built.
 */
#ifndef CP_BASE_REGION_H
#define CP_BASE_REGION_H

#include "base/mem.h"

/* Put `text` between the markers of the file; with `check` only compare. Returns an exit status: 0
 * when the file has it, else 1, and says on stderr why. */
int cp_region_write(const char *path, const char *name, const char *program, const cp_buf *text,
                    bool check);

#endif
