"""The demonstration model, in PyTorch, for training on a CPU (or a GPU when there is one).

Structure: FastViTHD encoder (five stages, RepMixer x3 then attention x2, FFN ratio 4) + two-layer projector + Qwen2
decoder with a tied head, at small widths. The stem and the downsampling convolutions carry a BatchNorm while training,
which export.py fuses; everything else is trained in the form in which it is stored.
Feature maps are channels-last throughout, so 1x1 convolutions are plain matrix products.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from fast import LIB, Attention, Rms, SwiGlu, dwconv, gelu

CONFIG = dict(
    image=256, layers=[1, 1, 4, 4, 2], embed_dims=[16, 32, 64, 128, 256],
    hidden=192, inter=256, dec_layers=4, heads=6, kv_heads=3, vocab=768,
)


def trunc(t, std):
    nn.init.trunc_normal_(t, std=std, a=-2 * std, b=2 * std)
    return t


def lin(x, w, b=None):
    """1x1 convolution of an NCHW tensor in channels-last memory."""
    y = F.linear(x.permute(0, 2, 3, 1), w, b)
    return y.permute(0, 3, 1, 2)


def softmax(a):
    with torch.autocast(a.device.type, enabled=False):
        return a.softmax(-1)


class Pw(nn.Module):
    def __init__(self, ci, co, bias=True, std=None):
        super().__init__()
        self.weight = nn.Parameter(trunc(torch.empty(co, ci), std or ci ** -0.5))
        self.bias = nn.Parameter(torch.zeros(co)) if bias else None

    def forward(self, x):
        return lin(x, self.weight, self.bias)


class Conv(nn.Module):
    """k x k convolution, grouped; ident adds an identity kernel at the start."""

    def __init__(self, ci, co, k, stride=1, groups=1, bias=True, ident=False):
        super().__init__()
        fan = ci // groups * k * k
        w = trunc(torch.empty(co, ci // groups, k, k), 0.02 if ident else (1.0 / fan) ** 0.5)
        if ident:
            w[:, 0, k // 2, k // 2] += 1.0
        if groups == ci and co == 2 * ci:                 # a pair of outputs starts as plus and minus the input
            w *= 0.25
            o = [k // 2] if stride == 1 else [k // 2, k // 2 + 1]
            for y in o:
                for x in o:
                    w[0::2, 0, y, x] += 0.8 / len(o)
                    w[1::2, 0, y, x] -= 0.8 / len(o)
        self.weight = nn.Parameter(w)
        self.bias = nn.Parameter(torch.zeros(co)) if bias else None
        self.a = (stride, k // 2, 1, groups)
        self.fast = groups == ci and ci % 16 == 0 and k in (3, 7)

    def forward(self, x):
        if LIB is not None and self.a[3] > 1 and self.fast and torch.is_autocast_enabled("cpu"):
            return dwconv(x, self.weight, self.bias, self.a[0])
        return F.conv2d(x, self.weight, self.bias, *self.a)


class ConvBN(nn.Module):
    """fused: the BatchNorm is already folded into the convolution (training continues from an exported model)."""

    def __init__(self, conv, co, fused=False):
        super().__init__()
        self.conv, self.bn = conv, None if fused else nn.BatchNorm2d(co, momentum=0.02)

    def forward(self, x):
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


class FFN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = ConvBN(Conv(c, c, 7, groups=c, bias=False), c)
        self.fc1, self.fc2 = Pw(c, 4 * c), Pw(4 * c, c)

    def forward(self, x):
        return self.fc2(gelu(self.fc1(self.conv(x))))


class RepMixerBlock(nn.Module):
    def __init__(self, c, ls):
        super().__init__()
        self.mix = Conv(c, c, 3, groups=c, ident=True)
        self.ffn = FFN(c)
        self.ls = nn.Parameter(torch.full((c, 1, 1), ls))

    def forward(self, x):
        x = self.mix(x)
        return x + self.ls.to(x.dtype) * self.ffn(x)


class AttentionBlock(nn.Module):
    def __init__(self, c, ls):
        super().__init__()
        self.ln = nn.LayerNorm(c, eps=1e-5)
        self.qkv = nn.Parameter(trunc(torch.empty(3 * c, c), c ** -0.5))
        self.proj = nn.Linear(c, c)
        trunc(self.proj.weight.data, c ** -0.5)
        nn.init.zeros_(self.proj.bias)
        self.ffn = FFN(c)
        self.ls1 = nn.Parameter(torch.full((c, 1, 1), ls))
        self.ls2 = nn.Parameter(torch.full((c, 1, 1), ls))

    def forward(self, x):
        b, c, h, w = x.shape
        t = self.ln(x.permute(0, 2, 3, 1))
        q, k, v = F.linear(t, self.qkv).view(b, h * w, 3, c // 32, 32).permute(2, 0, 3, 1, 4)
        a = softmax(torch.matmul(q * 32 ** -0.5, k.transpose(2, 3)))
        t = torch.matmul(a, v).transpose(1, 2).reshape(b, h, w, c)
        x = x + self.ls1.to(x.dtype) * self.proj(t).permute(0, 3, 1, 2)
        return x + self.ls2.to(x.dtype) * self.ffn(x)


class Down(nn.Module):
    def __init__(self, ci, co, fused):
        super().__init__()
        self.lk = ConvBN(Conv(ci, co, 7, 2, ci, bias=fused), co, fused)
        self.pw = ConvBN(Pw(co, co, bias=fused), co, fused)

    def forward(self, x):
        return gelu(self.pw(gelu(self.lk(x))))


class Vision(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, n, f = c["embed_dims"], c["layers"], c.get("fused", False)
        self.stem = nn.ModuleList([ConvBN(Conv(3, d[0], 3, 2, bias=f), d[0], f),
                                   ConvBN(Conv(d[0], d[0], 3, 2, d[0], bias=f), d[0], f),
                                   ConvBN(Pw(d[0], d[0], bias=f), d[0], f)])
        net = []
        for i in range(5):
            att = i >= 3
            if att:
                net.append(Conv(d[i], d[i], 7, groups=d[i], ident=True))
            net.append(nn.Sequential(*[(AttentionBlock if att else RepMixerBlock)(d[i], 0.3) for _ in range(n[i])]))
            if i < 4:
                net.append(Down(d[i], d[i + 1], f))
        self.net = nn.ModuleList(net)
        e = 2 * d[-1]
        self.exp = ConvBN(Conv(d[-1], e, 3, groups=d[-1], bias=f), e, f)
        self.se1, self.se2 = nn.Linear(e, e // 16), nn.Linear(e // 16, e)

    def forward(self, x):
        for s in self.stem:
            x = gelu(s(x))
        taps = []
        for i, m in enumerate(self.net):
            x = m(x)
            if i in (4, 7):                               # ends of stages 3 and 4
                taps.append(x)
        x = self.exp(x)
        g = torch.sigmoid(self.se2(F.relu(self.se1(x.mean((2, 3))))))
        x = gelu(x * g[:, :, None, None])
        x = x.flatten(2).transpose(1, 2)
        self.taps = taps + [x]
        return x


class Aux(nn.Module):
    """Heads for training only: what is printed or drawn at each cell of stage 3, and the spelling of a word at the cell of
    stage 4 and of the output that holds its centre, with the shapes, colours and sizes there, and whether the one object
    there is outlined. Never exported."""

    def __init__(self, c, n_char, n_slot, n_shape, n_color, n_size):
        super().__init__()
        d = c["embed_dims"]
        self.n = (n_char, n_shape, n_color)
        self.slot = (n_slot, n_char)
        self.cell = nn.Linear(d[2], sum(self.n))
        many = n_shape + n_color + n_size - 2
        self.w4, self.w5 = nn.Linear(d[3], n_slot * n_char), nn.Linear(2 * d[4], n_slot * n_char)
        self.o4, self.o5 = nn.Linear(d[3], many), nn.Linear(2 * d[4], many)
        self.p5, self.p6 = nn.Linear(2 * d[4], 2), nn.Linear(c["hidden"], 2)
        self.w6, self.o6 = nn.Linear(c["hidden"], n_slot * n_char), nn.Linear(c["hidden"], many)
        self.l3, self.l4 = nn.Linear(d[2], 1), nn.Linear(d[3], 1)
        self.l5, self.l6 = nn.Linear(2 * d[4], 1), nn.Linear(c["hidden"], 1)

    def forward(self, taps, y, device):
        t3, t4, t5, t6 = taps
        lg = self.cell(t3.permute(0, 2, 3, 1)).float().flatten(0, 2).split(self.n, -1)
        cells = y["cells"].to(device).flatten(0, 2)
        total = 0.0
        for k, l in enumerate(lg):
            tgt = cells[:, k]
            w = torch.where(tgt == 0, 0.1, 1.0)
            total = total + (F.cross_entropy(l, tgt, reduction="none") * w).sum() / w.sum()
        for head, t, key in ((self.l3, t3.permute(0, 2, 3, 1).flatten(0, 2), "16"), (self.l4, t4.permute(0, 2, 3, 1).flatten(0, 2), "8"),
                             (self.l5, t5.flatten(0, 1), "4"), (self.l6, t6.flatten(0, 1), "4")):
            line = y["line" + key].to(device).flatten().float()
            w = torch.where(line > 0, 2.5, 1.0) * (line >= 0)
            bce = F.binary_cross_entropy_with_logits(head(t).float().flatten(), line.clamp_min(0), reduction="none")
            total = total + (bce * w).sum() / w.sum().clamp_min(8)
        ns, nc = self.slot
        at, xy = y["pos4at"].to(device), y["pos4"].to(device)
        if len(at):
            for head, t in ((self.p5, t5), (self.p6, t6)):
                total = total + 3 * F.smooth_l1_loss(head(t.flatten(0, 1)[at]).float(), xy, beta=0.1)
        for objs, head, t, key in ((self.o4, self.w4, t4.permute(0, 2, 3, 1).flatten(0, 2), "8"),
                                   (self.o5, self.w5, t5.flatten(0, 1), "4"),
                                   (self.o6, self.w6, t6.flatten(0, 1), "4")):
            has = y["obj" + key].to(device).flatten(0, 1)
            bce = F.binary_cross_entropy_with_logits(objs(t).float(), has, reduction="sum")
            total = total + 0.7 * bce / has.sum().clamp_min(8)
            at, sl = y["word" + key + "at"].to(device), y["word" + key].to(device)
            if len(at):
                total = total + F.cross_entropy(head(t[at]).float().view(-1, nc), sl.flatten(), ignore_index=-1)
        return total


def rope_tables(pos, d, theta=1e6):
    inv = 1.0 / (theta ** (torch.arange(0, d, 2, dtype=torch.int64).float() / d)).to(pos.device)
    a = pos.float()[..., None] * inv
    a = torch.cat([a, a], -1)
    return a.cos(), a.sin()


def rot(x, cos, sin):
    h = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., h:], x[..., :h]], -1) * sin


class RMS(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        if LIB is not None and torch.is_autocast_enabled("cpu"):
            return Rms.apply(x, self.weight)
        return F.rms_norm(x.float(), x.shape[-1:], self.weight, 1e-6).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, c, n_layers):
        super().__init__()
        h, it, d = c["hidden"], c["inter"], c["hidden"] // c["heads"]
        self.nh, self.nkv, self.d = c["heads"], c["kv_heads"], d
        self.n1, self.n2 = RMS(h), RMS(h)
        self.q = nn.Linear(h, h)
        self.k = nn.Linear(h, d * self.nkv)
        self.v = nn.Linear(h, d * self.nkv)
        self.o = nn.Linear(h, h, bias=False)
        self.gate = nn.Linear(h, it, bias=False)
        self.up = nn.Linear(h, it, bias=False)
        self.down = nn.Linear(it, h, bias=False)
        for m in (self.q, self.k, self.v, self.gate, self.up):
            trunc(m.weight.data, h ** -0.5)
        for m in (self.q, self.k, self.v):
            nn.init.zeros_(m.bias)
        trunc(self.o.weight.data, h ** -0.5 / (2 * n_layers) ** 0.5)
        trunc(self.down.weight.data, it ** -0.5 / (2 * n_layers) ** 0.5)

    def forward(self, x, cos, sin, mask, past=None, only=None):
        """only [b, m]: the positions whose output is wanted (mask is [b, 1, m, n] then)."""
        b, n, _ = x.shape
        h = self.n1(x)
        if isinstance(mask, dict):                        # kernels.c does the rotation and the masking
            if only is None:
                hq = h
            else:
                take = lambda t: t.gather(1, only[:, :, None].expand(-1, -1, t.shape[-1]))
                x, hq = take(x), take(h)
            o = Attention.apply(self.q(hq), self.k(h), self.v(h), mask, only, self.nh, self.nkv)
            x = x + self.o(o)
            h = self.n2(x)
            return x + self.down(SwiGlu.apply(self.gate(h), self.up(h)))
        if only is None:
            hq, qc, qs = h, cos, sin
        else:
            take = lambda t: t.gather(1, only[:, :, None].expand(-1, -1, t.shape[-1]))
            x, hq, qc, qs = take(x), take(h), take(cos[:, 0])[:, None], take(sin[:, 0])[:, None]
        m = hq.shape[1]
        q = rot(self.q(hq).view(b, m, self.nh, self.d).transpose(1, 2), qc, qs)
        k = rot(self.k(h).view(b, n, self.nkv, self.d).transpose(1, 2), cos, sin)
        v = self.v(h).view(b, n, self.nkv, self.d).transpose(1, 2)
        if past is not None:
            if len(past):
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            past[:] = [k, v]
        g = self.nh // self.nkv
        k, v = k.repeat_interleave(g, 1), v.repeat_interleave(g, 1)
        a = torch.matmul(q.to(v.dtype) * self.d ** -0.5, k.to(v.dtype).transpose(2, 3))
        o = torch.matmul(softmax(a if mask is None else a + mask.to(a.dtype)), v)
        x = x + self.o(o.transpose(1, 2).reshape(b, m, -1))
        h = self.n2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        h = c["hidden"]
        self.vision = Vision(c)
        self.p0, self.p2 = nn.Linear(2 * c["embed_dims"][-1], h), nn.Linear(h, h)
        for m in (self.p0, self.p2):
            trunc(m.weight.data, m.weight.shape[1] ** -0.5)
            nn.init.zeros_(m.bias)
        self.embed = nn.Parameter(trunc(torch.empty(c["vocab"], h), h ** -0.5))
        self.layers = nn.ModuleList([Layer(c, c["dec_layers"]) for _ in range(c["dec_layers"])])
        self.norm = RMS(h)

    def project(self, features):
        return self.p2(gelu(self.p0(features)))

    def image_tokens(self, px):
        x = self.project(self.vision(px))
        self.vision.taps.append(x)
        return x

    def decode(self, x, pos, mask, past=None, only=None):
        """x [b, n, h], pos [b, n], mask additive [b, 1, n, m] -> normed hidden; only [b, m]: of those positions."""
        cos, sin = None, None
        if not isinstance(mask, dict):
            cos, sin = rope_tables(pos, self.c["hidden"] // self.c["heads"])
            cos, sin = cos[:, None], sin[:, None]
        for i, l in enumerate(self.layers):
            if only is not None and i == len(self.layers) - 1:
                if not isinstance(mask, dict):
                    mask = mask.gather(2, only[:, None, :, None].expand(-1, -1, -1, mask.shape[-1]))
                x = l(x, cos, sin, mask, None, only)
            else:
                x = l(x, cos, sin, mask, None if past is None else past[i])
        return self.norm(x)

    def logits(self, h):
        return F.linear(h, self.embed)
