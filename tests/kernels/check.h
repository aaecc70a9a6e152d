/* Checks every kernel of the table, one ISA level at a time, against the portable version and
 * against double precision. checkkernels.c has the machinery; a family of kernels adds a file
 * check_<family>.c with `void check_<family>(fv_check *c)` and, if it likes,
 * `void bench_<family>(fv_check *c)`; both are found by name (weak symbols), so a family that
 * is not there yet costs nothing.
 *
 * A check reads like this:
 *
 *     void check_rows(fv_check *c)
 *     {
 *         if (check_slot(c, "add", c->now->add != c->below->add)) {
 *             for (size_t n = 0; n <= 33; n++) {
 *                 if (!check_case(c, "n=%zu", n))
 *                     continue;
 *                 float *x = check_in(c, n * sizeof *x, sizeof *x);
 *                 float *y = check_out(c, n * sizeof *y, sizeof *y);
 *                 check_fill(c, x, FV_TYPE_F32, n, -4, 4);
 *                 check_fill(c, y, FV_TYPE_F32, n, -4, 4);
 *                 ... remember y, call c->now->add(y, x, n), then for each i
 *                 check_near(c, "y", i, want, got, bound);
 *                 check_done(c);
 *             }
 *         }
 *     }
 *
 * Everything random in a case comes from its own seed, so that a case can be run alone. */
#ifndef FV_CHECK_H
#define FV_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* How check_fill fills a range [lo, hi]. check_case takes them in turn. */
typedef enum check_mode {
    CHECK_RANDOM,    /* uniform */
    CHECK_MIN,       /* all lo */
    CHECK_MAX,       /* all hi */
    CHECK_ALTERNATE, /* lo, hi, lo, ... */
    CHECK_SPARSE,    /* mostly zeros and negative zeros, some of lo and hi */
    CHECK_MODE_COUNT
} check_mode;

enum { CHECK_MAX_REGIONS = 16 };

typedef struct check_region {
    uint8_t *base; /* capacity bytes, then an unreadable page */
    size_t capacity;
    uint8_t *data; /* what the case got, n_bytes long; NULL: not in use */
    size_t n_bytes;
    bool out; /* canaries before and after data */
} check_region;

typedef struct fv_check {
    const fv_kernels *ref, *now; /* the oracle; the level being checked */
    const fv_kernels *below;     /* the level before it; an empty table at level "ref" */
    const char *level;
    check_mode mode; /* of the running case */

    /* private to checkkernels.c */
    const char *only, *only_level, *shapes_dir;
    char kernel[40];
    uint64_t seed, only_case, n_case, rng, case_seed;
    char text[256];
    bool bench, quick, running, case_failed, slot_open;
    unsigned n_slots; /* of this level, so far */
    unsigned long n_passed, n_failed, slot_passed, slot_failed;
    double ghz;
    check_region region[CHECK_MAX_REGIONS];
} fv_check;

/* ---- the families; one that is not linked is left out ------------------------------------ */

typedef void check_fn(fv_check *c);
check_fn check_gemm, check_dwconv, check_attn, check_rows, check_resize, check_quant, check_int8,
    check_amx;
check_fn bench_gemm, bench_dwconv, bench_attn, bench_rows, bench_resize, bench_quant, bench_int8;

/* ---- amx_model.c: AMX's kernels on a model of its tile instructions ------------------------ */

/* Puts them into a table; false when the rest of them needs instructions that are not in cpu. */
bool amx_model_kernels(fv_kernels *k, unsigned cpu);

/* ---- a kernel ---------------------------------------------------------------------------- */

/* True when the kernel should be checked: it is new at this level (changed) and was not
 * deselected with --only. Its name is what failures and --only say. At level "ref" every
 * slot counts as new, with now == ref: compare with double precision there too. */
bool check_slot(fv_check *c, const char *kernel, bool changed);

/* Starts a case; the text describes its sizes. Picks the case's seed and fill mode. False: the
 * user asked for another case, skip it. Every case ends with check_done. */
bool check_case(fv_check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Checks the canaries, counts the case, takes its buffers back. */
void check_done(fv_check *c);

/* ---- what a case is made of -------------------------------------------------------------- */

uint64_t check_rand(fv_check *c);
size_t check_below(fv_check *c, size_t n); /* 0 .. n-1 */
float check_uniform(fv_check *c, float lo, float hi);

/* Memory for an input. It ends at an unreadable page (in every second case, up to 15 * align
 * bytes before it, when align < 64). Start aligned to align bytes, no more. */
void *check_in(fv_check *c, size_t n_bytes, size_t align);
/* Memory for an output or for scratch, with canaries at both ends; bytes start as 0xa5. */
void *check_out(fv_check *c, size_t n_bytes, size_t align);

/* n values of type F32, F16, BF16 (rounded) in [lo, hi], by c->mode. */
void check_fill(fv_check *c, void *p, fv_type type, size_t n, float lo, float hi);
double check_get(const void *p, fv_type type, size_t i);

/* Half a unit in the last place of `type` at x: what rounding to it may add to an error. */
double check_half_ulp(fv_type type, double x);

/* ---- judging ----------------------------------------------------------------------------- */

/* NaN agrees with NaN, an infinity with itself, numbers within bound. False: failed, reported. */
bool check_near(fv_check *c, const char *what, size_t index, double want, double got, double bound);
/* The same bytes. */
bool check_same(fv_check *c, const char *what, const void *want, const void *got, size_t n_bytes);
/* Between rows of an output [m, ld] that are n elements wide nothing was written. */
bool check_gaps(fv_check *c, const char *what, const void *p, size_t elem_bytes, size_t m, size_t n,
                size_t ld);
void check_fail(fv_check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- timing ------------------------------------------------------------------------------ */

/* bench/shapes/<family>.txt: one shape a line, a label and up to eight numbers; # comments. */
typedef struct bench_shape {
    char label[48];
    size_t v[8];
    unsigned n;
} bench_shape;
size_t bench_shapes(fv_check *c, const char *family, bench_shape *shape, size_t max);

/* 64-byte aligned, filled with small random values of the type; bench_free returns it. */
void *bench_buffer(fv_check *c, fv_type type, size_t n);
void bench_free(void *p);

/* Best of many calls of fn(user), in ns; *median too when not NULL. */
typedef void bench_fn(void *user);
double bench_best_ns(bench_fn *fn, void *user, double *median);

/* Prints a line: ns, cycles, rate, spread, ratio to ref. work is what one call of fn does, in flops
 * or bytes as the unit says ("GFLOP/s", "GB/s"); ref may do less (ref_work) and may be NULL. */
void bench_report(fv_check *c, const char *shape, const char *unit, bench_fn *fn, void *user,
                  double work, bench_fn *ref, void *ref_user, double ref_work);

#endif
