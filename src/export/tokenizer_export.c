/* tokenizer.json: copied where the checkpoint has one, otherwise built. */
#include <stdio.h>

#include "base/outfile.h"
#include "model/source.h"

enum { MAX_TOKENIZER_BYTES = 256 << 20 };

fv_status fv_export_tokenizer(const char *model, const char *file, const fv_export_options *options,
                              fv_error *err)
{
    fv_model s;
    char *text = NULL, *path = NULL;
    size_t n = 0;
    fv_status status = FV_OK;
    FV_TRY(fv_export_open(&s, model, FV_MODEL_TEXT, options, err));
    fv_export_leftovers(file, options);
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
        fv_export_log(options, FV_LOG_INFO, "%s: %d tokens, %s", file,
                      fv_tokenizer_size(s.tokenizer),
                      copied ? "the checkpoint's own file" : "built from its vocabulary");
    fv_free(text);
    fv_free(path);
    fv_model_close(&s);
    return status;
}
