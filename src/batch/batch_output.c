/* The journal becomes the output. See batch_run.h. */
#include <stdio.h>
#include <string.h>

#include "base/outfile.h"
#include "batch/batch_run.h"
#include "batch/tar_write.h"
#include "io/json.h"

/* ---- a file of rows ---------------------------------------------------------------------- */

static fv_status output_write_rows(const char *path, const fv_map *rows, fv_error *err)
{
    fv_outfile f;
    FV_TRY(fv_outfile_open(&f, path, err));
    fv_status status = fv_outfile_write(&f, rows->data, rows->size, err);
    if (status == FV_OK)
        return fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    return status;
}

/* ---- rows of the journal ----------------------------------------------------------------- */

/* A row that was answered. */
typedef struct answered {
    char *name; /* of its files */
    const char *text;
    const char *line; /* [n_line], without its end */
    size_t n_line;
} answered;

typedef fv_status output_put(void *to, answered *row, fv_error *err);

static fv_status answered_put(const fv_batch *b, const char *line, size_t n, output_put *put,
                              void *to, fv_error *err)
{
    const char *word, *id = NULL, *image = NULL;
    answered a = { .line = line, .n_line = n };
    fv_json *doc;
    FV_TRY(fv_json_parse(&doc, line, n, "a row of the journal", err));
    const fv_json_value *row = fv_json_root(doc);
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_json_string(doc, row, "status", &word, err));
    if (strcmp(word, "ok") != 0)
        goto fail;
    FV_TRY_GOTO(fv_json_opt_string(doc, row, "id", &id, err));
    FV_TRY_GOTO(fv_json_opt_string(doc, row, "image", &image, err));
    FV_TRY_GOTO(fv_json_string(doc, row, "text", &a.text, err));
    FV_TRY_GOTO(fv_row_name(&a.name, id, image, err));
    if (!a.name || !fv_row_name_is_safe(a.name) ||
        (b->options.format == FV_BATCH_TAR && !fv_row_name_is_key(a.name)))
        /* somebody has written in the journal */
        status = fv_fail(err, FV_ERR_FORMAT, 0, "a row of the journal has no name for its file");
    else
        status = put(to, &a, err);
fail:
    fv_free(a.name);
    fv_json_free(doc);
    return status;
}

/* All that were answered, in order. */
static fv_status answered_each(fv_batch *b, const fv_map *rows, output_put *put, void *to,
                               fv_error *err)
{
    const char *at = (const char *)rows->data, *end = at ? at + rows->size : at;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at)); /* the last has one, too */
        FV_TRY(answered_put(b, at, (size_t)(line_end - at), put, to, err));
        at = line_end + 1;
        if (!fv_batch_tell(b, false)) {
            *err = b->err;
            return b->status;
        }
    }
    return FV_OK;
}

/* "NAME.txt", to fv_free; NULL when memory is out. */
static char *output_file_name(const char *name, const char *ending)
{
    size_t n = strlen(name) + strlen(ending) + 1;
    char *file = fv_alloc(n, 1);
    if (file)
        snprintf(file, n, "%s%s", name, ending);
    return file;
}

/* ---- a directory of texts ---------------------------------------------------------------- */

/* The directories on the way to name, below the stage. */
static fv_status texts_make_parents(const fv_outdir *d, char *name, fv_error *err)
{
    for (char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        fv_status status = fv_outdir_sub(d, name, err);
        *slash = '/';
        FV_TRY(status);
    }
    return FV_OK;
}

static fv_status texts_put(void *to, answered *row, fv_error *err)
{
    fv_outdir *d = to;
    FV_TRY(texts_make_parents(d, row->name, err));
    char *file = output_file_name(row->name, ".txt");
    fv_status status = file ? fv_outdir_put(d, file, row->text, strlen(row->text), err)
                            : fv_fail_memory(err, strlen(row->name), "a path");
    fv_free(file);
    return status;
}

static fv_status texts_write_all(fv_batch *b, fv_outdir *d, const fv_map *rows, fv_error *err)
{
    FV_TRY(answered_each(b, rows, texts_put, d, err));
    char *path = fv_path_join(d->stage, FV_JOURNAL_ROWS);
    if (!path)
        return fv_fail_memory(err, sizeof FV_JOURNAL_ROWS, "a path");
    fv_status status = output_write_rows(path, rows, err);
    fv_free(path);
    return status;
}

static fv_status output_write_texts(fv_batch *b, const fv_map *rows, fv_error *err)
{
    fv_outdir d;
    /* what is there is this run's already, or may be replaced: the journal has looked */
    FV_TRY(fv_outdir_open(&d, b->journal.output, true, b->options.callbacks, err));
    fv_status status = texts_write_all(b, &d, rows, err);
    if (status == FV_OK)
        return fv_outdir_commit(&d, err);
    fv_outdir_abandon(&d);
    return status;
}

/* ---- a tar file of samples --------------------------------------------------------------- */

static fv_status sample_put(void *to, answered *row, fv_error *err)
{
    char *text = output_file_name(row->name, ".txt"), *json = output_file_name(row->name, ".json");
    fv_status status = text && json ? FV_OK : fv_fail_memory(err, strlen(row->name), "a name");
    if (status == FV_OK)
        status = fv_tar_write_member(to, text, row->text, strlen(row->text), err);
    if (status == FV_OK)
        status = fv_tar_write_member(to, json, row->line, row->n_line, err);
    fv_free(text);
    fv_free(json);
    return status;
}

static fv_status output_write_samples(fv_batch *b, const fv_map *rows, fv_error *err)
{
    fv_outfile f;
    FV_TRY(fv_outfile_open(&f, b->journal.output, err));
    fv_status status = answered_each(b, rows, sample_put, &f, err);
    if (status == FV_OK) /* a name that readers of samples skip */
        status = fv_tar_write_member(&f, "__rows__", rows->data, rows->size, err);
    if (status == FV_OK)
        status = fv_tar_write_end(&f, err);
    if (status == FV_OK)
        return fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    return status;
}

/* ---- all of them ----------------------------------------------------------------------- */

fv_status fv_batch_check_output(const fv_batch_options *o, fv_error *err)
{
    fv_outdir d;
    if (o->format != FV_BATCH_TEXT)
        return fv_outfile_check(o->output, err);
    /* what is in it may be this output, complete: the journal knows */
    FV_TRY(fv_outdir_open(&d, o->output, true, o->callbacks, err));
    fv_outdir_abandon(&d);
    return FV_OK;
}

fv_status fv_batch_finish(fv_batch *b, fv_error *err)
{
    fv_map rows;
    FV_TRY(fv_journal_sync(&b->journal, err));
    FV_TRY(fv_journal_map(&b->journal, &rows, err));
    fv_status status = b->options.format == FV_BATCH_TEXT ? output_write_texts(b, &rows, err)
                       : b->options.format == FV_BATCH_TAR
                           ? output_write_samples(b, &rows, err)
                           : output_write_rows(b->journal.output, &rows, err);
    fv_map_close(&rows);
    return status;
}
