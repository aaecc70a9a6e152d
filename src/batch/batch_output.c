/* The journal becomes the output. See batch_run.h. */
#include <string.h>

#include "base/outfile.h"
#include "batch/batch_run.h"
#include "io/json.h"

#define ROWS "rows.jsonl"

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

static fv_status texts_put(const fv_outdir *d, char *name, const char *text, fv_error *err)
{
    static const char ending[] = ".txt";
    size_t n = strlen(name) + sizeof ending;
    FV_TRY(texts_make_parents(d, name, err));
    char *file = fv_alloc(n, 1), *path = NULL;
    if (file) {
        memcpy(file, name, n - sizeof ending);
        memcpy(file + n - sizeof ending, ending, sizeof ending);
        path = fv_path_join(d->stage, file);
    }
    fv_status status = path ? fv_outfile_put(path, text, strlen(text), err)
                            : fv_fail_memory(err, n, "a path");
    fv_free(file);
    fv_free(path);
    return status;
}

/* One row of the journal. */
static fv_status texts_write_row(const fv_outdir *d, const char *line, size_t n, fv_error *err)
{
    const char *word, *text, *id = NULL, *image = NULL;
    char *name = NULL;
    fv_json *doc;
    FV_TRY(fv_json_parse(&doc, line, n, "a row of the journal", err));
    const fv_json_value *row = fv_json_root(doc);
    fv_status status = FV_OK;
    FV_TRY_GOTO(fv_json_string(doc, row, "status", &word, err));
    if (strcmp(word, "ok") != 0)
        goto fail;
    FV_TRY_GOTO(fv_json_opt_string(doc, row, "id", &id, err));
    FV_TRY_GOTO(fv_json_opt_string(doc, row, "image", &image, err));
    FV_TRY_GOTO(fv_json_string(doc, row, "text", &text, err));
    FV_TRY_GOTO(fv_row_name(&name, id, image, err));
    if (!name || !fv_row_name_is_safe(name)) /* somebody has written in the journal */
        status = fv_fail(err, FV_ERR_FORMAT, 0, "a row of the journal has no name for its file");
    else
        status = texts_put(d, name, text, err);
fail:
    fv_free(name);
    fv_json_free(doc);
    return status;
}

static fv_status texts_write_all(const fv_outdir *d, const fv_map *rows, fv_error *err)
{
    const char *at = (const char *)rows->data, *end = at ? at + rows->size : at;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at)); /* the last has one, too */
        FV_TRY(texts_write_row(d, at, (size_t)(line_end - at), err));
        at = line_end + 1;
    }
    char *path = fv_path_join(d->stage, ROWS);
    if (!path)
        return fv_fail_memory(err, sizeof ROWS, "a path");
    fv_status status = output_write_rows(path, rows, err);
    fv_free(path);
    return status;
}

static fv_status output_write_texts(const fv_batch *b, const fv_map *rows, fv_error *err)
{
    fv_outdir d;
    /* what is there is this run's already, or may be replaced: the journal has looked */
    FV_TRY(fv_outdir_open(&d, b->journal.output, true, b->options.callbacks, err));
    fv_status status = texts_write_all(&d, rows, err);
    if (status == FV_OK)
        return fv_outdir_commit(&d, err);
    fv_outdir_abandon(&d);
    return status;
}

/* ---- either ------------------------------------------------------------------------------ */

fv_status fv_batch_check_output(const fv_batch_options *o, fv_error *err)
{
    fv_outdir d;
    if (o->format == FV_BATCH_JSONL)
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
    fv_status status = b->options.format == FV_BATCH_TEXT
                           ? output_write_texts(b, &rows, err)
                           : output_write_rows(b->journal.output, &rows, err);
    fv_map_close(&rows);
    return status == FV_OK ? fv_journal_remove(&b->journal, err) : status;
}
