/*
 * process: what the kernel says of this process: CPU time, memory, page faults, descriptors.
 *
 * A cp_process keeps /proc/self/statm and /proc/self/fd open, so that they can be read when the
 * process may open nothing any more. One thread at a time reads.
 */
#ifndef CP_BASE_PROCESS_H
#define CP_BASE_PROCESS_H

#include <stdint.h>

typedef struct cp_process cp_process;

typedef struct cp_process_stats {
    int64_t cpu_us; /* user and system */
    int64_t major_faults;
    int64_t virtual_bytes, resident_bytes;
    int64_t open_fds, max_fds;
} cp_process_stats;

/* Never NULL; what cannot be opened is 0 in the stats. */
cp_process *cp_process_open(void);
void cp_process_close(cp_process *p); /* NULL is fine */
void cp_process_read(cp_process *p, cp_process_stats *out);

#endif
