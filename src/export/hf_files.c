/* The small files of a checkpoint directory: copied where the source has them in the same layout,
 * otherwise written from what the engine knows. Keys: docs/model.md, sections 8 and 9.2. */
#include <stdio.h>
#include <string.h>

#include "export/hf.h"
#include "io/json.h"
#include "io/json_write.h"
#include "model/processor.h"

enum { MAX_SMALL_BYTES = 256 << 20 };

typedef struct hf_files {
    const fv_model *s;
    const fv_hf_target *t;
    const char *stage;
    int positions;           /* max_position_embeddings */
    int32_t bos, start, end; /* <|endoftext|>, <|im_start|>, <|im_end|> */
} hf_files;

static const int fastvithd_layers[5] = { 2, 12, 24, 4, 2 },
                 fastvithd_widths[5] = { 96, 192, 384, 768, 1536 };

static bool is_fastvithd(const fv_config *c)
{
    bool same = c->n_stages == 5 && c->mixer_kernel == 3 && c->down_kernel == 7;
    for (int i = 0; same && i < 5; i++)
        same = c->stage[i].depth == fastvithd_layers[i] &&
               c->stage[i].width == fastvithd_widths[i] &&
               c->stage[i].hidden == 4 * c->stage[i].width && c->stage[i].attention == (i >= 3) &&
               c->stage[i].cpe == (i >= 3 ? 7 : 0);
    return same;
}

static bool is_fast(const hf_files *f) { return f->t->layout == FV_LAYOUT_FAST_VLM; }

/* ---- config.json ---- */

static void hf_put_stages(const fv_config *c, fv_json_text *j)
{
    fv_json_begin_row(j, "layers", '[');
    for (int i = 0; i < c->n_stages; i++)
        fv_json_put_int(j, NULL, c->stage[i].depth);
    fv_json_end(j);
    fv_json_begin_row(j, "embed_dims", '[');
    for (int i = 0; i < c->n_stages; i++)
        fv_json_put_int(j, NULL, c->stage[i].width);
    fv_json_end(j);
}

static void put_decoder(const hf_files *f, fv_json_text *j)
{
    const fv_config *c = &f->s->config;
    fv_json_put_real(j, "attention_dropout", 0);
    fv_json_put_int(j, "bos_token_id", f->bos);
    fv_json_put_int(j, "eos_token_id", f->end);
    fv_json_put_text(j, "hidden_act", "silu");
    fv_json_put_int(j, "hidden_size", c->d_model);
    fv_json_put_real(j, "initializer_range", 0.02);
    fv_json_put_int(j, "intermediate_size", c->d_ffn);
    fv_json_put_int(j, "max_position_embeddings", f->positions);
    fv_json_put_int(j, "max_window_layers", c->n_layers);
    fv_json_put_int(j, "num_attention_heads", c->n_heads);
    fv_json_put_int(j, "num_hidden_layers", c->n_layers);
    fv_json_put_int(j, "num_key_value_heads", c->n_kv_heads);
    fv_json_put_real(j, "rms_norm_eps", c->rms_eps);
    fv_json_put_bool(j, "tie_word_embeddings", c->tied);
    fv_json_put_bool(j, "use_cache", true);
    fv_json_put_bool(j, "use_sliding_window", false);
    fv_json_put_int(j, "vocab_size", f->t->rows);
}

static void put_fast_config(const hf_files *f, fv_json_text *j)
{
    const fv_config *c = &f->s->config;
    fv_json_begin(j, NULL, '{');
    fv_json_begin_row(j, "architectures", '[');
    fv_json_put_text(j, NULL, "FastVlmForConditionalGeneration");
    fv_json_end(j);
    fv_json_put_text(j, "model_type", "fast_vlm");
    fv_json_put_text(j, "dtype", f->t->dtype);
    fv_json_put_int(j, "image_seq_length", fv_config_image_tokens(c->image_size));
    fv_json_put_int(j, "image_token_index", f->t->image_token);
    fv_json_put_bool(j, "multimodal_projector_bias", true);
    fv_json_put_text(j, "projector_hidden_act", "gelu");
    fv_json_begin(j, "text_config", '{');
    fv_json_put_text(j, "model_type", "qwen2");
    fv_json_put_text(j, "dtype", f->t->dtype);
    put_decoder(f, j);
    fv_json_begin_row(j, "layer_types", '[');
    for (int i = 0; i < c->n_layers; i++)
        fv_json_put_text(j, NULL, "full_attention");
    fv_json_end(j);
    fv_json_begin(j, "rope_parameters", '{');
    fv_json_put_text(j, "rope_type", "default");
    fv_json_put_real(j, "rope_theta", c->rope_theta);
    fv_json_end(j);
    fv_json_put_text(j, "sliding_window", NULL);
    fv_json_end(j);
    fv_json_put_bool(j, "tie_word_embeddings", c->tied);
    fv_json_begin(j, "vision_config", '{');
    fv_json_put_text(j, "model_type", "timm_wrapper");
    fv_json_put_text(j, "architecture", "fastvit_mci3");
    fv_json_put_bool(j, "do_pooling", true);
    fv_json_put_text(j, "dtype", f->t->dtype);
    fv_json_put_text(j, "global_pool", "avg");
    fv_json_put_int(j, "hidden_size", c->n_features);
    fv_json_put_real(j, "initializer_range", 0.02);
    fv_json_begin_row(j, "label_names", '[');
    fv_json_end(j);
    fv_json_begin(j, "model_args", '{');
    fv_json_put_bool(j, "inference_mode", true);
    if (!is_fastvithd(c))
        hf_put_stages(c, j);
    fv_json_end(j);
    fv_json_put_int(j, "num_classes", 0);
    fv_json_put_int(j, "num_features", c->n_features);
    fv_json_end(j);
    fv_json_put_int(j, "vision_feature_layer", -1);
    fv_json_put_text(j, "vision_feature_select_strategy", "full");
    fv_json_end(j);
}

/* Widths that are not FastViTHD's; Apple's own files leave the object out. */
static void put_vision_config(const fv_config *c, fv_json_text *j)
{
    fv_json_begin(j, "vision_config", '{');
    fv_json_put_text(j, "model_name", "fastvithd");
    hf_put_stages(c, j);
    fv_json_begin_row(j, "mlp_ratios", '[');
    for (int i = 0; i < c->n_stages; i++)
        fv_json_put_int(j, NULL, c->stage[i].hidden / c->stage[i].width);
    fv_json_end(j);
    fv_json_begin_row(j, "token_mixers", '[');
    for (int i = 0; i < c->n_stages; i++)
        fv_json_put_text(j, NULL, c->stage[i].attention ? "attention" : "repmixer");
    fv_json_end(j);
    fv_json_begin_row(j, "pos_embs_shapes", '[');
    for (int i = 0; i < c->n_stages; i++) {
        if (!c->stage[i].cpe) {
            fv_json_put_text(j, NULL, NULL);
            continue;
        }
        fv_json_begin_row(j, NULL, '[');
        fv_json_put_int(j, NULL, c->stage[i].cpe);
        fv_json_put_int(j, NULL, c->stage[i].cpe);
        fv_json_end(j);
    }
    fv_json_end(j);
    fv_json_begin_row(j, "downsamples", '[');
    for (int i = 0; i < c->n_stages; i++)
        fv_json_put_bool(j, NULL, true);
    fv_json_end(j);
    fv_json_put_int(j, "down_patch_size", c->down_kernel);
    fv_json_put_int(j, "down_stride", 2);
    fv_json_put_int(j, "repmixer_kernel_size", c->mixer_kernel);
    fv_json_put_real(j, "cls_ratio", 2.0);
    fv_json_put_int(j, "image_size", c->image_size);
    fv_json_put_int(j, "patch_size", FV_PATCH);
    fv_json_end(j);
}

static void put_llava_config(const hf_files *f, fv_json_text *j)
{
    const fv_config *c = &f->s->config;
    char tower[64];
    snprintf(tower, sizeof tower, "mobileclip_l_%d", c->image_size);
    fv_json_begin(j, NULL, '{');
    fv_json_begin_row(j, "architectures", '[');
    fv_json_put_text(j, NULL, "LlavaQwen2ForCausalLM");
    fv_json_end(j);
    fv_json_put_text(j, "model_type", "llava_qwen2");
    fv_json_put_text(j, "torch_dtype", f->t->dtype);
    put_decoder(f, j);
    fv_json_put_real(j, "rope_theta", c->rope_theta);
    fv_json_put_int(j, "sliding_window", f->positions);
    fv_json_put_bool(j, "freeze_mm_mlp_adapter", false);
    fv_json_put_text(j, "image_aspect_ratio", c->recipe.fit == FV_FIT_PAD ? "pad" : "square");
    fv_json_put_text(j, "image_grid_pinpoints", NULL);
    fv_json_put_int(j, "mm_hidden_size", c->n_features);
    fv_json_put_text(j, "mm_patch_merge_type", "flat");
    fv_json_put_text(j, "mm_projector_lr", NULL);
    fv_json_put_text(j, "mm_projector_type", "mlp2x_gelu");
    fv_json_put_bool(j, "mm_use_im_patch_token", false);
    fv_json_put_bool(j, "mm_use_im_start_end", false);
    fv_json_put_text(j, "mm_vision_select_feature", "patch");
    fv_json_put_int(j, "mm_vision_select_layer", -2);
    fv_json_put_text(j, "mm_vision_tower", tower);
    fv_json_put_int(j, "tokenizer_model_max_length", c->max_context);
    fv_json_put_text(j, "tokenizer_padding_side", "right");
    fv_json_put_bool(j, "tune_mm_mlp_adapter", false);
    fv_json_put_bool(j, "unfreeze_mm_vision_tower", true);
    fv_json_put_bool(j, "use_mm_proj", true);
    if (!is_fastvithd(c))
        put_vision_config(c, j);
    fv_json_end(j);
}

static void hf_put_config(const hf_files *f, fv_json_text *j)
{
    if (is_fast(f))
        put_fast_config(f, j);
    else
        put_llava_config(f, j);
}

static void hf_put_generation(const hf_files *f, fv_json_text *j)
{
    fv_json_begin(j, NULL, '{');
    fv_json_put_int(j, "bos_token_id", f->bos);
    fv_json_begin_row(j, "eos_token_id", '['); /* both end an answer, as in this program */
    fv_json_put_int(j, NULL, f->end);
    fv_json_put_int(j, NULL, f->bos);
    fv_json_end(j);
    fv_json_put_int(j, "pad_token_id", f->bos);
    fv_json_end(j);
}

/* ---- processors ---- */

static void hf_put_preprocessor(const hf_files *f, fv_json_text *j)
{
    fv_json_begin(j, NULL, '{');
    fv_processor_put_clip(j, &f->s->config);
    fv_json_end(j);
}

static void hf_put_processor(const hf_files *f, fv_json_text *j)
{
    (void)f;
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "image_token", "<image>");
    fv_json_put_int(j, "num_additional_image_tokens", 0);
    fv_json_put_int(j, "patch_size", FV_PATCH);
    fv_json_put_text(j, "processor_class", "LlavaProcessor");
    fv_json_put_text(j, "vision_feature_select_strategy", "full");
    fv_json_end(j);
}

/* ---- tokenizer ---- */

#define SYSTEM_TURN "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n"

/* Renders as the template of the checkpoints that transformers' script makes. [docs/model.md,
 * 9.2] */
static const char fast_template[] =
    "{%- for m in messages -%}"
    "{%- if loop.first and m.role != 'system' -%}{{ '" SYSTEM_TURN "' }}{%- endif -%}"
    "{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- for c in m.content if c.type == 'image' -%}{{ '<image>' }}{%- endfor -%}"
    "{%- for c in m.content if c.type == 'text' -%}{{ '\\n' + c.text }}{%- endfor -%}"
    "{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

/* Content is a string, with "<image>\n" in front of the question. [docs/model.md, 5.2] */
static const char llava_template[] =
    "{%- for m in messages -%}"
    "{%- if loop.first and m.role != 'system' -%}{{ '" SYSTEM_TURN "' }}{%- endif -%}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

static void hf_put_added(fv_json_text *j, const char *key, const char *content, bool special)
{
    fv_json_begin(j, key, '{');
    fv_json_put_text(j, "content", content);
    fv_json_put_bool(j, "lstrip", false);
    fv_json_put_bool(j, "normalized", false);
    fv_json_put_bool(j, "rstrip", false);
    fv_json_put_bool(j, "single_word", false);
    fv_json_put_bool(j, "special", special);
    fv_json_end(j);
}

static void put_special_names(fv_json_text *j)
{
    fv_json_begin_row(j, "additional_special_tokens", '[');
    fv_json_put_text(j, NULL, "<|im_start|>");
    fv_json_put_text(j, NULL, "<|im_end|>");
    fv_json_end(j);
}

static void hf_put_tokenizer_config(const hf_files *f, fv_json_text *j)
{
    const fv_tokenizer *t = f->s->tokenizer;
    char key[16], text[256];
    fv_json_begin(j, NULL, '{');
    fv_json_put_bool(j, "add_prefix_space", false);
    fv_json_begin(j, "added_tokens_decoder", '{');
    for (int32_t id = 0; id < fv_tokenizer_size(t); id++) {
        size_t n;
        const char *bytes = fv_tokenizer_bytes(t, id, &n);
        if (fv_tokenizer_kind(t, id) < FV_TOKEN_ADDED || n >= sizeof text)
            continue;
        snprintf(key, sizeof key, "%d", (int)id);
        snprintf(text, sizeof text, "%.*s", (int)n, bytes);
        if (is_fast(f) || strcmp(text, "<image>"))
            hf_put_added(j, key, text, fv_tokenizer_is_special(t, id));
    }
    if (is_fast(f) && fv_tokenizer_find(t, "<image>") < 0) {
        snprintf(key, sizeof key, "%d", (int)f->t->image_token);
        hf_put_added(j, key, "<image>", true);
    }
    fv_json_end(j);
    put_special_names(j);
    fv_json_put_text(j, "bos_token", NULL);
    if (!is_fast(f))
        fv_json_put_text(j, "chat_template", llava_template);
    fv_json_put_bool(j, "clean_up_tokenization_spaces", false);
    fv_json_put_text(j, "eos_token", "<|im_end|>");
    fv_json_put_text(j, "errors", "replace");
    fv_json_put_int(j, "model_max_length", f->positions);
    fv_json_put_text(j, "pad_token", "<|endoftext|>");
    fv_json_put_text(j, "padding_side", "right");
    fv_json_put_bool(j, "split_special_tokens", false);
    fv_json_put_text(j, "tokenizer_class", "Qwen2Tokenizer");
    fv_json_put_text(j, "unk_token", NULL);
    if (is_fast(f))
        fv_json_put_text(j, "processor_class", "LlavaProcessor");
    fv_json_end(j);
}

static void put_special_tokens(const hf_files *f, fv_json_text *j)
{
    (void)f;
    fv_json_begin(j, NULL, '{');
    put_special_names(j);
    hf_put_added(j, "eos_token", "<|im_end|>", true);
    hf_put_added(j, "pad_token", "<|endoftext|>", true);
    fv_json_end(j);
}

/* ---- the list of files ---- */

enum { LLAVA = 1, FAST = 2, BOTH = 3 };

typedef struct small_file {
    const char *name;
    unsigned layouts;
    void (*put)(const hf_files *, fv_json_text *);
    int token_file; /* fv_token_file where put is NULL and template is not the file; -1: none */
} small_file;

static const small_file all_files[] = {
    { "config.json", BOTH, hf_put_config, -1 },
    { "generation_config.json", BOTH, hf_put_generation, -1 },
    { "preprocessor_config.json", BOTH, hf_put_preprocessor, -1 },
    { "processor_config.json", FAST, hf_put_processor, -1 },
    { "chat_template.jinja", FAST, NULL, -1 },
    { "tokenizer_config.json", BOTH, hf_put_tokenizer_config, -1 },
    { "special_tokens_map.json", BOTH, put_special_tokens, -1 },
    { "tokenizer.json", BOTH, NULL, FV_FILE_TOKENIZER_JSON },
    { "vocab.json", BOTH, NULL, FV_FILE_VOCAB_JSON },
    { "merges.txt", BOTH, NULL, FV_FILE_MERGES_TXT },
    { "added_tokens.json", BOTH, NULL, FV_FILE_ADDED_TOKENS_JSON },
};

static fv_status make_text(const hf_files *f, const small_file *file, fv_json_text *j,
                           fv_error *err)
{
    const char *image = "<image>";
    if (file->put) {
        file->put(f, j);
        return fv_json_done(j, err);
    }
    if (file->token_file >= 0)
        return fv_tokenizer_write(f->s->tokenizer, (fv_token_file)file->token_file,
                                  is_fast(f) ? image : NULL, is_fast(f) ? NULL : image, &j->text,
                                  &j->n, err);
    fv_json_line(j, fast_template, sizeof fast_template - 1);
    j->n -= j->n > 0; /* a newline at the end would be part of every prompt */
    return j->failed ? fv_fail_memory(err, sizeof fast_template, "the chat template") : FV_OK;
}

static fv_status hf_write_file(const hf_files *f, const small_file *file, fv_error *err)
{
    fv_json_text j = { 0 };
    fv_status status = FV_OK;
    char *to = fv_path_join(f->stage, file->name), *from = fv_path_join(f->s->name, file->name);
    bool copy = f->s->config.layout == f->t->layout && fv_model_has_file(f->s, file->name) &&
                (file->put != hf_put_config || f->t->copy_config);
    if (!to || !from)
        status = fv_fail_memory(err, strlen(f->stage), "a path");
    else if (copy)
        status = fv_read_file((uint8_t **)&j.text, &j.n, from, MAX_SMALL_BYTES, err);
    else
        status = make_text(f, file, &j, err);
    if (status == FV_OK)
        status = fv_outfile_put(to, j.text, j.n, err);
    fv_free(to);
    fv_free(from);
    fv_json_text_free(&j);
    return status;
}

/* max_position_embeddings is not part of fv_config, which holds the lesser of it and other
 * limits. */
static fv_status read_positions(hf_files *f, fv_error *err)
{
    fv_json *doc = NULL;
    const fv_json_value *text = NULL;
    int64_t positions = FV_MAX(32768, f->s->config.max_context);
    fv_status status = FV_OK;
    char *path = fv_path_join(f->s->name, "config.json");
    if (!path)
        return fv_fail_memory(err, strlen(f->s->name), "a path");
    if (fv_is_file(path)) {
        FV_TRY_GOTO(fv_json_open(&doc, path, 4 << 20, err));
        FV_TRY_GOTO(fv_json_opt_object(doc, fv_json_root(doc), "text_config", &text, err));
        FV_TRY_GOTO(fv_json_opt_int(doc, text ? text : fv_json_root(doc), "max_position_embeddings",
                                    1, INT32_MAX, &positions, err));
    }
    f->positions = (int)positions;
fail:
    fv_json_free(doc);
    fv_free(path);
    return status;
}

fv_status fv_hf_write_files(const fv_model *s, const fv_hf_target *t, const char *stage,
                            fv_error *err)
{
    hf_files f = { .s = s, .t = t, .stage = stage };
    FV_TRY(fv_model_token(s, "<|endoftext|>", &f.bos, err));
    FV_TRY(fv_model_token(s, "<|im_start|>", &f.start, err));
    FV_TRY(fv_model_token(s, "<|im_end|>", &f.end, err));
    FV_TRY(read_positions(&f, err));
    for (size_t i = 0; i < FV_COUNT(all_files); i++)
        if (all_files[i].layouts & (t->layout == FV_LAYOUT_FAST_VLM ? FAST : LLAVA))
            FV_TRY(hf_write_file(&f, &all_files[i], err));
    return FV_OK;
}
