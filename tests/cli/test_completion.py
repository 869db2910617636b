"""`layernet completion`: the scripts, run by the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from layernet.cli.completion import INSTALL, PLACES, options
from layernet.cli.main import COMMANDS, main, parsers


@pytest.fixture(params=sorted(INSTALL))
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_everything_is_in_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    for name, parser in parsers().items():
        assert name in text
        for option in options(parser):
            assert (f"-l {option.name[2:]}" if shell == "fish" else option.name) in text


def test_the_help_says_how_to_install_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    assert f"{PLACES[shell]}: {INSTALL[shell]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["va"], ["validate"]),
        ([""], [*COMMANDS, "--help", "--version"]),
        (["eval", "--sp"], ["--split"]),
        (["eval", "--split", "t"], ["train", "test"]),
        (["data", "g"], ["get"]),
        (["validate", "con"], ["configs"]),
        (["predict", "--skip"], ["--skip-bad"]),
        (["nonsense", "--x"], []),
    ],
)
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash(words: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "configs").mkdir()
    line = " ".join(f"'{word}'" for word in ["layernet", *words])
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _layernet; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script('bash', capsys)}\n{ask}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.split() == expected


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [("va", ["validate"]), ("eval --sp", ["--split"]), ("eval --split t", ["test", "train"]), ("data g", ["get"])],
)
def test_fish(line: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"{script('fish', capsys)}\ncomplete -C 'layernet {line}'"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert [found.split("\t")[0] for found in done.stdout.splitlines()] == expected


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = f"compdef() {{ print $@; }}\n{script('zsh', capsys)}"
    done = subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("_layernet layernet\n", "")


def test_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "fsh"])
    assert "there is no SHELL choice 'fsh'; did you mean 'fish'?" in capsys.readouterr().err
