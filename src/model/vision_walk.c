/* The encoder's steps, in the order in which they run. See weights.h.
 *
 *     stem, then for each stage: [cpe], block, block ..., [down], then expand, projector
 *
 * This is the one place that knows that order besides the two descriptions of the model
 * (nn/vision.c runs it, graph/ builds graphs of it): names of weights, sizes of working memory and
 * what may be in int8 all follow from it. */
#include "model/weights.h"

/* Into stage i, whose map is half as high and wide as the one before. */
static void step_enter_stage(fv_vision_step *s, const fv_config *c, int i)
{
    const fv_vision_stage *stage = &c->stage[i];
    s->stage = i;
    s->reduction = 4u << i; /* the stem halves twice, each step between stages once */
    s->block = 0;
    s->kind = stage->cpe         ? FV_VISION_CPE
              : stage->attention ? FV_VISION_ATTENTION
                                 : FV_VISION_REPMIXER;
}

bool fv_vision_walk(const fv_config *c, fv_vision_step *s)
{
    const fv_vision_stage *stage = &c->stage[s->stage];
    switch (s->kind) {
    case FV_VISION_START: *s = (fv_vision_step){ .kind = FV_VISION_STEM, .reduction = 1 }; break;
    case FV_VISION_STEM: step_enter_stage(s, c, 0); break;
    case FV_VISION_CPE:
        s->network++;
        s->kind = stage->attention ? FV_VISION_ATTENTION : FV_VISION_REPMIXER;
        break;
    case FV_VISION_REPMIXER:
    case FV_VISION_ATTENTION:
        if (++s->block < stage->depth)
            break;
        s->network++;
        s->kind = s->stage + 1 < c->n_stages ? FV_VISION_DOWN : FV_VISION_EXPAND;
        break;
    case FV_VISION_DOWN:
        s->network++;
        step_enter_stage(s, c, s->stage + 1);
        break;
    case FV_VISION_EXPAND: s->kind = FV_VISION_PROJECTOR; break;
    case FV_VISION_PROJECTOR: return false;
    }
    return true;
}

size_t fv_vision_block_count(const fv_config *c)
{
    size_t n = 0;
    for (fv_vision_step s = { 0 }; fv_vision_walk(c, &s);)
        n += s.kind == FV_VISION_REPMIXER || s.kind == FV_VISION_ATTENTION;
    return n;
}

static bool mat_is_int8(const fv_mat *m, bool fine)
{
    return m->type == FV_TYPE_I8 && (fine || !m->in.fine);
}

bool fv_vision_has_int8(const fv_config *c, const fv_vision_weights *w, bool fine)
{
    bool found = false;
    for (fv_vision_step s = { 0 }; fv_vision_walk(c, &s);) {
        const fv_vision_stage_weights *stage = &w->stage[s.stage];
        switch (s.kind) {
        case FV_VISION_ATTENTION:
            found = found || mat_is_int8(&stage->block[s.block].qkv, fine) ||
                    mat_is_int8(&stage->block[s.block].proj, fine);
            found = found || mat_is_int8(&stage->block[s.block].ffn.fc1, fine);
            break;
        case FV_VISION_REPMIXER:
            found = found || mat_is_int8(&stage->block[s.block].ffn.fc1, fine);
            break;
        case FV_VISION_DOWN: found = found || mat_is_int8(&stage->down_pw, fine); break;
        case FV_VISION_PROJECTOR:
            found = found || mat_is_int8(&w->project1, fine) || mat_is_int8(&w->project2, fine);
            break;
        default: break;
        }
    }
    return found;
}
