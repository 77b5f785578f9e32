"""The assignments: solutions score all points, blanks none, every wrong answer loses some and is told why.

`pytest -n 0 tests/grading/test_assignments.py -k told_why` prints the wrong answers, one line each: the
points that are left, and whether the hint meant for it comes from a check in the student's notebook or from
grading.
"""

import re
import runpy
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import nbformat
import pytest
from notebook_rules import headings_in_order, links_lead_somewhere, no_path_of_one_machine

matplotlib.use("agg")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = sorted((ROOT / "notebooks/assignments/source").glob("*/*.ipynb"))
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS", re.S)

RULES = [headings_in_order, links_lead_somewhere, no_path_of_one_machine]
each_assignment = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


@cache
def cells(path):
    """The cells that nbgrader knows, by grade_id."""
    notebook = nbformat.read(path, as_version=4)
    return {meta.grade_id: cell for cell in notebook.cells if (meta := cell.metadata.get("nbgrader"))}


def is_test(cell):
    return cell.metadata.nbgrader.grade and cell.cell_type == "code"


class Outcome(NamedTuple):
    points: float
    visible: str  # what the visible checks said, empty if they passed
    hidden: str  # what grading said besides


@cache
def setup(path):
    """What the read-only cells and the solutions define."""
    space = {}
    for cell in cells(path).values():
        if cell.cell_type == "code" and not is_test(cell):
            exec(cell.source, space)
    return space


def message(source, space):
    """Run a cell; what it raises, empty if nothing."""
    try:
        exec(source, space)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def grade(path, exercise=None, answer=None):
    """Run the tests of an assignment, with one answer put in for an exercise; without, its solution."""
    points, visible, hidden = 0, [], []
    for grade_id, cell in cells(path).items():
        if is_test(cell) and (exercise is None or grade_id.startswith(f"{exercise}-")):
            space = setup(path) | ({exercise: answer} if exercise else {})
            said = message(HIDDEN.sub("", cell.source), dict(space))
            graded = said or message(cell.source, dict(space))
            points += 0 if graded else cell.metadata.nbgrader.points
            visible.append(said)
            hidden.append("" if said else graded)
    return Outcome(points, "\n".join(filter(None, visible)), "\n".join(filter(None, hidden)))


def exercises(path):
    """The names that a student defines; each is the grade_id of its solution."""
    return [
        name
        for name, cell in cells(path).items()
        if cell.cell_type == "code" and cell.metadata.nbgrader.solution
    ]


@cache
def bank(path):
    """The wrong answers by exercise: each a name, what to put in, and a piece of the hint meant for it."""
    found = runpy.run_path(str(HERE / f"wrong_answers/{path.stem}.py"))
    answers = {}
    for exercise in exercises(path):
        for name, value in vars(found[exercise]).items():
            if not name.startswith("_"):
                answer, hint = value if isinstance(value, tuple) else (value, value.__doc__)
                if callable(answer):
                    answer.__name__ = exercise  # as a student's is called, so that a hint is none in its name
                answers.setdefault(exercise, []).append((name, answer, hint))
    return answers


@each_assignment
def test_solution_scores_all_points(path):
    outcome = grade(path)
    assert not outcome.visible + outcome.hidden
    assert outcome.points == sum(
        cell.metadata.nbgrader.points for cell in cells(path).values() if is_test(cell)
    )


@each_assignment
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_keeps_rule(path, rule):
    rule(path, nbformat.read(path, as_version=4))


@each_assignment
def test_points_are_shown_as_they_count(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    by_exercise = {}
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade") and cell.cell_type == "code":
            number, shown = re.match(r"# Check (\d)\w? \((\d) points?\)", cell.source).groups()
            assert int(shown) == meta.points
            by_exercise[number] = by_exercise.get(number, 0) + meta.points
        elif meta.get("grade"):
            by_exercise["6"] = meta.points
    headings = dict(re.findall(r"^## Exercise (\d): .* \((\d) points", text, re.M))
    assert {number: int(points) for number, points in headings.items()} == by_exercise
    assert dict(re.findall(r"^\| (\d) \| .* \| (\d) \|$", text, re.M)) == headings
    assert f"**{sum(by_exercise.values())} points" in notebook.cells[0].source


@each_assignment
def test_whole_notebook_runs(path, monkeypatch):
    """Every code cell, pictures included, in the order of a reader."""
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    space = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)


@each_assignment
def test_a_check_tells_its_reader_no_answer(path):
    """What it tries and its hints, which list wrong answers, are in `grading.visible`."""
    release = cells(ROOT / "notebooks/assignments/release" / path.stem / path.name)
    for cell in filter(is_test, release.values()):
        assert len(cell.source.splitlines()) <= 3 and "gives=" not in cell.source


@each_assignment
def test_untouched_release_scores_nothing(path):
    release = cells(ROOT / "notebooks/assignments/release" / path.stem / path.name)
    space = {}
    for grade_id, cell in cells(path).items():
        if is_test(cell):
            said = message(cell.source, dict(space))
            assert re.search("^Wrong: .* is not written yet|^NameError: .* is not defined", said), said
        elif cell.cell_type == "code":
            message(release[grade_id].source, space)


@each_assignment
def test_every_wrong_answer_loses_points_and_is_told_why(path, capsys):
    rows, helped = [], 0
    for exercise, answers in bank(path).items():
        assert len(answers) >= 6, f"{exercise}: fewer than six wrong answers"
        full = grade(path, exercise, setup(path)[exercise]).points
        for name, answer, hint in answers:
            outcome = grade(path, exercise, answer)
            told = "check" if hint in outcome.visible else "grading" if hint in outcome.hidden else "NOT"
            helped += told != "NOT"
            rows.append((exercise, name, f"{outcome.points:g} of {full:g}", told))
            assert outcome.points < full, f"{exercise}: {name} scores all points"
    with capsys.disabled():
        print(f"\n\n{path.stem}: {len(rows)} wrong answers, {helped} of them get the hint meant for them")
        for row in rows:
            print("{:24} {:36} {:10} hint: {}".format(*row))
    assert helped >= 0.8 * len(rows)


@each_assignment
def test_learning_the_visible_checks_by_heart_scores_nothing(path):
    for exercise in exercises(path):
        solution, known = setup(path)[exercise], {}
        if not callable(solution):
            continue  # a prediction: its visible check shows no answer

        def by_heart(*arguments, solution=solution, known=known):
            return known.setdefault(repr(arguments), solution(*arguments))

        for grade_id, cell in cells(path).items():
            if is_test(cell) and grade_id.startswith(f"{exercise}-"):
                assert not message(HIDDEN.sub("", cell.source), setup(path) | {exercise: by_heart})
        assert known, f"{exercise} is never called"
        outcome = grade(path, exercise, lambda *arguments, known=known: known.get(repr(arguments)))
        assert outcome.points == 0 and not outcome.visible
