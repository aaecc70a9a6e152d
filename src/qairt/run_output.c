/* The folder of a run, and the profile in it. See run_output.h. */
#include "qairt/run_output.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/number.h"
#include "base/outpart.h"
#include "io/json.h"
#include "io/json_write.h"

enum { PROFILE_BYTES = 64 << 20, MAX_SAME_SECOND = 1000 };

/* ---------------------------------------------------------------- profile.json */

fv_run_profile fv_run_profile_none(void)
{
    return (fv_run_profile){ .way = "",
                             .runner = "",
                             .vision = "",
                             .decoder = "",
                             .init_us = -1,
                             .first_token_us = -1,
                             .generation_us = -1,
                             .prompt_rate = -1,
                             .generation_rate = -1,
                             .n_prompt_tokens = -1,
                             .n_generated = -1,
                             .prepare_ms = -1,
                             .vision_ms = -1,
                             .embed_ms = -1,
                             .splice_ms = -1,
                             .decode_ms = -1,
                             .total_ms = -1 };
}

/* The values that Genie's profile and ours share: key, unit, place. */
static const struct value {
    const char *key, *unit;
    size_t at;
    bool is_count, is_init;
} values[] = {
    { "init-time", "us", offsetof(fv_run_profile, init_us), false, true },
    { "num-prompt-tokens", "", offsetof(fv_run_profile, n_prompt_tokens), true, false },
    { "prompt-processing-rate", "toks/sec", offsetof(fv_run_profile, prompt_rate), false, false },
    { "time-to-first-token", "us", offsetof(fv_run_profile, first_token_us), false, false },
    { "num-generated-tokens", "", offsetof(fv_run_profile, n_generated), true, false },
    { "token-generation-rate", "toks/sec", offsetof(fv_run_profile, generation_rate), false,
      false },
    { "token-generation-time", "us", offsetof(fv_run_profile, generation_us), false, false },
};

static double value_get(const fv_run_profile *p, const struct value *v)
{
    const char *at = (const char *)p + v->at;
    return v->is_count ? (double)*(const int64_t *)(const void *)at
                       : *(const double *)(const void *)at;
}

static void value_set(fv_run_profile *p, const struct value *v, double x)
{
    char *at = (char *)p + v->at;
    if (v->is_count)
        *(int64_t *)(void *)at = (int64_t)x;
    else
        *(double *)(void *)at = x;
}

static fv_status event_read(fv_run_profile *p, const fv_json *doc, const fv_json_value *event,
                            bool init, fv_error *err)
{
    for (size_t i = 0; i < FV_COUNT(values); i++) {
        const fv_json_value *pair = NULL;
        double x = 0;
        if (values[i].is_init != init)
            continue;
        FV_TRY(fv_json_opt_object(doc, event, values[i].key, &pair, err));
        if (!pair)
            continue;
        FV_TRY(fv_json_number(doc, pair, "value", 0, 1e15, &x, err));
        value_set(p, &values[i], x);
    }
    return FV_OK;
}

fv_status fv_run_profile_parse(fv_run_profile *profile, const void *text, size_t n_bytes,
                               const char *name, fv_error *err)
{
    fv_json *doc = NULL;
    const fv_json_value *components = NULL;
    bool query = false;
    fv_status status = FV_OK;
    FV_TRY(fv_json_parse(&doc, text, n_bytes, name, err));
    FV_TRY_GOTO(fv_json_array(doc, fv_json_root(doc), "components", &components, err));
    for (size_t i = 0; i < fv_json_count(components); i++) {
        const fv_json_value *events = NULL, *component = fv_json_at(components, i);
        if (fv_json_type_of(component) != FV_JSON_OBJECT)
            continue;
        FV_TRY_GOTO(fv_json_opt_array(doc, component, "events", &events, err));
        for (size_t k = 0; k < fv_json_count(events); k++) {
            const fv_json_value *event = fv_json_at(events, k);
            const char *type = "";
            if (fv_json_type_of(event) != FV_JSON_OBJECT)
                continue;
            FV_TRY_GOTO(fv_json_opt_string(doc, event, "type", &type, err));
            bool create = !strcmp(type, "GenieDialog_create");
            if (!create && strcmp(type, "GenieDialog_query") != 0)
                continue;
            query = query || !create;
            FV_TRY_GOTO(event_read(profile, doc, event, create, err));
        }
    }
    if (!query)
        status = fv_fail(err, FV_ERR_FORMAT, 0, "%s: has no event GenieDialog_query",
                         fv_json_name(doc));
fail:
    fv_json_free(doc);
    return status;
}

fv_status fv_run_profile_read(fv_run_profile *profile, const char *path, fv_error *err)
{
    uint8_t *text = NULL;
    size_t n = 0;
    FV_TRY(fv_read_file(&text, &n, path, PROFILE_BYTES, err));
    fv_status status = fv_run_profile_parse(profile, text, n, path, err);
    fv_free(text);
    return status;
}

static void version_put(fv_json_text *j, const char *key)
{
    fv_json_begin_row(j, key, '{');
    fv_json_put_int(j, "major", 0);
    fv_json_put_int(j, "minor", 1);
    fv_json_put_int(j, "patch", 0);
    fv_json_end(j);
}

static void dialog_event_put(fv_json_text *j, const fv_run_profile *p, const char *type, bool init)
{
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "type", type);
    for (size_t i = 0; i < FV_COUNT(values); i++) {
        double x = value_get(p, &values[i]);
        if (values[i].is_init != init || !(x >= 0))
            continue;
        fv_json_begin_row(j, values[i].key, '{');
        if (values[i].is_count || !strcmp(values[i].unit, "us"))
            fv_json_put_int(j, "value", (int64_t)(x + 0.5));
        else
            fv_json_put_real(j, "value", x);
        fv_json_put_text(j, "unit", values[i].unit);
        fv_json_end(j);
    }
    fv_json_end(j);
}

static void component_begin(fv_json_text *j, const char *name, const char *type)
{
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "name", name);
    fv_json_put_text(j, "type", type);
    fv_json_begin(j, "events", '[');
}

static void profile_put(fv_json_text *j, const fv_run_profile *p)
{
    const struct {
        const char *name;
        double ms;
    } stages[] = { { "prepare", p->prepare_ms }, { "vision", p->vision_ms },
                   { "embed", p->embed_ms },     { "splice", p->splice_ms },
                   { "decode", p->decode_ms },   { "total", p->total_ms } };
    fv_json_begin(j, NULL, '{');
    fv_json_begin(j, "header", '{');
    version_put(j, "header_version");
    version_put(j, "version");
    fv_json_put_text(j, "artifact_type", "GENIE_PROFILE");
    fv_json_end(j);
    fv_json_begin(j, "metadata", '{');
    fv_json_put_int(j, "timestamp", (int64_t)time(NULL));
    fv_json_put_text(j, "way", p->way);
    fv_json_put_text(j, "runner", p->runner);
    fv_json_put_text(j, "soc", p->soc);
    fv_json_put_text(j, "vision", p->vision);
    fv_json_put_text(j, "decoder", p->decoder);
    fv_json_end(j);
    fv_json_begin(j, "components", '[');
    component_begin(j, "fastvlm", "dialog");
    dialog_event_put(j, p, "GenieDialog_create", true);
    dialog_event_put(j, p, "GenieDialog_query", false);
    fv_json_end(j);
    fv_json_end(j);
    component_begin(j, "fastvlm", "pipeline");
    for (size_t i = 0; i < FV_COUNT(stages); i++) {
        if (!(stages[i].ms >= 0))
            continue;
        fv_json_begin_row(j, NULL, '{');
        fv_json_put_text(j, "type", stages[i].name);
        fv_json_put_int(j, "duration", (int64_t)(stages[i].ms * 1e3 + 0.5));
        fv_json_end(j);
    }
    fv_json_end(j);
    fv_json_end(j);
    fv_json_end(j);
    fv_json_begin_row(j, "traceEvents", '[');
    fv_json_end(j);
    fv_json_end(j);
}

char *fv_run_profile_text(const fv_run_profile *p)
{
    enum { SIZE = 512 };
    char *text = fv_alloc(SIZE, 1);
    int n = 0;
    if (!text)
        return NULL;
    *text = 0;
    if (p->vision_ms >= 0)
        n += fv_format(text + n, (size_t)(SIZE - n), "vision        %.0f ms\n", p->vision_ms);
    if (p->init_us >= 0)
        n += fv_format(text + n, (size_t)(SIZE - n), "decoder open  %.0f ms\n", p->init_us / 1e3);
    if (p->n_prompt_tokens >= 0 && p->first_token_us >= 0)
        n += fv_format(text + n, (size_t)(SIZE - n),
                       "first token   %.0f ms after a prompt of %" PRId64 " tokens\n",
                       p->first_token_us / 1e3, p->n_prompt_tokens);
    if (p->n_generated >= 0 && p->generation_rate >= 0)
        n += fv_format(text + n, (size_t)(SIZE - n),
                       "answer        %" PRId64 " tokens, %.1f a second\n", p->n_generated,
                       p->generation_rate);
    if (p->total_ms >= 0)
        fv_format(text + n, (size_t)(SIZE - n), "all           %.0f ms\n", p->total_ms);
    return text;
}

/* ---------------------------------------------------------------- the folder */

fv_status fv_run_folder_open(fv_run_folder *out, const char *base, const fv_callbacks *callbacks,
                             fv_error *err)
{
    char name[64];
    time_t now = time(NULL);
    struct tm local;
    *out = (fv_run_folder){ 0 };
    localtime_r(&now, &local);
    size_t n = strftime(name, sizeof name, "%Y%m%d_%H%M%S", &local);
    for (int i = 1; i <= MAX_SAME_SECOND; i++) {
        if (i > 1)
            snprintf(name + n, sizeof name - n, "_%d", i);
        char *path = fv_path_join(base, name);
        if (!path)
            return fv_fail_memory(err, strlen(base), "a path");
        bool taken = fv_is_there(path);
        fv_status status = taken ? FV_OK : fv_outdir_open(&out->dir, path, false, callbacks, err);
        fv_free(path);
        if (!taken)
            return status;
    }
    return fv_fail(err, FV_ERR_LIMIT, 0, "%s: more than %d runs in this second", base,
                   MAX_SAME_SECOND);
}

fv_status fv_run_folder_path(const fv_run_folder *out, const char *name, char **path, fv_error *err)
{
    size_t n_made;
    *path = fv_path_join(out->dir.stage, name);
    if (!*path)
        return fv_fail_memory(err, strlen(name), "a path");
    fv_status status = fv_out_make_parents(*path, &n_made, err);
    if (status != FV_OK) {
        fv_free(*path);
        *path = NULL;
    }
    return status;
}

fv_status fv_run_folder_put(const fv_run_folder *out, const char *name, const void *data,
                            size_t n_bytes, fv_error *err)
{
    char *path;
    FV_TRY(fv_run_folder_path(out, name, &path, err));
    fv_status status = fv_outfile_put(path, data, n_bytes, err);
    fv_free(path);
    return status;
}

fv_status fv_run_folder_commit(fv_run_folder *out, const char *answer, size_t n_answer_bytes,
                               const fv_run_profile *profile, char **place, fv_error *err)
{
    fv_json_text j = { 0 };
    char *where = NULL;
    fv_status status = fv_run_folder_put(out, "answer.txt", answer, n_answer_bytes, err);
    profile_put(&j, profile);
    if (status == FV_OK)
        status = fv_json_done(&j, err);
    if (status == FV_OK)
        status = fv_run_folder_put(out, "profile.json", j.text, j.n, err);
    fv_json_text_free(&j);
    if (status == FV_OK && !(where = fv_strdup(out->dir.place)))
        status = fv_fail_memory(err, strlen(out->dir.place), "a path");
    if (status == FV_OK)
        status = fv_outdir_commit(&out->dir, err);
    else
        fv_run_folder_abandon(out);
    if (status == FV_OK && place) {
        *place = where;
        where = NULL;
    }
    fv_free(where);
    return status;
}

void fv_run_folder_abandon(fv_run_folder *out)
{
    fv_outdir_abandon(&out->dir);
    *out = (fv_run_folder){ 0 };
}
