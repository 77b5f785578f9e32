"""The ways to set the project up agree with each other, and fail in one clear sentence."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def requirements(*extras):
    """What pip installs for these extras; an extra that names this project stands for the extras it names."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for line in (line for extra in extras for line in PROJECT["optional-dependencies"][extra]):
        requirement = Requirement(line)
        own = requirement.name == PROJECT["name"]
        found += requirements(*requirement.extras) if own else [requirement]
    return found


# --- what the files say ----------------------------------------------------------------------------------


def conda_specs():
    return [spec for spec in ENVIRONMENT["dependencies"] if isinstance(spec, str)]


def test_conda_asks_for_what_pip_asks_for():
    wanted = {CONDA_NAMES.get(each.name, each.name): str(each.specifier) for each in requirements("lab")}
    got = dict(spec.split(" ") for spec in conda_specs() if not re.match(r"python=|pip$", spec))
    assert got == wanted


def test_conda_python_is_one_that_pip_accepts():
    (python,) = [spec for spec in conda_specs() if spec.startswith("python")]
    assert python.partition("=")[2] in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("spec", conda_specs())
def test_conda_can_read(spec):
    MatchSpec(spec, strict=True)


def test_conda_installs_the_project_itself():
    assert {"pip": ["-e ."]} in ENVIRONMENT["dependencies"]
    assert "pip" in conda_specs()


def locked():
    """Every locked version by name; a package may be locked at several, for several Pythons."""
    versions = {}
    for line in LOCK:
        requirement = Requirement(line)
        versions.setdefault(requirement.name, []).append(str(requirement.specifier).removeprefix("=="))
    return versions


def test_lock_satisfies_every_dependency():
    versions = locked()
    for requirement in requirements("test", "lock"):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in requirements.lock; call make lock"
        unfit = [version for version in versions[name] if version not in requirement.specifier]
        assert not unfit, f"{name} {unfit} is not {requirement.specifier}; call make lock"


def test_lock_holds_names_versions_and_markers_only():
    assert [line for line in LOCK if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[\w.]+( ; [^@]+)?", line)] == []
    assert [line for line in LOCK if re.match("nvidia|cuda|triton", line) or "http:" in line] == []


def test_torch_and_torchvision_fit_each_other():
    code = "import torch, torchvision; torchvision.ops.nms(torch.ones(1, 4), torch.ones(1), 0.5)"
    result = run([sys.executable, "-c", code])
    assert result.returncode == 0, result.stderr


# --- the wheel: the instrument, and nothing else ---------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = run(build, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    return ZipFile(path)


def test_wheel_holds_the_instrument_alone(wheel):
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"pixelpatch"}
    tracked = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "pixelpatch"], cwd=ROOT)
    assert sorted(names) == sorted(tracked.stdout.split())


def test_wheel_needs_torch_and_numpy_alone(wheel):
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    lines = Parser().parsestr(wheel.read(metadata).decode())
    wanted = [Requirement(line) for line in lines.get_all("Requires-Dist")]
    assert {each.name for each in wanted if each.marker is None} == {"torch", "numpy"}
    assert set(lines.get_all("Provides-Extra")) == {"widget", "lab", "teach", "test", "lock"}


@pytest.mark.parametrize("package", ["pixelpatch", "utils", "experiments", "grading"])
def test_editable_install_serves_notebooks_in_any_folder(package, tmp_path):
    result = run([sys.executable, "-c", f"import {package}; print({package}.__file__)"], cwd=tmp_path)
    assert result.stdout.strip() == str(ROOT / package / "__init__.py"), result.stderr


def test_utils_is_read_in_one_sitting():
    lines = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "utils").glob("*.py")}
    drawn = sum(lines.get(name, 0) for name in ("drawings.py", "knobs.py"))
    assert sum(lines.values()) - drawn <= 1100 and drawn <= 400, lines


# --- what Binder would build -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory):
    """The Dockerfile that repo2docker makes of the project's files, and what it logs about it."""
    copy = tmp_path_factory.mktemp("binder") / "project"
    files = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).symlink_to(ROOT / name)
    result = run([sys.executable, "-m", "repo2docker", "--no-build", "--no-run", "--debug", str(copy)])
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_binder_uses_the_conda_environment(dockerfile):
    (python,) = [spec for spec in conda_specs() if spec.startswith("python=")]
    assert f"Building conda environment for {python}" in dockerfile


def test_binder_copies_the_project_before_it_installs_it(dockerfile):
    copied, updated = (re.search(pattern, dockerfile) for pattern in ("\nCOPY .* src/ ", "env update -p"))
    assert copied.start() < updated.start()


def test_binder_tells_lab_how_to_show_notebooks(dockerfile):
    assert "./postBuild" in dockerfile


def test_binder_opens_a_file_that_exists():
    (path,) = re.findall(r"urlpath=lab/tree/([\w/.]+\w)", (ROOT / "README.md").read_text())
    assert (ROOT / path).is_file()


# --- make, with stand-ins for Python and pip -------------------------------------------------------------

PYTHON = """#!/bin/sh
# A stand-in: new enough, with venv and pip, all of which do as the test says.
case "$*" in
*version_info*) {new_enough} ;;
--version) echo Python {version} ;;
*"import venv"*) {has_venv} ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*"pip install"*) echo "$*" >>"{log}"; {pip} ;;
*) : ;;
esac
"""
TOOLS = ("awk", "cat", "cksum", "cp", "df", "id", "ls", "mkdir", "rm", "sed", "sh", "touch", "uname")


class Project:
    """The project's set-up in a folder of its own, on a machine whose only Python is a stand-in."""

    def __init__(self, folder):
        self.folder, self.bin, self.log = folder / "project", folder / "bin", folder / "log"
        self.folder.mkdir()
        self.bin.mkdir()
        for name in ("Makefile", "install.sh", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, self.folder)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.python()

    def python(self, new_enough="exit 0", version="3.12.1", has_venv="exit 0", pip="exit 0"):
        script = PYTHON.format(
            new_enough=new_enough, version=version, has_venv=has_venv, pip=pip, log=self.log
        )
        (self.bin / "python3").write_text(script)
        (self.bin / "python3").chmod(0o755)

    def make(self, *arguments):
        environment = {"PATH": str(self.bin), "HOME": str(self.folder)}
        return run([shutil.which("make"), *(arguments or ["lab"])], cwd=self.folder, env=environment)

    def installs(self):
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def complaint(result):
    """What a failing make says, without its own closing line; empty if it did not fail."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    return "\n".join(lines) if result.returncode else ""


def test_installs_locked_versions_and_heeds_more_arguments_of_pip(project):
    assert project.make("test", "PIP_ARGS=--extra-index-url ADDRESS").returncode == 0
    expected = "-m pip install --constraint requirements.lock --extra-index-url ADDRESS --editable .[test]\n"
    assert project.log.read_text() == expected


def test_second_call_installs_nothing(project):
    assert project.make().returncode == 0
    assert project.make().returncode == 0
    assert project.installs() == 1


def test_set_of_the_tests_contains_that_of_the_lab(project):
    assert project.make("test").returncode == 0
    assert project.make("lab").returncode == 0
    assert project.installs() == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_changed_dependencies_are_installed(project, name):
    project.make()
    with (project.folder / name).open("a") as file:
        file.write("# changed\n")
    project.make()
    assert project.installs() == 2


def test_touched_files_install_nothing(project):
    project.make()
    (project.folder / "pyproject.toml").touch()
    project.make()
    assert project.installs() == 1


def test_old_python(project):
    project.python(new_enough="exit 1", version="3.9.2")
    assert complaint(project.make()) == (
        "Python 3.9.2 was found, but 3.11 or newer is needed: "
        "install one, or name it, as in make lab PYTHON=python3.12"
    )
    assert not (project.folder / ".venv").exists()


def test_no_python(project):
    (project.bin / "python3").unlink()
    assert complaint(project.make()).startswith("No Python was found, but 3.11 or newer is needed")


def test_newer_python_beside_an_old_one(project):
    (project.bin / "python3").rename(project.bin / "python3.12")
    (project.bin / "python3").write_text("#!/bin/sh\nexit 1\n")
    (project.bin / "python3").chmod(0o755)
    assert project.make().returncode == 0


def test_no_venv_module(project):
    project.python(has_venv="exit 1")
    assert complaint(project.make()) == (
        "Python 3.12.1 has no venv module, but the packages need one to stay apart from others: install it "
        "(on Debian and Ubuntu: apt install python3-venv), then call make lab again."
    )


def test_full_disk(project):
    project.python(pip='echo "OSError: [Errno 28] No space left on device" >&2; exit 1')
    said = complaint(project.make())
    assert re.fullmatch(
        r"\d+ MB of disk are free, but up to 8000 MB are needed: free some, then call make lab again.", said
    )
    assert not (project.folder / ".venv").exists()
    project.python()
    assert project.make().returncode == 0


def test_nearly_full_disk_is_told_before_anything_is_fetched(project):
    (project.bin / "df").unlink()
    (project.bin / "df").write_text("#!/bin/sh\necho header\necho disk 9999999 9999999 204800 99% /\n")
    (project.bin / "df").chmod(0o755)
    assert complaint(project.make()).startswith("200 MB of disk are free")
    assert project.installs() == 0


def test_no_network(project):
    project.python(pip='echo "WARNING: Retrying (Retry(total=4)) after connection broken" >&2; exit 1')
    said = complaint(project.make())
    assert said == "No package can be fetched without the network: connect, then call make lab again."


def test_other_failures_of_pip_are_shown(project):
    project.python(pip='echo "ERROR: something else" >&2; exit 1')
    said = complaint(project.make())
    assert said == (
        "ERROR: something else\n"
        "Installing into .venv failed for the reason above: mend it, then call make lab again."
    )


def made_anew_after_an_interruption(project):
    assert project.make().returncode != 0
    leftover = project.folder / ".venv" / "leftover"
    leftover.touch()
    project.python()
    assert project.make().returncode == 0
    return not leftover.exists()


def test_interrupted_install_is_made_anew(project):
    project.python(pip="kill -9 $PPID; exit 1")
    assert made_anew_after_an_interruption(project)


def test_interrupted_update_is_made_anew(project):
    project.make()
    (project.folder / "requirements.lock").write_text("changed==1\n")
    project.python(pip="kill -9 $PPID; exit 1")
    shutil.copy(project.bin / "python3", project.folder / ".venv" / "bin" / "python")
    assert made_anew_after_an_interruption(project)


def test_failed_update_keeps_what_was_there(project):
    project.make()
    kept = project.folder / ".venv" / "kept"
    kept.touch()
    project.python(pip="exit 1")
    shutil.copy(project.bin / "python3", project.folder / ".venv" / "bin" / "python")
    assert project.make("test").returncode != 0
    assert kept.exists()
    assert project.make("lab").returncode == 0


def test_help_lists_every_target(project):
    targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    listed = [line.split("\t")[0] for line in project.make("help").stdout.splitlines()]
    assert listed == targets


@pytest.mark.parametrize("notebooks, first", [(["01_b", "00_a"], "00_a"), (["03_c", "01_b"], "01_b")])
def test_lab_opens_the_first_notebook(project, notebooks, first):
    (project.folder / "notebooks").mkdir()
    for name in notebooks:
        (project.folder / "notebooks" / f"{name}.ipynb").touch()
    environment = os.environ | {"DISPLAY": ":0"}
    shown = run(["make", "--dry-run", "lab"], cwd=project.folder, env=environment).stdout
    assert f"default_url=/lab/tree/notebooks/{first}.ipynb" in shown
    assert "--no-browser" not in shown


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_lab_on_a_machine_without_a_screen(project):
    project.make("lab")
    shown = project.make("--dry-run", "lab").stdout
    assert "--no-browser" in shown
    assert ("--allow-root" in shown) == (os.getuid() == 0)
