/* checkpoint -> ONNX files. */
#include "fastvlm_tools.h"

#include "base/base.h"

void fv_onnx_settings_default(fv_onnx_settings *s) { *s = (fv_onnx_settings){ 0 }; }

fv_status fv_export_onnx(const char *model, const char *out, const fv_onnx_settings *settings, fv_error *err)
{
    (void)out;
    (void)settings;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: no ONNX export yet", model);
}
