/* Pictures: a comparison, SQNR by depth; where time goes. */
#include <string.h>

#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/sized.h"
#include "eval/result.h"
#include "quant/depth_plot.h"
#include "quant/layer_plot.h"

fv_status fv_output_check(const char *file, fv_error *err)
{
    FV_REQUIRE(file, err);
    return fv_outfile_check(file, err);
}

fv_status fv_layers_plot(const fv_layer_bar *bars, size_t n, const char *title,
                         size_t n_title_bytes, const char *file, fv_error *err)
{
    FV_DEFAULT_FPENV;
    FV_REQUIRE(bars, err);
    FV_REQUIRE(title, err);
    FV_REQUIRE(file, err);
    if (n && bars->size != sizeof *bars)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "bars[0].size is %zu; expected %zu", bars->size,
                       sizeof *bars);
    for (size_t i = 0; i < n; i++) {
        FV_REQUIRE(bars[i].group, err);
        FV_REQUIRE(bars[i].name, err);
    }
    return fv_layer_plot_put(bars, n, title, n_title_bytes, file, err);
}

fv_status fv_eval_plot(const fv_eval *eval, const char *title, size_t n_title_bytes,
                       const char *file, fv_error *err)
{
    FV_DEFAULT_FPENV;
    static const char usual[] = "SQNR by depth";
    FV_REQUIRE(eval, err);
    FV_REQUIRE(file, err);
    size_t n = eval->info.n_stages;
    fv_depth_point *points = fv_alloc(n, sizeof *points);
    if (!points)
        return fv_fail_memory(err, n * sizeof *points, "a plot");
    for (size_t i = 0; i < n; i++) {
        const fv_eval_stage_info *s = &eval->stages[i];
        points[i] = (fv_depth_point){ s->name, { s->own.sqnr, s->ref.sqnr } };
    }
    fv_depth_plot plot = { .title = title ? title : usual,
                           .n_title_bytes = title ? n_title_bytes : strlen(usual),
                           .n_images = eval->info.n_images,
                           .line = { "own image tokens", "with the reference's image tokens" },
                           .points = points,
                           .n = n };
    fv_status status = fv_depth_plot_put(&plot, file, err);
    fv_free(points);
    return status;
}
