/* curl_load: libcurl, opened when first needed.
 *
 * It is not linked: with it come some thirty libraries, which would add 6 ms to the start of every
 * `fastvlm run` and a dependency to every program that uses the library for images only. */
#ifndef FV_CURL_LOAD_H
#define FV_CURL_LOAD_H

#include <curl/curl.h>

#include "base/base.h"

typedef struct fv_curl {
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
    const char *(*easy_strerror)(CURLcode code);
    void (*easy_cleanup)(CURL *easy);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *line);
    void (*slist_free_all)(struct curl_slist *list);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_perform)(CURLM *multi, int *n_running);
    CURLMcode (*multi_poll)(CURLM *multi, struct curl_waitfd *extra, unsigned n_extra, int ms,
                            int *n_ready);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *n_left);
    CURLMcode (*multi_cleanup)(CURLM *multi);
    CURLU *(*url)(void);
    CURLUcode (*url_set)(CURLU *url, CURLUPart part, const char *text, unsigned flags);
    CURLUcode (*url_get)(const CURLU *url, CURLUPart part, char **text, unsigned flags);
    void (*url_cleanup)(CURLU *url);
    void (*free)(void *text);
} fv_curl;

/* The one table of this process, filled at the first call; never unloaded. */
fv_status fv_curl_load(const fv_curl **out, fv_error *err);

#endif
