/*
 * A presented key is compared with all keys of the list as SHA-256 and in constant time, so that an
 * attacker can time neither the bytes nor the position of a match.
 */
#include "server/auth.h"

#include "base/digest.h"

#include <string.h>
#include <strings.h>

unsigned cp_auth_scopes(const cp_api_key *keys, size_t n, const char *key)
{
    uint8_t hash[32];
    cp_sha256_of(key, strlen(key), hash);
    unsigned scopes = 0;
    for (size_t i = 0; i < n; i++)
        scopes |= cp_secret_equal(hash, keys[i].hash, sizeof(hash)) ? keys[i].scopes : 0u;
    return scopes;
}

void cp_auth_name(const char *key, char out[20])
{
    uint8_t hash[32];
    char digest[CP_DIGEST_STR];
    cp_sha256_of(key, strlen(key), hash);
    cp_digest_format(hash, digest);
    cp_snprintf(out, 20, "%s", digest);
}

const char *cp_auth_bearer(const char *header)
{
    if (strncasecmp(header, "Bearer", 6) != 0 || header[6] != ' ')
        return NULL;
    header += 6;
    while (*header == ' ')
        header++;
    return *header ? header : NULL;
}

static cp_code parse_scopes(const char *s, size_t n, unsigned *out, cp_err *err)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = {{"inference", CP_SCOPE_INFERENCE},
                 {"admin", CP_SCOPE_ADMIN},
                 {"metrics", CP_SCOPE_METRICS}};
    *out = 0;
    while (n > 0) {
        size_t len = 0;
        while (len < n && s[len] != ',')
            len++;
        unsigned bit = 0;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            if (len == strlen(names[i].name) && memcmp(s, names[i].name, len) == 0)
                bit = names[i].bit;
        if (bit == 0)
            return cp_fail(err, CP_USAGE, "scope '%.*s'; allowed: inference, admin, metrics",
                           (int)len, s);
        *out |= bit;
        n -= len;
        s += len;
        if (n > 0) {
            s++;
            n--;
        }
    }
    return *out ? CP_OK
                : cp_fail(err, CP_USAGE, "scopes= is empty; allowed: inference, admin, metrics");
}

cp_code cp_api_key_parse(const char *line, cp_api_key *out, cp_err *err)
{
    static const char prefix[] = "sha256:", option[] = "scopes=";
    static const char space[] = " \t\r\n";
    memset(out, 0, sizeof(*out));
    out->scopes = CP_SCOPE_INFERENCE;
    line += strspn(line, space);
    size_t n = strcspn(line, space);
    if (n == 0)
        return cp_fail(err, CP_USAGE, "an API key is empty");
    if (strncmp(line, prefix, sizeof(prefix) - 1) == 0) {
        char digest[CP_DIGEST_STR] = "";
        if (n < sizeof(digest))
            memcpy(digest, line, n);
        if (!cp_digest_parse(digest, out->hash))
            return cp_fail(err, CP_USAGE, "an API key's sha256: needs 64 lower-case hex digits");
    } else {
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)line[i] < 33 || (unsigned char)line[i] > 126)
                return cp_fail(err, CP_USAGE, "an API key holds a character that is not printable");
        cp_sha256_of(line, n, out->hash);
    }
    for (line += n; *(line += strspn(line, space)); line += n) {
        n = strcspn(line, space);
        if (*line == '#')
            break;
        if (strncmp(line, option, sizeof(option) - 1) != 0)
            return cp_fail(err, CP_USAGE, "'%.*s' after an API key; allowed: scopes=...", (int)n,
                           line);
        cp_code code =
            parse_scopes(line + sizeof(option) - 1, n - (sizeof(option) - 1), &out->scopes, err);
        if (code != CP_OK)
            return code;
    }
    return CP_OK;
}
