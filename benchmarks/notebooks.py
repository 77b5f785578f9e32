"""What each notebook costs a reader: seconds and peak memory, cold, in a fresh kernel.

Run `python benchmarks/notebooks.py`, or `make bench` for all the benchmarks.
"""

from pathlib import Path

from experiments.notebooks import NotebookError, all_notebooks, execute, missing_data


def row(path: Path) -> str:
    if why := missing_data(path):
        return f"| {path.stem} | | {why} |"
    try:
        executed = execute(path)
    except NotebookError as error:
        return f"| {path.stem} | | failed: {str(error).splitlines()[0]} |"
    peak = "unknown" if executed.peak_mb is None else f"{executed.peak_mb:.0f}"
    return f"| {path.stem} | {executed.seconds:.1f} | {peak} |"


if __name__ == "__main__":
    print("| notebook | seconds | peak MB |\n| --- | ---: | ---: |")
    for notebook in all_notebooks():
        print(row(notebook), flush=True)
