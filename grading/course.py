"""The folders of a course, what was handed in, and the results: one small file for each submission.

source/01_patches/01_patches.ipynb          with solutions and hidden tests
release/01_patches/01_patches.ipynb         without: what students get
submitted/ada/01_patches/01_patches.ipynb   what they hand in; or a folder of ada.ipynb, ben.ipynb, …
results/01_patches/ada.json                 the marks of every test, and why
autograded/ada/01_patches/01_patches.ipynb  for marking by hand in nbgrader
feedback/ada/01_patches.html                for the student
gradebook.db, grades.csv
"""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import re
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .files import write_whole
from .notebook import Cell, read_cells, titled
from .trusted import Report, Test, grade_cells

CANVAS = re.compile(
    r"^([^_]+)(?:_LATE)?(_\d+)_\d+_.*"
)  # adalovelace_LATE_1234_5678_01_patches: one of Canvas's names
MAX_GRADER = 6 * 2**30  # a submission that makes the tests themselves want more than that fails them


@dataclass(frozen=True)
class Course:
    root: Path

    def source(self, assignment: str) -> Path:
        path = self.root / "source" / assignment / f"{assignment}.ipynb"
        if not path.is_file():
            there = ", ".join(self.assignments()) or "none"
            raise ValueError(
                f"there is no assignment {assignment!r} in {self.root / 'source'}; there are: {there}"
            )
        return path

    def assignments(self) -> list[str]:
        return sorted(path.parent.name for path in self.root.glob("source/*/*.ipynb"))

    def release(self, assignment: str) -> Path:
        return self.root / "release" / assignment / f"{assignment}.ipynb"

    def result(self, assignment: str, student: str) -> Path:
        return self.root / "results" / assignment / f"{student}.json"

    def results(self, assignment: str, student: str) -> dict:
        return json.loads(self.result(assignment, student).read_text())

    def graded(self, assignment: str) -> list[str]:
        """The students with a result."""
        return sorted(path.stem for path in self.root.glob(f"results/{assignment}/*.json"))

    def submissions(self, assignment: str, folder: Path | None = None) -> dict[str, Path]:
        """The notebook of each student; its path may lead nowhere, where a student handed in something else.

        `folder`: one with a notebook for each student, which is named for them.
        """
        if folder:
            found = {CANVAS.sub(r"\1\2", path.stem): path for path in sorted(folder.glob("*.ipynb"))}
        else:
            handed_in = sorted(self.root.glob(f"submitted/*/{assignment}"))
            found = {path.parent.name: path / f"{assignment}.ipynb" for path in handed_in}
        if not found:
            raise ValueError(
                f"nothing was handed in for {assignment}: no notebook in {folder or self.root / 'submitted'}"
            )
        return found


# --- one submission --------------------------------------------------------------------------------------


def read_submission(source: list[Cell], path: Path) -> list[Cell]:
    """The cells of what was handed in. Raises ValueError, with a reason, if it cannot be graded."""
    submitted = read_cells(path)
    if not any(cell.kind == "code" and cell.source.strip() for cell in submitted):
        raise ValueError(f"{path.name} is empty: it has no code")
    ours = {cell.grade_id for cell in source if cell.is_answer and cell.kind == "code"}
    if not any(cell.grade_id in ours for cell in submitted):
        raise ValueError(f"{path.name} has no cell for an answer: is it of another assignment?")
    return submitted


def grade_notebook(source_path: Path, path: Path) -> Report:
    """Grade the notebook at `path`; one that cannot be graded has no points, and a note that says why."""
    source = read_cells(source_path)
    try:
        submitted = read_submission(source, path)
    except ValueError as error:
        return nothing(source, f"Not graded: {error}.")
    return grade_cells(source, submitted)


def nothing(source: list[Cell], why: str) -> Report:
    tests = [
        Test(cell.grade_id, title, cell.points, 0.0, why) for cell, title in titled(source) if cell.is_test
    ]
    return Report(tests, [why])


# --- many submissions ------------------------------------------------------------------------------------


def digest(*paths: Path) -> str:
    """Of the files' contents: as long as it stays, a result is still good."""
    parts = []
    for path in paths:
        if not path.is_file():
            parts.append("-")
            continue
        with path.open("rb") as file:
            parts.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(parts)


def grade_to_file(source: Path, path: Path, result: Path):
    start = time.monotonic()
    report = grade_notebook(source, path)
    write_result(result, report, digest(source, path), time.monotonic() - start)


def write_result(result: Path, report: Report, digest: str, seconds: float):
    content = {
        "score": report.score,
        "max_score": report.max_score,
        "seconds": round(seconds, 1),
        "digest": digest,
    }
    write_whole(result, json.dumps(content | asdict(report), indent=1))


def grade_all(course: Course, assignment: str, submissions: dict[str, Path], jobs: int) -> Iterator[str]:
    """Grade what has no result yet, `jobs` at a time; gives each student's name as its result is written."""
    source = course.source(assignment)
    tasks = {}
    for student, path in submissions.items():
        result = course.result(assignment, student)
        if result.is_file() and json.loads(result.read_text())["digest"] == digest(source, path):
            yield student
        else:
            tasks[student] = (source, path, result)
    done = set()
    with suppress(BrokenProcessPool):
        for student in in_processes(tasks, jobs):
            done.add(student)
            yield student
    for student in tasks.keys() - done:  # one of them has ended its grader: each gets one of its own
        try:
            list(in_processes({student: tasks[student]}, 1))
        except BrokenProcessPool:
            why = (
                "Not graded: the grader itself ended while it worked on this submission; look at it by hand."
            )
            write_result(
                tasks[student][2], nothing(read_cells(source), why), digest(*tasks[student][:2]), 0.0
            )
        yield student


def in_processes(tasks: dict[str, tuple], jobs: int) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(jobs, context, initializer=prepare, initargs=[os.getpid()])
    try:
        futures = {pool.submit(grade_to_file, *task): student for student, task in tasks.items()}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield futures[future]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def prepare(parent: int):
    """In a process that grades: end with the one that started it, and never take the whole memory."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_GRADER, MAX_GRADER))
