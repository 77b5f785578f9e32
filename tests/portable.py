"""Would another machine say the same? The notebooks and the numeric tests, executed as others would.

Two variables, of torch and of the oneDNN beneath it, leave a processor's newer instructions unused: "avx2" is
what most laptops compute with, "default" what the oldest do, slowly. Threads change the order of sums as
well, and a busy machine shows which limits of time are too tight.
"""

import argparse
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/instrument", "tests/series")
CHEAP = ["00", "02", "04", "06"]  # the chapters that take seconds


class Machine(NamedTuple):
    """A machine that this one can imitate, and the chapters that are executed on it."""

    capability: str | None  # of torch: ATEN_CPU_CAPABILITY
    instructions: str | None  # of oneDNN: ONEDNN_MAX_CPU_ISA
    threads: int
    chapters: list[str]  # how their names begin; [""] is all
    busy: int = 0  # processes that run beside
    tests: tuple[str, ...] = ()  # folders of numeric tests


MACHINES = {
    "AVX2": Machine("avx2", "AVX2", threads=2, chapters=[""], tests=TESTS),
    "SSE4.1": Machine("default", "SSE41", threads=2, chapters=CHEAP, tests=TESTS),
    "one thread": Machine(None, None, threads=1, chapters=[""]),
    "four threads": Machine(None, None, threads=4, chapters=[""]),
    "busy": Machine(None, None, threads=2, chapters=[""], busy=2),
}
QUICK = {"AVX2, quick": MACHINES["AVX2"]._replace(chapters=["02"], tests=TESTS[:1])}


@contextmanager
def beside(count):
    """Processes that keep a core busy each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def commands(machine):
    found = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in found:
        if any(path.name.startswith(each) for each in machine.chapters):
            yield [sys.executable, "-m", "experiments.notebooks", "--check", str(path.relative_to(ROOT))]
    if machine.tests:
        yield [sys.executable, "-m", "pytest", "-q", "-n", "2", *machine.tests]


def environment(machine):
    given = {"ATEN_CPU_CAPABILITY": machine.capability, "ONEDNN_MAX_CPU_ISA": machine.instructions}
    given["OMP_NUM_THREADS"] = str(machine.threads)
    return os.environ | {name: value for name, value in given.items() if value is not None}


def failures(name, machine):
    """What fails on a machine; one line for each command is printed as it ends."""
    failed = []
    with beside(machine.busy):
        for command in tqdm(list(commands(machine)), desc=name, leave=False, file=sys.stdout):
            done = subprocess.run(command, cwd=ROOT, env=environment(machine), capture_output=True, text=True)
            said = (done.stdout if done.returncode else done.stdout.strip().splitlines()[-1]) + done.stderr
            tqdm.write(f"{name}: {said}", file=sys.stdout)
            failed += [command] if done.returncode else []
    return failed


def main():
    parser = argparse.ArgumentParser(description="Execute notebooks and tests as other machines would.")
    parser.add_argument("names", nargs="*", metavar="MACHINE", help=f"of {', '.join(MACHINES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="one notebook and the numeric tests, with AVX2")
    arguments = parser.parse_args()
    known = QUICK if arguments.quick else MACHINES
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"there is no machine {unknown[0]!r}; choose of {', '.join(known)}")
    chosen = {name: known[name] for name in arguments.names or known}
    failed = {name: failures(name, machine) for name, machine in chosen.items()}
    for name, each in failed.items():
        print(f"{name}: {f'{len(each)} FAILED' if each else 'all as stored'}")
    return 1 if any(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
