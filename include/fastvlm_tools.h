/** \file fastvlm_tools.h
 * fastvlm_tools: packed files, files for other runtimes, and the accuracy lost in a precision.
 *
 * What is written appears complete or not at all: a failure (a full disk, a cancelled call) leaves
 * what was there before. The conventions of fastvlm.h apply. */
#ifndef FASTVLM_TOOLS_H
#define FASTVLM_TOOLS_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- pack */

/** How weights become the blocks of z8, q4 and w8a8, and those of an int8 encoder. */
typedef enum fv_rounding {
    FV_ROUNDING_AUTO = 0, /**< q4: calibrated; z8, w8a8: search; int8: the nearest value */
    /** every block, in w8a8 every row, gets the scale of least squared error, every weight the
        nearest value */
    FV_ROUNDING_SEARCH,
    /** least error of what the layers compute, on images and the model's answers to them; of an
     *  int8 encoder's, on the images */
    FV_ROUNDING_CALIBRATED
} fv_rounding;

typedef struct fv_pack_options {
    size_t size;
    fv_precision vision;      /**< AUTO: as stored; F32, BF16, F16, INT8 */
    fv_precision decoder;     /**< AUTO: as stored; F32, BF16, F16, Z8, Q4, W8A8 */
    bool pure;                /**< Q4: the embedding and the head too, otherwise they are in z8 */
    int n_threads;            /**< 1 to 1024; 0: one per physical core */
    const char *const *paths; /**< INT8, calibrated rounding: images and directories of images */
    size_t n_paths;           /**< 0: built-in scenes (recorded in the file) */
    /** up to N images, or exactly N built-in scenes; 0: 32 images (16 for rounding), 16 scenes, or
     *  up to four times as many when the model's images are smaller than 1024 x 1024 */
    int max_images;
    /** INT8: layer groups get inputs of 16 bits, or stay in bf16, until the cosine of features and
     *  image tokens against f32 reaches this; 0: 0.9993 */
    double min_cosine;
    fv_rounding rounding;          /**< of a decoder in Z8, Q4, W8A8; CALIBRATED: of INT8, too */
    const fv_callbacks *callbacks; /**< progress stages "calibrate", "round", "pack" */
} fv_pack_options;

FV_DEFINE_DEFAULT(fv_pack_options)

typedef struct fv_pack_report {
    size_t size;
    size_t n_tensors;
    uint64_t n_parameters, file_bytes;
    float worst_sqnr; /**< dB, of the tensor that lost most; infinite when none lost anything */
    char worst_name[64];
    double ms;
    /* INT8, calibrated rounding: */
    size_t n_images;  /**< used for the encoder */
    size_t n_skipped; /**< unreadable */
    bool synthetic_images;
    size_t n_groups; /**< layer groups of the encoder */
    size_t n_wide;   /**< of them: kept in bf16; when all are, the file is one in bf16 */
    /** against f32, over some of the images; SQNR in dB */
    double feature_cosine, token_cosine, token_sqnr;
    size_t n_rounding_images, n_rounding_rows; /**< images for the rounding; rows they gave */
    size_t n_w8a16; /**< layer groups with 8-bit weights and rows of 16 bits */
} fv_pack_report;

/** Writes a checkpoint directory as one packed file: weights fused and in their final types,
 *  tokenizer, template and preprocessing (docs/format.md). report may be NULL. The file appears
 *  when it is complete; after a failure, and after being cancelled, there is none and an older one
 *  is as it was. A weight that is NaN or infinite is FV_ERR_FORMAT. */
FV_API fv_status fv_pack(const char *checkpoint, const char *file, const fv_pack_options *options,
                         fv_pack_report *report, fv_error *err);

/** What int8 loses in one layer group of the encoder (an FFN with its convolution is one). */
typedef struct fv_layer_loss {
    size_t size;
    char name[64]; /**< of the group's first layer */
    double sqnr;   /**< dB: of its matrices' outputs on rows of the images, the worst of them */
    /** of features or image tokens, the smaller, when only this group is in int8; on images of 256
     *  to 511 px where the model's are larger */
    double cosine;
    bool int8;           /**< fv_pack would choose int8 for it */
    double w8a16_cosine; /**< as cosine, with 8-bit weights and rows of 16 bits */
    /** what fv_pack would choose: "int8", "w8a16" (8-bit weights, rows of 16 bits) or "bf16";
     *  static */
    const char *choice;
} fv_layer_loss;

typedef void fv_layer_loss_fn(void *user, const fv_layer_loss *loss);

/** Calibrates as fv_pack does for INT8, with its options, writes nothing, and calls fn for every
 *  layer group in order. */
FV_API fv_status fv_eval_layers(const char *checkpoint, const fv_pack_options *options,
                                fv_layer_loss_fn *fn, void *user, fv_error *err);

/* ---------------------------------------------------------------- verify */

typedef struct fv_verify_options {
    size_t size;
    const fv_callbacks *callbacks; /**< progress stage "verify" */
} fv_verify_options;

FV_DEFINE_DEFAULT(fv_verify_options)

/** Checks a packed file: both hashes, the format, that every tensor of the model is there in a type
 *  and shape that runs, that the tokenizer can be built, that no value is NaN or infinite. */
FV_API fv_status fv_verify(const char *file, const fv_verify_options *options, fv_error *err);

/* ---------------------------------------------------------------- eval: accuracy lost */

typedef enum fv_eval_features {
    FV_EVAL_BOTH = 0, /**< both of the following */
    FV_EVAL_OWN,      /**< the test model sees its own image tokens: what a user gets */
    FV_EVAL_REF       /**< it sees the reference's: what its decoder alone loses */
} fv_eval_features;

typedef struct fv_eval_options {
    size_t size;
    const char *const *paths; /**< images and directories of images; required */
    size_t n_paths;
    int max_images;     /**< up to N images, evenly over the list; 0: all */
    const char *prompt; /**< UTF-8; NULL: "Describe the image." */
    size_t n_prompt_bytes;
    int max_new_tokens; /**< 0: 32 */
    fv_eval_features features;
    fv_fit fit;
    const fv_callbacks *callbacks; /**< log: skipped images; progress stage "eval" */
} fv_eval_options;

FV_DEFINE_DEFAULT(fv_eval_options)

/** How far the test model's values are from the reference's. Its layout never changes. */
typedef struct fv_eval_loss {
    double sqnr; /**< signal to noise in dB; infinite when no value differs; NaN: not measured */
    double cosine;
} fv_eval_loss;

/** Over generated tokens: the reference answers greedily, the test model is given the reference's
 *  tokens (teacher forcing). Its layout never changes. */
typedef struct fv_eval_text {
    size_t n_tokens; /**< 0: not measured */
    size_t n_agree;  /**< of them: the test model would have chosen the same */
    /** Kullback-Leibler divergence per token in nats, over the tokens that can be chosen */
    double mean, median, max;
} fv_eval_text;

/** A comparison of two models. */
typedef struct fv_eval fv_eval;

typedef struct fv_eval_info {
    size_t size;
    size_t n_stages, n_images;
    size_t n_skipped; /**< unreadable images */
    fv_eval_text own, ref;
    double least_features, least_tokens; /**< lowest cosine of any image */
    double ms;
} fv_eval_info;

typedef struct fv_eval_stage_info {
    size_t size;
    const char *name;      /**< as fv_tap_fn is given it */
    fv_eval_loss own, ref; /**< ref: with the reference's image tokens, of the decoder only */
} fv_eval_stage_info;

typedef struct fv_eval_image_info {
    size_t size;
    const char *path;
    const char *answer; /**< the reference's; UTF-8, ends with NUL */
    size_t n_answer_bytes;
    fv_eval_loss features, tokens; /**< vision.features, image_tokens */
    fv_eval_text own, ref;
} fv_eval_image_info;

/** Compares two open models of the same shape on images. No readable image is an error. On success
 *  *out is released with fv_eval_free. */
FV_API fv_status fv_eval_run(fv_eval **out, fv_engine *reference, fv_engine *test,
                             const fv_eval_options *options, fv_error *err);
FV_API void fv_eval_free(fv_eval *eval);
/** Does nothing when a pointer is NULL or out->size 0. */
FV_API void fv_eval_describe(const fv_eval *eval, fv_eval_info *out);
/** Stages in the order of the model, over all images; images in the order of the list. Strings are
 *  borrowed from eval. false when index is past the last one, a pointer is NULL or out->size 0. */
FV_API bool fv_eval_stage(const fv_eval *eval, size_t index, fv_eval_stage_info *out);
FV_API bool fv_eval_image(const fv_eval *eval, size_t index, fv_eval_image_info *out);
/** SQNR by depth as an SVG file. title may be NULL. */
FV_API fv_status fv_eval_plot(const fv_eval *eval, const char *title, size_t n_title_bytes,
                              const char *file, fv_error *err);

/** A bar of fv_layers_plot. */
typedef struct fv_layer_bar {
    size_t size;
    const char *group, *name; /**< bars of one group follow each other and have a scale of their
                                   own */
    double ms, least_ms;      /**< its time; what the machine's limits allow, 0: not known */
} fv_layer_bar;

/** Where time goes, as an SVG file: [n] bars with the same size in each. */
FV_API fv_status fv_layers_plot(const fv_layer_bar *bars, size_t n, const char *title,
                                size_t n_title_bytes, const char *file, fv_error *err);

/** Whether a file such as the plot could be written to this path, for callers that compute long
 *  before they write. Leaves nothing there. */
FV_API fv_status fv_output_check(const char *file, fv_error *err);

/* ---------------------------------------------------------------- dump: every value as a file */

/** Writes what a tap is given as .npy files into a folder: f32, shape outermost first; "pixels_u8"
 *  as bytes; of "logits_steps" the rows of all tokens. Its files appear together. */
typedef struct fv_dump fv_dump;

/** The folder is made when need be; files of the same names in it are replaced at the end. */
FV_API fv_status fv_dump_open(fv_dump **out, const char *dir, fv_error *err);
/** An fv_tap_fn; user is the fv_dump. Stops the call, with FV_ERR_CANCELLED, when a file cannot be
 *  written; fv_dump_commit says why. */
FV_API bool fv_dump_tap(void *dump, const char *name, const float *data, const size_t *shape,
                        int n_dims);
/** An answer is complete: its files appear. What comes next is the next answer's. On failure what
 *  was given is dropped. */
FV_API fv_status fv_dump_commit(fv_dump *dump, fv_error *err);
/** Drops what was not committed. */
FV_API void fv_dump_free(fv_dump *dump);

/* ---------------------------------------------------------------- exports */

/** Options common to all exports. */
typedef struct fv_export_options {
    size_t size;
    bool force; /**< directories: replace files of the same names in one that is not empty, all of
                     them or, after a failure, none */
    const fv_callbacks *callbacks; /**< log: warnings, and what was written */
} fv_export_options;

FV_DEFINE_DEFAULT(fv_export_options)

/* ---- ONNX ---- */

enum { FV_ONNX_VISION = 1, FV_ONNX_EMBED = 2, FV_ONNX_DECODER = 4 };

typedef enum fv_onnx_ops {
    FV_ONNX_PRIMITIVE = 0, /**< Erf, ReduceMean and the like: any converter takes them */
    FV_ONNX_FUSED /**< Gelu, LayerNormalization, RMSNormalization where the opset has them */
} fv_onnx_ops;

typedef enum fv_onnx_target {
    FV_ONNX_GENERIC = 0,    /**< fixed shapes, right-aligned cache inside the graph */
    FV_ONNX_NPU,            /**< fixed shapes, f16, keys transposed, the host keeps the cache */
    FV_ONNX_TRANSFORMERS_JS /**< free shapes, growing cache, the file names of that package */
} fv_onnx_target;

typedef struct fv_onnx_options {
    size_t size;
    unsigned parts; /**< FV_ONNX_* flags; 0: all three */
    fv_onnx_target target;
    fv_onnx_ops ops;
    int opset;              /**< 13 to 24; 0: 14 for primitive operators, 23 for fused ones */
    int image_size;         /**< a multiple of 64; 0: the model's own */
    int seq_len;            /**< ids of embed_tokens; 0: 512 */
    int step_len;           /**< rows of one decoder step; 0: 1 */
    int cache_len;          /**< 0: 512, for the NPU 1023 */
    fv_precision precision; /**< F32 or F16; AUTO: F32, for the NPU F16 */
    bool qdq;               /**< the int8 encoder of a packed file, quantised in the graph, but for
                                 what is in w8a16 or bf16; GENERIC in F32 only */
    bool external_data;     /**< weights in NAME.onnx_data even when one file could hold them */
} fv_onnx_options;

FV_DEFINE_DEFAULT(fv_onnx_options)

/** ONNX graphs of the model (checkpoint directory or packed file) into the directory dir. */
FV_API fv_status fv_export_onnx(const char *model, const fv_onnx_options *onnx, const char *dir,
                                const fv_export_options *options, fv_error *err);

/* ---- calibration set: preprocessed images as raw tensors, for a converter that quantises ---- */

typedef enum fv_calib_layout { FV_CALIB_NHWC, FV_CALIB_NCHW } fv_calib_layout;
typedef enum fv_calib_dtype { FV_CALIB_F32, FV_CALIB_U8 } fv_calib_dtype;

typedef struct fv_calib_options {
    size_t size;
    /** images and directories of images (.jpg .jpeg .png .webp .gif .bmp .tif .tiff .heic .heif
     *  .avif .ppm .pgm .pnm) */
    const char *const *paths;
    size_t n_paths;
    /** instead of images: this many samples of uniform noise in [0, 1), as the scripts of the
     *  reference Qualcomm pipeline make it; up to 100000 */
    int n_random;
    uint64_t seed;   /**< of the noise */
    int max_samples; /**< up to N images, evenly over the sorted list; 0: all */
    int min_samples; /**< fewer readable images are an error; 0: 1 */
    int image_size;  /**< a multiple of 64 up to 4096; 0: 1024 */
    fv_fit fit;      /**< FV_FIT_AUTO: pad */
    fv_calib_layout layout;
    fv_calib_dtype dtype;
    const char
        *list_root; /**< directory that input_list.txt names the files in; NULL: dir, absolute */
} fv_calib_options;

FV_DEFINE_DEFAULT(fv_calib_options)

typedef struct fv_calib_report {
    size_t size;
    size_t n_samples, n_skipped; /**< unreadable images are skipped */
} fv_calib_report;

/** Writes sample_000.raw ..., input_list.txt and calib.json into the directory dir. report may be
 *  NULL. */
FV_API fv_status fv_export_calib(const fv_calib_options *calib, const char *dir,
                                 const fv_export_options *options, fv_calib_report *report,
                                 fv_error *err);

/* ---- auxiliary files for Qualcomm's Genie ---- */

/** The embedding as rows of little-endian f32 without a header: [vocabulary rows, d_model]. */
FV_API fv_status fv_export_lut(const char *model, const char *file,
                               const fv_export_options *options, fv_error *err);

/** tokenizer.json: the checkpoint's own where it has one, otherwise built from its vocabulary. */
FV_API fv_status fv_export_tokenizer(const char *model, const char *file,
                                     const fv_export_options *options, fv_error *err);

typedef struct fv_genie_options {
    size_t size;
    int context;            /**< context length in tokens; 0: 512, as in the reference pipeline */
    int max_new_tokens;     /**< 0: 50 */
    int n_threads;          /**< on the phone; 0: 6 */
    bool sampling;          /**< false: greedy; true: the reference pipeline's temperature 0.8 */
    uint64_t seed;          /**< 0: 42 */
    const char *device_dir; /**< of the files on the phone; NULL: "/data/local/tmp/fastvlm" */
    const char *model_bin;  /**< name of the composed decoder; NULL: "fastvlm_model.bin" */
} fv_genie_options;

FV_DEFINE_DEFAULT(fv_genie_options)

/** Into the directory dir: genie_model.json, the architecture for qnn-genai-transformer-composer;
 *  genie_dialog.json, the dialog for the CPU engine; genie_dialog_htp.json with htp_backend.json,
 *  the one for the NPU engine. */
FV_API fv_status fv_export_genie(const char *model, const fv_genie_options *genie, const char *dir,
                                 const fv_export_options *options, fv_error *err);

/* ---- checkpoints ---- */

typedef enum fv_hf_layout { FV_HF_FAST_VLM = 0, FV_HF_LLAVA_QWEN2 } fv_hf_layout;

typedef struct fv_hf_options {
    size_t size;
    fv_hf_layout layout;
    fv_precision dtype; /**< AUTO: as stored, convolutions that had to be fused in f32 */
} fv_hf_options;

FV_DEFINE_DEFAULT(fv_hf_options)

/** A checkpoint directory: model.safetensors, config.json, tokenizer and processor files. */
FV_API fv_status fv_export_hf(const char *model, const fv_hf_options *hf, const char *dir,
                              const fv_export_options *options, fv_error *err);

/* ---- llama.cpp ---- */

typedef enum fv_decoder_type {
    FV_DECODER_F16,
    FV_DECODER_Q8_0,
    FV_DECODER_Q4_0,
    FV_DECODER_BF16,
    FV_DECODER_F32
} fv_decoder_type;

/** The decoder and the tokenizer as one GGUF file of architecture "qwen2". It answers text:
 *  llama.cpp has no FastVLM vision encoder. */
FV_API fv_status fv_export_gguf(const char *model, fv_decoder_type type, const char *file,
                                const fv_export_options *options, fv_error *err);

/* ---- everything ---- */

enum {
    FV_ALL_ONNX = 1,            /**< onnx/: three graphs in f32 */
    FV_ALL_NPU = 2,             /**< onnx-npu/: f16, transposed keys */
    FV_ALL_TRANSFORMERS_JS = 4, /**< transformers.js/ */
    FV_ALL_CALIB = 8,           /**< calib/ */
    FV_ALL_GENIE = 16,          /**< genie/: LUT.bin, tokenizer.json, configurations */
    FV_ALL_GGUF = 32,           /**< gguf/: decoder-f16, -q8_0, -q4_0 */
    FV_ALL_HF = 64,             /**< hf/fast_vlm, hf/llava_qwen2 */
    FV_ALL_PARTS = 127
};

typedef struct fv_all_options {
    size_t size;
    unsigned parts;                /**< FV_ALL_* flags; 0: all */
    const fv_calib_options *calib; /**< NULL or without images: eight samples of noise, with a
                                        warning */
} fv_all_options;

FV_DEFINE_DEFAULT(fv_all_options)

/** Every artefact into directories of dir, and manifest.json: size, SHA-256 and tensors of every
 *  file, the version that wrote them, the hash of the model they were made from. dir appears only
 *  once all of it is complete. */
FV_API fv_status fv_export_all(const char *model, const fv_all_options *all, const char *dir,
                               const fv_export_options *options, fv_error *err);

#ifdef __cplusplus
}
#endif

#endif
