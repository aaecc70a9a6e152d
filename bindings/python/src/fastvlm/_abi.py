"""The C interface of libfastvlm for ctypes. Written by generate_abi.py from the recorded layout of
include/fastvlm.h; do not edit."""
from ctypes import (CFUNCTYPE, POINTER, Structure, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_size_t,
                    c_ssize_t, c_uint32, c_uint64, c_void_p)

VERSION = "0.2.0"

FV_OK = 0
FV_ERR_ARGUMENT = 1
FV_ERR_IO = 2
FV_ERR_FORMAT = 3
FV_ERR_UNSUPPORTED = 4
FV_ERR_MEMORY = 5
FV_ERR_LIMIT = 6
FV_ERR_CANCELLED = 7
FV_ERR_STATE = 8
FV_LOG_WARNING = 0
FV_LOG_INFO = 1
FV_PRECISION_AUTO = 0
FV_PRECISION_F32 = 1
FV_PRECISION_BF16 = 2
FV_PRECISION_F16 = 3
FV_PRECISION_Z8 = 4
FV_PRECISION_Q4 = 5
FV_PRECISION_INT8 = 6
FV_PRECISION_W8A8 = 7
FV_KV_AUTO = 0
FV_KV_F32 = 1
FV_KV_F16 = 2
FV_KV_Q8 = 3
FV_FIT_AUTO = 0
FV_FIT_PAD = 1
FV_FIT_CROP = 2
FV_FIT_STRETCH = 3
FV_PIXELS_RGB = 0
FV_PIXELS_BGR = 1
FV_PIXELS_RGBA = 2
FV_PIXELS_BGRA = 3
FV_PIXELS_GRAY = 4
FV_PIXELS_RGB_F32 = 5
FV_PIXELS_NV12 = 6
FV_PIXELS_NV21 = 7
FV_FINISH_NONE = 0
FV_FINISH_STOP = 1
FV_FINISH_LENGTH = 2
FV_FINISH_STOP_STRING = 3

fv_chosen_fn = CFUNCTYPE(None, c_void_p, c_int32)
fv_layer_fn = CFUNCTYPE(None, c_void_p, c_void_p)
fv_log_fn = CFUNCTYPE(None, c_void_p, c_int, c_char_p)
fv_mask_fn = CFUNCTYPE(None, c_void_p, POINTER(c_uint32), c_size_t)
fv_progress_fn = CFUNCTYPE(c_bool, c_void_p, c_char_p, c_double)
fv_tap_fn = CFUNCTYPE(c_bool, c_void_p, c_char_p, POINTER(c_float), POINTER(c_size_t), c_int)
fv_write_fn = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)


class fv_error(Structure):
    _fields_ = [
        ("status", c_int),
        ("reserved", c_uint32),
        ("at", c_uint64),
        ("message", c_char * 496),
    ]


class fv_callbacks(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("log", fv_log_fn),
        ("progress", fv_progress_fn),
        ("user", c_void_p),
    ]


class fv_system(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("cpu_best", c_char_p),
        ("cpu_level", c_char_p),
        ("cpu_unknown", c_bool),
        ("fast_bf16", c_bool),
        ("n_cores", c_int),
        ("bf16_reason", c_char_p),
        ("memory_bytes", c_uint64),
        ("memory_available_bytes", c_uint64),
        ("memory_limited", c_bool),
    ]


class fv_threads_options(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("n_threads", c_int),
        ("cpus", POINTER(c_int)),
        ("n_cpus", c_size_t),
    ]


class fv_engine_options(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("vision", c_int),
        ("decoder", c_int),
        ("kv", c_int),
        ("image_size", c_int),
        ("n_threads", c_int),
        ("threads", c_void_p),
        ("callbacks", POINTER(fv_callbacks)),
        ("prefault", c_bool),
        ("lock", c_bool),
    ]


class fv_memory(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("mapped_bytes", c_uint64),
        ("engine_bytes", c_uint64),
        ("encoder_bytes", c_uint64),
        ("session_bytes", c_uint64),
    ]


class fv_limits(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("f32_macs", c_double),
        ("bf16_macs", c_double),
        ("int8_macs", c_double),
        ("w8a16_macs", c_double),
        ("z8_macs", c_double),
        ("q4_macs", c_double),
        ("read_bytes", c_double),
    ]


class fv_model_info(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("layout", c_char_p),
        ("format", c_char_p),
        ("vision_precision", c_char_p),
        ("decoder_precision", c_char_p),
        ("weights_type", c_char_p),
        ("image_size", c_int),
        ("n_image_tokens", c_int),
        ("vision_stages", c_int),
        ("vision_layers", c_int * 8),
        ("vision_widths", c_int * 8),
        ("n_features", c_int),
        ("d_model", c_int),
        ("d_ffn", c_int),
        ("n_layers", c_int),
        ("n_heads", c_int),
        ("n_kv_heads", c_int),
        ("d_head", c_int),
        ("vocab_rows", c_int),
        ("n_tokens", c_int),
        ("max_context", c_int),
        ("n_parameters", c_uint64),
        ("weight_bytes", c_uint64),
        ("tied_head", c_bool),
        ("n_threads", c_int),
        ("cpu_level", c_char_p),
        ("n_end_tokens", c_int),
        ("end_tokens", c_int32 * 18),
        ("fit", c_int),
        ("filter", c_char_p),
        ("scaled_short_edge", c_int),
        ("scaled_width", c_int),
        ("scaled_height", c_int),
        ("rescale", c_double),
        ("image_mean", c_float * 3),
        ("image_std", c_float * 3),
    ]


class fv_tensor_info(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("name", c_char_p),
        ("dtype", c_char_p),
        ("file", c_char_p),
        ("n_dims", c_int),
        ("shape", c_uint64 * 4),
        ("n_bytes", c_uint64),
        ("used", c_bool),
        ("sqnr", c_float),
    ]


class fv_image_options(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("ignore_exif", c_bool),
        ("max_pixels", c_uint64),
    ]


class fv_pixels(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("format", c_int),
        ("width", c_int),
        ("height", c_int),
        ("plane", c_void_p * 3),
        ("stride_bytes", c_ssize_t * 3),
        ("orientation", c_int),
    ]


class fv_layer(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("name", c_char_p),
        ("kind", c_char_p),
        ("precision", c_char_p),
        ("n_rows", c_uint64),
        ("ms", c_double),
        ("macs", c_double),
        ("bytes", c_double),
    ]


class fv_encode_options(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("fit", c_int),
        ("n_threads", c_int),
        ("callbacks", POINTER(fv_callbacks)),
        ("tap", fv_tap_fn),
        ("tap_user", c_void_p),
        ("layer", fv_layer_fn),
        ("layer_user", c_void_p),
    ]


class fv_session_options(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("max_context", c_int),
        ("n_threads", c_int),
        ("system", c_void_p),
        ("n_system_bytes", c_size_t),
        ("exact_reuse", c_bool),
        ("callbacks", POINTER(fv_callbacks)),
        ("tap", fv_tap_fn),
        ("tap_user", c_void_p),
        ("tap_prompt_logits", c_bool),
        ("layer", fv_layer_fn),
        ("layer_user", c_void_p),
    ]


class fv_logit_bias(Structure):
    _fields_ = [
        ("id", c_int32),
        ("bias", c_float),
    ]


class fv_answer_options(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("temperature", c_float),
        ("top_k", c_int),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("seed", c_uint64),
        ("max_new_tokens", c_int),
        ("stop", POINTER(c_char_p)),
        ("n_stop", c_size_t),
        ("ignore_end", c_bool),
        ("n_logprobs", c_int),
        ("bias", POINTER(fv_logit_bias)),
        ("n_bias", c_size_t),
        ("mask", fv_mask_fn),
        ("chosen", fv_chosen_fn),
        ("mask_user", c_void_p),
    ]


class fv_token_logprob(Structure):
    _fields_ = [
        ("id", c_int32),
        ("logprob", c_float),
    ]


class fv_piece(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("text", c_void_p),
        ("n_bytes", c_size_t),
        ("id", c_int32),
        ("done", c_bool),
        ("finish", c_int),
        ("logprob", c_float),
        ("top", POINTER(fv_token_logprob)),
        ("n_top", c_size_t),
    ]


class fv_score(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("n_tokens", c_size_t),
        ("logprob", c_double),
        ("n_greedy", c_size_t),
    ]


class fv_stats(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("image_ms", c_double),
        ("preprocess_ms", c_double),
        ("vision_ms", c_double),
        ("projector_ms", c_double),
        ("prefill_ms", c_double),
        ("decode_ms", c_double),
        ("first_token_ms", c_double),
        ("prompt_tokens", c_int),
        ("image_tokens", c_int),
        ("new_tokens", c_int),
        ("context_used", c_int),
        ("reused_tokens", c_int),
    ]


# name: (result, parameters)
FUNCTIONS = {
    "fv_encode": (c_int, [c_void_p, c_void_p, POINTER(fv_encode_options), POINTER(c_void_p), POINTER(fv_error)]),
    "fv_engine_estimate": (c_int, [c_char_p, POINTER(fv_engine_options), c_int, POINTER(fv_memory), POINTER(fv_error)]),
    "fv_engine_free": (None, [c_void_p]),
    "fv_engine_info": (None, [c_void_p, POINTER(fv_model_info)]),
    "fv_engine_limits": (c_int, [c_void_p, POINTER(fv_limits), POINTER(fv_error)]),
    "fv_engine_load_ms": (c_double, [c_void_p]),
    "fv_engine_memory": (c_int, [c_void_p, POINTER(fv_memory), POINTER(fv_error)]),
    "fv_engine_open": (c_int, [POINTER(c_void_p), c_char_p, POINTER(fv_engine_options), POINTER(fv_error)]),
    "fv_engine_open_fd": (c_int, [POINTER(c_void_p), c_int, c_uint64, c_uint64, POINTER(fv_engine_options), POINTER(fv_error)]),
    "fv_engine_open_memory": (c_int, [POINTER(c_void_p), c_void_p, c_size_t, POINTER(fv_engine_options), POINTER(fv_error)]),
    "fv_engine_record": (c_bool, [c_void_p, c_size_t, POINTER(c_char_p), POINTER(c_char_p)]),
    "fv_engine_tensor": (c_bool, [c_void_p, c_size_t, POINTER(fv_tensor_info)]),
    "fv_engine_token_text": (c_void_p, [c_void_p, c_int32, POINTER(c_size_t)]),
    "fv_engine_tokenize": (c_int, [c_void_p, c_char_p, c_size_t, c_bool, POINTER(c_int32), c_size_t, POINTER(c_size_t), POINTER(fv_error)]),
    "fv_features_free": (None, [c_void_p]),
    "fv_features_new": (c_int, [c_void_p, POINTER(c_float), c_size_t, c_size_t, POINTER(c_void_p), POINTER(fv_error)]),
    "fv_features_ref": (c_void_p, [c_void_p]),
    "fv_features_rows": (c_void_p, [c_void_p, POINTER(c_size_t), POINTER(c_size_t)]),
    "fv_image_format": (c_char_p, [c_void_p]),
    "fv_image_format_check": (c_int, [c_size_t, POINTER(c_char_p), POINTER(fv_error)]),
    "fv_image_free": (None, [c_void_p]),
    "fv_image_height": (c_int, [c_void_p]),
    "fv_image_open": (c_int, [POINTER(c_void_p), c_char_p, POINTER(fv_image_options), POINTER(fv_error)]),
    "fv_image_read": (c_int, [POINTER(c_void_p), c_void_p, c_size_t, POINTER(fv_image_options), POINTER(fv_error)]),
    "fv_image_rgb": (c_void_p, [c_void_p]),
    "fv_image_width": (c_int, [c_void_p]),
    "fv_image_wrap": (c_int, [POINTER(c_void_p), POINTER(fv_pixels), POINTER(fv_error)]),
    "fv_precision_name": (c_char_p, [c_int]),
    "fv_precision_parse": (c_bool, [c_char_p, POINTER(c_int)]),
    "fv_session_add_answer": (c_int, [c_void_p, c_char_p, c_size_t, POINTER(fv_error)]),
    "fv_session_add_features": (c_int, [c_void_p, c_void_p, POINTER(fv_error)]),
    "fv_session_add_image": (c_int, [c_void_p, c_void_p, POINTER(fv_encode_options), POINTER(fv_error)]),
    "fv_session_add_text": (c_int, [c_void_p, c_char_p, c_size_t, POINTER(fv_error)]),
    "fv_session_add_tokens": (c_int, [c_void_p, POINTER(c_int32), c_size_t, POINTER(fv_error)]),
    "fv_session_begin": (c_int, [c_void_p, POINTER(fv_answer_options), POINTER(fv_error)]),
    "fv_session_copy": (c_int, [POINTER(c_void_p), c_void_p, POINTER(fv_error)]),
    "fv_session_force": (c_int, [c_void_p, c_int32, POINTER(fv_error)]),
    "fv_session_free": (None, [c_void_p]),
    "fv_session_load": (c_int, [c_void_p, c_void_p, c_size_t, POINTER(fv_error)]),
    "fv_session_logits": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "fv_session_memory": (c_int, [c_void_p, POINTER(fv_memory), POINTER(fv_error)]),
    "fv_session_new": (c_int, [POINTER(c_void_p), c_void_p, POINTER(fv_session_options), POINTER(fv_error)]),
    "fv_session_next": (c_int, [c_void_p, POINTER(fv_piece), POINTER(fv_error)]),
    "fv_session_position": (c_size_t, [c_void_p]),
    "fv_session_reset": (None, [c_void_p]),
    "fv_session_rewind": (c_int, [c_void_p, c_size_t, POINTER(fv_error)]),
    "fv_session_save": (c_int, [c_void_p, fv_write_fn, c_void_p, POINTER(fv_error)]),
    "fv_session_score": (c_int, [c_void_p, c_char_p, c_size_t, POINTER(fv_score), POINTER(fv_error)]),
    "fv_session_stats": (None, [c_void_p, POINTER(fv_stats)]),
    "fv_sessions_next": (c_int, [POINTER(c_void_p), c_size_t, POINTER(fv_piece), POINTER(c_int), POINTER(fv_error)]),
    "fv_status_name": (c_char_p, [c_int]),
    "fv_system_info": (None, [POINTER(fv_system)]),
    "fv_threads_free": (None, [c_void_p]),
    "fv_threads_new": (c_int, [POINTER(c_void_p), POINTER(fv_threads_options), POINTER(fv_error)]),
    "fv_version": (c_char_p, []),
}
