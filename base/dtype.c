/*
 * This file holds the table of weight types behind CP_DTYPES, indexed by GGUF's type id. Ids that
 * GGUF removed have no name and are reported as unknown.
 */
#include "base/dtype.h"

static const cp_dtype_row rows[CP_DTYPE_LIMIT] = {
#define X(name, id, elems, bytes) [id] = {#name, elems, bytes},
    CP_DTYPES(X)
#undef X
};

const cp_dtype_row *cp_dtype_info(uint32_t id)
{
    return id < CP_DTYPE_LIMIT && rows[id].name ? &rows[id] : NULL;
}
