/*
 * This file counts the cores that this process may use: those of its affinity mask, cut by the CPU
 * quota of every cgroup above it (v2 cpu.max, v1 cpu.cfs_quota_us). "150000 100000" in cpu.max is
 * 1.5 cores, which count as one: threads that meet at barriers lose more by being throttled in the
 * middle of a step than by being one fewer.
 */
#include "base/io.h"
#include "base/mem.h"
#include "base/pool.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CPUS_MAX = 1 << 16, FILE_MAX = 1 << 16 };

static int affinity_cores(void)
{
    for (size_t cpus = 1024; cpus <= CPUS_MAX; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set)
            return 1;
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int rc = sched_getaffinity(0, bytes, set), n = CPU_COUNT_S(bytes, set);
        int error = errno;
        CPU_FREE(set);
        if (rc == 0)
            return n > 0 ? n : 1;
        if (error != EINVAL) /* EINVAL: the kernel's mask is larger */
            return 1;
    }
    return 1;
}

/* Up to two numbers from a small file; "max" reads as -1. Returns how many. */
static int read_numbers(const char *path, long long v[2])
{
    cp_buf text = {0};
    int n = 0;
    if (cp_file_read(path, FILE_MAX, &text, NULL) == CP_OK && text.p) {
        for (char *s = text.p; n < 2; n++) {
            s += strspn(s, " \t\n");
            char *end = s;
            if (strncmp(s, "max", 3) == 0) {
                v[n] = -1;
                end = s + 3;
            } else {
                v[n] = strtoll(s, &end, 10);
            }
            if (end == s)
                break;
            s = end;
        }
    }
    cp_buf_fini(&text);
    return n;
}

/* Lower *cores to the quota of one cgroup folder, if it has one. */
static void apply_quota(const char *dir, bool v2, int *cores)
{
    char path[4200];
    long long v[2], period[2];
    if (v2) {
        cp_snprintf(path, sizeof(path), "%s/cpu.max", dir);
        if (read_numbers(path, v) != 2)
            return;
    } else {
        cp_snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", dir);
        if (read_numbers(path, v) < 1)
            return;
        cp_snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", dir);
        if (read_numbers(path, period) < 1)
            return;
        v[1] = period[0];
    }
    if (v[0] <= 0 || v[1] <= 0)
        return;
    long long n = v[0] / v[1];
    if (n < 1)
        n = 1;
    if (n < *cores)
        *cores = (int)n;
}

/* The quotas of `group` and of all its parents below mount. */
static void apply_chain(const char *mount, const char *group, bool v2, int *cores)
{
    char dir[4096];
    size_t base = cp_snprintf(dir, sizeof(dir), "%s", mount);
    cp_snprintf(dir + base, sizeof(dir) - base, "%s", group);
    for (;;) {
        apply_quota(dir, v2, cores);
        char *slash = strrchr(dir + base, '/');
        if (!slash)
            break;
        *slash = '\0';
    }
}

/* Does the comma list hold the controller "cpu"? */
static bool has_cpu(const char *list, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t len = 0;
        while (at + len < n && list[at + len] != ',')
            len++;
        if (len == 3 && strncmp(list + at, "cpu", 3) == 0)
            return true;
        at += len + 1;
    }
    return false;
}

int cp_pool_quota_cores(const char *proc_cgroup, const char *mount)
{
    int cores = CPUS_MAX;
    cp_buf text = {0};
    if (cp_file_read(proc_cgroup, FILE_MAX, &text, NULL) == CP_OK && text.p) {
        char *save = NULL;
        for (char *line = strtok_r(text.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            /* "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1) */
            char *list = strchr(line, ':');
            char *group = list ? strchr(list + 1, ':') : NULL;
            if (!group)
                continue;
            size_t n = (size_t)(group - list - 1);
            char dir[1024];
            if (n == 0) {
                apply_chain(mount, group + 1, true, &cores);
            } else if (has_cpu(list + 1, n)) {
                cp_snprintf(dir, sizeof(dir), "%s/cpu", mount);
                apply_chain(dir, group + 1, false, &cores);
                cp_snprintf(dir, sizeof(dir), "%s/%.*s", mount, (int)n, list + 1);
                apply_chain(dir, group + 1, false, &cores);
            }
        }
    }
    cp_buf_fini(&text);
    return cores;
}

int cp_pool_default_threads(void)
{
    int cores = affinity_cores();
    int quota = cp_pool_quota_cores("/proc/self/cgroup", "/sys/fs/cgroup");
    return quota < cores ? quota : cores;
}
