/** \file fastvlm_device.h
 * fastvlm_device: a phone at the end of a cable, through the user's adb.
 *
 *     fv_device_options o;  fv_device *phone;
 *     fv_device_options_default(&o);
 *     fv_device_open(&phone, &o, &err);          exactly one phone, or the one that is named
 *     fv_device_run(phone, "photo.jpg", "What is this?", &run, &report, &err);
 *     fv_device_close(phone);
 *
 * adb is run as a program, once for every step; its server is the user's and stays. On the phone
 * everything lies in one directory, and files are sent only when they have changed. One thread at a
 * time may use an fv_device. Environment variables are not read here. The conventions of fastvlm.h
 * apply. */
#ifndef FASTVLM_DEVICE_H
#define FASTVLM_DEVICE_H

#include "fastvlm_qairt.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- which phone */

typedef struct fv_device fv_device;
typedef struct fv_device_list fv_device_list;

/** Strings are copied. */
typedef struct fv_device_options {
    size_t size;
    const char *adb;    /**< the client: a path, or a name on PATH; NULL: "adb" */
    const char *serial; /**< of the phone; NULL: the only one there is */
    /** on the phone; absolute, of letters, digits and ._-/; NULL: "/data/local/tmp/fastvlm" */
    const char *dir;
    const fv_callbacks *callbacks; /**< progress stage "phone" */
} fv_device_options;

FV_DEFINE_DEFAULT(fv_device_options)

typedef struct fv_device_entry {
    size_t size;
    const char *serial;
    const char *state;   /**< as adb names it: "device", "unauthorized" */
    const char *model;   /**< "SM_S938B"; "" when adb does not know */
    const char *problem; /**< why it cannot be used, and what to do; NULL: it can */
} fv_device_entry;

/** All that adb lists, serial in options aside. On failure *out is NULL. */
FV_API fv_status fv_device_list_open(fv_device_list **out, const fv_device_options *options,
                                     fv_error *err);
FV_API void fv_device_list_free(fv_device_list *list);
/** false when index is past the last one, a pointer is NULL or out->size 0. Strings are borrowed
 *  from list. */
FV_API bool fv_device_list_entry(const fv_device_list *list, size_t index, fv_device_entry *out);

/** Chooses a phone and asks it what it is. FV_ERR_IO: adb is missing, there is none or no clear
 *  choice, it is not authorised, offline or gone. On failure *out is NULL. */
FV_API fv_status fv_device_open(fv_device **out, const fv_device_options *options, fv_error *err);
FV_API void fv_device_close(fv_device *device);

/** What the phone says of itself; "" and 0 where it does not. Strings are borrowed. */
typedef struct fv_device_info {
    size_t size;
    const char *serial, *dir;
    const char *model, *maker; /**< "SM-S938B", "samsung" */
    const char *android;       /**< "15" */
    int api_level;             /**< 35 */
    const char *abi, *machine; /**< "arm64-v8a", "aarch64" */
    const char *soc, *board;   /**< "SM8750P", "sun" */
    const char *chip;          /**< of fv_npu_soc: "SM8750"; "": not in that table */
    const char *product;       /**< "Snapdragon 8 Elite" */
    unsigned htp_version;      /**< of its Hexagon NPU: 79 for v79; 0: not known */
    uint64_t page_bytes, memory_bytes, memory_available_bytes;
    uint64_t free_bytes; /**< where dir is */
} fv_device_info;

/** Does nothing when a pointer is NULL or out->size 0. */
FV_API void fv_device_describe(const fv_device *device, fv_device_info *out);

/* ---------------------------------------------------------------- files */

typedef struct fv_device_push_options {
    size_t size;
    const char *program; /**< fastvlm, built for the phone; required */
    const char *model;   /**< a packed file; NULL: the program's own demonstration model */
    const char *npu;     /**< a context binary of the vision encoder; NULL: none */
    const char *sdk;     /**< QAIRT, for the libraries that npu needs */
    bool verify;         /**< the phone hashes what it has, instead of going by size and time */
    bool dry_run;        /**< only fill the report */
    const fv_callbacks *callbacks; /**< log: each file that is sent; progress "hash", "push" */
} fv_device_push_options;

FV_DEFINE_DEFAULT(fv_device_push_options)

typedef struct fv_device_push_report {
    size_t size;
    size_t n_files, n_sent; /**< all of them; those that were sent, or would be */
    uint64_t n_bytes;       /**< of those */
    double ms;
} fv_device_push_report;

/** Makes the phone have these files: sends those whose size or SHA-256 differ from what a manifest
 *  on the phone has, each under a temporary name until the phone has hashed it. After an
 *  interruption, what had arrived is not sent again. report may be NULL. */
FV_API fv_status fv_device_push(fv_device *device, const fv_device_push_options *options,
                                fv_device_push_report *report, fv_error *err);

/** Has an SDK, on this machine, what every phone needs of it: Android's libraries, and with
 *  programs_too those that fv_device_run_qairt runs? No phone is asked. sdk NULL: FV_ERR_IO. */
FV_API fv_status fv_device_check_sdk(const char *sdk, bool programs_too, fv_error *err);

/** A file from the phone, compared by SHA-256. remote: absolute, or under the phone's directory.
 *  local appears when it is complete; a file there is replaced. */
FV_API fv_status fv_device_pull(fv_device *device, const char *remote, const char *local,
                                const fv_callbacks *callbacks, fv_error *err);

/** Ends what a run has left, and removes the phone's directory, if it is one of ours. *n_bytes,
 *  which may be NULL: what that frees. */
FV_API fv_status fv_device_clean(fv_device *device, uint64_t *n_bytes, fv_error *err);

/* ---------------------------------------------------------------- run */

/** Complete characters of the answer, as they come. */
typedef void fv_device_text_fn(void *user, const char *text, size_t n_bytes);

typedef struct fv_device_run_options {
    size_t size;
    const fv_device_push_options *push; /**< what is to be on the phone; required */
    bool skip_push;                     /**< send only image and question; all else is there */
    fv_precision vision, decoder;       /**< as of fv_engine_options: push->model must offer it */
    int image_size;                     /**< 0: the model's own */
    int max_new_tokens;                 /**< 0: as many as the context allows */
    int n_threads;                      /**< on the phone; 0: one for each core */
    const char *output;                 /**< directory of results; NULL: "run_outputs" */
    fv_device_text_fn *text;            /**< NULL: none */
    void *text_user;                    /**< its first argument */
    const fv_callbacks *callbacks;      /**< log; progress stages of fv_device_push, then "run" */
} fv_device_run_options;

FV_DEFINE_DEFAULT(fv_device_run_options)

typedef struct fv_device_run_report {
    size_t size;
    char dir[1024]; /**< of the results: output/20261127_221530 */
    int image_tokens, prompt_tokens, new_tokens;
    /** on the phone: opening the model; the image; prompt to first token; the tokens after it */
    double load_ms, image_ms, first_token_ms, decode_ms;
    double push_ms, run_ms; /**< seen from here: sending; the program from start to end */
    uint64_t peak_bytes;    /**< the program's memory on the phone; 0: not known */
    size_t n_sent;          /**< files, image and question included */
    uint64_t sent_bytes;
} fv_device_run_report;

/** An image and a question, answered on the phone by fastvlm. What is needed is sent first. When it
 *  is cancelled, the process on the phone is ended. report may be NULL. */
FV_API fv_status fv_device_run(fv_device *device, const char *image, const char *prompt,
                               const fv_device_run_options *options, fv_device_run_report *report,
                               fv_error *err);

/** The same by Qualcomm's programs, as fv_qairt_run does it on this machine: qnn-net-run on the
 *  phone's NPU, genie-t2t-run on its CPU. They are sent first, with the SDK's libraries for the
 *  phone, the context binaries and the decoder; with skip_push only inputs are. report may be
 *  NULL. */
FV_API fv_status fv_device_run_qairt(fv_device *device, const fv_image *image, const char *prompt,
                                     size_t n_prompt_bytes, const fv_qairt_run_options *run,
                                     const fv_qairt_options *options, bool skip_push,
                                     fv_qairt_run_report *report, fv_error *err);

/* ---------------------------------------------------------------- bench */

typedef struct fv_device_bench fv_device_bench;

typedef struct fv_device_bench_options {
    size_t size;
    const fv_device_push_options *push; /**< of which npu is not used; required */
    bool skip_push;
    fv_precision vision, decoder;  /**< as of fv_engine_options */
    int reps, tokens;              /**< 0: as fastvlm bench has them */
    const char *stages;            /**< as of fastvlm bench; NULL: all */
    int n_threads;                 /**< 0: one for each core */
    const fv_callbacks *callbacks; /**< log; progress stages of fv_device_push, then "bench" */
} fv_device_bench_options;

FV_DEFINE_DEFAULT(fv_device_bench_options)

/** fastvlm bench on the phone; temperatures and clocks before and after. On failure *out is
 *  NULL. */
FV_API fv_status fv_device_bench_run(fv_device *device, const fv_device_bench_options *options,
                                     fv_device_bench **out, fv_error *err);
FV_API void fv_device_bench_free(fv_device_bench *bench);
/** {"device": {...}, "before": {...}, "after": {...}, "bench": what fastvlm bench --json prints}.
 *  Ends with NUL; borrowed. */
FV_API const char *fv_device_bench_json(const fv_device_bench *bench);

#ifdef __cplusplus
}
#endif
#endif
