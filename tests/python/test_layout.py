"""The C interface as Python sees it against the recorded one, and that against the header: needs
Python alone, and a C compiler for the last step."""
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PACKAGE = os.path.join(ROOT, "bindings", "python")


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


abi = load("fastvlm_abi", os.path.join(PACKAGE, "src", "fastvlm", "_abi.py"))
generate = load("generate_abi", os.path.join(PACKAGE, "generate_abi.py"))
with open(generate.RECORD, encoding="utf-8") as record:
    LINES = record.read().splitlines()


class Layout(unittest.TestCase):
    def test_generated_file_is_current(self):
        done = subprocess.run([sys.executable, "-B", generate.__file__, "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_structs(self):
        """What ctypes makes of the fields, not what the generator wrote: every offset and size."""
        found = []
        for name in generate.read_record(LINES)[0]:
            struct = getattr(abi, name)
            found.append(f"struct {name}: {ctypes.sizeof(struct)} bytes")
            found += [f"{name}.{member}: offset {getattr(struct, member).offset}, {getattr(struct, member).size} bytes"
                      for member, _ in struct._fields_]
        wanted = [line if line.startswith("struct ") else ", ".join(line.split(", ")[:2])
                  for line in LINES if line.split(": ")[1].startswith("offset") or line.startswith("struct ")]
        self.assertEqual(found, wanted)

    def test_constants(self):
        constants = generate.read_record(LINES)[1]
        self.assertEqual({n: v for n, v in vars(abi).items() if n.startswith("FV_")},
                         {n: v for n, (_, v) in constants.items()})

    def test_functions(self):
        functions = generate.read_record(LINES)[3]
        self.assertEqual(sorted(abi.FUNCTIONS), sorted(functions))
        for name, (_, parameters) in abi.FUNCTIONS.items():
            wanted = functions[name].split("(")[1].count(",") + 1 if "(void)" not in functions[name] else 0
            self.assertEqual(len(parameters), wanted, name)

    @unittest.skipUnless(shutil.which(os.environ.get("CC", "cc")), "no C compiler")
    def test_record_is_that_of_the_header(self):
        check = os.path.join(ROOT, "tools", "check", "abi.py")
        done = subprocess.run([sys.executable, "-B", check], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_changed_struct_is_seen(self):
        """A member that moves in C and not in Python."""
        structs = generate.read_record(LINES + ["fv_stats.more: offset 84, 4 bytes, int"])[0]
        self.assertNotEqual([m for m, _ in structs["fv_stats"]], [m for m, _ in abi.fv_stats._fields_])
        with self.assertRaises(SystemExit):
            generate.Types({}, {}, {}).of("fv_unknown")


if __name__ == "__main__":
    unittest.main()
