"""Notebooks as the grader reads them: text and marks, and nothing of what else a file may hold."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 50 * 2**20
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS.*?^[ \t]*### END HIDDEN TESTS[^\n]*\n?", re.M | re.S)


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook, and what nbgrader knows of it."""

    kind: str  # "code", "markdown" or "raw"
    source: str
    grade_id: str | None = None
    points: float = 0.0
    grade: bool = False
    solution: bool = False
    locked: bool = False

    @property
    def is_test(self) -> bool:
        return self.kind == "code" and self.grade and not self.solution

    @property
    def is_setup(self) -> bool:
        return self.kind == "code" and self.locked and not self.grade and not self.solution

    @property
    def is_answer(self) -> bool:
        return self.solution


def read_cells(path: Path) -> list[Cell]:
    """The cells of a notebook. Raises ValueError, with a reason, for what is none."""
    if path.is_symlink() or path.parent.is_symlink():  # to what another has handed in, perhaps
        raise ValueError(f"{path.name} is a link; hand in the notebook itself")
    if not path.is_file():
        raise ValueError(f"there is no {path.name}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path.name} has {path.stat().st_size / 2**20:.0f} MB; clear its outputs, and hand it in again"
        )
    try:
        notebook = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no notebook: {clean(error)}") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError(f"{path.name} is no notebook of today's format: it has no list of cells")
    return [read_cell(cell) for cell in cells if isinstance(cell, dict)]


def read_cell(cell: dict) -> Cell:
    def field(where: Any, name: str, kind: type, default: Any) -> Any:
        value = where.get(name) if isinstance(where, dict) else None
        return value if isinstance(value, kind) else default

    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    known = field(cell.get("metadata"), "nbgrader", dict, {})
    return Cell(
        kind=field(cell, "cell_type", str, "raw"),
        source="".join(line for line in lines if isinstance(line, str)),
        grade_id=field(known, "grade_id", str, None),
        points=float(field(known, "points", int | float, 0)),
        grade=field(known, "grade", bool, False),
        solution=field(known, "solution", bool, False),
        locked=field(known, "locked", bool, False),
    )


def clean(text: str) -> str:
    """Text from outside without what a terminal or an encoding would stumble over."""
    text = str(text)[:2000].encode(errors="replace").decode()
    return "".join(each for each in text if each in "\n\t" or each.isprintable())


def titled(cells: list[Cell]) -> Iterator[tuple[Cell, str]]:
    """Each cell with the heading that it stands under."""
    title = ""
    for cell in cells:
        says = cell.kind == "markdown" and not cell.is_answer
        if says and (heading := re.search(r"^#+ +(.+)", cell.source, re.M)):
            title = heading[1].strip()
        yield cell, title


@dataclass(frozen=True)
class Step:
    """Code for the worker to run."""

    name: str
    source: str
    origin: str  # "setup"; "source", if it stands there word for word; or "student"


def steps(source: list[Cell], submitted: list[Cell]) -> tuple[list[Step], list[str]]:
    """The code that the worker runs, and what is odd about the submission.

    It is the submission's code in the submission's order, but for cells that are not the student's to change:
    setup is the source's, and comes first if it was deleted; tests are left out.
    """
    ours = {cell.grade_id: cell for cell in source if cell.grade_id}
    theirs = [cell.grade_id for cell in submitted if cell.grade_id in ours]
    notes = []
    for grade_id, cell in ours.items():
        what = "test" if cell.is_test else "answer" if cell.is_answer else "cell"
        if grade_id not in theirs:
            notes.append(f"The {what} `{grade_id}` is missing.")
        elif theirs.count(grade_id) > 1:
            more = "; each ran, and the last one counts" if what == "answer" else ""
            notes.append(f"The {what} `{grade_id}` is there {theirs.count(grade_id)} times{more}.")
        elif cell.is_test or cell.is_setup:
            (copy,) = [each for each in submitted if each.grade_id == grade_id]
            if copy.source.strip() not in (cell.source.strip(), HIDDEN.sub("", cell.source).strip()):
                notes.append(f"The {what} `{grade_id}` was changed; the original was used.")
    if list(dict.fromkeys(theirs)) != [each for each in ours if each in theirs]:
        notes.append("Cells were put into another order.")

    originals = {cell.source for cell in source if not cell.is_answer}
    setup = [cell for cell in source if cell.is_setup]
    run = [
        Step(f"Cell `{cell.grade_id}`", cell.source, "setup") for cell in setup if cell.grade_id not in theirs
    ]
    for number, cell in enumerate(submitted, 1):
        known = ours.get(cell.grade_id)
        if known in setup:
            run.append(Step(f"Cell `{cell.grade_id}`", known.source, "setup"))
        elif cell.kind == "code" and not (known and known.is_test) and cell.source.strip():
            name = f"Cell `{cell.grade_id}`" if known else f"Cell {number}"
            origin = "source" if cell.source in originals else "student"
            run.append(Step(name, cell.source, origin))
    return run, notes
