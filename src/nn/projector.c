/* features f32 [T, n_features] -> image tokens f32 [T, d_model]: y = W2 gelu(W1 x + b1) + b2.
 * docs/model.md, section 4. */
#include "nn/vision.h"

fv_status fv_projector_run(fv_vision *v, const fv_ops *ops, float *tokens, const fv_watch *watch, fv_error *err)
{
    const fv_mat *w1 = &v->w->project1, *w2 = &v->w->project2;
    size_t t = (size_t)fv_config_image_tokens(v->image_size);
    const void *x = v->features;
    if (v->act != FV_TYPE_F32) {
        ops->k->convert[v->act][FV_TYPE_F32](v->map[0], v->features, t * w1->k);
        x = v->map[0];
    }
    fv_linear first = { .w = w1, .y = v->map[1], .ldy = w1->n, .y_type = v->act, .act = FV_ACT_GELU };
    fv_linear_run(ops, &first, 1, x, v->act, w1->k, t);
    fv_linear second = { .w = w2, .y = tokens, .ldy = w2->n, .y_type = FV_TYPE_F32 };
    fv_linear_run(ops, &second, 1, v->map[1], v->act, w2->k, t);
    return fv_watch_rows(watch, "image_tokens", tokens, t, w2->n, err);
}
