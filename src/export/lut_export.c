/* The embedding as Genie's LUT.bin: f32 rows, no header. Row t is at byte 4 t d_model.
 * [docs/export.md] */
#include "base/outfile.h"
#include "model/source.h"

enum { ROWS = 1024 }; /* converted at a time */

static fv_status lut_write_rows(fv_outfile *f, const fv_model *s, const fv_export_options *options,
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
        FV_TRY_GOTO(fv_export_progress(options, "embedding", (double)at / (double)embed->n, err));
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
    fv_model s;
    fv_outfile f;
    FV_TRY(fv_export_open(&s, model, FV_MODEL_STORED, options, err));
    fv_export_leftovers(file, options);
    fv_status status = fv_outfile_open(&f, file, err);
    if (status == FV_OK && (status = lut_write_rows(&f, &s, options, err)) == FV_OK)
        status = fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    if (status == FV_OK)
        fv_export_log(options, FV_LOG_INFO, "%s: %zu rows of %zu f32", file,
                      s.weights.decoder.embed.n, s.weights.decoder.embed.k);
    fv_model_close(&s);
    return status;
}
