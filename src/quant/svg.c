/* See svg.h. */
#include "quant/svg.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/number.h"
#include "base/outfile.h"

enum { TITLE = 120 };

void fv_svg_put(fv_svg *s, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = fv_format_list(line, sizeof line, format, args);
    va_end(args);
    fv_json_line(&s->text, line, FV_MIN((size_t)n, sizeof line - 1));
}

/* The four characters that mean something, and no control characters. */
void fv_svg_escape(char *to, size_t size, const char *from, size_t n_bytes)
{
    size_t n = 0;
    for (const char *end = from + n_bytes; from < end && n + 8 < size; from++) {
        const char *s = *from == '<'   ? "&lt;"
                        : *from == '>' ? "&gt;"
                        : *from == '&' ? "&amp;"
                        : *from == '"' ? "&quot;"
                                       : NULL;
        if (s)
            n += (size_t)snprintf(to + n, size - n, "%s", s);
        else
            to[n++] = (unsigned char)*from < 0x20 ? ' ' : *from;
    }
    to[n] = 0;
}

void fv_svg_begin(fv_svg *s, double width, double height, double title_x, const char *title,
                  size_t n_title_bytes)
{
    char shown[8 * TITLE];
    *s = (fv_svg){ 0 };
    fv_svg_escape(shown, sizeof shown, title, n_title_bytes);
    fv_svg_put(s,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
               "viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" "
               "font-size=\"11\" fill=\"#333\">",
               width, height, width, height);
    fv_svg_put(s, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>");
    fv_svg_put(s, "<text x=\"%.0f\" y=\"20\" font-size=\"14\">%s</text>", title_x, shown);
}

fv_status fv_svg_save(fv_svg *s, const char *file, fv_error *err)
{
    fv_svg_put(s, "</svg>");
    fv_status status = s->text.failed ? fv_fail_memory(err, s->text.n, "a plot")
                                      : fv_outfile_put(file, s->text.text, s->text.n, err);
    fv_json_text_free(&s->text);
    return status;
}
