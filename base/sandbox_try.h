/*
 * sandbox_try: a process tries what its sandbox should not let it do, so that a test sees it
 * refused.
 *
 * Any thread may try; what is refused leaves no trace but the sandbox's own lines in the log, and
 * the line that says how it came out.
 */
#ifndef CP_BASE_SANDBOX_TRY_H
#define CP_BASE_SANDBOX_TRY_H

/* Each attempt once, by a thread called `who`; a line each: "sandbox: tried connect on WHO:
 * Operation not permitted". */
void cp_sandbox_try(const char *who);

#endif
