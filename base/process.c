/* This file reads what the kernel says of this process: see process.h. */
#include "base/process.h"

#include "base/alloc.h"
#include "base/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct cp_process {
    int statm_fd; /* -1: none */
    DIR *fds;     /* NULL: none */
};

cp_process *cp_process_open(void)
{
    cp_process *p = cp_xcalloc(1, sizeof(*p));
    p->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    p->fds = opendir("/proc/self/fd");
    return p;
}

void cp_process_close(cp_process *p)
{
    if (!p)
        return;
    cp_io_close(p->statm_fd);
    if (p->fds)
        closedir(p->fds);
    free(p);
}

/* Linux 6.2 and newer give the number of open files as the folder's size; a walk over thousands of
 * connections takes milliseconds. */
static int64_t open_fds(DIR *fds)
{
    struct stat st;
    int64_t n = 0;
    if (!fds)
        return 0;
    if (fstat(dirfd(fds), &st) == 0 && st.st_size > 0)
        return st.st_size;
    rewinddir(fds);
    for (const struct dirent *e; (e = readdir(fds));)
        n += e->d_name[0] != '.';
    return n;
}

static void read_memory(const cp_process *p, cp_process_stats *out)
{
    char text[64];
    long long size, resident;
    ssize_t n = p->statm_fd < 0 ? -1 : cp_io_pread(p->statm_fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return;
    text[n] = '\0';
    if (sscanf(text, "%lld %lld", &size, &resident) != 2)
        return;
    out->virtual_bytes = size * sysconf(_SC_PAGESIZE);
    out->resident_bytes = resident * sysconf(_SC_PAGESIZE);
}

void cp_process_read(cp_process *p, cp_process_stats *out)
{
    struct rusage u;
    struct rlimit files;
    *out = (cp_process_stats){.open_fds = open_fds(p->fds)};
    if (getrusage(RUSAGE_SELF, &u) == 0) {
        out->cpu_us = ((int64_t)u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
                      u.ru_utime.tv_usec + u.ru_stime.tv_usec;
        out->major_faults = u.ru_majflt;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur <= (rlim_t)INT64_MAX)
        out->max_fds = (int64_t)files.rlim_cur;
    read_memory(p, out);
}
