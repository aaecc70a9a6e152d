/* fastvlm_tools: make models smaller, check them. Not needed to run one; see fastvlm.h for that, and
 * for statuses, errors, progress and logging, which are the same here. */
#ifndef FASTVLM_TOOLS_H
#define FASTVLM_TOOLS_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- pack */

typedef struct fv_pack_options {
    fv_precision vision;       /* AUTO: as stored; F32, BF16, F16 */
    fv_precision decoder;      /* AUTO: as stored; F32, BF16, F16, Z8, Q4 */
    bool         pure;         /* Q4: the embedding and the head too, otherwise they are in z8 */
    int          n_threads;    /* 0: one per physical core */
    fv_progress_fn *progress;  /* NULL: none; also how to cancel */
    void        *progress_user;
    fv_log_fn   *log;          /* NULL: silent */
    void        *log_user;
    uint64_t     reserved[8];  /* zero */
} fv_pack_options;

typedef struct fv_pack_report {
    size_t   n_tensors;
    uint64_t n_parameters, file_bytes;
    float    worst_sqnr;       /* dB, of the tensor that lost most; infinite when none lost anything */
    char     worst_name[64];
    double   ms;
} fv_pack_report;

FV_API void fv_pack_options_default(fv_pack_options *options);

/* Writes a checkpoint directory as one packed file: weights fused and in their final types, tokenizer,
 * template and preprocessing (docs/format.md). options and report may be NULL. The file appears when
 * it is complete; after a failure, and after being cancelled, there is none and an older one is as it
 * was. A weight that is NaN or infinite is FV_ERR_FORMAT. */
FV_API fv_status fv_pack(const char *checkpoint, const char *file, const fv_pack_options *options,
                         fv_pack_report *report, fv_error *err);

/* ---------------------------------------------------------------- verify */

/* Checks a packed file: both hashes, the format, that every tensor of the model is there in a type and
 * shape that runs, that the tokenizer can be built, that no value is NaN or infinite. progress may be NULL. */
FV_API fv_status fv_verify(const char *file, fv_progress_fn *progress, void *progress_user, fv_error *err);

#ifdef __cplusplus
}
#endif
#endif
