/* Every row of the machine's tables has a test, and does what the PTX ISA says. */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

static void test_no_row_is_untried(void **state)
{
    (void)state;
    size_t missing = 0;
    for (size_t n = 0; n < rowtest_n_rows(); n++) {
        if (rowtest_is_tried(n))
            continue;
        print_error("no test ran %s (%s)\n", rowtest_row(n)->text, rowtest_row(n)->shape);
        missing++;
    }
    assert_int_equal(missing, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--print") == 0) {
        rowtest_print();
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rowtest_values),         cmocka_unit_test(rowtest_setp),
        cmocka_unit_test(rowtest_matrices),       cmocka_unit_test(rowtest_warps),
        cmocka_unit_test(rowtest_memory),         cmocka_unit_test(rowtest_refusals),
        cmocka_unit_test(test_no_row_is_untried),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
