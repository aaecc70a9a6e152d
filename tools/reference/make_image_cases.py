"""Test images and expected values of src/image/, made with Pillow.

    pip install 'pillow==11.3.0' numpy
    python make_image_cases.py tests/data/images

Writes accept/ (images that must decode), reject/ (files that must not) and expected.txt:

    decode FILE WIDTH HEIGHT CRC         accept/FILE as RGB, turned by its EXIF orientation
    stored FILE WIDTH HEIGHT CRC         the same without turning
    fit KIND WIDTH HEIGHT SEED SIZE CRC  pattern(WIDTH, HEIGHT, SEED) fitted to SIZE x SIZE

CRC is CRC-32 (zlib) of the RGB bytes, in hexadecimal. Pillow must be older than 13: from 13.0 on
it sometimes resamples columns before rows, which gives other bits (python-pillow/Pillow#9549).

Where Pillow's convert("RGB") makes no useful image (16-bit grey, which it clips at 255) the expected
value is the high byte (PNG) or the value scaled by 255 / maxval (PNM), computed here.
"""
import io
import os
import struct
import sys
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps

assert int(PIL.__version__.split(".")[0]) < 13, "Pillow 13 orders its passes differently"
OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/data/images"


# ---- images -----------------------------------------------------------------------

def pattern(w, h, seed):
    """RGB u8 [h, w, 3]; noise for even seeds, ramps with edges for odd ones. Also in C, in the tests."""
    y, x, c = np.meshgrid(np.arange(h, dtype=np.uint32), np.arange(w, dtype=np.uint32),
                          np.arange(3, dtype=np.uint32), indexing="ij")
    if seed & 1:
        return (((x * 5) ^ (y * 3)) + c * 40 + seed).astype(np.uint8)
    v = x * np.uint32(0x9E3779B1) + y * np.uint32(0x85EBCA77) + c * np.uint32(0xC2B2AE3D) + np.uint32(seed)
    v ^= v >> np.uint32(15)
    v *= np.uint32(0x2C1B3C6D)
    v ^= v >> np.uint32(12)
    return (v & np.uint32(255)).astype(np.uint8)


def scene(w=61, h=43):
    """Something photograph-like: a gradient, a disc, a box, a little noise."""
    y, x = np.mgrid[0:h, 0:w].astype(float)
    a = np.stack([x * 255 / w, y * 255 / h, 255 - (x + y) * 255 / (w + h)], -1)
    a[(x - w * .35) ** 2 + (y - h * .4) ** 2 < (h * .25) ** 2] = (230, 60, 40)
    a[int(h * .6):int(h * .85), int(w * .55):int(w * .9)] = (30, 90, 200)
    return np.clip(a + (pattern(w, h, 2) % 9) - 4, 0, 255).astype(np.uint8)


def crc(a):
    return zlib.crc32(np.ascontiguousarray(a).tobytes())


def path(folder, name):
    os.makedirs(os.path.join(OUT, folder), exist_ok=True)
    return os.path.join(OUT, folder, name)


lines = []


def accept(name, data, expected=None):
    """Stores an image; the expected pixels are Pillow's unless they are given."""
    with open(path("accept", name), "wb") as f:
        f.write(data)
    image = Image.open(io.BytesIO(data))
    stored = np.asarray(image.convert("RGB")) if expected is None else expected
    if expected is None:
        image = Image.open(io.BytesIO(data))
        turned = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    else:
        turned = expected
    for kind, a in (("decode", turned), ("stored", stored)):
        lines.append(f"{kind} {name} {a.shape[1]} {a.shape[0]} {crc(a):08x}")


def reject(name, data):
    with open(path("reject", name), "wb") as f:
        f.write(data)


def saved(image, fmt, **options):
    f = io.BytesIO()
    image.save(f, fmt, **options)
    return f.getvalue()


# ---- PNG, written here: Pillow writes neither 16-bit colour nor interlaced files -----

ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_rows(samples, depth):
    """samples [h, w, channels] -> filtered bytes: a different filter type on each row."""
    h, w, n = samples.shape
    if depth == 16:
        rows = samples.astype(">u2").reshape(h, -1).view(np.uint8)
    elif depth == 8:
        rows = samples.astype(np.uint8).reshape(h, -1)
    else:
        bits = ((samples.reshape(h, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
        rows = np.packbits(bits.reshape(h, -1), axis=1)
    step = max(1, n * depth // 8)
    out, above = b"", np.zeros(rows.shape[1], int)
    for y in range(h):
        row = rows[y].astype(int)
        left = np.concatenate([np.zeros(step, int), row])[:len(row)]
        corner = np.concatenate([np.zeros(step, int), above])[:len(row)]
        p = left + above - corner
        pa, pb, pc = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, above, corner))
        kind = y % 5
        predicted = [0, left, above, (left + above) // 2, paeth][kind]
        out += bytes([kind]) + ((row - predicted) & 255).astype(np.uint8).tobytes()
        above = row
    return out


def png(samples, colour, depth, extra=b"", interlaced=False, tail=b""):
    h, w, _ = samples.shape
    if interlaced:
        raw = b"".join(pack_rows(samples[y::dy, x::dx], depth) for x, y, dx, dy in ADAM7
                       if samples[y::dy, x::dx].size)
    else:
        raw = pack_rows(samples, depth)
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + tail +
            chunk(b"IEND", b""))


def exif(orientation, big=False):
    e = ">" if big else "<"
    return (b"MM" if big else b"II") + struct.pack(e + "HIH", 42, 8, 2) + \
        struct.pack(e + "HHII", 0x0100, 4, 1, 77) + struct.pack(e + "HHIHH", 0x0112, 3, 1, orientation, 0) + \
        struct.pack(e + "I", 0)


def make_png():
    rgb = scene(33, 29)
    wide = rgb.astype(np.uint16) * 257 + (pattern(33, 29, 4).astype(np.uint16) >> 1)  # low bytes that must not round
    grey, alpha = rgb[..., 1:2], rgb[..., 0:1]
    for depth in (1, 2, 4, 8):
        accept(f"png_grey{depth}.png", png(grey >> (8 - depth), 0, depth))
        accept(f"png_grey{depth}_interlaced.png", png(grey >> (8 - depth), 0, depth, interlaced=True))
        colours = pattern(1 << depth, 1, 6)[0]
        plte = chunk(b"PLTE", colours.tobytes())
        index = grey >> (8 - depth)
        accept(f"png_palette{depth}.png", png(index, 3, depth, plte))
        accept(f"png_palette{depth}_trns_interlaced.png", png(index, 3, depth, plte + chunk(b"tRNS", b"\0\x80"), True))
    accept("png_grey8_trns.png", png(grey, 0, 8, chunk(b"tRNS", struct.pack(">H", int(grey[3, 4, 0])))))
    accept("png_grey16.png", png(wide[..., 1:2], 0, 16), np.repeat((wide[..., 1:2] >> 8).astype(np.uint8), 3, 2))
    accept("png_grey_alpha8.png", png(np.concatenate([grey, alpha], 2), 4, 8))
    accept("png_grey_alpha16.png", png(np.concatenate([wide[..., 1:2], wide[..., :1]], 2), 4, 16))
    accept("png_rgb8.png", png(rgb, 2, 8))
    accept("png_rgb8_interlaced.png", png(rgb, 2, 8, interlaced=True))
    accept("png_rgb8_trns.png", png(rgb, 2, 8, chunk(b"tRNS", struct.pack(">HHH", *map(int, rgb[5, 6])))))
    accept("png_rgb16.png", png(wide, 2, 16))
    accept("png_rgba8.png", png(np.concatenate([rgb, alpha], 2), 6, 8))
    accept("png_rgba8_clear.png", png(np.concatenate([rgb, alpha * 0], 2), 6, 8))
    accept("png_rgba16_interlaced.png", png(np.concatenate([wide, wide[..., :1]], 2), 6, 16, interlaced=True))
    accept("png_1x1.png", png(rgb[:1, :1], 2, 8))
    accept("png_exif6.png", png(rgb, 2, 8, chunk(b"eXIf", exif(6))))
    accept("png_exif8_after_pixels.png", png(rgb, 2, 8, tail=chunk(b"eXIf", exif(8, True))))
    accept("png_text_profile.png", png(rgb, 2, 8, chunk(b"gAMA", struct.pack(">I", 100000)) +
                                       chunk(b"tEXt", b"Comment\0nothing") + chunk(b"zzZz", b"private")))


# ---- the other formats --------------------------------------------------------------

def jpeg_as_ycck(data):
    """Turns the Adobe marker's transform from 0 (CMYK) to 2 (YCCK)."""
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1:]


def make_jpeg():
    rgb = Image.fromarray(scene())
    for name, sub in (("444", 0), ("422", 1), ("420", 2)):
        accept(f"jpeg_{name}.jpg", saved(rgb, "JPEG", quality=85, subsampling=sub))
    accept("jpeg_progressive.jpg", saved(rgb, "JPEG", quality=85, progressive=True))
    accept("jpeg_restart.jpg", saved(rgb, "JPEG", quality=85, restart_marker_rows=1))
    accept("jpeg_grey.jpg", saved(rgb.convert("L"), "JPEG", quality=85))
    accept("jpeg_grey_progressive.jpg", saved(rgb.convert("L"), "JPEG", quality=85, progressive=True))
    accept("jpeg_rgb_no_transform.jpg", saved(rgb, "JPEG", quality=85, keep_rgb=True))
    accept("jpeg_cmyk.jpg", saved(rgb.convert("CMYK"), "JPEG", quality=85))
    ycc = np.asarray(rgb.convert("YCbCr"))
    black = 255 - (pattern(61, 43, 3)[..., :1] >> 2)
    ycck = Image.merge("CMYK", [Image.fromarray(255 - p) for p in (*ycc.transpose(2, 0, 1), black[..., 0])])
    accept("jpeg_ycck.jpg", jpeg_as_ycck(saved(ycck, "JPEG", quality=85)))
    for w, h in ((1, 1), (1, 37), (37, 1), (17, 16)):
        accept(f"jpeg_{w}x{h}.jpg", saved(Image.fromarray(scene(w, h)), "JPEG", quality=85))
    small = Image.fromarray(scene(21, 14))
    for o in range(1, 9):
        accept(f"jpeg_exif{o}.jpg", saved(small, "JPEG", quality=85, exif=b"Exif\0\0" + exif(o, o % 2 == 0)))
    accept("jpeg_exif_out_of_range.jpg", saved(small, "JPEG", quality=85, exif=b"Exif\0\0" + exif(9)))


def riff(*chunks):
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def wchunk(kind, data):
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)


def le24(v):
    return struct.pack("<I", v)[:3]


def make_webp():
    rgb = Image.fromarray(scene())
    alpha = Image.fromarray(scene()[..., 0])
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    accept("webp_lossy.webp", saved(rgb, "WEBP", quality=80))
    accept("webp_lossless.webp", saved(rgb, "WEBP", lossless=True))
    accept("webp_lossy_alpha.webp", saved(rgba, "WEBP", quality=80))
    accept("webp_lossless_alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True))
    accept("webp_exif3.webp", saved(rgb, "WEBP", quality=80, exif=exif(3)))
    accept("webp_exif5_with_head.webp", saved(rgb, "WEBP", quality=80, exif=b"Exif\0\0" + exif(5, True)))
    accept("webp_1x1.webp", saved(Image.fromarray(scene(1, 1)), "WEBP", quality=80))
    other = Image.fromarray(255 - scene())
    accept("webp_animated.webp", saved(rgb, "WEBP", save_all=True, append_images=[other], duration=100, quality=80))
    accept("webp_animated_alpha.webp", saved(rgba, "WEBP", save_all=True, append_images=[other.convert("RGBA")],
                                             duration=100, lossless=True))
    # A first frame smaller than the canvas, at 6, 4: the rest stays black.
    vp8 = saved(Image.fromarray(scene(20, 11)), "WEBP", quality=80)[12:]
    anmf = le24(3) + le24(2) + le24(19) + le24(10) + le24(100) + b"\0" + vp8
    anim = wchunk(b"VP8X", b"\x02\0\0\0" + le24(39) + le24(29)) + wchunk(b"ANIM", b"\xff" * 4 + b"\0\0")
    accept("webp_animated_offset.webp", riff(anim, wchunk(b"ANMF", anmf), wchunk(b"ANMF", anmf)))
    outside = le24(13) + anmf[3:]
    reject("webp_frame_outside_canvas.webp", riff(anim, wchunk(b"ANMF", outside)))


def make_pnm():
    rgb = scene(19, 13)
    accept("pnm_p6.ppm", b"P6\n19 13\n255\n" + rgb.tobytes())
    accept("pnm_p5.pgm", b"P5\n19 13\n255\n" + rgb[..., 0].tobytes())
    accept("pnm_p6_comments.ppm", b"P6 # a comment\n#another\n19\t13 # and one\n255\n" + rgb.tobytes())
    accept("pnm_p6_max31.ppm", b"P6\n19 13\n31\n" + (rgb >> 3).tobytes())
    accept("pnm_p5_max100.pgm", b"P5\n19 13\n100\n" + (rgb[..., 0] // 2).tobytes())
    accept("pnm_p6_16bit.ppm", b"P6\n19 13\n65535\n" + (rgb.astype(np.uint16) * 251).astype(">u2").tobytes())
    accept("pnm_p6_max1000.ppm", b"P6\n19 13\n1000\n" + (rgb.astype(np.uint16) * 3).astype(">u2").tobytes())
    grey = rgb[..., :1].astype(np.uint16) * 199
    scaled = np.rint(np.repeat(grey, 3, 2) / 60000 * 255).astype(np.uint8)
    accept("pnm_p5_max60000.pgm", b"P5\n19 13\n60000\n" + grey.astype(">u2").tobytes(), scaled)


# ---- files that must be refused -----------------------------------------------------

def make_reject():
    rgb = scene(33, 29)
    good_png = png(rgb, 2, 8)
    good_jpeg = saved(Image.fromarray(rgb), "JPEG", quality=85)
    ihdr = lambda w, h: struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n"
    reject("empty.jpg", b"")
    reject("text.jpg", b"Hello, I am a letter and no picture.\n")
    reject("noise.bin", pattern(16, 4, 8).tobytes())
    reject("png_30000x30000.png", head + chunk(b"IHDR", ihdr(30000, 30000)) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) +
           chunk(b"IEND", b""))
    reject("png_70000x1.png", head + chunk(b"IHDR", ihdr(70000, 1)) + good_png[33:])
    reject("png_zero_width.png", head + chunk(b"IHDR", ihdr(0, 5)) + good_png[33:])
    reject("png_huge_chunk.png", good_png[:33] + b"\x7f\xff\xff\xffIDAT" + good_png[41:])
    reject("png_bad_crc.png", good_png[:60] + bytes([good_png[60] ^ 1]) + good_png[61:])
    reject("png_no_ihdr.png", head + good_png[33:])
    reject("png_short_pixels.png", head + chunk(b"IHDR", ihdr(33, 29)) + chunk(b"IDAT", zlib.compress(b"\0" * 500)) +
           chunk(b"IEND", b""))
    sof = good_jpeg.index(b"\xff\xc0")
    sized = lambda w, h: good_jpeg[:sof + 5] + struct.pack(">HH", h, w) + good_jpeg[sof + 9:]
    reject("jpeg_30000x30000.jpg", sized(30000, 30000))
    reject("jpeg_zero_height.jpg", sized(33, 0))
    reject("jpeg_taller_than_its_data.jpg", sized(33, 290))
    reject("jpeg_only_markers.jpg", good_jpeg[:sof] + b"\xff\xd9")
    reject("jpeg_lost_code.jpg", good_jpeg[:-200] + b"\xff\0" * 8 + good_jpeg[-184:])
    restarts = saved(Image.fromarray(rgb), "JPEG", quality=85, restart_marker_rows=1)
    second = restarts.index(b"\xff\xd0")
    reject("jpeg_lost_restart.jpg", restarts[:second] + restarts[second + 2:])
    reject("jpeg_12bit.jpg", good_jpeg[:sof + 4] + b"\x0c" + good_jpeg[sof + 5:])
    good_webp = saved(Image.fromarray(rgb), "WEBP", quality=80)
    reject("webp_huge_chunk.webp", good_webp[:16] + b"\xf0\xff\xff\xff" + good_webp[20:])
    reject("webp_huge_riff.webp", good_webp[:4] + b"\xf0\xff\xff\xff" + good_webp[8:])
    reject("webp_no_picture.webp", riff(wchunk(b"VP8X", b"\0" * 4 + le24(9) + le24(9)), wchunk(b"EXIF", exif(1))))
    reject("webp_huge_canvas.webp", riff(wchunk(b"VP8X", b"\2\0\0\0" + le24(99999) + le24(9)),
                                         wchunk(b"ANMF", b"\0" * 16 + good_webp[12:])))
    reject("webp_damaged.webp", good_webp[:23] + b"\0\0\0" + good_webp[26:])
    reject("webp_lossless_cut_inside.webp", riff(wchunk(b"VP8L", saved(Image.fromarray(rgb), "WEBP", lossless=True)[20:220])))
    reject("pnm_zero_height.ppm", b"P6 5 0 255\n")
    reject("pnm_no_width.ppm", b"P6\nwide 5 255\n")
    reject("pnm_max70000.pgm", b"P5 2 2 70000\n" + b"\0" * 8)
    reject("pnm_60000x60000.ppm", b"P6 60000 60000 255\n" + b"\0" * 8)
    reject("pnm_99999999999999999999x1.ppm", b"P6 99999999999999999999 1 255\n" + b"\0" * 8)
    reject("gif.gif", saved(Image.fromarray(rgb[:4, :4]), "GIF"))
    reject("bmp.bmp", saved(Image.fromarray(rgb[:4, :4]), "BMP"))
    reject("tiff.tif", saved(Image.fromarray(rgb[:4, :4]), "TIFF"))
    reject("heic_start.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


# ---- fitting --------------------------------------------------------------------------

def fit_pil(a, kind, size):
    """The reference's steps, by Pillow. [tools/reference/preprocess.py, process_pil]"""
    image = Image.fromarray(a)
    h, w, _ = a.shape
    if kind == "pad" and w != h:
        side = max(w, h)
        canvas = Image.new("RGB", (side, side))
        canvas.paste(image, (0, (w - h) // 2) if w > h else ((h - w) // 2, 0))
        image = canvas
    if kind == "stretch":
        return np.asarray(image.resize((size, size), Image.BICUBIC))
    w, h = image.size
    short, long = min(w, h), max(w, h)
    new_long = int(size * long / short)
    nw, nh = (size, new_long) if w <= h else (new_long, size)
    image = image.resize((nw, nh), Image.BICUBIC)
    left, top = (nw - size) // 2, (nh - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def make_fit():
    shapes = [(1, 1), (2, 2), (1, 2), (2, 1), (3, 5), (1, 300), (300, 1), (7, 250), (250, 7), (63, 64), (64, 64),
              (65, 64), (100, 37), (37, 100), (127, 129), (200, 150), (333, 77), (481, 641)]
    for i, (w, h) in enumerate(shapes):
        for kind in ("pad", "crop", "stretch"):
            for size in (1, 16, 64, 97):
                seed = i * 2 + (size & 1) + (kind == "crop")
                a = pattern(w, h, seed)
                lines.append(f"fit {kind} {w} {h} {seed} {size} {crc(fit_pil(a, kind, size)):08x}")
    for kind, w, h, size in (("pad", 4000, 3000, 1024), ("crop", 3000, 4000, 1024), ("stretch", 4000, 3000, 1024),
                             ("pad", 640, 480, 1024), ("crop", 640, 480, 1024), ("stretch", 480, 640, 1024),
                             ("pad", 1024, 1024, 1024), ("pad", 1024, 700, 1024), ("pad", 1025, 1023, 1024),
                             ("crop", 1920, 1080, 1536), ("pad", 90, 5000, 256), ("stretch", 5000, 3, 256),
                             ("pad", 1, 6000, 64), ("pad", 6000, 1, 64)):
        for seed in (10, 11):
            a = pattern(w, h, seed)
            lines.append(f"fit {kind} {w} {h} {seed} {size} {crc(fit_pil(a, kind, size)):08x}")


make_png()
make_jpeg()
make_webp()
make_pnm()
make_reject()
make_fit()
with open(os.path.join(OUT, "expected.txt"), "w") as f:
    f.write(f"# made by tools/reference/make_image_cases.py with Pillow {PIL.__version__}\n" + "\n".join(lines) + "\n")
print(len(lines), "lines")
