/* An opened model (model/model.h) plus what answering needs: end tokens, image size, KV type. */
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/number.h"
#include "base/sized.h"
#include "base/report.h"
#include "kernels/limits.h"
#include "model/config_gguf.h"
#include "model/config_rules.h"
#include "model/precision.h"

void fv_system_info(fv_system *out)
{
    fv_system info;
    const char *missing = NULL;
    fv_kernels kernels;
    fv_kernels_notes notes;
    unsigned level = fv_cpu_level(&missing);
    fv_memory_limits memory = fv_memory_of_process("");
    fv_kernels_open(&kernels, level, &notes);
    info = (fv_system){ .cpu_best = fv_cpu_name(fv_cpu_detect()),
                        .cpu_level = fv_cpu_name(level),
                        .cpu_unknown = missing != NULL,
                        .fast_bf16 = kernels.fast_bf16,
                        .n_cores = fv_cpu_cores(),
                        .bf16_reason = notes.bf16,
                        .memory_bytes = memory.total_bytes,
                        .memory_available_bytes = memory.available_bytes,
                        .memory_limited = memory.limited };
    fv_result_out(out, &info, sizeof info);
}

fv_status fv_engine_limits(const fv_engine *engine, fv_limits *out, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_limits limits = { 0 };
    FV_REQUIRE(engine, err);
    FV_REQUIRE(out, err);
    FV_TRY(FV_RESULT_CHECK(out, fv_limits, err));
    FV_TRY(fv_limits_measure(&limits, &engine->model.kernels, engine->model.pool, err));
    fv_result_out(out, &limits, sizeof limits);
    return FV_OK;
}

static fv_status engine_check_options(const fv_engine_options *s, fv_error *err)
{
    if (s->n_threads < 0 || s->n_threads > 1024)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_threads is %d; expected 0 (all cores) to 1024",
                       s->n_threads);
    if (s->image_size < 0 || s->image_size % FV_PATCH || s->image_size > 4096)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of %d up to 4096, or 0",
                       s->image_size, FV_PATCH);
    FV_TRY(fv_precision_check(s->vision, "vision", FV_PART_VISION, err));
    FV_TRY(fv_precision_check(s->decoder, "decoder", FV_PART_DECODER, err));
    if ((unsigned)s->kv > FV_KV_Q8)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "unknown type of KV cache; expected auto, f32, f16 or q8");
    return FV_OK;
}

static void engine_bind_tokens(fv_engine *e)
{
    const fv_config *c = &e->model.config;
    const fv_tokenizer *t = e->model.tokenizer;
    e->ends = fv_end_tokens_of(c, t);
    e->image_token = fv_tokenizer_find(t, "<image>");
    if (e->image_token < 0)
        e->image_token = c->image_token;
}

/* ---- the record of a packed file ---- */

static void record_add(fv_engine *e, const char *key, const char *name)
{
    const fv_gguf_value *v = fv_gguf_find(e->model.packed, key);
    int64_t value = 0;
    double number = 0;
    if (!v)
        return;
    snprintf(e->record[e->n_records][0], FV_RECORD_TEXT, "%s", name);
    char *text = e->record[e->n_records][1];
    if (v->type == FV_GGUF_STRING)
        snprintf(text, FV_RECORD_TEXT, "%.*s", (int)FV_MIN(v->n, (uint64_t)(FV_RECORD_TEXT - 1)),
                 (const char *)v->data);
    else if (v->type == FV_GGUF_F64 &&
             fv_gguf_number(e->model.packed, key, -1e300, 1e300, &number, NULL) == FV_OK)
        fv_format(text, FV_RECORD_TEXT, "%.5f", number);
    else if (v->type == FV_GGUF_ARRAY)
        snprintf(text, FV_RECORD_TEXT, "%" PRIu64, v->n);
    else if (fv_gguf_int(e->model.packed, key, INT64_MIN, INT64_MAX, &value, NULL) == FV_OK)
        snprintf(text, FV_RECORD_TEXT, "%" PRId64, value);
    else
        return;
    e->n_records++;
}

static fv_status record_read(fv_engine *e, fv_error *err)
{
    static const char *const keys[][2] = {
        { "general.name", "name" },
        { FV_ARCHITECTURE ".packed_by", "packed by" },
        { FV_ARCHITECTURE ".calibration.method", "calibration" },
        { FV_ARCHITECTURE ".calibration.image_count", "calibration images" },
        { FV_ARCHITECTURE ".calibration.rounding", "encoder rounding" },
        { FV_ARCHITECTURE ".calibration.feature_cosine", "feature cosine" },
        { FV_ARCHITECTURE ".calibration.w8a16", "layer groups in w8a16" },
        { FV_ARCHITECTURE ".calibration.wide", "layer groups in bf16" },
        { FV_ARCHITECTURE ".rounding.method", "rounding" },
        { FV_ARCHITECTURE ".rounding.image_count", "rounding images" },
        { FV_ARCHITECTURE ".rounding.row_count", "rounding rows" },
        { FV_GGUF_SHA256, "sha256" },
    };
    e->record = fv_alloc_zero(FV_COUNT(keys), sizeof *e->record);
    if (!e->record)
        return fv_fail_memory(err, FV_COUNT(keys) * sizeof *e->record,
                              "the record of a packed file");
    for (size_t i = 0; i < FV_COUNT(keys); i++)
        record_add(e, keys[i][0], keys[i][1]);
    return FV_OK;
}

/* ---- opening ---- */

/* What comes after the model, whatever it was opened from. */
static fv_status engine_complete(fv_engine *e, const fv_engine_options *s, fv_error *err)
{
    engine_bind_tokens(e);
    e->kv = s->kv;
    e->image_size = s->image_size ? s->image_size : e->model.config.image_size;
    FV_TRY(
        fv_config_check_image(&e->model.config, e->model.name, "image_size", e->image_size, err));
    fv_encoder_init(&e->encoder, &e->model, e->image_size, NULL, NULL);
    return e->model.packed ? record_read(e, err) : FV_OK;
}

fv_status fv_engine_new(fv_engine **out, const char *path, fv_gguf *packed, fv_model_depth depth,
                        const fv_engine_options *s, fv_opening opening, fv_error *err)
{
    FV_DEFAULT_FPENV;
    const char *missing = NULL;
    fv_engine *e = fv_alloc_zero(1, sizeof *e);
    if (!e) {
        fv_gguf_free(packed);
        return fv_fail_memory(err, sizeof *e, "the engine");
    }
    atomic_init(&e->refs, 1);
    const unsigned level = fv_cpu_level(&missing);
    if (missing)
        fv_log(s->callbacks, FV_LOG_WARNING,
               "FV_CPU=%s is not a level of this build and processor; %s is used", missing,
               fv_cpu_name(level));
    fv_model_options options = { .depth = depth,
                                 .vision = s->vision,
                                 .decoder = s->decoder,
                                 .threads = s->threads,
                                 .n_threads = s->n_threads,
                                 .prefault = s->prefault,
                                 .lock = s->lock,
                                 .callbacks = s->callbacks };
    fv_status status = packed ? fv_model_open_packed(&e->model, packed, &options, err)
                              : fv_model_open(&e->model, path, &options, err);
    if (status == FV_OK)
        status = engine_complete(e, s, err);
    if (status != FV_OK) {
        fv_engine_free(e);
        return status;
    }
    e->own_bytes = fv_mem_thread_bytes() - opening.bytes;
    if (depth == FV_MODEL_LAYOUT && !e->model.packed)
        e->own_bytes += (int64_t)e->model.weights.owned_bytes;
    e->load_ms = fv_now_ms() - opening.ms;
    *out = e;
    return FV_OK;
}

fv_status fv_engine_take_options(fv_engine_options *s, fv_callbacks *callbacks,
                                 const fv_engine_options *options, fv_error *err)
{
    FV_TRY(FV_OPTIONS_IN(s, fv_engine_options, options, err));
    FV_TRY(fv_callbacks_in(callbacks, &s->callbacks, err));
    return engine_check_options(s, err);
}

fv_status fv_engine_open(fv_engine **out, const char *path, const fv_engine_options *options,
                         fv_error *err)
{
    fv_engine_options s;
    fv_callbacks callbacks;
    fv_opening opening = fv_opening_begin();
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(path, err);
    FV_TRY(fv_engine_take_options(&s, &callbacks, options, err));
    return fv_engine_new(out, path, NULL, FV_MODEL_RUN, &s, opening, err);
}

fv_status fv_engine_open_memory(fv_engine **out, const void *data, size_t n_bytes,
                                const fv_engine_options *options, fv_error *err)
{
    fv_engine_options s;
    fv_callbacks callbacks;
    fv_gguf *packed = NULL;
    fv_opening opening = fv_opening_begin();
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(data, err);
    FV_TRY(fv_engine_take_options(&s, &callbacks, options, err));
    FV_TRY(fv_gguf_read(&packed, data, n_bytes, "model in memory", err));
    return fv_engine_new(out, NULL, packed, FV_MODEL_RUN, &s, opening, err);
}

fv_status fv_engine_open_fd(fv_engine **out, int fd, uint64_t offset, uint64_t n_bytes,
                            const fv_engine_options *options, fv_error *err)
{
    fv_engine_options s;
    fv_callbacks callbacks;
    fv_gguf *packed = NULL;
    char name[48];
    fv_opening opening = fv_opening_begin();
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_TRY(fv_engine_take_options(&s, &callbacks, options, err));
    snprintf(name, sizeof name, "model in file descriptor %d", fd);
    FV_TRY(fv_gguf_open_fd(&packed, fd, offset, n_bytes, name, err));
    return fv_engine_new(out, NULL, packed, FV_MODEL_RUN, &s, opening, err);
}

fv_engine *fv_engine_ref(fv_engine *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void fv_engine_free(fv_engine *e)
{
    if (!e || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    fv_encoder_free(&e->encoder);
    fv_model_close(&e->model);
    fv_free(e->record);
    fv_free(e);
}

double fv_engine_load_ms(const fv_engine *engine) { return engine ? engine->load_ms : 0; }

/* What becomes of an image before the encoder sees it. */
static void info_set_images(fv_model_info *info, const fv_recipe *r, int image_size)
{
    static const char *const filters[FV_FILTER_COUNT] = { "bicubic",  "nearest", "box",
                                                          "bilinear", "hamming", "lanczos" };
    info->fit = r->fit;
    info->filter = filters[r->filter];
    if (r->fit == FV_FIT_CROP && r->n_scale < 2)
        info->scaled_short_edge = r->n_scale == 1 ? r->scale[0] : image_size;
    if (r->fit == FV_FIT_CROP && r->n_scale == 2) {
        info->scaled_width = r->scale[0];
        info->scaled_height = r->scale[1];
    }
    info->rescale = r->rescale != 0 ? r->rescale : 1;
    memcpy(info->image_mean, r->mean, sizeof info->image_mean);
    memcpy(info->image_std, r->std, sizeof info->image_std);
}

void fv_engine_info(const fv_engine *e, fv_model_info *out)
{
    if (!e)
        return;
    const fv_config *c = &e->model.config;
    fv_model_info info = {
        .layout = c->layout == FV_LAYOUT_FAST_VLM ? "fast_vlm" : "llava_qwen2",
        .format = e->model.packed ? "GGUF" : "safetensors",
        .vision_precision = fv_precision_type_name(e->model.vision, FV_PART_VISION),
        .decoder_precision = fv_precision_type_name(e->model.decoder, FV_PART_DECODER),
        .weights_type = fv_model_stored_type(&e->model),
        .image_size = e->image_size,
        .n_image_tokens = fv_config_image_tokens(e->image_size),
        .vision_stages = c->n_stages,
        .n_features = c->n_features,
        .d_model = c->d_model,
        .d_ffn = c->d_ffn,
        .n_layers = c->n_layers,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .d_head = c->d_head,
        .vocab_rows = c->n_vocab,
        .n_tokens = fv_tokenizer_size(e->model.tokenizer),
        .max_context = c->max_context,
        .n_parameters = e->model.weights.n_parameters,
        .weight_bytes = e->model.weights.mapped_bytes + e->model.weights.owned_bytes,
        .tied_head = e->model.weights.tied,
        .n_threads = (int)fv_pool_threads(e->model.pool),
        .cpu_level = fv_cpu_name(e->model.cpu),
    };
    for (int i = 0; i < c->n_stages; i++) {
        info.vision_layers[i] = c->stage[i].depth;
        info.vision_widths[i] = c->stage[i].width;
    }
    _Static_assert(sizeof info.end_tokens == sizeof e->ends.id, "all end tokens fit");
    info.n_end_tokens = e->ends.n;
    memcpy(info.end_tokens, e->ends.id, sizeof info.end_tokens);
    fv_recipe recipe = fv_config_recipe(c, FV_FIT_AUTO, e->image_size);
    info_set_images(&info, &recipe, e->image_size);
    fv_result_out(out, &info, sizeof info);
}

/* The list is in the order of the tensors' data. */
static float sqnr_at(const fv_engine *e, size_t index)
{
    const fv_gguf_value *v;
    uint32_t bits = 0;
    float value;
    if (!e->model.packed ||
        fv_gguf_array(e->model.packed, FV_ARCHITECTURE ".sqnr", FV_GGUF_F32, &v, NULL) != FV_OK ||
        index >= v->n)
        return NAN;
    for (size_t i = 4; i-- > 0;)
        bits = bits << 8 | v->data[4 * index + i];
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool fv_engine_record(const fv_engine *e, size_t index, const char **key, const char **value)
{
    if (!e || !key || !value || index >= e->n_records)
        return false;
    *key = e->record[index][0];
    *value = e->record[index][1];
    return true;
}

bool fv_engine_tensor(const fv_engine *e, size_t index, fv_tensor_info *out)
{
    if (!e || index >= fv_tensors_count(e->model.tensors))
        return false;
    const fv_tensor *x = fv_tensors_at(e->model.tensors, index);
    fv_tensor_info info = { .name = x->name,
                            .dtype = fv_tensor_type_name(x),
                            .file = fv_tensors_file(e->model.tensors, x->file),
                            .n_dims = x->n_dims,
                            .n_bytes = x->n_bytes,
                            .used = e->model.weights.used[index],
                            .sqnr = sqnr_at(e, index) };
    memcpy(info.shape, x->shape, sizeof info.shape);
    return fv_result_out(out, &info, sizeof info);
}

fv_status fv_engine_tokenize(const fv_engine *engine, const char *text, size_t n_bytes,
                             bool special, int32_t *ids, size_t capacity, size_t *n, fv_error *err)
{
    fv_ids list = { 0 };
    FV_REQUIRE(engine, err);
    FV_REQUIRE(n, err);
    if (n_bytes)
        FV_REQUIRE(text, err);
    if (capacity)
        FV_REQUIRE(ids, err);
    const fv_tokenizer *t = engine->model.tokenizer;
    fv_status status = special ? fv_tokenizer_encode(t, text, n_bytes, &list, err)
                               : fv_tokenizer_encode_words(t, text, n_bytes, &list, err);
    if (status == FV_OK) {
        *n = list.n;
        if (list.n && capacity)
            memcpy(ids, list.data, FV_MIN(list.n, capacity) * sizeof *ids);
    }
    fv_ids_free(&list);
    return status;
}

const char *fv_engine_token_text(const fv_engine *e, int32_t id, size_t *n_bytes)
{
    return e && n_bytes ? fv_tokenizer_bytes(e->model.tokenizer, id, n_bytes) : NULL;
}

fv_status fv_encode(fv_engine *engine, const fv_image *image, const fv_encode_options *options,
                    fv_features **out, fv_error *err)
{
    fv_encode_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(out, err);
    *out = NULL;
    FV_REQUIRE(engine, err);
    FV_REQUIRE(image, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_encode_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    fv_engine_ref(engine);
    fv_fpenv caller = fv_fpenv_enter();
    fv_status status = fv_encoder_encode(&engine->encoder, image, &o, out, err);
    fv_fpenv_leave(&caller);
    fv_engine_free(engine);
    return status;
}
