/* content: what stands in a sequence of rows, in order: tokens and images.
 *
 *     ids     token, token, FV_IMAGE_MARK, token ...     a mark is one entry, and as many rows as
 *     images  the k-th mark's features                   its features have
 *
 * A session has two: the conversation, and what the rows of its KV cache were computed from. Where
 * they agree from the start on, nothing has to be computed again. */
#ifndef FV_CONTENT_H
#define FV_CONTENT_H

#include "engine/features.h"
#include "text/template.h"

typedef struct fv_content {
    fv_ids ids;
    fv_features **images; /* [n_images], a reference each */
    size_t n_images, image_capacity;
    size_t n_rows;
} fv_content;

/* A place between two entries. */
typedef struct fv_place {
    size_t n_ids, n_images, n_rows; /* before it */
} fv_place;

/* Zero-initialise; free when done. */
void fv_content_free(fv_content *c);
static inline fv_place fv_content_end(const fv_content *c)
{
    return (fv_place){ c->ids.n, c->n_images, c->n_rows };
}
void fv_content_cut(fv_content *c, fv_place end); /* drops what stands behind */

/* Room for so many entries more, of them n_images images: pushing them cannot fail then. */
fv_status fv_content_reserve(fv_content *c, size_t n_ids, size_t n_images, fv_error *err);
/* Takes ids as the template writes them; the k-th mark among them is images[k], which gets a
 * reference. On failure c is unchanged. */
fv_status fv_content_append(fv_content *c, const int32_t *ids, size_t n_ids,
                            fv_features *const *images, fv_error *err);

/* How far a and b are the same. */
fv_place fv_content_common(const fv_content *a, const fv_content *b);
/* The last place at or before `place` with at most n_rows rows before it. */
fv_place fv_content_back(const fv_content *c, fv_place place, size_t n_rows);

#endif
