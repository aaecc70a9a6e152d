/* Calibration samples: what the encoder sees, as raw files without a header, with the list that
 * Qualcomm's converters read and a record of where every sample came from.
 *
 *     sample_000.raw ...   f32 in [0, 1] or u8, [S, S, 3] (nhwc) or [3, S, S] (nchw)
 *     input_list.txt       one absolute path a line
 *     calib.json           layout, type, fit, and source, size and SHA-256 of every sample
 *
 * The layout cannot be told from the size of a file, so it is recorded. [docs/export.md] */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/report.h"
#include "base/sha256.h"
#include "export/calib_export.h"
#include "fastvlm_tools.h"
#include "image/image_list.h"
#include "model/model.h"
#include "image/image.h"
#include "io/json_write.h"

enum { DEFAULT_SIZE = 1024, MAX_SIZE = 4096 };

typedef struct calib {
    const fv_calib_options *options;
    const fv_callbacks *callbacks;
    int size;
    fv_recipe recipe;
    fv_outdir dir;
    fv_kernels kernels;
    fv_pool *pool;
    uint8_t *u8, *sample; /* [S, S, 3]; one sample as it is written */
    size_t sample_bytes;
    fv_json_text record, list;
    size_t n, n_skipped, n_chosen;
    char first_problem[400];
} calib;

/* ---- one sample ---- */

static fv_status write_sample(calib *c, const char *source, fv_error *err)
{
    char name[40], hex[2 * FV_SHA256_BYTES + 1];
    uint8_t digest[FV_SHA256_BYTES];
    fv_sha256 sha;
    snprintf(name, sizeof name, "sample_%03zu.raw", c->n);
    char *path = fv_path_join(c->dir.stage, name),
         *listed = fv_path_join(c->options->list_root, name);
    fv_status status = path && listed ? fv_outfile_put(path, c->sample, c->sample_bytes, err)
                                      : fv_fail_memory(err, strlen(c->dir.stage), "a path");
    if (status == FV_OK) {
        fv_sha256_begin(&sha);
        fv_sha256_add(&sha, c->sample, c->sample_bytes);
        fv_sha256_end(&sha, digest);
        fv_hex(hex, digest, sizeof digest);
        fv_json_line(&c->list, listed, strlen(listed));
        fv_json_begin(&c->record, NULL, '{');
        fv_json_put_text(&c->record, "file", name);
        fv_json_put_text(&c->record, "source", source);
        fv_json_put_text(&c->record, "sha256", hex);
        fv_json_end(&c->record);
        c->n++;
    }
    fv_free(path);
    fv_free(listed);
    return status;
}

/* u8 [S, S, 3] -> the sample's layout and type. Values are scaled as for the encoder itself. */
static void convert(const calib *c)
{
    size_t plane = (size_t)c->size * (size_t)c->size;
    float scaled[256][3];
    uint8_t all[256][3];
    for (int i = 0; i < 256; i++)
        memset(all[i], i, 3);
    fv_pixels_f32(scaled[0], all[0], 256, &c->recipe);
    bool planes = c->options->layout == FV_CALIB_NCHW;
    float *f32 = (float *)(void *)c->sample;
    for (size_t i = 0; i < plane; i++)
        for (size_t ch = 0; ch < 3; ch++) {
            size_t to = planes ? ch * plane + i : 3 * i + ch;
            if (c->options->dtype == FV_CALIB_F32)
                f32[to] = scaled[c->u8[3 * i + ch]][ch];
            else
                c->sample[to] = c->u8[3 * i + ch];
        }
}

/* Uniform in [0, 1), 24 bits a value, from a counter: splitmix64. */
static void fill_noise(const calib *c, size_t index)
{
    size_t n = 3 * (size_t)c->size * (size_t)c->size;
    float *f32 = (float *)(void *)c->sample;
    for (size_t i = 0; i < n; i++) {
        uint64_t z = c->options->seed + ((uint64_t)index * n + i + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        if (c->options->dtype == FV_CALIB_F32)
            f32[i] = (float)(z >> 40) * 0x1p-24f;
        else
            c->sample[i] = (uint8_t)(z >> 56);
    }
}

/* An unreadable image is counted and skipped; any other failure ends the export. */
static fv_status calib_take_image(calib *c, const char *path, fv_error *err)
{
    fv_image *image = NULL;
    fv_error why = { 0 };
    fv_status status = fv_image_open(&image, path, NULL, &why);
    if (status == FV_ERR_MEMORY)
        return fv_fail(err, status, 0, "%s", why.message);
    if (status != FV_OK) {
        if (c->n_skipped++ == 0)
            snprintf(c->first_problem, sizeof c->first_problem, "%.*s",
                     (int)sizeof c->first_problem - 1, why.message);
        fv_log(c->callbacks, FV_LOG_WARNING, "skipped: %s", why.message);
        return FV_OK;
    }
    status = fv_fit_u8(c->u8, image, &c->recipe, c->size, c->pool, &c->kernels, err);
    fv_image_free(image);
    FV_TRY(status);
    convert(c);
    return write_sample(c, path, err);
}

/* ---- the folder ---- */

static const char *fit_name(fv_fit fit)
{
    return fit == FV_FIT_CROP ? "crop" : fit == FV_FIT_STRETCH ? "stretch" : "pad";
}

static void begin_record(calib *c, size_t n_found)
{
    const fv_calib_options *s = c->options;
    fv_json_text *j = &c->record;
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "tensor", "pixel_values");
    fv_json_put_text(j, "layout", s->layout == FV_CALIB_NCHW ? "nchw" : "nhwc");
    fv_json_put_text(j, "dtype", s->dtype == FV_CALIB_U8 ? "u8" : "f32");
    fv_json_begin_row(j, "shape", '[');
    fv_json_put_int(j, NULL, 1);
    fv_json_put_int(j, NULL, s->layout == FV_CALIB_NCHW ? 3 : c->size);
    fv_json_put_int(j, NULL, c->size);
    fv_json_put_int(j, NULL, s->layout == FV_CALIB_NCHW ? c->size : 3);
    fv_json_end(j);
    fv_json_put_int(j, "bytes", (int64_t)c->sample_bytes);
    if (s->n_random) {
        fv_json_put_text(j, "selection", "random: uniform noise, activation ranges mean nothing");
        fv_json_put_int(j, "seed", (int64_t)s->seed);
    } else {
        fv_json_put_text(j, "selection",
                         c->n_chosen < n_found ? "evenly over the sorted list" : "all");
        fv_json_put_int(j, "pictures_found", (int64_t)n_found);
        fv_json_put_text(j, "fit", fit_name(c->recipe.fit));
    }
    fv_json_begin(j, "samples", '[');
}

static fv_status calib_write_text(const calib *c, const char *name, const fv_json_text *text,
                                  fv_error *err)
{
    char *path = fv_path_join(c->dir.stage, name);
    if (!path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_status status = fv_outfile_put(path, text->text ? text->text : "", text->n, err);
    fv_free(path);
    return status;
}

static fv_status write_samples(calib *c, const fv_image_list *files, fv_error *err)
{
    size_t n_found = c->options->n_random ? (size_t)c->options->n_random : files->n;
    size_t max = c->options->max_samples > 0 ? (size_t)c->options->max_samples : n_found;
    c->n_chosen = FV_MIN(max, n_found);
    begin_record(c, n_found);
    for (size_t i = 0; i < c->n_chosen; i++) {
        FV_TRY(fv_progress(c->callbacks, "samples", (double)i / (double)c->n_chosen, err));
        if (c->options->n_random) {
            char source[48];
            snprintf(source, sizeof source, "random %zu", i);
            fill_noise(c, i);
            FV_TRY(write_sample(c, source, err));
        } else {
            FV_TRY(calib_take_image(c, files->path[i * n_found / c->n_chosen], err));
        }
    }
    size_t wanted = (size_t)FV_MAX(c->options->min_samples, 1);
    if (c->n < wanted)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%zu of %zu images can be read, at least %zu are needed; the first "
                       "unreadable one: %s",
                       c->n, c->n_chosen, wanted, c->n_skipped ? c->first_problem : "none");
    fv_json_end(&c->record);
    fv_json_put_int(&c->record, "skipped", (int64_t)c->n_skipped);
    fv_json_end(&c->record);
    FV_TRY(fv_json_done(&c->record, err));
    if (c->list.failed)
        return fv_fail_memory(err, c->list.n, "the list of samples");
    FV_TRY(calib_write_text(c, "input_list.txt", &c->list, err));
    return calib_write_text(c, "calib.json", &c->record, err);
}

static fv_status calib_check(calib *c, const char *dir, fv_error *err)
{
    const fv_calib_options *s = c->options;
    c->size = s->image_size ? s->image_size : DEFAULT_SIZE;
    if (s->fit != FV_FIT_AUTO)
        c->recipe.fit = s->fit;
    if (c->size < FV_PATCH || c->size > MAX_SIZE || c->size % FV_PATCH)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "image_size is %d; expected a multiple of %d up to %d", c->size, FV_PATCH,
                       MAX_SIZE);
    if (s->n_random < 0 || s->max_samples < 0 || s->min_samples < 0 || s->n_random > 100000)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "the number of samples is %d; expected 0 to 100000",
                       FV_MIN(s->n_random, FV_MIN(s->max_samples, s->min_samples)));
    if ((s->n_random > 0) == (s->n_paths > 0))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       s->n_paths ? "both images and random samples were requested; choose one"
                                  : "neither images nor random samples were requested");
    if (strchr(s->list_root ? s->list_root : dir, ' '))
        return fv_fail(
            err, FV_ERR_ARGUMENT, 0,
            "%s: the path contains a space, which the readers of input_list.txt treat as "
            "the end of a name; choose a path without spaces",
            s->list_root ? s->list_root : dir);
    return FV_OK;
}

/* The folder as an absolute path, which input_list.txt wants. */
static fv_status absolute(char **out, const char *dir, fv_error *err)
{
    char here[PATH_MAX];
    if (*dir == '/') {
        *out = fv_strdup(dir);
    } else if (getcwd(here, sizeof here)) {
        *out = fv_path_join(here, !strncmp(dir, "./", 2) ? dir + 2 : dir);
    } else {
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: the current directory has no name; give an absolute path", dir);
    }
    if (!*out)
        return fv_fail_memory(err, strlen(dir), "a path");
    if (strchr(*out, ' ')) {
        fv_fail(err, FV_ERR_ARGUMENT, 0,
                "%s: the path contains a space, which the readers of input_list.txt treat as "
                "the end of a name; choose a path without spaces",
                *out);
        fv_free(*out);
        *out = NULL;
        return FV_ERR_ARGUMENT;
    }
    return FV_OK;
}

fv_status fv_export_calib(const fv_calib_options *calib_options, const char *dir,
                          const fv_export_options *options, fv_calib_report *report, fv_error *err)
{
    return fv_export_calib_for(FV_RECIPE(FV_FIT_PAD), calib_options, dir, options, report, err);
}

fv_status fv_export_calib_for(const fv_recipe *recipe, const fv_calib_options *calib_options,
                              const char *dir, const fv_export_options *options,
                              fv_calib_report *report, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_calib_options wanted;
    fv_export_options o;
    fv_callbacks callbacks;
    fv_image_list files = { 0 };
    char *root = NULL;
    fv_status status = FV_OK;
    FV_REQUIRE(calib_options, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&wanted, fv_calib_options, calib_options, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (report)
        FV_TRY(FV_RESULT_CHECK(report, fv_calib_report, err));
    calib c = { .options = &wanted, .callbacks = o.callbacks, .recipe = *recipe };
    FV_TRY(calib_check(&c, dir, err));
    FV_TRY_GOTO(fv_image_list_collect(&files, wanted.paths, wanted.n_paths, err));
    if (!wanted.list_root) {
        FV_TRY_GOTO(absolute(&root, dir, err));
        wanted.list_root = root;
    }
    size_t n = 3 * (size_t)c.size * (size_t)c.size;
    c.sample_bytes = n * (wanted.dtype == FV_CALIB_F32 ? sizeof(float) : 1);
    c.u8 = fv_alloc(n, 1);
    c.sample = fv_alloc(c.sample_bytes, 1);
    if (!c.u8 || !c.sample) {
        status = fv_fail_memory(err, n + c.sample_bytes, "a sample");
        goto fail;
    }
    fv_kernels_open(&c.kernels, fv_cpu_level(NULL), NULL);
    FV_TRY_GOTO(fv_pool_new(&c.pool, fv_cpu_cores(), err));
    FV_TRY_GOTO(fv_outdir_open(&c.dir, dir, o.force, o.callbacks, err));
    FV_TRY_GOTO(write_samples(&c, &files, err));
    FV_TRY_GOTO(fv_outdir_commit(&c.dir, err));
    fv_log(o.callbacks, FV_LOG_INFO, "%s: %zu samples, %zu images skipped", dir, c.n, c.n_skipped);
    if (wanted.n_random)
        fv_log(o.callbacks, FV_LOG_WARNING,
               "random samples: activation ranges calibrated with them are meaningless; use "
               "images for anything but a trial run of the tools");
    if (report) {
        fv_calib_report done = { .n_samples = c.n, .n_skipped = c.n_skipped };
        fv_result_out(report, &done, sizeof done);
    }
fail:
    fv_outdir_abandon(&c.dir);
    fv_pool_free(c.pool);
    fv_free(c.u8);
    fv_free(c.sample);
    fv_free(root);
    fv_json_text_free(&c.record);
    fv_json_text_free(&c.list);
    fv_image_list_free(&files);
    return status;
}
