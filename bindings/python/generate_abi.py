#!/usr/bin/env python3
"""Writes src/fastvlm/_abi.py, the C interface for ctypes, from tools/check/abi/fastvlm.txt: the
recorded layout of include/fastvlm.h, which `make check` compares with what a compiler says.

    bindings/python/generate_abi.py [--check]

--check writes nothing and exits 1 when the file is not what would be written."""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
RECORD = os.path.join(ROOT, "tools", "check", "abi", "fastvlm.txt")
HEADER = os.path.join(ROOT, "include", "fastvlm.h")
OUTPUT = os.path.join(HERE, "src", "fastvlm", "_abi.py")

PLAIN = {
    "size_t": "c_size_t", "ptrdiff_t": "c_ssize_t", "int": "c_int", "bool": "c_bool", "float": "c_float",
    "double": "c_double", "int32_t": "c_int32", "uint8_t": "c_uint8", "uint32_t": "c_uint32", "uint64_t": "c_uint64",
    "char": "c_char",
}
HEAD = '''"""The C interface of libfastvlm for ctypes. Written by generate_abi.py from the recorded layout of
include/fastvlm.h; do not edit."""
from ctypes import (CFUNCTYPE, POINTER, Structure, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_size_t,
                    c_ssize_t, c_uint32, c_uint64, c_void_p)

VERSION = "{version}"
'''


def read_record(lines):
    """({struct: [(member, type)]}, {constant: (enum, value)}, {callback: prototype}, {function: prototype})"""
    structs, constants, callbacks, functions = {}, {}, {}, {}
    for line in lines:
        key, fact = line.rstrip("\n").split(": ", 1)
        if key.startswith("struct "):
            structs[key[len("struct "):]] = []
        elif re.match(r"fv_\w+\.\w+$", key):
            struct, member = key.split(".")
            structs[struct].append((member, fact.split(", ", 2)[2]))
        elif key.endswith(")"):
            name, group = key[:-1].split(" (")
            constants[name] = (group, int(fact))
        elif key.startswith("callback "):
            callbacks[key[len("callback "):]] = fact
        else:
            functions[key] = fact
    return structs, constants, callbacks, functions


class Types:
    def __init__(self, structs, constants, callbacks):
        self.structs, self.callbacks = structs, callbacks
        self.enums = {group for group, _ in constants.values()}

    def of(self, text, counted=False):
        """The ctypes expression for a type as written in C. counted: text with a length, no NUL at its end."""
        array = re.match(r"(.*?)\s*\[(\d+)\]$", text)
        if array:
            return f"{self.of(array.group(1))} * {array.group(2)}"
        words = re.sub(r"\b(const|struct)\b", " ", text)
        base, depth = words.replace("*", " ").strip(), words.count("*")
        if base in self.callbacks:
            return base
        if base == "char" and depth:
            inner, depth = "c_void_p" if counted else "c_char_p", depth - 1
        elif base in PLAIN:
            inner = PLAIN[base]
        elif base in self.enums:
            inner = "c_int"
        elif base in self.structs:
            inner = base
        elif depth:  # void, or an opaque struct
            inner, depth = "c_void_p", depth - 1
        else:
            sys.exit(f"generate_abi: type not understood: {text}")
        return "POINTER(" * depth + inner + ")" * depth

    def prototype(self, text, callback=False):
        """(result, [parameters]) of a prototype without names. What a callback is given of a struct is an
        address: structs hold callbacks, so they come later."""
        result, parameters = re.match(r"(.*?)\bfv_\w+\((.*)\)$", text).groups()
        parameters = [p.strip() for p in parameters.split(",")]
        parameters = [] if parameters == ["void"] else parameters
        if result.strip() == "void":
            value = "None"
        elif "*" in result and "char" not in result:
            value = "c_void_p"
        else:
            value = self.of(result, counted="size_t *" in parameters)
        types = [self.of(p) for p in parameters]
        return value, ["c_void_p" if callback and t[len("POINTER("):-1] in self.structs else t for t in types]


def written(structs, constants, callbacks, functions, version):
    types = Types(structs, constants, callbacks)
    out = [HEAD.format(version=version)]
    out += [f"{name} = {value}" for name, (_, value) in constants.items()]
    out.append("")
    for name in sorted(callbacks):
        value, parameters = types.prototype(callbacks[name], callback=True)
        out.append(f"{name} = CFUNCTYPE({', '.join([value] + parameters)})")
    for name, members in structs.items():
        out += ["", "", f"class {name}(Structure):", "    _fields_ = ["]
        for i, (member, type_) in enumerate(members):
            follows = members[i + 1][0] if i + 1 < len(members) else ""
            counted = re.match(r"n_(\w+_)?bytes$", follows) is not None
            out.append(f'        ("{member}", {types.of(type_, counted)}),')
        out.append("    ]")
    out += ["", "", "# name: (result, parameters)", "FUNCTIONS = {"]
    for name in sorted(functions):
        value, parameters = types.prototype(functions[name])
        out.append(f'    "{name}": ({value}, [{", ".join(parameters)}]),')
    return "\n".join(out + ["}", ""])


def main():
    with open(RECORD, encoding="utf-8") as f:
        record = read_record(f)
    with open(HEADER, encoding="utf-8") as f:
        version = re.search(r'^#define FV_VERSION +"([^"]*)"', f.read(), flags=re.M).group(1)
    text = written(*record, version)
    if sys.argv[1:] == ["--check"]:
        with open(OUTPUT, encoding="utf-8") as f:
            if f.read() == text:
                return 0
        print("bindings/python/src/fastvlm/_abi.py is not that of include/fastvlm.h; after tools/check/abi.py --update "
              "run bindings/python/generate_abi.py")
        return 1
    if sys.argv[1:]:
        sys.exit(__doc__)
    with open(OUTPUT, "w", encoding="utf-8") as f:
        f.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
