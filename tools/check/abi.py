#!/usr/bin/env python3
"""The binary interface of the public headers: layout of every struct, value of every constant,
prototype of every function, beside what tools/check/abi/ has on record.

    tools/check/abi.py [--update] [--include DIR] [--recorded DIR]

Exits 1 and names every member, constant and function that differs. --update records the headers as
they are: callers that were compiled before must then be compiled again, so say in CHANGELOG.md what
changed. On record is the LP64 data model (64-bit Linux and macOS); other machines compare nothing."""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
QUALIFIERS = {"const", "struct", "enum", "unsigned", "signed", "volatile", "restrict"}


def stripped(text):
    """Text of a header without comments, preprocessor lines and bodies of inline functions."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"//[^\n]*", " ", text)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", " ", text, flags=re.M)
    text = re.sub(r'extern\s+"C"\s*{', " ", text)
    text = re.sub(r"FV_DEFINE_DEFAULT\((\w+)\)", r"static inline void \1_default(\1 *o);", text)
    return re.sub(r"(static\s+inline\b[^{;]*)\{(?:[^{}]|\{[^{}]*\})*\}", r"\1;", text)


def declarations(text):
    """The header's declarations at file level, without their semicolons."""
    depth, start = 0, 0
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        depth = max(depth, 0)  # the brace of extern "C"
        if c == ";" and depth == 0:
            yield " ".join(text[start:i].split()).lstrip("} ")
            start = i + 1


def members_of(struct, body):
    """(name, type as written) of every member; pointers and arrays belong to the type."""
    if "{" in body:
        sys.exit(f"abi: {struct}: a struct or union inside a struct is not understood here")
    for line in body.split(";"):
        line = " ".join(line.split())
        if not line:
            continue
        function = re.match(r"(.*?)\(\s*\*\s*(\w+)\s*\)\s*(\(.*\))$", line)
        if function:
            yield function.group(2), f"{function.group(1).strip()} (*){function.group(3)}"
            continue
        declarators = line.split(",")
        first = re.match(r"(.*?[\s*])(\w+)\s*((?:\[[^\]]*\])*)$", declarators[0])
        if not first:
            sys.exit(f"abi: {struct}: member not understood: {line}")
        base = first.group(1).strip()
        yield first.group(2), base + first.group(3)
        base = base.rstrip("* ") if len(declarators) > 1 else base
        for more in declarators[1:]:
            match = re.match(r"\s*(\**)\s*(\w+)\s*((?:\[[^\]]*\])*)\s*$", more)
            if not match:
                sys.exit(f"abi: {struct}: member not understood: {line}")
            yield match.group(2), (base + " " + match.group(1)).strip() + match.group(3)


def prototype(text):
    """A prototype without the names of its parameters."""
    head, _, rest = text.partition("(")
    parameters, depth, part = [], 0, ""
    for c in rest.rsplit(")", 1)[0] + ",":
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parameters.append(part.strip())
            part = ""
        else:
            part += c
    plain = []
    for p in parameters:
        words = [w for w in re.findall(r"[A-Za-z_]\w*", p) if w not in QUALIFIERS]
        p = re.sub(r"\s*\b[A-Za-z_]\w*(\s*(?:\[[^\]]*\])?)$", r"\1", p) if len(words) > 1 else p
        plain.append(" ".join(p.replace("*", " * ").split()).replace("* *", "**"))
    return f"{' '.join(head.split())}({', '.join(plain)})"


class Header:
    def __init__(self, path):
        self.path = path
        self.structs, self.constants, self.functions = {}, [], {}
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for d in declarations(stripped(text)):
            self.take(d)
        # numbers among the macros: versions, limits
        for name in re.findall(r"^#define\s+(FV_[A-Z0-9_]+)[ \t]+\(?-?[0-9]", text, flags=re.M):
            if not name.startswith("FV_VERSION"):
                self.constants.append(("macros", name))

    def take(self, d):
        enum = re.match(r"(?:typedef )?enum (\w*) ?\{(.*)\} ?(\w*)$", d)
        struct = re.match(r"(?:typedef )?struct (\w*) ?\{(.*)\} ?(\w*)$", d)
        if enum:
            group = enum.group(3) or enum.group(1) or "constants"
            for value in enum.group(2).split(","):
                if value.strip():
                    self.constants.append((group, value.split("=")[0].strip()))
        elif struct:
            name = struct.group(3) or struct.group(1)
            self.structs[name] = list(members_of(name, struct.group(2)))
        elif d.startswith("FV_API"):
            text = d[len("FV_API"):].strip()
            name = re.search(r"(\w+)\s*\(", text)
            if not name:
                sys.exit(f"abi: {self.path}: not understood: {d}")
            self.functions[name.group(1)] = prototype(text)
        elif re.match(r"typedef [^{}()]*\b(\w+)\s*\(.*\)$", d):
            text = d[len("typedef "):]
            self.functions["callback " + re.search(r"(\w+)\s*\(", text).group(1)] = prototype(text)

    def program(self):
        """A C program that prints the layout, a line for each fact."""
        out = [f'#include "{os.path.basename(self.path)}"', "#include <stdio.h>", "int main(void)", "{"]
        for name, members in self.structs.items():
            out.append(f'    printf("struct {name}: %zu bytes\\n", sizeof({name}));')
            for member, type_ in members:
                out.append(f'    printf("{name}.{member}: offset %zu, %zu bytes, {type_}\\n", '
                           f"offsetof({name}, {member}), sizeof((({name} *)0)->{member}));")
        for group, name in self.constants:
            out.append(f'    printf("{name} ({group}): %lld\\n", (long long)({name}));')
        return "\n".join(out + ["    return 0;", "}", ""])

    def facts(self, include):
        with tempfile.TemporaryDirectory() as folder:
            source, program = os.path.join(folder, "abi.c"), os.path.join(folder, "abi")
            with open(source, "w", encoding="utf-8") as f:
                f.write(self.program())
            subprocess.run([os.environ.get("CC", "cc"), "-std=c17", "-w", "-I", include, "-o", program, source],
                           check=True)
            text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
        lines = text.splitlines()
        lines += [f"{name}: {self.functions[name]}" for name in sorted(self.functions)]
        return lines


def keyed(lines):
    return dict(line.split(": ", 1) for line in lines)


def differences(header, old, new):
    old, new = keyed(old), keyed(new)
    for key in old:
        if key not in new:
            yield f"{header}: {key} is gone (was {old[key]})"
        elif new[key] != old[key]:
            yield f"{header}: {key}: {new[key]}; on record: {old[key]}"
    for key in new:
        if key not in old:
            yield f"{header}: {key} is new: {new[key]}"


def main():
    arguments = sys.argv[1:]
    folders = {"--include": os.path.join(ROOT, "include"),
               "--recorded": os.path.join(ROOT, "tools", "check", "abi")}
    update = False
    while arguments:
        option = arguments.pop(0)
        if option == "--update":
            update = True
        elif option in folders and arguments:
            folders[option] = arguments.pop(0)
        else:
            sys.exit(__doc__)
    if sys.maxsize < 2**63 - 1 or os.name != "posix":
        print("abi: not compared: this machine is not LP64")
        return 0
    include, recorded = folders["--include"], folders["--recorded"]
    wrong, n_facts = [], 0
    names = sorted(n for n in os.listdir(include) if n.endswith(".h"))
    for name in names:
        facts = Header(os.path.join(include, name)).facts(include)
        n_facts += len(facts)
        path = os.path.join(recorded, name[:-2] + ".txt")
        if update:
            os.makedirs(recorded, exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write("\n".join(facts) + "\n")
            continue
        old = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                old = f.read().splitlines()
        wrong += differences(name, old, facts)
    known = {n[:-2] + ".txt" for n in names}
    for name in sorted(os.listdir(recorded)) if os.path.isdir(recorded) else []:
        if name not in known:
            if update:
                os.remove(os.path.join(recorded, name))
            else:
                wrong.append(f"{name} is on record, its header is gone")
    for line in wrong:
        print(line)
    if wrong:
        print("abi: meant? tools/check/abi.py --update records it; tell callers in CHANGELOG.md")
        return 1
    print(f"abi: {n_facts} facts of {len(names)} headers, {'recorded' if update else 'as recorded'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
