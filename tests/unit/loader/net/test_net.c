/* Runs the suites of the registry client. */
#include "tests/unit/loader/net/suites.h"

int main(void)
{
    int failed = cp_suite_challenge();
    failed += cp_suite_credentials();
    failed += cp_suite_http();
    failed += cp_suite_policy();
    failed += cp_suite_registry();
    return failed != 0;
}
