/* journal: what a run has finished, row by row, so that the next run continues there.
 *
 *     OUTPUT.manifest.json    what decides the bytes of the output: model, prompt, inputs ...;
 *                             last, once OUTPUT is complete, its rows and bytes
 *     OUTPUT.partial          a line of JSON for every finished row, in order; locked while a
 *                             process works on this output
 *     OUTPUT                  appears complete, when the last row is finished; the journal goes
 *
 * A process that is killed leaves the journal. Its last line may be cut off, or after a power cut
 * hold bytes that never reached the disk: the next run drops it and what follows. */
#ifndef FV_JOURNAL_H
#define FV_JOURNAL_H

#include "base/base.h"

#define FV_JOURNAL_ROWS "rows.jsonl" /* in an OUTPUT that is a directory: its size counts */

typedef struct fv_journal {
    char *output, *partial, *manifest; /* paths */
    int fd;                            /* of partial, locked */
    bool complete; /* OUTPUT is there, made as the manifest says: nothing is to be done */
    uint64_t n_rows, n_failed; /* of an OUTPUT that is complete; 0: the manifest does not say */
    fv_map map;       /* of the rows that were there at the start; closed when they are passed */
    size_t at;        /* in map */
    uint64_t n_bytes; /* behind the last whole row */
    double synced_ms;
} fv_journal;

/* manifest: text, what this run would do: an object as json_write ends it. Fails when another
 * process works on this output, when what is there was made in another way, when an output that was
 * complete has another size since, or when there is an output without a manifest. force:
 * begins again then, and also where the output is complete. Removes what killed processes
 * left beside both, with a warning. On failure *j is zero. */
fv_status fv_journal_open(fv_journal *j, const char *output, const char *manifest, size_t n,
                          bool force, const fv_callbacks *callbacks, fv_error *err);
void fv_journal_close(fv_journal *j);

/* Is the next row finished? Then *line, of *n bytes without its end, is what it was; it begins as
 * head does, or the inputs have changed, which is FV_ERR_STATE. Once *line is NULL, rows are to be
 * appended. */
fv_status fv_journal_next(fv_journal *j, const char *head, size_t n_head, const char **line,
                          size_t *n, fv_error *err);
/* There are no more rows in the inputs: fails when there are in the journal. */
fv_status fv_journal_end(fv_journal *j, fv_error *err);

/* line: with its end. On the disk a few seconds later. */
fv_status fv_journal_append(fv_journal *j, const char *line, size_t n, fv_error *err);
fv_status fv_journal_sync(fv_journal *j, fv_error *err);
/* Maps all rows, for the output to be written. */
fv_status fv_journal_map(const fv_journal *j, fv_map *map, fv_error *err);
/* The output is there: how large it is, for the manifest. */
fv_status fv_journal_output_size(const fv_journal *j, uint64_t *n_bytes, fv_error *err);
/* And the manifest again, which says so now; the journal goes. */
fv_status fv_journal_finish(fv_journal *j, const char *manifest, size_t n, fv_error *err);

#endif
