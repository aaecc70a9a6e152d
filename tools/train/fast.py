"""kernels.c as autograd functions; None where it cannot be built (then PyTorch's own operators are used)."""
import ctypes
import os
import subprocess
import tempfile

import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def _load():
    if torch.cuda.is_available() or os.environ.get("NO_FAST"):
        return None
    try:
        if "avx512bw" not in open("/proc/cpuinfo").read():
            return None
        d = os.path.join(tempfile.gettempdir(), "fastvlm-train-%d" % os.getuid())
        os.makedirs(d, exist_ok=True)
        src = os.path.join(HERE, "kernels.c")
        so = os.path.join(d, "kernels-%d.so" % int(os.stat(src).st_mtime * 1000))
        if not os.path.exists(so):
            tmp = "%s.%d" % (so, os.getpid())
            subprocess.check_call(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", tmp, src])
            os.replace(tmp, so)
        return ctypes.CDLL(so)
    except Exception as e:
        print("no fast kernels:", e)
        return None


LIB = _load()
P = lambda t: ctypes.c_void_p(None if t is None else t.data_ptr())


def nhwc(x):
    """bf16 NCHW tensor in channels-last memory."""
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


class DwConv(torch.autograd.Function):
    """Depthwise; weight [c,1,k,k]."""

    @staticmethod
    def forward(ctx, x, w, b, stride):
        x = nhwc(x)
        n, c, h, wd = x.shape
        k = w.shape[-1]
        wt = w[:, 0].permute(1, 2, 0).contiguous().float()
        y = torch.empty((n, c, h // stride, wd // stride), dtype=torch.bfloat16, memory_format=torch.channels_last)
        LIB.dw_forward(P(x), P(wt), P(b), P(y), n, h, wd, c, k, stride)
        ctx.save_for_backward(x, wt)
        ctx.a = (stride, k, b is not None)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, wt = ctx.saved_tensors
        stride, k, bias = ctx.a
        n, c, h, wd = x.shape
        dy = nhwc(dy)
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dw = torch.empty_like(wt)
        db = torch.empty(c) if bias else None
        LIB.dw_backward(P(x), P(wt), P(dy), P(dx), P(dw), P(db), n, h, wd, c, k, stride)
        return dx, dw.permute(2, 0, 1)[:, None], db, None


class Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.empty_like(x)
        LIB.gelu_forward(P(x), P(y), ctypes.c_long(x.numel()))
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, = ctx.saved_tensors
        if dy.stride() != x.stride() or dy.dtype != x.dtype:
            dy = torch.empty_like(x).copy_(dy)
        dx = torch.empty_like(x)
        LIB.gelu_backward(P(x), P(dy), P(dx), ctypes.c_long(x.numel()))
        return dx


def gelu(x):
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    if LIB is None or x.dtype != torch.bfloat16 or not dense:
        return torch.nn.functional.gelu(x)
    return Gelu.apply(x)


def dwconv(x, w, b, stride):
    """x [n,c,h,w], w [c*mult,1,k,k]; output channel o reads input o // mult."""
    m = w.shape[0] // x.shape[1]
    if m == 1:
        return DwConv.apply(x, w, b, stride)
    x = nhwc(x)
    y = [DwConv.apply(x, w[i::m], None if b is None else b[i::m].contiguous(), stride).permute(0, 2, 3, 1) for i in range(m)]
    n, h, wd, c = y[0].shape
    return torch.stack(y, -1).view(n, h, wd, c * m).permute(0, 3, 1, 2)


class Attention(torch.autograd.Function):
    """q [b,m,H*32], k, v [b,n,KV*32] bf16; meta: see data.attention_meta."""

    @staticmethod
    def forward(ctx, q, k, v, meta, only, H, KV):
        q, k, v = (t.contiguous() for t in (q, k, v))
        B, n = k.shape[:2]
        m = q.shape[1]
        qi = meta["rows"] if only is None else meta["only"]
        o = torch.empty_like(q)
        lse = torch.empty(B, m, H)
        LIB.attn_forward(P(q), P(k), P(v), P(qi), P(meta["start"]), P(meta["seen"]), P(meta["pos"]), P(meta["cos"]), P(meta["sin"]), P(o), P(lse), B, m, n, H, KV)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.a = (meta, qi, H, KV)
        return o

    @staticmethod
    def backward(ctx, do):
        q, k, v, o, lse = ctx.saved_tensors
        meta, qi, H, KV = ctx.a
        B, n = k.shape[:2]
        do = do.to(torch.bfloat16).contiguous()
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        LIB.attn_backward(P(q), P(k), P(v), P(qi), P(meta["start"]), P(meta["seen"]), P(meta["pos"]), P(meta["cos"]), P(meta["sin"]), P(o), P(lse), P(do), P(dq), P(dk), P(dv),
                          B, q.shape[1], n, H, KV)
        return dq, dk, dv, None, None, None, None


class Rms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        x = x.float().contiguous()
        h = x.shape[-1]
        n = x.numel() // h
        y, rs = torch.empty(x.shape, dtype=torch.bfloat16), torch.empty(n)
        LIB.rms_forward(P(x), P(w), P(y), P(rs), n, h)
        ctx.save_for_backward(x, w, rs)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, w, rs = ctx.saved_tensors
        dy = dy.to(torch.bfloat16).contiguous()
        dx, dw = torch.empty_like(x), torch.zeros_like(w)
        LIB.rms_backward(P(x), P(w), P(rs), P(dy), P(dx), P(dw), rs.numel(), x.shape[-1])
        return dx, dw


class SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, u):
        g, u = g.contiguous(), u.contiguous()
        y = torch.empty_like(g)
        LIB.swiglu_forward(P(g), P(u), P(y), ctypes.c_long(g.numel()))
        ctx.save_for_backward(g, u)
        return y

    @staticmethod
    def backward(ctx, dy):
        g, u = ctx.saved_tensors
        dy = dy.to(torch.bfloat16).contiguous()
        dg, du = torch.empty_like(g), torch.empty_like(u)
        LIB.swiglu_backward(P(g), P(u), P(dy), P(dg), P(du), ctypes.c_long(g.numel()))
        return dg, du
