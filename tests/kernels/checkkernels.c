/* checkkernels: is every version of every kernel right, and how fast is it?
 *
 *     checkkernels [--quick] [--only NAME] [--level LEVEL] [--seed N] [--case N]
 *     checkkernels --bench [--only NAME] [--level LEVEL] [--shapes DIR]
 *
 * NAME selects the kernels whose names begin with it. --quick runs one case in three, for
 * processors that are emulated. See check.h for how checks are written. */
#include "check.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/half.h"

#ifndef FV_SOURCE_DIR
#define FV_SOURCE_DIR "."
#endif

enum {
    CANARY = 256,
    OUT_FILL = 0xa5,
    CANARY_FILL = 0xc7,
    SLACK_FILL = 0xff,
    MAX_REPORTS = 8,
    QUICK = 3
};

#pragma weak check_gemm
#pragma weak bench_gemm
#pragma weak check_dwconv
#pragma weak bench_dwconv
#pragma weak check_attn
#pragma weak bench_attn
#pragma weak check_rows
#pragma weak bench_rows
#pragma weak check_resize
#pragma weak bench_resize
#pragma weak check_quant
#pragma weak bench_quant
#pragma weak check_int8
#pragma weak bench_int8
#pragma weak check_amx

static const struct family {
    const char *name;
    check_fn *check, *bench;
} families[] = {
    { "gemm", check_gemm, bench_gemm },       { "dwconv", check_dwconv, bench_dwconv },
    { "attn", check_attn, bench_attn },       { "rows", check_rows, bench_rows },
    { "resize", check_resize, bench_resize }, { "quant", check_quant, bench_quant },
    { "int8", check_int8, bench_int8 },       { "amx", check_amx, NULL },
};

#define AMX_MODEL "amx-model"

static const struct level {
    const char *name;
    unsigned flag;
} levels[] = {
    { "ref", 0 },
#if defined(__x86_64__)
    { "avx2", FV_CPU_AVX2 },
    { "avxvnni", FV_CPU_AVXVNNI },
    { "avx512", FV_CPU_AVX512 },
    { "avx512vnni", FV_CPU_AVX512VNNI },
    { "avx512bf16", FV_CPU_AVX512BF16 },
    { "amx", FV_CPU_AMX },
    { AMX_MODEL, 0 },
#elif defined(__aarch64__)
    { "neon", FV_CPU_NEON },
    { "dotprod", FV_CPU_DOTPROD },
    { "fp16", FV_CPU_FP16 },
    { "bf16", FV_CPU_BF16 },
    { "i8mm", FV_CPU_I8MM },
#endif
};

static fv_check *current; /* for the signal handler */

static const char *const mode_name[CHECK_MODE_COUNT] = { "random", "min", "max", "alternate",
                                                         "sparse" };

/* ---- kernels and cases ------------------------------------------------------------------- */

static void close_slot(fv_check *c)
{
    if (!c->slot_open)
        return;
    printf("  %-12s %-28s %6lu checked", c->level, c->kernel, c->slot_passed + c->slot_failed);
    if (c->slot_failed)
        printf(", %lu FAILED", c->slot_failed);
    printf("\n");
    c->slot_open = false;
}

bool check_slot(fv_check *c, const char *kernel, bool changed)
{
    close_slot(c);
    if (!changed || (c->only && strncmp(kernel, c->only, strlen(c->only)) != 0) ||
        (c->only_level && strcmp(c->level, c->only_level) != 0))
        return false;
    snprintf(c->kernel, sizeof c->kernel, "%s", kernel);
    c->n_case = 0;
    c->slot_passed = c->slot_failed = 0;
    c->slot_open = !c->bench;
    c->n_slots++;
    return true;
}

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

bool check_case(fv_check *c, const char *format, ...)
{
    uint64_t number = c->n_case++;
    if (c->only_case != UINT64_MAX ? number != c->only_case : c->quick && number % QUICK)
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(c->text, sizeof c->text, format, args);
    va_end(args);
    c->rng = c->seed;
    for (const char *s = c->kernel; *s; s++)
        c->rng = c->rng * 31 + (unsigned char)*s;
    c->rng += number * 0x632be59bd9b4e019u;
    next(&c->rng);
    /* Half of the cases are random; the others take turns. */
    c->mode = number % 2 ? (check_mode)(number / 2 % CHECK_MODE_COUNT) : CHECK_RANDOM;
    c->case_seed = number;
    c->case_failed = false;
    c->running = true;
    return true;
}

static void describe(fv_check *c, FILE *to)
{
    fprintf(to, "FAIL %s %s: %s, fill %s, seed %" PRIu64 "\n", c->level, c->kernel, c->text,
            mode_name[c->mode], c->seed);
    fprintf(to,
            "     again: checkkernels --level %s --only %s --seed %" PRIu64 " --case %" PRIu64 "\n",
            c->level, c->kernel, c->seed, c->case_seed);
}

void check_fail(fv_check *c, const char *format, ...)
{
    if (!c->case_failed && c->slot_failed < MAX_REPORTS) {
        describe(c, stdout);
        va_list args;
        va_start(args, format);
        printf("     ");
        vprintf(format, args);
        printf("\n");
        va_end(args);
        fflush(stdout);
    }
    c->case_failed = true;
}

static bool all_bytes(const uint8_t *p, size_t n, int value)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != value)
            return false;
    return true;
}

void check_done(fv_check *c)
{
    for (check_region *r = c->region; r < c->region + CHECK_MAX_REGIONS; r++) {
        if (r->data && r->out) {
            if (!all_bytes(r->data - CANARY, CANARY, CANARY_FILL))
                check_fail(c, "wrote before the start of output %d", (int)(r - c->region));
            uint8_t *end = r->data + r->n_bytes, *stop = r->base + r->capacity;
            if (!all_bytes(end, (size_t)(stop - end), CANARY_FILL))
                check_fail(c, "wrote past the end of output %d", (int)(r - c->region));
        }
        r->data = NULL;
    }
    if (c->case_failed)
        c->slot_failed++, c->n_failed++;
    else
        c->slot_passed++, c->n_passed++;
    c->running = false;
}

static void on_crash(int sig)
{
    fv_check *c = current;
    if (c && c->running) {
        describe(c, stdout);
        printf("     %s\n",
               sig == SIGILL ? "illegal instruction" : "touched memory past the end of a buffer");
        fflush(stdout);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

/* ---- buffers ----------------------------------------------------------------------------- */

uint64_t check_rand(fv_check *c) { return next(&c->rng); }
size_t check_below(fv_check *c, size_t n) { return n ? (size_t)(next(&c->rng) % n) : 0; }

float check_uniform(fv_check *c, float lo, float hi)
{
    double t = (double)(next(&c->rng) >> 11) * 0x1p-53;
    return (float)(lo + t * ((double)hi - lo));
}

static check_region *take_region(fv_check *c, size_t n_bytes)
{
    check_region *r = c->region;
    while (r < c->region + CHECK_MAX_REGIONS && r->data)
        r++;
    if (r == c->region + CHECK_MAX_REGIONS) {
        fprintf(stderr, "checkkernels: more than %d buffers in one case\n", CHECK_MAX_REGIONS);
        exit(2);
    }
    if (r->capacity < n_bytes) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        if (r->base)
            munmap(r->base, r->capacity + page);
        r->capacity = (n_bytes + n_bytes / 2 + page - 1) / page * page;
        r->base = mmap(NULL, r->capacity + page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (r->base == MAP_FAILED || mprotect(r->base + r->capacity, page, PROT_NONE) != 0) {
            fprintf(stderr, "checkkernels: no memory for a buffer of %zu bytes\n", n_bytes);
            exit(2);
        }
    }
    return r;
}

static uint8_t *align_down(uint8_t *p, size_t align) { return p - (uintptr_t)p % align; }

void *check_in(fv_check *c, size_t n_bytes, size_t align)
{
    check_region *r = take_region(c, n_bytes + 17 * align);
    size_t shift = align < 64 && check_rand(c) % 2 ? align * check_below(c, 16) : 0;
    r->data = align_down(r->base + r->capacity - n_bytes - shift, align);
    r->n_bytes = n_bytes;
    r->out = false;
    memset(r->data + n_bytes, SLACK_FILL, (size_t)(r->base + r->capacity - r->data) - n_bytes);
    return r->data;
}

void *check_out(fv_check *c, size_t n_bytes, size_t align)
{
    check_region *r = take_region(c, n_bytes + 17 * align + 2 * CANARY);
    size_t shift = align < 64 ? align * check_below(c, 16) : 0;
    r->data = align_down(r->base + r->capacity - CANARY - n_bytes - shift, align);
    r->n_bytes = n_bytes;
    r->out = true;
    memset(r->data - CANARY, CANARY_FILL, CANARY);
    memset(r->data, OUT_FILL, n_bytes);
    memset(r->data + n_bytes, CANARY_FILL, (size_t)(r->base + r->capacity - r->data) - n_bytes);
    return r->data;
}

static void put(void *p, fv_type type, size_t i, float x)
{
    switch (type) {
    case FV_TYPE_F16: ((uint16_t *)p)[i] = fv_f32_to_f16(x); break;
    case FV_TYPE_BF16: ((uint16_t *)p)[i] = fv_f32_to_bf16(x); break;
    case FV_TYPE_U8: ((uint8_t *)p)[i] = (uint8_t)x; break;
    default: ((float *)p)[i] = x;
    }
}

double check_get(const void *p, fv_type type, size_t i)
{
    switch (type) {
    case FV_TYPE_F16: return fv_f16_to_f32(((const uint16_t *)p)[i]);
    case FV_TYPE_BF16: return fv_bf16_to_f32(((const uint16_t *)p)[i]);
    case FV_TYPE_U8: return ((const uint8_t *)p)[i];
    default: return ((const float *)p)[i];
    }
}

void check_fill(fv_check *c, void *p, fv_type type, size_t n, float lo, float hi)
{
    for (size_t i = 0; i < n; i++) {
        float x = 0;
        switch (c->mode) {
        case CHECK_MIN: x = lo; break;
        case CHECK_MAX: x = hi; break;
        case CHECK_ALTERNATE: x = i % 2 ? hi : lo; break;
        case CHECK_SPARSE: {
            uint64_t r = check_rand(c) % 8;
            x = r == 0 ? lo : r == 1 ? hi : r == 2 && lo < 0 ? -0.0f : FV_MAX(lo, 0.0f);
            break;
        }
        default: x = check_uniform(c, lo, hi);
        }
        put(p, type, i, x);
    }
}

double check_half_ulp(fv_type type, double x)
{
    int e;
    frexp(x, &e); /* |x| in [2^(e-1), 2^e) */
    switch (type) {
    case FV_TYPE_F16: return ldexp(1, (e < -13 ? -13 : e) - 12);
    case FV_TYPE_BF16: return ldexp(1, (e < -125 ? -125 : e) - 9);
    default: return ldexp(1, (e < -125 ? -125 : e) - 25);
    }
}

/* ---- judging ----------------------------------------------------------------------------- */

bool check_near(fv_check *c, const char *what, size_t index, double want, double got, double bound)
{
    if ((isnan(want) && isnan(got)) || want == got || fabs(want - got) <= bound)
        return true;
    check_fail(c, "%s[%zu]: want %.9g, got %.9g, off by %.3g, allowed %.3g", what, index, want, got,
               fabs(want - got), bound);
    return false;
}

bool check_same(fv_check *c, const char *what, const void *want, const void *got, size_t n_bytes)
{
    const uint8_t *w = want, *g = got;
    for (size_t i = 0; i < n_bytes; i++) {
        if (w[i] != g[i]) {
            check_fail(c, "%s byte %zu: want %02x, got %02x", what, i, w[i], g[i]);
            return false;
        }
    }
    return true;
}

bool check_gaps(fv_check *c, const char *what, const void *p, size_t elem_bytes, size_t m, size_t n,
                size_t ld)
{
    const uint8_t *at = p;
    for (size_t i = 0; i + 1 < m; i++) {
        if (!all_bytes(at + (i * ld + n) * elem_bytes, (ld - n) * elem_bytes, OUT_FILL)) {
            check_fail(c, "%s: wrote between rows %zu and %zu", what, i, i + 1);
            return false;
        }
    }
    return true;
}

/* ---- timing ------------------------------------------------------------------------------ */

/* Processor time of this thread: what other programs take does not count (what they do to the
 * caches does; hence the best of many). */
static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Cycles a ns, from a chain of dependent instructions of one cycle; 0 where that cannot be
 * written. Rotations on x86: Golden Cove adds constants up while it renames. */
static double measure_ghz(void)
{
    double best = 0;
#if defined(__x86_64__) || defined(__aarch64__)
    for (int i = 0; i < 20; i++) {
        enum { N = 20000 };
        uint64_t x = 1;
        double t = now_ns();
        for (int k = 0; k < N; k++) {
#if defined(__x86_64__)
            __asm__ volatile(
                "rol $3, %0\n\trol $3, %0\n\trol $3, %0\n\trol $3, %0\n\trol $3, %0\n\t"
                "rol $3, %0\n\trol $3, %0\n\trol $3, %0\n\trol $3, %0\n\trol $3, %0"
                : "+r"(x));
#else
            __asm__ volatile(
                "add %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1\n\t"
                "add %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1\n\tadd %0, %0, #1\n\t"
                "add %0, %0, #1\n\tadd %0, %0, #1"
                : "+r"(x));
#endif
        }
        double ghz = 10.0 * N / (now_ns() - t);
        if (ghz > best)
            best = ghz;
    }
#endif
    return best;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_best_ns(bench_fn *fn, void *user, double *median)
{
    enum { MAX_SAMPLES = 400 };
    static double sample[MAX_SAMPLES];
    double t = now_ns();
    fn(user);
    double first = now_ns() - t;
    size_t inner = first < 20e3 ? (size_t)(20e3 / (first + 20)) + 1 : 1, n = 0;
    double end = now_ns() + 0.4e9;
    while (n < MAX_SAMPLES && (n < 5 || now_ns() < end)) {
        t = now_ns();
        for (size_t i = 0; i < inner; i++)
            fn(user);
        sample[n++] = (now_ns() - t) / (double)inner;
        if (first > 2e9 && n == 1)
            break; /* the oracle on a large shape */
    }
    qsort(sample, n, sizeof *sample, by_value);
    if (median)
        *median = sample[n / 2];
    return sample[0];
}

void bench_report(fv_check *c, const char *shape, const char *unit, bench_fn *fn, void *user,
                  double work, bench_fn *ref, void *ref_user, double ref_work)
{
    double median, best = bench_best_ns(fn, user, &median);
    printf("%-11s %-26s %-30s %12.0f ns", c->level, c->kernel, shape, best);
    if (c->ghz > 0)
        printf(" %13.0f cycles", best * c->ghz);
    printf(" %8.2f %s  +%3.0f %%", work / best, unit, 100 * (median - best) / best);
    if (ref) {
        double r = bench_best_ns(ref, ref_user, NULL);
        printf("  %7.1f x ref", r / ref_work / (best / work));
    }
    printf("\n");
    fflush(stdout);
}

void *bench_buffer(fv_check *c, fv_type type, size_t n)
{
    void *p = NULL;
    size_t n_bytes = (n * fv_type_size(type) + 64 + 4095) / 4096 * 4096;
    if (posix_memalign(&p, n_bytes >= (size_t)4 << 20 ? (size_t)2 << 20 : 4096, n_bytes) != 0) {
        fprintf(stderr, "checkkernels: no memory for a buffer of %zu bytes\n", n_bytes);
        exit(2);
    }
#if defined(MADV_HUGEPAGE)
    madvise(p, n_bytes, MADV_HUGEPAGE);
#endif
    uint64_t s = c->seed;
    for (size_t i = 0; i < n; i += 512) { /* random enough, and quick on a gigabyte */
        float x = (float)(next(&s) % 4096) / 4096.0f - 0.5f;
        for (size_t k = i; k < i + 512 && k < n; k++)
            put(p, type, k, x + (float)(k - i) * (1.0f / 1024));
    }
    return p;
}

void bench_free(void *p) { free(p); }

size_t bench_shapes(fv_check *c, const char *family, bench_shape *shape, size_t max)
{
    char path[1024], line[256];
    snprintf(path, sizeof path, "%s/%s.txt", c->shapes_dir, family);
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "checkkernels: no shapes in %s (give their folder with --shapes)\n", path);
        return 0;
    }
    size_t n = 0;
    while (n < max && fgets(line, sizeof line, f)) {
        bench_shape s = { .n = 0 };
        int at = 0;
        if (line[strspn(line, " \t")] == '#' || sscanf(line, "%47s%n", s.label, &at) != 1)
            continue;
        for (int used; s.n < 8 && sscanf(line + at, "%zu%n", &s.v[s.n], &used) == 1; at += used)
            s.n++;
        shape[n++] = s;
    }
    fclose(f);
    return n;
}

/* ---- the program ------------------------------------------------------------------------- */

static int usage(const char *what)
{
    fprintf(stderr,
            "checkkernels: %s\n"
            "usage: checkkernels [--bench] [--quick] [--only NAME] [--level LEVEL] [--seed N] "
            "[--case N]\n"
            "                    [--shapes DIR]\n",
            what);
    return 2;
}

int main(int argc, char **argv)
{
    static fv_check c = { .seed = 1,
                          .only_case = UINT64_MAX,
                          .shapes_dir = FV_SOURCE_DIR "/bench/shapes" };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--bench")) {
            c.bench = true;
            continue;
        }
        if (!strcmp(argv[i], "--quick")) {
            c.quick = true;
            continue;
        }
        if (!strcmp(argv[i], "--help")) {
            usage("check or time the kernels");
            return 0;
        }
        if (!value)
            return usage("an option is unknown or lacks its value");
        if (!strcmp(argv[i], "--only"))
            c.only = value;
        else if (!strcmp(argv[i], "--level"))
            c.only_level = value;
        else if (!strcmp(argv[i], "--seed"))
            c.seed = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "--case"))
            c.only_case = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "--shapes"))
            c.shapes_dir = value;
        else
            return usage("an option is unknown or lacks its value");
        i++;
    }

    static fv_kernels ref, table[2];
    const fv_kernels *below = &table[1];
    unsigned have = fv_cpu_detect(), cpu = 0;
    fv_kernels_init(&ref, 0);
    current = &c;
    if (!c.bench) {
        signal(SIGSEGV, on_crash);
        signal(SIGBUS, on_crash);
        signal(SIGILL, on_crash);
    } else if ((c.ghz = measure_ghz()) > 0) {
        printf("core at %.2f GHz; processor time, best of many calls, + median over best\n", c.ghz);
    }
    bool known = !c.only_level;
    for (size_t i = 0; i < FV_COUNT(levels); i++) {
        known = known || !strcmp(c.only_level, levels[i].name);
        if ((have & levels[i].flag) != levels[i].flag) {
            printf("  %-12s skipped: this machine lacks it\n", levels[i].name);
            continue;
        }
        fv_kernels *now = below == &table[0] ? &table[1] : &table[0];
        fv_kernels_init(now, cpu |= levels[i].flag);
        if (!strcmp(levels[i].name, AMX_MODEL) && (c.bench || !amx_model_kernels(now, cpu))) {
            printf("  %-12s skipped: %s\n", levels[i].name,
                   c.bench ? "a model is not timed" : "this machine lacks AVX-512");
            continue;
        }
        c.ref = &ref;
        c.now = now;
        c.below = below;
        c.level = levels[i].name;
        c.n_slots = 0;
        for (size_t f = 0; f < FV_COUNT(families); f++) {
            check_fn *fn = c.bench ? families[f].bench : families[f].check;
            if (fn)
                fn(&c);
            close_slot(&c);
        }
        if (!c.n_slots && !c.only && (!c.only_level || !strcmp(c.only_level, c.level)))
            printf("  %-12s skipped: no kernel of its own\n", c.level);
        below = now;
    }
    if (!known)
        return usage("no such level on this architecture");
    if (!c.bench)
        printf("%s%lu passed, %lu failed\n", c.quick ? "quick, one case in three: " : "",
               c.n_passed, c.n_failed);
    return c.n_failed != 0;
}
