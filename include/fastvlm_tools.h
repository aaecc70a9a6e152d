/* fastvlm_tools: from a checkpoint to what other runtimes load, and what a precision costs.
 *
 * Every function writes beside the final name and renames, so that a failure (a full disk, Ctrl-C)
 * leaves what was there before. Rules as in fastvlm.h: a status, *err when err is not NULL, nothing
 * printed. */
#ifndef FASTVLM_TOOLS_H
#define FASTVLM_TOOLS_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How an export talks to its caller; zero is silent. */
typedef struct fv_export_options {
    bool force;     /* folders: replace files of the same names in a folder that is not empty */
    fv_log_fn *log; /* warnings, and what was written */
    void *log_user;
    fv_progress_fn *progress; /* return true to stop */
    void *progress_user;
    uint64_t reserved[4];
} fv_export_options;

/* ---------------------------------------------------------------- pack */

/* How weights become the blocks of z8 and q4. */
typedef enum fv_rounding {
    FV_ROUNDING_AUTO = 0, /* Q4: calibrated; Z8: search */
    /* every block the scale of least squared error, every weight to the nearest value */
    FV_ROUNDING_SEARCH,
    /* the least error of what the layers compute, on pictures and the model's answers */
    FV_ROUNDING_CALIBRATED
} fv_rounding;

typedef struct fv_pack_options {
    fv_precision vision;      /* AUTO: as stored; F32, BF16, F16, INT8 */
    fv_precision decoder;     /* AUTO: as stored; F32, BF16, F16, Z8, Q4 */
    bool pure;                /* Q4: the embedding and the head too, otherwise they are in z8 */
    int n_threads;            /* 0: one per physical core */
    fv_progress_fn *progress; /* NULL: none; also how to cancel */
    void *progress_user;
    fv_log_fn *log; /* NULL: silent */
    void *log_user;
    /* INT8, calibrated rounding: pictures and folders of pictures to calibrate with, */
    const char *const *images;
    size_t n_images; /* 0: built-in synthetic scenes (the file says so) */
    /* of pictures at most, of scenes exactly; 0: 32 pictures (for rounding 16), 16 scenes, smaller
     * than 1024 x 1024 up to four times as many */
    int max_images;
    /* INT8: layers stay in bf16 until features and image tokens are so close to f32's; 0: 0.9992 */
    double min_cosine;
    fv_rounding rounding; /* of a decoder in Z8 or Q4 */
    uint64_t reserved[7]; /* zero */
} fv_pack_options;

typedef struct fv_pack_report {
    size_t n_tensors;
    uint64_t n_parameters, file_bytes;
    float worst_sqnr; /* dB, of the tensor that lost most; infinite when none lost anything */
    char worst_name[64];
    double ms;
    /* INT8, calibrated rounding */
    size_t n_images, n_skipped; /* pictures used for the encoder; broken ones */
    bool synthetic_images;
    /* groups of layers; those that stayed in bf16: when all did, the file is one in bf16 */
    size_t n_units, n_wide;
    /* against f32, over some of the pictures; dB */
    double feature_cosine, token_cosine, token_sqnr;
    /* pictures used for the rounding, rows of the decoder they gave */
    size_t n_rounding_images, n_rounding_rows;
} fv_pack_report;

FV_API void fv_pack_options_default(fv_pack_options *options);

/* Writes a checkpoint directory as one packed file: weights fused and in their final types,
 * tokenizer, template and preprocessing (docs/format.md). options and report may be NULL. The file
 * appears when it is complete; after a failure, and after being cancelled, there is none and an
 * older one is as it was. A weight that is NaN or infinite is FV_ERR_FORMAT. */
FV_API fv_status fv_pack(const char *checkpoint, const char *file, const fv_pack_options *options,
                         fv_pack_report *report, fv_error *err);

/* What int8 costs, one unit of the encoder's layers at a time (an FFN with its convolution is
 * one). */
typedef struct fv_layer_loss {
    char name[64]; /* of the unit's first layer */
    /* dB: of the outputs of its matrices on rows of the pictures, the worst of them */
    double sqnr;
    double cosine; /* of features or image tokens, the smaller, when this unit alone is in int8 */
    bool int8;     /* what pack would choose for it */
} fv_layer_loss;

typedef void fv_layer_loss_fn(void *user, const fv_layer_loss *loss);

/* Calibrates as fv_pack does for INT8, with its options, writes nothing, and calls fn for every
 * unit in order. */
FV_API fv_status fv_eval_layers(const char *checkpoint, const fv_pack_options *options,
                                fv_layer_loss_fn *fn, void *user, fv_error *err);

/* ---------------------------------------------------------------- verify */

/* Checks a packed file: both hashes, the format, that every tensor of the model is there in a type
 * and shape that runs, that the tokenizer can be built, that no value is NaN or infinite. progress
 * may be NULL. */
FV_API fv_status fv_verify(const char *file, fv_progress_fn *progress, void *progress_user,
                           fv_error *err);

/* ---------------------------------------------------------------- eval: what a precision costs */

typedef enum fv_eval_features {
    FV_EVAL_BOTH = 0, /* text is compared twice: */
    FV_EVAL_OWN,      /* the test model sees its own image tokens: what a user gets */
    FV_EVAL_REF       /* it sees the reference's: what its decoder alone loses */
} fv_eval_features;

typedef struct fv_eval_settings {
    const char *const *paths; /* pictures, and folders of pictures */
    size_t n_paths;
    int max_images;     /* 0: all; of more pictures so many are taken, evenly over the list */
    const char *prompt; /* NULL: "Describe the image." */
    int max_new_tokens; /* 0: 32 */
    fv_eval_features features;
    fv_fit fit;
    fv_log_fn *log; /* what was skipped */
    void *log_user;
    fv_progress_fn *progress; /* also how to cancel */
    void *progress_user;
    uint64_t reserved[8];
} fv_eval_settings;

/* How far the test model's values are from the reference's. */
typedef struct fv_eval_loss {
    double sqnr; /* signal to noise in dB; infinite when no value differs; NaN: not measured */
    double cosine;
} fv_eval_loss;

/* Over generated tokens: the reference answers greedily, the test model is led along its tokens. */
typedef struct fv_eval_text {
    size_t n_tokens, n_agree; /* n_agree: it would have chosen the same */
    /* Kullback-Leibler divergence per token, nats, over the tokens that can be chosen */
    double mean, median, max;
} fv_eval_text;

typedef struct fv_eval_stage {
    const char *name;      /* as --dump names it */
    fv_eval_loss own, ref; /* ref: with the reference's image tokens, of the decoder only */
} fv_eval_stage;

typedef struct fv_eval_image {
    const char *path, *answer;     /* the reference's answer */
    fv_eval_loss features, tokens; /* vision.features, image_tokens */
    fv_eval_text own, ref;         /* n_tokens 0: not measured */
} fv_eval_image;

typedef struct fv_eval {
    /* in the order of the model, over all pictures; decoder at the prompt */
    const fv_eval_stage *stages;
    size_t n_stages;
    const fv_eval_image *images;
    size_t n_images, n_skipped; /* pictures that cannot be read are skipped */
    fv_eval_text own, ref;
    double least_features, least_tokens; /* smallest cosine of a picture */
    double ms;
} fv_eval;

/* Compares two open models of the same shape on pictures. settings->paths must be given, the rest
 * may be zero. No readable picture is an error. On success *out is released with fv_eval_free. */
FV_API fv_status fv_eval_run(fv_eval **out, fv_engine *reference, fv_engine *test,
                             const fv_eval_settings *settings, fv_error *err);
FV_API void fv_eval_free(fv_eval *e);
/* SQNR by depth as an SVG file. title may be NULL. */
FV_API fv_status fv_eval_plot(const fv_eval *e, const char *title, const char *file, fv_error *err);

/* ---- the demonstration test ---- */

typedef struct fv_task_settings {
    int max_questions;  /* 0: all, otherwise the first so many */
    int max_new_tokens; /* 0: 96 */
    fv_progress_fn *progress;
    void *progress_user;
    uint64_t reserved[8];
} fv_task_settings;

typedef struct fv_task_answer {
    const char *image, *kind, *question, *wanted, *answer;
    bool correct;
} fv_task_answer;

typedef struct fv_task_kind {
    const char *kind;
    size_t n, n_correct;
} fv_task_kind;

typedef struct fv_task {
    const fv_task_answer *answers;
    const fv_task_kind *kinds; /* by name */
    size_t n, n_correct, n_kinds;
    double ms;
    size_t n_unanswered; /* of the wrong ones: the answer is missing or empty */
} fv_task;

/* Asks the questions of the folder dir (questions.jsonl and the pictures it names) and scores the
 * answers by exact rules (docs/evaluation.md). settings may be NULL. *out is released with
 * fv_task_free. */
FV_API fv_status fv_task_run(fv_task **out, fv_engine *engine, const char *dir,
                             const fv_task_settings *settings, fv_error *err);
/* Scores answers that something else gave: one JSON object with "answer" a line, in the order of
 * the questions, or with "image" and "question" to find them by. What is not answered is wrong:
 * n_unanswered counts it. */
FV_API fv_status fv_task_score(fv_task **out, const char *dir, const char *answers,
                               const fv_task_settings *settings, fv_error *err);
/* One line {"image", "question", "answer"} each. */
FV_API fv_status fv_task_save(const fv_task *t, const char *file, fv_error *err);
FV_API void fv_task_free(fv_task *t);

/* ---------------------------------------------------------------- ONNX */

enum { FV_ONNX_VISION = 1, FV_ONNX_EMBED = 2, FV_ONNX_DECODER = 4 };

typedef enum fv_onnx_ops {
    FV_ONNX_PRIMITIVE = 0, /* Erf, ReduceMean and the like: any converter takes them */
    FV_ONNX_FUSED          /* Gelu, LayerNormalization, RMSNormalization where the opset has them */
} fv_onnx_ops;

typedef enum fv_onnx_target {
    FV_ONNX_GENERIC = 0,    /* fixed shapes, right-aligned cache inside the graph */
    FV_ONNX_NPU,            /* fixed shapes, f16, keys transposed, the host keeps the cache */
    FV_ONNX_TRANSFORMERS_JS /* free shapes, growing cache, the file names of that package */
} fv_onnx_target;

typedef struct fv_onnx_settings {
    unsigned parts; /* FV_ONNX_* flags; 0: all three */
    fv_onnx_target target;
    fv_onnx_ops ops;
    int opset;              /* 13 to 24; 0: 14 for primitive operators, 23 for fused ones */
    int image_size;         /* a multiple of 64; 0: the model's own */
    int seq_len;            /* ids of embed_tokens; 0: 512 */
    int step_len;           /* rows of one decoder step; 0: 1 */
    int cache_len;          /* 0: 512, for the NPU 1023 */
    fv_precision precision; /* F32 or F16; AUTO: F32, for the NPU F16 */
    bool qdq; /* the int8 encoder of a packed file, quantised in the graph; GENERIC in F32 only */
    bool external_data;   /* weights in NAME.onnx_data even when one file could hold them */
    uint64_t reserved[8]; /* zero */
} fv_onnx_settings;

FV_API void fv_onnx_settings_default(fv_onnx_settings *settings);
/* ONNX graphs of the checkpoint directory model into the folder dir. settings may be NULL. */
FV_API fv_status fv_export_onnx(const char *model, const fv_onnx_settings *settings,
                                const char *dir, const fv_export_options *options, fv_error *err);

/* ---- calibration: preprocessed pictures as raw tensors, for a quantising converter ---- */

typedef enum fv_calib_layout { FV_CALIB_NHWC, FV_CALIB_NCHW } fv_calib_layout;
typedef enum fv_calib_dtype { FV_CALIB_F32, FV_CALIB_U8 } fv_calib_dtype;

typedef struct fv_calib_settings {
    /* pictures, and folders of pictures (.jpg .jpeg .png .webp .ppm .pgm .pnm) */
    const char *const *paths;
    size_t n_paths;
    /* instead of pictures: uniform noise in [0, 1), as the hand-off's scripts make it */
    int n_random;
    uint64_t seed;   /* of the noise */
    int max_samples; /* 0: all; of more pictures so many are taken, evenly over the sorted list */
    int min_samples; /* fewer usable pictures are an error; 0: 1 */
    int image_size;  /* a multiple of 64; 0: 1024 */
    fv_fit fit;      /* FV_FIT_AUTO: pad */
    fv_calib_layout layout;
    fv_calib_dtype dtype;
    /* folder that input_list.txt names the files in; NULL: where they are, absolute */
    const char *list_root;
    uint64_t reserved[4];
} fv_calib_settings;

typedef struct fv_calib_result {
    size_t n_samples, n_skipped; /* broken pictures are skipped */
} fv_calib_result;

/* Writes sample_000.raw ..., input_list.txt and calib.json into the folder dir. */
FV_API fv_status fv_export_calib(const fv_calib_settings *settings, const char *dir,
                                 const fv_export_options *options, fv_calib_result *result,
                                 fv_error *err);

/* ---- side files of Qualcomm's Genie ---- */

/* The embedding as rows of little-endian f32 without a header: [vocabulary rows][d_model]. */
FV_API fv_status fv_export_lut(const char *model, const char *file,
                               const fv_export_options *options, fv_error *err);

/* tokenizer.json: the checkpoint's own where it has one, otherwise built from its vocabulary. */
FV_API fv_status fv_export_tokenizer(const char *model, const char *file,
                                     const fv_export_options *options, fv_error *err);

typedef struct fv_genie_settings {
    int context;            /* rows of a conversation; 0: 512, as the hand-off has it */
    int max_new_tokens;     /* 0: 50 */
    int n_threads;          /* on the phone; 0: 6 */
    bool sampling;          /* false: greedy, reproducible; true: the hand-off's temperature 0.8 */
    uint64_t seed;          /* 0: 42 */
    const char *device_dir; /* where the files lie on the phone; NULL: "/data/local/tmp/fastvlm" */
    const char *model_bin;  /* name of the composed decoder there; NULL: "fastvlm_model.bin" */
    uint64_t reserved[4];
} fv_genie_settings;

/* Into the folder dir: genie_model.json, the architecture that qnn-genai-transformer-composer
 * wants; genie_dialog.json, the dialog for the CPU engine; genie_dialog_htp.json with
 * htp_backend.json, the one for the NPU engine. settings may be NULL. */
FV_API fv_status fv_export_genie(const char *model, const fv_genie_settings *settings,
                                 const char *dir, const fv_export_options *options, fv_error *err);

/* ---- checkpoints ---- */

typedef enum fv_hf_layout { FV_HF_LLAVA_QWEN2, FV_HF_FAST_VLM } fv_hf_layout;

typedef struct fv_hf_settings {
    fv_hf_layout layout;
    fv_precision dtype; /* FV_PRECISION_AUTO: as stored; convolutions that had to be fused: f32 */
    uint64_t reserved[4];
} fv_hf_settings;

/* A checkpoint directory: model.safetensors, config.json, tokenizer and processor files. */
FV_API fv_status fv_export_hf(const char *model, const fv_hf_settings *settings, const char *dir,
                              const fv_export_options *options, fv_error *err);

/* ---- llama.cpp ---- */

typedef enum fv_decoder_type {
    FV_DECODER_F16,
    FV_DECODER_Q8_0,
    FV_DECODER_Q4_0,
    FV_DECODER_BF16,
    FV_DECODER_F32
} fv_decoder_type;

/* The decoder and the tokenizer as one GGUF file of architecture "qwen2". It answers text:
 * llama.cpp has no FastVLM vision encoder. */
FV_API fv_status fv_export_gguf(const char *model, fv_decoder_type type, const char *file,
                                const fv_export_options *options, fv_error *err);

/* ---- the lot ---- */

enum {
    FV_ALL_ONNX = 1,            /* onnx/: three graphs in f32 */
    FV_ALL_NPU = 2,             /* onnx-npu/: f16, transposed keys */
    FV_ALL_TRANSFORMERS_JS = 4, /* transformers.js/ */
    FV_ALL_CALIB = 8,           /* calib/ */
    FV_ALL_GENIE = 16,          /* genie/: LUT.bin, tokenizer.json, configurations */
    FV_ALL_GGUF = 32,           /* gguf/: decoder-f16, -q8_0, -q4_0 */
    FV_ALL_HF = 64,             /* hf/fast_vlm, hf/llava_qwen2 */
    FV_ALL_PARTS = 127
};

typedef struct fv_all_settings {
    unsigned parts;          /* 0: all */
    fv_calib_settings calib; /* without pictures: eight samples of noise, with a warning */
    uint64_t reserved[4];
} fv_all_settings;

/* Every artefact into folders of dir, and manifest.json: size, SHA-256 and tensors of every file,
 * the version that wrote them, the hash of the model they were made from. dir appears when all of
 * it is complete. settings may be NULL. */
FV_API fv_status fv_export_all(const char *model, const fv_all_settings *settings, const char *dir,
                               const fv_export_options *options, fv_error *err);

#ifdef __cplusplus
}
#endif

#endif
