/* Channels evened out across pairs of layers. See npu_equalize.h. */
#include "npu/npu_equalize.h"

#include <math.h>
#include <string.h>

typedef struct equalizer {
    fv_npu_even *even;
    const fv_weights *from;
    const fv_config *c;
    const fv_ranges *ranges;
    const fv_kernels *k;
    fv_error *err;
} equalizer;

static fv_status even_take(equalizer *e, float **out, size_t n)
{
    *out = fv_region_take(&e->even->memory, n, sizeof **out);
    return *out ? FV_OK : fv_fail_memory(e->err, n * sizeof **out, "evened weights");
}

/* m as f32 of our own, with a bias. */
static fv_status mat_own(equalizer *e, fv_mat *m)
{
    float *w, *bias;
    FV_TRY(even_take(e, &w, m->n * m->k));
    FV_TRY(even_take(e, &bias, m->n));
    fv_graph_mat_rows(e->k, m, 0, m->n, w, bias);
    *m = (fv_mat){ .data = w, .type = FV_TYPE_F32, .n = m->n, .k = m->k, .bias = bias };
    return FV_OK;
}

static fv_status dw_own(equalizer *e, fv_dw *d)
{
    size_t n = d->channels * d->mult;
    float *w, *bias;
    FV_TRY(even_take(e, &w, (size_t)d->kernel * d->kernel * n));
    FV_TRY(even_take(e, &bias, n));
    fv_graph_dw_taps(d, w);
    memcpy(bias, d->bias, n * sizeof *bias);
    *d = (fv_dw){
        .w = w, .bias = bias, .channels = d->channels, .mult = d->mult, .kernel = d->kernel
    };
    return FV_OK;
}

/* Of a number of our own that the struct calls const. */
static float *own(const float *x) { return (float *)(uintptr_t)x; }

/* How far values of a channel reach. */
static float range_reach(const fv_value_range *r, size_t c)
{
    return fmaxf(-r->low[c], r->high[c]);
}

/* What each of the n channels is divided by: the root of what its values reach over what its
 * weights do, so that both end up equally even. Not by more than 64: an
 * empty channel must not blow up its weights. */
static fv_status channel_scales(equalizer *e, float *scale, const fv_value_range *r, size_t first,
                                size_t n, const fv_mat *reader)
{
    double mean = 0;
    if (!r || !r->n)
        return fv_fail(e->err, FV_ERR_STATE, 0, "a layer's input was not seen in calibration");
    for (size_t i = 0; i < n; i++) {
        float reach = fmaxf(range_reach(r, first + i), 1e-6f), most = 1e-6f;
        for (size_t o = 0; o < reader->n; o++)
            most = fmaxf(most, fabsf(((const float *)reader->data)[o * reader->k + i]));
        scale[i] = sqrtf(reach / most);
        mean += log((double)scale[i]) / (double)n;
    }
    for (size_t i = 0; i < n; i++)
        scale[i] = fminf(64, fmaxf(1.0f / 64, scale[i] / (float)exp(mean)));
    return FV_OK;
}

static void columns_multiply(const fv_mat *m, const float *scale)
{
    for (size_t o = 0; o < m->n; o++)
        for (size_t i = 0; i < m->k; i++)
            own(m->data)[o * m->k + i] *= scale[i];
}

static fv_status ffn_even(equalizer *e, fv_ffn *f, const fv_ffn *from)
{
    size_t n = f->dw.channels, taps = (size_t)f->dw.kernel * f->dw.kernel;
    float *scale;
    FV_TRY(even_take(e, &scale, n));
    FV_TRY(dw_own(e, &f->dw));
    FV_TRY(mat_own(e, &f->fc1));
    FV_TRY(channel_scales(e, scale, fv_ranges_of_weight(e->ranges, &from->fc1), 0, n, &f->fc1));
    for (size_t i = 0; i < taps * n; i++)
        own(f->dw.w)[i] /= scale[i % n];
    for (size_t i = 0; i < n; i++)
        own(f->dw.bias)[i] /= scale[i];
    columns_multiply(&f->fc1, scale);
    return FV_OK;
}

static fv_status attention_even(equalizer *e, fv_vision_block *b, const fv_vision_block *from)
{
    size_t n = b->proj.k;
    float *scale, *w, *bias;
    FV_TRY(even_take(e, &scale, n));
    FV_TRY(even_take(e, &w, n));
    FV_TRY(even_take(e, &bias, n));
    FV_TRY(mat_own(e, &b->qkv));
    FV_TRY(mat_own(e, &b->proj));
    FV_TRY(channel_scales(e, scale, fv_ranges_of_weight(e->ranges, &from->qkv), 0, n, &b->qkv));
    for (size_t i = 0; i < n; i++) {
        w[i] = b->norm_w[i] / scale[i];
        bias[i] = b->norm_b[i] / scale[i];
    }
    b->norm_w = w;
    b->norm_b = bias;
    columns_multiply(&b->qkv, scale);
    FV_TRY(channel_scales(e, scale, fv_ranges_of_weight(e->ranges, &from->proj), 0, n, &b->proj));
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < n; c++)
            own(b->qkv.data)[(2 * n + i) * n + c] /= scale[i];
        own(b->qkv.bias)[2 * n + i] /= scale[i];
    }
    columns_multiply(&b->proj, scale);
    return FV_OK;
}

/* ---- the stream of a stage --------------------------------------------------------------- */

static void taps_multiply(const fv_dw *d, const float *scale)
{
    size_t n = d->channels * d->mult;
    for (size_t i = 0; i < (size_t)d->kernel * d->kernel * n; i++)
        own(d->w)[i] *= scale[i % n / d->mult];
}

static void vector_divide(const float *x, const float *scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        own(x)[i] /= scale[i];
}

/* What reads the stage's last sum. */
static fv_dw *stream_reader(equalizer *e, int s)
{
    fv_vision_weights *v = &e->even->w.vision;
    return s + 1 == e->c->n_stages ? &v->expand : &v->stage[s].down_dw;
}

/* What the channels of a block's stream reach: halfway between its sum, which convolutions read in
 * 8 bits, and what fc2 adds to it, whose errors every sum behind it keeps. */
static fv_status stream_reach(equalizer *e, const fv_ffn *from, float *reach, size_t n)
{
    const fv_value_range *sum = fv_ranges_of_weight(e->ranges, &from->dw),
                         *added = fv_ranges_of_result(e->ranges, &from->fc2);
    double mean = 0;
    if (!sum || !added || !sum->n || !added->n)
        return fv_fail(e->err, FV_ERR_STATE, 0, "an FFN was not seen in calibration");
    for (size_t c = 0; c < n; c++) {
        reach[c] = fmaxf(sqrtf(range_reach(sum, c) * range_reach(added, c)), 1e-6f);
        mean += log((double)reach[c]) / (double)n;
    }
    for (size_t c = 0; c < n; c++)
        reach[c] = fminf(64, fmaxf(1.0f / 64, reach[c] / (float)exp(mean)));
    return FV_OK;
}

/* Between blocks of RepMixer everything works channel by channel, so that each block's stream can
 * be evened, from its 3x3 to the next one's, or to the convolution behind the last sum. It costs
 * the weights nothing: they have a scale for each channel, and each row of fc2. */
static fv_status stream_even(equalizer *e, int s)
{
    fv_vision_stage_weights *stage = &e->even->w.vision.stage[s];
    fv_dw *reader = stream_reader(e, s);
    size_t n = stage->block[0].mixer.channels;
    const float *before = NULL; /* of the block in front */
    for (int i = 0; i < e->c->stage[s].depth; i++) {
        fv_vision_block *b = &stage->block[i];
        float *scale;
        FV_TRY(even_take(e, &scale, n));
        FV_TRY(stream_reach(e, &e->from->vision.stage[s].block[i].ffn, scale, n));
        FV_TRY(dw_own(e, &b->mixer));
        FV_TRY(mat_own(e, &b->ffn.fc2));
        if (before)
            taps_multiply(&b->mixer, before);
        for (size_t t = 0; t < (size_t)b->mixer.kernel * b->mixer.kernel; t++)
            vector_divide(b->mixer.w + t * n, scale, n);
        vector_divide(b->mixer.bias, scale, n);
        taps_multiply(&b->ffn.dw, scale);
        for (size_t c = 0; c < n; c++)
            for (size_t k = 0; k < b->ffn.fc2.k; k++)
                own(b->ffn.fc2.data)[c * b->ffn.fc2.k + k] /= scale[c];
        vector_divide(b->ffn.fc2.bias, scale, n);
        before = scale;
    }
    FV_TRY(dw_own(e, reader));
    taps_multiply(reader, before);
    return FV_OK;
}

static fv_status stages_even(equalizer *e)
{
    for (int s = 0; s < e->c->n_stages; s++) {
        for (int i = 0; i < e->c->stage[s].depth; i++) {
            fv_vision_block *b = &e->even->w.vision.stage[s].block[i];
            const fv_vision_block *from = &e->from->vision.stage[s].block[i];
            FV_TRY(ffn_even(e, &b->ffn, &from->ffn));
            if (e->c->stage[s].attention)
                FV_TRY(attention_even(e, b, from));
        }
        if (!e->c->stage[s].attention && e->c->stage[s].depth)
            FV_TRY(stream_even(e, s));
    }
    return FV_OK;
}

fv_status fv_npu_equalize(fv_npu_even *out, const fv_weights *w, const fv_config *c,
                          const fv_ranges *ranges, const fv_kernels *k, fv_error *err)
{
    equalizer e = { out, w, c, ranges, k, err };
    *out = (fv_npu_even){ 0 };
    FV_TRY(fv_weights_share_vision(&out->w, w, c, err));
    fv_status status = stages_even(&e);
    if (status != FV_OK)
        fv_npu_even_free(out);
    return status;
}

void fv_npu_even_free(fv_npu_even *e)
{
    fv_weights_free(&e->w);
    fv_region_free(&e->memory);
    *e = (fv_npu_even){ 0 };
}
