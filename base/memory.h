/* memory: tells how much of this machine's memory a process may have. Any thread may ask. */
#ifndef CP_BASE_MEMORY_H
#define CP_BASE_MEMORY_H

#include <stdint.h>

/* Bytes that there are, and that can be had now: MemTotal and MemAvailable, each no more than the
 * cgroup's limit. 4 GiB where /proc does not say. */
void cp_memory_host(uint64_t *total, uint64_t *available);
/* The same from these files: of meminfo's form; a number each, or a word for none (v2, v1). */
void cp_memory_of(const char *meminfo, const char *const limits[2], uint64_t *total,
                  uint64_t *available);

#endif
