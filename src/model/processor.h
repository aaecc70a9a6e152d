/* processor: what a checkpoint's files say about images. */
#ifndef FV_PROCESSOR_H
#define FV_PROCESSOR_H

#include "io/json_write.h"

/* Members of a CLIPImageProcessor's preprocessor_config.json for a square input of this side, into
 * the open object of j. */
void fv_processor_put_clip(fv_json_text *j, int side);

#endif
