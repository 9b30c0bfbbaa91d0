/*
 * test_base: runs every suite of base. A suite's name as argument runs that one alone.
 */
#include "tests/unit/base/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void temp_file(char path[64], const char *text)
{
    snprintf(path, 64, "/tmp/capstan-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    size_t n = strlen(text);
    assert_int_equal(write(fd, text, n), (ssize_t)n);
    close(fd);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } suites[] = {{"budget", suite_budget}, {"code", suite_code},       {"mem", suite_mem},
                  {"log", suite_log},       {"digest", suite_digest},   {"meta", suite_meta},
                  {"queue", suite_queue},   {"jobs", suite_jobs},       {"pool", suite_pool},
                  {"toml", suite_toml},     {"options", suite_options}, {"metrics", suite_metrics},
                  {"map", suite_map},       {"io", suite_io},           {"fault", suite_fault},
                  {"trust", suite_trust},   {"utf8", suite_utf8},       {"memory", suite_memory},
                  {"append", suite_append}};
    int failures = 0;
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        if (argc < 2 || strcmp(argv[1], suites[i].name) == 0)
            failures += suites[i].run();
    }
    return failures ? 1 : 0;
}
