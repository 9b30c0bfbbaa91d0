/*
 * The list of packagings; the first row that matches a manifest wins.
 */
#include "loader/packagings/packaging.h"

#include <string.h>

static const cp_packaging *const rows[] = {&cp_packaging_modelpack, &cp_packaging_docker};
enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

/* See packaging.h. */
const cp_packaging *cp_packaging_of(const cp_manifest *m)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (rows[i]->matches(m))
            return rows[i];
    return NULL;
}

/* See packaging.h. */
const cp_packaging *cp_packaging_named(const char *name)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i]->name, name) == 0)
            return rows[i];
    return NULL;
}

/* See packaging.h. */
void cp_packaging_names(char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < N_ROWS; i++)
        n += cp_snprintf(out + n, cap - n, "%s%s", i ? ", " : "", rows[i]->name);
}

/* See packaging.h. */
bool cp_has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* See packaging.h. */
bool cp_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}
