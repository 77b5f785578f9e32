"""A course of one tiny assignment, whose tests need no torch: three exercises and a written answer."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from grading.course import Course

NAME = "01_tiny"
RIGHT = {
    "double": "def double(x):\n    return 2 * x",
    "area": "def area(image):\n    return int(np.prod(image.shape))",
    "count_calls": "def count_calls(f, xs):\n    return [f(x) for x in xs]",
}
WRONG_DOUBLE = "def double(x):\n    return x"


def cell(source: str, grade_id: str, make=new_code_cell, **known) -> NotebookNode:
    defaults = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    made = make(source, metadata={"nbgrader": defaults | {"grade_id": grade_id} | known})
    made.id = grade_id.replace("_", "-")
    return made


def answer(name: str, source: str) -> NotebookNode:
    head, _, body = source.partition("\n")
    indent = body[: len(body) - len(body.lstrip())]
    marked = f"{head}\n{indent}### BEGIN SOLUTION\n{body}\n{indent}### END SOLUTION"
    return cell(marked, name, solution=True)


def case(grade_id: str, source: str, hidden: str = "") -> NotebookNode:
    if hidden:
        source += f"\n### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS"
    return cell(source, grade_id, grade=True, locked=True, points=1)


def source_notebook() -> NotebookNode:
    cells = [
        new_markdown_cell("# Tiny", id="title"),
        cell("import numpy as np\nimages = [np.ones((2, 3)), np.ones((5, 5))]", "setup", locked=True),
        new_markdown_cell("## Exercise 1: double", id="one"),
        answer("double", RIGHT["double"]),
        case("double-a", "assert double(2) == 4, f'twice 2 is 4, not {double(2)}'"),
        case("double-b", "x = np.arange(3)", "np.testing.assert_array_equal(double(x), np.array([0, 2, 4]))"),
        new_markdown_cell("## Exercise 2: area", id="two"),
        answer("area", RIGHT["area"]),
        case("area-a", "assert area(images[0]) == 6"),
        case(
            "area-b",
            "assert area(images[1]) == 25, 'wrong for a square'",
            "assert area(np.ones((1, 7))) == 7",
        ),
        new_code_cell("print(area(images[0]))", id="plot"),
        new_markdown_cell("## Exercise 3: call", id="three"),
        answer("count_calls", RIGHT["count_calls"]),
        case(
            "count_calls-a",
            "seen = []\ndef remember(x):\n    seen.append(x)\n    return -x\n"
            "assert count_calls(remember, [1, 2]) == [-1, -2] and seen == [1, 2]",
        ),
        new_markdown_cell("## Exercise 4: why", id="four"),
        cell(
            "### BEGIN SOLUTION\nBecause.\n### END SOLUTION",
            "written",
            new_markdown_cell,
            grade=True,
            solution=True,
            points=2,
        ),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=kernel)


def make_course(root: Path) -> Course:
    path = root / "source" / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(source_notebook(), path)
    return Course(root)


def submission(**answers: str) -> NotebookNode:
    """What a student hands in who gets everything right, but for `answers`."""
    notebook = source_notebook()
    for each in notebook.cells:
        grade_id = each.metadata.get("nbgrader", {}).get("grade_id")
        if each.metadata.get("nbgrader", {}).get("solution"):
            each.source = answers.get(grade_id, RIGHT.get(grade_id, "My answer."))
        each.source = each.source.split("\n### BEGIN HIDDEN TESTS")[0]
    return notebook


def hand_in(course: Course, student: str, notebook: NotebookNode | str) -> Path:
    path = course.root / "submitted" / student / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook if isinstance(notebook, str) else nbformat.writes(notebook))
    return path
