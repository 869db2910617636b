"""`layernet doctor`: what it says of a machine, what it takes for broken, and that a wrong kernel does not pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layernet.backend import compiled, numpy_threads
from layernet.backend.device import Device, get_device, host
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.numpy_threads import Workers
from layernet.cli.main import main
from layernet.report.doctor import EXTRAS, as_text, examine
from layernet.testing.kernels import ALL_THREADS, FAMILIES, check_kernels
from tests.fakecupy.device import fake_device

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAYERNET_DATA", str(tmp_path))


def test_one_screen_of_a_sound_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("all that is here works\n")
    assert shown.count("\n") < 20
    for what in ("versions", "processor", "BLAS", "kernels", "data", "GPU", "extras", "self-test"):
        assert re.search(rf"^{what} +\S", shown, re.MULTILINE), what
    assert "WRONG" not in shown


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (test,) = (test for name, test in facts["self_test"].items() if name == "cpu")
    assert test["families"] == dict.fromkeys(FAMILIES, "ok")
    assert facts["broken"] == []
    assert facts["data"]["found"] == []


@pytest.mark.usefixtures("without_numba")
def test_without_numba_it_says_how_to_get_it() -> None:
    facts = examine()
    assert facts["kernels"]["kernels"] == "numpy"
    assert facts["cache"] is None
    shown = as_text(facts)
    assert "auto takes numpy: numba cannot be imported" in shown
    assert re.search(r"^hint: .*pip install 'layernet\[fast\]'$", shown, re.MULTILINE)


@pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
def test_threads_that_are_refused_and_lanes_that_are_forced() -> None:
    def shown(**environment: str) -> str:
        # all but the self-test: kernels of other lanes would have to be compiled
        code = "import layernet.report.doctor as d; d.check_kernels = lambda device: {}; " + (
            "from layernet.cli.main import main; raise SystemExit(main(['doctor']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        return f"{done.returncode}\n{done.stdout}"

    slow = shown(NUMBA_THREADING_LAYER="workqueue")
    assert slow.startswith("0\n")
    assert "auto takes numpy: numba's threads are those of 'workqueue'" in slow
    assert "4 lanes (any processor's, forced by LAYERNET_LANES)" in shown(LAYERNET_LANES="4")
    refused = shown(LAYERNET_LANES="5")
    assert refused.startswith("1\n")
    assert "broken: LAYERNET_LANES must be 4, 8 or 16, got '5'" in refused


def test_data_that_is_found_missing_or_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("layernet.report.doctor.check_kernels", lambda device: {})
    monkeypatch.setenv("LAYERNET_DATA", str(tmp_path))
    folder = tmp_path / "cifar10"
    folder.mkdir()
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert re.search("not there: .*CIFAR10", shown)
    assert re.search(r"^hint: CIFAR10: there is no .*; get them with .*, put the files of ", shown, re.MULTILINE)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(b"cut off")
    assert main(["doctor"]) == 1
    assert re.search(r"^broken: .*data_batch_1.bin: has 7 bytes, expected", capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setenv("LAYERNET_DATA", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 1
    assert "where there is no directory" in capsys.readouterr().out


def test_the_extras_are_those_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name for name in extras if name not in ("test", "dev")] == list(EXTRAS)
    for name, module in EXTRAS.items():
        assert any(requirement.startswith(module) for requirement in extras[name])


class Off(NumpyOps):
    """Kernels of which three are broken, each in its way."""

    def conv2d(self, *arguments: Any) -> Any:
        y, res = super().conv2d(*arguments)
        y.reshape(-1)[-1] += 0.1 * abs(y).max()
        return y, res

    def add(self, a: Any, b: Any) -> Any:
        return super().add(a, b) * float("nan")

    def sgd_update(self, *arguments: Any, **settings: Any) -> None:
        raise OSError("no such function")


def test_a_wrong_kernel_is_found_and_the_others_are_looked_at() -> None:
    verdicts = check_kernels(Device("cpu", Off()))
    wrong = {name: verdict for name, verdict in verdicts.items() if verdict != "ok"}
    assert list(wrong) == [
        "convolution",
        "convolution 3x3",
        "convolution 5x5",
        "depthwise",
        "grouped",
        "dilated",
        "sums",
        "updates",
        ALL_THREADS,
    ]
    assert wrong["sums"] == "WRONG: differs by inf of its scale"
    assert wrong["updates"] == "WRONG: OSError: no such function"


@pytest.mark.parametrize("device", [host, fake_device])
def test_other_kernels_pass(device: Callable[[], Device]) -> None:
    assert check_kernels(device()) == dict.fromkeys(FAMILIES, "ok")


def the_last_share_is_left_out(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels == "numpy":
        split = Workers.split

        def all_but_one(self: Workers, n: int, shares: int, task: Any) -> list[Any]:
            return split(self, n, shares, lambda part: task(part) if part.stop < n or shares == 1 else task(slice(0)))

        monkeypatch.setattr(Workers, "split", all_but_one)
        monkeypatch.setattr(numpy_threads, "blas", lambda: (3, ""))
    else:
        launch = pytest.importorskip("layernet.backend.compiled.launch")
        run = launch._runner()
        monkeypatch.setattr(launch, "_runner", lambda: lambda packed, tasks: run(packed, tasks - 1))


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_work_that_is_shared_out_wrongly_is_found(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels == "numba" and compiled.problem() is not None:
        pytest.skip(str(compiled.problem()))
    the_last_share_is_left_out(kernels, monkeypatch)
    verdicts = check_kernels(get_device("cpu", kernels))
    assert [name for name, verdict in verdicts.items() if verdict != "ok"] == [ALL_THREADS]


EVERY = """
from layernet.backend.compiled.warmup import kernels
from layernet.backend.device import get_device
from layernet.testing.kernels import check_kernels
check_kernels(get_device("cpu", "numba"))
every = list(kernels())
print(*{k.function.__module__ for k in every} - {k.function.__module__ for k in every if "address" in vars(k)})
"""


@pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
def test_the_self_test_runs_kernels_of_every_file() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
