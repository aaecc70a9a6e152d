/* pixels f32 [S, S, 3] -> features f32 [T, n_features]: the FastViTHD encoder, in the order in
 * which it runs. docs/model.md, section 3; the numbers there are rows of its table.
 *
 * Maps are channels-last and stay f32 between blocks; v->map[0] and [1] take turns. */
#include "nn/vision.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LN_EPS 1e-5f

enum {
    BAND = 4, /* output rows of the stem a task makes */
    NORM_ROWS = 64
};

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

static size_t worker_bytes_of_stem(const fv_config *c, size_t size)
{
    size_t c0 = (size_t)c->stage[0].width;
    return ((2 * BAND + 1) * size / 2 * c0 + size / 2 * 27 + size / 4 * c0) * sizeof(float) +
           4 * 64;
}

static void layout(fv_vision *v, fv_arena *a)
{
    const fv_config *c = v->c;
    size_t side = (size_t)v->image_size / 4, largest = 0,
           t = (size_t)fv_config_image_tokens(v->image_size);
    for (int i = 0; i < c->n_stages; i++, side /= 2) {
        /* an attention stage keeps normed input and q, k, v beside its map */
        size_t n = side * side * (size_t)c->stage[i].width;
        largest = max_size(largest, c->stage[i].attention ? 4 * n : n);
    }
    largest = max_size(largest, t * (size_t)c->n_features);
    v->map[0] = fv_arena_take(a, largest, sizeof(float));
    v->map[1] = fv_arena_take(a, largest, sizeof(float));
    if (v->any8)
        v->map8 = fv_arena_take(a, FV_MAX(largest, t * (size_t)c->d_model), 1);
    v->features = fv_arena_take(a, t * (size_t)c->n_features, sizeof(float));
    v->squeeze = fv_arena_take(a, 2 * (size_t)c->n_features + (size_t)c->n_squeeze, sizeof(float));
}

static bool any_int8(const fv_config *c, const fv_vision_weights *w)
{
    bool any = w->project1.type == FV_TYPE_I8 || w->project2.type == FV_TYPE_I8;
    for (int i = 0; i < c->n_stages; i++) {
        any = any || w->stage[i].down_dw.w8;
        for (int j = 0; j < c->stage[i].depth; j++) {
            const fv_vision_block *b = &w->stage[i].block[j];
            any = any || b->ffn.dw.w8 ||
                  (c->stage[i].attention &&
                   (b->qkv.type == FV_TYPE_I8 || b->proj.type == FV_TYPE_I8));
        }
    }
    return any;
}

/* What the int8 layers of a stage want. */
static fv_ops_need needs8(const fv_vision *v, const fv_kernels *k, unsigned workers, int stage,
                          size_t side)
{
    const fv_vision_stage_weights *w = &v->w->stage[stage];
    const fv_vision_stage *s = &v->c->stage[stage];
    size_t n = side * side, ch = (size_t)s->width;
    fv_ops_need need = { NORM_ROWS * ch * sizeof(float), 64 };
    for (int j = 0; j < s->depth; j++)
        if (w->block[j].ffn.dw.w8)
            need = fv_ops_max(
                need, fv_ffn8_need(k, workers, &w->block[j].ffn, (fv_map_shape){ side, side }));
    if (s->attention) {
        need = fv_ops_max(need, fv_linear8_need(k, workers, 3 * ch, ch, n));
        need = fv_ops_max(need, fv_linear8_need(k, workers, ch, ch, n));
    }
    if (w->down_dw.w8) {
        need = fv_ops_max(need, fv_dw8_need(k, &w->down_dw));
        need = fv_ops_max(need, fv_linear8_need(k, workers, 2 * ch, 2 * ch, n / 4));
    }
    return need;
}

static fv_ops_need needs(const fv_vision *v, const fv_ops *ops)
{
    const fv_config *c = v->c;
    const fv_kernels *k = ops->k;
    unsigned workers = ops->n_workers;
    size_t side = (size_t)v->image_size / 4, width = (size_t)c->stage[0].width;
    fv_ops_need need = { worker_bytes_of_stem(c, (size_t)v->image_size), 0 };
    /* the stem's two matrices, packed side by side */
    need.shared_bytes = (fv_packed_elems(&k->gemm_f32, width, 27) +
                         fv_packed_elems(&k->gemm_f32, width, width) + 64) *
                        4;
    for (int i = 0; i < c->n_stages; i++, side /= 2) {
        size_t n = side * side, ch = (size_t)c->stage[i].width;
        need = fv_ops_max(need, fv_ffn_need(k, workers, ch, (size_t)c->stage[i].hidden, n, v->act));
        need = fv_ops_max(need, fv_linear_need(k, workers, 3 * ch, ch, n, v->act));
        need = fv_ops_max(need, fv_linear_need(k, workers, ch, ch, n, v->act));
        need = fv_ops_max(need, fv_linear_need(k, workers, 2 * ch, 2 * ch, n / 4, v->act));
        if (v->any8)
            need = fv_ops_max(need, needs8(v, k, workers, i, side));
    }
    size_t t = (size_t)fv_config_image_tokens(v->image_size), f = (size_t)c->n_features,
           d = (size_t)c->d_model;
    need = fv_ops_max(need, fv_linear_need(k, workers, d, f, t, v->act));
    need = fv_ops_max(need, fv_ops_max(fv_linear8_need(k, workers, d, f, t),
                                       fv_linear8_need(k, workers, d, d, t)));
    return fv_ops_max(need, fv_linear_need(k, workers, d, d, t, v->act));
}

fv_status fv_vision_init(fv_vision *v, const fv_config *c, const fv_vision_weights *w,
                         int image_size, fv_type act, fv_ops *ops, fv_error *err)
{
    if (act == FV_TYPE_I8)
        act = ops->k->fast_bf16 ? FV_TYPE_BF16 : FV_TYPE_F32;
    *v =
        (fv_vision){ .c = c, .w = w, .image_size = image_size, .any8 = any_int8(c, w), .act = act };
    fv_arena a = { 0 };
    layout(v, &a);
    v->memory_bytes = a.used;
    if (a.overflow || !(v->memory = fv_pages_alloc(a.used)))
        return fv_fail_memory(err, a.used, "the vision encoder's maps");
    a = (fv_arena){ .base = v->memory, .capacity = a.used };
    layout(v, &a);
    fv_ops_need need = needs(v, ops);
    return fv_ops_reserve(ops, &need, err);
}

void fv_vision_free(fv_vision *v)
{
    fv_pages_free(v->memory, v->memory_bytes);
    *v = (fv_vision){ 0 };
}

/* ---- rows 1 to 3: the stem, in bands so that its first map never exists as a whole ------- */

typedef struct stem_job {
    const fv_vision *v;
    const fv_ops *ops;
    const float *pixels;
    float *dst;           /* [S/4 * S/4, c] */
    const float *packed0; /* stem0's and stem2's weights; f32, the stem is 0.5 % of the work */
    const float *packed2;
    float *tap0, *tap1; /* whole maps for a dump, or NULL */
} stem_job;

/* One row of S/2 outputs of the 3x3, stride 2 convolution: rows of 27 taps, then a product. */
static void stem0_row(const stem_job *j, float *taps, float *dst, size_t y)
{
    const fv_mat *w = &j->v->w->stem0;
    size_t size = (size_t)j->v->image_size, half = size / 2;
    for (size_t x = 0; x < half; x++) {
        for (size_t dy = 0; dy < 3; dy++) {
            size_t row = 2 * y + dy, skip = x == 0; /* row - 1 and column 2x - 1 may lie outside */
            float *to = taps + x * 27 + dy * 9;
            if (row == 0) {
                memset(to, 0, 9 * sizeof *to);
                continue;
            }
            if (skip)
                memset(to, 0, 3 * sizeof *to);
            memcpy(to + 3 * skip, j->pixels + ((row - 1) * size + 2 * x + skip - 1) * 3,
                   (9 - 3 * skip) * sizeof *to);
        }
    }
    fv_gemm_args g = { .m = half,
                       .n = w->n,
                       .k = 27,
                       .a = taps,
                       .lda = 27,
                       .b = j->packed0,
                       .c = dst,
                       .ldc = w->n,
                       .c_type = FV_TYPE_F32,
                       .act = FV_ACT_GELU,
                       .bias = w->bias };
    j->ops->k->gemm_f32.run(&g);
}

static void stem_task(void *user, size_t task, unsigned worker)
{
    stem_job *j = user;
    const fv_vision_weights *w = j->v->w;
    size_t half = (size_t)j->v->image_size / 2, quarter = half / 2, c = w->stem0.n;
    size_t first = task * BAND, last = FV_MIN(first + BAND, quarter);
    fv_arena a = { .base = fv_ops_worker(j->ops, worker), .capacity = j->ops->worker_bytes };
    float *band = fv_arena_take(&a, (2 * BAND + 1) * half * c, sizeof *band);
    float *taps = fv_arena_take(&a, half * 27, sizeof *taps);
    float *line = fv_arena_take(&a, quarter * c, sizeof *line);
    size_t top = 2 * first; /* band row 0 is map row top - 1 */
    for (size_t i = first ? 0 : 1; i < 2 * (last - first) + 1; i++) {
        stem0_row(j, taps, band + i * half * c, top + i - 1);
        if (j->tap0)
            memcpy(j->tap0 + (top + i - 1) * half * c, band + i * half * c,
                   half * c * sizeof *band);
    }
    for (size_t y = first; y < last; y++) {
        fv_dwconv_args d = { .width = half,
                             .src_ld = c,
                             .channels = c,
                             .k = 3,
                             .stride = 2,
                             .mult = 1,
                             .weight = w->stem1.w,
                             .bias = w->stem1.bias,
                             .act = FV_ACT_GELU,
                             .x0 = 0,
                             .x1 = quarter,
                             .dst = line,
                             .dst_ld = c,
                             .dst_type = FV_TYPE_F32 };
        for (size_t dy = 0; dy < 3; dy++)
            if (y || dy)
                d.src[dy] = band + (2 * (y - first) + dy) * half * c;
        j->ops->k->dwconv(&d);
        if (j->tap1)
            memcpy(j->tap1 + y * quarter * c, line, quarter * c * sizeof *line);
        fv_gemm_args g = { .m = quarter,
                           .n = w->stem2.n,
                           .k = c,
                           .a = line,
                           .lda = c,
                           .b = j->packed2,
                           .c = j->dst + y * quarter * c,
                           .ldc = c,
                           .c_type = FV_TYPE_F32,
                           .act = FV_ACT_GELU,
                           .bias = w->stem2.bias };
        j->ops->k->gemm_f32.run(&g);
    }
}

static fv_status run_stem(fv_vision *v, const fv_ops *ops, const float *pixels,
                          const fv_watch *watch, fv_error *err)
{
    const fv_gemm_kernel *g = &ops->k->gemm_f32;
    const fv_vision_weights *w = v->w;
    size_t half = (size_t)v->image_size / 2, quarter = half / 2, c = w->stem0.n;
    float *packed0 = (float *)ops->shared,
          *packed2 = packed0 + (fv_packed_elems(g, c, 27) + 15) / 16 * 16;
    g->pack[w->stem0.type](packed0, w->stem0.data, 27, c, 27);
    g->pack[w->stem2.type](packed2, w->stem2.data, c, c, c);
    stem_job j = { v, ops, pixels, v->map[0], packed0, packed2, NULL, NULL };
    float *taps = NULL;
    if (fv_watch_taps(watch)) {
        taps = fv_alloc(half * half * c + quarter * quarter * c, sizeof *taps);
        if (!taps)
            return fv_fail_memory(err, half * half * c * sizeof *taps, "a dump");
        j.tap0 = taps;
        j.tap1 = taps + half * half * c;
    }
    fv_pool_run(ops->pool, (quarter + BAND - 1) / BAND, stem_task, &j);
    fv_status status = FV_OK;
    if (taps) {
        FV_TRY_GOTO(fv_watch_map(watch, "vision.stem.0", j.tap0, half, half, c, err));
        FV_TRY_GOTO(fv_watch_map(watch, "vision.stem.1", j.tap1, quarter, quarter, c, err));
        FV_TRY_GOTO(fv_watch_map(watch, "vision.stem.2", v->map[0], quarter, quarter, c, err));
    }
fail:
    fv_free(taps);
    return status;
}

/* ---- blocks ------------------------------------------------------------------------------ */

static void swap_maps(fv_vision *v)
{
    float *x = v->map[0];
    v->map[0] = v->map[1];
    v->map[1] = x;
}

/* The FFN layer by layer in f32, for one who wants to see what goes into each. */
static fv_status observed_ffn(const fv_ops *ops, float *dst, const float *src, fv_map_shape shape,
                              const fv_ffn *f, const fv_watch *watch, fv_error *err)
{
    size_t n = shape.height * shape.width, c = f->dw.channels, hidden = f->fc1.n,
           n_bytes = n * (c + hidden) * sizeof(float);
    float *t = fv_pages_alloc(n_bytes), *h = t + n * c;
    if (!t)
        return fv_fail_memory(err, n_bytes, "the maps inside an FFN");
    fv_watch_observe(watch, &f->dw, src, n, c);
    fv_dw_run(ops, t, FV_TYPE_F32, src, shape, &f->dw, 1, FV_ACT_NONE);
    fv_watch_observe(watch, &f->fc1, t, n, c);
    fv_linear up = {
        .w = &f->fc1, .y = h, .ldy = hidden, .y_type = FV_TYPE_F32, .act = FV_ACT_GELU
    };
    fv_linear_run(ops, &up, 1, t, FV_TYPE_F32, c, n);
    fv_watch_observe(watch, &f->fc2, h, n, hidden);
    fv_linear down = { .w = &f->fc2,
                       .y = dst,
                       .ldy = c,
                       .y_type = FV_TYPE_F32,
                       .scale = f->scale,
                       .residual = src,
                       .ldr = c };
    fv_linear_run(ops, &down, 1, h, FV_TYPE_F32, hidden, n);
    fv_pages_free(t, n_bytes);
    return FV_OK;
}

/* x = DW3x3(x); x = x + scale * FFN(x) */
static fv_status repmixer_block(fv_vision *v, const fv_ops *ops, const fv_vision_block *b,
                                fv_map_shape shape, const fv_watch *watch, fv_error *err)
{
    if (b->ffn.dw.w8) {
        fv_dw_u8_run(ops, v->map[1], v->map8, &b->ffn.dw.in, v->map[0], shape, &b->mixer);
        fv_ffn8_run(ops, v->map[0], v->map[1], v->map8, shape, &b->ffn);
        return FV_OK;
    }
    fv_dw_run(ops, v->map[1], FV_TYPE_F32, v->map[0], shape, &b->mixer, 1, FV_ACT_NONE);
    if (watch->observe)
        return observed_ffn(ops, v->map[0], v->map[1], shape, &b->ffn, watch, err);
    fv_ffn_run(ops, v->map[0], v->map[1], shape, &b->ffn, v->act);
    return FV_OK;
}

typedef struct norm_job {
    const fv_ops *ops;
    const fv_vision_block *b;
    uint8_t *dst;
    fv_type type; /* U8: for int8 */
    const float *src;
    size_t n, c;
} norm_job;

static void norm_task(void *user, size_t task, unsigned worker)
{
    norm_job *j = user;
    size_t row = task * NORM_ROWS, n = FV_MIN((size_t)NORM_ROWS, j->n - row);
    uint8_t *dst = j->dst + row * j->c * fv_type_size(j->type);
    bool as_u8 = j->type == FV_TYPE_U8;
    float *wide = fv_ops_worker(j->ops, worker);
    j->ops->k->layernorm(as_u8 ? (void *)wide : dst, as_u8 ? FV_TYPE_F32 : j->type, j->c,
                         j->src + row * j->c, j->c, j->b->norm_w, j->b->norm_b, n, j->c, LN_EPS);
    if (as_u8)
        j->ops->k->quantize_u8(dst, j->c, wide, j->c, j->b->qkv.in.inv, j->b->qkv.in.zero, n, j->c);
}

/* x = x + scale1 * MHSA(LN(x)); x = x + scale2 * FFN(x) */
static fv_status attention_block(fv_vision *v, const fv_ops *ops, const fv_vision_block *b,
                                 fv_map_shape shape, const fv_watch *watch, fv_error *err)
{
    size_t n = shape.height * shape.width, c = b->proj.n;
    float *x = v->map[0], *qkv = v->map[1] + n * c;
    void *normed = v->map[1]; /* and then what attention gives */
    bool qkv8 = b->qkv.type == FV_TYPE_I8, proj8 = b->proj.type == FV_TYPE_I8;
    norm_job norm = { ops, b, qkv8 ? v->map8 : normed, qkv8 ? FV_TYPE_U8 : v->act, x, n, c };
    fv_pool_run(ops->pool, (n + NORM_ROWS - 1) / NORM_ROWS, norm_task, &norm);
    if (qkv8) {
        fv_linear8 to_qkv = { .w = &b->qkv, .y = qkv, .ldy = 3 * c, .y_type = FV_TYPE_F32 };
        fv_linear8_run(ops, &to_qkv, v->map8, c, n);
    } else {
        fv_watch_observe(watch, &b->qkv, normed, n, c);
        fv_linear to_qkv = { .w = &b->qkv, .y = qkv, .ldy = 3 * c, .y_type = FV_TYPE_F32 };
        fv_linear_run(ops, &to_qkv, 1, normed, v->act, c, n);
    }
    fv_attention_run(ops, normed, proj8 ? FV_TYPE_F32 : v->act, qkv, n, c,
                     (size_t)v->c->d_head_vision);
    if (proj8) {
        fv_quantise_run(ops, v->map8, normed, n, c, &b->proj.in);
        fv_linear8 proj = { .w = &b->proj,
                            .y = x,
                            .ldy = c,
                            .y_type = FV_TYPE_F32,
                            .scale = b->scale,
                            .residual = x,
                            .ldr = c };
        fv_linear8_run(ops, &proj, v->map8, c, n);
    } else {
        fv_watch_observe(watch, &b->proj, normed, n, c);
        fv_linear proj = { .w = &b->proj,
                           .y = x,
                           .ldy = c,
                           .y_type = FV_TYPE_F32,
                           .scale = b->scale,
                           .residual = x,
                           .ldr = c };
        fv_linear_run(ops, &proj, 1, normed, v->act, c, n);
    }
    fv_status status = FV_OK;
    if (b->ffn.dw.w8) {
        fv_quantise_run(ops, v->map8, x, n, c, &b->ffn.dw.in);
        fv_ffn8_run(ops, v->map[1], x, v->map8, shape, &b->ffn);
    } else if (watch->observe) {
        status = observed_ffn(ops, v->map[1], x, shape, &b->ffn, watch, err);
    } else {
        fv_ffn_run(ops, v->map[1], x, shape, &b->ffn, v->act);
    }
    swap_maps(v);
    return status;
}

/* rows 5, 6 and the like: DW7x7 stride 2, GELU, 1x1, GELU */
static void down(fv_vision *v, const fv_ops *ops, const fv_vision_stage_weights *s,
                 fv_map_shape shape, const fv_watch *watch)
{
    size_t c2 = s->down_pw.n, n = shape.height * shape.width, c = s->down_dw.channels;
    if (s->down_dw.w8) {
        uint8_t *t = (uint8_t *)v->map[1];
        fv_quantise_run(ops, v->map8, v->map[0], n, c, &s->down_dw.in);
        fv_dw8_run(ops, t, &s->down_pw.in, v->map8, shape, &s->down_dw, 2, FV_ACT_GELU);
        fv_linear8 pw8 = {
            .w = &s->down_pw, .y = v->map[0], .ldy = c2, .y_type = FV_TYPE_F32, .act = FV_ACT_GELU
        };
        fv_linear8_run(ops, &pw8, t, c2, n / 4);
        return;
    }
    fv_watch_observe(watch, &s->down_dw, v->map[0], n, c);
    fv_dw_run(ops, v->map[1], v->act, v->map[0], shape, &s->down_dw, 2, FV_ACT_GELU);
    fv_watch_observe(watch, &s->down_pw, v->map[1], n / 4, c2);
    fv_linear pw = {
        .w = &s->down_pw, .y = v->map[0], .ldy = c2, .y_type = FV_TYPE_F32, .act = FV_ACT_GELU
    };
    fv_linear_run(ops, &pw, 1, v->map[1], v->act, c2, n / 4);
}

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* row 19: DW3x3 to twice the channels, squeeze-excite, GELU */
static void expand(fv_vision *v, const fv_ops *ops, fv_map_shape shape)
{
    const fv_vision_weights *w = v->w;
    const fv_kernels *k = ops->k;
    size_t n = shape.height * shape.width, f = w->excite.n, s = w->squeeze.n;
    float *mean = v->squeeze, *gate = mean + f, *reduced = gate + f;
    fv_dw_run(ops, v->map[1], FV_TYPE_F32, v->map[0], shape, &w->expand, 1, FV_ACT_NONE);
    memset(mean, 0, f * sizeof *mean);
    k->colsum(mean, v->map[1], f, n, f);
    for (size_t i = 0; i < f; i++)
        mean[i] /= (float)n;
    k->gemv[w->squeeze.type](reduced, w->squeeze.data, f, mean, w->squeeze.bias, s, f);
    for (size_t i = 0; i < s; i++)
        reduced[i] = fmaxf(reduced[i], 0.0f);
    k->gemv[w->excite.type](gate, w->excite.data, s, reduced, w->excite.bias, f, s);
    for (size_t i = 0; i < f; i++)
        gate[i] = sigmoid(gate[i]);
    k->scale_gelu(v->features, f, v->map[1], f, gate, n, f);
}

static fv_status tap(const fv_vision *v, const fv_watch *watch, fv_map_shape shape, size_t c,
                     int network, int block, fv_error *err)
{
    char name[64];
    if (!fv_watch_taps(watch))
        return FV_OK;
    if (block < 0)
        snprintf(name, sizeof name, "vision.network.%d", network);
    else
        snprintf(name, sizeof name, "vision.network.%d.%d", network, block);
    return fv_watch_map(watch, name, v->map[0], shape.height, shape.width, c, err);
}

fv_status fv_vision_run(fv_vision *v, const fv_ops *ops, const float *pixels, const fv_watch *watch,
                        fv_error *err)
{
    const fv_config *c = v->c;
    size_t side = (size_t)v->image_size / 4;
    fv_map_shape shape = { side, side };
    int network = 0, done = 0, total = 2;
    for (int i = 0; i < c->n_stages; i++)
        total += c->stage[i].depth + 1;
    FV_TRY(fv_watch_step(watch, "vision", 0, err));
    FV_TRY(run_stem(v, ops, pixels, watch, err));
    for (int i = 0; i < c->n_stages; i++) {
        const fv_vision_stage *s = &c->stage[i];
        const fv_vision_stage_weights *w = &v->w->stage[i];
        size_t width = (size_t)s->width;
        if (s->cpe) {
            fv_dw_run(ops, v->map[1], FV_TYPE_F32, v->map[0], shape, &w->cpe, 1, FV_ACT_NONE);
            swap_maps(v);
            FV_TRY(tap(v, watch, shape, width, network++, -1, err));
        }
        for (int b = 0; b < s->depth; b++) {
            if (s->attention)
                FV_TRY(attention_block(v, ops, &w->block[b], shape, watch, err));
            else
                FV_TRY(repmixer_block(v, ops, &w->block[b], shape, watch, err));
            FV_TRY(tap(v, watch, shape, width, network, b, err));
            FV_TRY(fv_watch_step(watch, "vision", (double)++done / total, err));
        }
        FV_TRY(tap(v, watch, shape, width, network++, -1, err));
        if (i + 1 < c->n_stages) {
            down(v, ops, w, shape, watch);
            shape = (fv_map_shape){ shape.height / 2, shape.width / 2 };
            FV_TRY(tap(v, watch, shape, 2 * width, network++, -1, err));
            FV_TRY(fv_watch_step(watch, "vision", (double)++done / total, err));
        }
    }
    expand(v, ops, shape);
    if (fv_watch_taps(watch)) {
        size_t f = (size_t)c->n_features;
        FV_TRY(
            fv_watch_map(watch, "vision.conv_exp", v->features, shape.height, shape.width, f, err));
        FV_TRY(fv_watch_rows(watch, "vision.features", v->features, shape.height * shape.width, f,
                             err));
    }
    return fv_watch_step(watch, "vision", 1, err);
}
