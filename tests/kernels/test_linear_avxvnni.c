/*
 * test_linear_avxvnni: the avxvnni micro-kernels on any machine with AVX2, their dot product
 * emulated: every weight type and row count gives the bits of the base level. Skips, aloud, without
 * AVX2. Where a machine has the level, test_linear and the others run it as it is.
 */
#include "kernels/cpu/isa.h"
#include "kernels/math.h"
#include "tests/kernels/avxvnni.h"
#include "tests/kernels/weights.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/wide.inc"

static void test_panels(void **state)
{
    (void)state;
#if defined(__x86_64__)
    if (cp_isa_there(CP_ISA_AVX2)) {
        cp_gemm_table base, vnni;
        cp_isa_gemm(&base, CP_ISA_BASE);
        cp_isa_gemm(&vnni, CP_ISA_AVX2);
        rig_fill_avxvnni(&vnni);
        for (int i = 0; cp_test_types[i] >= 0; i++)
            check_type(&base, &vnni, (cp_dtype)cp_test_types[i]);
        return;
    }
#endif
    print_message("SKIPPED: needs x86-64 with AVX2\n");
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_panels)};
    return cmocka_run_group_tests_name("linear avxvnni", tests, NULL, NULL);
}
