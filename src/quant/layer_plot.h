/* layer_plot: where a model's time goes, layer by layer, as an SVG picture. */
#ifndef FV_LAYER_PLOT_H
#define FV_LAYER_PLOT_H

#include "base/base.h"
#include "fastvlm_tools.h"

fv_status fv_layer_plot_put(const fv_layer_bar *bars, size_t n, const char *title,
                            size_t n_title_bytes, const char *file, fv_error *err);

#endif
