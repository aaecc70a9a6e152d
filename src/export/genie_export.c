/* What Qualcomm's Genie needs beside the weights.
 *
 *     genie_model.json       architecture for qnn-genai-transformer-composer, which does not know
 *                            FastVLM's class; tensors by the names of the llava_qwen2 layout
 *     genie_dialog.json      dialog of the CPU engine (QnnGenAiTransformer), embeddings as input
 *     genie_dialog_htp.json  the same for the NPU engine (QnnHtp), every mandatory key
 *     htp_backend.json       its backend extensions: an SM8750
 *
 * Genie refuses unknown keys and missing ones, so the dialogs hold what all its releases since 2.42
 * accept. [docs/export.md] */
#include <stdio.h>
#include <string.h>

#include "base/sized.h"
#include "base/fpenv.h"
#include "base/outfile.h"
#include "base/report.h"
#include "export/genie.h"

typedef struct genie {
    const fv_model *s;
    fv_genie_options set;
    fv_genie_paths paths;
    int32_t start, end, pad; /* <|im_start|>, <|im_end|>, <|endoftext|> */
} genie;

static void genie_put_tensor(fv_json_text *j, const char *key, const char *name, bool transposed)
{
    fv_json_begin(j, key, '{');
    fv_json_put_text(j, "name", name);
    if (transposed)
        fv_json_put_bool(j, "transposed", true);
    fv_json_end(j);
}

static void genie_put_model(const genie *g, fv_json_text *j)
{
    const fv_config *c = &g->s->config;
    static const struct {
        const char *key, *name;
        bool matrix;
    } layer[] = {
        { "tensor.attention_normalization_weight", "input_layernorm.weight", false },
        { "tensor.attention_q_weight", "self_attn.q_proj.weight", true },
        { "tensor.attention_q_bias", "self_attn.q_proj.bias", false },
        { "tensor.attention_k_weight", "self_attn.k_proj.weight", true },
        { "tensor.attention_k_bias", "self_attn.k_proj.bias", false },
        { "tensor.attention_v_weight", "self_attn.v_proj.weight", true },
        { "tensor.attention_v_bias", "self_attn.v_proj.bias", false },
        { "tensor.attention_output_weight", "self_attn.o_proj.weight", true },
        { "tensor.feedforward_normalization_weight", "post_attention_layernorm.weight", false },
        { "tensor.feedforward_gate_weight", "mlp.gate_proj.weight", true },
        { "tensor.feedforward_up_weight", "mlp.up_proj.weight", true },
        { "tensor.feedforward_output_weight", "mlp.down_proj.weight", true },
    };
    bool fast = c->layout == FV_LAYOUT_FAST_VLM;
    fv_json_begin(j, NULL, '{');
    fv_json_put_text(j, "general.name", "fastvlm");
    fv_json_put_text(j, "general.architecture", "generic");
    fv_json_put_text(j, "general.tokenizer", "none");
    fv_json_put_int(j, "general.quantization_version", 1);
    fv_json_put_int(j, "general.alignment", 32);
    fv_json_put_text(j, "general.hf_hub_model_id", "apple/FastVLM");
    fv_json_put_int(j, "size.vocabulary", c->n_vocab);
    fv_json_put_int(j, "size.context", g->set.context);
    fv_json_put_int(j, "size.embedding", c->d_model);
    fv_json_put_int(j, "size.feedforward", c->d_ffn);
    fv_json_put_int(j, "architecture.num_decoders", c->n_layers);
    fv_json_put_int(j, "architecture.num_heads", c->n_heads);
    fv_json_put_int(j, "architecture.num_kv_heads", c->n_kv_heads);
    fv_json_put_text(j, "architecture.connector", "sequential_pre_layer_normalization");
    fv_json_put_text(j, "architecture.gating", "gated");
    fv_json_put_text(j, "operation.normalization", "RMS-norm");
    fv_json_put_real(j, "operation.normalization_epsilon", c->rms_eps);
    fv_json_put_text(j, "operation.activation", "SiLU");
    fv_json_put_text(j, "operation.positional_embedding", "RoPE");
    fv_json_put_text(j, "operation.rope_complex_organization", "SoA");
    fv_json_put_int(j, "operation.rope_num_rotations", c->d_head);
    fv_json_put_real(j, "operation.rope_scaling", c->rope_theta);
    fv_json_put_text(j, "tensor.layer_name",
                     fast ? "model.language_model.layers.(\\d+)." : "model.layers.(\\d+).");
    genie_put_tensor(
        j, "tensor.embedding_token_weight",
        fast ? "model.language_model.embed_tokens.weight" : "model.embed_tokens.weight", false);
    for (size_t i = 0; i < FV_COUNT(layer); i++)
        genie_put_tensor(j, layer[i].key, layer[i].name, layer[i].matrix);
    genie_put_tensor(j, "tensor.output_normalization_weight",
                     fast ? "model.language_model.norm.weight" : "model.norm.weight", false);
    /* The released 0.5B is tied and stores its head all the same, where the composer finds it. */
    bool head = !g->s->weights.tied || !g->s->checkpoint ||
                fv_tensors_find(g->s->checkpoint, "lm_head.weight");
    genie_put_tensor(j, "tensor.output_weight",
                     head   ? "lm_head.weight"
                     : fast ? "model.language_model.embed_tokens.weight"
                            : "model.embed_tokens.weight",
                     true);
    fv_json_end(j);
}

static void begin_block(fv_json_text *j, const char *key)
{
    fv_json_begin(j, key, '{');
    fv_json_put_int(j, "version", 1);
}

static void put_cpu_engine(const genie *g, fv_json_text *j)
{
    const fv_config *c = &g->s->config;
    begin_block(j, "backend");
    fv_json_put_text(j, "type", "QnnGenAiTransformer");
    begin_block(j, "QnnGenAiTransformer");
    fv_json_put_text(j, "model-input", "embeddings");
    fv_json_put_bool(j, "use-mmap", true);
    fv_json_put_int(j, "n-layer", c->n_layers); /* left out they mean 32, 4096, 32, 32 */
    fv_json_put_int(j, "n-embd", c->d_model);
    fv_json_put_int(j, "n-heads", c->n_heads);
    fv_json_put_int(j, "n-kv-heads", c->n_kv_heads);
    fv_json_end(j);
    fv_json_end(j);
    begin_block(j, "model");
    fv_json_put_text(j, "type", "library");
    begin_block(j, "library");
    fv_json_put_text(j, "model-bin", g->paths.model);
    fv_json_end(j);
    fv_json_end(j);
}

static void put_htp_engine(const genie *g, fv_json_text *j)
{
    const fv_config *c = &g->s->config;
    begin_block(j, "backend");
    fv_json_put_text(j, "type", "QnnHtp");
    fv_json_put_text(j, "extensions", g->paths.extensions);
    begin_block(j, "QnnHtp");
    fv_json_put_int(j, "spill-fill-bufsize", 0);
    fv_json_put_bool(j, "use-mmap", true);
    fv_json_put_int(j, "mmap-budget", 0);
    fv_json_put_bool(j, "poll", true);
    fv_json_put_text(j, "cpu-mask", "0xe0");
    fv_json_put_int(j, "kv-dim", c->d_head);
    fv_json_put_int(j, "pos-id-dim", c->d_head / 2);
    fv_json_put_int(j, "rope-theta", (int64_t)c->rope_theta);
    fv_json_put_bool(j, "allow-async-init", false);
    fv_json_put_bool(j, "enable-graph-switching", false);
    fv_json_end(j);
    fv_json_end(j);
    begin_block(j, "model");
    fv_json_put_text(j, "type", "binary");
    begin_block(j, "binary");
    fv_json_begin_row(j, "ctx-bins", '[');
    fv_json_put_text(j, NULL, g->paths.context);
    fv_json_end(j);
    fv_json_end(j);
    fv_json_end(j);
}

static void put_dialog(const genie *g, fv_json_text *j, bool htp)
{
    const fv_config *c = &g->s->config;
    fv_json_begin(j, NULL, '{');
    begin_block(j, "dialog");
    fv_json_put_text(j, "type", "basic");
    fv_json_put_int(j, "max-num-tokens", g->set.max_new_tokens);
    begin_block(j, "embedding");
    fv_json_put_int(j, "size", c->d_model);
    fv_json_put_text(j, "datatype", "float32");
    fv_json_end(j);
    begin_block(j, "context");
    fv_json_put_int(j, "size", g->set.context);
    fv_json_put_int(j, "n-vocab", c->n_vocab);
    fv_json_put_int(j, "bos-token", g->start);
    fv_json_put_int(j, "eos-token", g->end);
    fv_json_put_int(j, "pad-token", g->pad);
    fv_json_end(j);
    begin_block(j, "sampler");
    fv_json_put_int(j, "seed", (int64_t)g->set.seed);
    fv_json_put_real(j, "temp", g->set.sampling ? 0.8 : 0.0);
    fv_json_put_int(j, "top-k", g->set.sampling ? 40 : 1);
    fv_json_put_real(j, "top-p", g->set.sampling ? 0.95 : 1.0);
    fv_json_put_bool(j, "greedy", !g->set.sampling);
    fv_json_end(j);
    begin_block(j, "tokenizer");
    fv_json_put_text(j, "path", g->paths.tokenizer);
    fv_json_end(j);
    begin_block(j, "engine");
    fv_json_put_int(j, "n-threads", g->set.n_threads);
    if (htp)
        put_htp_engine(g, j);
    else
        put_cpu_engine(g, j);
    fv_json_end(j);
    fv_json_end(j);
    fv_json_end(j);
}

static void put_cpu_dialog(const genie *g, fv_json_text *j) { put_dialog(g, j, false); }
static void put_htp_dialog(const genie *g, fv_json_text *j) { put_dialog(g, j, true); }

void fv_htp_put_devices(fv_json_text *j, unsigned soc_model, unsigned htp_version)
{
    char arch[16];
    snprintf(arch, sizeof arch, "v%u", htp_version);
    fv_json_begin(j, "devices", '[');
    fv_json_begin(j, NULL, '{');
    fv_json_put_int(j, "soc_model", soc_model);
    fv_json_put_text(j, "dsp_arch", arch);
    fv_json_begin(j, "cores", '[');
    fv_json_begin(j, NULL, '{');
    fv_json_put_int(j, "core_id", 0);
    fv_json_put_text(j, "perf_profile", "burst");
    fv_json_put_int(j, "rpc_control_latency", 100);
    fv_json_end(j);
    fv_json_end(j);
    fv_json_end(j);
    fv_json_end(j);
}

static void put_extensions(const genie *g, fv_json_text *j)
{
    (void)g;
    fv_json_begin(j, NULL, '{');
    fv_htp_put_devices(j, 69, 79);
    fv_json_end(j);
}

static fv_status genie_write_one(const genie *g, const fv_outdir *dir, const char *name,
                                 void (*put)(const genie *, fv_json_text *), fv_error *err)
{
    fv_json_text j = { 0 };
    put(g, &j);
    char *path = fv_path_join(dir->stage, name);
    fv_status status = fv_json_done(&j, err);
    if (status == FV_OK)
        status = path ? fv_outfile_put(path, j.text, j.n, err)
                      : fv_fail_memory(err, strlen(name), "a path");
    fv_free(path);
    fv_json_text_free(&j);
    return status;
}

static fv_status genie_check(genie *g, fv_error *err)
{
    fv_genie_options *s = &g->set;
    if (!s->context)
        s->context = FV_MIN(512, g->s->config.max_context);
    if (!s->max_new_tokens)
        s->max_new_tokens = FV_MIN(50, s->context - 1);
    if (!s->n_threads)
        s->n_threads = 6;
    if (!s->seed)
        s->seed = 42;
    if (!s->device_dir)
        s->device_dir = "/data/local/tmp/fastvlm";
    if (!s->model_bin)
        s->model_bin = "fastvlm_model.bin";
    if (s->context < 2 || s->context > g->s->config.max_context)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "the context length is %d tokens; expected 2 to the model's %d", s->context,
                       g->s->config.max_context);
    if (s->max_new_tokens < 1 || s->max_new_tokens >= s->context)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "max_new_tokens is %d; expected at least 1 and less than the context length "
                       "%d",
                       s->max_new_tokens, s->context);
    if (s->n_threads < 1 || s->n_threads > 64 || strlen(s->device_dir) > 400 ||
        strlen(s->model_bin) > 100)
        return fv_fail(err, FV_ERR_ARGUMENT, 0,
                       "n_threads is %d; expected 1 to 64, and paths of up to 400 bytes",
                       s->n_threads);
    FV_TRY(fv_model_token(g->s, "<|im_start|>", &g->start, err));
    FV_TRY(fv_model_token(g->s, "<|im_end|>", &g->end, err));
    return fv_model_token(g->s, "<|endoftext|>", &g->pad, err);
}

fv_status fv_genie_dialog_put(fv_json_text *j, const fv_model *model,
                              const fv_genie_options *options, const fv_genie_paths *paths,
                              bool htp, fv_error *err)
{
    genie g = { .s = model, .set = *options, .paths = *paths };
    FV_TRY(genie_check(&g, err));
    put_dialog(&g, j, htp);
    return FV_OK;
}

/* Where the files lie on the phone, by their names. */
typedef struct genie_places {
    char model[512], tokenizer[512], extensions[512], context[512];
} genie_places;

static void genie_place(genie *g, genie_places *p)
{
    const char *dir = g->set.device_dir;
    snprintf(p->model, sizeof p->model, "%s/%s", dir, g->set.model_bin);
    snprintf(p->tokenizer, sizeof p->tokenizer, "%s/tokenizer.json", dir);
    snprintf(p->extensions, sizeof p->extensions, "%s/htp_backend.json", dir);
    snprintf(p->context, sizeof p->context, "%s/fastvlm_decoder_htp.bin", dir);
    g->paths = (fv_genie_paths){ .model = p->model,
                                 .tokenizer = p->tokenizer,
                                 .extensions = p->extensions,
                                 .context = p->context };
}

fv_status fv_export_genie(const char *model, const fv_genie_options *genie_options, const char *dir,
                          const fv_export_options *options, fv_error *err)
{
    FV_DEFAULT_FPENV;
    fv_export_options o;
    fv_callbacks callbacks;
    fv_model s;
    fv_outdir out = { 0 };
    genie g = { .s = &s };
    genie_places places;
    fv_status status = FV_OK;
    FV_REQUIRE(model, err);
    FV_REQUIRE(dir, err);
    FV_TRY(FV_OPTIONS_IN(&g.set, fv_genie_options, genie_options, err));
    FV_TRY(FV_OPTIONS_IN(&o, fv_export_options, options, err));
    FV_TRY(fv_callbacks_in(&callbacks, &o.callbacks, err));
    FV_TRY(fv_model_open(
        &s, model, &(fv_model_options){ .depth = FV_MODEL_STORED, .callbacks = o.callbacks }, err));
    FV_TRY_GOTO(genie_check(&g, err));
    genie_place(&g, &places);
    FV_TRY_GOTO(fv_outdir_open(&out, dir, o.force, o.callbacks, err));
    FV_TRY_GOTO(genie_write_one(&g, &out, "genie_model.json", genie_put_model, err));
    FV_TRY_GOTO(genie_write_one(&g, &out, "genie_dialog.json", put_cpu_dialog, err));
    FV_TRY_GOTO(genie_write_one(&g, &out, "genie_dialog_htp.json", put_htp_dialog, err));
    FV_TRY_GOTO(genie_write_one(&g, &out, "htp_backend.json", put_extensions, err));
    FV_TRY_GOTO(fv_outdir_commit(&out, err));
    fv_log(o.callbacks, FV_LOG_INFO,
           "%s: genie_model.json, genie_dialog.json, genie_dialog_htp.json, htp_backend.json", dir);
fail:
    fv_outdir_abandon(&out);
    fv_model_close(&s);
    return status;
}
