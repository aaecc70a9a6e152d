/* A bar a layer, as long as its time; the darker part of it is the time that the machine's limits
 * leave it at least. See layer_plot.h. */
#include "quant/layer_plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/svg.h"

enum { LEFT = 340, TOP = 64, WIDTH = 420, ROW = 14, GAP = 20, RIGHT = 110, NAME = 200 };

static bool group_begins(const fv_layer_bar *bars, size_t i)
{
    return i == 0 || strcmp(bars[i].group, bars[i - 1].group);
}

static double longest(const fv_layer_bar *bars, size_t i, size_t n)
{
    double ms = 0;
    for (size_t j = i; j < n && (j == i || !group_begins(bars, j)); j++)
        ms = fmax(ms, bars[j].ms);
    return ms;
}

/* "1.23", "45.6", "789" */
static int digits(double x) { return x < 10 ? 2 : x < 100 ? 1 : 0; }

static void bar_put(fv_svg *s, const fv_layer_bar *b, double y, double scale)
{
    char name[6 * NAME], whole[6 * NAME];
    const size_t n = strlen(b->name), most = 54;
    fv_svg_escape(name, sizeof name, b->name + (n > most ? n - most : 0), FV_MIN(n, most));
    fv_svg_escape(whole, sizeof whole, b->name, n);
    fv_svg_put(s, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s%s</text>", LEFT - 6, y + 10,
               n > most ? "&#8230;" : "", name);
    fv_svg_put(s,
               "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"#a9c9f5\"><title>%s: "
               "%.*f ms</title></rect>",
               LEFT, y, b->ms * scale, ROW - 3, whole, digits(b->ms), b->ms);
    if (b->least_ms > 0)
        fv_svg_put(s, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"#1f6feb\"/>",
                   LEFT, y, fmin(b->least_ms, b->ms) * scale, ROW - 3);
    fv_svg_put(s, "<text x=\"%.1f\" y=\"%.1f\">%.*f ms", LEFT + b->ms * scale + 5, y + 10,
               digits(b->ms), b->ms);
    if (b->least_ms > 0)
        fv_svg_put(s, ", %.0f %%", fmin(100 * b->least_ms / b->ms, 100));
    fv_svg_put(s, "</text>");
}

fv_status fv_layer_plot_put(const fv_layer_bar *bars, size_t n, const char *title,
                            size_t n_title_bytes, const char *file, fv_error *err)
{
    fv_svg s;
    size_t n_groups = 0;
    for (size_t i = 0; i < n; i++)
        n_groups += group_begins(bars, i);
    double y = TOP, scale = 1;
    fv_svg_begin(&s, LEFT + WIDTH + RIGHT, TOP + (double)(n * ROW + n_groups * 2 * GAP), 20, title,
                 n_title_bytes);
    fv_svg_put(&s, "<text x=\"20\" y=\"40\">bars: time; dark: what the processor's products and "
                   "memory allow at least, and its share</text>");
    for (size_t i = 0; i < n; i++, y += ROW) {
        if (group_begins(bars, i)) {
            char group[6 * NAME];
            fv_svg_escape(group, sizeof group, bars[i].group, strlen(bars[i].group));
            y += i ? GAP : 0;
            fv_svg_put(&s, "<text x=\"%d\" y=\"%.1f\" font-size=\"13\">%s</text>", LEFT, y + 11,
                       group);
            y += GAP;
            scale = WIDTH / fmax(longest(bars, i, n), 1e-9);
        }
        bar_put(&s, &bars[i], y, scale);
    }
    return fv_svg_save(&s, file, err);
}
