/* The safetensors reader: what it accepts, and a message of its own for everything it refuses. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/tensors.h"
#include "support/golden.h"

/* header JSON and n_data zero bytes behind it; header_bytes < 0: its true length */
static uint8_t *make(const char *header, size_t n_data, int64_t header_bytes, size_t *n)
{
    size_t length = strlen(header);
    uint64_t claimed = header_bytes < 0 ? length : (uint64_t)header_bytes;
    *n = 8 + length + n_data;
    uint8_t *bytes = calloc(*n, 1);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(claimed >> (8 * i));
    memcpy(bytes + 8, header, length);
    return bytes;
}

static void refuses(const char *header, size_t n_data, int64_t header_bytes, fv_status status,
                    const char *part)
{
    size_t n;
    uint8_t *bytes = make(header, n_data, header_bytes, &n);
    fv_tensors *t = (fv_tensors *)1;
    fv_error err = { 0 };
    assert_int_equal(fv_tensors_read(&t, bytes, n, "x.safetensors", &err), status);
    assert_null(t);
    if (!strstr(err.message, part) || !strstr(err.message, "x.safetensors"))
        fail_msg("message \"%s\" does not hold \"%s\"", err.message, part);
    free(bytes);
}

#define A_F32(shape, from, to) \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to "]}}"

static void test_accepts(void **state)
{
    (void)state;
    size_t n;
    uint8_t *bytes = make("{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"I64\","
                          "\"shape\":[],\"data_offsets\":[24,32]},"
                          "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}",
                          32, -1, &n);
    fv_tensors *t = NULL;
    fv_error err;
    assert_int_equal(fv_tensors_read(&t, bytes, n, "x", &err), FV_OK);
    assert_int_equal(fv_tensors_count(t), 2);
    const fv_tensor *a = fv_tensors_find(t, "a");
    assert_ptr_equal(a, fv_tensors_at(t, 0)); /* file order, not the header's */
    assert_int_equal(a->n_elems, 6);
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(fv_tensors_find(t, "b")->n_dims, 0);
    assert_null(fv_tensors_find(t, "c"));
    assert_null(fv_tensors_find(t, "__metadata__"));
    fv_tensors_free(t);
    free(bytes);
}

/* Every type of the format, the bytes of 8 elements, and the same in five dimensions. [What
 * safetensors 0.8.0, the Rust library, takes: its list of names, and for each the only range that
 * it does not refuse.] */
static const struct dtype_case {
    const char *name;
    size_t n_bytes;
    fv_type type;
} dtype_cases[] = {
    { "BOOL", 8, FV_TYPE_OTHER },
    { "F4", 4, FV_TYPE_OTHER },
    { "F6_E2M3", 6, FV_TYPE_OTHER },
    { "F6_E3M2", 6, FV_TYPE_OTHER },
    { "U8", 8, FV_TYPE_U8 },
    { "I8", 8, FV_TYPE_I8 },
    { "F8_E5M2", 8, FV_TYPE_OTHER },
    { "F8_E4M3", 8, FV_TYPE_OTHER },
    { "F8_E8M0", 8, FV_TYPE_OTHER },
    { "F8_E4M3FNUZ", 8, FV_TYPE_OTHER },
    { "F8_E5M2FNUZ", 8, FV_TYPE_OTHER },
    { "I16", 16, FV_TYPE_OTHER },
    { "U16", 16, FV_TYPE_OTHER },
    { "F16", 16, FV_TYPE_F16 },
    { "BF16", 16, FV_TYPE_BF16 },
    { "I32", 32, FV_TYPE_I32 },
    { "U32", 32, FV_TYPE_OTHER },
    { "F32", 32, FV_TYPE_F32 },
    { "C64", 64, FV_TYPE_OTHER },
    { "F64", 64, FV_TYPE_OTHER },
    { "I64", 64, FV_TYPE_I64 },
    { "U64", 64, FV_TYPE_OTHER },
};

static void test_types_of_the_format(void **state)
{
    (void)state;
    for (size_t i = 0; i < FV_COUNT(dtype_cases); i++)
        for (size_t n_data = 1; n_data <= 65; n_data++)
            for (int deep = 0; deep < 2; deep++) {
                const struct dtype_case *c = &dtype_cases[i];
                char header[160];
                fv_tensors *t = NULL;
                fv_error err = { 0 };
                size_t n;
                snprintf(header, sizeof header,
                         "{\"a\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[0,%zu]}}",
                         c->name, deep ? "2,1,1,2,2" : "8", n_data);
                uint8_t *bytes = make(header, n_data, -1, &n);
                fv_status status = fv_tensors_read(&t, bytes, n, "x", &err);
                if ((status == FV_OK) != (n_data == c->n_bytes))
                    fail_msg("%s in %zu bytes: %s", c->name, n_data, err.message);
                if (t) {
                    const fv_tensor *x = fv_tensors_at(t, 0);
                    assert_int_equal(x->type, c->type);
                    assert_string_equal(fv_tensor_type_name(x), c->name);
                    assert_int_equal(x->n_elems, 8);
                    assert_int_equal(x->rank, deep ? 5 : 1);
                    assert_int_equal(x->n_dims, deep ? 4 : 1);
                    assert_int_equal(x->shape[deep ? 3 : 0], deep ? 4 : 8);
                }
                fv_tensors_free(t);
                free(bytes);
            }
}

static void test_refuses(void **state)
{
    (void)state;
    refuses("{}", 0, INT64_MAX, FV_ERR_FORMAT, "the header claims 9223372036854775807 bytes");
    refuses("{}", 0, 3, FV_ERR_FORMAT, "the header claims 3 bytes");
    refuses("{\"a\":", 0, -1, FV_ERR_FORMAT, "x.safetensors");
    refuses("[]", 0, -1, FV_ERR_FORMAT, "not a JSON object");
    refuses(A_F32("4", 0, 16), 8, -1, FV_ERR_FORMAT,
            "tensor a lies at bytes 0 to 16 of the data, the file has 8");
    refuses(A_F32("4", 8, 0), 16, -1, FV_ERR_FORMAT, "begins at byte 8 of the data and ends at 0");
    refuses(A_F32("3", 0, 16), 16, -1, FV_ERR_FORMAT, "need 12 bytes, its range has 16");
    refuses(A_F32("4294967296,4294967296", 0, 8), 8, -1, FV_ERR_FORMAT, "overflows");
    refuses(A_F32("4611686018427387904", 0, 8), 8, -1, FV_ERR_FORMAT, "overflows");
    refuses(A_F32("-1", 0, 8), 8, -1, FV_ERR_FORMAT, "shape");
    refuses(A_F32("18446744073709551616", 0, 8), 8, -1, FV_ERR_FORMAT, "shape[0]");
    refuses(A_F32("1,\"2\"", 0, 8), 8, -1, FV_ERR_FORMAT, "shape[1]: expected an integer");
    refuses(A_F32("1,1,1,1,3", 0, 4), 4, -1, FV_ERR_FORMAT, "need 12 bytes");
    /* a type that is not known: where its bytes lie is checked all the same */
    refuses("{\"a\":{\"dtype\":\"F8\",\"shape\":[4],\"data_offsets\":[0,5]}}", 4, -1, FV_ERR_FORMAT,
            "tensor a lies at bytes 0 to 5 of the data, the file has 4");
    refuses("{\"a\":{\"dtype\":\"NEW\",\"shape\":[4],\"data_offsets\":[0,4]},"
            "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
            8, -1, FV_ERR_FORMAT, "tensors a and b overlap");
    refuses("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, -1, FV_ERR_FORMAT,
            "need 1 and a part of bytes, its range has 1");
    refuses("{\"a\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}", 4, -1, FV_ERR_FORMAT,
            "dtype: expected a string");
    refuses("{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, -1, FV_ERR_FORMAT, "dtype");
    refuses("{\"a\":7}", 4, -1, FV_ERR_FORMAT, "expected an object");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
            "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
            12, -1, FV_ERR_FORMAT, "tensors a and b overlap");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
            "\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[2,2]},"
            "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
            12, -1, FV_ERR_FORMAT, "tensors a and b overlap");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
            "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
            8, -1, FV_ERR_FORMAT, "x.safetensors");
}

static void write_file(const char *dir, const char *name, const void *data, size_t n)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void open_refuses(const char *dir, fv_status status, const char *part)
{
    fv_tensors *t = NULL;
    fv_error err = { 0 };
    assert_int_equal(fv_tensors_open(&t, dir, &err), status);
    if (!strstr(err.message, part))
        fail_msg("message \"%s\" does not hold \"%s\"", err.message, part);
}

static void test_directories(void **state)
{
    (void)state;
    char *dir = temp_dir();
    size_t n;
    uint8_t *bytes = make(A_F32("2", 0, 8), 8, -1, &n);
    open_refuses(dir, FV_ERR_IO, "no weights");
    const char *index = "{\"weight_map\":{\"a\":\"s-1.safetensors\"}}";
    write_file(dir, "model.safetensors.index.json", index, strlen(index));
    open_refuses(dir, FV_ERR_IO, "s-1.safetensors");
    write_file(dir, "s-1.safetensors", bytes, n);
    fv_tensors *t = NULL;
    fv_error err;
    assert_int_equal(fv_tensors_open(&t, dir, &err), FV_OK);
    assert_int_equal(fv_tensors_count(t), 1);
    fv_tensors_free(t);
    index = "{\"weight_map\":{\"a\":\"s-1.safetensors\",\"b\":\"s-1.safetensors\"}}";
    write_file(dir, "model.safetensors.index.json", index, strlen(index));
    open_refuses(dir, FV_ERR_FORMAT, "tensor b is not in s-1.safetensors");
    index = "{\"weight_map\":{\"a\":\"../s-1.safetensors\"}}";
    write_file(dir, "model.safetensors.index.json", index, strlen(index));
    open_refuses(dir, FV_ERR_FORMAT, "same directory");
    write_file(dir, "s-2.safetensors", bytes, n);
    index = "{\"weight_map\":{\"a\":\"s-1.safetensors\",\"c\":\"s-2.safetensors\"}}";
    write_file(dir, "model.safetensors.index.json", index, strlen(index));
    open_refuses(dir, FV_ERR_FORMAT, "tensor");
    write_file(dir, "model.safetensors", "", 0);
    open_refuses(dir, FV_ERR_FORMAT, "0 bytes are too few");
    free(bytes);
    temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_accepts),
                                        cmocka_unit_test(test_types_of_the_format),
                                        cmocka_unit_test(test_refuses),
                                        cmocka_unit_test(test_directories) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
