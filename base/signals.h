/*
 * signals: keeps signals that come from outside from a new thread, because another one waits for
 * them. Those that a thread's own instruction raises must find it open, or the kernel kills the
 * process before any handler (base/map.h has one, base/sandbox.h another) is asked.
 */
#ifndef CP_BASE_SIGNALS_H
#define CP_BASE_SIGNALS_H

#include <pthread.h>
#include <signal.h>

/* Before pthread_create, which inherits the mask; restore *old afterwards. */
static inline void cp_signals_block(sigset_t *old)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    sigset_t all;
    sigfillset(&all);
    for (unsigned i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, old);
}

static inline void cp_signals_restore(const sigset_t *old)
{
    pthread_sigmask(SIG_SETMASK, old, NULL);
}

#endif
