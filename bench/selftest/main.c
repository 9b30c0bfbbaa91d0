/*
 * selftest: the self-test alone, for a machine that has nothing else of capstan's.
 *     selftest [--device D] [--part P] [--seconds S] [--threads N] [--small] [--json]
 */
#include "bench/selftest/selftest.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static int usage(const char *why)
{
    fprintf(stderr,
            "selftest: %s\nusage: selftest [--device D] [--part P] [--seconds S] [--threads N] "
            "[--small] [--json]\nparts:",
            why);
    for (const char *const *part = cp_selftest_parts(); *part; part++)
        fprintf(stderr, " %s", *part);
    fputc('\n', stderr);
    return 2;
}

int main(int argc, char **argv)
{
    cp_selftest_config cfg = {.out = stdout};
    cp_err err = {0};
    int threads = 0;
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--small") == 0)
            cfg.small = true;
        else if (strcmp(argv[i], "--json") == 0)
            cfg.json = true;
        else if (!next)
            return usage("an option without its value, or one that there is not");
        else if (strcmp(argv[i++], "--device") == 0)
            cfg.device = next;
        else if (strcmp(argv[i - 1], "--part") == 0)
            cfg.part = next;
        else if (strcmp(argv[i - 1], "--seconds") == 0)
            cfg.seconds = strtod(next, NULL);
        else if (strcmp(argv[i - 1], "--threads") == 0)
            threads = (int)strtol(next, NULL, 10);
        else
            return usage("no such option");
    }
    bool ok = false;
    threads = threads > 0 ? threads : cp_pool_default_threads();
    cp_code rc = cp_pool_open(&cfg.pool, threads, &err);
    if (rc == CP_OK)
        rc = cp_selftest(&cfg, &ok, &err);
    cp_pool_close(cfg.pool);
    if (rc == CP_USAGE)
        return usage(err.msg);
    if (rc != CP_OK)
        fprintf(stderr, "selftest: %s\n", err.msg);
    return rc == CP_OK && ok ? 0 : 1;
}
