/*
 * SHA-256 against FIPS 180-4's examples, and the strictness of the digest string.
 */
#include "tests/unit/base/suites.h"

#include "base/digest.h"
#include "base/mem.h"

#include <string.h>

static void check(const uint8_t d[32], const char *hex)
{
    char s[CP_DIGEST_STR];
    cp_digest_format(d, s);
    assert_memory_equal(s, "sha256:", 7);
    assert_string_equal(s + 7, hex);
}

static void known_vectors(void **state)
{
    (void)state;
    uint8_t d[32];
    cp_sha256_of("", 0, d);
    check(d, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    cp_sha256_of("abc", 3, d);
    check(d, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char block[997];
    memset(block, 'a', sizeof(block));
    cp_sha256 *h = cp_sha256_new();
    for (size_t left = 1000000; left;) {
        size_t n = left < sizeof(block) ? left : sizeof(block);
        cp_sha256_add(h, block, n);
        left -= n;
    }
    cp_sha256_done(h, d);
    check(d, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void strings_are_exact(void **state)
{
    (void)state;
    static const char good[] =
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    uint8_t d[32] = {0}, untouched[32] = {0};
    char bad[100];
    assert_true(cp_digest_parse(good, d));
    check(d, good + 7);
    memset(d, 0, sizeof(d));
    static const struct {
        int at;
        char c;
    } changes[] = {{0, 'S'}, {6, '-'}, {7, 'B'}, {70, 'g'}, {40, '\0'}, {30, ' '}, {70, '/'}};
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        memcpy(bad, good, sizeof(good));
        bad[changes[i].at] = changes[i].c;
        assert_false(cp_digest_parse(bad, d));
    }
    memcpy(bad, good, sizeof(good));
    memcpy(bad + sizeof(good) - 1, "0", 2);
    assert_false(cp_digest_parse(bad, d));
    assert_false(cp_digest_parse("", d));
    assert_memory_equal(d, untouched, 32);
}

/* FIPS 180-4's example "abc", and what is not exactly such a digest. */
static void sha512_of_others(void **state)
{
    (void)state;
    static const char good[] =
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    uint8_t have[64], want[64];
    char bad[CP_DIGEST_ANY];
    cp_sha512_of("abc", 3, have);
    assert_true(cp_sha512_parse(good, want));
    assert_memory_equal(have, want, 64);
    static const int places[] = {0, 6, 7, 70, 134};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        memcpy(bad, good, sizeof(good));
        bad[places[i]] = 'G';
        assert_false(cp_sha512_parse(bad, have));
    }
    memcpy(bad, good, sizeof(good));
    memcpy(bad + sizeof(good) - 1, "0", 2);
    assert_false(cp_sha512_parse(bad, have));
    assert_false(cp_sha512_parse("sha512:", have));
    assert_memory_equal(have, want, 64);
}

static void secrets_compare(void **state)
{
    (void)state;
    assert_true(cp_secret_equal("abcd", "abcx", 3));
    assert_false(cp_secret_equal("abcd", "abcx", 4));
    assert_true(cp_secret_equal("a", "b", 0));
}

static void digits_alone(void **state)
{
    (void)state;
    static const char hex[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    char s[CP_HEX_STR], cut[CP_HEX_STR];
    uint8_t d[32], other[32] = {0};
    assert_true(cp_digest_of_hex(hex, d));
    check(d, hex);
    cp_digest_hex(d, s);
    assert_string_equal(s, hex);
    char longer[80];
    cp_snprintf(longer, sizeof(longer), "%s.lock", hex); /* begins with them */
    assert_true(cp_digest_of_hex(longer, other));
    assert_memory_equal(other, d, 32);
    memset(other, 7, sizeof(other));
    for (size_t n = 0; n < 64; n++) {
        memcpy(cut, hex, n);
        cut[n] = '\0';
        assert_false(cp_digest_of_hex(cut, other));
    }
    for (size_t i = 0; i < sizeof(other); i++)
        assert_int_equal(other[i], 7);
}

int suite_digest(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors),    cmocka_unit_test(strings_are_exact),
        cmocka_unit_test(sha512_of_others), cmocka_unit_test(digits_alone),
        cmocka_unit_test(secrets_compare),
    };
    return cmocka_run_group_tests_name("digest", tests, NULL, NULL);
}
