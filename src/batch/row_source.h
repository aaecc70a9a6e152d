/* row_source: the rows of a batch's inputs, one after the other.
 *
 *     a directory          an image a row, in the order of their names
 *     an image             one row; whatever has the name of one is one, also what is damaged or
 *                          missing
 *     a list               a line a row: see row.h; blank lines are none
 *     a tar file           a sample a row: see tar_read.h; a key that has been there is an error
 *
 * Rows are dealt to shards in turn: shard k of n has the rows k, k + n, k + 2n ... Tar files are
 * dealt as wholes, in turn among themselves, and rows are numbered without those of other shards'
 * tar files, which are not read. */
#ifndef FV_ROW_SOURCE_H
#define FV_ROW_SOURCE_H

#include "batch/row.h"
#include "io/json_write.h"

typedef struct fv_row_source fv_row_source;

typedef struct fv_row_source_options {
    const char *const *inputs; /* paths */
    size_t n_inputs;
    fv_row_defaults defaults;
    uint64_t shard, n_shards;  /* n_shards: 0 is 1 */
    bool named;                /* every row is to have a name of its own: see fv_row_name */
    bool keyed;                /* that is a key, too: see fv_row_name_is_key */
    const fv_callbacks *quiet; /* asked several times a second while an input sends nothing; NULL:
                                  nobody is */
} fv_row_source_options;

/* Looks at every input: what it is, and the SHA-256 of lists that are regular files. What options
 * point to must stay. Progress stage "read inputs". On failure *out is NULL. */
fv_status fv_row_source_open(fv_row_source **out, const fv_row_source_options *options,
                             const fv_callbacks *callbacks, fv_error *err);
void fv_row_source_free(fv_row_source *source);

/* Refuses an output that would replace an input, or an image in a directory that is one: itself, or
 * what lies beside it during the run (see journal.h). texts: output is a directory that gets files
 * NAME.txt and rows.jsonl. */
fv_status fv_row_source_check_output(const fv_row_source *source, const char *output, bool texts,
                                     fv_error *err);

/* A member "inputs": an array of what was found. */
void fv_row_source_describe(const fv_row_source *source, fv_json_text *j);

/* The next row of the shard, into a row that is zero; *more is false when there is none. Fails when
 * an input cannot be read or memory is out; whatever is wrong with a row is in the row. */
fv_status fv_row_source_next(fv_row_source *source, fv_row *row, bool *more, fv_error *err);

#endif
