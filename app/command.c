/* Commands share how they fail and what their options say to the loader: see command.h. */
#include "app/command.h"

#include "base/mem.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

int cp_app_fail(const cp_err *err)
{
    cp_err shown = *err; /* it may quote a file or a server */
    cp_printable(shown.msg);
    fprintf(stderr, "capstan: %s\n", shown.msg);
    return cp_code_info(err->code)->exit;
}

void cp_app_err_ref(cp_err *err, const char *ref)
{
    if (strncmp(err->msg, ref, strlen(ref)) != 0) {
        cp_err_prefix(err, "%s", ref);
    }
}

cp_loader_options cp_app_loader_options(const cp_options *o)
{
    uint64_t total, available;
    cp_memory_host(&total, &available);
    return (cp_loader_options){.store = o->store && *o->store ? o->store : NULL,
                               .default_registry = o->default_registry,
                               .verify_always = o->verify == CP_VERIFY_ALWAYS,
                               .platform = o->platform,
                               .variant = o->variant,
                               .memory_budget = available / 4 * 3};
}
