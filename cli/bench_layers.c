/* fastvlm bench --layers. Of every phase the repetition in the middle is shown, so that its layers
 * add up to its time. See bench_layers.h. */
#include "bench_layers.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastvlm_tools.h"

enum { VISION, PREFILL, TOKEN, N_PHASES, NAME = 256, KIND = 24 };

static const char *const phase_names[N_PHASES] = { "vision", "prefill", "token" };

typedef struct layer_row {
    char name[NAME];
    char kind[KIND], precision[8];
    double ms, macs, bytes;
    uint64_t n_rows;
    int n_layers; /* that it stands for */
} layer_row;

typedef struct layer_list {
    layer_row *rows;
    size_t n, capacity;
    double whole_ms;
} layer_list;

typedef struct phase {
    layer_list *runs; /* [n] repetitions */
    size_t n, capacity;
} phase;

typedef struct layers_bench {
    const layers_job *job;
    phase phases[N_PHASES];
    layer_list now; /* the repetition at work */
    bool failed;    /* no memory */
    fv_limits limits;
} layers_bench;

/* ---- what comes in ------------------------------------------------------------------------ */

static void list_free(layer_list *l)
{
    free(l->rows);
    *l = (layer_list){ 0 };
}

static void layers_add(layer_list *l, const layer_row *row, bool *failed)
{
    for (size_t i = 0; i < l->n; i++) { /* a long prompt passes by in stretches */
        layer_row *r = &l->rows[i];
        if (strcmp(r->name, row->name) || strcmp(r->kind, row->kind))
            continue;
        r->ms += row->ms;
        r->macs += row->macs;
        r->bytes += row->bytes;
        r->n_rows += row->n_rows;
        r->n_layers += row->n_layers;
        return;
    }
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 256;
        layer_row *more = realloc(l->rows, capacity * sizeof *more);
        if (!more) {
            *failed = true;
            return;
        }
        l->rows = more;
        l->capacity = capacity;
    }
    l->rows[l->n++] = *row;
}

/* fv_layer_fn */
static void layer_take(void *user, const fv_layer *layer)
{
    layers_bench *b = user;
    layer_row row = { .ms = layer->ms,
                      .macs = layer->macs,
                      .bytes = layer->bytes,
                      .n_rows = layer->n_rows,
                      .n_layers = 1 };
    snprintf(row.name, sizeof row.name, "%s", layer->name);
    snprintf(row.kind, sizeof row.kind, "%s", layer->kind);
    snprintf(row.precision, sizeof row.precision, "%s", layer->precision);
    layers_add(&b->now, &row, &b->failed);
}

/* What came in since the last call is a repetition of this phase, or dropped. */
static void phase_take(layers_bench *b, int at, double whole_ms, bool counts)
{
    phase *p = &b->phases[at];
    b->now.whole_ms = whole_ms;
    if (counts && p->n < p->capacity)
        p->runs[p->n++] = b->now;
    else
        free(b->now.rows);
    b->now = (layer_list){ 0 };
}

/* ---- the repetitions ---------------------------------------------------------------------- */

static fv_status layers_repeat(layers_bench *b, fv_engine *engine, const fv_image *image,
                               bool counts, progress_line *line, fv_error *err)
{
    static const char question[] = "Describe the image.";
    fv_callbacks callbacks = line_callbacks(line);
    fv_session_options o = {
        .size = sizeof o, .callbacks = &callbacks, .layer = layer_take, .layer_user = b
    };
    fv_answer_options answer = { .size = sizeof answer,
                                 .max_new_tokens = b->job->tokens + 1,
                                 .ignore_end = true };
    fv_session *session = NULL;
    fv_piece piece = { .size = sizeof piece };
    fv_stats s = { .size = sizeof s };
    fv_status status = fv_session_new(&session, engine, &o, err);
    if (status == FV_OK)
        status = fv_session_add_image(session, image, NULL, err);
    if (status == FV_OK) {
        fv_session_stats(session, &s);
        phase_take(b, VISION, s.vision_ms + s.projector_ms, counts);
        status = fv_session_add_text(session, question, strlen(question), err);
    }
    if (status == FV_OK)
        status = fv_session_begin(session, &answer, err);
    if (status == FV_OK)
        status = fv_session_next(session, &piece, err);
    if (status == FV_OK) {
        fv_session_stats(session, &s);
        phase_take(b, PREFILL, s.prefill_ms, counts);
    }
    while (status == FV_OK && !piece.done) {
        double before = s.decode_ms;
        status = fv_session_next(session, &piece, err);
        fv_session_stats(session, &s);
        if (status == FV_OK && b->now.n) /* the last call may only end the answer */
            phase_take(b, TOKEN, s.decode_ms - before, counts);
    }
    free(b->now.rows);
    b->now = (layer_list){ 0 };
    fv_session_free(session);
    clear_line();
    return status;
}

static int runs_compare(const void *a, const void *b)
{
    double x = ((const layer_list *)a)->whole_ms, y = ((const layer_list *)b)->whole_ms;
    return x < y ? -1 : x > y;
}

/* The one in the middle; NULL: there was none. */
static const layer_list *phase_middle(phase *p)
{
    if (p->n)
        qsort(p->runs, p->n, sizeof *p->runs, runs_compare);
    return p->n ? &p->runs[p->n / 2] : NULL;
}

/* ---- what comes out ----------------------------------------------------------------------- */

/* The time that the machine's limits leave it. */
static double row_least_ms(const layers_bench *b, const layer_row *r)
{
    const fv_limits *l = &b->limits;
    double macs = !strcmp(r->precision, "bf16")    ? l->bf16_macs
                  : !strcmp(r->precision, "int8")  ? l->int8_macs
                  : !strcmp(r->precision, "w8a16") ? l->w8a16_macs
                  : !strcmp(r->precision, "z8")    ? l->z8_macs
                  : !strcmp(r->precision, "q4")    ? l->q4_macs
                                                   : l->f32_macs;
    double products = macs > 0 ? r->macs / macs : 0,
           memory = l->read_bytes > 0 ? r->bytes / l->read_bytes : 0;
    return 1e3 * (products > memory ? products : memory);
}

/* "model.layers.*.mlp.down_proj": the decoder's layers are alike, people see their sum. */
static void name_join(char *name)
{
    static const char prefix[] = "model.layers.";
    char *at = name + sizeof prefix - 1, *end = at;
    if (strncmp(name, prefix, sizeof prefix - 1))
        return;
    while (isdigit((unsigned char)*end))
        end++;
    if (end == at)
        return;
    *at = '*';
    memmove(at + 1, end, strlen(end) + 1);
}

static void list_join(layer_list *out, const layer_list *in, bool *failed)
{
    *out = (layer_list){ .whole_ms = in->whole_ms };
    for (size_t i = 0; i < in->n; i++) {
        layer_row row = in->rows[i];
        name_join(row.name);
        layers_add(out, &row, failed);
    }
}

static double list_sum(const layer_list *l)
{
    double ms = 0;
    for (size_t i = 0; i < l->n; i++)
        ms += l->rows[i].ms;
    return ms;
}

static void print_phase(const layers_bench *b, int at, const layer_list *l)
{
    double sum = list_sum(l), least = 0;
    print_out("%s, %.2f ms\n%-68s %-14s %-5s %9s %6s %9s %8s %8s\n", phase_names[at], l->whole_ms,
              "layer", "kind", "type", "ms", "share", "MMAC", "MB", "of limit");
    for (size_t i = 0; i < l->n; i++) {
        const layer_row *r = &l->rows[i];
        double limit = row_least_ms(b, r);
        least += limit;
        print_out("%-68s %-14s %-5s %9.3f %5.1f%% %9.1f %8.2f", r->name, r->kind, r->precision,
                  r->ms, 100 * r->ms / l->whole_ms, r->macs * 1e-6, r->bytes * 1e-6);
        if (limit > 0)
            print_out(" %7.0f%%", 100 * limit / r->ms);
        print_out("\n");
    }
    print_out("%-68s %-14s %-5s %9.3f %5.1f%% %9s %8s %7.0f%%\n\n", "all of these", "", "", sum,
              100 * sum / l->whole_ms, "", "", 100 * least / l->whole_ms);
}

static void print_csv(const layers_bench *b, int at, const layer_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        const layer_row *r = &l->rows[i];
        print_out("%s,%s,%s,%s,%.4f,%.0f,%.0f,%.4f\n", phase_names[at], r->name, r->kind,
                  r->precision, r->ms, r->macs, r->bytes, row_least_ms(b, r));
    }
}

static json_t *layers_json(const layers_bench *b, int at, const layer_list *l)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < l->n; i++) {
        const layer_row *r = &l->rows[i];
        json_t *row = json_pack("{s:o, s:s, s:s, s:I, s:f, s:f, s:f, s:f}", "name",
                                json_text(r->name), "kind", r->kind, "precision", r->precision,
                                "rows", (json_int_t)r->n_rows, "ms", r->ms, "macs", r->macs,
                                "bytes", r->bytes, "limit_ms", row_least_ms(b, r));
        json_array_append_new(rows, row);
    }
    return json_pack("{s:s, s:f, s:f, s:o}", "phase", phase_names[at], "ms", l->whole_ms,
                     "layers_ms", list_sum(l), "layers", rows);
}

static int plot(const layers_bench *b, const layer_list *lists)
{
    char title[256], groups[N_PHASES][64];
    fv_error err;
    size_t n = 0, at = 0;
    for (int i = 0; i < N_PHASES; i++)
        n += lists[i].n;
    fv_layer_bar *bars = calloc(n + 1, sizeof *bars);
    if (!bars) {
        print_err("fastvlm: out of memory for the picture\n");
        return EXIT_FAILED;
    }
    for (int i = 0; i < N_PHASES; i++) {
        snprintf(groups[i], sizeof groups[i], "%s: %.3g ms", phase_names[i], lists[i].whole_ms);
        for (size_t j = 0; j < lists[i].n; j++) {
            const layer_row *r = &lists[i].rows[j];
            bars[at++] = (fv_layer_bar){ .size = sizeof *bars,
                                         .group = groups[i],
                                         .name = r->name,
                                         .ms = r->ms,
                                         .least_ms = row_least_ms(b, r) };
        }
    }
    const char *slash = strrchr(b->job->model, '/'); /* a picture is shown elsewhere: no path */
    snprintf(title, sizeof title, "%.160s, %.80s", slash ? slash + 1 : b->job->model, cpu_model());
    fv_status status = fv_layers_plot(bars, n, title, strlen(title), b->job->svg, &err);
    free(bars);
    return status == FV_OK ? EXIT_OK : report(&err);
}

static int print_layers(layers_bench *b, const fv_model_info *m)
{
    const fv_limits *l = &b->limits;
    layer_list joined[N_PHASES] = { 0 };
    json_t *phases = json_array();
    int code = EXIT_OK;
    if (b->job->form == 2)
        print_out("phase,layer,kind,precision,ms,macs,bytes,limit_ms\n");
    else if (b->job->form == 0)
        print_out("%s, %d threads, kernels %s; %s, %d x %d\nlimits measured: f32 %.0f, bf16 %.0f, "
                  "int8 %.0f, w8a16 %.0f, z8 %.0f, q4 %.0f GMAC/s; read %.1f GB/s\n\n",
                  cpu_model(), m->n_threads, m->cpu_level, b->job->model, m->image_size,
                  m->image_size, l->f32_macs * 1e-9, l->bf16_macs * 1e-9, l->int8_macs * 1e-9,
                  l->w8a16_macs * 1e-9, l->z8_macs * 1e-9, l->q4_macs * 1e-9, l->read_bytes * 1e-9);
    for (int i = 0; i < N_PHASES; i++) {
        const layer_list *middle = phase_middle(&b->phases[i]);
        if (!middle)
            continue;
        list_join(&joined[i], middle, &b->failed);
        if (b->job->form == 1)
            json_array_append_new(phases, layers_json(b, i, middle));
        else if (b->job->form == 2)
            print_csv(b, i, middle);
        else
            print_phase(b, i, &joined[i]);
    }
    if (b->job->form == 1) {
        json_t *limits = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "f32_macs", l->f32_macs,
                                   "bf16_macs", l->bf16_macs, "int8_macs", l->int8_macs,
                                   "w8a16_macs", l->w8a16_macs, "z8_macs", l->z8_macs, "q4_macs",
                                   l->q4_macs, "read_bytes", l->read_bytes);
        code = print_json(json_pack("{s:o, s:o, s:i, s:s, s:i, s:o, s:o}", "model",
                                    json_text(b->job->model), "cpu", json_text(cpu_model()),
                                    "threads", m->n_threads, "kernels", m->cpu_level, "image_size",
                                    m->image_size, "limits", limits, "phases", phases),
                          6);
    } else {
        json_decref(phases);
        code = end_out();
    }
    if (code == EXIT_OK && b->job->svg)
        code = plot(b, joined);
    for (int i = 0; i < N_PHASES; i++)
        list_free(&joined[i]);
    return code;
}

/* ---- all of it ---------------------------------------------------------------------------- */

static bool phases_open(layers_bench *b)
{
    for (int i = 0; i < N_PHASES; i++) {
        phase *p = &b->phases[i];
        p->capacity = (size_t)b->job->reps * (size_t)(i == TOKEN ? b->job->tokens : 1);
        p->runs = calloc(p->capacity, sizeof *p->runs);
        if (!p->runs)
            return false;
    }
    return true;
}

static void phases_close(layers_bench *b)
{
    for (int i = 0; i < N_PHASES; i++) {
        for (size_t j = 0; j < b->phases[i].n; j++)
            list_free(&b->phases[i].runs[j]);
        free(b->phases[i].runs);
    }
}

static double higher(double a, double b) { return a > b ? a : b; }

/* Before and after the layers: clocks and neighbours change, and a limit is the most there was. */
static fv_status limits_take(layers_bench *b, const fv_engine *engine, fv_error *err)
{
    fv_limits now = { .size = sizeof now }, *l = &b->limits;
    fv_status status = fv_engine_limits(engine, &now, err);
    if (status == FV_OK)
        *l = (fv_limits){ .size = sizeof *l,
                          .f32_macs = higher(l->f32_macs, now.f32_macs),
                          .bf16_macs = higher(l->bf16_macs, now.bf16_macs),
                          .int8_macs = higher(l->int8_macs, now.int8_macs),
                          .w8a16_macs = higher(l->w8a16_macs, now.w8a16_macs),
                          .z8_macs = higher(l->z8_macs, now.z8_macs),
                          .q4_macs = higher(l->q4_macs, now.q4_macs),
                          .read_bytes = higher(l->read_bytes, now.read_bytes) };
    return status;
}

int run_bench_layers(const layers_job *job, fv_engine *engine, const fv_image *image)
{
    layers_bench b = { .job = job };
    fv_model_info m = { .size = sizeof m };
    progress_line line = { .enabled = true };
    fv_error err;
    int code = EXIT_OK;
    fv_status status = limits_take(&b, engine, &err);
    b.failed = !phases_open(&b);
    for (int rep = -1; status == FV_OK && !b.failed && rep < job->reps; rep++)
        status = layers_repeat(&b, engine, image, rep >= 0, &line, &err);
    if (status == FV_OK && !b.failed)
        status = limits_take(&b, engine, &err);
    fv_engine_info(engine, &m);
    if (status != FV_OK)
        code = report(&err);
    else if (!b.failed)
        code = print_layers(&b, &m);
    if (b.failed) {
        print_err("fastvlm: out of memory for the layers' times; try fewer --reps or --tokens\n");
        code = EXIT_FAILED;
    }
    phases_close(&b);
    return code;
}
