/* All groups of the server's tests in one binary. An argument names a group to run alone. */
#include "harness.h"

#include <signal.h>
#include <string.h>

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } groups[] = {{"stops", run_stops_tests},   {"params", run_params_tests},
                  {"fields", run_fields_tests}, {"templates", run_template_tests},
                  {"auth", run_auth_tests},     {"mhd", run_mhd_tests},
                  {"http", run_http_tests},     {"openai", run_openai_tests},
                  {"oip", run_oip_tests},       {"life", run_life_tests},
                  {"budget", run_budget_tests}, {"served", run_served_tests},
                  {"admin", run_admin_tests},   {"watch", run_watch_tests}};
    int failed = 0;
    (void)signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        if (argc < 2 || strcmp(argv[1], groups[i].name) == 0)
            failed += groups[i].run();
    return failed ? 1 : 0;
}
