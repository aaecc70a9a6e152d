/* From a model to the plan of its embedding. See npu_embed.h. */
#include "npu/npu_embed.h"

#include <math.h>

/* The least and the largest number of the table. */
static fv_status table_range(const fv_model *m, float *low, float *high, fv_error *err)
{
    const fv_mat *w = &m->weights.decoder.embed;
    float *row = fv_alloc(w->k, sizeof *row);
    *low = *high = 0;
    if (!row)
        return fv_fail_memory(err, w->k * sizeof *row, "a row of the embedding");
    for (size_t i = 0; i < w->n; i++) {
        fv_graph_mat_rows(&m->kernels, w, i, 1, row, NULL);
        for (size_t c = 0; c < w->k; c++) {
            *low = fminf(*low, row[c]);
            *high = fmaxf(*high, row[c]);
        }
    }
    fv_free(row);
    return FV_OK;
}

static fv_status embed_plan(fv_npu_embed *e, fv_npu_precision precision, fv_error *err)
{
    fv_npu_plan *p = &e->plan;
    float low, high;
    FV_TRY(fv_npu_plan_make(p, &e->graph, NULL, FV_NPU_F16, NULL, err));
    if (precision == FV_NPU_F16)
        return FV_OK;
    FV_TRY(table_range(&e->model, &low, &high, err));
    if (!(p->of = fv_alloc_zero(p->n_values, sizeof *p->of)))
        return fv_fail_memory(err, p->n_values * sizeof *p->of, "encodings");
    for (size_t i = 0; i < p->n_values; i++) {
        p->width[i] = precision == FV_NPU_W8A8 ? FV_NPU_NARROW : FV_NPU_WIDE;
        p->of[i] = (fv_npu_formats){ fv_npu_encode_range(low, high, 255),
                                     fv_npu_encode_range(low, high, 65535) };
    }
    return FV_OK;
}

fv_status fv_npu_embed_open(fv_npu_embed *e, const char *model, fv_npu_precision precision,
                            const fv_callbacks *callbacks, fv_error *err)
{
    const fv_model_options options = { .depth = FV_MODEL_STORED, .callbacks = callbacks };
    const fv_graph_spec spec = { .seq_len = FV_NPU_IDS };
    fv_status status;
    *e = (fv_npu_embed){ 0 };
    FV_TRY(fv_model_open(&e->model, model, &options, err));
    fv_graph_begin(&e->graph, "embed", err);
    fv_graph_embed(&e->graph, &e->model.config, &e->model.weights.decoder, &spec);
    FV_TRY_GOTO(fv_graph_status(&e->graph));
    FV_TRY_GOTO(embed_plan(e, precision, err));
    return FV_OK;
fail:
    fv_npu_embed_close(e);
    return status;
}

void fv_npu_embed_close(fv_npu_embed *e)
{
    fv_npu_plan_free(&e->plan);
    fv_graph_end(&e->graph);
    fv_model_close(&e->model);
    *e = (fv_npu_embed){ 0 };
}
