/* checkpoint directory -> packed file: load as the engine does, then write what was bound.
 *
 *     fv_weights_load   fuses, folds, maps      fv_weights
 *     fv_weights_walk   once to list            names, types, shapes
 *                       once to write           slabs of rows: -> f32 -> wanted type -> file
 *
 * A slab is converted by all threads and then written, so that memory stays the same whatever the
 * size of the model. */
#include "pack/pack.h"
#include "pack/calibrate.h"
#include "pack/rounder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/number.h"
#include "base/outfile.h"
#include "base/report.h"
#include "model/config_gguf.h"
#include "model/model.h"
#include "model/precision.h"
#include "quant/quantize.h"
#include "text/tokenizer_gguf.h"

enum { SLAB_ROWS_ELEMS = 1 << 18 }; /* values a task converts */

typedef struct packer {
    const fv_pack_options *o;
    fv_calibration *calibration; /* the encoder in int8; NULL: in floats */
    fv_rounder *rounder;         /* of the decoder; NULL: none */
    fv_callbacks quiet;          /* the rounder's, which keeps a pointer to it */
    fv_pack_hook hook[2];
    size_t n_hooks;
    fv_model model; /* matrices as stored */
    fv_type vision, decoder;
    fv_gguf_writer *out;
    uint64_t n_listed, n_done; /* values, for progress */
    float *sqnr;               /* [n_tensors] */
    size_t n_tensors, at;
    fv_pack_report report;
    uint8_t *slab;    /* n_workers tasks in the wanted type */
    float *wide;      /* the same in f32, twice: before and after */
    float *row_scale; /* of the matrix that is being written, where its rows have one each */
    int32_t *row_offset;
} packer;

/* ---- types ---- */

/* Of the matrix that a part has most of. */
static fv_type stored_type(const packer *p, bool decoder)
{
    return decoder ? p->model.weights.decoder.layer[0].down.type
                   : p->model.weights.vision.project1.type;
}

/* The decoder's weights are stored in blocks. */
static bool rounds(const packer *p)
{
    return fv_type_is_block(p->decoder) || p->decoder == FV_TYPE_I8;
}

/* The embedding or the head. */
static bool is_end(const packer *p, const fv_weight *t)
{
    return t->slot == (const void *)&p->model.weights.decoder.embed ||
           t->slot == (const void *)&p->model.weights.decoder.head;
}

/* Blocks need whole rows of them; f16 takes what does not fit. What int8's hook does not want is
 * bf16. */
static fv_type matrix_type(const packer *p, const fv_weight *t)
{
    bool decoder = t->part == FV_PART_DECODER;
    fv_type type = decoder ? p->decoder : p->vision;
    const fv_mat *m = t->slot;
    if (type == FV_TYPE_I8 && decoder)
        type = FV_TYPE_Q8_0;
    if (type == FV_TYPE_I8)
        return FV_TYPE_BF16;
    if (!fv_type_is_block(type))
        return type;
    if (m->k % FV_BLOCK)
        return FV_TYPE_F16;
    return type == FV_TYPE_Q4_0 && is_end(p, t) && !p->o->pure ? FV_TYPE_Q8_0 : type;
}

/* A matrix of the decoder whose rows have one scale each. */
static bool has_row_scales(const packer *p, const fv_weight *t)
{
    return t->part == FV_PART_DECODER && p->decoder == FV_TYPE_I8 && !is_end(p, t) &&
           ((const fv_mat *)t->slot)->k % FV_BLOCK == 0;
}

/* ---- the tensors of a weight ---- */

static fv_pack_part part_of(const char *suffix, fv_type type, size_t rows, size_t columns,
                            const void *data)
{
    return (fv_pack_part){ .suffix = suffix,
                           .type = type,
                           .n_dims = columns ? 2 : 1,
                           .shape = { rows, columns },
                           .data = data,
                           .sqnr = INFINITY };
}

/* A weight of the table as its engine binds it; a matrix' own part (the first) is written by
 * write_matrix. */
static fv_status parts_of(packer *p, const fv_weight *t, fv_pack_part list[FV_PACK_PARTS],
                          size_t *n, bool *hooked, fv_error *err)
{
    const fv_dw *dw = t->slot;
    const fv_mat *m = t->slot;
    *n = 0;
    for (size_t i = 0; i < p->n_hooks && !*n; i++)
        FV_TRY(p->hook[i].parts(p->hook[i].user, t, list, n, err));
    *hooked = *n > 0;
    if (*hooked)
        return FV_OK;
    switch (t->kind) {
    case FV_WEIGHT_VECTOR:
        list[(*n)++] = part_of("", FV_TYPE_F32, t->n, 0, *(const float *const *)t->slot);
        break;
    case FV_WEIGHT_DEPTHWISE:
    case FV_WEIGHT_DEPTHWISE_BN:
        list[(*n)++] = part_of(".weight", FV_TYPE_F32, (size_t)dw->kernel * dw->kernel, t->n,
                               dw->w);
        list[(*n)++] = part_of(".bias", FV_TYPE_F32, t->n, 0, dw->bias);
        break;
    default:
        list[(*n)++] = part_of(".weight",
                               t->kind == FV_WEIGHT_STEM ? FV_TYPE_F32 : matrix_type(p, t), m->n,
                               m->k, m->data);
        if (m->bias)
            list[(*n)++] = part_of(".bias", FV_TYPE_F32, t->n, 0, m->bias);
        if (has_row_scales(p, t)) {
            list[(*n)++] = part_of(".scale", FV_TYPE_F32, t->n, 0, p->row_scale);
            list[(*n)++] = part_of(".offset", FV_TYPE_I32, t->n, 0, p->row_offset);
        }
    }
    return FV_OK;
}

static uint64_t elems_of(const fv_pack_part *part)
{
    return part->shape[0] * (part->n_dims == 2 ? part->shape[1] : 1);
}

static fv_status list_one(void *user, const fv_weight *t, fv_error *err)
{
    packer *p = user;
    fv_pack_part list[FV_PACK_PARTS];
    char name[FV_PACKED_NAME];
    bool hooked;
    size_t n;
    FV_TRY(parts_of(p, t, list, &n, &hooked, err));
    for (size_t i = 0; i < n; i++) {
        fv_weight_packed_name(name, t, list[i].suffix);
        fv_gguf_add_tensor(p->out, name, list[i].type, list[i].shape, list[i].n_dims);
        p->n_listed += elems_of(&list[i]);
    }
    p->n_tensors += n;
    return FV_OK;
}

/* ---- writing ---- */

static fv_status packer_step(packer *p, uint64_t n, fv_error *err)
{
    p->n_done += n;
    return fv_progress(p->o->callbacks, "pack", (double)p->n_done / (double)p->n_listed, err);
}

static fv_status not_finite(const char *name, uint64_t n, fv_error *err)
{
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   "%s: %" PRIu64 " weights are NaN or infinite; fetch the checkpoint again", name,
                   n);
}

static uint64_t count_odd(const float *x, size_t n)
{
    uint64_t odd = 0;
    for (size_t i = 0; i < n; i++)
        odd += (uint64_t)!isfinite(x[i]);
    return odd;
}

/* Bytes that are ready: vectors, depthwise kernels, what a hook made. */
static fv_status write_ready(packer *p, const fv_pack_part *part, const char *name, fv_error *err)
{
    uint64_t n = elems_of(part),
             odd = part->type == FV_TYPE_F32 ? count_odd(part->data, (size_t)n) : 0;
    if (odd)
        return not_finite(name, odd, err);
    FV_TRY(fv_gguf_write(p->out, part->data, fv_row_bytes(part->type, (size_t)n), err));
    p->sqnr[p->at] = part->sqnr;
    return packer_step(p, n, err);
}

typedef struct slab_job {
    packer *p;
    const fv_mat *m;
    fv_type to;
    bool row_scales;
    size_t first, rows_per_task, n_rows;
    double signal[64], noise[64]; /* by task */
    uint64_t odd[64];
} slab_job;

/* Rows of a matrix -> f32 -> the wanted type; and back, for what was lost. */
static void slab_task(void *user, size_t task, unsigned worker)
{
    slab_job *j = user;
    packer *p = j->p;
    const fv_mat *m = j->m;
    size_t at = task * j->rows_per_task, rows = FV_MIN(j->rows_per_task, j->n_rows - at),
           n = rows * m->k;
    size_t room = j->rows_per_task * m->k;
    float *before = p->wide + 2 * task * room, *after = before + room;
    uint8_t *out = p->slab + task * fv_row_bytes(j->to, room);
    (void)worker;
    p->model.kernels.convert[FV_TYPE_F32][m->type](
        before, (const uint8_t *)m->data + fv_row_bytes(m->type, (j->first + at) * m->k), n);
    if (fv_type_is_block(j->to)) {
        for (size_t row = 0; row < rows; row++, out += fv_row_bytes(j->to, m->k)) {
            if (j->row_scales) {
                const size_t r = j->first + at + row;
                fv_quantize_row(out, before + row * m->k, m->k);
                fv_row_scale_read(out, m->k, &p->row_scale[r], &p->row_offset[r]);
            } else {
                fv_quantize_weights(j->to, out, before + row * m->k, m->k);
            }
            fv_dequantize_weights(j->to, after + row * m->k, out, m->k);
        }
    } else {
        p->model.kernels.convert[j->to][FV_TYPE_F32](out, before, n);
        p->model.kernels.convert[FV_TYPE_F32][j->to](after, out, n);
    }
    j->odd[task] = count_odd(before, n);
    for (size_t i = 0; i < n; i++) {
        double lost = (double)before[i] - after[i];
        j->signal[task] += (double)before[i] * before[i];
        j->noise[task] += lost * lost;
    }
}

static fv_status packer_write_matrix(packer *p, const fv_weight *t, const fv_pack_part *part,
                                     const char *name, fv_error *err)
{
    const fv_mat *m = t->slot;
    size_t tasks = FV_MIN((size_t)fv_pool_threads(p->model.pool), (size_t)64);
    size_t per_task = FV_MAX((size_t)SLAB_ROWS_ELEMS / m->k, (size_t)1), slab = tasks * per_task;
    double signal = 0, noise = 0;
    fv_status status = FV_OK;
    p->wide = fv_alloc(2 * slab * m->k, sizeof *p->wide);
    p->slab = fv_alloc(fv_row_bytes(part->type, slab * m->k), 1);
    const bool row_scales = has_row_scales(p, t);
    if (row_scales) {
        fv_free(p->row_scale);
        fv_free(p->row_offset);
        p->row_scale = fv_alloc(m->n, sizeof *p->row_scale);
        p->row_offset = fv_alloc(m->n, sizeof *p->row_offset);
    }
    if (!p->wide || !p->slab || (row_scales && !(p->row_scale && p->row_offset))) {
        status = fv_fail_memory(err, slab * m->k * 3 * sizeof *p->wide, "rows of a matrix");
        goto fail;
    }
    for (size_t row = 0; row < m->n; row += slab) {
        slab_job j = { .p = p,
                       .m = m,
                       .to = part->type,
                       .row_scales = row_scales,
                       .first = row,
                       .rows_per_task = per_task,
                       .n_rows = FV_MIN(slab, m->n - row) };
        size_t n_tasks = (j.n_rows + per_task - 1) / per_task;
        fv_pool_run(p->model.pool, n_tasks, slab_task, &j);
        for (size_t i = 0; i < n_tasks; i++) {
            signal += j.signal[i];
            noise += j.noise[i];
            if (j.odd[i]) {
                status = not_finite(name, j.odd[i], err);
                goto fail;
            }
        }
        FV_TRY_GOTO(fv_gguf_write(p->out, p->slab, fv_row_bytes(part->type, j.n_rows * m->k), err));
        FV_TRY_GOTO(packer_step(p, j.n_rows * m->k, err));
    }
    p->sqnr[p->at] = noise > 0 ? (float)(10 * log10(signal / noise)) : INFINITY;
fail:
    fv_free(p->wide);
    fv_free(p->slab);
    return status;
}

/* The source's pages are not needed again. */
static void drop(const packer *p, const void *data)
{
    for (size_t i = 0; i < fv_tensors_count(p->model.tensors); i++)
        if (fv_tensors_at(p->model.tensors, i)->data == data)
            fv_tensors_drop(p->model.tensors, fv_tensors_at(p->model.tensors, i));
}

static fv_status packer_write_one(void *user, const fv_weight *t, fv_error *err)
{
    packer *p = user;
    fv_pack_part list[FV_PACK_PARTS];
    char name[FV_PACKED_NAME];
    bool hooked, matrix = t->kind == FV_WEIGHT_MATRIX || t->kind == FV_WEIGHT_MATRIX_BIAS ||
                          t->kind == FV_WEIGHT_STEM;
    size_t n;
    for (size_t i = 0; i < p->n_hooks; i++)
        if (p->hook[i].prepare)
            FV_TRY(p->hook[i].prepare(p->hook[i].user, t, err));
    FV_TRY(parts_of(p, t, list, &n, &hooked, err));
    for (size_t i = 0; i < n; i++, p->at++) {
        if (!hooked && i == 1) /* with what writing the matrix found */
            FV_TRY(parts_of(p, t, list, &n, &hooked, err));
        fv_weight_packed_name(name, t, list[i].suffix);
        FV_TRY(matrix && !hooked && i == 0 ? packer_write_matrix(p, t, &list[i], name, err)
                                           : write_ready(p, &list[i], name, err));
        if (p->sqnr[p->at] < p->report.worst_sqnr) {
            p->report.worst_sqnr = p->sqnr[p->at];
            snprintf(p->report.worst_name, sizeof p->report.worst_name, "%.63s", name);
        }
    }
    if (matrix)
        drop(p, ((const fv_mat *)t->slot)->data);
    return FV_OK;
}

/* ---- metadata ---- */

static void packer_put_text(fv_gguf_writer *w, const char *key, const char *text)
{
    fv_gguf_put_string(w, key, text, strlen(text));
}

static void put_name(fv_gguf_writer *w, const char *checkpoint)
{
    size_t end = strlen(checkpoint);
    while (end > 1 && checkpoint[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && checkpoint[begin - 1] != '/')
        begin--;
    fv_gguf_put_string(w, "general.name", checkpoint + begin, end - begin);
}

static fv_status put_metadata(packer *p, const char *checkpoint, fv_error *err)
{
    char text[160];
    fv_gguf_writer *w = p->out;
    const char *vision = fv_precision_type_name(p->vision, FV_PART_VISION),
               *decoder = fv_precision_type_name(p->decoder, FV_PART_DECODER);
    packer_put_text(w, "general.architecture", FV_ARCHITECTURE);
    put_name(w, checkpoint);
    if (rounds(p))
        fv_gguf_put_u32(w, "general.quantization_version", 2);
    snprintf(text, sizeof text, "fastvlm %s --vision %s --decoder %s%s%s", FV_VERSION, vision,
             decoder, p->o->pure ? " --pure" : "",
             p->o->rounding == FV_ROUNDING_SEARCH ? " --rounding search"
             : p->o->rounding                     ? " --rounding calibrated"
                                                  : "");
    size_t n = strlen(text);
    const bool int8 = !strcmp(vision, "int8");
    if (p->o->min_cosine > 0 && int8)
        n += (size_t)fv_format(text + n, sizeof text - n, " --min-cosine %.7g", p->o->min_cosine);
    if (p->o->max_images > 0 && (p->rounder || int8))
        snprintf(text + n, sizeof text - n, " --max-images %d", p->o->max_images);
    packer_put_text(w, FV_ARCHITECTURE ".packed_by", text);
    packer_put_text(w, FV_ARCHITECTURE ".vision.precision", vision);
    packer_put_text(w, FV_ARCHITECTURE ".decoder.precision", decoder);
    fv_config_write_gguf(&p->model.config, w);
    if (rounds(p) && !p->rounder)
        packer_put_text(w, FV_ARCHITECTURE ".rounding.method", "search");
    for (size_t i = 0; i < p->n_hooks; i++)
        if (p->hook[i].describe)
            p->hook[i].describe(p->hook[i].user, w);
    return fv_tokenizer_write_gguf(p->model.tokenizer, w, err);
}

/* ---- all of it ---- */

static bool has_blocks(const fv_pack_options *o)
{
    return o->decoder == FV_PRECISION_Z8 || o->decoder == FV_PRECISION_Q4 ||
           o->decoder == FV_PRECISION_W8A8;
}

static bool calibrates_rounding(const fv_pack_options *o)
{
    return has_blocks(o) && (o->rounding == FV_ROUNDING_CALIBRATED ||
                             (o->rounding == FV_ROUNDING_AUTO && o->decoder == FV_PRECISION_Q4));
}

/* Of the encoder only on request: it takes long. */
static bool compensates_vision(const fv_pack_options *o)
{
    return o->rounding == FV_ROUNDING_CALIBRATED && o->vision == FV_PRECISION_INT8;
}

static fv_status options_check(const fv_pack_options *o, fv_error *err)
{
    if (o->n_threads < 0 || o->n_threads > 1024)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_threads is %d; expected 0 (all cores) to 1024",
                       o->n_threads);
    FV_TRY(fv_precision_check(o->vision, "vision", FV_PART_VISION, err));
    FV_TRY(fv_precision_check(o->decoder, "decoder", FV_PART_DECODER, err));
    if ((unsigned)o->rounding > FV_ROUNDING_CALIBRATED)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "rounding is %d; expected auto, search or calibrated", (int)o->rounding);
    if (o->rounding != FV_ROUNDING_AUTO && !has_blocks(o) && !compensates_vision(o))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "rounding is set; expected a decoder in z8, q4 or w8a8, or, calibrated, an "
                       "encoder in int8");
    if (o->n_paths && o->vision != FV_PRECISION_INT8 && !calibrates_rounding(o))
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "images are used to calibrate an int8 encoder or the rounding of a decoder; "
                       "neither was requested");
    if (!(o->min_cosine >= 0 && o->min_cosine < 1) || o->max_images < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "min_cosine is %g, max_images is %d; expected a cosine from 0 up to 1 and 0 "
                       "or more images",
                       o->min_cosine, o->max_images);
    if (o->pure && o->decoder != FV_PRECISION_Q4)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "pure is set; expected a decoder in q4");
    return FV_OK;
}

static fv_status pack_open(packer *p, const char *checkpoint, fv_error *err)
{
    if (fv_is_file(checkpoint))
        return fv_fail(err, FV_ERR_IO, 0, "%s: is a file; expected a checkpoint directory",
                       checkpoint);
    if (!fv_is_dir(checkpoint))
        return fv_fail(err, FV_ERR_IO, 0, "%s: no such directory; expected a checkpoint directory",
                       checkpoint);
    /* silent about weights that are NaN: they are refused when their turn comes */
    fv_model_options options = { .depth = FV_MODEL_STORED, .n_threads = p->o->n_threads };
    FV_TRY(fv_model_open(&p->model, checkpoint, &options, err));
    p->vision = fv_precision_type(p->o->vision, stored_type(p, false));
    p->decoder = fv_precision_type(p->o->decoder, stored_type(p, true));
    return FV_OK;
}

static fv_status packer_write_file(packer *p, const char *checkpoint, const char *file,
                                   fv_error *err)
{
    fv_outfile_leftovers(file, p->o->callbacks);
    FV_TRY(fv_gguf_writer_new(&p->out, file, err));
    FV_TRY(put_metadata(p, checkpoint, err));
    FV_TRY(fv_weights_walk(&p->model.weights, &p->model.config, list_one, p, err));
    fv_tokenizer_list_tables(p->model.tokenizer, p->out);
    p->n_tensors += FV_TOKENIZER_TENSORS;
    fv_gguf_reserve_floats(p->out, FV_ARCHITECTURE ".sqnr", p->n_tensors);
    p->sqnr = fv_alloc_zero(p->n_tensors, sizeof *p->sqnr);
    if (!p->sqnr)
        return fv_fail_memory(err, p->n_tensors * sizeof *p->sqnr, "the loss of every tensor");
    FV_TRY(fv_gguf_begin_data(p->out, err));
    p->report.worst_sqnr = INFINITY;
    FV_TRY(fv_weights_walk(&p->model.weights, &p->model.config, packer_write_one, p, err));
    FV_TRY(fv_tokenizer_write_tables(p->model.tokenizer, p->out, err));
    for (size_t i = 0; i < FV_TOKENIZER_TENSORS; i++)
        p->sqnr[p->at++] = INFINITY;
    fv_gguf_set_floats(p->out, p->sqnr, p->n_tensors);
    return fv_gguf_finish(p->out, err);
}

static void close_packer(packer *p)
{
    fv_calibration_free(p->calibration);
    fv_rounder_free(p->rounder);
    fv_gguf_writer_free(p->out);
    fv_model_close(&p->model);
    fv_free(p->sqnr);
    fv_free(p->row_scale);
    fv_free(p->row_offset);
}

/* Some weight in 8 bits. */
static bool any_int8(const fv_calibration *c)
{
    for (size_t i = 0; i < fv_calibration_group_count(c); i++)
        if (strcmp(fv_calibration_group(c, i)->choice, "bf16"))
            return true;
    return false;
}

static fv_status calibrate(packer *p, fv_error *err)
{
    const fv_pack_options *o = p->o;
    fv_calibrate_options options = { .paths = o->paths,
                                     .n_paths = o->n_paths,
                                     .max_images = o->max_images,
                                     .min_cosine = o->min_cosine,
                                     .compensate = compensates_vision(o),
                                     .callbacks = o->callbacks };
    if (p->vision == FV_TYPE_I8) {
        FV_TRY(fv_calibrate(&p->calibration, &p->model.config, &p->model.weights, &p->model.kernels,
                            p->model.pool, &options, err));
        if (any_int8(p->calibration))
            p->hook[p->n_hooks++] = fv_calibration_hook(p->calibration);
        else
            p->vision = FV_TYPE_BF16; /* and the file says so */
        p->quiet = *o->callbacks;
        p->quiet.log = NULL; /* what is broken has been said */
        options.callbacks = &p->quiet;
    }
    if (calibrates_rounding(o)) {
        const bool row_scales = p->decoder == FV_TYPE_I8;
        FV_TRY(fv_rounder_new(&p->rounder, &p->model.config, &p->model.weights, p->model.tokenizer,
                              &p->model.kernels, p->model.pool,
                              row_scales ? FV_TYPE_Q8_0 : p->decoder, row_scales, &options, err));
        p->hook[p->n_hooks++] = fv_rounder_hook(p->rounder);
    }
    return FV_OK;
}

fv_status fv_pack(const char *checkpoint, const char *file, const fv_pack_options *options,
                  fv_pack_report *report, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_pack_options o;
    fv_callbacks callbacks;
    double start = fv_now_ms();
    FV_REQUIRE(checkpoint, err);
    FV_REQUIRE(file, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_pack_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    if (report)
        FV_TRY(FV_RESULT_CHECK(report, fv_pack_report, err));
    FV_TRY(options_check(&o, err));
    FV_TRY(fv_outfile_check(file, err)); /* calibrating takes long */
    packer p = { .o = &o };
    fv_status status = pack_open(&p, checkpoint, err);
    if (status == FV_OK)
        status = calibrate(&p, err);
    if (status == FV_OK)
        status = packer_write_file(&p, checkpoint, file, err);
    if (status == FV_OK && report) {
        fv_pack_report *r = &p.report;
        r->n_tensors = p.n_tensors;
        r->n_parameters = p.n_listed;
        r->file_bytes = fv_gguf_total_bytes(p.out);
        r->ms = fv_now_ms() - start;
        if (p.rounder)
            fv_rounder_report(p.rounder, r);
        if (p.calibration)
            fv_calibration_report(p.calibration, r);
        fv_result_out(report, r, sizeof *r);
    }
    close_packer(&p);
    return status;
}

fv_status fv_eval_layers(const char *checkpoint, const fv_pack_options *options,
                         fv_layer_loss_fn *fn, void *user, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_pack_options o;
    fv_callbacks callbacks;
    FV_REQUIRE(checkpoint, err);
    FV_REQUIRE(fn, err);
    FV_TRY(FV_OPTIONS_IN(&o, fv_pack_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    o.vision = FV_PRECISION_INT8;
    o.decoder = FV_PRECISION_AUTO;
    o.rounding = FV_ROUNDING_AUTO;
    o.pure = false;
    FV_TRY(options_check(&o, err));
    packer p = { .o = &o };
    fv_status status = FV_OK;
    FV_TRY_GOTO(pack_open(&p, checkpoint, err));
    FV_TRY_GOTO(calibrate(&p, err));
    FV_TRY_GOTO(fv_calibrate_groups(p.calibration, err));
    for (size_t i = 0; i < fv_calibration_group_count(p.calibration); i++) {
        fv_layer_loss loss = *fv_calibration_group(p.calibration, i);
        loss.size = sizeof loss;
        fn(user, &loss);
    }
fail:
    close_packer(&p);
    return status;
}
