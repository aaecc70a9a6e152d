/* SQNR by depth -> an SVG picture: one point a stage or layer, from the pixels on. See
 * depth_plot.h. */
#include "quant/depth_plot.h"

#include <math.h>
#include <string.h>

#include "quant/svg.h"

enum { LEFT = 56, TOP = 56, PLOT = 300, BOTTOM = 115, STEP = 16 };

static const char *const color[FV_DEPTH_LINES] = { "#1f6feb", "#d1570a" };

typedef struct plot {
    const fv_depth_plot *d;
    fv_svg svg;
    double low, high; /* dB at the bottom and at the top; stages without loss lie on the top */
    double right;     /* x of the right edge */
} plot;

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
        fv_svg_put(&p->svg, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>",
                   LEFT, at_y(p, v), p->right, at_y(p, v));
        fv_svg_put(&p->svg, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>", LEFT - 6,
                   at_y(p, v) + 4, v);
    }
    fv_svg_put(
        &p->svg,
        "<text transform=\"translate(16,%d) rotate(-90)\" text-anchor=\"middle\">SQNR, dB</text>",
        TOP + PLOT / 2);
    bool decoder = false;
    for (size_t i = 0; i < p->d->n; i++) {
        const char *name = p->d->points[i].name;
        if (!decoder && !strncmp(name, "decoder.", 8) && i > 0) {
            double x = (at_x(i) + at_x(i - 1)) / 2;
            fv_svg_put(&p->svg,
                       "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#999\" "
                       "stroke-dasharray=\"3 3\"/>",
                       x, TOP, x, TOP + PLOT);
        }
        decoder = decoder || !strncmp(name, "decoder.", 8);
        fv_svg_put(&p->svg,
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
            fv_svg_put(&p->svg,
                       "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                       "stroke-width=\"1.5\"/>",
                       at_x(i - 1), at_y(p, before), at_x(i), at_y(p, v), color[line]);
        before = v;
    }
    for (size_t i = 0; i < p->d->n; i++) {
        double v = p->d->points[i].sqnr[line];
        if (isnan(v))
            continue;
        fv_svg_put(&p->svg,
                   "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\" "
                   "stroke=\"%s\"><title>%s</title></circle>",
                   at_x(i), at_y(p, v), isinf(v) ? "white" : color[line], color[line],
                   p->d->points[i].name);
    }
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
        fv_svg_put(&p->svg, "<text x=\"%.1f\" y=\"40\" text-anchor=\"end\" fill=\"%s\">%s</text>",
                   x, color[line], p->d->line[line]);
        x -= 16 + 6.5 * (double)strlen(p->d->line[line]);
    }
}

fv_status fv_depth_plot_put(const fv_depth_plot *d, const char *file, fv_error *err)
{
    plot p = { .d = d, .right = LEFT + STEP * ((double)d->n + 0.5) };
    double width = fmax(p.right + 20, 620);
    p.right = width - 20;
    find_range(&p);
    fv_svg_begin(&p.svg, width, TOP + PLOT + BOTTOM, LEFT, d->title, d->n_title_bytes);
    fv_svg_put(&p.svg, "<text x=\"%d\" y=\"40\">%zu image%s; hollow: nothing lost</text>", LEFT,
               d->n_images, d->n_images == 1 ? "" : "s");
    axes(&p);
    for (int line = FV_DEPTH_LINES - 1; line >= 0; line--)
        if (line_is_there(d, line))
            line_put(&p, line);
    legend(&p);
    return fv_svg_save(&p.svg, file, err);
}
