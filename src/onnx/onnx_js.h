/* onnx_js: the small files beside the graphs that transformers.js reads. */
#ifndef FV_ONNX_JS_H
#define FV_ONNX_JS_H

#include "model/model.h"
#include "fastvlm_tools.h"

/* The id of "<image>" there: the tokenizer's, otherwise the next free one. */
int32_t fv_onnx_js_image_token(const fv_model *s);
/* config.json and the other small files, into the folder dir. outside: the parts whose weights are
 * in a file of their own. */
fv_status fv_onnx_js_files(const fv_model *s, bool f16, unsigned outside, const char *dir,
                           fv_error *err);

#endif
