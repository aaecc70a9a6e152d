#!/usr/bin/env python3
"""A second reader of packed files, written from docs/format.md alone:

    python3 read_packed.py FILE CHECKPOINT [EXPORTED]

Checks the layout, both hashes, the tokenizer's tables against its keys, and the weights against the
checkpoint's safetensors files: exactly for F32, F16 and BF16 of what was bf16, within half a step for
blocks and int8. EXPORTED is what `fastvlm export hf FILE -o EXPORTED --dtype f32` wrote: the values
that the engine takes the weights for must be the same ones, bit for bit. Prints what it looked at; any
disagreement is an exception. Standard library only."""
import glob, hashlib, json, math, struct, sys

SCALAR = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
BLOCK = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 8: (32, 34), 24: (1, 1), 26: (1, 4), 27: (1, 8)}


class Reader:
    def __init__(self, data):
        self.data, self.at, self.where = data, 0, {}

    def take(self, form):
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self):
        n = self.take("<Q")
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            of, n = self.take("<I"), self.take("<Q")
            return [self.value(of) for _ in range(n)]
        return self.take(SCALAR[kind])

    def file(self):
        assert self.data[:4] == b"GGUF"
        self.at = 4
        assert self.take("<I") == 3
        n_tensors, n_keys = self.take("<Q"), self.take("<Q")
        keys, tensors = {}, {}
        for _ in range(n_keys):
            key = self.string().decode()
            kind = self.take("<I")
            assert key not in keys
            self.where[key] = self.at
            keys[key] = self.value(kind)
        for _ in range(n_tensors):
            name = self.string().decode()
            ne = [self.take("<Q") for _ in range(self.take("<I"))]
            kind, offset = self.take("<I"), self.take("<Q")
            assert name not in tensors and len(name) < 64 and offset % 32 == 0
            tensors[name] = (ne[::-1], kind, offset)
        assert keys["general.alignment"] == 32
        self.at += -self.at % 32
        return keys, tensors, self.at


def values(kind, data):
    if kind == 0:
        return list(struct.unpack("<%df" % (len(data) // 4), data))
    if kind == 1:
        return list(struct.unpack("<%de" % (len(data) // 2), data))
    if kind == 30:
        return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
    if kind in (24, 26):
        return list(struct.unpack("<%d%s" % (len(data) // BLOCK[kind][1], "b" if kind == 24 else "i"), data))
    out = []
    for at in range(0, len(data), BLOCK[kind][1]):
        (d,) = struct.unpack_from("<e", data, at)
        if kind == 8:
            out += [d * q for q in struct.unpack_from("<32b", data, at + 2)]
        else:
            q = data[at + 2:at + 18]
            out += [d * ((b & 15) - 8) for b in q] + [d * ((b >> 4) - 8) for b in q]
    return out


def stand_ins():
    table, following = {}, 0x100
    for byte in range(256):
        if 0x21 <= byte <= 0x7e or 0xa1 <= byte <= 0xac or byte >= 0xae:
            table[chr(byte)] = byte
        else:
            table[chr(following)] = byte
            following += 1
    return table


def check_tokenizer(keys, tensor):
    tokens, types, merges = (keys["tokenizer.ggml." + k] for k in ("tokens", "token_type", "merges"))
    assert keys["tokenizer.ggml.model"] == b"gpt2" and keys["tokenizer.ggml.pre"] == b"qwen2" and len(tokens) == len(types)
    table, ids = stand_ins(), {}
    _, data = tensor("tokenizer.bytes")
    (n,), offsets = tensor("tokenizer.offsets")
    offsets = struct.unpack("<%di" % n, offsets)
    assert n == len(tokens) + 1 and offsets[0] == 0 and offsets[-1] == len(data)
    for i, (text, kind) in enumerate(zip(tokens, types)):
        want = bytes(table[c] for c in text.decode()) if kind == 1 else b"" if kind == 5 else text
        assert data[offsets[i]:offsets[i + 1]] == want, i
        if kind == 1:
            ids[text] = i
    (slots, _), rows = tensor("tokenizer.merges")
    rows = list(struct.iter_unpack("<iiii", rows))
    assert len(rows) == slots and slots & (slots - 1) == 0 and sum(r[0] >= 0 for r in rows) == len(merges)
    mask64, last = (1 << 64) - 1, -1
    for line in merges:
        a, b = line.split(b" ")
        left, right = ids[a], ids[b]
        key = left << 32 | right
        at = ((key * 0x9e3779b97f4a7c15 & mask64) >> 24 ^ (key * 0xd6e8feb86659fd93 & mask64) >> 40) & slots - 1
        while rows[at][:2] != (left, right):
            assert rows[at][0] >= 0, line
            at = at + 1 & slots - 1
        assert rows[at][3] == ids[a + b] and rows[at][2] > last
        last = rows[at][2]
    return len(tokens), len(merges)


class Checkpoint:
    """A directory in the layout llava_qwen2, whole or in shards, its vision blocks in inference form."""

    def __init__(self, path):
        self.header, self.data = {}, {}
        for file in sorted(glob.glob(path + "/*.safetensors")):
            with open(file, "rb") as f:
                (n,) = struct.unpack("<Q", f.read(8))
                header = json.loads(f.read(n))
                data = f.read()
            header.pop("__metadata__", None)
            self.header.update(header)
            self.data.update({name: data[slice(*entry["data_offsets"])] for name, entry in header.items()})
        if "model.vision_tower.vision_tower.model.patch_embed.0.reparam_conv.weight" not in self.header:
            sys.exit(path + ": not in the layout llava_qwen2 with fused blocks; give what `fastvlm export hf` makes of it with "
                     "--layout llava_qwen2")

    def get(self, name):
        entry = self.header.get(name)
        return entry and values({"F32": 0, "F16": 1, "BF16": 30}[entry["dtype"]], self.data[name])


def near(a, b):
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1e-6)


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def original_of(name):
    return name.replace("vision.", "model.vision_tower.vision_tower.model.", 1) if name.startswith("vision.") else name


def in_packed_order(name, shape, values, of):
    """A checkpoint's values, stored with shape `of`, in the order of the packed file."""
    if name == "vision.patch_embed.0.reparam_conv.weight":
        return [values[((o * 3 + i) * 9) + t] for o in range(shape[0]) for t in range(9) for i in range(3)]
    if len(shape) == 2 and of[1:2] == [1] and shape[0] in (9, 49) and shape[1] == of[0]:
        taps, n = shape
        return [values[o * taps + t] for t in range(taps) for o in range(n)]
    return values


def engine_value(c, name, shape):
    """What the engine's export has for a tensor of the packed file."""
    original = original_of(name)
    base, part = original.rsplit(".", 1)
    if base.endswith("convffn.conv"):  # folded: the BatchNorm left has only the bias to add
        original = base + (".bn.bias" if part == "bias" else ".conv.weight")
    return in_packed_order(name, shape, c.get(original), c.header[original]["shape"])


def int8_layer(name, tensor, kinds):
    """weight and bias of a layer in int8, as the f32 values that they stand for, and a weight's step."""
    base = name.rsplit(".", 1)[0]
    fine = base + ".zero16" in kinds  # w8a16: a zero for 16 bits
    names = ("weight", "scale", "bias", "inv", "zero16" if fine else "zero")
    part = {k: values(kinds[base + "." + k], tensor(base + "." + k)[1]) for k in names}
    shape, (zero,) = tensor(name)[0], part[names[-1]]
    if fine:
        assert zero % 256 == 0 and 0 <= zero <= 65280, name
        zero //= 256
    if kinds[base + ".bias"] == 26:  # a matrix [n, k]
        n, k = shape
        step = [(part["scale"][o], part["inv"][i]) for o in range(n) for i in range(k)]
        bias = [f32(part["scale"][o] * f32(part["bias"][o] + zero * sum(part["weight"][o * k:o * k + k]))) for o in range(n)]
    else:  # a depthwise convolution [taps, n] with one or two outputs of a channel
        (taps, n), mult = shape, shape[1] // len(part["inv"])
        step = [(part["scale"][o], part["inv"][o // mult]) for _ in range(taps) for o in range(n)]
        bias = part["bias"]
    got = [f32(f32(s * q) * i) for q, (s, i) in zip(part["weight"], step)]
    return got, bias, part["weight"], [s * i for s, i in step]


def check_int8(name, shape, layer, c, compensated):
    """Within half a step of the checkpoint's, but for what a row's clip cuts off; of a matrix whose
    columns make up for others' rounding, within a few."""
    got, _, q, step = layer
    original = original_of(name)
    base = original.rsplit(".", 1)[0]
    if base.endswith("convffn.conv"):
        bn = {k: c.get(base + ".bn." + k) for k in ("weight", "running_var")}
        scale = [g / math.sqrt(v + 1e-5) for g, v in zip(bn["weight"], bn["running_var"])]
        taps, n = shape
        w = c.get(base + ".conv.weight")
        want = [w[o * taps + t] * scale[o] for t in range(taps) for o in range(n)]
    else:
        want = in_packed_order(name, shape, c.get(original), c.header[original]["shape"])
    assert len(got) == len(want), name
    near_by = 6 if compensated and not base.endswith("convffn.conv") else 0.501
    for a, b, x, s in zip(got, want, q, step):
        assert -127 <= x <= 127, name
        assert abs(a - b) <= near_by * s or (abs(x) == 127 and abs(a) < abs(b) <= abs(a) / 0.79), (name, a, b, s)
    return "int8"


def check_weight(name, shape, kind, got, c, lost, compensated):
    """Returns what kind of weight it was. lost: fastvlm.sqnr; compensated: columns make up for others' rounding."""
    original = original_of(name)
    base = original.rsplit(".", 1)[0]
    if base.endswith("convffn.conv"):
        bn = {k: c.get(base + ".bn." + k) for k in ("weight", "bias", "running_mean", "running_var")}
        w = c.get(base + ".conv.weight")
        scale = [g / math.sqrt(v + 1e-5) for g, v in zip(bn["weight"], bn["running_var"])]
        if name.endswith(".bias"):
            assert all(near(x, b - m * s) for x, b, m, s in zip(got, bn["bias"], bn["running_mean"], scale)), name
        else:
            taps, n = shape
            assert all(near(got[t * n + o], w[o * taps + t] * scale[o]) for o in range(n) for t in range(taps)), name
        return "folded"
    want = c.get(original)
    assert want is not None and len(want) == len(got), name
    want = in_packed_order(name, shape, want, c.header[original]["shape"])
    if kind in (2, 8):
        for at in range(0, len(got), 32):
            most = max(abs(x) for x in want[at:at + 32])
            step = most * (1 / 127 if kind == 8 else 1 / 7)
            near_by = 6 if compensated and name.startswith("model.layers.") else 1.3
            assert all(abs(a - b) <= near_by * step + 1e-8 for a, b in zip(got[at:at + 32], want[at:at + 32])), name
        noise = sum((a - b) ** 2 for a, b in zip(got, want))
        assert 10 < lost < 80 and abs(10 * math.log10(sum(b * b for b in want) / noise) - lost) < 0.01, name
        return "blocks"
    if kind == 1:
        assert all(abs(a - b) <= abs(b) / 2048 + 2**-25 for a, b in zip(got, want)), name
    elif kind == 30:
        assert all(abs(a - b) <= abs(b) / 256 + 2**-133 for a, b in zip(got, want)), name
    else:
        assert got == want, name
    return "exact" if got == want else "rounded"


def main(path, checkpoint, exported=None):
    with open(path, "rb") as f:
        data = f.read()
    r = Reader(data)
    keys, tensors, data_at = r.file()
    assert keys["general.architecture"] == b"fastvlm" and keys["fastvlm.format_version"] == 1
    assert hashlib.sha256(data[data_at:]).hexdigest().encode() == keys["fastvlm.sha256"]
    own = r.where["fastvlm.sha256.header"] + 8
    assert hashlib.sha256(data[:own] + b"0" * 64 + data[own + 64:data_at]).hexdigest().encode() == keys["fastvlm.sha256.header"]
    end = 0
    order = sorted(tensors, key=lambda n: tensors[n][2])

    def tensor(name):
        shape, kind, offset = tensors[name]
        per, size = BLOCK[kind]
        n = math.prod(shape) // per * size
        assert shape[-1] % per == 0
        return shape, data[data_at + offset:data_at + offset + n]

    for name in order:
        assert tensors[name][2] >= end, name
        end = tensors[name][2] + len(tensor(name)[1])
    assert end <= len(data) - data_at and len(keys["fastvlm.sqnr"]) == len(tensors)
    n_tokens, n_merges = check_tokenizer(keys, tensor)
    c, engine, counts = Checkpoint(checkpoint), Checkpoint(exported) if exported else None, {}
    kinds, n_same = {name: t[1] for name, t in tensors.items()}, 0
    for name, lost in zip(order, keys["fastvlm.sqnr"]):
        base, part = name.rsplit(".", 1)
        in_int8 = kinds.get(base + ".weight") == 24
        if name.startswith("tokenizer.") or (in_int8 and part != "weight"):
            continue  # the latter are read with their weight
        shape, raw = tensor(name)
        compensated = keys.get("fastvlm.rounding.method", b"").startswith(b"compensated")
        if in_int8:
            layer = int8_layer(name, tensor, kinds)
            what, found = check_int8(name, shape, layer, c, keys.get("fastvlm.calibration.rounding") == b"compensated"), {name: (shape, layer[0]), base + ".bias": (shape[:1], layer[1])}
        else:
            got = values(kinds[name], raw)
            what, found = check_weight(name, shape, kinds[name], got, c, lost, compensated), {name: (shape, got)}
        counts[what] = counts.get(what, 0) + 1
        for n, (s, v) in found.items() if engine else ():
            try:
                says = engine_value(engine, n, s)
            except KeyError:  # a layer that the checkpoint has no bias for
                assert n.endswith(".bias") and in_int8 and not any(v), n
                continue
            assert v == says, n
            n_same += 1
    assert (keys["fastvlm.vision.precision"] == b"int8") == ("int8" in counts)
    print("%d keys, %d tensors, %d tokens, %d merges; %s%s" % (len(keys), len(tensors), n_tokens, n_merges,
          ", ".join("%d %s" % (n, k) for k, n in sorted(counts.items())), "; %d as the engine has them" % n_same if engine else ""))


main(*sys.argv[1:])
