"""Every notebook runs, says what it has stored, and keeps the rules that its readers rely on."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_rules import (
    RULES,
    answers_are_out_of_sight,
    executed_in_order,
    headings_in_order,
    leads_to_next_chapter,
    links_lead_somewhere,
    no_errors,
    no_path_of_one_machine,
    no_widget_state,
    one_name_for_one_thing,
    pictures_have_words,
    prose,
    rounding_is_a_claim,
    short_enough,
)

from experiments.notebooks import WIDGET, all_notebooks, check, execute, missing_data

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
    (rounding_is_a_claim, notebook_with(printed("largest difference: 3e-15"))),
    (rounding_is_a_claim, notebook_with(shown(**{"text/markdown": "| resnet18 | 7e-06 sd |"}))),
    (headings_in_order, notebook_with(text="# Another title")),
    (headings_in_order, notebook_with(text="### Too deep")),
    (headings_in_order, new_notebook(cells=[new_markdown_cell("no title")])),
    (one_name_for_one_thing, notebook_with(text="The shortcuts bring detail.")),
    (one_name_for_one_thing, notebook_with(text="Each input paints on the canvas.")),
    (answers_are_out_of_sight, notebook_with(printed("42"), source="my_guess = 41")),
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
    rule(
        chapter,
        notebook_with(printed("less than 1e-12"), shown(**{"text/html": html}), text=text),
    )
