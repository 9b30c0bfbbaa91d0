/* version: what this binary is; with -v what it can do on this machine. */
#include "app/command.h"
#include "app/compose.h"

#include <stdio.h>

const char *cp_app_version(void)
{
    return CAPSTAN_VERSION " (" CAPSTAN_COMMIT ")";
}

const char *cp_app_build(void)
{
    return CAPSTAN_VERSION "-" CAPSTAN_COMMIT;
}

static void print_line(void *arg, const char *text)
{
    (void)arg;
    printf("  %s\n", text);
}

int cp_cmd_version(const cp_options *o)
{
    printf("capstan %s\n", cp_app_version());
    if (!o->verbose) {
        return 0;
    }
    cp_err err = {0};
    cp_backend *b;
    cp_backend_config cfg = {0};
    if (cp_backend_open(&b, "cpu", &cfg, &err)) {
        return cp_app_fail(&err);
    }
    printf("backends: cpu ref\nisa level: %s\nthreads: %d\nlibraries: %s\narchitectures:",
           cp_backend_level(b), cp_pool_default_threads(), CAPSTAN_LIBRARIES);
    for (const char *const *a = cp_model_archs(); *a; a++) {
        printf(" %s", *a);
    }
    puts("\nkernels (operation, types, level):");
    cp_kernels_describe(print_line, NULL);
    cp_backend_close(b);
    return 0;
}
