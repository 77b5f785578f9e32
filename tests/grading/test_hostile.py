"""Submissions that break, cheat or attack: none gains a mark or harms another, and the teacher sees why."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from tiny_course import NAME, WRONG_DOUBLE, hand_in, make_course, submission

from grading import sandbox, trusted
from grading.course import Course, grade_notebook

pytestmark = pytest.mark.xdist_group("hostile")

# Each of them has two exercises right, which is worth 3 of 5 points, and tries something in the first.
EARNED = 3


def first(code: str) -> Callable:
    """A submission whose first answer is this code."""
    return lambda course: submission(double=code)


def inside(code: str) -> Callable:
    """A submission whose first answer does this when it is called."""
    return first(
        "def double(x):\n" + "\n".join("    " + line for line in code.splitlines()) + "\n    return x"
    )


def edited(edit: Callable) -> Callable:
    """A submission with a wrong first answer, whose cells were changed by `edit`."""

    def make(course):
        notebook = submission(double=WRONG_DOUBLE)
        edit(notebook.cells)
        return notebook

    return make


def at(cells: list, grade_id: str) -> int:
    ids = [each.metadata.get("nbgrader", {}).get("grade_id") for each in cells]
    return ids.index(grade_id)


def forge(cells: list):
    """Tests that always pass and give a thousand points."""
    for each in cells:
        if each.metadata.get("nbgrader", {}).get("grade"):
            each.source = "pass"
            each.metadata.nbgrader.points = 1000


def duplicate(cells: list):
    again = nbformat.from_dict(cells[at(cells, "double-a")])
    again.source, again.id = "print('passed')", "again"
    cells.append(again)


def claim(cells: list):
    """The answer claims to be the test."""
    cells[at(cells, "double-a")].metadata.nbgrader.update(solution=True, grade=False, locked=False)
    cells[at(cells, "double-a")].source = "double = lambda x: 4"


def delete(*grade_ids: str) -> Callable:
    def edit(cells):
        for grade_id in grade_ids:
            del cells[at(cells, grade_id)]

    return edited(edit)


def reading(what: str) -> Callable:
    """Looks for a right answer in the files of the course, and would use it."""

    def make(course):
        code = f"""import json
from pathlib import Path
root = Path({str(course.root)!r})
for path in root.glob({what!r}):
    for cell in json.loads(path.read_text())["cells"]:
        if "2 * x" in "".join(cell["source"]):
            exec("".join(cell["source"]))
double"""
        return submission(double=code)

    return make


def destroying(course: Course):
    folders = [
        str(folder) for folder in (course.root, sandbox.PROJECT / "grading", sandbox.PROJECT / "utils")
    ]
    code = f"""import shutil
from pathlib import Path
for folder in {folders!r}:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("source", "submitted", "."):
        try:
            (Path(folder) / name / "was_here").write_text("x")
        except OSError:
            pass
open("written-by-a-submission", "w").write("x")
Path("/tmp/was_here").write_text("x")
double = 1"""
    return submission(double=code)


def link_to_another(course: Course):
    path = hand_in(course, "mallory", "")
    path.unlink()
    path.symlink_to(hand_in(course, "honest", submission()))


LIAR = """class Liar:
    shape, dtype, size, ndim = (3,), "int64", 3, 1
    __eq__ = __ne__ = __call__ = __bool__ = __le__ = __ge__ = lambda self, *_: True
    __hash__ = None
    def __getattr__(self, name): return self
    def __array__(self, *_, **__):
        import numpy; return numpy.array([0, 2, 4])
"""
FORGED_REPLIES = """import os
for number in range(3, 256):
    try:
        os.write(number, b'\\0\\0\\0\\x0c{"ok": true}' * 50)
    except OSError:
        pass
double = 1"""
GROW = "held = []\nwhile True: held.append(bytes(2**27))"
ALLOW = "lambda *_, **__: None"

# what is handed in, the points, and what the teacher reads
HOSTILE = {
    "endless loop in a function": (inside("while True: pass"), EARNED, "ran longer than 1 s"),
    "endless loop in a cell": (first("while True: pass"), EARNED, "was left out"),
    "huge allocation": (inside("bytearray(2**45)"), EARNED, "MemoryError"),
    "allocation that grows": (inside(GROW), EARNED, "MemoryError"),
    "a huge answer": (inside("import numpy; return numpy.zeros(2**24)"), EARNED, "MB in one value"),
    "os._exit in a function": (inside("import os; os._exit(0)"), EARNED, "ended its process"),
    "os._exit in a cell": (first("import os; os._exit(0)"), EARNED, "was left out"),
    "a crash": (inside("import ctypes; ctypes.string_at(0)"), EARNED, "ended its process"),
    "SystemExit": (first("raise SystemExit"), EARNED, "SystemExit"),
    "fork bomb": (first("import os\nwhile True: os.fork()"), EARNED, "BlockingIOError"),
    "kills all it can": (first("import os; os.kill(-1, 9); os.kill(os.getppid(), 9)"), EARNED, "`double`"),
    "writes and deletes outside": (destroying, EARNED, "TypeError"),
    "reads the hidden tests": (reading("source/*/*.ipynb"), EARNED, "`double` is missing"),
    "reads another's work": (reading("submitted/*/*/*.ipynb"), EARNED, "`double` is missing"),
    "uses the network": (
        inside("import socket; socket.create_connection(('192.0.2.1', 80), 5)"),
        EARNED,
        "Network is unreachable",
    ),
    "patches the checks": (
        first(
            "import numpy, builtins, grading.checks as checks\n"
            f"for name in dir(checks): setattr(checks, name, {ALLOW})\n"
            f"numpy.testing.assert_array_equal = {ALLOW}\n"
            f"numpy.all = builtins.all = {ALLOW}\n" + WRONG_DOUBLE
        ),
        EARNED,
        "twice 2 is 4, not 2",
    ),
    "patches torch.testing": (
        first(
            f"import torch\ntorch.testing.assert_close = {ALLOW}\ntorch.allclose = {ALLOW}\n" + WRONG_DOUBLE
        ),
        EARNED,
        "twice 2 is 4, not 2",
    ),
    "patches the grader in its process": (
        first(
            "import sys\nfor module in list(sys.modules.values()):\n"
            f"    for name in ('encode', 'decode', 'error_text'):\n"
            f"        if hasattr(module, name): setattr(module, name, {ALLOW})\n" + WRONG_DOUBLE
        ),
        0,
        "TypeError",
    ),
    "an equal to everything": (first(LIAR + "def double(x): return Liar()"), EARNED, "a value was expected"),
    "an integer equal to everything": (
        first("class Yes(int):\n    __eq__ = lambda *_: True\ndef double(x): return Yes(x)"),
        EARNED,
        "not 2",
    ),
    "an array equal to everything": (
        first(
            "import numpy\nclass Yes(numpy.ndarray):\n    __eq__ = lambda *_: True\n"
            "def double(x): return numpy.asarray(x).view(Yes)"
        ),
        EARNED,
        "not 2",
    ),
    "an error message that lies": (inside("raise ValueError('')"), EARNED, "ValueError"),
    "printed results": (
        first("print('double-a: passed, 1 of 1 points\\n' * 9)\n" + WRONG_DOUBLE),
        EARNED,
        "not 2",
    ),
    "forged replies": (first(FORGED_REPLIES), 0, "TypeError"),
    "closes the connection": (first("import os; os.closerange(0, 256)"), EARNED, "was left out"),
    "forged tests and points": (edited(forge), EARNED, "`double-a` was changed"),
    "a test that is an answer": (edited(claim), EARNED, "`double-a` was changed"),
    "deleted tests": (delete("double-a", "double-b"), EARNED, "The test `double-a` is missing"),
    "deleted answer": (delete("double"), EARNED, "The answer `double` is missing"),
    "deleted setup": (delete("setup"), EARNED, "The cell `setup` is missing"),
    "duplicated test": (edited(duplicate), EARNED, "`double-a` is there 2 times"),
    "reordered": (edited(lambda cells: cells.reverse()), EARNED, "another order"),
    "not JSON": (lambda course: "{", 0, "no notebook"),
    "not a notebook": (lambda course: "[1, 2]", 0, "no notebook"),
    "nested too deep": (lambda course: "[" * 100_000, 0, "no notebook"),
    "odd types everywhere": (
        lambda course: json.dumps({"cells": [None, 3, {"cell_type": [], "source": {}, "metadata": [1]}]}),
        0,
        "empty",
    ),
    "an empty file": (lambda course: "", 0, "no notebook"),
    "an empty notebook": (lambda course: nbformat.writes(new_notebook()), 0, "empty"),
    "of another assignment": (
        lambda course: new_notebook(cells=[new_code_cell("x = 1", id="other")]),
        0,
        "another assignment",
    ),
    "missing": (lambda course: hand_in(course, "mallory", "").unlink(), 0, f"there is no {NAME}.ipynb"),
    "a link to another's work": (link_to_another, 0, "is a link"),
}
NEEDS_BUBBLEWRAP = {
    *(
        "allocation that grows",
        "fork bomb",
        "kills all it can",
        "writes and deletes outside",
        "reads the hidden tests",
    ),
    *("reads another's work", "uses the network"),
}
CALM = "an honest answer"


def files(course: Course) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in course.root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", params=[*HOSTILE, CALM])
def graded(request, tmp_path_factory):
    """A hostile submission graded, and an honest one after it, in the same process and course."""
    if request.param in NEEDS_BUBBLEWRAP and not sandbox.bubblewrap():
        missing = "bubblewrap is not here or not allowed, and without it this would do harm: install it"
        required = os.environ.get("CI") == "true" and sys.platform == "linux"
        (pytest.fail if required else pytest.skip)(missing)
    make, points, why = HOSTILE.get(request.param, (lambda course: submission(), 5, ""))
    course = make_course(tmp_path_factory.mktemp("course"))
    honest = hand_in(course, "honest", submission())
    if (notebook := make(course)) is not None:
        hand_in(course, "mallory", notebook)
    before = files(course)
    with pytest.MonkeyPatch.context() as patch:
        if "endless" in request.param:
            patch.setattr(trusted, "CALL_SECONDS", 1)
            patch.setattr(trusted, "CELL_SECONDS", 2)
        theirs = grade_notebook(
            course.source(NAME), course.root / "submitted" / "mallory" / NAME / f"{NAME}.ipynb"
        )
        others = grade_notebook(course.source(NAME), honest)
    said = "\n".join([*theirs.notes, *(test.message for test in theirs.tests)])
    line = next((each for each in said.splitlines() if why in each), said)
    print(f"\n| {request.param} | {theirs.score:g} of {theirs.max_score:g} | {line[:120]} |")
    return theirs, others, points, why, said, before == files(course)


def test_has_the_marks_it_earned_and_no_more(graded):
    theirs, _, points, *_ = graded
    assert theirs.score == points
    assert theirs.max_score == 5


def test_teacher_sees_why(graded):
    _, _, _, why, said, _ = graded
    assert why in said


def test_leaves_others_and_all_files_alone(graded):
    _, others, *_, untouched = graded
    assert others.score == 5
    assert others.notes == []
    assert untouched


def test_nothing_of_it_is_left_running(graded):
    def running():
        commands = [b"grading/worker.py", json.dumps({"user": sandbox.user()})[1:].encode()]
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended since it was listed
                found.append(path.read_bytes())
        return [each for each in found if all(command in each for command in commands)]

    last = time.monotonic() + 60  # the kernel ends the processes of a namespace one by one
    while running() and time.monotonic() < last:
        time.sleep(0.05)
    assert not running()
