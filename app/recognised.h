/* recognised: what a model's file says of itself, for `inspect` and the line at start. */
#ifndef CP_APP_RECOGNISED_H
#define CP_APP_RECOGNISED_H

#include "base/mem.h"
#include "base/meta.h"
#include "model/model.h"

enum { CP_TEMPLATES_MAX = 16 };

typedef struct cp_recognised {
    cp_hparams h;
    char refused[512]; /* why the architecture is not run; "": it is */
    size_t n_templates;
    char templates[CP_TEMPLATES_MAX][64]; /* "default", and what else the file names */
} cp_recognised;

void cp_recognise(cp_recognised *r, const cp_meta *meta);
/* What h has beside dense layers, "; 8 experts, 2 used; state of 3.1 KiB a sequence"; "": nothing.
 */
void cp_recognised_traits(const cp_hparams *h, char *out, size_t cap);
/* "default, tool_use"; "none". */
void cp_recognised_templates(const cp_recognised *r, char *out, size_t cap);

#endif
