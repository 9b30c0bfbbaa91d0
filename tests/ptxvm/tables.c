/* All tables of opcodes. */
#include "tests/ptxvm/machine.h"

const ptx_row *const *ptx_tables(void)
{
    static const ptx_row *const tables[] = {ptx_rows_memory, ptx_rows_async, ptx_rows_flow, NULL};
    return tables;
}
