"""Runs the tests of the source notebook against a student's answers, which come from another process.

The tests are the source's own, whatever the submission has made of them. In them a student's function is a
stand-in: calling it sends plain arguments to the worker and makes a plain result of what comes back. So no
object of the student's is here that could lie, and nothing is here that the student's code could reach.
"""

import builtins
import contextlib
import io
import linecache
import signal
import symtable
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .notebook import Cell, Step, clean, read_cells, steps, titled
from .sandbox import Worker
from .wire import WireError, decode, encode
from .worker import Answers

CALL_SECONDS = 10
CELL_SECONDS = 30
SETUP_SECONDS = 120  # a cell of ours: importing torch on a busy machine takes its time
TEST_SECONDS = 60
SUBMISSION_SECONDS = 180
ERRORS = (
    *(
        ArithmeticError,
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        LookupError,
        MemoryError,
        NameError,
    ),
    *(NotImplementedError, RuntimeError, TypeError, ValueError, ZeroDivisionError),
)


@dataclass(frozen=True)
class Test:
    grade_id: str
    title: str  # the heading it stands under
    max_points: float
    points: float
    message: str  # empty if it passed

    @property
    def passed(self) -> bool:
        return not self.message


@dataclass
class Report:
    tests: list[Test] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what the teacher should know of this submission

    @property
    def score(self) -> float:
        return sum(test.points for test in self.tests)

    @property
    def max_score(self) -> float:
        return sum(test.max_points for test in self.tests)


# --- the student's side, as the tests see it -------------------------------------------------------------


class Stand:
    """Stands for something of the student's that can be called, and does nothing else."""

    __hash__ = None

    def __init__(self, call: Callable):
        self.__call = call

    def __call__(self, *args, **kwargs):
        return self.__call(*args, **kwargs)

    def __bool__(self):
        raise TypeError("the answer is a function or another object, but a value was expected")

    def __eq__(self, other):
        bool(self)

    __ne__ = __len__ = __iter__ = __float__ = __int__ = __index__ = lambda self, *_: bool(self)


class Stopped(Exception):
    """The student's code ran too long, or its process ended."""


class Student:
    """The student's cells, run in a worker that is started anew whenever it was lost."""

    def __init__(self, steps: list[Step], deadline: float):
        self.steps = steps
        self.deadline = deadline
        self.worker = None
        self.bad = set()  # cells that took the worker down
        self.notes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.worker:
            self.worker.close()
        self.worker = None

    def start(self):
        """Run all cells in a new worker; as often as one of them ends it, once more without that one."""
        while not self.worker:
            self.worker = Worker()
            notes = []
            for step in self.steps:
                if step in self.bad:
                    continue
                try:
                    self.ask({"run": step.source}, SETUP_SECONDS if step.origin == "setup" else CELL_SECONDS)
                except Stopped as stopped:
                    if time.monotonic() > self.deadline:
                        raise
                    self.bad.add(step)
                    self.notes.append(f"{step.name}: {stopped}; it was left out.")
                    break
                except Exception as error:
                    notes += self.noted(step, error)
        self.notes += [note for note in notes if note not in self.notes]

    def noted(self, step: Step, error: Exception) -> list[str]:
        """What to say of a cell that stopped: nothing if it is the source's, which follows from others."""
        if step.origin == "source":
            return []
        if isinstance(error, NotImplementedError) and not str(error):  # torch raises it too, and says of what
            return [f"{step.name} is not written yet."]
        return [f"{step.name} stopped with {error_text(error)}"]

    def ask(self, request: dict, seconds: float, callables: list | None = None) -> Any:
        """The worker's answer. Calls of what stands in `callables` are answered meanwhile."""
        if not self.worker:
            self.start()
        deadline = min(time.monotonic() + seconds, self.deadline)
        connection = self.worker.connection
        try:
            connection.send(request, deadline)
            reply = connection.receive(deadline)
            while isinstance(reply, dict) and "callback" in reply:
                connection.send(self.call_back(reply, callables or []), deadline)
                reply = connection.receive(deadline)
            return self.read(reply)
        except TimeoutError:
            self.stop()
            if deadline == self.deadline:
                raise Stopped(f"the {SUBMISSION_SECONDS} s for the whole submission were used up") from None
            raise Stopped(f"it ran longer than {seconds:.0f} s, and was ended") from None
        except (EOFError, OSError):
            self.stop()
            raise Stopped("it ended its process (or used up its time or memory)") from None
        except WireError as error:
            self.stop()
            raise Stopped(f"it did not answer properly: {error}") from None

    def read(self, reply: Any) -> Any:
        try:
            if "error" in reply:
                name, message, place = map(clean, reply["error"])
            else:
                return decode(reply["ok"], self.stand)
        except Exception as error:
            raise WireError(f"{type(error).__name__}") from error
        known = {each.__name__: each for each in ERRORS}
        error = known[name](message) if name in known else RuntimeError(f"{name}: {message}")
        error.place = place
        raise error

    def call_back(self, reply: dict, callables: list) -> dict:
        """Run a function of the test's own that the student's code calls."""
        try:
            called = callables[int(reply["callback"])]
            args, kwargs = decode(reply["args"], self.stand), decode(reply["kwargs"], self.stand)
        except Exception as error:
            raise WireError(f"{type(error).__name__}") from error
        try:
            return {"ok": encode(called(*args, **kwargs), refuse)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def stand(self, number: int) -> Stand:
        def call(*args, **kwargs):
            callables = []

            def name(called):
                callables.append(called)
                return len(callables) - 1

            request = {"call": number, "args": encode(args, name), "kwargs": encode(kwargs, name)}
            if worker is not self.worker:
                raise Stopped("its process was lost in an earlier call")
            return self.ask(request, CALL_SECONDS, callables)

        worker = self.worker
        return Stand(call)

    def value(self, name: str) -> Any:
        """What the student calls `name`. Raises KeyError if there is nothing of that name."""
        return self.ask({"value": name}, CALL_SECONDS)


def refuse(_):
    raise TypeError("a function of a test must return plain data")


class Trusting(Student):
    """A student's cells in this very process, without limits: quick, and for answers of our own only."""

    def start(self):
        self.worker = Answers(lambda request: self.call_back(request, self.callables)["ok"])
        for step in self.steps:
            try:
                self.ask({"run": step.source}, 0)
            except Exception as error:
                self.notes += self.noted(step, error)

    def stop(self):
        self.worker = None

    def ask(self, request: dict, seconds: float, callables: list | None = None) -> Any:
        if not self.worker:
            self.start()
        self.callables = callables or []
        with contextlib.redirect_stdout(io.StringIO()):
            return self.read(self.worker.answer(request))


def error_text(error: Exception) -> str:
    """An error in a line of words; where it happened, if in the student's code."""
    said = clean(error)
    if place := getattr(error, "place", ""):
        return f"{type(error).__name__} in {place}" + (f" ({said})" if said else "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# --- the tests -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def within(seconds: float):
    """Raise TimeoutError in the block after so many seconds (in a main thread)."""

    def late(*_):
        raise TimeoutError(f"the test ran longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(source: str, name: str, names: dict):
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), names)


def free_names(source: str) -> set[str]:
    """Names that the code reads and does not make."""

    def read(table):
        for each in table.get_symbols():
            if each.is_referenced() and (table is module or each.is_global()):
                yield each.get_name()
        for child in table.get_children():
            yield from read(child)

    module = symtable.symtable(source, "test", "exec")
    made = {each.get_name() for each in module.get_symbols() if each.is_assigned() or each.is_imported()}
    return set(read(module)) - made - set(dir(builtins))


def message_of_test(cell: Cell, names: dict, student: Student) -> str:
    """What is wrong, in words; empty if the test passes."""
    names = dict(names)
    missing = set()
    try:
        with within(TEST_SECONDS), contextlib.redirect_stdout(io.StringIO()):
            for name in sorted(free_names(cell.source) - set(names)):
                try:
                    names[name] = student.value(name)
                except KeyError:
                    missing.add(name)
                    continue
                if isinstance(names[name], Stand):
                    names[name].__name__ = name
            run(cell.source, f"<{cell.grade_id}>", names)
    except Stopped as stopped:
        return f"Your code could not be run to its end: {stopped}."
    except NameError as error:
        if getattr(error, "name", None) not in missing:
            return error_text(error)
        stopped = "".join(f"\n{note}" for note in student.notes)
        return f"`{error.name}` is missing: no cell that ran to its end defines it.{stopped}"
    except NotImplementedError as error:
        return "Not written yet." if getattr(error, "place", "") and not str(error) else error_text(error)
    except AssertionError as error:
        if getattr(error, "place", ""):
            return error_text(error)
        return clean(error) or "The assertion does not hold: " + failed_line(error)
    except Exception as error:
        return error_text(error)
    return ""


def failed_line(error: AssertionError) -> str:
    """The line of the test that asserts, where it gives no message of its own."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()


def grade_cells(source: list[Cell], submitted: list[Cell], student: type[Student] = Student) -> Report:
    """Grade what was submitted by the tests of `source`, both as cells in the order of their notebooks."""
    report = Report()
    to_run, report.notes = steps(source, submitted)
    names = {"__name__": "tests"}
    with student(to_run, time.monotonic() + SUBMISSION_SECONDS) as answers:
        for cell, title in titled(source):
            if cell.is_setup:
                with contextlib.redirect_stdout(io.StringIO()):
                    run(cell.source, f"<{cell.grade_id}>", names)
            elif cell.is_test:
                message = message_of_test(cell, names, answers)
                points = 0.0 if message else cell.points
                report.tests.append(Test(cell.grade_id, title, cell.points, points, message))
        report.notes += answers.notes
    return report


def grade_answers(source_path: Path, answers: dict[str, str], sandboxed: bool = False) -> Report:
    """Grade the source's own solution, with some `answers` (by grade_id) in the place of its own.

    Not `sandboxed` is in this process: quick, and only for answers that you know.
    """
    source = read_cells(source_path)
    if unknown := set(answers) - {cell.grade_id for cell in source if cell.is_answer}:
        raise ValueError(f"{source_path.stem} has no answer cell {sorted(unknown)}")
    submitted = [replace(cell, source=answers.get(cell.grade_id, cell.source)) for cell in source]
    return grade_cells(source, submitted, Student if sandboxed else Trusting)
