"""The training loop is reproducible and resumable, and the recipes store what was learned, whole."""

import itertools
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from experiments import recipes
from experiments.recipes import (
    NETWORKS,
    RECIPES,
    border_weights,
    recipe_of,
    train_and_store,
    weighted_cross_entropy,
)
from utils import networks, training
from utils.data import Pictures, micrographs
from utils.networks import (
    SHIPPED,
    WEIGHTS,
    PatchNet,
    command,
    for_whole_images,
    trained,
    weights_file,
    with_weights,
)
from utils.training import train
from utils.windows import random_crops, random_patches


def noise(count, size):
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (count, size, size), generator=random)
    return Pictures(torch.rand(count, 1, size, size, generator=random), labels, tuple("abc"))


PICTURES = noise(2, 24)


def network():
    torch.manual_seed(3)
    return PatchNet(5, width=4, hidden=4)


def weights(net):
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    draw = random_patches(PICTURES, 5, batch=16)
    results = []
    for seed in (0, 0, 1):
        net = network()
        train(net, draw, 5, seed=seed)
        results.append(weights(net))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_it_learns():
    torch.manual_seed(0)
    easy = Pictures(PICTURES.labels[:, None].float(), PICTURES.labels, PICTURES.classes)
    pixelwise = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    losses = train(pixelwise, random_crops(easy, 8), 300, learning_rate=0.03)
    assert sum(losses[-10:]) / 10 < 0.1 < losses[0]


class Interrupted(Exception):
    """What a reader's Ctrl-C does, at a step of our choice."""


def stops_at(step, draw):
    calls = 0

    def interrupted(random):
        nonlocal calls
        calls += 1
        if calls > step:
            raise Interrupted
        return draw(random)

    return interrupted


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 4)
    draw, path = random_patches(PICTURES, 5, batch=16), tmp_path / "run"
    whole = network()
    train(whole, draw, 12)
    with pytest.raises(Interrupted):
        train(network(), stops_at(10, draw), 12, checkpoint=path)
    resumed = network()
    losses = train(resumed, draw, 12, checkpoint=path)
    assert len(losses) == 4, "eight steps were stored and need not be done again"
    assert torch.equal(weights(resumed), weights(whole))
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 13}, {"learning_rate": 0.1}])
def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path, monkeypatch, change):
    monkeypatch.setattr(training, "SAVE_EVERY", 4)
    draw, path = random_patches(PICTURES, 5, batch=16), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(network(), stops_at(6, draw), 12, checkpoint=path)
    losses = train(network(), draw, **{"steps": 12} | change, checkpoint=path)
    assert len(losses) == change.get("steps", 12)


def test_a_damaged_checkpoint_starts_clean(tmp_path):
    path = tmp_path / "run"
    path.write_bytes(b"half a file")
    assert len(train(network(), random_patches(PICTURES, 5, batch=16), 3, checkpoint=path)) == 3


def test_the_network_comes_back_in_eval_mode_on_the_cpu():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
    train(net, random_crops(PICTURES, 8), 2)
    assert not net.training
    assert not net[1].training
    assert net[0].weight.device.type == "cpu"


# --- the weights that come with the series ---------------------------------------------------------------

MADE_BY_READERS = {"unet-weighted", "real-deconvnet"}  # a recipe, and no weights: 8 MB are not enough
SEEDS = {0: "", 1: "-seed-1", 2: "-seed-2"}  # and how they are called in a file's name


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in MADE_BY_READERS])
def test_weights_come_with_the_series(name):
    """Each file loads into its network, and says which command made it; no two seeds gave the same."""
    found = []
    for seed, suffix in SEEDS.items():
        path = WEIGHTS / f"{name}{suffix}.safetensors"
        assert path == weights_file(name, seed)
        if seed and not path.exists():
            continue  # only some are trained more than once
        net = with_weights(NETWORKS[name](), name, seed)
        assert not net.training
        with safe_open(path, "pt") as file:
            seeded = f" --seed {seed}" if seed else ""
            made = f"python -m experiments.recipes {name}{seeded}"
            assert file.metadata()["command"] == command(name, seed) == made
        assert {weight.dtype for weight in load_file(path).values()} <= {torch.float16, torch.int64}
        assert weights(net).isfinite().all()
        found.append(weights(net))
    for one, other in itertools.combinations(found, 2):
        assert not torch.equal(one, other)


def test_every_network_has_a_recipe():
    others = {"unet-blurred", "dtn", "dtn-rival", "transformer", "transformer-in-windows", "real-affinities"}
    others |= MADE_BY_READERS
    assert RECIPES.keys() == NETWORKS.keys() == {*SHIPPED, *others}
    for name, network in SHIPPED.items():
        assert NETWORKS[name] is network


def test_every_file_of_weights_belongs_to_a_recipe():
    expected = {f"{name}{suffix}.safetensors" for name in RECIPES for suffix in SEEDS.values()}
    assert {path.name for path in WEIGHTS.glob("*.safetensors")} <= expected


def test_all_weights_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 8_000_000


@pytest.mark.parametrize("name", ["patch-65", "fcn-8s", "unet"])
def test_half_precision_changes_hardly_a_class(name):
    """What rounding did once, done again: every weight moves by up to 2^-11 of itself."""
    network, image = for_whole_images(trained(name)), micrographs("test").images[:1]
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        before = network(image).argmax(1)
        for weight in network.parameters():
            weight *= 1 + 2**-11 * (2 * torch.rand(weight.shape, generator=random) - 1)
        assert (network(image).argmax(1) != before).float().mean() < 1e-3


def test_unknown_and_missing_weights(tmp_path, monkeypatch):
    for unknown in ("u-net", "unet-seed-1"):
        with pytest.raises(ValueError, match=f"no network called '{unknown}'; choose one of patch-5, "):
            trained(unknown)
        with pytest.raises(ValueError, match=f"no network called '{unknown}'; choose one of patch-5, .*dtn"):
            recipe_of(unknown)
    monkeypatch.setattr(networks, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"make it with `python -m experiments\.recipes patch-9`"):
        trained("patch-9")
    with pytest.raises(FileNotFoundError, match=r"unet-seed-2\.safetensors.*\.recipes unet --seed 2`"):
        trained("unet", seed=2)


@pytest.fixture
def quickly(tmp_path, monkeypatch):
    """Recipes of two steps on squares of noise, stored in an empty folder; gives it and what was trained."""
    small, learners = noise(1, 10), []
    labels = small.labels.repeat_interleave(16, -1).repeat_interleave(16, -2)
    squares = small._replace(images=torch.rand(1, 1, 160, 160), labels=labels)
    monkeypatch.setattr(networks, "WEIGHTS", tmp_path)
    monkeypatch.setattr(recipes, "micrographs", lambda split: squares)
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, recipe._replace(steps=2))

    def remember(learner, *args, **options):
        losses = train(learner, *args, **options)
        learners.append(deepcopy(learner))
        return losses

    monkeypatch.setattr(recipes, "train", remember)
    return tmp_path, learners


@pytest.mark.parametrize("name", ["patch-9", "patch-17", "fcn-8s", "segnet", "unet", "unet-weighted"])
def test_stored_weights_are_those_that_were_learned(name, quickly):
    """A patch net learns in its dense form: what is stored must give the same scores as what learned."""
    folder, learners = quickly
    train_and_store(name)
    network = with_weights(NETWORKS[name](), name)
    learned, stored = weights(learners[0]), weights(network)
    # Half precision keeps 11 bits, and of the smallest numbers what lies above 2^-24; both are rounded.
    assert ((stored - learned).abs() <= learned.abs() * 2**-11 + 2**-25).all()
    assert not torch.equal(stored, learned)
    side = getattr(network, "window", 64)
    image = torch.rand(2, 1, side, side).double()  # in float32 rounding can move a switch of the pooling
    with torch.no_grad():
        scores, same = network.double()(image), learners[0].half().double()(image)
    torch.testing.assert_close(scores, same.view_as(scores), rtol=1e-9, atol=1e-12)
    assert [path.name for path in folder.iterdir()] == [f"{name}.safetensors"]


def test_every_seed_has_weights_and_a_file_of_its_own(quickly):
    folder, learners = quickly
    for seed in (0, 1, 2, 1):
        train_and_store("patch-9", seed)
    assert {path.name for path in folder.iterdir()} == {
        *("patch-9.safetensors", "patch-9-seed-1.safetensors", "patch-9-seed-2.safetensors")
    }
    zero, one, two, again = map(weights, learners)
    assert torch.equal(one, again)
    for seed, learned in enumerate((zero, one, two)):
        torch.testing.assert_close(weights(trained("patch-9", seed)), learned, rtol=2**-11, atol=2**-25)
    assert not torch.equal(zero, one) and not torch.equal(one, two) and not torch.equal(zero, two)


def test_a_seed_decides_the_first_weights_and_the_batches(quickly, monkeypatch):
    started = []

    def start(learner, *args, seed, **options):
        started.append((seed, weights(learner)))

    monkeypatch.setattr(recipes, "train", start)
    for seed in (0, 1, 0):
        train_and_store("unet", seed)
    assert [seed for seed, _ in started] == [0, 1, 0]
    assert torch.equal(started[0][1], started[2][1]) and not torch.equal(started[0][1], started[1][1])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("unet", [("unet", 0)]),
        ("patch-9 unet --seed 2", [("patch-9", 2), ("unet", 2)]),
        ("--seed 1 fcn-8s", [("fcn-8s", 1)]),
        ("", []),
    ],
)
def test_the_command_trains_what_it_names_and_lists_what_there_is(line, expected, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(recipes, "train_and_store", lambda name, seed: asked.append((name, seed)))
    monkeypatch.setattr(sys, "argv", ["recipes", *line.split()])
    recipes.main()
    assert asked == expected
    assert capsys.readouterr().out.split() == ([] if line else [*RECIPES])


def test_the_command_refuses_a_seed_that_is_no_number(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recipes", "unet", "--seed", "one"])
    with pytest.raises(SystemExit):
        recipes.main()
    assert "argument --seed: invalid int value: 'one'" in capsys.readouterr().err


# --- losses ----------------------------------------------------------------------------------------------


def membranes(*pictures):
    """Labels (N, H, W) from rows of text, where `#` is the membrane, class 1."""
    return torch.tensor([[[int(pixel == "#") for pixel in row] for row in rows] for rows in pictures])


THREE_CELLS = "1111#222", "1111#222", "111##222", "#####222", "33333###", "3333333#"  # 2, 3 touch at a corner
ONE_CELL = "1111####", "1111####", "1111####", "########", "########", "########"


def test_border_weights_are_equation_2():
    cells = np.array([list(row) for row in THREE_CELLS])
    weights = border_weights(membranes(THREE_CELLS), w0=7, sigma=1.5)[0]
    share = (cells == "#").mean()
    for at in np.ndindex(cells.shape):
        if cells[at] != "#":
            assert weights[at].item() == pytest.approx(0.5 / (1 - share))
            continue
        first, second, _ = sorted(
            min(np.hypot(*(place - at)) for place in np.argwhere(cells == cell)) for cell in "123"
        )
        extra = 7 * np.exp(-((first + second) ** 2) / (2 * 1.5**2))
        assert weights[at].item() == pytest.approx(0.5 / share + extra)


def test_without_their_extra_both_sides_of_the_membrane_weigh_alike_in_every_picture():
    labels = membranes(THREE_CELLS, ONE_CELL)
    for label, weights in zip(labels, border_weights(labels, w0=0), strict=True):
        assert weights[label == 1].sum().item() == pytest.approx(weights[label == 0].sum().item())
        assert weights.mean().item() == pytest.approx(1)


def test_one_cell_has_no_border_to_another():
    labels = membranes(ONE_CELL)
    assert torch.equal(border_weights(labels), border_weights(labels, w0=0))


@pytest.mark.parametrize("everything", [0, 1])
def test_no_membrane_or_nothing_else_weighs_alike_everywhere(everything):
    weights = border_weights(torch.full((2, 5, 6), everything))
    assert weights.dtype == torch.float32 and weights.shape == (2, 5, 6)
    torch.testing.assert_close(weights, torch.full((2, 5, 6), 0.5))


def test_the_membrane_is_the_class_that_is_named():
    labels = membranes(THREE_CELLS)
    assert torch.equal(border_weights(labels), border_weights(2 - 2 * labels, membrane=0))


def test_weighted_cross_entropy_counts_pixels_by_their_weights():
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 3, 5, 6), torch.randint(3, (2, 5, 6))

    def weighted(weights):
        return weighted_cross_entropy(scores, torch.stack([labels.float(), weights], dim=1))

    for all_alike in (1.0, 7.0):
        torch.testing.assert_close(
            weighted(torch.full(labels.shape, all_alike)), F.cross_entropy(scores, labels)
        )
    mask = torch.rand(labels.shape) > 0.6
    masked = F.cross_entropy(scores.permute(0, 2, 3, 1)[mask], labels[mask])
    torch.testing.assert_close(weighted(mask.float()), masked)


def test_the_weighted_recipe_draws_classes_and_the_weights_of_their_borders(quickly):
    recipe = RECIPES["unet-weighted"]
    pictures = recipe.pictures()
    images, targets = recipe.draw(pictures)(torch.Generator().manual_seed(0))
    assert images.shape == (8, 1, 128, 128) and targets.shape == (8, 2, 128, 128)
    assert set(targets[:, 0].unique().tolist()) == {0, 1, 2}
    assert set(targets[:, 1].unique().tolist()) <= set(pictures.labels[:, 1].unique().tolist())
    assert (targets[:, 1][targets[:, 0] == 1] > targets[:, 1][targets[:, 0] != 1].max()).all()
