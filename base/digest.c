/*
 * SHA-256 goes through libcrypto's EVP interface, which uses hardware instructions where the CPU
 * has them. libcrypto can only fail here for want of memory, which aborts like every small internal
 * allocation.
 */
#include "base/digest.h"

#include "base/code.h"
#include "base/mem.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct cp_sha256 {
    EVP_MD_CTX *ctx;
};

cp_sha256 *cp_sha256_new(void)
{
    cp_sha256 *h = cp_xmalloc(sizeof(*h));
    h->ctx = EVP_MD_CTX_new();
    CP_ASSERT(h->ctx);
    CP_ASSERT(EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) == 1);
    return h;
}

void cp_sha256_add(cp_sha256 *h, const void *p, size_t n)
{
    CP_ASSERT(EVP_DigestUpdate(h->ctx, p, n) == 1);
}

void cp_sha256_done(cp_sha256 *h, uint8_t out[32])
{
    unsigned len = 0;
    CP_ASSERT(EVP_DigestFinal_ex(h->ctx, out, &len) == 1 && len == 32);
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

void cp_sha256_of(const void *p, size_t n, uint8_t out[32])
{
    unsigned len = 0;
    CP_ASSERT(EVP_Digest(p, n, out, &len, EVP_sha256(), NULL) == 1 && len == 32);
}

void cp_digest_hex(const uint8_t d[32], char out[CP_HEX_STR])
{
    static const char hex[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = hex[d[i] >> 4];
        out[2 * i + 1] = hex[d[i] & 15];
    }
    out[64] = '\0';
}

void cp_digest_format(const uint8_t d[32], char out[CP_DIGEST_STR])
{
    memcpy(out, "sha256:", 7);
    cp_digest_hex(d, out + 7);
}

bool cp_is_hex(const char *s, size_t n)
{
    return strspn(s, "0123456789abcdef") >= n;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* n bytes from 2n digits; out is whole or as it was. */
static bool unhex(const char *s, uint8_t *out, int n)
{
    uint8_t d[64];
    for (int i = 0; i < n; i++) {
        int hi = nibble(s[2 * i]), lo = hi < 0 ? -1 : nibble(s[2 * i + 1]);
        if (lo < 0)
            return false; /* the end of s, among others */
        d[i] = (uint8_t)(hi << 4 | lo);
    }
    memcpy(out, d, (size_t)n);
    return true;
}

bool cp_digest_of_hex(const char *s, uint8_t out[32])
{
    return unhex(s, out, 32);
}

bool cp_digest_parse(const char *s, uint8_t out[32])
{
    return strncmp(s, "sha256:", 7) == 0 && strnlen(s, CP_DIGEST_STR) == CP_DIGEST_STR - 1 &&
           cp_digest_of_hex(s + 7, out);
}

void cp_sha512_of(const void *p, size_t n, uint8_t out[64])
{
    unsigned len = 0;
    CP_ASSERT(EVP_Digest(p, n, out, &len, EVP_sha512(), NULL) == 1 && len == 64);
}

bool cp_sha512_parse(const char *s, uint8_t out[64])
{
    return strncmp(s, "sha512:", 7) == 0 && strnlen(s, CP_DIGEST_ANY) == 7 + 128 &&
           unhex(s + 7, out, 64);
}

bool cp_secret_equal(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}
