/* Writes the page of each made result into the folder that is its argument, as NAME.html. */
#include "tests/unit/load/made.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: load_pages DIR\n");
        return 2;
    }
    for (int k = 0; k < MADE_KINDS; k++) {
        char path[4096];
        cp_buf b = {0};
        cp_load_result *r = made_new((made_kind)k);
        cp_load_report_html(r, &b);
        cp_snprintf(path, sizeof(path), "%s/%s.html", argv[1], made_names[k]);
        FILE *f = fopen(path, "we");
        bool ok = f && !b.failed && fwrite(b.p, 1, b.n, f) == b.n;
        if (!f || fclose(f) != 0 || !ok) {
            perror(path);
            return 1;
        }
        cp_buf_fini(&b);
        made_free(r);
    }
    return 0;
}
