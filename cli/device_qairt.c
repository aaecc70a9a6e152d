/* fastvlm device run --with qairt: the SDK's programs on the phone, with the files of the reference
 * Qualcomm pipeline where it has them. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_qairt.h"
#include "qairt.h"

enum { PATH_BYTES = sizeof((phone_qairt *)0)->vision_file };

/* The last file that a pattern under models/ gives; "" when there is none. */
static void newest_file(char path[PATH_BYTES], const char *models, const char *pattern)
{
    glob_t found = { 0 };
    snprintf(path, PATH_BYTES, "%s/%s", models, pattern);
    bool some = glob(path, 0, NULL, &found) == 0 && found.gl_pathc > 0;
    snprintf(path, PATH_BYTES, "%s", some ? found.gl_pathv[found.gl_pathc - 1] : "");
    globfree(&found);
}

/* Where the pipeline's steps leave a file; an exit code after saying that there is none. */
static int pipeline_file(char path[PATH_BYTES], const char *models, const char *pattern,
                         const char *what)
{
    newest_file(path, models, pattern);
    if (*path)
        return -1;
    print_err("fastvlm: %s/%s: no such file; expected %s; fastvlm handoff "
              "CHECKPOINT --with qairt -o %s makes it\n",
              models, pattern, what, models);
    return EXIT_FAILED;
}

static int vision_choose(char path[PATH_BYTES], const char *models, const char *vision)
{
    if (!strncmp(vision, "npu:", 4)) {
        snprintf(path, PATH_BYTES, "%s", vision + 4);
        return -1;
    }
    if (!strcmp(vision, "cpu"))
        return usage_error("device run", "--with qairt: --vision is int8, fp16 or npu:FILE");
    return pipeline_file(path, models,
                         strcmp(vision, "int8") ? "fastvlm-qaihub-fp16-context/*vision*/*.bin"
                                                : "fastvlm-genie/local_context/"
                                                  "vision_int8_qnnmodel/output/*.bin",
                         "the vision encoder's context binary (or --vision npu:FILE)");
}

static int decoder_choose(char path[PATH_BYTES], const char *models, fv_precision decoder)
{
    const char *name = decoder == FV_PRECISION_F32  ? "fastvlm-genie/fastvlm_model.bin"
                       : decoder == FV_PRECISION_Q4 ? "fastvlm-genie/fastvlm_model_q4.bin"
                                                    : "fastvlm-genie/fastvlm_model_z8.bin";
    return pipeline_file(path, models, name, "Genie's decoder");
}

/* The SDK's files for the phone, while no phone has been touched. */
static int sdk_look(const phone_qairt *q)
{
    fv_qairt_options o;
    fv_qairt_info info = { .size = sizeof info };
    fv_error err;
    fv_qairt_options_default(&o);
    o.sdk = q->sdk;
    bool good = fv_qairt_check(&info, &o, &err) == FV_OK &&
                fv_device_check_sdk(info.dir, true, &err) == FV_OK;
    return good ? -1 : report(&err);
}

int device_find_qairt(phone_qairt *q)
{
    const char *models = q->models ? q->models : "models";
    int code = vision_choose(q->vision_file, models, q->vision ? q->vision : "int8");
    if (code < 0)
        code = decoder_choose(q->decoder_file, models, q->decoder);
    return code < 0 ? sdk_look(q) : code;
}

int device_run_qairt(fv_device *device, const phone_qairt *q)
{
    fv_qairt_run_options o;
    fv_qairt_options options;
    fv_qairt_run_report r = { .size = sizeof r };
    fv_image *image = NULL;
    fv_error err;
    fv_qairt_run_options_default(&o);
    fv_qairt_options_default(&options);
    o.model = q->model;
    o.vision = q->vision_file;
    o.embedder = q->embedder;
    o.decoder = q->decoder_file;
    o.output = q->output;
    o.max_new_tokens = q->max_new_tokens;
    o.n_threads = q->n_threads;
    o.text = qairt_write_text;
    options.sdk = q->sdk;
    options.callbacks = q->callbacks;
    if (open_image(&image, q->image, NULL, &err) != FV_OK)
        return report(&err);
    fv_status status = fv_device_run_qairt(device, image, q->prompt, strlen(q->prompt), &o,
                                           &options, q->skip_push, &r, &err);
    clear_line();
    fv_image_free(image);
    if (status != FV_OK)
        return report(&err);
    print_out("\n");
    int code = end_out();
    if (!q->quiet) {
        qairt_print_profile(&r.genie);
        print_err("%s\n", r.output);
    }
    return code;
}
