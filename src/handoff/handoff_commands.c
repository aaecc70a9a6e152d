/* Commands in words: the one of ours that makes a missing file, and, in a dry run, those of
 * Qualcomm's tools, as src/qairt says that it would run them. */
#include <stdio.h>
#include <string.h>

#include "handoff/handoff_run.h"
#include "qairt/qairt_tool.h"

/* ---- ours ---- */

static void again_put(const char **words, size_t *n, const char *option, const char *value)
{
    if (!value)
        return;
    words[(*n)++] = option;
    words[(*n)++] = value;
}

const char *fv_handoff_again(fv_handoff_run *run, const char *with)
{
    enum { OTHERS = 24 };
    const fv_handoff_options *o = &run->o;
    char size[16], samples[16];
    size_t n = 0;
    const char **words = fv_alloc(OTHERS + 2 * o->n_paths, sizeof *words), *kept = NULL;
    if (!words)
        return NULL;
    snprintf(size, sizeof size, "%d", o->image_size);
    snprintf(samples, sizeof samples, "%d", o->max_images);
    words[n++] = "fastvlm";
    words[n++] = "handoff";
    words[n++] = run->model;
    again_put(words, &n, "-o", run->dir);
    for (size_t i = 0; i < o->n_paths; i++)
        again_put(words, &n, "--images", o->paths[i]);
    again_put(words, &n, "-n", o->max_images ? samples : NULL);
    again_put(words, &n, "--soc", o->soc);
    again_put(words, &n, "--image-size", o->image_size ? size : NULL);
    again_put(words, &n, "--vision", o->vision == FV_NPU_W8A16 ? "w8a16" : NULL);
    again_put(words, &n, "--with", with);
    again_put(words, &n, "--sdk", o->sdk);
    again_put(words, &n, "--venv", o->venv);
    words[n] = NULL;
    char *text = fv_args_text(words, NULL);
    if (text)
        kept = fv_handoff_text(&run->state, "%s", text);
    fv_free(text);
    fv_free(words);
    return kept;
}

/* ---- Qualcomm's ---- */

/* Commands stand behind "$ ". */
static void plan_log(void *user, fv_log_level level, const char *message)
{
    fv_handoff_run *run = user;
    if (!strncmp(message, "$ ", 2))
        run->said = fv_handoff_text(&run->state, "%s%s%s", run->said ? run->said : "",
                                    run->said ? " &&\n" : "", message + 2);
    else if (level == FV_LOG_WARNING)
        fv_log(run->callbacks, level, "%s", message);
}

static bool plan_progress(void *user, const char *stage, double done)
{
    const fv_handoff_run *run = user;
    return fv_progress(run->callbacks, stage, done, NULL) != FV_OK;
}

void fv_handoff_listen(fv_handoff_run *run)
{
    run->stage_callbacks = (fv_callbacks){
        .size = sizeof run->stage_callbacks, .log = plan_log, .progress = plan_progress, .user = run
    };
}

const char *fv_handoff_said(fv_handoff_run *run)
{
    const char *said = run->said;
    run->said = NULL;
    return said;
}
