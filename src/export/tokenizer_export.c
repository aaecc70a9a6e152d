/* tokenizer.json: copied where the checkpoint has one, otherwise built. */
#include <stdio.h>

#include "base/sized.h"
#include "base/outfile.h"
#include "base/report.h"
#include "fastvlm_tools.h"
#include "model/model.h"

enum { MAX_TOKENIZER_BYTES = 256 << 20 };

fv_status fv_export_tokenizer(const char *model, const char *file, const fv_export_options *options,
                              fv_error *err)
{
    fv_export_options o;
    fv_callbacks callbacks;
    fv_model s;
    char *text = NULL, *path = NULL;
    size_t n = 0;
    fv_status status = FV_OK;
    FV_REQUIRE(model, err);
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(fv_model_open(
        &s, model, &(fv_model_options){ .depth = FV_MODEL_TEXT, .callbacks = o.callbacks }, err));
    fv_outfile_leftovers(file, o.callbacks);
    bool copied = fv_model_has_file(&s, "tokenizer.json");
    if (copied) {
        if (!(path = fv_path_join(model, "tokenizer.json")))
            status = fv_fail_memory(err, 1, "a path");
        else
            status = fv_read_file((uint8_t **)&text, &n, path, MAX_TOKENIZER_BYTES, err);
    } else {
        status = fv_tokenizer_write(s.tokenizer, FV_FILE_TOKENIZER_JSON, NULL, NULL, &text, &n,
                                    err);
    }
    if (status == FV_OK)
        status = fv_outfile_put(file, text, n, err);
    if (status == FV_OK)
        fv_log(o.callbacks, FV_LOG_INFO, "%s: %d tokens, %s", file, fv_tokenizer_size(s.tokenizer),
               copied ? "the checkpoint's own file" : "built from its vocabulary");
    fv_free(text);
    fv_free(path);
    fv_model_close(&s);
    return status;
}
