"""Test images and expected values of src/image/, made with Pillow.

    pip install 'pillow==11.3.0' 'pillow-heif==1.8.1' numpy
    python make_image_cases.py tests/data/images

Writes accept/ (images that must decode), reject/ (files that must not) and expected.txt:

    decode FILE WIDTH HEIGHT CRC         accept/FILE as RGB, turned by its EXIF orientation
    stored FILE WIDTH HEIGHT CRC         the same without turning
    near FILE WIDTH HEIGHT MOST          accept/FILE differs from near/FILE.png by MOST in any byte
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
    stored = turned = expected
    if expected is None:
        stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        image = Image.open(io.BytesIO(data))
        turned = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
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

# ---- GIF, written here: Pillow writes neither offsets nor screens larger than the frame -------

def lzw(indices, bits=8):
    """GIF's LZW without a dictionary: a clear code before it would grow."""
    out, clear, n_free = [], 1 << bits, (1 << bits) - 2
    for i, v in enumerate(indices):
        if i % n_free == 0:
            out.append(clear)
        out.append(int(v))
    out.append(clear + 1)
    bitstream = np.concatenate([(np.array([c]) >> np.arange(bits + 1)) & 1 for c in out]).astype(np.uint8)
    data = np.packbits(bitstream, bitorder="little").tobytes()
    blocks = b"".join(bytes([len(data[i:i + 255])]) + data[i:i + 255] for i in range(0, len(data), 255))
    return bytes([bits]) + blocks + b"\0"


def interlace(index):
    order = [y for begin, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for y in range(begin, len(index), step)]
    return index[order]


def gif_frame(index, at=(0, 0), colours=None, transparent=None, interlaced=False):
    h, w = index.shape
    head = b""
    if transparent is not None:
        head = b"!\xf9\4" + struct.pack("<BHB", 1, 5, transparent) + b"\0"
    flags = (0x40 if interlaced else 0) | (0x80 | 7 if colours is not None else 0)
    rows = interlace(index) if interlaced else index
    return (head + b"," + struct.pack("<HHHHB", *at, w, h, flags) +
            (colours.tobytes() if colours is not None else b"") + lzw(rows.reshape(-1)))


def gif(size, frames, colours=None, background=0):
    flags = 0x70 | (0x80 | len(colours).bit_length() - 2 if colours is not None else 0)
    return (b"GIF89a" + struct.pack("<HHBBB", *size, flags, background, 0) +
            (colours.tobytes() if colours is not None else b"") + b"".join(frames) + b";")


def make_gif():
    rgb = scene(33, 29)
    index = rgb[..., 1]
    colours, others = pattern(256, 1, 6)[0], pattern(256, 1, 12)[0]
    for name, image in (("rgb", Image.fromarray(rgb)), ("grey", Image.fromarray(index)),
                        ("2_colours", Image.fromarray(index).convert("1"))):
        accept(f"gif_{name}.gif", saved(image, "GIF"))
    accept("gif_interlaced.gif", gif((33, 29), [gif_frame(index, interlaced=True)], colours))
    for h in (1, 2, 3, 5, 8):
        accept(f"gif_interlaced_{h}.gif", gif((33, h), [gif_frame(index[:h], interlaced=True)], colours))
    accept("gif_transparent.gif", gif((33, 29), [gif_frame(index, transparent=int(index[3, 4]))], colours))
    accept("gif_offset.gif", gif((45, 40), [gif_frame(index, (7, 5))], colours, background=9))
    accept("gif_offset_transparent.gif", gif((45, 40), [gif_frame(index, (7, 5), transparent=77)], colours, 9))
    accept("gif_frame_leaves_screen.gif", gif((20, 12), [gif_frame(index, (7, 5))], colours))
    accept("gif_local_colours.gif", gif((33, 29), [gif_frame(index, colours=others)], colours))
    accept("gif_only_local_colours.gif", gif((33, 29), [gif_frame(index, colours=others)]))
    accept("gif_no_colours.gif", gif((33, 29), [gif_frame(index)]))
    accept("gif_animated.gif", gif((33, 29), [gif_frame(index), gif_frame(255 - index, transparent=3)], colours))
    accept("gif_comment.gif", gif((33, 29), [b"!\xfe\5hello\0", gif_frame(index)], colours))
    accept("gif_index_behind_colours.gif", gif((33, 29), [gif_frame(index)], colours[:32]))
    accept("gif_1x1.gif", gif((1, 1), [gif_frame(index[:1, :1])], colours))


# ---- BMP, written here: Pillow writes one header and no compression ----------------------------

def bmp(pixels, w, h, bits, compression=0, colours=b"", head=40, masks=b"", gap=b"", used=0, at=None):
    if head == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", head, w, h, 1, bits, compression, len(pixels), 2835, 2835, used, 0)[:head]
        info += masks if head > 40 else b""
        info += b"\0" * (head - len(info))
        info += masks if head <= 40 else b""
    start = 14 + len(info) + len(colours) + len(gap)
    return (b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start if at is None else at) + info + colours +
            gap + pixels)


def bmp_rows(rows, bits):
    """Rows of samples [h, w], bottom first, each padded to four bytes."""
    out = b""
    for row in rows[::-1]:
        if bits < 8:
            packed = np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8))
        else:
            packed = np.frombuffer(row.astype(f"<u{bits // 8}").tobytes(), np.uint8)
        out += packed.tobytes() + b"\0" * (-len(packed) % 4)
    return out


def masked(rgb, widths, shifts):
    """RGB u8 -> one number a pixel, and what Pillow makes of it."""
    number, back = np.zeros(rgb.shape[:2], np.uint32), []
    for c, (n, shift) in enumerate(zip(widths, shifts)):
        v = (rgb[..., c].astype(np.uint32) << 8 | rgb[..., c]) >> (16 - n)
        number |= v << np.uint32(shift)
        back.append((v.astype(np.uint64) * 255 // ((1 << n) - 1)).astype(np.uint8))
    mask = b"".join(struct.pack("<I", ((1 << n) - 1) << shift) for n, shift in zip(widths, shifts))
    return number, np.stack(back, -1), mask


def rle8(rows):
    out = b""
    for row in rows[::-1]:
        x = 0
        while x < len(row):
            n = 1
            while x + n < len(row) and n < 255 and row[x + n] == row[x]:
                n += 1
            if n == 1 and len(row) - x >= 5:
                out += bytes([0, 5]) + bytes(row[x:x + 5].tolist()) + b"\0"
                x += 5
            else:
                out += bytes([n, int(row[x])])
                x += n
        out += b"\0\0"
    return out + b"\0\1"


def make_bmp():
    rgb = scene(33, 29)
    index = rgb[..., 1]
    for bits in (1, 4, 8):
        colours = pattern(1 << bits, 1, 6)[0]
        quads = np.concatenate([colours[:, ::-1], colours[:, :1] * 0], 1).astype(np.uint8).tobytes()
        rows = bmp_rows(index >> (8 - bits), bits)
        accept(f"bmp_{bits}.bmp", bmp(rows, 33, 29, bits, colours=quads))
        accept(f"bmp_{bits}_os2.bmp", bmp(rows, 33, 29, bits, colours=colours[:, ::-1].tobytes(), head=12))
        accept(f"bmp_{bits}_os2_v2.bmp", bmp(rows, 33, 29, bits, colours=quads, head=64))
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, 1)
    grey[:, 3] = 0
    accept("bmp_8_grey.bmp", bmp(bmp_rows(index, 8), 33, 29, 8, colours=grey.tobytes()))
    accept("bmp_8_used_100.bmp", bmp(bmp_rows(index // 3, 8), 33, 29, 8, colours=quads[:400], used=100))
    accept("bmp_8_gap.bmp", bmp(bmp_rows(index, 8), 33, 29, 8, colours=quads, gap=b"\7" * 10))
    accept("bmp_8_pixels_at_colours.bmp", bmp(bmp_rows(index, 8), 33, 29, 8, colours=quads, at=54))
    accept("bmp_2.bmp", bmp(bmp_rows(index >> 6, 2), 33, 29, 2, colours=quads[:16]), pattern(256, 1, 6)[0][index >> 6])
    bgr = (rgb[..., 2].astype(np.uint32) | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 0].astype(np.uint32) << 16)
    raw24 = b"".join(row[:, ::-1].tobytes() + b"\0" * (-33 * 3 % 4) for row in rgb[::-1])
    accept("bmp_24.bmp", bmp(raw24, 33, 29, 24))
    accept("bmp_24_top_down.bmp", bmp(b"".join(row[:, ::-1].tobytes() + b"\0" for row in rgb), 33, -29, 24))
    accept("bmp_24_os2.bmp", bmp(raw24, 33, 29, 24, head=12))
    accept("bmp_24_v5.bmp", bmp(raw24, 33, 29, 24, head=124))
    accept("bmp_32.bmp", bmp(bmp_rows(bgr | 0x7f000000, 32), 33, 29, 32))
    accept("bmp_32_v4_alpha.bmp", bmp(bmp_rows(bgr | 0x7f000000, 32), 33, 29, 32, 3, head=108,
                                      masks=struct.pack("<IIII", 0xff0000, 0xff00, 0xff, 0xff000000)))
    for name, bits, head, widths, shifts in (("555", 16, 40, (5, 5, 5), (10, 5, 0)), ("565", 16, 40, (5, 6, 5), (11, 5, 0)),
                                             ("565_v5", 16, 124, (5, 6, 5), (11, 5, 0)),
                                             ("rgbx", 32, 56, (8, 8, 8), (24, 16, 8))):
        number, back, mask = masked(rgb, widths, shifts)
        if head == 56:
            mask += b"\0" * 4
        accept(f"bmp_{bits}_{name}.bmp", bmp(bmp_rows(number, bits), 33, 29, bits, 3, head=head, masks=mask))
    number, back, mask = masked(rgb, (5, 5, 5), (10, 5, 0))
    accept("bmp_16.bmp", bmp(bmp_rows(number, 16), 33, 29, 16))
    for name, bits, widths, shifts in (("444", 16, (4, 4, 4), (8, 4, 0)), ("10_bits", 32, (10, 10, 10), (20, 10, 0))):
        number, back, mask = masked(rgb, widths, shifts)
        accept(f"bmp_{bits}_{name}.bmp", bmp(bmp_rows(number, bits), 33, 29, bits, 3, masks=mask), back)
    flat = index // 24 * 20
    accept("bmp_rle8.bmp", bmp(rle8(flat), 33, 29, 8, 1, colours=quads))
    # an escape of each kind: a short row, a move, the end with rows left
    moves = bytes([5, 200, 0, 0, 0, 2, 4, 3, 3, 90, 0, 4, 1, 2, 3, 4, 0, 0, 40, 17, 0, 1])
    drawn = np.zeros((9, 33), int)  # from below; what is skipped has colour 0
    drawn[0, :5], drawn[4, 4:7], drawn[4, 7:11], drawn[5] = 200, 90, (1, 2, 3, 4), 17
    accept("bmp_rle8_moves.bmp", bmp(moves, 33, 9, 8, 1, colours=quads), colours[drawn[::-1]])
    four = np.concatenate([pattern(16, 1, 8)[0][:, ::-1], np.zeros((16, 1), np.uint8)], 1).tobytes()
    accept("bmp_rle4.bmp", bmp(bytes([10, 0x12, 0, 4, 0x34, 0x56, 0, 0, 14, 0x9a, 0, 0, 14, 0x1b, 0, 1]), 14, 3, 4, 2,
                               colours=four))
    # Pillow loses the last of an odd number of literals
    drawn = np.array([[1, 11] * 7, [9, 10] * 7, [1, 2] * 4 + [1, 3, 4, 5, 6, 7]])
    accept("bmp_rle4_odd.bmp", bmp(bytes([9, 0x12, 0, 5, 0x34, 0x56, 0x70, 0, 0, 0, 14, 0x9a, 0, 0, 14, 0x1b, 0, 1]),
                                   14, 3, 4, 2, colours=four), pattern(16, 1, 8)[0][drawn])
    accept("bmp_1x1.bmp", bmp(b"\1\2\3\0", 1, 1, 24))


# ---- TIFF ---------------------------------------------------------------------------------------

def tiff(tags, pixels, big=False, tail=b"", pixels_first=False):
    """One directory; pixels is a list of strips or tiles."""
    e = ">" if big else "<"
    sizes = {1: "B", 2: "c", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
    where = {324: 325} if 322 in tags else {273: 279}
    (offsets, counts), = where.items()
    n_tags = len(tags) + 2
    at = 8 + 2 + n_tags * 12 + 4
    blobs, entries = b"", []

    def entry(tag, kind, values):
        nonlocal blobs
        raw = struct.pack(e + str(len(values)) + sizes[kind], *values)
        if len(raw) <= 4:
            return struct.pack(e + "HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
        where_to = at + len(blobs)
        blobs += raw + b"\0" * (len(raw) & 1)
        return struct.pack(e + "HHII", tag, kind, len(values), where_to)

    all_tags = {**tags, offsets: (4, [0] * len(pixels)), counts: (4, [len(p) for p in pixels])}
    for _ in range(2):  # the second time with the places known
        blobs = b""
        entries = [entry(tag, *all_tags[tag]) for tag in sorted(all_tags)]
        begin = at + len(blobs)
        places = [begin + sum(len(p) for p in pixels[:i]) for i in range(len(pixels))]
        all_tags[offsets] = (4, places)
    return ((b"MM\0*" if big else b"II*\0") + struct.pack(e + "IH", 8, n_tags) + b"".join(entries) + b"\0" * 4 + blobs +
            b"".join(pixels) + tail)


def tiff_tags(w, h, bits, n, photometric, rows=None, **more):
    tags = {256: (3, [w]), 257: (3, [h]), 258: (3, [bits] * n), 259: (3, [1]), 262: (3, [photometric]), 277: (3, [n])}
    if rows:
        tags[278] = (3, [rows])
    tags.update({int(k[1:]): v for k, v in more.items()})
    return tags


def make_tiff():
    rgb = scene(33, 29)
    image = Image.fromarray(rgb)
    grey = rgb[..., 1]
    wide = rgb.astype(np.uint16) * 257 ^ 0xc5  # low bytes that must not round
    rgba = np.concatenate([rgb, rgb[..., :1]], 2)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma"):
        accept(f"tiff_{compression}.tif", saved(image, "TIFF", compression=compression))
    accept("tiff_grey.tif", saved(Image.fromarray(grey), "TIFF"))
    accept("tiff_1_bit_g4.tif", saved(Image.fromarray(grey).convert("1"), "TIFF", compression="group4"))
    accept("tiff_palette.tif", saved(image.quantize(50), "TIFF"))
    accept("tiff_cmyk.tif", saved(image.convert("CMYK"), "TIFF"))
    accept("tiff_rgba.tif", saved(Image.fromarray(rgba), "TIFF"))
    accept("tiff_grey_alpha.tif", saved(Image.fromarray(rgba[..., 2:]), "TIFF"))
    accept("tiff_jpeg.tif", saved(image, "TIFF", compression="jpeg", quality=90))
    accept("tiff_pages.tif", saved(image, "TIFF", save_all=True, append_images=[Image.fromarray(255 - rgb)]))
    accept("tiff_big.tif", saved(image, "TIFF", big_tiff=True))
    for bits in (1, 2, 4):
        index = grey >> (8 - bits)
        packed = [np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)).tobytes() for row in index]
        accept(f"tiff_grey{bits}.tif", tiff(tiff_tags(33, 29, bits, 1, 1, 29), [b"".join(packed)]))
        accept(f"tiff_white_is_zero{bits}.tif", tiff(tiff_tags(33, 29, bits, 1, 0, 29), [b"".join(packed)]))
        colours = (pattern(1 << bits, 1, 6)[0].astype(int) * 257).T.reshape(-1).tolist()
        accept(f"tiff_palette{bits}.tif", tiff(tiff_tags(33, 29, bits, 1, 3, 29, t320=(3, colours)), [b"".join(packed)]))
    for big in (False, True):
        e = ">" if big else "<"
        name = "mm" if big else "ii"
        accept(f"tiff_{name}_16.tif", tiff(tiff_tags(33, 29, 16, 3, 2, 10), [wide[y:y + 10].astype(e + "u2").tobytes()
                                                                        for y in (0, 10, 20)], big))
        accept(f"tiff_{name}_grey16.tif", tiff(tiff_tags(33, 29, 16, 1, 1, 29), [wide[..., 1].astype(e + "u2").tobytes()], big),
               np.repeat((wide[..., 1:2] >> 8).astype(np.uint8), 3, 2))
    accept("tiff_16_cmyk.tif", tiff(tiff_tags(33, 29, 16, 4, 5, 29), [np.concatenate([wide, wide[..., :1]], 2).tobytes()]))
    planes = [np.ascontiguousarray(rgb[..., c]).tobytes() for c in range(3)]
    accept("tiff_planes.tif", tiff(tiff_tags(33, 29, 8, 3, 2, 29, t284=(3, [2])), planes))
    accept("tiff_associated_alpha.tif", tiff(tiff_tags(33, 29, 8, 4, 2, 29, t338=(3, [1])), [np.minimum(rgba, rgba[..., 3:]).tobytes()]))
    accept("tiff_5_samples.tif", tiff(tiff_tags(33, 29, 8, 5, 2, 29, t338=(3, [0, 0])),
                                      [np.concatenate([rgba, rgba[..., :1]], 2).tobytes()]))

    def tiles(a, size=16):
        h, w = a.shape[:2]
        padded = np.zeros((-(-h // size) * size, -(-w // size) * size) + a.shape[2:], a.dtype)
        padded[:h, :w] = a
        return [padded[y:y + size, x:x + size].tobytes() for y in range(0, h, size) for x in range(0, w, size)]
    tiled = dict(t322=(3, [16]), t323=(3, [16]))
    accept("tiff_tiles.tif", tiff(tiff_tags(33, 29, 8, 3, 2, **tiled), tiles(rgb)))
    accept("tiff_tiles_grey16.tif", tiff(tiff_tags(33, 29, 16, 1, 1, **tiled), tiles(wide[..., 1])),
           np.repeat((wide[..., 1:2] >> 8).astype(np.uint8), 3, 2))
    accept("tiff_tiles_planes.tif", tiff(tiff_tags(33, 29, 8, 3, 2, t284=(3, [2]), **tiled),
                                         [t for c in range(3) for t in tiles(np.ascontiguousarray(rgb[..., c]))]))
    small = scene(21, 14)
    for o in range(2, 9):
        accept(f"tiff_orientation{o}.tif", tiff(tiff_tags(21, 14, 8, 3, 2, 14, t274=(3, [o])), [small.tobytes()], o % 2 == 0))
    accept("tiff_orientation6_long.tif", tiff(tiff_tags(21, 14, 8, 3, 2, 14, t274=(4, [6])), [small.tobytes()]))


# ---- HEIC and AVIF: coded by libheif and libavif, put together here -------------------------------
#
# Decoders may round colours differently, so these are compared within a bound: near/ holds what the
# libraries of pillow-heif and Pillow make of each file.

def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full_box(kind, version, flags, *parts):
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def boxes_of(data):
    at = 0
    while at + 8 <= len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        n = n or len(data) - at
        yield kind, data[at + 8:at + n]
        at += n


def coded(data):
    """Kind of item, its configuration box and its bytes: of a file with one coded image."""
    top = dict(boxes_of(data))
    meta = dict(boxes_of(top[b"meta"][4:]))
    ipco = list(boxes_of(dict(boxes_of(meta[b"iprp"]))[b"ipco"]))
    kind, config = next((k, b) for k, b in ipco if k in (b"hvcC", b"av1C"))
    mdat = top[b"mdat"]
    return {b"hvcC": b"hvc1", b"av1C": b"av01"}[kind], box(kind, config), mdat


def heif(brand, tiles, size, tile_size, columns, transforms=(), compatible=(b"mif1",)):
    """A file of one image in tiles of the same configuration; columns 0: of one tile, no grid."""
    kind, config, _ = tiles[0]
    n, grid = len(tiles), columns > 0
    properties = [config, full_box(b"ispe", 0, 0, struct.pack(">II", *tile_size)),
                  full_box(b"ispe", 0, 0, struct.pack(">II", *size)),
                  full_box(b"pixi", 0, 0, b"\3\x08\x08\x08"), *transforms]
    of_tile, of_image = [0x81, 2, 4], [3, 4] + [0x80 | (5 + i) for i in range(len(transforms))]
    items = [(i + 1, kind) for i in range(n)] + ([(n + 1, b"grid")] if grid else [])
    infe = [full_box(b"infe", 2, int(grid and i <= n), struct.pack(">HH", i, 0), k, b"\0") for i, k in items]
    primary = n + 1 if grid else 1
    owned = {i + 1: of_tile for i in range(n)}
    owned[primary] = of_image if grid else of_tile + of_image[2:]
    ipma = b"".join(struct.pack(">HB", i, len(p)) + bytes(p) for i, p in sorted(owned.items()))
    rows = -(-n // max(columns, 1))
    payload = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *size) if grid else b""
    ftyp = box(b"ftyp", brand, b"\0\0\0\0", *compatible)

    def meta(first):
        places, at = [], first
        for _, _, data in tiles:
            places.append((at, len(data)))
            at += len(data)
        iloc = b"".join(struct.pack(">HHHHII", i + 1, 0, 0, 1, *place) for i, place in enumerate(places))
        if grid:
            iloc += struct.pack(">HHHHII", n + 1, 1, 0, 1, 0, len(payload))
        return full_box(
            b"meta", 0, 0, full_box(b"hdlr", 0, 0, b"\0\0\0\0pict" + b"\0" * 12 + b"\0"),
            full_box(b"pitm", 0, 0, struct.pack(">H", primary)),
            full_box(b"iloc", 1, 0, struct.pack(">HH", 0x4400, len(tiles) + grid), iloc),
            full_box(b"iinf", 0, 0, struct.pack(">H", len(items)), *infe),
            full_box(b"iref", 0, 0, box(b"dimg", struct.pack(">HH", n + 1, n), *[struct.pack(">H", i + 1) for i in range(n)]))
            if grid else b"",
            box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", 0, 0, struct.pack(">I", len(owned)), ipma)),
            box(b"idat", payload) if grid else b"")
    first = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(first) + box(b"mdat", *[data for _, _, data in tiles])


def near(name, data, most, expected=None):
    """An image that may differ from the reference by `most` in any byte; never turned by EXIF."""
    with open(path("accept", name), "wb") as f:
        f.write(data)
    if expected is None:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    Image.fromarray(expected).save(path("near", name + ".png"))
    lines.append(f"near {name} {expected.shape[1]} {expected.shape[0]} {most}")


def turned_as(a, angle=0, axis=None):
    a = np.rot90(a, angle)
    return a if axis is None else np.flip(a, axis)


def make_heif():
    import pillow_heif
    pillow_heif.register_heif_opener()
    rgb = scene(68, 70)
    image = Image.fromarray(rgb)
    y, x = np.mgrid[0:70, 0:68]
    smooth = np.stack([x * 3, y * 3, 255 - (x + y)], -1).astype(np.uint8)
    alpha = Image.fromarray(np.concatenate([rgb, rgb[..., :1]], 2))
    lossless = dict(quality=-1, chroma=444, matrix_coefficients=0)
    near("heic_lossless.heic", saved(image, "HEIF", **lossless), 0, rgb)
    near("heic_444.heic", saved(image, "HEIF", quality=90, chroma=444), 3)
    near("heic_420.heic", saved(Image.fromarray(smooth), "HEIF", quality=90, chroma=420), 8)
    near("heic_alpha.heic", saved(alpha, "HEIF", **lossless), 0, rgb)
    near("heic_grey.heic", saved(Image.fromarray(rgb[..., 1]), "HEIF", quality=90), 3)
    near("heic_saved_turned.heic", saved(image, "HEIF", exif=b"Exif\0\0" + exif(6), **lossless), 0)
    deep = pillow_heif.from_bytes("RGB;16", (68, 70), (rgb.astype(np.uint16) * 257).tobytes())
    f = io.BytesIO()
    deep.save(f, format="HEIF", quality=-1, chroma=444, matrix_coefficients=0)
    near("heic_10_bit.heic", f.getvalue(), 1, rgb)
    near("avif_lossless.avif", saved(image, "AVIF", quality=100, subsampling="4:4:4"), 3)
    near("avif_420.avif", saved(Image.fromarray(smooth), "AVIF", quality=90), 8)
    near("avif_alpha.avif", saved(alpha, "AVIF", quality=100, subsampling="4:4:4"), 3)
    near("avif_sequence.avif", saved(image, "AVIF", quality=95, subsampling="4:4:4", save_all=True,
                                     append_images=[Image.fromarray(255 - rgb)]), 3)
    # tiles, turning and cropping, all lossless
    big = scene(128, 128)
    quarters = [big[y:y + 64, x:x + 64] for y in (0, 64) for x in (0, 64)]
    tiles = [coded(saved(Image.fromarray(np.ascontiguousarray(q)), "HEIF", **lossless)) for q in quarters]
    near("heic_grid.heic", heif(b"heic", tiles, (128, 128), (64, 64), 2), 0, big)
    near("heic_grid_cut.heic", heif(b"heic", tiles, (100, 90), (64, 64), 2), 0, big[:90, :100])
    near("heic_grid_turned.heic", heif(b"heic", tiles, (100, 90), (64, 64), 2, [box(b"irot", b"\3")]), 0,
         turned_as(big[:90, :100], 3))
    one = [tiles[1]]
    for angle in (1, 2, 3):
        near(f"heic_irot{angle}.heic", heif(b"heic", one, (64, 64), (64, 64), 0, [box(b"irot", bytes([angle]))]), 0,
             turned_as(quarters[1], angle))
    for axis in (0, 1):  # 0: top and bottom change places
        near(f"heic_imir{axis}.heic", heif(b"heic", one, (64, 64), (64, 64), 0, [box(b"imir", bytes([axis]))]), 0,
             turned_as(quarters[1], 0, axis))
    near("heic_irot_imir.heic", heif(b"heic", one, (64, 64), (64, 64), 0, [box(b"irot", b"\1"), box(b"imir", b"\1")]), 0,
         turned_as(quarters[1], 1, 1))
    for brand in (b"mif1", b"heix", b"hevc", b"heim", b"heis"):
        near(f"heic_brand_{brand.decode()}.heic", heif(brand, one, (64, 64), (64, 64), 0, compatible=(b"mif1", b"heic")), 0,
             quarters[1])
    tiles = [coded(saved(Image.fromarray(np.ascontiguousarray(q)), "AVIF", quality=100, subsampling="4:4:4")) for q in quarters]
    near("avif_grid.avif", heif(b"avif", tiles, (128, 128), (64, 64), 2, compatible=(b"mif1", b"avif", b"miaf")), 3)


# ---- EXIF orientation in every type of number ----------------------------------------------------

def exif_typed(kind, value, big=False, count=1):
    e = ">" if big else "<"
    code = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}
    if kind == 2:
        raw = str(value).encode() + b"\0"
        count = len(raw)
    elif kind in (5, 10):
        raw = struct.pack(e + ("II" if kind == 5 else "ii"), value * 3, 3)
    else:
        raw = struct.pack(e + str(count) + code[kind], *[value] * count)
    head = (b"MM" if big else b"II") + struct.pack(e + "HIH", 42, 8, 1)
    entry = struct.pack(e + "HHI", 0x112, kind, count)
    if len(raw) <= 4:
        return head + entry + raw.ljust(4, b"\0") + b"\0" * 4
    return head + entry + struct.pack(e + "I", 26) + b"\0" * 4 + raw


def make_exif():
    rgb = scene(21, 14)
    small = Image.fromarray(rgb)
    names = {1: "byte", 2: "ascii", 3: "short", 4: "long", 5: "rational", 6: "sbyte", 7: "undefined", 8: "sshort",
             9: "slong", 10: "srational", 11: "float", 12: "double", 13: "ifd", 16: "long8"}
    for kind, name in names.items():
        for big in (False, True):
            data = exif_typed(kind, 5 + (kind + big) % 4, big)
            if big:
                accept(f"exif_{name}_with_head.png", png(rgb, 2, 8, chunk(b"eXIf", b"Exif\0\0" + data)))
                continue
            accept(f"exif_{name}.jpg", saved(small, "JPEG", quality=85, exif=b"Exif\0\0" + data))
            if kind in (4, 6, 8):
                accept(f"exif_{name}.png", png(rgb, 2, 8, chunk(b"eXIf", data)))
                accept(f"exif_{name}.webp", saved(small, "WEBP", quality=80, exif=data))
    for kind in (3, 4, 9):
        accept(f"exif_{names[kind]}_twice.jpg", saved(small, "JPEG", quality=85, exif=b"Exif\0\0" + exif_typed(kind, 6, count=2)))
    accept("exif_two_heads.jpg", saved(small, "JPEG", quality=85, exif=b"Exif\0\0Exif\0\0" + exif_typed(4, 6)))
    accept("exif_two_heads.png", png(rgb, 2, 8, chunk(b"eXIf", b"Exif\0\0Exif\0\0" + exif_typed(3, 6))))
    accept("exif_negative.jpg", saved(small, "JPEG", quality=85, exif=b"Exif\0\0" + exif_typed(9, -6)))
    both = b"II" + struct.pack("<HIH", 42, 8, 2) + struct.pack("<HHIHH", 0x112, 3, 1, 3, 0) + \
        struct.pack("<HHII", 0x112, 4, 1, 6) + b"\0" * 4
    accept("exif_two_tags.jpg", saved(small, "JPEG", quality=85, exif=b"Exif\0\0" + both))
    accept("exif_head_only_in_webp.webp", saved(small, "WEBP", quality=80, exif=b"Exif\0\0" + exif_typed(9, 8, True)))
    cut = exif_typed(5, 6)[:-4]  # the value lies behind the end
    accept("exif_value_cut_off.webp", saved(small, "WEBP", quality=80, exif=cut))


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
    make_foreign()
    make_bad_new()


def make_foreign():
    """Real files of formats that are not read, as far as Pillow writes them."""
    small = Image.fromarray(scene(16, 16))
    for name, fmt in (("icon.ico", "ICO"), ("jpeg2000.jp2", "JPEG2000")):
        reject(name, saved(small, fmt))
    reject("photo.psd", b"8BPS\0\1" + b"\0" * 30)
    reject("plain.ppm", b"P3\n1 1\n255\n1 2 3\n")
    reject("qoi.qoi", b"qoif\0\0\0\1\0\0\0\1\3\0\xfe\1\2\3" + b"\0" * 7 + b"\1")
    reject("apple.png", b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", b"P\0 \2") + chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\6\0\0\0"))
    camera = b"NIKON CORPORATION\0"
    raw = {254: (4, [1]), 271: (2, [camera[i:i + 1] for i in range(len(camera))]), 330: (4, [8])}
    reject("photo.nef", tiff({**tiff_tags(16, 16, 8, 3, 2, 16), **raw}, [scene(16, 16).tobytes()], True))
    reject("photo.dng", tiff(tiff_tags(16, 16, 8, 3, 2, 16, t50706=(1, [1, 4, 0, 0])), [scene(16, 16).tobytes()]))
    reject("named.arw", tiff(tiff_tags(16, 16, 8, 3, 2, 16), [scene(16, 16).tobytes()]))


def make_bad_new():
    """Damaged, cut off, or asking for more than there is: GIF, BMP, TIFF, HEIC."""
    rgb = scene(33, 29)
    index = rgb[..., 1]
    colours = pattern(256, 1, 6)[0]
    frame = gif_frame(index)
    good = gif((33, 29), [frame], colours)
    reject("gif_30000x30000.gif", gif((30000, 30000), [frame], colours))
    reject("gif_frame_65535.gif", gif((33, 29), [b"," + struct.pack("<HHHHB", 65000, 9, 65000, 9, 0) + frame[10:]], colours))
    reject("gif_no_frame.gif", gif((33, 29), [], colours))
    reject("gif_bad_code.gif", good[:-len(frame) - 1] + frame[:11] + b"\4\xff\xff\xff\xff" + frame[16:] + b";")
    reject("gif_code_size_20.gif", good.replace(frame, frame[:10] + b"\x14" + frame[11:]))
    reject("gif_only_head.gif", good[:13])
    reject("gif_half.gif", good[:len(good) // 2])
    rows = bmp_rows(index, 8)
    quads = np.concatenate([colours[:, ::-1], colours[:, :1] * 0], 1).astype(np.uint8).tobytes()
    reject("bmp_30000x30000.bmp", bmp(rows, 30000, 30000, 8, colours=quads))
    reject("bmp_width_0.bmp", bmp(rows, 0, 29, 8, colours=quads))
    reject("bmp_width_negative.bmp", bmp(rows, -33, 29, 8, colours=quads))
    reject("bmp_height_least.bmp", bmp(rows, 33, -2**31, 8, colours=quads))
    reject("bmp_half.bmp", bmp(rows[:300], 33, 29, 8, colours=quads))
    reject("bmp_3_bits.bmp", bmp(rows, 33, 29, 3, colours=quads))
    reject("bmp_jpeg_inside.bmp", bmp(rows, 33, 29, 0, 4))
    reject("bmp_split_mask.bmp", bmp(bmp_rows(index, 16), 33, 29, 16, 3, masks=struct.pack("<III", 0x5000, 0x3e0, 0x1f)))
    reject("bmp_rle8_cut.bmp", bmp(rle8(index)[:50], 33, 29, 8, 1, colours=quads))
    reject("bmp_pixels_behind_end.bmp", bmp(rows, 33, 29, 8, colours=quads, at=2**32 - 8))
    strip = [rgb.tobytes()]
    tags = tiff_tags(33, 29, 8, 3, 2, 29)
    reject("tiff_30000x30000.tif", tiff({**tags, 256: (3, [30000]), 257: (3, [30000])}, strip))
    reject("tiff_width_0.tif", tiff({**tags, 256: (3, [0])}, strip))
    reject("tiff_half.tif", tiff(tags, strip)[:1500])
    reject("tiff_strip_too_short.tif", tiff(tags, [strip[0][:900]]))
    reject("tiff_bad_lzw.tif", tiff({**tags, 259: (3, [5])}, [b"\xff\xff\xff\xff" * 9]))
    reject("tiff_float.tif", tiff({**tiff_tags(33, 29, 32, 1, 1, 29), 339: (3, [3])}, [np.ascontiguousarray(index.astype("<f4")).tobytes()]))
    reject("tiff_12_bits.tif", tiff(tiff_tags(33, 29, 12, 1, 1, 29), [b"\0" * 1500]))
    reject("tiff_huge_tiles.tif", tiff({**tags, 322: (4, [2**20]), 323: (4, [2**20])}, strip))
    reject("tiff_inks.tif", tiff(tiff_tags(33, 29, 8, 4, 5, 29, t332=(3, [2])), [b"\0" * 33 * 29 * 4]))
    reject("tiff_empty_directory.tif", b"II*\0\x08\0\0\0" + b"\0" * 6)
    reject("tiff_ifd_behind_end.tif", b"II*\0\xff\xff\xff\x7f" + b"\0" * 20)
    import pillow_heif
    pillow_heif.register_heif_opener()
    lossless = saved(Image.fromarray(scene(64, 64)), "HEIF", quality=-1, chroma=444, matrix_coefficients=0)
    one = [coded(lossless)]
    reject("heic_start.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    reject("heic_30000x30000.heic", heif(b"heic", one, (64, 64), (30000, 30000), 0))
    reject("heic_grid_30000x30000.heic", heif(b"heic", one * 4, (30000, 30000), (64, 64), 2))
    reject("heic_grid_missing_tiles.heic", heif(b"heic", one * 2, (128, 128), (64, 64), 3))
    # coded images that are larger than the file says
    flat = Image.new("RGB", (512, 512), (9, 99, 199))
    large = coded(saved(flat, "HEIF", quality=10))
    reject("heic_lies.heic", heif(b"heic", [large], (64, 64), (64, 64), 0))
    reject("heic_lies_width.heic", heif(b"heic", [large], (64, 512), (64, 512), 0))
    config = large[1][8:]
    sets, at = b"", 23  # the parameter sets move from hvcC into the item
    for _ in range(config[22]):
        n_nals, at = struct.unpack(">H", config[at + 1:at + 3])[0], at + 3
        for _ in range(n_nals):
            n = struct.unpack(">H", config[at:at + 2])[0]
            sets += struct.pack(">I", n) + config[at + 2:at + 2 + n]
            at += 2 + n
    reject("heic_lies_inside.heic", heif(b"heic", [(large[0], box(b"hvcC", config[:22] + b"\0"), sets + large[2])],
                                         (64, 64), (64, 64), 0))
    kind, config, data = coded(saved(flat, "AVIF", quality=10))
    reject("avif_lies.avif", heif(b"avif", [(kind, config, data)], (64, 64), (64, 64), 0, compatible=(b"mif1", b"avif")))
    reject("avif_lies_inside.avif", heif(b"avif", [(kind, box(b"av1C", config[8:12]), data)], (64, 64), (64, 64), 0,
                                         compatible=(b"mif1", b"avif")))
    reject("heic_half.heic", lossless[:len(lossless) // 2])


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
make_gif()
make_bmp()
make_tiff()
make_heif()
make_exif()
make_reject()
make_fit()
with open(os.path.join(OUT, "expected.txt"), "w") as f:
    f.write(f"# made by tools/reference/make_image_cases.py with Pillow {PIL.__version__}\n" + "\n".join(lines) + "\n")
print(len(lines), "lines")
