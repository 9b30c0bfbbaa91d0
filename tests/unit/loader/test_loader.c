/*
 * Runs the loader's suites.
 */
#include "tests/unit/loader/suites.h"

int main(void)
{
    int failed = cp_suite_gguf();
    failed += cp_suite_packagings();
    failed += cp_suite_reference();
    failed += cp_suite_store();
    return failed != 0;
}
