/* features f32 [T, n_features] -> image tokens f32 [T, d_model]: y = W2 gelu(W1 x + b1) + b2.
 * docs/model.md, section 4; T = 256, n_features = 3072, d_model = 896 at 1024 x 1024 in the 0.5B
 * model. The encoder's maps are free by now: x in its operands' type goes into the first, the
 * hidden rows [T, d_model] into the second. */
#include "nn/vision.h"

fv_status fv_projector_run(fv_vision *v, const fv_ops *ops, float *tokens, const fv_watch *watch,
                           fv_error *err)
{
    const fv_mat *w1 = &v->w->project1, *w2 = &v->w->project2;
    size_t t = (size_t)fv_config_image_tokens(v->image_size), f = w1->k, d = w1->n;
    /* x: the features as W1 takes them; h = gelu(x W1^T + b1); tokens = h W2^T + b2 */
    fv_rows x = fv_convert_run(ops, fv_rows_for(&w1->in, v->map[0], v->operand), v->features, t, f);
    fv_rows h = fv_rows_from(w1, fv_rows_for(&w2->in, v->map[1], v->operand));
    fv_linear first = {
        .w = w1, .y = h.data, .ldy = d, .y_type = h.type, .y_to_int8 = h.to_int8, .act = FV_ACT_GELU
    };
    fv_linear second = { .w = w2, .y = tokens, .ldy = d };
    fv_linear_run(ops, &first, 1, x.data, x.type, f, t);
    fv_linear_run(ops, &second, 1, h.data, h.type, d, t);
    return fv_watch_rows(watch, "image_tokens", tokens, t, d, err);
}
