/* A checkpoint's decoder for Genie's CPU engine: qnn-genai-transformer-composer, with the
 * exporter's description of the architecture, which the composer does not know.
 *
 *     fastvlm_model.bin     opaque, weights as the quantisation says
 *     LUT.bin               the embedding in f32, compared with the model's own
 *     tokenizer.json        the composer's, else the exporter's
 *     genie_model.json      what the composer was told
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/report.h"
#include "base/sized.h"
#include "fastvlm_tools.h"
#include "model/model.h"
#include "qairt/qairt_tool.h"

enum { COMPARED_ROWS = 257 }; /* of LUT.bin, evenly over it */

static const struct quantization {
    const char *option, *file;
} quantizations[] = {
    [FV_QAIRT_FP32] = { NULL, "fastvlm_model.bin" },
    [FV_QAIRT_Z8] = { "Z8", "fastvlm_model_z8.bin" },
    [FV_QAIRT_Z4] = { "Z4", "fastvlm_model_z4.bin" },
    [FV_QAIRT_Q4] = { "Q4", "fastvlm_model_q4.bin" },
};

typedef struct compose_job {
    fv_qairt_compose_options c;
    const fv_qairt_options *o;
    const fv_sdk *sdk;
    char *checkpoint, *stage; /* absolute */
} compose_job;

/* ---------------------------------------------------------------- what came out */

static fv_status table_compare(const char *path, const fv_map *map, const fv_model *m,
                               fv_error *err)
{
    const fv_mat *embed = &m->weights.decoder.embed;
    size_t row_bytes = embed->k * sizeof(float);
    fv_status status = FV_OK;
    if (map->size != embed->n * row_bytes)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: has %zu bytes; expected %zu, %zu rows of %zu in f32", path, map->size,
                       embed->n * row_bytes, embed->n, embed->k);
    float *row = fv_alloc(embed->k, sizeof *row);
    if (!row)
        return fv_fail_memory(err, row_bytes, "a row of the embedding");
    size_t n = FV_MIN(embed->n, (size_t)COMPARED_ROWS);
    for (size_t i = 0; i < n && status == FV_OK; i++) {
        size_t at = n > 1 ? i * (embed->n - 1) / (n - 1) : 0;
        const uint8_t *from = (const uint8_t *)embed->data +
                              at * fv_row_bytes(embed->type, embed->k);
        m->kernels.convert[FV_TYPE_F32][embed->type](row, from, embed->k);
        if (memcmp(row, map->data + at * row_bytes, row_bytes) != 0)
            status = fv_fail(err, FV_ERR_FORMAT, 0,
                             "%s: row %zu is not the embedding of token %zu in %s: made from "
                             "another model?",
                             path, at, at, m->name);
    }
    fv_free(row);
    return status;
}

static fv_status table_check(const compose_job *j, const char *path, fv_error *err)
{
    fv_model m;
    fv_map map;
    FV_TRY(fv_model_open(
        &m, j->checkpoint,
        &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = j->o->callbacks }, err));
    fv_status status = fv_map_open(&map, path, err);
    if (status == FV_OK) {
        status = table_compare(path, &map, &m, err);
        fv_map_close(&map);
    }
    fv_model_close(&m);
    return status;
}

/* The composer writes one for some families of models only, and warns for others. */
static fv_status tokenizer_complete(const compose_job *j, const char *path, fv_error *err)
{
    if (fv_is_file(path))
        return FV_OK;
    fv_log(j->o->callbacks, FV_LOG_INFO,
           "the composer has written no tokenizer.json; the exporter writes it");
    fv_export_options e = { .size = sizeof e, .callbacks = j->o->callbacks };
    return fv_export_tokenizer(j->checkpoint, path, &e, err);
}

/* ---------------------------------------------------------------- the composer */

/* genie_model.json of the exporter into the stage; *config: its path, or the caller's. */
static fv_status architecture_take(const compose_job *j, char **config, fv_error *err)
{
    char *dir = NULL, *from = NULL, *out = NULL;
    uint8_t *text = NULL;
    size_t n = 0;
    fv_status status = FV_OK;
    if (j->c.config)
        return fv_path_absolute(config, j->c.config, err);
    if (!(*config = fv_path_join(j->stage, "genie_model.json")))
        return fv_fail_memory(err, strlen(j->stage), "a path");
    if (j->o->dry_run)
        return FV_OK;
    FV_TRY(fv_scratch_make(&dir, err));
    if (!(out = fv_path_join(dir, "genie")) || !(from = fv_path_join(out, "genie_model.json")))
        status = fv_fail_memory(err, strlen(dir), "a path");
    if (status == FV_OK)
        status = fv_export_genie(j->checkpoint, NULL, out, NULL, err);
    if (status == FV_OK)
        status = fv_read_file(&text, &n, from, 1 << 20, err);
    if (status == FV_OK)
        status = fv_outfile_put(*config, text, n, err);
    fv_free(text);
    fv_free(from);
    fv_free(out);
    fv_scratch_remove(dir);
    return status;
}

/* `config` is an input, in a file of its own; the tool's directory is the stage, where it leaves
 * LUT.bin and tokenizer.json. */
static fv_status compose_in(const compose_job *j, fv_error *err)
{
    fv_args args = { 0 };
    const struct quantization *q = &quantizations[j->c.quantization];
    char *model = fv_path_join(j->stage, j->c.file), *table = fv_path_join(j->stage, "LUT.bin");
    char *tokenizer = fv_path_join(j->stage, "tokenizer.json"), *config = NULL;
    fv_status status = model && table && tokenizer ? architecture_take(j, &config, err)
                                                   : fv_fail_memory(err, 64, "a path");
    if (status == FV_OK) {
        fv_args_add(&args, "qnn-genai-transformer-composer");
        fv_args_add2(&args, "--model", j->checkpoint);
        fv_args_add2(&args, "--config_file", config);
        fv_args_add2(&args, "--outfile", model);
        fv_args_add2(&args, "--dump_lut", "--export_tokenizer_json");
        if (q->option)
            fv_args_add2(&args, "--quantize", q->option);
        fv_args_expect(&args, model);
        fv_args_expect(&args, table);
        status = fv_tool_run(j->sdk, &args, j->stage, j->o, err);
    }
    if (status == FV_OK && !j->o->dry_run)
        status = table_check(j, table, err);
    if (status == FV_OK && !j->o->dry_run)
        status = tokenizer_complete(j, tokenizer, err);
    fv_args_free(&args);
    fv_free(model);
    fv_free(table);
    fv_free(tokenizer);
    fv_free(config);
    return status;
}

static fv_status compose_check(compose_job *j, const char *checkpoint, const char *dir,
                               fv_error *err)
{
    fv_qairt_compose_options *c = &j->c;
    if ((unsigned)c->quantization >= FV_COUNT(quantizations))
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "quantization is %d; expected 0 to %zu",
                       (int)c->quantization, FV_COUNT(quantizations) - 1);
    c->file = c->file ? c->file : quantizations[c->quantization].file;
    size_t n = strlen(c->file);
    if (n < 5 || n > 200 || strcmp(c->file + n - 4, ".bin") != 0 || strchr(c->file, '/'))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "file is \"%s\"; expected a name in the directory that ends with .bin",
                       c->file);
    FV_TRY(fv_path_check(checkpoint, err));
    if (!fv_is_dir(checkpoint))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: not a checkpoint directory, which the composer reads", checkpoint);
    FV_TRY(fv_tool_path_check(checkpoint, err));
    FV_TRY(fv_tool_path_check(dir, err));
    return fv_path_absolute(&j->checkpoint, checkpoint, err);
}

/* Into a directory with other files nothing is written over: the composer's files must be new, and
 * an architecture that is there, as fastvlm genie config leaves it, is the composer's input. */
static fv_status compose_merge(compose_job *j, const char *dir, char **config, fv_error *err)
{
    const char *const names[] = { j->c.file, "LUT.bin", "tokenizer.json" };
    fv_status status = FV_OK;
    if (j->c.force || !fv_is_dir(dir))
        return FV_OK;
    for (size_t i = 0; i < FV_COUNT(names) && status == FV_OK && !j->o->dry_run; i++) {
        char *path = fv_path_join(dir, names[i]);
        status = !path ? fv_fail_memory(err, strlen(dir), "a path")
                 : fv_is_file(path)
                     ? fv_fail(err, FV_ERR_IO, 0, "%s: there is such a file already", path)
                     : FV_OK;
        fv_free(path);
    }
    FV_TRY(status);
    j->c.force = true;
    if (j->c.config)
        return FV_OK;
    if (!(*config = fv_path_join(dir, "genie_model.json")))
        return fv_fail_memory(err, strlen(dir), "a path");
    if (fv_is_file(*config))
        j->c.config = *config;
    return FV_OK;
}

fv_status fv_qairt_compose(const char *checkpoint, const char *dir,
                           const fv_qairt_compose_options *compose, const fv_qairt_options *options,
                           fv_error *err)
{
    compose_job j = { 0 };
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_outdir out;
    char *config = NULL;
    FV_REQUIRE(checkpoint, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&j.c, fv_qairt_compose_options, compose, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    j.o = &o;
    FV_TRY(compose_check(&j, checkpoint, dir, err));
    fv_status status = compose_merge(&j, dir, &config, err);
    if (status == FV_OK)
        status = fv_sdk_open(&sdk, &o, err);
    if (status == FV_OK) {
        j.sdk = &sdk;
        status = fv_tool_stage_open(&out, &j.stage, dir, j.c.force, &o, err);
        if (status == FV_OK)
            status = fv_tool_stage_close(&out, j.stage, compose_in(&j, err), err);
        fv_sdk_close(&sdk);
    }
    fv_free(config);
    fv_free(j.checkpoint);
    return status;
}
