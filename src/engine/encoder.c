/* Images through the vision encoder and the projector. See encoder.h. */
#include "engine/encoder.h"

#include "base/base.h"
#include "nn/vision.h"

/* ---- the CPU's encoder ------------------------------------------------------------------- */

typedef struct cpu_scratch {
    fv_pool pool; /* the model's, limited for the current image */
    const fv_model *model;
    fv_ops ops;
    fv_vision vision;
} cpu_scratch;

static void cpu_close(void *scratch)
{
    cpu_scratch *s = scratch;
    fv_vision_free(&s->vision);
    fv_ops_free(&s->ops);
    fv_free(s);
}

static fv_status cpu_open(void **scratch, const void *context, fv_error *err)
{
    const fv_encoder *e = context;
    const fv_model *m = e->model;
    cpu_scratch *s = fv_alloc_zero(1, sizeof *s);
    if (!s)
        return fv_fail_memory(err, sizeof *s, "the encoder");
    s->model = m;
    s->pool = fv_pool_limit(m->pool, 0);
    fv_status status = fv_ops_init(&s->ops, &m->kernels, &s->pool, err);
    if (status == FV_OK)
        status = fv_vision_init(&s->vision, &m->config, &m->weights.vision, e->image_size,
                                m->vision, &s->ops, err);
    if (status != FV_OK) {
        cpu_close(s);
        return status;
    }
    *scratch = s;
    return FV_OK;
}

static fv_status cpu_run(void *scratch, float *tokens, const float *pixels, int n_threads,
                         const fv_watch *watch, fv_encode_times *times, fv_error *err)
{
    cpu_scratch *s = scratch;
    double start = fv_now_ms();
    s->pool = fv_pool_limit(s->model->pool, n_threads);
    s->ops.timed = watch->timed;
    s->ops.timed_user = watch->timed_user;
    FV_TRY(fv_vision_run(&s->vision, &s->ops, pixels, watch, err));
    double between = fv_now_ms();
    FV_TRY(fv_projector_run(&s->vision, &s->ops, tokens, watch, err));
    times->vision = between - start;
    times->projector = fv_now_ms() - between;
    return FV_OK;
}

const fv_encoder_ops fv_encoder_cpu = { "cpu", cpu_open, cpu_run, cpu_close };

/* ---- scratch, kept for the next image ---------------------------------------------------- */

void fv_encoder_init(fv_encoder *e, const fv_model *model, int image_size,
                     const fv_encoder_ops *ops, const void *context)
{
    *e = (fv_encoder){ .model = model,
                       .image_size = image_size,
                       .ops = ops ? ops : &fv_encoder_cpu,
                       .context = ops ? context : e };
    pthread_mutex_init(&e->lock, NULL);
}

static void slot_free(const fv_encoder *e, fv_encoder_slot *slot)
{
    if (slot->scratch)
        e->ops->close(slot->scratch);
    fv_free(slot->u8);
    fv_free(slot->pixels);
}

void fv_encoder_free(fv_encoder *e)
{
    if (!e->ops)
        return;
    while (e->n_idle)
        slot_free(e, &e->idle[--e->n_idle]);
    pthread_mutex_destroy(&e->lock);
    *e = (fv_encoder){ 0 };
}

static fv_status slot_open(fv_encoder *e, fv_encoder_slot *slot, fv_error *err)
{
    size_t n = (size_t)e->image_size * (size_t)e->image_size * 3;
    *slot = (fv_encoder_slot){ .u8 = fv_alloc(n, 1), .pixels = fv_alloc(n, sizeof *slot->pixels) };
    fv_status status = slot->u8 && slot->pixels
                           ? e->ops->open(&slot->scratch, e->context, err)
                           : fv_fail_memory(err, n * sizeof *slot->pixels, "pixels");
    if (status != FV_OK)
        slot_free(e, slot);
    return status;
}

static fv_status encoder_slot_take(fv_encoder *e, fv_encoder_slot *slot, fv_error *err)
{
    *slot = (fv_encoder_slot){ 0 };
    pthread_mutex_lock(&e->lock);
    if (e->n_idle)
        *slot = e->idle[--e->n_idle];
    pthread_mutex_unlock(&e->lock);
    return slot->scratch ? FV_OK : slot_open(e, slot, err);
}

fv_status fv_encoder_memory(fv_encoder *e, uint64_t *bytes, fv_error *err)
{
    fv_encoder_slot slot;
    int64_t before = fv_mem_thread_bytes();
    FV_TRY(slot_open(e, &slot, err));
    *bytes = (uint64_t)(fv_mem_thread_bytes() - before);
    slot_free(e, &slot);
    return FV_OK;
}

static void slot_return(fv_encoder *e, fv_encoder_slot *slot)
{
    bool kept = false;
    pthread_mutex_lock(&e->lock);
    if (e->n_idle < FV_ENCODER_IDLE) {
        e->idle[e->n_idle++] = *slot;
        kept = true;
    }
    pthread_mutex_unlock(&e->lock);
    if (!kept)
        slot_free(e, slot);
}

/* ---- one image --------------------------------------------------------------------------- */

static fv_status slot_encode(fv_encoder *e, fv_encoder_slot *slot, const fv_image *image,
                             const fv_encode_options *o, fv_layer_clock *clock, fv_features *out,
                             fv_error *err)
{
    size_t size = (size_t)e->image_size;
    fv_watch watch = { .callbacks = o->callbacks, .tap = o->tap, .tap_user = o->tap_user };
    fv_layer_clock_watch(clock, &watch);
    fv_pool pool = fv_pool_limit(e->model->pool, o->n_threads);
    fv_recipe recipe = fv_config_recipe(&e->model->config, o->fit, e->image_size);
    double start = fv_now_ms();
    FV_TRY(fv_preprocess(slot->pixels, slot->u8, image, &recipe, e->image_size, &pool,
                         &e->model->kernels, err));
    out->times.image = fv_image_decode_ms(image);
    out->times.preprocess = fv_now_ms() - start;
    if (fv_watch_taps(&watch))
        FV_TRY(fv_watch_bytes(&watch, "pixels_u8", slot->u8, (size_t[]){ size, size, 3 }, 3, err));
    return e->ops->run(slot->scratch, out->rows, slot->pixels, o->n_threads, &watch, &out->times,
                       err);
}

fv_status fv_encoder_encode(fv_encoder *e, const fv_image *image, const fv_encode_options *options,
                            fv_features **out, fv_error *err)
{
    fv_encoder_slot slot;
    fv_features *f = NULL;
    *out = NULL;
    if ((unsigned)options->fit > FV_FIT_STRETCH)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "fit is %d; expected pad, crop or stretch",
                       (int)options->fit);
    if (options->n_threads < 0)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "n_threads is %d; expected 0 (all) or more",
                       options->n_threads);
    FV_TRY(fv_features_alloc(&f, (size_t)fv_config_image_tokens(e->image_size),
                             (size_t)e->model->config.d_model, err));
    fv_layer_clock clock;
    fv_status status = fv_layer_clock_init(&clock, e->model, options->layer, options->layer_user,
                                           err);
    if (status == FV_OK)
        status = encoder_slot_take(e, &slot, err);
    if (status == FV_OK) {
        status = slot_encode(e, &slot, image, options, &clock, f, err);
        slot_return(e, &slot);
    }
    fv_layer_clock_free(&clock);
    if (status != FV_OK) {
        fv_features_free(f);
        return status;
    }
    *out = f;
    return FV_OK;
}
