"""For teachers, one command each: `python -m grading release`, `grade`, `csv` and `feedback`."""

import argparse
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from .course import Course, grade_all
from .files import write_whole
from .sandbox import protections


def release(course: Course, options: argparse.Namespace):
    from . import gradebook

    for assignment in options.assignments or course.assignments():
        print(gradebook.release(course, assignment))


def grade(course: Course, options: argparse.Namespace):
    from . import gradebook

    print(protections())
    for assignment in options.assignments or course.assignments():
        submissions = course.submissions(assignment, options.submitted)
        gradebook.release(course, assignment)
        graded = grade_all(course, assignment, submissions, options.jobs)
        for student in tqdm(
            graded, total=len(submissions), desc=assignment, unit="submission", file=sys.stdout, leave=False
        ):
            result = course.results(assignment, student)
            if not gradebook.recorded(course, assignment, student, result):
                gradebook.record(course, assignment, student, submissions[student], result)
        for student in submissions:
            print(summary(student, course.results(assignment, student)))


def summary(student: str, result: dict) -> str:
    """One line on a submission, and one on each thing that is odd about it."""
    return "\n    ".join([f"{student}: {result['score']:g} of {result['max_score']:g}", *result["notes"]])


def csv(course: Course, options: argparse.Namespace):
    from . import gradebook

    write_whole(course.root / "grades.csv", gradebook.grades_csv(course))
    print(course.root / "grades.csv")
    if count := gradebook.waiting(course):
        print(f"{count} written answers are still to be marked; the grades are without them.")


def feedback(course: Course, options: argparse.Namespace):
    from . import gradebook
    from .feedback import page

    for assignment in options.assignments or course.assignments():
        for student in course.graded(assignment):
            marks = gradebook.marks(course, assignment, student)
            path = course.root / "feedback" / student / f"{assignment}.html"
            write_whole(path, page(assignment, student, course.results(assignment, student), marks))
            print(path)


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="python -m grading", description=__doc__)
    parser.add_argument("command", choices=["release", "grade", "csv", "feedback"])
    parser.add_argument("assignments", nargs="*", help="such as 01_patches; without any: all there are")
    parser.add_argument("--course", type=Path, default=Path("notebooks/assignments"), help="its folder")
    parser.add_argument("--submitted", type=Path, help="a folder with one notebook for each student")
    parser.add_argument("--jobs", type=int, default=2, help="how many submissions at a time")
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        globals()[options.command](Course(options.course), options)
    except ValueError as error:
        sys.exit(f"{error}.")
    except KeyboardInterrupt:
        sys.exit("Interrupted; what is graded is kept, and the same command goes on from there.")


if __name__ == "__main__":
    main()
