/* Images for calibration when nobody gives any. They have what photographs have for the ranges of
 * activations: smooth areas, hard edges, fine texture, dark and bright parts, words, and borders of
 * padding; every second one is flat, as drawings, signs and pages are: those reach other ranges. */
#include <math.h>

#include "base/base.h"
#include "pack/scenes.h"

static uint64_t next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float uniform(uint64_t *state) { return (float)(next(state) >> 40) * 0x1p-24f; }

/* Mostly one of the ends, as in saturated colours, black and white. */
static float full_or_none(uint64_t *state)
{
    float v = uniform(state);
    return v < 0.35f ? 0 : v > 0.65f ? 1 : (v - 0.35f) / 0.3f;
}

enum { N_SHAPES = 24, FLAT_SHAPES = 8, LETTERS = 6 };

typedef struct shape {
    int kind; /* ellipse, box, stripes, noise, lines of bars, word */
    float x, y, rx, ry, cosine, sine, color[3], opacity, period;
    int n_letters;
    unsigned letter[LETTERS]; /* each a set of strokes */
} shape;

/* flat: as drawn things are, opaque, of one colour or none at all, and without noise. */
static shape any_shape(uint64_t *state, bool flat)
{
    float angle = uniform(state) * 6.2831853f,
          size = 0.02f + 0.3f * uniform(state) * uniform(state);
    shape s = { .kind = (int)(next(state) % 6),
                .x = uniform(state),
                .y = uniform(state),
                .rx = size,
                .ry = size * (0.3f + uniform(state)),
                .cosine = cosf(angle),
                .sine = sinf(angle),
                .opacity = 0.4f + 0.6f * uniform(state),
                .period = 40 + 400 * uniform(state) };
    for (int c = 0; c < 3; c++)
        s.color[c] = flat ? full_or_none(state) : uniform(state);
    if (flat) {
        static const int kinds[] = { 0, 1, 5, 5, 4, 5 };
        s.kind = kinds[s.kind];
        s.opacity = 1;
    }
    if (s.kind == 5) { /* as words are: wide, nearly level, of strokes of one colour */
        s.n_letters = 1 + (int)(next(state) % LETTERS);
        s.ry = 0.03f + 0.12f * uniform(state);
        s.rx = s.ry * 0.7f * (float)s.n_letters;
        s.cosine = cosf(0.1f * (angle - 3));
        s.sine = sinf(0.1f * (angle - 3));
        s.opacity = 1;
        for (int i = 0; i < s.n_letters; i++)
            s.letter[i] = (unsigned)(next(state) & next(state)) & 255;
    }
    return s;
}

/* Is (a, b), both from 0 to 1, on a stroke of the letter? */
static bool on_stroke(unsigned letter, float a, float b)
{
    const float half = 0.09f, x = (a - 0.5f) / 0.3f, y = (b - 0.5f) / 0.4f,
                off[8] = { a - 0.2f,
                           a - 0.8f,
                           b - 0.1f,
                           b - 0.5f,
                           b - 0.9f,
                           a - 0.2f - 0.6f * b,
                           a - 0.8f + 0.6f * b,
                           0.3f * (sqrtf(x * x + y * y) - 1) };
    if (fabsf(x) > 1.3f || fabsf(y) > 1.23f)
        return false;
    for (int i = 0; i < 8; i++)
        if ((letter >> i & 1) && fabsf(off[i]) < half)
            return true;
    return false;
}

/* How much of the shape there is at (x, y). */
static float cover(const shape *s, float x, float y, uint64_t *noise)
{
    float dx = x - s->x, dy = y - s->y, u = (dx * s->cosine + dy * s->sine) / s->rx,
          v = (dy * s->cosine - dx * s->sine) / s->ry;
    bool in = s->kind == 0 ? u * u + v * v < 1 : fabsf(u) < 1 && fabsf(v) < 1;
    if (!in)
        return 0;
    switch (s->kind) {
    case 2: return sinf(u * s->rx * s->period) > 0 ? s->opacity : 0;
    case 3: return s->opacity * uniform(noise);
    case 5: {
        float at = (u + 1) * 0.5f * (float)s->n_letters;
        int i = FV_MIN((int)at, s->n_letters - 1);
        return on_stroke(s->letter[i], at - (float)i, (v + 1) * 0.5f) ? s->opacity : 0;
    }
    case 4:
        return sinf(u * s->rx * s->period * 2) * sinf(u * s->rx * s->period * 0.63f) > 0.1f &&
                       fmodf((v + 1) * 4, 1) < 0.6f
                   ? 1.0f
                   : 0;
    default: return s->opacity;
    }
}

void fv_scene_draw(uint8_t *rgb, int size, uint64_t seed)
{
    uint64_t state = seed * 0x2545f4914f6cdd1du + 1, noise = state ^ 0x5555;
    float from[3], to[3], angle = uniform(&state) * 6.2831853f,
                          grain = 0.15f * uniform(&state) * uniform(&state);
    const bool flat = seed % 2 == 1;
    shape shapes[N_SHAPES];
    int n = flat ? (int)(next(&state) % (FLAT_SHAPES + 1))
                 : 3 + (int)(next(&state) % (N_SHAPES - 2)),
        bar = next(&state) % 3 ? 0 : (int)(uniform(&state) * 0.25f * (float)size);
    for (int c = 0; c < 3; c++) {
        from[c] = flat ? full_or_none(&state) : uniform(&state);
        to[c] = flat ? from[c] : uniform(&state);
    }
    grain = flat ? 0 : grain;
    for (int i = 0; i < n; i++)
        shapes[i] = any_shape(&state, flat);
    for (int py = 0; py < size; py++) {
        for (int px = 0; px < size; px++, rgb += 3) {
            float x = (float)px / (float)size, y = (float)py / (float)size;
            float t = 0.5f + 0.5f * ((x - 0.5f) * cosf(angle) + (y - 0.5f) * sinf(angle)) * 1.4f,
                  color[3];
            for (int c = 0; c < 3; c++)
                color[c] = from[c] + (to[c] - from[c]) * t;
            for (int i = 0; i < n; i++) {
                float a = cover(&shapes[i], x, y, &noise);
                for (int c = 0; a > 0 && c < 3; c++)
                    color[c] += a * (shapes[i].color[c] - color[c]);
            }
            float g = grain * (uniform(&noise) - 0.5f);
            bool padded = py < bar || py >= size - bar;
            for (int c = 0; c < 3; c++) {
                float v = padded ? 0 : 255 * (color[c] + g) + 0.5f;
                rgb[c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
        }
    }
}
