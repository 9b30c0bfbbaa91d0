/*
 * Runs the suites about what lies in layers: manifests, tars, extraction, images, variants.
 */
#include "tests/unit/loader/suites.h"

int main(void)
{
    int failed = cp_suite_manifests();
    failed += cp_suite_tar();
    failed += cp_suite_extract();
    failed += cp_suite_files();
    failed += cp_suite_variant();
    return failed != 0;
}
