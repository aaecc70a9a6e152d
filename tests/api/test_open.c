/* Opening a model from wherever its bytes are: by descriptor with offset and length, in memory of
 * any alignment; prefault, lock, progress and cancelling; what is refused. */
#include "support/cm.h"
#include "support/sanitized.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/base.h"
#include "fastvlm_tools.h"
#include "support/golden.h"

#define TINY  FV_SOURCE_DIR "/tests/data/tiny/checkpoint"
#define IMAGE FV_SOURCE_DIR "/tests/data/tiny/image.png"

static char *work;

static int make_work(void **state)
{
    (void)state;
    work = temp_dir();
    return 0;
}

static int remove_work(void **state)
{
    (void)state;
    temp_remove(work);
    return 0;
}

static char *in_work(const char *name)
{
    static char path[16][1200]; /* valid for the next 15 calls */
    static int next;
    char *p = path[next++ % 16];
    snprintf(p, sizeof path[0], "%s/%s", work, name);
    return p;
}

/* A packed file in these precisions, made once. */
static const char *packed(fv_precision vision, fv_precision decoder)
{
    char name[64];
    fv_pack_options o;
    fv_error err = { 0 };
    snprintf(name, sizeof name, "%s-%s.gguf", fv_precision_name(vision),
             fv_precision_name(decoder));
    char *path = in_work(name);
    if (fv_is_file(path))
        return path;
    fv_pack_options_default(&o);
    o.vision = vision;
    o.decoder = decoder;
    o.max_images = 2;
    o.min_cosine = 0.01;
    o.rounding = decoder == FV_PRECISION_Z8 || decoder == FV_PRECISION_Q4 ? FV_ROUNDING_SEARCH
                                                                          : FV_ROUNDING_AUTO;
    if (fv_pack(TINY, path, &o, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    return path;
}

/* The ids of an answer about the image; frees the engine. */
static void answer_of(fv_engine *e, int32_t ids[8])
{
    fv_error err = { 0 };
    fv_session *s = NULL;
    fv_image *image = NULL;
    fv_piece piece;
    if (fv_session_new(&s, e, NULL, &err) != FV_OK ||
        fv_image_open(&image, IMAGE, NULL, &err) != FV_OK ||
        fv_session_add_image(s, image, NULL, &err) != FV_OK ||
        fv_session_add_text(s, "What do you see?", 16, &err) != FV_OK)
        fail_msg("%s", err.message);
    for (int i = 0; i < 8; i++) {
        piece = (fv_piece){ .size = sizeof piece };
        if (fv_session_next(s, &piece, &err) != FV_OK)
            fail_msg("%s", err.message);
        ids[i] = piece.id;
        if (piece.done)
            break;
    }
    fv_image_free(image);
    fv_session_free(s);
    fv_engine_free(e);
}

static void expect_same(fv_engine *e, const char *path, const char *what)
{
    int32_t got[8] = { 0 }, wanted[8] = { 0 };
    fv_engine *reference = NULL;
    fv_error err = { 0 };
    if (fv_engine_open(&reference, path, NULL, &err) != FV_OK)
        fail_msg("%s", err.message);
    answer_of(reference, wanted);
    answer_of(e, got);
    if (memcmp(got, wanted, sizeof got))
        fail_msg("%s: another answer than from the path", what);
}

static uint8_t *bytes_of(const char *path, size_t *n)
{
    uint8_t *data = NULL;
    fv_error err = { 0 };
    if (fv_read_file(&data, n, path, 1 << 28, &err) != FV_OK)
        fail_msg("%s", err.message);
    return data;
}

/* ---- a part of another file -------------------------------------------------------------- */

static void test_descriptor(void **state)
{
    (void)state;
    static const size_t offsets[] = { 0, 1, 4, 64, 4095, 4096, 70000 };
    const char *path = packed(FV_PRECISION_BF16, FV_PRECISION_Z8);
    size_t n;
    uint8_t *data = bytes_of(path, &n);
    fv_error err = { 0 };
    for (size_t i = 0; i < FV_COUNT(offsets); i++)
        for (int tail = 0; tail < 2; tail++) { /* with something behind it, and without */
            fv_engine *e = NULL;
            char *around = in_work("around");
            FILE *f = fopen(around, "wb");
            assert_non_null(f);
            for (size_t k = 0; k < offsets[i]; k++)
                fputc('x', f);
            assert_int_equal(fwrite(data, 1, n, f), n);
            if (tail)
                fputs("tail", f);
            assert_int_equal(fclose(f), 0);
            int fd = open(around, O_RDONLY);
            assert_true(fd >= 0);
            if (fv_engine_open_fd(&e, fd, offsets[i], tail ? n : 0, NULL, &err) != FV_OK)
                fail_msg("offset %zu: %s", offsets[i], err.message);
            close(fd);
            assert_int_equal(unlink(around), 0);
            expect_same(e, path, "a part of a file");
        }
    fv_free(data);
}

static void refuses_fd(int fd, uint64_t offset, uint64_t n, fv_status wanted, const char *part)
{
    fv_engine *e = (fv_engine *)&e;
    fv_error err = { 0 };
    int64_t live = fv_mem_live();
    assert_int_equal(fv_engine_open_fd(&e, fd, offset, n, NULL, &err), wanted);
    assert_null(e);
    if (!strstr(err.message, part))
        fail_msg("message \"%s\" does not hold \"%s\"", err.message, part);
    assert_int_equal(fv_mem_live(), live);
}

static void test_descriptor_refused(void **state)
{
    (void)state;
    const char *path = packed(FV_PRECISION_BF16, FV_PRECISION_Z8);
    int fd = open(path, O_RDONLY), pipes[2], folder = open(work, O_RDONLY);
    uint64_t n = (uint64_t)lseek(fd, 0, SEEK_END);
    assert_int_equal(pipe(pipes), 0);
    refuses_fd(-1, 0, 0, FV_ERR_IO, "model in file descriptor -1: cannot stat");
    refuses_fd(pipes[0], 0, 0, FV_ERR_IO, "not a regular file");
    refuses_fd(folder, 0, 0, FV_ERR_IO, "not a regular file");
    refuses_fd(fd, n + 1, 0, FV_ERR_IO, "are asked for, the file has");
    refuses_fd(fd, 1, n, FV_ERR_IO, "are asked for, the file has");
    refuses_fd(fd, 0, n + 1, FV_ERR_IO, "are asked for");
    refuses_fd(fd, UINT64_MAX, UINT64_MAX, FV_ERR_IO, "are asked for");
    refuses_fd(fd, 1, UINT64_MAX, FV_ERR_IO, "bytes 1 to 18446744073709551615 are asked for");
    refuses_fd(fd, n, 0, FV_ERR_FORMAT, "not a GGUF file");
    refuses_fd(fd, 0, n - 1, FV_ERR_FORMAT, "is it truncated?");
    refuses_fd(fd, 32, 0, FV_ERR_FORMAT, "not a GGUF file");
    close(fd);
    close(folder);
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- memory ------------------------------------------------------------------------------ */

/* Every type of matrix at addresses that are multiples of 1, 2, 4 ... bytes. */
static void test_memory(void **state)
{
    (void)state;
    static const fv_precision kinds[][2] = { { FV_PRECISION_F32, FV_PRECISION_F32 },
                                             { FV_PRECISION_BF16, FV_PRECISION_BF16 },
                                             { FV_PRECISION_F16, FV_PRECISION_F16 },
                                             { FV_PRECISION_INT8, FV_PRECISION_Z8 },
                                             { FV_PRECISION_F32, FV_PRECISION_Q4 } };
    static const size_t shifts[] = { 0, 1, 2, 4, 12, 32, 60 };
    fv_error err = { 0 };
    for (size_t k = 0; k < FV_COUNT(kinds); k++) {
        const char *path = packed(kinds[k][0], kinds[k][1]);
        size_t n;
        uint8_t *data = bytes_of(path, &n), *room = fv_alloc(n + 64, 1);
        assert_non_null(room);
        for (size_t i = 0; i < FV_COUNT(shifts); i++) {
            fv_engine *e = NULL;
            memcpy(room + shifts[i], data, n);
            if (fv_engine_open_memory(&e, room + shifts[i], n, NULL, &err) != FV_OK)
                fail_msg("shift %zu: %s", shifts[i], err.message);
            if (shifts[i] % 4)
                memset(room, 0xff, n + 64); /* it has been copied */
            expect_same(e, path, "memory");
        }
        fv_free(room);
        fv_free(data);
    }
}

/* ---- progress, cancelling, prefault, lock ------------------------------------------------ */

typedef struct listener {
    int n_calls, cancel_at; /* -1: never */
    double last;
    char stages[256]; /* "open prefault", each once */
} listener;

static bool listen_to(void *user, const char *stage, double done)
{
    listener *l = user;
    const char *last = strrchr(l->stages, ' ');
    last = last ? last + 1 : l->stages;
    if (strcmp(last, stage)) {
        snprintf(l->stages + strlen(l->stages), sizeof l->stages - strlen(l->stages), "%s%s",
                 *l->stages ? " " : "", stage);
        l->last = 0;
    }
    assert_true(done >= l->last && done <= 1);
    l->last = done;
    return l->n_calls++ == l->cancel_at;
}

static fv_status open_listening(fv_engine **out, const char *path, bool prefault, listener *l,
                                fv_error *err)
{
    fv_callbacks callbacks = { .size = sizeof callbacks, .progress = listen_to, .user = l };
    fv_engine_options o;
    fv_engine_options_default(&o);
    o.callbacks = &callbacks;
    o.prefault = prefault;
    return fv_engine_open(out, path, &o, err);
}

static void test_progress(void **state)
{
    (void)state;
    const char *paths[] = { TINY, packed(FV_PRECISION_BF16, FV_PRECISION_Z8) };
    for (int i = 0; i < 4; i++) {
        fv_engine *e = NULL;
        fv_error err = { 0 };
        listener l = { .cancel_at = -1 };
        int64_t live = fv_mem_live();
        if (open_listening(&e, paths[i / 2], i % 2, &l, &err) != FV_OK)
            fail_msg("%s", err.message);
        assert_string_equal(l.stages, i % 2 ? "open prefault" : "open");
        assert_true(l.last == 1);
        fv_engine_free(e);
        int n_calls = l.n_calls;
        assert_true(n_calls >= (i / 2 ? 2 : 50));
        for (int k = 0; k < n_calls; k += 1 + n_calls / 50) { /* stopped at any of them */
            l = (listener){ .cancel_at = k };
            e = (fv_engine *)&e;
            assert_int_equal(open_listening(&e, paths[i / 2], i % 2, &l, &err), FV_ERR_CANCELLED);
            assert_int_equal(l.n_calls, k + 1); /* not asked again */
            assert_null(e);
            assert_int_equal(fv_mem_live(), live);
        }
    }
}

/* A number of /proc/self/smaps, in kB, over the mappings of files with this name; -1: no /proc. */
static long smaps_of(const char *name, const char *field)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[2048];
    unsigned long begin, end;
    long sum = 0, value;
    bool inside = false;
    if (!f)
        return -1;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
            inside = strstr(line, name) != NULL;
        else if (inside && !strncmp(line, field, strlen(field)) &&
                 sscanf(line + strlen(field), ": %ld kB", &value) == 1)
            sum += value;
    }
    fclose(f);
    return sum;
}

static void drop_mapped(const char *path)
{
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static void test_prefault(void **state)
{
    (void)state;
    const char *path = packed(FV_PRECISION_F32, FV_PRECISION_F32);
    fv_error err = { 0 };
    if (smaps_of("f32-f32.gguf", "Rss") < 0)
        skip();
    for (int prefault = 0; prefault < 2; prefault++) {
        fv_engine_options o;
        fv_engine *e = NULL;
        fv_engine_options_default(&o);
        o.prefault = prefault;
        drop_mapped(path);
        if (fv_engine_open(&e, path, &o, &err) != FV_OK)
            fail_msg("%s", err.message);
        long size = smaps_of("f32-f32.gguf", "Size"), rss = smaps_of("f32-f32.gguf", "Rss");
        assert_true(size > 1000);
        if (prefault && rss < size * 95 / 100) /* metadata is read, the padding is not */
            fail_msg("%ld of %ld kB are in memory", rss, size);
        if (!prefault && rss >= size * 95 / 100)
            print_message("(this file system maps %ld of %ld kB unasked)\n", rss, size);
        fv_engine_free(e);
    }
}

/* Sanitizers make mlock do nothing. */
static bool locks_are_real(void)
{
    static char page[1 << 16];
    char line[256];
    long kb = 0;
    FILE *f;
    if (mlock(page, sizeof page) != 0 || !(f = fopen("/proc/self/status", "r")))
        return false;
    while (fgets(line, sizeof line, f))
        sscanf(line, "VmLck: %ld kB", &kb);
    fclose(f);
    munlock(page, sizeof page);
    return kb > 0;
}

static void test_lock(void **state)
{
    (void)state;
    const char *path = packed(FV_PRECISION_F32, FV_PRECISION_F32);
    fv_error err = { 0 };
    fv_engine_options o;
    fv_engine *e = NULL;
    struct rlimit before, none;
    fv_engine_options_default(&o);
    o.lock = true;
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
    fv_status status = fv_engine_open(&e, path, &o, &err);
    if (status == FV_OK && locks_are_real()) {
        long size = smaps_of("f32-f32.gguf", "Size"), locked = smaps_of("f32-f32.gguf", "Locked");
        if (!SANITIZED && locked < size * 95 / 100) /* sanitizers make mlock do nothing */
            fail_msg("%ld of %ld kB are locked", locked, size);
    } else if (status != FV_OK) {
        assert_int_equal(status, FV_ERR_LIMIT); /* a small limit */
    }
    fv_engine_free(e);

    /* memory that the caller lends is unlocked again */
    size_t n;
    uint8_t *data = bytes_of(path, &n),
            *pages = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    memcpy(pages, data, n);
    assert_int_equal(fv_engine_open_memory(&e, pages, n, &o, &err), status);
    fv_engine_free(e);
    assert_int_equal(mprotect(pages, n, PROT_READ), 0); /* still there */
    munmap(pages, n);
    fv_free(data);

    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &none), 0);
    bool bound = mlock(&err, 1) != 0; /* a privileged process is not */
    if (bound) {
        int64_t live = fv_mem_live();
        assert_int_equal(fv_engine_open(&e, path, &o, &err), FV_ERR_LIMIT);
        assert_non_null(strstr(err.message, "cannot be locked in memory"));
        assert_non_null(strstr(err.message, "f32-f32.gguf"));
        assert_null(e);
        assert_int_equal(fv_mem_live(), live);
    }
    munlock(&err, 1);
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

/* ---- the side of images ------------------------------------------------------------------ */

static void test_image_size(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_engine_options o;
    fv_engine *e = NULL;
    fv_engine_options_default(&o);
    o.image_size = 1408; /* 22 x 22 tokens; the context has 512 rows */
    if (fv_engine_open(&e, TINY, &o, &err) != FV_OK)
        fail_msg("%s", err.message);
    fv_engine_free(e);
    o.image_size = 1472; /* 23 x 23 */
    assert_int_equal(fv_engine_open(&e, TINY, &o, &err), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "image_size is 1472; the 529 image tokens of it do not fit "
                                        "the model's context length, 512"));
    assert_null(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor), cmocka_unit_test(test_descriptor_refused),
        cmocka_unit_test(test_memory),     cmocka_unit_test(test_progress),
        cmocka_unit_test(test_prefault),   cmocka_unit_test(test_lock),
        cmocka_unit_test(test_image_size),
    };
    return cmocka_run_group_tests(tests, make_work, remove_work);
}
