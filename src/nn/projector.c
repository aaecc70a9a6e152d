/* features f32 [T, n_features] -> image tokens f32 [T, d_model]: y = W2 gelu(W1 x + b1) + b2.
 * docs/model.md, section 4. */
#include "nn/vision.h"

fv_status fv_projector_run(fv_vision *v, const fv_ops *ops, float *tokens, const fv_watch *watch,
                           fv_error *err)
{
    const fv_mat *w1 = &v->w->project1, *w2 = &v->w->project2;
    size_t t = (size_t)fv_config_image_tokens(v->image_size);
    const fv_u8 *to = w2->type == FV_TYPE_I8 ? &w2->in : NULL;
    void *mid = to ? (void *)v->map8 : v->map[1];
    if (w1->type == FV_TYPE_I8) {
        fv_quantise_run(ops, (uint8_t *)v->map[0], v->features, t, w1->k, &w1->in);
        fv_linear8 first = { .w = w1,
                             .y = mid,
                             .ldy = w1->n,
                             .y_type = to ? FV_TYPE_U8 : v->act,
                             .to = to,
                             .act = FV_ACT_GELU };
        fv_linear8_run(ops, &first, (const uint8_t *)v->map[0], w1->k, t);
    } else {
        const void *x = v->features;
        fv_watch_observe(watch, w1, v->features, t, w1->k);
        if (v->act != FV_TYPE_F32) {
            ops->k->convert[v->act][FV_TYPE_F32](v->map[0], v->features, t * w1->k);
            x = v->map[0];
        }
        fv_linear first = { .w = w1,
                            .y = v->map[1],
                            .ldy = w1->n,
                            .y_type = to ? FV_TYPE_F32 : v->act,
                            .act = FV_ACT_GELU };
        fv_linear_run(ops, &first, 1, x, v->act, w1->k, t);
        if (to)
            fv_quantise_run(ops, v->map8, v->map[1], t, w2->k, to);
    }
    if (to) {
        fv_linear8 second = { .w = w2, .y = tokens, .ldy = w2->n, .y_type = FV_TYPE_F32 };
        fv_linear8_run(ops, &second, v->map8, w2->k, t);
    } else {
        fv_watch_observe(watch, w2, v->map[1], t, w2->k);
        fv_linear second = { .w = w2, .y = tokens, .ldy = w2->n, .y_type = FV_TYPE_F32 };
        fv_linear_run(ops, &second, 1, v->map[1], v->act, w2->k, t);
    }
    return fv_watch_rows(watch, "image_tokens", tokens, t, w2->n, err);
}
