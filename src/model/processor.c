/* The image processor of a checkpoint, as preprocessor_config.json has it. See processor.h. */
#include "model/processor.h"

static void put_three(fv_json_text *j, const char *key, double value)
{
    fv_json_begin_row(j, key, '[');
    for (int i = 0; i < 3; i++)
        fv_json_put_real(j, NULL, value);
    fv_json_end(j);
}

void fv_processor_put_clip(fv_json_text *j, int side)
{
    fv_json_begin_row(j, "crop_size", '{');
    fv_json_put_int(j, "height", side);
    fv_json_put_int(j, "width", side);
    fv_json_end(j);
    fv_json_put_bool(j, "do_center_crop", true);
    fv_json_put_bool(j, "do_convert_rgb", true);
    fv_json_put_bool(j, "do_normalize", true);
    fv_json_put_bool(j, "do_rescale", true);
    fv_json_put_bool(j, "do_resize", true);
    put_three(j, "image_mean", 0);
    fv_json_put_text(j, "image_processor_type", "CLIPImageProcessor");
    put_three(j, "image_std", 1);
    fv_json_put_text(j, "processor_class", "LlavaProcessor");
    fv_json_put_int(j, "resample", 3);
    fv_json_put_real(j, "rescale_factor", 1.0 / 255);
    fv_json_begin_row(j, "size", '{');
    fv_json_put_int(j, "shortest_edge", side);
    fv_json_end(j);
}
