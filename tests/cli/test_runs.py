"""`layernet runs`: whole runs, ended ones and damaged ones, listed and compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import layernet as ln
from layernet.cli.main import main
from layernet.errors import NumericsError
from layernet.report.runs import differing

CONFIG = """
device: cpu
data:
  train: {type: FakeData, shape: [6], classes: 3, length: 60}
  val: {fraction: 0.2}
  batch_size: 12
net: {input: [6], layers: [{type: Linear, out_features: 3}]}
loss: CrossEntropy
metrics: [accuracy]
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 2}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("tiny.yaml").write_text(CONFIG)
        ln.load("tiny.yaml").train()
        ln.load("tiny.yaml", {"optimizer.lr": 0.2, "net.layers.0.bias": False}).train()
        with pytest.raises(NumericsError):
            ln.load("tiny.yaml", {"optimizer.lr": 1e30, "optimizer.weight_decay": 1e30}).train()
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    subprocess.run(["cp", "-r", str(made / "runs"), str(tmp_path / "runs")], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def rows(text: str) -> dict[str, str]:
    return {line.split()[0]: line for line in text.splitlines() if line.strip()}


def test_a_list(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["run", "state", "epochs", "best", "time", "config"]
    assert re.search(r"^tiny-001 +done +2/2  val.accuracy [\d.]+ +0:00:\d\d  tiny.yaml$", out, re.M)
    assert rows(out)["tiny-003"].split()[1] == "failed"
    assert "damaged" not in out


def test_newest_last_whatever_it_is_called(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads((here / "tiny-001" / "run.json").read_text())
    facts["started"] = "2999-01-01T00:00:00+00:00"
    (here / "tiny-001" / "run.json").write_text(json.dumps(facts))
    assert main(["runs", str(here)]) == 0
    assert list(rows(capsys.readouterr().out)) == ["run", "tiny-002", "tiny-003", "tiny-001"]


def test_states(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = (here / "tiny-001" / "log.txt").read_text().splitlines()
    (here / "tiny-001" / "log.txt").write_text("\n".join(log[:2]) + "\n")
    (here / "tiny-002" / "log.txt").write_text("\n".join([*log, *log[:2], "interrupted by SIGINT; go on with ..."]))
    (here / "tiny-003" / ".lock").write_text(f"{os.getpid()}\n")
    assert main(["runs"]) == 0
    found = rows(capsys.readouterr().out)
    assert [found[f"tiny-00{i}"].split()[1] for i in (1, 2, 3)] == ["killed", "interrupted", "running"]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for text in (f"{ended.pid}\n", "", "what?"):
        (here / "tiny-003" / ".lock").write_text(text)
        assert main(["runs"]) == 0
        assert rows(capsys.readouterr().out)["tiny-003"].split()[1] == "failed"


@pytest.mark.parametrize("file", ["run.json", "resolved.yaml", "metrics.csv"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\xff\xfe{{{", b'epoch,step\n1,2\n"a', b"[1, 2]"])
def test_damaged_runs_are_listed_and_told(
    file: str, content: bytes | None, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = here / "tiny-001" / file
    if content is None:
        place.unlink()
    else:
        place.write_bytes(content)
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith("tiny-")]) == 3
    whole = file == "metrics.csv" and content in (None, b"", b"[1, 2]")  # as before the first evaluation
    assert (f"  damaged: {file} " in out) is not whole
    assert main(["runs", str(here / "tiny-001"), str(here / "tiny-002")]) == 0
    assert main(["runs", "--json"]) == 0
    capsys.readouterr()


def test_an_empty_folder_where_a_run_was(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "dead-001" / "checkpoints").mkdir(parents=True)
    (here / "notes").mkdir()
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "damaged: run.json is not there; resolved.yaml is not there" in out
    assert "notes" not in out


def test_a_comparison(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "runs/tiny-001", "runs/tiny-002"]) == 0
    found = rows(capsys.readouterr().out)
    assert found["optimizer.lr"].split() == ["optimizer.lr", "0.1", "0.2"]
    assert found["net.layers.0.bias"].split() == ["net.layers.0.bias", "true", "false"]
    assert len(found["val.accuracy"].split()) == 3
    assert not [name for name in found if name.startswith("data.")]
    assert main(["runs", "runs/tiny-001", "runs/tiny-001"]) == 0
    assert "(the configs are the same)" in capsys.readouterr().out


def test_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in found] == ["done", "done", "failed"]
    assert found[0]["epochs"] == 2
    assert "val.loss" in found[0]["measured"]


def test_differing() -> None:
    configs = [{"a": 1, "b": {"c": [1, 2]}, "d": [{"e": 1}]}, {"a": 1, "b": {"c": [1, 3]}, "d": [{"e": 1}, {"e": 2}]}]
    assert {key: list(map(str, values)) for key, values in differing(configs).items()} == {
        "b.c": ["[1, 2]", "[1, 3]"],
        "d.1.e": ["-", "2"],
    }


def test_mistakes(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for argv, message in (
        (["nowhere"], "there is no folder nowhere"),
        (["empty"], "empty holds no runs"),
        (["runs/tiny-001", "runs/tiny-9"], "there is no run runs/tiny-9"),
    ):
        assert main(["runs", *argv]) == 2
        assert message in capsys.readouterr().err
