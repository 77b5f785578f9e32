"""The training loop: reproducible, resumable, and what it stores is whole."""

import pytest
import torch
from safetensors import safe_open
from torch import nn

from utils import training
from utils.data import Pictures
from utils.models import PatchNet
from utils.patches import random_crops, random_patches
from utils.training import RECIPES, WEIGHTS, Adam, train, train_and_store, trained


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


def test_adam_is_adam():
    weight, other = (torch.linspace(-1, 1, 5, requires_grad=True) for _ in range(2))
    ours, theirs = Adam([weight]), torch.optim.Adam([other], lr=0.1)
    for number in range(1, 20):
        for each in (weight, other):
            each.grad = None
            (each**4 - each).sum().backward()
        ours.step(number, 0.1)
        theirs.step()
    torch.testing.assert_close(weight, other)


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


@pytest.mark.parametrize("name", RECIPES)
def test_weights_come_with_the_series(name):
    """Each file loads into its network, and says which command made it."""
    net = trained(name)
    assert not net.training
    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        assert file.metadata()["command"] == f"python -m utils.training {name}"
    assert weights(net).isfinite().all()


def test_all_weights_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 8_000_000


def test_unknown_and_missing_weights(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no network called 'unet'; choose one of patch-5, "):
        trained("unet")
    monkeypatch.setattr(training, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"make it with `python -m utils\.training patch-9`"):
        trained("patch-9")


@pytest.mark.parametrize("name", ["patch-9", "patch-17", "fcn-8s"])
def test_stored_weights_are_those_that_were_learned(name, tmp_path, monkeypatch):
    """A patch net learns in its dense form: what is stored must give the same scores as what learned."""
    learners = []
    monkeypatch.setattr(training, "WEIGHTS", tmp_path)
    monkeypatch.setattr(training, "micrographs", lambda split: noise(1, 160))

    def remember(learner, *args, **options):
        learners.append(learner)
        return train(learner, *args, **options)

    monkeypatch.setattr(training, "train", remember)
    monkeypatch.setitem(RECIPES, name, RECIPES[name]._replace(steps=2))
    train_and_store(name)
    side = getattr(trained(name), "window", 64)
    image = torch.rand(2, 1, side, side)
    with torch.no_grad():
        scores, learned = trained(name)(image), learners[0](image)
    torch.testing.assert_close(scores, learned.view_as(scores), rtol=1e-4, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.safetensors"]
