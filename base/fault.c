/* This file finds out which fault points are on, and acts at them: see fault.h. */
#include "base/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the list has "name=N:action" (n: receives N) or "name:action" (n is NULL). */
static bool named(const char *name, const char *action, uint64_t *n)
{
    const char *at = getenv("CAPSTAN_FAULT");
    size_t name_len = strlen(name), action_len = strlen(action);
    for (; at && *at; at = strchr(at, ','), at = at ? at + 1 : NULL) {
        if (strncmp(at, name, name_len) != 0)
            continue;
        const char *p = at + name_len;
        if (n) {
            char *end;
            if (*p++ != '=')
                continue;
            *n = strtoull(p, &end, 10);
            p = end;
        }
        if (*p++ == ':' && strncmp(p, action, action_len) == 0 &&
            (p[action_len] == '\0' || p[action_len] == ','))
            return true;
    }
    return false;
}

/* See fault.h. */
void cp_fault_kill(void)
{
    raise(SIGKILL);
    _exit(128 + SIGKILL); /* the first process of a container cannot kill itself */
}

/* See fault.h. */
void cp_fault_point(const char *name)
{
    if (named(name, "kill", NULL))
        cp_fault_kill();
}

/* See fault.h. */
uint64_t cp_fault_after(const char *name)
{
    uint64_t n;
    return named(name, "kill", &n) ? n : UINT64_MAX;
}

/* See fault.h. */
bool cp_fault_fails(const char *name)
{
    return named(name, "fail", NULL);
}

/* See fault.h. */
bool cp_fault_tries(const char *name)
{
    return named(name, "try", NULL);
}

/* See fault.h. */
uint64_t cp_fault_fails_from(const char *name)
{
    uint64_t n;
    return named(name, "fail", &n) ? n : UINT64_MAX;
}
