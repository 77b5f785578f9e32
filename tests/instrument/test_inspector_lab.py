"""A real JupyterLab, where the notebook, its kernel and its theme have a say: the inspector, and links.

One server and one browser for all tests; each opens a notebook of its own.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from test_inspector import contrast

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.xdist_group("browser")

MAKE = """import torch
from pixelpatch import Inspector
from utils.networks import PatchNet, a_trous
torch.manual_seed(0)
image, network = torch.rand(48, 48), a_trous(PatchNet(17, width=4, hidden=8)).eval()"""
SHOW = "Inspector(image, {'patch CNN': network})"
SAID = "patch CNN: output pixel (16, 16)"
IDLE = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""

SHUTDOWN = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => true)"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address and the folder of a JupyterLab of its own."""
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    names = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
    own = {name: str(folder / name) for name in names} | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    subprocess.run([sys.executable, ROOT / "postBuild"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1"]
    options += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.port={port}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"],
            env=os.environ | own | {"PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        yield address, folder
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def notebook(lab, chromium, request):
    """notebook(inspectors) opens a new notebook with so many of them, and runs it."""
    (address, folder), name = lab, f"{request.node.name}.ipynb"
    page = chromium.new_page(viewport={"width": 1200, "height": 1600})
    page.set_default_timeout(20_000)

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


def ready(page):
    page.wait_for_function("!!window.jupyterapp")
    page.evaluate("() => window.jupyterapp.restored.then(() => true)")
    page.wait_for_function(IDLE)


def run_all(page):
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")


def save(page, path):
    """Wait for the file, in which every inspector has a picture and a widget."""
    page.evaluate("() => { window.jupyterapp.commands.execute('docmanager:save'); }")
    for _ in range(40):
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
    assert SAID in page.locator(".jp-RenderedMarkdown").last.inner_text()
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


def test_a_link_into_a_chapter_lands_on_its_cell(lab, chromium):
    address, folder = lab
    for file in ("00_the_question.ipynb", "03_fully_convolutional.ipynb"):
        shutil.copy(ROOT / "notebooks" / file, folder)
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(20_000)
    page.goto(f"{address}/lab/tree/00_the_question.ipynb?reset")
    ready(page)
    page.get_by_text("costs a few hundred times more").click()
    in_the_upper_half = """() => [...document.querySelectorAll("h2")].some(
        heading => heading.textContent.startsWith("What it saves")
            && heading.getBoundingClientRect().top > 0 && heading.getBoundingClientRect().top < 450)"""
    page.wait_for_function(in_the_upper_half)
    page.evaluate(SHUTDOWN)
    page.close()
