"""Who may look at test pictures: what tells a number, and nothing that makes a choice."""

import ast
from pathlib import Path

import pytest
import torch

from experiments import recipes
from experiments.recipes import RECIPES
from utils.data import Pictures

ROOT = Path(__file__).parents[2]

# The functions that name the split "test", all of which tell a number and decide nothing.
TOLD = {
    "experiments/comparison.py": {"quality", "patch", "seconds_per_image", "table", "figure"},
    "experiments/trial.py": {"main"},
    "experiments/factors.py": {"measured"},
    "benchmarks/training.py": {"main"},
}


def naming_test(path):
    """The functions of a file that hold the string "test"."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if any(isinstance(each, ast.Constant) and each.value == "test" for each in ast.walk(node)):
            yield getattr(node, "name", "the module itself")


@pytest.mark.parametrize("folder", ["experiments", "benchmarks"])
def test_test_pictures_are_read_where_numbers_are_told_and_nowhere_else(folder):
    for path in sorted((ROOT / folder).glob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name != "experiments/tissue.py":  # which draws them
            assert set(naming_test(path)) <= TOLD.get(name, set()), name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_learns_from_training_pictures(name, monkeypatch):
    asked = []

    def pictures(*arguments):
        asked.append(arguments[-1])
        return Pictures(torch.zeros(1, 1, 8, 8), torch.eye(8, dtype=torch.int64)[None], ("a", "b"))

    monkeypatch.setattr(recipes, "micrographs", pictures)
    monkeypatch.setattr(recipes, "isbi2012", pictures)
    monkeypatch.setattr(recipes, "isbi2012_folder", lambda: Path("anywhere"))
    RECIPES[name].pictures()
    assert asked == ["train"]
