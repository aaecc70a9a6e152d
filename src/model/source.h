/* source: a model opened for exporting, through the engine's own binding. */
#ifndef FV_SOURCE_H
#define FV_SOURCE_H

#include "base/outfile.h"
#include "fastvlm_tools.h"
#include "io/gguf.h"
#include "model/config.h"
#include "model/weights.h"
#include "text/tokenizer.h"

typedef struct fv_source {
    char *path;
    fv_config config;
    fv_tokenizer *tokenizer;
    fv_tensors *tensors; /* of a checkpoint directory; NULL for a packed file */
    fv_gguf *packed;     /* the packed file; NULL for a directory */
    fv_weights weights;  /* matrices as they are stored */
    fv_kernels kernels;
    fv_pool *pool;
    const fv_export_options *options;
} fv_source;

/* Opens config and tokenizer of a checkpoint directory or a packed file, with weights also the
 * tensors. options may be NULL. */
fv_status fv_source_open(fv_source *s, const char *path, bool weights,
                         const fv_export_options *options, fv_error *err);
void fv_source_close(fv_source *s);

/* The id of <|im_end|> and so on; FV_ERR_FORMAT by name when there is none. */
fv_status fv_source_token(const fv_source *s, const char *text, int32_t *id, fv_error *err);

/* A file of the checkpoint directory; false when there is none. */
bool fv_source_has_file(const fv_source *s, const char *name);

/* The folder an export fills: fv_outdir_open with its options. options may be NULL. */
fv_status fv_export_dir(fv_outdir *d, const char *path, const fv_export_options *options,
                        fv_error *err);

/* For an export that writes one file: fv_outfile_leftovers with its options. options may be
 * NULL. */
void fv_export_leftovers(const char *file, const fv_export_options *options);

/* What exports say on the way. options may be NULL. */
void fv_export_log(const fv_export_options *options, fv_log_level level, const char *format, ...)
    FV_PRINTF(3, 4);
fv_status fv_export_progress(const fv_export_options *options, const char *stage, double done,
                             fv_error *err);

#endif
