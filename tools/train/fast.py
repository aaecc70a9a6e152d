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
