/* Opens libcurl and finds its functions. See curl_load.h. */
#if defined(FASTVLM_PULL)
#include "pull/curl_load.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static const char *const library_names[] = {
#if defined(__APPLE__)
    "libcurl.4.dylib",
    "/usr/lib/libcurl.4.dylib",
#else
    "libcurl.so.4",
    "libcurl-gnutls.so.4",
#endif
};

#define FUNCTION(name)                         \
    {                                          \
        "curl_" #name, offsetof(fv_curl, name) \
    }
static const struct {
    const char *name;
    size_t at;
} functions[] = {
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
static char problem[256]; /* empty: loaded */

static void say(const char *what)
{
    size_t n = FV_MIN(strlen(what), sizeof problem - 1);
    memcpy(problem, what, n);
    problem[n] = 0;
}

static void curl_symbols_load(void)
{
    void *library = NULL;
    for (size_t i = 0; !library && i < FV_COUNT(library_names); i++)
        library = dlopen(library_names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        say(why ? why : "dlopen failed");
        return;
    }
    for (size_t i = 0; i < FV_COUNT(functions); i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function) {
            say(functions[i].name);
            return;
        }
        memcpy((char *)&table + functions[i].at, &function, sizeof function);
    }
    if (table.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        say("it fails to initialise");
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
