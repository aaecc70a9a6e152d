/** \file fastvlm_npu.h
 * fastvlm_npu: the model for Qualcomm's Hexagon NPU, as QNN context binaries.
 *
 * Qualcomm's libraries are opened when they are needed; none is linked to or comes with fastvlm.
 * Where they are: qnn_dir of the options. They run in a child process, because they write to
 * standard output, cannot be interrupted, and may end the process they are in. On x86-64 libQnnHtp
 * is the compiler and an emulator of the NPU, on a phone it drives the real one. The conventions of
 * fastvlm.h apply. */
#ifndef FASTVLM_NPU_H
#define FASTVLM_NPU_H

#include "fastvlm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- precision */

typedef enum fv_npu_precision {
    FV_NPU_W8A16 = 0, /**< weights of 8 bits, a scale per output; activations of 16 */
    FV_NPU_W8A8,      /**< both of 8 bits */
    /** 8 bits in most layers, 16-bit activations where the calibration set says they are needed */
    FV_NPU_MIXED,
    FV_NPU_F16
} fv_npu_precision;

/* ---------------------------------------------------------------- the chips */

/** A SoC that context binaries can be compiled for. */
typedef struct fv_npu_soc_info {
    size_t size;
    const char *name;     /**< "SM8750" */
    const char *product;  /**< "Snapdragon 8 Elite" */
    unsigned soc_model;   /**< Qualcomm's number of it, 69 */
    unsigned htp_version; /**< of the Hexagon NPU in it: 79 for v79 */
    unsigned vtcm_mb;     /**< its fast memory */
} fv_npu_soc_info;

/** false when index is past the last one, out is NULL or out->size 0. Strings are static. */
FV_API bool fv_npu_soc(size_t index, fv_npu_soc_info *out);
/** By name, in either case; false, and nothing written, when it is not known. */
FV_API bool fv_npu_soc_find(const char *name, fv_npu_soc_info *out);

/* ---------------------------------------------------------------- Qualcomm's libraries */

typedef struct fv_npu_library_options {
    size_t size;
    /** directory of libQnn*.so, an unpacked wheel or an SDK; NULL: what FV_QNN_DIR, else
     *  QNN_SDK_ROOT names, else what fv_npu_setup has made */
    const char *qnn_dir;
    const fv_callbacks *callbacks; /**< progress */
} fv_npu_library_options;

FV_DEFINE_DEFAULT(fv_npu_library_options)

/** What is there, and whether it can be used. Strings are static or in the struct. */
typedef struct fv_npu_library_info {
    size_t size;
    char dir[1024];       /**< "" when none was found */
    const char *named_by; /**< "qnn_dir", "FV_QNN_DIR", "QNN_SDK_ROOT", "setup" */
    char build[64];       /**< of libQnnHtp.so: "v2.51.0.260929181845"; "" when it cannot be used */
    unsigned api_major, api_minor;
    bool htp, system, cpu; /**< the library is there and offers what is needed */
    /** what is wrong with each of them; "" when nothing is */
    char htp_problem[496], system_problem[496], cpu_problem[496];
} fv_npu_library_info;

/** Opens each library in a child process. FV_ERR_IO when no directory is named or it has none. */
FV_API fv_status fv_npu_check(fv_npu_library_info *out, const fv_npu_library_options *options,
                              fv_error *err);

typedef struct fv_npu_setup_options {
    size_t size;
    const char *version; /**< of the package onnxruntime-qnn; NULL: "2.7.0" */
    const char *dir;     /**< NULL: fastvlm/qnn/VERSION in the user's data directory */
    const char *python;  /**< a program with pip; NULL: "python3" */
    bool only_look;      /**< fill the report, fetch nothing: to show the licence before */
    const fv_callbacks *callbacks; /**< log: what pip says; progress stage "setup" */
} fv_npu_setup_options;

FV_DEFINE_DEFAULT(fv_npu_setup_options)

typedef struct fv_npu_setup_report {
    size_t size;
    char dir[1024];
    bool already;     /**< it was there, nothing was fetched */
    char version[16]; /**< of the package */
} fv_npu_setup_report;

/** Has the user's pip fetch Qualcomm's libraries (the wheel onnxruntime-qnn) and unpacks them. They
 *  are Qualcomm's, under its licence, which the caller should show first: Qualcomm_LICENSE.pdf
 *  among them. The directory appears when it is complete; report may be NULL. */
FV_API fv_status fv_npu_setup(const fv_npu_setup_options *options, fv_npu_setup_report *report,
                              fv_error *err);

/* ---------------------------------------------------------------- context binaries */

/** What is in a context binary, of whoever made it. */
typedef struct fv_npu_binary fv_npu_binary;

typedef struct fv_npu_binary_info {
    size_t size;
    const char *build; /**< of the libraries that made it: "v2.51.0.260929181845" */
    unsigned backend;  /**< Qualcomm's number: 6 for the NPU (HTP) */
    unsigned api_major, api_minor;
    unsigned soc_model;   /**< 0: not said */
    unsigned htp_version; /**< 79; 0: not said */
    uint64_t file_bytes;
    size_t n_graphs;
} fv_npu_binary_info;

typedef struct fv_npu_graph_info {
    size_t size;
    const char *name;
    size_t n_inputs, n_outputs;
    bool has_htp;              /**< the following are said */
    uint64_t spill_fill_bytes; /**< values that do not fit the fast memory move here and back */
    unsigned vtcm_mb, optimization_level, n_hvx_threads;
    bool has_sizes; /**< the following are said, in bytes */
    uint64_t io_bytes, op_bytes, constant_bytes, ddr_bytes, shared_weight_bytes;
} fv_npu_graph_info;

typedef enum fv_npu_tensor_kind { FV_NPU_INPUT = 0, FV_NPU_OUTPUT } fv_npu_tensor_kind;

typedef struct fv_npu_tensor_info {
    size_t size;
    const char *name;
    const char *type; /**< "u8", "u16", "s8", "s32", "f16", "f32", "bool"; "?": unknown */
    unsigned id, rank;
    const uint32_t *dims; /**< [rank] */
    uint64_t n_bytes;     /**< 0: type unknown */
    bool quantized;       /**< real = (value + offset) * scale */
    double scale;
    int32_t offset;
} fv_npu_tensor_info;

/** Reads a file with libQnnSystem, in a child process. FV_ERR_FORMAT: not a context binary, or
 *  truncated. On failure *out is NULL. */
FV_API fv_status fv_npu_binary_open(fv_npu_binary **out, const char *file,
                                    const fv_npu_library_options *options, fv_error *err);
FV_API void fv_npu_binary_free(fv_npu_binary *binary);
/** Do nothing, or give false, when a pointer is NULL, out->size 0 or an index past the last one.
 *  Strings are borrowed from binary. */
FV_API void fv_npu_binary_describe(const fv_npu_binary *binary, fv_npu_binary_info *out);
FV_API bool fv_npu_binary_graph(const fv_npu_binary *binary, size_t index, fv_npu_graph_info *out);
FV_API bool fv_npu_binary_tensor(const fv_npu_binary *binary, size_t graph, fv_npu_tensor_kind kind,
                                 size_t index, fv_npu_tensor_info *out);
/** The same as JSON, in the shape of Qualcomm's qnn-context-binary-utility: info.graphs[].info...
 *  Ends with NUL; borrowed. */
FV_API const char *fv_npu_binary_json(const fv_npu_binary *binary);

/* ---------------------------------------------------------------- compile */

typedef enum fv_npu_part {
    FV_NPU_VISION = 0, /**< the vision encoder and the projector: pixels -> image tokens */
    /** W8A16 or F16: decoder_step, a row -> its keys and values and the logits, and decoder_chunk,
     *  128 rows -> their keys and values, which share weights; who runs them keeps the cache */
    FV_NPU_DECODER,
    /** ids -> rows of the embedding, 512 at a time; W8A16 and W8A8: a table of 16 or 8 bits with
     *  one scale */
    FV_NPU_EMBED
} fv_npu_part;

typedef struct fv_npu_compile_options {
    size_t size;
    fv_npu_part part;
    const char *qnn_dir; /**< as fv_npu_library_options */
    const char *soc;     /**< "sm8750"; NULL: that */
    fv_npu_precision precision;
    int image_size;           /**< a multiple of 64 up to 4096; 0: the model's own */
    const char *const *paths; /**< calibration: images and directories; none: built-in scenes */
    size_t n_paths;
    int max_images;    /**< as fv_pack_options */
    double min_cosine; /**< MIXED: of the image tokens, on the calibration set; 0: 0.9986, or less
                            where 8-bit weights alone leave little more */
    int cache_len;     /**< DECODER: rows of the cache; 0: 512 */
    bool unshared;     /**< DECODER: each graph has weights of its own, and NAME ends in _unshared:
                            the emulator on x86-64 loads no others */
    bool force;        /**< replace files of the same names in a directory that is not empty */
    const fv_callbacks *callbacks; /**< log: what the library says; progress stages "calibrate",
                                        "widths", "compile" */
} fv_npu_compile_options;

FV_DEFINE_DEFAULT(fv_npu_compile_options)

typedef struct fv_npu_compile_report {
    size_t size;
    char file[64];  /**< the context binary in the directory: "vision_w8a16_sm8750.bin" */
    char build[64]; /**< of the library: "v2.51.0.260929181845" */
    uint64_t file_bytes;
    uint64_t spill_fill_bytes;
    uint64_t peak_bytes; /**< most memory that the compiling process had resident */
    double calibrate_ms, build_ms, compile_ms; /**< compile: the library's part */
    size_t n_nodes, n_tensors;                 /**< of all graphs */
    size_t n_converts;                         /**< of the nodes: those that only change a width */
    size_t n_transposes;                       /**< that only move data from axis to axis */
    size_t n_floats;                           /**< that give floats, not fixed point */
    double share_8x8; /**< of multiply-accumulates: in 8-bit weights and activations */
    size_t n_images;  /**< of the calibration set */
    bool synthetic_images;
} fv_npu_compile_report;

/** A part of a model (checkpoint directory or packed file) as a context binary in the directory
 *  dir, with NAME_ctx_info.json beside it; they appear when both are complete. The libraries work
 *  in a child process. report may be NULL. */
FV_API fv_status fv_npu_compile(const char *model, const char *dir,
                                const fv_npu_compile_options *options,
                                fv_npu_compile_report *report, fv_error *err);

/* ---------------------------------------------------------------- run */

/** A context binary of a vision encoder, ready to run. One thread at a time may use it. */
typedef struct fv_npu fv_npu;

/** On failure *out is NULL. Strings in options are copied. */
FV_API fv_status fv_npu_open(fv_npu **out, const char *file, const fv_npu_library_options *options,
                             fv_error *err);
FV_API void fv_npu_close(fv_npu *npu);

/** Sides of the image that the graph takes; rows and columns of what it gives. */
typedef struct fv_npu_shape {
    size_t size;
    int image_size;
    size_t n_rows, d_model;
} fv_npu_shape;

/** Does nothing when a pointer is NULL or out->size 0. */
FV_API void fv_npu_describe(const fv_npu *npu, fv_npu_shape *out);

/** Images in f32, [n, S, S, 3] in [0, 1], through the graph: tokens [n, n_rows, d_model]. In a
 *  child process, so that it can be cancelled. *ms, which may be NULL: execution alone, per image.
 *  On x86-64 the library emulates the NPU. */
FV_API fv_status fv_npu_run(fv_npu *npu, const float *pixels, size_t n, float *tokens, double *ms,
                            const fv_callbacks *callbacks, fv_error *err);

/** An image preprocessed as engine does it, then as fv_npu_run. The graph must be of engine's
 *  model. */
FV_API fv_status fv_npu_encode(fv_npu *npu, const fv_engine *engine, const fv_image *image,
                               const fv_encode_options *options, fv_features **out, fv_error *err);

/* ---------------------------------------------------------------- decode */

/** A context binary of a decoder that fv_npu_compile has made, with its cache of keys and values,
 *  in a process of its own. One thread at a time may use it, and one session. */
typedef struct fv_npu_lm fv_npu_lm;

/** On failure *out is NULL. Strings in options are copied. */
FV_API fv_status fv_npu_lm_open(fv_npu_lm **out, const char *file,
                                const fv_npu_library_options *options, fv_error *err);
/** A session that it is attached to keeps it until it is freed. NULL is fine. */
FV_API void fv_npu_lm_close(fv_npu_lm *lm);

typedef struct fv_npu_lm_shape {
    size_t size;
    size_t cache_len; /**< rows of the cache: the longest conversation */
    size_t chunk_len; /**< rows of a prompt that go through at once */
    size_t n_layers, d_model, n_vocab;
} fv_npu_lm_shape;

/** Does nothing when a pointer is NULL or out->size 0. */
FV_API void fv_npu_lm_describe(const fv_npu_lm *lm, fv_npu_lm_shape *out);

/** From now on the session's rows go through lm in place of the engine's decoder, and its context
 *  is at most cache_len. Embedding, sampling and text stay the engine's. With exact_reuse all rows
 *  of a prompt are computed anew. Such a session can be neither copied, saved nor loaded, and a tap
 *  sees nothing of the decoder. lm must be of the engine's model: FV_ERR_ARGUMENT where its shapes
 *  are others. FV_ERR_STATE when the session has run rows already, or lm has another one. */
FV_API fv_status fv_npu_lm_attach(fv_npu_lm *lm, fv_session *session, fv_error *err);

/** The decoder alone: rows [n_rows, d_model] of a conversation from its beginning give logits
 *  [n_vocab] behind the last. engine is of the model that lm was compiled from. FV_ERR_LIMIT when
 *  the cache holds fewer rows; FV_ERR_STATE while a session has lm. callbacks may be NULL. */
FV_API fv_status fv_npu_lm_run(fv_npu_lm *lm, const fv_engine *engine, const float *rows,
                               size_t n_rows, float *logits, const fv_callbacks *callbacks,
                               fv_error *err);

/* ---------------------------------------------------------------- eval */

typedef struct fv_npu_eval_options {
    size_t size;
    const char *const *paths; /**< images and directories; required. Not those of calibration */
    size_t n_paths;
    int max_images;                /**< up to N images, evenly over the list; 0: all */
    const fv_callbacks *callbacks; /**< log; progress stages "reference", "npu" */
} fv_npu_eval_options;

FV_DEFINE_DEFAULT(fv_npu_eval_options)

/** Image tokens of the NPU against those of the model in f32. */
typedef struct fv_npu_eval_report {
    size_t size;
    size_t n_images, n_skipped;
    double cosine, least_cosine; /**< mean over images; of the worst one */
    double sqnr;                 /**< dB, over all values */
    double ms;                   /**< of an image on the NPU or its emulator */
} fv_npu_eval_report;

FV_API fv_status fv_npu_eval(fv_npu *npu, const char *model, const fv_npu_eval_options *options,
                             fv_npu_eval_report *report, fv_error *err);

/* ---------------------------------------------------------------- eval: layer by layer */

/** What flows between the encoder's layers on the NPU, against f32, over all images. */
typedef struct fv_npu_layers fv_npu_layers;

typedef struct fv_npu_layer_info {
    size_t size;
    const char *name;    /**< of the value, as in a packed file; borrowed from the result */
    unsigned bits;       /**< of the activation: 8 or 16; 0: f16 */
    double macs;         /**< multiply-accumulates that make it from an image */
    double cosine, sqnr; /**< sqnr in dB; infinite when nothing is lost */
} fv_npu_layer_info;

/** Compiles the encoder as fv_npu_compile would (soc, precision, image_size, the calibration set
 *  and min_cosine of compile; no file is written), with its values as outputs, in pieces where
 *  memory demands it, and runs images through it. What a GELU reads is not listed; what it gives
 *  is. Progress stages as of fv_npu_compile and fv_npu_eval, callbacks those of images. */
FV_API fv_status fv_npu_layers_run(fv_npu_layers **out, const char *model,
                                   const fv_npu_compile_options *compile,
                                   const fv_npu_eval_options *images, fv_error *err);
FV_API void fv_npu_layers_free(fv_npu_layers *layers);
/** In the order of the model; false when index is past the last one, a pointer is NULL or out->size
 *  0. */
FV_API bool fv_npu_layers_at(const fv_npu_layers *layers, size_t index, fv_npu_layer_info *out);
/** How many images it is over; 0 for NULL. */
FV_API size_t fv_npu_layers_images(const fv_npu_layers *layers);
/** SQNR by depth as an SVG file. */
FV_API fv_status fv_npu_layers_plot(const fv_npu_layers *layers, const char *file, fv_error *err);

#ifdef __cplusplus
}
#endif
#endif
