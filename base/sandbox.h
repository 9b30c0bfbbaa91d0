/*
 * sandbox: gives away what a process that reads hostile input does not need: files, the network,
 * other programs.
 *
 * Two walls, each as far as the kernel grants it, without any privilege and for good. Landlock
 * says which files can be opened, and forbids TCP: no connection out, no new port. seccomp lets
 * through the system calls that serving uses; any other fails with EPERM, or EACCES, and a line in
 * the log. What opens files for a process in here must be another one (app/opener.h). The first
 * thread calls cp_sandbox_files while there is no other (threads that come later inherit it), and
 * cp_sandbox_calls, which takes in every thread, when nothing is left to be opened. The state is
 * the process's: it cannot be given back.
 */
#ifndef CP_BASE_SANDBOX_H
#define CP_BASE_SANDBOX_H

#include "base/code.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cp_sandbox_config {
    /* A GPU's driver works in this process, or may. It opens devices, libraries and caches when it
     * likes, so these stay open to it, and calls are refused by a list of what is forbidden. */
    bool device;
    /* A Unix socket's path that this process removes at its end, borrowed for good; NULL: none. */
    const char *socket;
} cp_sandbox_config;

/* Landlock's version as the kernel has it (from 4 on TCP is closed, too); 0: not granted, and why
 * says it. Nothing has changed then. */
int cp_sandbox_files(const cp_sandbox_config *cfg, cp_err *why);
/* CP_UNSUPPORTED: not granted, and nothing has changed. */
cp_code cp_sandbox_calls(const cp_sandbox_config *cfg, cp_err *why);

/* System calls that were refused so far. Any thread. */
uint64_t cp_sandbox_refused(void);
/* Does the path name something that a process in here may read: what the kernel says of this
 * process, of memory and of processors? */
bool cp_sandbox_may_read(const char *path);

/* From now on a core dump of this process and of its children holds registers and the list of
 * mapped files, and no memory: prompts lie everywhere in it. False: errno says why. */
bool cp_sandbox_bare_cores(void);

#endif
