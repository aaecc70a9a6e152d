/* The files that a list of paths names: a folder gives its images by name. */
#include "support/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/image_list.h"

static char work[64];

static const char *list_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", work, name);
    return path;
}

static void touch(const char *name)
{
    FILE *f = fopen(list_path(name), "wb");
    assert_non_null(f);
    fclose(f);
}

static void folder(void **state)
{
    (void)state;
    static const char *const images[] = {
        "a.HEIC", "b.tiff", "c.gif", "d.bmp",  "e.avif", "f.heif", "g.TIF",
        "h.jpg",  "i.jpeg", "j.png", "k.webp", "l.ppm",  "m.pgm",  "n.pnm",
    };
    static const char *const others[] = { "notes.txt", ".hidden.png", "png", "raw.nef",
                                          "x.gif.zip" };
    fv_image_list list;
    fv_error err;

    assert_int_equal(mkdir(list_path("folder.png"), 0755), 0);
    for (size_t i = 0; i < FV_COUNT(images); i++)
        touch(images[i]);
    for (size_t i = 0; i < FV_COUNT(others); i++)
        touch(others[i]);
    const char *path = work;
    assert_int_equal(fv_image_list_collect(&list, &path, 1, &err), FV_OK);
    assert_int_equal(list.n, FV_COUNT(images));
    for (size_t i = 0; i < list.n; i++)
        assert_string_equal(list.path[i], list_path(images[i]));
    fv_image_list_free(&list);
}

static void paths_to_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *path, *says;
    } cases[] = {
        { "link", "is a dangling link: nowhere does not exist" },
        { "empty", "the directory contains no images; expected .jpg" },
        { "none.jpg", "no such image or directory" },
    };
    fv_image_list list;
    fv_error err;

    assert_int_equal(symlink("nowhere", list_path("link")), 0);
    assert_int_equal(mkdir(list_path("empty"), 0755), 0);
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        const char *path = list_path(cases[i].path);
        assert_int_equal(fv_image_list_collect(&list, &path, 1, &err), FV_ERR_IO);
        if (!strstr(err.message, cases[i].says))
            fail_msg("\"%s\" lacks \"%s\"", err.message, cases[i].says);
        fv_image_list_free(&list);
    }
    const char *address = "https://example.com/a.jpg";
    assert_int_equal(fv_image_list_collect(&list, &address, 1, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "is an address, expected a file"));
    fv_image_list_free(&list);
}

static int list_begin(void **state)
{
    (void)state;
    strcpy(work, "/tmp/test_image_list_XXXXXX");
    return mkdtemp(work) ? 0 : -1;
}

static int list_end(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", work);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folder),
        cmocka_unit_test(paths_to_nothing),
    };
    return cmocka_run_group_tests(tests, list_begin, list_end);
}
