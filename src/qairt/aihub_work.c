/* Qualcomm AI Hub: the three ONNX files uploaded, compiled for a phone, and fetched again, with
 * what is at the service kept in two ledgers. See fastvlm_qairt.h and aihub_ledger.h. */
#include "qairt/aihub_work.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/outpart.h"
#include "base/report.h"
#include "base/sha256.h"
#include "base/sized.h"
#include "npu/npu_socs.h"

#define MODELS_LEDGER "qaihub-model-ids.txt"
#define JOBS_LEDGER   "qaihub-fp16-jobs.txt"
#define FP16_OPTIONS \
    "--target_runtime qnn_context_binary --quantize_full_type float16 --truncate_64bit_io"

enum { HASHED_AT_ONCE = 8 << 20 };

const fv_aihub_name fv_aihub_names[FV_AIHUB_PARTS] = {
    [FV_AIHUB_VISION] = { "fastvlm_vision_encoder_fp32", "vision_encoder_fp32.onnx" },
    [FV_AIHUB_EMBED] = { "fastvlm_embed_tokens_fp32", "embed_tokens_fp32.onnx" },
    [FV_AIHUB_DECODER] = { "fastvlm_decoder_fixed_kv_fp32", "decoder_fixed_kv_fp32.onnx" },
};

/* What the Hub calls a device with the chip. The one of SM8750 is the reference pipeline's. */
static const struct {
    const char *soc, *device, *os;
} aihub_devices[] = {
    { "SM8550", "Samsung Galaxy S23", "" },
    { "SM8650", "Samsung Galaxy S24", "" },
    { "SM8750", "Snapdragon 8 Elite QRD", "15" },
    { "SM8850", "Snapdragon 8 Elite Gen 5 QRD", "" },
};

/* ---- opening ------------------------------------------------------------------------------- */

static const char *or_default(const char *text, const char *otherwise)
{
    return text && *text ? text : otherwise;
}

static fv_status hub_make_folder(const fv_aihub *h, fv_error *err)
{
    char *inside = fv_out_path(h->o.ledger_dir, "/x");
    size_t n_made;
    if (!inside)
        return fv_fail_memory(err, strlen(h->o.ledger_dir), "a path");
    fv_status status = fv_out_make_parents(inside, &n_made, err);
    fv_free(inside);
    return status;
}

static fv_status hub_lock(fv_aihub *h, fv_error *err)
{
    h->lock = open(h->o.ledger_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (h->lock < 0)
        return fv_out_errno(err, h->o.ledger_dir, "open");
    if (flock(h->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return fv_fail(err, FV_ERR_STATE, 0,
                       "%s: another process is working with the ledgers in it", h->o.ledger_dir);
    return FV_OK;
}

static fv_status hub_text_check(const char *field, const char *text, size_t size, fv_error *err)
{
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: holds a control character", field);
    if (strlen(text) >= size)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "%s: %zu bytes, expected fewer than %zu", field,
                       strlen(text), size);
    return FV_OK;
}

static fv_status hub_device(fv_aihub *h, fv_error *err)
{
    const char *soc = or_default(h->o.soc, "SM8750");
    FV_TRY(fv_npu_soc_take(&h->soc, soc, err));
    for (size_t i = 0; i < FV_COUNT(aihub_devices); i++)
        if (strcmp(h->soc.name, aihub_devices[i].soc) == 0) {
            h->device = aihub_devices[i].device;
            h->os = aihub_devices[i].os;
        }
    if (h->o.device) { /* its newest system, unless one is named */
        h->device = h->o.device;
        h->os = "";
    }
    h->os = h->o.device_os ? h->o.device_os : h->os;
    if (!h->device)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "device: none is known for %s", soc);
    FV_TRY(hub_text_check("device", h->device, FV_AIHUB_TEXT / 2, err));
    FV_TRY(hub_text_check("device_os", h->os, FV_AIHUB_ID, err));
    const char *options = or_default(h->o.compile_options, FP16_OPTIONS);
    const char *version = h->o.qairt_version;
    if (version)
        FV_TRY(hub_text_check("qairt_version", version, FV_AIHUB_ID, err));
    FV_TRY(hub_text_check("compile_options", options,
                          sizeof h->options - FV_AIHUB_ID - sizeof " --qairt_version ", err));
    options += strspn(options, " "); /* as the client sends them */
    size_t n = strlen(options);
    while (n > 0 && options[n - 1] == ' ')
        n--;
    snprintf(h->options, sizeof h->options, "%.*s%s%s", (int)n, options,
             version ? " --qairt_version " : "", version ? version : "");
    return FV_OK;
}

void fv_aihub_close(fv_aihub *h)
{
    fv_aihub_client_close(&h->client);
    fv_aihub_ledger_free(&h->models);
    fv_aihub_ledger_free(&h->jobs);
    if (h->lock >= 0)
        close(h->lock);
}

static fv_status hub_fill(fv_aihub *h, fv_aihub_need need, fv_error *err)
{
    FV_TRY(hub_device(h, err));
    if (h->o.parts >= 1u << FV_AIHUB_PARTS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "parts: %#x has bits of no part", h->o.parts);
    h->o.parts = h->o.parts ? h->o.parts : (1u << FV_AIHUB_PARTS) - 1;
    if (need != FV_AIHUB_READS) {
        FV_TRY(fv_aihub_client_open(&h->client, &h->o, err));
        if (need == FV_AIHUB_BEGINS && !h->o.dry_run)
            FV_TRY(hub_make_folder(h, err));
        if (fv_is_dir(h->o.ledger_dir) && !h->o.dry_run)
            FV_TRY(hub_lock(h, err));
    }
    FV_TRY(fv_aihub_ledger_open(&h->models, h->o.ledger_dir, MODELS_LEDGER, err));
    return fv_aihub_ledger_open(&h->jobs, h->o.ledger_dir, JOBS_LEDGER, err);
}

fv_status fv_aihub_open(fv_aihub *h, const fv_aihub_options *options, fv_aihub_need need,
                        fv_error *err)
{
    *h = (fv_aihub){ .lock = -1 };
    FV_TRY(FV_OPTIONS_IN(&h->o, fv_aihub_options, options, err));
    FV_TRY(fv_callbacks_in(&h->callbacks, &h->o.callbacks, err));
    h->o.onnx_dir = or_default(h->o.onnx_dir, "models/fastvlm-onnx-fp32");
    h->o.ledger_dir = or_default(h->o.ledger_dir, "handoff");
    h->o.output_dir = or_default(h->o.output_dir, "models/fastvlm-qaihub-fp16-context");
    fv_status status = hub_fill(h, need, err);
    if (status != FV_OK)
        fv_aihub_close(h);
    return status;
}

bool fv_aihub_wants(const fv_aihub *h, int part) { return h->o.parts >> part & 1; }

/* ---- files --------------------------------------------------------------------------------- */
fv_status fv_aihub_hash(const fv_aihub *h, const char *path, char hex[FV_AIHUB_HASH],
                        uint64_t *n_bytes, fv_error *err)
{
    fv_sha256 sha;
    uint8_t digest[FV_SHA256_BYTES];
    fv_map map;
    fv_status status = FV_OK;

    FV_TRY(fv_map_open(&map, path, err));
    fv_sha256_begin(&sha);
    for (size_t at = 0; at < map.size && status == FV_OK; at += HASHED_AT_ONCE) {
        fv_sha256_add(&sha, map.data + at, FV_MIN(map.size - at, (size_t)HASHED_AT_ONCE));
        status = fv_progress(h->o.callbacks, "read", (double)at / (double)map.size, err);
    }
    fv_sha256_end(&sha, digest);
    fv_hex(hex, digest, sizeof digest);
    *n_bytes = map.size;
    fv_map_close(&map);
    return status;
}

void fv_aihub_since(char text[24], int64_t time)
{
    int64_t since = time > FV_AIHUB_CLOCK_S ? time - FV_AIHUB_CLOCK_S : 0;
    snprintf(text, 24, "%" PRId64, since);
}

char *fv_aihub_path(const char *dir, const char *name)
{
    char *path = fv_path_join(dir, name);
    if (!path || path[0] == '/' || path[0] == '.')
        return path;
    char *there = fv_path_join(".", path);
    fv_free(path);
    return there;
}

/* ---- account ------------------------------------------------------------------------------- */

static void account_answer(void *user, const fv_aihub_said *said)
{
    fv_aihub_account *a = user;
    snprintf(a->user, sizeof a->user, "%s", said->user);
    snprintf(a->version, sizeof a->version, "%s", said->version);
}

/* What is there; account_answer adds the rest. */
static void account_begin(fv_aihub_account *a, const fv_aihub_client *c)
{
    *a = (fv_aihub_account){ .size = sizeof *a, .has_token = c->token != NULL };
    snprintf(a->client, sizeof a->client, "%s", c->program ? c->program : "");
    snprintf(a->python, sizeof a->python, "%s", c->python ? c->python : "");
    snprintf(a->config, sizeof a->config, "%s", c->config ? c->config : "");
}

fv_status fv_aihub_find(fv_aihub_account *out, const fv_aihub_options *options, fv_error *err)
{
    fv_aihub h = { .lock = -1 };
    fv_aihub_account account;
    fv_error why;
    bool transient;
    static const char *const none[] = { NULL };

    FV_TRY(FV_RESULT_CHECK(out, fv_aihub_account, err));
    FV_TRY(FV_OPTIONS_IN(&h.o, fv_aihub_options, options, err));
    FV_TRY(fv_callbacks_in(&h.callbacks, &h.o.callbacks, err));
    FV_TRY(fv_aihub_client_look(&h.client, &h.o, err));
    account_begin(&account, &h.client);
    fv_aihub_call call = {
        .stage = "ask", .timeout_s = FV_AIHUB_QUESTION_S, .answer = account_answer, .user = &account
    };
    fv_status status = FV_OK;
    if (h.client.program)
        status = fv_aihub_ask_once(&h.client, &call, FV_AIHUB_VERSION, none, &transient, &why);
    if (status == FV_ERR_CANCELLED || status == FV_ERR_MEMORY)
        fv_fail(err, status, 0, "%s", why.message);
    else
        status = FV_OK; /* the package is missing */
    if (status == FV_OK)
        fv_result_out(out, &account, sizeof account);
    fv_aihub_close(&h);
    return status;
}

fv_status fv_aihub_check(fv_aihub_account *out, const fv_aihub_options *options, fv_error *err)
{
    fv_aihub h = { .lock = -1 };
    fv_aihub_account account;
    static const char *const none[] = { NULL };

    FV_TRY(FV_RESULT_CHECK(out, fv_aihub_account, err));
    FV_TRY(FV_OPTIONS_IN(&h.o, fv_aihub_options, options, err));
    FV_TRY(fv_callbacks_in(&h.callbacks, &h.o.callbacks, err));
    FV_TRY(fv_aihub_client_open(&h.client, &h.o, err));
    account_begin(&account, &h.client);
    fv_aihub_call call = {
        .stage = "ask", .timeout_s = FV_AIHUB_QUESTION_S, .answer = account_answer, .user = &account
    };
    fv_status status = fv_aihub_ask(&h.client, &call, FV_AIHUB_CHECK, none, NULL, err);
    if (status == FV_OK)
        fv_result_out(out, &account, sizeof account);
    fv_aihub_close(&h);
    return status;
}

/* ---- what the ledgers say ------------------------------------------------------------------ */

fv_status fv_aihub_item(fv_aihub_item_info *out, fv_aihub_part part,
                        const fv_aihub_options *options, fv_error *err)
{
    fv_aihub h;
    fv_aihub_model m;
    fv_aihub_job j;
    fv_aihub_item_info item = { .size = sizeof item };

    FV_TRY(FV_RESULT_CHECK(out, fv_aihub_item_info, err));
    if ((int)part < 0 || (int)part >= FV_AIHUB_PARTS)
        return fv_fail(err, FV_ERR_ARGUMENT, 0, "part: %d is not one", (int)part);
    FV_TRY(fv_aihub_open(&h, options, FV_AIHUB_READS, err));
    item.name = fv_aihub_names[part].name;
    fv_status status = fv_aihub_model_find(&m, &h.models, item.name, err);
    if (status == FV_OK) {
        fv_aihub_job_find(&j, &h.jobs, item.name);
        memcpy(item.model_id, m.model_id, sizeof item.model_id);
        memcpy(item.job_id, j.job_id, sizeof item.job_id);
        memcpy(item.job_status, j.status, sizeof item.job_status);
        memcpy(item.message, j.message, sizeof item.message);
        memcpy(item.url, j.url, sizeof item.url);
        if (j.file[0])
            snprintf(item.file, sizeof item.file, "%s/%s/%s", h.o.output_dir, item.name, j.file);
        item.file_bytes = j.file[0] ? j.file_bytes : 0;
        fv_result_out(out, &item, sizeof item);
    }
    fv_aihub_close(&h);
    return status;
}
