/* An image and a prompt to text by Qualcomm's programs. See qairt_way.h. */
#include "qairt/qairt_way.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/outpart.h"
#include "base/report.h"
#include "base/sized.h"
#include "export/genie.h"
#include "image/image.h"
#include "npu/ctx_info.h"
#include "npu/qnn_backend.h"
#include "npu/qnn_types.h"
#include "qairt/ctx_check.h"
#include "qairt/runner_host.h"
#include "text/template.h"

enum { DEFAULT_CONTEXT = 512, MAX_OUTPUT_BYTES = 1 << 30 };

/* A context binary's graph: one image or row of ids in, rows out. */
typedef struct way_graph {
    const char *file; /* on this machine */
    fv_npu_binary *binary;
    fv_npu_tensor_info in, out;
    fv_qnn_tensor qin, qout; /* the same for packing; dims are not set */
    size_t n_in, n_out;      /* elements */
} way_graph;

typedef struct way_job {
    const fv_qairt_way *way;
    fv_model model;
    fv_run_folder out;
    fv_json_text log;
    way_graph vision, embedder;
    int image_size;
    bool nchw;
    fv_ids ids;   /* of the prompt, FV_IMAGE_MARK where the image goes */
    float *image; /* [n_image, d_model] */
    float *rows;  /* [n_rows, d_model] */
    size_t n_image, n_rows, d_model;
    int max_new_tokens;
    fv_run_profile profile;
    fv_qairt_run_report report;
} way_job;

/* ---------------------------------------------------------------- graphs */

static fv_status way_tensor_take(fv_npu_tensor_info *t, fv_qnn_tensor *q, size_t *n,
                                 const way_graph *g, fv_npu_tensor_kind kind, fv_error *err)
{
    fv_npu_graph_info info = { .size = sizeof info };
    t->size = sizeof *t;
    fv_npu_binary_graph(g->binary, 0, &info);
    if ((kind == FV_NPU_INPUT ? info.n_inputs : info.n_outputs) != 1 ||
        !fv_npu_binary_tensor(g->binary, 0, kind, 0, t))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: its graph takes %zu and gives %zu tensors; expected one and one",
                       g->file, info.n_inputs, info.n_outputs);
    *q = (fv_qnn_tensor){ .type = fv_qnn_type_parse(t->type),
                          .quant = { .one = { (float)t->scale, t->offset } } };
    *n = 1;
    for (unsigned i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(*n, t->dims[i], n))
            *n = 0;
    if (!*n || *n > MAX_OUTPUT_BYTES / sizeof(float))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: the size of %s is out of range", g->file,
                       t->name);
    return FV_OK;
}

/* A type that has numbers for us: floats, or 8 and 16 bits with the sign that the header gives. */
static fv_status way_type_check(const way_graph *g, const fv_npu_tensor_info *t,
                                const fv_qnn_tensor *q, fv_error *err)
{
    bool fixed = q->type == FV_QNN_UQ8 || q->type == FV_QNN_UQ16;
    if (q->type == FV_QNN_F32 || q->type == FV_QNN_F16 ||
        (fixed && t->quantized && t->scale > 0 && t->offset <= 0))
        return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                   "%s: %s is %s with scale %g and offset %d; expected f32, f16, or u8 or u16 with "
                   "a scale above 0 and an offset of at most 0",
                   g->file, t->name, t->type, t->scale, (int)t->offset);
}

/* Its description: given, beside it, or the tool's. */
static fv_status way_info_take(way_graph *g, const fv_qairt_way *way, const char *file,
                               const char *info, fv_error *err)
{
    char beside[1200], *absolute = NULL, *json = NULL;
    size_t n = strlen(file), n_json = 0;
    bool bin = n > 4 && !strcmp(file + n - 4, ".bin");
    g->file = file;
    if (!fv_is_file(file))
        return fv_fail(err, FV_ERR_IO, 0, "%s: no such file", file);
    snprintf(beside, sizeof beside, "%.*s_ctx_info.json", (int)(bin ? n - 4 : n), file);
    if (info || fv_is_file(beside))
        return fv_ctx_info_open(&g->binary, info ? info : beside, err);
    if (!way->sdk)
        return fv_fail(err, FV_ERR_IO, 0, "%s: no such file; expected the description of %s",
                       beside, file);
    FV_TRY(fv_tool_paths(&absolute, file, file, way->options, err));
    fv_status status = fv_ctx_info_make(&json, &n_json, way->sdk, absolute, way->options, err);
    fv_free(absolute);
    if (status == FV_OK &&
        (status = fv_ctx_info_parse(&g->binary, json, n_json, file, err)) != FV_OK)
        fv_free(json);
    return status;
}

/* Qualcomm's libraries load binaries of their own release or an older one, else error 5000. */
static fv_status way_release_check(const fv_qairt_way *way, const char *file, const char *build,
                                   fv_error *err)
{
    unsigned numbers[4];
    if (!way->sdk || !fv_sdk_version_parse(build, numbers) ||
        fv_sdk_release_compare(numbers, way->sdk->numbers) <= 0)
        return FV_OK;
    return fv_fail(
        err, FV_ERR_UNSUPPORTED, 0,
        "%s: made by QAIRT %s; the SDK is %s, which does not load binaries of a newer one", file,
        build, way->sdk->version);
}

static fv_status way_graph_open(way_graph *g, const fv_qairt_way *way, const char *file,
                                const char *info, fv_error *err)
{
    fv_npu_binary_info b = { .size = sizeof b };
    FV_TRY(way_info_take(g, way, file, info, err));
    fv_npu_binary_describe(g->binary, &b);
    FV_TRY(way_release_check(way, file, b.build, err));
    if (b.n_graphs != 1)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: has %zu graphs; expected one", file,
                       b.n_graphs);
    FV_TRY(way_tensor_take(&g->in, &g->qin, &g->n_in, g, FV_NPU_INPUT, err));
    FV_TRY(way_tensor_take(&g->out, &g->qout, &g->n_out, g, FV_NPU_OUTPUT, err));
    return way_type_check(g, &g->out, &g->qout, err);
}

static fv_status way_vision_open(way_job *j, fv_error *err)
{
    const fv_qairt_run_options *o = j->way->run;
    way_graph *g = &j->vision;
    const uint32_t *d;
    FV_TRY(way_graph_open(g, j->way, o->vision, o->vision_info, err));
    FV_TRY(way_type_check(g, &g->in, &g->qin, err));
    d = g->in.dims;
    j->nchw = g->in.rank == 4 && d[1] == 3 && d[2] == d[3];
    bool nhwc = g->in.rank == 4 && d[3] == 3 && d[1] == d[2];
    if ((!j->nchw && !nhwc) || d[0] != 1 || d[2] > 4096 || d[2] % 64)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s is not an image; expected [1, S, S, 3] or [1, 3, S, S]", o->vision,
                       g->in.name);
    j->image_size = (int)d[2];
    if (!g->out.rank || g->out.dims[g->out.rank - 1] != j->d_model)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "%s: gives image tokens of %u numbers; the model's have %zu", o->vision,
                       g->out.rank ? g->out.dims[g->out.rank - 1] : 0, j->d_model);
    j->n_image = g->n_out / j->d_model;
    return FV_OK;
}

/* ---------------------------------------------------------------- the prompt */

static fv_status way_ids_make(way_job *j, const char *prompt, size_t n, fv_error *err)
{
    const fv_tokenizer *t = j->model.tokenizer;
    const fv_turn_part parts[] = { { .kind = FV_TURN_IMAGE },
                                   { .kind = FV_TURN_TEXT, .text = prompt, .n = n } };
    bool first = j->way->run->order == FV_QAIRT_IMAGE_FIRST;
    if (first)
        FV_TRY(fv_ids_push(&j->ids, FV_IMAGE_MARK, err));
    FV_TRY(fv_template_system(&j->ids, t, FV_DEFAULT_SYSTEM, strlen(FV_DEFAULT_SYSTEM), err));
    return fv_template_user(&j->ids, t, parts + first, FV_COUNT(parts) - first, err);
}

static fv_status way_lengths_check(way_job *j, fv_error *err)
{
    const fv_qairt_run_options *o = j->way->run;
    size_t context = (size_t)(o->context ? o->context
                                         : FV_MIN(DEFAULT_CONTEXT, j->model.config.max_context));
    j->n_rows = j->ids.n - 1 + j->n_image;
    if (j->n_rows >= context)
        return fv_fail(
            err, FV_ERR_LIMIT, 0,
            "the prompt has %zu tokens, %zu of them image tokens; the context holds %zu, "
            "and one must stay free for the answer",
            j->n_rows, j->n_image, context);
    size_t room = context - j->n_rows;
    size_t wanted = o->max_new_tokens > 0 ? (size_t)o->max_new_tokens : room;
    if (wanted > room)
        fv_log(j->way->options->callbacks, FV_LOG_WARNING,
               "the answer has room for %zu tokens, not %zu: the context holds %zu and the prompt "
               "has %zu",
               room, wanted, context, j->n_rows);
    /* Genie's context must be larger than the answer it may give. */
    j->max_new_tokens = (int)FV_MIN(FV_MIN(wanted, room), context - 1);
    return FV_OK;
}

static fv_status way_tokens_write(const way_job *j, fv_error *err)
{
    fv_json_text t = { 0 };
    fv_json_begin(&t, NULL, '{');
    fv_json_begin_row(&t, "token_ids", '[');
    for (size_t i = 0; i < j->ids.n; i++)
        fv_json_put_int(&t, NULL, j->ids.data[i]);
    fv_json_end(&t);
    fv_json_put_int(&t, "image_mark", FV_IMAGE_MARK);
    fv_json_put_text(&t, "order",
                     j->way->run->order == FV_QAIRT_IMAGE_FIRST ? "image first" : "template");
    fv_json_put_int(&t, "image_rows", (int64_t)j->n_image);
    fv_json_put_int(&t, "combined_len", (int64_t)j->n_rows);
    fv_json_put_int(&t, "max_new_tokens", j->max_new_tokens);
    fv_json_put_int(&t, "image_size", j->image_size);
    fv_json_end(&t);
    fv_status status = fv_json_done(&t, err);
    if (status == FV_OK)
        status = fv_run_folder_put(&j->out, "tokens.json", t.text, t.n, err);
    fv_json_text_free(&t);
    return status;
}

/* ---------------------------------------------------------------- qnn-net-run */

/* A name as the tool writes it: runs of other characters become '_', a digit gets one in front. */
static void way_name_sanitize(char to[256], const char *name)
{
    size_t n = 0;
    bool letter = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') || *name == '_';
    if (!letter && strspn(name, "0123456789"))
        to[n++] = '_';
    for (bool before = false; *name && n < 255; name++) {
        bool word = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') ||
                    (*name >= '0' && *name <= '9') || *name == '_';
        if (word || !before)
            to[n++] = word ? *name : '_';
        before = !word;
    }
    to[n] = 0;
}

/* The result among the names of a folder: in the graph's type, else in f32. */
static const char *way_result_choose(const char *names, size_t n, const char *tensor)
{
    char name[256], wanted[2][300];
    const char *found[2] = { NULL, NULL };
    way_name_sanitize(name, tensor);
    snprintf(wanted[0], sizeof wanted[0], "%s_native.raw", name);
    snprintf(wanted[1], sizeof wanted[1], "%s.raw", name);
    for (size_t i = 0; i < n; i++, names += strlen(names) + 1)
        for (int k = 0; k < 2; k++)
            if (!strcmp(names, wanted[k]))
                found[k] = names;
    return found[0] ? found[0] : found[1];
}

/* Which type a result is in follows from its size: the graph's own, or f32. */
static fv_status way_result_decode(float *to, const way_graph *g, const uint8_t *data, size_t n,
                                   const char *path, fv_error *err)
{
    size_t native = g->n_out * fv_qnn_type_bytes(g->qout.type);
    if (n == native)
        fv_qnn_unpack(&g->qout, to, data, g->n_out);
    else if (n == g->n_out * sizeof *to)
        memcpy(to, data, n);
    else
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: has %zu bytes; expected %zu, %s as %s, or %zu in f32", path, n, native,
                       g->out.name, g->out.type, g->n_out * sizeof *to);
    return FV_OK;
}

/* The result file of `remote`, copied to the run's folder as DIR/Result_0/NAME and decoded. */
static fv_status way_result_get(way_job *j, const way_graph *g, const char *remote, const char *dir,
                                float *to, fv_error *err)
{
    fv_runner *r = j->way->npu;
    char *names = NULL, *place = NULL, from[FV_RUNNER_PATH], name[600];
    size_t n = 0, n_bytes = 0;
    uint8_t *data = NULL;
    FV_TRY(r->list(r, remote, &names, &n, err));
    const char *chosen = way_result_choose(names, n, g->out.name);
    fv_status status = FV_OK;
    if (!chosen) {
        status = fv_fail(err, FV_ERR_IO, 0,
                         "qnn-net-run on %s: ended with exit code 0 but has not written %s to %s",
                         r->name, g->out.name, remote);
        goto fail;
    }
    if (snprintf(from, sizeof from, "%s/%s", remote, chosen) >= (int)sizeof from) {
        status = fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", remote);
        goto fail;
    }
    snprintf(name, sizeof name, "%s/Result_0/%s", dir, chosen);
    FV_TRY_GOTO(fv_run_folder_path(&j->out, name, &place, err));
    FV_TRY_GOTO(r->get(r, from, place, err));
    FV_TRY_GOTO(fv_read_file(&data, &n_bytes, place, MAX_OUTPUT_BYTES, err));
    status = way_result_decode(to, g, data, n_bytes, from, err);
fail:
    fv_free(data);
    fv_free(place);
    fv_free(names);
    return status;
}

/* What qnn-net-run has measured, and what the SDK's viewer, on this machine, says of it. */
static fv_status way_profiling_get(way_job *j, const char *remote, fv_error *err)
{
    fv_runner *r = j->way->npu;
    fv_args args = { 0 };
    char from[FV_RUNNER_PATH], *log = NULL, *csv = NULL, *log_at = NULL, *csv_at = NULL;
    fv_status status = FV_OK;
    if (snprintf(from, sizeof from, "%s/qnn-profiling-data_0.log", remote) >= (int)sizeof from)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", remote);
    FV_TRY_GOTO(fv_run_folder_path(&j->out, "vision_out/qnn-profiling-data_0.log", &log, err));
    FV_TRY_GOTO(r->get(r, from, log, err));
    if (!j->way->sdk)
        goto fail;
    FV_TRY_GOTO(fv_run_folder_path(&j->out, "vision_out/qnn-profile.csv", &csv, err));
    FV_TRY_GOTO(fv_path_absolute(&log_at, log, err));
    FV_TRY_GOTO(fv_path_absolute(&csv_at, csv, err));
    fv_args_add(&args, "qnn-profile-viewer");
    fv_args_add2(&args, "--input_log", log_at);
    fv_args_add2(&args, "--output", csv_at);
    fv_args_expect(&args, csv_at);
    status = fv_tool_run(j->way->sdk, &args, NULL, j->way->options, err);
fail:
    fv_args_free(&args);
    fv_free(log);
    fv_free(csv);
    fv_free(log_at);
    fv_free(csv_at);
    return status;
}

/* One inference: the input's bytes are in the run's folder as `input`; what comes out goes to `dir`
 * there and to `to`. */
static fv_status way_infer(way_job *j, const way_graph *g, const char *input, const char *dir,
                           float *to, fv_error *err)
{
    fv_runner *r = j->way->npu;
    fv_args args = { 0 };
    char binary[FV_RUNNER_PATH], remote[FV_RUNNER_PATH], list[FV_RUNNER_PATH],
        results[FV_RUNNER_PATH], out[FV_RUNNER_PATH], name[300];
    char *local = NULL, *lines = NULL;
    const char *slash = strrchr(g->file, '/');
    snprintf(remote, sizeof remote, "%s/inputs/%s/%s", r->root, dir, input);
    snprintf(list, sizeof list, "%s/inputs/%s/input_list.txt", r->root, dir);
    snprintf(out, sizeof out, "%s/outputs/%s", r->root, dir);
    if (snprintf(results, sizeof results, "%s/Result_0", out) >= (int)sizeof results)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", r->root);
    fv_status status = r->place(r, g->file, slash ? slash + 1 : g->file, binary, err);
    FV_TRY(status);
    FV_TRY_GOTO(fv_run_folder_path(&j->out, input, &local, err));
    FV_TRY_GOTO(r->put(r, local, remote, err));
    snprintf(name, sizeof name, "%.*s_input_list.txt", (int)strcspn(dir, "_"), dir);
    FV_TRY_GOTO(fv_run_folder_path(&j->out, name, &lines, err));
    char text[FV_RUNNER_PATH + 1];
    int n = snprintf(text, sizeof text, "%s\n", remote);
    FV_TRY_GOTO(fv_outfile_put(lines, text, (size_t)n, err));
    FV_TRY_GOTO(r->put(r, lines, list, err));
    FV_TRY_GOTO(r->clear(r, out, err)); /* results of an earlier run would be taken for new */
    fv_args_format(&args, "%s/qnn-net-run", r->programs);
    fv_args_add2(&args, "--backend", r->backend);
    fv_args_add2(&args, "--retrieve_context", binary);
    fv_args_add2(&args, "--input_list", list);
    fv_args_add2(&args, "--use_native_input_files", "--use_native_output_files");
    fv_args_add2(&args, "--output_dir", out);
    fv_args_add2(&args, "--num_inferences", "1");
    bool profiling = j->way->run->profiling && g == &j->vision;
    if (profiling)
        fv_args_add2(&args, "--profiling_level", "basic");
    FV_TRY_GOTO(fv_runner_tool(r, &args, j->way->options, &j->log, err));
    FV_TRY_GOTO(way_result_get(j, g, results, dir, to, err));
    if (profiling)
        status = way_profiling_get(j, out, err);
fail:
    fv_args_free(&args);
    fv_free(local);
    fv_free(lines);
    return status;
}

/* ---------------------------------------------------------------- the image */

static void way_pixels_turn(float *to, const float *from, size_t plane)
{
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < plane; i++)
            to[c * plane + i] = from[i * 3 + c];
}

static fv_status way_pixels_write(way_job *j, const fv_image *image, fv_error *err)
{
    const way_graph *g = &j->vision;
    fv_recipe recipe = fv_config_recipe(&j->model.config, j->way->run->fit, j->image_size);
    size_t plane = (size_t)j->image_size * (size_t)j->image_size, n = plane * 3;
    float *pixels = fv_alloc(2 * n, sizeof *pixels);
    uint8_t *raw = fv_alloc(n, sizeof(float)), *u8 = fv_alloc(n, 1);
    fv_status status = pixels && raw && u8
                           ? FV_OK
                           : fv_fail_memory(err, 2 * n * sizeof *pixels, "an image");
    if (status == FV_OK)
        status = fv_preprocess(pixels, u8, image, &recipe, j->image_size, j->model.pool,
                               &j->model.kernels, err);
    if (status == FV_OK) {
        if (j->nchw)
            way_pixels_turn(pixels + n, pixels, plane);
        fv_qnn_pack(&g->qin, raw, j->nchw ? pixels + n : pixels, n);
        status = fv_run_folder_put(&j->out, "pixel_values.raw", raw,
                                   n * fv_qnn_type_bytes(g->qin.type), err);
    }
    fv_free(pixels);
    fv_free(raw);
    fv_free(u8);
    return status;
}

static fv_status way_image_run(way_job *j, const fv_image *image, fv_error *err)
{
    double start = fv_now_ms();
    FV_TRY(way_pixels_write(j, image, err));
    if (!(j->image = fv_alloc(j->vision.n_out, sizeof *j->image)))
        return fv_fail_memory(err, j->vision.n_out * sizeof *j->image, "image tokens");
    j->profile.prepare_ms += fv_now_ms() - start;
    start = fv_now_ms();
    FV_TRY(way_infer(j, &j->vision, "pixel_values.raw", "vision_out", j->image, err));
    j->profile.vision_ms = fv_now_ms() - start;
    return FV_OK;
}

/* ---------------------------------------------------------------- the text's rows */

/* text [n_text, d_model] by the embedder, whose input is filled up with <|endoftext|>. */
static fv_status way_embed_run(way_job *j, const int32_t *ids, size_t n, float *text, fv_error *err)
{
    way_graph *g = &j->embedder;
    const fv_qairt_run_options *o = j->way->run;
    int32_t pad;
    FV_TRY(way_graph_open(g, j->way, o->embedder, o->embedder_info, err));
    if (g->qin.type != FV_QNN_I32)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %s; expected ids as i32", o->embedder,
                       g->in.name, g->in.type);
    if (g->n_out != g->n_in * j->d_model)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "%s: gives %zu numbers for %zu ids; expected %zu for each", o->embedder,
                       g->n_out, g->n_in, j->d_model);
    if (n > g->n_in)
        return fv_fail(err, FV_ERR_LIMIT, 0, "the text has %zu tokens; %s takes %zu", n,
                       o->embedder, g->n_in);
    FV_TRY(fv_model_token(&j->model, "<|endoftext|>", &pad, err));
    int32_t *input = fv_alloc(g->n_in, sizeof *input);
    float *rows = fv_alloc(g->n_out, sizeof *rows);
    fv_status status = input && rows ? FV_OK
                                     : fv_fail_memory(err, g->n_out * sizeof *rows, "embeddings");
    if (status == FV_OK) {
        for (size_t i = 0; i < g->n_in; i++)
            input[i] = i < n ? ids[i] : pad;
        status = fv_run_folder_put(&j->out, "input_ids.raw", input, g->n_in * sizeof *input, err);
    }
    if (status == FV_OK)
        status = way_infer(j, g, "input_ids.raw", "embed_out", rows, err);
    if (status == FV_OK)
        memcpy(text, rows, n * j->d_model * sizeof *text);
    fv_free(input);
    fv_free(rows);
    return status;
}

static void way_embed_own(const way_job *j, const int32_t *ids, size_t n, float *text)
{
    const fv_mat *embed = &j->model.weights.decoder.embed;
    for (size_t i = 0; i < n; i++)
        j->model.kernels.convert[FV_TYPE_F32][embed->type](
            text + i * j->d_model,
            (const uint8_t *)embed->data + (size_t)ids[i] * fv_row_bytes(embed->type, embed->k),
            embed->k);
}

static fv_status way_rows_join(way_job *j, fv_error *err)
{
    double start = fv_now_ms();
    size_t n_text = j->ids.n - 1, d = j->d_model;
    float *text = fv_alloc(n_text * d, sizeof *text);
    int32_t *ids = fv_alloc(n_text, sizeof *ids);
    j->rows = fv_alloc(j->n_rows * d, sizeof *j->rows);
    fv_status status = text && ids && j->rows
                           ? FV_OK
                           : fv_fail_memory(err, j->n_rows * d * sizeof *text, "embeddings");
    for (size_t i = 0, n = 0; status == FV_OK && i < j->ids.n; i++)
        if (j->ids.data[i] != FV_IMAGE_MARK)
            ids[n++] = j->ids.data[i];
    if (status == FV_OK && j->way->run->embedder)
        status = way_embed_run(j, ids, n_text, text, err);
    else if (status == FV_OK)
        way_embed_own(j, ids, n_text, text);
    j->profile.embed_ms = fv_now_ms() - start;
    start = fv_now_ms();
    for (size_t i = 0, at = 0, row = 0; status == FV_OK && i < j->ids.n; i++) {
        bool image = j->ids.data[i] == FV_IMAGE_MARK;
        size_t n = image ? j->n_image : 1;
        memcpy(j->rows + row * d, image ? j->image : text + at * d, n * d * sizeof *text);
        at += !image;
        row += n;
    }
    if (status == FV_OK)
        status = fv_run_folder_put(&j->out, "combined_embeddings_fp32.raw", j->rows,
                                   j->n_rows * d * sizeof *j->rows, err);
    j->profile.splice_ms = fv_now_ms() - start;
    fv_free(text);
    fv_free(ids);
    return status;
}

/* ---------------------------------------------------------------- the decoder */

static fv_status way_dialog_write(const way_job *j, const char *decoder, const char *tokenizer,
                                  fv_error *err)
{
    const fv_qairt_run_options *o = j->way->run;
    fv_genie_options g = { .size = sizeof g,
                           .context = o->context,
                           .max_new_tokens = j->max_new_tokens,
                           .n_threads = o->n_threads,
                           .sampling = o->sampling,
                           .seed = o->seed };
    fv_genie_paths paths = { .model = decoder, .tokenizer = tokenizer };
    fv_json_text t = { 0 };
    fv_status status = fv_genie_dialog_put(&t, &j->model, &g, &paths, false, err);
    if (status == FV_OK)
        status = fv_json_done(&t, err);
    if (status == FV_OK)
        status = fv_run_folder_put(&j->out, "fastvlm_genie_device_config.json", t.text, t.n, err);
    fv_json_text_free(&t);
    return status;
}

/* name of the run's folder, to root/name of the runner; *remote: its path there. */
static fv_status way_put(const way_job *j, fv_runner *r, const char *name,
                         char remote[FV_RUNNER_PATH], fv_error *err)
{
    char *local;
    FV_TRY(fv_run_folder_path(&j->out, name, &local, err));
    fv_status status = snprintf(remote, FV_RUNNER_PATH, "%s/%s", r->root, name) < FV_RUNNER_PATH
                           ? r->put(r, local, remote, err)
                           : fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", r->root);
    fv_free(local);
    return status;
}

/* A file given, or one of the usual name beside the decoder; to fv_free. */
static fv_status way_beside(char **out, const char *given, const char *decoder, const char *name,
                            fv_error *err)
{
    char *folder = NULL, *base = NULL;
    *out = NULL;
    if (given)
        *out = fv_strdup(given);
    else if (fv_out_split(decoder, &folder, &base))
        *out = fv_path_join(folder, name);
    fv_free(folder);
    fv_free(base);
    return *out ? FV_OK : fv_fail_memory(err, strlen(decoder), "a path");
}

/* The embedding of every token that may be generated, of this very model. */
static fv_status way_table_check(const way_job *j, const char *path, fv_error *err)
{
    const fv_mat *embed = &j->model.weights.decoder.embed;
    fv_map map;
    FV_TRY(fv_map_open(&map, path, err));
    size_t n = map.size, wanted = embed->n * embed->k * sizeof(float);
    fv_map_close(&map);
    if (n != wanted)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: has %zu bytes; expected %zu, %zu rows of %zu in f32", path, n, wanted,
                       embed->n, embed->k);
    return FV_OK;
}

/* What Genie says of itself is kept as it is, and read. */
static fv_status way_profile_take(way_job *j, const char *remote, fv_error *err)
{
    char *local;
    fv_runner *r = j->way->cpu;
    FV_TRY(fv_run_folder_path(&j->out, "genie_profile.json", &local, err));
    fv_status status = r->get(r, remote, local, err);
    if (status == FV_OK)
        status = fv_run_profile_read(&j->profile, local, err);
    fv_free(local);
    return status;
}

static fv_status way_decode_with(way_job *j, fv_genie_answer *answer, const char **text, size_t *n,
                                 const char *table, const char *tokenizer, fv_error *err)
{
    const fv_qairt_run_options *o = j->way->run;
    fv_runner *r = j->way->cpu;
    char decoder_at[FV_RUNNER_PATH], table_at[FV_RUNNER_PATH], tokenizer_at[FV_RUNNER_PATH],
        rows_at[FV_RUNNER_PATH], dialog_at[FV_RUNNER_PATH], profile_at[FV_RUNNER_PATH],
        profiles[FV_RUNNER_PATH];
    const char *slash = strrchr(o->decoder, '/');
    FV_TRY(way_table_check(j, table, err));
    FV_TRY(r->place(r, o->decoder, slash ? slash + 1 : o->decoder, decoder_at, err));
    FV_TRY(r->place(r, table, "LUT.bin", table_at, err));
    FV_TRY(r->place(r, tokenizer, "tokenizer.json", tokenizer_at, err));
    FV_TRY(way_dialog_write(j, decoder_at, tokenizer_at, err));
    FV_TRY(way_put(j, r, "combined_embeddings_fp32.raw", rows_at, err));
    FV_TRY(way_put(j, r, "fastvlm_genie_device_config.json", dialog_at, err));
    snprintf(profiles, sizeof profiles, "%s/profile", r->root);
    if (snprintf(profile_at, sizeof profile_at, "%s/profile.json", profiles) >=
        (int)sizeof profile_at)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the path is too long", r->root);
    FV_TRY(r->clear(r, profiles, err)); /* the tool fails when there is one */
    fv_genie_call call = { .runner = r,
                           .dialog = dialog_at,
                           .embeddings = rows_at,
                           .table = table_at,
                           .profile = profile_at,
                           .text = o->text,
                           .text_user = o->text_user,
                           .options = j->way->options,
                           .log = &j->log };
    double start = fv_now_ms();
    FV_TRY(fv_genie_run(answer, text, n, &call, err));
    j->profile.decode_ms = fv_now_ms() - start;
    return way_profile_take(j, profile_at, err);
}

static fv_status way_decode(way_job *j, fv_genie_answer *answer, const char **text, size_t *n,
                            fv_error *err)
{
    const fv_qairt_run_options *o = j->way->run;
    char *table = NULL, *tokenizer = NULL;
    fv_status status = way_beside(&table, o->table, o->decoder, "LUT.bin", err);
    if (status == FV_OK)
        status = way_beside(&tokenizer, o->tokenizer, o->decoder, "tokenizer.json", err);
    if (status == FV_OK)
        status = way_decode_with(j, answer, text, n, table, tokenizer, err);
    fv_free(table);
    fv_free(tokenizer);
    return status;
}

/* ---------------------------------------------------------------- all of it */

/* What the files' types and names say of precisions. */
static void way_precisions_take(way_job *j)
{
    const char *slash = strrchr(j->way->run->decoder, '/');
    const char *name = slash ? slash + 1 : j->way->run->decoder;
    bool u8 = j->vision.qout.type == FV_QNN_UQ8, u16 = j->vision.qout.type == FV_QNN_UQ16;
    j->profile.way = "qairt";
    j->profile.runner = j->way->npu->name;
    j->profile.soc = j->way->npu->soc;
    j->profile.vision = u8 ? "int8" : u16 ? "int16" : "fp16";
    j->profile.decoder = strstr(name, "z8")                         ? "int8"
                         : strstr(name, "q4") || strstr(name, "z4") ? "int4"
                                                                    : "fp32";
}

static fv_status way_report_take(way_job *j, const char *text, size_t n, double start,
                                 fv_error *err)
{
    fv_qairt_run_report *r = &j->report;
    char *place = NULL;
    j->profile.total_ms = fv_now_ms() - start;
    fv_status status = fv_json_done(&j->log, err);
    if (status == FV_OK)
        status = fv_run_folder_put(&j->out, "run.log", j->log.text, j->log.n, err);
    if (status == FV_OK)
        status = fv_run_folder_commit(&j->out, text, n, &j->profile, &place, err);
    if (status != FV_OK)
        return status;
    snprintf(r->output, sizeof r->output, "%s", place);
    fv_free(place);
    r->n_rows = j->n_rows;
    r->n_image_rows = j->n_image;
    r->vision_ms = j->profile.vision_ms;
    r->embed_ms = j->profile.embed_ms;
    r->decode_ms = j->profile.decode_ms;
    r->total_ms = j->profile.total_ms;
    r->genie = fv_qairt_profile_of(&j->profile);
    r->clipped = j->profile.n_generated >= j->max_new_tokens;
    return FV_OK;
}

static fv_status way_run_open(way_job *j, const fv_image *image, const char *prompt, size_t n,
                              fv_error *err)
{
    const fv_qairt_run_options *o = j->way->run;
    fv_genie_answer answer = { 0 };
    const char *text;
    size_t n_text;
    double start = fv_now_ms();
    j->d_model = (size_t)j->model.config.d_model;
    FV_TRY(way_vision_open(j, err));
    FV_TRY(way_ids_make(j, prompt, n, err));
    FV_TRY(way_lengths_check(j, err));
    way_precisions_take(j);
    FV_TRY(fv_run_folder_open(&j->out, o->output ? o->output : "run_outputs",
                              j->way->options->callbacks, err));
    FV_TRY(way_tokens_write(j, err));
    j->profile.prepare_ms = fv_now_ms() - start;
    FV_TRY(way_image_run(j, image, err));
    FV_TRY(way_rows_join(j, err));
    fv_status status = way_decode(j, &answer, &text, &n_text, err);
    if (status == FV_OK)
        status = way_report_take(j, text, n_text, start, err);
    fv_genie_answer_free(&answer);
    return status;
}

fv_status fv_qairt_way_run(const fv_qairt_way *way, const fv_image *image, const char *prompt,
                           size_t n_prompt_bytes, fv_qairt_run_report *report, fv_error *err)
{
    FV_DEFAULT_FPENV;
    way_job j = { .way = way,
                  .profile = fv_run_profile_none(),
                  .report = { .size = sizeof j.report } };
    FV_TRY(fv_model_open(
        &j.model, way->run->model,
        &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = way->options->callbacks },
        err));
    fv_status status = way_run_open(&j, image, prompt, n_prompt_bytes, err);
    if (status == FV_OK)
        fv_result_out(report, &j.report, sizeof j.report);
    fv_run_folder_abandon(&j.out);
    fv_json_text_free(&j.log);
    fv_npu_binary_free(j.vision.binary);
    fv_npu_binary_free(j.embedder.binary);
    fv_ids_free(&j.ids);
    fv_free(j.image);
    fv_free(j.rows);
    fv_model_close(&j.model);
    return status;
}

fv_status fv_qairt_run_options_in(fv_qairt_run_options *to, const fv_qairt_run_options *from,
                                  fv_error *err)
{
    FV_TRY(FV_OPTIONS_IN(to, fv_qairt_run_options, from, err));
    FV_REQUIRE(to->model, err);
    FV_REQUIRE(to->vision, err);
    FV_REQUIRE(to->decoder, err);
    if ((unsigned)to->order > FV_QAIRT_IMAGE_FIRST)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "order is %d; expected 0 or 1", (int)to->order);
    if (to->context < 0 || to->max_new_tokens < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "context is %d, max_new_tokens %d; expected 0 or more", to->context,
                       to->max_new_tokens);
    return FV_OK;
}

fv_status fv_qairt_run(const fv_image *image, const char *prompt, size_t n_prompt_bytes,
                       const fv_qairt_run_options *run, const fv_qairt_options *options,
                       fv_qairt_run_report *report, fv_error *err)
{
    fv_qairt_run_options r;
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_runner_host host;
    FV_REQUIRE(image, err);
    if (n_prompt_bytes)
        FV_REQUIRE(prompt, err);
    if (report)
        FV_TRY(FV_RESULT_CHECK(report, fv_qairt_run_report, err));
    FV_TRY(fv_qairt_run_options_in(&r, run, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    fv_status status = fv_runner_host_open(&host, &sdk, err);
    if (status == FV_OK) {
        fv_qairt_way way = {
            .npu = &host.runner, .cpu = &host.runner, .sdk = &sdk, .run = &r, .options = &o
        };
        status = fv_qairt_way_run(&way, image, prompt, n_prompt_bytes, report, err);
        fv_runner_host_close(&host);
    }
    fv_sdk_close(&sdk);
    return status;
}
