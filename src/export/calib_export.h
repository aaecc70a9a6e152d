/* calib_export: calibration samples for a model whose images are not FastVLM's. */
#ifndef FV_CALIB_EXPORT_H
#define FV_CALIB_EXPORT_H

#include "base/recipe.h"
#include "fastvlm_tools.h"

/* fv_export_calib with the recipe of a model; a fit in the options overrides the recipe's. */
fv_status fv_export_calib_for(const fv_recipe *recipe, const fv_calib_options *calib,
                              const char *dir, const fv_export_options *options,
                              fv_calib_report *report, fv_error *err);

#endif
