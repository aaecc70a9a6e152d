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
    char vision_file[2048], decoder_file[2048];
} phone_qairt;

/* Sets vision_file and decoder_file, and looks at the SDK: -1, or an exit code after saying what is
 * missing. */
int device_find_qairt(phone_qairt *q);
/* With those. */
int device_run_qairt(fv_device *device, const phone_qairt *q); /* an exit code */

#endif
