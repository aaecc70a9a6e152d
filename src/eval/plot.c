/* A comparison -> SQNR by depth as an SVG picture: one point a stage, from the pixels to the last
 * layer. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fpenv.h"
#include "base/number.h"
#include "base/outfile.h"
#include "base/sized.h"
#include "eval/result.h"
#include "io/json_write.h"

enum { LEFT = 56, TOP = 56, PLOT = 300, BOTTOM = 115, STEP = 16, TITLE = 120 };

#define OWN_COLOR "#1f6feb"
#define REF_COLOR "#d1570a"

typedef struct plot {
    const fv_eval *e;
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

static double sqnr_of(const fv_eval_stage_info *s, bool ref)
{
    return ref ? s->ref.sqnr : s->own.sqnr;
}

/* A range of whole tens that holds every finite value. */
static void find_range(plot *p)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < p->e->info.n_stages; i++)
        for (int ref = 0; ref < 2; ref++) {
            double v = sqnr_of(&p->e->stages[i], ref);
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
    for (size_t i = 0; i < p->e->info.n_stages; i++) {
        const char *name = p->e->stages[i].name;
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
static void line(plot *p, bool ref, const char *color)
{
    double before = NAN;
    for (size_t i = 0; i < p->e->info.n_stages; i++) {
        double v = sqnr_of(&p->e->stages[i], ref);
        if (!isnan(before) && !isnan(v))
            svg_put(p,
                    "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                    "stroke-width=\"1.5\"/>",
                    at_x(i - 1), at_y(p, before), at_x(i), at_y(p, v), color);
        before = v;
    }
    for (size_t i = 0; i < p->e->info.n_stages; i++) {
        double v = sqnr_of(&p->e->stages[i], ref);
        if (isnan(v))
            continue;
        svg_put(p,
                "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\" "
                "stroke=\"%s\"><title>%s</title></circle>",
                at_x(i), at_y(p, v), isinf(v) ? "white" : color, color, p->e->stages[i].name);
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

static bool has(const fv_eval *e, bool ref)
{
    for (size_t i = 0; i < e->info.n_stages; i++)
        if (!isnan(sqnr_of(&e->stages[i], ref)))
            return true;
    return false;
}

fv_status fv_output_check(const char *file, fv_error *err)
{
    FV_REQUIRE(file, err);
    return fv_outfile_check(file, err);
}

fv_status fv_eval_plot(const fv_eval *eval, const char *title, size_t n_title_bytes,
                       const char *file, fv_error *err)
{
    FV_DEFAULT_FPENV;
    char shown[8 * TITLE];
    const fv_eval *e = eval;
    FV_REQUIRE(eval, err);
    FV_REQUIRE(file, err);
    if (!title)
        title = "SQNR by depth", n_title_bytes = strlen(title);
    plot p = { .e = e, .right = LEFT + STEP * ((double)e->info.n_stages + 0.5) };
    double width = fmax(p.right + 20, 620);
    p.right = width - 20;
    find_range(&p);
    escape(shown, sizeof shown, title, n_title_bytes);
    svg_put(
        &p,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%d\" viewBox=\"0 0 %.0f "
        "%d\" font-family=\"sans-serif\" "
        "font-size=\"11\" fill=\"#333\">",
        width, TOP + PLOT + BOTTOM, width, TOP + PLOT + BOTTOM);
    svg_put(&p, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>");
    svg_put(&p, "<text x=\"%d\" y=\"20\" font-size=\"14\">%s</text>", LEFT, shown);
    svg_put(&p, "<text x=\"%d\" y=\"40\">%zu image%s; hollow: nothing lost</text>", LEFT,
            e->info.n_images, e->info.n_images == 1 ? "" : "s");
    axes(&p);
    if (has(e, true)) {
        line(&p, true, REF_COLOR);
        svg_put(
            &p,
            "<text x=\"%.1f\" y=\"40\" text-anchor=\"end\" fill=\"%s\">with the reference's image "
            "tokens</text>",
            p.right, REF_COLOR);
    }
    if (has(e, false)) {
        line(&p, false, OWN_COLOR);
        svg_put(&p,
                "<text x=\"%.1f\" y=\"40\" text-anchor=\"end\" fill=\"%s\">own image tokens</text>",
                p.right - 190, OWN_COLOR);
    }
    svg_put(&p, "</svg>");
    fv_status status = p.text.failed ? fv_fail_memory(err, p.text.n, "a plot")
                                     : fv_outfile_put(file, p.text.text, p.text.n, err);
    fv_json_text_free(&p.text);
    return status;
}
