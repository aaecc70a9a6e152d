/* graph: a part of the model as a list of operations, for what turns it into something else.
 *
 *     vision_graph.c  embed_graph.c  decoder_graph.c      the architecture, described once
 *                 |  fv_graph_linear(g, x, ...), ...      a node for every step, shapes inferred
 *            fv_graph: nodes, values, inputs, outputs
 *                 |  fv_graph_lower                       calls the backend's function of each op
 *     onnx/onnx_backend.c   npu/qnn_backend.c             ONNX nodes; an NPU's
 *     graph/graph_run.c   ...                             f32 results
 *
 * Nothing here says how an operation is done: whether maps are NCHW or NHWC, whether attention or
 * a norm is one node or ten, how int8 weights are expressed and where a constant is folded is the
 * backend's business. Nodes point at the model's weights, which are borrowed and outlive the
 * graph. A node lists what it reads and a value what reads it, so a backend may look ahead: a
 * layer whose only reader is a GELU, a product with a constant that fits into weights.
 *
 * docs/graph.md has the operations as a table and how to write a backend. */
#ifndef FV_GRAPH_H
#define FV_GRAPH_H

#include "base/region.h"
#include "base/types.h"
#include "model/config.h"
#include "model/weights.h"

/* ---- values ---- */

/* A dimension: a number, or a name when it varies from call to call. */
typedef struct fv_dim {
    int64_t n;
    const char *name;
} fv_dim;
#define FV_DIM(number) ((fv_dim){ (int64_t)(number), NULL })
#define FV_FREE(text)  ((fv_dim){ 0, text })

enum { FV_GRAPH_DIMS = 4, FV_GRAPH_INPUTS = 4 };

/* What the dimensions of a value mean. A backend that keeps maps channels-first reorders them. */
typedef enum fv_form {
    FV_FORM_MAP,   /* [batch, height, width, channels] */
    FV_FORM_ROWS,  /* [batch, rows, channels] */
    FV_FORM_HEADS, /* [batch, heads, rows, width]; transposed: [batch, heads, width, rows] */
    FV_FORM_OTHER  /* ids, masks, constants: as listed */
} fv_form;

struct fv_node;

/* What a node computes. */
typedef struct fv_value {
    /* Unique in the graph. A layer's result has the name of its weights in a packed file, a stage
     * the name that a dump gives it. */
    const char *name;
    const char *alias;  /* a stage that ends here, too, as a second name; or NULL */
    const char *output; /* the name as an output of the graph; NULL: it is none */
    bool stage;         /* the name is a stage's */
    size_t index;       /* among the graph's values: a backend's own table is indexed with it */
    fv_form form;
    fv_type type; /* F32, F16 or I64 */
    int n_dims;
    fv_dim dim[FV_GRAPH_DIMS];
    const struct fv_node *from;
    const struct fv_node *last_use; /* NULL: nothing reads it */
    size_t n_uses;
} fv_value;

/* ---- nodes ---- */

typedef enum fv_op {
    /* where values come from */
    FV_OP_INPUT,
    FV_OP_CONSTANT, /* a scalar, or a vector [n] */
    FV_OP_GATHER,   /* ids [batch, n] -> rows of a table [batch, n, channels] */
    FV_OP_CAST,     /* to the type of the result */
    /* layers */
    FV_OP_CONV,      /* dense, of an RGB map: the stem */
    FV_OP_DEPTHWISE, /* output o reads channel o / mult; padding kernel / 2 */
    FV_OP_LINEAR, /* along the channels of a map or of rows; then times scale where there is one */
    FV_OP_CHANNEL_NORM, /* LayerNorm over the channels of each pixel */
    FV_OP_RMS_NORM,     /* over the channels of each row */
    /* element by element */
    FV_OP_GELU, /* exact: 0.5 x (1 + erf(x / sqrt 2)) */
    FV_OP_RELU,
    FV_OP_SIGMOID,
    FV_OP_SILU, /* x sigmoid(x) */
    FV_OP_COS,
    FV_OP_SIN,
    FV_OP_ADD,  /* equal shapes; or the second is [n] over the last dimension */
    FV_OP_MUL,  /* and also a scalar, or a map of one pixel over all of them */
    FV_OP_MEAN, /* over the pixels of a map: [batch, 1, 1, channels] */
    /* attention */
    FV_OP_SELF_ATTENTION, /* a map of q | k | v -> softmax(q k^T / sqrt d) v, heads of d channels */
    FV_OP_ANGLE,          /* positions [batch, n] -> f32 [batch, 1, n, d], d / 2 angles, twice */
    FV_OP_ROPE,           /* x, cos, sin: x cos + rotate_half(x) sin */
    FV_OP_MASK, /* attention_mask -> 0 where a row may look, very small elsewhere. 1 = may; rows of
                   one step see only rows before them. Also reads rows when their number is free */
    FV_OP_ATTENTION, /* q, k, v in heads, bias -> rows of softmax(q k^T + bias) v: q comes scaled.
                        heads / kv heads queries share a key. Without bias row i sees keys 0 .. i */
    /* data that only moves: the result has its input's encoding */
    FV_OP_ROWS,      /* map -> rows, one a pixel */
    FV_OP_HEADS,     /* rows [batch, n, heads d] -> [batch, heads, n, d] */
    FV_OP_TRANSPOSE, /* the last two dimensions change places */
    FV_OP_CONCAT,    /* two values along an axis */
    FV_OP_SLICE,     /* [begin, end) of an axis */
    FV_OP_TAIL,      /* rows, n -> the last n rows, all when n is 0 */
    FV_OP_COUNT
} fv_op;

const char *fv_op_name(fv_op op); /* "self_attention" */
static inline bool fv_op_moves(fv_op op) { return op >= FV_OP_ROWS && op < FV_OP_COUNT; }

/* One operation. What an operation has beside its inputs is in the union's member of its name. */
typedef struct fv_node {
    fv_op op;
    const char *scope; /* the part of the model, as weights are called: "network.2.3", "layers.0" */
    const char
        *layer; /* of its weights, behind the scope: "convffn.fc1", "" or NULL (no weights) */
    size_t n_in;
    fv_value *in[FV_GRAPH_INPUTS];
    fv_value *out;
    union {
        struct {
            const float *data; /* [n], or NULL: the scalar x */
            double x;
        } constant;
        struct {
            const fv_mat *table;
            int last_id; /* larger ids read this row; 0: there are none */
        } gather;
        struct {
            const fv_mat *w; /* [channels, 27] over (y, x, rgb): 3x3, stride 2, padding 1 */
        } conv;
        struct {
            const fv_dw *w;
            unsigned stride;
        } depthwise;
        struct {
            const fv_mat *w;
            const float *scale; /* [n] layer scale of result and bias, or NULL */
        } linear;
        struct {
            const float *weight, *bias; /* [channels]; bias NULL for an RMS norm */
            double eps;
        } norm;
        struct {
            size_t width; /* of a head */
            /* Inside: scores before softmax and weights after it, [batch, heads, rows, rows].
             * Nothing reads them; a backend that has attention in one piece need not make them. */
            fv_value *scores, *weights;
        } self_attention;
        struct {
            const float *frequency; /* [d / 2] */
        } angle;
        struct {
            int step_len, cache_len; /* rows of a step; of the cache in front. 0: both free */
        } mask;
        struct {
            bool transposed;            /* k is [batch, heads, width, rows] */
            fv_value *scores, *weights; /* as above, [batch, heads, rows, keys]; NULL: free rows */
        } attention;
        struct {
            int axis;
            int64_t begin, end;
        } slice;
        struct {
            int axis;
        } concat;
    };
} fv_node;

/* The fv_mat or fv_dw of a layer; NULL for other nodes. What calibration calls a site. */
const void *fv_node_weight(const fv_node *node);

/* ---- a graph ---- */

typedef struct fv_graph {
    const char *name;
    fv_node **node; /* in order: what a node reads comes before it */
    size_t n_nodes;
    fv_value **value;
    size_t n_values;
    fv_value **input, **output; /* the signature, in its order; names: value->name, value->output */
    size_t n_inputs, n_outputs;

    /* of the description at work */
    const char *part, *scope;
    size_t node_room, value_room, input_room, output_room;
    fv_region region;
    fv_status status;
    fv_error *err;
} fv_graph;

/* err is filled by a failing call of any function until fv_graph_end. After a failure they return
 * NULL and take NULL, so that a description reads as a list of its steps; fv_graph_status tells. */
void fv_graph_begin(fv_graph *g, const char *name, fv_error *err);
void fv_graph_end(fv_graph *g);
static inline fv_status fv_graph_status(const fv_graph *g) { return g->status; }

/* Zeroed memory that lives as long as the graph; NULL when out. */
void *fv_graph_take(fv_graph *g, size_t count, size_t size);

const fv_value *fv_graph_find(const fv_graph *g, const char *name); /* or alias; NULL: none */

/* Numbers of a value, 0 when a dimension is free: the product of all dimensions; the last one; all
 * but the last. */
size_t fv_value_elems(const fv_value *v);
size_t fv_value_cols(const fv_value *v);
size_t fv_value_rows(const fv_value *v);

/* ---- building one ---- */

/* Where the next nodes are. Results are called PART.SCOPE.LAYER or as their input, ".gelu" and the
 * like behind it. part "": none. */
void fv_graph_scope(fv_graph *g, const char *part, const char *format, ...) FV_PRINTF(3, 4);
/* The name of a stage for a value. A value that has one already keeps it and gets an alias. */
void fv_graph_stage(fv_graph *g, fv_value *v, const char *format, ...) FV_PRINTF(3, 4);

fv_value *fv_graph_input(fv_graph *g, const char *name, fv_type type, fv_form form,
                         const fv_dim *dims, int n_dims);
void fv_graph_output(fv_graph *g, fv_value *v, const char *format, ...) FV_PRINTF(3, 4);

fv_value *fv_graph_scalar(fv_graph *g, fv_type type, const char *name, double x);
fv_value *fv_graph_vector(fv_graph *g, fv_type type, const char *layer, const float *data,
                          size_t n);
fv_value *fv_graph_gather(fv_graph *g, fv_value *ids, fv_type type, const char *layer,
                          const fv_mat *table, int last_id);
fv_value *fv_graph_cast(fv_graph *g, fv_value *x, fv_type type); /* x itself when it has the type */

fv_value *fv_graph_conv(fv_graph *g, fv_value *x, const char *layer, const fv_mat *w);
fv_value *fv_graph_depthwise(fv_graph *g, fv_value *x, const char *layer, const fv_dw *w,
                             unsigned stride);
fv_value *fv_graph_linear(fv_graph *g, fv_value *x, const char *layer, const fv_mat *w,
                          const float *scale);
fv_value *fv_graph_norm(fv_graph *g, fv_op op, fv_value *x, const char *layer, const float *weight,
                        const float *bias, double eps);

fv_value *fv_graph_unary(fv_graph *g, fv_op op, fv_value *x);
fv_value *fv_graph_add(fv_graph *g, fv_value *a, fv_value *b, const char *name);
fv_value *fv_graph_mul(fv_graph *g, fv_value *a, fv_value *b, const char *name);
fv_value *fv_graph_mean(fv_graph *g, fv_value *x);

fv_value *fv_graph_self_attention(fv_graph *g, fv_value *qkv, const char *name, size_t width);
fv_value *fv_graph_angle(fv_graph *g, fv_value *positions, const float *frequency, size_t half);
fv_value *fv_graph_rope(fv_graph *g, fv_value *x, fv_value *cos, fv_value *sin);
/* mask [batch, total] or [batch, 1, 1, total]. step_len 0: rows says how many there are. */
fv_value *fv_graph_mask(fv_graph *g, fv_value *mask, fv_value *rows, fv_type type, int step_len,
                        int cache_len);
fv_value *fv_graph_attention(fv_graph *g, fv_value *q, fv_value *k, fv_value *v, fv_value *bias,
                             const char *name, bool transposed);

fv_value *fv_graph_rows(fv_graph *g, fv_value *map);
fv_value *fv_graph_heads(fv_graph *g, fv_value *x, size_t heads);
fv_value *fv_graph_transpose(fv_graph *g, fv_value *x);
/* length: of the result along the axis */
fv_value *fv_graph_concat(fv_graph *g, fv_value *a, fv_value *b, int axis, fv_dim length);
fv_value *fv_graph_slice(fv_graph *g, fv_value *x, int axis, int64_t begin, int64_t end);
fv_value *fv_graph_tail(fv_graph *g, fv_value *x, fv_value *n, const char *length);

/* ---- the model's parts ---- */

/* How a decoder's keys and values get from call to call. Keys are kept after RoPE.
 *
 *     none     there are none: a whole sequence, every row sees those before it
 *     fixed    past [kv, C, D], present = the last C of past and new: the newest in slot C - 1,
 *              unused slots at the left, zero and masked
 *     host     keys past [kv, D, C], values [kv, C, D]; present holds the new entries only, and the
 *              host writes them where the mask says
 *     growing  past [kv, P, D] -> present [kv, P + N, D], all rows free */
typedef enum fv_cache_kind {
    FV_CACHE_NONE,
    FV_CACHE_FIXED,
    FV_CACHE_HOST,
    FV_CACHE_GROWING
} fv_cache_kind;

typedef struct fv_graph_spec {
    fv_type real;    /* of activations: F32 or F16 */
    fv_type io;      /* of features, embeddings and logits; a cache has `real` */
    bool free_batch; /* batch and rows have names in place of numbers */
    int image_size;
    int seq_len; /* ids of the embedder */
    fv_cache_kind cache;
    int step_len, cache_len; /* rows of a call; rows of the cache */
    bool cache_only; /* FV_CACHE_HOST: new keys and values alone, no logits, and nothing of the last
                        layer but its own */
    bool sink; /* ids from n_tokens on get no chance, nor does image_token: logits far below */
    int n_tokens,
        image_token; /* image_token 0: none; past the vocabulary it may be among the ids */
} fv_graph_spec;

/* pixel_values [1, S, S, 3] -> image_features [1, T, d_model]: the encoder and the projector. */
void fv_graph_vision(fv_graph *g, const fv_config *c, const fv_vision_weights *w,
                     const fv_graph_spec *s);
/* input_ids [1, seq_len] -> inputs_embeds [1, seq_len, d_model]. */
void fv_graph_embed(fv_graph *g, const fv_config *c, const fv_decoder_weights *w,
                    const fv_graph_spec *s);
/* inputs_embeds [1, N, d_model], attention_mask, position_ids, past_key_values.I.key, .value
 * -> logits [1, N, n_vocab], present.I.key, .value. docs/onnx.md has the signatures. */
void fv_graph_decoder(fv_graph *g, const fv_config *c, const fv_decoder_weights *w,
                      const fv_graph_spec *s);

/* Weights as shapes without values: enough to build a graph for its signature or its sizes.
 * fv_weights_free frees them. */
fv_status fv_graph_outline(fv_weights *w, const fv_config *c, fv_error *err);

/* ---- weights as numbers, of whatever type (graph_widen.c) ---- */

/* Rows first to first + n: f32 [n, w->k], and bias [n], 0 where there is none; bias may be NULL. Of
 * int8 the values that it stands for: y = mul (bias8 + sum w8 (x inv + zero)). */
void fv_graph_mat_rows(const fv_kernels *k, const fv_mat *w, size_t first, size_t n, float *rows,
                       float *bias);
/* The taps of a depthwise convolution: f32 [kernel * kernel, channels * mult]. */
void fv_graph_dw_taps(const fv_dw *w, float *taps);

/* ---- backends ---- */

typedef fv_status fv_lower_fn(void *user, const fv_node *node);

typedef struct fv_backend {
    const char *name;             /* for messages */
    fv_lower_fn *before;          /* called first for every node; may be NULL */
    fv_lower_fn *op[FV_OP_COUNT]; /* NULL: cannot; several operations may share a function */
    fv_lower_fn *after;           /* called last for every node; may be NULL */
} fv_backend;

/* Every node in order, until one fails. FV_ERR_UNSUPPORTED by name where the backend cannot. */
fv_status fv_graph_lower(const fv_graph *g, const fv_backend *b, void *user, fv_error *err);

#endif
