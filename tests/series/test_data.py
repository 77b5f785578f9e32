"""Pictures arrive whole, in order, with the right classes; damage is refused in one clear sentence."""

import hashlib
import io
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image

from utils import data

NUMBERS = (0, 1, 2, 10)  # as strings, 10 would come before 2
REAL = data.isbi2012_folder()
needs_real_data = pytest.mark.skipif(
    REAL is None or not (REAL / "image").is_dir(),
    reason="no ISBI 2012 pictures as PNG here: set ISBI2012_DIR, or download them to data/isbi2012",
)


def write_pairs(folder, greys, numbers=NUMBERS, size=(6, 8)):
    """Pairs whose image is as grey as its number, and whose label cycles through the greys."""
    for kind in ("image", "label"):
        (folder / kind).mkdir(parents=True)
    for number in numbers:
        Image.fromarray(np.full(size, number, np.uint8)).save(folder / "image" / f"{number}.png")
        label = np.resize(np.roll(greys, number), size).astype(np.uint8)
        Image.fromarray(label).save(folder / "label" / f"{number}.png")


@pytest.fixture
def pairs(tmp_path):
    write_pairs(tmp_path / "pairs", (255, 0))
    return tmp_path / "pairs"


@pytest.fixture
def stacks(pairs):
    """The same pictures as `pairs`, in the challenge's form."""
    return stacked(pairs, NUMBERS)


def stacked(pairs, numbers):
    folder = pairs.parent / "stacks"
    folder.mkdir()
    for kind, name in (("image", "train-volume.tif"), ("label", "train-labels.tif")):
        first, *rest = (Image.open(pairs / kind / f"{number}.png") for number in numbers)
        first.save(folder / name, save_all=True, append_images=rest)
        for page in (first, *rest):
            page.close()
    return folder


def assert_pictures(pictures, numbers=NUMBERS, size=(6, 8)):
    images, labels, classes = pictures
    assert images.shape == (len(numbers), 1, *size) and images.dtype == torch.float32
    assert labels.shape == (len(numbers), *size) and labels.dtype == torch.int64
    assert images[:, 0, 0, 0].tolist() == pytest.approx([number / 255 for number in numbers])
    cycle = np.arange(len(classes))
    for number, label in zip(numbers, labels, strict=True):
        assert label.numpy().tolist() == np.resize(np.roll(cycle, number), size).tolist()


def test_micrographs_have_three_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DATA", tmp_path)
    write_pairs(tmp_path / "micrographs" / "test", (0, 128, 255))
    pictures = data.micrographs("test")
    assert pictures.classes == ("cytoplasm", "membrane", "mitochondrion")
    assert_pictures(pictures)


def test_shipped_micrographs():
    splits = {split: data.micrographs(split) for split in ("train", "validation", "test")}
    pictures = [image.numpy().tobytes() for split in splits.values() for image in split.images]
    assert len(set(pictures)) == len(pictures), "a picture is in two splits, or twice in one"
    for split in splits.values():
        assert split.images.shape[1:] == (1, 256, 256)
        assert split.images.amin() >= 0 and 0.5 < split.images.amax() <= 1
        for label in split.labels:
            assert label.unique().tolist() == [0, 1, 2]
        membrane, cytoplasm = (split.images[:, 0][split.labels == n].mean() for n in (1, 0))
        assert membrane < cytoplasm, "membranes are the dark lines"


def test_unknown_split():
    with pytest.raises(ValueError, match="no split 'val'; choose one of train, validation, test"):
        data.micrographs("val")


def test_missing_micrographs_can_be_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python -m experiments\.tissue"):
        data.micrographs("train")


def test_isbi2012_from_png(pairs):
    pictures = data.isbi2012(pairs)
    assert pictures.classes == ("cell interior", "membrane")
    assert_pictures(pictures)


def test_isbi2012_from_tiff(pairs, stacks):
    for from_png, from_tiff in zip(data.isbi2012(pairs)[:2], data.isbi2012(stacks)[:2], strict=True):
        torch.testing.assert_close(from_tiff, from_png, rtol=0, atol=0)


@needs_real_data
def test_real_micrographs():
    images, labels, classes = data.isbi2012(REAL)
    assert images.shape[1:] == (1, 512, 512)
    third = np.array(Image.open(REAL / "image" / "2.png")) / 255
    np.testing.assert_allclose(images[2, 0].numpy(), third, atol=1e-7)
    for image, label in zip(images[:, 0], labels, strict=True):
        membrane = label == classes.index("membrane")
        assert 0.15 < membrane.float().mean() < 0.3
        assert image[membrane].mean() < image[~membrane].mean() - 0.1, "membranes are the dark lines"


@needs_real_data
def test_real_files_have_the_pinned_hashes():
    pinned = dict(reversed(line.split()) for line in data.ISBI2012_HASHES.read_text().splitlines())
    assert set(pinned) == {f"{kind}/{number}.png" for kind in ("image", "label") for number in range(30)}
    for name in pinned:
        if (REAL / name).exists():  # a part of the thirty will do
            assert hashlib.sha256((REAL / name).read_bytes()).hexdigest() == pinned[name], name


def test_where_the_real_micrographs_are(tmp_path, monkeypatch):
    monkeypatch.delenv("ISBI2012_DIR", raising=False)
    monkeypatch.setattr(data, "DATA", tmp_path / "project" / "data")
    (tmp_path / "shared" / "data" / "isbi2012").mkdir(parents=True)
    assert data.isbi2012_folder() is None, "nobody looks outside the project"
    (own := tmp_path / "project" / "data" / "isbi2012").mkdir(parents=True)
    assert data.isbi2012_folder() == own
    monkeypatch.setenv("ISBI2012_DIR", str(tmp_path / "mine"))
    assert data.isbi2012_folder() == tmp_path / "mine"


# Bad input. Each case damages a good folder; the sentence must name what, what was expected, and a remedy.


def change(path, array=None, mode="L"):
    image = Image.fromarray(np.full((6, 8), 255, np.uint8) if array is None else array)
    image.convert(mode).save(path)


def smoothed(path):
    label = np.full((6, 8), 255, np.uint8)
    label[4, 5] = 200
    change(path, label)


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def shorten_header(path):
    """Claim that the header has 5 bytes, not 13: not an OSError in Pillow, as other damage is."""
    body = bytearray(path.read_bytes())
    body[11] = 5
    path.write_bytes(body)


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


BAD_PAIRS = {
    "no label": (lambda f: (f / "label/2.png").unlink(), ValueError, "^2.png .* only in .* same name; check"),
    "no image": (lambda f: (f / "image/2.png").unlink(), ValueError, "^2.png .* only in .* same name; check"),
    "other name": (
        lambda f: (f / "label/2.png").rename(f / "label/3.png"),
        ValueError,
        "2.png, 3.png .* every image needs a label of the same name",
    ),
    "no number": (
        lambda f: (f / "image/2.png").rename(f / "image/two.png"),
        ValueError,
        "two.png is not named by a number, expected 0.png, .*; rename",
    ),
    "no pictures": (
        lambda f: empty(f / "image"),
        FileNotFoundError,
        "image holds no PNG files, expected 0.png, .*download=True",
    ),
    "small label": (
        lambda f: change(f / "label/2.png", np.zeros((6, 7), np.uint8)),
        ValueError,
        "label.2.png has 6 x 7 pixels, expected 6 x 8 as in .*image.0.png; .*crop or remove",
    ),
    "large image": (
        lambda f: change(f / "image/10.png", np.zeros((9, 8), np.uint8)),
        ValueError,
        "image.10.png has 9 x 8 pixels, expected 6 x 8 as in .*image.0.png; .*crop or remove",
    ),
    "text": (
        lambda f: (f / "image/2.png").write_text("no picture"),
        ValueError,
        "image.2.png cannot be read as an image .*; get the file again",
    ),
    "half a file": (lambda f: cut(f / "label/2.png"), ValueError, "label.2.png cannot be read as an image"),
    "header only": (lambda f: cut(f / "label/2.png", 0.3), ValueError, "label.2.png cannot be read"),
    "bad header": (
        lambda f: shorten_header(f / "image/2.png"),
        ValueError,
        "2.png cannot be read as an image",
    ),
    "colour": (
        lambda f: change(f / "image/2.png", mode="RGB"),
        ValueError,
        "2.png has the mode RGB, expected L",
    ),
    "palette": (
        lambda f: change(f / "label/2.png", mode="P"),
        ValueError,
        "2.png has the mode P, expected L",
    ),
    "smoothed label": (
        lambda f: smoothed(f / "label/10.png"),
        ValueError,
        r"10.png has the grey value 200 at row 4, column 5, expected 255 \(cell interior\), 0 \(membrane\);",
    ),
}


@pytest.mark.parametrize("damage, error, sentence", BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_bad_pairs(pairs, damage, error, sentence):
    damage(pairs)
    with pytest.raises(error, match=sentence) as caught:
        data.isbi2012(pairs)
    message = str(caught.value)
    assert type(caught.value) is error and message.endswith(".") and "\n" not in message
    assert "page" not in message, "only stacks have pages"


BAD_STACKS = {
    "no labels": (
        lambda f: (f / "train-labels.tif").unlink(),
        FileNotFoundError,
        "train-labels.tif does not exist, expected it beside the other stack; .*download=True",
    ),
    "no images": (
        lambda f: (f / "train-volume.tif").unlink(),
        FileNotFoundError,
        "train-volume.tif does not",
    ),
    "one page": (
        lambda f: change(f / "train-labels.tif"),
        ValueError,
        "volume.tif holds 4 images but .*labels.tif 1 labels, expected one label for each image; get both",
    ),
    "text": (
        lambda f: (f / "train-volume.tif").write_text("no picture"),
        ValueError,
        "train-volume.tif cannot be read as an image",
    ),
    "half a file": (
        lambda f: cut(f / "train-volume.tif", 0.2),
        ValueError,
        "train-volume.tif cannot be read",
    ),
}


@pytest.mark.parametrize("damage, error, sentence", BAD_STACKS.values(), ids=BAD_STACKS)
def test_bad_stacks(stacks, damage, error, sentence):
    damage(stacks)
    with pytest.raises(error, match=sentence):
        data.isbi2012(stacks)


def test_page_of_a_bad_stack_is_named(stacks):
    pages = [Image.fromarray(np.full((6, 8), grey, np.uint8)) for grey in (0, 255, 9, 0)]
    pages[0].save(stacks / "train-labels.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"page 2 of .*train-labels.tif has the grey value 9 at row 0"):
        data.isbi2012(stacks)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.image does not exist, .*download=True"):
        data.isbi2012(tmp_path / "nowhere")


# The download, from a server on this machine that can be told to fail.


class Server(ThreadingHTTPServer):
    """Serves `files`, a dict of bytes; cuts the connection in the middle of those named in `cut`."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.requests = files, set(), []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.requests.append(name)
        if name not in self.server.files:
            return self.send_error(404)
        body = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if name in self.server.cut else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(pairs, tmp_path, monkeypatch):
    files = {path.relative_to(pairs).as_posix(): path.read_bytes() for path in sorted(pairs.rglob("*.png"))}
    hashes = tmp_path / "hashes"
    hashes.write_text(
        "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in files.items())
    )
    with Server(files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(data, "ISBI2012_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(data, "ISBI2012_HASHES", hashes)
        yield server
        server.shutdown()


def files_in(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def assert_resumes(server, root, remaining):
    server.requests.clear()
    assert_pictures(data.isbi2012(root, download=True))
    assert server.requests == remaining
    assert files_in(root) == server.files


def test_download(server, tmp_path, capsys, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", log)
    root = tmp_path / "new" / "folder"
    assert_resumes(server, root, list(server.files))
    assert re.search("ISBI 2012: 100%.* 8/8 ", capsys.readouterr().err)
    assert log.getvalue() == "", "one bar, not a line for every file"
    assert_resumes(server, root, [])


def test_reading_alone_fetches_nothing(server, pairs):
    data.isbi2012(pairs)
    assert server.requests == []


def test_download_replaces_damaged_files_and_fetches_missing_ones(server, tmp_path):
    root = tmp_path / "isbi"
    data.isbi2012(root, download=True)
    cut(root / "image/1.png")
    (root / "label/10.png").unlink()
    assert_resumes(server, root, ["image/1.png", "label/10.png"])


def assert_stops(server, root, error, sentence):
    """The third file fails: the first two are there, and nothing else, not even a temporary file."""
    names = list(server.files)
    with pytest.raises(error, match=sentence) as caught:
        data.isbi2012(root, download=True)
    assert "\n" not in str(caught.value)
    assert server.requests == names[:3]
    assert files_in(root) == {n: server.files[n] for n in names[:2]}
    return names[2:]


def test_download_of_a_corrupted_file(server, tmp_path):
    third = list(server.files)[2]
    good = server.files[third]
    server.files[third] = good[:-20] + bytes(20)
    wanted = hashlib.sha256(good).hexdigest()[:12]
    sentence = f"{third} arrived damaged .* SHA-256 is not the expected {wanted}.*; call again"
    rest = assert_stops(server, tmp_path / "isbi", ValueError, sentence)
    server.files[third] = good
    assert_resumes(server, tmp_path / "isbi", rest)


def test_download_with_a_cut_connection(server, tmp_path):
    third = list(server.files)[2]
    server.cut.add(third)
    sentence = f"{third} could not be fetched .*; check the network and call again: .* are kept"
    rest = assert_stops(server, tmp_path / "isbi", ConnectionError, sentence)
    server.cut.clear()
    assert_resumes(server, tmp_path / "isbi", rest)


def test_download_of_a_file_that_is_gone(server, tmp_path):
    third = list(server.files)[2]
    body = server.files.pop(third)
    with pytest.raises(ConnectionError, match=rf"{third} could not be fetched \(HTTPError\)"):
        data.isbi2012(tmp_path / "isbi", download=True)
    assert len(files_in(tmp_path / "isbi")) == 2
    server.files[third] = body


def test_download_offline(server, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(data, "ISBI2012_URL", f"http://127.0.0.1:{port}/")
    with pytest.raises(ConnectionError, match=r"image/0.png could not be fetched .*; check the network"):
        data.isbi2012(tmp_path / "isbi", download=True)
    assert files_in(tmp_path / "isbi") == {}


def test_download_to_a_bad_place_blames_the_disk(server, tmp_path):
    (tmp_path / "isbi").mkdir()
    (tmp_path / "isbi" / "image").write_text("a file where the folder should be")
    with pytest.raises(OSError) as caught:
        data.isbi2012(tmp_path / "isbi", download=True)
    assert not isinstance(caught.value, ConnectionError) and "image" in str(caught.value)


def test_the_address_is_a_folder_at_a_fixed_commit():
    assert re.fullmatch(
        r"https://raw\.githubusercontent\.com/[\w/]+/[0-9a-f]{40}/[\w/]+/train/", data.ISBI2012_URL
    )


def test_real_pictures_are_never_committed():
    ignored = (Path(data.__file__).parent.parent / ".gitignore").read_text().splitlines()
    assert "data/isbi2012/" in ignored


@pytest.fixture(params=["png", "tiff"])
def thirty(request, tmp_path):
    write_pairs(tmp_path / "thirty", (255, 0), range(30))
    return tmp_path / "thirty" if request.param == "png" else stacked(tmp_path / "thirty", range(30))


def test_the_splits_of_the_real_slices_share_none(thirty):
    found = {split: data.isbi2012(thirty, split) for split in ("train", "validation", "test", None)}
    numbers = {split: (255 * part.images[:, 0, 0, 0]).round().int().tolist() for split, part in found.items()}
    assert numbers == {
        "train": [*range(16)], "validation": [*range(16, 20)], "test": [*range(20, 30)], None: [*range(30)]
    }  # fmt: skip
    assert all(len(part.labels) == len(part.images) for part in found.values())


def test_a_split_needs_all_thirty_slices(pairs, stacks):
    for folder in (pairs, stacks):
        with pytest.raises(ValueError, match=r"holds . slices, expected all 30 .* 'test'.* download=True"):
            data.isbi2012(folder, "test")
    with pytest.raises(ValueError, match="There is no split 'tests'; choose one of train, validation, test"):
        data.isbi2012(pairs, "tests")
