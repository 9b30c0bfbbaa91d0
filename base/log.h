/*
 * log: writes one line a record to stderr, as text or as JSON.
 *
 * A line is written with one write(2), and any thread may log. Never pass prompt text, completions,
 * keys or tokens. The caller's format makes fields of the form "key=value": cp_log(CP_LOG_INFO,
 * "pulled name=%s bytes=%zu", name, n).
 */
#ifndef CP_BASE_LOG_H
#define CP_BASE_LOG_H

#include <stdbool.h>

typedef enum cp_log_level { CP_LOG_ERROR, CP_LOG_WARN, CP_LOG_INFO, CP_LOG_DEBUG } cp_log_level;

/* Process-wide settings; any thread, also while others log: their next line has them. */
void cp_log_setup(cp_log_level level, bool json);
void cp_log(cp_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* At most `burst` lines a second for this call site; what was dropped is counted in the next line.
 */
#define CP_LOG_LIMITED(level, burst, ...)                                                          \
    do {                                                                                           \
        static struct cp_log_limit cp_limit_;                                                      \
        cp_log_limited(&cp_limit_, burst, level, __VA_ARGS__);                                     \
    } while (0)
struct cp_log_limit {
    _Atomic long second;
    _Atomic int count;
    _Atomic int dropped;
};
void cp_log_limited(struct cp_log_limit *l, int burst, cp_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
