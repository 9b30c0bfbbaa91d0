/*
 * The structural pre-scan of JSON: no grammar, only brackets, strings and separators. It counts
 * what the library would allocate for and how deep it would recurse, at about a byte a cycle, and
 * leaves every other error to the real parser. A value is counted where one must begin: at the
 * start, after '[', '{', ',' and ':'.
 */
#include "server/params.h"

cp_code cp_json_scan(const char *p, size_t n, cp_err *err)
{
    size_t depth = 0, nodes = 1;
    for (size_t i = 0; i < n; i++) {
        switch (p[i]) {
        case '"':
            for (i++; i < n && p[i] != '"'; i++)
                if (p[i] == '\\')
                    i++;
            break;
        case '[':
        case '{':
            nodes++;
            if (++depth > CP_JSON_DEPTH)
                return cp_fail(err, CP_INVALID_JSON,
                               "the body nests deeper than %d levels at byte %zu", CP_JSON_DEPTH,
                               i);
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
        case ':':
            nodes++;
            break;
        default:
            break;
        }
        if (nodes > CP_JSON_NODES)
            return cp_fail(err, CP_INVALID_JSON, "the body has more than %d values at byte %zu",
                           CP_JSON_NODES, i);
    }
    return CP_OK;
}
