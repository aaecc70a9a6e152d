#!/usr/bin/env python3
"""What the Arm kernels' innermost loops can reach on processors that are not here, by LLVM's models of them.

    bench/arm_kernels.py [--mca llvm-mca-19] [--objdump aarch64-linux-gnu-objdump] [OBJECT_DIR]

For every function with multiply-accumulate instructions: its innermost loop that has most of them, how many products (MACs) and loads
one pass makes, and the cycles that llvm-mca says a pass takes when every load hits the L1 cache. "peak" is what the same kind of
instruction reaches by itself, every sum independent. Instructions that a processor's model lacks cost nothing in it (oryon-1: scvtf,
some of the moves). A model is not a measurement: no cache misses, no branch misses, steady state.
OBJECT_DIR (build/arm64-static) is a build tree with kernels/arm/*.o. Needs Debian's llvm-19 and binutils-aarch64-linux-gnu."""
import argparse
import glob
import os
import re
import subprocess

# Products of one instruction with 128-bit registers, by mnemonic and element.
MACS = {"fmla.4s": 4, "fmls.4s": 4, "fmla.8h": 8, "bfmmla": 16, "bfdot": 8, "bfmlalb": 4, "bfmlalt": 4,
        "udot": 16, "sdot": 16, "usdot": 16, "sudot": 16, "smmla": 32, "ummla": 32, "usmmla": 32,
        "smlal": 4, "smlal2": 4, "umlal": 4, "umlal2": 4, "mla": 4}
PROCESSORS = ["oryon-1", "neoverse-v2", "cortex-a720", "cortex-a510"]
LOADS = re.compile(r"^(ld|ldr|ldp|ldur)")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mca", default="llvm-mca-19")
    p.add_argument("--objdump", default="aarch64-linux-gnu-objdump")
    p.add_argument("build", nargs="?", default="build/arm64-static")
    return p.parse_args()


def functions(objdump, path):
    """name -> [(address, text, target or None)]"""
    out = subprocess.run([objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True).stdout
    name, body = None, {}
    for line in out.splitlines():
        head = re.match(r"^[0-9a-f]+ <(.+)>:$", line)
        if head:
            name = head.group(1)
            body[name] = []
            continue
        at = re.match(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$", line)
        if name and at:
            text = (at.group(2) + " " + at.group(3)).split("//")[0].strip()
            jump = re.match(r"^(?:b\.\w+|cbn?z|tbn?z|b)\s.*?([0-9a-f]+) <", text)
            body[name].append((int(at.group(1), 16), text, int(jump.group(1), 16) if jump else None))
    return body


def macs_of(text):
    word = text.split()[0]
    kind = re.search(r"\bv\d+\.(\d+[bhsd])", text)
    if word in ("fmla", "fmls"):
        return MACS.get(word + "." + (kind.group(1) if kind else ""), 0), word
    if word in ("smlal", "smlal2", "umlal", "umlal2", "mla") and kind and kind.group(1) == "8h":
        return 8, word
    return MACS.get(word, 0), word


def loops(code):
    """Innermost ones: [instructions]"""
    index = {address: i for i, (address, _, _) in enumerate(code)}
    found = [(index[t], i) for i, (a, _, t) in enumerate(code) if t is not None and t in index and t <= a]
    return [code[b:e + 1] for b, e in found
            if not any((b2, e2) != (b, e) and b <= b2 and e2 <= e for b2, e2 in found)]


def cycles(mca, cpu, lines, passes=200):
    text = "\n".join(lines) + "\n"
    out = subprocess.run([mca, "-march=aarch64", "-mcpu=" + cpu, "-mattr=+bf16,+i8mm,+dotprod,+fullfp16", f"-iterations={passes}",
                          "-skip-unsupported-instructions=lack-sched"],
                         input=text, capture_output=True, text=True)
    m = re.search(r"^Total Cycles:\s+(\d+)", out.stdout, re.M)
    return int(m.group(1)) / passes if m else None


def plain(code):
    """A loop as assembly that needs no addresses."""
    lines = []
    for _, text, target in code:
        word = text.split()[0]
        if target is not None:
            register = text.split()[1].rstrip(",")
            lines.append({"c": f"{word} {register}, top", "t": f"{word} {register}, {text.split(',')[1]}, top"}.get(word[0], f"{word} top")
                         if word[0] != "b" else f"{word} top")
        else:
            lines.append(re.sub(r"<.*?>", "", text))
    return ["top:"] + lines


def peak(mca, cpu, word, sample, cache={}):
    key = cpu, word
    if key not in cache:
        operands = sample.split(None, 1)[1]
        lines = [f"{word} " + re.sub(r"^v\d+", f"v{i}", re.sub(r"(?<=, )v\d+", "v31", operands)) for i in range(24)]
        took = cycles(mca, cpu, lines)
        cache[key] = took and 24 * macs_of(sample)[0] / took
    return cache[key]


def main():
    o = arguments()
    objects = sorted(glob.glob(os.path.join(o.build, "**", "kernels", "arm", "*.o"), recursive=True))
    if not objects:
        raise SystemExit(f"{o.build} holds no kernels/arm/*.o; make arm64 builds them")
    print("| file: function | products | MACs a pass | loads | MACs a load |" + "".join(f" {c} |" for c in PROCESSORS))
    print("|---|---|---|---|---|" + "---|" * len(PROCESSORS))
    for path in objects:
        for name, code in functions(o.objdump, path).items():
            best = max(loops(code), key=lambda l: sum(macs_of(t)[0] for _, t, _ in l), default=[])
            kinds = {}
            for _, text, _ in best:
                n, word = macs_of(text)
                if n:
                    kinds.setdefault(word, [0, text])[0] += n
            total = sum(n for n, _ in kinds.values())
            if total < 16:
                continue
            loads = sum(bool(LOADS.match(t)) for _, t, _ in best)
            word = max(kinds, key=lambda w: kinds[w][0])
            cells = []
            for cpu in PROCESSORS:
                took, top = cycles(o.mca, cpu, plain(best)), peak(o.mca, cpu, word, kinds[word][1])
                cells.append(f"{total / took:.1f}, {100 * total / took / top:.0f} %" if took and top else "-")
            print(f"| {os.path.basename(path)[:-4]}: {name} | {word} | {total} | {loads} | {total / max(loads, 1):.1f} | " +
                  " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
