"""The inspector in a real JupyterLab, where the notebook, its kernel and its theme have a say.

One server and one browser for all tests; each opens a notebook of its own.
"""

import time

import pytest
from browser import IDLE, SECONDS, SHUTDOWN, contrast, ready

for needed in ("anywidget", "matplotlib", "IPython"):
    pytest.importorskip(needed, reason="the widget needs pixelpatch[widget]")
nbformat = pytest.importorskip("nbformat", reason="it comes with JupyterLab")
pytestmark = pytest.mark.xdist_group("browser")

MAKE = """import torch
from pixelpatch import Inspector
torch.manual_seed(0)
image, network = torch.rand(48, 48), torch.nn.Conv2d(1, 3, 17)"""
SHOW = "Inspector(image, {'patch CNN': network})"
SAID = "patch CNN: output pixel (16, 16)"


@pytest.fixture
def notebook(lab, chromium, request):
    """notebook(inspectors) opens a new notebook with so many of them, and runs it."""
    (address, folder), name = lab, f"{request.node.name}.ipynb"
    page = chromium.new_page(viewport={"width": 1200, "height": 1600})
    page.set_default_timeout(1000 * SECONDS)

    def open_and_run(inspectors=1):
        sources = [MAKE] + [SHOW] * inspectors
        cells = [nbformat.v4.new_code_cell(source, id=f"cell{k}") for k, source in enumerate(sources)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / name)
        page.goto(f"{address}/lab/tree/{name}?reset")
        ready(page)
        run_all(page)
        page.wait_for_function("n => document.querySelectorAll('.patch-output').length === n", arg=inspectors)
        return page

    yield open_and_run
    page.evaluate(SHUTDOWN)  # each takes memory
    page.close()


def run_all(page):
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")


def save(page, path):
    """Wait for the file, in which every inspector has a picture and a widget."""
    page.evaluate("() => { window.jupyterapp.commands.execute('docmanager:save'); }")
    for _ in range(4 * SECONDS):
        saved = nbformat.read(path, 4)
        if saved.cells[-1].outputs:
            return saved
        time.sleep(0.25)
    raise AssertionError("the notebook was not saved")


def reopen(page):
    """As after a new start of everything: no kernel remembers the widget."""
    page.evaluate(SHUTDOWN)
    page.goto(page.url.split("?")[0] + "?reset")
    ready(page)


def test_two_inspectors_in_one_notebook(notebook):
    page = notebook(inspectors=2)
    first, second = (page.locator(".patch-inspector:has(> .patch-readout)").nth(k) for k in (0, 1))
    first.locator(".patch-output").hover(position={"x": 40, "y": 40})
    said = [one.locator(".patch-readout").inner_text() for one in (first, second)]
    assert said[0] != said[1] and said[1].startswith("Pixel (16, 16)")  # each has a place of its own
    cells = page.locator(".jp-Notebook-cell").count()
    second.locator(".patch-output").focus()
    for key in ["b", "a", "ArrowDown", "ArrowRight"]:
        page.keyboard.press(key)
    assert second.locator(".patch-readout").inner_text().startswith("Pixel (17, 17)")
    assert page.locator(".jp-Notebook-cell").count() == cells  # no key reached the notebook
    page.keyboard.press("Enter")
    second.get_by_text("patch CNN, pixel (17, 17). Proof").wait_for()
    assert first.locator(".patch-answer").inner_text() == ""
    first.locator(".patch-output").click(position={"x": 40, "y": 40})
    first.get_by_text("from the patch alone").wait_for()
    assert page.locator(".jp-RenderedImage:visible").count() == 0  # the widgets stand in for the pictures


def test_after_a_restart_it_says_what_to_do_and_lives_again(notebook):
    page = notebook()
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel().then(() => true)"
    )
    page.wait_for_function(IDLE)
    page.locator(".patch-output").hover(position={"x": 5, "y": 5})
    assert page.locator(".patch-readout").inner_text().startswith("Pixel (0, 0)")  # needs no kernel
    page.locator(".patch-output").click()
    page.get_by_text("After a restart, run the cell again.").wait_for()
    run_all(page)
    page.locator(".patch-output").click()
    page.get_by_text("from the patch alone").wait_for()


def test_a_saved_notebook_shows_its_picture_until_it_is_run(notebook, lab, request):
    page, path = notebook(), lab[1] / f"{request.node.name}.ipynb"
    saved = save(page, path)
    reopen(page)
    page.get_by_text("model not found").wait_for()
    picture = page.locator(".jp-RenderedImage img")
    assert picture.bounding_box()["width"] > 400 and picture.bounding_box()["height"] > 200

    saved.cells[1].source += "  # changed elsewhere, so not trusted here"
    nbformat.write(saved, path)
    reopen(page)
    page.get_by_text("changed elsewhere").wait_for()
    assert picture.bounding_box()["width"] > 400
    caption = page.locator(".jp-RenderedMarkdown").last
    assert "Run this cell to choose pixels yourself" in caption.inner_text()
    assert SAID in caption.text_content()  # folded, for those who cannot see the picture
    assert page.get_by_text("model not found").count() == 0

    run_all(page)
    page.locator(".patch-output").click()
    page.get_by_text("from the patch alone").wait_for()
    for still in (".jp-RenderedImage", ".jp-RenderedMarkdown"):
        assert page.locator(f".jp-OutputArea {still}:visible").count() == 0


def test_both_themes_leave_text_readable(notebook):
    page = notebook()
    page.locator(".patch-output").click()
    page.get_by_text("from the patch alone").wait_for()
    change = (
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme }).then(() => true)"
    )
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.evaluate(change, theme)
        page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
        for part in ["readout p", "answer p", "panels figcaption", "buttons button", "slider"]:
            assert contrast(page.locator(f".patch-{part}").first) >= 4.5, (theme, part)  # WCAG 2, level AA
