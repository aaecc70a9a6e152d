/* Every artefact of a model and a manifest of them. See fastvlm_tools.h.
 *
 * The exports write into a folder beside the place, which takes its name when the manifest is in
 * it: a folder of that name is complete. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/report.h"
#include "export/calib_export.h"
#include "export/file_list.h"
#include "fastvlm_tools.h"
#include "model/model.h"
#include "io/json_write.h"
#include "onnx/onnx_plan.h"

enum { N_RANDOM = 8 };

typedef struct lot {
    const char *model;
    fv_all_options set;
    fv_calib_options calib;
    const fv_callbacks *callbacks;
    fv_outdir dir;
    fv_config config;
    fv_json_text j;
    char *list_root; /* of input_list.txt */
    int image_size;
} lot;

/* ---- what is in a file ---- */

static void manifest_put_tensor(fv_json_text *j, const char *direction, const char *name,
                                const char *dtype, const int64_t *shape, int n)
{
    fv_json_begin_row(j, NULL, '{');
    if (direction)
        fv_json_put_text(j, "as", direction);
    fv_json_put_text(j, "name", name);
    fv_json_put_text(j, "dtype", dtype);
    fv_json_begin_row(j, "shape", '[');
    for (int i = 0; i < n; i++) {
        if (shape[i] < 0)
            fv_json_put_text(j, NULL, "any");
        else
            fv_json_put_int(j, NULL, shape[i]);
    }
    fv_json_end(j);
    fv_json_end(j);
}

#define SHAPE(...) \
    (const int64_t[]){ __VA_ARGS__ }, (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))

/* The three ONNX exports, by the folders that fv_export_all gives them. */
static const struct {
    const char *folder;
    fv_onnx_target target;
} onnx_exports[] = {
    { "onnx", FV_ONNX_GENERIC },
    { "onnx-npu", FV_ONNX_NPU },
    { "transformers.js", FV_ONNX_TRANSFORMERS_JS },
};

static fv_onnx_options onnx_options_of(const lot *l, fv_onnx_target target)
{
    fv_onnx_options s;
    fv_onnx_options_default(&s);
    s.target = target;
    s.image_size = l->calib.image_size;
    return s;
}

/* Tensors of a layer are listed once, with {layer} in place of 0; false: another layer's. */
static bool layer_name(char out[128], const char *name)
{
    const char *dot = strchr(name, '.');
    char *end = NULL;
    long layer = dot ? strtol(dot + 1, &end, 10) : 0;
    if (!dot || end == dot + 1 || *end != '.')
        return snprintf(out, 128, "%s", name) > 0;
    snprintf(out, 128, "%.*s.{layer}%s", (int)(dot - name), name, end);
    return layer == 0;
}

static void put_value(fv_json_text *j, const char *way, const char *name, const fv_value *v)
{
    fv_dim dims[FV_GRAPH_DIMS];
    int64_t shape[FV_GRAPH_DIMS];
    char text[128];
    if (!layer_name(text, name))
        return;
    fv_onnx_dims(v, dims);
    for (int i = 0; i < v->n_dims; i++)
        shape[i] = dims[i].name ? -1 : dims[i].n;
    manifest_put_tensor(j, way, text,
                        v->type == FV_TYPE_I64   ? "i64"
                        : v->type == FV_TYPE_F16 ? "f16"
                                                 : "f32",
                        shape, v->n_dims);
}

/* Inputs and outputs of an ONNX file, which its graph knows. */
static fv_status put_graph(const lot *l, fv_json_text *j, const fv_onnx_plan *plan,
                           const fv_onnx_file *file, fv_error *err)
{
    fv_weights w;
    fv_graph g;
    FV_TRY(fv_graph_outline(&w, &l->config, err));
    fv_graph_begin(&g, file->name, err);
    fv_onnx_plan_graph(plan, &g, file->part, &l->config, &w);
    fv_status status = fv_graph_status(&g);
    fv_json_begin(j, "tensors", '[');
    for (size_t i = 0; status == FV_OK && i < g.n_inputs; i++)
        put_value(j, "input", g.input[i]->name, g.input[i]);
    for (size_t i = 0; status == FV_OK && i < g.n_outputs; i++)
        put_value(j, "output", g.output[i]->output, g.output[i]);
    fv_json_end(j);
    fv_graph_end(&g);
    fv_weights_free(&w);
    return status;
}

/* If NAME is one of the ONNX exports' files. */
static fv_status put_onnx(const lot *l, fv_json_text *j, const char *name, fv_error *err)
{
    for (size_t i = 0; i < FV_COUNT(onnx_exports); i++) {
        fv_onnx_plan plan;
        fv_onnx_options s = onnx_options_of(l, onnx_exports[i].target);
        FV_TRY(fv_onnx_plan_begin(&plan, &s, err));
        fv_onnx_plan_end(&plan, &l->config, 0, 0);
        for (size_t f = 0; f < plan.n_files; f++) {
            char path[256];
            snprintf(path, sizeof path, "%s/%s%s%s.onnx", onnx_exports[i].folder, plan.folder,
                     *plan.folder ? "/" : "", plan.file[f].name);
            if (!strcmp(path, name))
                return put_graph(l, j, &plan, &plan.file[f], err);
        }
    }
    return FV_OK;
}

/* Tensors of a checkpoint file are counted, not listed: their header lists them. */
static fv_status put_content(const lot *l, fv_json_text *j, const char *name, fv_error *err)
{
    const fv_config *c = &l->config;
    const char *dot = strrchr(name, '.'), *calib = strncmp(name, "calib/", 6) ? NULL : name;
    bool nchw = l->calib.layout == FV_CALIB_NCHW;
    int side = l->image_size;
    if (calib && dot && !strcmp(dot, ".raw")) {
        fv_json_begin(j, "tensors", '[');
        manifest_put_tensor(j, NULL, "pixel_values", l->calib.dtype == FV_CALIB_U8 ? "u8" : "f32",
                            SHAPE(1, nchw ? 3 : side, side, nchw ? side : 3));
        fv_json_end(j);
    } else if (!strcmp(name, "genie/LUT.bin")) {
        fv_json_begin(j, "tensors", '[');
        manifest_put_tensor(j, NULL, "embedding", "f32", SHAPE(c->n_vocab, c->d_model));
        fv_json_end(j);
    } else {
        return put_onnx(l, j, name, err);
    }
    return FV_OK;
}

static void manifest_put_model(const lot *l, fv_json_text *j)
{
    const fv_config *c = &l->config;
    fv_json_begin(j, "model", '{');
    fv_json_put_text(j, "layout", c->layout == FV_LAYOUT_FAST_VLM ? "fast_vlm" : "llava_qwen2");
    fv_json_put_int(j, "image_size", c->image_size);
    fv_json_put_int(j, "image_tokens", fv_config_image_tokens(c->image_size));
    fv_json_put_int(j, "vision_features", c->n_features);
    fv_json_put_int(j, "d_model", c->d_model);
    fv_json_put_int(j, "d_ffn", c->d_ffn);
    fv_json_put_int(j, "layers", c->n_layers);
    fv_json_put_int(j, "heads", c->n_heads);
    fv_json_put_int(j, "kv_heads", c->n_kv_heads);
    fv_json_put_int(j, "d_head", c->d_head);
    fv_json_put_int(j, "vocabulary_rows", c->n_vocab);
    fv_json_end(j);
}

static fv_status write_manifest(lot *l, fv_error *err)
{
    fv_file_list files = { 0 };
    fv_source source;
    fv_status status = FV_OK;
    char hex[FV_HASH_TEXT], *path = NULL;
    uint64_t n_bytes, total = 0;
    FV_TRY(fv_source_read(&source, l->model, "manifest", l->callbacks, err));
    FV_TRY_GOTO(fv_file_list_collect(&files, l->dir.stage, true, err));
    fv_json_begin(&l->j, NULL, '{');
    fv_json_put_text(&l->j, "fastvlm", fv_version());
    fv_source_put(&l->j, &source);
    manifest_put_model(l, &l->j);
    fv_json_begin(&l->j, "files", '[');
    for (size_t i = 0; i < files.n; i++) {
        fv_free(path);
        if (!(path = fv_path_join(l->dir.stage, files.name[i])))
            status = fv_fail_memory(err, strlen(files.name[i]), "a path");
        else
            status = fv_file_hash(hex, &n_bytes, path, "manifest", l->callbacks, err);
        if (status != FV_OK)
            goto fail;
        fv_json_begin(&l->j, NULL, '{');
        fv_json_put_text(&l->j, "name", files.name[i]);
        fv_json_put_int(&l->j, "bytes", (int64_t)n_bytes);
        fv_json_put_text(&l->j, "sha256", hex);
        FV_TRY_GOTO(put_content(l, &l->j, files.name[i], err));
        fv_json_end(&l->j);
        total += n_bytes;
    }
    fv_json_end(&l->j);
    fv_json_put_int(&l->j, "total_bytes", (int64_t)total);
    fv_json_end(&l->j);
    FV_TRY_GOTO(fv_json_done(&l->j, err));
    fv_free(path);
    if (!(path = fv_path_join(l->dir.stage, "manifest.json")))
        status = fv_fail_memory(err, 1, "a path");
    else
        status = fv_outfile_put(path, l->j.text, l->j.n, err);
    if (status == FV_OK)
        fv_log(l->callbacks, FV_LOG_INFO, "manifest.json: %zu files, %.1f MB", files.n,
               (double)total / 1e6);
fail:
    fv_free(path);
    fv_file_list_free(&files);
    fv_source_free(&source);
    return status;
}

/* ---- the exports ---- */

static fv_status run_onnx(const lot *l, const char *dir, fv_onnx_target target,
                          const fv_export_options *into, fv_error *err)
{
    fv_onnx_options s = onnx_options_of(l, target);
    return fv_export_onnx(l->model, &s, dir, into, err);
}

static fv_status run_calib(const lot *l, const char *dir, const fv_export_options *into,
                           fv_error *err)
{
    fv_calib_options s = l->calib;
    if (!s.n_paths && !s.n_random)
        s.n_random = N_RANDOM;
    s.image_size = l->image_size;
    s.list_root = l->list_root;
    fv_recipe recipe = fv_config_recipe(&l->config, FV_FIT_AUTO, l->image_size);
    return fv_export_calib_for(&recipe, &s, dir, into, NULL, err);
}

/* One export to stage/name; kind chooses which. */
static fv_status run_one(lot *l, unsigned part, int which, const char *name, fv_error *err)
{
    static const fv_decoder_type types[] = { FV_DECODER_F16, FV_DECODER_Q8_0, FV_DECODER_Q4_0 };
    fv_callbacks callbacks;
    fv_export_options into = { .size = sizeof into, .force = true, .callbacks = &callbacks };
    fv_hf_options hf = { .size = sizeof hf, .layout = which ? FV_HF_LLAVA_QWEN2 : FV_HF_FAST_VLM };
    fv_status status;
    char *path = fv_path_join(l->dir.stage, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_staged staged = { .folder = l->dir.stage, .callbacks = l->callbacks };
    callbacks = fv_staged_callbacks(&staged);
    switch (part) {
    case FV_ALL_ONNX: status = run_onnx(l, path, FV_ONNX_GENERIC, &into, err); break;
    case FV_ALL_NPU: status = run_onnx(l, path, FV_ONNX_NPU, &into, err); break;
    case FV_ALL_TRANSFORMERS_JS:
        status = run_onnx(l, path, FV_ONNX_TRANSFORMERS_JS, &into, err);
        break;
    case FV_ALL_CALIB: status = run_calib(l, path, &into, err); break;
    case FV_ALL_GGUF: status = fv_export_gguf(l->model, types[which], path, &into, err); break;
    case FV_ALL_HF: status = fv_export_hf(l->model, &hf, path, &into, err); break;
    default:
        status = which == 0   ? fv_export_genie(l->model, NULL, path, &into, err)
                 : which == 1 ? fv_export_lut(l->model, path, &into, err)
                              : fv_export_tokenizer(l->model, path, &into, err);
    }
    fv_free(path);
    return status;
}

static fv_status run_all(lot *l, fv_error *err)
{
    static const struct {
        unsigned part;
        int which;
        const char *folder, *name;
    } steps[] = {
        { FV_ALL_ONNX, 0, NULL, "onnx" },
        { FV_ALL_NPU, 0, NULL, "onnx-npu" },
        { FV_ALL_TRANSFORMERS_JS, 0, NULL, "transformers.js" },
        { FV_ALL_CALIB, 0, NULL, "calib" },
        { FV_ALL_GENIE, 0, NULL, "genie" },
        { FV_ALL_GENIE, 1, NULL, "genie/LUT.bin" },
        { FV_ALL_GENIE, 2, NULL, "genie/tokenizer.json" },
        { FV_ALL_GGUF, 0, "gguf", "gguf/decoder-f16.gguf" },
        { FV_ALL_GGUF, 1, "gguf", "gguf/decoder-q8_0.gguf" },
        { FV_ALL_GGUF, 2, "gguf", "gguf/decoder-q4_0.gguf" },
        { FV_ALL_HF, 0, "hf", "hf/fast_vlm" },
        { FV_ALL_HF, 1, "hf", "hf/llava_qwen2" },
    };
    unsigned parts = l->set.parts ? l->set.parts : FV_ALL_PARTS;
    for (size_t i = 0; i < FV_COUNT(steps); i++) {
        if (!(parts & steps[i].part))
            continue;
        if (steps[i].folder)
            FV_TRY(fv_outdir_sub(&l->dir, steps[i].folder, err));
        FV_TRY(run_one(l, steps[i].part, steps[i].which, steps[i].name, err));
    }
    return FV_OK;
}

static fv_status place_of_calib(lot *l, const char *dir, fv_error *err)
{
    char here[PATH_MAX];
    char *root = *dir == '/'                 ? fv_strdup(dir)
                 : getcwd(here, sizeof here) ? fv_path_join(here, dir)
                                             : NULL;
    l->list_root = root ? fv_path_join(root, "calib") : NULL;
    fv_free(root);
    return l->list_root
               ? FV_OK
               : fv_fail(err, FV_ERR_IO, 0, "%s: cannot be expressed as an absolute path", dir);
}

fv_status fv_export_all(const char *model, const fv_all_options *all, const char *dir,
                        const fv_export_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_export_options o;
    fv_callbacks callbacks;
    lot l = { .model = model };
    fv_model s;
    fv_status status = FV_OK;
    FV_REQUIRE(model, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&l.set, fv_all_options, all, err));
    FV_TRY(FV_OPTIONS_IN(&l.calib, fv_calib_options, l.set.calib, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    l.callbacks = o.callbacks;
    if (l.set.parts & ~(unsigned)FV_ALL_PARTS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "parts has unknown flags");
    FV_TRY(fv_model_open(
        &s, model, &(fv_model_options){ .depth = FV_MODEL_TEXT, .callbacks = o.callbacks }, err));
    l.config = s.config;
    fv_model_close(&s);
    l.image_size = l.calib.image_size ? l.calib.image_size : l.config.image_size;
    FV_TRY_GOTO(place_of_calib(&l, dir, err));
    FV_TRY_GOTO(fv_outdir_open(&l.dir, dir, o.force, o.callbacks, err));
    FV_TRY_GOTO(run_all(&l, err));
    FV_TRY_GOTO(write_manifest(&l, err));
    FV_TRY_GOTO(fv_outdir_commit(&l.dir, err));
fail:
    fv_outdir_abandon(&l.dir);
    fv_json_text_free(&l.j);
    fv_free(l.list_root);
    return status;
}
