/* manifest.json of a handoff, read and written. See handoff_state.h. */
#include "handoff/handoff_state.h"

#include <string.h>
#include <sys/stat.h>

#include "base/list.h"
#include "base/outpart.h"
#include "base/report.h"
#include "export/file_list.h"
#include "io/json.h"

enum { MANIFEST_BYTES = 64 << 20 };

const char *const fv_handoff_names[FV_HANDOFF_STEPS] = { "export", "calibrate", "upload",
                                                         "fp16",   "int8",      "genie" };

const char *fv_handoff_text(fv_handoff_state *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = fv_region_text(&s->region, format, args);
    va_end(args);
    return text;
}

fv_status fv_handoff_add(fv_handoff_record *r, const fv_handoff_entry *entry, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(r->entry, r->n, r->capacity, 1, err));
    if (!entry->path)
        return fv_fail_memory(err, 1, "a path");
    r->entry[r->n++] = *entry;
    return FV_OK;
}

void fv_handoff_forget(fv_handoff_record *r)
{
    fv_free(r->entry);
    *r = (fv_handoff_record){ 0 };
}

void fv_handoff_state_free(fv_handoff_state *s)
{
    for (size_t i = 0; i < FV_HANDOFF_STEPS; i++)
        fv_handoff_forget(&s->step[i]);
    fv_region_free(&s->region);
}

/* ---- reading ---- */

/* A path of the manifest leads to a file of a handoff: it is opened, and may be removed. */
static bool entry_path_is_ours(const char *path)
{
    static const char *const folders[] = { "fastvlm-", "../handoff/" };
    size_t skip = 0;
    for (size_t i = 0; i < FV_COUNT(folders); i++)
        if (!strncmp(path, folders[i], strlen(folders[i])))
            skip = strlen(folders[i]);
    return skip && path[skip] && !strstr(path + skip, "../");
}

static const char *kept_text(fv_handoff_state *s, const char *text)
{
    return text ? fv_handoff_text(s, "%s", text) : NULL;
}

static fv_status entry_read(fv_handoff_state *s, fv_handoff_record *r, const fv_json *doc,
                            const fv_json_value *value, bool missing, fv_error *err)
{
    const char *path, *sha256 = NULL, *reason = NULL, *command = NULL;
    const char *note = NULL, *way = NULL, *basis = NULL, *model = NULL;
    int64_t n_bytes = 0;
    bool found = false;
    FV_TRY(fv_json_string(doc, value, "path", &path, err));
    if (!entry_path_is_ours(path))
        return fv_fail(err, FV_ERR_FORMAT, 0, "%s: the path \"%s\" is not of a handoff's file",
                       fv_json_name(doc), path);
    if (missing) {
        FV_TRY(fv_json_string(doc, value, "reason", &reason, err));
        FV_TRY(fv_json_opt_string(doc, value, "command", &command, err));
    } else {
        FV_TRY(fv_json_int(doc, value, "bytes", 0, INT64_MAX, &n_bytes, err));
        FV_TRY(fv_json_string(doc, value, "sha256", &sha256, err));
        FV_TRY(fv_json_opt_bool(doc, value, "found", &found, err));
        FV_TRY(fv_json_opt_string(doc, value, "note", &note, err));
        if (note) {
            FV_TRY(fv_json_string(doc, value, "way", &way, err));
            FV_TRY(fv_json_string(doc, value, "basis", &basis, err));
            FV_TRY(fv_json_string(doc, value, "model", &model, err));
        }
    }
    fv_handoff_entry e = { .path = kept_text(s, path),
                           .n_bytes = (uint64_t)n_bytes,
                           .sha256 = kept_text(s, sha256),
                           .found = found,
                           .reason = kept_text(s, reason),
                           .command = kept_text(s, command),
                           .note = kept_text(s, note),
                           .way = kept_text(s, way),
                           .basis = kept_text(s, basis),
                           .model = kept_text(s, model) };
    return fv_handoff_add(r, &e, err);
}

static fv_status entries_read(fv_handoff_state *s, fv_handoff_record *r, const fv_json *doc,
                              const fv_json_value *step, const char *key, fv_error *err)
{
    const fv_json_value *list;
    FV_TRY(fv_json_array(doc, step, key, &list, err));
    for (size_t i = 0; i < fv_json_count(list); i++)
        FV_TRY(entry_read(s, r, doc, fv_json_at(list, i), !strcmp(key, "missing"), err));
    return FV_OK;
}

static fv_status steps_read(fv_handoff_state *s, const fv_json *doc, fv_error *err)
{
    const fv_json_value *steps = NULL;
    FV_TRY(fv_json_opt_array(doc, fv_json_root(doc), "steps", &steps, err));
    if (!steps)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: has no steps: not of a handoff; choose another directory",
                       fv_json_name(doc));
    for (size_t i = 0; i < fv_json_count(steps); i++) {
        const fv_json_value *step = fv_json_at(steps, i);
        const char *way, *key, *basis = "", *model = "";
        int64_t n;
        FV_TRY(fv_json_int(doc, step, "step", 1, FV_HANDOFF_STEPS, &n, err));
        fv_handoff_record *r = &s->step[n - 1];
        if (r->there)
            return fv_fail(err, FV_ERR_FORMAT, 0, "%s: step %d comes twice", fv_json_name(doc),
                           (int)n);
        FV_TRY(fv_json_string(doc, step, "way", &way, err));
        FV_TRY(fv_json_string(doc, step, "key", &key, err));
        FV_TRY(fv_json_opt_string(doc, step, "basis", &basis, err));
        FV_TRY(fv_json_opt_string(doc, step, "model", &model, err));
        FV_TRY(entries_read(s, r, doc, step, "files", err));
        FV_TRY(entries_read(s, r, doc, step, "missing", err));
        r->way = kept_text(s, way);
        r->key = kept_text(s, key);
        r->basis = kept_text(s, basis);
        r->model = kept_text(s, model);
        r->there = r->way && r->key && r->basis && r->model;
    }
    return FV_OK;
}

fv_status fv_handoff_state_parse(fv_handoff_state *s, const void *text, size_t n_bytes,
                                 fv_error *err)
{
    fv_json *doc = NULL;
    *s = (fv_handoff_state){ 0 };
    fv_status status = fv_json_parse(&doc, text, n_bytes, "manifest.json", err);
    if (status == FV_OK)
        status = steps_read(s, doc, err);
    fv_json_free(doc);
    if (status != FV_OK) {
        fv_handoff_state_free(s);
        *s = (fv_handoff_state){ 0 };
    }
    return status;
}

fv_status fv_handoff_state_read(fv_handoff_state *s, const char *dir, fv_error *err)
{
    uint8_t *text = NULL;
    size_t n_bytes = 0;
    char *path = fv_path_join(dir, "manifest.json");
    *s = (fv_handoff_state){ 0 };
    if (!path)
        return fv_fail_memory(err, strlen(dir), "a path");
    fv_status status = FV_OK;
    if (fv_is_there(path))
        status = fv_read_file(&text, &n_bytes, path, MANIFEST_BYTES, err);
    fv_error why = { 0 };
    if (status == FV_OK && text)
        status = fv_handoff_state_parse(s, text, n_bytes, &why);
    if (status != FV_OK && text)
        fv_fail(err, status, 0,
                "%s: damaged, or not of a handoff; remove it, and all steps are made again (%s)",
                path, why.message);
    fv_free(text);
    fv_free(path);
    return status;
}

/* ---- checking ---- */

/* "job_<job>_optimized_bin_<target>.bin": what stands before the first hole and behind the last. */
bool fv_handoff_fits(const char *name, const char *pattern)
{
    const char *hole = strchr(pattern, '<'), *tail = strrchr(pattern, '>');
    if (!hole || !tail)
        return !strcmp(name, pattern);
    size_t n = strlen(name), before = (size_t)(hole - pattern), behind = strlen(tail + 1);
    return n > before + behind && !strncmp(name, pattern, before) &&
           !strcmp(name + n - behind, tail + 1);
}

static bool file_has_bytes(const char *folder, const char *name)
{
    struct stat st;
    char *path = fv_path_join(folder, name);
    bool has = path && stat(path, &st) == 0 && st.st_size > 0;
    fv_free(path);
    return has;
}

fv_status fv_handoff_find(const char *dir, const char *path, char **found, fv_error *err)
{
    fv_file_list files = { 0 };
    char *folder, *name;
    fv_status status = FV_OK;
    *found = NULL;
    char *inside = fv_out_split(path, &folder, &name) ? fv_path_join(dir, folder) : NULL;
    if (!inside)
        status = fv_fail_memory(err, strlen(path), "a path");
    else if (fv_is_dir(inside))
        status = fv_file_list_collect(&files, inside, false, err);
    for (size_t i = 0; status == FV_OK && !*found && i < files.n; i++)
        if (fv_handoff_fits(files.name[i], name) && file_has_bytes(inside, files.name[i]) &&
            !(*found = fv_path_join(folder, files.name[i])))
            status = fv_fail_memory(err, strlen(path), "a path");
    fv_file_list_free(&files);
    fv_free(inside);
    fv_free(folder);
    fv_free(name);
    return status;
}

static fv_status entry_verify(const fv_handoff_entry *e, const char *dir,
                              const fv_callbacks *callbacks, bool *whole, fv_error *err)
{
    char hex[FV_HASH_TEXT] = "", *found = NULL, *path;
    uint64_t n_bytes = 0;
    fv_error why = { 0 };
    if (!e->sha256) {
        FV_TRY(fv_handoff_find(dir, e->path, &found, err));
        *whole = !found;
        fv_free(found);
        return FV_OK;
    }
    if (!(path = fv_path_join(dir, e->path)))
        return fv_fail_memory(err, strlen(e->path), "a path");
    bool there = fv_is_file(path);
    fv_status status = there ? fv_file_hash(hex, &n_bytes, path, "check", callbacks, &why) : FV_OK;
    fv_free(path);
    if (status == FV_ERR_CANCELLED || status == FV_ERR_MEMORY)
        return fv_fail(err, status, 0, "%s", why.message);
    *whole = there && status == FV_OK && n_bytes == e->n_bytes && !strcmp(hex, e->sha256);
    return FV_OK;
}

fv_status fv_handoff_verify(const fv_handoff_record *r, const char *dir,
                            const fv_callbacks *callbacks, bool *whole, fv_error *err)
{
    *whole = true;
    for (size_t i = 0; i < r->n && *whole; i++)
        FV_TRY(entry_verify(&r->entry[i], dir, callbacks, whole, err));
    return FV_OK;
}

/* ---- writing ---- */

static void entry_put(fv_json_text *j, const fv_handoff_entry *e)
{
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "path", e->path);
    if (e->sha256) {
        fv_json_put_int(j, "bytes", (int64_t)e->n_bytes);
        fv_json_put_text(j, "sha256", e->sha256);
        if (e->found)
            fv_json_put_bool(j, "found", true);
        if (e->note) {
            fv_json_put_text(j, "note", e->note);
            fv_json_put_text(j, "way", e->way);
            fv_json_put_text(j, "basis", e->basis);
            fv_json_put_text(j, "model", e->model);
        }
    } else {
        fv_json_put_text(j, "reason", e->reason);
        fv_json_put_text(j, "command", e->command);
    }
    fv_json_end(j);
}

void fv_handoff_put_steps(fv_json_text *j, const fv_handoff_state *s)
{
    fv_json_begin(j, "steps", '[');
    for (size_t i = 0; i < FV_HANDOFF_STEPS; i++) {
        const fv_handoff_record *r = &s->step[i];
        if (!r->there)
            continue;
        fv_json_begin(j, NULL, '{');
        fv_json_put_int(j, "step", (int64_t)i + 1);
        fv_json_put_text(j, "name", fv_handoff_names[i]);
        fv_json_put_text(j, "way", r->way);
        fv_json_put_text(j, "key", r->key);
        fv_json_put_text(j, "basis", r->basis);
        fv_json_put_text(j, "model", r->model);
        for (int missing = 0; missing < 2; missing++) {
            fv_json_begin(j, missing ? "missing" : "files", '[');
            for (size_t k = 0; k < r->n; k++)
                if ((r->entry[k].sha256 == NULL) == (missing == 1))
                    entry_put(j, &r->entry[k]);
            fv_json_end(j);
        }
        fv_json_end(j);
    }
    fv_json_end(j);
}
