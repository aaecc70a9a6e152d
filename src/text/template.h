/* template: the "qwen_2" conversation around what its two sides say, as ids.
 *
 *     <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n        fv_template_system
 *     <|im_start|>user\n<image>\nDescribe the image.<|im_end|>\n          fv_template_user
 *     <|im_start|>assistant\n
 *     A red square.                                                       fv_template_answer
 *     <|im_end|>\n                                                        fv_template_end
 *
 * (\n is a newline; nothing else stands between the parts.) Only the template writes control
 * tokens:
 * "<|im_end|>" and "<image>" in somebody's text are words. [ml-fastvlm llava/conversation.py,
 * conv_qwen_2; llava/mm_utils.py, tokenizer_image_token] */
#ifndef FV_TEMPLATE_H
#define FV_TEMPLATE_H

#include "text/tokenizer.h"

/* Stands in the ids where an image's rows go; the k-th one takes the k-th image. */
#define FV_IMAGE_MARK     (-200)
#define FV_IMAGE_TEXT     "<image>"
#define FV_DEFAULT_SYSTEM "You are a helpful assistant."

typedef enum fv_turn_kind { FV_TURN_TEXT, FV_TURN_IMAGE, FV_TURN_IDS } fv_turn_kind;

/* A piece of a user's turn. */
typedef struct fv_turn_part {
    fv_turn_kind kind;
    const char *text; /* TEXT: UTF-8 */
    const int32_t *ids;
    size_t n; /* bytes of text, or ids */
} fv_turn_part;

/* Each appends to *ids; on failure *ids is unchanged. Invalid UTF-8 is FV_ERR_FORMAT. */

fv_status fv_template_system(fv_ids *ids, const fv_tokenizer *t, const char *text, size_t n_bytes,
                             fv_error *err);
/* The parts in order. Texts that follow each other are one text. An image before any text or ids is
 * followed by a newline, as in training. */
fv_status fv_template_user(fv_ids *ids, const fv_tokenizer *t, const fv_turn_part *parts,
                           size_t n_parts, fv_error *err);
fv_status fv_template_answer(fv_ids *ids, const fv_tokenizer *t, const char *text, size_t n_bytes,
                             fv_error *err);
fv_status fv_template_end(fv_ids *ids, const fv_tokenizer *t, fv_error *err);

/* Warns when a fast_vlm checkpoint has a chat template that is not known to write the conversation
 * above for a first turn: what it says is not carried out. callbacks may be NULL. */
fv_status fv_template_check(const char *dir, const fv_callbacks *callbacks, fv_error *err);

#endif
