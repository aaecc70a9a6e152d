/* source: what exports share: opening the model, the folder to fill, telling how far they are. */
#ifndef FV_SOURCE_H
#define FV_SOURCE_H

#include "base/outfile.h"
#include "fastvlm_tools.h"
#include "model/model.h"

/* A model to export, matrices as they are stored. options may be NULL. */
fv_status fv_export_open(fv_model *m, const char *path, fv_model_depth depth,
                         const fv_export_options *options, fv_error *err);

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
