"""The inspector in a real JupyterLab: two in one notebook, hover, keys, click, and a saved notebook again."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.xdist_group("browser")

MAKE = """import torch
from utils.inspector import Inspector
from utils.models import PatchNet, a_trous
torch.manual_seed(0)
image, network = torch.rand(48, 48), a_trous(PatchNet(17, width=4, hidden=8)).eval()"""
SHOW = "Inspector(image, {'patch CNN': network})"
IDLE = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab of its own, with a notebook of two inspectors."""
    folder = tmp_path_factory.mktemp("lab")
    cells = [nbformat.v4.new_code_cell(source, id=f"cell{k}") for k, source in enumerate([MAKE, SHOW, SHOW])]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "two.ipynb")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    names = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
    own = {name: str(folder / name) for name in names} | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1"]
    options += [
        "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={folder}",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
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
        yield address
    finally:
        server.terminate()
        server.wait(30)


def ready(page):
    page.wait_for_function("!!window.jupyterapp")
    page.evaluate("() => window.jupyterapp.restored.then(() => true)")
    page.wait_for_function(IDLE)


def run_all(page):
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function("document.querySelectorAll('.patch-output').length === 2")


@pytest.fixture
def notebook(lab, chromium):
    page = chromium.new_page(viewport={"width": 1200, "height": 1600})
    page.set_default_timeout(20_000)
    page.goto(f"{lab}/lab/tree/two.ipynb?reset")
    ready(page)
    yield page
    page.close()


def test_two_inspectors_in_one_notebook(notebook):
    page = notebook
    run_all(page)
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


def test_a_saved_notebook_holds_a_picture_and_runs_again(notebook, lab):
    page = notebook
    run_all(page)
    page.evaluate("() => { window.jupyterapp.commands.execute('docmanager:save'); }")
    for _ in range(60):
        with urllib.request.urlopen(f"{lab}/api/contents/two.ipynb", timeout=10) as reply:
            saved = json.load(reply)["content"]["cells"]
        if saved[1]["outputs"]:
            break
        time.sleep(0.5)
    for cell in saved[1:]:
        (output,) = cell["outputs"]
        assert len(output["data"]["image/png"]) > 5000
        assert "patch CNN: output pixel (16, 16)" in "".join(output["data"]["text/plain"])
    page.reload()
    ready(page)
    run_all(page)
    page.locator(".patch-output").first.click(position={"x": 40, "y": 40})
    page.get_by_text("from the patch alone").first.wait_for()
