#!/usr/bin/env python3
"""Draw a photograph-like scene, 1600 x 1200, for the full-size golden data.   make_scene.py OUT.jpg [--seed N]   (numpy, pillow)

Sky with clouds, hills in haze, a lake with the sky's reflection, a meadow, trees, a house, a fence: the spectra and the
mix of smooth and busy regions are those of a photograph. The committed one (tests/data/full/scene.jpg, seed 6) is what
counts: other library versions may draw it slightly differently. Seeds differ in the narrowest greedy choice of the answer they get.
"""
import argparse

import numpy as np

W, H = 1600, 1200


def noise(r, h, w, power):
    """1/f^power noise, mean 0, standard deviation 1."""
    f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None, :])
    f[0, 0] = 1
    x = np.fft.irfft2(np.fft.rfft2(r.standard_normal((h, w))) / f ** power, (h, w))
    return (x - x.mean()) / x.std()


def blend(img, mask, colour):
    img += mask[..., None] * (np.asarray(colour, np.float64) - img)


def ridge(r, base, height, power):
    """Skyline: y of the upper edge for every x."""
    return base - height * noise(r, 16, W, power)[0]


def scene(seed):
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)
    hor = 560 + 40 * r.random()
    # sky and clouds
    t = np.clip(y / hor, 0, 1)[..., None]
    img = (1 - t) * np.array([70, 120, 190.]) + t * np.array([205, 215, 225.])
    cloud = np.clip(noise(r, H, W, 1.7) * 0.8 + 0.25 - 0.6 * (y / hor - 0.4) ** 2, 0, 1)
    shade = np.clip(1 - 0.25 * np.roll(cloud, -14, 0), 0, 1)[..., None]
    img += cloud[..., None] * (np.array([248, 246, 242.]) * shade - img)
    sx, sy = 200 + 1200 * r.random(), 90 + 200 * r.random()
    img += 130 * np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / 9000.)[..., None] * np.array([1, .95, .75])
    # hills, nearer ones darker
    for k in range(3):
        edge = ridge(r, hor - 60 + 45 * k, 42 - 8 * k, 1.6)
        m = 1 / (1 + np.exp(-(y - edge[None, :]) / 1.2))
        tex = 1 + 0.06 * (k + 1) * noise(r, H, W, 0.8)
        col = (np.array([140, 160, 180.]) * (2 - k) + np.array([62, 88, 58.]) * k) / 2
        img += m[..., None] * (col * tex[..., None] - img)
    # lake: the mirrored sky with ripples
    top, bottom = hor + 62, hor + 250 + 60 * r.random()
    rip = noise(r, H, W // 8, 0.9).repeat(8, 1)[:, :W]
    src = np.clip(2 * top - y + 9 * rip * (y - top) / 100, 0, H - 1).astype(int)
    refl = img[src, np.clip(x + 3 * rip, 0, W - 1).astype(int)] * np.array([.62, .70, .74])
    shore = bottom + 25 * noise(r, 16, W, 1.4)[0][None, :]
    m = ((y > top) & (y < shore)).astype(np.float64)
    img += m[..., None] * (refl - img)
    # meadow
    grass = noise(r, H, W, 0.55)
    big = noise(r, H, W, 1.5)
    g = np.stack([78 + 16 * big, 112 + 14 * big, 46 + 8 * big], -1) * (1 + 0.16 * grass * np.clip((y - bottom) / 250, .3, 1))[..., None]
    m = 1 / (1 + np.exp(-(y - shore) / 1.5))
    img += m[..., None] * (g - img)
    # a path
    px = 800 + 160 * np.sin((y - 800) / 130. + seed) + (y - 900) * 0.4
    m = np.clip(1.6 - np.abs(x - px) / (18 + 0.16 * np.clip(y - bottom, 0, None)) * 1.6, 0, 1) * (y > shore + 8)
    img += m[..., None] * (np.array([176, 156, 124.]) * (1 + 0.1 * grass)[..., None] - img)
    # house
    hx, hy, hw, hh = int(180 + 250 * r.random()), int(bottom + 60), 300, 190
    blend(img, ((x > hx - 10) & (x < hx + hw + 60) & (y > hy + hh - 4) & (y < hy + hh + 26)) * 0.45, (30, 38, 22))
    blend(img, ((x > hx) & (x < hx + hw) & (y > hy) & (y < hy + hh)).astype(float), (214, 198, 170))
    bricks = (((x - hx) // 22 + (y - hy) // 11 % 2 * .5) % 1 < 0.08) | ((y - hy) % 11 < 1.5)
    blend(img, ((x > hx) & (x < hx + hw) & (y > hy) & (y < hy + hh) & bricks) * 0.35, (150, 120, 96))
    roof = (y > hy - 110) & (y < hy) & (np.abs(x - hx - hw / 2) < (y - hy + 110) * 1.55)
    blend(img, roof.astype(float), (146, 58, 44))
    blend(img, roof * ((y - hy) % 9 < 2) * 0.5, (90, 34, 30))
    for k in range(3):
        wx, wy = hx + 28 + 92 * k, hy + 38
        blend(img, ((x > wx) & (x < wx + 56) & (y > wy) & (y < wy + 66)).astype(float), (240, 238, 230))
        blend(img, ((x > wx + 5) & (x < wx + 51) & (y > wy + 5) & (y < wy + 61)).astype(float), (52, 72, 96))
        blend(img, ((np.abs(x - wx - 28) < 2) | (np.abs(y - wy - 33) < 2)) * ((x > wx) & (x < wx + 56) & (y > wy) & (y < wy + 66)), (240, 238, 230))
    blend(img, ((x > hx + 128) & (x < hx + 172) & (y > hy + 112) & (y < hy + hh)).astype(float), (96, 58, 34))
    # trees
    leaf = noise(r, H, W, 0.9)
    for k in range(9):
        tx, ty, s = r.uniform(520, 1580), bottom + r.uniform(20, 150), r.uniform(40, 95)
        blend(img, ((np.abs(x - tx) < s * .08) & (y > ty - s) & (y < ty + s * .55)).astype(float), (74, 54, 38))
        d = np.hypot((x - tx) / s, (y - ty + s * 1.2) / (s * 1.25)) + 0.13 * leaf
        m = np.clip((1 - d) * 9, 0, 1)
        light = 1 + 0.35 * np.clip(((x - tx) * np.sign(sx - tx) - (y - ty + s * 1.2)) / (2 * s), -1, 1) + 0.22 * leaf
        img += m[..., None] * (np.array([48, 84, 40.]) * r.uniform(.8, 1.25) * light[..., None] - img)
    # a fence and a ball in the foreground
    for k in range(14):
        fx = 40 + 118 * k + 6 * r.standard_normal()
        blend(img, ((np.abs(x - fx) < 7) & (y > 1000 + 12 * np.sin(k)) & (y < 1150)).astype(float), (122, 98, 74))
    for fy in (1040, 1096):
        blend(img, (np.abs(y - fy - 5 * np.sin(x / 170)) < 6) * 1.0, (136, 110, 84))
    bx, by, rad = r.uniform(900, 1400), 1110., 46.
    d = np.hypot(x - bx, y - by) / rad
    lit = np.clip(1.15 - np.hypot(x - bx + 16, y - by + 18) / (1.5 * rad), .25, 1.2)
    img += np.clip((1 - d) * 30, 0, 1)[..., None] * (np.array([214, 44, 36.]) * lit[..., None] - img)
    # lens: a little vignette, blur by averaging, grain
    img = (img + np.roll(img, 1, 0) + np.roll(img, 1, 1) + np.roll(img, (1, 1), (0, 1))) / 4
    img *= (1 - 0.22 * (((x - W / 2) / W) ** 2 + ((y - H / 2) / H) ** 2) * 2)[..., None]
    img += 1.6 * r.standard_normal((H, W, 1))
    return np.clip(img + 0.5, 0, 255).astype(np.uint8)


def main():
    from PIL import Image
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--seed", type=int, default=6)
    ap.add_argument("--quality", type=int, default=60)
    a = ap.parse_args()
    Image.fromarray(scene(a.seed)).save(a.out, quality=a.quality, optimize=True, subsampling=2)


if __name__ == "__main__":
    main()
