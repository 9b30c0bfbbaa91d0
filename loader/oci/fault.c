/*
 * Fault points of tests; see fault.h.
 */
#include "loader/oci/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char action[] = ":kill";

/* See fault.h. */
void cp_fault_kill(void)
{
    raise(SIGKILL);
}

/* See fault.h. */
void cp_fault_point(const char *name)
{
    const char *fault = getenv("CAPSTAN_FAULT");
    size_t n = strlen(name);
    if (fault && strncmp(fault, name, n) == 0 && strcmp(fault + n, action) == 0)
        cp_fault_kill();
}

/* See fault.h. */
uint64_t cp_fault_bytes(void)
{
    static const char prefix[] = "bytes=";
    const char *fault = getenv("CAPSTAN_FAULT");
    char *end;
    if (!fault || strncmp(fault, prefix, strlen(prefix)) != 0)
        return UINT64_MAX;
    unsigned long long n = strtoull(fault + strlen(prefix), &end, 10);
    return strcmp(end, action) == 0 ? (uint64_t)n : UINT64_MAX;
}
