/* checkpoint directory -> engine: config, tokenizer, tensors, weights, in this order. */
#include "engine/engine.h"

#include <string.h>

void fv_system_info(fv_system *out)
{
    const char *unknown = NULL;
    fv_kernels kernels;
    unsigned level = fv_cpu_level(&unknown);
    fv_kernels_init(&kernels, level);
    *out = (fv_system){ .cpu_best = fv_cpu_name(fv_cpu_detect()), .cpu_level = fv_cpu_name(level),
                        .cpu_unknown = unknown != NULL, .fast_bf16 = kernels.fast_bf16, .n_cores = fv_cpu_cores() };
}

void fv_settings_default(fv_settings *settings) { *settings = (fv_settings){ 0 }; }

static fv_status check_settings(const fv_settings *s, fv_error *err)
{
    if (s->n_threads < 0 || s->n_threads > 1024)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_threads is %d; expected 0 (all cores) to 1024", s->n_threads);
    if (s->image_size < 0 || s->image_size % FV_PATCH || s->image_size > 4096)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "image_size is %d; expected a multiple of %d up to 4096, or 0",
                       s->image_size, FV_PATCH);
    if ((unsigned)s->vision > FV_PRECISION_F16 || (unsigned)s->decoder > FV_PRECISION_F16)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "unknown precision; expected f32, bf16 or f16");
    return FV_OK;
}

/* The type that all used matrices share, or NULL when they differ. */
static const char *stored_type(const fv_tensors *tensors)
{
    const char *name = NULL;
    for (size_t i = 0; i < fv_tensors_count(tensors); i++) {
        const fv_tensor *x = fv_tensors_at(tensors, i);
        if (x->type == FV_TYPE_I64)
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
                       "%s: the tokenizer has %d tokens, config.json says vocab_size %d; the files are of different models",
                       e->path, size, c->n_vocab);
    if (fv_tokenizer_find(e->tokenizer, "<|im_start|>") < 0 || fv_tokenizer_find(e->tokenizer, "<|im_end|>") < 0)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the tokenizer has no <|im_start|> and <|im_end|>; expected Qwen2's",
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

static fv_status open_parts(fv_engine *e, const fv_settings *s, fv_error *err)
{
    const char *unknown = NULL;
    e->cpu = fv_cpu_level(&unknown);
    if (unknown && s->log)
        s->log(s->log_user, FV_LOG_WARNING, "FV_CPU names no level of this build; it is ignored");
    fv_kernels_init(&e->kernels, e->cpu);
    FV_TRY(fv_pool_new(&e->pool, s->n_threads ? s->n_threads : fv_cpu_cores(), err));
    FV_TRY(fv_config_load(&e->config, e->path, err));
    FV_TRY(fv_tokenizer_load_dir(&e->tokenizer, e->path, err));
    FV_TRY(bind_tokens(e, err));
    FV_TRY(fv_tensors_open(&e->tensors, e->path, err));
    e->weights_type = stored_type(e->tensors);
    e->vision = choose(s->vision, e->weights_type, e->kernels.fast_bf16, false);
    e->decoder = choose(s->decoder, e->weights_type, e->kernels.fast_bf16, true);
    e->image_size = s->image_size ? s->image_size : e->config.image_size;
    fv_weight_options options = { .vision = e->vision, .decoder = e->decoder, .kernels = &e->kernels, .pool = e->pool,
                                  .log = s->log, .log_user = s->log_user };
    return fv_weights_load(&e->weights, &e->config, e->tensors, &options, err);
}

fv_status fv_engine_open(fv_engine **out, const char *path, const fv_settings *settings, fv_error *err)
{
    fv_settings s;
    double start = fv_now_ms();
    *out = NULL;
    fv_settings_default(&s);
    if (settings)
        s = *settings;
    FV_TRY(check_settings(&s, err));
    if (!fv_is_dir(path))
        return fv_fail(err, FV_ERR_IO, 0, fv_is_file(path) ? "%s: is a file; expected a checkpoint directory"
                                                           : "%s: no such directory; expected a checkpoint directory",
                       path);
    fv_engine *e = fv_alloc_zero(1, sizeof *e);
    if (!e || !(e->path = fv_strdup(path))) {
        fv_free(e);
        return fv_fail_memory(err, sizeof *e, "the engine");
    }
    fv_status status = open_parts(e, &s, err);
    if (status != FV_OK) {
        fv_engine_free(e);
        return status;
    }
    e->load_ms = fv_now_ms() - start;
    *out = e;
    return FV_OK;
}

void fv_engine_free(fv_engine *e)
{
    if (!e)
        return;
    fv_weights_free(&e->weights);
    fv_tensors_free(e->tensors);
    fv_tokenizer_free(e->tokenizer);
    fv_pool_free(e->pool);
    fv_free(e->path);
    fv_free(e);
}

double fv_engine_load_ms(const fv_engine *engine) { return engine->load_ms; }

static const char *precision_name(fv_type type)
{
    return type == FV_TYPE_BF16 ? "bf16" : type == FV_TYPE_F16 ? "f16" : "f32";
}

void fv_engine_info(const fv_engine *e, fv_model_info *out)
{
    const fv_config *c = &e->config;
    *out = (fv_model_info){
        .layout = c->layout == FV_LAYOUT_FAST_VLM ? "fast_vlm" : "llava_qwen2",
        .vision_precision = precision_name(e->vision), .decoder_precision = precision_name(e->decoder),
        .weights_type = e->weights_type, .image_size = e->image_size,
        .n_image_tokens = fv_config_image_tokens(e->image_size), .vision_stages = c->n_stages,
        .n_features = c->n_features, .d_model = c->d_model, .d_ffn = c->d_ffn, .n_layers = c->n_layers,
        .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .d_head = c->d_head, .vocab_rows = c->n_vocab,
        .n_tokens = fv_tokenizer_size(e->tokenizer), .max_context = c->max_context,
        .n_parameters = e->weights.n_parameters, .weight_bytes = e->weights.mapped_bytes + e->weights.owned_bytes,
        .tied_head = e->weights.tied, .n_threads = (int)fv_pool_threads(e->pool), .cpu_level = fv_cpu_name(e->cpu),
    };
    for (int i = 0; i < c->n_stages; i++) {
        out->vision_layers[i] = c->stage[i].depth;
        out->vision_widths[i] = c->stage[i].width;
    }
}

bool fv_engine_tensor(const fv_engine *e, size_t index, fv_tensor_info *out)
{
    if (index >= fv_tensors_count(e->tensors))
        return false;
    const fv_tensor *x = fv_tensors_at(e->tensors, index);
    *out = (fv_tensor_info){ .name = x->name, .dtype = fv_type_name(x->type), .file = fv_tensors_file(e->tensors, x->file),
                             .n_dims = x->n_dims, .n_bytes = x->n_bytes, .used = e->weights.used[index] };
    memcpy(out->shape, x->shape, sizeof out->shape);
    return true;
}

fv_status fv_engine_tokenize(const fv_engine *e, const char *text, size_t n_bytes, int32_t *ids, size_t capacity,
                             size_t *n, fv_error *err)
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
