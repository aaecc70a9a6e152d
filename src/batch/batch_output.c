/* The journal becomes the output. See batch_run.h. */
#include "base/outfile.h"
#include "batch/batch_run.h"

/* The rows as they are. */
static fv_status output_write_rows(const fv_batch *b, const fv_map *rows, fv_error *err)
{
    fv_outfile f;
    FV_TRY(fv_outfile_open(&f, b->journal.output, err));
    fv_status status = fv_outfile_write(&f, rows->data, rows->size, err);
    if (status == FV_OK)
        return fv_outfile_commit(&f, err);
    fv_outfile_abandon(&f);
    return status;
}

fv_status fv_batch_finish(fv_batch *b, fv_error *err)
{
    fv_map rows;
    FV_TRY(fv_journal_sync(&b->journal, err));
    FV_TRY(fv_journal_map(&b->journal, &rows, err));
    fv_status status = output_write_rows(b, &rows, err);
    fv_map_close(&rows);
    return status == FV_OK ? fv_journal_remove(&b->journal, err) : status;
}
