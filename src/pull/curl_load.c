/* Opens libcurl and finds its functions. See curl_load.h. */
#if defined(FASTVLM_PULL)
#include "pull/curl_load.h"

#include <pthread.h>
#include <stdio.h>

#include "base/dynlib.h"

static const char *const library_names[] = {
#if defined(__APPLE__)
    "libcurl.4.dylib",
    "/usr/lib/libcurl.4.dylib",
#else
    "libcurl.so.4",
    "libcurl-gnutls.so.4",
#endif
};

#define FUNCTION(name)                                \
    {                                                 \
        "curl_" #name, offsetof(fv_curl, name), false \
    }
static const fv_dynlib_function functions[] = {
    FUNCTION(global_init),
    FUNCTION(easy_init),
    FUNCTION(easy_setopt),
    FUNCTION(easy_getinfo),
    FUNCTION(easy_strerror),
    FUNCTION(easy_cleanup),
    FUNCTION(slist_append),
    FUNCTION(slist_free_all),
    FUNCTION(multi_init),
    FUNCTION(multi_add_handle),
    FUNCTION(multi_remove_handle),
    FUNCTION(multi_perform),
    FUNCTION(multi_poll),
    FUNCTION(multi_info_read),
    FUNCTION(multi_cleanup),
    FUNCTION(url),
    FUNCTION(url_set),
    FUNCTION(url_get),
    FUNCTION(url_cleanup),
    FUNCTION(free),
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static fv_curl table;
static char problem[FV_DYNLIB_PROBLEM]; /* empty: loaded */

static void curl_symbols_load(void)
{
    if (fv_dynlib_open(&table, library_names, FV_COUNT(library_names), functions,
                       FV_COUNT(functions), problem) &&
        table.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        snprintf(problem, sizeof problem, "it fails to initialise");
}

fv_status fv_curl_load(const fv_curl **out, fv_error *err)
{
    pthread_once(&once, curl_symbols_load);
    if (problem[0])
        return fv_fail(err, FV_ERR_UNSUPPORTED, 0,
                       "downloading needs libcurl 7.66 or newer (%s); install it (Debian, Ubuntu: "
                       "apt-get install libcurl4)",
                       problem);
    *out = &table;
    return FV_OK;
}
#else
typedef int fv_curl_load_is_left_out; /* a file needs a declaration */
#endif
