/* processor: what a checkpoint's files say about images.
 *
 *     preprocessor_config.json    a CLIPImageProcessor
 *     processor_config.json       a LlavaProcessor, which may hold the former as "image_processor"
 *
 * Read for the layout fast_vlm only: the reference of llava_qwen2 makes its processor itself. */
#ifndef FV_PROCESSOR_H
#define FV_PROCESSOR_H

#include "io/json.h"
#include "io/json_write.h"
#include "model/config.h"

/* image_size and recipe of *c. Either document may be NULL; both: *c stays as it is. Settings that
 * cannot be carried out are FV_ERR_UNSUPPORTED, by name. */
fv_status fv_processor_read(fv_config *c, const fv_json *preprocessor, const fv_json *processor,
                            fv_error *err);

/* Members of a CLIPImageProcessor's preprocessor_config.json, into the open object of j. */
void fv_processor_put_clip(fv_json_text *j, const fv_config *c);

#endif
