"""For nbgrader's pages, which a teacher opens for marking by hand. Students do not get this file."""

import sys
from pathlib import Path

from traitlets.config import get_config

folder = Path(__file__).resolve().parent
sys.path.insert(0, str(folder.parent.parent))

from grading.gradebook import GradedElsewhere  # noqa: E402

c = get_config()
c.CourseDirectory.root = str(folder)
c.Autograde.sanitize_preprocessors = [GradedElsewhere]  # `make grade` does it, with tests and answers apart
