"""The command line, as a user meets it: output, exit codes, no tracebacks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layernet.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]

CONFIG = """
layernet: 1
device: cpu
data:
  train: {type: FakeData, shape: [6], classes: 3, length: 60}
  test: {type: FakeData, shape: [6], classes: 3, length: 30, seed: 1}
  batch_size: 10
net:
  input: [6]
  layers:
    - {type: Linear, out_features: 8}
    - ReLU
    - {type: Linear, name: head, out_features: 3}
loss: CrossEntropy
metrics: [accuracy]
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def test_train_eval_resume(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(config), "--runs", str(tmp_path / "runs"), "--set", "train.epochs=3"]) == 0
    run = tmp_path / "runs" / "tiny-001"
    out = capsys.readouterr().out
    assert str(run) in out.splitlines()[0]
    assert re.search(r"done: test.loss [\d.]+  test.accuracy [\d.]+", out.splitlines()[-1])
    assert main(["eval", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"test.loss", "test.accuracy"}
    assert main(["resume", str(run)]) == 0
    assert "resumed at step 18/18" in capsys.readouterr().out


def test_name_and_second_run(config: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        assert main(["train", str(config), "--runs", str(tmp_path / "r"), "--name", "x"]) == 0
        assert (tmp_path / "r" / f"x-00{number}" / "checkpoints" / "last.npz").exists()


def test_inspect_shows_the_net(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(config)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"head\s+Linear\s+3\s+27\s+0.000\s+120 B", out)
    assert "83 parameters" in out


def test_inspect_says_what_a_ref_is_tied_to(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = "net.layers=[{type: Linear, name: a, out_features: 6}, {ref: a, name: b}, {type: Linear, out_features: 3}]"
    assert main(["inspect", str(config), "--set", layers]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^b +Linear \(ref a\) +6 +0 ", out, re.M)
    assert re.search(r"^a +Linear +6 +42 ", out, re.M)


def test_inspect_of_a_deep_net_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(ROOT / "configs" / "cifar10_resnet20.yaml")]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_validate(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(config)]) == 0
    assert "ok" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["train", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["eval", "."], 2, "is no run directory"),
        (["train", "{config}", "--set", "train.epoch=3"], 2, "did you mean 'epochs'"),
        (["train", "{config}", "--set", "device=tpu"], 2, "device"),
        (["validate", "{config}", "--set", "net.layers.0.out_features=0"], 2, "out_features must be at least 1"),
        (["eval", "{config}"], 2, "is no run directory"),
    ],
)
def test_mistakes_get_one_message_and_a_code(
    argv: list[str], code: int, message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(config=config) for word in argv]) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_memory_that_is_not_there_is_one_line(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["--set", f"data.train.length={10**13}", "--runs", str(tmp_path)]
    assert main(["train", str(config), *huge]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: out of memory: Unable to allocate ")
    assert err.count("\n") == 1
    assert "smaller" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian", "x.yaml"], "there is no command 'trian'; did you mean 'train'?"),
        (["train"], "layernet train needs CONFIG; layernet train --help says what it is"),
        (["train", "x.yaml", "--sett", "seed=1"], "layernet train takes no '--sett'; did you mean '--set'?"),
        (
            ["train", "x.yaml", "--epochs", "3"],
            "takes no '--epochs'; layernet train --help lists its options; values of",
        ),
        (["train", "x.yaml", "--se", "seed=1"], "takes no '--se'"),  # never half a word
        (["eval", "x", "--split", "tset"], "there is no --split choice 'tset'; did you mean 'test'?"),
        (["gradcheck", "ReLU", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_wrong_usage_gets_one_message_too(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    err = capsys.readouterr().err
    assert all(re.search(rf"^  {command} +\w", err, re.M) for command in COMMANDS)  # in one column with their help


def test_a_run_that_is_not_there_is_answered_with_those_that_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny-001").mkdir()
    (tmp_path / "tiny-001" / "resolved.yaml").touch()
    assert main(["eval", str(tmp_path / "tiny-01")]) == 2
    assert f"it does not exist; did you mean '{tmp_path}/tiny-001'?" in capsys.readouterr().err
    assert main(["resume", str(tmp_path)]) == 2
    assert f"it has no resolved.yaml; did you mean '{tmp_path}/tiny-001'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"example: layernet {command}" in capsys.readouterr().out


def test_a_signal_saves_and_sets_the_exit_code(config: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, "-m", "layernet", "train", str(config), "--runs", str(runs), "--set", "train.epochs=100000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "step" in line:  # training is under way
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == f"interrupted by SIGTERM; go on with `layernet resume {runs / 'tiny-001'}`\n"
    assert "Traceback" not in err
    assert (runs / "tiny-001" / "checkpoints" / "last.npz").exists()
