/* The table of the page's files. See page.h. */
#include "serve/page.h"

#include <string.h>

/* Of page.S. */
extern const unsigned char serve_page_html[], serve_page_html_end[];
extern const unsigned char serve_page_css[], serve_page_css_end[];
extern const unsigned char serve_page_js[], serve_page_js_end[];

const serve_page_file *serve_page_find(const char *path)
{
    static const serve_page_file files[] = {
        { "/", "text/html; charset=utf-8", serve_page_html, serve_page_html_end },
        { "/page.css", "text/css; charset=utf-8", serve_page_css, serve_page_css_end },
        { "/page.js", "text/javascript; charset=utf-8", serve_page_js, serve_page_js_end },
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(path, files[i].path))
            return &files[i];
    return NULL;
}
