/* qnn_abi: the binary interface of Qualcomm's QNN 2 libraries, as far as it is used here.
 *
 * A declaration of our own: the layout of the records that cross the border and the place of each
 * function in a provider's table; the names are ours. The libraries are opened at run time, none of
 * their headers is needed to build, and what a library says of itself (API version, versions of
 * records) is checked when it is opened (qnn.c, qnn_find.c, qnn_system.c).
 *
 *     QnnInterface_getProviders        -> fv_qnn_provider      libQnnHtp.so, libQnnCpu.so
 *     QnnSystemInterface_getProviders  -> fv_qnn_system        libQnnSystem.so
 *
 * Tried with core API 2.36 to 2.40 (QAIRT 2.47 to 2.51). 64 bits, little endian. */
#ifndef FV_QNN_ABI_H
#define FV_QNN_ABI_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0: success; otherwise the low 16 bits are the code. */
typedef uint64_t fv_qnn_status;
typedef void *fv_qnn_handle;
static inline unsigned fv_qnn_code(fv_qnn_status s) { return (unsigned)(s & 0xffff); }

typedef struct fv_qnn_version {
    uint32_t major, minor, patch;
} fv_qnn_version;

/* What we were written for: another major version is another interface, an older minor one lacks
 * records that we pass. */
enum { FV_QNN_API_MAJOR = 2, FV_QNN_API_MINOR = 27, FV_QNN_SYSTEM_API_MAJOR = 1 };

/* ---- tensors ---- */

/* Element types. The hexadecimal digits are the bits in decimal: 0x0416 has 16. */
enum {
    FV_QNN_I8 = 0x0008,
    FV_QNN_I16 = 0x0016,
    FV_QNN_I32 = 0x0032,
    FV_QNN_I64 = 0x0064,
    FV_QNN_U8 = 0x0108,
    FV_QNN_U16 = 0x0116,
    FV_QNN_U32 = 0x0132,
    FV_QNN_F16 = 0x0216,
    FV_QNN_F32 = 0x0232,
    FV_QNN_SQ8 = 0x0308, /* fixed point: signed, */
    FV_QNN_SQ16 = 0x0316,
    FV_QNN_SQ32 = 0x0332,
    FV_QNN_UQ8 = 0x0408, /* unsigned */
    FV_QNN_UQ16 = 0x0416,
    FV_QNN_BOOL = 0x0508
};

/* What a tensor is to its graph. */
enum {
    FV_QNN_INPUT = 0,
    FV_QNN_OUTPUT = 1,
    FV_QNN_NATIVE = 3, /* between nodes */
    FV_QNN_STATIC = 4  /* weights and parameters */
};

enum { FV_QNN_UNDEFINED = 0x7fffffff, FV_QNN_DEFINED = 1 };
enum {
    FV_QNN_SCALE_OFFSET = 0,
    FV_QNN_AXIS_SCALE_OFFSET = 1,
    FV_QNN_BITS_SCALE_OFFSET = 2, /* seen in others' binaries */
    FV_QNN_BITS_AXIS_SCALE_OFFSET = 3
};
enum { FV_QNN_RAW = 0 }; /* memory_type: buffer */

/* real = (q + offset) * scale */
typedef struct fv_qnn_encoding {
    float scale;
    int32_t offset;
} fv_qnn_encoding;

typedef struct fv_qnn_quant {
    uint32_t defined; /* FV_QNN_DEFINED or FV_QNN_UNDEFINED */
    uint32_t kind;    /* FV_QNN_SCALE_OFFSET ... or FV_QNN_UNDEFINED */
    union {
        fv_qnn_encoding one;
        struct {
            int32_t axis;
            uint32_t n;
            fv_qnn_encoding *list; /* [n] */
        } axis;
        struct {
            uint32_t n_bits;
            fv_qnn_encoding encoding;
        } bits;
        uint64_t room[4];
    };
} fv_qnn_quant;

typedef struct fv_qnn_buffer {
    void *data;
    uint32_t n_bytes;
} fv_qnn_buffer;

typedef struct fv_qnn_tensor {
    uint32_t version; /* 1; the library may report 2, which has the tail */
    uint32_t pad0;
    uint32_t id; /* the library's, written when the tensor is created */
    uint32_t pad1;
    const char *name;
    uint32_t kind;   /* FV_QNN_INPUT ... */
    uint32_t format; /* 0: flat */
    uint32_t type;
    uint32_t pad2;
    fv_qnn_quant quant;
    uint32_t rank, pad3;
    uint32_t *dims;
    uint32_t memory_type, pad4;
    union {
        fv_qnn_buffer buffer;
        fv_qnn_handle memory;
    };
    uint8_t *dynamic_dims; /* version 2 from here */
    uint32_t sparse[3];
    uint8_t produced;
} fv_qnn_tensor;

/* ---- operations ---- */

typedef struct fv_qnn_scalar {
    uint32_t type, pad;
    union {
        float f32;
        double f64;
        uint32_t u32;
        int32_t i32;
        uint8_t b8;
        uint64_t u64;
        const char *text;
    };
} fv_qnn_scalar;

enum { FV_QNN_PARAM_SCALAR = 0, FV_QNN_PARAM_TENSOR = 1 };
typedef struct fv_qnn_param {
    uint32_t kind, pad;
    const char *name;
    union {
        fv_qnn_scalar scalar;
        fv_qnn_tensor tensor;
    };
} fv_qnn_param;

#define FV_QNN_PACKAGE "qti.aisw"

typedef struct fv_qnn_op {
    uint32_t version, pad; /* 1 */
    const char *name, *package, *type;
    uint32_t n_params, pad1;
    fv_qnn_param *params;
    uint32_t n_in, pad2;
    fv_qnn_tensor *in;
    uint32_t n_out, pad3;
    fv_qnn_tensor *out;
} fv_qnn_op;

/* ---- configurations: arrays of pointers that end with NULL ---- */

enum { FV_QNN_CONFIG_CUSTOM = 0 }; /* `custom` is a record of the backend's own, below */
typedef struct fv_qnn_config {
    uint32_t option, pad;
    union {
        void *custom;
        uint64_t u64;
        const char *text;
    };
} fv_qnn_config;

/* HTP, device: which SoC. The value stands at offset 4 with headers up to API 2.30 and at offset 8
 * with libraries from 2.36 on, whose union has a member that is aligned to 8. Written at both. */
enum { FV_QNN_HTP_DEVICE_SOC = 0 };
typedef struct fv_qnn_htp_device {
    uint32_t option, soc_at_4, soc_at_8, zero[13];
} fv_qnn_htp_device;

/* HTP, graph. */
enum {
    FV_QNN_HTP_GRAPH_OPTIMIZE = 1,
    FV_QNN_HTP_GRAPH_PRECISION = 2, /* u32 1: a graph of f32 computes in f16 */
    FV_QNN_HTP_GRAPH_VTCM_MB = 3
};
enum { FV_QNN_HTP_OPTIMIZE_LEVEL = 3 };
typedef struct fv_qnn_htp_graph {
    uint32_t option, pad;
    union {
        struct {
            uint32_t kind; /* FV_QNN_HTP_OPTIMIZE_LEVEL */
            float value;
        } optimize;
        uint32_t u32;
        uint64_t room[5];
    };
} fv_qnn_htp_graph;

/* HTP, context: u32 option, then the value. Weights that graphs have in common are stored once. */
enum { FV_QNN_HTP_CONTEXT_SHARE_WEIGHTS = 1 };
typedef struct fv_qnn_htp_context {
    uint32_t option, pad;
    union {
        bool on;
        uint64_t room[5];
    };
} fv_qnn_htp_context;

/* ---- a backend's functions ---- */

enum { FV_QNN_BACKEND_CPU = 3, FV_QNN_BACKEND_HTP = 6 };

enum { FV_QNN_LOG_ERROR = 1, FV_QNN_LOG_WARN, FV_QNN_LOG_INFO, FV_QNN_LOG_VERBOSE };
typedef void fv_qnn_log_fn(const char *format, uint32_t level, uint64_t time, va_list args);

typedef struct fv_qnn_profile_event {
    uint32_t type, unit;
    uint64_t value;
    const char *name;
} fv_qnn_profile_event;

typedef void fv_qnn_unused_fn(void);

/* The functions, each in its place; places that are not used are only counted. */
typedef struct fv_qnn_api {
    fv_qnn_unused_fn *has_capability;
    fv_qnn_status (*backend_create)(fv_qnn_handle log, const fv_qnn_config **configs,
                                    fv_qnn_handle *backend);
    fv_qnn_unused_fn *unused2[2];
    fv_qnn_status (*build_id)(const char **id);
    fv_qnn_unused_fn *unused5[2];
    fv_qnn_status (*validate)(fv_qnn_handle backend, fv_qnn_op op);
    fv_qnn_status (*backend_free)(fv_qnn_handle backend);
    fv_qnn_status (*context_create)(fv_qnn_handle backend, fv_qnn_handle device,
                                    const fv_qnn_config **configs, fv_qnn_handle *context);
    fv_qnn_unused_fn *unused10;
    fv_qnn_status (*binary_size)(fv_qnn_handle context, uint64_t *n_bytes);
    fv_qnn_status (*binary)(fv_qnn_handle context, void *data, uint64_t n_bytes, uint64_t *written);
    fv_qnn_status (*context_load)(fv_qnn_handle backend, fv_qnn_handle device,
                                  const fv_qnn_config **configs, const void *data, uint64_t n_bytes,
                                  fv_qnn_handle *context, fv_qnn_handle profile);
    fv_qnn_status (*context_free)(fv_qnn_handle context, fv_qnn_handle profile);
    fv_qnn_status (*graph_create)(fv_qnn_handle context, const char *name,
                                  const fv_qnn_config **configs, fv_qnn_handle *graph);
    fv_qnn_unused_fn *unused16[2];
    fv_qnn_status (*node_add)(fv_qnn_handle graph, fv_qnn_op op);
    fv_qnn_status (*finalize)(fv_qnn_handle graph, fv_qnn_handle profile, fv_qnn_handle signal);
    fv_qnn_status (*graph_retrieve)(fv_qnn_handle context, const char *name, fv_qnn_handle *graph);
    fv_qnn_status (*execute)(fv_qnn_handle graph, const fv_qnn_tensor *in, uint32_t n_in,
                             fv_qnn_tensor *out, uint32_t n_out, fv_qnn_handle profile,
                             fv_qnn_handle signal);
    fv_qnn_unused_fn *unused22[2];
    fv_qnn_status (*tensor_create)(fv_qnn_handle graph, fv_qnn_tensor *tensor);
    fv_qnn_status (*log_create)(fv_qnn_log_fn *fn, uint32_t level, fv_qnn_handle *log);
    fv_qnn_unused_fn *unused26;
    fv_qnn_status (*log_free)(fv_qnn_handle log);
    fv_qnn_status (*profile_create)(fv_qnn_handle backend, uint32_t level, fv_qnn_handle *profile);
    fv_qnn_unused_fn *unused29;
    fv_qnn_status (*profile_events)(fv_qnn_handle profile, const uint64_t **ids, uint32_t *n);
    fv_qnn_status (*profile_sub_events)(uint64_t id, const uint64_t **ids, uint32_t *n);
    fv_qnn_status (*profile_event)(uint64_t id, fv_qnn_profile_event *event);
    fv_qnn_unused_fn *unused33;
    fv_qnn_status (*profile_free)(fv_qnn_handle profile);
    fv_qnn_unused_fn *unused35[5];
    fv_qnn_status (*device_create)(fv_qnn_handle log, const fv_qnn_config **configs,
                                   fv_qnn_handle *device);
    fv_qnn_unused_fn *unused41[2];
    fv_qnn_status (*device_free)(fv_qnn_handle device);
    fv_qnn_unused_fn *unused44[14];
} fv_qnn_api;

typedef struct fv_qnn_provider {
    uint32_t backend_id;
    const char *name; /* "HTP_QTI_AISW" */
    fv_qnn_version core, backend;
    fv_qnn_api api;
} fv_qnn_provider;

#define FV_QNN_PROVIDERS "QnnInterface_getProviders"
typedef fv_qnn_status fv_qnn_providers_fn(const fv_qnn_provider ***list, uint32_t *n);

/* ---- libQnnSystem.so: what is in a context binary ---- */

typedef struct fv_qnn_graph_info {
    uint32_t version, pad;
    const char *name;
    uint32_t n_in, pad1;
    fv_qnn_tensor *in;
    uint32_t n_out, pad2;
    fv_qnn_tensor *out;
    uint32_t n_updatable, pad3; /* version 2 */
    fv_qnn_tensor *updatable;
    uint32_t blob_bytes, pad4; /* version 3 */
    void *blob;                /* HTP: fv_qnn_htp_blob */
    uint32_t first_op, last_op;
} fv_qnn_graph_info;

typedef struct fv_qnn_htp_blob {
    uint32_t version, pad; /* 1 */
    uint64_t spill_fill_bytes;
    uint32_t vtcm; /* bytes; MB in the interface of API 2.30 */
    uint32_t optimization_level;
    uint8_t dlbc;
    uint64_t n_hvx_threads;
} fv_qnn_htp_blob;

/* May follow it. Sizes in bytes. */
typedef struct fv_qnn_htp_blob2 {
    uint32_t version, pad; /* 2 */
    uint64_t native_k, native_v;
    uint32_t io_may_overlap, pad1;
    uint64_t io, op_data, constants, ddr_tensors, shared_weights;
} fv_qnn_htp_blob2;

/* Versions 1 and 2, as libraries write them whose binaries are older; version 2 has the tail. */
typedef struct fv_qnn_binary_info2 {
    uint32_t version, pad;
    uint32_t backend_id, pad1;
    const char *build_id;
    fv_qnn_version core, backend;
    const char *soc;
    fv_qnn_version hardware, blob;
    uint32_t hardware_bytes, pad2;
    void *hardware_blob;
    uint64_t blob_bytes;
    uint32_t n_context_tensors, pad3;
    fv_qnn_tensor *context_tensors;
    uint32_t n_graphs, pad4;
    fv_qnn_graph_info *graphs;
    void *platform;
} fv_qnn_binary_info2;

/* Version 3. */
typedef struct fv_qnn_binary_info {
    uint32_t version, pad;
    uint32_t backend_id, pad1;
    const char *build_id; /* "v2.51.0.260929181845" */
    fv_qnn_version core, backend;
    const char *soc;
    fv_qnn_version blob;
    uint32_t pad2;
    uint64_t blob_bytes;
    uint32_t n_context_tensors, pad3;
    fv_qnn_tensor *context_tensors;
    uint32_t n_graphs, pad4;
    fv_qnn_graph_info *graphs;
    void *platform;
    uint32_t metadata_bytes, pad5;
    const uint32_t *metadata; /* HTP: version, architecture (79) */
    uint32_t soc_model;       /* 69 */
} fv_qnn_binary_info;

typedef struct fv_qnn_system_api {
    fv_qnn_status (*create)(fv_qnn_handle *system);
    fv_qnn_status (*binary_info)(fv_qnn_handle system, void *data, uint64_t n_bytes,
                                 const fv_qnn_binary_info **info, uint64_t *info_bytes);
    fv_qnn_unused_fn *unused2;
    fv_qnn_status (*free)(fv_qnn_handle system);
    fv_qnn_unused_fn *unused4[12];
} fv_qnn_system_api;

typedef struct fv_qnn_system {
    uint32_t backend_id;
    const char *name;
    fv_qnn_version version;
    uint32_t pad;
    fv_qnn_system_api api;
} fv_qnn_system;

#define FV_QNN_SYSTEM_PROVIDERS "QnnSystemInterface_getProviders"
typedef fv_qnn_status fv_qnn_system_providers_fn(const fv_qnn_system ***list, uint32_t *n);

/* ---- what all that must come to ---- */

#define FV_QNN_PLACE(function, n)                                          \
    _Static_assert(offsetof(fv_qnn_api, function) == (n) * sizeof(void *), \
                   #function " is function " #n)
FV_QNN_PLACE(build_id, 4);
FV_QNN_PLACE(validate, 7);
FV_QNN_PLACE(binary_size, 11);
FV_QNN_PLACE(graph_create, 15);
FV_QNN_PLACE(node_add, 18);
FV_QNN_PLACE(execute, 21);
FV_QNN_PLACE(tensor_create, 24);
FV_QNN_PLACE(log_free, 27);
FV_QNN_PLACE(profile_free, 34);
FV_QNN_PLACE(device_create, 40);
FV_QNN_PLACE(device_free, 43);
#undef FV_QNN_PLACE
_Static_assert(sizeof(fv_qnn_api) == 58 * sizeof(void *), "functions of a backend");
_Static_assert(sizeof(fv_qnn_quant) == 40, "a tensor's quantisation");
_Static_assert(sizeof(fv_qnn_tensor) == 144, "a tensor");
_Static_assert(sizeof(fv_qnn_param) == 160, "a parameter");
_Static_assert(sizeof(fv_qnn_op) == 80, "an operation");
_Static_assert(sizeof(fv_qnn_graph_info) == 88, "what is said of a graph");
_Static_assert(offsetof(fv_qnn_binary_info, soc_model) == 136, "what is said of a binary");
_Static_assert(offsetof(fv_qnn_binary_info2, platform) == 136, "what was said of a binary");
_Static_assert(sizeof(fv_qnn_htp_blob) == 40 && sizeof(fv_qnn_htp_blob2) == 72, "HTP's blobs");

#endif
