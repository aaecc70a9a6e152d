/* Pictures for calibration when nobody gives any. They have what photographs have for the ranges of
 * activations: smooth areas, hard edges, fine texture, dark and bright parts, and borders of padding. */
#include <math.h>

#include "export/pictures.h"

static uint64_t next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float uniform(uint64_t *state) { return (float)(next(state) >> 40) * 0x1p-24f; }

enum { N_SHAPES = 24 };

typedef struct shape {
    int   kind;             /* ellipse, box, stripes, noise, text-like bars */
    float x, y, rx, ry, cosine, sine, color[3], opacity, period;
} shape;

static shape any_shape(uint64_t *state)
{
    float angle = uniform(state) * 6.2831853f, size = 0.02f + 0.3f * uniform(state) * uniform(state);
    shape s = { .kind = (int)(next(state) % 5), .x = uniform(state), .y = uniform(state), .rx = size,
                .ry = size * (0.3f + uniform(state)), .cosine = cosf(angle), .sine = sinf(angle),
                .opacity = 0.4f + 0.6f * uniform(state), .period = 40 + 400 * uniform(state) };
    for (int c = 0; c < 3; c++)
        s.color[c] = uniform(state);
    return s;
}

/* How much of the shape there is at (x, y). */
static float cover(const shape *s, float x, float y, uint64_t *noise)
{
    float dx = x - s->x, dy = y - s->y, u = (dx * s->cosine + dy * s->sine) / s->rx, v = (dy * s->cosine - dx * s->sine) / s->ry;
    bool in = s->kind == 0 ? u * u + v * v < 1 : fabsf(u) < 1 && fabsf(v) < 1;
    if (!in)
        return 0;
    switch (s->kind) {
    case 2: return sinf(u * s->rx * s->period) > 0 ? s->opacity : 0;
    case 3: return s->opacity * uniform(noise);
    case 4: return sinf(u * s->rx * s->period * 2) * sinf(u * s->rx * s->period * 0.63f) > 0.1f && fmodf((v + 1) * 4, 1) < 0.6f ? 1.0f : 0;
    default: return s->opacity;
    }
}

void fv_scene_draw(uint8_t *rgb, int size, uint64_t seed)
{
    uint64_t state = seed * 0x2545f4914f6cdd1du + 1, noise = state ^ 0x5555;
    float from[3], to[3], angle = uniform(&state) * 6.2831853f, grain = 0.15f * uniform(&state) * uniform(&state);
    shape shapes[N_SHAPES];
    int n = 3 + (int)(next(&state) % (N_SHAPES - 2)), bar = next(&state) % 3 ? 0 : (int)(uniform(&state) * 0.25f * (float)size);
    for (int c = 0; c < 3; c++) {
        from[c] = uniform(&state);
        to[c] = uniform(&state);
    }
    for (int i = 0; i < n; i++)
        shapes[i] = any_shape(&state);
    for (int py = 0; py < size; py++) {
        for (int px = 0; px < size; px++, rgb += 3) {
            float x = (float)px / (float)size, y = (float)py / (float)size;
            float t = 0.5f + 0.5f * ((x - 0.5f) * cosf(angle) + (y - 0.5f) * sinf(angle)) * 1.4f, color[3];
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
