"""The run directory."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from layernet.errors import UsageError
from layernet.train import checkpoint
from layernet.train.checkpoint import Checkpoint
from layernet.train.rundir import RunDirectory


def test_numbers_go_up_and_names_do_not_mix(tmp_path: Path) -> None:
    assert RunDirectory.create(tmp_path, "a").path.name == "a-001"
    assert RunDirectory.create(tmp_path, "a-b").path.name == "a-b-001"
    assert RunDirectory.create(tmp_path, "a").path.name == "a-002"
    (tmp_path / "a-041").mkdir()
    assert RunDirectory.create(tmp_path, "a").path.name == "a-042"


def test_twenty_starts_at_once_get_twenty_directories(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        paths = list(pool.map(lambda _: RunDirectory.create(tmp_path, "x").path, range(20)))
    assert len(set(paths)) == 20


def test_describe_keeps_what_went_in(tmp_path: Path) -> None:
    mine = tmp_path / "my_layers.py"
    mine.write_text("# mine\n")
    run = RunDirectory.create(tmp_path / "runs", "x")
    run.describe("given: 1\n", "resolved: 1\n", {mine.name: mine.read_bytes()}, {"seed": 3}, tmp_path / "x.yaml")
    assert (run.path / "config.yaml").read_text() == "given: 1\n"
    assert (run.path / "my_layers.py").read_text() == "# mine\n"
    facts = json.loads((run.path / "run.json").read_text())
    assert facts["seed"] == 3
    assert len(facts["files"]["my_layers.py"]) == 64
    assert set(facts["versions"]) == {"layernet", "python", "numpy"}
    assert facts["cpu"]
    assert facts["platform"]
    assert any(library["version"] and library["num_threads"] for library in facts["libraries"])
    assert RunDirectory.open(run.path).resolved.read_text() == "resolved: 1\n"


def test_opening_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run directory"):
        RunDirectory.open(tmp_path)


def test_metrics_rows_may_differ(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    run.write_metrics([{"step": 1, "val.loss": 0.5}, {"step": 2, "test.loss": 0.25}])
    assert (run.path / "metrics.csv").read_text() == "step,val.loss,test.loss\n1,0.5,\n2,,0.25\n"


@pytest.mark.parametrize("links", [True, False])
def test_keep_retains_the_newest_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("this drive has no hard links")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    run = RunDirectory.create(tmp_path, "x")
    for step in (1, 2, 3, 4):
        run.save_last(Checkpoint(meta={"step": step}), keep=3)
    names = sorted(path.stem for path in (run.path / "checkpoints").iterdir())
    assert names == ["last", "step-00000002", "step-00000003", "step-00000004"]
    assert checkpoint.load(run.checkpoint("step-00000003")).meta["step"] == 3


def test_one_that_is_kept_has_one_file(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    for step in (1, 2):
        run.save_last(Checkpoint(meta={"step": step}), keep=1)
    assert run.checkpoints() == ["last"]


def test_a_damaged_checkpoint_does_not_stop_the_next_save(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "x")
    run.save_last(Checkpoint(meta={"step": 1}), keep=2)
    run.checkpoint("last").write_bytes(b"damaged")
    run.save_last(Checkpoint(meta={"step": 2}), keep=2)
    assert checkpoint.load(run.checkpoint("last")).meta["step"] == 2
