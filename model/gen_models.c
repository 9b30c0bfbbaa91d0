/*
 * gen_models FILE: rewrites the table of architectures between the markers of docs/MODELS.md from
 * the rows. `gen_models --check FILE` writes nothing and exits 1 when the table there differs.
 */
#include "base/region.h"
#include "model/arch.h"

#include <stdio.h>
#include <string.h>

static void table(cp_buf *b)
{
    cp_buf_adds(b,
                "| architecture | models | built | weights that were run |\n|---|---|---|---|\n");
    for (const cp_arch *const *a = cp_archs; *a; a++)
        cp_buf_printf(b, "| `%s` | %s | %s | %s |\n", (*a)->name, (*a)->covers, (*a)->built,
                      (*a)->real ? (*a)->real : "tiny random ones: no package has real ones");
}

int main(int argc, char **argv)
{
    bool check = argc == 3 && strcmp(argv[1], "--check") == 0;
    if (argc != 2 && !check) {
        fprintf(stderr, "usage: gen_models [--check] FILE\n");
        return 2;
    }
    cp_buf b = {0};
    table(&b);
    int bad = cp_region_write(argv[argc - 1], "architectures", "gen_models", &b, check);
    cp_buf_fini(&b);
    return bad;
}
