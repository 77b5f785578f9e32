"""For the pages of nbgrader, where a teacher marks by hand: goes with a course, and not to students."""

from pathlib import Path

from grading.gradebook import GradedElsewhere

c = get_config()  # noqa: F821, for nbgrader gives it
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.Autograde.sanitize_preprocessors = [GradedElsewhere]  # `make grade` does it, with tests and answers apart
