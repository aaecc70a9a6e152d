/* The embedding as Genie's LUT.bin: f32 rows, no header. Row t is at byte 4 t d_model.
 * [docs/export.md] */
#include "base/sized.h"
#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/report.h"
#include "fastvlm_tools.h"
#include "model/model.h"

enum { ROWS = 1024 }; /* converted at a time */

static fv_status lut_write_rows(fv_outfile *f, const fv_model *s, const fv_callbacks *callbacks,
                                fv_error *err)
{
    const fv_mat *embed = &s->weights.decoder.embed;
    fv_status status = FV_OK;
    float *rows = fv_alloc(ROWS * embed->k, sizeof *rows);
    if (!rows)
        return fv_fail_memory(err, ROWS * embed->k * sizeof *rows, "rows of the embedding");
    for (size_t at = 0; at < embed->n; at += ROWS) {
        size_t n = FV_MIN((size_t)ROWS, embed->n - at) * embed->k;
        const uint8_t *from = (const uint8_t *)embed->data +
                              at * fv_row_bytes(embed->type, embed->k);
        FV_TRY_GOTO(fv_progress(callbacks, "embedding", (double)at / (double)embed->n, err));
        s->kernels.convert[FV_TYPE_F32][embed->type](rows, from, n);
        FV_TRY_GOTO(fv_outfile_write(f, rows, n * sizeof *rows, err));
    }
fail:
    fv_free(rows);
    return status;
}

fv_status fv_export_lut(const char *model, const char *file, const fv_export_options *options,
                        fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_export_options o;
    fv_callbacks callbacks;
    fv_model s;
    fv_outfile f;
    FV_REQUIRE(model, err);
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(fv_model_open(
        &s, model, &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = o.callbacks }, err));
    fv_outfile_leftovers(file, o.callbacks);
    fv_status status = fv_outfile_open(&f, file, err);
    if (status == FV_OK && (status = lut_write_rows(&f, &s, o.callbacks, err)) == FV_OK)
        status = fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    if (status == FV_OK)
        fv_log(o.callbacks, FV_LOG_INFO, "%s: %zu rows of %zu f32", file, s.weights.decoder.embed.n,
               s.weights.decoder.embed.k);
    fv_model_close(&s);
    return status;
}
