/** \file fastvlm.h
 * fastvlm: run Apple's FastVLM vision-language models on a CPU.
 *
 * An engine is a loaded model: immutable after open, shared by any number of threads.
 * A session is one conversation: the KV cache, the sampler and the pieces of text not yet
 * taken. One thread at a time may use a session; two sessions of one engine may run at once.
 *
 *     fv_engine *engine;  fv_session *session;  fv_image *image;  fv_piece piece = { .size = sizeof piece };
 *     fv_engine_open(&engine, "checkpoint", NULL, &err);
 *     fv_session_new(&session, engine, NULL, &err);
 *     fv_image_open(&image, "photo.jpg", NULL, &err);
 *     fv_session_add_image(session, image, &err);
 *     fv_session_add_text(session, "Describe the image.", strlen("Describe the image."), &err);
 *     while (fv_session_next(session, &piece, &err) == FV_OK && !piece.done)
 *         fwrite(piece.text, 1, piece.n_bytes, stdout);
 *
 * Rules for the whole interface:
 *
 *  - Every function that can fail returns a status and fills *err when err is not NULL. The
 *    library never prints, exits, or keeps global state.
 *  - Structs that cross the border begin with `size`, the caller's sizeof. Options: NULL means all
 *    defaults, and so does 0 in every field. fv_X_options_default() sets the size and zeroes the
 *    rest. A size of 0 is FV_ERR_ARGUMENT. Fields that a smaller struct lacks have their defaults;
 *    bytes of a larger one that this library does not know must be zero, else FV_ERR_ARGUMENT.
 *    Results: the caller sets size (`fv_stats stats = { .size = sizeof stats };`), the library fills what
 *    fits and zeroes the rest. Structs that the library hands to a callback have its own size.
 *  - Options and what they point to are only read during the call, unless said otherwise.
 *  - Text has a length in bytes and is UTF-8. Paths and names end with NUL; a path is only ever a
 *    path ("-" is a file of that name).
 *  - NULL: *_free accept it; every other required pointer that is NULL is FV_ERR_ARGUMENT, by name.
 *  - Callbacks come on the thread that called the library.
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
#define FV_VERSION_MINOR 1
#define FV_VERSION_PATCH 0
#define FV_VERSION       "0.1.0"

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
    FV_ERR_CANCELLED,   /**< the progress callback said so */
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

/** Long work asks now and then whether to go on; return true to stop with FV_ERR_CANCELLED.
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
    FV_PRECISION_AUTO = 0, /**< as stored where the processor multiplies that fast, else f32 */
    FV_PRECISION_F32,
    FV_PRECISION_BF16,
    FV_PRECISION_F16,
    FV_PRECISION_Z8,  /**< decoder of a packed file: blocks of 8 bits (GGUF's Q8_0) */
    FV_PRECISION_Q4,  /**< decoder of a packed file: blocks of 4 bits (Q4_0) */
    FV_PRECISION_INT8 /**< vision encoder of a packed file: 8 bits, calibrated */
} fv_precision;

/** "auto", "f32", "bf16", "f16", "z8", "q4", "int8"; static. */
FV_API const char *fv_precision_name(fv_precision precision);
/** The other way; false, *out unchanged, when name is none of them or a pointer is NULL. */
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
    bool cpu_unknown;      /**< FV_CPU is set and is not the name of a level */
    bool fast_bf16;        /**< the level in use multiplies bf16 faster than f32 */
    int n_cores;           /**< physical cores that this process may use */
} fv_system;

/** Strings are static. Does nothing when out is NULL or out->size 0. */
FV_API void fv_system_info(fv_system *out);

/* ---------------------------------------------------------------- threads */

/** Threads that engines may share; a counted reference. k calls at once, of one engine or of several,
 *  get about n_threads / k of them each; the thread that calls is one of them. */
typedef struct fv_threads fv_threads;

typedef struct fv_threads_options {
    size_t size;
    int n_threads; /**< calling thread included, 1 to 1024; 0: one per physical core */
    /** Processors, n_threads different ones, to pin threads to; NULL: not pinned. The calling thread
     *  is the caller's: cpus[0] stands for it and is not pinned. Linux; FV_ERR_UNSUPPORTED
     *  elsewhere. */
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
 *  open: weights are mapped, not copied. A packed file runs in the precisions it was packed in, or,
 *  where its weights are bf16 or f16, in f32; others are FV_ERR_UNSUPPORTED. */
FV_API fv_status fv_engine_open(fv_engine **out, const char *path, const fv_engine_options *options,
                                fv_error *err);
/** The same for the bytes of a packed file in memory. Where they begin at a multiple of 4 the engine
 *  borrows them: they outlive it unchanged. Otherwise it copies them, and needs them no longer when
 *  this returns. */
FV_API fv_status fv_engine_open_memory(fv_engine **out, const void *data, size_t n_bytes,
                                       const fv_engine_options *options, fv_error *err);
/** The same for a packed file that is a part of another file, such as an uncompressed asset of an
 *  Android package: n_bytes (0: to the end) from offset on. They are mapped, so fd may be closed
 *  afterwards; at an offset that is no multiple of 4 they are copied. */
FV_API fv_status fv_engine_open_fd(fv_engine **out, int fd, uint64_t offset, uint64_t n_bytes,
                                   const fv_engine_options *options, fv_error *err);
/** All sessions must be freed first. */
FV_API void fv_engine_free(fv_engine *engine);

typedef struct fv_model_info {
    size_t size;
    const char *layout;            /**< "llava_qwen2" or "fast_vlm" */
    const char *format;            /**< "safetensors" or "GGUF" */
    const char *vision_precision;  /**< "f32", "bf16", "f16", "int8" */
    const char *decoder_precision; /**< "f32", "bf16", "f16", "z8", "q4" */
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
} fv_model_info;

/** Strings are borrowed from the engine. Does nothing when a pointer is NULL or out->size 0. */
FV_API void fv_engine_info(const fv_engine *engine, fv_model_info *out);

/** How a packed file was made: pairs of key and value such as "packed by" and "fastvlm 0.1.0";
 *  false when index is past the last one, always for a checkpoint directory. Borrowed from the
 *  engine. */
FV_API bool fv_engine_record(const fv_engine *engine, size_t index, const char **key,
                             const char **value);

typedef struct fv_tensor_info {
    size_t size;
    const char *name, *dtype, *file;
    int n_dims;
    uint64_t shape[4]; /**< outermost first */
    uint64_t n_bytes;
    bool used;  /**< false: in the file, not needed to run */
    float sqnr; /**< dB lost in packing; infinite: nothing, NaN: not a packed file */
} fv_tensor_info;

/** Tensors in file order; false when index is past the last one, a pointer is NULL or out->size 0.
 *  Strings are borrowed from the engine. */
FV_API bool fv_engine_tensor(const fv_engine *engine, size_t index, fv_tensor_info *out);

/** Token ids of text. special: control marks in it such as <|im_end|> become their ids; otherwise
 *  they are words like any other. Writes at most capacity ids and always the full count to *n. ids
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
    bool ignore_exif;    /**< do not turn the image by its EXIF orientation */
    uint64_t max_pixels; /**< refuse larger images before decoding; 0: 2^28 */
} fv_image_options;

FV_DEFINE_DEFAULT(fv_image_options)

/** JPEG, PNG, WebP (first frame) or PNM (P5, P6) from a file or from memory. The image owns its
 *  pixels; data is only read during the call. On failure *out is NULL. */
FV_API fv_status fv_image_open(fv_image **out, const char *path, const fv_image_options *options,
                               fv_error *err);
FV_API fv_status fv_image_read(fv_image **out, const void *data, size_t n_bytes,
                               const fv_image_options *options, fv_error *err);
/** Copies height rows of width RGB pixels, row_bytes apart (at least 3 * width). */
FV_API fv_status fv_image_from_rgb(fv_image **out, const uint8_t *rgb, int width, int height,
                                   size_t row_bytes, fv_error *err);
/** In pixels; 0 for NULL. */
FV_API int fv_image_width(const fv_image *image);
FV_API int fv_image_height(const fv_image *image);
/** [height, width, 3], borrowed from the image; NULL for NULL. */
FV_API const uint8_t *fv_image_rgb(const fv_image *image);
/** "JPEG", "PNG", "WebP", "PNM", "RGB"; "" for NULL. */
FV_API const char *fv_image_format(const fv_image *image);
FV_API void fv_image_free(fv_image *image);

/** How an image that is not square meets the square input. */
typedef enum fv_fit {
    FV_FIT_AUTO = 0, /**< what the checkpoint's own layout does */
    FV_FIT_PAD,      /**< centred on a black square */
    FV_FIT_CROP,     /**< the short edge fills the square, the rest is cut off */
    FV_FIT_STRETCH   /**< both edges scaled to the square */
} fv_fit;

/* ---------------------------------------------------------------- session */

typedef struct fv_session_options {
    size_t size;
    float temperature;        /**< 0: greedy */
    int top_k;                /**< 0: off */
    float top_p;              /**< 0 or 1: off */
    float min_p;              /**< 0: off */
    float repetition_penalty; /**< over the ids of prompts and answers; 0 or 1: off */
    uint64_t seed;
    int max_new_tokens; /**< per answer; 0: what the context leaves */
    int max_context;    /**< rows of the KV cache; 0: up to the model's limit */
    fv_fit fit;
    const char *system;      /**< system prompt, UTF-8; NULL: the default one; copied */
    size_t n_system_bytes;   /**< 0 with a pointer: an empty system prompt */
    const char *const *stop; /**< n_stop strings that end an answer; copied */
    size_t n_stop;
    bool ignore_end;               /**< continue after the end token: for timing */
    const fv_callbacks *callbacks; /**< progress stages "vision", "prefill", "decode" */
    /** not NULL: every stage as .npy in this folder, which is made if need be, when an answer is
     *  complete; copied */
    const char *dump_dir;
} fv_session_options;

FV_DEFINE_DEFAULT(fv_session_options)

/** The engine must outlive the session. On failure *out is NULL. */
FV_API fv_status fv_session_new(fv_session **out, fv_engine *engine,
                                const fv_session_options *options, fv_error *err);
FV_API void fv_session_free(fv_session *session);

/** Puts an image into the user's turn: encodes it now. By default it stands at the turn's start;
 *  the text "<image>" in fv_session_add_text moves the k-th image to the k-th such mark. Borrows
 *  image for the duration of the call. On error the session is unchanged. */
FV_API fv_status fv_session_add_image(fv_session *session, const fv_image *image, fv_error *err);

/** Adds UTF-8 text to the user's turn. text may be NULL when n_bytes is 0. */
FV_API fv_status fv_session_add_text(fv_session *session, const char *text, size_t n_bytes,
                                     fv_error *err);

typedef enum fv_finish {
    FV_FINISH_NONE = 0,
    FV_FINISH_STOP,       /**< the model ended its answer */
    FV_FINISH_LENGTH,     /**< max_new_tokens or the context is used up */
    FV_FINISH_STOP_STRING /**< a stop string came; it is not part of the text */
} fv_finish;

typedef struct fv_piece {
    size_t size;
    const char
        *text;      /**< complete UTF-8, not NUL-terminated; valid until the session's next call */
    size_t n_bytes; /**< may be 0: a token that ends inside a character */
    int32_t id;     /**< the token just chosen; -1 with done when none was */
    bool done;      /**< the answer is over; text may still hold its last bytes */
    fv_finish finish; /**< why, when done */
} fv_piece;

/** Runs the prompt when the turn has just been written, then chooses one token. After done, the
 *  next fv_session_add_* starts the next turn of the user; the KV cache is kept. When the prompt
 *  does not fit the context: FV_ERR_LIMIT. After any failure to run a prompt the session is as it
 *  was before the turn, the turn's images and text dropped. */
FV_API fv_status fv_session_next(fv_session *session, fv_piece *out, fv_error *err);

/** Forgets the conversation; options and memory stay. Does nothing for NULL. */
FV_API void fv_session_reset(fv_session *session);

typedef struct fv_stats {
    size_t size;
    double image_ms;      /**< reading and decoding, as measured by fv_image_open and _read */
    double preprocess_ms; /**< fit, resize, scale */
    double vision_ms, projector_ms, prefill_ms, decode_ms;
    double first_token_ms; /**< from the first add_* of the turn to the first chosen token */
    int prompt_tokens;     /**< rows of the last turn's prompt, image tokens included */
    int image_tokens;      /**< of them */
    int new_tokens;        /**< of the last answer */
    int context_used;      /**< rows in the KV cache */
} fv_stats;

/** Does nothing when a pointer is NULL or out->size 0. */
FV_API void fv_session_stats(const fv_session *session, fv_stats *out);

#ifdef __cplusplus
}
#endif
#endif
