/*
 * What people hand over in place of a GGUF file, said by name and with what to do about it:
 * archives (docker save, OCI archives), safetensors, folders. Only for error messages: nothing is
 * taken because of what is found here. Pure over bytes, or a look into one folder; any thread.
 */
#ifndef CP_LOADER_FORMATS_FOREIGN_H
#define CP_LOADER_FORMATS_FOREIGN_H

#include "base/code.h"

#include <stddef.h>
#include <stdint.h>

/* What the first n bytes of a file that is no GGUF are: "a tar archive". Static; NULL: not known.
 */
const char *cp_foreign_kind(const uint8_t *p, size_t n);
/* The first n bytes of a file are no GGUF. Always CP_CORRUPT: "is no GGUF file", and what it is
 * instead where that is known. */
cp_code cp_foreign_file(const uint8_t *p, size_t n, cp_err *err);
/* A folder stands where a file should. Always `code`: names the form or the file to give. */
cp_code cp_foreign_folder(const char *path, cp_code code, cp_err *err);

#endif
