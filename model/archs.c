/* The list of built architectures: the one place to extend (see arch.h). */
#include "model/arch.h"
#include "model/model.h"

const cp_arch *const cp_archs[] = {&cp_arch_llama, &cp_arch_gemma3, &cp_arch_lfm2, NULL};
static const char *const names[] = {"llama", "gemma3", "lfm2", NULL};

_Static_assert(sizeof cp_archs == sizeof names, "a name for each row");

const char *const *cp_model_archs(void)
{
    return names;
}
