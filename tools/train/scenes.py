"""Images with questions and answers, drawn from a seed.

scene(split, seed) -> Scene (what is in the image); render(scene) -> PIL image;
questions(scene, rng, n) -> list of conversations, each a list of dict(kind, question, answer, accept).
Everything follows from the seed (rng.py); split "train" leaves out the pairs in HELD_OUT and one word in eight.
"""
import colorsys
import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rng import Rng, mix, noise_bank
from words import WORDS

COLORS = {  # hue range (degrees), saturation, value
    "red": ((-7, 5), (.82, 1), (.72, 1)), "orange": ((23, 34), (.88, 1), (.93, 1)), "yellow": ((50, 60), (.75, 1), (.92, 1)),
    "green": ((95, 148), (.6, 1), (.42, .8)), "blue": ((208, 240), (.7, 1), (.6, 1)), "purple": ((268, 289), (.6, .95), (.45, .8)),
    "pink": ((325, 346), (.3, .55), (.95, 1)), "brown": ((18, 29), (.6, .85), (.34, .54)), "black": ((0, 360), (0, .1), (0, .1)),
    "white": ((0, 360), (0, .03), (.95, 1)), "gray": ((0, 360), (0, .05), (.42, .6)),
}
SHAPES = ["circle", "square", "triangle", "rectangle", "star", "heart", "cross", "hexagon", "moon", "arrow"]
SIZES = {"small": (.062, .076), "medium": (.098, .120), "large": (.156, .195)}
HELD_OUT = {("purple", "star"), ("orange", "cross"), ("green", "heart"), ("blue", "triangle"), ("yellow", "hexagon"),
            ("pink", "arrow"), ("black", "moon"), ("brown", "circle")}
PLURAL = {s: s + "s" for s in SHAPES}
PLURAL["cross"] = "crosses"

UPPER = 1.0            # share of words in capitals only
D = "/usr/share/fonts/truetype/"
FONTS = [D + f + ".ttf" for f in (
    "dejavu/DejaVuSans dejavu/DejaVuSans-Bold dejavu/DejaVuSerif-Bold liberation/LiberationSans-Regular "
    "liberation/LiberationSans-Bold liberation/LiberationSerif-Bold freefont/FreeSansBold noto/NotoSans-Bold").split()]
_fonts = {}


def font(path, size):
    f = _fonts.get((path, size))
    if f is None:
        f = _fonts[(path, size)] = ImageFont.truetype(path, size)
    return f


def word_held_out(w):
    h = 7
    for ch in w.lower():
        h = mix(h * 131 + ord(ch))
    return h % 8 == 0


def color_of(r, name):
    (h0, h1), (s0, s1), (v0, v1) = COLORS[name]
    c = colorsys.hsv_to_rgb((r.u(h0, h1) % 360) / 360.0, r.u(s0, s1), r.u(v0, v1))
    return tuple(int(255 * x + .5) for x in c)


def far(a, b, d):
    return sum((x - y) ** 2 for x, y in zip(a, b)) >= d * d


class Obj:
    """A shape or a printed word. The marks below belong to the pictures of pictures.py."""
    stretch = 1.0          # width over height, before the rotation
    wobble = ()            # amplitudes and phases of a line drawn by hand
    line = None            # (colour, width as a share of the radius) drawn around a filled shape
    shade = None           # the colour at the other end of a filled shape


class Scene:
    marks = ()             # (colour, width, points): lines that are not shapes, drawn first
    sheet = None           # the scene that is on the paper or the screen of a photograph
    photo = None           # how that was photographed
    tool = None            # the program that draws it, where not this one
    pixels = 0             # pixel art: so many pixels along the longer side
    smooth = 2             # drawn at so many times the size


def random_word(r, split):
    while True:
        k = r.u()
        if k < .22:
            w = "".join(str(r.int(0, 9)) for _ in range(r.int(1, 4)))
            if len(w) > 1 and w[0] == "0":
                w = "1" + w[1:]
        else:
            if k < .6:
                w = r.pick(WORDS)
                if len(w) == 6 and r.p(.6):
                    w = r.pick(WORDS)
            elif k < .8:                                  # pronounceable
                w, v = "", r.int(0, 1)
                for _ in range(r.int(3, 5)):
                    w += r.pick("aeiouaeiouy" if v else "bcdfghjklmnpqrstvwxz")
                    v = 1 - v if r.p(.85) else v
            else:
                w = "".join(r.pick("abcdefghijklmnopqrstuvwxyz") for _ in range(r.int(2, 4)))
            k = r.u()
            if k < UPPER:
                w = w.upper()
            elif k < (1 + UPPER) / 2:
                w = w.capitalize()
        # single characters are too few to hold any out
        if (split == "train") != word_held_out(w) or len(w) == 1:
            return w


def place_text(r, sc, split, n):
    for _ in range(n):
        word = random_word(r, split)
        for _ in range(12):
            px = int(sc.L * r.u(.165, .26))
            f = r.pick(FONTS)
            x0, y0, x1, y1 = font(f, px).getbbox(word, anchor="ls")
            w, h = x1 - x0, y1 - y0
            if y1 - y0 < .09 * sc.L and len(word) > 1:
                continue
            m = .03 * sc.L
            if w + 2 * m > sc.W or h + 2 * m > sc.H:
                continue
            cx, cy = r.u(m + w / 2, sc.W - m - w / 2), r.u(m + h / 2, sc.H - m - h / 2)
            if all(abs(cx - t.cx) > (w + t.w) / 2 + 1.2 * m or abs(cy - t.cy) > (h + t.h) / 2 + 1.2 * m for t in sc.texts):
                break
        else:
            continue
        t = Obj()
        t.word, t.font, t.px, t.w, t.h, t.cx, t.cy = word, f, px, w, h, cx, cy
        t.off = (x0, y0)
        t.box = None
        if r.p(.25):
            t.box = color_of(r, r.pick(["white", "black", "yellow", "blue", "red", "green", "gray"]))
        ref = [t.box] if t.box else sc.bg
        for _ in range(30):
            t.rgb = tuple(r.int(0, 255) for _ in range(3)) if r.p(.5) else color_of(r, r.pick(["black", "white"]))
            lum = .3 * t.rgb[0] + .59 * t.rgb[1] + .11 * t.rgb[2]
            if all(far(t.rgb, b, 130) and abs(.3 * b[0] + .59 * b[1] + .11 * b[2] - lum) > 55 for b in ref):
                break
        else:
            t.box = None if t.box else (255, 255, 255)
            lum = .3 * sc.bg[0][0] + .59 * sc.bg[0][1] + .11 * sc.bg[0][2]
            t.rgb = (0, 0, 0) if (t.box or lum > 128) else (255, 255, 255)
        t.rot = r.u(-6, 6) if r.p(.08) else 0.0
        sc.texts.append(t)


def place_objects(r, sc, split, n, held):
    dist = .85 if r.p(.12) else 1.3
    alike = r.u() if n > 2 else 1.0                       # several of a shape or of a colour, to be counted
    alike *= .75 if split == "train" else 1
    few = r.shuffled(SHAPES)[:1 if alike < .2 else r.int(2, 4)] if alike < .2 or r.p(.45) else SHAPES
    fewc = r.shuffled(sorted(COLORS))[:1 if .2 < alike < .35 else r.int(2, 5)] if .2 < alike < .35 or r.p(.4) else sorted(COLORS)
    for k in range(n):
        for _ in range(40):
            o = Obj()
            o.shape, o.color = r.pick(few), r.pick(fewc)
            if held and k == 0:
                o.color, o.shape = r.pick(sorted(HELD_OUT))
            if ((o.color, o.shape) in HELD_OUT) and not (held and k == 0):
                continue
            o.rgb = color_of(r, o.color)
            if not all(far(o.rgb, b, 85) for b in sc.bg):
                if r.p(.3):
                    fewc = sorted(COLORS)
                continue
            o.size = r.pick(sorted(SIZES)) if n < 5 else r.pick(["small", "medium", "small", "medium", "large"])
            a, b = SIZES[o.size]
            o.r = r.u(a, b) * sc.L
            e = o.r * 1.12
            if 2 * e > min(sc.W, sc.H) * .95:
                continue
            o.cx, o.cy = r.u(e, sc.W - e), r.u(e, sc.H - e)
            if any(math.hypot(o.cx - q.cx, o.cy - q.cy) < (o.r + q.r) * dist for q in sc.objs):
                continue
            if any(abs(o.cx - t.cx) < t.w / 2 + e + 2 and abs(o.cy - t.cy) < t.h / 2 + e + 2 for t in sc.texts):
                continue
            o.outline = r.p(.28)
            o.edge = not o.outline and r.p(.1)
            lim = {"rectangle": 180, "cross": 25, "heart": 25, "square": 30}.get(o.shape, 360)
            o.rot = math.radians(r.u(-lim, lim)) if r.p(.6) else 0.0
            o.var = r.u()
            sc.objs.append(o)
            break


def scene(split, seed, easy=0.0):
    """easy: share of scenes with one or two things on a plain background (the beginning of training)."""
    r = Rng("scene-" + split, seed)
    sc = Scene()
    sc.seed, sc.split = seed, split
    sc.L = 256 if r.p(.65 if split == "train" else .3) else r.int(200, 440)
    sc.W = sc.H = sc.L
    if r.p(.4):
        k = int(sc.L / r.u(1.05, 1.75))
        if r.p(.62):
            sc.H = k
        else:
            sc.W = k
    sc.objs, sc.texts = [], []
    k = r.u()
    if k < .12:
        base = (255, 255, 255)
    elif k < .16:
        base = (0, 0, 0)
    else:
        h = r.u()
        if k < .5:
            s, v = r.u(0, .3), r.u(.78, 1)
        elif k < .7:
            s, v = r.u(0, .7), r.u(.06, .32)
        else:
            s, v = r.u(.1, .65), r.u(.35, .9)
        base = tuple(int(255 * x) for x in colorsys.hsv_to_rgb(h, s, v))
    sc.bg = [base]
    sc.kind = "plain"
    k = r.u()
    if k > .38:
        amp = r.int(15, 60) if k < .65 else r.int(10, 36)
        sc.bg.append(tuple(max(0, min(255, x + r.int(-amp, amp))) for x in base))
        sc.kind = "gradient" if k < .65 else r.pick(["stripes", "checks", "dots", "clouds"])
    sc.angle, sc.period = r.u(0, 2 * math.pi), r.u(.03, .14)
    sc.noise = r.u(3, 18) if r.p(.3) else 0.0
    sc.bright = r.u(.86, 1.14) if r.p(.4) else 1.0
    sc.jpeg = r.int(35, 90) if r.p(.3) else 0
    k = r.u()
    if easy and Rng("easy", seed).p(easy):
        sc.kind, sc.noise, sc.jpeg, sc.bright = "plain", 0.0, 0, 1.0
        sc.bg = sc.bg[:1]
        if k < .6:
            place_objects(r, sc, split, r.pick([1, 1, 2, 3]), False)
        else:
            place_text(r, sc, split, r.pick([1, 1, 2]))
            if k > .85:
                place_objects(r, sc, split, 1, False)
        return sc
    held = split != "train" and r.p(.35)
    if k < .45:
        place_objects(r, sc, split, r.pick([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]), held)
    elif k < (.72 if split == "train" else .6):
        place_text(r, sc, split, r.pick([1, 2, 3, 3, 4, 4] if split == "train" else [1, 1, 2, 3]))
    else:
        place_text(r, sc, split, r.pick([1, 1, 2]))
        place_objects(r, sc, split, r.int(1, 4), held)
    return sc


# ------------------------------------------------------------------------------------------------ drawing

def outline_of(o):
    """Corner points, unrotated, unit radius."""
    s, pi = o.shape, math.pi

    def poly(n, rad, a0=-pi / 2):
        return [(rad * math.cos(a0 + 2 * pi * i / n), rad * math.sin(a0 + 2 * pi * i / n)) for i in range(n)]
    if s == "circle":
        return poly(40, 1.0)
    if s == "square":
        return [(-.88, -.88), (.88, -.88), (.88, .88), (-.88, .88)]
    if s == "triangle":
        k = .85 + .3 * o.var
        return [(0, -1.1), (.98 * k, .72), (-.98 * k, .72)]
    if s == "rectangle":
        k = .48 + .16 * o.var
        return [(-1.1, -k), (1.1, -k), (1.1, k), (-1.1, k)]
    if s == "star":
        a, b = poly(5, 1.15), poly(5, 1.15 * (.38 + .12 * o.var), -pi / 2 + pi / 5)
        return [q for p in zip(a, b) for q in p]
    if s == "hexagon":
        return poly(6, 1.04)
    if s == "heart":
        out = []
        for i in range(40):
            t = 2 * pi * i / 40
            out.append((1.02 * math.sin(t) ** 3,
                        -(.82 * math.cos(t) - .32 * math.cos(2 * t) - .13 * math.cos(3 * t) - .06 * math.cos(4 * t)) + .1))
        return out
    if s == "cross":
        k = .27 + .12 * o.var
        return [(-k, -1), (k, -1), (k, -k), (1, -k), (1, k), (k, k), (k, 1), (-k, 1), (-k, k), (-1, k), (-1, -k), (-k, -k)]
    if s == "moon":
        d = .45 + .2 * o.var                              # the second circle is this far to the right
        a = math.acos(d / 2)
        out = [(math.cos(t), math.sin(t)) for t in [a + (2 * pi - 2 * a) * i / 30 for i in range(31)]]
        out += [(d + math.cos(t), math.sin(t)) for t in [pi + a - 2 * a * i / 24 for i in range(1, 24)]]
        return [(1.08 * (x + .15), 1.08 * y) for x, y in out]
    if s == "arrow":
        k = .2 + .1 * o.var
        return [(-1.15, -k), (.1, -k), (.1, -.78), (1.15, 0), (.1, .78), (.1, k), (-1.15, k)]
    raise KeyError(s)


def corners(o, ss):
    c, s, k = math.cos(o.rot), math.sin(o.rot), o.stretch ** .5
    pts = [(x * k, y / k) for x, y in outline_of(o)]
    if o.wobble:
        close = pts + pts[:1]
        pts = [(x0 + (x1 - x0) * t / 6, y0 + (y1 - y0) * t / 6) for (x0, y0), (x1, y1) in zip(close, close[1:]) for t in range(6)]
        bend = lambda a: 1 + sum(w * math.sin((i + 2) * a + p) for i, (w, p) in enumerate(o.wobble))
        pts = [(x * f, y * f) for x, y in pts for f in (bend(math.atan2(y, x)),)]
    return [((o.cx + o.r * (x * c - y * s)) * ss, (o.cy + o.r * (x * s + y * c)) * ss) for x, y in pts]


def draw_object(im, d, o, ss):
    pts = corners(o, ss)
    if o.outline:
        w = max(3, int(o.r * ss * (.16 + .06 * o.var)))
        g = 1 - .1                                        # the line stays about inside the shape
        mx, my = o.cx * ss, o.cy * ss
        pts = [(mx + (x - mx) * g, my + (y - my) * g) for x, y in pts]
        d.line(pts + pts[:2], fill=o.rgb, width=w, joint="curve")
    else:
        if o.shade:
            mask = Image.new("L", im.size)
            ImageDraw.Draw(mask).polygon(pts, fill=255)
            x0, y0, x1, y1 = (int(v) for v in mask.getbbox() or (0, 0, 1, 1))
            t = np.linspace(0, 1, y1 - y0, dtype=np.float32)[:, None, None]
            a, b = (np.array(v, np.float32) for v in (o.rgb, o.shade))
            fill = np.broadcast_to(a + (b - a) * t + .5, (y1 - y0, x1 - x0, 3)).astype(np.uint8)
            im.paste(Image.fromarray(fill), (x0, y0), mask.crop((x0, y0, x1, y1)))
        else:
            d.polygon(pts, fill=o.rgb)
        if o.line:
            d.line(pts + pts[:2], fill=o.line[0], width=max(1, int(o.line[1] * o.r * ss)), joint="curve")
        if o.edge:
            e = (0, 0, 0) if sum(o.rgb) > 300 else (235, 235, 235)
            d.line(pts + pts[:2], fill=e, width=max(2, int(.07 * o.r * ss)), joint="curve")


def background(sc, w, h):
    if sc.kind == "plain":
        return Image.new("RGB", (w, h), sc.bg[0])
    y, x = np.mgrid[0:h, 0:w].astype(np.float32) / max(w, h)
    u = x * math.cos(sc.angle) + y * math.sin(sc.angle)
    if sc.kind == "gradient":
        t = (u - u.min()) / (u.max() - u.min())
    elif sc.kind == "stripes":
        t = (np.floor(u / sc.period * 2) % 2)
    elif sc.kind == "checks":
        t = (np.floor(x / sc.period) + np.floor(y / sc.period)) % 2
    elif sc.kind == "dots":
        t = ((x / sc.period % 1 - .5) ** 2 + (y / sc.period % 1 - .5) ** 2 < .08).astype(np.float32)
    else:
        n = 9
        z = noise_bank()[(sc.seed * 97) % 900000:][:n * n].reshape(n, n)
        im = Image.fromarray(np.clip(128 + 60 * z, 0, 255).astype(np.uint8)).resize((w, h), Image.BICUBIC)
        t = np.asarray(im, np.float32) / 255
    t = t[..., None]
    a, b = np.array(sc.bg[0], np.float32), np.array(sc.bg[1], np.float32)
    return Image.fromarray((a + (b - a) * t + .5).astype(np.uint8))


def render(sc):
    ss = sc.smooth
    im = background(sc, sc.W, sc.H).resize((sc.W * ss, sc.H * ss), Image.NEAREST)
    d = ImageDraw.Draw(im)
    for rgb, width, pts in sc.marks:
        d.line([(x * ss, y * ss) for x, y in pts], fill=rgb, width=max(1, int(width * ss)), joint="curve")
    for o in sc.objs:
        draw_object(im, d, o, ss)
    for t in sc.texts:
        f = font(t.font, t.px * ss)
        x0, y0, x1, y1 = f.getbbox(t.word, anchor="ls")
        x, y = t.cx * ss - (x0 + x1) / 2, t.cy * ss - (y0 + y1) / 2
        if t.box:
            m = .02 * sc.L * ss
            d.rectangle([t.cx * ss - (x1 - x0) / 2 - m, t.cy * ss - (y1 - y0) / 2 - m,
                         t.cx * ss + (x1 - x0) / 2 + m, t.cy * ss + (y1 - y0) / 2 + m], fill=t.box)
        if t.rot:
            w, h = int(x1 - x0) + 8, int(y1 - y0) + 8
            mk = Image.new("L", (w, h))
            ImageDraw.Draw(mk).text((w / 2 - (x0 + x1) / 2, h / 2 - (y0 + y1) / 2), t.word, fill=255, font=f, anchor="ls")
            mk = mk.rotate(t.rot, Image.BILINEAR, expand=True)
            im.paste(t.rgb, (int(t.cx * ss - mk.width / 2), int(t.cy * ss - mk.height / 2)), mk)
        else:
            d.text((x, y), t.word, fill=t.rgb, font=f, anchor="ls")
    if ss > 1:
        im = im.reduce(ss)
    if sc.noise:
        off = (sc.seed * 7919 * 131) % (1 << 20)
        n = sc.W * sc.H * 3
        z = np.take(noise_bank(), np.arange(off, off + n) & ((1 << 20) - 1)).reshape(sc.H, sc.W, 3)
        im = Image.fromarray(np.clip(np.asarray(im, np.float32) * sc.bright + sc.noise * z + .5, 0, 255).astype(np.uint8))
    elif sc.bright != 1.0:
        im = im.point([min(255, int(i * sc.bright + .5)) for i in range(256)] * 3)
    if sc.jpeg:
        b = io.BytesIO()
        im.save(b, "JPEG", quality=sc.jpeg)
        im = Image.open(b).convert("RGB")
    return im


def to_input(im, size=256):
    """The preprocessing of the engine: pad to a black square, bicubic to size; u8 [size, size, 3]."""
    w, h = im.size
    if w != h:
        s = max(w, h)
        q = Image.new("RGB", (s, s))
        q.paste(im, ((s - w) // 2, (s - h) // 2))
        im = q
    if im.size[0] != size:
        im = im.resize((size, size), Image.BICUBIC)
    return np.asarray(im)


# ------------------------------------------------------------------------------------------------ questions

def an(s):
    return ("an " if s[0] in "aeiou" else "a ") + s


def cap(s):
    return s[0].upper() + s[1:]


def ref(r, sc, o, use=("shape", "color", "size")):
    """A phrase that names o alone, or None. Words in `use` only."""
    cands = []
    for combo in (("shape",), ("color", "shape"), ("size", "shape"), ("size", "color", "shape"), ("color",)):
        if not all(c in use for c in combo):
            continue
        if sum(all(getattr(q, c) == getattr(o, c) for c in combo) for q in sc.objs) == 1:
            s = " ".join(getattr(o, c) for c in ("size", "color", "shape") if c in combo)
            if "shape" not in combo:
                s += r.pick([" object", " shape", " one"][:2])
            cands.append((combo, s))
    if not cands:
        return None
    if "shape" in use:
        named = [s for c, s in cands if "shape" in c]
        if named:
            return named[0] if r.p(.5) else r.pick(named)
    return r.pick(cands)[1]


def where(sc, x, y):
    def third(a, names):
        return names[0] if a < .35 else names[2] if a > .65 else names[1] if .41 < a < .59 else None
    v, h = third(y / sc.H, ["top", "", "bottom"]), third(x / sc.W, ["left", "", "right"])
    if v is None or h is None:
        return None
    return (v + " " + h).strip() or "center"


def absent_ref(r, sc, hard=.5):
    """A colour-shape or a shape that is not in the image."""
    for _ in range(50):
        if r.p(.5):
            s = r.pick(SHAPES)
            if all(o.shape != s for o in sc.objs):
                return s, (None, s)
        else:
            s, c = r.pick(SHAPES), r.pick(sorted(COLORS))
            if sc.objs and r.p(.7):
                if r.p(.5):
                    s = r.pick(sc.objs).shape
                else:
                    c = r.pick(sc.objs).color
            if all((o.shape, o.color) != (s, c) for o in sc.objs) and (c, s) not in HELD_OUT:
                return c + " " + s, (c, s)
    return None


def q_describe(r, sc):
    q = r.pick(["Describe the picture.", "Describe the image.", "What is in the picture?", "What do you see?",
                "What does the image show?"])
    text = []
    for t in sorted(sc.texts, key=lambda t: t.cy):
        text.append(("the number " if t.word.isdigit() else "the text ") + '"%s"' % t.word)
    parts = []
    if len(sc.objs) <= 3:
        for o in sorted(sc.objs, key=lambda o: o.cx):
            parts.append(an(" ".join([o.size] + (["outlined"] if o.outline else []) + [o.color, o.shape])))
    else:
        parts.append("%d shapes" % len(sc.objs))
    parts += text
    if not parts:
        return q, "An empty background.", None
    a = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return q, cap(a) + ".", None


def several(r, objs):
    """A shape or a colour of which there are three or more: (shape, None), (None, colour), or None."""
    got = [(s, None) for s in SHAPES if sum(o.shape == s for o in objs) > 2] + [(None, c) for c in sorted(COLORS) if sum(o.color == c for o in objs) > 2]
    return r.pick(got) if got else None


def q_count(r, sc):
    k = r.u()
    if k < .35:
        w, n = r.pick(["shapes", "objects"]), len(sc.objs)
        extra = ["How many shapes are in the picture?", "Count the objects."]
    else:
        many = several(r, sc.objs) if r.p(.4) else None
        if many and many[0] or not many and k < .7:
            if many:
                s = many[0]
            elif sc.objs and r.p(.8):
                s = r.pick(sc.objs).shape
            else:
                s = r.pick(SHAPES)
            w, n = PLURAL[s], sum(o.shape == s for o in sc.objs)
        else:
            c = many[1] if many else r.pick(sc.objs).color if sc.objs and r.p(.8) else r.pick(sorted(COLORS))
            w, n = c + r.pick([" shapes", " objects"]), sum(o.color == c for o in sc.objs)
        extra = ["Count the %s." % w]
    q = r.pick(["How many %s are there?" % w, "How many %s can you see?" % w] + extra)
    return q, str(n), None


def q_color(r, sc):
    o = r.pick(sc.objs) if sc.objs else None
    s = o and ref(r, sc, o, ("shape", "size"))
    if not s:
        return None
    return r.pick(["What color is the %s?", "What is the color of the %s?", "Which color does the %s have?",
                   "What colour is the %s?"]) % s, cap(o.color), o


def q_shape(r, sc):
    o = r.pick(sc.objs) if sc.objs else None
    if not o:
        return None
    if len(sc.objs) == 1 and r.p(.5):
        return r.pick(["What shape is it?", "Which shape is in the picture?", "What shape is this?"]), cap(o.shape), o
    if sum(q.color == o.color for q in sc.objs) == 1:
        s = o.color
    elif sum(q.color == o.color and q.size == o.size for q in sc.objs) == 1:
        s = o.size + " " + o.color
    else:
        return None
    return r.pick(["What shape is the %s object?", "Which shape is %s?", "What is the shape of the %s object?",
                   "What is the %s object?"]) % s, cap(o.shape), o


def q_size(r, sc):
    o = r.pick(sc.objs) if sc.objs else None
    s = o and ref(r, sc, o, ("shape", "color"))
    if not s:
        return None
    if r.p(.5):
        return r.pick(["How big is the %s?", "What size is the %s?", "How large is the %s?", "Is the %s small, medium or large?"]) % s, cap(o.size), o
    return r.pick(["Is the %s filled or outlined?", "Is the %s outlined or filled?"]) % s, "Outlined" if o.outline else "Filled", o


def q_where(r, sc):
    if sc.texts and r.p(.15):
        if len(sc.texts) != 1:
            return None
        o = sc.texts[0]
        w = where(sc, o.cx, o.cy)
        s = "text"
    else:
        o = r.pick(sc.objs) if sc.objs else None
        s = o and ref(r, sc, o)
        w = o and where(sc, o.cx, o.cy)
    if not s or not w:
        return None
    return r.pick(["Where is the %s?", "Where is the %s in the picture?", "In which part of the picture is the %s?"]) % s, cap(w), o


REL = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def holds(sc, a, b, rel):
    ax, sg = REL[rel]
    d = ((b.cx - a.cx) if ax == 0 else (b.cy - a.cy)) * -sg / sc.L
    return True if d > .1 else False if d < -.1 else None


def q_relation(r, sc):
    if len(sc.objs) < 2:
        return None
    k = r.u()
    if k < .5:
        want = r.p(.5)
        for _ in range(12):
            a, b = r.shuffled(sc.objs)[:2]
            rel = r.pick(sorted(REL))
            if holds(sc, a, b, rel) is want:
                sa, sb = ref(r, sc, a), ref(r, sc, b)
                if sa and sb:
                    w = rel if rel in ("above", "below") or r.p(.5) else "to the " + rel
                    return "Is the %s %s the %s?" % (sa, w, sb), "Yes" if want else "No", None
        return None
    if k < .78:
        for _ in range(12):
            b, rel = r.pick(sc.objs), r.pick(sorted(REL))
            hs = [(o, holds(sc, o, b, rel)) for o in sc.objs if o is not b]
            if sum(h is True for _, h in hs) == 1 and all(h is not None for _, h in hs):
                sb = ref(r, sc, b)
                o = [o for o, h in hs if h][0]
                if sb:
                    w = rel if rel in ("above", "below") or r.p(.5) else "to the " + rel
                    return r.pick(["What is %s the %s?", "Which shape is %s the %s?"]) % (w, sb), cap(o.color + " " + o.shape), o
        return None
    ax, sg = r.pick([(0, -1), (0, 1), (1, -1), (1, 1)])
    v = sorted(sc.objs, key=lambda o: -sg * (o.cx if ax == 0 else o.cy))
    k0, k1 = ((v[0].cx, v[1].cx) if ax == 0 else (v[0].cy, v[1].cy))
    if abs(k0 - k1) < .08 * sc.L:
        return None
    nm = {(0, -1): "leftmost", (0, 1): "rightmost", (1, -1): "topmost", (1, 1): "lowest"}[(ax, sg)]
    return r.pick(["What is the %s shape?", "Which is the %s object?"]) % nm, cap(v[0].color + " " + v[0].shape), v[0]


def q_text(r, sc):
    ts = sorted(sc.texts, key=lambda t: t.cy)
    if not ts:
        return None
    if len(ts) == 1:
        t = ts[0]
        if t.word.isdigit() and r.p(.6):
            return r.pick(["What number is shown?", "What is the number?", "Which number is in the picture?"]), t.word, t
        return r.pick(["What does the text say?", "Read the text.", "What is written in the picture?", "What word is shown?",
                       "What does it say?"]), t.word, t
    if r.p(.12) and all(b.cy - a.cy > .1 * sc.L for a, b in zip(ts, ts[1:])) and len(ts) <= 3:
        return r.pick(["Read all the text.", "What are the words?"]), "\n".join(t.word for t in ts), None
    k = r.int(0, 3)
    key = (lambda t: t.cy) if k < 2 else (lambda t: t.cx)
    v = sorted(ts, key=key, reverse=bool(k & 1))
    if abs(key(v[0]) - key(v[1])) < .12 * sc.L:
        return None
    side = ["top", "bottom", "left", "right"][k]
    q = ["What does the text at the %s say?", "Read the text at the %s."] if k < 2 else ["What does the text on the %s say?", "Read the text on the %s."]
    return r.pick(q) % side, v[0].word, v[0]


def q_yesno(r, sc):
    want = r.p(.5)
    yes = "Yes" if want else "No"
    k = r.u()
    if k < .5:
        if want:
            if not sc.objs:
                return None
            o = r.pick(sc.objs)
            s = r.pick([o.shape, o.color + " " + o.shape, o.color + " " + o.shape])
            if sum(q.shape == o.shape and (s == o.shape or q.color == o.color) for q in sc.objs) > 1:
                o = None
        else:
            a = absent_ref(r, sc)
            if not a:
                return None
            o, s = None, a[0]
        return r.pick(["Is there %s?", "Is there %s in the picture?", "Can you see %s?", "Does the picture show %s?"]) % an(s), yes, o
    if k < .8:
        o = r.pick(sc.objs) if sc.objs else None
        s = o and ref(r, sc, o, ("shape", "size"))
        if not s:
            return None
        c = o.color
        while not want and c == o.color:
            c = r.pick(sorted(COLORS))
        if not want and len(sc.objs) > 1 and r.p(.5):
            c2 = r.pick(sc.objs).color
            c = c2 if c2 != o.color else c
        return "Is the %s %s?" % (s, c), yes, o
    if k < .92:
        if bool(sc.texts) != want:
            return None
        return r.pick(["Is there any text?", "Is there text in the picture?", "Can you see a word or a number?"]), yes, None
    n = len(sc.objs)
    m = n if want else max(0, n + r.pick([-1, 1, 2]))
    if m == n and not want or m == 1:
        return None
    return "Are there %d shapes?" % m, yes, None


def q_absent(r, sc):
    if not sc.texts and r.p(.3):
        return r.pick(["What does the text say?", "Read the text.", "What is written in the picture?", "What number is shown?",
                       "What does it say?"]), "There is no text.", None
    a = absent_ref(r, sc)
    if not a:
        return None
    return r.pick(["Where is the %s?", "What color is the %s?" if a[1][0] is None else "Where is the %s?", "How big is the %s?",
                   "Is the %s filled or outlined?"]) % a[0], "There is no %s." % a[0], None


KINDS = dict(describe=q_describe, count=q_count, color=q_color, shape=q_shape, size=q_size, where=q_where, relation=q_relation,
             text=q_text, yesno=q_yesno, absent=q_absent)
TRAIN_MIX = [("describe", 8), ("count", 16), ("color", 9), ("shape", 7), ("size", 10), ("where", 12), ("relation", 12), ("text", 18),
             ("yesno", 10), ("absent", 7), ("style", 13), ("side", 26)]


def q_followup(r, sc):
    """Two turns: something about one object, then a question about "it"."""
    o = r.pick(sc.objs) if sc.objs else None
    if not o:
        return None
    s = ref(r, sc, o, ("shape", "color"))
    if not s:
        return None
    first = None
    for _ in range(6):
        k = r.pick(["color", "size", "style", "exist", "where"])
        w = where(sc, o.cx, o.cy)
        if k == "color" and o.color not in s:
            first = ("What color is the %s?" % s, cap(o.color))
        elif k == "size":
            first = ("How big is the %s?" % s, cap(o.size))
        elif k == "style":
            first = ("Is the %s filled or outlined?" % s, "Outlined" if o.outline else "Filled")
        elif k == "exist" and "object" not in s and "shape" not in s:
            first = ("Is there %s?" % an(s), "Yes")
        elif k == "where" and w:
            first = ("Where is the %s?" % s, cap(w))
        if first:
            break
    if not first:
        return None
    for _ in range(6):
        k2 = r.pick(["color", "size", "style", "where"])
        if k2 == k or (k2 == "color" and o.color in s):
            continue
        if k2 == "where" and not w:
            continue
        sec = {"color": ("What color is it?", cap(o.color)), "size": ("How big is it?", cap(o.size)),
               "style": ("Is it filled or outlined?", "Outlined" if o.outline else "Filled"),
               "where": ("Where is it?", cap(w or "center"))}[k2]
        return [dict(kind="context", question=first[0], answer=first[1]), dict(kind="followup", question=sec[0], answer=sec[1])]
    return None


def q_style(r, sc):
    """Filled or outlined, as often the one as the other: training only (scenes have few outlined objects)."""
    want = r.p(.5)
    o = [o for o in sc.objs if o.outline == want]
    o = r.pick(o) if o else None
    s = o and ref(r, sc, o, ("shape", "color"))
    if not s:
        return None
    return r.pick(["Is the %s filled or outlined?", "Is the %s outlined or filled?"]) % s, "Outlined" if o.outline else "Filled", None


def q_side(r, sc):
    """The yes-or-no questions of q_relation alone: training only (they are the hardest to learn)."""
    for _ in range(12 if len(sc.objs) > 1 else 0):
        a, b = r.shuffled(sc.objs)[:2]
        rel = r.pick(sorted(REL))
        h, sa, sb = holds(sc, a, b, rel), ref(r, sc, a), ref(r, sc, b)
        if h is not None and sa and sb:
            w = rel if rel in ("above", "below") or r.p(.5) else "to the " + rel
            return "Is the %s %s the %s?" % (sa, w, sb), "Yes" if h else "No", None
    return None


TRAIN_ONLY = {"style": ("size", q_style), "side": ("relation", q_side)}


def ask(r, sc, kind):
    if kind == "followup":
        return q_followup(r, sc)
    if kind in TRAIN_ONLY:
        kind, f = TRAIN_ONLY[kind]
        g = f(r, sc)
    else:
        g = KINDS[kind](r, sc)
    return None if g is None else [dict(kind=kind, question=g[0], answer=g[1], about=g[2])]


def questions(sc, r, n):
    """n conversations (mostly of one turn) for training."""
    out, seen = [], set()
    tot = sum(w for _, w in TRAIN_MIX)
    for _ in range(n * 4):
        if len(out) == n:
            break
        if r.p(.1):
            c = q_followup(r, sc)
        else:
            k = r.u(0, tot)
            for kind, w in TRAIN_MIX:
                k -= w
                if k < 0:
                    break
            c = ask(r, sc, kind)
        if not c:
            continue
        key = "|".join(t["question"] for t in c)
        if key in seen:
            continue
        seen.add(key)
        if r.p(.12):                                      # as people type
            q = c[0]["question"]
            c[0]["question"] = r.pick([q[:-1], q[0].lower() + q[1:], q[0].lower() + q[1:-1]])
        out.append(c)
    return out
