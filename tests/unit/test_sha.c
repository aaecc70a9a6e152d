/* SHA-256 and SHA-1 against the published values, and the same whatever the pieces. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "pull/sha1.h"
#include "base/sha256.h"
#include "support/cm.h"

/* [FIPS 180-4 examples; the empty string and a million times 'a' from the NIST vectors] */
static const struct {
    const char *text, *sha256, *sha1;
} known[] = {
    { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "da39a3ee5e6b4b0d3255bfef95601890afd80709" },
    { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      "a9993e364706816aba3e25717850c26c9cd0d89d" },
    { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      "84983e441c3bd26ebaae4aa1f95129e5e54670f1" },
};

static void hash_pieces(const uint8_t *data, size_t n, size_t piece, char hex256[65], char hex1[41])
{
    fv_sha256 s;
    fv_sha1 t;
    uint8_t digest[FV_SHA256_BYTES];
    fv_sha256_begin(&s);
    fv_sha1_begin(&t);
    for (size_t at = 0; at < n; at += piece) {
        fv_sha256_add(&s, data + at, FV_MIN(piece, n - at));
        fv_sha1_add(&t, data + at, FV_MIN(piece, n - at));
    }
    fv_sha256_end(&s, digest);
    fv_hex(hex256, digest, FV_SHA256_BYTES);
    fv_sha1_end(&t, digest);
    fv_hex(hex1, digest, FV_SHA1_BYTES);
}

static void test_known(void **state)
{
    char hex256[65], hex1[41];
    (void)state;
    for (size_t i = 0; i < FV_COUNT(known); i++) {
        hash_pieces((const uint8_t *)known[i].text, strlen(known[i].text), 64, hex256, hex1);
        assert_string_equal(hex256, known[i].sha256);
        assert_string_equal(hex1, known[i].sha1);
    }
}

static void test_million(void **state)
{
    char hex256[65], hex1[41];
    uint8_t *data = malloc(1000000);
    (void)state;
    memset(data, 'a', 1000000);
    hash_pieces(data, 1000000, 65537, hex256, hex1);
    assert_string_equal(hex256, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_string_equal(hex1, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    free(data);
}

/* Every length around the block size, in pieces of every awkward size: the digest of all at
 * once. */
static void test_pieces(void **state)
{
    uint8_t data[300];
    char once256[65], once1[41], hex256[65], hex1[41];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 131 + 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        hash_pieces(data, n, sizeof data, once256, once1);
        for (size_t piece = 1; piece < 130; piece += 9) {
            hash_pieces(data, n, piece, hex256, hex1);
            assert_string_equal(hex256, once256);
            assert_string_equal(hex1, once1);
        }
    }
}

static int portable(void **state)
{
    (void)state;
    fv_sha256_portable = 1;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_million),
        cmocka_unit_test(test_pieces),
    };
    int bad = cmocka_run_group_tests_name("processor", tests, NULL, NULL);
    return bad + cmocka_run_group_tests_name("portable", tests, portable, NULL);
}
