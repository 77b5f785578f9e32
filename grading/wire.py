"""What crosses between trusted and untrusted code: JSON messages of plain data.

A pickle runs code when it is read, and an object can lie about being equal. So values are taken apart by
whoever has them, and put together anew, from numbers and characters, by whoever wants them.
"""

import base64
import json
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
]
MAX_BYTES = 64 * 2**20


class WireError(Exception):
    """A message that is too long, too late, or no plain data."""


def encode(value: Any, name_callable: Callable[[Any], int]) -> Any:
    """`value` as JSON. `name_callable` gives a number to what can only be called, and keeps it."""
    if value is None:
        return None
    for plain in (bool, int, float, str):  # a bool is an int as well, so it comes first
        if isinstance(value, plain):
            return plain(value)
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [encode(each, name_callable) for each in value]]
    if isinstance(value, dict):
        return ["dict", [[encode(each, name_callable) for each in item] for item in value.items()]]
    torch = sys.modules.get("torch")
    if torch and isinstance(value, torch.Tensor):
        return ["tensor", *encode_array(value.detach().cpu().resolve_conj().resolve_neg().numpy())]
    if isinstance(value, np.ndarray | np.generic):
        return ["array", *encode_array(np.asarray(value))]
    if callable(value):
        return ["callable", name_callable(value)]
    raise TypeError(
        f"a {type(value).__name__} cannot be graded: give numbers, text, lists, arrays or tensors"
    )


def encode_array(array: np.ndarray) -> tuple[str, list[int], str]:
    if array.dtype.name not in DTYPES:
        raise TypeError(f"an array of {array.dtype} cannot be graded: give numbers")
    return array.dtype.name, list(array.shape), base64.b64encode(array.tobytes()).decode()


def decode(value: Any, make_callable: Callable[[int], Any]) -> Any:
    """The inverse of `encode`; `make_callable` makes something to call from its number."""
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind in ("array", "tensor"):
        array = decode_array(*rest)
        if kind == "array":
            return array[()]
        import torch

        return torch.from_numpy(array)
    (content,) = rest
    if kind == "callable":
        return make_callable(int(content))
    items = [decode(each, make_callable) for each in content] if kind != "dict" else content
    if kind == "dict":
        return {decode(key, make_callable): decode(each, make_callable) for key, each in items}
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](items)


def decode_array(dtype: str, shape: list[int], data: str) -> np.ndarray:
    if dtype not in DTYPES:
        raise ValueError(f"{dtype!r} is no dtype of plain numbers")
    return np.frombuffer(base64.b64decode(data), dtype).reshape(shape).copy()


class Connection:
    """Messages over a socket, each one JSON value after its length."""

    def __init__(self, end: socket.socket):
        self.end = end

    def send(self, message: Any, deadline: float | None = None):
        data = json.dumps(message).encode()
        if len(data) > MAX_BYTES:
            raise WireError(
                f"{len(data) / 2**20:.0f} MB in one value, but at most {MAX_BYTES / 2**20:.0f} are taken"
            )
        self.wait_until(deadline)
        self.end.sendall(struct.pack("!I", len(data)) + data)

    def receive(self, deadline: float | None = None) -> Any:
        """The next message. Raises TimeoutError, EOFError where the other side is gone, or WireError."""
        (length,) = struct.unpack("!I", self.receive_bytes(4, deadline))
        if length > MAX_BYTES:
            raise WireError(f"a message of {length / 2**20:.0f} MB was announced")
        try:
            return json.loads(self.receive_bytes(length, deadline))
        except (ValueError, RecursionError) as error:
            raise WireError(f"a message is no JSON: {error}") from None

    def receive_bytes(self, count: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < count:
            self.wait_until(deadline)
            received = self.end.recv(min(count - len(data), 2**20))
            if not received:
                raise EOFError("the process has ended")
            data += received
        return bytes(data)

    def wait_until(self, deadline: float | None):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self.end.settimeout(left)
