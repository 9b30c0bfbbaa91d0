/*
 * trust: tells which files and folders that this program made earlier it may believe now.
 *
 * What is derived from weights (records of their digests, files out of compressed layers, packed
 * panels) is used without deriving it again, so whoever can write it decides what the model says.
 * Only this user and root may. The functions keep no state, and any thread may call them.
 */
#ifndef CP_BASE_TRUST_H
#define CP_BASE_TRUST_H

#include <stdbool.h>

/* The open file is a regular one, its owner is this process's effective user or root, and its mode
 * (which bounds an ACL) lets nobody else write it. Asked of the descriptor that is read afterwards:
 * a name may mean another file by then. */
bool cp_fd_trusted(int fd);

/* The same of a folder: nobody else can put files into it, or rename those that are there. */
bool cp_dir_fd_trusted(int fd);

/* This folder's owner is this process's effective user or root, whoever else may write it. */
bool cp_dir_fd_owned(int fd);

#endif
