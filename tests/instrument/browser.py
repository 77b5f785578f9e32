"""A real browser, and a real JupyterLab in it: fixtures for all folders, and what pages are asked."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import pixelpatch

SECONDS = 60  # that a page may take, on a slow and busy machine too
IDLE = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
SHUTDOWN = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => true)"


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        missing = "no Chromium on this machine: install one, such as Debian's chromium, to test the inspector"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, which steers a browser, is missing"
    )
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=1000 * SECONDS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address and the folder of a JupyterLab of its own."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    names = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
    own = {name: str(folder / name) for name in names} | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    own["PYTHONPATH"] = str(Path(pixelpatch.__file__).parents[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1"]
    options += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.port={port}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"],
            env=os.environ | own,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=SECONDS).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        yield address, folder
    finally:
        server.terminate()
        server.wait(SECONDS)


def ready(page):
    """Wait until the notebook in the page is open and its kernel idle."""
    page.wait_for_function("!!window.jupyterapp")
    page.evaluate("() => window.jupyterapp.restored.then(() => true)")
    page.wait_for_function(IDLE)


def contrast(locator):
    """Of a text to what is painted below it: 1 to 21, by WCAG 2."""
    script = """node => {
        const ink = getComputedStyle(node).color;
        while (getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)") node = node.parentElement;
        return [ink, getComputedStyle(node).backgroundColor];
    }"""
    dark, light = sorted(map(luminance, locator.evaluate(script)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    linear = [(int(value) / 255) ** 2.2 for value in re.findall(r"\d+", colour)[:3]]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))
