/* The GGUF reader and writer: what they accept, and a message of its own for everything refused.
 * The names CVE-... are published overflows of another reader, made here by hand. */
#include "support/cm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/gguf.h"
#include "support/golden.h"
#include "support/not_text.h"

/* ---- a file by hand ---- */

typedef struct file {
    uint8_t b[8192];
    size_t n;
} file;

static void put(file *f, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        f->b[f->n++] = (uint8_t)(i < 8 ? value >> (8 * i) : 0);
}

static void put_text_n(file *f, const char *text, size_t n)
{
    put(f, n, 8);
    memcpy(f->b + f->n, text, n);
    f->n += n;
}

static void put_text(file *f, const char *text) { put_text_n(f, text, strlen(text)); }

static file start(uint64_t n_tensors, uint64_t n_pairs)
{
    file f = { .n = 0 };
    memcpy(f.b, "GGUF", 4);
    f.n = 4;
    put(&f, 3, 4);
    put(&f, n_tensors, 8);
    put(&f, n_pairs, 8);
    return f;
}

static void put_info(file *f, const char *name, int n_dims, const uint64_t *ne, uint32_t type,
                     uint64_t offset)
{
    put_text(f, name);
    put(f, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++)
        put(f, ne[i], 8);
    put(f, type, 4);
    put(f, offset, 8);
}

#define NE(...) \
    (sizeof((uint64_t[]){ __VA_ARGS__ }) / 8), (uint64_t[]) { __VA_ARGS__ }

static void put_data(file *f, size_t n)
{
    f->n = (f->n + 31) / 32 * 32 + n;
    assert_true(f->n <= sizeof f->b);
}

static void refuses(const file *f, fv_status status, const char *part)
{
    fv_gguf *g = (fv_gguf *)1;
    fv_error err = { 0 };
    uint8_t *copy = malloc(f->n ? f->n : 1); /* so that sanitizers see the end */
    assert_non_null(copy);
    memcpy(copy, f->b, f->n);
    assert_int_equal(fv_gguf_read(&g, copy, f->n, "x.gguf", &err), status);
    assert_null(g);
    if (!strstr(err.message, part) || !strstr(err.message, "x.gguf"))
        fail_msg("message \"%s\" does not hold \"%s\"", err.message, part);
    free(copy);
}

/* ---- reading ---- */

static void test_accepts(void **state)
{
    (void)state;
    file f = start(2, 3);
    fv_gguf *g = NULL;
    fv_error err;
    int64_t i = 0, list[4];
    double d = 0;
    bool b = true;
    const char *text;
    size_t n;
    put_text(&f, "a.number"), put(&f, FV_GGUF_I16, 4), put(&f, 0xfffe, 2);
    put_text(&f, "a.list"), put(&f, FV_GGUF_ARRAY, 4), put(&f, FV_GGUF_U8, 4), put(&f, 3, 8),
        put(&f, 0x030201, 3);
    put_text(&f, "a.text"), put(&f, FV_GGUF_STRING, 4), put_text(&f, "\xc4\xa0y");
    put_info(&f, "m", NE(64, 3), 8, 0);
    put_info(&f, "v", NE(5), 0, 224);
    put_data(&f, 224 + 20);
    if (fv_gguf_read(&g, f.b, f.n, "x", &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(fv_gguf_count(g), 3);
    assert_int_equal(fv_gguf_int(g, "a.number", -5, 5, &i, &err), FV_OK);
    assert_int_equal(i, -2);
    assert_int_equal(fv_gguf_number(g, "a.number", -5, 5, &d, &err), FV_OK);
    assert_true(d == -2);
    assert_int_equal(fv_gguf_ints(g, "a.list", 1, 3, 0, 4, list, &n, &err), FV_OK);
    assert_true(n == 3 && list[0] == 1 && list[2] == 3);
    assert_int_equal(fv_gguf_string(g, "a.text", &text, &n, &err), FV_OK);
    assert_true(n == 3 && !memcmp(text, "\xc4\xa0y", 3));
    assert_int_equal(fv_gguf_opt_bool(g, "nothing", &b, &err), FV_OK);
    assert_true(b);
    const fv_tensor *m = fv_tensors_find(fv_gguf_tensors(g), "m");
    assert_int_equal(m->type, FV_TYPE_Q8_0);
    /* the fastest comes last */
    assert_true(m->n_dims == 2 && m->shape[0] == 3 && m->shape[1] == 64);
    assert_int_equal(m->n_bytes, 3 * 68);
    assert_ptr_equal(m->data, f.b + f.n - 244);

    assert_int_equal(fv_gguf_int(g, "a.number", 0, 5, &i, &err), FV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "a.number is -2, expected an integer in [0, 5]"));
    assert_int_equal(fv_gguf_int(g, "a.text", 0, 5, &i, &err), FV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "a.text: expected an integer, found type string"));
    assert_int_equal(fv_gguf_int(g, "a.none", 0, 5, &i, &err), FV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "a.none is missing"));
    assert_int_equal(fv_gguf_ints(g, "a.list", 1, 2, 0, 4, list, &n, &err), FV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "a.list[2] is 3"));
    assert_int_equal(fv_gguf_ints(g, "a.list", 1, 3, 0, 2, list, &n, &err), FV_ERR_FORMAT);
    assert_int_equal(fv_gguf_string(g, "a.list", &text, &n, &err), FV_ERR_FORMAT);
    assert_int_equal(fv_gguf_opt_bool(g, "a.number", &b, &err), FV_ERR_FORMAT);
    assert_int_equal(fv_gguf_check_hashes(g, NULL, &err), FV_ERR_UNSUPPORTED);
    fv_gguf_free(g);
}

static void test_refuses_headers(void **state)
{
    (void)state;
    file f = start(0, 0);
    f.b[0] = 'g';
    refuses(&f, FV_ERR_FORMAT, "does not start with \"GGUF\"");
    f = start(0, 0), f.n = 23;
    refuses(&f, FV_ERR_FORMAT, "not a GGUF file");
    f.n = 0;
    refuses(&f, FV_ERR_FORMAT, "not a GGUF file");
    f = start(0, 0), f.b[4] = 2;
    refuses(&f, FV_ERR_UNSUPPORTED, "version 2, expected 3");
    f = start(0, 0), f.b[4] = 0, f.b[7] = 3;
    refuses(&f, FV_ERR_UNSUPPORTED, "big-endian");
    f = start(UINT64_MAX / 8, 0); /* CVE-2024-21836: the count times a size wraps */
    refuses(&f, FV_ERR_FORMAT, "claims 2305843009213693951 tensors");
    f = start(0, UINT64_MAX / 16); /* CVE-2024-23605 */
    refuses(&f, FV_ERR_FORMAT, "metadata keys in 24 bytes");
    f = start(0, 1);
    refuses(&f, FV_ERR_FORMAT, "claims 1 metadata keys");
}

static file pair(const char *key, uint32_t type)
{
    file f = start(0, 1);
    put_text(&f, key);
    put(&f, type, 4);
    return f;
}

static void test_refuses_metadata(void **state)
{
    (void)state;
    file f = start(0, 1);
    put(&f, UINT64_MAX, 8), put(&f, 0, 32); /* CVE-2024-23496: length + 1 wraps */
    refuses(&f, FV_ERR_FORMAT, "claims 18446744073709551615 bytes");
    f = pair("k", 13), put(&f, 0, 8);
    refuses(&f, FV_ERR_FORMAT, "k has metadata type 13");
    f = pair("", 0), put(&f, 0, 8);
    refuses(&f, FV_ERR_FORMAT, "has 0 bytes, expected 1 to 65535");
    f = pair("a\x01", 0), put(&f, 0, 8);
    refuses(&f, FV_ERR_FORMAT, "contains byte 0x01");
    f = pair("k", FV_GGUF_BOOL), put(&f, 2, 1);
    refuses(&f, FV_ERR_FORMAT, "a bool is not 0 or 1");
    f = pair("kkkk", FV_GGUF_U64), put(&f, 2, 4);
    refuses(&f, FV_ERR_FORMAT, "ends inside the metadata");
    f = pair("k", FV_GGUF_STRING), put_text_n(&f, "a\0b", 3);
    refuses(&f, FV_ERR_FORMAT, "not UTF-8, or contains a NUL");
    f = pair("k", FV_GGUF_STRING), put_text(&f, "\xc0\x80"); /* a NUL in two bytes */
    refuses(&f, FV_ERR_FORMAT, "not UTF-8");
    f = pair("k", FV_GGUF_STRING), put_text(&f, "\xed\xa0\x80"); /* a surrogate */
    refuses(&f, FV_ERR_FORMAT, "not UTF-8");
    /* n times 8 is 0 */
    f = pair("k", FV_GGUF_ARRAY), put(&f, FV_GGUF_U64, 4), put(&f, UINT64_C(1) << 61, 8);
    refuses(&f, FV_ERR_FORMAT, "claims 2305843009213693952 elements");
    /* CVE-2024-21825 */
    f = pair("k", FV_GGUF_ARRAY), put(&f, FV_GGUF_STRING, 4), put(&f, UINT64_C(1) << 60, 8);
    refuses(&f, FV_ERR_FORMAT, "elements of type string");
    f = pair("k", FV_GGUF_ARRAY), put(&f, FV_GGUF_STRING, 4), put(&f, 2, 8), put_text(&f, "ab"),
    put(&f, 100, 8);
    refuses(&f, FV_ERR_FORMAT, "claims 100 bytes");
    f = pair("k", FV_GGUF_ARRAY), put(&f, FV_GGUF_BOOL, 4), put(&f, 2, 8), put(&f, 0x201, 2);
    refuses(&f, FV_ERR_FORMAT, "a bool is not 0 or 1");
    f = pair("k", FV_GGUF_ARRAY);
    for (int i = 0; i < 100; i++)
        put(&f, FV_GGUF_ARRAY, 4), put(&f, 1, 8);
    refuses(&f, FV_ERR_UNSUPPORTED, "nested more than 4 deep");
    f = start(0, 2);
    for (int i = 0; i < 2; i++)
        put_text(&f, "twice"), put(&f, FV_GGUF_U32, 4), put(&f, 7, 4);
    refuses(&f, FV_ERR_FORMAT, "duplicate metadata key twice");
    f = pair("general.alignment", FV_GGUF_U32), put(&f, 0, 4); /* a division by it */
    refuses(&f, FV_ERR_FORMAT, "general.alignment is 0");
    f = pair("general.alignment", FV_GGUF_U32), put(&f, 12, 4);
    refuses(&f, FV_ERR_FORMAT, "expected a multiple of 8");
    f = pair("general.alignment", FV_GGUF_STRING), put_text(&f, "32");
    refuses(&f, FV_ERR_FORMAT, "expected an integer");
}

static void test_refuses_tensors(void **state)
{
    (void)state;
    /* 64 */
    static const char long_name[] =
        "0123456789012345678901234567890123456789012345678901234567890123";
    file f = start(1, 0);
    /* CVE-2024-21802: the product is 0 */
    put_info(&f, "a", NE(UINT64_C(1) << 32, UINT64_C(1) << 31, 4), 0, 0);
    refuses(&f, FV_ERR_FORMAT, "the product of its shape [4, 2147483648, 4294967296] overflows");
    f = start(1, 0), put_info(&f, "a", NE((UINT64_C(1) << 62) + 4), 0, 0); /* times 4 it is 16 */
    refuses(&f, FV_ERR_FORMAT, "its size overflows");
    f = start(1, 0), put_info(&f, "a", 5, (uint64_t[5]){ 1, 1, 1, 1, 1 }, 0, 0);
    refuses(&f, FV_ERR_FORMAT, "has 5 dimensions, up to 4");
    f = start(1, 0), put_text(&f, "a"), put(&f, UINT32_MAX, 4), put(&f, 0, 32);
    refuses(&f, FV_ERR_FORMAT, "4294967295 dimensions");
    f = start(1, 0), put_info(&f, "a", NE(4), 3, 0), put_data(&f, 64);
    refuses(&f, FV_ERR_UNSUPPORTED, "tensor a has type number 3");
    f = start(1, 0), put_info(&f, "a", NE(4), UINT32_MAX, 0), put_data(&f, 64);
    refuses(&f, FV_ERR_UNSUPPORTED, "type number 4294967295");
    f = start(1, 0), put_info(&f, "a", NE(48, 2), 8, 0), put_data(&f, 256);
    refuses(&f, FV_ERR_FORMAT, "rows of 48 elements, Q8_0 needs a multiple of 32");
    f = start(1, 0), put_info(&f, "a", NE(16), 0, 0), put_data(&f, 63);
    refuses(&f, FV_ERR_FORMAT, "lies at bytes 0 to 64 of the data, the file has 63");
    f = start(1, 0), put_info(&f, "a", NE(4), 0, 16), put_data(&f, 64);
    refuses(&f, FV_ERR_FORMAT, "has offset 16, expected a multiple of 32");
    /* CVE-2025-53630: offset + size wraps */
    f = start(1, 0), put_info(&f, "a", NE(8), 0, UINT64_MAX - 31), put_data(&f, 64);
    refuses(&f, FV_ERR_FORMAT, "tensor a lies at bytes 18446744073709551584");
    f = start(2, 0), put_info(&f, "a", NE(16), 0, 0), put_info(&f, "b", NE(16), 0, 32),
    put_data(&f, 128);
    refuses(&f, FV_ERR_FORMAT, "tensors a and b overlap");
    f = start(2, 0), put_info(&f, "a", NE(8), 0, 0), put_info(&f, "a", NE(8), 0, 32),
    put_data(&f, 64);
    refuses(&f, FV_ERR_FORMAT, "a is listed twice");
    f = start(1, 0), put_info(&f, long_name, NE(8), 0, 0), put_data(&f, 64);
    refuses(&f, FV_ERR_FORMAT, "has 64 bytes, expected 1 to 63");
    f = start(1, 0), put_info(&f, "", NE(8), 0, 0), put_data(&f, 64);
    refuses(&f, FV_ERR_FORMAT, "has 0 bytes");
    f = start(1, 0), put_info(&f, "a\xff", NE(8), 0, 0), put_data(&f, 64);
    refuses(&f, FV_ERR_FORMAT, "not UTF-8");
    f = start(1, 0), put_text_n(&f, "a\0b", 3), put(&f, 1, 4), put(&f, 8, 8), put(&f, 0, 12),
    put_data(&f, 64);
    refuses(&f, FV_ERR_FORMAT, "contains a NUL");
    f = start(1, 0), put_info(&f, "abc", NE(8), 0, 0), f.n -= 9;
    refuses(&f, FV_ERR_FORMAT, "ends inside the list of tensors");
}

/* Every shorter file is refused. */
static void test_truncated(void **state)
{
    (void)state;
    file f = start(1, 2);
    put_text(&f, "a.list"), put(&f, FV_GGUF_ARRAY, 4), put(&f, FV_GGUF_STRING, 4), put(&f, 2, 8),
        put_text(&f, "x"), put_text(&f, "y");
    put_text(&f, "b"), put(&f, FV_GGUF_F64, 4), put(&f, 0, 8);
    put_info(&f, "t", NE(8), 0, 0);
    put_data(&f, 32);
    for (size_t n = f.n; n-- > 0;) {
        file cut = f;
        cut.n = n;
        refuses(&cut, FV_ERR_FORMAT, "");
    }
}

/* ---- writing ---- */

static void write_some(const char *path, const float *data, fv_error *err, fv_status expected)
{
    fv_gguf_writer *w = NULL;
    uint64_t shape[2] = { 3, 5 };
    const float lost[3] = { 1.5f, INFINITY, -2 };
    fv_status status = fv_gguf_writer_new(&w, path, err);
    if (status == FV_OK) {
        fv_gguf_put_u32(w, "a.u32", 7);
        fv_gguf_put_f64(w, "a.f64", 0.1);
        fv_gguf_put_bool(w, "a.bool", true);
        fv_gguf_put_strings(w, "a.strings", 2);
        fv_gguf_put_item(w, "one", 3);
        fv_gguf_put_item(w, "", 0);
        fv_gguf_put_array(w, "a.ints", FV_GGUF_I32, (int32_t[]){ -1, 2 }, 2);
        fv_gguf_reserve_floats(w, "a.lost", 3);
        fv_gguf_add_tensor(w, "m", FV_TYPE_F32, shape, 2);
        fv_gguf_add_tensor(w, "empty", FV_TYPE_F32, (uint64_t[]){ 0 }, 1);
        fv_gguf_add_tensor(w, "v", FV_TYPE_I8, shape, 1);
        status = fv_gguf_begin_data(w, err);
    }
    for (int i = 0; i < 15 && status == FV_OK; i++) /* in pieces */
        status = fv_gguf_write(w, data + i, 4, err);
    if (status == FV_OK)
        status = fv_gguf_write(w, "abc", 3, err);
    if (status == FV_OK) {
        assert_int_equal(fv_gguf_write(w, "d", 1, err), FV_ERR_STATE);
        fv_gguf_set_floats(w, lost, 3);
        status = fv_gguf_finish(w, err);
    }
    fv_gguf_writer_free(w);
    if (status != expected)
        fail_msg("status %s: %s", fv_status_name(status), err->message);
}

static void test_writes(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[1200];
    float data[15];
    fv_gguf *g = NULL;
    fv_error err = { 0 };
    const fv_gguf_value *v;
    int64_t list[2];
    size_t n, data_at;
    double d;
    for (int i = 0; i < 15; i++)
        data[i] = (float)i / 7;
    snprintf(path, sizeof path, "%s/some.gguf", dir);
    write_some(path, data, &err, FV_OK);
    write_some(path, data, &err, FV_OK); /* in place of the first */
    if (fv_gguf_open(&g, path, &err) != FV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(fv_gguf_number(g, "a.f64", 0, 1, &d, &err), FV_OK);
    assert_true(d == 0.1);
    assert_int_equal(fv_gguf_ints(g, "a.ints", -1, 2, 2, 2, list, &n, &err), FV_OK);
    assert_true(list[0] == -1 && list[1] == 2);
    assert_int_equal(fv_gguf_array(g, "a.strings", FV_GGUF_STRING, &v, &err), FV_OK);
    const uint8_t *at = v->data;
    assert_memory_equal(fv_gguf_next(&at, &n), "one", 3);
    fv_gguf_next(&at, &n);
    assert_int_equal(n, 0);
    assert_int_equal(fv_gguf_array(g, "a.lost", FV_GGUF_F32, &v, &err), FV_OK);
    float lost;
    memcpy(&lost, v->data + 8, 4);
    assert_true(lost == -2);
    const fv_tensor *m = fv_tensors_find(fv_gguf_tensors(g), "m"),
                    *x = fv_tensors_find(fv_gguf_tensors(g), "v");
    assert_true(m->shape[0] == 3 && m->shape[1] == 5);
    assert_memory_equal(m->data, data, sizeof data);
    assert_memory_equal(x->data, "abc", 3);
    assert_true((uintptr_t)x->data % 32 == 0);
    const uint8_t *bytes = fv_gguf_bytes(g, &n, &data_at);
    assert_int_equal(fv_gguf_check_hashes(g, NULL, &err), FV_OK);

    /* every bit of the file is under one of the hashes, or under the reader's eyes */
    uint8_t *copy = malloc(n);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    for (size_t i = 0; i < n; i++) {
        fv_gguf *other = NULL;
        copy[i] ^= (uint8_t)(1u << i % 8);
        if (fv_gguf_read(&other, copy, n, "x", &err) == FV_OK)
            assert_int_not_equal(fv_gguf_check_hashes(other, NULL, &err), FV_OK);
        fv_gguf_free(other);
        copy[i] ^= (uint8_t)(1u << i % 8);
    }
    free(copy);
    fv_gguf_free(g);
    temp_remove(dir);
}

/* A folder holds nothing but what was there. */
static void holds_only(const char *dir, const char *name)
{
    char command[1400];
    snprintf(command, sizeof command, "test \"$(ls -A %s)\" = \"%s\"", dir, name);
    if (system(command) != 0)
        fail_msg("%s does not hold only \"%s\"", dir, name);
}

/* A name in another encoding, as a directory may have: the file opens, with the name replaced. */
static void test_writes_text_only(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[1200];
    snprintf(path, sizeof path, "%s/x.gguf", dir);
    for (size_t i = 0; i < FV_COUNT(not_text); i++) {
        fv_gguf_writer *w = NULL;
        fv_gguf *g = NULL;
        fv_error err = { 0 };
        const char *text = NULL;
        size_t n = 0;
        assert_int_equal(fv_gguf_writer_new(&w, path, &err), FV_OK);
        fv_gguf_put_string(w, "a.name", not_text[i].bytes, strlen(not_text[i].bytes));
        fv_gguf_put_strings(w, "a.list", 1);
        fv_gguf_put_item(w, not_text[i].bytes, strlen(not_text[i].bytes));
        assert_int_equal(fv_gguf_begin_data(w, &err), FV_OK);
        assert_int_equal(fv_gguf_finish(w, &err), FV_OK);
        fv_gguf_writer_free(w);
        if (fv_gguf_open(&g, path, &err) != FV_OK)
            fail_msg("row %zu: %s", i, err.message);
        assert_int_equal(fv_gguf_string(g, "a.name", &text, &n, &err), FV_OK);
        assert_int_equal(n, strlen(not_text[i].text));
        assert_memory_equal(text, not_text[i].text, n);
        fv_gguf_free(g);
    }
    temp_remove(dir);
}

static void test_write_fails(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[1200];
    float data[15] = { 0 };
    fv_error err = { 0 };
    fv_gguf_writer *w = NULL;
    write_some(dir, data, &err, FV_ERR_IO);
    assert_non_null(strstr(err.message, "is a directory"));
    write_some("/dev/full", data, &err, FV_ERR_IO);
    assert_non_null(strstr(err.message, "is a device or a pipe"));
    snprintf(path, sizeof path, "%s/none/some.gguf", dir);
    write_some(path, data, &err, FV_ERR_IO);
    assert_non_null(strstr(err.message, "No such file"));
    snprintf(path, sizeof path, "%s/some.gguf", dir);

    /* gave up half way, too little data, too much for the disk */
    uint64_t shape[1] = { 8 };
    assert_int_equal(fv_gguf_writer_new(&w, path, &err), FV_OK);
    fv_gguf_add_tensor(w, "a", FV_TYPE_F32, shape, 1);
    assert_int_equal(fv_gguf_begin_data(w, &err), FV_OK);
    assert_int_equal(fv_gguf_finish(w, &err), FV_ERR_STATE);
    fv_gguf_writer_free(w);
    holds_only(dir, "");
    shape[0] = UINT64_C(1) << 56;
    assert_int_equal(fv_gguf_writer_new(&w, path, &err), FV_OK);
    fv_gguf_add_tensor(w, "a", FV_TYPE_F32, shape, 1);
    assert_int_equal(fv_gguf_begin_data(w, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "the disk has"));
    fv_gguf_writer_free(w);
    holds_only(dir, "");

    /* what the caller did wrong */
    shape[0] = 33;
    assert_int_equal(fv_gguf_writer_new(&w, path, &err), FV_OK);
    fv_gguf_add_tensor(w, "a", FV_TYPE_Q4_0, shape, 1);
    assert_int_equal(fv_gguf_begin_data(w, &err), FV_ERR_ARGUMENT);
    fv_gguf_writer_free(w);
    assert_int_equal(fv_gguf_writer_new(&w, path, &err), FV_OK);
    fv_gguf_add_tensor(w, "u", FV_TYPE_U8, shape, 1);
    assert_int_equal(fv_gguf_begin_data(w, &err), FV_ERR_ARGUMENT);
    fv_gguf_writer_free(w);
    holds_only(dir, "");
    temp_remove(dir);
}

/* Every allocation fails once. */
static void test_memory(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[1200];
    float data[15] = { 0 };
    fv_error err = { 0 };
    fv_gguf *g = NULL;
    snprintf(path, sizeof path, "%s/some.gguf", dir);
    write_some(path, data, &err, FV_OK);
    for (uint64_t n = 0;; n++) {
        int64_t live = fv_mem_live();
        fv_mem_fail_after(n);
        fv_status status = fv_gguf_open(&g, path, &err);
        fv_mem_fail_after(UINT64_MAX);
        if (status == FV_OK)
            break;
        assert_int_equal(status, FV_ERR_MEMORY);
        assert_null(g);
        assert_int_equal(fv_mem_live(), live);
        assert_true(n < 100);
    }
    fv_gguf_free(g);
    unlink(path);
    for (uint64_t n = 0; n < 6; n++) { /* of the writer, six */
        int64_t live = fv_mem_live();
        fv_mem_fail_after(n);
        write_some(path, data, &err, FV_ERR_MEMORY);
        fv_mem_fail_after(UINT64_MAX);
        assert_int_equal(fv_mem_live(), live);
        holds_only(dir, "");
    }
    temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),          cmocka_unit_test(test_refuses_headers),
        cmocka_unit_test(test_refuses_metadata), cmocka_unit_test(test_refuses_tensors),
        cmocka_unit_test(test_truncated),        cmocka_unit_test(test_writes),
        cmocka_unit_test(test_writes_text_only), cmocka_unit_test(test_write_fails),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
