"""The runner of the notebooks, tried on notebooks of a few lines."""

import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from experiments import notebooks
from experiments.notebooks import (
    WIDGET,
    Executed,
    NotebookError,
    agree,
    check,
    clean,
    differences,
    execute,
    faults,
    last_state,
    missing_data,
    store,
    text_difference,
    torch_mb,
)


@pytest.fixture
def write(tmp_path):
    """Write a notebook whose code cells have the given sources; cells alone or with tags."""

    def written(*sources):
        path = tmp_path / "example.ipynb"
        cells = [new_markdown_cell("# Example"), *(new_code_cell(source) for source in sources)]
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return written


def stored(path):
    return nbformat.read(path, as_version=4)


# --- with a kernel ---------------------------------------------------------------------------------------


def test_executes_in_a_fresh_kernel_in_the_notebooks_folder(write):
    path = write("from pathlib import Path", "", "print(Path('example.ipynb').exists())")
    before = path.read_bytes()
    executed = execute(path)
    assert [cell.get("execution_count") for cell in executed.notebook.cells[1:]] == [1, None, 2]
    assert executed.notebook.cells[3].outputs == [new_output("stream", name="stdout", text="True\n")]
    assert executed.seconds > 0
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak memory")
def test_measures_the_peak_of_memory(write):
    executed = execute(write("import torch; kept = b'1' * 200_000_000", "del kept"))
    above = executed.peak_mb - torch_mb()
    assert 200 < above < 400
    assert faults(executed, limit_mb=150) == [
        f"used {above:.0f} MB above what torch takes, at most 150 allowed: hold less"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak memory")
def test_what_torch_takes_is_measured_in_this_environment():
    assert 100 < torch_mb() < 1000


def test_warnings_are_faults(write):
    (fault,) = faults(execute(write("import warnings", "warnings.warn('beware')")))
    assert fault.startswith("code cell 2 (warnings.warn('beware')) wrote to stderr: ")
    assert "UserWarning: beware" in fault


def test_an_error_names_its_cell_and_reason(write):
    with pytest.raises(NotebookError, match=r"code cell 2 \(1 / 0\): ZeroDivisionError: division by zero"):
        execute(write("x = 1", "1 / 0"))


def test_a_kernel_that_dies_names_its_cell(write):
    with pytest.raises(NotebookError, match=r"code cell 1 \(import os.*the kernel died"):
        execute(write("import os; os._exit(1)"))


def test_a_cell_that_takes_too_long_is_stopped(write, monkeypatch):
    monkeypatch.setattr(notebooks, "CELL_SECONDS", 1)
    with pytest.raises(NotebookError, match=r"code cell 1 \(import time.*ran longer than 1 s"):
        execute(write("import time; time.sleep(30)"))


def test_stores_what_checks_afterwards(write):
    path = write("for n in range(3):\n    print(f'\\r{n} of 2', end='')", "print('\\r0 %\\r   \\r', end='')")
    ids = [cell.id for cell in stored(path).cells]
    executed = execute(path)
    store(executed.notebook, path)
    again = stored(path)
    assert again.cells[1].outputs == [new_output("stream", name="stdout", text="2 of 2")]
    assert again.cells[2].outputs == []
    assert [cell.id for cell in again.cells] == ids
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert check(path, executed) == []


def test_command_line(write, monkeypatch, capsys):
    path = write("print('1 of 2')")

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["notebooks", str(path), *options])
        return notebooks.main(), capsys.readouterr().out

    code, said = call("--check")
    assert code == 1
    assert "no output is stored" in said
    code, said = call()
    assert code == 0
    assert said.endswith("MB, stored\n")
    assert stored(path).cells[1].outputs[0].text == "1 of 2\n"

    path.write_text(path.read_text().replace("print('1 of 2')", "1 / 0"))
    before = path.read_bytes()
    code, said = call()
    assert code == 1
    assert "code cell 1 (1 / 0): ZeroDivisionError" in said
    assert path.read_bytes() == before


# --- cleaning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [("a\n\r10 %\r20 %\nb\n", "a\n20 %\nb\n"), ("a\r\nb\r\n", "a\nb\n"), ("\r50 %\r     \rdone", "done")],
)
def test_last_state_of_progress_bars(text, expected):
    assert last_state(text) == expected


def test_clean_drops_what_changes_from_run_to_run():
    parts = [new_output("stream", name="stdout", text=text) for text in ("a\n\r1", "\r2\n")]
    picture = new_output("display_data", data={"text/plain": "A picture."})
    widget = new_output("display_data", data={"text/plain": "", WIDGET: {"model_id": "1f"}})
    metadata = {"execution": {"iopub.execute_input": "12:00"}, "tags": ["varies"]}
    notebook = new_notebook(
        cells=[new_code_cell("f()", outputs=[*parts, picture, widget, parts[1].copy()], metadata=metadata)],
        metadata={"widgets": {}, "language_info": {"name": "python", "version": "3.11.7"}},
    )
    (cell,) = clean(notebook).cells
    assert [output.get("text") for output in cell.outputs] == ["a\n2\n", None, "2\n"]
    assert cell.metadata == {"tags": ["varies"]}
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    assert "version" not in notebook.metadata.language_info


# --- comparing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "a, b, same",
    [
        ("0.953", "0.951", True),
        ("0.953", "0.933", False),
        ("0.04", "0.05", True),  # one in the last digit
        ("0.04", "0.06", False),
        ("188", "188", True),
        ("188", "189", False),  # whole numbers count things
        ("1", "1.004", False),
        ("2.51e-7", "2.53e-7", True),
        ("2.5e-7", "3.5e-7", False),
        ("-0.5", "0.5", False),
        ("\u22120.500", "-0.501", True),
    ],
)
def test_numbers_agree(a, b, same):
    assert agree(a, b) == same
    assert agree(b, a) == same


@pytest.mark.parametrize(
    "a, b, same",
    [
        ("0.953", "0.933", True),  # 2 %
        ("0.953", "0.910", False),
        ("0.04", "0.06", True),  # two in the last digit
        ("0.04", "0.07", False),
        ("188", "189", True),  # so many pixels of a class
        ("188", "195", False),
    ],
)
def test_numbers_that_a_trained_network_says_agree_more_loosely(a, b, same):
    assert agree(a, b, learned=True) == agree(b, a, learned=True) == same
    assert (text_difference(f"IoU {a}", f"IoU {b}", ["learned"]) is None) == same


def test_texts_differ_in_words():
    assert text_difference("IoU 0.9", "Dice 0.9", ["varies"])


def test_numbers_may_vary_where_the_cell_says_so():
    assert text_difference("took  9.8 s", "took 12.3 s") == "9.8 became 12.3"
    assert text_difference("took  9.8 s", "took 12.3 s", ["varies"]) is None


def test_embedded_pictures_are_not_compared():
    a, b = (f'<img alt="IoU 0.9" src="data:image/png;base64,{data}">' for data in ("ab1=", "c22="))
    assert text_difference(a, b) is None


def one_cell(*outputs, **options):
    return new_notebook(cells=[new_code_cell("f()", id="one", outputs=list(outputs), **options)])


def picture(description, png="a"):
    return new_output("display_data", data={"image/png": png, "text/plain": description})


def test_of_pictures_the_description_is_compared():
    assert differences(one_cell(picture("Rises.", "a")), one_cell(picture("Rises.", "b"))) == []
    (found,) = differences(one_cell(picture("Rises.")), one_cell(picture("Falls.")))
    assert found.startswith("code cell 1 (f()): text/plain differs: stored 'Rises.', fresh 'Falls.'; ")


def test_missing_outputs_are_differences():
    (found,) = differences(one_cell(), one_cell(picture("Rises.")))
    assert found.startswith("code cell 1 (f()): no output is stored; ")
    text_only = new_output("display_data", data={"text/plain": "Rises."})
    (found,) = differences(one_cell(text_only), one_cell(picture("Rises.")))
    assert "fresh ones [['image/png', 'text/plain']]" in found


def test_tag_varies_is_heeded():
    slow, fast = (new_output("stream", name="stdout", text=text) for text in ("9 s", "1 s"))
    assert differences(one_cell(slow), one_cell(fast))
    assert differences(one_cell(slow, metadata={"tags": ["varies"]}), one_cell(fast)) == []


def test_tag_learned_is_heeded():
    one, other = (new_output("stream", name="stdout", text=text) for text in ("188 pixels", "189 pixels"))
    assert differences(one_cell(one), one_cell(other))
    assert differences(one_cell(one, metadata={"tags": ["learned"]}), one_cell(other)) == []


def test_too_slow_is_a_fault():
    executed = Executed(one_cell(), seconds=11.0, peak_mb=None)
    assert faults(executed, limit_seconds=10) == ["took 11 s, at most 10 s allowed: train less"]
    assert faults(executed, limit_seconds=12) == []


def test_real_micrographs_need_their_data(tmp_path, monkeypatch):
    path = tmp_path / "08_real_micrographs.ipynb"
    monkeypatch.setenv("ISBI2012_DIR", str(tmp_path / "nowhere"))
    assert "ISBI2012_DIR" in missing_data(path)
    assert missing_data(tmp_path / "01_sliding_window.ipynb") is None
    monkeypatch.setenv("ISBI2012_DIR", str(tmp_path))
    assert missing_data(path) is None
