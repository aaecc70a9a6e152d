/* ollama: the part of Ollama's protocol that chat clients use. */
#ifndef FV_SERVE_OLLAMA_H
#define FV_SERVE_OLLAMA_H

#include "serve/reply.h"

/* POST /api/chat, /api/generate. A request without messages, or without prompt and images, has no
 * items: it asks for the model to be loaded. On failure there is nothing to free. */
fv_status serve_ollama_chat_read(fv_request *out, const char *body, size_t n_body,
                                 const fv_request_limits *limits, fv_error *err);
fv_status serve_ollama_generate_read(fv_request *out, const char *body, size_t n_body,
                                     const fv_request_limits *limits, fv_error *err);

#endif
