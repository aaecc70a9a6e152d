/* A safetensors header. See tensors_write.h and tensors.h for the format. */
#include "io/tensors_write.h"

#include <string.h>

#include "io/json_write.h"

enum { ALIGNMENT = 64 };

fv_status fv_tensors_write_header(fv_outfile *f, const fv_tensor *list, size_t n, fv_error *err)
{
    static const char spaces[ALIGNMENT + 1] =
        "                                                                ";
    fv_json_text j = { .compact = true };
    uint64_t at = 0;
    uint8_t length[8];
    fv_status status = FV_OK;
    fv_json_begin(&j, NULL, '{');
    fv_json_begin(&j, "__metadata__", '{');
    fv_json_put_text(&j, "format", "pt");
    fv_json_end(&j);
    for (size_t i = 0; i < n; i++) {
        fv_json_begin(&j, list[i].name, '{');
        fv_json_put_text(&j, "dtype", fv_type_name(list[i].type));
        fv_json_begin(&j, "shape", '[');
        for (int d = 0; d < list[i].n_dims; d++)
            fv_json_put_int(&j, NULL, (int64_t)list[i].shape[d]);
        fv_json_end(&j);
        fv_json_begin(&j, "data_offsets", '[');
        fv_json_put_int(&j, NULL, (int64_t)at);
        fv_json_put_int(&j, NULL, (int64_t)(at += list[i].n_bytes));
        fv_json_end(&j);
        fv_json_end(&j);
    }
    fv_json_end(&j);
    FV_TRY_GOTO(fv_json_done(&j, err));
    j.n--; /* the newline at the end */
    size_t padding = (ALIGNMENT - (8 + j.n) % ALIGNMENT) % ALIGNMENT;
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)(j.n + padding) >> (8 * i));
    FV_TRY_GOTO(fv_outfile_write(f, length, 8, err));
    FV_TRY_GOTO(fv_outfile_write(f, j.text, j.n, err));
    FV_TRY_GOTO(fv_outfile_write(f, spaces, padding, err));
fail:
    fv_json_text_free(&j);
    return status;
}
