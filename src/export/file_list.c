/* Names and hashes of files. See file_list.h. */
#include "export/file_list.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/sha256.h"

void fv_file_list_free(fv_file_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        fv_free(list->name[i]);
    fv_free(list->name);
    *list = (fv_file_list){ 0 };
}

static fv_status file_list_add(fv_file_list *l, const char *name, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(l->name, l->n, l->capacity, 1, err));
    if (!(l->name[l->n] = fv_strdup(name)))
        return fv_fail_memory(err, strlen(name), "a path");
    l->n++;
    return FV_OK;
}

/* The files below root/below, as paths behind root. */
static fv_status file_list_walk(fv_file_list *l, const char *root, const char *below, bool deep,
                                fv_error *err)
{
    fv_status status = FV_OK;
    char *folder = fv_path_join(root, below);
    DIR *dir = folder ? opendir(folder) : NULL;
    if (!dir) {
        fv_free(folder);
        return fv_fail(err, FV_ERR_IO, 0, "%s: cannot read the directory", root);
    }
    for (struct dirent *e; status == FV_OK && (e = readdir(dir));) {
        if (*e->d_name == '.')
            continue;
        char *name = *below ? fv_path_join(below, e->d_name) : fv_strdup(e->d_name);
        char *path = fv_path_join(folder, e->d_name);
        if (!name || !path)
            status = fv_fail_memory(err, strlen(e->d_name), "a path");
        else if (fv_is_dir(path))
            status = deep ? file_list_walk(l, root, name, true, err) : FV_OK;
        else if (fv_is_file(path))
            status = file_list_add(l, name, err);
        fv_free(name);
        fv_free(path);
    }
    closedir(dir);
    fv_free(folder);
    return status;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

fv_status fv_file_list_collect(fv_file_list *out, const char *folder, bool deep, fv_error *err)
{
    FV_TRY(file_list_walk(out, folder, "", deep, err));
    if (out->n)
        qsort(out->name, out->n, sizeof *out->name, name_compare);
    return FV_OK;
}

void fv_source_free(fv_source *s)
{
    fv_file_list_free(&s->files);
    fv_free(s->hash);
    *s = (fv_source){ 0 };
}

static fv_status source_hash_files(fv_source *s, const char *folder, const char *stage,
                                   const fv_callbacks *callbacks, fv_error *err)
{
    fv_sha256 all;
    uint8_t digest[FV_SHA256_BYTES];
    char line[512];
    if (!(s->hash = fv_alloc_zero(s->files.n, sizeof *s->hash)))
        return fv_fail_memory(err, s->files.n * sizeof *s->hash, "hashes");
    fv_sha256_begin(&all);
    for (size_t i = 0; i < s->files.n; i++) {
        char *path = fv_path_join(folder, s->files.name[i]);
        fv_status status = path ? fv_file_hash(s->hash[i].sha256, &s->hash[i].n_bytes, path, stage,
                                               callbacks, err)
                                : fv_fail_memory(err, strlen(s->files.name[i]), "a path");
        fv_free(path);
        FV_TRY(status);
        int n = snprintf(line, sizeof line, "%s  %s\n", s->hash[i].sha256, s->files.name[i]);
        fv_sha256_add(&all, line, FV_MIN((size_t)n, sizeof line - 1));
    }
    fv_sha256_end(&all, digest);
    fv_hex(s->sha256, digest, sizeof digest);
    return FV_OK;
}

fv_status fv_source_read(fv_source *out, const char *model, const char *stage,
                         const fv_callbacks *callbacks, fv_error *err)
{
    fv_status status = FV_OK;
    bool folder = fv_is_dir(model);
    const char *slash = strrchr(model, '/'), *name = folder || !slash ? model : slash + 1;
    char *parent = fv_strdup(folder || slash ? model : ".");
    *out = (fv_source){ .path = model };
    if (!parent)
        return fv_fail_memory(err, strlen(model), "a path");
    if (!folder && slash)
        parent[FV_MAX(slash - model, 1)] = 0;
    if (folder)
        FV_TRY_GOTO(fv_file_list_collect(&out->files, model, false, err));
    else
        FV_TRY_GOTO(file_list_add(&out->files, name, err));
    status = source_hash_files(out, parent, stage, callbacks, err);
fail:
    fv_free(parent);
    if (status != FV_OK)
        fv_source_free(out);
    return status;
}

void fv_source_put(fv_json_text *j, const fv_source *s)
{
    fv_json_begin(j, "source", '{');
    fv_json_put_text(j, "path", s->path);
    fv_json_begin(j, "files", '[');
    for (size_t i = 0; i < s->files.n; i++) {
        fv_json_begin_row(j, NULL, '{');
        fv_json_put_text(j, "name", s->files.name[i]);
        fv_json_put_int(j, "bytes", (int64_t)s->hash[i].n_bytes);
        fv_json_put_text(j, "sha256", s->hash[i].sha256);
        fv_json_end(j);
    }
    fv_json_end(j);
    fv_json_put_text(j, "sha256", s->sha256);
    fv_json_end(j);
}
