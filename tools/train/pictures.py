"""The pictures of the second edition: scenes.py's drawings and others that people bring along.

picture(split, seed) -> Scene: a plain drawing, a composition (shapes and words on larger shapes, touching or very large
ones, lines that mean nothing, strokes by hand), pixel art, or a photograph of a sheet of paper or of a screen;
show(scene) -> PIL image. A picture with an odd number is often the one before it with one thing changed (partner())."""
import copy
import io
import math
import os
import subprocess

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from rng import Rng, noise_bank
from scenes import COLORS, FONTS, HELD_OUT, SHAPES, Obj, Scene, color_of, corners, far, font, place_objects, place_text, random_word, render, scene

SIZE_BANDS = {"small": (.045, .086), "medium": (.091, .134), "large": (.145, 1.0)}   # of a radius, where it is measured afterwards


def size_name(r):
    for name, (a, b) in SIZE_BANDS.items():
        if a <= r < b:
            return name
    return None


# ------------------------------------------------------------------------------------------------ compositions

def vary(r, o):
    """Proportions, fillings and lines that other tools and hands give a shape."""
    if o.shape != "circle" and r.p(.4):
        k = .07 if o.shape in ("square", "hexagon") else .22
        o.stretch = 1 + r.u(-k, k) if o.shape != "rectangle" else r.u(.75, 1.35)
    if r.p(.25):
        o.wobble = tuple((r.u(0, .05) / (i + 1), r.u(0, 2 * math.pi)) for i in range(3))
    if not o.outline:
        if r.p(.2):
            o.edge = False
            o.line = (r.pick([(255, 255, 255), (0, 0, 0), color_of(r, r.pick(sorted(COLORS)))]), r.u(.04, .14))
        if o.color not in ("black", "white", "gray") and r.p(.15):
            f = r.u(.82, 1.12)
            o.shade = tuple(max(0, min(255, int(x * f))) for x in o.rgb)


def strokes(r, sc):
    """Lines that are nothing by themselves: strings, grounds, poles, frames, ruled paper."""
    out = []

    def ink():
        """Stands out from the ground, but does not run into a shape or a word."""
        for _ in range(20):
            c = tuple(max(0, min(255, x + r.pick([-1, 1]) * r.int(25, 80))) for x in sc.bg[0])
            if all(far(c, q.rgb, 60) for q in sc.objs + sc.texts):
                break
        return c

    for _ in range(r.int(1, 3)):
        k, W, H = r.int(0, 4), sc.W, sc.H
        if k == 0:
            x, y, dx, dy = r.u(0, W), r.u(0, H), r.u(-.3, .3) * W, r.u(.2, .6) * H
            bow = r.u(-.1, .1) * W
            pts = [(x + dx * t / 8 + bow * math.sin(math.pi * t / 8), y + dy * t / 8) for t in range(9)]
            out.append((ink(), r.u(1, 2.5), pts))
        elif k == 1:
            y = H * r.u(.8, .97)
            out.append((ink(), 2 * (H - y), [(0, H), (W, H)]))
        elif k == 2:
            x = W * r.u(.2, .8)
            out.append((ink(), r.u(2, .05 * W), [(x, H * r.u(.4, .8)), (x, H)]))
        elif k == 3:
            m, c = r.u(.02, .05) * sc.L, ink()
            out.append((c, r.u(1.5, 4), [(m, m), (W - m, m), (W - m, H - m), (m, H - m), (m, m)]))
        else:
            step, c = r.u(.06, .14) * sc.L, ink()
            out += [(c, 1, [(0, y), (W, y)]) for y in np.arange(step, H, step).tolist()]
    return out


INNER = {"circle": .62, "square": .7, "rectangle": .42, "hexagon": .68, "heart": .48, "cross": .22, "moon": 0, "arrow": 0, "star": .32,
         "triangle": .36}


def add(r, sc, split, at, radius, names, avoid, shapes=SHAPES):
    """One shape of a colour that stands out from `avoid`; None if none does."""
    for _ in range(30):
        o = Obj()
        o.shape, o.color = r.pick(shapes), r.pick(names)
        if (o.color, o.shape) in HELD_OUT and (split == "train" or r.p(.5)):
            continue
        o.rgb = color_of(r, o.color)
        if not all(far(o.rgb, b, 85) for b in avoid):
            continue
        o.size = size_name(radius)
        o.r, (o.cx, o.cy) = radius * sc.L, at
        o.outline, o.edge, o.var = False, r.p(.05), r.u()
        o.rot = math.radians(r.u(-8, 8)) if r.p(.3) else math.radians(r.u(-180, 180)) if r.p(.15) and shapes is SHAPES else 0.0
        vary(r, o)
        return o
    return None


def band_radius(r, lo, hi):
    while True:
        x = r.u(lo, hi)
        if size_name(x):
            return x


def composition(r, sc, split):
    k, names = r.u(), sorted(COLORS)
    room = min(sc.W, sc.H) / sc.L
    if k < .4:                                            # things on a larger shape
        R = band_radius(r, .24, min(.4, .46 * room))
        at = (r.u(R * sc.L, sc.W - R * sc.L) if sc.W > 2 * R * sc.L else sc.W / 2, r.u(R * sc.L, sc.H - R * sc.L) if sc.H > 2 * R * sc.L else sc.H / 2)
        big = add(r, sc, split, at, R, names, sc.bg, [s for s in SHAPES if INNER[s]])
        if not big:
            return
        big.rot = 0.0 if big.shape != "circle" else big.rot
        sc.objs.append(big)
        inner = INNER[big.shape] * R
        upright = big.shape == "rectangle" and r.p(.5)
        if upright:
            big.rot = math.pi / 2
        if r.p(.3) and inner > .15:
            t = Obj()
            for _ in range(20):
                t.word = random_word(r, split)
                t.font, t.px = r.pick(FONTS), int(sc.L * r.u(.15, .24))
                x0, y0, x1, y1 = font_box(t)
                t.w, t.h, t.cx, t.cy, t.off, t.box, t.rot = x1 - x0, y1 - y0, at[0], at[1], (x0, y0), None, 0.0
                wide = (1.0 if big.shape == "rectangle" and not upright else INNER[big.shape]) * R * sc.L
                if t.w < 2 * wide * .95 and .1 * sc.L < t.h < 2 * inner * sc.L or len(t.word) == 1 and t.h < 2 * inner * sc.L:
                    lum = sum(big.rgb) / 3
                    t.rgb = (r.int(0, 40),) * 3 if lum > 120 else (r.int(225, 255),) * 3
                    sc.texts.append(t)
                    break
        else:
            n = r.pick([1, 1, 1, 2, 3]) if inner > .15 else 1
            small = inner * (.95 if n == 1 else .5 if n == 2 else .36)
            if big.shape == "rectangle":
                small, inner = .42 * R * r.u(.7, .95), .95 * R
            small = min(small, .2)
            if not size_name(small) or small < .05:
                return
            for i in range(n):
                f = (i - (n - 1) / 2) * (2.2 * small if big.shape == "rectangle" else 2.1 * small)
                dx, dy = ((f, 0), (0, f))[r.int(0, 1) if big.shape != "rectangle" else int(upright)] if n > 1 else (0, 0)
                o = add(r, sc, split, (at[0] + dx * sc.L, at[1] + dy * sc.L), small * r.u(.85, 1), names, [big.rgb])
                if o and o.size and abs(f) + small < inner * 1.05 + .01:
                    sc.objs.append(o)
        if r.p(.4):
            place_more(r, sc, split, 1)
    elif k < .6:                                          # standing on or next to each other
        n, along = r.int(2, 4), r.int(0, 1)
        a = [band_radius(r, .06, min(.42 * room, .78 / (2 * n))) for _ in range(n)]
        at = (1 if along == 0 else sc.W / sc.L) / 2, 0
        total = sum(a) * 2
        x = (sc.W if along == 0 else sc.H) / sc.L / 2 - total / 2
        y = (sc.H if along == 0 else sc.W) / sc.L * r.u(.4, .6)
        if x < .01:
            return
        for ra in a:
            x += ra
            p = (x * sc.L, y * sc.L) if along == 0 else (y * sc.L, x * sc.L)
            o = add(r, sc, split, p, ra, names, sc.bg + ([sc.objs[-1].rgb] if sc.objs else []),
                    ["circle", "square", "triangle", "rectangle", "hexagon", "heart", "star"])
            if o:
                o.rot = 0.0
                sc.objs.append(o)
            x += ra * r.u(.88, 1.0)
    elif k < .8:                                          # one or two very large
        n = r.int(1, 2)
        for i in range(n):
            R = band_radius(r, .17, (.44 if n == 1 else .24) * room)
            e = R * sc.L * 1.1
            for _ in range(10):
                at = (r.u(e, max(e, sc.W - e)), r.u(e, max(e, sc.H - e)))
                if all(math.hypot(at[0] - q.cx, at[1] - q.cy) > (e + q.r * 1.1) for q in sc.objs):
                    o = add(r, sc, split, at, R, names, sc.bg)
                    if o:
                        o.outline = r.p(.3)
                        sc.objs.append(o)
                    break
        if r.p(.5):
            place_more(r, sc, split, r.int(1, 2))
    else:                                                 # as elsewhere, in other proportions
        place_objects(r, sc, split, r.int(1, 5), split != "train" and r.p(.35))
        for o in sc.objs:
            vary(r, o)
        if r.p(.4):
            place_text(r, sc, split, 1)
            drop_hidden(sc)


def place_more(r, sc, split, n):
    have = list(sc.objs)
    place_objects(r, sc, split, len(have) + n, False)
    sc.objs[:] = have + [o for o in sc.objs[len(have):len(have) + n]
                         if all(math.hypot(o.cx - q.cx, o.cy - q.cy) > (o.r + q.r) * 1.15 for q in have) and
                         all(abs(o.cx - t.cx) > t.w / 2 + o.r * 1.12 or abs(o.cy - t.cy) > t.h / 2 + o.r * 1.12 for t in sc.texts)]


def drop_hidden(sc):
    """Words keep clear of shapes that were there before."""
    sc.texts[:] = [t for t in sc.texts if all(abs(o.cx - t.cx) > t.w / 2 + o.r * 1.15 + 2 or abs(o.cy - t.cy) > t.h / 2 + o.r * 1.15 + 2 for o in sc.objs)]


def font_box(t):
    return font(t.font, t.px).getbbox(t.word, anchor="ls")


# ------------------------------------------------------------------------------------------------ photographs

def homography(src, dst):
    """3x3 with dst ~ H src for four points."""
    rows = []
    for (x, y), (u, v) in zip(src, dst):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y, u])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y, v])
    m = np.array(rows, np.float64)
    return np.append(np.linalg.solve(m[:, :8], m[:, 8]), 1.0).reshape(3, 3)


def through(h, x, y):
    u, v, w = h @ np.array([x, y, 1.0])
    return u / w, v / w


def photograph(r, sheet, kind):
    """The sheet as a camera sees it; None if something on it would get a size that has no name."""
    for _ in range(8):
        sc = Scene()
        sc.seed, sc.split, sc.sheet = sheet.seed, sheet.split, sheet
        sc.L = r.int(256, 340)
        a = r.pick([1.0, 4 / 3, 3 / 4, 16 / 9, 9 / 16])
        sc.W, sc.H = (sc.L, int(sc.L / a)) if a >= 1 else (int(sc.L * a), sc.L)
        s = min(sc.W / sheet.W, sc.H / sheet.H) * r.u(.7, .96)
        th = math.radians(r.u(-12, 12) if r.p(.6) else 0)
        w, h = sheet.W * s / 2, sheet.H * s / 2
        cx, cy = sc.W / 2 + r.u(-.06, .06) * sc.W, sc.H / 2 + r.u(-.06, .06) * sc.H
        j = .07 * min(w, h) * 2 * r.u(0, 1)
        dst = []
        for x, y in ((-w, -h), (w, -h), (w, h), (-w, h)):
            dst.append((cx + x * math.cos(th) - y * math.sin(th) + r.u(-j, j), cy + x * math.sin(th) + y * math.cos(th) + r.u(-j, j)))
        H = homography([(0, 0), (sheet.W, 0), (sheet.W, sheet.H), (0, sheet.H)], dst)
        sc.objs, sc.texts, ok = [], [], True
        for o in sheet.objs:
            q = copy.copy(o)
            q.cx, q.cy = through(H, o.cx, o.cy)
            ex, ey = through(H, o.cx + 1, o.cy), through(H, o.cx, o.cy + 1)
            q.r = o.r * (math.hypot(ex[0] - q.cx, ex[1] - q.cy) * math.hypot(ey[0] - q.cx, ey[1] - q.cy)) ** .5
            q.rot = o.rot + math.atan2(ex[1] - q.cy, ex[0] - q.cx)
            q.size = size_name(q.r / sc.L)
            ok = ok and q.size is not None and q.r < min(q.cx, q.cy, sc.W - q.cx, sc.H - q.cy)
            sc.objs.append(q)
        for t in sheet.texts:
            q = copy.copy(t)
            q.cx, q.cy = through(H, t.cx, t.cy)
            ex, ey = through(H, t.cx + 1, t.cy), through(H, t.cx, t.cy + 1)
            kx, ky = math.hypot(ex[0] - q.cx, ex[1] - q.cy), math.hypot(ey[0] - q.cx, ey[1] - q.cy)
            q.w, q.h, q.k = t.w * kx, t.h * ky, kx
            q.rot = t.rot - math.degrees(math.atan2(ex[1] - q.cy, ex[0] - q.cx))
            ok = ok and q.h > .075 * sc.L and q.w / 2 < min(q.cx, sc.W - q.cx) and q.h / 2 < min(q.cy, sc.H - q.cy)
            sc.texts.append(q)
        if ok:
            break
    else:
        return None
    sc.bg, sc.kind = sheet.bg, kind
    base = color_of(r, "brown") if r.p(.5) else tuple(r.int(20, 235) for _ in range(3)) if r.p(.3) else (r.int(30, 240),) * 3
    p = dict(H=H, seed=r.int(0, 800000), base=base, grain=r.u(0, 28), wood=r.p(.5), light=r.u(.82, 1.16), tint=[r.u(.92, 1.08) for _ in range(3)],
             fall=(r.u(0, 2 * math.pi), r.u(0, .3)), blur=r.u(.2, 1.1), noise=r.u(1, 11), jpeg=r.int(45, 92), moire=None, hand=None, shadow=r.p(.6))
    if kind == "screen":
        p["base"], p["wood"], p["grain"] = (r.int(5, 40),) * 3, False, 2
        p["moire"] = [(r.u(.02, .3), r.u(0, 2 * math.pi), r.u(.02, .09), r.u(0, 6)) for _ in range(r.int(1, 3))]
    elif r.p(.3):                                         # fingers over an edge, clear of everything that is asked about
        e = r.int(0, 3)
        fingers, skin = [], (r.int(150, 235), r.int(100, 180), r.int(80, 150))
        for i in range(r.int(1, 3)):
            u, deep, wide = r.u(.25, .75), r.u(.1, .2) * sc.L, r.u(.028, .04) * sc.L
            x, y = ((0, u * sc.H), (sc.W, u * sc.H), (u * sc.W, 0), (u * sc.W, sc.H))[e]
            dx, dy = ((1, 0), (-1, 0), (0, 1), (0, -1))[e]
            tip = (x + dx * deep, y + dy * deep)
            clear = all(math.hypot(max(0, abs(o.cx - tip[0]) - deep * abs(dx)), max(0, abs(o.cy - tip[1]) - deep * abs(dy))) > o.r * 1.2 + wide * 1.3 for o in sc.objs)
            clear &= all(abs(t.cx - tip[0]) > t.w / 2 + wide * 1.5 + deep * abs(dx) or abs(t.cy - tip[1]) > t.h / 2 + wide * 1.5 + deep * abs(dy) for t in sc.texts)
            if clear:
                fingers.append(((x, y), tip, wide))
        p["hand"] = (fingers, skin)
    sc.photo = p
    sc.noise, sc.bright, sc.jpeg = 0.0, 1.0, 0
    return sc


def clouds(seed, w, h, n, stretch=1):
    z = noise_bank()[seed:][:n * n * stretch].reshape(n, n * stretch)
    im = Image.fromarray(np.clip(128 + 50 * z, 0, 255).astype(np.uint8)).resize((w, h), Image.BICUBIC)
    return (np.asarray(im, np.float32) - 128) / 50


def develop(sc):
    p, sheet = sc.photo, sc.sheet
    page = render(sheet)
    W, H = sc.W, sc.H
    table = np.array(p["base"], np.float32)[None, None] + p["grain"] * clouds(p["seed"], W, H, 7, 6 if p["wood"] else 1)[..., None]
    im = Image.fromarray(np.clip(table, 0, 255).astype(np.uint8))
    h = np.linalg.inv(p["H"])
    flat = (h / h[2, 2]).flatten()[:8].tolist()
    mask = Image.new("L", page.size, 255)
    warped = page.transform((W, H), Image.PERSPECTIVE, flat, Image.BICUBIC)
    wmask = mask.transform((W, H), Image.PERSPECTIVE, flat, Image.BILINEAR)
    if p["shadow"]:
        dark = wmask.transform((W, H), Image.AFFINE, (1, 0, -3, 0, 1, -4)).resize((W // 2, H // 2)).filter(ImageFilter.GaussianBlur(2)).resize((W, H))
        im = Image.composite(Image.new("RGB", (W, H)), im, dark.point(lambda v: int(v * .45)))
    im.paste(warped, (0, 0), wmask)
    if p["hand"]:
        (fingers, skin), d = p["hand"], ImageDraw.Draw(im)
        for (x, y), (tx, ty), w in fingers:
            d.line([(x, y), (tx, ty)], fill=skin, width=int(2 * w))
            d.ellipse([tx - w, ty - w, tx + w, ty + w], fill=skin)
    if p["blur"] > .35:
        im = im.filter(ImageFilter.GaussianBlur(p["blur"]))
    a = np.asarray(im, np.float32)
    y, x = np.mgrid[0:sc.H, 0:sc.W].astype(np.float32)
    u = (x * math.cos(p["fall"][0]) + y * math.sin(p["fall"][0])) / sc.L
    a = a * (np.array(p["tint"], np.float32) * p["light"]) * (1 - p["fall"][1] * np.abs(u - u.mean()))[..., None]
    for f, th, amp, ph in p["moire"] or ():
        wave = np.sin(2 * math.pi * f * (x * math.cos(th) + y * math.sin(th)) + ph)
        a = a * (1 + amp * np.stack([wave, np.roll(wave, 2, 1), np.roll(wave, 4, 1)], -1))
    off, n = p["seed"] % 200000, sc.W * sc.H * 3
    a = a + p["noise"] * noise_bank()[off:off + n].reshape(a.shape)
    im = Image.fromarray(np.clip(a + .5, 0, 255).astype(np.uint8))
    b = io.BytesIO()
    im.save(b, "JPEG", quality=p["jpeg"])
    return Image.open(b).convert("RGB")


# ------------------------------------------------------------------------------------------------ other tools

FAMILIES = {"DejaVuSans": "DejaVu Sans", "DejaVuSerif": "DejaVu Serif", "LiberationSans": "Liberation Sans", "LiberationSerif": "Liberation Serif",
            "FreeSans": "FreeSans", "FreeSansBold": "FreeSans", "NotoSans": "Noto Sans"}
TOOLS = {"librsvg": ["rsvg-convert"], "ImageMagick": ["convert", "msvg:-", "png:-"]}


def svg(sc):
    """The scene's shapes and words, on its first colour, as a vector drawing."""
    rgb = lambda c: "#%02x%02x%02x" % tuple(c)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d"><rect width="%d" height="%d" fill="%s" stroke="none"/>' % (
        sc.W, sc.H, sc.W, sc.H, rgb(sc.bg[0]))]
    for o in sc.objs:
        how = 'fill="%s"' % rgb(o.rgb)
        scale = 1.0
        if o.outline:
            how, scale = 'fill="none" stroke="%s" stroke-width="%.1f" stroke-linejoin="round"' % (rgb(o.rgb), max(1.5, .19 * o.r)), .9
        elif o.line:
            how += ' stroke="%s" stroke-width="%.1f"' % (rgb(o.line[0]), o.line[1] * o.r)
        else:
            how += ' stroke="none"'                       # ImageMagick would draw a thin line
        if o.shape == "circle":
            out.append('<circle cx="%.1f" cy="%.1f" r="%.1f" %s/>' % (o.cx, o.cy, o.r * scale, how))
        else:
            q = copy.copy(o)
            q.r = o.r * scale
            out.append('<polygon points="%s" %s/>' % (" ".join("%.1f,%.1f" % p for p in corners(q, 1)), how))
    for t in sc.texts:
        name, _, weight = os.path.basename(t.font)[:-4].partition("-")
        x, y = t.cx - t.off[0] - t.w / 2, t.cy - t.off[1] - t.h / 2
        if t.box:
            m = .02 * sc.L
            out.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" stroke="none"/>' % (
                t.cx - t.w / 2 - m, t.cy - t.h / 2 - m, t.w + 2 * m, t.h + 2 * m, rgb(t.box)))
        out.append('<text x="%.1f" y="%.1f" font-family="%s" font-weight="%s" font-size="%d" fill="%s" stroke="none">%s</text>' % (
            x, y, FAMILIES[name], "bold" if "Bold" in t.font else "normal", t.px, rgb(t.rgb), t.word))
    return "\n".join(out + ["</svg>"]) + "\n"


def by_tool(sc):
    done = subprocess.run(TOOLS[sc.tool], input=svg(sc).encode(), stdout=subprocess.PIPE, check=True)
    return Image.open(io.BytesIO(done.stdout)).convert("RGB")


# ------------------------------------------------------------------------------------------------ all of them

def canvas(r, split, seed):
    """An empty scene with the grounds of scenes.py."""
    sc = copy.copy(scene(split, (seed + 7919) * 31 + 5))
    sc.seed, sc.objs, sc.texts = seed, [], []
    return sc


def pixel_art(r, split, seed):
    sc = canvas(r, split, seed)
    sc.kind, sc.bg, sc.noise, sc.jpeg, sc.bright = "plain", sc.bg[:1], 0.0, 0, 1.0
    place_objects(r, sc, split, r.int(1, 4), split != "train" and r.p(.35))
    sc.objs[:] = in_pixels(sc.objs)
    sc.pixels = r.int(40, 80)
    return sc


def in_pixels(objs):
    """Those that few pixels can show, as they show them."""
    for o in objs:
        o.outline, o.rot = o.outline and o.size == "large", round(o.rot / (math.pi / 4)) * math.pi / 4
    return [o for o in objs if o.size != "small" or o.shape in ("circle", "square", "triangle", "cross", "rectangle")]


def picture(split, seed, kind=None):
    r = Rng("picture-" + split, seed)
    base = partner(seed)
    if base is not None and kind is None:
        before = picture(split, base)
        if before.photo is None and r.p(.75 if split == "train" else .6):
            return changed(r, before, split, seed)
    k = r.u()
    a, b, c, d = (.3, .53, .58, .88) if split == "train" else (.45, .7, .75, .92)    # photographs are the hardest to learn
    kind = kind or ("plain" if k < a else "composition" if k < b else "pixels" if k < c else "paper" if k < d else "screen")
    if kind == "plain":
        sc = scene(split, seed + 40000000)
        if r.p(.3):
            sc.smooth = r.pick([1, 3, 4])
    elif kind == "composition":
        sc = canvas(r, split, seed)
        if r.p(.5):
            sc.kind, sc.bg, sc.noise = "plain", sc.bg[:1], sc.noise * r.pick([0, 1])
        composition(r, sc, split)
        sc.smooth = r.pick([1, 2, 3, 4])
        if r.p(.35):
            sc.marks = strokes(r, sc)
    elif kind == "pixels":
        sc = pixel_art(r, split, seed)
    elif kind in TOOLS:                                   # tests only
        sc = scene(split, seed + 40000000)
        if r.p(.5):
            sc = canvas(r, split, seed)
            composition(r, sc, split)
        sc.bg, sc.kind, sc.tool = sc.bg[:1], "plain", kind
    else:
        sc = None
        for i in range(4):
            sheet = scene(split, seed + 40000000 + i * 1000003)
            if sheet.kind not in ("plain", "gradient") or r.p(.3) and sum(sheet.bg[0]) < 500:
                sheet.kind, sheet.bg = "plain", sheet.bg[:1]
            sheet.noise, sheet.jpeg = 0.0, 0
            sc = photograph(r, sheet, kind)
            if sc:
                break
        if sc is None:
            sc = scene(split, seed + 40000000)
    sc.source = kind
    return sc


def partner(seed):
    """The picture that a picture may differ from in one thing."""
    return seed - 1 if seed & 1 else None


def changed(r, before, split, seed):
    """A copy with one thing changed; .change says which: (what, the object before, the object after)."""
    sc = copy.copy(before)
    sc.seed, sc.objs, sc.texts = seed, [copy.copy(o) for o in before.objs], [copy.copy(t) for t in before.texts]
    sc.change, ways = ("nothing", None, None), []
    if sc.objs:
        ways += ["color", "color", "gone", "gone", "style"] + ["gone", "gone"] * (split == "train")
    if len(sc.objs) < 5:
        ways.append("new")
    if len(sc.texts) == 1 and all(t.box is None for t in sc.texts):
        ways += ["text", "text"]
    if not ways or r.p(.12):
        return sc
    for what in r.shuffled(ways):
        if sc.change[0] != "nothing":
            break
        if what in ("color", "style", "gone"):
            i = r.int(0, len(sc.objs) - 1)
            o, old = sc.objs[i], before.objs[i]
            if what == "gone" and not covered(before, old):
                del sc.objs[i]
                sc.change = ("gone", old, None)
            elif what == "style" and not (covered(before, old) or o.line or o.shade or sc.pixels and o.size != "large"):
                o.outline, o.edge = not o.outline, False
                sc.change = ("style", old, o)
            elif what == "color" and not written_on(before, old) and recolor(r, sc, o, split):
                sc.change = ("color", old, o)
        elif what == "new":
            n = len(sc.objs)
            place_more(r, sc, split, 1)
            if sc.pixels:
                sc.objs[n:] = in_pixels(sc.objs[n:])
            if len(sc.objs) == n + 1:
                sc.change = ("new", None, sc.objs[-1])
        elif reword(r, sc, split):
            sc.change = ("text", before.texts[0], sc.texts[0])
    return sc


def recolor(r, sc, o, split):
    near = list(sc.bg) + [q.rgb for q in sc.objs if q is not o and math.hypot(q.cx - o.cx, q.cy - o.cy) < (q.r + o.r) * 1.2]
    for _ in range(30):
        c = r.pick(sorted(COLORS))
        rgb = color_of(r, c)
        if c != o.color and ((c, o.shape) not in HELD_OUT or split != "train") and all(far(rgb, b, 85) for b in near + [o.rgb]):
            o.color, o.rgb, o.shade = c, rgb, None
            return True
    return False


def reword(r, sc, split):
    old = sc.texts[0]
    for _ in range(30):
        t = copy.copy(old)
        t.word = random_word(r, split)
        x0, y0, x1, y1 = font_box(t)
        if t.word != old.word and x1 - x0 <= old.w * 1.15 and y1 - y0 <= old.h * 1.3 and (y1 - y0 >= .09 * sc.L or len(t.word) == 1):
            t.w, t.h, t.off = x1 - x0, y1 - y0, (x0, y0)
            if abs(t.cx - sc.W / 2) + t.w / 2 < sc.W / 2:
                sc.texts[0] = t
                return True
    return False


def written_on(sc, o):
    return any(abs(o.cx - t.cx) < t.w / 2 + o.r and abs(o.cy - t.cy) < t.h / 2 + o.r for t in sc.texts)


def covered(sc, o):
    """Something lies on or under it."""
    return any(q is not o and math.hypot(q.cx - o.cx, q.cy - o.cy) < q.r + o.r for q in sc.objs) or written_on(sc, o)


def show(sc):
    if sc.photo:
        return develop(sc)
    if sc.tool:
        return by_tool(sc)
    if sc.pixels:
        k = sc.pixels / sc.L
        small = copy.copy(sc)
        small.L, small.W, small.H, small.smooth = sc.pixels, max(8, round(sc.W * k)), max(8, round(sc.H * k)), 1
        small.objs = [copy.copy(o) for o in sc.objs]
        for o in small.objs:
            o.cx, o.cy, o.r = o.cx * small.W / sc.W, o.cy * small.H / sc.H, o.r * k
        return render(small).resize((sc.W, sc.H), Image.NEAREST)
    return render(sc)
