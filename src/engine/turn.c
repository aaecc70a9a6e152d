/* A user's turn. See turn.h. */
#include "engine/turn.h"

#include <string.h>

#include "base/list.h"

static void piece_add(fv_turn *t, fv_turn_kind kind, size_t at, size_t n)
{
    fv_turn_piece *last = t->n_pieces ? &t->pieces[t->n_pieces - 1] : NULL;
    if (last && last->kind == kind && kind != FV_TURN_IMAGE)
        last->n += n;
    else
        t->pieces[t->n_pieces++] = (fv_turn_piece){ kind, at, n };
}

fv_status fv_turn_add_text(fv_turn *t, const char *text, size_t n_bytes, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(t->pieces, t->n_pieces, t->piece_capacity, 1, err));
    FV_TRY(FV_LIST_ROOM(t->text, t->n_text, t->text_capacity, n_bytes, err));
    if (n_bytes)
        memcpy(t->text + t->n_text, text, n_bytes);
    piece_add(t, FV_TURN_TEXT, t->n_text, n_bytes);
    t->n_text += n_bytes;
    return FV_OK;
}

fv_status fv_turn_add_image(fv_turn *t, fv_features *features, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(t->pieces, t->n_pieces, t->piece_capacity, 1, err));
    FV_TRY(FV_LIST_ROOM(t->images, t->n_images, t->image_capacity, 1, err));
    piece_add(t, FV_TURN_IMAGE, t->n_images, 1);
    t->images[t->n_images++] = fv_features_ref(features);
    t->image_rows += features->n_rows;
    return FV_OK;
}

fv_status fv_turn_add_ids(fv_turn *t, const int32_t *ids, size_t n, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(t->pieces, t->n_pieces, t->piece_capacity, 1, err));
    FV_TRY(FV_LIST_ROOM(t->ids.data, t->ids.n, t->ids.capacity, n, err));
    if (n)
        memcpy(t->ids.data + t->ids.n, ids, n * sizeof *ids);
    piece_add(t, FV_TURN_IDS, t->ids.n, n);
    t->ids.n += n;
    return FV_OK;
}

fv_status fv_turn_copy(fv_turn *to, const fv_turn *from, fv_error *err)
{
    for (const fv_turn_piece *p = from->pieces; p < from->pieces + from->n_pieces; p++) {
        switch (p->kind) {
        case FV_TURN_TEXT: FV_TRY(fv_turn_add_text(to, from->text + p->at, p->n, err)); break;
        case FV_TURN_IMAGE: FV_TRY(fv_turn_add_image(to, from->images[p->at], err)); break;
        default: FV_TRY(fv_turn_add_ids(to, from->ids.data + p->at, p->n, err));
        }
    }
    return FV_OK;
}

void fv_turn_clear(fv_turn *t)
{
    while (t->n_images)
        fv_features_free(t->images[--t->n_images]);
    t->n_pieces = t->n_text = t->ids.n = t->image_rows = 0;
}

void fv_turn_free(fv_turn *t)
{
    fv_turn_clear(t);
    fv_free(t->pieces);
    fv_free(t->text);
    fv_ids_free(&t->ids);
    fv_free(t->images);
    *t = (fv_turn){ 0 };
}

fv_status fv_turn_encode(const fv_turn *t, const fv_tokenizer *tokenizer, fv_ids *ids,
                         fv_error *err)
{
    fv_turn_part *parts = fv_alloc(t->n_pieces, sizeof *parts);
    if (!parts)
        return fv_fail_memory(err, t->n_pieces * sizeof *parts, "the prompt");
    for (size_t i = 0; i < t->n_pieces; i++) {
        const fv_turn_piece *p = &t->pieces[i];
        parts[i] = (fv_turn_part){ .kind = p->kind, .n = p->n };
        if (p->kind == FV_TURN_TEXT)
            parts[i].text = t->text + p->at;
        else if (p->kind == FV_TURN_IDS)
            parts[i].ids = t->ids.data + p->at;
    }
    fv_status status = fv_template_user(ids, tokenizer, parts, t->n_pieces, err);
    fv_free(parts);
    return status;
}
