"""The process in which a student's code runs. It has no tests, no marks, and nothing to gain.

It runs cells, tells values, and calls what the student defined, as the other side asks. Whatever this process
answers is data: the student's code may do with it as it likes, and can only give right or wrong answers.
"""

import io
import json
import linecache
import os
import resource
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from IPython.core.inputtransformer2 import TransformerManager

from grading.wire import Connection, WireError, decode, encode

MAX_CALLABLES = 10_000


class Answers:
    """The student's names, and the requests about them. `ask` sends a call of the tests' own back to them."""

    def __init__(self, ask):
        self.ask = ask
        self.callables = []
        self.cells = 0
        self.names = {
            "__name__": "__main__",
            "get_ipython": lambda: NoMagic(),
            "display": lambda *_, **__: None,
        }

    def answer(self, request: dict) -> dict:
        """To {"run": source}, {"value": name} or {"call": number, "args": …, "kwargs": …}."""
        try:
            if "run" in request:
                self.run(request["run"])
                return {"ok": None}
            if "value" in request:
                return {"ok": self.encode(self.names[request["value"]])}
            called = self.callables[request["call"]]
            args, kwargs = self.decode(request["args"]), self.decode(request["kwargs"])
            return {"ok": self.encode(called(*args, **kwargs))}
        except BaseException as error:
            return {"error": [type(error).__name__, str(error)[:2000], self.place(error)]}

    def run(self, source: str):
        source = TransformerManager().transform_cell(source)
        self.cells += 1
        name = f"<cell {self.cells}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), self.names)

    def place(self, error: BaseException) -> str:
        """The line of the student's that the error passed last."""
        frames = [
            each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith("<cell ")
        ]
        return f"line {frames[-1].lineno}: {frames[-1].line}"[:300] if frames else ""

    def encode(self, value: Any) -> Any:
        def name(called):
            if len(self.callables) >= MAX_CALLABLES:
                raise WireError("too many functions were handed over")
            self.callables.append(called)
            return len(self.callables) - 1

        return encode(value, name)

    def decode(self, value: Any) -> Any:
        def make(number):
            def called(*args, **kwargs):
                request = {"callback": number, "args": self.encode(args), "kwargs": self.encode(kwargs)}
                return self.decode(self.ask(request))

            return called

        return decode(value, make)


class NoMagic:
    """Stands where a notebook has IPython: magics and shell commands do nothing."""

    def __getattr__(self, name):
        return lambda *_, **__: None


def limit(memory: int, seconds: int, processes: int, file_size: int, user: int | None):
    """Give up, for good, what this process may not have."""
    for what, most in {
        "RLIMIT_DATA": memory,
        "RLIMIT_AS": memory
        + 4 * 2**30,  # libraries reserve addresses they never use; this bounds shared memory
        "RLIMIT_CPU": seconds,
        "RLIMIT_NPROC": processes,
        "RLIMIT_FSIZE": file_size,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }.items():
        with suppress(ValueError, OSError, AttributeError):  # not every system has each
            resource.setrlimit(getattr(resource, what), (most, most))
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def main(number: str, limits: str):
    connection = Connection(socket.socket(fileno=int(number)))
    sys.stdin = io.StringIO()
    limit(**json.loads(limits))

    def ask(request):
        connection.send(request)
        reply = connection.receive()
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["ok"]

    answers, started = Answers(ask), os.getpid()
    while True:
        try:
            request = connection.receive()
        except EOFError:
            return
        reply = answers.answer(request)
        if os.getpid() != started:  # a copy of this process, which the student's code has made
            os._exit(0)
        try:
            connection.send(reply)
        except WireError as error:
            connection.send({"error": ["ValueError", str(error), ""]})


if __name__ == "__main__":
    main(*sys.argv[1:])
