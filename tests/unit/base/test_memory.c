/*
 * Memory of the machine: /proc/meminfo, bounded by either form of a cgroup's limit.
 */
#include "base/memory.h"
#include "tests/unit/base/suites.h"

#include <unistd.h>

#define GIB (UINT64_C(1) << 30)

static void the_least_of_machine_and_cgroup(void **state)
{
    (void)state;
    static const struct row {
        const char *meminfo, *v2, *v1;
        uint64_t total, available;
    } rows[] = {
        {"MemTotal: 8388608 kB\nMemFree: 5 kB\nMemAvailable:  2097152 kB\n", "max\n", "", 8 * GIB,
         2 * GIB},
        {"MemTotal: 8388608 kB\nMemAvailable: 2097152 kB\n", "1073741824\n", "", GIB, GIB},
        {"MemTotal: 8388608 kB\nMemAvailable: 2097152 kB\n", "3221225472\n", "", 3 * GIB, 2 * GIB},
        {"MemTotal: 8388608 kB\nMemAvailable: 2097152 kB\n", "", "9223372036854771712\n", 8 * GIB,
         2 * GIB},
        {"MemTotal: 8388608 kB\nMemAvailable: 2097152 kB\n", "", "1073741824\n", GIB, GIB},
        {"nothing of the kind\n", "max\n", "", 4 * GIB, 4 * GIB},
        {"", "1073741824\n", "", GIB, GIB},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[3][64];
        uint64_t total, available;
        temp_file(path[0], rows[i].meminfo);
        temp_file(path[1], rows[i].v2);
        temp_file(path[2], rows[i].v1);
        const char *const limits[2] = {*rows[i].v2 ? path[1] : "/nowhere",
                                       *rows[i].v1 ? path[2] : "/nowhere"};
        cp_memory_of(path[0], limits, &total, &available);
        assert_int_equal(total, rows[i].total);
        assert_int_equal(available, rows[i].available);
        for (int k = 0; k < 3; k++)
            unlink(path[k]);
    }
}

static void this_machine_has_some(void **state)
{
    (void)state;
    uint64_t total = 0, available = 0;
    cp_memory_host(&total, &available);
    assert_true(available > 0 && available <= total);
}

int suite_memory(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_least_of_machine_and_cgroup),
                                       cmocka_unit_test(this_machine_has_some)};
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
