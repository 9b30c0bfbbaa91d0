/* This file reads queries: see query.h. */
#include "server/query.h"

#include <string.h>

static int hex(char ch)
{
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

bool cp_percent_decode(const char *p, size_t n, char *out, size_t cap)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (k + 1 >= cap)
            return false;
        if (p[i] != '%') {
            out[k++] = p[i];
            continue;
        }
        bool whole = n - i > 2;
        int hi = whole ? hex(p[i + 1]) : -1, lo = whole ? hex(p[i + 2]) : -1;
        if (hi < 0 || lo < 0 || hi * 16 + lo == 0)
            return false;
        out[k++] = (char)(hi * 16 + lo);
        i += 2;
    }
    out[k] = '\0';
    return true;
}

bool cp_query_next(const char **at, char name[CP_QUERY_TEXT], char value[CP_QUERY_TEXT])
{
    while (**at) {
        const char *p = *at;
        size_t n = strcspn(p, "&"), key = strcspn(p, "=&");
        size_t skip = key < n ? key + 1 : n;
        *at = p + n + (p[n] == '&');
        if (key == 0 || !cp_percent_decode(p, key, name, CP_QUERY_TEXT))
            continue;
        if (!cp_percent_decode(p + skip, n - skip, value, CP_QUERY_TEXT))
            value[0] = '\0';
        return true;
    }
    return false;
}
