/* ONNX -> a quantised model: qnn-onnx-converter (C++ and weights), or qairt-converter and
 * qairt-quantizer (a DLC); the C++ as a library: qnn-model-lib-generator.
 *
 * Arguments are those of the reference Qualcomm pipeline unless the caller asks for others. The
 * converters ignore every quantiser's option without a word when there is no calibration list, and
 * cannot tell samples of another layout, so the list is looked at before. [docs/qairt.md] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/outfile.h"
#include "base/outpart.h"
#include "base/report.h"
#include "base/sized.h"
#include "io/json.h"
#include "qairt/qairt_tool.h"

#define CODE_NAME  "vision_encoder_int8_qnnmodel"
#define FLOAT_NAME "vision_encoder_fp32"
#define INT8_NAME  "vision_encoder_int8"

enum {
    LIST_BYTES = 64 << 20,
    RECORD_BYTES = 64 << 20,
    CODE_BYTES = 512 << 20,
    MAX_SAMPLES = 1000000
};

/* ---------------------------------------------------------------- the calibration list */

/* calib.json beside the list, where the exporter has left one: layout and type are those that the
 * converted graph takes. */
static fv_status samples_check_record(const char *list, bool keep_layout,
                                      const fv_callbacks *callbacks, fv_error *err)
{
    char *folder = NULL, *name = NULL, *path = NULL;
    fv_json *doc = NULL;
    const char *layout = "", *dtype = "", *selection = "";
    const char *wanted = keep_layout ? "nchw" : "nhwc";
    fv_status status = FV_OK;
    if (!fv_out_split(list, &folder, &name) || !(path = fv_path_join(folder, "calib.json")))
        status = fv_fail_memory(err, strlen(list), "a path");
    if (status != FV_OK || !fv_is_file(path))
        goto fail;
    FV_TRY_GOTO(fv_json_open(&doc, path, RECORD_BYTES, err));
    FV_TRY_GOTO(fv_json_opt_string(doc, fv_json_root(doc), "layout", &layout, err));
    FV_TRY_GOTO(fv_json_opt_string(doc, fv_json_root(doc), "dtype", &dtype, err));
    FV_TRY_GOTO(fv_json_opt_string(doc, fv_json_root(doc), "selection", &selection, err));
    if (*layout && strcmp(layout, wanted) != 0)
        status = fv_fail(err, FV_ERR_ARGUMENT, 0,
                         "%s: the samples are %s, the converted graph takes %s; the converter "
                         "cannot tell",
                         path, layout, wanted);
    else if (*dtype && strcmp(dtype, "f32") != 0)
        status = fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: the samples are %s; the converter reads f32",
                         path, dtype);
    if (!strncmp(selection, "random", 6))
        fv_log(callbacks, FV_LOG_WARNING,
               "%s: the samples are noise, activation ranges found with them mean nothing", path);
fail:
    fv_json_free(doc);
    fv_free(path);
    fv_free(folder);
    fv_free(name);
    return status;
}

static fv_status samples_check_line(const char *list, size_t number, const char *line,
                                    int image_size, fv_error *err)
{
    struct stat st;
    uint64_t n_bytes = (uint64_t)image_size * (uint64_t)image_size * 3 * sizeof(float);
    if (*line != '/' || strpbrk(line, " \t#%") || strstr(line, ":="))
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: line %zu is \"%.200s\"; expected one absolute path without blanks",
                       list, number, line);
    if (stat(line, &st) != 0 || !S_ISREG(st.st_mode))
        return fv_fail(err, FV_ERR_IO, 0, "%s: line %zu names %s, which is not a file", list,
                       number, line);
    if ((uint64_t)st.st_size != n_bytes)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: has %lld bytes; expected %" PRIu64 ": f32 of an image_size of %d", line,
                       (long long)st.st_size, n_bytes, image_size);
    return FV_OK;
}

static fv_status samples_check(const char *list, const fv_qairt_convert_options *o,
                               const fv_callbacks *callbacks, fv_error *err)
{
    uint8_t *text = NULL;
    size_t n = 0, number = 0, n_samples = 0;
    fv_status status = fv_read_file(&text, &n, list, LIST_BYTES, err);
    for (char *line = (char *)text; status == FV_OK && line && *line;) {
        char *end = line + strcspn(line, "\n");
        bool last = !*end;
        *end = 0;
        number++;
        if (end > line && end[-1] == '\r')
            status = fv_fail(err, FV_ERR_FORMAT, 0,
                             "%s: line %zu ends with a carriage return; expected a newline alone",
                             list, number);
        else if (end > line) {
            status = samples_check_line(list, number, line, o->image_size, err);
            n_samples++;
        }
        line = end + !last;
    }
    fv_free(text);
    FV_TRY(status);
    if (!n_samples)
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: names no sample", list);
    return samples_check_record(list, o->keep_layout, callbacks, err);
}

/* ---------------------------------------------------------------- options */

static fv_status convert_check(fv_qairt_convert_options *o, int usual_bias_bits, fv_error *err)
{
    o->name = o->name ? o->name : o->dlc ? FLOAT_NAME : CODE_NAME;
    o->input_name = o->input_name ? o->input_name : "pixel_values";
    o->output_name = o->output_name ? o->output_name : "image_features";
    o->image_size = o->image_size ? o->image_size : 1024;
    o->activation_bits = o->activation_bits ? o->activation_bits : 8;
    o->weight_bits = o->weight_bits ? o->weight_bits : 8;
    o->bias_bits = o->bias_bits ? o->bias_bits : usual_bias_bits;
    if (o->image_size < 64 || o->image_size > 4096 || o->image_size % 64)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of 64 up to 4096", o->image_size);
    if ((o->activation_bits != 8 && o->activation_bits != 16) ||
        (o->weight_bits != 4 && o->weight_bits != 8) || (o->bias_bits != 8 && o->bias_bits != 32))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "bits of activations, weights, biases are %d, %d, %d; expected 8 or 16, 4 "
                       "or 8, 8 or 32",
                       o->activation_bits, o->weight_bits, o->bias_bits);
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    if (!*o->name || strlen(o->name) > 100 || strspn(o->name, letters) != strlen(o->name))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "name is \"%s\"; expected letters, digits and underscores: it becomes a "
                       "name in C++",
                       o->name);
    return FV_OK;
}

static void convert_put_quantizer(fv_args *a, const fv_qairt_convert_options *o)
{
    fv_args_add2(a, "--input_list", o->input_list);
    fv_args_add(a, "--act_bitwidth"), fv_args_format(a, "%d", o->activation_bits);
    fv_args_add(a, "--weights_bitwidth"), fv_args_format(a, "%d", o->weight_bits);
    fv_args_add(a, "--bias_bitwidth"), fv_args_format(a, "%d", o->bias_bits);
}

/* The command that the reference Qualcomm pipeline has on record, word for word. */
static void convert_put_cpp(fv_args *a, const char *onnx, const char *prefix,
                            const fv_qairt_convert_options *o)
{
    fv_args_add(a, "qnn-onnx-converter");
    fv_args_add2(a, "--input_network", onnx);
    fv_args_add2(a, "--input_dim", o->input_name);
    fv_args_format(a, "1,3,%d,%d", o->image_size, o->image_size);
    fv_args_add2(a, "--input_layout", o->input_name);
    fv_args_add(a, "NCHW");
    convert_put_quantizer(a, o);
    fv_args_add2(a, "--act_quantizer", "tf");
    fv_args_add2(a, "--act_quantizer_calibration", "min-max");
    fv_args_add2(a, "--act_quantizer_schema", "asymmetric");
    fv_args_add2(a, "--param_quantizer_calibration", "min-max");
    fv_args_add2(a, "--param_quantizer_schema", "asymmetric");
    fv_args_add2(a, "--float_bitwidth", "32");
    fv_args_add2(a, "--float_bias_bitwidth", "32");
    fv_args_add2(a, "--out_node", o->output_name);
    if (o->per_channel)
        fv_args_add(a, "--use_per_channel_quantization");
    if (o->keep_layout)
        fv_args_add2(a, "--preserve_io", "layout");
    fv_args_add2(a, "-o", prefix);
}

static void convert_put_dlc(fv_args *a, const char *onnx, const char *out,
                            const fv_qairt_convert_options *o)
{
    fv_args_add(a, "qairt-converter");
    fv_args_add2(a, "--input_network", onnx);
    fv_args_add2(a, "--desired_input_shape", o->input_name);
    fv_args_format(a, "1,3,%d,%d", o->image_size, o->image_size);
    fv_args_add2(a, "--out_tensor_node", o->output_name);
    fv_args_add2(a, "--output_path", out);
}

/* ---------------------------------------------------------------- what came out */

/* The generated code names its inputs and outputs as strings, unlike the command that it records in
 * a comment: a converter that stopped half-way has none. */
static fv_status code_check(const char *path, const fv_qairt_convert_options *o, fv_error *err)
{
    fv_map map;
    const char *const names[] = { o->input_name, o->output_name };
    fv_status status = fv_map_open(&map, path, err);
    FV_TRY(status);
    for (size_t i = 0; i < FV_COUNT(names) && status == FV_OK; i++) {
        char text[300];
        int n = snprintf(text, sizeof text, "\"%s\"", names[i]);
        if (!memmem(map.data, FV_MIN(map.size, (size_t)CODE_BYTES), text,
                    FV_MIN((size_t)n, sizeof text - 1)))
            status = fv_fail(err, FV_ERR_FORMAT, 0,
                             "%s: the converter's code does not name %s; expected the graph's %s",
                             path, names[i], i ? "output" : "input");
    }
    fv_map_close(&map);
    return status;
}

static fv_status convert_in(const fv_sdk *sdk, const char *onnx, const char *stage,
                            const fv_qairt_convert_options *o, const fv_qairt_options *options,
                            fv_error *err)
{
    fv_args args = { 0 };
    char *prefix = fv_path_join(stage, o->name), *cpp = NULL, *bin = NULL, *dlc = NULL;
    fv_status status = FV_OK;
    if (!prefix || !(cpp = fv_out_path(prefix, ".cpp")) || !(bin = fv_out_path(prefix, ".bin")) ||
        !(dlc = fv_out_path(prefix, ".dlc"))) {
        status = fv_fail_memory(err, strlen(stage), "a path");
        goto fail;
    }
    if (o->dlc) {
        convert_put_dlc(&args, onnx, dlc, o);
        fv_args_expect(&args, dlc);
    } else {
        convert_put_cpp(&args, onnx, prefix, o);
        fv_args_expect(&args, cpp);
        fv_args_expect(&args, bin);
    }
    FV_TRY_GOTO(fv_tool_run(sdk, &args, stage, options, err));
    if (!o->dlc && !options->dry_run)
        status = code_check(cpp, o, err);
fail:
    fv_args_free(&args);
    fv_free(prefix);
    fv_free(cpp);
    fv_free(bin);
    fv_free(dlc);
    return status;
}

/* ---------------------------------------------------------------- fastvlm_qairt.h */

fv_status fv_qairt_convert(const char *onnx, const char *dir,
                           const fv_qairt_convert_options *convert, const fv_qairt_options *options,
                           fv_error *err)
{
    fv_qairt_convert_options c;
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_outdir out;
    char *input = NULL, *stage, *list = NULL;
    FV_REQUIRE(onnx, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&c, fv_qairt_convert_options, convert, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    FV_TRY(convert_check(&c, 8, err));
    if (!c.dlc)
        FV_REQUIRE(c.input_list, err);
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    fv_status status = fv_tool_paths(&input, onnx, dir, &o, err);
    if (status == FV_OK && !c.dlc) {
        status = fv_tool_paths(&list, c.input_list, dir, &o, err);
        c.input_list = list;
        if (status == FV_OK && fv_tool_has(list, &o))
            status = samples_check(list, &c, o.callbacks, err);
    }
    if (status == FV_OK)
        status = fv_tool_stage_open(&out, &stage, dir, c.force, &o, err);
    if (status == FV_OK)
        status = fv_tool_stage_close(&out, stage, convert_in(&sdk, input, stage, &c, &o, err), err);
    fv_free(input);
    fv_free(list);
    fv_sdk_close(&sdk);
    return status;
}

static void quantize_put(fv_args *a, const char *dlc, const char *out,
                         const fv_qairt_convert_options *o)
{
    fv_args_add(a, "qairt-quantizer");
    fv_args_add2(a, "--input_dlc", dlc);
    fv_args_add2(a, "--output_dlc", out);
    convert_put_quantizer(a, o);
    if (o->per_channel)
        fv_args_add(a, "--use_per_channel_quantization");
    fv_args_add2(a, "--act_quantizer_calibration", "min-max");
    fv_args_add2(a, "--act_quantizer_schema", "asymmetric");
}

static fv_status quantize_in(const fv_sdk *sdk, const char *dlc, const char *stage,
                             const fv_qairt_convert_options *c, const fv_qairt_options *o,
                             fv_error *err)
{
    fv_args args = { 0 };
    char *path = fv_path_join(stage, c->name), *out = path ? fv_out_path(path, ".dlc") : NULL;
    fv_status status = out ? FV_OK : fv_fail_memory(err, strlen(stage), "a path");
    if (status == FV_OK) {
        quantize_put(&args, dlc, out, c);
        fv_args_expect(&args, out);
        status = fv_tool_run(sdk, &args, stage, o, err);
    }
    fv_args_free(&args);
    fv_free(path);
    fv_free(out);
    return status;
}

fv_status fv_qairt_quantize(const char *dlc, const char *dir,
                            const fv_qairt_convert_options *convert,
                            const fv_qairt_options *options, fv_error *err)
{
    fv_qairt_convert_options c;
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_outdir out;
    char *input = NULL, *stage, *list = NULL;
    FV_REQUIRE(dlc, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&c, fv_qairt_convert_options, convert, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    c.keep_layout = true; /* qairt-converter leaves the axes as they are */
    c.name = c.name ? c.name : INT8_NAME;
    FV_TRY(convert_check(&c, 32, err));
    FV_REQUIRE(c.input_list, err);
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    fv_status status = fv_tool_paths(&input, dlc, dir, &o, err);
    if (status == FV_OK)
        status = fv_tool_paths(&list, c.input_list, dir, &o, err);
    c.input_list = list;
    if (status == FV_OK && fv_tool_has(list, &o))
        status = samples_check(list, &c, o.callbacks, err);
    if (status == FV_OK)
        status = fv_tool_stage_open(&out, &stage, dir, c.force, &o, err);
    if (status == FV_OK)
        status = fv_tool_stage_close(&out, stage, quantize_in(&sdk, input, stage, &c, &o, err),
                                     err);
    fv_free(input);
    fv_free(list);
    fv_sdk_close(&sdk);
    return status;
}

/* ---------------------------------------------------------------- the library */

/* "dir/NAME.cpp" -> NAME; to fv_free, NULL when memory is out. */
static char *lib_name_of(const char *cpp)
{
    const char *slash = strrchr(cpp, '/');
    char *name = fv_strdup(slash ? slash + 1 : cpp);
    char *dot = name ? strrchr(name, '.') : NULL;
    if (dot)
        *dot = 0;
    return name;
}

static void lib_expect(fv_args *a, const char *stage, const char *target, const char *name)
{
    char path[1200];
    int n = snprintf(path, sizeof path, "%s/%s/lib%s.so", stage, target, name);
    if (n < 0 || (size_t)n >= sizeof path)
        a->failed = true;
    else
        fv_args_expect(a, path);
}

static fv_status lib_in(const fv_sdk *sdk, const char *cpp, const char *stage,
                        const fv_qairt_lib_options *l, const fv_qairt_options *o, fv_error *err)
{
    fv_args args = { 0 };
    const char *ndk = getenv("ANDROID_NDK_ROOT");
    bool phone = !l->host_only && ndk && *ndk;
    char *own = lib_name_of(cpp), *base = fv_strdup(cpp), *dot = base ? strrchr(base, '.') : NULL;
    if (dot)
        *dot = 0;
    char *bin = base ? fv_out_path(base, ".bin") : NULL;
    fv_status status = own && bin ? FV_OK : fv_fail_memory(err, strlen(cpp), "a path");
    if (status == FV_OK && fv_tool_has(cpp, o) && !fv_is_file(bin))
        status = fv_fail(err, FV_ERR_IO, 0,
                         "%s: no such file; expected the weights beside the code, without "
                         "which the library would not run",
                         bin);
    if (status == FV_OK) {
        const char *name = l->name ? l->name : own;
        fv_args_add(&args, "qnn-model-lib-generator");
        fv_args_add2(&args, "-c", cpp);
        fv_args_add2(&args, "-b", bin);
        fv_args_add(&args, "-t");
        if (phone)
            fv_args_add(&args, FV_SDK_PHONE);
        fv_args_add(&args, FV_SDK_HOST);
        fv_args_add2(&args, "-l", name);
        fv_args_add2(&args, "-o", stage);
        lib_expect(&args, stage, FV_SDK_HOST, name);
        if (phone)
            lib_expect(&args, stage, FV_SDK_PHONE, name);
        else if (!l->host_only)
            fv_log(o->callbacks, FV_LOG_INFO,
                   "ANDROID_NDK_ROOT is not set: no library for the phone, which only on-device "
                   "preparation needs");
        status = fv_tool_run(sdk, &args, stage, o, err);
    }
    fv_args_free(&args);
    fv_free(own);
    fv_free(base);
    fv_free(bin);
    return status;
}

fv_status fv_qairt_lib(const char *cpp, const char *dir, const fv_qairt_lib_options *lib,
                       const fv_qairt_options *options, fv_error *err)
{
    fv_qairt_lib_options l;
    fv_qairt_options o;
    fv_callbacks callbacks;
    fv_sdk sdk;
    fv_outdir out;
    char *input = NULL, *stage;
    FV_REQUIRE(cpp, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&l, fv_qairt_lib_options, lib, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    FV_TRY(fv_sdk_open(&sdk, &o, err));
    fv_status status = fv_tool_paths(&input, cpp, dir, &o, err);
    if (status == FV_OK)
        status = fv_tool_stage_open(&out, &stage, dir, l.force, &o, err);
    if (status == FV_OK)
        status = fv_tool_stage_close(&out, stage, lib_in(&sdk, input, stage, &l, &o, err), err);
    fv_free(input);
    fv_sdk_close(&sdk);
    return status;
}
