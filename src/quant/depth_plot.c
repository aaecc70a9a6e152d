/* SQNR by depth -> an SVG picture: one point a stage or layer, from the pixels on. See
 * depth_plot.h. */
#include "quant/depth_plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/outfile.h"
#include "io/json_write.h"

enum { LEFT = 56, TOP = 56, PLOT = 300, BOTTOM = 115, STEP = 16, TITLE = 120 };

static const char *const color[FV_DEPTH_LINES] = { "#1f6feb", "#d1570a" };

typedef struct plot {
    const fv_depth_plot *d;
    fv_json_text text; /* the file */
    double low, high;  /* dB at the bottom and at the top; stages without loss lie on the top */
    double right;      /* x of the right edge */
} plot;

static void svg_put(plot *p, const char *format, ...) FV_PRINTF(2, 3);
static void svg_put(plot *p, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = fv_format_list(line, sizeof line, format, args);
    va_end(args);
    fv_json_line(&p->text, line, FV_MIN((size_t)n, sizeof line - 1));
}

static double at_x(size_t stage) { return LEFT + STEP * ((double)stage + 0.75); }
static double at_y(const plot *p, double sqnr)
{
    return TOP + PLOT * (p->high - fmin(sqnr, p->high)) / (p->high - p->low);
}

/* A range of whole tens that holds every finite value. */
static void find_range(plot *p)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < p->d->n; i++)
        for (int line = 0; line < FV_DEPTH_LINES; line++) {
            double v = p->d->points[i].sqnr[line];
            if (isfinite(v)) {
                low = fmin(low, v);
                high = fmax(high, v);
            }
        }
    p->low = isfinite(low) ? 10 * floor(fmin(low, 200) / 10) : 0;
    p->high = isfinite(high) ? 10 * ceil(high / 10) : 100;
    if (p->high - p->low < 20)
        p->high = p->low + 20;
}

static void axes(plot *p)
{
    double step = p->high - p->low > 120 ? 20 : 10;
    for (double v = p->low; v <= p->high + 0.5; v += step) {
        svg_put(p, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>", LEFT,
                at_y(p, v), p->right, at_y(p, v));
        svg_put(p, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>", LEFT - 6,
                at_y(p, v) + 4, v);
    }
    svg_put(
        p,
        "<text transform=\"translate(16,%d) rotate(-90)\" text-anchor=\"middle\">SQNR, dB</text>",
        TOP + PLOT / 2);
    bool decoder = false;
    for (size_t i = 0; i < p->d->n; i++) {
        const char *name = p->d->points[i].name;
        if (!decoder && !strncmp(name, "decoder.", 8) && i > 0) {
            double x = (at_x(i) + at_x(i - 1)) / 2;
            svg_put(p,
                    "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#999\" "
                    "stroke-dasharray=\"3 3\"/>",
                    x, TOP, x, TOP + PLOT);
        }
        decoder = decoder || !strncmp(name, "decoder.", 8);
        svg_put(p,
                "<text transform=\"translate(%.1f,%d) rotate(-90)\" text-anchor=\"end\" "
                "font-size=\"9\">%s</text>",
                at_x(i) + 3, TOP + PLOT + 6, name);
    }
}

/* Points, joined where neighbours are there; hollow on the top edge: nothing was lost. */
static void line_put(plot *p, int line)
{
    double before = NAN;
    for (size_t i = 0; i < p->d->n; i++) {
        double v = p->d->points[i].sqnr[line];
        if (!isnan(before) && !isnan(v))
            svg_put(p,
                    "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                    "stroke-width=\"1.5\"/>",
                    at_x(i - 1), at_y(p, before), at_x(i), at_y(p, v), color[line]);
        before = v;
    }
    for (size_t i = 0; i < p->d->n; i++) {
        double v = p->d->points[i].sqnr[line];
        if (isnan(v))
            continue;
        svg_put(p,
                "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\" "
                "stroke=\"%s\"><title>%s</title></circle>",
                at_x(i), at_y(p, v), isinf(v) ? "white" : color[line], color[line],
                p->d->points[i].name);
    }
}

/* Text as XML: the four characters that mean something, and no control characters. */
static void escape(char *to, size_t size, const char *from, size_t n_bytes)
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

static bool line_is_there(const fv_depth_plot *d, int line)
{
    for (size_t i = 0; i < d->n; i++)
        if (!isnan(d->points[i].sqnr[line]))
            return true;
    return false;
}

/* From right to left along the top edge. */
static void legend(plot *p)
{
    double x = p->right;
    for (int line = FV_DEPTH_LINES - 1; line >= 0; line--) {
        if (!line_is_there(p->d, line))
            continue;
        svg_put(p, "<text x=\"%.1f\" y=\"40\" text-anchor=\"end\" fill=\"%s\">%s</text>", x,
                color[line], p->d->line[line]);
        x -= 16 + 6.5 * (double)strlen(p->d->line[line]);
    }
}

fv_status fv_depth_plot_put(const fv_depth_plot *d, const char *file, fv_error *err)
{
    char shown[8 * TITLE];
    plot p = { .d = d, .right = LEFT + STEP * ((double)d->n + 0.5) };
    double width = fmax(p.right + 20, 620);
    p.right = width - 20;
    find_range(&p);
    escape(shown, sizeof shown, d->title, d->n_title_bytes);
    svg_put(
        &p,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%d\" viewBox=\"0 0 %.0f "
        "%d\" font-family=\"sans-serif\" "
        "font-size=\"11\" fill=\"#333\">",
        width, TOP + PLOT + BOTTOM, width, TOP + PLOT + BOTTOM);
    svg_put(&p, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>");
    svg_put(&p, "<text x=\"%d\" y=\"20\" font-size=\"14\">%s</text>", LEFT, shown);
    svg_put(&p, "<text x=\"%d\" y=\"40\">%zu image%s; hollow: nothing lost</text>", LEFT,
            d->n_images, d->n_images == 1 ? "" : "s");
    axes(&p);
    for (int line = FV_DEPTH_LINES - 1; line >= 0; line--)
        if (line_is_there(d, line))
            line_put(&p, line);
    legend(&p);
    svg_put(&p, "</svg>");
    fv_status status = p.text.failed ? fv_fail_memory(err, p.text.n, "a plot")
                                     : fv_outfile_put(file, p.text.text, p.text.n, err);
    fv_json_text_free(&p.text);
    return status;
}
