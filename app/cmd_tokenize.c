/* tokenize: reads text on stdin and prints its ids on one line. */
#include "app/command.h"
#include "app/compose.h"
#include "app/fetch.h"
#include "app/progress.h"
#include "app/stdio.h"

#include <stdio.h>
#include <string.h>

int cp_cmd_tokenize(const cp_options *o)
{
    cp_err err = {0};
    cp_loaded *file;
    cp_tokenizer *t = NULL;
    cp_buf text = {0};
    cp_ids ids = {0};
    cp_progress p;
    cp_progress_init(&p, o->model, false);
    cp_code rc = cp_app_file_open(&file, o->model, o, cp_progress_report, &p, &err);
    cp_progress_end(&p);
    if (rc) {
        return cp_app_fail(&err);
    }
    if ((rc = cp_tokenizer_open(&t, cp_loaded_meta(file), &err)) ||
        (rc = cp_stdio_read((size_t)1 << 30, &text, &err)) ||
        (rc = cp_tokenizer_encode(t, text.p ? text.p : "", text.n, !o->no_special, o->parse_special,
                                  NULL, 0, &ids, &err))) {
        goto done;
    }
    const char *sep = o->json ? "," : " ";
    fputs(o->json ? "[" : "", stdout);
    for (size_t i = 0; i < ids.n; i++) {
        printf("%s%d", i ? sep : "", ids.id[i]);
    }
    puts(o->json ? "]" : "");
done:
    cp_ids_fini(&ids);
    cp_buf_fini(&text);
    cp_tokenizer_close(t);
    cp_loaded_close(file);
    return rc ? cp_app_fail(&err) : 0;
}
