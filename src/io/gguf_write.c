/* Metadata and tensors -> a GGUF file, in one pass over the data. See gguf.h.
 *
 * Everything before the data is put together in memory; its hashes and the reserved floats, which
 * are known last, are patched in place before the file gets its name. */
#include <string.h>
#include <sys/statvfs.h>

#include "base/list.h"
#include "base/outfile.h"
#include "base/report.h"
#include "base/sha256.h"
#include "base/utf8_text.h"
#include "io/gguf.h"

enum { HEX = 2 * FV_SHA256_BYTES, HEAD_BYTES = 24, COUNTS_AT = 8 };

typedef struct bytes {
    uint8_t *data;
    size_t n, capacity;
} bytes;

typedef struct span {
    uint64_t begin, end;
} span; /* of a tensor, in the data */

struct fv_gguf_writer {
    fv_outfile file;
    bytes meta, infos;
    uint64_t n_pairs, n_infos, data_bytes, written;
    span *spans; /* [n_infos] */
    size_t capacity, current;
    size_t hash_at, header_hash_at, floats_at, n_floats; /* in meta */
    fv_sha256 hash;                                      /* of the data */
    fv_error error;                                      /* the first one; status FV_OK: none */
};

/* ---- bytes of the header ---- */

static void add_bytes(fv_gguf_writer *w, bytes *b, const void *data, size_t n)
{
    if (w->error.status != FV_OK || FV_LIST_ROOM(b->data, b->n, b->capacity, n, &w->error) != FV_OK)
        return;
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put_le(uint8_t *to, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static void add_int(fv_gguf_writer *w, bytes *b, uint64_t value, size_t n)
{
    uint8_t le[8];
    put_le(le, value, n);
    add_bytes(w, b, le, n);
}

/* A string is text: what is not, such as the name of a directory in another encoding, is replaced,
 * so that the file opens again. */
static void head_add_string(fv_gguf_writer *w, bytes *b, const char *text, size_t n)
{
    char *replaced = NULL;
    if (n && (memchr(text, 0, n) || !fv_utf8_valid(text, n, NULL))) {
        replaced = fv_alloc(n, 3);
        if (!replaced && w->error.status == FV_OK)
            fv_fail_memory(&w->error, 3 * n, "a string");
        if (!replaced)
            return;
        n = fv_utf8_replace(replaced, text, n);
        text = replaced;
    }
    add_int(w, b, n, 8);
    add_bytes(w, b, text, n);
    fv_free(replaced);
}

static void add_key(fv_gguf_writer *w, const char *key, fv_gguf_type type)
{
    head_add_string(w, &w->meta, key, strlen(key));
    add_int(w, &w->meta, type, 4);
    w->n_pairs++;
}

static void put_int(fv_gguf_writer *w, const char *key, fv_gguf_type type, uint64_t value, size_t n)
{
    add_key(w, key, type);
    add_int(w, &w->meta, value, n);
}

void fv_gguf_put_u32(fv_gguf_writer *w, const char *key, uint32_t value)
{
    put_int(w, key, FV_GGUF_U32, value, 4);
}
void fv_gguf_put_i32(fv_gguf_writer *w, const char *key, int32_t value)
{
    put_int(w, key, FV_GGUF_I32, (uint32_t)value, 4);
}
void fv_gguf_put_u64(fv_gguf_writer *w, const char *key, uint64_t value)
{
    put_int(w, key, FV_GGUF_U64, value, 8);
}
void fv_gguf_put_bool(fv_gguf_writer *w, const char *key, bool value)
{
    put_int(w, key, FV_GGUF_BOOL, value, 1);
}

void fv_gguf_put_f32(fv_gguf_writer *w, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_int(w, key, FV_GGUF_F32, bits, 4);
}

void fv_gguf_put_f64(fv_gguf_writer *w, const char *key, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_int(w, key, FV_GGUF_F64, bits, 8);
}

void fv_gguf_put_string(fv_gguf_writer *w, const char *key, const char *text, size_t n_bytes)
{
    add_key(w, key, FV_GGUF_STRING);
    head_add_string(w, &w->meta, text, n_bytes);
}

static void put_array_head(fv_gguf_writer *w, const char *key, fv_gguf_type of, size_t n)
{
    add_key(w, key, FV_GGUF_ARRAY);
    add_int(w, &w->meta, of, 4);
    add_int(w, &w->meta, n, 8);
}

void fv_gguf_put_array(fv_gguf_writer *w, const char *key, fv_gguf_type of, const void *values,
                       size_t n)
{
    static const uint8_t size[FV_GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    put_array_head(w, key, of, n);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *at = (const uint8_t *)values + i * size[of];
        uint64_t value = 0;
        uint16_t u16;
        uint32_t u32;
        switch (size[of]) { /* as numbers, whatever this machine's byte order */
        case 1: value = *at; break;
        case 2:
            memcpy(&u16, at, 2);
            value = u16;
            break;
        case 4:
            memcpy(&u32, at, 4);
            value = u32;
            break;
        default: memcpy(&value, at, 8); break;
        }
        add_int(w, &w->meta, value, size[of]);
    }
}

void fv_gguf_put_strings(fv_gguf_writer *w, const char *key, size_t n)
{
    put_array_head(w, key, FV_GGUF_STRING, n);
}
void fv_gguf_put_item(fv_gguf_writer *w, const char *text, size_t n_bytes)
{
    head_add_string(w, &w->meta, text, n_bytes);
}

void fv_gguf_reserve_floats(fv_gguf_writer *w, const char *key, size_t n)
{
    put_array_head(w, key, FV_GGUF_F32, n);
    w->floats_at = w->meta.n;
    w->n_floats = n;
    for (size_t i = 0; i < n; i++)
        add_int(w, &w->meta, 0, 4);
}

void fv_gguf_set_floats(fv_gguf_writer *w, const float *values, size_t n)
{
    for (size_t i = 0; i < FV_MIN(n, w->n_floats) && w->error.status == FV_OK; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        put_le(w->meta.data + w->floats_at + 4 * i, bits, 4);
    }
}

/* ---- the list of tensors ---- */

static uint64_t aligned(uint64_t n)
{
    return (n + FV_GGUF_ALIGNMENT - 1) / FV_GGUF_ALIGNMENT * FV_GGUF_ALIGNMENT;
}

static void writer_complain(fv_gguf_writer *w, const char *name, const char *why)
{
    if (w->error.status == FV_OK)
        fv_fail(&w->error, FV_ERR_ARGUMENT, 0, "%s: tensor %s: %s", w->file.place, name, why);
}

void fv_gguf_add_tensor(fv_gguf_writer *w, const char *name, fv_type type, const uint64_t *shape,
                        int n_dims)
{
    uint64_t n = 1, row = n_dims ? shape[n_dims - 1] : 1;
    if (strlen(name) >= FV_GGUF_NAME)
        writer_complain(w, name, "the name is too long for GGUF");
    if (fv_gguf_type_number(type) < 0)
        writer_complain(w, name, "GGUF has no such type");
    if (fv_type_is_block(type) && row % FV_BLOCK)
        writer_complain(w, name, "its rows are not whole blocks");
    if (w->error.status == FV_OK)
        FV_LIST_ROOM(w->spans, w->n_infos, w->capacity, 1, &w->error);
    if (w->error.status != FV_OK)
        return;
    head_add_string(w, &w->infos, name, strlen(name));
    add_int(w, &w->infos, (uint64_t)n_dims, 4);
    for (int i = n_dims; i-- > 0;) {
        add_int(w, &w->infos, shape[i], 8);
        n *= shape[i];
    }
    add_int(w, &w->infos, (uint64_t)fv_gguf_type_number(type), 4);
    add_int(w, &w->infos, w->data_bytes, 8);
    span s = { w->data_bytes, w->data_bytes + fv_row_bytes(type, (size_t)n) };
    w->spans[w->n_infos++] = s;
    w->data_bytes = aligned(s.end);
}

/* ---- the file ---- */

fv_status fv_gguf_writer_new(fv_gguf_writer **out, const char *path, fv_error *err)
{
    *out = NULL;
    fv_gguf_writer *w = fv_alloc_zero(1, sizeof *w);
    if (!w)
        return fv_fail_memory(err, sizeof *w, "a GGUF file");
    fv_status status = fv_outfile_open(&w->file, path, err);
    if (status != FV_OK) {
        fv_gguf_writer_free(w);
        return status;
    }
    fv_sha256_begin(&w->hash);
    *out = w;
    return FV_OK;
}

void fv_gguf_writer_free(fv_gguf_writer *w)
{
    if (!w)
        return;
    fv_outfile_abandon(&w->file);
    fv_free(w->meta.data);
    fv_free(w->infos.data);
    fv_free(w->spans);
    fv_free(w);
}

static fv_status put_data(fv_gguf_writer *w, const uint8_t *data, size_t n, fv_error *err)
{
    w->written += n;
    fv_sha256_add(&w->hash, data, n);
    return fv_outfile_write(&w->file, data, n, err);
}

static fv_status pad_to(fv_gguf_writer *w, uint64_t end, fv_error *err)
{
    static const uint8_t zeros[FV_GGUF_ALIGNMENT];
    return end > w->written ? put_data(w, zeros, (size_t)(end - w->written), err) : FV_OK;
}

static uint64_t header_bytes(const fv_gguf_writer *w)
{
    return aligned(HEAD_BYTES + w->meta.n + w->infos.n);
}

uint64_t fv_gguf_total_bytes(const fv_gguf_writer *w) { return header_bytes(w) + w->data_bytes; }

static fv_status check_room(const fv_gguf_writer *w, fv_error *err)
{
    struct statvfs fs;
    uint64_t wanted = fv_gguf_total_bytes(w);
    if (fstatvfs(w->file.fd, &fs) != 0 || fs.f_blocks == 0) /* a system that does not say */
        return FV_OK;
    uint64_t has = (uint64_t)fs.f_bavail * (fs.f_frsize ? fs.f_frsize : fs.f_bsize);
    if (has >= wanted)
        return FV_OK;
    return fv_fail(err, FV_ERR_IO, 0, "%s: needs %.1f MB, the disk has %.1f MB free", w->file.place,
                   (double)wanted / 1e6, (double)has / 1e6);
}

static void put_hash(fv_gguf_writer *w, const char *key, size_t *at)
{
    char zeros[HEX];
    memset(zeros, '0', HEX);
    fv_gguf_put_string(w, key, zeros, HEX);
    *at = w->meta.n - HEX;
}

/* The header with the hashes it has now: all of it, or what is in front of the padding. */
static void make_head(const fv_gguf_writer *w, uint8_t head[HEAD_BYTES])
{
    memcpy(head, "GGUF", 4);
    put_le(head + 4, 3, 4);
    put_le(head + COUNTS_AT, w->n_infos, 8);
    put_le(head + COUNTS_AT + 8, w->n_pairs, 8);
}

static fv_status write_header(fv_gguf_writer *w, fv_error *err)
{
    static const uint8_t zeros[FV_GGUF_ALIGNMENT];
    uint8_t head[HEAD_BYTES];
    make_head(w, head);
    FV_TRY(fv_outfile_write(&w->file, head, sizeof head, err));
    FV_TRY(fv_outfile_write(&w->file, w->meta.data, w->meta.n, err));
    FV_TRY(fv_outfile_write(&w->file, w->infos.data, w->infos.n, err));
    return fv_outfile_write(&w->file, zeros,
                            (size_t)(header_bytes(w) - sizeof head - w->meta.n - w->infos.n), err);
}

fv_status fv_gguf_begin_data(fv_gguf_writer *w, fv_error *err)
{
    fv_gguf_put_u32(w, "general.alignment", FV_GGUF_ALIGNMENT);
    put_hash(w, FV_GGUF_SHA256, &w->hash_at);
    put_hash(w, FV_GGUF_SHA256_HEADER, &w->header_hash_at);
    if (w->error.status != FV_OK) {
        if (err)
            *err = w->error;
        return w->error.status;
    }
    FV_TRY(check_room(w, err));
    return write_header(w, err);
}

fv_status fv_gguf_write(fv_gguf_writer *w, const void *data, size_t n_bytes, fv_error *err)
{
    /* also over empty tensors */
    while (w->current < w->n_infos && w->written == w->spans[w->current].end) {
        w->current++;
        if (w->current < w->n_infos)
            FV_TRY(pad_to(w, w->spans[w->current].begin, err));
    }
    if (w->current == w->n_infos || n_bytes > w->spans[w->current].end - w->written)
        return fv_fail(err, FV_ERR_STATE, 0, "%s: more data than the tensors have", w->file.place);
    return put_data(w, data, n_bytes, err);
}

fv_status fv_gguf_finish(fv_gguf_writer *w, fv_error *err)
{
    uint8_t head[HEAD_BYTES], digest[FV_SHA256_BYTES];
    static const uint8_t zeros[FV_GGUF_ALIGNMENT];
    char hex[HEX + 1];
    fv_sha256 hash;
    if (w->n_infos && w->written < w->spans[w->n_infos - 1].end)
        return fv_fail(err, FV_ERR_STATE, 0,
                       "%s: the tensors have %" PRIu64 " bytes, %" PRIu64 " were written",
                       w->file.place, w->data_bytes, w->written);
    FV_TRY(pad_to(w, w->data_bytes, err));
    fv_sha256_end(&w->hash, digest);
    fv_hex(hex, digest, sizeof digest);
    memcpy(w->meta.data + w->hash_at, hex, HEX);
    make_head(w, head);
    fv_sha256_begin(&hash); /* its own digits are still zeros */
    fv_sha256_add(&hash, head, sizeof head);
    fv_sha256_add(&hash, w->meta.data, w->meta.n);
    fv_sha256_add(&hash, w->infos.data, w->infos.n);
    fv_sha256_add(&hash, zeros, (size_t)(header_bytes(w) - sizeof head - w->meta.n - w->infos.n));
    fv_sha256_end(&hash, digest);
    fv_hex(hex, digest, sizeof digest);
    memcpy(w->meta.data + w->header_hash_at, hex, HEX);
    /* the hashes, and the floats that were reserved */
    FV_TRY(fv_outfile_rewrite(&w->file, HEAD_BYTES, w->meta.data, w->meta.n, err));
    return fv_outfile_commit(&w->file, err);
}

/* ---- checking ---- */

enum { STEP_BYTES = 8 << 20 };

static fv_status hash_compare(const fv_gguf *g, const char *key, fv_sha256 *hash, const char *what,
                              fv_error *err)
{
    uint8_t digest[FV_SHA256_BYTES];
    char hex[HEX + 1];
    fv_sha256_end(hash, digest);
    fv_hex(hex, digest, sizeof digest);
    if (fv_gguf_string_is(g, key, hex))
        return FV_OK;
    const fv_gguf_value *v = fv_gguf_find(g, key);
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   "%s: %s has changed since the file was written: its SHA-256 is %s, %s says %.*s",
                   fv_gguf_name(g), what, hex, key, (int)FV_MIN(v->n, (uint64_t)HEX),
                   (const char *)v->data);
}

fv_status fv_gguf_check_hashes(const fv_gguf *g, const fv_callbacks *callbacks, fv_error *err)
{
    size_t n_bytes, data_at;
    const uint8_t *data = fv_gguf_bytes(g, &n_bytes, &data_at);
    const fv_gguf_value *own = fv_gguf_find(g, FV_GGUF_SHA256_HEADER),
                        *whole = fv_gguf_find(g, FV_GGUF_SHA256);
    char zeros[HEX];
    fv_sha256 hash;
    if (!own || own->type != FV_GGUF_STRING || own->n != HEX || !whole ||
        whole->type != FV_GGUF_STRING || whole->n != HEX)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: has no " FV_GGUF_SHA256 " and " FV_GGUF_SHA256_HEADER
                       " of %d digits: it cannot be verified",
                       fv_gguf_name(g), HEX);
    memset(zeros, '0', HEX);
    size_t at = (size_t)(own->data - data);
    fv_sha256_begin(&hash);
    fv_sha256_add(&hash, data, at);
    fv_sha256_add(&hash, zeros, HEX);
    fv_sha256_add(&hash, data + at + HEX, data_at - at - HEX);
    FV_TRY(hash_compare(g, FV_GGUF_SHA256_HEADER, &hash, "the header", err));
    fv_sha256_begin(&hash);
    for (size_t i = data_at; i < n_bytes; i += STEP_BYTES) {
        FV_TRY(fv_progress(callbacks, "verify", (double)(i - data_at) / (double)(n_bytes - data_at),
                           err));
        fv_sha256_add(&hash, data + i, FV_MIN((size_t)STEP_BYTES, n_bytes - i));
    }
    return hash_compare(g, FV_GGUF_SHA256, &hash, "the tensor data", err);
}
