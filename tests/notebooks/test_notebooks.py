"""Every notebook runs, says what it has stored, and keeps the rules that its readers rely on."""

import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from run_notebooks import EMBEDDED_IMAGE, WIDGET, all_notebooks, check, execute, missing_data

CODE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|mnt|private)/\w|\b[A-Z]:\\+\w")

each_notebook = pytest.mark.parametrize("path", all_notebooks(), ids=lambda path: path.stem)


@each_notebook
@pytest.mark.xdist_group("notebooks")  # one after another, so that each has the machine's cores and memory
def test_runs_and_says_what_is_stored(path):
    if why := missing_data(path):
        pytest.skip(why)
    wrong = check(path, execute(path))
    assert not wrong, "\n".join(wrong)


def test_the_first_chapter_lists_the_minutes_and_memory_of_the_others():
    first, *others = (path for path in all_notebooks() if re.match(r"\d\d", path.name))
    table = re.findall(r"\]\((\S+)\) \| (\S+) \| (\d+) \|", prose(nbformat.read(first, 4)))
    assert [file for file, *_ in table] == [path.name for path in others]
    for path, (_, minutes, megabytes) in zip(others, table, strict=True):
        head = nbformat.read(path, 4).cells[0].source
        assert re.search(rf"about {minutes} minutes? on two .* {megabytes} MB of memory", head), path.name


# --- rules that need no kernel ---------------------------------------------------------------------------


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(CODE.sub("", cell.source) for cell in notebook.cells if cell.cell_type == "markdown")


def output_data(notebook: NotebookNode) -> list[tuple[NotebookNode, NotebookNode]]:
    """What was displayed, by kind, with its metadata."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [(output.data, output.metadata) for output in outputs if "data" in output]


def output_texts(notebook: NotebookNode) -> list[str]:
    streams = [output.get("text", "") for cell in code_cells(notebook) for output in cell.outputs]
    displayed = [
        text for data, _ in output_data(notebook) for kind, text in data.items() if kind[:5] == "text/"
    ]
    return [EMBEDDED_IMAGE.sub("", text) for text in streams + displayed]


def no_path_of_one_machine(path, notebook):
    for text in [cell.source for cell in notebook.cells] + output_texts(notebook):
        assert not (found := MACHINE_PATH.search(text)), f"{found[0]} exists on one machine only"


def no_widget_state(path, notebook):
    assert "widgets" not in notebook.metadata, (
        "a widget's state needs a live kernel; store with make notebooks"
    )
    assert not any(WIDGET in data for data, _ in output_data(notebook)), "store with make notebooks"


def no_errors(path, notebook):
    errors = [
        out.ename for cell in code_cells(notebook) for out in cell.outputs if out.output_type == "error"
    ]
    assert not errors


def executed_in_order(path, notebook):
    counts = [cell.execution_count for cell in code_cells(notebook) if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1)), "store with make notebooks"


def pictures_have_words(path, notebook):
    for data, metadata in output_data(notebook):
        if "image/png" in data:
            description = data.get("text/plain", "")
            assert description.strip() and not description.startswith("<"), f"no description: {description}"
            assert metadata.get("image/png", {}).get("alt", "").strip(), f"no alt text: {description}"
        for tag in re.findall(r"<img\b[^>]*>", EMBEDDED_IMAGE.sub("", data.get("text/html", ""))):
            assert re.search(r"""\balt=(["'])\s*\S""", tag), f"no alt text: {tag}"


def headings_in_order(path, notebook):
    levels = [len(marks) for marks in re.findall(r"^(#{1,6}) ", prose(notebook), re.M)]
    assert re.match(r"# [^#\s]", notebook.cells[0].source), "the first cell starts with the title (# …)"
    assert levels.count(1) == 1, f"{levels.count(1)} titles (# …), expected one"
    skipped = [(a, b) for a, b in pairwise(levels) if b > a + 1]
    assert not skipped, f"a heading of level {skipped[0][1]} follows one of level {skipped[0][0]}"


def short_enough(path, notebook):
    assert len(code_cells(notebook)) <= 35, "too many code cells: move what is not the idea to utils"
    assert len(nbformat.writes(notebook)) < 3e6, "larger than 3 MB: fewer or smaller pictures"


def links_lead_somewhere(path, notebook):
    for target in LINK.findall(prose(notebook)):
        file, _, place = target.partition("#")
        if file and not re.match(r"\w+:", target):
            assert (path.parent / file).exists(), f"{file} does not exist"
        if place and file.endswith(".ipynb"):
            # JupyterLab finds a cell at once, but a heading only in a notebook that was open before.
            assert place.startswith("cell-id="), f"link to a cell (#cell-id=…), not to {place}"
            cells = {cell.id for cell in nbformat.read(path.parent / file, as_version=4).cells}
            assert place.removeprefix("cell-id=") in cells, f"{file} has no cell {place}"


def leads_to_next_chapter(path, notebook):
    number = re.match(r"\d\d", path.name)
    for following in path.parent.glob(f"{int(number[0]) + 1:02d}_*.ipynb") if number else ():
        assert f"]({following.name})" in prose(notebook), f"no link to {following.name}"


RULES = [
    no_path_of_one_machine,
    no_widget_state,
    no_errors,
    executed_in_order,
    pictures_have_words,
    headings_in_order,
    short_enough,
    links_lead_somewhere,
    leads_to_next_chapter,
]


@each_notebook
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_keeps_rule(path, rule):
    rule(path, nbformat.read(path, as_version=4))


# --- the rules themselves: each accepts a good notebook and refuses a bad one ----------------------------


def notebook_with(*outputs, source="1", count=1, text=""):
    code = new_code_cell(source, outputs=list(outputs), execution_count=count)
    return new_notebook(cells=[new_markdown_cell(f"# Title\n\n[next](02_b.ipynb)\n\n{text}"), code])


def shown(description="A curve that rises.", alt="A curve.", **data):
    data = {"image/png": "", "text/plain": description} | data
    return new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})


def printed(text):
    return new_output("stream", name="stdout", text=text)


def with_widgets():
    return new_notebook(cells=notebook_with().cells, metadata={"widgets": {}})


def without_link():
    return new_notebook(cells=[new_markdown_cell("# Title")])


BAD = [
    (no_path_of_one_machine, notebook_with(printed("saved to /home/ada/net.pt"))),
    (no_path_of_one_machine, notebook_with(source="open('C:\\\\data')")),
    (no_widget_state, with_widgets()),
    (no_widget_state, notebook_with(shown(**{WIDGET: {"model_id": "1f"}}))),
    (no_errors, notebook_with(new_output("error", ename="ValueError", evalue="", traceback=[]))),
    (executed_in_order, notebook_with(count=2)),
    (executed_in_order, notebook_with(count=None)),
    (pictures_have_words, notebook_with(shown(description="<Figure size 640x480 with 1 Axes>"))),
    (pictures_have_words, notebook_with(shown(alt=""))),
    (pictures_have_words, notebook_with(shown(**{"text/html": '<img src="a.png">'}))),
    (headings_in_order, notebook_with(text="# Another title")),
    (headings_in_order, notebook_with(text="### Too deep")),
    (headings_in_order, new_notebook(cells=[new_markdown_cell("no title")])),
    (short_enough, new_notebook(cells=[new_code_cell("1") for _ in range(36)])),
    (short_enough, notebook_with(printed("x" * 3_000_000))),
    (links_lead_somewhere, notebook_with(text="[gone](gone.ipynb)")),
    (links_lead_somewhere, notebook_with(text="[there](02_b.ipynb#cell-id=gone)")),
    (links_lead_somewhere, notebook_with(text="[there](02_b.ipynb#A-part)")),
    (leads_to_next_chapter, without_link()),
]


@pytest.fixture
def chapter(tmp_path) -> Path:
    """Where the first of two chapters would be."""
    second = new_notebook(cells=[new_markdown_cell("# Second"), new_markdown_cell("## A part", id="a-part")])
    nbformat.write(second, tmp_path / "02_b.ipynb")
    return tmp_path / "01_a.ipynb"


@pytest.mark.parametrize(
    "rule, notebook", BAD, ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(BAD)]
)
def test_rule_refuses_a_bad_notebook(rule, notebook, chapter):
    with pytest.raises(AssertionError):
        rule(chapter, notebook)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_good_notebook(rule, chapter):
    text = "## Section\n\n### Part\n\n`a[0](gone)` $f[x](y)$ [there](02_b.ipynb#cell-id=a-part) [far](https://example.org)"
    html = '<img src="data:image/png;base64,/tmp/x" alt="A curve.">'
    rule(chapter, notebook_with(printed("loss 0.5"), shown(**{"text/html": html}), text=text))
