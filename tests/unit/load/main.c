/* test_load: runs every suite of bench/load. A suite's name as argument runs that one alone. */
#include "tests/unit/load/suites.h"

#include <string.h>

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } suites[] = {{"hist", suite_hist},     {"arrivals", suite_arrivals},
                  {"spec", suite_spec},     {"sse", suite_sse},
                  {"stream", suite_stream}, {"prompts", suite_prompts},
                  {"scrape", suite_scrape}, {"meter", suite_meter}};
    int failures = 0;
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        if (argc < 2 || strcmp(argv[1], suites[i].name) == 0)
            failures += suites[i].run();
    }
    return failures ? 1 : 0;
}
