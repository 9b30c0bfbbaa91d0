/*
 * child: processes of this program that run beside a server: forked before it has threads, each at
 * the other end of a socket.
 *
 * A cp_child is a value of who started it, on the first thread. The child does not outlive its
 * parent, whatever ends that; signals of a terminal or of a service manager pass it by, so that it
 * is there while the parent drains, and the end of the socket is what tells it to end. Either side
 * sees the other's death as the end of the socket.
 */
#ifndef CP_APP_CHILD_H
#define CP_APP_CHILD_H

#include "base/code.h"

#include <sys/types.h>

typedef struct cp_child {
    pid_t pid; /* 0: there is none */
    int fd;    /* the parent's end; -1 */
} cp_child;

/* Runs in the child; what it returns is its exit code. It may not return to its caller's work. */
typedef int cp_child_fn(int fd, void *arg);

/*
 * Fork a child of this name (as `ps` and `top` show it, 15 bytes) that runs `run` with its end of a
 * pair of Unix sockets of this type. No thread may run yet (asserted). Of the parent's descriptors
 * it keeps the standard three. CP_IO.
 */
cp_code cp_child_start(cp_child *c, const char *name, int socket_type, cp_child_fn *run, void *arg,
                       cp_err *err);
/* Close the parent's end and wait until the child has ended, at most timeout_ms: a child that is
 * still there then ends with this process. A zeroed cp_child is fine. */
void cp_child_stop(cp_child *c, int timeout_ms);

#endif
