"""What the commands print where there is no terminal, and on one with NO_COLOR; every command's help has an example."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import layernet as ln
from layernet.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]

CONFIG = """
device: cpu
kernels: numpy
data:
  train: {type: FakeData, shape: [6], classes: 3, length: 60}
  val: {fraction: 0.2}
  test: {type: FakeData, shape: [6], classes: 3, length: 30, seed: 1}
  batch_size: 12
net: {input: [6], layers: [{type: Linear, out_features: 3}]}
loss: CrossEntropy
metrics: [accuracy]
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 2, log_every: 1 steps}
"""

LINES = {
    "init": "init first.yaml --data Digits",
    "show": "show tiny.yaml",
    "schema": "schema",
    "train": "train tiny.yaml",
    "resume": "resume runs/tiny-001 --set train.epochs=3",
    "eval": "eval runs/tiny-001",
    "predict": "predict runs/tiny-001 x.npy",
    "runs": "runs",
    "average": "average runs/tiny-001",
    "find-lr": "find-lr tiny.yaml --steps 10",
    "inspect": "inspect tiny.yaml",
    "validate": "validate tiny.yaml",
    "gradcheck": "gradcheck tiny.yaml",
    "layers": "layers",
    "bench": "bench tiny.yaml --steps 2",
    "data": "data list",
    "doctor": "doctor",
    "completion": "completion bash",
}
NOT_RUN = {"warmup"}  # it compiles for minutes where nothing is kept yet; it prints one line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    np.save("x.npy", np.zeros((2, 6), dtype=np.float32))
    return tmp_path


def test_every_command_has_a_line_here() -> None:
    assert set(LINES) | NOT_RUN == set(COMMANDS)


@pytest.mark.parametrize("command", LINES)
def test_files_and_pipes_get_plain_lines(
    command: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as many build servers have it
    monkeypatch.setattr("layernet.report.doctor.check_kernels", lambda device: {})
    if "runs" in LINES[command]:
        ln.load("tiny.yaml").train()
        capsys.readouterr()
    assert main(shlex.split(LINES[command])) == 0
    said = capsys.readouterr()
    assert said.out
    for text in said:
        assert "\x1b" not in text
        assert "\r" not in text
    if command == "train":  # a line for each of 2 x 4 steps, and of 2 epochs, and of where and what
        assert len(said.out.splitlines()) == 10
        assert len(set(re.findall(r"step \d+/8", said.out))) == 8


@pytest.mark.parametrize("no_color", [True, False])
def test_a_terminal_has_a_bar_and_colours_unless_they_are_not_wanted(no_color: bool, here: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    if no_color:
        environment["NO_COLOR"] = "1"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "layernet", "train", "tiny.yaml"], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0
    text = said.decode()
    assert "\x1b[?25l" in text  # a bar, with the cursor out of its way
    coloured = re.search(r"\x1b\[(?:\d+;)*(?:3\d|9\d|38;[\d;]+)m", text)
    assert (coloured is None) is no_color
    assert "done: test.loss" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_is_a_command_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    found = re.search(r"^example: layernet ([\w-]+)(.*)$", capsys.readouterr().out, re.M)
    assert found
    assert found[1] == command
    parsed = COMMANDS[command]
    assert found[0].removeprefix("example: ") == parsed.EXAMPLE
