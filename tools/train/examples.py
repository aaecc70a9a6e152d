#!/usr/bin/env python3
"""examples.py OUT: the sample images under examples/images/, composed by hand and drawn by scenes.py."""
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from scenes import D, Obj, Scene, font, render


def make(W, H, bg, kind, objs, texts, noise=0.0, seed=1):
    sc = Scene()
    sc.seed, sc.split, sc.W, sc.H, sc.L = seed, "example", W, H, max(W, H)
    sc.bg, sc.kind, sc.angle, sc.period = bg, kind, 0.9, 0.08
    sc.noise, sc.bright, sc.jpeg, sc.objs, sc.texts = noise, 1.0, 0, [], []
    for shape, rgb, x, y, r, outline, rot in objs:
        o = Obj()
        o.shape, o.rgb, o.cx, o.cy, o.r = shape, rgb, x * W, y * H, r * sc.L
        o.outline, o.edge, o.rot, o.var = outline, False, math.radians(rot), 0.5
        sc.objs.append(o)
    for word, f, px, rgb, x, y in texts:
        t = Obj()
        t.word, t.font, t.px, t.rgb, t.box, t.rot = word, D + f + ".ttf", int(px * sc.L), rgb, None, 0.0
        x0, y0, x1, y1 = font(t.font, t.px).getbbox(word, anchor="ls")
        t.w, t.h, t.cx, t.cy = x1 - x0, y1 - y0, x * W, y * H
        sc.texts.append(t)
    return render(sc)


RED, BLUE, GREEN, YELLOW, ORANGE, PURPLE = (214, 30, 38), (32, 84, 214), (40, 150, 60), (246, 214, 40), (244, 130, 20), (128, 50, 168)
BLACK, WHITE = (10, 10, 10), (250, 250, 250)
SANS, SERIF = "dejavu/DejaVuSans-Bold", "liberation/LiberationSerif-Bold"


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    pics = {
        "shapes": make(320, 320, [(238, 238, 230)], "plain", [("circle", RED, .28, .3, .17, False, 0),
                       ("star", BLUE, .74, .27, .11, False, 8), ("square", GREEN, .66, .74, .11, False, 12)], []),
        "sign": make(320, 320, [WHITE], "plain", [("star", RED, .5, .27, .17, False, 0)], [("HELLO", SANS, .2, BLACK, .5, .74)]),
        "count": make(360, 260, [(206, 226, 244), (232, 240, 250)], "gradient", [
            ("heart", RED, .16, .28, .07, False, 0), ("heart", RED, .42, .68, .07, False, -12), ("heart", RED, .66, .25, .07, False, 10),
            ("moon", PURPLE, .85, .66, .11, False, -20)], []),
        "number": make(256, 256, [(40, 44, 60), (62, 50, 72)], "stripes", [("triangle", YELLOW, .25, .72, .11, False, 0)],
                       [("42", SERIF, .26, WHITE, .6, .3)]),
        "outlines": make(260, 340, [(250, 244, 220)], "plain", [("circle", PURPLE, .3, .2, .11, True, 0),
                         ("cross", ORANGE, .7, .5, .11, False, 0), ("arrow", BLACK, .3, .8, .11, False, -30)], [], noise=8.0),
    }
    for name, im in pics.items():
        if name == "outlines":
            im.save(os.path.join(out, name + ".jpg"), quality=85)
        else:
            im.save(os.path.join(out, name + ".png"), optimize=True)


if __name__ == "__main__":
    main()
