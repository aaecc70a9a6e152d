/* pixels f32 [S, S, 3] -> features f32 [T, n_features]: the FastViTHD encoder, in the order in
 * which it runs. docs/model.md, section 3; "row" below is a row of its table (3.1), shapes are
 * those of S = 1024 in the 0.5B model.
 *
 *     pixels    [1024, 1024, 3]
 *     stem      rows 1-3    -> [256, 256, 96]
 *     stage 0   row 4       2 RepMixer blocks
 *     down      rows 5-6    -> [128, 128, 192]
 *     stage 1   row 7       12 RepMixer blocks
 *     down      rows 8-9    -> [64, 64, 384]
 *     stage 2   row 10      24 RepMixer blocks
 *     down      rows 11-12  -> [32, 32, 768]
 *     stage 3   rows 13-14  positional convolution, 4 attention blocks
 *     down      rows 15-16  -> [16, 16, 1536]
 *     stage 4   rows 17-18  positional convolution, 2 attention blocks
 *     expand    row 19      -> features [256, 3072]
 *
 * Maps are channels-last, [height * width, channels], and stay f32 between blocks, whatever the
 * precision: blocks add to them. v->map[0] holds the current map, v->map[1] what comes of it. Which
 * layers are in int8 is the weights' business; the operations see to it (ops.h). */
#include "nn/vision.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Output rows of the stem that a task makes: its band of the first map, 9 rows of 512 pixels of 96
 * channels, is 1.8 MB; more rows would save little of the row that neighbours both make. */
enum { BAND = 4 };

/* ---- sizes ------------------------------------------------------------------------------- */

/* What the steps want of memory: elements of the maps, scratch of the operations. */
typedef struct vision_sizes {
    size_t map, map8; /* elements of v->map[i], bytes of v->map8 */
    fv_ops_need need;
} vision_sizes;

static size_t stem_panel_elems(const fv_gemm_kernel *g, size_t n, size_t k)
{
    return fv_packed_elems(g, n, k) + 15; /* to a multiple of 16 */
}

/* A worker's band of the first map, its taps, a row of the second map; both matrices packed. */
static fv_ops_need stem_need(const fv_kernels *k, size_t size, size_t c)
{
    size_t band = (2 * BAND + 1) * size / 2 * c, taps = size / 2 * 27, line = size / 4 * c,
           panels = stem_panel_elems(&k->gemm_f32, c, 27) + stem_panel_elems(&k->gemm_f32, c, c);
    return (fv_ops_need){ (band + taps + line) * sizeof(float) + 4 * 64, panels * sizeof(float) };
}

static vision_sizes vision_measure(const fv_vision *v, const fv_ops *ops)
{
    const fv_config *c = v->c;
    vision_sizes z = { 0 };
    for (fv_vision_step s = { 0 }; fv_vision_walk(c, &s);) {
        const fv_vision_stage_weights *stage = &v->w->stage[s.stage];
        const fv_vision_block *b = stage->block + s.block;
        size_t side = (size_t)v->image_size / s.reduction, n = side * side,
               ch = (size_t)c->stage[s.stage].width;
        fv_map_shape shape = { side, side };
        size_t map = n * ch, map8 = 0;
        fv_ops_need need = { 0 };
        switch (s.kind) {
        case FV_VISION_START: break;
        case FV_VISION_STEM:
            need = stem_need(ops->k, side, ch);
            map = map / 16; /* its output, a quarter as high and wide */
            break;
        case FV_VISION_CPE: need = fv_dw_need(ops, &stage->cpe, shape); break;
        case FV_VISION_REPMIXER:
            need = fv_ffn_need(ops, &b->ffn, shape, v->operand);
            map8 = b->ffn.dw.w8 ? n * ch : 0;
            break;
        case FV_VISION_ATTENTION:
            map = 4 * n * ch; /* normed input, then q, k, v beside it */
            need = fv_ops_max(fv_layernorm_need(ch), fv_mat_need(ops, &b->qkv, n, v->operand));
            need = fv_ops_max(need, fv_mat_need(ops, &b->proj, n, v->operand));
            need = fv_ops_max(need, fv_ffn_need(ops, &b->ffn, shape, v->operand));
            break;
        case FV_VISION_DOWN:
            need = fv_ops_max(fv_dw_need(ops, &stage->down_dw, shape),
                              fv_mat_need(ops, &stage->down_pw, n / 4, v->operand));
            break;
        case FV_VISION_EXPAND: map = n * (size_t)c->n_features; break;
        case FV_VISION_PROJECTOR:
            map = n * (size_t)FV_MAX(c->n_features, c->d_model);
            need = fv_ops_max(fv_mat_need(ops, &v->w->project1, n, v->operand),
                              fv_mat_need(ops, &v->w->project2, n, v->operand));
            break;
        }
        z.map = FV_MAX(z.map, map);
        z.map8 = FV_MAX(z.map8, map8);
        z.need = fv_ops_max(z.need, need);
    }
    return z;
}

static void vision_layout(fv_vision *v, const vision_sizes *z, fv_arena *a)
{
    const fv_config *c = v->c;
    size_t t = (size_t)fv_config_image_tokens(v->image_size), f = (size_t)c->n_features;
    v->map[0] = fv_arena_take(a, z->map, sizeof(float));
    v->map[1] = fv_arena_take(a, z->map, sizeof(float));
    v->map8 = fv_arena_take(a, z->map8, 1);
    v->features = fv_arena_take(a, t * f, sizeof(float));
    v->squeeze = fv_arena_take(a, 2 * f + (size_t)c->n_squeeze, sizeof(float));
}

fv_status fv_vision_init(fv_vision *v, const fv_config *c, const fv_vision_weights *w,
                         int image_size, fv_type type, fv_ops *ops, fv_error *err)
{
    fv_arena a = { 0 };
    if (type == FV_TYPE_I8)
        type = ops->k->fast_bf16 ? FV_TYPE_BF16 : FV_TYPE_F32;
    *v = (fv_vision){ .c = c, .w = w, .image_size = image_size, .operand = type };
    const vision_sizes z = vision_measure(v, ops);
    vision_layout(v, &z, &a);
    v->memory_bytes = a.used;
    if (a.overflow || !(v->memory = fv_pages_alloc(a.used)))
        return fv_fail_memory(err, a.used, "the vision encoder's maps");
    a = (fv_arena){ .base = v->memory, .capacity = a.used };
    vision_layout(v, &z, &a);
    return fv_ops_reserve(ops, &z.need, err);
}

void fv_vision_free(fv_vision *v)
{
    fv_pages_free(v->memory, v->memory_bytes);
    *v = (fv_vision){ 0 };
}

/* ---- rows 1 to 3: the stem, in bands so that its first map never exists as a whole ------- */

/* Row 1 makes the largest map of all, [512, 512, 96]: 100 MB that would go to memory and come back.
 * A task makes the few rows of it that its rows of row 2 need, in its own scratch, and goes on to
 * row 3 with each of them; only row 3's map [256, 256, 96] is written. Neighbouring tasks both make
 * the one row between them. */
typedef struct stem_job {
    const fv_vision *v;
    const fv_ops *ops;
    const float *pixels;  /* [S, S, 3] */
    float *dst;           /* [S/4 * S/4, c] */
    const float *packed0; /* stem0's and stem2's weights; f32, the stem is 0.5 % of the work */
    const float *packed2;
    float *tap0, *tap1; /* whole maps for a dump, or NULL */
} stem_job;

/* Row 1, one row of S/2 outputs of the 3x3, stride 2 convolution: its inputs as rows of 27 taps,
 * then a product with stem0 [c, 27]. */
static void stem0_row(const stem_job *j, float *taps, float *dst, size_t y)
{
    const fv_mat *w = &j->v->w->stem0;
    size_t size = (size_t)j->v->image_size, half = size / 2;
    for (size_t x = 0; x < half; x++) {
        /* taps[x] = pixels [2y - 1 .. 2y + 1, 2x - 1 .. 2x + 1, rgb], zeros outside the image */
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
    /* dst = gelu(taps W0^T + b0)                              [S/2, c] */
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
    /* rows [first, last) of the third map need rows 2 first - 1 to 2 last - 1 of the first */
    size_t first = task * BAND, last = FV_MIN(first + BAND, quarter);
    fv_arena a = { .base = fv_ops_worker(j->ops, worker), .capacity = j->ops->worker_bytes };
    /* row 1's rows [2 BAND + 1, half, c], the inputs of one of them [half, 27], a row of row 2
     * [quarter, c] */
    float *band = fv_arena_take(&a, (2 * BAND + 1) * half * c, sizeof *band);
    float *taps = fv_arena_take(&a, half * 27, sizeof *taps);
    float *line = fv_arena_take(&a, quarter * c, sizeof *line);
    /* band row 0 is row top - 1 of the first map; at the top of the image that is padding */
    size_t top = 2 * first;
    for (size_t i = first ? 0 : 1; i < 2 * (last - first) + 1; i++) {
        stem0_row(j, taps, band + i * half * c, top + i - 1);
        if (j->tap0)
            memcpy(j->tap0 + (top + i - 1) * half * c, band + i * half * c,
                   half * c * sizeof *band);
    }
    for (size_t y = first; y < last; y++) {
        /* line = gelu(DW3x3(band) + b1), stride 2             [S/4, c] */
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
        /* map row y = gelu(line W2^T + b2)                    [S/4, c] */
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

static fv_status stem_run(fv_vision *v, const fv_ops *ops, const float *pixels,
                          const fv_watch *watch, fv_error *err)
{
    const fv_gemm_kernel *g = &ops->k->gemm_f32;
    const fv_vision_weights *w = v->w;
    size_t half = (size_t)v->image_size / 2, quarter = half / 2, c = w->stem0.n;
    float *packed0 = (float *)ops->shared,
          *packed2 = packed0 + (fv_packed_elems(g, c, 27) + 15) / 16 * 16;
    /* both matrices are small, 10 and 37 KB: packed by one thread, read by all */
    g->pack[w->stem0.type](packed0, w->stem0.data, 27, c, 27);
    g->pack[w->stem2.type](packed2, w->stem2.data, c, c, c);
    const double start = fv_op_start(ops);
    stem_job j = { v, ops, pixels, v->map[0], packed0, packed2, NULL, NULL };
    float *taps = NULL;
    if (fv_watch_taps(watch)) { /* somebody wants the first two maps as a whole */
        taps = fv_alloc(half * half * c + quarter * quarter * c, sizeof *taps);
        if (!taps)
            return fv_fail_memory(err, half * half * c * sizeof *taps, "a dump");
        j.tap0 = taps;
        j.tap1 = taps + half * half * c;
    }
    fv_pool_run(ops->pool, (quarter + BAND - 1) / BAND, stem_task, &j);
    fv_op_end(
        ops, start,
        &(fv_op_time){ .kind = "stem",
                       .site = { &w->stem0, &w->stem1, &w->stem2 },
                       .n_rows = quarter * quarter,
                       .macs = (double)(half * half * c * 27 + quarter * quarter * c * (9 + c)),
                       .bytes = (double)(c * 27 * fv_type_size(w->stem0.type) + c * 9 * 4 +
                                         c * c * fv_type_size(w->stem2.type)) });
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

/* ---- rows 4 to 18: blocks and what lies between them ------------------------------------- */

/* Map 1 becomes the current map. */
static void vision_swap(fv_vision *v)
{
    float *x = v->map[0];
    v->map[0] = v->map[1];
    v->map[1] = x;
}

/* x, the current map, + scale * FFN(x): the new one. In place a third less goes to memory and
 * back. */
static void ffn_run(fv_vision *v, const fv_ops *ops, fv_rows x, fv_map_shape shape, const fv_ffn *f)
{
    if (!fv_ffn_in_place(f))
        vision_swap(v);
    fv_ffn_run(ops, v->map[0], x, shape, f, v->operand);
}

/* rows 4, 7, 10 (3.2): x = DW3x3(x); x = x + scale * FFN(x) */
static void repmixer_block(fv_vision *v, const fv_ops *ops, const fv_vision_block *b,
                           fv_map_shape shape)
{
    /* mixed = DW3x3(x) + b; its residual is folded into the kernel (3.6). The FFN adds to its
     * input: f32 is needed even when its first layer is in int8 and reads u8.  [n, c] */
    fv_rows mixed = fv_rows_beside(&b->ffn.dw.in, v->map[1], v->map8);
    fv_dw_run(ops, mixed, fv_rows_f32(v->map[0]), shape, &b->mixer, 1, FV_ACT_NONE);
    vision_swap(v);

    /* x = mixed + scale * (W2 gelu(W1 DW7x7(mixed) + b1) + b2)                 [n, c] */
    ffn_run(v, ops, mixed, shape, &b->ffn);
}

/* rows 14, 18 (3.3): x = x + scale1 * MHSA(LN(x)); x = x + scale2 * FFN(x) */
static void attention_block(fv_vision *v, const fv_ops *ops, const fv_vision_block *b,
                            fv_map_shape shape)
{
    size_t n = shape.height * shape.width, c = b->proj.n;
    float *x = v->map[0], *qkv = v->map[1] + n * c; /* [n, c]; [n, 3c] */
    fv_rows normed = fv_rows_for(&b->qkv.in, v->map[1], v->operand),
            attended = fv_rows_for(&b->proj.in, v->map[1], v->operand); /* takes its place */

    /* normed = LN(x), over the channels of each pixel         [n, c] */
    fv_layernorm_run(ops, normed, x, b->norm_w, b->norm_b, n, c);

    /* q | k | v = normed Wqkv^T, no bias                      [n, 3c] */
    fv_linear to_qkv = { .w = &b->qkv, .y = qkv, .ldy = 3 * c, .y_type = FV_TYPE_F32 };
    fv_linear_run(ops, &to_qkv, 1, normed.data, normed.type, c, n);

    /* attended = softmax(q k^T / sqrt(32)) v, head by head; every pixel sees every pixel. Where
     * they lie is in x already (rows 13, 17).                 [n, c] */
    fv_attention_run(ops, attended, qkv, n, c, (size_t)v->c->d_head_vision, v->operand);

    /* x = x + scale1 * (attended Wproj^T + bproj)             [n, c] */
    fv_linear proj = { .w = &b->proj,
                       .y = x,
                       .ldy = c,
                       .y_type = FV_TYPE_F32,
                       .scale = b->scale,
                       .residual = x,
                       .ldr = c };
    fv_linear_run(ops, &proj, 1, attended.data, attended.type, c, n);

    /* x = x + scale2 * FFN(x); no norm in front of it: its convolution holds its BatchNorm */
    ffn_run(v, ops, fv_rows_f32(x), shape, &b->ffn);
}

/* rows 5-6, 8-9, 11-12, 15-16: DW7x7 stride 2 to twice the channels, GELU, 1x1, GELU */
static void stage_down(fv_vision *v, const fv_ops *ops, const fv_vision_stage_weights *s,
                       fv_map_shape shape)
{
    size_t n = shape.height * shape.width, c2 = s->down_pw.n;

    /* t = gelu(DW7x7(x)), stride 2, two outputs a channel     [n / 4, 2c] */
    fv_rows t = fv_rows_for(&s->down_pw.in, v->map[1], v->operand);
    fv_dw_run(ops, t, fv_rows_f32(v->map[0]), shape, &s->down_dw, 2, FV_ACT_GELU);

    /* x = gelu(t Wpw^T + bpw)                                 [n / 4, 2c] */
    fv_linear pw = {
        .w = &s->down_pw, .y = v->map[0], .ldy = c2, .y_type = FV_TYPE_F32, .act = FV_ACT_GELU
    };
    fv_linear_run(ops, &pw, 1, t.data, t.type, c2, n / 4);
}

/* rows 13, 17: where a pixel lies, added to it: DW7x7 with the sum folded into its weights */
static void position_add(fv_vision *v, const fv_ops *ops, const fv_dw *cpe, fv_map_shape shape)
{
    fv_dw_run(ops, fv_rows_f32(v->map[1]), fv_rows_f32(v->map[0]), shape, cpe, 1, FV_ACT_NONE);
    vision_swap(v);
}

/* ---- row 19 ------------------------------------------------------------------------------ */

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* row 19 (3.5): DW3x3 to twice the channels; every channel times a gate that the means of all
 * channels decide (squeeze-excite); GELU. The two matrices meet one row, their time is nothing. */
static void features_expand(fv_vision *v, const fv_ops *ops, fv_map_shape shape)
{
    const fv_vision_weights *w = v->w;
    const fv_kernels *k = ops->k;
    size_t n = shape.height * shape.width, f = w->excite.n, s = w->squeeze.n;
    float *mean = v->squeeze, *gate = mean + f, *reduced = gate + f; /* [f], [f], [s] */

    /* y = DW3x3(x), two outputs a channel                     [T, f] */
    fv_dw_run(ops, fv_rows_f32(v->map[1]), fv_rows_f32(v->map[0]), shape, &w->expand, 1,
              FV_ACT_NONE);

    const double start = fv_op_start(ops);
    /* mean = the mean of y over all pixels                    [f] */
    memset(mean, 0, f * sizeof *mean);
    k->colsum(mean, v->map[1], f, n, f);
    for (size_t i = 0; i < f; i++)
        mean[i] /= (float)n;

    /* gate = sigmoid(We relu(Ws mean + bs) + be)              [f] */
    k->gemv[w->squeeze.type](reduced, w->squeeze.data, f, mean, w->squeeze.bias, s, f);
    for (size_t i = 0; i < s; i++)
        reduced[i] = fmaxf(reduced[i], 0.0f);
    k->gemv[w->excite.type](gate, w->excite.data, s, reduced, w->excite.bias, f, s);
    for (size_t i = 0; i < f; i++)
        gate[i] = sigmoid(gate[i]);

    /* features = gelu(y * gate)                               [T, f] */
    k->scale_gelu(v->features, f, v->map[1], f, gate, n, f);
    fv_op_end(ops, start,
              &(fv_op_time){ .kind = "squeeze-excite",
                             .site = { &w->squeeze, &w->excite },
                             .n_rows = n,
                             .macs = (double)(f * (n + 2 * s)),
                             .bytes = (double)(f * s *
                                               (fv_type_size(w->squeeze.type) +
                                                fv_type_size(w->excite.type))) });
}

/* ---- all of it --------------------------------------------------------------------------- */

void fv_vision_run_step(fv_vision *v, const fv_ops *ops, const fv_vision_step *s)
{
    const fv_vision_stage_weights *w = &v->w->stage[s->stage];
    const size_t side = (size_t)v->image_size / s->reduction;
    const fv_map_shape shape = { side, side };
    switch (s->kind) {
    case FV_VISION_CPE: position_add(v, ops, &w->cpe, shape); break;
    case FV_VISION_REPMIXER: repmixer_block(v, ops, &w->block[s->block], shape); break;
    case FV_VISION_ATTENTION: attention_block(v, ops, &w->block[s->block], shape); break;
    case FV_VISION_DOWN: stage_down(v, ops, w, shape); break;
    case FV_VISION_EXPAND: features_expand(v, ops, shape); break;
    case FV_VISION_START:
    case FV_VISION_STEM:
    case FV_VISION_PROJECTOR: break; /* functions of their own */
    }
}

fv_status fv_vision_run_stem(fv_vision *v, const fv_ops *ops, const float *pixels,
                             const fv_watch *watch, fv_error *err)
{
    return stem_run(v, ops, pixels, watch, err);
}

/* The current map, [side, side, c], for who asked to see it: "vision.network.N[.BLOCK]". */
static fv_status map_tap(const fv_vision *v, const fv_watch *watch, size_t side, size_t c,
                         int network, int block, fv_error *err)
{
    char name[64];
    if (block < 0)
        snprintf(name, sizeof name, "vision.network.%d", network);
    else
        snprintf(name, sizeof name, "vision.network.%d.%d", network, block);
    return fv_watch_map(watch, name, v->map[0], side, side, c, err);
}

/* What a step has made, after it. */
static fv_status step_tap(const fv_vision *v, const fv_watch *watch, const fv_vision_step *s,
                          fv_error *err)
{
    const fv_vision_stage *stage = &v->c->stage[s->stage];
    const size_t side = (size_t)v->image_size / s->reduction, c = (size_t)stage->width,
                 f = (size_t)v->c->n_features;
    if (!fv_watch_taps(watch))
        return FV_OK;
    switch (s->kind) {
    case FV_VISION_CPE: return map_tap(v, watch, side, c, s->network, -1, err);
    case FV_VISION_REPMIXER:
    case FV_VISION_ATTENTION:
        FV_TRY(map_tap(v, watch, side, c, s->network, s->block, err));
        return s->block + 1 < stage->depth ? FV_OK
                                           : map_tap(v, watch, side, c, s->network, -1, err);
    case FV_VISION_DOWN: return map_tap(v, watch, side / 2, 2 * c, s->network, -1, err);
    case FV_VISION_EXPAND:
        FV_TRY(fv_watch_map(watch, "vision.conv_exp", v->features, side, side, f, err));
        return fv_watch_rows(watch, "vision.features", v->features, side * side, f, err);
    case FV_VISION_START:
    case FV_VISION_STEM:
    case FV_VISION_PROJECTOR: break;
    }
    return FV_OK;
}

fv_status fv_vision_run(fv_vision *v, const fv_ops *ops, const float *pixels, const fv_watch *watch,
                        fv_error *err)
{
    const fv_config *c = v->c;
    /* done of total: for progress */
    int done = 0, total = (int)fv_vision_block_count(c) + c->n_stages + 2;
    FV_TRY(fv_watch_step(watch, "vision", 0, err));
    for (fv_vision_step s = { 0 }; fv_vision_walk(c, &s);) {
        if (s.kind == FV_VISION_STEM)
            FV_TRY(stem_run(v, ops, pixels, watch, err)); /* rows 1-3, into map 0 */
        fv_vision_run_step(v, ops, &s);
        FV_TRY(step_tap(v, watch, &s, err));
        if (s.kind == FV_VISION_REPMIXER || s.kind == FV_VISION_ATTENTION ||
            s.kind == FV_VISION_DOWN)
            FV_TRY(fv_watch_step(watch, "vision", (double)++done / total, err));
    }
    return fv_watch_step(watch, "vision", 1, err);
}
