/* A stand-in for binfmt_misc: preloaded into a shell, it has programs for 64-bit Arm started by
 * qemu-aarch64. What it cannot prove: anything about a real kernel's exec.
 *
 * Environment: QEMU_PROGRAM, its path; QEMU_LD_PREFIX is qemu's own. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int exec_fn(const char *path, char *const argv[], char *const envp[]);

static int is_aarch64(const char *path)
{
    unsigned char head[20];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head);
    if (fd >= 0)
        close(fd);
    return n == sizeof head && !memcmp(head, "\177ELF\2\1", 6) && head[18] == 183 && head[19] == 0;
}

int execve(const char *path, char *const argv[], char *const envp[])
{
    exec_fn *real = (exec_fn *)dlsym(RTLD_NEXT, "execve");
    const char *qemu = getenv("QEMU_PROGRAM");
    char *words[256], *variables[256];
    size_t n = 0, k = 0;

    if (!qemu || !is_aarch64(path))
        return real(path, argv, envp);
    words[n++] = (char *)qemu;
    words[n++] = (char *)path;
    for (size_t i = 1; argv[0] && argv[i] && n < 255; i++)
        words[n++] = argv[i];
    words[n] = NULL;
    for (size_t i = 0; envp[i] && k < 255; i++)
        if (strncmp(envp[i], "LD_", 3) !=
            0) /* this library, and the phone's paths, are not qemu's */
            variables[k++] = envp[i];
    variables[k] = NULL;
    return real(qemu, words, variables);
}
