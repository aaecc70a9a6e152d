/* page: the files of the page at /, as bytes inside the program (page.S).
 *
 * The page is one document with its style and its script, beside each other because the policy
 * that goes with them (SERVE_PAGE_POLICY) lets nothing run that stands in the document itself. */
#ifndef FV_SERVE_PAGE_H
#define FV_SERVE_PAGE_H

#include <stddef.h>

/* Content-Security-Policy: own files only, talk to this server only, images from memory, no frame
 * around it. */
#define SERVE_PAGE_POLICY                                                           \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " \
    "img-src blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; "   \
    "frame-ancestors 'none'"

typedef struct serve_page_file {
    const char *path, *type; /* "/page.css", "text/css; charset=utf-8" */
    const unsigned char *begin, *end;
} serve_page_file;

/* NULL when no file of the page is at that path. */
const serve_page_file *serve_page_find(const char *path);

#endif
