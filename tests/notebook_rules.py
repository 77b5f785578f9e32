"""The rules that readers of a notebook rely on, one function each: it raises AssertionError, and says why."""

import re
from itertools import pairwise

import nbformat
from nbformat import NotebookNode

from experiments.notebooks import EMBEDDED_IMAGE, WIDGET

CODE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.S)
TINY = re.compile(r"\d(?:\.\d+)?e-(?:0[5-9]|[1-9]\d)")
BOUNDS = ("below", "less than", "more than", "above", "within")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|mnt|private)/\w|\b[A-Z]:\\+\w")


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


def rounding_is_a_claim(path, notebook):
    """The digits of a rounding error differ from processor to processor: a bound is told instead."""
    for text in output_texts(notebook):
        for found in TINY.finditer(text):
            before = text[: found.start()].rstrip()
            assert before.endswith(BOUNDS), f"{found[0]} is printed; check it, and print 'below 1e-12'"


def headings_in_order(path, notebook):
    levels = [len(marks) for marks in re.findall(r"^(#{1,6}) ", prose(notebook), re.M)]
    assert re.match(r"# [^#\s]", notebook.cells[0].source), "the first cell starts with the title (# …)"
    assert levels.count(1) == 1, f"{levels.count(1)} titles (# …), expected one"
    skipped = [(a, b) for a, b in pairwise(levels) if b > a + 1]
    assert not skipped, f"a heading of level {skipped[0][1]} follows one of level {skipped[0][0]}"


# What the things of chapter 0's table are not called, and words that say less than they should.
ONE_NAME = {
    r"shortcuts?": "skip connection",
    r"the skips": "skip connections",
    r"paint(?:s|ed|ing)?": "stamp",
    r"asserted": "checked",
    r"anew": "again",
    r"dearer": "costs more",
    r"receptive fields? sizes?": "size of the receptive field",
}
RETOLD = "06"  # the chapters before this one


def one_name_for_one_thing(path, notebook):
    if path.name >= RETOLD:
        return
    for wrong, right in ONE_NAME.items():
        found = re.search(rf"\b{wrong}\b", prose(notebook), re.I)
        assert not found, f"{found[0]!r}: say {right!r}"


def answers_are_out_of_sight(path, notebook):
    """A guess is followed by its answer, whose output is stored collapsed."""
    cells = code_cells(notebook)
    for guess, *following in (cells[n : n + 4] for n, cell in enumerate(cells) if cell.source[:3] == "my_"):
        hidden = [cell.metadata.get("jupyter", {}).get("outputs_hidden") for cell in following]
        assert any(hidden), f"no folded answer follows {guess.source!r}"


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
    chapters = sorted({path.name, *(each.name for each in path.parent.glob("[0-9][0-9]*_*.ipynb"))})
    for before, following in pairwise(chapters):
        linked = f"]({following})" in prose(notebook)
        assert before != path.name or linked, f"no link to {following}"


RULES = [
    no_path_of_one_machine,
    no_widget_state,
    no_errors,
    executed_in_order,
    pictures_have_words,
    rounding_is_a_claim,
    headings_in_order,
    one_name_for_one_thing,
    answers_are_out_of_sight,
    short_enough,
    links_lead_somewhere,
    leads_to_next_chapter,
]
