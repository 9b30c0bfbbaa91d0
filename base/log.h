/*
 * log: writes one line a record to stderr, as text or as JSON.
 *
 * A line is written with one write(2), and any thread may log, without a lock. Never pass prompt
 * text, completions, keys or tokens. The caller's format makes fields of the form "key=value":
 * cp_log(CP_LOG_INFO, "pulled name=%s bytes=%zu", name, n).
 *
 * Lines of one kind, which is what has one format, are limited: CP_LOG_BURST at once, and
 * CP_LOG_A_SECOND a second in the long run. What is left out is counted, and the next line of its
 * kind, or a line of its own once it has been quiet, says how many: ` dropped=12`.
 */
#ifndef CP_BASE_LOG_H
#define CP_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum cp_log_level { CP_LOG_ERROR, CP_LOG_WARN, CP_LOG_INFO, CP_LOG_DEBUG } cp_log_level;

enum { CP_LOG_BURST = 50, CP_LOG_A_SECOND = 5 };

/* Process-wide settings; any thread, also while others log: their next line has them. */
void cp_log_setup(cp_log_level level, bool json);
/* fmt is a string literal, and so for ever at its place: it tells kinds apart. */
void cp_log(cp_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Without a limit: lines of which each is wanted, and whose number something else bounds. */
void cp_log_each(cp_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Do lines have the form of objects (cp_log_setup)? */
bool cp_log_is_json(void);
/* An object with fields of its own, without a limit: ",\"id\":7" behind time, level and msg. What
 * is longer than a line may be gives way to "cut":true. */
void cp_log_object(cp_log_level level, const char *msg, const char *fields);
/* Say what was left out of kinds that have been quiet since, at now_ns (cp_now_ns()). Now and then,
 * any thread. */
void cp_log_flush(int64_t now_ns);
/* Lines that were left out since the start. */
uint64_t cp_log_dropped(void);

#endif
