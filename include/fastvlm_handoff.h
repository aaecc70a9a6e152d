/** \file fastvlm_handoff.h
 * fastvlm_handoff: from a checkpoint to all that a Snapdragon phone needs, in six steps.
 *
 * The steps and the files that they leave are those of the reference Qualcomm pipeline
 * (docs/handoff.md): ONNX graphs, calibration samples, upload to the AI Hub, fp16 context binaries,
 * the int8 vision encoder, the decoder for Genie. What fastvlm can make by itself, with Qualcomm's
 * libraries where they are there, it makes; of the other files it says what would make them. The
 * conventions of fastvlm.h apply. */
#ifndef FASTVLM_HANDOFF_H
#define FASTVLM_HANDOFF_H

#include "fastvlm_npu.h"
#include "fastvlm_qairt.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FV_HANDOFF_STEPS = 6 };

/** Tools of Qualcomm's that make a step's files in place of fastvlm. */
enum {
    FV_HANDOFF_QAIRT = 1, /**< those of the SDK: steps 5 and 6 */
    FV_HANDOFF_HUB = 2    /**< the AI Hub, through the user's account: steps 3 and 4 */
};

/** Of a file of a step. Its layout never changes. Strings are valid during the call they come
 *  with. */
typedef struct fv_handoff_file {
    const char *path;    /**< from the directory of the handoff on; may begin with "../" */
    uint64_t n_bytes;    /**< 0 for a missing file */
    const char *sha256;  /**< lower-case hexadecimal digits; NULL: the file is missing */
    const char *reason;  /**< of a missing file: why; of one that was not made now: that; or NULL */
    const char *command; /**< of a missing file: the command of fastvlm's that makes it; of one that
                              is planned: those of Qualcomm's tools, for a shell; or NULL */
} fv_handoff_file;

/** A step that is complete. */
typedef struct fv_handoff_step {
    size_t size;
    int step;         /**< 1 to 6 */
    const char *name; /**< "export", "calibrate", "upload", "fp16", "int8", "genie" */
    const char *way;  /**< "native", "qairt", "hub" */
    bool kept;        /**< complete since an earlier run: nothing was done but checking its files */
    double ms;
    size_t n_files, n_missing;
    const fv_handoff_file *file; /**< [n_files + n_missing] */
    /** "made"; "complete": since an earlier run; "kept": it cannot be made now, and files of an
     *  earlier run are there; "left out": it cannot be made now; "not needed"; "planned" */
    const char *state;
    size_t n_listed, n_listed_missing; /**< that the manifest lists, of all steps so far */
} fv_handoff_step;

typedef void fv_handoff_step_fn(void *user, const fv_handoff_step *step);

typedef struct fv_handoff_options {
    size_t size;
    int step;                 /**< 1 to 6: only that one; 0: all */
    unsigned with;            /**< FV_HANDOFF_ flags; 0: fastvlm makes what it can */
    const char *sdk, *venv;   /**< as fv_qairt_options */
    const char *soc;          /**< as fv_npu_compile_options */
    fv_npu_precision vision;  /**< of the int8 vision encoder: FV_NPU_MIXED, W8A8 or W8A16 */
    const char *qnn_dir;      /**< as fv_npu_library_options */
    int image_size;           /**< a multiple of 64 up to 4096; 0: the model's own */
    const char *const *paths; /**< calibration images and directories; none: the samples are noise,
                                   and the int8 encoder is calibrated with built-in scenes */
    size_t n_paths;
    int max_images; /**< up to N of them; 0: eight samples, and as fv_npu_compile_options */
    bool force;     /**< replace files of the same names that no handoff made */
    bool dry_run;   /**< nothing is made or written. Steps that are complete are told as they are;
                         files of the others that would be made have no sha256, no reason and
                         n_bytes 0 */
    const fv_callbacks *callbacks; /**< log; progress, a stage for each part of the work */
} fv_handoff_options;

FV_DEFINE_DEFAULT(fv_handoff_options)

/** Into the directory dir, made if need be, with manifest.json: size and SHA-256 of every file, and
 *  what is missing. Calls fn, which may be NULL, after every step. The files of a step and the
 *  manifest appear together. A step is skipped when the manifest says that it was completed for the
 *  same model and options, and all its files still have their size and hash; so an interrupted
 *  handoff continues when it is called again. What a tool of Qualcomm's has made counts for a run
 *  without that tool, too. A file that the run cannot make is no error; a tool that fails is. */
FV_API fv_status fv_handoff(const char *model, const char *dir, const fv_handoff_options *options,
                            fv_handoff_step_fn *fn, void *user, fv_error *err);

#ifdef __cplusplus
}
#endif

#endif
