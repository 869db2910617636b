"""The benchmark scripts run, and compare like with like."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from layernet.backend.device import host
from layernet.config.experiment import load_config

SCRIPTS = Path(__file__).parents[2] / "scripts"
NETS = ["mlp", "lenet", "cuda_convnet", "vgg", "resnet20", "resnet18", "tiny"]
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *arguments], capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of scripts/bench by name."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return lambda name: importlib.import_module(f"bench.{name}")


class FakeWorker:
    """A worker whose rounds are known."""

    def __init__(self, label: str, *medians: float, least: float | None = None) -> None:
        self.label, self.coming, self.medians = label, list(medians), []
        self.least = min(medians) if least is None else least

    def round(self, seconds: float) -> None:
        self.medians.append(self.coming.pop(0))

    @property
    def typical(self) -> float:
        return sorted(self.medians)[len(self.medians) // 2]


def test_a_duel_finds_the_fastest(module: Any) -> None:
    slow, fast = FakeWorker("slow", 3, 3, 3), FakeWorker("fast", 2, 2, 2)
    ours = FakeWorker("ours", 1, 1, 1)
    assert module("duel").duel(ours, [slow, fast], rounds=3) is fast
    assert [len(worker.medians) for worker in (ours, slow, fast)] == [3, 3, 3]


def test_rounds_are_repeated_while_medians_and_minima_disagree(module: Any) -> None:
    # disturbed at first: the median says 1.5, the minima 1
    ours, theirs = FakeWorker("ours", 3, 3, 2, 2, 2, 2), FakeWorker("theirs", *[2] * 6)
    module("duel").duel(ours, [theirs], rounds=2)
    assert len(ours.medians) == 6
    ours, theirs = FakeWorker("ours", *[3] * 9, least=1), FakeWorker("theirs", *[2] * 9)
    module("duel").duel(ours, [theirs], rounds=3)
    assert len(ours.medians) == 9  # patience has an end
    assert not module("duel").agree(ours, theirs)


def test_a_table_has_every_figure_in_its_column(module: Any) -> None:
    script: ModuleType = importlib.import_module("bench_torch")
    figures = script.Bench.figures(0.25, 0.2, 100, "ours") | script.Bench.figures(0.5, 0.4, 200, "theirs")
    row = {
        "net": "vgg",
        "kind": "data",
        "kernels": "numpy",
        "their_best": "nchw",
        "examples": 10,
        "ratio": 0.5,
        "ratio_min": 0.5,
        **figures,
    }
    shown = script.shown(row)
    assert shown.split()[:11] == [
        "vgg",
        "data",
        "numpy",
        "0.50",
        "0.50",
        "250.00",
        "200.00",
        "500.00",
        "400.00",
        "100",
        "200",
    ]
    assert "40 and 20 images/s" in shown


@needs_torch
@pytest.mark.parametrize("net", NETS)
def test_both_sides_have_the_same_parameters(module: Any, net: str) -> None:
    ours = load_config(SCRIPTS / "bench" / f"{net}.yaml").net
    theirs = module("theirs").NETS[net]()

    def sizes(shapes: Any) -> list[tuple[int, ...]]:
        return sorted(tuple(sorted(shape)) for shape in shapes)

    assert sizes(p.shape for p in ours.params().values()) == sizes(p.shape for p in theirs.parameters())


@pytest.mark.parametrize("kind", ["train", "inference1", "inference128", "data"])
def test_our_steps(module: Any, kind: str) -> None:
    config = str(SCRIPTS / "bench" / "tiny.yaml")
    job = module("ours").Job({"config": config, "kind": kind, "kernels": "numpy"})
    try:
        before = job.net.state_dict()
        for _ in range(9):  # one more than an epoch has
            job.step()
    finally:
        job.limits.__exit__(None, None, None)
        if kind == "data":
            job.batches.close()
    moved = any((value != before[path]).any() for path, value in job.net.state_dict().items())
    assert moved == (kind in ("train", "data"))
    assert job.facts["examples"] == {"inference1": 1, "inference128": 128}.get(kind, 4)
    assert job.facts["augmented"]


@needs_torch
@pytest.mark.parametrize("kind", ["train", "inference1", "data"])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_their_steps(module: Any, kind: str, layout: str) -> None:
    spec = {"net": "tiny", "kind": kind, "layout": layout, "threads": 1, "workers": 0, "input": [8, 8, 3]}
    job = module("theirs").Job({**spec, "examples": 4, "augmented": True})
    before = [param.detach().clone() for param in job.net.parameters()]
    for _ in range(2):
        job.step()
    moved = any((param != old).any() for param, old in zip(job.net.parameters(), before, strict=True))
    assert moved == (kind != "inference1")


@needs_torch
def test_bench_torch(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    options = ["--rounds", "1", "--threads", "1", "--kernels", "numpy", "--json", str(file)]
    done = run("bench_torch.py", "--nets", "tiny", "--kinds", "train", *options)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["net"], row["kind"], row["parameters"]) == ("tiny", "train", 1150)
    assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])
    assert set(row["tried"]) == {"nchw", "channels_last"}
    assert row["theirs"] == min(tried["median"] for tried in row["tried"].values())
    assert 10 < row["ours_peak_mb"] < row["theirs_peak_mb"] < 5000
    assert "tiny" in done.stdout.splitlines()[-1]


def test_bench_torch_says_what_it_cannot_do() -> None:
    done = run("bench_torch.py", "--nets", "vggg")
    assert done.returncode == 2
    assert "unknown net vggg: choose from cuda_convnet" in done.stderr


def test_bench_kernels(tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    options = ["--seconds", "0.01", "--copy", "4", "--threads", "1", "--kernels", "numpy", "--json", str(file)]
    done = run("bench_kernels.py", "--only", "128, 1024 -> 10", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    rows = [row for row in found["rows"] if row["kernel"] == "linear 128, 1024 -> 10"]
    assert [row["pass"] for row in rows] == ["forward", "dx", "dw"]
    for row in rows:
        assert row["gflops"] == pytest.approx(2 * 128 * 1024 * 10 / row["min_ms"] / 1e6)
        assert row["share_of_peak"] == pytest.approx(row["gflops"] / found["peak_gflops"])
    assert run("bench_kernels.py", "--only", "nothing", *options[:6]).returncode == 1


@pytest.mark.parametrize("name", ["batch norm 64x8x8x256", "cross entropy 128x10", "SGD with momentum 1 M", "conv l2"])
def test_every_family_of_kernels_can_be_timed(module: Any, name: str) -> None:
    kernels = module("kernels")
    found = list(kernels.all_cases(host(), 0.001, name))
    assert found
    for timed in found:
        assert len(timed.times) >= 5
        assert all(seconds > 0 for seconds in timed.times)


def test_a_cliff_is_far_below_both_neighbours(module: Any) -> None:
    cliffs = importlib.import_module("bench_sizes").cliffs
    assert cliffs([4, 9, 4, 9, 30, 11, 20]) == [False, False, True, False, False, False, False]
    assert cliffs([1.0, 9.0]) == [False, False]


def test_bench_sizes(tmp_path: Path) -> None:
    file = tmp_path / "sizes.json"
    options = ["--largest", "4", "--seconds", "0", "--threads", "1", "--kernels", "numpy", "--json", str(file)]
    run("bench_sizes.py", "--axes", "channels", *options)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["batch"], row["image"], row["channels"]) for row in rows] == [(16, 16, 3), (16, 16, 4)]
    multiply_adds = 16 * (16 * 16 * 9 * 3 * 3 + 3 * 10)
    assert rows[0]["gflops"] == pytest.approx(6 * multiply_adds / rows[0]["min_ms"] / 1e6)


def test_profile_step() -> None:
    config = str(SCRIPTS / "bench" / "tiny.yaml")
    done = run("profile_step.py", config, "--steps", "4", "--kernels", "numpy", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert "basicblock_1.conv1" in [layer["path"] for layer in found["layers"]["layers"]]
    assert found["steps"] == 4
