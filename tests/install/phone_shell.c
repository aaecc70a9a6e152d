/* Runs a program as a phone's sandbox would: calls to the system that Android's filters refuse, or
 * that its kernels do not have, fail.
 *
 *     phone_shell PROGRAM [ARGUMENT...]
 *
 * Refused are those that a C library or this program could come to rely on: an error, as a filter
 * of the shell gives, not the signal that one of an app may send. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct refused {
    long call;
    int error;
} refused[] = {
    { SYS_sched_setaffinity, EPERM },
    { SYS_mlock, EPERM },
    { SYS_memfd_create, ENOSYS },
    { SYS_clone3, ENOSYS },
    { SYS_rseq, ENOSYS },
    { SYS_close_range, ENOSYS },
    { SYS_statx, ENOSYS },
    { SYS_copy_file_range, ENOSYS },
    { SYS_io_uring_setup, EPERM },
    { SYS_perf_event_open, EACCES },
    { SYS_userfaultfd, EPERM },
    { SYS_linkat, EACCES },
    { SYS_membarrier, EPERM },
    { SYS_mlock2, ENOSYS },
};

enum { N = sizeof refused / sizeof *refused };

int main(int argc, char **argv)
{
    struct sock_filter code[2 * N + 2];
    struct sock_fprog program = { .len = 2 * N + 2, .filter = code };
    size_t n = 0;
    if (argc < 2)
        return 2;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                 (unsigned)refused[i].call, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
                                                 SECCOMP_RET_ERRNO | (unsigned)refused[i].error);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("phone_shell: seccomp");
        return 77;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
