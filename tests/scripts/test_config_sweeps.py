"""scripts/typos.py and scripts/hostile.py print their tables, and fail where a bar is not held."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import fuzz, hostile, typos

LENET = next(str(file) for file in typos.CONFIGS if file.stem == "lenet")


def test_typos(capsys: pytest.CaptureFixture[str]) -> None:
    assert typos.main([LENET, "--every", "100"]) == 0
    out = capsys.readouterr().out
    assert "caught" in out.splitlines()[0]
    assert "100.00 %" in out


def test_typos_fail_where_hints_are_wrong(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("layernet.config.schema.suggest", lambda word, known, taken=(): "")
    assert typos.main([LENET, "--every", "50"]) == 1
    assert "different wrong hints" in capsys.readouterr().out


def test_hostile(capsys: pytest.CaptureFixture[str]) -> None:
    assert hostile.main(["--only", "1e-3 is"]) == 0
    assert capsys.readouterr().out.endswith("1 inputs, 0 that do not hold the bars\n")


def test_hostile_fails_where_an_answer_is_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hostile, "ROWS", {"row": [("wrong", hostile.GOOD.encode(), "it should be refused")]})
    assert hostile.main([]) == 1
    assert "NOT HELD row, wrong: read" in capsys.readouterr().out


def test_the_fuzzer_reads_its_seeds_and_keeps_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, mutate = fuzz.TARGETS["checkpoint"]()
    turned = SimpleNamespace(Mutate=lambda data, size: bytes(reversed(data))[:size])
    for seed in fuzz.SEEDS["checkpoint"]():
        read(seed)
        for number in range(20):
            read(mutate(turned)(seed, 10_000, number))
    names = [name for name, _ in fuzz.members_of(fuzz.SEEDS["checkpoint"]()[1])]
    assert names == ["meta.json"]  # those of a sealed file, and not its checksum

    def broken(data: bytes) -> None:
        raise KeyError(data)

    watch = fuzz.Watch(broken, tmp_path / "findings", 60)
    watch(b"x")
    watch(b"y")  # the same finding
    assert len(list((tmp_path / "findings").iterdir())) == 1
    out = capsys.readouterr()
    assert out.out.count("FOUND KeyError at") == 1
    assert "KeyError: b'x'" in out.err
