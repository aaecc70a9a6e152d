/* The small files beside the graphs that transformers.js reads: configuration, processors,
 * tokenizer.
 *
 * Its class is LlavaQwen2ForCausalLM: the prompt holds one id of "<image>" for every image token,
 * so the tokenizer gets that as a special token where it has none. */
#include <stdio.h>
#include <string.h>

#include "base/outfile.h"
#include "onnx/onnx_js.h"
#include "io/json_write.h"
#include "model/processor.h"

typedef struct js_files {
    const fv_model *s;
    bool f16;
    unsigned outside;
    int32_t image, text_end, turn_end; /* <image>, <|endoftext|>, <|im_end|> */
} js_files;

/* Content is text, with "<image>\n" in front of the question. [docs/model.md, 5.2] */
static const char chat_template[] =
    "{%- for m in messages -%}"
    "{%- if loop.first and m.role != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif -%}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

static void js_config_put(const js_files *f, fv_json_text *j)
{
    const fv_config *c = &f->s->config;
    fv_json_begin_row(j, "architectures", '[');
    fv_json_put_text(j, NULL, "LlavaQwen2ForCausalLM");
    fv_json_end(j);
    fv_json_put_text(j, "model_type", "llava_qwen2");
    fv_json_put_int(j, "eos_token_id", f->turn_end);
    fv_json_put_int(j, "hidden_size", c->d_model);
    fv_json_put_int(j, "image_token_index", f->image);
    fv_json_put_int(j, "intermediate_size", c->d_ffn);
    fv_json_put_int(j, "max_position_embeddings", c->max_context);
    fv_json_put_int(j, "num_attention_heads", c->n_heads);
    fv_json_put_int(j, "num_hidden_layers", c->n_layers);
    fv_json_put_int(j, "num_key_value_heads", c->n_kv_heads);
    fv_json_put_int(j, "pad_token_id", f->text_end);
    fv_json_put_int(j, "vocab_size", c->n_vocab);
    fv_json_begin(j, "transformers.js_config", '{');
    fv_json_put_text(j, "dtype", f->f16 ? "fp16" : "fp32");
    /* how many files of weights belong to a graph */
    fv_json_begin(j, "use_external_data_format", '{');
    fv_json_put_int(j, "vision_encoder", !!(f->outside & FV_ONNX_VISION));
    fv_json_put_int(j, "embed_tokens", !!(f->outside & FV_ONNX_EMBED));
    fv_json_put_int(j, "decoder_model_merged", !!(f->outside & FV_ONNX_DECODER));
    fv_json_end(j);
    if (f->f16) {
        fv_json_begin(j, "kv_cache_dtype", '{');
        fv_json_put_text(j, "fp16", "float16");
        fv_json_end(j);
    }
    fv_json_end(j);
}

/* Both end an answer, as in this program. */
static void js_generation_put(const js_files *f, fv_json_text *j)
{
    fv_json_put_bool(j, "do_sample", false);
    fv_json_begin_row(j, "eos_token_id", '[');
    fv_json_put_int(j, NULL, f->turn_end);
    fv_json_put_int(j, NULL, f->text_end);
    fv_json_end(j);
    fv_json_put_int(j, "pad_token_id", f->text_end);
}

static void js_preprocessor_put(const js_files *f, fv_json_text *j)
{
    fv_processor_put_clip(j, &f->s->config);
}

static void js_processor_put(const js_files *f, fv_json_text *j)
{
    (void)f;
    fv_json_put_text(j, "image_token", "<image>");
    fv_json_put_int(j, "num_additional_image_tokens", 0);
    fv_json_put_int(j, "patch_size", FV_PATCH);
    fv_json_put_text(j, "processor_class", "LlavaProcessor");
    fv_json_put_text(j, "vision_feature_select_strategy", "full");
}

static void js_tokenizer_config_put(const js_files *f, fv_json_text *j)
{
    fv_json_put_text(j, "bos_token", NULL);
    fv_json_put_text(j, "chat_template", chat_template);
    fv_json_put_bool(j, "clean_up_tokenization_spaces", false);
    fv_json_put_text(j, "eos_token", "<|im_end|>");
    fv_json_put_int(j, "model_max_length", f->s->config.max_context);
    fv_json_put_text(j, "pad_token", "<|endoftext|>");
    fv_json_put_text(j, "processor_class", "LlavaProcessor");
    fv_json_put_text(j, "tokenizer_class", "Qwen2Tokenizer");
    fv_json_put_text(j, "unk_token", NULL);
}

static fv_status js_text_write(const char *dir, const char *name, const void *text, size_t n,
                               fv_error *err)
{
    char *path = fv_path_join(dir, name);
    fv_status status = path ? fv_outfile_put(path, text, n, err)
                            : fv_fail_memory(err, strlen(name), "a path");
    fv_free(path);
    return status;
}

int32_t fv_onnx_js_image_token(const fv_model *s)
{
    int32_t image = fv_tokenizer_find(s->tokenizer, "<image>");
    return image >= 0 ? image : fv_tokenizer_size(s->tokenizer);
}

fv_status fv_onnx_js_files(const fv_model *s, bool f16, unsigned outside, const char *dir,
                           fv_error *err)
{
    static const struct {
        const char *name;
        void (*put)(const js_files *, fv_json_text *);
    } files[] = { { "config.json", js_config_put },
                  { "generation_config.json", js_generation_put },
                  { "preprocessor_config.json", js_preprocessor_put },
                  { "processor_config.json", js_processor_put },
                  { "tokenizer_config.json", js_tokenizer_config_put } };
    js_files f = { .s = s, .f16 = f16, .outside = outside, .image = fv_onnx_js_image_token(s) };
    FV_TRY(fv_model_token(s, "<|endoftext|>", &f.text_end, err));
    FV_TRY(fv_model_token(s, "<|im_end|>", &f.turn_end, err));
    for (size_t i = 0; i < FV_COUNT(files); i++) {
        fv_json_text j = { 0 };
        fv_json_begin(&j, NULL, '{');
        files[i].put(&f, &j);
        fv_json_end(&j);
        fv_status status = fv_json_done(&j, err);
        if (status == FV_OK)
            status = js_text_write(dir, files[i].name, j.text, j.n, err);
        fv_json_text_free(&j);
        FV_TRY(status);
    }
    char *text = NULL;
    size_t n = 0;
    FV_TRY(
        fv_tokenizer_write(s->tokenizer, FV_FILE_TOKENIZER_JSON, "<image>", NULL, &text, &n, err));
    fv_status status = js_text_write(dir, "tokenizer.json", text, n, err);
    fv_free(text);
    return status;
}
