/*
 * Finding and extracting the files of a model. Only raw layers so far.
 */
#include "loader/oci/files.h"

/* See files.h. */
cp_code cp_files_prepare(const cp_layout *l, const cp_manifest *m, const cp_plan *plan,
                         const char *cache_dir, cp_progress_fn *progress, void *arg, cp_err *err)
{
    (void)l, (void)cache_dir, (void)progress, (void)arg;
    for (size_t i = 0; i < plan->n; i++)
        if (plan->layer[i].role != CP_ROLE_IGNORED && plan->layer[i].form != CP_FORM_RAW &&
            plan->layer[i].form != CP_FORM_ANY)
            return cp_fail(err, CP_UNSUPPORTED, "layer %zu ('%s') is a tar; supported: raw GGUF", i,
                           m->layer[i].media_type);
    return CP_OK;
}
