"""nbgrader's gradebook: it makes the release version, keeps all marks, and lets a teacher mark by hand."""

import csv
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor, SaveAutoGrades
from sqlalchemy.exc import SAWarning

from .course import Course, read_submission
from .files import write_whole
from .notebook import Cell, read_cells, titled

# nbgrader calls alembic by name to make its database, and it lies beside this Python.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

CANVAS = re.compile(r".+_(\d+)")


class GradedElsewhere(NbGraderPreprocessor):
    """Stands in nbgrader's autograder where it would run a submission beside its tests, and refuses."""

    def preprocess(self, nb, resources):
        raise NbGraderException(
            "this course is graded by `make grade`, which keeps submissions and tests apart"
        )


def database(course: Course) -> str:
    return f"sqlite:///{course.root.resolve() / 'gradebook.db'}"


@contextmanager
def gradebook(course: Course) -> Iterator[Gradebook]:
    with Gradebook(database(course)) as book:
        yield book


def release(course: Course, assignment: str) -> Path:
    """Make the students' version, and register the assignment in the gradebook."""
    course.source(assignment)
    folder = CourseDirectory(
        root=str(course.root.resolve()), assignment_id=assignment, db_url=database(course)
    )
    converter = GenerateAssignment(coursedir=folder, force=True)
    converter.log.setLevel(logging.ERROR)
    try:
        converter.start()
    except NbGraderException as error:
        raise ValueError(
            f"no release version of {assignment} could be made; what nbgrader says stands above"
        ) from error
    return course.release(assignment)


def record(course: Course, assignment: str, student: str, path: Path, result: dict):
    """Put the marks of a submission into the gradebook, and its answers where nbgrader shows them.

    What nbgrader gets is the source, with the student's answers in their places and our results as outputs:
    however odd the submission is, nbgrader sees an ordinary one. Marks given by hand stay.
    """
    try:
        cells = read_submission(read_cells(course.source(assignment)), path)
        submitted = {cell.grade_id: cell for cell in cells if cell.grade_id}
    except ValueError:
        submitted = {}
    notebook = marked(course, assignment, submitted, result)
    notebook.metadata["graded"] = result["digest"]
    write_whole(autograded(course, assignment, student), nbformat.writes(notebook))
    names = {"notebook": assignment, "assignment": assignment, "student": student, "db_url": database(course)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # about the order in which nbgrader fills its tables
        with gradebook(course) as book:
            book.update_or_create_student(student)
            book.update_or_create_submission(assignment, student)
        SaveAutoGrades().preprocess(notebook, {"nbgrader": names})


def autograded(course: Course, assignment: str, student: str) -> Path:
    return course.root / "autograded" / student / assignment / f"{assignment}.ipynb"


def recorded(course: Course, assignment: str, student: str, result: dict) -> bool:
    """Whether this result is in the gradebook. Once more, and nbgrader would ask to review what is marked."""
    path = autograded(course, assignment, student)
    if not path.is_file() or json.loads(path.read_text())["metadata"].get("graded") != result["digest"]:
        return False
    with gradebook(course) as book:
        return score(book, assignment, student) != ""


def marked(course: Course, assignment: str, submitted: dict[str, Cell], result: dict) -> NotebookNode:
    sources = {cell.grade_id: cell for cell in read_cells(course.source(assignment)) if cell.is_test}
    messages = {test["grade_id"]: test["message"] for test in result["tests"]}
    notebook = nbformat.read(course.release(assignment), as_version=4)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        if grade_id in sources:
            cell.source = sources[grade_id].source
            if message := messages[grade_id]:
                cell.outputs = [new_output("error", ename="Failed", evalue=message, traceback=[message])]
        elif cell.metadata.get("nbgrader", {}).get("solution") and grade_id in submitted:
            text = submitted[grade_id].source
            # Markdown may hold HTML, and so scripts, which would run in the browser of whoever marks it.
            cell.source = text if cell.cell_type == "code" else re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)
    return notebook


# --- marks -----------------------------------------------------------------------------------------------


def marks(course: Course, assignment: str, student: str) -> dict[str, dict]:
    """Every mark by grade_id: heading, score, the most it could be, whether it still waits, the comment."""
    titles = {cell.grade_id: title for cell, title in titled(read_cells(course.source(assignment)))}
    with gradebook(course) as book:
        notebook = book.find_submission_notebook(assignment, assignment, student)
        comments = {each.name: each.comment or "" for each in notebook.comments}
        return {
            each.name: {
                "title": titles.get(each.name, ""),
                "score": each.score,
                "max_score": each.max_score,
                "waits": each.needs_manual_grade,
                "comment": comments.get(each.name, ""),
            }
            for each in notebook.grades
        }


def grades_csv(course: Course) -> str:
    """All grades as Canvas imports them: one row for each student; empty where nothing was handed in."""
    with gradebook(course) as book:
        assignments = sorted(book.assignments, key=lambda each: each.name)
        heads = [
            "Student",
            "ID",
            "SIS User ID",
            "SIS Login ID",
            "Section",
            *(each.name for each in assignments),
        ]
        rows = [["    Points Possible", "", "", "", "", *(each.max_score for each in assignments)]]
        for student in sorted(book.students, key=lambda each: each.id):
            canvas = CANVAS.fullmatch(student.id)
            name = ", ".join(filter(None, (student.last_name, student.first_name))) or student.id
            scores = [score(book, each.name, student.id) for each in assignments]
            rows.append([name, canvas[1] if canvas else "", "", "" if canvas else student.id, "", *scores])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()


def score(book: Gradebook, assignment: str, student: str) -> float | str:
    try:
        return book.find_submission(assignment, student).score
    except MissingEntry:
        return ""


def waiting(course: Course) -> int:
    """How many answers wait to be marked by hand."""
    with gradebook(course) as book:
        notebooks = [n for each in book.assignments for s in each.submissions for n in s.notebooks]
        return sum(grade.needs_manual_grade for notebook in notebooks for grade in notebook.grades)
