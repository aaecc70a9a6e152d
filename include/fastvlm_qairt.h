/** \file fastvlm_qairt.h
 * fastvlm_qairt: Qualcomm's own tools, those of the QAIRT SDK and of Genie, run for the caller.
 *
 * The tools are the user's; none is part of fastvlm. Each runs as a child process with an
 * environment made here, so that nothing has to be sourced or activated before. What it writes goes
 * to a fresh directory beside its place and appears there once the tool has succeeded and every
 * file that was expected is there. The conventions of fastvlm.h apply. */
#ifndef FASTVLM_QAIRT_H
#define FASTVLM_QAIRT_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- the SDK */

/** The oldest release whose tools are known to be called rightly. */
#define FV_QAIRT_OLDEST "2.42.0.251225"

typedef struct fv_qairt_options {
    size_t size;
    /** directory of the SDK; NULL: what QNN_SDK_ROOT, else QAIRT_SDK_ROOT names, else the newest
     *  directory in the current one that is named by a version, such as 2.42.0.251225 */
    const char *sdk;
    /** Python environment of the converters and the composer; NULL: VIRTUAL_ENV, else qnn_env in
     *  the SDK, else the python3 on PATH */
    const char *venv;
    double timeout_s; /**< of one tool; 0: six hours */
    bool dry_run;     /**< log what would be run, run nothing and write nothing */
    /** log: every command, and what it says; progress: a tool's name as stage, to cancel it */
    const fv_callbacks *callbacks;
} fv_qairt_options;

FV_DEFINE_DEFAULT(fv_qairt_options)

/** What is there. */
typedef struct fv_qairt_info {
    size_t size;
    char dir[1024];
    const char *named_by;     /**< "sdk", "QNN_SDK_ROOT", "QAIRT_SDK_ROOT", "current directory" */
    char version[32];         /**< "2.42.0.251225" */
    char python[1024];        /**< the converters' python3 */
    char python_version[16];  /**< "3.10.12"; "" when it does not run */
    char python_problem[496]; /**< "" when nothing is wrong */
    char ndk[1024];           /**< ANDROID_NDK_ROOT; "" when it is not set */
    size_t n_tools, n_absent; /**< that fv_qairt_tool lists; of them missing in the SDK */
} fv_qairt_info;

/** Finds an SDK and looks at it. FV_ERR_IO: none is named, or it is not an SDK; FV_ERR_UNSUPPORTED:
 *  its release is older than FV_QAIRT_OLDEST. */
FV_API fv_status fv_qairt_check(fv_qairt_info *out, const fv_qairt_options *options, fv_error *err);

typedef struct fv_qairt_tool_info {
    size_t size;
    const char *name;    /**< "qnn-onnx-converter" */
    const char *purpose; /**< static */
    bool python;         /**< a Python script; otherwise a native program */
    bool phone;          /**< for the phone as well: bin/aarch64-android */
    bool there, there_for_phone;
} fv_qairt_tool_info;

/** A tool in the SDK `dir` (of fv_qairt_info). false when index is past the last one, a pointer is
 *  NULL or out->size 0. */
FV_API bool fv_qairt_tool(const char *dir, size_t index, fv_qairt_tool_info *out);

/* ---------------------------------------------------------------- convert, quantise */

typedef struct fv_qairt_convert_options {
    size_t size;
    /** false: qnn-onnx-converter to C++ and weights, quantised, as the reference Qualcomm pipeline
     *  does; true: qairt-converter to a DLC in float, for fv_qairt_quantize */
    bool dlc;
    /** of the graph; NULL: "vision_encoder_int8_qnnmodel", with dlc "vision_encoder_fp32" */
    const char *name;
    const char *input_list;               /**< calibration samples; required unless dlc */
    const char *input_name, *output_name; /**< NULL: "pixel_values", "image_features" */
    int image_size;                       /**< 0: 1024 */
    /** keep the order of the ONNX input's axes; false: the converter makes it [1, S, S, 3] */
    bool keep_layout;
    int activation_bits; /**< 8 or 16; 0: 8 */
    int weight_bits;     /**< 4 or 8; 0: 8 */
    int bias_bits;       /**< 8 or 32; 0: 8, fv_qairt_quantize 32 */
    bool per_channel;    /**< a scale for each output channel of the weights */
    bool force;          /**< replace files of the same names in a directory that is not empty */
} fv_qairt_convert_options;

FV_DEFINE_DEFAULT(fv_qairt_convert_options)

/** An ONNX vision encoder into the directory dir: NAME.cpp, NAME.bin, NAME_net.json, or NAME.dlc.
 *  input_list is checked first: absolute paths, one a line, every file of the size of the graph's
 *  input in f32 and, where a calib.json beside it says so, of its layout. */
FV_API fv_status fv_qairt_convert(const char *onnx, const char *dir,
                                  const fv_qairt_convert_options *convert,
                                  const fv_qairt_options *options, fv_error *err);
/** A DLC in float quantised, as NAME.dlc in dir. Of convert: name (NULL: "vision_encoder_int8"),
 *  input_list, image_size, bits, per_channel, force. Its samples are [3, S, S]. */
FV_API fv_status fv_qairt_quantize(const char *dlc, const char *dir,
                                   const fv_qairt_convert_options *convert,
                                   const fv_qairt_options *options, fv_error *err);

/* ---------------------------------------------------------------- library, context binary */

typedef struct fv_qairt_lib_options {
    size_t size;
    const char *name; /**< of the library, lib<name>.so; NULL: as the .cpp is called */
    /** false: for this machine, and with ANDROID_NDK_ROOT set for the phone, which only on-device
     *  preparation needs; true: for this machine only */
    bool host_only;
    bool force; /**< replace files of the same names */
} fv_qairt_lib_options;

FV_DEFINE_DEFAULT(fv_qairt_lib_options)

/** NAME.cpp, with NAME.bin beside it, as dir/x86_64-linux-clang/lib<name>.so and, for the phone,
 *  dir/aarch64-android/lib<name>.so. */
FV_API fv_status fv_qairt_lib(const char *cpp, const char *dir, const fv_qairt_lib_options *lib,
                              const fv_qairt_options *options, fv_error *err);

typedef struct fv_qairt_context_options {
    size_t size;
    const char *file;  /**< name in dir; NULL: "fastvlm_vision_encoder_int8_htp.bin" */
    const char *soc;   /**< "sm8750"; NULL: that */
    const char *graph; /**< its name; NULL: that of the library or DLC */
    int optimization;  /**< 1 to 3; 0: 3 */
    int vtcm_mb;       /**< 0: the chip's */
    /** give the tool no configuration, as the reference Qualcomm pipeline does: then it compiles
     *  for its own default chip, which need not be the phone's */
    bool no_config;
    bool force; /**< replace files of the same names */
} fv_qairt_context_options;

FV_DEFINE_DEFAULT(fv_qairt_context_options)

/** What a context binary was found to be. */
typedef struct fv_qairt_context_report {
    size_t size;
    char file[256]; /**< in dir */
    char info[256]; /**< its description there: NAME_ctx_info.json */
    char graph[128];
    uint64_t file_bytes;
    unsigned htp_version, vtcm_mb, optimization_level; /**< 0: not said */
    bool own_reader; /**< read with libQnnSystem as well, which says the same */
} fv_qairt_context_report;

/** A library (.so) or DLC compiled for a chip's NPU into the directory dir, with NAME_ctx_info.json
 *  and the configuration beside it. What came out is read back: FV_ERR_FORMAT when it is for
 *  another chip or has another graph, which the tool itself does not say. report may be NULL. */
FV_API fv_status fv_qairt_context(const char *model, const char *dir,
                                  const fv_qairt_context_options *context,
                                  const fv_qairt_options *options, fv_qairt_context_report *report,
                                  fv_error *err);
/** The description of a context binary, by qnn-context-binary-utility, to the file out. */
FV_API fv_status fv_qairt_describe(const char *binary, const char *out, bool force,
                                   const fv_qairt_options *options, fv_error *err);

/* ---------------------------------------------------------------- Genie */

typedef enum fv_qairt_quantization {
    FV_QAIRT_FP32 = 0, /**< fastvlm_model.bin */
    FV_QAIRT_Z8,       /**< fastvlm_model_z8.bin: blocks of 128 weights in 8 bits */
    FV_QAIRT_Z4,       /**< fastvlm_model_z4.bin */
    FV_QAIRT_Q4        /**< fastvlm_model_q4.bin: blocks of 32 in 4 bits */
} fv_qairt_quantization;

typedef struct fv_qairt_compose_options {
    size_t size;
    fv_qairt_quantization quantization;
    const char *config; /**< architecture; NULL: dir's, or fv_export_genie's genie_model.json */
    const char *file;   /**< name in dir; NULL: as the quantisation says */
    bool force;         /**< replace files of the same names */
} fv_qairt_compose_options;

FV_DEFINE_DEFAULT(fv_qairt_compose_options)

/** A checkpoint directory's decoder for Genie's CPU engine, with qnn-genai-transformer-composer,
 *  into dir: the model, LUT.bin, tokenizer.json, genie_model.json. Without force the first three
 *  must be new there, and a genie_model.json in dir is the architecture. LUT.bin must have the size
 *  of the model's embedding, and its values in the rows that are compared; a tokenizer.json that
 *  the composer did not write is the exporter's. */
FV_API fv_status fv_qairt_compose(const char *checkpoint, const char *dir,
                                  const fv_qairt_compose_options *compose,
                                  const fv_qairt_options *options, fv_error *err);

/** Takes a piece of an answer as it comes: UTF-8, cut between characters; not FV_OK stops. */
typedef fv_status fv_qairt_text_fn(void *user, const char *text, size_t n_bytes);

/** What Genie says of a run. A negative number: not known. */
typedef struct fv_qairt_profile {
    size_t size;
    double init_ms;                      /**< opening the decoder */
    double first_token_ms;               /**< from the prompt's start */
    double prompt_rate, generation_rate; /**< tokens per second */
    int64_t n_prompt_tokens, n_generated;
} fv_qairt_profile;

typedef struct fv_qairt_genie_options {
    size_t size;
    const char *dialog;     /**< its JSON; required */
    const char *prompt;     /**< text, or NULL */
    const char *embeddings; /**< file of rows in f32, or NULL; one of both is needed */
    const char *table;      /**< LUT.bin, with embeddings */
    const char *profile;    /**< file to write Genie's profile to; NULL: none */
    bool force;             /**< replace the profile */
    fv_qairt_text_fn *text; /**< NULL: none */
    void *text_user;
} fv_qairt_genie_options;

FV_DEFINE_DEFAULT(fv_qairt_genie_options)

/** genie-t2t-run on this machine. The answer's text goes to options->text. profile may be NULL. */
FV_API fv_status fv_qairt_genie(const fv_qairt_genie_options *genie,
                                const fv_qairt_options *options, fv_qairt_profile *profile,
                                fv_error *err);

/* ---------------------------------------------------------------- image and prompt to text */

typedef enum fv_qairt_order {
    FV_QAIRT_TEMPLATE = 0, /**< image tokens where the conversation has the image: as trained */
    /** image tokens first, then the whole text, as the reference Qualcomm pipeline joins them: to
     *  reproduce what it prints */
    FV_QAIRT_IMAGE_FIRST
} fv_qairt_order;

typedef struct fv_qairt_run_options {
    size_t size;
    const char *model;  /**< checkpoint or packed file: tokenizer, embedding; required */
    const char *vision; /**< context binary of the encoder; required */
    const char
        *vision_info; /**< its ctx_info; NULL: NAME_ctx_info.json beside it, else the tool's */
    const char
        *embedder; /**< context binary of the embedder; NULL: rows of the model's embedding */
    const char *embedder_info;
    const char *decoder;   /**< fastvlm_model.bin or one quantised; required */
    const char *table;     /**< LUT.bin; NULL: beside decoder */
    const char *tokenizer; /**< tokenizer.json; NULL: beside decoder */
    const char *output;    /**< NULL: "run_outputs" */
    fv_qairt_order order;
    fv_fit fit;             /**< AUTO: the model's; the reference pipeline stretches */
    int context;            /**< tokens; 0: 512 */
    int max_new_tokens;     /**< 0: what the context leaves */
    int n_threads;          /**< of Genie; 0: 6 */
    bool sampling;          /**< temperature 0.8, top-k 40, top-p 0.95; false: greedy */
    uint64_t seed;          /**< 0: 42 */
    fv_qairt_text_fn *text; /**< NULL: none */
    void *text_user;
    /** qnn-net-run measures the encoder: vision_out/qnn-profiling-data_0.log, and what
     *  qnn-profile-viewer makes of it, vision_out/qnn-profile.csv */
    bool profiling;
} fv_qairt_run_options;

FV_DEFINE_DEFAULT(fv_qairt_run_options)

typedef struct fv_qairt_run_report {
    size_t size;
    char output[1024];                               /**< the directory that was written */
    size_t n_rows, n_image_rows;                     /**< of the prompt; of them image tokens */
    double vision_ms, embed_ms, decode_ms, total_ms; /**< programs' starts included */
    fv_qairt_profile genie;
    bool clipped; /**< max_new_tokens or the context ended the answer, not the model */
} fv_qairt_run_report;

/** An image and a prompt through qnn-net-run and genie-t2t-run on this machine, where Qualcomm's
 *  library emulates the NPU. Leaves output/YYYYMMDD_HHMMSS/ (docs/qairt.md). report may be NULL. */
FV_API fv_status fv_qairt_run(const fv_image *image, const char *prompt, size_t n_prompt_bytes,
                              const fv_qairt_run_options *run, const fv_qairt_options *options,
                              fv_qairt_run_report *report, fv_error *err);

/* ---------------------------------------------------------------- Qualcomm AI Hub */

/** The ONNX files that the reference Qualcomm pipeline has compiled at the Hub. */
typedef enum fv_aihub_part {
    FV_AIHUB_VISION = 0, /**< vision_encoder_fp32.onnx, as fastvlm_vision_encoder_fp32 */
    FV_AIHUB_EMBED,      /**< embed_tokens_fp32.onnx, as fastvlm_embed_tokens_fp32 */
    FV_AIHUB_DECODER,    /**< decoder_fixed_kv_fp32.onnx, as fastvlm_decoder_fixed_kv_fp32 */
    FV_AIHUB_PARTS
} fv_aihub_part;

typedef struct fv_aihub_options {
    size_t size;
    const char *client;     /**< the program qai-hub; NULL: the one on PATH */
    const char *python;     /**< that has its package qai_hub; NULL: the one that runs client */
    const char *onnx_dir;   /**< NULL: "models/fastvlm-onnx-fp32" */
    const char *ledger_dir; /**< of both ledgers, see docs/hub.md; NULL: "handoff" */
    const char *output_dir; /**< NULL: "models/fastvlm-qaihub-fp16-context" */
    unsigned parts;         /**< 1 << FV_AIHUB_VISION and so on; 0: all */
    const char *soc;        /**< "sm8750"; NULL: that */
    const char *device;     /**< a device's name at the Hub; NULL: the one known for soc */
    const char *device_os;  /**< its version; NULL: the one known for soc, else the newest */
    const char *compile_options; /**< NULL: float16 context binaries, as the pipeline has it */
    const char *qairt_version;   /**< "2.42": compiled with that release; NULL: the Hub's default */
    const char *qnn_dir;         /**< as fv_npu_library_options; to check what was downloaded */
    double timeout_s;            /**< for all jobs to end; 0: two hours */
    double wait_s; /**< before the second look at a job, or try at a request; 0: 10. The waits
                        after it grow to a minute */
    int retries;   /**< of a request that may go well the next time; 0: 3; -1: none */
    bool no_wait;  /**< compile: submit, and leave the jobs at the service */
    bool force;    /**< upload, submit or fetch again what is there already */
    bool dry_run;  /**< log what would be run, run nothing and write nothing */
    /** log: what becomes of each part; with dry_run the commands, behind "$ ". progress stages:
     *  "read", "ask", "upload", "submit", "compile", "download" */
    const fv_callbacks *callbacks;
} fv_aihub_options;

FV_DEFINE_DEFAULT(fv_aihub_options)

/* The calls below run the user's own client, which reads the user's API token from its own
 * configuration file. The token is never logged, nor are addresses that give access to a file.
 * FV_ERR_IO when the client, its configuration or the token is missing, or the service refuses.
 * What is at the service is written to the ledgers before and after every change, so that a call
 * that was interrupted can be made again and finds what it had begun; FV_ERR_STATE when another
 * process is at it. A cancelled call ends the client; what the service does continues. */

typedef struct fv_aihub_account {
    size_t size;
    char client[1024], python[1024]; /**< programs that were used */
    char version[40];                /**< of the client: "0.56.0" */
    char config[1024];               /**< its configuration file */
    bool has_token;                  /**< there is a token in it */
    char user[480];                  /**< e-mail address of the account */
} fv_aihub_account;

/** What there is on this machine: client and version are "" where it, or its package, is missing,
 *  has_token false where its configuration has none; user is "". The service is not asked. */
FV_API fv_status fv_aihub_find(fv_aihub_account *out, const fv_aihub_options *options,
                               fv_error *err);
/** Asks the service who we are. With dry_run only what is known without it. */
FV_API fv_status fv_aihub_check(fv_aihub_account *out, const fv_aihub_options *options,
                                fv_error *err);

/** Uploads each part whose file is not at the service yet, by its SHA-256 in the ledger. */
FV_API fv_status fv_aihub_upload(const fv_aihub_options *options, fv_error *err);
/** Has each part that was uploaded compiled, or continues to wait for a job that does what the
 *  options say. FV_ERR_IO with the service's words when a job fails, FV_ERR_LIMIT after
 *  timeout_s, FV_ERR_STATE when a part was not uploaded. */
FV_API fv_status fv_aihub_compile(const fv_aihub_options *options, fv_error *err);
/** Asks how the jobs are doing that were not finished, for the ledger. */
FV_API fv_status fv_aihub_refresh(const fv_aihub_options *options, fv_error *err);
/** Fetches the context binary of each job that has succeeded, to
 *  OUTPUT_DIR/NAME/job_JOB_optimized_bin_MODEL.bin. Each is checked: size, that it is a context
 *  binary for the SoC where Qualcomm's libraries are there to say so; a file of that name that
 *  differs is FV_ERR_IO. */
FV_API fv_status fv_aihub_download(const fv_aihub_options *options, fv_error *err);

/** What the ledgers say of a part. */
typedef struct fv_aihub_item_info {
    size_t size;
    const char *name;    /**< "fastvlm_vision_encoder_fp32"; static */
    char model_id[40];   /**< "": not uploaded */
    char job_id[40];     /**< of its last job; "": none */
    char job_status[40]; /**< "CREATED", "OPTIMIZING_MODEL", ..., "SUCCESS", "FAILED" */
    char message[480];   /**< why it failed */
    char url[480];       /**< of the job, to look at */
    char file[1024];     /**< the context binary; "": not downloaded */
    uint64_t file_bytes;
} fv_aihub_item_info;

/** From the ledgers alone: nothing is run. */
FV_API fv_status fv_aihub_item(fv_aihub_item_info *out, fv_aihub_part part,
                               const fv_aihub_options *options, fv_error *err);

#ifdef __cplusplus
}
#endif
#endif
