/* Golden data: .npy arrays, a folder for dumps, one run of the engine. */
#ifndef FV_TESTS_GOLDEN_H
#define FV_TESTS_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastvlm.h"

typedef struct npy {
    size_t shape[4], n;
    int n_dims;
    float *data; /* f32; u8 and i32 arrays are converted */
} npy;

/* Fails the test when the file is missing or of another kind. */
npy npy_read(const char *dir, const char *name);
void npy_free(npy *a);
double relative_l2(const float *got, const float *want, size_t n);
double max_abs_diff(const float *got, const float *want, size_t n);

/* A fresh folder under the system's temporary one; removed with everything in it by temp_remove. */
char *temp_dir(void);
void temp_remove(char *dir);

typedef struct answer {
    int32_t ids[256];
    size_t n;
    char text[8192];
    fv_finish finish;
    fv_stats stats;
} answer;

/* Opens dir, asks prompt about image (NULL: none), at most max_new greedy tokens. */
typedef struct ask {
    const char *dir, *image, *prompt, *dump_dir;
    fv_precision vision, decoder;
    int n_threads, max_new;
    fv_fit fit;
    bool ignore_eos;
} ask;
answer run_ask(const ask *a);

#endif
