/* Tokens and images in order. See content.h. */
#include "engine/content.h"

#include <string.h>

#include "base/list.h"

void fv_content_free(fv_content *c)
{
    fv_content_cut(c, (fv_place){ 0 });
    fv_ids_free(&c->ids);
    fv_free(c->images);
    *c = (fv_content){ 0 };
}

void fv_content_cut(fv_content *c, fv_place end)
{
    while (c->n_images > end.n_images)
        fv_features_free(c->images[--c->n_images]);
    c->ids.n = end.n_ids;
    c->n_rows = end.n_rows;
}

fv_status fv_content_reserve(fv_content *c, size_t n_ids, size_t n_images, fv_error *err)
{
    FV_TRY(FV_LIST_ROOM(c->ids.data, c->ids.n, c->ids.capacity, n_ids, err));
    return FV_LIST_ROOM(c->images, c->n_images, c->image_capacity, n_images, err);
}

fv_status fv_content_append(fv_content *c, const int32_t *ids, size_t n_ids,
                            fv_features *const *images, fv_error *err)
{
    size_t n_images = 0;
    for (size_t i = 0; i < n_ids; i++)
        n_images += ids[i] == FV_IMAGE_MARK;
    FV_TRY(fv_content_reserve(c, n_ids, n_images, err));
    if (n_ids)
        memcpy(c->ids.data + c->ids.n, ids, n_ids * sizeof *ids);
    c->ids.n += n_ids;
    c->n_rows += n_ids - n_images;
    for (size_t i = 0; i < n_images; i++) {
        c->images[c->n_images++] = fv_features_ref(images[i]);
        c->n_rows += images[i]->n_rows;
    }
    return FV_OK;
}

fv_place fv_content_common(const fv_content *a, const fv_content *b)
{
    fv_place p = { 0 };
    while (p.n_ids < a->ids.n && p.n_ids < b->ids.n &&
           a->ids.data[p.n_ids] == b->ids.data[p.n_ids]) {
        if (a->ids.data[p.n_ids] != FV_IMAGE_MARK) {
            p.n_rows++;
        } else {
            if (!fv_features_equal(a->images[p.n_images], b->images[p.n_images]))
                break;
            p.n_rows += a->images[p.n_images++]->n_rows;
        }
        p.n_ids++;
    }
    return p;
}

fv_place fv_content_back(const fv_content *c, fv_place p, size_t n_rows)
{
    while (p.n_rows > n_rows)
        p.n_rows -= c->ids.data[--p.n_ids] == FV_IMAGE_MARK ? c->images[--p.n_images]->n_rows : 1;
    return p;
}
