"""A page for a student: points, and for every test that failed what was wrong."""

from html import escape

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
table {{ border-collapse: collapse; width: 100%; }}
caption {{ text-align: left; padding: 0.5rem 0; }}
th, td {{ text-align: left; padding: 0.3rem 0.6rem; border-bottom: 1px solid #bbb; vertical-align: top; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #f3f3f3; padding: 0.6rem 0.8rem; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{student}: <strong>{score}</strong></p>
{body}
</main>
</body>
</html>
"""


def page(assignment: str, student: str, result: dict, marks: dict[str, dict]) -> str:
    """The page for one submission, from its stored `result` and its `marks` in the gradebook."""
    tests = {test["grade_id"]: test for test in result["tests"]}
    rows = [row(grade_id, mark, tests.get(grade_id)) for grade_id, mark in marks.items()]
    parts = [
        "<table>\n<caption>Points of every part</caption>\n"
        '<tr><th scope="col">Part</th><th scope="col">Result</th><th scope="col">Points</th></tr>\n'
        + "\n".join(rows)
        + "\n</table>"
    ]
    if result["notes"]:
        notes = "\n".join(f"<li>{escape(note)}</li>" for note in result["notes"])
        parts.append(f"<h2>About the notebook</h2>\n<ul>\n{notes}\n</ul>")
    failed = [test for test in result["tests"] if test["message"]]
    if failed:
        parts.append("<h2>What to look at</h2>")
    parts += [
        f"<h3>{named(test['grade_id'], test)}</h3>\n<pre>{escape(test['message'])}</pre>" for test in failed
    ]
    comments = [(grade_id, mark["comment"]) for grade_id, mark in marks.items() if mark["comment"]]
    if comments:
        parts.append("<h2>Comments</h2>")
    parts += [f"<h3><code>{escape(name)}</code></h3>\n<pre>{escape(text)}</pre>" for name, text in comments]
    total, most = (sum(mark[key] for mark in marks.values()) for key in ("score", "max_score"))
    waits = (
        " so far; written answers are still to be marked" if any(m["waits"] for m in marks.values()) else ""
    )
    return PAGE.format(
        title=escape(f"Feedback: {assignment}"),
        student=escape(student),
        score=f"{total:g} of {most:g} points{waits}",
        body="\n".join(parts),
    )


def row(grade_id: str, mark: dict, test: dict | None) -> str:
    if test:
        said = "failed" if test["message"] else "passed"
    else:
        said = "to be marked" if mark["waits"] else "marked"
    points = f"{mark['score']:g} of {mark['max_score']:g}"
    return f'<tr><th scope="row">{named(grade_id, test)}</th><td>{said}</td><td>{points}</td></tr>'


def named(grade_id: str, test: dict | None) -> str:
    """A part of the assignment: its heading and its cell."""
    return (f"{escape(test['title'])}: " if test else "") + f"<code>{escape(grade_id)}</code>"
