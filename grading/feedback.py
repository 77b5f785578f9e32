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
    messages = {test["grade_id"]: test["message"] for test in result["tests"]}
    rows = [row(name, mark, messages.get(name)) for name, mark in marks.items()]
    parts = [
        "<table>\n<caption>Points of every part</caption>\n"
        '<tr><th scope="col">Part</th><th scope="col">Result</th><th scope="col">Points</th></tr>\n'
        + "\n".join(rows)
        + "\n</table>"
    ]
    if result["notes"]:
        notes = "\n".join(f"<li>{escape(note)}</li>" for note in result["notes"])
        parts.append(f"<h2>About the notebook</h2>\n<ul>\n{notes}\n</ul>")
    comments = {name: mark["comment"] for name, mark in marks.items()}
    for heading, texts in {"What to look at": messages, "Comments": comments}.items():
        said = [(name, text) for name, text in texts.items() if text]
        parts += [f"<h2>{heading}</h2>"] if said else []
        parts += [f"<h3>{named(name, marks[name])}</h3>\n<pre>{escape(text)}</pre>" for name, text in said]
    total, most = (sum(mark[key] for mark in marks.values()) for key in ("score", "max_score"))
    waits = any(mark["waits"] for mark in marks.values())
    return PAGE.format(
        title=escape(f"Feedback: {assignment}"),
        student=escape(student),
        score=f"{total:g} of {most:g} points" + waits * " so far; written answers are still to be marked",
        body="\n".join(parts),
    )


def row(name: str, mark: dict, message: str | None) -> str:
    """A line of the table; `message` is what a test said, empty if it passed, None where there is no test."""
    if message is None:
        said = "to be marked" if mark["waits"] else "marked"
    else:
        said = "failed" if message else "passed"
    points = f"{mark['score']:g} of {mark['max_score']:g}"
    return f'<tr><th scope="row">{named(name, mark)}</th><td>{said}</td><td>{points}</td></tr>'


def named(name: str, mark: dict) -> str:
    """A part of the assignment: its heading and its cell."""
    return f"{escape(mark['title'])}: <code>{escape(name)}</code>"
