/* The list of built architectures: see arch.h. */
#include "model/arch.h"
#include "model/model.h"

#define ROW(name) &cp_arch_##name,
const cp_arch *const cp_archs[] = {CP_ARCHS(ROW) NULL};
#undef ROW

const char *cp_model_arch(int i)
{
    return cp_archs[i] ? cp_archs[i]->name : NULL;
}
