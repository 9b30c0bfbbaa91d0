/*
 * digest: computes SHA-256 (FIPS 180-4) over libcrypto, and writes OCI's digest strings, "sha256:"
 * and 64 lower-case hex digits (OCI image-spec, descriptor, Digests). Of SHA-512, the other
 * registered algorithm, it has what reading documents needs.
 *
 * A cp_sha256 belongs to its caller; any thread may call these functions. In base only digest.c
 * includes OpenSSL.
 */
#ifndef CP_BASE_DIGEST_H
#define CP_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cp_sha256 cp_sha256;
cp_sha256 *cp_sha256_new(void);
void cp_sha256_add(cp_sha256 *h, const void *p, size_t n);
void cp_sha256_done(cp_sha256 *h, uint8_t out[32]); /* finishes and frees h */
void cp_sha256_of(const void *p, size_t n, uint8_t out[32]);

#define CP_DIGEST_STR 72 /* "sha256:" + 64 + NUL */
void cp_digest_format(const uint8_t d[32], char out[CP_DIGEST_STR]);
bool cp_digest_parse(const char *s, uint8_t out[32]); /* exactly ^sha256:[0-9a-f]{64}$ */
/* Room for a digest's text whatever its algorithm: "sha512:" + 128 + NUL fit. */
#define CP_DIGEST_ANY 144
void cp_sha512_of(const void *p, size_t n, uint8_t out[64]);
bool cp_sha512_parse(const char *s, uint8_t out[64]); /* exactly ^sha512:[0-9a-f]{128}$ */
/* The 64 digits alone, as blobs and what is derived from them are named; and back from what begins
 * with them. */
#define CP_HEX_STR 65
void cp_digest_hex(const uint8_t d[32], char out[CP_HEX_STR]);
bool cp_digest_of_hex(const char *s, uint8_t out[32]);
/* Does s begin with n lower-case hex digits? */
bool cp_is_hex(const char *s, size_t n);
/* Constant-time comparison of n bytes. */
bool cp_secret_equal(const void *a, const void *b, size_t n);

#endif
