#!/usr/bin/env python3
"""Runs the notebooks of examples/notebooks; what each cell prints or returns must be what is stored.

    tests/python/notebooks.py [--update]      --update stores it

Needs nbclient and ipykernel besides the package."""
import pathlib
import sys

import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "notebooks"


def texts(cell):
    """What a reader sees of a cell's output, pictures left out. What is printed may come in any pieces."""
    found = []
    for output in cell.get("outputs", []):
        text = output.get("text") or output.get("data", {}).get("text/plain", output["output_type"])
        if found and output["output_type"] == "stream" and found[-1][0] == output["name"]:
            found[-1] = (output["name"], found[-1][1] + text)
        else:
            found.append((output.get("name", ""), text))
    return found


def main():
    n_good, paths = 0, sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        stored, book = nbformat.read(path, 4), nbformat.read(path, 4)
        NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
        for cell in book.cells:
            cell.metadata.clear()
        if sys.argv[1:] == ["--update"]:
            book.metadata = {"language_info": {"name": "python"},
                             "kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
            nbformat.write(book, path)
            continue
        wrong = [(a["source"], texts(a), texts(b)) for a, b in zip(stored.cells, book.cells) if texts(a) != texts(b)]
        n_good += not wrong
        for source, want, found in wrong:
            print(f"{path.name}: after\n{source}\n  stands {want}\n  came {found}")
    if sys.argv[1:] != ["--update"]:
        print(f"{n_good} passed, {len(paths) - n_good} failed")
        return 1 if n_good < len(paths) or not paths else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
