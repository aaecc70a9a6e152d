/* Taking an answer from a session. See answer.h. */
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int check_answer_options(const char *verb, const answer_options *a)
{
    int code = check_text(verb, "--system", a->system);
    for (size_t i = 0; i < a->stop.n && code < 0; i++)
        code = *a->stop.item[i] ? check_text(verb, "--stop", a->stop.item[i])
                                : usage_error(verb, "--stop: the text is empty");
    if (code >= 0)
        return code;
    if (a->greedy && a->temperature > 0)
        return usage_error(verb, "--greedy and --temperature %g exclude each other",
                           (double)a->temperature);
    if (a->temperature == 0 && (a->top_k > 0 || a->top_p < 1 || a->min_p > 0))
        return usage_error(verb, "--top-k, --top-p and --min-p need a --temperature above 0");
    return -1;
}

void session_options(fv_session_options *o, const answer_options *a, const fv_callbacks *callbacks)
{
    fv_session_options_default(o);
    o->max_context = a->max_context;
    o->system = a->system;
    o->n_system_bytes = a->system ? strlen(a->system) : 0;
    o->callbacks = callbacks;
}

void fill_answer(fv_answer_options *out, const answer_options *a)
{
    *out = (fv_answer_options){ .size = sizeof *out,
                                .temperature = a->temperature,
                                .top_k = a->top_k,
                                .top_p = a->top_p,
                                .min_p = a->min_p,
                                .repetition_penalty = a->repetition_penalty,
                                .seed = a->seed,
                                .max_new_tokens = a->max_new_tokens,
                                .stop = a->stop.item,
                                .n_stop = a->stop.n,
                                .ignore_end = a->ignore_eos };
}

fv_status begin_answer(fv_session *session, const answer_options *a, fv_error *err)
{
    fv_answer_options o;
    fill_answer(&o, a);
    if (a->constraint)
        fv_constraint_apply(a->constraint, &o);
    return fv_session_begin(session, &o, err);
}

fv_image *open_picture(const char *path, const answer_options *a, fv_error *err)
{
    fv_image_options options = { .size = sizeof options,
                                 .ignore_exif = a->no_exif,
                                 .max_pixels = (uint64_t)a->max_megapixels * 1000000 };
    fv_image *image = NULL;
    open_image(&image, path, &options, err);
    return image;
}

/* ---- the user's turn --------------------------------------------------------------------- */

#define MARK "<image>"

size_t count_marks(const char *text)
{
    size_t n = 0;
    for (; (text = strstr(text, MARK)); text += strlen(MARK))
        n++;
    return n;
}

int check_marks(const char *prompt, size_t n_images)
{
    size_t n = count_marks(prompt);
    if (!n || n == n_images)
        return -1;
    print_err("fastvlm: the prompt has %zu \"" MARK "\" mark%s for %zu image%s\n", n,
              n == 1 ? "" : "s", n_images, n_images == 1 ? "" : "s");
    return EXIT_USAGE;
}

/* A newline behind an image that stands first is the library's already. */
static const char *skip_newline(const char *text, bool first)
{
    return first && *text == '\n' ? text + 1 : text;
}

static fv_status npu_add_image(fv_session *session, const turn_npu *npu, const fv_image *image,
                               fv_encode_options *o, fv_error *err)
{
    fv_features *features;
    o->callbacks = npu->callbacks;
    fv_status status = fv_npu_encode(npu->npu, npu->engine, image, o, &features, err);
    if (status == FV_OK)
        status = fv_session_add_features(session, features, err);
    fv_features_free(features);
    return status;
}

static fv_status turn_add_image(fv_session *session, const turn_images *images, size_t k,
                                const answer_options *a, fv_error *err)
{
    fv_encode_options o = { .size = sizeof o, .fit = (fv_fit)a->fit };
    fv_image *opened = images->read ? NULL : open_picture(images->path[k], a, err);
    const fv_image *image = images->read ? images->read[k] : opened;
    fv_status status = !image   ? err->status
                       : a->npu ? npu_add_image(session, a->npu, image, &o, err)
                                : fv_session_add_image(session, image, &o, err);
    fv_image_free(opened);
    return status;
}

static fv_status add_marked(fv_session *session, const turn_images *images, const char *prompt,
                            const answer_options *a, fv_error *err)
{
    bool first = true; /* no text yet */
    for (size_t k = 0;; k++) {
        const char *mark = strstr(prompt, MARK);
        size_t n = mark ? (size_t)(mark - prompt) : strlen(prompt);
        fv_status status = FV_OK;
        if (n)
            status = fv_session_add_text(session, prompt, n, err);
        if (status != FV_OK || !mark)
            return status;
        first = first && !n;
        if ((status = turn_add_image(session, images, k, a, err)) != FV_OK)
            return status;
        prompt = skip_newline(mark + strlen(MARK), first);
    }
}

int write_turn(fv_session *session, const turn_images *images, const char *prompt,
               const answer_options *a)
{
    size_t n_marks = count_marks(prompt);
    fv_error err;
    fv_status status = FV_OK;
    int code = check_marks(prompt, images->n);
    if (code >= 0)
        return code;
    for (size_t i = 0; i < images->n && !n_marks && status == FV_OK; i++)
        status = turn_add_image(session, images, i, a, &err);
    if (status == FV_OK)
        status = n_marks ? add_marked(session, images, prompt, a, &err)
                         : fv_session_add_text(session, prompt, strlen(prompt), &err);
    clear_line();
    return status == FV_OK ? -1 : report(&err);
}

/* ---- the answer -------------------------------------------------------------------------- */

static bool answer_keep(answer_text *a, const fv_piece *piece)
{
    if (a->n_bytes + piece->n_bytes + 1 > a->capacity) {
        size_t capacity = (a->n_bytes + piece->n_bytes + 1) * 2;
        char *text = realloc(a->text, capacity);
        if (!text)
            return false;
        a->text = text;
        a->capacity = capacity;
    }
    if (a->n_ids == a->ids_capacity) {
        size_t capacity = a->ids_capacity ? a->ids_capacity * 2 : 256;
        int32_t *ids = realloc(a->ids, capacity * sizeof *ids);
        if (!ids)
            return false;
        a->ids = ids;
        a->ids_capacity = capacity;
    }
    memcpy(a->text + a->n_bytes, piece->text, piece->n_bytes);
    a->n_bytes += piece->n_bytes;
    a->text[a->n_bytes] = 0;
    if (piece->id >= 0)
        a->ids[a->n_ids++] = piece->id;
    return true;
}

int take_answer(fv_session *session, answer_text *out, bool stream, const progress_line *progress)
{
    fv_error err;
    fv_piece piece = { .size = sizeof piece };
    *out = (answer_text){ 0 };
    while (!piece.done && !(progress->keep_answer && out->n_ids && interrupted())) {
        fv_status status = fv_session_next(session, &piece, &err);
        clear_line();
        if (status != FV_OK)
            return report(&err);
        if (!answer_keep(out, &piece)) {
            print_err("fastvlm: out of memory\n");
            return EXIT_FAILED;
        }
        if (stream && piece.n_bytes && !write_out(piece.text, piece.n_bytes))
            return end_out();
    }
    out->finish = piece.done ? piece.finish : FV_FINISH_NONE;
    return -1;
}

void answer_free(answer_text *a)
{
    free(a->text);
    free(a->ids);
    *a = (answer_text){ 0 };
}

static double rate(double n, double ms) { return ms > 0 ? n / ms * 1e3 : 0; }

void print_profile(const fv_engine *engine, const fv_stats *s)
{
    print_err(
        "load %.0f ms · decode image %.1f ms · preprocess %.1f ms · vision %.0f ms · projector "
        "%.1f ms\n"
        "prefill %.0f ms (%d rows, %.0f tok/s) · first token after %.0f ms",
        fv_engine_load_ms(engine), s->image_ms, s->preprocess_ms, s->vision_ms, s->projector_ms,
        s->prefill_ms, s->prompt_tokens, rate(s->prompt_tokens, s->prefill_ms), s->first_token_ms);
    if (s->new_tokens > 1)
        print_err(" · %d tokens, %.1f tok/s", s->new_tokens, rate(s->new_tokens - 1, s->decode_ms));
    print_err(" · peak memory %.0f MB\n", (double)peak_rss_bytes() / 1e6);
}
