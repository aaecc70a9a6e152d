"""python -m fastvlm: the program, with the same arguments."""
import os
import pathlib
import sys


def main() -> None:
    program = str(pathlib.Path(__file__).parent / "bin" / "fastvlm")
    if not os.access(program, os.X_OK):
        sys.exit(f"fastvlm: {program} is not there: this package was built without the program")
    os.execv(program, ["fastvlm"] + sys.argv[1:])


if __name__ == "__main__":
    main()
