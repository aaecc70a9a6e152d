/* Ctrl-C, a model file that is cut, a stack that is small. See cli.h. */
#include "cli.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <termios.h>
#include <unistd.h>

/* ---- Ctrl-C ------------------------------------------------------------------------------ */

static volatile sig_atomic_t stop_asked, end_asked, terminal_held, last_time;
static struct termios terminal_modes; /* before an editor took it */

void hold_terminal(bool hold)
{
    if (hold && tcgetattr(STDIN_FILENO, &terminal_modes) == 0) {
        terminal_held = 1;
    } else if (terminal_held) {
        terminal_held = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal_modes);
    }
}

static void on_interrupt(int number)
{
    if (stop_asked || last_time) { /* the second time at once */
        if (terminal_held)
            tcsetattr(STDIN_FILENO, TCSANOW, &terminal_modes);
        _exit(EXIT_FAILED);
    }
    stop_asked = 1;
    end_asked = number != SIGINT;
}

void catch_interrupt(void)
{
    struct sigaction action = { .sa_handler = on_interrupt };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* so does a limit on the size of files */
}

bool interrupted(void) { return stop_asked != 0; }

bool interrupt_forgive(bool once)
{
    last_time = once;
    if (!end_asked)
        stop_asked = 0;
    return !end_asked;
}

/* ---- a model file that is cut ------------------------------------------------------------ */

/* What is called here may be called in a signal handler: no stdio, no allocation. */
static void error_write(const char *text)
{
    size_t n = strlen(text);
    if (write(STDERR_FILENO, text, n) < 0)
        return;
}

/* The number that the line of /proc/self/maps has at *at, hexadecimal; *at is moved behind it. */
static uintptr_t maps_number(const char **at)
{
    uintptr_t value = 0;
    for (; **at; ++*at) {
        char c = **at;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            break;
        value = value * 16 + (uintptr_t)digit;
    }
    return value;
}

/* "7f00-7f01 r--p 00000000 08:01 1234   /path": the path when address lies in the range and a file
 * is mapped there. */
static const char *maps_line_path(const char *line, uintptr_t address)
{
    const char *at = line;
    uintptr_t begin = maps_number(&at);
    at += *at == '-';
    uintptr_t end = maps_number(&at);
    return address >= begin && address < end ? strchr(at, '/') : NULL;
}

/* The file mapped at address; NULL: none. Where the system does not say, it is taken for one. */
static const char *mapped_file(uintptr_t address, char *line, size_t capacity)
{
    char block[1024];
    size_t used = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    const char *path = fd < 0 ? "a model's file" : NULL;
    for (ssize_t n; fd >= 0 && !path && (n = read(fd, block, sizeof block)) > 0;)
        for (ssize_t i = 0; i < n && !path; i++) {
            if (block[i] != '\n') {
                if (used + 1 < capacity)
                    line[used++] = block[i];
                continue;
            }
            line[used] = 0;
            used = 0;
            path = maps_line_path(line, address);
        }
    if (fd >= 0)
        close(fd);
    return path;
}

/* A page of a mapped file that the file no longer has. Anything else is a fault of the program's
 * own and ends it as it would without this. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    char line[1200] = "";
    const char *path = info->si_code > 0 ? mapped_file((uintptr_t)info->si_addr, line, sizeof line)
                                         : NULL;
    (void)context;
    if (!path) {
        signal(number, SIG_DFL); /* the instruction runs again */
        if (info->si_code <= 0)
            raise(number); /* it was not an instruction: kill(2) */
        return;
    }
    while (atomic_flag_test_and_set(&said)) /* another thread says it and ends the program */
        pause();
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = '?';
    error_write("fastvlm: ");
    error_write(path);
    error_write(
        ": the file was cut short or could not be read while it was in use; a model's files "
        "must not change\n");
    _exit(EXIT_FAILED);
}

void catch_bus_error(void)
{
    struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
    sigaction(SIGBUS, &action, NULL);
}

/* ---- a stack that is small --------------------------------------------------------------- */

enum { ENOUGH_BYTES = 1 << 20, STACK_BYTES = 8 << 20 };

typedef struct own_stack {
    int (*run)(int argc, char **argv);
    int argc, code;
    char **argv;
} own_stack;

static void *own_stack_run(void *user)
{
    own_stack *s = user;
    s->code = s->run(s->argc, s->argv);
    return NULL;
}

/* ulimit -s is the main thread's limit, and the size of every thread that asks for none. */
int run_with_stack(int (*run)(int argc, char **argv), int argc, char **argv)
{
    struct rlimit limit;
    own_stack s = { .run = run, .argc = argc, .argv = argv };
    pthread_attr_t attr;
    pthread_t thread;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= ENOUGH_BYTES)
        return run(argc, argv);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
#if defined(__GLIBC__)
    pthread_setattr_default_np(&attr);
#endif
    int code = pthread_create(&thread, &attr, own_stack_run, &s);
    pthread_attr_destroy(&attr);
    if (code != 0) {
        print_err("fastvlm: the stack is limited to %llu KiB, and no thread with a larger one can "
                  "be started; raise the limit (ulimit -s 1024)\n",
                  (unsigned long long)limit.rlim_cur / 1024);
        return EXIT_FAILED;
    }
    /* Signals are the thread's: they must reach what waits for input there. */
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    pthread_join(thread, NULL);
    return s.code;
}
