/* Names for timed operations. See layer_clock.h. */
#include "engine/layer_clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "model/precision.h"

struct fv_layer_name {
    const void *site; /* what an fv_op_time says: a matrix, a convolution, the values of a vector */
    char text[FV_PACKED_NAME];
};

static int site_compare(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const fv_layer_name *)a)->site,
                    y = (uintptr_t)((const fv_layer_name *)b)->site;
    return x < y ? -1 : x > y;
}

static fv_status name_count(void *user, const fv_weight *w, fv_error *err)
{
    fv_layer_clock *c = user;
    (void)w;
    (void)err;
    c->n++;
    return FV_OK;
}

static fv_status name_add(void *user, const fv_weight *w, fv_error *err)
{
    fv_layer_clock *c = user;
    fv_layer_name *to = &c->names[c->n++];
    (void)err;
    to->site = w->kind == FV_WEIGHT_VECTOR ? *(const float *const *)w->slot : w->slot;
    fv_weight_packed_name(to->text, w, "");
    return FV_OK;
}

fv_status fv_layer_clock_init(fv_layer_clock *c, const fv_model *model, fv_layer_fn *fn, void *user,
                              fv_error *err)
{
    fv_weights *w = (fv_weights *)(uintptr_t)&model->weights; /* only read */
    *c = (fv_layer_clock){ .fn = fn, .user = user };
    if (!fn)
        return FV_OK;
    FV_TRY(fv_weights_walk(w, &model->config, name_count, c, err));
    c->names = fv_alloc(c->n + 1, sizeof *c->names);
    if (!c->names)
        return fv_fail_memory(err, c->n * sizeof *c->names, "the names of layers");
    c->n = 0;
    fv_status status = fv_weights_walk(w, &model->config, name_add, c, err);
    if (w->tied) /* the walk does not list it */
        c->names[c->n++] = (fv_layer_name){ &w->decoder.head, "lm_head" };
    qsort(c->names, c->n, sizeof *c->names, site_compare);
    return status;
}

void fv_layer_clock_free(fv_layer_clock *c)
{
    fv_free(c->names);
    *c = (fv_layer_clock){ 0 };
}

static const char *name_find(const fv_layer_clock *c, const void *site)
{
    const fv_layer_name key = { .site = site };
    const fv_layer_name *found = bsearch(&key, c->names, c->n, sizeof key, site_compare);
    return found ? found->text : NULL;
}

/* "vision.network.0.0.convffn" of "vision.network.0.0.convffn.fc1". */
static size_t block_length(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? (size_t)(dot - name) : strlen(name);
}

/* What name has besides the parts between dots that it begins with like first. */
static const char *name_own(const char *name, const char *first)
{
    const char *own = name;
    for (size_t i = 0; name[i] && name[i] == first[i]; i++)
        if (name[i] == '.')
            own = name + i + 1;
    return own;
}

/* "block.q_proj + k_proj + v_proj"; what has no weights is called after its kind, in the block of
 * the layer before it. */
static void op_name(fv_layer_clock *c, const fv_op_time *op, char *out, size_t size)
{
    const char *first = "";
    size_t at = 0;
    for (size_t i = 0; i < FV_COUNT(op->site) && op->site[i]; i++) {
        const char *name = name_find(c, op->site[i]);
        if (!name)
            continue;
        if (at == 0) {
            snprintf(c->block, sizeof c->block, "%.*s", (int)block_length(name), name);
            at = (size_t)snprintf(out, size, "%s", name);
            first = name;
        } else {
            at += (size_t)snprintf(out + at, size - at, " + %s", name_own(name, first));
        }
        at = FV_MIN(at, size - 1);
    }
    if (at == 0)
        snprintf(out, size, "%s%s%s", c->block, c->block[0] ? "." : "", op->kind);
}

static void clock_tell(void *user, const fv_op_time *op)
{
    fv_layer_clock *c = user;
    char name[3 * FV_PACKED_NAME];
    const fv_part part = fv_type_is_block(op->type) ? FV_PART_DECODER : FV_PART_VISION;
    op_name(c, op, name, sizeof name);
    const fv_layer layer = { .size = sizeof layer,
                             .name = name,
                             .kind = op->kind,
                             .precision = op->macs <= 0 ? ""
                                          : op->fine    ? "w8a16"
                                                        : fv_precision_type_name(op->type, part),
                             .n_rows = op->n_rows,
                             .ms = op->ms,
                             .macs = op->macs,
                             .bytes = op->bytes };
    c->fn(c->user, &layer);
}

void fv_layer_clock_watch(fv_layer_clock *c, fv_watch *watch)
{
    if (!c->fn)
        return;
    watch->timed = clock_tell;
    watch->timed_user = c;
}
