// deps: loader base
/*
 * Fuzz target: what a user types to name a model. A name that parses has lower-case components, a
 * tag, a canonical form that parses to itself, and nothing in it that could leave a path or a URL.
 */
#include "base/code.h"
#include "base/mem.h"
#include "loader/oci/reference.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool exists(const char *path)
{
    return strlen(path) % 7 == 3; /* some are there */
}

static void check_name(const cp_ref *r)
{
    cp_ref again;
    cp_err err;
    CP_ASSERT(r->registry[0] && r->repository[0] && r->tag[0] && r->typed[0]);
    CP_ASSERT(!strstr(r->repository, "..") && !strpbrk(r->repository, "\\%?#@: \r\n"));
    CP_ASSERT(!strpbrk(r->registry, "/\\%?#@ \r\n") && !strpbrk(r->tag, "/\\%?#@: \r\n"));
    CP_ASSERT(r->repository[0] != '/' && r->repository[strlen(r->repository) - 1] != '/');
    CP_ASSERT(cp_ref_parse_name(&again, r->canonical, "localhost", &err) == CP_OK);
    CP_ASSERT(strcmp(again.canonical, r->canonical) == 0);
    CP_ASSERT(strcmp(again.registry, r->registry) == 0);
    CP_ASSERT(strcmp(again.repository, r->repository) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const defaults[] = {NULL, "quay.example:5000"};
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    for (size_t i = 0; i < 2; i++) {
        cp_ref r;
        cp_err err;
        cp_code code = cp_ref_parse(&r, text, defaults[i], exists, &err);
        CP_ASSERT(code == CP_OK || (code == CP_USAGE && err.msg[0]));
        if (code == CP_OK && r.kind == CP_REF_NAME)
            check_name(&r);
        else if (code == CP_OK)
            CP_ASSERT(r.path[0] && !r.registry[0]);
        code = cp_ref_parse_name(&r, text, defaults[i], &err);
        CP_ASSERT(code == CP_OK || code == CP_USAGE);
        if (code == CP_OK)
            check_name(&r);
    }
    free(text);
    return 0;
}
