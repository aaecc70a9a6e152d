/** \file fastvlm.h
 * fastvlm: run Apple's FastVLM vision-language models on a CPU.
 *
 * An engine is a loaded model: immutable after open, shared by any number of threads.
 * A session is one conversation: the KV cache, the sampler and the pieces of text not yet
 * taken. One thread at a time may use a session; two sessions of one engine may run at once.
 *
 *     fv_engine *engine;  fv_session *session;  fv_image *image;  fv_error err;
 *     fv_piece piece = { .size = sizeof piece };
 *     fv_engine_open(&engine, "checkpoint", NULL, &err);
 *     fv_session_new(&session, engine, NULL, &err);
 *     fv_image_open(&image, "photo.jpg", NULL, &err);
 *     fv_session_add_image(session, image, NULL, &err);
 *     fv_session_add_text(session, "Describe the image.", strlen("Describe the image."), &err);
 *     while (fv_session_next(session, &piece, &err) == FV_OK) {
 *         fwrite(piece.text, 1, piece.n_bytes, stdout);
 *         if (piece.done)
 *             break;
 *     }
 *
 * Rules for the whole interface:
 *
 *  - Every function that can fail returns a status and fills *err when err is not NULL. The
 *    library never prints or exits, and has no global state that a caller could change.
 *  - Public structs begin with `size`, the caller's sizeof. Options: NULL means all defaults, and
 *    so does 0 in every field but size, where 0 is FV_ERR_ARGUMENT. fv_X_options_default() sets
 *    the size and zeroes the rest. Fields that a smaller struct lacks have their defaults; bytes of
 *    a larger one that this library does not know must be zero, else FV_ERR_ARGUMENT.
 *    Results: the caller sets size (`fv_stats stats = { .size = sizeof stats };`), the library
 *    fills what fits and zeroes the rest. Structs that the library hands to a callback have its own
 *    size.
 *  - Options and what they point to are only read during the call, unless said otherwise.
 *  - Text has a length in bytes and is UTF-8. Paths and names end with NUL; a path is only ever a
 *    path ("-" is a file of that name).
 *  - NULL: *_free accept it; every other required pointer that is NULL is FV_ERR_ARGUMENT, and the
 *    message names it.
 *  - A failed call leaves its object as it was before the call, unless its comment says otherwise.
 *  - Callbacks are invoked on the thread that called the library. A callback must not use the
 *    session that invoked it: such a call is FV_ERR_STATE, or does nothing where there is no
 *    status.
 */
#ifndef FASTVLM_H
#define FASTVLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(FV_STATIC)
#define FV_API
#elif defined(__GNUC__)
#define FV_API __attribute__((visibility("default")))
#else
#define FV_API
#endif

#define FV_VERSION_MAJOR 0
#define FV_VERSION_MINOR 2
#define FV_VERSION_PATCH 0
#define FV_VERSION       "0.2.0"

/* Defines TYPE_default(TYPE *), which sets the size and every other field to its default. */
#ifdef __cplusplus
#define FV_DEFINE_DEFAULT(type)                \
    static inline void type##_default(type *o) \
    {                                          \
        *o = type();                           \
        o->size = sizeof *o;                   \
    }
#else
#define FV_DEFINE_DEFAULT(type) \
    static inline void type##_default(type *o) { *o = (type){ .size = sizeof *o }; }
#endif

/* ---------------------------------------------------------------- status and errors */

typedef enum fv_status {
    FV_OK = 0,
    FV_ERR_ARGUMENT,    /**< the caller's argument is out of range */
    FV_ERR_IO,          /**< a file is missing, unreadable, or a write failed */
    FV_ERR_FORMAT,      /**< the bytes are not what the format says */
    FV_ERR_UNSUPPORTED, /**< well-formed, but not a model or image this build can use */
    FV_ERR_MEMORY,      /**< an allocation failed */
    FV_ERR_LIMIT,       /**< a limit that protects the caller: image size, context length */
    FV_ERR_CANCELLED,   /**< a callback asked to stop */
    FV_ERR_STATE        /**< the call does not fit the object's state */
} fv_status;

/** Owned by the caller; only read it after a call that returned something other than FV_OK. Its
 *  layout never changes. */
typedef struct fv_error {
    fv_status status;
    uint32_t reserved;
    uint64_t at;       /**< byte offset in the file, or 0 */
    char message[496]; /**< UTF-8, one line, no newline at the end */
} fv_error;

FV_API const char *fv_version(void);
/** "format"; never NULL. */
FV_API const char *fv_status_name(fv_status status);

/* ---------------------------------------------------------------- callbacks */

typedef enum fv_log_level { FV_LOG_WARNING, FV_LOG_INFO } fv_log_level;

/** message: one line without a newline, valid during the call. */
typedef void fv_log_fn(void *user, fv_log_level level, const char *message);

/** Called now and then during long operations; return true to stop with FV_ERR_CANCELLED.
 *  stage: what runs ("vision", "prefill", "pack"), a static string. done: from 0 to 1. */
typedef bool fv_progress_fn(void *user, const char *stage, double done);

/** How a call reports on itself. Options hold a pointer to one; it is copied during the call. */
typedef struct fv_callbacks {
    size_t size;
    fv_log_fn *log;           /**< NULL: silent */
    fv_progress_fn *progress; /**< NULL: none, and no way to cancel */
    void *user;               /**< first argument of both */
} fv_callbacks;

/* ---------------------------------------------------------------- precision */

/** Arithmetic and weights of one half of the model. */
typedef enum fv_precision {
    FV_PRECISION_AUTO = 0, /**< as stored where this CPU multiplies that type natively, else f32 */
    FV_PRECISION_F32,
    FV_PRECISION_BF16,
    FV_PRECISION_F16,
    FV_PRECISION_Z8,   /**< decoder of a packed file: blocks of 8 bits (GGUF's Q8_0) */
    FV_PRECISION_Q4,   /**< decoder of a packed file: blocks of 4 bits (Q4_0) */
    FV_PRECISION_INT8, /**< vision encoder of a packed file: 8 bits, calibrated */
    FV_PRECISION_W8A8  /**< decoder of a packed file: 8 bits with a scale for every row of weights
                            and, in prompts, every token */
} fv_precision;

/** "auto", "f32", "bf16", "f16", "z8", "q4", "int8", "w8a8"; static. */
FV_API const char *fv_precision_name(fv_precision precision);
/** The inverse; false, and *out unchanged, when name is unknown or a pointer is NULL. */
FV_API bool fv_precision_parse(const char *name, fv_precision *out);

/** Element type of the KV cache: what the decoder remembers of every token, in every layer. */
typedef enum fv_kv_type {
    FV_KV_AUTO = 0, /**< f32 when the decoder is, otherwise f16 */
    FV_KV_F32,
    FV_KV_F16,
    FV_KV_Q8 /**< 8 bits and a scale for every 32 values: 0.56 of f16's memory */
} fv_kv_type;

/* ---------------------------------------------------------------- this machine */

typedef struct fv_system {
    size_t size;
    const char *cpu_best;  /**< highest level of kernels for this processor: "avx512bf16", "ref" */
    const char *cpu_level; /**< the one in use: lower when the environment's FV_CPU says so */
    bool cpu_unknown;      /**< FV_CPU names no level of this build and processor */
    bool fast_bf16;        /**< the level in use multiplies bf16 faster than f32 */
    int n_cores;           /**< physical cores that this process may use */
    const char *bf16_reason; /**< why fast_bf16 is what it is, for people */
    uint64_t memory_bytes;   /**< that this process may use: the machine's, or what the limits of
                                  its container or service leave of it; 0: not known */
    uint64_t memory_available_bytes; /**< of it, now */
    bool memory_limited;             /**< by a container or service */
} fv_system;

/** Strings are static. Does nothing when out is NULL or out->size 0. */
FV_API void fv_system_info(fv_system *out);

/* ---------------------------------------------------------------- threads */

/** Threads that engines may share; a counted reference. k concurrent calls, of one engine or of
 *  several, get about n_threads / k each, the calling thread included. */
typedef struct fv_threads fv_threads;

typedef struct fv_threads_options {
    size_t size;
    int n_threads; /**< calling thread included, 1 to 1024; 0: one per physical core */
    /** Processors, n_threads different ones, to pin threads to; NULL: not pinned. The calling
     *  thread is the caller's and is not pinned: cpus[0] is its placeholder. Linux;
     *  FV_ERR_UNSUPPORTED elsewhere. */
    const int *cpus;
    size_t n_cpus;
} fv_threads_options;

FV_DEFINE_DEFAULT(fv_threads_options)

/** On failure *out is NULL. */
FV_API fv_status fv_threads_new(fv_threads **out, const fv_threads_options *options, fv_error *err);
/** Gives up the caller's reference; engines that were opened with the threads keep theirs. */
FV_API void fv_threads_free(fv_threads *threads);

/* ---------------------------------------------------------------- engine */

typedef struct fv_engine fv_engine;
typedef struct fv_session fv_session;
typedef struct fv_image fv_image;

typedef struct fv_engine_options {
    size_t size;
    fv_precision vision;  /**< of the vision encoder and the projector */
    fv_precision decoder; /**< of the decoder */
    fv_kv_type kv;        /**< of every session's KV cache */
    int image_size;       /**< side of the encoder's square input in pixels: a multiple of 64 up to
                               4096; 0: the model's own */
    int n_threads;        /**< of its own, 1 to 1024; 0: one per physical core */
    fv_threads *threads;  /**< shared with others instead; NULL: its own */
    const fv_callbacks *callbacks; /**< log: warnings about the model; progress: "open", and
                                        "prefault" where that is asked for */
    bool prefault; /**< read the weights that are mapped before returning, so that the first answer
                        waits for no disk */
    bool lock;     /**< keep all weights in memory (mlock); FV_ERR_LIMIT when the system refuses */
} fv_engine_options;

FV_DEFINE_DEFAULT(fv_engine_options)

/** Opens a checkpoint directory (Hugging Face layout llava_qwen2 or fast_vlm) or a packed file
 *  (written by fv_pack). On failure *out is NULL. The files must not change while the engine is
 *  open: weights are mapped, not copied, and reading what has been cut off raises SIGBUS in the
 *  thread that computes. A packed file runs in the precisions it was packed in, or,
 *  where its weights are bf16 or f16, in f32; asking for another one is FV_ERR_UNSUPPORTED. */
FV_API fv_status fv_engine_open(fv_engine **out, const char *path, const fv_engine_options *options,
                                fv_error *err);
/** The same for the bytes of a packed file in memory. If they begin at a multiple of 4, the engine
 *  borrows them: they must stay unchanged until it and all its sessions are freed. Otherwise it
 *  copies them, and does not need them after this returns. */
FV_API fv_status fv_engine_open_memory(fv_engine **out, const void *data, size_t n_bytes,
                                       const fv_engine_options *options, fv_error *err);
/** The same for a packed file that is a part of another file, such as an uncompressed asset of an
 *  Android package: n_bytes (0: to the end) from offset on. They are mapped, so fd may be closed
 *  afterwards; at an offset that is not a multiple of 4 they are copied. */
FV_API fv_status fv_engine_open_fd(fv_engine **out, int fd, uint64_t offset, uint64_t n_bytes,
                                   const fv_engine_options *options, fv_error *err);
/** Gives up the caller's reference: the handle is invalid afterwards. Memory is freed with the last
 *  session, never during a call. */
FV_API void fv_engine_free(fv_engine *engine);

/** Bytes of memory, by who holds them. */
typedef struct fv_memory {
    size_t size;
    uint64_t mapped_bytes; /**< the model's files: mapped, shared between processes, and the
                                 system's to drop and read again; or what fv_engine_open_memory
                                 borrows */
    uint64_t engine_bytes; /**< allocated by the engine: weights that had to be converted or copied,
                                 tables */
    uint64_t encoder_bytes; /**< while an image is encoded; kept for the next */
    uint64_t session_bytes; /**< of one session with that many rows of context */
} fv_memory;

/** What opening path with these options would take, and a session with n_context rows (0: the
 *  model's context length), without loading weights. */
FV_API fv_status fv_engine_estimate(const char *path, const fv_engine_options *options,
                                    int n_context, fv_memory *out, fv_error *err);
/** The same of an open engine; session_bytes: at the model's context length. */
FV_API fv_status fv_engine_memory(const fv_engine *engine, fv_memory *out, fv_error *err);
/** What a session holds now, in session_bytes; the rest is its engine's, and 0. */
FV_API fv_status fv_session_memory(const fv_session *session, fv_memory *out, fv_error *err);

/** What this machine can do at most with the engine's threads, a second. */
typedef struct fv_limits {
    size_t size;
    /** Multiplications with an addition, by the kernels in use, on operands in the caches. */
    double f32_macs, bf16_macs, int8_macs, w8a16_macs;
    double z8_macs, q4_macs; /**< weights in blocks */
    double read_bytes;       /**< from memory */
} fv_limits;

/** Measures them: half a second, 300 MB. Other work on the machine lowers them. */
FV_API fv_status fv_engine_limits(const fv_engine *engine, fv_limits *out, fv_error *err);

/** How an image that is not square is fitted to the square input. */
typedef enum fv_fit {
    FV_FIT_AUTO = 0, /**< what the checkpoint's own layout does */
    FV_FIT_PAD,      /**< centred on a black square */
    FV_FIT_CROP,     /**< the short edge fills the square, the rest is cut off */
    FV_FIT_STRETCH   /**< both edges scaled to the square */
} fv_fit;

typedef struct fv_model_info {
    size_t size;
    const char *layout;            /**< "llava_qwen2" or "fast_vlm" */
    const char *format;            /**< "safetensors" or "GGUF" */
    const char *vision_precision;  /**< "f32", "bf16", "f16", "int8" */
    const char *decoder_precision; /**< "f32", "bf16", "f16", "z8", "q4", "w8a8" */
    const char *weights_type;      /**< as stored: "BF16", "F16", "F32", or "mixed" */
    int image_size;                /**< side of the encoder's input in pixels */
    int n_image_tokens;            /**< rows that an image takes */
    int vision_stages, vision_layers[8], vision_widths[8], n_features;
    int d_model, d_ffn, n_layers, n_heads, n_kv_heads, d_head;
    int vocab_rows;  /**< rows of the embedding */
    int n_tokens;    /**< ids that may have a token */
    int max_context; /**< rows that a session can hold */
    uint64_t n_parameters, weight_bytes;
    bool tied_head; /**< the output head is the embedding */
    int n_threads;
    const char *cpu_level; /**< the kernels in use: "avx512bf16", "neon", ... */
    int n_end_tokens;      /**< ids that end an answer */
    int32_t end_tokens[18];
    fv_fit fit;         /**< how an image becomes a square, unless options say otherwise */
    const char *filter; /**< Pillow's, by which it is scaled: "bicubic", "bilinear", ... */
    /** FV_FIT_CROP: what the image is scaled to before the square in its middle is taken, in
     *  pixels: its short edge, or its width and height; all 0: it is not scaled. Other fits: 0. */
    int scaled_short_edge, scaled_width, scaled_height;
    double rescale;                    /**< bytes are multiplied by it; 1: they are not */
    float image_mean[3], image_std[3]; /**< then (x - mean) / std, in the order R, G, B */
} fv_model_info;

/** Strings are borrowed from the engine. Does nothing when a pointer is NULL or out->size 0. */
FV_API void fv_engine_info(const fv_engine *engine, fv_model_info *out);

/** How a packed file was made: pairs of key and value such as "packed by" and "fastvlm 0.2.0";
 *  false when index is past the last one, always for a checkpoint directory. Borrowed from the
 *  engine. */
FV_API bool fv_engine_record(const fv_engine *engine, size_t index, const char **key,
                             const char **value);

typedef struct fv_tensor_info {
    size_t size;
    const char *name, *dtype, *file;
    int n_dims;        /**< up to 4 */
    uint64_t shape[4]; /**< outermost first; of more than 4 dimensions, the last is a product */
    uint64_t n_bytes;
    bool used;  /**< false: in the file, not needed to run */
    float sqnr; /**< dB lost in packing; infinite: nothing, NaN: not a packed file */
} fv_tensor_info;

/** Tensors in file order; false when index is past the last one, a pointer is NULL or out->size 0.
 *  Strings are borrowed from the engine. */
FV_API bool fv_engine_tensor(const fv_engine *engine, size_t index, fv_tensor_info *out);

/** Token ids of text. special: added tokens in it such as <|im_end|> become their ids; otherwise
 *  they are ordinary text. Writes at most capacity ids and always the full count to *n. ids
 *  may be NULL when capacity is 0. Invalid UTF-8 is FV_ERR_FORMAT. */
FV_API fv_status fv_engine_tokenize(const fv_engine *engine, const char *text, size_t n_bytes,
                                    bool special, int32_t *ids, size_t capacity, size_t *n,
                                    fv_error *err);

/** The bytes of one id; NULL when the id has no token or a pointer is NULL. Borrowed from the
 *  engine. */
FV_API const char *fv_engine_token_text(const fv_engine *engine, int32_t id, size_t *n_bytes);

/** Milliseconds that opening took; 0 for NULL. */
FV_API double fv_engine_load_ms(const fv_engine *engine);

/* ---------------------------------------------------------------- images */

typedef struct fv_image_options {
    size_t size;
    bool ignore_exif;    /**< ignore the EXIF orientation */
    uint64_t max_pixels; /**< refuse larger images before decoding; 0: 2^28 */
} fv_image_options;

FV_DEFINE_DEFAULT(fv_image_options)

/** JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or PNM (P5, P6) from a file or from memory, the
 *  first frame or page. The image owns its pixels; data is only read during the call. On failure
 *  *out is NULL. */
FV_API fv_status fv_image_open(fv_image **out, const char *path, const fv_image_options *options,
                               fv_error *err);
FV_API fv_status fv_image_read(fv_image **out, const void *data, size_t n_bytes,
                               const fv_image_options *options, fv_error *err);

typedef enum fv_pixel_format {
    FV_PIXELS_RGB = 0, /**< bytes R, G, B */
    FV_PIXELS_BGR,
    FV_PIXELS_RGBA, /**< alpha is ignored, as in files */
    FV_PIXELS_BGRA,
    FV_PIXELS_GRAY,    /**< one byte */
    FV_PIXELS_RGB_F32, /**< three floats from 0 to 1, of any alignment; rounded to 8 bits */
    FV_PIXELS_NV12,    /**< BT.601, limited range: Y, and at half the resolution pairs of U, V */
    FV_PIXELS_NV21     /**< the same with pairs of V, U */
} fv_pixel_format;

/** Pixels in the caller's memory. */
typedef struct fv_pixels {
    size_t size;
    fv_pixel_format format;
    int width, height; /**< as stored, 1 to 65535 */
    /** Where the top row begins: [0] the pixels, or Y; [1] the pairs of NV12 and NV21, of which a
     *  row has (width + 1) / 2 and there are (height + 1) / 2 rows; [2] is not used. */
    const void *plane[3];
    ptrdiff_t stride_bytes[3]; /**< to the next row down; negative: it lies before; 0: no gap */
    int orientation;           /**< EXIF's 1 to 8: how the image is to be turned; 0: not */
} fv_pixels;

FV_DEFINE_DEFAULT(fv_pixels)

/** An image of pixels that are borrowed, not copied: they must stay as they are until
 *  fv_image_free. On failure *out is NULL. */
FV_API fv_status fv_image_wrap(fv_image **out, const fv_pixels *pixels, fv_error *err);
/** In pixels; 0 for NULL. */
FV_API int fv_image_width(const fv_image *image);
FV_API int fv_image_height(const fv_image *image);
/** [height, width, 3], borrowed from the image; NULL for NULL and for a wrapped image. */
FV_API const uint8_t *fv_image_rgb(const fv_image *image);
/** "JPEG", "PNG" and so on, the names of fv_image_format_check; of a wrapped image "RGB", "NV12"
 *  and so on; "" for NULL. */
FV_API const char *fv_image_format(const fv_image *image);
FV_API void fv_image_free(fv_image *image);

/** The formats of image files: *name is that at index, from 0 on, a static string. FV_OK when it
 *  can be read, FV_ERR_UNSUPPORTED when the build or this machine lacks its library, which err
 *  says; behind the last one FV_ERR_ARGUMENT, and *name is NULL. */
FV_API fv_status fv_image_format_check(size_t index, const char **name, fv_error *err);

/* ---------------------------------------------------------------- features: an encoded image */

/** A named value of the model as f32; shape: n_dims sizes, outermost first. data is valid only
 *  during the call. Names and order are those of the model; a prompt of more than 512 rows is run
 *  in chunks, and each chunk gives the decoder's values once. Return false to stop with
 *  FV_ERR_CANCELLED. */
typedef bool fv_tap_fn(void *user, const char *name, const float *data, const size_t *shape,
                       int n_dims);

/** A layer, or several that run as one, of a call: what it took. */
typedef struct fv_layer {
    size_t size;
    const char *name; /**< its weights' names as in a packed file, "model.layers.0.mlp.down_proj",
                           further ones of the same block behind " + "; without weights its kind in
                           the block of the layer before. Valid during the call */
    const char *kind; /**< "linear", "convolution", "ffn", "attention", "norm", ...; static */
    const char *precision; /**< of its products: "f32", "bf16", "int8", "w8a16" (8-bit weights, rows
                                of 16 bits), "z8", "q4"; "": it has none; static */
    uint64_t n_rows;       /**< rows or pixels that it wrote */
    double ms;
    double macs;  /**< multiplications with an addition */
    double bytes; /**< of weights and KV cache that it reads at least once */
} fv_layer;

/** Called after each layer, in the order in which they run. */
typedef void fv_layer_fn(void *user, const fv_layer *layer);

/** Image tokens [n_rows, d_model]: what the decoder sees of an image. Immutable; shared by threads
 *  and sessions; outlives its engine. */
typedef struct fv_features fv_features;

typedef struct fv_encode_options {
    size_t size;
    fv_fit fit;
    int n_threads;                 /**< at most; 0: all of the engine's */
    const fv_callbacks *callbacks; /**< progress stage "vision" */
    fv_tap_fn *tap;                /**< NULL: none */
    void *tap_user;
    fv_layer_fn *layer; /**< NULL: none; not by encoders other than the CPU's */
    void *layer_user;
} fv_encode_options;

FV_DEFINE_DEFAULT(fv_encode_options)

/** Encodes an image; any number of threads at once. On success *out has one reference, on failure
 *  it is NULL. */
FV_API fv_status fv_encode(fv_engine *engine, const fv_image *image,
                           const fv_encode_options *options, fv_features **out, fv_error *err);
/** Rows that were computed elsewhere, copied. d_model must be the model's, n_rows at most its
 *  context. */
FV_API fv_status fv_features_new(const fv_engine *engine, const float *rows, size_t n_rows,
                                 size_t d_model, fv_features **out, fv_error *err);
/** Adds a reference; returns its argument, which may be NULL. */
FV_API fv_features *fv_features_ref(fv_features *features);
/** Drops a reference; with the last one the rows are freed. */
FV_API void fv_features_free(fv_features *features);
/** [*n_rows, *d_model], borrowed; NULL, 0 and 0 for NULL. n_rows and d_model may be NULL. */
FV_API const float *fv_features_rows(const fv_features *features, size_t *n_rows, size_t *d_model);

/* ---------------------------------------------------------------- session: one conversation */

typedef struct fv_session_options {
    size_t size;
    int max_context;       /**< context length in tokens; 0: the model's limit */
    int n_threads;         /**< at most; 0: all of the engine's */
    const char *system;    /**< system prompt, UTF-8; NULL: the default one; copied */
    size_t n_system_bytes; /**< 0 with a pointer: an empty system prompt */
    /** Reuse only those rows of the KV cache that are bit-identical to a fresh run's. Generated
     *  tokens were computed one row at a time and prompts many rows at a time, so sums may be in
     *  another order. Without this, everything shared with the conversation before is reused. */
    bool exact_reuse;
    const fv_callbacks *callbacks; /**< copied; progress stages "vision", "prefill", "decode" */
    fv_tap_fn *tap;                /**< NULL: none; every named value of every call */
    void *tap_user;
    bool tap_prompt_logits; /**< also "logits_prefill": runs the output head for every row */
    fv_layer_fn *layer;     /**< NULL: none; in fv_sessions_next that of the first session of those
                             that run together, for all of them */
    void *layer_user;
} fv_session_options;

FV_DEFINE_DEFAULT(fv_session_options)

/** On failure *out is NULL. The engine stays as long as its sessions do. */
FV_API fv_status fv_session_new(fv_session **out, fv_engine *engine,
                                const fv_session_options *options, fv_error *err);
FV_API void fv_session_free(fv_session *session);

/** The user's turn, in the order of the calls. An image before any
 *  text of its turn is followed by a newline, as in training. Text is literal: "<|im_end|>" and
 *  "<image>" in it are words. The first add_* after an answer begins the next turn; an unfinished
 *  answer is cut off there. What cannot fit the context is FV_ERR_LIMIT at once. On
 *  failure the session is unchanged.
 *
 *  fv_session_add_image encodes now; callbacks, tap and layer that the options lack are those of
 *  the session. Borrows image during the call. */
FV_API fv_status fv_session_add_image(fv_session *session, const fv_image *image,
                                      const fv_encode_options *options, fv_error *err);
/** Takes a reference. */
FV_API fv_status fv_session_add_features(fv_session *session, fv_features *features, fv_error *err);
/** UTF-8; text may be NULL when n_bytes is 0. */
FV_API fv_status fv_session_add_text(fv_session *session, const char *text, size_t n_bytes,
                                     fv_error *err);
/** Token ids as they are, control tokens included: any row of the vocabulary. An id such as that of
 *  <|im_end|> ends the turn; do not pass ids made from untrusted text with special set. */
FV_API fv_status fv_session_add_tokens(fv_session *session, const int32_t *ids, size_t n,
                                       fv_error *err);
/** What the assistant said earlier, literal text: ends the user's turn that is being written.
 *  FV_ERR_STATE when there is none. Runs nothing. */
FV_API fv_status fv_session_add_answer(fv_session *session, const char *text, size_t n_bytes,
                                       fv_error *err);

/** Added to the logit of id; -infinity forbids it. Its layout never changes. */
typedef struct fv_logit_bias {
    int32_t id;
    float bias;
} fv_logit_bias;

/** Called before each choice: bit id % 32 of mask[id / 32] is set if id may be chosen; clear bits
 *  to forbid ids. mask has (n_tokens + 31) / 32 words. */
typedef void fv_mask_fn(void *user, uint32_t *mask, size_t n_tokens);
/** Called after each choice, also of the end token. */
typedef void fv_chosen_fn(void *user, int32_t id);

/** How an answer is chosen. */
typedef struct fv_answer_options {
    size_t size;
    float temperature;        /**< 0: greedy */
    int top_k;                /**< 0: off */
    float top_p;              /**< 0 or 1: off */
    float min_p;              /**< 0: off */
    float repetition_penalty; /**< over the ids of prompts and answers; 0 or 1: off */
    uint64_t seed;
    int max_new_tokens;      /**< 0: what the context leaves */
    const char *const *stop; /**< n_stop strings that end the answer; copied */
    size_t n_stop;
    bool ignore_end;           /**< continue after the end token: for timing */
    int n_logprobs;            /**< best alternatives reported per token, up to 20; 0: none */
    const fv_logit_bias *bias; /**< copied */
    size_t n_bias;
    fv_mask_fn *mask;     /**< NULL: none */
    fv_chosen_fn *chosen; /**< NULL: none */
    void *mask_user;      /**< first argument of both */
} fv_answer_options;

FV_DEFINE_DEFAULT(fv_answer_options)

/** Optional: sets how the next answer is chosen, and only that one; runs nothing. Without it:
 *  greedy, to the end token. FV_ERR_STATE during an answer. */
FV_API fv_status fv_session_begin(fv_session *session, const fv_answer_options *options,
                                  fv_error *err);

typedef enum fv_finish {
    FV_FINISH_NONE = 0,
    FV_FINISH_STOP,       /**< the model ended its answer */
    FV_FINISH_LENGTH,     /**< max_new_tokens or the context is used up */
    FV_FINISH_STOP_STRING /**< a stop string was generated; it is not in the text */
} fv_finish;

/** Natural logarithm of a token's probability. Its layout never changes. */
typedef struct fv_token_logprob {
    int32_t id;
    float logprob;
} fv_token_logprob;

typedef struct fv_piece {
    size_t size;
    const char
        *text;      /**< complete UTF-8, not NUL-terminated; valid until the session's next call */
    size_t n_bytes; /**< may be 0: a token that ends inside a character */
    int32_t id;     /**< the token just chosen; -1 with done when none was */
    bool done;      /**< the answer is over; text may still hold its last bytes */
    fv_finish finish; /**< the reason, when done */
    float logprob; /**< of id, after bias, mask and penalty, before temperature; NaN: not asked */
    const fv_token_logprob *top; /**< best first; valid until the session's next call */
    size_t n_top;
} fv_piece;

/** Runs the prompt when a turn has just been written, then chooses one token. After done the next
 *  add_* begins the next turn. When the prompt does not fit the context: FV_ERR_LIMIT. After any
 *  failure the answer is over and its turn is dropped, the conversation up to the turn stays:
 *  FV_ERR_STATE until the next add_* or reset. */
FV_API fv_status fv_session_next(fv_session *session, fv_piece *out, fv_error *err);
/** fv_session_next for n sessions of one engine, each of them once: the decoder's weights are read
 *  from memory once for all that are answering, so that several answers take little longer than
 *  one. Every answer has the bits that it has alone. Prompts of turns that were just written are
 *  run first, and together, too: 512 rows share a pass over the weights. Where several begin alike,
 *  such as with the same image, the beginning is computed once.
 *
 *  pieces: [n], with the same size in each. statuses: [n] or NULL: how each session fared; one
 *  whose answer is over gives FV_ERR_STATE, as in fv_session_next, and its piece has id -1 and is
 *  not done. The call itself fails when an argument is wrong (nothing has happened then) or no
 *  session succeeded; *err is about the first session that failed.
 *
 *  Callbacks, taps, masks and limits are each session's own; one that stops its prompt leaves the
 *  others at the next layer. The threads are those of the first session of those that run
 *  together, and the buffers for prompts its, too. */
FV_API fv_status fv_sessions_next(fv_session *const *sessions, size_t n, fv_piece *pieces,
                                  fv_status *statuses, fv_error *err);
/** As fv_session_next, with the token given instead of chosen: any row of the vocabulary. When the
 *  context is full: FV_ERR_LIMIT, and nothing has changed. */
FV_API fv_status fv_session_force(fv_session *session, int32_t id, fv_error *err);
/** What the last token was chosen from, or forced against: [*n], n the rows of the vocabulary.
 *  Valid until the session's next call; NULL when there are none. */
FV_API const float *fv_session_logits(const fv_session *session, size_t *n);

typedef struct fv_score {
    size_t size;
    size_t n_tokens; /**< of the answer, its end token included */
    double logprob;  /**< natural logarithm of the whole answer's probability */
    size_t n_greedy; /**< tokens that greedy choice would have taken */
} fv_score;

/** How likely the model finds this answer to the turn written so far. The answer becomes part of
 *  the conversation. Fails as fv_session_next does. */
FV_API fv_status fv_session_score(fv_session *session, const char *answer, size_t n_bytes,
                                  fv_score *out, fv_error *err);

/** Begins another conversation. What it has in common with the one before, from the start on, is
 *  kept in the KV cache and not computed again (images by identity or equal bytes), so a stateless
 *  client can reset and add the whole conversation again cheaply. Does nothing for NULL, and from
 *  inside a callback of the session's. */
FV_API void fv_session_reset(fv_session *session);

/** A second session of the same engine with the same options and conversation, the turn being
 *  written included, but not what fv_session_begin has set. FV_ERR_STATE during an answer. On
 *  failure *out is NULL. */
FV_API fv_status fv_session_copy(fv_session **out, const fv_session *session, fv_error *err);
/** Rows of the conversation, without the turn being written; for fv_session_rewind. 0 for NULL. */
FV_API size_t fv_session_position(const fv_session *session);
/** Back to a position taken between turns; drops the turn being written and cuts an answer. Other
 *  positions are FV_ERR_ARGUMENT. */
FV_API fv_status fv_session_rewind(fv_session *session, size_t position, fv_error *err);

/** Takes the next n_bytes of a saved session; not FV_OK stops with that status. */
typedef fv_status fv_write_fn(void *user, const void *data, size_t n_bytes);
/** Writes the conversation, its images and its KV cache. FV_ERR_STATE while a turn is being
 *  written and during an answer. */
FV_API fv_status fv_session_save(const fv_session *session, fv_write_fn *write, void *user,
                                 fv_error *err);
/** Replaces the conversation by a saved one of the same model and type of KV cache; of another:
 *  FV_ERR_UNSUPPORTED. Damaged bytes are FV_ERR_FORMAT. On failure the session is unchanged. */
FV_API fv_status fv_session_load(fv_session *session, const void *data, size_t n_bytes,
                                 fv_error *err);

typedef struct fv_stats {
    size_t size;
    double image_ms;      /**< reading and decoding, as measured by fv_image_open and _read */
    double preprocess_ms; /**< fit, resize, scale */
    double vision_ms, projector_ms;
    double prefill_ms;     /**< of prompts that ran together: of all of them */
    double decode_ms;      /**< of the tokens behind the first; one that was computed with those of
                            others counts whole, without the prompts that ran in the same call */
    double first_token_ms; /**< from the first add_* of the turn to the first chosen token */
    int prompt_tokens;     /**< rows of the last prompt, image tokens included */
    int image_tokens;      /**< of them */
    int new_tokens;        /**< of the last answer */
    int context_used;      /**< rows of the conversation in the KV cache */
    int reused_tokens;     /**< rows of the last prompt that were in the cache already, or came from
                                that of another session in fv_sessions_next */
} fv_stats;

/** Times of images are those of fv_session_add_image. Does nothing when a pointer is NULL or
 *  out->size 0. */
FV_API void fv_session_stats(const fv_session *session, fv_stats *out);

#ifdef __cplusplus
}
#endif
#endif
