/*
 * fault: at these points a test can have this process die, or have the system refuse, to show that
 * what is left behind is taken up again.
 *
 * They do nothing unless the environment's CAPSTAN_FAULT, a list of POINT:ACTION with commas
 * between, names a point (docs/TESTING.md has them): CAPSTAN_FAULT=bytes=4096:kill ends a pull
 * after 4096 bytes. Any thread may pass one.
 */
#ifndef CP_BASE_FAULT_H
#define CP_BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* "name:kill" raises SIGKILL here. */
void cp_fault_point(const char *name);
/* The N of "name=N:kill", UINT64_MAX without one. Asked once a piece of work, not once a write;
 * the caller counts, and calls cp_fault_kill() at N. */
uint64_t cp_fault_after(const char *name);
void cp_fault_kill(void);
/* "name:fail": the caller does as if the system had said that it cannot do this. */
bool cp_fault_fails(const char *name);
/* "name:try": the caller tries what it should not be able to do. */
bool cp_fault_tries(const char *name);
/* The N of "name=N:fail", from which on it fails; UINT64_MAX without one. */
uint64_t cp_fault_fails_from(const char *name);

#endif
