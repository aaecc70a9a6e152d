#!/usr/bin/env python3
"""Tests of the Python package with Python's own unittest; the last line is "N passed, N failed".

    tests/python/run.py [FILE.py | FILE.py::Class.test_name ...]      default: every test_*.py here

What needs numpy, Pillow or llguidance is skipped where they are not installed; FASTVLM_NO_SKIP=1 makes
that a failure."""
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


class Result(unittest.TextTestResult):
    n_passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.n_passed += 1


def main():
    sys.path.insert(0, HERE)
    names = sys.argv[1:] or sorted(n for n in os.listdir(HERE) if n.startswith("test_") and n.endswith(".py"))
    loader, suite = unittest.TestLoader(), unittest.TestSuite()
    for name in names:
        module, _, test = os.path.basename(name).partition("::")
        suite.addTests(loader.loadTestsFromName(".".join(filter(None, [module[:-len(".py")], test]))))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    if os.environ.get("FASTVLM_NO_SKIP"):
        bad += len(result.skipped)
    print(f"{result.n_passed} passed, {bad} failed")
    return 1 if bad or not result.n_passed else 0


if __name__ == "__main__":
    sys.exit(main())
