#!/usr/bin/env python3
"""Multiply-accumulate and parameter counts of FastVLM, by layer kind.   count.py [--image 1024] [--json]

One MAC = one multiply + one add. Biases, norms, activations, softmax and residuals are not counted.
"""
import argparse
import collections
import json

from fastvithd import FASTVITHD

LLMS = {"0.5B": dict(h=896, i=4864, L=24, nh=14, kv=2, v=151936),
        "1.5B": dict(h=1536, i=8960, L=28, nh=12, kv=2, v=151936),
        "7B": dict(h=3584, i=18944, L=28, nh=28, kv=4, v=152064)}


def vision(size, v=FASTVITHD):
    """[(name, kind, out_h, out_w, macs, params)] in execution order."""
    rows = []
    d = v["embed_dims"]

    def conv(name, kind, ci, co, k, groups, s_out, bias=True):
        p = co * (ci // groups) * k * k
        rows.append((name, kind, s_out, s_out, p * s_out * s_out, p + (co if bias else 0)))

    s = size // 2
    conv("stem.0", "conv3x3 s2 dense", 3, d[0], 3, 1, s)
    s //= 2
    conv("stem.1", "depthwise 3x3", d[0], d[0], 3, d[0], s)
    conv("stem.2", "pointwise 1x1", d[0], d[0], 1, 1, s)
    idx, n = 0, len(d)
    for i in range(n):
        c, hid = d[i], int(d[i] * v["mlp_ratios"][i])
        if v["pos_embs_shapes"][i]:
            conv("network.%d cpe" % idx, "depthwise 7x7 (cpe)", c, c, 7, c, s)
            idx += 1
        for j in range(v["layers"][i]):
            b = "network.%d.%d" % (idx, j)
            if v["token_mixers"][i] == "attention":
                t = s * s
                rows.append((b + ".norm", "layernorm", s, s, 0, 2 * c))
                rows.append((b + ".qkv", "attention linear", s, s, t * 3 * c * c, 3 * c * c))
                rows.append((b + ".qk_av", "attention scores", s, s, 2 * t * t * c, 0))
                rows.append((b + ".proj", "attention linear", s, s, t * c * c, c * c + c))
                rows.append((b + ".layer_scale_1", "layer scale", s, s, 0, c))
            else:
                conv(b + ".token_mixer", "depthwise 3x3", c, c, 3, c, s)
            conv(b + ".ffn.dw", "depthwise 7x7 (ffn)", c, c, 7, c, s, bias=False)
            rows.append((b + ".ffn.bn", "batchnorm", s, s, 0, 2 * c))
            conv(b + ".ffn.fc1", "pointwise 1x1", c, hid, 1, 1, s)
            conv(b + ".ffn.fc2", "pointwise 1x1", hid, c, 1, 1, s)
            rows.append((b + ".layer_scale", "layer scale", s, s, 0, c))
        idx += 1
        if i < n - 1:
            s //= 2
            conv("network.%d.lkb" % idx, "depthwise 7x7 s2 (down)", c, d[i + 1], 7, c, s)
            conv("network.%d.pw" % idx, "pointwise 1x1", d[i + 1], d[i + 1], 1, 1, s)
            idx += 1
    e = int(d[-1] * v["cls_ratio"])
    conv("conv_exp", "depthwise 3x3", d[-1], e, 3, d[-1], s)
    r = int(e * 0.0625)
    conv("conv_exp.se.reduce", "squeeze-excite", e, r, 1, 1, 1)
    conv("conv_exp.se.expand", "squeeze-excite", r, e, 1, 1, 1)
    return rows


def llm(c, prefill, past=0):
    d = c["h"] // c["nh"]
    kv = d * c["kv"]
    per = dict(qo=2 * c["h"] * c["h"], kvp=2 * c["h"] * kv, mlp=3 * c["h"] * c["i"])
    lin = sum(per.values()) * c["L"] * prefill
    att = 2 * c["h"] * c["L"] * sum(past + t + 1 for t in range(prefill))
    head = c["h"] * c["v"]
    params = (sum(per.values()) + c["h"] + 2 * kv + 2 * c["h"]) * c["L"] + c["h"] + c["v"] * c["h"]
    return dict(linear=lin, attention=att, head_one_row=head, params_tied=params,
                params_untied=params + c["v"] * c["h"])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--image", type=int, default=1024)
    ap.add_argument("--json", action="store_true")
    a = ap.parse_args()
    rows = vision(a.image)
    kinds, stages, sp = collections.OrderedDict(), collections.OrderedDict(), collections.OrderedDict()
    for name, kind, h, w, m, p in rows:
        kinds.setdefault(kind, [0, 0, 0])
        kinds[kind][0] += m
        kinds[kind][1] += p
        kinds[kind][2] += 1
        st = ".".join(name.split(" ")[0].split(".")[:2 if name.startswith("network") else 1])
        key = name.split(".")[0] if name.startswith("stem") else ("network." + name.split(".")[1].split(" ")[0]
                                                                   if name.startswith("network") else "conv_exp")
        stages.setdefault(key, [0, 0, (h, w)])
        stages[key][0] += m
        stages[key][1] += p
    tm, tp = sum(r[4] for r in rows), sum(r[5] for r in rows)
    print("vision encoder at %d: %.3f GMAC, %d parameters (BN running stats and head.proj not counted)"
          % (a.image, tm / 1e9, tp))
    print("\nby kind")
    for k, (m, p, n) in sorted(kinds.items(), key=lambda q: -q[1][0]):
        print("  %-26s %4d layers  %9.3f GMAC  %5.2f %%  %10d params" % (k, n, m / 1e9, 100 * m / tm, p))
    print("\nby position")
    for k, (m, p, hw) in stages.items():
        print("  %-12s out %4dx%-4d %9.3f GMAC  %5.2f %%  %10d params" % (k, hw[0], hw[1], m / 1e9, 100 * m / tm, p))
    t = (a.image // 64) ** 2
    print("\nimage tokens", t)
    for n, c in LLMS.items():
        proj = t * (3072 * c["h"] + c["h"] * c["h"])
        pp = 3072 * c["h"] + c["h"] + c["h"] * c["h"] + c["h"]
        pre, one = llm(c, t + 24), llm(c, 1, t + 24)
        print("  %-5s projector %.3f GMAC %d params | prefill %d tokens: linear %.2f + attention %.3f GMAC, head %.3f"
              " GMAC/row | one token: %.3f GMAC | LLM params tied %d untied %d"
              % (n, proj / 1e9, pp, t + 24, pre["linear"] / 1e9, pre["attention"] / 1e9, pre["head_one_row"] / 1e9,
                 (one["linear"] + one["attention"] + one["head_one_row"]) / 1e9, pre["params_tied"],
                 pre["params_untied"]))
    if a.json:
        print(json.dumps([dict(zip(("name", "kind", "h", "w", "macs", "params"), r)) for r in rows]))


if __name__ == "__main__":
    main()
