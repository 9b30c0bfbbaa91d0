/*
 * gen_docs DIR: writes DIR/CONFIGURATION.md and DIR/capstan.1 from the rows. `gen_docs --check DIR`
 * writes nothing and exits 1 when a file there differs.
 */
#include "base/io.h"
#include "base/options.h"
#include "base/version.h"

#include <stdio.h>
#include <string.h>

static int handle(const char *dir, const char *name, const cp_buf *text, bool check)
{
    char path[4096];
    cp_snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (text->failed) {
        fprintf(stderr, "%s: out of memory\n", path);
        return 1;
    }
    if (check) {
        cp_buf old = {0};
        cp_err err;
        cp_code code = cp_file_read(path, (size_t)64 << 20, &old, &err);
        bool same = !code && old.n == text->n && memcmp(old.p, text->p, old.n) == 0;
        cp_buf_fini(&old);
        if (!same)
            fprintf(stderr, "%s is stale: build the target `docs` and commit it\n", path);
        return same ? 0 : 1;
    }
    FILE *f = fopen(path, "w");
    if (!f || fwrite(text->p, 1, text->n, f) != text->n) {
        perror(path);
        if (f)
            fclose(f);
        return 1;
    }
    return fclose(f) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    bool check = argc == 3 && strcmp(argv[1], "--check") == 0;
    if (argc != 2 && !check) {
        fprintf(stderr, "usage: gen_docs [--check] DIR\n");
        return 2;
    }
    cp_buf manual = {0}, configuration = {0};
    cp_docs_manual(&manual, cp_version());
    cp_docs_configuration(&configuration);
    int bad = handle(argv[argc - 1], "capstan.1", &manual, check);
    bad |= handle(argv[argc - 1], "CONFIGURATION.md", &configuration, check);
    cp_buf_fini(&manual);
    cp_buf_fini(&configuration);
    return bad;
}
