"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_whole(path, text):
    """Write a text file under another name first, then rename it. Its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
