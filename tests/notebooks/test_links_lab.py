"""Links between the chapters in a real JupyterLab, set up as `make lab` and Binder do it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from instrument.browser import SECONDS, SHUTDOWN, ready

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def settings():
    """What `postBuild` tells the JupyterLab of this Python."""
    subprocess.run([sys.executable, ROOT / "postBuild"], check=True)


def test_a_link_into_a_chapter_lands_on_its_cell(settings, lab, chromium):
    address, folder = lab
    for file in ("00_the_question.ipynb", "03_fully_convolutional.ipynb"):
        shutil.copy(ROOT / "notebooks" / file, folder)
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(1000 * SECONDS)
    page.goto(f"{address}/lab/tree/00_the_question.ipynb?reset")
    ready(page)
    page.get_by_text("costs a few hundred times more").click()
    in_the_upper_half = """() => [...document.querySelectorAll("h2")].some(
        heading => heading.textContent.startsWith("What it saves")
            && heading.getBoundingClientRect().top > 0 && heading.getBoundingClientRect().top < 450)"""
    page.wait_for_function(in_the_upper_half)
    page.evaluate(SHUTDOWN)
    page.close()
