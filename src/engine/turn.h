/* turn: what the user says, while it is being written: text, images and tokens in order. */
#ifndef FV_TURN_H
#define FV_TURN_H

#include "engine/features.h"
#include "text/template.h"

typedef struct fv_turn_piece {
    fv_turn_kind kind;
    size_t at, n; /* of text, of ids; images: at */
} fv_turn_piece;

typedef struct fv_turn {
    fv_turn_piece *pieces;
    size_t n_pieces, piece_capacity;
    char *text;
    size_t n_text, text_capacity;
    fv_ids ids;
    fv_features **images; /* a reference each */
    size_t n_images, image_capacity;
    size_t image_rows;
} fv_turn;

/* Zero-initialise. Each add leaves the turn as it was when it fails. Text that follows text becomes
 * one piece with it, in time that does not depend on what is there already. */
fv_status fv_turn_add_text(fv_turn *t, const char *text, size_t n_bytes, fv_error *err);
fv_status fv_turn_add_image(fv_turn *t, fv_features *features, fv_error *err); /* a reference */
fv_status fv_turn_add_ids(fv_turn *t, const int32_t *ids, size_t n, fv_error *err);
fv_status fv_turn_copy(fv_turn *to, const fv_turn *from, fv_error *err); /* to is empty */
void fv_turn_clear(fv_turn *t);                                          /* memory stays */
void fv_turn_free(fv_turn *t);

/* Appends the turn as the template writes it; its images are t->images in order. */
fv_status fv_turn_encode(const fv_turn *t, const fv_tokenizer *tokenizer, fv_ids *ids,
                         fv_error *err);

#endif
