/* device_qairt: what device run hands on for --with qairt. */
#ifndef FV_CLI_DEVICE_QAIRT_H
#define FV_CLI_DEVICE_QAIRT_H

#include "device.h"

typedef struct phone_qairt {
    const char *image, *prompt;
    const char *model, *models;    /* checkpoint or packed file; the pipeline's directory */
    const char *vision, *embedder; /* "int8", "fp16", "npu:FILE"; NULL: the model's own rows */
    const char *sdk, *output;
    fv_precision decoder;
    int max_new_tokens, n_threads;
    bool skip_push, quiet;
    const fv_callbacks *callbacks;
} phone_qairt;

int device_run_qairt(fv_device *device, const phone_qairt *q); /* an exit code */

#endif
