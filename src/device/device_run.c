/* An image and a question, answered on the phone by our own program. See fastvlm_device.h.
 *
 *     image, prompt           ->  inputs/image.EXT, inputs/prompt.txt on the phone
 *     bin/fastvlm run ...     ->  the answer on its standard output, as it comes
 *     outputs/profile.json    ->  run_outputs/TIME/: answer.txt, profile.json, ...
 */
#include "device/device_stream.h"
#include "device/phone.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/number.h"
#include "base/sized.h"
#include "device/shell_text.h"
#include "io/json.h"
#include "qairt/run_output.h"

enum { SAID_BYTES = 256 };

/* A run while it is on its way. */
typedef struct run_task {
    fv_device *device;
    const char *image, *prompt;
    const fv_device_run_options *options;
    const fv_device_push_options *push;
    fv_device_run_report *report;
    fv_run_folder out;
    fv_run_profile profile;
    char vision[32], decoder[32]; /* its precisions */
    fv_device_stream answer;
} run_task;

/* ---------------------------------------------------------------- what is asked */

/* What every build of the program reads. Others become PPM here: their libraries are opened at run
 * time, which a static program cannot do. */
static const char *format_ending(const char *format)
{
    static const char *const endings[][2] = {
        { "JPEG", "jpg" }, { "PNG", "png" }, { "WebP", "webp" }, { "BMP", "bmp" }, { "PNM", "ppm" },
    };
    for (size_t i = 0; i < FV_COUNT(endings); i++)
        if (strcmp(format, endings[i][0]) == 0)
            return endings[i][1];
    return NULL;
}

static fv_status image_write_ppm(const fv_image *image, const char *path, fv_error *err)
{
    size_t width = (size_t)fv_image_width(image), height = (size_t)fv_image_height(image);
    char head[48];
    fv_outfile f;

    int n = snprintf(head, sizeof head, "P6\n%zu %zu\n255\n", width, height);
    FV_TRY(fv_outfile_open(&f, path, err));
    fv_status status = fv_outfile_write(&f, head, (size_t)n, err);
    if (status == FV_OK)
        status = fv_outfile_write(&f, fv_image_rgb(image), width * height * 3, err);
    if (status == FV_OK)
        return fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    return status;
}

/* Reads the image, so that one that cannot be read is said here and now; *local, to fv_free, is the
 * file to send, *ours when it was made for that. */
static fv_status image_prepare(const run_task *t, char **local, bool *ours, char *name,
                               size_t capacity, fv_error *err)
{
    fv_image *image;

    FV_TRY(fv_image_open(&image, t->image, NULL, err));
    const char *ending = format_ending(fv_image_format(image));
    fv_format(name, capacity, "inputs/image.%s", ending ? ending : "ppm");
    *ours = !ending;
    fv_status status = FV_OK;
    if (ending) {
        *local = fv_strdup(t->image);
        status = *local ? FV_OK : fv_fail_memory(err, strlen(t->image), "a path");
    } else {
        status = fv_run_folder_path(&t->out, "image.ppm", local, err);
        if (status == FV_OK)
            status = image_write_ppm(image, *local, err);
    }
    fv_image_free(image);
    return status;
}

/* Image and question onto the phone. */
static fv_status inputs_send(run_task *t, char *image_name, size_t capacity, fv_error *err)
{
    fv_push_set set = { 0 };
    char *image = NULL, *prompt = NULL;
    bool ours = false;
    size_t n_sent;
    fv_status status = image_prepare(t, &image, &ours, image_name, capacity, err);

    if (status == FV_OK)
        status = fv_run_folder_put(&t->out, "prompt.txt", t->prompt, strlen(t->prompt), err);
    if (status == FV_OK)
        status = fv_run_folder_path(&t->out, "prompt.txt", &prompt, err);
    if (status == FV_OK)
        status = fv_push_add(&set, image, image_name, false, t->options->callbacks, err);
    if (status == FV_OK)
        status = fv_push_add(&set, prompt, "inputs/prompt.txt", false, t->options->callbacks, err);
    if (status == FV_OK)
        status = fv_push_look(&set, &t->device->adb, t->device->dir, false, err);
    uint64_t n_bytes = fv_push_bytes(&set, &n_sent);
    if (status == FV_OK)
        status = fv_push_send(&set, &t->device->adb, t->device->dir, t->device->facts.free_bytes,
                              err);
    t->report->n_sent += n_sent;
    t->report->sent_bytes += n_bytes;
    if (ours && image)
        unlink(image);
    fv_push_set_free(&set);
    fv_free(image);
    fv_free(prompt);
    return status;
}

static fv_status command_text(fv_shell_text *c, const run_task *t, const char *image, fv_error *err)
{
    const fv_device_run_options *o = t->options;
    const char *dir = t->device->dir;

    fv_shell_add(c, "mkdir -p outputs; rm -f outputs/profile.json\n");
    if (t->push->npu)
        fv_shell_add(c,
                     "export FV_QNN_DIR=%s/lib\n"
                     "export LD_LIBRARY_PATH=%s/lib:/vendor/dsp/cdsp:/vendor/lib64\n"
                     "export ADSP_LIBRARY_PATH='%s/lib;/vendor/dsp/cdsp;/vendor/lib/rfsa/adsp;"
                     "/system/lib/rfsa/adsp;/dsp'\n",
                     dir, dir, dir);
    fv_shell_add(c, "%s/bin/fastvlm run", dir);
    if (t->push->model) {
        char *name = fv_push_name(t->push->model);
        fv_shell_add(c, " --model models/%s", name ? name : "");
        c->failed = c->failed || !name;
        fv_free(name);
    }
    fv_shell_add(c,
                 " --image %s --prompt-file inputs/prompt.txt --quiet --profile "
                 "outputs/profile.json",
                 image);
    if (t->push->npu) {
        char *name = fv_push_name(t->push->npu);
        fv_shell_add(c, " --vision npu:npu/%s", name ? name : "");
        c->failed = c->failed || !name;
        fv_free(name);
    } else if (o->vision != FV_PRECISION_AUTO) {
        fv_shell_add(c, " --vision %s", fv_precision_name(o->vision));
    }
    if (o->decoder != FV_PRECISION_AUTO)
        fv_shell_add(c, " --decoder %s", fv_precision_name(o->decoder));
    if (o->image_size)
        fv_shell_add(c, " --image-size %d", o->image_size);
    if (o->max_new_tokens)
        fv_shell_add(c, " --max-new-tokens %d", o->max_new_tokens);
    if (o->n_threads)
        fv_shell_add(c, " --threads %d", o->n_threads);
    return fv_shell_done(c, err);
}

/* ---------------------------------------------------------------- while it runs */

/* What the program says on standard error, kept for run.log. */
typedef struct program_output {
    fv_device_stream *answer;
    fv_shell_text log;
    char said[SAID_BYTES]; /* its last line that says something, without the newline */
} program_output;

static void program_line(void *user, bool is_error, const char *data, size_t n)
{
    program_output *r = user;
    char line[SAID_BYTES];

    if (!is_error) {
        fv_device_stream_add(r->answer, data, n);
        return;
    }
    fv_shell_add(&r->log, "%.*s", (int)n, data);
    n -= n > 0 && data[n - 1] == '\n';
    fv_format(line, sizeof line, "%.*s", (int)FV_MIN(n, sizeof line), data);
    if (n > 0 && !strstr(line, " shows its usage"))
        fv_format(r->said, sizeof r->said, "%s", line);
}

static fv_status program_judge(const run_task *t, const program_output *r, int code, fv_error *err)
{
    static const char own[] = "fastvlm: ";
    const char *said = r->said;

    if (code == 0)
        return FV_OK;
    if (strncmp(said, own, sizeof own - 1) == 0)
        said += sizeof own - 1;
    if (code > 128)
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: the program on the phone was ended by signal %d%s%s%s",
                       t->device->serial, code - 128,
                       code == 128 + 9 ? " (SIGKILL: the phone may be out of memory)" : "",
                       *said ? ": " : "", said);
    return fv_fail(err, FV_ERR_IO, 0, "%s: the program on the phone failed (exit code %d)%s%s",
                   t->device->serial, code, *said ? ": " : "", said);
}

/* ---------------------------------------------------------------- what it measured */

static const char *decoder_name(const char *precision)
{
    return strcmp(precision, "z8") == 0   ? "int8"
           : strcmp(precision, "q4") == 0 ? "int4"
                                          : precision;
}

/* A run's own report, as fastvlm run --profile writes it. */
static fv_status profile_read(run_task *t, const char *text, fv_error *err)
{
    const fv_json_value *times, *rates, *model;
    const char *vision, *decoder;
    double load, image, preprocess, encoder, projector, prefill, first, decode, prefill_rate,
        decode_rate;
    int64_t n_image, n_prompt, n_peak, n_ids = 0;
    fv_json *doc;

    FV_TRY(fv_json_parse(&doc, text, strlen(text), "profile.json of the phone", err));
    const fv_json_value *root = fv_json_root(doc), *ids;
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_json_object(doc, root, "timings_ms", &times, err));
    FV_TRY_GOTO(fv_json_object(doc, root, "tokens_per_second", &rates, err));
    FV_TRY_GOTO(fv_json_object(doc, root, "model", &model, err));
    FV_TRY_GOTO(fv_json_array(doc, root, "token_ids", &ids, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "load", 0, 1e12, &load, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "image", 0, 1e12, &image, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "preprocess", 0, 1e12, &preprocess, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "vision", 0, 1e12, &encoder, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "projector", 0, 1e12, &projector, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "prefill", 0, 1e12, &prefill, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "first_token", 0, 1e12, &first, err));
    FV_TRY_GOTO(fv_json_number(doc, times, "decode", 0, 1e12, &decode, err));
    FV_TRY_GOTO(fv_json_number(doc, rates, "prefill", -1e12, 1e12, &prefill_rate, err));
    FV_TRY_GOTO(fv_json_number(doc, rates, "decode", -1e12, 1e12, &decode_rate, err));
    FV_TRY_GOTO(fv_json_int(doc, root, "image_tokens", 0, INT32_MAX, &n_image, err));
    FV_TRY_GOTO(fv_json_int(doc, root, "prompt_tokens", 0, INT32_MAX, &n_prompt, err));
    FV_TRY_GOTO(fv_json_int(doc, root, "peak_rss_bytes", 0, INT64_MAX, &n_peak, err));
    FV_TRY_GOTO(fv_json_string(doc, model, "vision", &vision, err));
    FV_TRY_GOTO(fv_json_string(doc, model, "decoder", &decoder, err));
    n_ids = (int64_t)fv_json_count(ids);
    t->profile.init_us = load * 1e3;
    t->profile.first_token_us = first * 1e3;
    t->profile.generation_us = decode * 1e3;
    t->profile.prompt_rate = prefill_rate;
    t->profile.generation_rate = decode_rate;
    t->profile.n_prompt_tokens = n_prompt;
    t->profile.n_generated = n_ids;
    t->profile.prepare_ms = image + preprocess;
    t->profile.vision_ms = encoder + projector;
    t->profile.decode_ms = prefill + decode;
    t->profile.total_ms = load + image + first + decode;
    t->report->image_tokens = (int)n_image;
    t->report->prompt_tokens = (int)n_prompt;
    t->report->new_tokens = (int)n_ids;
    t->report->load_ms = load;
    t->report->image_ms = image + preprocess + encoder + projector;
    t->report->first_token_ms = first;
    t->report->decode_ms = decode;
    t->report->peak_bytes = (uint64_t)n_peak;
    status = fv_run_folder_put(&t->out, "fastvlm_profile.json", text, strlen(text), err);
    fv_format(t->vision, sizeof t->vision, "%s", t->push->npu ? "npu" : vision);
    fv_format(t->decoder, sizeof t->decoder, "%s", decoder_name(decoder));
    t->profile.vision = t->vision;
    t->profile.decoder = t->decoder;
fail:
    fv_json_free(doc);
    return status;
}

static fv_status profile_fetch(run_task *t, fv_error *err)
{
    fv_shell_text text = { 0 };
    char *answer = NULL;

    fv_shell_add(&text, "cat %s/outputs/profile.json", t->device->dir);
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_adb_ask(&t->device->adb, text.text, "the run left no profile", &answer, err);
    if (status == FV_OK)
        status = profile_read(t, answer, err);
    fv_free(answer);
    fv_shell_text_free(&text);
    return status;
}

/* What was run, and what it said. */
static fv_status run_log_put(const run_task *t, const char *command, const program_output *r,
                             fv_error *err)
{
    fv_shell_text text = { 0 };

    fv_shell_add(&text, "%s\n%s", command, r->log.text ? r->log.text : "");
    fv_status status = fv_shell_done(&text, err);
    if (status == FV_OK)
        status = fv_run_folder_put(&t->out, "run.log", text.text, text.n, err);
    fv_shell_text_free(&text);
    return status;
}

static fv_status run_work(run_task *t, fv_shell_text *command, program_output *r, fv_error *err)
{
    char image[64];
    int code;

    FV_TRY(inputs_send(t, image, sizeof image, err));
    FV_TRY(fv_device_job_end(t->device, err));
    FV_TRY(command_text(command, t, image, err));
    const fv_device_job job = {
        .command = command->text, .stage = "run", .raw = true, .line = program_line, .user = r
    };
    double begin = fv_now_ms();
    FV_TRY(fv_device_job_run(t->device, &job, &code, err));
    t->report->run_ms = fv_now_ms() - begin;
    FV_TRY(program_judge(t, r, code, err));
    FV_TRY(fv_device_stream_end(&t->answer, err));
    FV_TRY(profile_fetch(t, err));
    return run_log_put(t, command->text, r, err);
}

/* ---------------------------------------------------------------- from start to end */

static fv_status task_run(run_task *t, fv_error *err)
{
    const fv_device_run_options *o = t->options;
    fv_device *d = t->device;
    fv_device_push_report pushed = { .size = sizeof pushed };
    program_output r = { .answer = &t->answer };
    fv_shell_text command = { 0 };
    char name[FV_ADB_NAME + 16];
    char *place = NULL;

    d->adb.callbacks = o->callbacks;
    FV_TRY(fv_run_folder_open(&t->out, o->output ? o->output : "run_outputs", o->callbacks, err));
    t->profile = fv_run_profile_none();
    t->profile.way = "native";
    fv_format(name, sizeof name, "device %s", d->serial);
    t->profile.runner = name;
    t->profile.soc = d->facts.has_chip ? d->facts.chip.name : NULL;
    FV_TRY(fv_device_files_send(d, t->push, o->skip_push, &pushed, err));
    t->report->push_ms = pushed.ms;
    t->report->n_sent = pushed.n_sent;
    t->report->sent_bytes = pushed.n_bytes;
    d->adb.callbacks = o->callbacks;
    fv_status status = run_work(t, &command, &r, err);
    fv_shell_text_free(&r.log);
    fv_shell_text_free(&command);
    FV_TRY(status);
    FV_TRY(fv_run_folder_commit(&t->out, t->answer.kept, t->answer.n, &t->profile, &place, err));
    fv_format(t->report->dir, sizeof t->report->dir, "%s", place);
    fv_free(place);
    return FV_OK;
}

fv_status fv_device_run(fv_device *d, const char *image, const char *prompt,
                        const fv_device_run_options *options, fv_device_run_report *out,
                        fv_error *err)
{
    fv_device_run_report report = { .size = sizeof report };
    fv_device_run_options o;
    fv_device_push_options push;
    fv_callbacks callbacks;

    FV_REQUIRE(d, err);
    FV_REQUIRE(image, err);
    FV_REQUIRE(prompt, err);
    if (out)
        FV_TRY(FV_RESULT_CHECK(out, fv_device_run_report, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_device_run_options, options, err));
    FV_TRY(FV_OPTIONS_IN(&push, fv_device_push_options, o.push, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    push.callbacks = o.callbacks;
    if (!push.program)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "push->program is NULL");
    if (push.dry_run)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "push->dry_run is for fv_device_push only");
    run_task task = { .device = d,
                      .image = image,
                      .prompt = prompt,
                      .options = &o,
                      .push = &push,
                      .report = &report,
                      .answer = { .text = o.text, .user = o.text_user } };
    fv_status status = task_run(&task, err);
    fv_run_folder_abandon(&task.out);
    fv_device_stream_free(&task.answer);
    d->adb.callbacks = NULL;
    if (status == FV_OK)
        fv_result_out(out, &report, sizeof report);
    return status;
}
