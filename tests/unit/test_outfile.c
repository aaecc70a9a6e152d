/* Files and folders that appear complete or not at all. */
#include "support/cm.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/outfile.h"
#include "support/golden.h"

static size_t count_entries(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static void put(const char *dir, const char *name, const char *text)
{
    fv_error err = { 0 };
    char *path = fv_path_join(dir, name);
    assert_int_equal(fv_outfile_put(path, text, strlen(text), &err), FV_OK);
    fv_free(path);
}

static void expect(const char *dir, const char *name, const char *text)
{
    fv_error err = { 0 };
    uint8_t *data;
    size_t n;
    char *path = fv_path_join(dir, name);
    assert_int_equal(fv_read_file(&data, &n, path, 1 << 20, &err), FV_OK);
    assert_string_equal((char *)data, text);
    fv_free(data);
    fv_free(path);
}

static void test_file(void **state)
{
    (void)state;
    static char big[3 << 20];
    fv_error err = { 0 };
    fv_outfile f;
    char *dir = temp_dir(), *path = fv_path_join(dir, "x");
    put(dir, "x", "old");
    memset(big, 'b', sizeof big);
    assert_int_equal(fv_outfile_open(&f, path, &err), FV_OK);
    assert_int_equal(fv_outfile_write(&f, "ab", 2, &err), FV_OK);
    assert_int_equal(fv_outfile_write(&f, big, sizeof big, &err), FV_OK); /* past the buffer */
    assert_int_equal(fv_outfile_write(&f, "c", 1, &err), FV_OK);
    assert_int_equal(f.n_bytes, sizeof big + 3);
    expect(dir, "x", "old"); /* until it is complete */
    assert_int_equal(fv_outfile_commit(&f, &err), FV_OK);
    fv_outfile_abandon(&f);
    uint8_t *data;
    size_t n;
    assert_int_equal(fv_read_file(&data, &n, path, 8 << 20, &err), FV_OK);
    assert_int_equal(n, sizeof big + 3);
    assert_true(data[0] == 'a' && data[1] == 'b' && data[n - 1] == 'c' && data[n - 2] == 'b');
    fv_free(data);
    assert_int_equal(fv_outfile_open(&f, path, &err), FV_OK);
    assert_int_equal(fv_outfile_write(&f, "new", 3, &err), FV_OK);
    fv_outfile_abandon(&f);
    assert_int_equal(count_entries(dir), 1);
    assert_int_equal(fv_outfile_open(&f, dir, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "is a folder"));
    fv_free(path);
    path = fv_path_join(dir, "pipe");
    assert_int_equal(mkfifo(path, 0666), 0);
    assert_int_equal(fv_outfile_open(&f, path, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "pipe"));
    fv_free(path);
    path = fv_path_join(dir, "none/x");
    assert_int_equal(fv_outfile_open(&f, path, &err), FV_ERR_IO);
    fv_outfile_abandon(&f);
    fv_free(path);
    temp_remove(dir);
}

/* Pieces around the size of the buffer, which is what a write begins at a multiple of. */
static void test_pieces(void **state)
{
    (void)state;
    enum { BUFFER = 2 << 20 };
    static const size_t size[] = { 1, BUFFER - 1, BUFFER,     3, 2 * BUFFER + 5,
                                   0, BUFFER - 8, BUFFER + 1, 7 };
    static uint8_t piece[2 * BUFFER + 5];
    fv_error err = { 0 };
    fv_outfile f;
    char *dir = temp_dir(), *path = fv_path_join(dir, "x");
    uint8_t *data;
    size_t n, at = 0;
    assert_int_equal(fv_outfile_open(&f, path, &err), FV_OK);
    for (size_t i = 0; i < FV_COUNT(size); i++) {
        for (size_t j = 0; j < size[i]; j++)
            piece[j] = (uint8_t)((at + j) * 251 >> 3);
        assert_int_equal(fv_outfile_write(&f, piece, size[i], &err), FV_OK);
        at += size[i];
    }
    assert_int_equal(f.n_bytes, at);
    assert_int_equal(fv_outfile_commit(&f, &err), FV_OK);
    assert_int_equal(fv_read_file(&data, &n, path, 1 << 30, &err), FV_OK);
    assert_int_equal(n, at);
    for (size_t j = 0; j < n; j++)
        if (data[j] != (uint8_t)(j * 251 >> 3))
            fail_msg("byte %zu", j);
    fv_free(data);
    fv_free(path);
    temp_remove(dir);
}

/* A limit on the size of files stands in for a disk without room. */
static void test_no_room(void **state)
{
    (void)state;
    static char big[2 << 20];
    fv_error err = { 0 };
    struct rlimit before, small;
    char *dir = temp_dir(), *path = fv_path_join(dir, "x");
    put(dir, "x", "old");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1 << 20;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    fv_status status = fv_outfile_put(path, big, sizeof big, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, FV_ERR_IO);
    assert_non_null(strstr(err.message, "cannot write"));
    assert_int_equal(count_entries(dir), 1);
    expect(dir, "x", "old");
    fv_free(path);
    temp_remove(dir);
}

static void test_folder(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    char *dir = temp_dir(), *place = fv_path_join(dir, "a/b/out/");
    /* makes a and a/b */
    assert_int_equal(fv_outdir_open(&d, place, false, NULL, &err), FV_OK);
    put(d.stage, "one", "1");
    assert_int_equal(fv_outdir_sub(&d, "sub", &err), FV_OK);
    put(d.stage, "sub/two", "2");
    assert_false(fv_is_dir(place));
    assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
    expect(place, "one", "1");
    expect(place, "sub/two", "2");

    /* not empty */
    assert_int_equal(fv_outdir_open(&d, place, false, NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "not empty; choose another"));
    assert_non_null(strstr(err.message, "the folder is not empty"));
    fv_outdir_abandon(&d);
    assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK); /* merged */
    put(d.stage, "three", "3");
    assert_int_equal(fv_outdir_sub(&d, "sub", &err), FV_OK);
    put(d.stage, "sub/two", "two");
    expect(place, "sub/two", "2");
    assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
    expect(place, "one", "1");
    expect(place, "sub/two", "two");
    expect(place, "three", "3");
    assert_int_equal(count_entries(place), 3);

    assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK); /* abandoned */
    put(d.stage, "four", "4");
    fv_outdir_abandon(&d);
    fv_outdir_abandon(&d);
    assert_int_equal(count_entries(place), 3);
    fv_free(place);

    place = fv_path_join(dir, "file");
    put(dir, "file", "x");
    assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "is a file"));
    assert_int_equal(fv_outdir_open(&d, "", true, NULL, &err), FV_ERR_ARGUMENT);
    fv_free(place);
    place = fv_path_join(dir, "empty"); /* an empty folder is taken */
    assert_int_equal(mkdir(place, 0777), 0);
    assert_int_equal(fv_outdir_open(&d, place, false, NULL, &err), FV_OK);
    put(d.stage, "one", "1");
    assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
    assert_int_equal(count_entries(place), 1);
    fv_free(place);
    temp_remove(dir);
}

static size_t n_said;
static char said[600];

static void hear(void *user, fv_log_level level, const char *message)
{
    (void)user;
    assert_int_equal(level, FV_LOG_WARNING);
    n_said++;
    snprintf(said, sizeof said, "%s", message);
}

/* A process that begins a folder and is gone before its end; its number. */
static long die_filling(const char *place)
{
    fv_error err = { 0 };
    fv_outdir d;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (fv_outdir_open(&d, place, true, NULL, &err) != FV_OK ||
            fv_outdir_sub(&d, "sub", &err) != FV_OK)
            _exit(1);
        put(d.stage, "sub/big", "x");
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    return (long)pid;
}

static const fv_callbacks hearing = { .size = sizeof hearing, .log = hear };

/* What killed processes left is removed and said; nothing else is. */
static void test_killed(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d, held;
    char *dir = temp_dir(), *place = fv_path_join(dir, "out"), path[700], other[700];
    long pid = die_filling(place);
    snprintf(path, sizeof path, "%s.part-%ld", place, pid);
    assert_true(fv_is_dir(path));
    n_said = 0;
    assert_int_equal(fv_outdir_open(&d, place, false, &hearing, &err), FV_OK);
    assert_false(fv_is_dir(path));
    assert_int_equal(n_said, 1);
    assert_non_null(strstr(said, path));
    put(d.stage, "one", "1");
    /* this process fills it: not removed */
    assert_int_equal(fv_outdir_open(&held, place, false, &hearing, &err), FV_ERR_IO);
    assert_true(fv_is_dir(d.stage));
    assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
    assert_int_equal(count_entries(place), 1);

    /* inside a folder that exists; also with a slash at the end; an empty one stays empty in the
     * eyes of the next */
    fv_free(place);
    place = fv_path_join(dir, "empty/");
    assert_int_equal(mkdir(place, 0777), 0);
    pid = die_filling(place);
    snprintf(path, sizeof path, "%s.part-%ld", place, pid);
    assert_true(fv_is_dir(path));
    assert_int_equal(fv_outdir_open(&d, place, false, &hearing, &err), FV_OK);
    assert_false(fv_is_dir(path));
    assert_int_equal(n_said, 2);
    fv_outdir_abandon(&d);
    assert_int_equal(count_entries(place), 0);
    assert_int_equal(count_entries(dir), 2);

    /* without the mark, of a process that runs, with a mark that somebody holds, of another name, a
     * file, a link */
    fv_free(place);
    place = fv_path_join(dir, "new");
    long gone = die_filling(place);
    snprintf(path, sizeof path, "%s.part-%ld", place, gone);
    int lock = open(strcat(strcpy(other, path), "/.fastvlm-part"), O_RDWR);
    assert_true(lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0);
    pid = die_filling(place);
    snprintf(other, sizeof other, "%s.part-%ld/.fastvlm-part", place, pid);
    assert_int_equal(unlink(other), 0);
    pid = die_filling(place); /* takes nothing away either */
    snprintf(other, sizeof other, "%s.part-%ld", place, pid);
    assert_int_equal(rename(other, strcat(strcpy(said, place), ".part-01")), 0);
    assert_int_equal(symlink(said, other), 0);
    put(dir, "new.part-1x", "x");
    snprintf(other, sizeof other, "%s.part-%ld0000000000", place, gone);
    assert_int_equal(mkdir(other, 0777), 0);
    put(other, ".fastvlm-part", "");
    snprintf(other, sizeof other, "%s.part-%ld", place, (long)getppid());
    assert_int_equal(mkdir(other, 0777), 0);
    put(other, ".fastvlm-part", "");
    size_t n = count_entries(dir);
    n_said = 0;
    assert_int_equal(fv_outdir_open(&d, place, true, &hearing, &err), FV_OK);
    fv_outdir_abandon(&d);
    assert_int_equal(n_said, 0);
    assert_int_equal(count_entries(dir), n);
    close(lock); /* then it is taken */
    assert_int_equal(fv_outdir_open(&d, place, true, &hearing, &err), FV_OK);
    fv_outdir_abandon(&d);
    assert_int_equal(n_said, 1);
    assert_non_null(strstr(said, path));
    assert_int_equal(count_entries(dir), n - 1);

    /* files are spoken of, not removed */
    snprintf(other, sizeof other, "file.part-%ld", gone);
    put(dir, other, "x");
    snprintf(other, sizeof other, "file.%ld.part", gone);
    put(dir, other, "x");
    put(dir, "file.part-1", "x"); /* runs */
    put(dir, "file.part", "x");
    fv_free(place);
    place = fv_path_join(dir, "file");
    n_said = 0;
    fv_outfile_leftovers(place, &hearing);
    assert_int_equal(n_said, 2);
    assert_int_equal(count_entries(dir), n + 3);
    fv_free(place);
    temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_file), cmocka_unit_test(test_pieces),
                                        cmocka_unit_test(test_no_room),
                                        cmocka_unit_test(test_folder),
                                        cmocka_unit_test(test_killed) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
