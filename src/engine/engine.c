/* checkpoint directory or packed file -> engine: config, tokenizer, tensors, weights, in this
 * order. */
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>

#include <string.h>

#include "model/config_gguf.h"
#include "text/tokenizer_gguf.h"

void fv_system_info(fv_system *out)
{
    const char *unknown = NULL;
    fv_kernels kernels;
    unsigned level = fv_cpu_level(&unknown);
    fv_kernels_init(&kernels, level);
    *out = (fv_system){ .cpu_best = fv_cpu_name(fv_cpu_detect()),
                        .cpu_level = fv_cpu_name(level),
                        .cpu_unknown = unknown != NULL,
                        .fast_bf16 = kernels.fast_bf16,
                        .n_cores = fv_cpu_cores() };
}

void fv_settings_default(fv_settings *settings) { *settings = (fv_settings){ 0 }; }

static fv_status check_settings(const fv_settings *s, fv_error *err)
{
    if (s->n_threads < 0 || s->n_threads > 1024)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_threads is %d; expected 0 (all cores) to 1024",
                       s->n_threads);
    if (s->image_size < 0 || s->image_size % FV_PATCH || s->image_size > 4096)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of %d up to 4096, or 0",
                       s->image_size, FV_PATCH);
    if ((unsigned)s->vision > FV_PRECISION_INT8 || (unsigned)s->decoder > FV_PRECISION_INT8)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "unknown precision; expected f32, bf16 or f16, or what a packed file holds");
    if ((unsigned)s->kv > FV_KV_Q8)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "unknown type of KV cache; expected auto, f32, f16 or q8");
    return FV_OK;
}

/* The type that all used matrices share, or NULL when they differ. */
static const char *stored_type(const fv_tensors *tensors)
{
    const char *name = NULL;
    for (size_t i = 0; i < fv_tensors_count(tensors); i++) {
        const fv_tensor *x = fv_tensors_at(tensors, i);
        if (x->type == FV_TYPE_I64 || x->type == FV_TYPE_I32 || !strncmp(x->name, "tokenizer.", 10))
            continue;
        if (name && strcmp(name, fv_type_name(x->type)))
            return "mixed";
        name = fv_type_name(x->type);
    }
    return name ? name : "none";
}

static fv_type choose(fv_precision wanted, const char *stored, bool fast_bf16, bool decoder)
{
    switch (wanted) {
    case FV_PRECISION_F32: return FV_TYPE_F32;
    case FV_PRECISION_BF16: return FV_TYPE_BF16;
    case FV_PRECISION_F16: return FV_TYPE_F16;
    default: break;
    }
    if (!strcmp(stored, "BF16") && fast_bf16)
        return FV_TYPE_BF16;
    return !strcmp(stored, "F16") && decoder ? FV_TYPE_F16 : FV_TYPE_F32;
}

static void add_eos(fv_engine *e, int32_t id)
{
    for (int i = 0; i < e->n_eos; i++)
        if (e->eos[i] == id)
            return;
    if (id >= 0)
        e->eos[e->n_eos++] = id;
}

/* The answer ends at <|im_end|> and at <|endoftext|>, whatever the config says: converted
 * checkpoints name the base model's. [docs/model.md, 9.2] */
static fv_status bind_tokens(fv_engine *e, fv_error *err)
{
    const fv_config *c = &e->config;
    int32_t size = fv_tokenizer_size(e->tokenizer);
    if (size > c->n_vocab)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the tokenizer has %d tokens, config.json says vocab_size %d; the files "
                       "are of different models",
                       e->path, size, c->n_vocab);
    if (fv_tokenizer_find(e->tokenizer, "<|im_start|>") < 0 ||
        fv_tokenizer_find(e->tokenizer, "<|im_end|>") < 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the tokenizer has no <|im_start|> and <|im_end|>; expected Qwen2's",
                       e->path);
    for (int i = 0; i < c->n_eos; i++)
        add_eos(e, c->eos[i]);
    add_eos(e, fv_tokenizer_find(e->tokenizer, "<|im_end|>"));
    add_eos(e, fv_tokenizer_find(e->tokenizer, "<|endoftext|>"));
    e->image_token = fv_tokenizer_find(e->tokenizer, "<image>");
    if (e->image_token < 0)
        e->image_token = c->image_token;
    return FV_OK;
}

static const char *precision_name(fv_type type)
{
    switch (type) {
    case FV_TYPE_BF16: return "bf16";
    case FV_TYPE_F16: return "f16";
    case FV_TYPE_Q8_0: return "z8";
    case FV_TYPE_Q4_0: return "q4";
    case FV_TYPE_I8: return "int8";
    default: return "f32";
    }
}

static fv_status open_directory(fv_engine *e, const fv_settings *s, fv_error *err)
{
    if (s->vision > FV_PRECISION_F16 || s->decoder > FV_PRECISION_F16)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: z8, q4 and int8 need a packed file: fastvlm pack %s -o FILE.gguf",
                       e->path, e->path);
    FV_TRY(fv_config_load(&e->config, e->path, err));
    FV_TRY(fv_tokenizer_load_dir(&e->tokenizer, e->path, err));
    FV_TRY(bind_tokens(e, err));
    FV_TRY(fv_tensors_open(&e->checkpoint, e->path, err));
    e->tensors = e->checkpoint;
    e->weights_type = stored_type(e->tensors);
    e->vision = choose(s->vision, e->weights_type, e->kernels.fast_bf16, false);
    e->decoder = choose(s->decoder, e->weights_type, e->kernels.fast_bf16, true);
    fv_weight_options options = { .vision = e->vision,
                                  .decoder = e->decoder,
                                  .kernels = &e->kernels,
                                  .pool = e->pool,
                                  .log = s->log,
                                  .log_user = s->log_user };
    return fv_weights_load(&e->weights, &e->config, e->tensors, &options, err);
}

/* ---- a packed file ---- */

static const struct {
    const char *name;
    fv_precision precision;
    fv_type type;
    bool vision, decoder;
} precisions[] = {
    { "f32", FV_PRECISION_F32, FV_TYPE_F32, true, true },
    { "bf16", FV_PRECISION_BF16, FV_TYPE_BF16, true, true },
    { "f16", FV_PRECISION_F16, FV_TYPE_F16, true, true },
    { "z8", FV_PRECISION_Z8, FV_TYPE_Q8_0, false, true },
    { "q4", FV_PRECISION_Q4, FV_TYPE_Q4_0, false, true },
    { "int8", FV_PRECISION_INT8, FV_TYPE_I8, true, false },
};

/* The precision to run a part in: the file's, or f32 where that costs nothing; bf16 is widened when
 * nobody asked and this processor multiplies f32 faster. */
static fv_status choose_packed(fv_type *out, const fv_engine *e, const char *part,
                               fv_precision wanted, fv_error *err)
{
    char key[64];
    const char *text = "";
    size_t n = 0, i = 0;
    bool vision = !strcmp(part, "vision");
    snprintf(key, sizeof key, FV_ARCHITECTURE ".%s.precision", part);
    FV_TRY(fv_gguf_string(e->gguf, key, &text, &n, err));
    while (i < FV_COUNT(precisions) && !(fv_gguf_string_is(e->gguf, key, precisions[i].name) &&
                                         (vision ? precisions[i].vision : precisions[i].decoder)))
        i++;
    if (i == FV_COUNT(precisions))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s is \"%.*s\"; expected %s", e->path, key,
                       (int)FV_MIN(n, (size_t)40), text,
                       vision ? "f32, bf16, f16 or int8" : "f32, bf16, f16, z8 or q4");
    fv_type stored = *out = precisions[i].type;
    bool wide = stored == FV_TYPE_BF16 || stored == FV_TYPE_F16;
    if (wanted == FV_PRECISION_F32 && wide)
        *out = FV_TYPE_F32;
    else if (wanted == FV_PRECISION_AUTO && stored == FV_TYPE_BF16 && !e->kernels.fast_bf16)
        *out = FV_TYPE_F32;
    else if (wanted != FV_PRECISION_AUTO && wanted != precisions[i].precision)
        return fv_fail(
            err, FV_ERR_UNSUPPORTED, 0,
            "%s: the %s is packed in %s and cannot run in another precision%s; leave --%s away "
            "or pack the checkpoint again",
            e->path, part, precisions[i].name, wide ? " but f32" : "", part);
    return FV_OK;
}

static void add_record(fv_engine *e, const char *key, const char *name)
{
    const fv_gguf_value *v = fv_gguf_find(e->gguf, key);
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
             fv_gguf_number(e->gguf, key, -1e300, 1e300, &number, NULL) == FV_OK)
        snprintf(text, FV_RECORD_TEXT, "%.5f", number);
    else if (v->type == FV_GGUF_ARRAY)
        snprintf(text, FV_RECORD_TEXT, "%" PRIu64, v->n);
    else if (fv_gguf_int(e->gguf, key, INT64_MIN, INT64_MAX, &value, NULL) == FV_OK)
        snprintf(text, FV_RECORD_TEXT, "%" PRId64, value);
    else
        return;
    e->n_records++;
}

static fv_status read_record(fv_engine *e, fv_error *err)
{
    static const char *const keys[][2] = {
        { "general.name", "name" },
        { FV_ARCHITECTURE ".packed_by", "packed by" },
        { FV_ARCHITECTURE ".calibration.method", "calibration" },
        { FV_ARCHITECTURE ".calibration.image_count", "calibration images" },
        { FV_ARCHITECTURE ".calibration.feature_cosine", "features' cosine" },
        { FV_ARCHITECTURE ".calibration.wide", "groups not in int8" },
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
        add_record(e, keys[i][0], keys[i][1]);
    return FV_OK;
}

static fv_status open_packed(fv_engine *e, const fv_settings *s, fv_error *err)
{
    FV_TRY(fv_config_read_gguf(&e->config, e->gguf, err));
    FV_TRY(choose_packed(&e->vision, e, "vision", s->vision, err));
    FV_TRY(choose_packed(&e->decoder, e, "decoder", s->decoder, err));
    FV_TRY(fv_tokenizer_open_gguf(&e->tokenizer, e->gguf, err));
    FV_TRY(bind_tokens(e, err));
    e->tensors = fv_gguf_tensors(e->gguf);
    e->weights_type = stored_type(e->tensors);
    FV_TRY(fv_weights_bind(&e->weights, &e->config, e->tensors, err));
    for (size_t i = 0; i < fv_tensors_count(e->tensors); i++)
        if (!strncmp(fv_tensors_at(e->tensors, i)->name, "tokenizer.", 10))
            e->weights.used[i] = true;
    return read_record(e, err);
}

/* ---- opening ---- */

/* What does not depend on the model. */
static fv_status new_engine(fv_engine **out, const char *path, const fv_settings *settings,
                            fv_settings *s, fv_error *err)
{
    const char *unknown = NULL;
    fv_settings_default(s);
    if (settings)
        *s = *settings;
    FV_TRY(check_settings(s, err));
    fv_engine *e = fv_alloc_zero(1, sizeof *e);
    if (!e || !(e->path = fv_strdup(path))) {
        fv_free(e);
        return fv_fail_memory(err, sizeof *e, "the engine");
    }
    e->kv = s->kv;
    e->cpu = fv_cpu_level(&unknown);
    if (unknown && s->log)
        s->log(s->log_user, FV_LOG_WARNING, "FV_CPU names no level of this build; it is ignored");
    fv_kernels_init(&e->kernels, e->cpu);
    fv_status status = fv_pool_new(&e->pool, s->n_threads ? s->n_threads : fv_cpu_cores(), err);
    if (status != FV_OK) {
        fv_engine_free(e);
        return status;
    }
    *out = e;
    return FV_OK;
}

static fv_status finish(fv_engine **out, fv_engine *e, const fv_settings *s, double start,
                        fv_status status)
{
    if (status != FV_OK) {
        fv_engine_free(e);
        return status;
    }
    e->image_size = s->image_size ? s->image_size : e->config.image_size;
    e->load_ms = fv_now_ms() - start;
    *out = e;
    return FV_OK;
}

fv_status fv_engine_open(fv_engine **out, const char *path, const fv_settings *settings,
                         fv_error *err)
{
    fv_settings s;
    fv_engine *e = NULL;
    double start = fv_now_ms();
    *out = NULL;
    bool directory = fv_is_dir(path);
    if (!directory && !fv_is_file(path))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: no such directory or file; expected a checkpoint directory, or a file "
                       "that fastvlm pack wrote",
                       path);
    FV_TRY(new_engine(&e, path, settings, &s, err));
    fv_status status;
    if (directory)
        status = open_directory(e, &s, err);
    else if ((status = fv_gguf_open(&e->gguf, path, err)) == FV_OK)
        status = open_packed(e, &s, err);
    return finish(out, e, &s, start, status);
}

fv_status fv_engine_open_memory(fv_engine **out, const void *data, size_t n_bytes,
                                const fv_settings *settings, fv_error *err)
{
    fv_settings s;
    fv_engine *e = NULL;
    double start = fv_now_ms();
    *out = NULL;
    if (!data || (uintptr_t)data % 64)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "a model in memory begins at address %p; expected a multiple of 64", data);
    FV_TRY(new_engine(&e, "model in memory", settings, &s, err));
    fv_status status = fv_gguf_read(&e->gguf, data, n_bytes, e->path, err);
    if (status == FV_OK)
        status = open_packed(e, &s, err);
    return finish(out, e, &s, start, status);
}

void fv_engine_free(fv_engine *e)
{
    if (!e)
        return;
    fv_weights_free(&e->weights);
    fv_tensors_free(e->checkpoint);
    fv_gguf_free(e->gguf);
    fv_free(e->record);
    fv_tokenizer_free(e->tokenizer);
    fv_pool_free(e->pool);
    fv_free(e->path);
    fv_free(e);
}

double fv_engine_load_ms(const fv_engine *engine) { return engine->load_ms; }

void fv_engine_info(const fv_engine *e, fv_model_info *out)
{
    const fv_config *c = &e->config;
    *out = (fv_model_info){
        .layout = c->layout == FV_LAYOUT_FAST_VLM ? "fast_vlm" : "llava_qwen2",
        .format = e->gguf ? "GGUF" : "safetensors",
        .vision_precision = precision_name(e->vision),
        .decoder_precision = precision_name(e->decoder),
        .weights_type = e->weights_type,
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
        .n_tokens = fv_tokenizer_size(e->tokenizer),
        .max_context = c->max_context,
        .n_parameters = e->weights.n_parameters,
        .weight_bytes = e->weights.mapped_bytes + e->weights.owned_bytes,
        .tied_head = e->weights.tied,
        .n_threads = (int)fv_pool_threads(e->pool),
        .cpu_level = fv_cpu_name(e->cpu),
    };
    for (int i = 0; i < c->n_stages; i++) {
        out->vision_layers[i] = c->stage[i].depth;
        out->vision_widths[i] = c->stage[i].width;
    }
}

/* The list is in the order of the tensors' data. */
static float sqnr_at(const fv_engine *e, size_t index)
{
    const fv_gguf_value *v;
    uint32_t bits = 0;
    float value;
    if (!e->gguf ||
        fv_gguf_array(e->gguf, FV_ARCHITECTURE ".sqnr", FV_GGUF_F32, &v, NULL) != FV_OK ||
        index >= v->n)
        return NAN;
    for (size_t i = 4; i-- > 0;)
        bits = bits << 8 | v->data[4 * index + i];
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool fv_engine_record(const fv_engine *e, size_t index, const char **key, const char **value)
{
    if (index >= e->n_records)
        return false;
    *key = e->record[index][0];
    *value = e->record[index][1];
    return true;
}

bool fv_engine_tensor(const fv_engine *e, size_t index, fv_tensor_info *out)
{
    if (index >= fv_tensors_count(e->tensors))
        return false;
    const fv_tensor *x = fv_tensors_at(e->tensors, index);
    *out = (fv_tensor_info){ .name = x->name,
                             .dtype = fv_type_name(x->type),
                             .file = fv_tensors_file(e->tensors, x->file),
                             .n_dims = x->n_dims,
                             .n_bytes = x->n_bytes,
                             .used = e->weights.used[index],
                             .sqnr = sqnr_at(e, index) };
    memcpy(out->shape, x->shape, sizeof out->shape);
    return true;
}

fv_status fv_engine_tokenize(const fv_engine *e, const char *text, size_t n_bytes, int32_t *ids,
                             size_t capacity, size_t *n, fv_error *err)
{
    fv_ids list = { 0 };
    fv_status status = fv_tokenizer_encode(e->tokenizer, text, n_bytes, &list, err);
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
    return fv_tokenizer_bytes(e->tokenizer, id, n_bytes);
}
