/* Files and folders that appear complete or not at all. */
#include "support/cm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#if defined(__linux__)
#include <sys/vfs.h>
#endif
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
    assert_non_null(strstr(err.message, "is a directory"));
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
    assert_non_null(strstr(err.message, "not empty; expected an empty or a new one"));
    assert_non_null(strstr(err.message, "the directory is not empty"));
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
        put(d.stage, "sub/.fastvlm-part", "a directory in it that was filled in the same way");
        _exit(0);
    }
    int how;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    return (long)pid;
}

static const fv_callbacks hearing = { .size = sizeof hearing, .log = hear };

/* A process that makes the folder, with a file, from beginning to end. */
static void make_meanwhile(const char *place)
{
    fv_error err = { 0 };
    fv_outdir d;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (fv_outdir_open(&d, place, true, NULL, &err) != FV_OK)
            _exit(1);
        put(d.stage, "theirs", "2");
        put(d.stage, "both", "2");
        _exit(fv_outdir_commit(&d, &err) == FV_OK ? 0 : 1);
    }
    int how;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

/* Two that began when the folder was not there: the second one's files go in beside the first's,
 * where that is allowed. */
static void test_two_at_once(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    char *dir = temp_dir(), *place = fv_path_join(dir, "a/out");
    assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
    put(d.stage, "ours", "1");
    put(d.stage, "both", "1");
    make_meanwhile(place);
    assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
    expect(place, "ours", "1");
    expect(place, "theirs", "2");
    expect(place, "both", "1");
    assert_int_equal(count_entries(place), 3);
    fv_free(place);

    place = fv_path_join(dir, "b");
    assert_int_equal(fv_outdir_open(&d, place, false, NULL, &err), FV_OK);
    put(d.stage, "ours", "1");
    make_meanwhile(place);
    assert_int_equal(fv_outdir_commit(&d, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "rename the finished directory"));
    assert_int_equal(count_entries(place), 2);
    assert_int_equal(count_entries(dir), 2);
    fv_free(place);
    temp_remove(dir);
}

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

    /* files: removed when nobody holds them; the older form of the name is only spoken of */
    snprintf(other, sizeof other, "file.part-%ld", gone);
    put(dir, other, "x");
    snprintf(other, sizeof other, "%s/file.part-%ld0", dir, gone);
    snprintf(said, sizeof said, "file.%ld.part", gone);
    put(dir, said, "x");
    put(dir, "file.part-1", "x"); /* runs */
    put(dir, "file.part", "x");
    fv_free(place);
    place = fv_path_join(dir, "file");
    n_said = 0;
    n = count_entries(dir);
    fv_outfile_leftovers(place, &hearing);
    assert_int_equal(n_said, 2);
    assert_int_equal(count_entries(dir), n - 1);
    snprintf(other, sizeof other, "file.part-%ld", gone);
    put(dir, other, "x");
    snprintf(other, sizeof other, "%s/file.part-%ld", dir, gone);
    lock = open(other, O_RDWR);
    assert_true(lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0);
    fv_outfile_leftovers(place, NULL); /* somebody holds it */
    assert_true(fv_is_file(other));
    close(lock);
    fv_outfile_leftovers(place, NULL); /* silent, too */
    assert_false(fv_is_file(other));
    fv_free(place);
    temp_remove(dir);
}

/* ---- killed while entries moved ---------------------------------------------------------- */

/* What a killed process has left of moving `a` over an older one, and what the next run makes of
 * it. Each field is a file's text; NULL: there is none. */
typedef struct halfway {
    const char *name;
    const char *staged, *kept, *placed; /* in the stage; what it replaces; at its place */
    const char *later;                  /* what somebody has written to its place since */
    const char *entry;                  /* in the list: its path, "a" */
    const char *expected;               /* at its place afterwards */
    bool stays;                         /* the list is not one of ours: nothing is touched */
} halfway;

static const halfway halfways[] = {
    { "not moved yet", "new", NULL, "old", NULL, "a", "old", false },
    { "kept by a second name, not moved", "new", "old", "old", NULL, "a", "old", false },
    { "kept by renaming, not moved", "new", "old", NULL, NULL, "a", "old", false },
    { "moved over an older one", NULL, "old", "new", NULL, "a", "old", false },
    { "moved to a free place", NULL, NULL, "new", NULL, "a", NULL, false },
    { "somebody has written there since", NULL, "old", "new", "theirs, later", "a", "theirs, later",
      false },
    { "somebody has written to a free place since", NULL, NULL, "new", "theirs, later", "a",
      "theirs, later", false },
    { "taken back already", NULL, NULL, "old", "old", "a", "old", false },
    { "a path that leads out of the stage", NULL, "old", "new", NULL, "../a", "new", true },
    { "a path from the root", NULL, "old", "new", NULL, "/a", "new", true },
    { "no path", NULL, "old", "new", NULL, "", "new", true },
};

/* The list's line for the file at path, as it is now. */
static void list_one(const char *stage, const char *path, const char *entry, char kind)
{
    struct stat st = { 0 };
    char text[300];
    fv_error err = { 0 };
    (void)lstat(path, &st);
    int n = snprintf(text, sizeof text, "%llu %llu %lld %ld %c %s", (unsigned long long)st.st_ino,
                     (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec,
                     (long)st.st_mtim.tv_nsec, kind, entry);
    char *list = fv_path_join(stage, ".fastvlm-moves");
    assert_int_equal(fv_outfile_put(list, text, (size_t)n + 1, &err), FV_OK);
    fv_free(list);
}

static void test_killed_halfway(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    for (size_t i = 0; i < FV_COUNT(halfways); i++) {
        const halfway *h = &halfways[i];
        char *dir = temp_dir(), *place = fv_path_join(dir, "out"), *a = fv_path_join(place, "a");
        char stage[700], sub[720], staged[720];
        assert_int_equal(mkdir(place, 0777), 0);
        put(place, "theirs", "x");
        long pid = die_filling(place);
        snprintf(stage, sizeof stage, "%s/.part-%ld", place, pid);
        snprintf(staged, sizeof staged, "%s/a", stage);
        snprintf(sub, sizeof sub, "%s/.fastvlm-replaced", stage);
        assert_int_equal(mkdir(sub, 0777), 0);
        if (h->kept)
            put(sub, "0", h->kept);
        if (h->staged)
            put(stage, "a", h->staged);
        if (h->placed)
            put(place, "a", h->placed);
        list_one(stage, h->staged ? staged : a, h->entry, 'f');
        if (h->later)
            put(place, "a", h->later);
        n_said = 0;
        assert_int_equal(fv_outdir_open(&d, place, true, &hearing, &err), FV_OK);
        fv_outdir_abandon(&d);
        if (n_said != 1 || !strstr(said, h->stays ? "it cannot be removed" : "are back"))
            fail_msg("%s: said %zu times \"%s\"", h->name, n_said, said);
        if (fv_is_dir(stage) != h->stays)
            fail_msg("%s: the stage %s", h->name, h->stays ? "is gone" : "is still there");
        if (fv_is_file(a) != (h->expected != NULL))
            fail_msg("%s: a is %s", h->name, h->expected ? "gone" : "there");
        if (h->expected)
            expect(place, "a", h->expected);
        assert_int_equal(count_entries(place), 1 + (h->expected != NULL) + h->stays);
        fv_free(place);
        fv_free(a);
        temp_remove(dir);
    }
}

/* A directory that was made on the way goes, unless somebody has put something into it. */
static void test_killed_halfway_directory(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    for (int used = 0; used < 2; used++) {
        char *dir = temp_dir(), *place = fv_path_join(dir, "out"),
             *sub = fv_path_join(place, "sub");
        char stage[700];
        assert_int_equal(mkdir(place, 0777), 0);
        snprintf(stage, sizeof stage, "%s/.part-%ld", place, die_filling(place));
        assert_int_equal(mkdir(sub, 0777), 0);
        list_one(stage, sub, "sub", 'd');
        if (used)
            put(sub, "theirs", "x");
        assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
        fv_outdir_abandon(&d);
        assert_false(fv_is_dir(stage));
        assert_int_equal(fv_is_dir(sub), used);
        fv_free(place);
        fv_free(sub);
        temp_remove(dir);
    }
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

/* The file that is replaced gives its mode; a link stays one. */
static void test_replaced(void **state)
{
    (void)state;
    fv_error err = { 0 };
    struct stat st;
    char *dir = temp_dir(), *path = fv_path_join(dir, "x"), *link = fv_path_join(dir, "link"),
         *sub = fv_path_join(dir, "sub");
    mode_t before = umask(022);
    put(dir, "x", "old");
    assert_int_equal(mode_of(path), 0644);
    assert_int_equal(chmod(path, 0600), 0);
    put(dir, "x", "new");
    assert_int_equal(mode_of(path), 0600);
    expect(dir, "x", "new");

    assert_int_equal(mkdir(sub, 0777), 0);
    assert_int_equal(symlink("../x", strcat(strcpy(said, sub), "/link")), 0);
    assert_int_equal(symlink("sub/link", link), 0);
    put(dir, "link", "through");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    expect(dir, "x", "through");
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(count_entries(sub), 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fv_outfile_put(link, "x", 1, &err), FV_ERR_IO);
    assert_non_null(strstr(err.message, "link: is a link to something that does not exist"));
    assert_int_equal(count_entries(dir), 2);
    umask(before);
    fv_free(path);
    fv_free(link);
    fv_free(sub);
    temp_remove(dir);
}

static void test_rewrite(void **state)
{
    (void)state;
    static char big[3 << 20];
    fv_error err = { 0 };
    fv_outfile f;
    uint8_t *data;
    size_t n;
    char *dir = temp_dir(), *path = fv_path_join(dir, "x");
    assert_int_equal(fv_outfile_open(&f, path, &err), FV_OK);
    assert_int_equal(fv_outfile_write(&f, "headhead", 8, &err), FV_OK);
    assert_int_equal(fv_outfile_write(&f, big, sizeof big, &err), FV_OK);
    assert_int_equal(fv_outfile_rewrite(&f, 4, "HEAD", 4, &err), FV_OK);
    assert_int_equal(fv_outfile_write(&f, "end", 3, &err), FV_OK); /* still at the end */
    assert_int_equal(fv_outfile_rewrite(&f, sizeof big + 10, "xx", 2, &err), FV_ERR_STATE);
    assert_int_equal(fv_outfile_rewrite(&f, UINT64_MAX, "xx", 2, &err), FV_ERR_STATE);
    assert_int_equal(fv_outfile_commit(&f, &err), FV_OK);
    assert_int_equal(fv_read_file(&data, &n, path, 8 << 20, &err), FV_OK);
    assert_int_equal(n, sizeof big + 11);
    assert_memory_equal(data, "headHEAD", 8);
    assert_memory_equal(data + n - 3, "end", 3);
    fv_free(data);
    fv_free(path);
    temp_remove(dir);
}

/* Entries of a folder that exists are replaced all or not at all. */
static void test_all_or_nothing(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    char *dir = temp_dir(), *place = fv_path_join(dir, "out"), path[700];
    assert_int_equal(mkdir(place, 0777), 0);
    put(place, "a", "old a");
    snprintf(path, sizeof path, "%s/sub", place);
    assert_int_equal(mkdir(path, 0777), 0);
    put(place, "sub/b", "old b");
    put(place, "folder", "a file");
    snprintf(path, sizeof path, "%s/z", place);
    assert_int_equal(mkdir(path, 0777), 0);

    static const char *const bad[] = { "z", "folder" }; /* a file for a folder; the other way */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
        put(d.stage, "a", "new a");
        assert_int_equal(fv_outdir_sub(&d, "sub", &err), FV_OK);
        put(d.stage, "sub/b", "new b");
        put(d.stage, "sub/c", "new c");
        if (i == 0)
            put(d.stage, bad[i], "x");
        else
            assert_int_equal(fv_outdir_sub(&d, bad[i], &err), FV_OK);
        assert_int_equal(fv_outdir_commit(&d, &err), FV_ERR_IO);
        assert_non_null(strstr(err.message, i ? "is a file; it is not replaced by a directory"
                                              : "is a directory; it is not replaced by a file"));
        expect(place, "a", "old a");
        expect(place, "sub/b", "old b");
        assert_int_equal(count_entries(place), 4);
    }

    /* what is only found when others have moved: a folder on another disk */
    struct stat here, other;
    char away[] = "/dev/shm/fastvlm-XXXXXX";
    if (stat(dir, &here) == 0 && stat("/dev/shm", &other) == 0 && here.st_dev != other.st_dev &&
        mkdtemp(away)) {
        put(away, "b", "old b");
        snprintf(path, sizeof path, "%s/zz", place);
        assert_int_equal(symlink(away, path), 0);
        for (int i = 0; i < 4; i++) { /* entries come in any order */
            static const char *const names[] = { "a", "new", "m", "y" };
            assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
            for (int k = 0; k <= i; k++)
                put(d.stage, names[k], "new");
            assert_int_equal(fv_outdir_sub(&d, "zz", &err), FV_OK);
            put(d.stage, "zz/b", "new b");
            assert_int_equal(fv_outdir_commit(&d, &err), FV_ERR_IO);
            assert_non_null(strstr(err.message, "zz/b: cannot rename"));
            expect(place, "a", "old a");
            expect(place, "zz/b", "old b");
            assert_int_equal(count_entries(place), 5);
        }
        assert_int_equal(unlink(path), 0);
        temp_remove(strdup(away));
    }

    snprintf(path, sizeof path, "%s/a", place);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
    put(d.stage, "a", "new a");
    assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
    expect(place, "a", "new a");
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(count_entries(place), 4);
    fv_free(place);
    temp_remove(dir);
}

/* Parents that were made for nothing go again; others stay. */
static void test_parents(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    char *dir = temp_dir(), *place = fv_path_join(dir, "there/a/b/out"), path[700];
    snprintf(path, sizeof path, "%s/there", dir);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(fv_outdir_open(&d, place, false, NULL, &err), FV_OK);
    put(d.stage, "x", "x");
    fv_outdir_abandon(&d);
    assert_int_equal(count_entries(path), 0);
    assert_true(fv_is_dir(path));

    char here[700];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(fv_outdir_open(&d, "m/n/out", false, NULL, &err), FV_OK);
    fv_outdir_abandon(&d);
    assert_false(fv_is_dir("m"));
    assert_int_equal(fv_outdir_open(&d, "m/n/out", false, NULL, &err), FV_OK);
    put("m", "theirs", "x"); /* something else came */
    fv_outdir_abandon(&d);
    assert_true(fv_is_dir("m"));
    assert_false(fv_is_dir("m/n"));
    assert_int_equal(chdir(here), 0);
    fv_free(place);
    temp_remove(dir);
}

/* ---- kill -9 at any moment --------------------------------------------------------------- */

/* Fills, commits and abandons folders and files in dir, over and over. */
static void work_until_killed(const char *dir)
{
    fv_error err = { 0 };
    fv_outdir d;
    fv_outfile f;
    char out[600], full[600], file[600], parents[700];
    snprintf(out, sizeof out, "%s/out", dir);
    snprintf(full, sizeof full, "%s/full", dir);
    snprintf(file, sizeof file, "%s/file", dir);
    snprintf(parents, sizeof parents, "%s/p/q/out", dir);
    for (unsigned i = 0;; i++) {
        if (fv_outdir_open(&d,
                           i % 4 == 0   ? full
                           : i % 4 == 1 ? parents
                                        : out,
                           true, NULL, &err) == FV_OK) {
            fv_outdir_sub(&d, "sub", &err);
            put(d.stage, "one", "1");
            put(d.stage, "sub/two", "2");
            if (i % 3)
                fv_outdir_commit(&d, &err);
            else
                fv_outdir_abandon(&d);
        }
        fv_outfile_leftovers(file, NULL);
        if (fv_outfile_open(&f, file, &err) == FV_OK) {
            fv_outfile_write(&f, "text", 4, &err);
            if (i % 2)
                fv_outfile_commit(&f, &err);
            else
                fv_outfile_abandon(&f);
        }
    }
}

static size_t count_parts(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += strstr(e->d_name, ".part-") || strstr(e->d_name, ".fastvlm");
    if (d)
        closedir(d);
    return n;
}

/* What a kill leaves, the next run to the same place removes, and the user's files are whole. */
static void test_kill_matrix(void **state)
{
    (void)state;
    enum { KILLS = 200 };
    fv_error err = { 0 };
    fv_outdir d;
    size_t left = 0;
    unsigned seed = 1;
    char *dir = temp_dir(), path[700];
    static const char *const places[] = { "out", "full", "p/q/out" };
    snprintf(path, sizeof path, "%s/full", dir);
    assert_int_equal(mkdir(path, 0777), 0);
    put(path, "theirs", "x");
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            work_until_killed(dir);
        seed = seed * 1664525 + 1013904223;
        usleep(500 + (seed >> 16) % 20000);
        assert_int_equal(kill(pid, SIGKILL), 0);
        int how;
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL); /* it was still at work */
        snprintf(path, sizeof path, "%s/p/q", dir);
        left += count_parts(dir) + count_parts(path);
        for (size_t k = 0; k < FV_COUNT(places); k++) {
            char *place = fv_path_join(dir, places[k]);
            left += count_parts(place);
            fv_free(place);
        }
        for (size_t k = 0; k < FV_COUNT(places); k++) {
            char *place = fv_path_join(dir, places[k]);
            assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
            fv_outdir_abandon(&d);
            assert_int_equal(count_parts(place), 0);
            fv_free(place);
        }
        char *file = fv_path_join(dir, "file");
        fv_outfile_leftovers(file, NULL);
        if (fv_is_file(file))
            expect(dir, "file", "text");
        fv_free(file);
        if (count_parts(dir) + count_parts(path))
            fail_msg("kill %d left something that the next run did not remove", i);
        expect(dir, "full/theirs", "x");
    }
    assert_true(left > 10);
    print_message("%d kills left %zu folders and files, all removed\n", KILLS, left);
    temp_remove(dir);
}

/* Many small files: into a new folder, and into one that holds files. */
static void test_put(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    char *dir = temp_dir(), *place = fv_path_join(dir, "out");
    for (int turn = 0; turn < 2; turn++) {
        char text[] = "0";
        text[0] += (char)turn;
        assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
        assert_int_equal(fv_outdir_sub(&d, "sub", &err), FV_OK);
        assert_int_equal(fv_outdir_put(&d, "a", text, 1, &err), FV_OK);
        assert_int_equal(fv_outdir_put(&d, "sub/b", text, 1, &err), FV_OK);
        assert_int_equal(fv_outdir_put(&d, "empty", text, 0, &err), FV_OK);
        assert_int_equal(fv_outdir_put(&d, turn ? "new" : "old", text, 1, &err), FV_OK);
        assert_int_equal(fv_outdir_put(&d, "a", text, 1, &err), FV_ERR_IO); /* twice */
        assert_non_null(strstr(err.message, "out: a is there already: another file has the same "
                                            "name, or one that differs only in case"));
        assert_int_equal(fv_outdir_put(&d, "none/c", text, 1, &err), FV_ERR_IO);
        assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
        expect(place, "a", text);
        expect(place, "sub/b", text);
        expect(place, "empty", "");
    }
    expect(place, "old", "0");
    expect(place, "new", "1");
    assert_int_equal(count_entries(place), 5);
    temp_remove(dir);
    fv_free(place);
}

#if defined(__linux__)

/* What the file system says in these tests, and what it was asked. */
static struct {
    uint32_t kind;
    int why;                /* errno of syncfs; 0: none */
    size_t n_whole, n_each; /* calls of syncfs, of fsync of files */
    bool listed, unlisted;  /* a stage was synced with its list of moves, and without it after */
} disk = { .kind = 0xef53 };

int fstatfs(int fd, struct statfs *fs)
{
    (void)fd;
    memset(fs, 0, sizeof *fs);
    fs->f_type = disk.kind;
    return 0;
}

int syncfs(int fd)
{
    (void)fd;
    disk.n_whole++;
    errno = disk.why;
    return disk.why ? -1 : 0;
}

int fsync(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    if (S_ISREG(st.st_mode)) {
        disk.n_each++;
    } else if (faccessat(fd, ".fastvlm-part", F_OK, 0) == 0) {
        bool has_list = faccessat(fd, ".fastvlm-moves", F_OK, 0) == 0;
        disk.unlisted = disk.listed && !has_list;
        disk.listed = disk.listed || has_list;
    }
    return 0;
}

/* Where one call cannot be trusted to write all, files are synced one by one; what a disk could not
 * write is an error. */
static void test_synced(void **state)
{
    (void)state;
    static const struct {
        uint32_t kind;
        int why;
        bool whole, each, fails;
    } cases[] = { { 0xef53, 0, true, false, false },       /* ext4 */
                  { 0x9123683e, 0, true, false, false },   /* btrfs */
                  { 0xef53, EIO, true, false, true },      /* it could not be written */
                  { 0xef53, ENOSPC, true, false, true },   /* likewise */
                  { 0xef53, ENOSYS, true, true, false },   /* an old kernel, a filter of calls */
                  { 0x65735546, 0, false, true, false },   /* FUSE */
                  { 0x794c7630, 0, false, true, false } }; /* overlayfs */
    for (size_t i = 0; i < FV_COUNT(cases); i++) {
        fv_error err = { 0 };
        fv_outdir d;
        char *dir = temp_dir(), *place = fv_path_join(dir, "out");
        assert_int_equal(fv_outdir_open(&d, place, true, NULL, &err), FV_OK);
        assert_int_equal(fv_outdir_sub(&d, "sub", &err), FV_OK);
        assert_int_equal(fv_outdir_put(&d, "a", "1", 1, &err), FV_OK);
        assert_int_equal(fv_outdir_put(&d, "sub/b", "2", 1, &err), FV_OK);
        disk.kind = cases[i].kind;
        disk.why = cases[i].why;
        disk.n_whole = disk.n_each = 0;
        fv_status status = fv_outdir_commit(&d, &err);
        disk.kind = 0xef53;
        disk.why = 0;
        if (status != (cases[i].fails ? FV_ERR_IO : FV_OK) || disk.n_whole != cases[i].whole ||
            disk.n_each != (cases[i].each ? 3 : 0)) /* with the mark */
            fail_msg("case %zu: %s, %zu whole, %zu each", i, fv_status_name(status), disk.n_whole,
                     disk.n_each);
        if (cases[i].fails)
            assert_non_null(strstr(err.message, "out: cannot write: "));
        assert_int_equal(count_entries(dir), !cases[i].fails);
        fv_free(place);
        temp_remove(dir);
    }
}

/* The list of moves is gone for good when a merge returns: the next run must not take it back. */
static void test_merge_is_final(void **state)
{
    (void)state;
    fv_error err = { 0 };
    fv_outdir d;
    char *dir = temp_dir();
    put(dir, "theirs", "x");
    disk.listed = disk.unlisted = false;
    assert_int_equal(fv_outdir_open(&d, dir, true, NULL, &err), FV_OK);
    assert_int_equal(fv_outdir_put(&d, "a", "1", 1, &err), FV_OK);
    assert_int_equal(fv_outdir_commit(&d, &err), FV_OK);
    assert_true(disk.listed && disk.unlisted);
    temp_remove(dir);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_two_at_once),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_killed_halfway),
        cmocka_unit_test(test_killed_halfway_directory),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_rewrite),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_parents),
        cmocka_unit_test(test_kill_matrix),
        cmocka_unit_test(test_put),
#if defined(__linux__)
        cmocka_unit_test(test_synced),
        cmocka_unit_test(test_merge_is_final)
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
