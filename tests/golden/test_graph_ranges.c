/* Ranges of every activation against the same counted plainly, and against what the engine's own
 * operations let an observer see: calibration may take either. */
#include "support/cm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph_ranges.h"
#include "model/model.h"
#include "nn/vision.h"
#include "support/golden.h"

#define TINY FV_SOURCE_DIR "/tests/data/tiny"

enum { SIDE = 128, N_IMAGES = 3, SAMPLE_ROWS = 50 };

typedef struct subject {
    fv_model m;
    fv_ops ops;
    fv_graph g;
    float *image[N_IMAGES];
    fv_error err;
} subject;

static void subject_open(subject *t)
{
    fv_model_options o = { .depth = FV_MODEL_RUN,
                           .vision = FV_PRECISION_F32,
                           .decoder = FV_PRECISION_F32,
                           .n_threads = 3 };
    if (fv_model_open(&t->m, TINY "/checkpoint", &o, &t->err) != FV_OK ||
        fv_ops_init(&t->ops, &t->m.kernels, t->m.pool, &t->err) != FV_OK)
        fail_msg("%s", t->err.message);
    fv_graph_begin(&t->g, "vision", &t->err);
    fv_graph_vision(&t->g, &t->m.config, &t->m.weights.vision,
                    &(fv_graph_spec){ .image_size = SIDE });
    npy u8 = npy_read(TINY, "pixels_u8");
    for (size_t i = 0; i < N_IMAGES; i++) { /* parts of the image, ever brighter */
        t->image[i] = malloc(SIDE * SIDE * 3 * sizeof(float));
        for (size_t p = 0; p < SIDE * SIDE * 3; p++)
            t->image[i][p] = u8.data[(p / (SIDE * 3) + i * 40) * u8.shape[1] * 3 + p % (SIDE * 3)] *
                             (float)(i + 1) / (255.0f * N_IMAGES);
    }
    npy_free(&u8);
}

static void subject_close(subject *t)
{
    for (size_t i = 0; i < N_IMAGES; i++)
        free(t->image[i]);
    fv_graph_end(&t->g);
    fv_ops_free(&t->ops);
    fv_model_close(&t->m);
}

static fv_graph_io io_of(fv_run_input *in, const float *pixels)
{
    *in = (fv_run_input){ "pixel_values", pixels };
    return (fv_graph_io){ in, 1, NULL, 0 };
}

static fv_ranges *ranges_of(subject *t, const fv_ranges_options *o)
{
    fv_ranges *r;
    assert_int_equal(fv_ranges_new(&r, &t->g, o, &t->err), FV_OK);
    for (size_t i = 0; i < N_IMAGES; i++) {
        fv_run_input in;
        fv_graph_io io = io_of(&in, t->image[i]);
        if (fv_ranges_run(r, &t->ops, &io, &t->err) != FV_OK)
            fail_msg("%s", t->err.message);
    }
    return r;
}

/* ---- against plain counting ---- */

typedef struct plain {
    float *x; /* all elements of all runs, one value */
    size_t n, cols;
    const char *name;
} plain;

static fv_status value_collect(void *user, const fv_value *v, const float *x)
{
    plain *p = user;
    if (strcmp(v->name, p->name))
        return FV_OK;
    size_t n = fv_value_elems(v);
    p->cols = fv_value_cols(v);
    p->x = realloc(p->x, (p->n + n) * sizeof *x);
    memcpy(p->x + p->n, x, n * sizeof *x);
    p->n += n;
    return FV_OK;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double share_outside(const plain *p, float low, float high)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->x[i] < low || p->x[i] > high;
    return (double)n / (double)p->n;
}

static void check_value(subject *t, const fv_ranges *r, const char *name)
{
    plain p = { .name = name };
    fv_graph_observer o = { .user = &p, .value = value_collect, .inner = true };
    for (size_t i = 0; i < N_IMAGES; i++) {
        fv_run_input in;
        fv_graph_io io = io_of(&in, t->image[i]);
        assert_int_equal(fv_graph_run(&t->g, &t->ops, &io, &o, &t->err), FV_OK);
    }
    const fv_value_range *x = fv_ranges_find(r, name);
    assert_non_null(x);
    assert_int_equal(x->n, p.n);
    assert_int_equal(x->n_channels, p.cols);
    uint64_t bins[FV_RANGE_BINS] = { 0 };
    float *low = malloc(p.cols * sizeof *low), *high = malloc(p.cols * sizeof *high);
    for (size_t c = 0; c < p.cols; c++) {
        low[c] = INFINITY;
        high[c] = -INFINITY;
    }
    for (size_t i = 0; i < p.n; i++) {
        low[i % p.cols] = fminf(low[i % p.cols], p.x[i]);
        high[i % p.cols] = fmaxf(high[i % p.cols], p.x[i]);
        size_t at = (size_t)((p.x[i] + x->reach) * (FV_RANGE_BINS / (2 * x->reach)));
        bins[at < FV_RANGE_BINS ? at : FV_RANGE_BINS - 1]++;
    }
    assert_memory_equal(x->low, low, p.cols * sizeof *low);
    assert_memory_equal(x->high, high, p.cols * sizeof *high);
    /* bins that were put together round once, these once: an element may lie one further */
    uint64_t total = 0, moved = 0;
    for (size_t i = 0; i < FV_RANGE_BINS; i++) {
        total += x->bins[i];
        moved += bins[i] > x->bins[i] ? bins[i] - x->bins[i] : 0;
    }
    assert_int_equal(total, p.n);
    assert_true(moved <= p.n / 1000);

    qsort(p.x, p.n, sizeof *p.x, by_size);
    assert_true(x->min == p.x[0] && x->max == p.x[p.n - 1]);
    assert_true(x->reach >= fmaxf(-x->min, x->max));
    float a, b, bin = 2 * x->reach / FV_RANGE_BINS;
    fv_value_range_percentile(x, 0, &a, &b);
    assert_true(a == x->min && b == x->max);
    for (double share = 0.001; share < 0.3; share *= 4) {
        fv_value_range_percentile(x, share, &a, &b);
        size_t skip = (size_t)(share * (double)p.n);
        assert_true(a >= x->min && b <= x->max && a < b);
        assert_true(fabsf(a - p.x[skip]) <= 1.001f * bin);
        assert_true(fabsf(b - p.x[p.n - 1 - skip]) <= 1.001f * bin);
        double got = fv_value_range_outside(x, a, b);
        assert_true(got <= share_outside(&p, a + bin, b - bin) + 1e-9);
        assert_true(got >= share_outside(&p, a - bin, b + bin) - 1e-9);
    }
    free(low);
    free(high);
    free(p.x);
}

static void test_plainly(void **state)
{
    subject t;
    (void)state;
    subject_open(&t);
    fv_ranges_options o = { .n_runs = N_IMAGES, .histograms = true, .inner = true };
    fv_ranges *r = ranges_of(&t, &o);
    check_value(&t, r, "pixel_values");
    check_value(&t, r, "vision.stem.0");
    check_value(&t, r, "vision.network.2.0.convffn.fc1");
    check_value(&t, r, "vision.network.7.0.token_mixer.attention.scores");
    check_value(&t, r, "image_tokens");
    for (size_t i = 0; i < t.g.n_values; i++) /* every one */
        assert_true(fv_ranges_of(r, t.g.value[i])->n > 0);
    const fv_value_range *w = fv_ranges_find(r, "vision.network.7.0.token_mixer.attention.weights");
    assert_true(w->min >= 0 && w->max <= 1);
    assert_null(fv_ranges_find(r, "vision.network.99"));
    assert_ptr_equal(fv_ranges_find(r, "vision.network.0"),
                     fv_ranges_find(r, "vision.network.0.0")); /* an alias */
    fv_ranges_free(r);
    subject_close(&t);
}

/* ---- against the engine's observer ---- */

enum { MAX_SITES = 64 };

typedef struct site {
    const void *weight;
    size_t c, n_rows;
    float *low, *high, *rows;
} site;

typedef struct seen {
    site site[MAX_SITES];
    size_t n, image;
} seen;

/* What calibration keeps of a layer's input. */
static void site_see(void *user, const void *weight, const void *values, fv_type type, size_t n,
                     size_t c)
{
    seen *s = user;
    const float *x = values;
    assert_int_equal(type, FV_TYPE_F32);
    size_t at = 0;
    while (at < s->n && s->site[at].weight != weight)
        at++;
    assert_true(at < MAX_SITES);
    site *l = &s->site[at];
    if (at == s->n) {
        *l = (site){ .weight = weight, .c = c };
        l->low = malloc(c * sizeof *l->low);
        l->high = malloc(c * sizeof *l->high);
        l->rows = malloc(SAMPLE_ROWS * c * sizeof *l->rows);
        for (size_t i = 0; i < c; i++) {
            l->low[i] = INFINITY;
            l->high[i] = -INFINITY;
        }
        s->n++;
    }
    for (size_t i = 0; i < n * c; i++) {
        l->low[i % c] = x[i] < l->low[i % c] ? x[i] : l->low[i % c];
        l->high[i % c] = x[i] > l->high[i % c] ? x[i] : l->high[i % c];
    }
    uint64_t state = s->image * 977 + 1;
    for (; l->n_rows < SAMPLE_ROWS * (s->image + 1) / N_IMAGES; l->n_rows++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(l->rows + l->n_rows * c, x + (state >> 33) % n * c, c * sizeof *x);
    }
}

static void test_engine(void **state)
{
    subject t;
    fv_vision v;
    seen s = { .n = 0 };
    fv_watch watch = { 0 };
    (void)state;
    subject_open(&t);
    fv_ops observed;
    assert_int_equal(fv_ops_init(&observed, &t.m.kernels, t.m.pool, &t.err), FV_OK);
    observed.observe = site_see;
    observed.observe_user = &s;
    float *tokens = malloc((SIDE / 64) * (SIDE / 64) * (size_t)t.m.config.d_model * sizeof *tokens);
    assert_int_equal(
        fv_vision_init(&v, &t.m.config, &t.m.weights.vision, SIDE, FV_TYPE_F32, &observed, &t.err),
        FV_OK);
    for (s.image = 0; s.image < N_IMAGES; s.image++) {
        assert_int_equal(fv_vision_run(&v, &observed, t.image[s.image], &watch, &t.err), FV_OK);
        assert_int_equal(fv_projector_run(&v, &observed, tokens, &watch, &t.err), FV_OK);
    }
    fv_ranges_options o = { .n_runs = N_IMAGES, .sample_rows = SAMPLE_ROWS };
    fv_ranges *r = ranges_of(&t, &o);
    assert_true(s.n > 15);
    for (size_t i = 0; i < s.n; i++) {
        site *l = &s.site[i];
        const fv_value_range *x = fv_ranges_of_weight(r, l->weight);
        assert_non_null(x);
        assert_int_equal(x->n_channels, l->c);
        assert_int_equal(x->n_rows, SAMPLE_ROWS);
        assert_int_equal(l->n_rows, SAMPLE_ROWS);
        assert_memory_equal(x->low, l->low, l->c * sizeof(float));
        assert_memory_equal(x->high, l->high, l->c * sizeof(float));
        assert_memory_equal(x->rows, l->rows, SAMPLE_ROWS * l->c * sizeof(float));
        free(l->low);
        free(l->high);
        free(l->rows);
    }
    assert_null(fv_ranges_of_weight(r, &t));
    fv_ranges_free(r);
    fv_vision_free(&v);
    fv_ops_free(&observed);
    free(tokens);
    subject_close(&t);
}

/* ---- what fails ---- */

static void test_failures(void **state)
{
    subject t;
    fv_ranges *r;
    fv_run_input in;
    fv_ranges_options o = { .n_runs = 1, .sample_rows = 5, .histograms = true };
    (void)state;
    subject_open(&t);
    assert_int_equal(fv_ranges_new(&r, &t.g, &o, &t.err), FV_OK);
    t.image[0][5000] = INFINITY;
    fv_graph_io io = io_of(&in, t.image[0]);
    assert_int_equal(fv_ranges_run(r, &t.ops, &io, &t.err), FV_ERR_FORMAT);
    assert_string_equal(t.err.message, "pixel_values contains NaN or infinite values");
    fv_ranges_free(r);
    io = io_of(&in, t.image[1]);
    int64_t live = fv_mem_live();
    bool done = false;
    for (uint64_t i = 0; !done; i += 13) {
        assert_true(i < 5000);
        fv_mem_fail_after(i);
        fv_status status = fv_ranges_new(&r, &t.g, &o, &t.err);
        if (status == FV_OK) {
            status = fv_ranges_run(r, &t.ops, &io, &t.err);
            fv_ranges_free(r);
        }
        fv_mem_fail_after(UINT64_MAX);
        done = status == FV_OK;
        if (!done)
            assert_int_equal(status, FV_ERR_MEMORY);
        assert_int_equal(fv_mem_live(), live);
    }
    subject_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plainly),
        cmocka_unit_test(test_engine),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
