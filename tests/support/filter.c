/* Linked into every cmocka binary: CP_TEST='test_slow_*' runs the tests of that name alone (* and ?
 * are wildcards). In the environment, so that it reaches a binary through ctest as well. */
#include "tests/support/cmocka.h"

#include <stdlib.h>

__attribute__((constructor)) static void choose(void)
{
    const char *pattern = getenv("CP_TEST");
    if (pattern && *pattern)
        cmocka_set_test_filter(pattern);
}
