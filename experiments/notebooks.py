"""Execute notebooks in fresh kernels, store their outputs, or compare fresh outputs with the stored ones.

* `python -m experiments.notebooks` executes and stores every notebook,
* `python -m experiments.notebooks notebooks/01_*.ipynb` those it is given,
* `python -m experiments.notebooks --check` compares and writes nothing.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from experiments import write_whole
from utils.data import isbi2012_folder

ROOT = Path(__file__).resolve().parent.parent

# Three times what the slowest takes on two busy cores: a limit is to find what hangs, not what is slow.
CELL_SECONDS = 900
NOTEBOOK_SECONDS = 1800
# At the peak, above what `import torch` takes: 230 MB with the CPU build of Binder and conda, where 1 GB is
# promised; the CUDA build takes 300 MB more by itself.
ABOVE_TORCH_MB = 550

ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
EMBEDDED_IMAGE = re.compile(r"data:image/[^\"')\s]+")
WIDGET = "application/vnd.jupyter.widget-view+json"
NUMBER = re.compile(r"[-+\u2212]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


class NotebookError(Exception):
    """A notebook did not run to its end."""


@dataclass(frozen=True)
class Executed:
    notebook: NotebookNode
    seconds: float  # from starting the kernel to the last cell
    peak_mb: float | None  # the kernel's peak of resident memory; None where the system does not tell


def all_notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def missing_data(path: Path) -> str | None:
    """Why this machine cannot run the notebook at `path`; None if it can."""
    folder = isbi2012_folder()
    if not path.stem.startswith("08") or (folder and folder.is_dir()):
        return None
    return "the ISBI 2012 micrographs are not here: name their folder in ISBI2012_DIR, or download them"


# --- executing -------------------------------------------------------------------------------------------


def peak_memory_mb(pid: int) -> float | None:
    """The peak of resident memory of a running process, which Linux alone tells."""
    status = Path(f"/proc/{pid}/status")
    return peak_in(status.read_text()) if status.exists() else None


def peak_in(status: str) -> float | None:
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(peak[1]) / 1024 if peak else None


@cache
def torch_mb() -> float:
    """What `import torch` alone takes in this environment, at its peak, on Linux."""
    code = "import torch; print(open('/proc/self/status').read())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return peak_in(found.stdout)


def execute(path: Path) -> Executed:
    """Run the notebook in a fresh kernel, in its own folder; the file stays as it is."""
    notebook = nbformat.read(path, as_version=4)
    running, peak_mb = notebook.cells[0], None

    def on_start(cell, cell_index):
        nonlocal running
        running = cell

    def on_executed(cell, cell_index, execute_reply):
        nonlocal peak_mb  # asked after every cell, because the kernel is gone when the notebook is complete
        peak_mb = peak_memory_mb(client.km.provisioner.pid)

    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # the kernel's own messages, not the notebook's
        record_timing=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
        on_cell_execute=on_start,
        on_cell_executed=on_executed,
    )
    begin = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise NotebookError(f"{name(notebook, running)}: {reason(error, running)}") from error
    return Executed(clean(notebook), time.perf_counter() - begin, peak_mb)


def name(notebook: NotebookNode, cell: NotebookNode) -> str:
    """A cell as a reader finds it: its number among the code cells, and its first line."""
    number = 1 + [each for each in notebook.cells if each.cell_type == "code"].index(cell)
    return f"code cell {number} ({cell.source.strip().splitlines()[0][:60]})"


def reason(error: Exception, cell: NotebookNode) -> str:
    if isinstance(error, CellTimeoutError):
        return f"ran longer than {CELL_SECONDS} s; shorten it, or load stored weights"
    if isinstance(error, DeadKernelError):
        return "the kernel died, most likely for want of memory; make the cell use less"
    traceback = [line for output in cell.outputs for line in output.get("traceback", [])]
    return ANSI_COLOUR.sub("", "\n".join([f"{error.ename}: {error.evalue}", *traceback]))


# --- storing ---------------------------------------------------------------------------------------------


def last_state(text: str) -> str:
    """Text as a terminal shows it in the end: what follows the last carriage return of every line."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def clean_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join what the kernel sent piecemeal; keep the last state of every progress bar only."""
    joined: list[NotebookNode] = []
    for output in outputs:
        previous = joined[-1] if joined else None
        if previous and output.output_type == "stream" and output.name == previous.get("name"):
            previous.text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = last_state(output.text)
    return [output for output in joined if keeps_something(output)]


def keeps_something(output: NotebookNode) -> bool:
    """Neither blank nor a widget, which is nothing without its kernel; its picture is another output."""
    return (
        output.text.strip() != "" if output.output_type == "stream" else WIDGET not in output.get("data", {})
    )


def clean(notebook: NotebookNode) -> NotebookNode:
    """Drop what changes from run to run and from machine to machine, and what only a live kernel can use."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = NotebookNode(
        name="python3", display_name="Python 3 (ipykernel)", language="python"
    )
    notebook.metadata.language_info = NotebookNode(
        name="python", file_extension=".py", mimetype="text/x-python", pygments_lexer="ipython3"
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times at which the cell ran
        if cell.cell_type == "code":
            cell.outputs = clean_outputs(cell.outputs)
    return notebook


def store(notebook: NotebookNode, path: Path) -> None:
    """Write the cleaned notebook; whoever reads at the same time sees the old file or the new one, whole."""
    write_whole(path, nbformat.writes(clean(notebook)) + "\n")


# --- judging ---------------------------------------------------------------------------------------------


def faults(
    executed: Executed, limit_mb: float = ABOVE_TORCH_MB, limit_seconds: float = NOTEBOOK_SECONDS
) -> list[str]:
    """What is wrong with a notebook that ran to its end: warnings, too much memory, too much time."""
    found = [
        f"{name(executed.notebook, cell)} wrote to stderr: {output.text.strip()[:500]}"
        for cell in executed.notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    if executed.peak_mb is not None and executed.peak_mb - torch_mb() > limit_mb:
        above = executed.peak_mb - torch_mb()
        found.append(f"used {above:.0f} MB above what torch takes, at most {limit_mb:.0f} allowed: hold less")
    if executed.seconds > limit_seconds:
        found.append(f"took {executed.seconds:.0f} s, at most {limit_seconds:.0f} s allowed: train less")
    return found


def texts(output: NotebookNode) -> dict[str, str | None]:
    """The comparable part of an output: its texts by kind, and None for what is only to be present."""
    if output.output_type == "stream":
        return {output.name: output.text}
    if output.output_type == "error":
        return {"error": f"{output.ename}: {output.evalue}"}
    return {kind: data if kind.startswith("text/") else None for kind, data in sorted(output.data.items())}


def masked(text: str) -> str:
    """Text without its numbers, and without the blanks that align them."""
    return " ".join(NUMBER.sub("#", EMBEDDED_IMAGE.sub("image", text)).split())


def agree(stored: str, fresh: str, learned: bool = False) -> bool:
    """Whole numbers count things and must be equal. Others may differ by 1 %, or by one in the last digit.

    What a trained network says (`learned`) hangs on the order in which a processor sums, and a label that
    tips takes its pixel with it into every count: such numbers, whole ones too, may differ by 3 % or two in
    the last digit. (Measured: 1.3 % between processors with and without AVX-512.)
    """
    if stored == fresh:
        return True
    whole = any(number.lstrip("-+\u2212").isdigit() for number in (stored, fresh))
    if whole and not learned:
        return False
    a, b = (float(number.replace("\u2212", "-")) for number in (stored, fresh))
    share, digits = (0.03, 2) if learned else (0.01, 1)
    step = digits * max(last_digit(stored), last_digit(fresh))
    return abs(a - b) <= 1.001 * max(step, share * abs(a), share * abs(b))


def last_digit(number: str) -> float:
    """What one step of the last digit is worth: 0.01 for 2.50, 1e-8 for 2.5e-7."""
    mantissa, _, exponent = number.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def text_difference(stored: str, fresh: str, tags: Collection[str] = ()) -> str | None:
    if masked(stored) != masked(fresh):
        return f"stored {stored.strip()[:300]!r}, fresh {fresh.strip()[:300]!r}"
    if "varies" in tags:
        return None
    pairs = zip(*(NUMBER.findall(EMBEDDED_IMAGE.sub("", text)) for text in (stored, fresh)), strict=True)
    apart = [f"{a} became {b}" for a, b in pairs if not agree(a, b, "learned" in tags)]
    return ", ".join(apart[:5]) or None


def cell_difference(stored: NotebookNode, fresh: NotebookNode) -> str | None:
    before, after = ([texts(output) for output in cell.outputs] for cell in (stored, fresh))
    if after and not before:
        return "no output is stored"
    kinds_before, kinds_after = [list(each) for each in before], [list(each) for each in after]
    if kinds_before != kinds_after:
        return f"stored outputs are {kinds_before}, fresh ones {kinds_after}"
    tags = stored.metadata.get("tags", [])
    for old, new in zip(before, after, strict=True):
        for kind in old:
            if old[kind] is not None and (apart := text_difference(old[kind], new[kind], tags)):
                return f"{kind} differs: {apart}"
    return None


def differences(stored: NotebookNode, fresh: NotebookNode) -> list[str]:
    """Where fresh outputs are not the stored ones, cell by cell: texts without their numbers must be equal,

    numbers must agree, more loosely in cells tagged `learned`, and not at all in those tagged `varies`; of
    pictures only presence and description count.
    """
    remedy = "store it again (make notebooks), or tag the cell (CONTRIBUTING.md) if its numbers may change"
    cells = [pair for pair in zip(stored.cells, fresh.cells, strict=True) if pair[0].cell_type == "code"]
    compared = [(new, cell_difference(old, new)) for old, new in cells]
    return [f"{name(fresh, cell)}: {apart}; {remedy}" for cell, apart in compared if apart]


def check(path: Path, executed: Executed) -> list[str]:
    """Everything that is wrong with a notebook, given what executing it just now gave."""
    return faults(executed) + differences(clean(nbformat.read(path, as_version=4)), executed.notebook)


# --- the command line ------------------------------------------------------------------------------------


def run(path: Path, check_only: bool) -> bool:
    """Execute one notebook, print one line about it, store it if asked; whether all is well."""
    print(os.path.relpath(path), end=" ", flush=True)
    if why := missing_data(path):
        print(f"skipped: {why}")
        return True
    try:
        executed = execute(path)
    except NotebookError as error:
        print(f"FAILED, nothing written\n  {error}")
        return False
    wrong = check(path, executed) if check_only else faults(executed)
    if not (wrong or check_only):
        store(executed.notebook, path)
    verdict = "FAILED, nothing written" if wrong else "as stored" if check_only else "stored"
    peak = "unknown" if executed.peak_mb is None else f"{executed.peak_mb:.0f}"
    print(f"{executed.seconds:.1f} s, {peak} MB, {verdict}", *wrong, sep="\n  ")
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute notebooks and store their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument("--check", action="store_true", help="compare with the stored outputs, write nothing")
    arguments = parser.parse_args()
    verdicts = [run(path, arguments.check) for path in arguments.notebooks or all_notebooks()]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
