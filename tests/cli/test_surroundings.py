"""What lies around a command: the current folder, the terminal's encoding, arguments that are no text."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from uqabench.cli import main
from uqabench.encoders import build_encoder
from uqabench.errors import InputError

# Every library that a command imports, as a file that ends the command when it is imported in the library's place.
NAMES = (
    "argparse", "csv", "filelock", "huggingface_hub", "jinja2", "json", "logging", "numba", "numpy", "pyarrow",
    "random", "safetensors", "statistics", "tokenizers", "torch", "tqdm", "transformers", "typing_extensions", "yaml",
)  # fmt: skip
ENCODER = """
import statistics
from helper_of_mine import WIDTH
import torch
class Mine(torch.nn.Linear):
    def __init__(self, width):
        super().__init__(width, width)
        assert statistics.__file__ != __file__ and WIDTH == 1
"""


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that starts as the installed script does: the current folder is not on its path."""
    start = f"import sys; sys.path.remove('')\n{code}"
    return subprocess.run([sys.executable, "-c", start], cwd=cwd, capture_output=True, text=True)


def test_files_of_the_current_folder_take_no_librarys_place(tmp_path: Path):
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')")
    (tmp_path / "helper_of_mine.py").write_text("WIDTH = 1")
    (tmp_path / "mine.py").write_text(ENCODER)
    code = (
        "from uqabench.cli import main\n"
        "main(['doctor'])\n"
        "from uqabench.encoders import build_encoder\n"
        "print(build_encoder('mine:Mine', 'tiny'))\n"
        "import uqabench.experiments.run, uqabench.experiments.cli_config\n"
        "sys.exit(main(['prepare', 'nothing']))"
    )
    done = python(code, tmp_path)
    assert done.returncode == 2 and "'nothing'" in done.stderr and "Mine(" in done.stdout, done.stderr


def test_an_encoder_of_the_current_folder_is_found_and_the_path_is_left_as_it_was(tmp_path: Path, monkeypatch):
    (tmp_path / "lonely_encoder.py").write_text(
        "import torch\nclass Mine(torch.nn.Identity):\n    def __init__(self, width):\n        super().__init__()\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert type(build_encoder("lonely_encoder:Mine", "tiny")).__name__ == "Mine"
    assert sys.path == before


@pytest.mark.parametrize("args", [["doctor"], ["prepare", "synthetic"], ["run", "--encoder", "mine:Mine"]])
def test_a_deleted_current_folder_is_one_sentence(args: list[str], tmp_path: Path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(args) == 2
    message = "uqabench: The current folder has been deleted: change to another and run the command there.\n"
    assert capsys.readouterr() == ("", message)
    with pytest.raises(InputError, match="The encoder mine:Mine cannot be imported"):
        build_encoder("mine:Mine")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_gets_its_code(encoding: str, monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}

    def handler(_: object) -> int:
        print("Łódź")
        logging.getLogger("uqabench").info("Kraków, Łódź")
        raise InputError("Łódź is unknown.")

    with monkeypatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        patch.setattr("uqabench.cli.doctor", handler)
        assert main(["doctor"]) == 2
    for stream in streams.values():
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams.values())
    assert out.startswith(r"\u0141") and out.count(r"\u0141") == 2 and err.startswith(r"uqabench: \u0141")


@pytest.mark.parametrize("args", [["prepare", "caf\udce9"], ["run", "--set", "llm.name=\udcff"], ["\udcff"]])
def test_arguments_that_are_no_utf8_are_one_sentence(args: list[str], capsys):
    assert main(args) == 2
    message = capsys.readouterr().err
    assert message.startswith("uqabench: The argument '") and "is not UTF-8" in message and r"\udc" in message


def test_an_empty_variant_is_one_sentence(call, expect):
    for method in ("hstu@", "hstu@full+", "oracle@"):
        expect(
            call("run", "--preset", "tiny", "--quiet", "--methods", method),
            2,
            "there is no variant ''",
        )


def test_messages_are_printed_by_the_command_line_alone(capsys, monkeypatch):
    logger = logging.getLogger("uqabench.stages")

    def handler(_: object) -> int:
        logger.info("seen")
        return 0

    logger.info("before")
    monkeypatch.setattr("uqabench.cli.doctor", handler)
    assert main(["doctor"]) == 0
    logger.info("after")
    assert capsys.readouterr() == ("seen\n", "")
    assert not logging.getLogger("uqabench").handlers
