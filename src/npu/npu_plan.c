/* Widths and encodings of a graph's values. See npu_plan.h. */
#include "npu/npu_plan.h"

#include <math.h>
#include <string.h>

/* ---- encodings --------------------------------------------------------------------------- */

fv_qnn_encoding fv_npu_encode_range(float low, float high, unsigned most)
{
    low = fminf(low, 0);
    high = fmaxf(high, 0);
    if (!(high - low > 1e-6f))
        high = low + 1e-6f;
    float scale = (high - low) / (float)most;
    return (fv_qnn_encoding){ scale, (int32_t)rintf(low / scale) };
}

fv_qnn_encoding fv_npu_encode_middle(float reach)
{
    return (fv_qnn_encoding){ fmaxf(reach, 1e-6f) / 32767, -32768 };
}

fv_qnn_encoding fv_npu_encode_widened(fv_qnn_encoding e)
{
    return (fv_qnn_encoding){ e.scale / 257, e.offset * 257 };
}

/* ---- ranges ------------------------------------------------------------------------------ */

static double gelu(double x) { return 0.5 * x * (1 + erf(x * 0.70710678118654752)); }

/* A GELU by table: fitting ranges asks for it a million times. */
enum { GELU_END = 8, GELU_PARTS = 2048 }; /* between -GELU_END and GELU_END */

static void gelu_fill(double table[GELU_PARTS + 1])
{
    for (int i = 0; i <= GELU_PARTS; i++)
        table[i] = gelu((double)i * (2.0 * GELU_END / GELU_PARTS) - GELU_END);
}

static double gelu_near(const double table[GELU_PARTS + 1], double x)
{
    double at = (x + GELU_END) * (GELU_PARTS / (2.0 * GELU_END));
    if (!(at > 0 && at < GELU_PARTS))
        return x < 0 ? 0 : x;
    int i = (int)at;
    return table[i] + (at - i) * (table[i + 1] - table[i]);
}

static double bin_middle(const fv_value_range *r, size_t i)
{
    return -r->reach + ((double)i + 0.5) * (2.0 * r->reach / FV_RANGE_BINS);
}

/* A value's histogram with what an error in each bin weighs. */
typedef struct weighed {
    double weight[FV_RANGE_BINS];
    double seen[FV_RANGE_BINS];      /* the bin's middle, as its reader sees it */
    double below[FV_RANGE_BINS + 1]; /* weight of all bins below */
    double gelu[GELU_PARTS + 1];     /* by_gelu */
    const fv_value_range *r;
    size_t first, last; /* bins that have any */
    bool by_gelu;
    double exponent;
} weighed;

/* What x is to the value's reader: a GELU makes little of negative ones. */
static double seen_as(const weighed *h, double x) { return h->by_gelu ? gelu_near(h->gelu, x) : x; }

/* The layer that reads a value, or its GELU; NULL: none does. */
static const fv_node *value_reader(const fv_graph *g, const fv_value *v)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const fv_node *n = g->node[i];
        if (n->n_in && n->in[0] == v && fv_node_weight(n) && n->op != FV_OP_CONV)
            return n;
        if (n->n_in && n->in[0] == v && n->op == FV_OP_GELU)
            return value_reader(g, n->out);
    }
    return NULL;
}

static void bins_add_up(weighed *h)
{
    for (size_t i = 0; i < FV_RANGE_BINS; i++)
        h->below[i + 1] = h->below[i] + h->weight[i];
}

/* Errors count as the layer behind multiplies them: a bin weighs its elements times the mean of the
 * squared weights that read those of them that were sampled. */
static fv_status value_weigh(weighed *h, const fv_graph *g, const fv_value *v,
                             const fv_value_range *r, const fv_kernels *k, fv_error *err)
{
    const fv_node *reader = value_reader(g, v);
    double sum[FV_RANGE_BINS] = { 0 }, count[FV_RANGE_BINS] = { 0 }, mean = 0;
    size_t c = r->n_channels;
    h->r = r;
    h->by_gelu = v->n_uses == 1 && v->last_use->op == FV_OP_GELU;
    if (h->by_gelu)
        gelu_fill(h->gelu);
    h->first = FV_RANGE_BINS;
    for (size_t i = 0; i < FV_RANGE_BINS; i++) {
        h->weight[i] = (double)r->bins[i];
        h->seen[i] = seen_as(h, bin_middle(r, i));
        h->first = r->bins[i] ? FV_MIN(h->first, i) : h->first;
        h->last = r->bins[i] ? i : h->last;
    }
    if (!reader || !r->n_rows || fv_value_cols(reader->in[0]) != c) {
        bins_add_up(h);
        return FV_OK;
    }
    float *squares = fv_alloc(c, sizeof *squares);
    if (!squares)
        return fv_fail_memory(err, c * sizeof *squares, "squared weights");
    fv_status status = fv_npu_layer_apply(reader, NULL, NULL, squares, k, err);
    for (size_t i = 0; i < c && status == FV_OK; i++)
        mean += (double)squares[i] / (double)c;
    for (size_t i = 0; i < r->n_rows * c && status == FV_OK && mean > 0; i++) {
        int bin = (int)((r->rows[i] + r->reach) * (FV_RANGE_BINS / (2 * r->reach)));
        bin = FV_MIN(bin, FV_RANGE_BINS - 1);
        sum[bin] += (double)squares[i % c] / mean;
        count[bin]++;
    }
    for (size_t i = 0; i < FV_RANGE_BINS; i++)
        if (count[i] > 0)
            h->weight[i] *= sum[i] / count[i];
    fv_free(squares);
    bins_add_up(h);
    return status;
}

static double error_counts(const weighed *h, double off)
{
    if (off == 0 || h->exponent == 1)
        return fabs(off);
    return h->exponent == 2 ? off * off : pow(fabs(off), h->exponent);
}

/* The first bin whose middle is x or more. */
static size_t bin_from(const fv_value_range *r, double x)
{
    double at = (x + r->reach) * (FV_RANGE_BINS / (2.0 * r->reach)) - 0.5;
    return at > 0 ? (size_t)FV_MIN(ceil(at), (double)FV_RANGE_BINS) : 0;
}

/* What a value loses in 8 bits of a range: what is clipped, and the error of rounding, as its
 * reader sees them. From `limit` on it is not counted to its end. */
static double range_loss(const weighed *h, double low, double high, double limit)
{
    const fv_value_range *r = h->r;
    double half = (high - low) / 255 / 2, lost = 0;
    double inside = error_counts(h, half); /* of rounding, without a GELU everywhere the same */
    size_t begin = FV_RANGE_BINS, end = FV_RANGE_BINS; /* bins inside, when all lose the same */
    if (!h->by_gelu) {
        begin = bin_from(r, low);
        end = FV_MAX(bin_from(r, high), begin);
        lost = (h->below[end] - h->below[begin]) * inside / (h->exponent + 1);
    }
    for (size_t i = h->first; i <= h->last && lost < limit; i++) {
        if (i >= begin && i < end)
            i = end;
        if (i > h->last)
            break;
        if (!r->bins[i])
            continue;
        double x = bin_middle(r, i), near = x < low ? low : x > high ? high : x;
        double off = near == x ? 0 : h->seen[i] - seen_as(h, near);
        double rounding = inside;
        if (h->by_gelu)
            rounding = error_counts(h, (seen_as(h, near + half) - seen_as(h, near - half)) / 2);
        lost += h->weight[i] * (error_counts(h, off) + rounding / (h->exponent + 1));
    }
    return lost;
}

/* The range with the least loss in 8 bits: ends drawn in, each for itself, a few times. */
static void range_fit(const weighed *h, float *low, float *high)
{
    enum { STEPS = 50, ROUNDS = 2 };
    double full_low = fmin(h->r->min, 0), full_high = fmax(h->r->max, 0), best_low = full_low,
           best_high = full_high, best = range_loss(h, full_low, full_high, INFINITY);
    for (int round = 0; round < ROUNDS; round++)
        for (int side = 0; side < 2; side++)
            for (int i = 0; i < STEPS; i++) {
                double part = 1 - (double)i / STEPS;
                double l = side ? best_low : full_low * part,
                       u = side ? full_high * part : best_high;
                double lost = range_loss(h, l, u, best);
                if (lost < best) {
                    best = lost;
                    best_low = l;
                    best_high = u;
                }
            }
    *low = (float)best_low;
    *high = (float)best_high;
}

/* ---- a value's formats ------------------------------------------------------------------- */

/* Other images reach further than those of the calibration set. 16 bits can afford room for twice
 * the range: clipping costs more than half a step. */
#define WIDE_MARGIN 2.0f

/* Values that are bounded whatever the image: no margin. */
static bool value_is_bounded(const fv_value *v, float *low, float *high)
{
    const fv_node *n = v->from;
    const bool weights = n->op == FV_OP_SELF_ATTENTION && v == n->self_attention.weights;
    *low = 0;
    *high = 1;
    return weights || n->op == FV_OP_SIGMOID || (n->op == FV_OP_INPUT && v->form == FV_FORM_MAP);
}

/* What attention's second product gives. QAIRT 2.51 computes a convolution that reads it wrongly
 * unless its 0 is in the middle of 16 bits. */
static bool value_is_product(const fv_value *v)
{
    const fv_node *n = v->from;
    return (n->op == FV_OP_SELF_ATTENTION || n->op == FV_OP_ATTENTION) && v == n->out;
}

/* Nothing of them is cut off: the largest decide alone what softmax makes of a row. */
static bool value_is_scores(const fv_value *v)
{
    const fv_node *n = v->from;
    return n->op == FV_OP_SELF_ATTENTION && v == n->self_attention.scores;
}

static fv_status value_formats(fv_npu_formats *f, const fv_npu_plan *p, const fv_value *v,
                               const fv_value_range *r, float least, const fv_kernels *k,
                               fv_error *err)
{
    float low, high;
    weighed h = { .exponent = p->fit.exponent };
    if (value_is_bounded(v, &low, &high)) {
        *f = (fv_npu_formats){ fv_npu_encode_range(low, high, 255),
                               fv_npu_encode_range(low, high, 65535) };
        return FV_OK;
    }
    low = r->min;
    high = fmaxf(r->max, least);
    f->u16 = value_is_product(v)
                 ? fv_npu_encode_middle(fmaxf(-low, high) * WIDE_MARGIN)
                 : fv_npu_encode_range(low * WIDE_MARGIN, high * WIDE_MARGIN, 65535);
    if (h.exponent > 0 && !value_is_scores(v)) {
        FV_TRY(value_weigh(&h, p->g, v, r, k, err));
        range_fit(&h, &low, &high);
    }
    f->u8 = fv_npu_encode_range(low, fmaxf(high, least), 255);
    return FV_OK;
}

/* Of q, k or v: a third of the channels. q comes scaled. */
static fv_npu_formats part_formats(const fv_value_range *r, size_t which, double scale)
{
    size_t c = r->n_channels / 3;
    float low = 0, high = 0;
    for (size_t i = which * c; i < (which + 1) * c; i++) {
        low = fminf(low, r->low[i]);
        high = fmaxf(high, r->high[i]);
    }
    low *= (float)scale;
    high *= (float)scale;
    fv_npu_formats f = { .u8 = fv_npu_encode_range(low, high, 255) };
    f.u16 = which == 0 ? fv_npu_encode_range(low * WIDE_MARGIN, high * WIDE_MARGIN, 65535)
                       : fv_npu_encode_middle(fmaxf(-low, high) * WIDE_MARGIN);
    return f;
}

/* A ReLU that let nothing through may do so for another image. */
static float least_range(const fv_value *v, const fv_ranges *ranges)
{
    if (v->from->op != FV_OP_RELU)
        return 0;
    const fv_value_range *in = fv_ranges_of(ranges, v->from->in[0]);
    return 0.1f * fmaxf(-in->min, in->max);
}

/* The number, from 0 to 255, that x has in 8 bits; what it stands for. */
static unsigned number_of(float x, fv_qnn_encoding e)
{
    float at = x / e.scale - (float)e.offset;
    return at > 0 ? (unsigned)rintf(at < 255 ? at : 255) : 0;
}

static float number_means(unsigned number, fv_qnn_encoding e)
{
    return ((float)number + (float)e.offset) * e.scale;
}

/* Of the sampled rows; those of a GELU's result also as it comes from an operand in 8 bits. */
static fv_status value_means(fv_npu_plan *p, const fv_ranges *ranges, const fv_value *v,
                             fv_error *err)
{
    const fv_value_range *r = fv_ranges_of(ranges, v);
    const fv_value *x = v->from->op == FV_OP_GELU ? v->from->in[0] : NULL;
    const fv_value_range *rx = x ? fv_ranges_of(ranges, x) : NULL;
    const fv_qnn_encoding e = p->of[v->index].u8, ex = x ? p->of[x->index].u8 : e;
    float made_of[256]; /* what a GELU makes of its operand's numbers, in 8 bits */
    fv_npu_value_means *m = &p->mean[v->index];
    size_t c = r->n_channels;
    if (!r->n_rows)
        return FV_OK;
    if (!(m->exact = fv_alloc_zero(3 * c, sizeof(float))))
        return fv_fail_memory(err, 3 * c * sizeof(float), "means");
    m->narrow = m->exact + c;
    m->made = m->narrow + c;
    const float part = 1 / (float)r->n_rows;
    const bool gelu_known = rx && rx->n_rows == r->n_rows;
    for (unsigned i = 0; gelu_known && i < 256; i++)
        made_of[i] = number_means(number_of((float)gelu((double)number_means(i, ex)), e), e);
    for (size_t row = 0; row < r->n_rows; row++)
        for (size_t i = 0; i < c; i++) {
            size_t at = row * c + i;
            float narrow = number_means(number_of(r->rows[at], e), e);
            m->exact[i] += r->rows[at] * part;
            m->narrow[i] += narrow * part;
            m->made[i] += (gelu_known ? made_of[number_of(rx->rows[at], ex)] : narrow) * part;
        }
    return FV_OK;
}

static fv_status plan_encode(fv_npu_plan *p, const fv_ranges *ranges, const fv_kernels *k,
                             fv_error *err)
{
    size_t n = p->n_values;
    p->of = fv_alloc_zero(n, sizeof *p->of);
    p->part = fv_alloc_zero(n, sizeof *p->part);
    p->mean = fv_alloc_zero(n, sizeof *p->mean);
    if (!p->of || !p->part || !p->mean)
        return fv_fail_memory(err, n * sizeof *p->part, "encodings");
    for (size_t i = 0; i < n; i++) {
        const fv_value *v = p->g->value[i];
        const fv_value_range *r = fv_ranges_of(ranges, v);
        if (!r->n)
            continue;
        if (v->from->op == FV_OP_INPUT && v->form == FV_FORM_MAP && (r->min < 0 || r->max > 1))
            return fv_fail(
                err, FV_ERR_UNSUPPORTED, 0,
                "%s: from %g to %g; the NPU takes pixels as bytes, from 0 to 1: expected "
                "image_mean 0, image_std 1 and rescale_factor 1/255",
                v->name, (double)r->min, (double)r->max);
        if (fv_op_moves(v->from->op))
            p->of[i] = p->of[v->from->in[0]->index];
        else
            FV_TRY(value_formats(&p->of[i], p, v, r, least_range(v, ranges), k, err));
        FV_TRY(value_means(p, ranges, v, err));
    }
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        const fv_node *node = p->g->node[i];
        if (node->op != FV_OP_SELF_ATTENTION)
            continue;
        const fv_value *qkv = node->in[0];
        double scale = 1 / sqrt((double)node->self_attention.width);
        for (size_t j = 0; j < 3; j++)
            p->part[qkv->index][j] = part_formats(fv_ranges_of(ranges, qkv), j, j ? 1 : scale);
    }
    return FV_OK;
}

/* ---- widths ------------------------------------------------------------------------------ */

/* MIXED: 8 bits where the multiplications are, 16 for what carries the signal from block to block
 * (sums, norms, attention's scores), for depthwise convolutions, whose channels cannot share the
 * steps of 8 bits and which have few of the multiplications, and for a gate's few values. */
static uint8_t node_width(const fv_node *n, fv_npu_precision precision)
{
    if (precision == FV_NPU_W8A16)
        return FV_NPU_WIDE;
    if (precision == FV_NPU_W8A8)
        return FV_NPU_NARROW;
    switch (n->op) {
    case FV_OP_LINEAR: return fv_value_rows(n->out) == 1 ? FV_NPU_WIDE : FV_NPU_NARROW;
    case FV_OP_GELU: return n->in[0]->from->op == FV_OP_LINEAR ? FV_NPU_NARROW : FV_NPU_WIDE;
    default: return FV_NPU_WIDE;
    }
}

fv_status fv_npu_plan_make(fv_npu_plan *p, const fv_graph *g, const fv_ranges *ranges,
                           fv_npu_precision precision, const fv_kernels *k, fv_error *err)
{
    *p = (fv_npu_plan){ .g = g,
                        .n_values = g->n_values,
                        .fit = { .exponent = precision == FV_NPU_W8A16 ? 0 : 2 } };
    fv_status status = FV_OK;
    if (!(p->width = fv_alloc(g->n_values, sizeof *p->width)))
        return fv_fail_memory(err, g->n_values, "widths");
    for (size_t i = 0; i < g->n_values; i++) {
        const fv_node *n = g->value[i]->from;
        p->width[i] = !ranges                ? FV_NPU_FLOAT
                      : n->op == FV_OP_INPUT ? FV_NPU_NARROW /* pixels are bytes */
                      : fv_op_moves(n->op)   ? p->width[n->in[0]->index]
                                             : node_width(n, precision);
    }
    if (ranges)
        status = plan_encode(p, ranges, k, err);
    if (status != FV_OK)
        fv_npu_plan_free(p);
    return status;
}

static void encodings_free(fv_npu_plan *p)
{
    for (size_t i = 0; p->mean && i < p->n_values; i++)
        fv_free(p->mean[i].exact);
    fv_free(p->mean);
    fv_free(p->of);
    fv_free(p->part);
    p->mean = NULL;
    p->of = NULL;
    p->part = NULL;
}

fv_status fv_npu_plan_refit(fv_npu_plan *p, const fv_ranges *ranges, fv_npu_fit fit,
                            const fv_kernels *k, fv_error *err)
{
    encodings_free(p);
    p->fit = fit;
    return plan_encode(p, ranges, k, err);
}

void fv_npu_plan_free(fv_npu_plan *p)
{
    encodings_free(p);
    fv_free(p->width);
    *p = (fv_npu_plan){ 0 };
}

const float *fv_npu_plan_read_as(const fv_npu_plan *p, const fv_node *layer)
{
    const fv_value *x = layer->in[0];
    const fv_npu_value_means *m = &p->mean[x->index];
    if (!p->fit.corrected)
        return m->exact;
    return p->width[x->index] == FV_NPU_NARROW            ? m->made
           : p->width[layer->out->index] == FV_NPU_NARROW ? m->narrow
                                                          : m->exact;
}

fv_status fv_npu_plan_means(fv_npu_means *out, const fv_npu_plan *p, const fv_node *layer,
                            fv_error *err)
{
    *out = (fv_npu_means){ 0 };
    if (!p->mean || !p->mean[layer->in[0]->index].exact)
        return FV_OK;
    out->mean = p->mean[layer->in[0]->index].exact;
    out->rounded = fv_npu_plan_read_as(p, layer);
    return fv_npu_tap_shares(out->share, layer, err);
}

/* ---- multiplications --------------------------------------------------------------------- */

double fv_npu_macs(const fv_node *n)
{
    double elems = (double)fv_value_elems(n->out), rows = (double)fv_value_rows(n->out);
    switch (n->op) {
    case FV_OP_CONV: return elems * 27;
    case FV_OP_DEPTHWISE: return elems * n->depthwise.w->kernel * n->depthwise.w->kernel;
    case FV_OP_LINEAR: return elems * (double)n->linear.w->k;
    case FV_OP_SELF_ATTENTION: return 2 * elems * rows;
    case FV_OP_ATTENTION: return 2 * elems * (double)n->in[2]->dim[2].n;
    default: return 0;
    }
}

double fv_npu_plan_share(const fv_npu_plan *p)
{
    double all = 0, narrow = 0;
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        const fv_node *n = p->g->node[i];
        double macs = fv_npu_macs(n);
        all += macs;
        narrow += p->width[n->out->index] == FV_NPU_NARROW ? macs : 0;
    }
    return all > 0 ? narrow / all : 0;
}
