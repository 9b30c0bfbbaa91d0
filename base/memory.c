/*
 * This file reads how much memory there is from /proc/meminfo and from the cgroups: see memory.h.
 */
#include "base/memory.h"

#include "base/io.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static uint64_t read_number(const char *path, const char *prefix)
{
    cp_buf b = {0};
    uint64_t v = UINT64_MAX;
    if (cp_file_read(path, 1 << 20, &b, NULL) == CP_OK && b.p) {
        const char *p = *prefix ? strstr(b.p, prefix) : b.p;
        char *end;
        if (p) {
            p += strlen(prefix);
            unsigned long long n = strtoull(p, &end, 10);
            v = end == p ? UINT64_MAX : n;
        }
    }
    cp_buf_fini(&b);
    return v;
}

static uint64_t row(const char *meminfo, const char *name, uint64_t limit)
{
    uint64_t kib = read_number(meminfo, name);
    uint64_t bytes = kib > UINT64_MAX / 1024 ? UINT64_C(4) << 30 : kib * 1024;
    return bytes < limit ? bytes : limit;
}

void cp_memory_of(const char *meminfo, const char *const limits[2], uint64_t *total,
                  uint64_t *available)
{
    uint64_t v2 = read_number(limits[0], ""), v1 = read_number(limits[1], "");
    uint64_t limit = v2 < v1 ? v2 : v1;
    *total = row(meminfo, "MemTotal:", limit);
    *available = row(meminfo, "MemAvailable:", limit);
}

void cp_memory_host(uint64_t *total, uint64_t *available)
{
    static const char *const limits[2] = {"/sys/fs/cgroup/memory.max",
                                          "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    cp_memory_of("/proc/meminfo", limits, total, available);
}
