/* template: the "qwen_2" conversation around the user's words, as ids.
 *
 *     <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
 *     <|im_start|>user\n<image>\nDescribe the image.<|im_end|>\n
 *     <|im_start|>assistant\n
 *
 * (\n is a newline; nothing else stands between the parts.) [ml-fastvlm llava/conversation.py,
 * conv_qwen_2; llava/mm_utils.py, tokenizer_image_token] */
#ifndef FV_TEMPLATE_H
#define FV_TEMPLATE_H

#include "text/tokenizer.h"

/* Stands in the ids where a picture's rows go; the k-th one takes the turn's k-th picture. */
#define FV_IMAGE_MARK     (-200)
#define FV_IMAGE_TEXT     "<image>"
#define FV_DEFAULT_SYSTEM "You are a helpful assistant."

typedef enum fv_turn_start {
    FV_TURN_FIRST,     /* the conversation begins: with the system part */
    FV_TURN_AFTER_END, /* the answer's <|im_end|> is already in the KV cache: begins with "\n" */
    FV_TURN_AFTER_CUT  /* the answer was cut off: begins with <|im_end|> and "\n" */
} fv_turn_start;

typedef struct fv_turn {
    fv_turn_start start;
    const char *system; /* for FV_TURN_FIRST; NULL: FV_DEFAULT_SYSTEM; "" is kept as empty */
    const char *user;   /* may hold "<image>" marks */
    size_t n_user_bytes;
    size_t n_images;
} fv_turn;

/* Appends the ids of a user turn, up to and with "<|im_start|>assistant\n". Without marks in the
 * text every picture goes to the front as "<image>\n"; with marks their number must be n_images,
 * else FV_ERR_ARGUMENT. On failure *ids is unchanged. */
fv_status fv_template_turn(fv_ids *ids, const fv_tokenizer *t, const fv_turn *turn, fv_error *err);

/* Splits text at every "<image>" and encodes the parts on their own, FV_IMAGE_MARK between them.
 * *n_marks (may be NULL) is their number. On failure *ids is unchanged. */
fv_status fv_template_encode(fv_ids *ids, const fv_tokenizer *t, const char *text, size_t n_bytes,
                             size_t *n_marks, fv_error *err);

size_t fv_template_count_marks(const char *text, size_t n_bytes);

#endif
