/* bench_layers: where the time of an image, a prompt and a token goes, layer by layer. */
#ifndef FV_CLI_BENCH_LAYERS_H
#define FV_CLI_BENCH_LAYERS_H

#include "cli.h"

typedef struct layers_job {
    const char *model; /* its name, for people */
    int reps, tokens;  /* repetitions of image and prompt; tokens of each */
    int form;          /* 0: text, 1: JSON, 2: CSV */
    const char *svg;   /* NULL: no picture */
} layers_job;

/* An exit code. */
int run_bench_layers(const layers_job *job, fv_engine *engine, const fv_image *image);

#endif
