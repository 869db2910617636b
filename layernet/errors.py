"""Every error that layernet raises on purpose, and the one place where their messages are formatted.

Stands at the bottom of the package: imports nothing of it.
"""

from __future__ import annotations

import difflib
import shlex
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

_LISTED, _LIKEST = 15, 4  # known words that a hint lists; how many of more


@dataclass(frozen=True)
class Mark:
    """A place in a text file; line and column count from 1. Line 0: no file, but an origin such as `--set seed`."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (file position, path in the config), what, and the cure."""

    message: str
    path: str = ""
    mark: Mark | None = None
    hint: str = ""

    def __str__(self) -> str:
        said = self.mark is not None and not self.mark.line and self.mark.file.endswith(f" {self.path}")
        place = "".join(f"{part}: " for part in (self.mark, "" if said else self.path) if part)
        return place + self.message + (f"; {self.hint}" if self.hint else "")


class LayernetError(Exception):
    """Base of all errors raised on purpose: one clear message, no traceback on the command line.

    `exit_code` is what the command line returns for it: 1 for a run that failed, 2 for wrong usage or config.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(LayernetError):
    """A config that cannot be used: every problem found, each with its place and cure."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems = [Problem(problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(LayernetError):
    """A command line or an argument that cannot be used."""

    exit_code = 2


class DataError(LayernetError):
    """Data that is absent, damaged or not what was promised."""


class CheckpointError(LayernetError):
    """A checkpoint that cannot be written, read, or does not fit the net."""


class DeviceError(LayernetError):
    """A device that does not exist or cannot be used here."""

    exit_code = 2


class NumericsError(LayernetError):
    """A NaN or an infinity where a finite number must stand."""


class Interrupted(LayernetError):
    """Training ended early by a signal, after the step at hand and with everything saved. Exit code 128 + N."""

    def __init__(self, number: int, run: str = "RUN") -> None:
        super().__init__(
            f"interrupted by {signal.Signals(number).name}", f"go on with `layernet resume {shlex.quote(run)}`"
        )
        self.number = number
        self.exit_code = 128 + number


class ContractError(LayernetError):
    """A layer (or a loss, an optimizer, ...) or its caller broke the contract of docs/architecture.md.

    `layer` is the layer that could not be built, where that is what broke.
    """

    def __init__(self, message: str, hint: str = "", layer: object | None = None) -> None:
        super().__init__(message, hint)
        self.layer = layer


class ShapeError(LayernetError):
    """A layer cannot take an input of this shape. `layer` is the layer that refused, where known."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "", layer: object | None = None) -> None:
        super().__init__(message, hint)
        self.layer = layer


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of the known words, or lists them when none is near: of many, the likest."""
    choices = sorted(set(known))
    folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=len(folded) or 1, cutoff=0.4)
    near.sort(key=lambda choice: not _one_slip(word.casefold(), choice))  # stable: the likest of either kind first
    if near and not _one_slip(word.casefold(), near[0]):
        near = difflib.get_close_matches(word.casefold(), near, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    if not choices:
        return "nothing is allowed here"
    if len(choices) > _LISTED:
        likest = difflib.get_close_matches(word.casefold(), list(folded), n=_LIKEST, cutoff=0.0)
        return f"known: {', '.join(folded[choice] for choice in likest)} and {len(choices) - _LIKEST} more"
    return f"known: {', '.join(choices)}"


def _one_slip(word: str, meant: str) -> bool:
    """Whether one character too many, too few or wrong, or two swapped, make `word` of `meant`."""
    start = next((i for i, (a, b) in enumerate(zip(word, meant, strict=False)) if a != b), min(len(word), len(meant)))
    rest, other = word[start:], meant[start:]
    swapped = rest[:2] == other[:2][::-1] and rest[2:] == other[2:]
    return len(meant) > 1 and (swapped or rest[1:] == other[1:] or rest[1:] == other or rest == other[1:])


def at(mark: Mark | None, path: str, problems: Sequence[Problem]) -> list[Problem]:
    """The problems, each given this place where it has none of its own."""
    return [replace(p, mark=p.mark or mark, path=p.path or path) for p in problems]
