"""What was measured, kept in a file as soon as it is there, so that an interruption loses one measurement."""

import json

from experiments import write_whole


def stored(path):
    """The measurements in a JSON file: key -> result; none if there is no file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def once(path, key, measure):
    """The measurement called key: from the file, or what `measure()` gives, which the file then keeps."""
    if key not in stored(path):
        print(key, flush=True)
        found = measure()
        write_whole(path, json.dumps(stored(path) | {key: found}, indent=1) + "\n")
    return stored(path)[key]
