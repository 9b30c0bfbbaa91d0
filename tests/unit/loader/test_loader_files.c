/*
 * Runs the suites about what lies in layers and behind indexes: manifests, tars, extraction,
 * images, variants, digests.
 */
#include "tests/unit/loader/suites.h"

int main(void)
{
    int failed = cp_suite_manifests();
    failed += cp_suite_tar();
    failed += cp_suite_extract();
    failed += cp_suite_files();
    failed += cp_suite_variant();
    failed += cp_suite_index();
    return failed != 0;
}
