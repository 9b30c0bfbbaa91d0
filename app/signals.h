/*
 * signals: the thread that takes a serving process's signals and bounds its end.
 *
 * SIGTERM, SIGINT and SIGHUP reach nothing but this thread. It never logs, allocates or waits for
 * another thread, so that it acts whatever the others do: a step of twenty seconds, a loader that
 * hangs, a log line that nobody reads out of a full pipe. The first SIGTERM or SIGINT begins the
 * server's drain, a second one cuts it. main hears of both and ends the process in good order; what
 * takes too long (700 ms after a second signal, two seconds after a drain must be over) is left
 * behind: the Unix socket's path is removed, for which its file system has 100 ms, and the process
 * exits with 1.
 */
#ifndef CP_APP_SIGNALS_H
#define CP_APP_SIGNALS_H

#include "server/server.h"

/* What main is told, as bits. */
enum { CP_SIGNAL_END = 1, CP_SIGNAL_AGAIN = 2, CP_SIGNAL_RELOAD = 4, CP_SIGNAL_NUDGE = 8 };

typedef struct cp_signals cp_signals;

/* Block the signals in the calling thread and those that it starts: they wait until
 * cp_signals_open. */
void cp_signals_hold(void);
/* The same, and starts the thread that takes them: call it before all others. uds: the path of the
 * server's Unix socket, or NULL. drain_ms: grace and timeout together. */
cp_code cp_signals_open(cp_signals **out, const char *uds, int64_t drain_ms, cp_err *err);
/* Other times of a drain, before one has begun. Any thread. */
void cp_signals_drain(cp_signals *s, int64_t drain_ms);
/* The server that signals act on, from when it listens; NULL before it is closed. main only. */
void cp_signals_serve(cp_signals *s, cp_server *server);
/* What came since the last call; waits at most timeout_ms (-1: for ever) for something. main only.
 */
unsigned cp_signals_wait(cp_signals *s, int timeout_ms);
/* Wake main: CP_SIGNAL_NUDGE. Any thread. */
void cp_signals_nudge(cp_signals *s);
/* As if SIGTERM had come. Any thread. */
void cp_signals_end(void);
/* End at once, as where time has run out, with this exit code: what loading had begun is left. */
_Noreturn void cp_signals_leave(cp_signals *s, int exit_code);
/* Stop the thread; true: a second signal came, the exit code is 1. Signals stay blocked. NULL is
 * fine (false). */
bool cp_signals_close(cp_signals *s);

#endif
