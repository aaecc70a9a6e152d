/* Runs a fuzz target over files and folders of files: `make test` replays every corpus this
 * way, with any compiler. Prints how many inputs it ran. */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static size_t n_inputs;

static void die(const char *path, const char *what)
{
    fprintf(stderr, "%s: %s\n", path, what);
    exit(1);
}

static void replay_file(const char *path, size_t n_bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(n_bytes ? n_bytes : 1);

    if (!file || !data || fread(data, 1, n_bytes, file) != n_bytes)
        die(path, "cannot read");
    fclose(file);
    if (getenv("FV_REPLAY_VERBOSE"))
        fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, n_bytes);
    free(data);
    n_inputs++;
}

static void replay(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        die(path, "not found");
    if (!S_ISDIR(st.st_mode)) {
        replay_file(path, (size_t)st.st_size);
        return;
    }
    DIR *dir = opendir(path);
    if (!dir)
        die(path, "cannot list");
    for (struct dirent *entry; (entry = readdir(dir));) {
        char inner[4096];
        if (entry->d_name[0] == '.')
            continue;
        if ((size_t)snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) >= sizeof inner)
            die(path, "name too long");
        replay(inner);
    }
    closedir(dir);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    printf("%zu inputs\n", n_inputs);
    return n_inputs == 0;
}
