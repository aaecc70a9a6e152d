/* An image and a question through Qualcomm's programs on the phone. See fastvlm_device.h. */
#include <string.h>

#include "base/sized.h"
#include "device/device_sdk.h"
#include "device/phone_runner.h"
#include "qairt/qairt_way.h"

/* The SDK's programs and libraries onto the phone. */
static fv_status tools_send(fv_device *d, const fv_sdk *sdk, bool skip, fv_error *err)
{
    fv_push_set set = { 0 };

    if (!d->facts.has_chip)
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: the phone's chip (%s, board %s) is not one whose Hexagon is known",
                       d->serial, d->facts.soc[0] ? d->facts.soc : "not named",
                       d->facts.platform[0] ? d->facts.platform : "not named");
    fv_status status = fv_device_sdk_programs(&set, sdk->dir, d->facts.chip.htp_version, "qairt",
                                              d->adb.callbacks, err);
    if (status == FV_OK)
        status = fv_device_set_send(d, &set, skip, err);
    fv_push_set_free(&set);
    return status;
}

static fv_status phone_way_run(fv_device *d, const fv_image *image, const char *prompt,
                               size_t n_prompt_bytes, const fv_qairt_run_options *run,
                               const fv_qairt_options *o, bool skip, fv_qairt_run_report *report,
                               fv_error *err)
{
    fv_phone_runner phone;
    fv_sdk sdk;

    FV_TRY(fv_sdk_open(&sdk, o, err));
    fv_status status = tools_send(d, &sdk, skip, err);
    if (status == FV_OK)
        status = fv_device_job_end(d, err);
    if (status == FV_OK)
        status = fv_phone_runner_open(&phone, d, skip, err);
    if (status == FV_OK) {
        const fv_qairt_way way = {
            .npu = &phone.runner, .cpu = &phone.runner, .sdk = &sdk, .run = run, .options = o
        };
        status = fv_qairt_way_run(&way, image, prompt, n_prompt_bytes, report, err);
        fv_phone_runner_close(&phone);
    }
    fv_sdk_close(&sdk);
    return status;
}

fv_status fv_device_run_qairt(fv_device *d, const fv_image *image, const char *prompt,
                              size_t n_prompt_bytes, const fv_qairt_run_options *run,
                              const fv_qairt_options *options, bool skip_push,
                              fv_qairt_run_report *report, fv_error *err)
{
    fv_qairt_run_options r;
    fv_qairt_options o;
    fv_callbacks callbacks;

    FV_REQUIRE(d, err);
    FV_REQUIRE(image, err);
    if (n_prompt_bytes)
        FV_REQUIRE(prompt, err);
    if (report)
        FV_TRY(FV_RESULT_CHECK(report, fv_qairt_run_report, err));
    FV_TRY(fv_qairt_run_options_in(&r, run, err));
    FV_TRY(fv_qairt_options_in(&o, &callbacks, options, err));
    d->adb.callbacks = o.callbacks;
    d->adb.stage = "phone";
    fv_status status = phone_way_run(d, image, prompt, n_prompt_bytes, &r, &o, skip_push, report,
                                     err);
    d->adb.callbacks = NULL;
    return status;
}
