"""A course from release to feedback, and what crosses between the tests and a student's code."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
from nbgrader.apps import NbGrader
from tiny_course import NAME, WRONG_DOUBLE, hand_in, make_course, submission

from grading import __main__ as commands
from grading import gradebook, trusted
from grading.course import Course, grade_all, grade_notebook
from grading.notebook import HIDDEN
from grading.wire import decode, encode

pytestmark = pytest.mark.xdist_group("grading")

ASSIGNMENTS = Course(Path(__file__).resolve().parents[2] / "notebooks" / "assignments")
SOLUTION = re.compile(r"### BEGIN SOLUTION(.*?)### END SOLUTION", re.S)


@pytest.fixture
def course(tmp_path):
    return make_course(tmp_path)


def call(course: Course, *arguments: str):
    commands.main([*arguments, "--course", str(course.root)])


# --- release ---------------------------------------------------------------------------------------------


def secrets(source: str) -> list[str]:
    """The lines of solutions and hidden tests that say something."""
    found = [*SOLUTION.findall(source), *HIDDEN.findall(source)]
    lines = {line.strip() for part in found for line in part.splitlines()}
    return [line for line in lines if len(line) > 8 and not line.startswith("###")]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Every assignment and its release version, made anew."""
    course = make_course(tmp_path_factory.mktemp("released"))
    for assignment in ASSIGNMENTS.assignments():
        copy = course.root / "source" / assignment / f"{assignment}.ipynb"
        copy.parent.mkdir()
        copy.write_text(ASSIGNMENTS.source(assignment).read_text())
    call(course, "release")
    return course


@pytest.mark.parametrize("assignment", [NAME, *ASSIGNMENTS.assignments()])
def test_release_has_no_solution_and_no_hidden_test(released, assignment):
    source = nbformat.read(released.source(assignment), as_version=4)
    release = released.release(assignment).read_text()
    shown = "\n".join(cell.source for cell in nbformat.reads(release, as_version=4).cells)
    visible = "\n".join(SOLUTION.sub("", HIDDEN.sub("", cell.source)) for cell in source.cells)
    searched = [line for cell in source.cells for line in secrets(cell.source) if line not in visible]
    assert searched
    assert [line for line in searched if line in shown or json.dumps(line)[1:-1] in release] == []
    assert not re.search("BEGIN SOLUTION|HIDDEN TESTS", release)


@pytest.mark.parametrize("assignment", ASSIGNMENTS.assignments())
def test_release_that_students_open_is_up_to_date(released, assignment):
    stored = nbformat.read(ASSIGNMENTS.release(assignment), as_version=4)
    assert stored == nbformat.read(released.release(assignment), as_version=4), "call make release"


@pytest.mark.parametrize("assignment", ASSIGNMENTS.assignments())
def test_solution_has_all_points_within_the_limits(assignment):
    solved = grade_notebook(ASSIGNMENTS.source(assignment), ASSIGNMENTS.source(assignment))
    assert [test for test in solved.tests if not test.passed] == []
    assert solved.score == solved.max_score > 0
    assert solved.notes == []


def test_unknown_assignment(course):
    with pytest.raises(SystemExit, match=f"there is no assignment '02' in .*; there are: {NAME}"):
        call(course, "release", "02")


# --- grading many ----------------------------------------------------------------------------------------


def test_nothing_was_handed_in(course):
    with pytest.raises(SystemExit, match="nothing was handed in for 01_tiny"):
        call(course, "grade")


def test_a_class(course, capsys):
    hand_in(course, "ada", submission())
    hand_in(course, "ben", submission(double=WRONG_DOUBLE, written="YOUR ANSWER HERE"))
    hand_in(course, "cleo", "{")
    (course.root / "submitted" / "dan" / NAME).mkdir(parents=True)
    hand_in(
        course, "eve", submission(double="import os; os._exit(0)", written="<script>alert(1)</script> 1 < 2")
    )
    call(course, "grade", NAME)
    printed = capsys.readouterr().out
    for line in (
        "ada: 5 of 5\n",
        "ben: 3 of 5\n",
        "cleo: 0 of 5\n    Not graded",
        "dan: 0 of 5\n    Not graded",
    ):
        assert line in printed
    assert "eve: 3 of 5\n    Cell `double`: it ended its process" in printed

    answers_wait(course)
    table_is_what_canvas_reads(course)
    marks_by_hand_count_and_stay(course)
    pages_say_what_was_wrong(course)
    what_is_handed_in_anew_is_graded_anew(course)


def answers_wait(course):
    waits = {name: gradebook.marks(course, NAME, name)["written"]["waits"] for name in course.graded(NAME)}
    assert waits == {"ada": True, "ben": False, "cleo": False, "dan": False, "eve": True}
    shown = (course.root / "autograded" / "eve" / NAME / f"{NAME}.ipynb").read_text()
    assert "&lt;script>alert(1)&lt;/script> 1 < 2" in shown


def table(course) -> list[dict]:
    call(course, "csv")
    return list(csv.DictReader((course.root / "grades.csv").read_text().splitlines()))


def table_is_what_canvas_reads(course):
    head, *rows = table(course)
    scores = {row["SIS Login ID"]: float(row[NAME]) for row in rows}
    assert list(head) == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", NAME]
    assert (head["Student"].strip(), head[NAME]) == ("Points Possible", "7.0")
    assert scores == {"ada": 5, "ben": 3, "cleo": 0, "dan": 0, "eve": 3}


def marks_by_hand_count_and_stay(course):
    with gradebook.gradebook(course) as book:
        mark = book.find_grade("written", NAME, NAME, "ada")  # what nbgrader's page does
        mark.manual_score, mark.needs_manual_grade = 1.5, False
        book.find_comment("written", NAME, NAME, "ada").manual_comment = "Why <always>?"
        book.db.commit()
    call(course, "grade", NAME)
    assert {row["Student"]: row[NAME] for row in table(course)}["ada"] == "6.5"
    assert not gradebook.marks(course, NAME, "ada")["written"]["waits"]


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def named(self, *names: str) -> list[tuple[str, dict]]:
        return [(tag, attributes) for tag, attributes in self.tags if tag in names]


def pages_say_what_was_wrong(course):
    call(course, "feedback")
    ada, ben, cleo = (
        (course.root / "feedback" / n / f"{NAME}.html").read_text() for n in ("ada", "ben", "cleo")
    )
    assert "6.5 of 7 points" in ada
    assert "Why &lt;always&gt;?" in ada
    assert "Exercise 4: why: <code>written</code>" in ada
    assert "3 of 7 points" in ben
    assert "twice 2 is 4, not 2" in ben
    assert "Exercise 1: double: <code>double-a</code>" in ben
    assert "area-a" not in ben.partition("What to look at")[2]
    assert "is no notebook" in cleo
    for text in (ada, ben, cleo):
        page = Page(text)
        assert page.named("html") == [("html", {"lang": "en"})]
        assert [len(page.named(tag)) for tag in ("title", "main", "h1", "table", "caption")] == [1] * 5
        assert all(attributes["scope"] in ("row", "col") for _, attributes in page.named("th"))
        levels = [int(tag[1]) for tag, _ in page.named("h1", "h2", "h3", "h4")]
        assert all(below - above <= 1 for above, below in pairwise(levels))
        assert not page.named("script", "always")


def what_is_handed_in_anew_is_graded_anew(course):
    before = results(course)
    hand_in(course, "ben", submission())
    call(course, "grade", NAME)
    after = results(course)
    assert {name for name in after if after[name] != before[name]} == {"ben"}
    assert after["ben"][1]["score"] == 5


def test_folder_of_notebooks_as_canvas_gives_them(course, tmp_path):
    folder = tmp_path / "handed in"
    folder.mkdir()
    for name in ("lovelaceada_LATE_71_9001_01_tiny", "hopper_72_9002_01_tiny-1", "ben"):
        nbformat.write(submission(), folder / f"{name}.ipynb")
    call(course, "grade", NAME, "--submitted", str(folder))
    rows = table(course)[1:]
    ids = {row["Student"]: (row["ID"], row["SIS Login ID"]) for row in rows}
    assert ids == {"ben": ("", "ben"), "hopper_72": ("72", ""), "lovelaceada_71": ("71", "")}


def test_formgrader_cannot_run_a_submission_beside_its_tests(monkeypatch):
    with pytest.raises(Exception, match="make grade"):
        gradebook.GradedElsewhere().preprocess(None, {})
    monkeypatch.chdir(ASSIGNMENTS.root)
    application = NbGrader(config_dir=str(ASSIGNMENTS.root))
    application.load_config_file()
    assert application.config.Autograde.sanitize_preprocessors == [gradebook.GradedElsewhere]


def test_submission_that_ends_its_grader_harms_no_other(tmp_path):
    """It should never happen. If it does, as by a fault in a library, that one is named and has no points."""
    course = make_course(tmp_path)
    path = course.source(NAME)
    path.write_text(
        path.read_text().replace("assert double(2) == 4", "import os; double(2) == 13 and os._exit(1)")
    )
    for student in ("ada", "ben", "cleo"):
        hand_in(
            course,
            student,
            submission(double="def double(x): return 13" if student == "ben" else WRONG_DOUBLE),
        )
    list(grade_all(course, NAME, course.submissions(NAME), jobs=2))
    scores = {student: result["score"] for student, (_, result) in results(course).items()}
    assert scores == {"ada": 4, "ben": 0, "cleo": 4}
    assert "the grader itself ended" in results(course)["ben"][1]["notes"][0]


# --- interrupted -----------------------------------------------------------------------------------------


def results(course) -> dict[str, tuple[int, dict]]:
    paths = course.root.glob(f"results/{NAME}/*.json")
    return {path.stem: (path.stat().st_mtime_ns, json.loads(path.read_text())) for path in paths}


@pytest.mark.parametrize("signals", [signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name)
def test_interrupted_and_called_again(course, signals):
    students = [f"student{number}" for number in range(8)]
    for student in students:
        hand_in(course, student, submission(area="import time; time.sleep(0.3)\ndef area(x): return x.size"))
    command = [sys.executable, "-m", "grading", "grade", NAME, "--course", str(course.root)]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    # What a shell starts in the background ignores SIGINT, and so does all that it starts.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, preexec_fn=heeding, **options) as process:
        while not results(course):
            time.sleep(0.02)
            assert process.poll() is None
        helpers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signals) if signals == signal.SIGINT else process.kill()
        _, alive = psutil.wait_procs(helpers, timeout=60)
        for helper in alive:
            helper.kill()
        said = process.stderr.read().decode()
    assert ("Interrupted; what is graded is kept" in said) == (signals == signal.SIGINT), (
        said,
        process.returncode,
    )
    assert helpers
    assert alive == []

    kept = results(course)
    assert 1 <= len(kept) < len(students)
    call(course, "grade", NAME)
    after = results(course)
    assert sorted(after) == students
    assert {name: after[name] for name in kept} == kept
    assert all(result["score"] == 5 for _, result in after.values())
    assert {row["Student"]: row[NAME] for row in table(course)[1:]} == dict.fromkeys(students, "5.0")


# --- between the two processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, -0.5, float("inf"), "text", [1, (2, "b")], {"a": [1], (1, 2): None}, {1, 2}),
        *(np.arange(6).reshape(2, 3), np.float32(0.1), np.zeros((0, 3)), np.True_, torch.rand(2, 3)),
        *(torch.arange(3), torch.tensor(1.5, dtype=torch.float64), torch.rand(3, 4).T, np.ones((3, 2)).T),
    ],
)
def test_plain_data_arrives_as_it_was(value):
    arrived = decode(json.loads(json.dumps(encode(value, None))), None)
    assert type(arrived) is type(value)
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        assert arrived.dtype == value.dtype
        assert arrived.shape == value.shape
        assert (arrived == value).all()
    else:
        assert arrived == value


@pytest.mark.parametrize("value", [1j, object(), np.array(["a"]), np.array([object()])])
def test_what_is_no_plain_data_is_refused(value):
    with pytest.raises(TypeError, match="cannot be graded"):
        encode(value, None)


@pytest.mark.parametrize(
    "message",
    [
        *(
            ["array", "object", [1], "AAAA"],
            ["array", "float64", [10**12], ""],
            ["array", "datetime64[s]", [1], "A" * 11 + "="],
        ),
        *(["eval", "1"], ["list"], ["list", 3], ["set", [["list", []]]], ["dict", [[1]]], [], [[]]),
    ],
)
def test_odd_messages_make_nothing(message):
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        decode(message, None)


def test_stand_in_is_no_value():
    stand = trusted.Stand(lambda x: x + 1)
    assert stand(1) == 2
    for use in (bool, len, float, list, lambda it: it == 3, lambda it: it != 3, lambda it: it.shape, hash):
        with pytest.raises((TypeError, AttributeError)):
            use(stand)
    with pytest.raises(TypeError):
        np.testing.assert_array_equal(stand, np.ones(3))
