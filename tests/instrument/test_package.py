"""What a user of the package relies on: little is imported, all is annotated, and the examples are true."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pixelpatch

HEAVY = {"matplotlib", "anywidget", "IPython", "torchvision"}  # which the core does without


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_importing_it_imports_nothing_that_the_core_does_without():
    done = python(f"import sys, pixelpatch; print(*sorted({HEAVY!r} & sys.modules.keys()))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_the_inspector_says_what_to_install():
    done = python("import sys; sys.modules['anywidget'] = None; from pixelpatch import Inspector")
    assert "ModuleNotFoundError: the inspector needs anywidget" in done.stderr
    assert "pip install 'pixelpatch[widget]'" in done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pixelpatch' has no attribute 'inspect'"):
        _ = pixelpatch.inspect


def test_type_checkers_find_its_annotations():
    assert Path(pixelpatch.__file__).with_name("py.typed").exists()


# --- every public name -------------------------------------------------------------------------------------


def public(name):
    """A name of the package; a skip where what it needs is not installed."""
    if name == "Inspector":
        for needed in ("anywidget", "matplotlib", "IPython"):
            pytest.importorskip(needed, reason="the widget needs pixelpatch[widget]")
    return getattr(pixelpatch, name)


def functions_of(thing):
    """What is to be annotated: a function itself; of a class how it is made, its methods and properties."""
    if inspect.isfunction(thing):
        return [thing]
    own = {name: each for name, each in vars(thing).items() if name == "__init__" or name[0] != "_"}
    found = [getattr(each, "fget", None) or getattr(each, "func", None) or each for each in own.values()]
    return [each for each in found if inspect.isfunction(each) and each.__module__ == thing.__module__]


@pytest.mark.parametrize("name", pixelpatch.__all__)
def test_public_names_resolve_and_are_annotated(name):
    thing = public(name)
    assert thing.__module__.startswith("pixelpatch.")
    for function in functions_of(thing):
        form = inspect.signature(function)
        named = [each for each in form.parameters.values() if each.name not in ("self", "cls")]
        bare = [each.name for each in named if each.annotation is each.empty]
        if function.__name__ != "__init__" and form.return_annotation is form.empty:
            bare.append("what it returns")
        assert bare == [], function.__qualname__


# --- the examples ------------------------------------------------------------------------------------------


def modules():
    """Every module of the package that can be imported here."""
    for found in pkgutil.walk_packages(pixelpatch.__path__, "pixelpatch."):
        try:
            yield importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] in HEAVY | {"traitlets"}, found.name


def test_the_examples_are_true(monkeypatch):
    monkeypatch.setattr("pixelpatch.tiles.progress", lambda work, **_: work)  # a bar would count as an answer
    results = [doctest.testmod(module) for module in [pixelpatch, *modules()]]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 5
