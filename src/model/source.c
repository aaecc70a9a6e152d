/* A model opened for exporting. See source.h. */
#include "model/source.h"

#include <stdio.h>
#include <string.h>

#include "model/config_gguf.h"
#include "text/tokenizer_gguf.h"

void fv_export_log(const fv_export_options *options, fv_log_level level, const char *format, ...)
{
    char message[512];
    va_list args;
    if (!options || !options->log)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    options->log(options->log_user, level, message);
}

fv_status fv_export_dir(fv_outdir *d, const char *path, const fv_export_options *o, fv_error *err)
{
    return fv_outdir_open(d, path, o && o->force, o ? o->log : NULL, o ? o->log_user : NULL, err);
}

void fv_export_leftovers(const char *file, const fv_export_options *o)
{
    if (o)
        fv_outfile_leftovers(file, o->log, o->log_user);
}

fv_status fv_export_progress(const fv_export_options *options, const char *stage, double done,
                             fv_error *err)
{
    if (options && options->progress && options->progress(options->progress_user, stage, done))
        return fv_fail(err, FV_ERR_CANCELLED, 0, "stopped; nothing was written");
    return FV_OK;
}

static fv_status open_parts(fv_source *s, bool weights, fv_error *err)
{
    const fv_export_options *o = s->options;
    fv_kernels_init(&s->kernels, fv_cpu_level(NULL));
    if (fv_is_file(s->path)) {
        FV_TRY(fv_gguf_open(&s->packed, s->path, err));
        FV_TRY(fv_config_read_gguf(&s->config, s->packed, err));
        FV_TRY(fv_tokenizer_read_gguf(&s->tokenizer, s->packed, err));
    } else {
        FV_TRY(fv_config_load(&s->config, s->path, err));
        FV_TRY(fv_tokenizer_load_dir(&s->tokenizer, s->path, err));
    }
    if (fv_tokenizer_size(s->tokenizer) > s->config.n_vocab)
        return fv_fail(
            err, FV_ERR_FORMAT, 0,
            "%s: the tokenizer has %d tokens, vocab_size is %d; they are of different models",
            s->path, fv_tokenizer_size(s->tokenizer), s->config.n_vocab);
    if (!weights)
        return FV_OK;
    FV_TRY(fv_pool_new(&s->pool, fv_cpu_cores(), err));
    if (s->packed)
        return fv_weights_bind(&s->weights, &s->config, fv_gguf_tensors(s->packed), err);
    FV_TRY(fv_tensors_open(&s->tensors, s->path, err));
    fv_weight_options options = { .vision = FV_TYPE_F32,
                                  .decoder = FV_TYPE_F32,
                                  .kernels = &s->kernels,
                                  .pool = s->pool,
                                  .log = o ? o->log : NULL,
                                  .log_user = o ? o->log_user : NULL };
    return fv_weights_load(&s->weights, &s->config, s->tensors, &options, err);
}

fv_status fv_source_open(fv_source *s, const char *path, bool weights,
                         const fv_export_options *options, fv_error *err)
{
    *s = (fv_source){ .options = options };
    if (!fv_is_dir(path) && !fv_is_file(path))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: no such model; expected a checkpoint directory or a packed file", path);
    if (!(s->path = fv_strdup(path)))
        return fv_fail_memory(err, strlen(path), "a path");
    fv_status status = open_parts(s, weights, err);
    if (status != FV_OK)
        fv_source_close(s);
    return status;
}

void fv_source_close(fv_source *s)
{
    fv_weights_free(&s->weights);
    fv_tensors_free(s->tensors);
    fv_gguf_free(s->packed);
    fv_tokenizer_free(s->tokenizer);
    fv_pool_free(s->pool);
    fv_free(s->path);
    *s = (fv_source){ 0 };
}

fv_status fv_source_token(const fv_source *s, const char *text, int32_t *id, fv_error *err)
{
    *id = fv_tokenizer_find(s->tokenizer, text);
    return *id >= 0 ? FV_OK
                    : fv_fail(err, FV_ERR_FORMAT, 0,
                              "%s: the tokenizer has no %s; expected Qwen2's", s->path, text);
}

bool fv_source_has_file(const fv_source *s, const char *name)
{
    char *path = fv_path_join(s->path, name);
    bool found = path && fv_is_file(path);
    fv_free(path);
    return found;
}
