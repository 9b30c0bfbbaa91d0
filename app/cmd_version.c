/* version: says what this binary is, and with -v what it can do on this machine. */
#include "app/command.h"
#include "app/compose.h"

#include <stdio.h>
#include <string.h>

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

/* What of cuda is built; the GPU that is used where none is named, or why there is none. */
static void print_cuda(void)
{
    cp_err err = {0};
    cp_backend *b = NULL;
    char words[256];
    const char *const *name = cp_backend_names();
    while (*name && strcmp(*name, "cuda") != 0) {
        name++;
    }
    puts("cuda: " CAPSTAN_CUDA_WORDS);
    if (!*name) {
        return;
    }
    cp_backend_config cfg = {.device = "cuda"};
    if (cp_backend_open(&b, &cfg, &err)) {
        printf("gpu: none: %s\n", err.msg);
        return;
    }
    cp_backend_default_level(b, words, sizeof words);
    printf("gpu: %s\n", words);
    cp_backend_close(b);
}

int cp_cmd_version(const cp_options *o)
{
    cp_err err = {0};
    cp_backend *b = NULL;
    cp_backend_config cfg = {0};
    if (o->verbose && cp_backend_open(&b, &cfg, &err)) {
        return cp_app_fail(&err);
    }
    printf("capstan %s\n", cp_app_version());
    if (!o->verbose) {
        return 0;
    }
    char level[256];
    uint64_t total, available;
    if (cp_backend_memory(b, &total, &available, &err)) {
        cp_backend_close(b);
        return cp_app_fail(&err);
    }
    cp_backend_default_level(b, level, sizeof level);
    printf("backends:");
    for (const char *const *name = cp_backend_names(); *name; name++) {
        printf(" %s", *name);
    }
    puts("");
    print_cuda();
    printf("isa level: %s\ndefault level: %s\nthreads: %d\nmemory: %.1f of %.1f MiB available\n"
           "libraries: %s\narchitectures:",
           cp_backend_level(b), level, cp_pool_default_threads(), (double)available / 1048576.0,
           (double)total / 1048576.0, CAPSTAN_LIBRARIES);
    for (int i = 0; cp_model_arch(i); i++) {
        printf(" %s", cp_model_arch(i));
    }
    puts("\nkernels (operation, types, level):");
    cp_backend_describe(b, print_line, NULL);
    cp_backend_close(b);
    return 0;
}
