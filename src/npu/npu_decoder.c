/* From a model to the plans of its decoder's two graphs. See npu_decoder.h. */
#include "npu/npu_decoder.h"

static fv_status decoder_graph_make(fv_npu_decoder *d, size_t i, int cache_len, fv_error *err)
{
    const fv_graph_spec spec = { .cache = FV_CACHE_HOST,
                                 .step_len = i ? FV_NPU_CHUNK : FV_NPU_STEP,
                                 .cache_len = cache_len };
    fv_graph_begin(&d->graph[i], i ? "decoder_chunk" : "decoder_step", err);
    fv_graph_decoder(&d->graph[i], &d->model.config, &d->model.weights.decoder, &spec);
    FV_TRY(fv_graph_status(&d->graph[i]));
    return fv_npu_plan_make(&d->plan[i], &d->graph[i], NULL, FV_NPU_F16, err);
}

fv_status fv_npu_decoder_open(fv_npu_decoder *d, const char *model, int cache_len,
                              const fv_callbacks *callbacks, fv_error *err)
{
    const fv_model_options options = { .depth = FV_MODEL_STORED, .callbacks = callbacks };
    *d = (fv_npu_decoder){ 0 };
    fv_status status = fv_model_open(&d->model, model, &options, err);
    for (size_t i = 0; i < 2 && status == FV_OK; i++)
        status = decoder_graph_make(d, i, cache_len ? cache_len : FV_NPU_CACHE, err);
    if (status != FV_OK)
        fv_npu_decoder_close(d);
    return status;
}

void fv_npu_decoder_close(fv_npu_decoder *d)
{
    for (size_t i = 0; i < 2; i++) {
        fv_npu_plan_free(&d->plan[i]);
        fv_graph_end(&d->graph[i]);
    }
    fv_model_close(&d->model);
    *d = (fv_npu_decoder){ 0 };
}
