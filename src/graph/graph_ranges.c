/* Values of a graph, run after run -> ranges, histograms, rows. See graph_ranges.h. */
#include "graph/graph_ranges.h"

#include <math.h>
#include <string.h>

enum {
    RANGE_COLUMNS = 256, /* of a task */
    RANGE_ROWS = 256
};

struct fv_ranges {
    const fv_graph *g;
    fv_ranges_options o;
    fv_value_range *range; /* by the index of a value */
    size_t run;            /* the current one, or the next */
    fv_ops *ops;           /* of the run */
    uint32_t *bins;        /* [workers, FV_RANGE_BINS] of the current value */
    fv_error *err;
};

/* Somebody with weights reads it, or a GELU. */
static bool value_feeds_layer(const fv_graph *g, const fv_value *v)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const fv_node *n = g->node[i];
        if (n->n_in && n->in[0] == v && (fv_node_weight(n) || n->op == FV_OP_GELU))
            return true;
    }
    return false;
}

static fv_status range_init(fv_value_range *x, const fv_graph *g, const fv_value *v,
                            const fv_ranges_options *o, fv_error *err)
{
    size_t c = fv_value_cols(v);
    *x = (fv_value_range){ .value = v, .n_channels = c, .min = INFINITY, .max = -INFINITY };
    if (v->type != FV_TYPE_F32)
        return FV_OK;
    x->low = fv_alloc(c, sizeof *x->low);
    x->high = fv_alloc(c, sizeof *x->high);
    if (o->histograms)
        x->bins = fv_alloc_zero(FV_RANGE_BINS, sizeof *x->bins);
    bool rows = o->sample_rows && value_feeds_layer(g, v);
    if (rows)
        x->rows = fv_alloc(o->sample_rows * c, sizeof *x->rows);
    if (!x->low || !x->high || (o->histograms && !x->bins) || (rows && !x->rows))
        return fv_fail_memory(err, (o->sample_rows + 2) * c * sizeof(float), v->name);
    for (size_t i = 0; i < c; i++) {
        x->low[i] = INFINITY;
        x->high[i] = -INFINITY;
    }
    return FV_OK;
}

fv_status fv_ranges_new(fv_ranges **out, const fv_graph *g, const fv_ranges_options *options,
                        fv_error *err)
{
    *out = NULL;
    FV_TRY(fv_graph_status(g));
    fv_ranges *r = fv_alloc_zero(1, sizeof *r);
    if (!r || !(r->range = fv_alloc_zero(g->n_values, sizeof *r->range))) {
        fv_free(r);
        return fv_fail_memory(err, g->n_values * sizeof *r->range, "ranges");
    }
    r->g = g;
    r->o = *options;
    fv_status status = FV_OK;
    for (size_t i = 0; i < g->n_values && status == FV_OK; i++)
        status = range_init(&r->range[i], g, g->value[i], options, err);
    if (status == FV_OK)
        *out = r;
    else
        fv_ranges_free(r);
    return status;
}

void fv_ranges_free(fv_ranges *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->g->n_values; i++) {
        fv_value_range *x = &r->range[i];
        fv_free(x->low);
        fv_free(x->high);
        fv_free(x->bins);
        fv_free(x->rows);
    }
    fv_free(r->range);
    fv_free(r);
}

/* ---- one value --------------------------------------------------------------------------- */

typedef struct range_job {
    fv_value_range *range;
    const float *x;
    size_t rows;
    float *odd;     /* a task's: 0, or NaN when some element is NaN or infinite */
    uint32_t *bins; /* a worker's */
} range_job;

static void range_columns_task(void *user, size_t task, unsigned worker)
{
    range_job *j = user;
    fv_value_range *r = j->range;
    size_t c = r->n_channels, first = task * RANGE_COLUMNS, last = FV_MIN(first + RANGE_COLUMNS, c);
    float odd = 0;
    (void)worker;
    for (size_t i = 0; i < j->rows; i++) {
        const float *row = j->x + i * c;
        for (size_t k = first; k < last; k++) {
            r->low[k] = row[k] < r->low[k] ? row[k] : r->low[k];
            r->high[k] = row[k] > r->high[k] ? row[k] : r->high[k];
        }
        for (size_t k = first; k < last; k++)
            odd += row[k] * 0.0f;
    }
    j->odd[task] = odd;
}

static void range_bins_task(void *user, size_t task, unsigned worker)
{
    range_job *j = user;
    size_t c = j->range->n_channels, first = task * RANGE_ROWS * c,
           last = FV_MIN(first + RANGE_ROWS * c, j->rows * c);
    uint32_t *bins = j->bins + worker * FV_RANGE_BINS;
    float scale = FV_RANGE_BINS / (2 * j->range->reach);
    for (size_t i = first; i < last; i++)
        bins[FV_MIN((int)((j->x[i] + j->range->reach) * scale), FV_RANGE_BINS - 1)]++;
}

/* Makes reach large enough; each doubling puts two bins together. */
static void bins_widen(fv_value_range *x)
{
    float most = fmaxf(-x->min, x->max);
    if (x->reach == 0) /* the first time: nothing is in them yet */
        x->reach = most > 0 ? exp2f(ceilf(log2f(most))) : 1;
    for (; x->reach < most; x->reach *= 2) {
        uint64_t wider[FV_RANGE_BINS] = { 0 };
        for (size_t i = 0; i < FV_RANGE_BINS; i++)
            wider[FV_RANGE_BINS / 4 + i / 2] += x->bins[i];
        memcpy(x->bins, wider, sizeof wider);
    }
}

static void bins_add(const fv_ranges *r, fv_value_range *x, const float *data, size_t rows)
{
    range_job j = { .range = x, .x = data, .rows = rows, .bins = r->bins };
    bins_widen(x);
    memset(r->bins, 0, r->ops->n_workers * FV_RANGE_BINS * sizeof *r->bins);
    fv_pool_run(r->ops->pool, (rows + RANGE_ROWS - 1) / RANGE_ROWS, range_bins_task, &j);
    for (size_t i = 0; i < r->ops->n_workers * FV_RANGE_BINS; i++)
        x->bins[i % FV_RANGE_BINS] += r->bins[i];
}

/* Rows drawn evenly from all runs, the same of every value. */
static void rows_draw(const fv_ranges *r, fv_value_range *x, const float *data, size_t rows)
{
    size_t end = r->o.sample_rows * (r->run + 1) / FV_MAX(r->o.n_runs, r->run + 1);
    uint64_t state = r->run * 977 + 1;
    for (; x->n_rows < end; x->n_rows++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(x->rows + x->n_rows * x->n_channels, data + (state >> 33) % rows * x->n_channels,
               x->n_channels * sizeof *data);
    }
}

static fv_status range_see(void *user, const fv_value *v, const float *data)
{
    fv_ranges *r = user;
    fv_value_range *x = &r->range[v->index];
    size_t rows = fv_value_rows(v), tasks = (x->n_channels + RANGE_COLUMNS - 1) / RANGE_COLUMNS;
    range_job j = { .range = x, .x = data, .rows = rows };
    float odd = 0;
    if (!(j.odd = fv_alloc(tasks, sizeof *j.odd)))
        return fv_fail_memory(r->err, tasks * sizeof *j.odd, "ranges");
    fv_pool_run(r->ops->pool, tasks, range_columns_task, &j);
    for (size_t i = 0; i < tasks; i++)
        odd += j.odd[i];
    fv_free(j.odd);
    if (odd != 0)
        return fv_fail(r->err, FV_ERR_FORMAT, 0, "%s contains NaN or infinite values", v->name);
    for (size_t i = 0; i < x->n_channels; i++) {
        x->min = fminf(x->min, x->low[i]);
        x->max = fmaxf(x->max, x->high[i]);
    }
    if (x->bins)
        bins_add(r, x, data, rows);
    if (x->rows)
        rows_draw(r, x, data, rows);
    x->n += rows * x->n_channels;
    return FV_OK;
}

fv_status fv_ranges_run(fv_ranges *r, fv_ops *ops, const fv_graph_io *io, fv_error *err)
{
    fv_graph_observer o = { .user = r, .value = range_see, .inner = r->o.inner };
    r->ops = ops;
    r->err = err;
    if (r->o.histograms && !(r->bins = fv_alloc(ops->n_workers * FV_RANGE_BINS, sizeof *r->bins)))
        return fv_fail_memory(err, ops->n_workers * FV_RANGE_BINS * sizeof *r->bins, "histograms");
    fv_status status = fv_graph_run(r->g, ops, io, &o, err);
    fv_free(r->bins);
    r->bins = NULL;
    r->run += status == FV_OK;
    return status;
}

/* ---- asking ------------------------------------------------------------------------------ */

const fv_value_range *fv_ranges_of(const fv_ranges *r, const fv_value *v)
{
    return v ? &r->range[v->index] : NULL;
}

const fv_value_range *fv_ranges_find(const fv_ranges *r, const char *name)
{
    return fv_ranges_of(r, fv_graph_find(r->g, name));
}

static const fv_node *weight_node(const fv_ranges *r, const void *weight)
{
    for (size_t i = 0; i < r->g->n_nodes; i++)
        if (fv_node_weight(r->g->node[i]) == weight)
            return r->g->node[i];
    return NULL;
}

const fv_value_range *fv_ranges_of_weight(const fv_ranges *r, const void *weight)
{
    const fv_node *n = weight_node(r, weight);
    return n ? fv_ranges_of(r, n->in[0]) : NULL;
}

const fv_value_range *fv_ranges_of_result(const fv_ranges *r, const void *weight)
{
    const fv_node *n = weight_node(r, weight);
    return n ? fv_ranges_of(r, n->out) : NULL;
}

/* Where bin i begins. */
static float bin_edge(const fv_value_range *r, size_t i)
{
    return r->reach * (2 * (float)i / FV_RANGE_BINS - 1);
}

void fv_value_range_percentile(const fv_value_range *r, double share, float *low, float *high)
{
    uint64_t most = (uint64_t)(share * (double)r->n), below = 0, above = 0;
    size_t first = 0, last = FV_RANGE_BINS;
    *low = r->min;
    *high = r->max;
    if (!r->bins || most == 0)
        return;
    while (first + 1 < last && below + r->bins[first] <= most)
        below += r->bins[first++];
    while (last > first + 1 && above + r->bins[last - 1] <= most)
        above += r->bins[--last];
    *low = fmaxf(*low, bin_edge(r, first));
    *high = fminf(*high, bin_edge(r, last));
}

double fv_value_range_outside(const fv_value_range *r, float low, float high)
{
    uint64_t n = 0;
    for (size_t i = 0; r->bins && i < FV_RANGE_BINS; i++)
        if (bin_edge(r, i + 1) <= low || bin_edge(r, i) > high)
            n += r->bins[i];
    return r->n ? (double)n / (double)r->n : 0;
}
