/*
 * Fault points: places where a test can have this process die, to show that what it leaves behind
 * is taken up again. Inert unless the environment's CAPSTAN_FAULT names a point: "POINT:kill"
 * raises SIGKILL there, "bytes=N:kill" once N bytes of blobs were written by this process. Points:
 * fsync, rename, renamed, manifest, index, indexed (see where they stand). Any thread.
 */
#ifndef CP_LOADER_OCI_FAULT_H
#define CP_LOADER_OCI_FAULT_H

#include <stdint.h>

void cp_fault_point(const char *name);
/* The N of "bytes=N:kill", UINT64_MAX without one. Asked once a transfer, not once a write. */
uint64_t cp_fault_bytes(void);
/* What is done when that many bytes were written. */
void cp_fault_kill(void);

#endif
