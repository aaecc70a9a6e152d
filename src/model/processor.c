/* The image processor of a checkpoint, as transformers' CLIPImageProcessor reads it, and back. See
 * processor.h. A member that is absent has the class's own value, CLIP's; null is None, which is no
 * value where one is needed, and false for a flag. */
#include "model/processor.h"

#include <math.h>

#include "io/settings.h"
#include "model/config_rules.h"

enum { CLIP_SIDE = 224, MAX_SCALE = 1 << 16 };

static const float clip_mean[3] = { 0.48145466f, 0.4578275f, 0.40821073f },
                   clip_std[3] = { 0.26862954f, 0.26130258f, 0.27577711f };

/* Pillow's numbers of its filters. */
static const fv_filter filter_of[] = { FV_FILTER_NEAREST, FV_FILTER_LANCZOS, FV_FILTER_BILINEAR,
                                       FV_FILTER_BICUBIC, FV_FILTER_BOX,     FV_FILTER_HAMMING };

typedef struct reader {
    const fv_json *doc;
    const fv_json_value *root;
    fv_error *err;
} reader;

/* ---- sizes ---- */

/* Whether a member is there and null. */
static bool is_null(const reader *r, const char *key)
{
    const fv_json_value *value = fv_json_member(r->root, key);
    return value && fv_json_type_of(value) == FV_JSON_NULL;
}

/* What "size" or "crop_size" states: one number for the short edge, or height and width. */
typedef struct image_size {
    int short_edge;    /* 0: height and width */
    int height, width; /* of a square, too */
} image_size;

static fv_status size_member(const reader *r, const fv_json_value *object, const char *key,
                             int *out)
{
    int64_t value = 0;
    FV_TRY(fv_json_int(r->doc, object, key, 1, MAX_SCALE, &value, r->err));
    *out = (int)value;
    return FV_OK;
}

/* {"shortest_edge": 1024} or {"height": 1024, "width": 1024} */
static fv_status size_object(const reader *r, const char *key, const fv_json_value *object,
                             image_size *out)
{
    static const char *const others[] = { "longest_edge", "max_height", "max_width", "min_pixels",
                                          "max_pixels" };
    for (size_t i = 0; i < FV_COUNT(others); i++)
        if (fv_json_type_of(fv_json_member(object, others[i])) != FV_JSON_NULL)
            return fv_json_unexpected(r->doc, object, others[i],
                                      "null, and shortest_edge, or height and width", r->err);
    if (fv_json_type_of(fv_json_member(object, "shortest_edge")) != FV_JSON_NULL) {
        if (fv_json_count(object) != 1)
            return fv_json_unexpected(r->doc, r->root, key,
                                      "shortest_edge alone, or height and width", r->err);
        return size_member(r, object, "shortest_edge", &out->short_edge);
    }
    FV_TRY(size_member(r, object, "height", &out->height));
    return size_member(r, object, "width", &out->width);
}

/* A number is the short edge, or a square's side where `square` says so. */
static fv_status read_size(const reader *r, const char *key, bool square, image_size *out)
{
    const fv_json_value *value = fv_json_member(r->root, key);
    int64_t list[2];
    size_t n = 0;
    if (is_null(r, key))
        return fv_json_unexpected(r->doc, r->root, key, "a size", r->err);
    switch (fv_json_type_of(value)) {
    case FV_JSON_NULL: /* absent */
        *out = square ? (image_size){ 0, CLIP_SIDE, CLIP_SIDE } : (image_size){ CLIP_SIDE, 0, 0 };
        return FV_OK;
    case FV_JSON_OBJECT: *out = (image_size){ 0 }; return size_object(r, key, value, out);
    case FV_JSON_ARRAY:
        FV_TRY(fv_json_ints(r->doc, r->root, key, 1, MAX_SCALE, 2, 2, list, &n, r->err));
        *out = (image_size){ 0, (int)list[0], (int)list[1] };
        return FV_OK;
    default: break;
    }
    *out = (image_size){ 0 };
    FV_TRY(size_member(r, r->root, key, &out->short_edge));
    if (square)
        *out = (image_size){ 0, out->short_edge, out->short_edge };
    return FV_OK;
}

static fv_status read_flag(const reader *r, const char *key, bool *flag)
{
    *flag = *flag && !is_null(r, key);
    return fv_json_opt_bool(r->doc, r->root, key, flag, r->err);
}

/* The square that comes out, and how the image is scaled for it. */
static fv_status read_geometry(const reader *r, fv_config *c)
{
    fv_recipe *recipe = &c->recipe;
    bool resize = true, crop = true, square = false;
    image_size size = { 0 }, side;
    FV_TRY(read_flag(r, "do_resize", &resize));
    FV_TRY(read_flag(r, "do_center_crop", &crop));
    FV_TRY(read_flag(r, "default_to_square", &square));
    if (resize)
        FV_TRY(read_size(r, "size", square, &size));
    if (!crop && !size.height)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0,
                       "%s: do_center_crop is false; expected true, or a size with height and "
                       "width: the input is a square",
                       fv_json_name(r->doc));
    side = size;
    if (crop)
        FV_TRY(read_size(r, "crop_size", true, &side));
    if (side.short_edge || side.height != side.width)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %d x %d; expected a square",
                       fv_json_name(r->doc), crop ? "crop_size" : "size", side.width, side.height);
    if (side.height % FV_PATCH)
        return fv_fail(r->err, FV_ERR_UNSUPPORTED, 0, "%s: %s is %d; expected a multiple of %d",
                       fv_json_name(r->doc), crop ? "crop_size" : "size", side.height, FV_PATCH);
    c->image_size = side.height;
    recipe->fit = FV_FIT_CROP;
    recipe->n_scale = 0;
    if (!resize) {
        recipe->n_scale = 2;
        recipe->scale[0] = recipe->scale[1] = 0;
    } else if (size.short_edge) {
        recipe->n_scale = size.short_edge != side.height;
        recipe->scale[0] = size.short_edge;
    } else if (size.height == side.height && size.width == side.width) {
        recipe->fit = FV_FIT_STRETCH;
    } else {
        recipe->n_scale = 2;
        recipe->scale[0] = size.width;
        recipe->scale[1] = size.height;
    }
    return FV_OK;
}

static bool recipe_scales(const fv_recipe *r) { return r->n_scale < 2 || r->scale[0]; }

/* ---- numbers ---- */

/* One number for all colours, or three. */
static fv_status read_colours(const reader *r, const char *key, float colour[3])
{
    const fv_json_value *value = fv_json_member(r->root, key);
    bool each = fv_json_type_of(value) == FV_JSON_ARRAY;
    if (!value)
        return FV_OK;
    if (each && fv_json_count(value) != 3)
        return fv_json_unexpected(r->doc, r->root, key, "a number, or three", r->err);
    for (size_t i = 0; i < 3; i++) {
        double number = NAN;
        if (!fv_json_as_number(each ? fv_json_at(value, i) : value, &number) ||
            !isfinite((float)number))
            return fv_json_unexpected(r->doc, r->root, key, "a number, or three", r->err);
        colour[i] = (float)number;
    }
    return FV_OK;
}

static fv_status read_numbers(const reader *r, fv_recipe *recipe)
{
    bool rescale = true, normalize = true;
    float mean[3], std[3];
    int64_t filter = 3;
    if (recipe_scales(recipe) && is_null(r, "resample"))
        return fv_json_unexpected(r->doc, r->root, "resample", "a number from 0 to 5", r->err);
    FV_TRY(
        fv_json_opt_int(r->doc, r->root, "resample", 0, FV_COUNT(filter_of) - 1, &filter, r->err));
    recipe->filter = filter_of[filter];
    FV_TRY(read_flag(r, "do_rescale", &rescale));
    recipe->rescale = 1.0 / 255;
    if (rescale && is_null(r, "rescale_factor"))
        return fv_json_unexpected(r->doc, r->root, "rescale_factor", "a number", r->err);
    if (rescale)
        FV_TRY(fv_json_opt_number(r->doc, r->root, "rescale_factor", 1e-9, 1e9, &recipe->rescale,
                                  r->err));
    else
        recipe->rescale = 0;
    FV_TRY(read_flag(r, "do_normalize", &normalize));
    for (int i = 0; i < 3; i++) {
        mean[i] = clip_mean[i];
        std[i] = clip_std[i];
    }
    if (normalize) {
        FV_TRY(read_colours(r, "image_mean", mean));
        FV_TRY(read_colours(r, "image_std", std));
    }
    for (int i = 0; i < 3; i++) {
        if (normalize && std[i] == 0)
            return fv_json_unexpected(r->doc, r->root, "image_std", "numbers other than 0", r->err);
        recipe->mean[i] = normalize ? mean[i] : 0;
        recipe->std[i] = normalize ? std[i] : 1;
    }
    return FV_OK;
}

/* ---- the files ---- */

static fv_status read_image_processor(fv_config *c, const fv_json *doc, const fv_json_value *object,
                                      fv_error *err)
{
    reader r = { doc, object, err };
    FV_TRY(fv_settings_check(FV_SETTINGS_IMAGE_PROCESSOR, doc, object, err));
    FV_TRY(read_geometry(&r, c));
    return read_numbers(&r, &c->recipe);
}

/* The one inside processor_config.json goes before preprocessor_config.json. [transformers
 * image_processing_base, get_image_processor_dict] */
fv_status fv_processor_read(fv_config *c, const fv_json *preprocessor, const fv_json *processor,
                            fv_error *err)
{
    const fv_json_value *inner = NULL;
    if (processor) {
        const fv_json_value *root = fv_json_root(processor);
        FV_TRY(fv_settings_check(FV_SETTINGS_PROCESSOR, processor, root, err));
        FV_TRY(fv_json_opt_object(processor, root, "image_processor", &inner, err));
    }
    if (inner)
        return read_image_processor(c, processor, inner, err);
    return preprocessor ? read_image_processor(c, preprocessor, fv_json_root(preprocessor), err)
                        : FV_OK;
}

/* ---- writing ---- */

static void put_colours(fv_json_text *j, const char *key, const float colour[3])
{
    fv_json_begin_row(j, key, '[');
    for (int i = 0; i < 3; i++)
        fv_json_put_real(j, NULL, (double)colour[i]);
    fv_json_end(j);
}

static void put_size(fv_json_text *j, const char *key, int width, int height)
{
    fv_json_begin_row(j, key, '{');
    fv_json_put_int(j, "height", height);
    fv_json_put_int(j, "width", width);
    fv_json_end(j);
}

/* Images that are padded, as in the layout llava_qwen2, are cropped by a CLIPImageProcessor, which
 * cannot pad; Apple's own file says the same. */
void fv_processor_put_clip(fv_json_text *j, const fv_config *c)
{
    const fv_recipe *r = &c->recipe;
    int resample = 0, side = c->image_size;
    while (filter_of[resample] != r->filter)
        resample++;
    bool resize = recipe_scales(r);
    put_size(j, "crop_size", side, side);
    fv_json_put_bool(j, "do_center_crop", true);
    fv_json_put_bool(j, "do_convert_rgb", true);
    fv_json_put_bool(j, "do_normalize", true);
    fv_json_put_bool(j, "do_rescale", r->rescale != 0);
    fv_json_put_bool(j, "do_resize", resize);
    put_colours(j, "image_mean", r->mean);
    fv_json_put_text(j, "image_processor_type", "CLIPImageProcessor");
    put_colours(j, "image_std", r->std);
    fv_json_put_text(j, "processor_class", "LlavaProcessor");
    fv_json_put_int(j, "resample", resample);
    fv_json_put_real(j, "rescale_factor", r->rescale != 0 ? r->rescale : 1.0 / 255);
    if (r->fit == FV_FIT_STRETCH) {
        put_size(j, "size", side, side);
    } else if (r->n_scale == 2 && resize) {
        put_size(j, "size", r->scale[0], r->scale[1]);
    } else {
        fv_json_begin_row(j, "size", '{');
        fv_json_put_int(j, "shortest_edge", r->n_scale == 1 ? r->scale[0] : side);
        fv_json_end(j);
    }
}
