"""The configs that come with layernet: each loads, says the same when resolved, and catches every typo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from layernet.config.experiment import load_config, load_config_text
from layernet.config.marks import parse
from layernet.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_and_resolves_to_the_same(path: Path) -> None:
    config = load_config(path)
    again = load_config_text(config.dump(), "resolved.yaml", FOLDER)
    assert again.resolved == config.resolved
    assert list(again.net.params()) == list(config.net.params())
    assert set(config.net.layers) <= set(config.layer_marks)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_says_what_it_is_and_what_to_expect(path: Path) -> None:
    head = path.read_text().split("\nlayernet: 1")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert re.search(r"Expect .*%", head)


def test_all_that_are_promised_are_there() -> None:
    promised = [
        "cifar10_quick",
        "cifar10_resnet20",
        "custom_layer",
        "digits_convnet",
        "digits_mlp",
        "mnist_lenet",
        "mnist_mlp",
    ]
    assert {path.stem for path in CONFIGS} >= set(promised)


def typos(word: str) -> Iterator[str]:
    """One character left out, doubled, swapped with the next, or replaced."""
    for i in range(len(word)):
        yield word[:i] + word[i + 1 :]
        yield word[:i] + "x" + word[i:]
        yield word[:i] + "q" + word[i + 1 :]
        if i + 1 < len(word) and word[i] != word[i + 1]:
            yield word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def typo_sweep(path: Path, stride: int) -> tuple[int, int]:
    """(mutants of the config's keys, those whose cure is named first); each must be refused at its place."""
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    words = {str(place[-1]): mark for place, mark in parse(text, "f.yaml").keys.items() if "groups" not in place[-2:-1]}
    mutants = [(word, typo) for word in words for typo in typos(word) if typo and typo not in words]
    right = 0
    for word, typo in mutants[::stride]:
        mark = words[word]
        line = lines[mark.line - 1]
        changed = line[: mark.column - 1] + typo + line[mark.column - 1 + len(word) :]
        with pytest.raises(ConfigError) as caught:
            load_config_text("".join([*lines[: mark.line - 1], changed, *lines[mark.line :]]), "f.yaml", FOLDER)
        here = [problem for problem in caught.value.problems if problem.mark == mark]
        assert here, (word, typo, str(caught.value))
        right += caught.value.problems[0].hint == f"did you mean {word!r}?"
    return len(mutants[::stride]), right


def test_typos_in_keys_are_caught_and_mended_rightly() -> None:
    made, right = typo_sweep(FOLDER / "digits_convnet.yaml", stride=5)
    assert made > 100
    assert right / made >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_typo_in_every_key_is_caught_and_mended_rightly(path: Path) -> None:
    made, right = typo_sweep(path, stride=1)
    assert right / made >= 0.95
