/*
 * Fault points: what CAPSTAN_FAULT names, and nothing else.
 */
#include "base/fault.h"
#include "tests/unit/base/suites.h"

#include <stdlib.h>

static void the_list_is_read_exactly(void **state)
{
    (void)state;
    setenv("CAPSTAN_FAULT", "bytes=700:kill,lock:fail,x=5:kill", 1);
    assert_int_equal(cp_fault_after("bytes"), 700);
    assert_int_equal(cp_fault_after("x"), 5);
    assert_true(cp_fault_after("byte") == UINT64_MAX);
    assert_true(cp_fault_after("lock") == UINT64_MAX);
    assert_true(cp_fault_fails("lock"));
    assert_false(cp_fault_fails("loc"));
    assert_false(cp_fault_fails("locks"));
    cp_fault_point("lock"); /* it fails there, it does not die */
    cp_fault_point("bytes");
    setenv("CAPSTAN_FAULT", "y=6:fail,x=5:kill", 1);
    assert_int_equal(cp_fault_fails_from("y"), 6);
    assert_true(cp_fault_fails_from("x") == UINT64_MAX);
    setenv("CAPSTAN_FAULT", "lock:failed", 1);
    assert_false(cp_fault_fails("lock"));
    unsetenv("CAPSTAN_FAULT");
    assert_false(cp_fault_fails("lock"));
    assert_true(cp_fault_after("bytes") == UINT64_MAX);
}

int suite_fault(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_list_is_read_exactly)};
    return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}
