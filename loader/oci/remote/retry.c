/*
 * Back-off has "equal jitter": half of the exponential wait is kept and half is random, so that
 * clients that failed together do not come back together and none comes back at once. Retry-After
 * (RFC 9110 §10.2.3) counts when it is longer. The grammars are RFC 9110's (Content-Range §14.4);
 * a number that overflows is malformed. For example,
 *
 *     Retry-After: 120                            wait 120 s and a little more
 *     Content-Range: bytes 0-1048575/270000000    first 0, last 1048575, total 270000000
 */
#include "loader/oci/remote/retry.h"

#include <curl/curl.h>
#include <string.h>

/* See retry.h. */
int64_t cp_backoff_ms(int64_t first_ms, int attempt, int64_t retry_after_s, uint32_t random)
{
    int64_t wait = first_ms;
    for (int i = 0; i < attempt && wait < CP_BACKOFF_MAX_MS; i++)
        wait *= 2;
    if (wait > CP_BACKOFF_MAX_MS)
        wait = CP_BACKOFF_MAX_MS;
    int64_t half = wait / 2;
    wait = half + (int64_t)(random % (uint32_t)(half + 1));
    if (retry_after_s > CP_RETRY_AFTER_MAX_S)
        retry_after_s = CP_RETRY_AFTER_MAX_S;
    if (retry_after_s > 0 && wait < retry_after_s * 1000)
        wait = retry_after_s * 1000 + (int64_t)(random % (uint32_t)(half + 1));
    return wait;
}

bool cp_retry_status(int status)
{
    return status == 408 || status == 425 || status == 429 || status == 500 || status == 502 ||
           status == 503 || status == 504;
}

bool cp_redirect_status(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static bool number(const char **s, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = *s;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    if (p == *s)
        return false;
    *s = p;
    *out = v;
    return true;
}

/* See retry.h. */
int64_t cp_retry_after(const char *value, int64_t now)
{
    const char *s = value;
    uint64_t seconds;
    if (number(&s, &seconds))
        return *s == '\0' && seconds <= INT32_MAX ? (int64_t)seconds : -1;
    time_t at = curl_getdate(value, NULL);
    if (at == (time_t)-1)
        return -1;
    return at > now ? (int64_t)at - now : 0;
}

/* See retry.h. */
bool cp_content_range(const char *value, uint64_t *first, uint64_t *last, bool *has_total,
                      uint64_t *total)
{
    *first = *last = *total = 0;
    *has_total = false;
    if (strncmp(value, "bytes ", 6) != 0)
        return false;
    const char *s = value + 6;
    if (!number(&s, first) || *s++ != '-' || !number(&s, last) || *s++ != '/' || *last < *first)
        return false;
    if (strcmp(s, "*") == 0)
        return true;
    *has_total = true;
    return number(&s, total) && *s == '\0' && *total > *last;
}
