/* Opening a model. See model.h. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "base/sniff.h"
#include "model/config_gguf.h"
#include "model/precision.h"
#include "text/template.h"
#include "text/tokenizer_gguf.h"

/* ---- what is stored ---- */

static bool model_is_table(const fv_tensor *x) /* of a packed tokenizer, not a weight */
{
    return !strncmp(x->name, "tokenizer.", 10);
}

/* Of a type that weights may have: not a counter, a mask, or what nobody reads. */
static bool model_holds_weights(const fv_tensor *x)
{
    return x->type != FV_TYPE_I64 && x->type != FV_TYPE_I32 && x->type != FV_TYPE_U8 &&
           x->type != FV_TYPE_OTHER;
}

/* The type that all tensors of at least n_dims share; those known to be unused do not count. */
static const char *model_common_type(const fv_model *m, int n_dims)
{
    const char *name = NULL;
    bool bound = m->weights.n_parameters > 0;
    for (size_t i = 0; i < fv_tensors_count(m->tensors); i++) {
        const fv_tensor *x = fv_tensors_at(m->tensors, i);
        if (!model_holds_weights(x) || model_is_table(x) || x->n_dims < n_dims ||
            (bound && !m->weights.used[i]))
            continue;
        if (name && strcmp(name, fv_type_name(x->type)))
            return "mixed";
        name = fv_type_name(x->type);
    }
    return name ? name : "none";
}

const char *fv_model_stored_type(const fv_model *m) { return model_common_type(m, 0); }

/* ---- precision ---- */

static bool part_is_decoder(fv_part part) { return part == FV_PART_DECODER; }

static const char *part_name(fv_part part) { return part_is_decoder(part) ? "decoder" : "vision"; }

/* A checkpoint's weights are converted to what is asked for. When nothing is, bf16 stays where the
 * processor multiplies it fast, and f16 in the decoder, whose time goes into reading weights. Only
 * matrices count: vectors become f32, and a buffer of angles in f32 is none of either. */
static fv_type checkpoint_type(const fv_model *m, fv_part part, fv_precision wanted)
{
    const char *stored = model_common_type(m, 2);
    if (wanted != FV_PRECISION_AUTO)
        return fv_precision_type(wanted, FV_TYPE_F32);
    if (!strcmp(stored, fv_type_name(FV_TYPE_BF16)) && m->kernels.fast_bf16)
        return FV_TYPE_BF16;
    if (!strcmp(stored, fv_type_name(FV_TYPE_F16)) && part_is_decoder(part))
        return FV_TYPE_F16;
    return FV_TYPE_F32;
}

static fv_status check_float(const fv_model *m, fv_part part, fv_precision wanted, fv_error *err)
{
    return wanted == FV_PRECISION_AUTO || fv_precision_is_float(wanted)
               ? FV_OK
               : fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                         "%s: a checkpoint directory runs in f32, bf16 or f16; %s in %s needs a "
                         "packed file",
                         m->name, part_name(part), fv_precision_name(wanted));
}

/* What a packed file says the part is packed in. */
static fv_status packed_precision(const fv_model *m, fv_part part, fv_precision *out, fv_error *err)
{
    char key[64], list[FV_PRECISION_LIST], name[16];
    const char *text = "";
    size_t n = 0;
    snprintf(key, sizeof key, FV_ARCHITECTURE ".%s.precision", part_name(part));
    FV_TRY(fv_gguf_string(m->packed, key, &text, &n, err));
    snprintf(name, sizeof name, "%.*s", (int)FV_MIN(n, sizeof name), text);
    if (fv_precision_parse(name, out) && fv_precision_fits(*out, part))
        return FV_OK;
    return fv_fail(err, FV_ERR_UNSUPPORTED, 0, "%s: %s is \"%.*s\"; expected %s", m->name, key,
                   (int)FV_MIN(n, (size_t)40), text, fv_precision_list(list, part));
}

/* A packed file runs in its own precision, or in f32 where widening costs nothing: weights are
 * widened as they are read. bf16 is widened when nothing was asked for and this processor
 * multiplies f32 faster. */
static fv_status choose_packed_type(const fv_model *m, fv_part part, fv_precision wanted,
                                    fv_type *out, fv_error *err)
{
    fv_precision stored = FV_PRECISION_AUTO;
    FV_TRY(packed_precision(m, part, &stored, err));
    bool can_widen = stored == FV_PRECISION_BF16 || stored == FV_PRECISION_F16,
         widen = wanted == FV_PRECISION_F32 ||
                 (wanted == FV_PRECISION_AUTO && stored == FV_PRECISION_BF16 &&
                  !m->kernels.fast_bf16);
    if (wanted != FV_PRECISION_AUTO && wanted != stored && !(widen && can_widen))
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "%s: %s is packed in %s, which runs in %s%s, not in %s", m->name,
                       part_name(part), fv_precision_name(stored), fv_precision_name(stored),
                       can_widen ? " or f32" : " only", fv_precision_name(wanted));
    *out = widen && can_widen ? FV_TYPE_F32 : fv_precision_type(stored, FV_TYPE_F32);
    return FV_OK;
}

static fv_status choose_types(fv_model *m, const fv_model_options *o, fv_error *err)
{
    if (o->depth < FV_MODEL_LAYOUT)
        return FV_OK;
    if (m->packed) {
        FV_TRY(choose_packed_type(m, FV_PART_VISION, o->vision, &m->vision, err));
        return choose_packed_type(m, FV_PART_DECODER, o->decoder, &m->decoder, err);
    }
    m->vision = checkpoint_type(m, FV_PART_VISION, o->vision);
    m->decoder = checkpoint_type(m, FV_PART_DECODER, o->decoder);
    return FV_OK;
}

/* ---- text: config and tokenizer ---- */

bool fv_end_tokens_have(const fv_end_tokens *ends, int32_t id)
{
    for (int i = 0; i < ends->n; i++)
        if (ends->id[i] == id)
            return true;
    return false;
}

static void end_tokens_add(fv_end_tokens *ends, int32_t id)
{
    if (id >= 0 && !fv_end_tokens_have(ends, id))
        ends->id[ends->n++] = id;
}

fv_end_tokens fv_end_tokens_of(const fv_config *c, const fv_tokenizer *t)
{
    fv_end_tokens ends = { .n = 0 };
    for (int i = 0; i < c->n_eos; i++)
        end_tokens_add(&ends, c->eos[i]);
    end_tokens_add(&ends, fv_tokenizer_find(t, "<|im_end|>"));
    end_tokens_add(&ends, fv_tokenizer_find(t, "<|endoftext|>"));
    return ends;
}

static fv_status check_tokenizer(const fv_model *m, fv_error *err)
{
    int32_t id;
    if (fv_tokenizer_size(m->tokenizer) > m->config.n_vocab)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: the tokenizer has %d tokens, more than vocab_size %d; the files belong "
                       "to different models",
                       m->name, (int)fv_tokenizer_size(m->tokenizer), m->config.n_vocab);
    /* the reference finds images by one and writes their places with the other */
    id = fv_tokenizer_find(m->tokenizer, "<image>");
    if (m->config.image_token >= 0 && id >= 0 && id != m->config.image_token)
        return fv_fail(err, FV_ERR_FORMAT, 0,
                       "%s: image_token_index is %d; expected %d, the tokenizer's <image>", m->name,
                       (int)m->config.image_token, (int)id);
    FV_TRY(fv_model_token(m, "<|im_start|>", &id, err));
    return fv_model_token(m, "<|im_end|>", &id, err);
}

static fv_status model_open_text(fv_model *m, const fv_callbacks *callbacks, fv_error *err)
{
    if (m->packed) {
        FV_TRY(fv_config_read_gguf(&m->config, m->packed, err));
        FV_TRY(fv_tokenizer_open_gguf(&m->tokenizer, m->packed, err));
    } else {
        FV_TRY(fv_config_load(&m->config, m->name, err));
        FV_TRY(fv_tokenizer_load_dir(&m->tokenizer, m->name, callbacks, err));
        if (m->config.layout == FV_LAYOUT_FAST_VLM)
            FV_TRY(fv_template_check(m->name, callbacks, err));
        fv_end_tokens ends = fv_end_tokens_of(&m->config, m->tokenizer);
        FV_TRY(fv_config_check_unread(&m->config, m->name, ends.id, ends.n, callbacks, err));
    }
    return check_tokenizer(m, err);
}

/* ---- weights ---- */

static fv_status bind_packed(fv_model *m, fv_error *err)
{
    FV_TRY(fv_weights_bind(&m->weights, &m->config, m->tensors, err));
    for (size_t i = 0; i < fv_tensors_count(m->tensors); i++)
        if (model_is_table(fv_tensors_at(m->tensors, i)))
            m->weights.used[i] = m->weights.mapped[i] = true;
    return FV_OK;
}

/* Layers of the decoder that are stored and that the configuration does not have: transformers says
 * so, too, and goes on. */
static void layers_warn(const fv_model *m, const fv_callbacks *callbacks)
{
    static const char part[] = ".layers.";
    for (size_t i = 0; i < fv_tensors_count(m->tensors); i++) {
        const char *at = strstr(fv_tensors_at(m->tensors, i)->name, part);
        long layer = at ? strtol(at + sizeof part - 1, NULL, 10) : -1;
        if (m->weights.used[i] || layer < m->config.n_layers)
            continue;
        fv_log(
            callbacks, FV_LOG_WARNING,
            "config.json: num_hidden_layers is %d; the checkpoint has a layer %ld, %s and others "
            "are not used",
            m->config.n_layers, layer, fv_tensors_at(m->tensors, i)->name);
        return;
    }
}

static fv_status load_checkpoint(fv_model *m, const fv_model_options *o, fv_error *err)
{
    bool run = o->depth >= FV_MODEL_LAYOUT;
    fv_weight_options options = {
        /* f32 leaves every matrix where it is mapped, in its stored type */
        .vision = run ? m->vision : FV_TYPE_F32,
        .decoder = run ? m->decoder : FV_TYPE_F32,
        .kernels = &m->kernels,
        .pool = m->pool,
        .callbacks = o->callbacks,
    };
    return o->depth == FV_MODEL_LAYOUT
               ? fv_weights_measure(&m->weights, &m->config, m->tensors, &options, err)
               : fv_weights_load(&m->weights, &m->config, m->tensors, &options, err);
}

/* ---- pages of the weights that are mapped ---- */

static fv_status model_prefault(const fv_model *m, const fv_callbacks *callbacks, fv_error *err)
{
    enum { STEP_BYTES = 8 << 20 };
    uint64_t total = 1, done = 0;
    for (size_t i = 0; i < fv_tensors_count(m->tensors); i++)
        total += m->weights.mapped[i] ? fv_tensors_at(m->tensors, i)->n_bytes : 0;
    for (size_t i = 0; i < fv_tensors_count(m->tensors); i++) {
        const fv_tensor *x = fv_tensors_at(m->tensors, i);
        for (uint64_t at = 0; m->weights.mapped[i] && at < x->n_bytes; at += STEP_BYTES) {
            size_t n = (size_t)FV_MIN((uint64_t)STEP_BYTES, x->n_bytes - at);
            FV_TRY(fv_progress(callbacks, "prefault", (double)done / (double)total, err));
            fv_pages_touch((const uint8_t *)x->data + at, n);
            done += n;
        }
    }
    return fv_progress(callbacks, "prefault", 1, err);
}

/* A container's limit is not the system's to refuse: it would end the process instead. */
static fv_status model_check_lock(const fv_model *m, fv_error *err)
{
    fv_memory_limits limits = fv_memory_of_process("");
    uint64_t need = fv_weights_owned_bytes(&m->weights);
    for (size_t i = 0; i < fv_tensors_count(m->tensors); i++)
        need += m->weights.mapped[i] ? fv_tensors_at(m->tensors, i)->n_bytes : 0;
    if (!limits.limited || need <= limits.available_bytes)
        return FV_OK;
    return fv_fail(err, FV_ERR_LIMIT, 0,
                   "%" PRIu64 " bytes cannot be locked in memory: the container has %" PRIu64
                   " left of %" PRIu64,
                   need, limits.available_bytes, limits.total_bytes);
}

static fv_status model_lock(fv_model *m, fv_error *err)
{
    fv_error why = { 0 };
    fv_status status = model_check_lock(m, &why);
    if (status == FV_OK)
        status = fv_weights_lock(&m->weights, &why);
    for (size_t i = 0; i < fv_tensors_count(m->tensors) && status == FV_OK; i++) {
        const fv_tensor *x = fv_tensors_at(m->tensors, i);
        if (m->weights.mapped[i])
            status = fv_pages_lock(x->data, (size_t)x->n_bytes, &why);
        m->locked = true;
    }
    return status == FV_OK ? FV_OK : fv_fail(err, status, 0, "%s: %s", m->name, why.message);
}

/* What is mapped or owned is unlocked by going away; what the caller lends stays. */
static void model_unlock(const fv_model *m)
{
    if (!m->locked || !m->packed || !fv_gguf_is_borrowed(m->packed))
        return;
    for (size_t i = 0; i < fv_tensors_count(m->tensors); i++) {
        const fv_tensor *x = fv_tensors_at(m->tensors, i);
        if (m->weights.mapped[i])
            fv_pages_unlock(x->data, (size_t)x->n_bytes);
    }
}

static fv_status model_open_weights(fv_model *m, const fv_model_options *o, fv_error *err)
{
    m->owns_pool = !o->pool;
    m->pool = o->pool;
    if (m->owns_pool)
        FV_TRY(o->threads ? fv_pool_share(&m->pool, o->threads, err)
                          : fv_pool_new(&m->pool, o->n_threads, err));
    if (!m->packed)
        FV_TRY(fv_tensors_open(&m->checkpoint, m->name, err));
    m->tensors = m->packed ? fv_gguf_tensors(m->packed) : m->checkpoint;
    FV_TRY(choose_types(m, o, err));
    FV_TRY(fv_progress(o->callbacks, "open", 0, err));
    FV_TRY(m->packed ? bind_packed(m, err) : load_checkpoint(m, o, err));
    if (!m->packed)
        layers_warn(m, o->callbacks);
    m->config.tied = m->weights.tied; /* as bound: a missing head makes it so */
    FV_TRY(fv_progress(o->callbacks, "open", 1, err));
    if (o->prefault)
        FV_TRY(model_prefault(m, o->callbacks, err));
    return o->lock ? model_lock(m, err) : FV_OK;
}

/* ---- opening ---- */

static fv_status model_open_parts(fv_model *m, const fv_model_options *o, fv_error *err)
{
    fv_kernels_notes notes;
    m->cpu = fv_cpu_level(NULL);
    fv_kernels_open(&m->kernels, m->cpu, &notes);
    if (notes.fault[0])
        fv_log(o->callbacks, FV_LOG_WARNING,
               "this processor gives wrong results, so kernels were replaced: %s", notes.fault);
    if (notes.ignored)
        fv_log(o->callbacks, FV_LOG_WARNING, "FV_BF16=%s is neither fast nor slow; it is ignored",
               notes.ignored);
    if (!m->packed) { /* before anything is read */
        FV_TRY(check_float(m, FV_PART_VISION, o->vision, err));
        FV_TRY(check_float(m, FV_PART_DECODER, o->decoder, err));
    }
    FV_TRY(model_open_text(m, o->callbacks, err));
    return o->depth == FV_MODEL_TEXT ? FV_OK : model_open_weights(m, o, err);
}

static fv_status model_open_named(fv_model *m, const char *name, const fv_model_options *o,
                                  fv_error *err)
{
    fv_status status = FV_OK;
    if (!(m->name = fv_strdup(name)))
        status = fv_fail_memory(err, strlen(name), "the name of a model");
    else
        status = model_open_parts(m, o, err);
    if (status != FV_OK)
        fv_model_close(m);
    return status;
}

enum { MESSAGE_BYTES = 1024 };

/* Readers of a checkpoint begin a message with the name of the file; where several models are
 * open, its directory says which. */
static void message_name_dir(char text[MESSAGE_BYTES], const char *dir, const char *message)
{
    char name[256];
    size_t n = strcspn(message, ":, ");
    snprintf(name, sizeof name, "%.*s", (int)n, message);
    char *path = n && n < sizeof name && *name != '/' ? fv_path_join(dir, name) : NULL;
    bool inside = path && fv_is_file(path);
    bool tensor = !strncmp(message, "tensor ", 7); /* one that no file has */
    snprintf(text, MESSAGE_BYTES, "%s%s%s",
             inside   ? path
             : tensor ? dir
                      : "",
             tensor ? ": " : "", inside ? message + n : message);
    fv_free(path);
}

typedef struct directory_log {
    const char *dir;
    const fv_callbacks *to;
} directory_log;

static void directory_on_log(void *user, fv_log_level level, const char *message)
{
    const directory_log *l = user;
    char text[MESSAGE_BYTES];
    message_name_dir(text, l->dir, message);
    fv_log(l->to, level, "%s", text);
}

static bool directory_on_progress(void *user, const char *stage, double done)
{
    const directory_log *l = user;
    return l->to->progress && l->to->progress(l->to->user, stage, done);
}

static fv_status model_open_directory(fv_model *m, const char *dir, const fv_model_options *o,
                                      fv_error *err)
{
    directory_log log = { dir, o->callbacks };
    const fv_callbacks callbacks = { .size = sizeof callbacks,
                                     .log = directory_on_log,
                                     .progress = directory_on_progress,
                                     .user = &log };
    fv_model_options options = *o;
    fv_error why;
    if (o->callbacks)
        options.callbacks = &callbacks;
    fv_status status = model_open_named(m, dir, &options, &why);
    if (status == FV_OK)
        return FV_OK;
    char text[MESSAGE_BYTES];
    message_name_dir(text, dir, why.message);
    return fv_fail(err, status, why.at, "%s", text);
}

/* A file of a checkpoint in place of the directory: weights alone cannot run. */
static fv_status refuse_checkpoint_file(const char *path, fv_error *err)
{
    fv_map map;
    FV_TRY(fv_map_open(&map, path, err));
    fv_sniff found = fv_sniff_bytes(map.data, map.size);
    fv_map_close(&map);
    if (found.kind != FV_FILE_SAFETENSORS && found.kind != FV_FILE_JSON)
        return FV_OK;
    return fv_fail(err, FV_ERR_FORMAT, 0,
                   "%s: this is %s, one file of a checkpoint; expected the directory that contains "
                   "it with config.json and the tokenizer, or a packed file",
                   path, found.name);
}

fv_status fv_model_open(fv_model *m, const char *path, const fv_model_options *options,
                        fv_error *err)
{
    fv_gguf *packed = NULL;
    *m = (fv_model){ 0 };
    if (fv_is_dir(path))
        return model_open_directory(m, path, options, err);
    FV_TRY(fv_path_check(path, err));
    if (!fv_is_file(path))
        return fv_fail(err, FV_ERR_IO, 0,
                       "%s: no such model; expected a checkpoint directory or a packed file", path);
    FV_TRY(refuse_checkpoint_file(path, err));
    FV_TRY(fv_gguf_open(&packed, path, err));
    return fv_model_open_packed(m, packed, options, err);
}

fv_status fv_model_open_packed(fv_model *m, fv_gguf *packed, const fv_model_options *options,
                               fv_error *err)
{
    *m = (fv_model){ .packed = packed };
    return model_open_named(m, fv_gguf_name(packed), options, err);
}

void fv_model_close(fv_model *m)
{
    model_unlock(m);
    fv_weights_free(&m->weights);
    fv_tensors_free(m->checkpoint);
    fv_tokenizer_free(m->tokenizer); /* may point into the packed file */
    fv_gguf_free(m->packed);
    if (m->owns_pool)
        fv_pool_free(m->pool);
    fv_free(m->name);
    *m = (fv_model){ 0 };
}

/* ---- asking ---- */

uint64_t fv_model_mapped_bytes(const fv_model *m)
{
    size_t n_bytes, data_at;
    if (!m->packed)
        return m->checkpoint ? fv_tensors_mapped_bytes(m->checkpoint) : 0;
    fv_gguf_bytes(m->packed, &n_bytes, &data_at);
    return fv_gguf_copied_bytes(m->packed) ? 0 : n_bytes;
}

fv_status fv_model_token(const fv_model *m, const char *text, int32_t *id, fv_error *err)
{
    *id = fv_tokenizer_find(m->tokenizer, text);
    return *id >= 0 ? FV_OK
                    : fv_fail(err, FV_ERR_FORMAT, 0,
                              "%s: the tokenizer has no %s; expected Qwen2's", m->name, text);
}

bool fv_model_has_file(const fv_model *m, const char *name)
{
    char *path = m->packed ? NULL : fv_path_join(m->name, name);
    bool found = path && fv_is_file(path);
    fv_free(path);
    return found;
}
