"""Starts the worker within limits, and ends it with all that it started.

With bubblewrap (`bwrap`, Linux) the worker sees Python, the project's packages and `data`, an empty folder in
memory, and nothing else: no network, no other process, no file of the course. Without it there are limits, an
empty folder and, where the grader is root, a user of its own; more takes a container: the teachers' page says
how.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from .wire import Connection

PROJECT = Path(__file__).resolve().parent.parent
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache")
READABLE = (
    Path(sys.base_prefix),
    Path(sys.prefix),
    *(PROJECT / each for each in ("pixelpatch", "utils", "experiments", "grading", "data")),
)

MEMORY = 3 * 2**30  # torch and matplotlib take 0.9 GB of it
CPU_SECONDS = 240
PROCESSES = 64
FILE_SIZE = 50 * 2**20
FOLDER_SIZE = 200 * 2**20
USERS = range(61184, 65280)  # nobody's: systemd takes from these for services that need a user for a while


@functools.cache
def bubblewrap() -> tuple[str, ...]:
    """The command that hides everything, or nothing where it is not installed or not allowed."""
    if not (found := shutil.which("bwrap")):
        return ()
    command = [found, "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:  # to become another user inside; the others are in a namespace without rights anyway
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user"]
    command += ["--size", str(FOLDER_SIZE), "--perms", "1777", "--tmpfs", "/tmp"]
    for each in map(Path, SYSTEM):
        if each.is_symlink():
            command += ["--symlink", str(each.readlink()), str(each)]
        elif each.exists():
            command += ["--ro-bind", str(each), str(each)]
    for each in READABLE:
        for parent in reversed(each.parents[:-1]):
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind-try", str(each), str(each)]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    return tuple(command) if starts(command) else ()


def starts(command: list[str], user: int | None = None) -> bool:
    """Whether a worker could work there."""
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import grading.worker"
    tried = subprocess.run([*command, sys.executable, "-I", "-c", code], user=user, capture_output=True)
    return tried.returncode == 0


@functools.cache
def user() -> int | None:
    """A user to run the worker as: one for each process that grades, where that is root."""
    if os.getuid() != 0:
        return None
    number = USERS[os.getpid() % len(USERS)]
    if not bubblewrap():  # outside of it, Python may lie where that user cannot read
        return number if starts([], number) else None
    return number


def protections() -> str:
    """What keeps submissions in on this machine, in words."""
    if bubblewrap():
        return "Each submission runs in bubblewrap: no network, no other files, limits on time and memory."
    own = "a user of its own, " if user() is not None else ""
    return (
        f"bubblewrap is not here, so each submission runs with {own}an empty folder and limits on time and "
        "memory only: it has the network, and can read what its user can. "
        "For more, see notebooks/assignments/README.md."
    )


class Worker:
    """A worker process, and the connection to it."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours)
        self.folder = None if bubblewrap() else tempfile.mkdtemp(prefix="worker-")
        if self.folder and user() is not None:
            os.chown(self.folder, user(), user())
        folder = self.folder or "/tmp"
        limits = {"memory": MEMORY, "seconds": CPU_SECONDS, "processes": PROCESSES, "file_size": FILE_SIZE}
        worker = [sys.executable, "-I", str(PROJECT / "grading" / "worker.py"), str(theirs.fileno())]
        self.process = subprocess.Popen(
            [*bubblewrap(), *worker, json.dumps(limits | {"user": user()})],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            cwd=self.folder,
            env={
                "HOME": folder,
                "TMPDIR": folder,
                "MPLBACKEND": "Agg",
                "OMP_NUM_THREADS": "1",
                "LANG": "C.UTF-8",
            },
            start_new_session=True,
        )
        theirs.close()

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.end.close()
        if not bubblewrap() and user() is not None:  # those that left the process group
            kill = "import os; os.kill(-1, 9)"
            subprocess.run([sys.executable, "-I", "-c", kill], user=user(), stderr=subprocess.DEVNULL)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
