/* This file asks for owner and mode of what is open, by fstat alone: see trust.h. */
#include "base/trust.h"

#include <sys/stat.h>
#include <unistd.h>

static bool owned(int fd, mode_t kind, mode_t forbidden)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == kind &&
           (st.st_uid == geteuid() || st.st_uid == 0) && !(st.st_mode & forbidden);
}

/* See trust.h. */
bool cp_fd_trusted(int fd)
{
    return owned(fd, S_IFREG, S_IWGRP | S_IWOTH);
}

/* See trust.h. */
bool cp_dir_fd_trusted(int fd)
{
    return owned(fd, S_IFDIR, S_IWGRP | S_IWOTH);
}

/* See trust.h. */
bool cp_dir_fd_owned(int fd)
{
    return owned(fd, S_IFDIR, 0);
}
