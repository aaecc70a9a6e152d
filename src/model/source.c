/* What exports share. See source.h. */
#include "model/source.h"

#include <stdio.h>

void fv_export_log(const fv_export_options *options, fv_log_level level, const char *format, ...)
{
    char message[512];
    va_list args;
    if (!options || !options->log)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    options->log(options->log_user, level, message);
}

fv_status fv_export_dir(fv_outdir *d, const char *path, const fv_export_options *o, fv_error *err)
{
    return fv_outdir_open(d, path, o && o->force, o ? o->log : NULL, o ? o->log_user : NULL, err);
}

void fv_export_leftovers(const char *file, const fv_export_options *o)
{
    if (o)
        fv_outfile_leftovers(file, o->log, o->log_user);
}

fv_status fv_export_progress(const fv_export_options *options, const char *stage, double done,
                             fv_error *err)
{
    if (options && options->progress && options->progress(options->progress_user, stage, done))
        return fv_fail(err, FV_ERR_CANCELLED, 0, "stopped; nothing was written");
    return FV_OK;
}

fv_status fv_export_open(fv_model *m, const char *path, fv_model_depth depth,
                         const fv_export_options *options, fv_error *err)
{
    fv_model_options o = { .depth = depth,
                           .log = options ? options->log : NULL,
                           .log_user = options ? options->log_user : NULL };
    return fv_model_open(m, path, &o, err);
}
