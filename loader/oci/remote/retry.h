/*
 * When and how long to wait before asking again, and the small grammars of HTTP that decide it.
 * Pure functions, any thread. They know no endpoint and keep no count: the caller does (job.c,
 * token.c).
 */
#ifndef CP_LOADER_OCI_REMOTE_RETRY_H
#define CP_LOADER_OCI_REMOTE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CP_RETRY_AFTER_MAX_S = 120, /* a server that asks for more is not waited for */
    CP_BACKOFF_MAX_MS = 20000,  /* of one wait */
};

/* Wait before retry `attempt` (0, 1, ...): first_ms doubled each time, at most CP_BACKOFF_MAX_MS,
 * of which the upper half is random (`random`: any 32 bits). A Retry-After (seconds, -1 none) is
 * the least. */
int64_t cp_backoff_ms(int64_t first_ms, int attempt, int64_t retry_after_s, uint32_t random);
/* Statuses that may be different the next time. */
bool cp_retry_status(int status);
/* Statuses whose Location is to be asked in place of the URL (RFC 9110 §15.4). */
bool cp_redirect_status(int status);
/* Retry-After: delta-seconds or an HTTP-date; -1 when it is neither. now: Unix seconds. */
int64_t cp_retry_after(const char *value, int64_t now);
/* "bytes FIRST-LAST/TOTAL", or an asterisk for TOTAL (*has_total false). False: anything else. */
bool cp_content_range(const char *value, uint64_t *first, uint64_t *last, bool *has_total,
                      uint64_t *total);

#endif
