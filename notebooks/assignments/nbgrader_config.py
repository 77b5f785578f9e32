"""For the pages of nbgrader, where a teacher marks by hand. Goes with a course's folder; students do not get it."""

from pathlib import Path

from traitlets.config import get_config

from grading.gradebook import GradedElsewhere

c = get_config()
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.Autograde.sanitize_preprocessors = [GradedElsewhere]  # `make grade` does it, with tests and answers apart
