/* A model library or DLC -> a context binary for a chip, read back and checked.
 *
 *     qnn-context-binary-generator   with a configuration: an outer file names the inner one, which
 *                                    names chip, memory, optimisation and the graph
 *     qnn-context-binary-utility     the binary's description as JSON
 *
 * The generator says nothing when the graph that the configuration names is not the model's: then
 * it compiles with its defaults, of which one is another chip. So the name is made from the model's
 * and what came out is read. [docs/qairt.md] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/list.h"
#include "base/outpart.h"
#include "base/report.h"
#include "base/sized.h"
#include "export/genie.h"
#include "npu/ctx_info.h"
#include "npu/npu_socs.h"
#include "qairt/ctx_check.h"

#define CONTEXT_FILE "fastvlm_vision_encoder_int8_htp.bin"
#define OUTER_NAME   "backend_extensions.json"
#define INNER_NAME   "htp_config.json"

enum { INFO_BYTES = 256 << 20 };

typedef struct context_job {
    fv_qairt_context_options c;
    const fv_qairt_options *o;
    const fv_sdk *sdk;
    fv_npu_soc_info soc;
    const char *model; /* absolute */
    bool dlc;
    char *stage;
    char graph[128];
    fv_qairt_context_report report;
} context_job;

/* ---------------------------------------------------------------- ctx_info */

fv_status fv_ctx_info_open(fv_npu_binary **out, const char *path, fv_error *err)
{
    uint8_t *text = NULL;
    size_t n = 0;
    *out = NULL;
    FV_TRY(fv_read_file(&text, &n, path, INFO_BYTES, err));
    fv_status status = fv_ctx_info_parse(out, (char *)text, n, path, err);
    if (status != FV_OK)
        fv_free(text);
    return status;
}

/* The utility writes a file; it gets a directory of its own. */
static fv_status info_run(char **json, size_t *n, const char *dir, const fv_sdk *sdk,
                          const char *binary, const fv_qairt_options *o, fv_error *err)
{
    fv_args args = { 0 };
    uint8_t *text = NULL;
    char *path = fv_path_join(dir, "ctx_info.json");
    fv_status status = path ? FV_OK : fv_fail_memory(err, strlen(dir), "a path");
    if (status == FV_OK) {
        fv_args_add(&args, "qnn-context-binary-utility");
        fv_args_add2(&args, "--context_binary", binary);
        fv_args_add2(&args, "--json_file", path);
        fv_args_expect(&args, path);
        status = fv_tool_run(sdk, &args, dir, o, err);
    }
    if (status == FV_OK && !o->dry_run) {
        status = fv_read_file(&text, n, path, INFO_BYTES, err);
        *json = (char *)text;
    }
    if (path)
        unlink(path);
    fv_args_free(&args);
    fv_free(path);
    return status;
}

fv_status fv_ctx_info_make(char **json, size_t *n_bytes, const fv_sdk *sdk, const char *binary,
                           const fv_qairt_options *options, fv_error *err)
{
    char *dir;
    *json = NULL;
    *n_bytes = 0;
    FV_TRY(fv_scratch_make(&dir, err));
    fv_status status = info_run(json, n_bytes, dir, sdk, binary, options, err);
    fv_scratch_remove(dir);
    return status;
}

/* ---------------------------------------------------------------- the configuration */

static fv_status config_put(const context_job *j, const char *name, fv_json_text *text,
                            fv_error *err)
{
    char *path = fv_path_join(j->stage, name);
    fv_status status = fv_json_done(text, err);
    if (status == FV_OK)
        status = path ? fv_outfile_put(path, text->text, text->n, err)
                      : fv_fail_memory(err, strlen(name), "a path");
    if (status == FV_OK)
        fv_log(j->o->callbacks, FV_LOG_INFO, "%s: graph %s for %s", path, j->graph, j->soc.name);
    fv_free(path);
    fv_json_text_free(text);
    return status;
}

/* Both beside each other in the tool's directory, which it reads them from. */
static fv_status configs_write(const context_job *j, fv_error *err)
{
    fv_json_text outer = { 0 }, inner = { 0 };
    fv_json_begin(&inner, NULL, '{');
    fv_json_begin(&inner, "graphs", '[');
    fv_json_begin(&inner, NULL, '{');
    fv_json_begin_row(&inner, "graph_names", '[');
    fv_json_put_text(&inner, NULL, j->graph);
    fv_json_end(&inner);
    fv_json_put_int(&inner, "vtcm_mb", j->c.vtcm_mb);
    fv_json_put_int(&inner, "O", j->c.optimization);
    fv_json_end(&inner);
    fv_json_end(&inner);
    fv_htp_put_devices(&inner, j->soc.soc_model, j->soc.htp_version);
    fv_json_end(&inner);
    FV_TRY(config_put(j, INNER_NAME, &inner, err));

    fv_json_begin(&outer, NULL, '{');
    fv_json_begin(&outer, "backend_extensions", '{');
    fv_json_put_text(&outer, "shared_library_path", "libQnnHtpNetRunExtensions.so");
    fv_json_put_text(&outer, "config_file_path", INNER_NAME);
    fv_json_end(&outer);
    fv_json_end(&outer);
    return config_put(j, OUTER_NAME, &outer, err);
}

/* ---------------------------------------------------------------- the generator */

static fv_status generator_run(context_job *j, fv_error *err)
{
    fv_args args = { 0 };
    char *model = fv_path_join(j->sdk->libraries, "libQnnModelDlc.so");
    char *backend = fv_path_join(j->sdk->libraries, "libQnnHtp.so");
    fv_status status = model && backend ? FV_OK : fv_fail_memory(err, 64, "a path");
    if (status == FV_OK && !j->c.no_config && !j->o->dry_run)
        status = configs_write(j, err);
    if (status == FV_OK) {
        fv_args_add(&args, "qnn-context-binary-generator");
        fv_args_add2(&args, "--backend", backend);
        fv_args_add2(&args, "--model", j->dlc ? model : j->model);
        if (j->dlc)
            fv_args_add2(&args, "--dlc_path", j->model);
        fv_args_add2(&args, "--output_dir", j->stage);
        fv_args_add2(&args, "--binary_file", j->c.file);
        if (!j->c.no_config)
            fv_args_add2(&args, "--config_file", OUTER_NAME);
        status = fv_tool_run(j->sdk, &args, j->stage, j->o, err);
    }
    fv_args_free(&args);
    fv_free(model);
    fv_free(backend);
    return status;
}

/* Releases differ in whether they append ".bin". The file gets the name that was asked for. */
static fv_status generator_find(const context_job *j, char **path, fv_error *err)
{
    struct stat st;
    char found[1200];
    static const char *const endings[] = { "", ".bin" };
    *path = fv_path_join(j->stage, j->c.file);
    if (!*path)
        return fv_fail_memory(err, strlen(j->stage), "a path");
    for (size_t i = 0; i < FV_COUNT(endings); i++) {
        snprintf(found, sizeof found, "%s%s", *path, endings[i]);
        if (stat(found, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (st.st_size == 0)
            return fv_fail(err, FV_ERR_IO, 0,
                           "qnn-context-binary-generator: ended with exit code 0 but left %s empty",
                           found);
        if (i && rename(found, *path) != 0)
            return fv_out_errno(err, found, "rename");
        return FV_OK;
    }
    return fv_fail(err, FV_ERR_IO, 0,
                   "qnn-context-binary-generator: ended with exit code 0 but has not written %s",
                   *path);
}

/* ---------------------------------------------------------------- what came out */

static fv_status context_judge(context_job *j, const fv_npu_binary *binary, fv_error *err)
{
    fv_npu_binary_info b = { .size = sizeof b };
    fv_npu_graph_info g = { .size = sizeof g };
    fv_npu_tensor_info t = { .size = sizeof t };
    fv_qairt_context_report *r = &j->report;
    fv_npu_binary_describe(binary, &b);
    if (!fv_npu_binary_graph(binary, 0, &g) ||
        !fv_npu_binary_tensor(binary, 0, FV_NPU_INPUT, 0, &t))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: has no graph with an input", j->c.file);
    snprintf(r->graph, sizeof r->graph, "%s", g.name);
    r->htp_version = b.htp_version;
    r->vtcm_mb = g.vtcm_mb;
    r->optimization_level = g.optimization_level;
    if (j->c.no_config) {
        if (b.htp_version && b.htp_version != j->soc.htp_version)
            fv_log(j->o->callbacks, FV_LOG_WARNING,
                   "%s: compiled for HTP v%u, the tool's own default; %s has v%u", j->c.file,
                   b.htp_version, j->soc.name, j->soc.htp_version);
        return FV_OK;
    }
    if (strcmp(g.name, j->graph) != 0)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: its graph is called %s, the configuration names %s, which the tool "
                       "ignores without a word: it was compiled with defaults",
                       j->c.file, g.name, j->graph);
    if (b.htp_version && b.htp_version != j->soc.htp_version)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: compiled for HTP v%u; expected v%u, of %s",
                       j->c.file, b.htp_version, j->soc.htp_version, j->soc.name);
    if (g.has_htp && g.optimization_level && g.optimization_level != (unsigned)j->c.optimization)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: compiled with optimisation level %u; expected %d", j->c.file,
                       g.optimization_level, j->c.optimization);
    if (g.has_htp && g.vtcm_mb && g.vtcm_mb != (unsigned)j->c.vtcm_mb)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: compiled for %u MB of VTCM; expected %d",
                       j->c.file, g.vtcm_mb, j->c.vtcm_mb);
    return FV_OK;
}

/* The same from libQnnSystem, where the SDK's can be opened on this machine. */
static fv_status context_judge_again(context_job *j, const char *path, fv_error *err)
{
    fv_npu_library_options lo = { .size = sizeof lo,
                                  .qnn_dir = j->sdk->dir,
                                  .callbacks = j->o->callbacks };
    fv_npu_library_info library = { .size = sizeof library };
    fv_npu_binary *binary = NULL;
    fv_error why = { .message = "" };
    if (fv_npu_check(&library, &lo, &why) != FV_OK || !library.system) {
        fv_log(j->o->callbacks, FV_LOG_INFO, "not read again with libQnnSystem: %s",
               why.message[0] ? why.message : library.system_problem);
        return FV_OK;
    }
    FV_TRY(fv_npu_binary_open(&binary, path, &lo, err));
    fv_status status = context_judge(j, binary, err);
    j->report.own_reader = true;
    fv_npu_binary_free(binary);
    return status;
}

/* The name of the description: "X.bin" -> "X_ctx_info.json". */
static void info_name(char name[256], const char *file)
{
    size_t n = strlen(file);
    bool bin = n > 4 && strcmp(file + n - 4, ".bin") == 0;
    snprintf(name, 256, "%.*s_ctx_info.json", (int)(bin ? n - 4 : n), file);
}

static fv_status context_check(context_job *j, const char *path, fv_error *err)
{
    struct stat st;
    char *json = NULL, *place = NULL;
    size_t n = 0;
    fv_npu_binary *binary = NULL;
    fv_status status = fv_ctx_info_make(&json, &n, j->sdk, path, j->o, err);
    if (status == FV_OK && !json) /* a dry run */
        return FV_OK;
    info_name(j->report.info, j->c.file);
    if (status == FV_OK && !(place = fv_path_join(j->stage, j->report.info)))
        status = fv_fail_memory(err, strlen(j->stage), "a path");
    if (status == FV_OK)
        status = fv_outfile_put(place, json, n, err);
    if (status == FV_OK)
        status = fv_ctx_info_parse(&binary, json, n, j->report.info, err);
    if (status == FV_OK)
        json = NULL; /* the binary's now */
    if (status == FV_OK)
        status = context_judge(j, binary, err);
    if (status == FV_OK)
        status = context_judge_again(j, path, err);
    if (stat(path, &st) == 0)
        j->report.file_bytes = (uint64_t)st.st_size;
    snprintf(j->report.file, sizeof j->report.file, "%s", j->c.file);
    fv_npu_binary_free(binary);
    fv_free(json);
    fv_free(place);
    return status;
}

/* ---------------------------------------------------------------- fastvlm_qairt.h */

/* lib<graph>.so and <graph>.dlc say what their graph is called. */
static fv_status graph_name_take(context_job *j, fv_error *err)
{
    const char *slash = strrchr(j->model, '/'), *base = slash ? slash + 1 : j->model;
    size_t n = strlen(base);
    bool so = n > 6 && strcmp(base + n - 3, ".so") == 0 && strncmp(base, "lib", 3) == 0;
    j->dlc = n > 4 && strcmp(base + n - 4, ".dlc") == 0;
    if (!so && !j->dlc)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "%s: expected a model library lib<graph>.so, or a DLC <graph>.dlc",
                       j->model);
    int length = j->c.graph ? (int)strlen(j->c.graph) : (int)(so ? n - 6 : n - 4);
    int made = snprintf(j->graph, sizeof j->graph, "%.*s", length,
                        j->c.graph ? j->c.graph
                        : so       ? base + 3
                                   : base);
    if (made >= (int)sizeof j->graph)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the graph's name is longer than %zu bytes",
                       j->model, sizeof j->graph - 1);
    return FV_OK;
}

static fv_status context_options_check(context_job *j, fv_error *err)
{
    fv_qairt_context_options *c = &j->c;
    c->file = c->file ? c->file : CONTEXT_FILE;
    c->soc = c->soc ? c->soc : "SM8750";
    FV_TRY(fv_npu_soc_take(&j->soc, c->soc, err));
    c->optimization = c->optimization ? c->optimization : 3;
    c->vtcm_mb = c->vtcm_mb ? c->vtcm_mb : (int)j->soc.vtcm_mb;
    if (c->optimization < 1 || c->optimization > 3 || c->vtcm_mb < 1 || c->vtcm_mb > 64)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "optimization is %d, vtcm_mb %d; expected 1 to 3, and 1 to 64",
                       c->optimization, c->vtcm_mb);
    if (!*c->file || strchr(c->file, '/') || strlen(c->file) > 200)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "file is \"%s\"; expected a name in the directory",
                       c->file);
    return graph_name_take(j, err);
}

static fv_status context_in(context_job *j, fv_error *err)
{
    char *path = NULL;
    FV_TRY(generator_run(j, err));
    fv_status status = j->o->dry_run ? FV_OK : generator_find(j, &path, err);
    if (status == FV_OK && !path && !(path = fv_path_join(j->stage, j->c.file)))
        status = fv_fail_memory(err, strlen(j->stage), "a path");
    if (status == FV_OK)
        status = context_check(j, path, err);
    fv_free(path);
    return status;
}

fv_status fv_qairt_context(const char *model, const char *dir,
                           const fv_qairt_context_options *context, const fv_qairt_options *options,
                           fv_qairt_context_report *report, fv_error *err)
{
    context_job j = { .report = { .size = sizeof j.report } };
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_outdir out;
    char *input = NULL;
    FV_REQUIRE(model, err);
    FV_REQUIRE(dir, err);
    if (report)
        FV_TRY(FV_RESULT_CHECK(report, fv_qairt_context_report, err));
    FV_TRY(FV_OPTIONS_IN(&j.c, fv_qairt_context_options, context, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    j.o = &o;
    j.model = model;
    FV_TRY(context_options_check(&j, err));
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    j.sdk = &sdk;
    fv_status status = fv_tool_paths(&input, model, dir, &o, err);
    j.model = input;
    if (status == FV_OK)
        status = fv_tool_stage_open(&out, &j.stage, dir, j.c.force, &o, err);
    if (status == FV_OK)
        status = fv_tool_stage_close(&out, j.stage, context_in(&j, err), err);
    if (status == FV_OK)
        fv_result_out(report, &j.report, sizeof j.report);
    fv_free(input);
    fv_sdk_close(&sdk);
    return status;
}

fv_status fv_qairt_describe(const char *binary, const char *out, bool force,
                            const fv_qairt_options *options, fv_error *err)
{
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_npu_binary *read = NULL;
    char *input = NULL, *json = NULL;
    size_t n = 0;
    FV_REQUIRE(binary, err);
    FV_REQUIRE(out, err);
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    if (!force && fv_is_there(out))
        return fv_fail(err, FV_ERR_IO, 0, "%s: there is such a file already", out);
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    fv_status status = fv_tool_paths(&input, binary, out, &o, err);
    if (status == FV_OK && !o.dry_run)
        status = fv_outfile_check(out, err);
    if (status == FV_OK)
        status = fv_ctx_info_make(&json, &n, &sdk, input, &o, err);
    if (status == FV_OK && json &&
        (status = fv_ctx_info_parse(&read, json, n, binary, err)) != FV_OK)
        fv_free(json);
    if (read)
        status = fv_outfile_put(out, fv_npu_binary_json(read), n, err);
    fv_npu_binary_free(read);
    fv_free(input);
    fv_sdk_close(&sdk);
    return status;
}
