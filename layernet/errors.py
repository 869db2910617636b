"""Every error that layernet raises on purpose, and the one place where their messages are formatted.

Stands at the bottom of the package: imports nothing of it.
"""

from __future__ import annotations

import difflib
import re
import shlex
import signal
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["error", "place", "gutter", "caret", "note", "help"]
Paint: TypeAlias = Callable[[Role, str], str]
"""Dresses a part of a message for a terminal: given what part it is, and its text."""

_SHOWN = 50  # problems in one answer
_WIDEST = 100  # columns of an excerpt
_LISTED, _LIKEST = 15, 4  # known words that a hint lists; how many of more
_ALIKE = 0.6  # how much a word must be like another to be taken for it, of 1


@dataclass(frozen=True)
class Mark:
    """A place in a text file; line and column count from 1. Line 0: no file, but an origin such as `--set seed`.

    `text` is the line itself, where it is known: excerpts show it.
    """

    file: str
    line: int
    column: int
    text: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Note:
    """Another place that a problem is about, such as the layer before the one that refused; and what is to be said."""

    mark: Mark
    message: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (file position, path in the config), what, and the cure.

    `str` of it is one line, for logs; `block` is for people: with the lines that it is about.
    """

    message: str
    path: str = ""
    mark: Mark | None = None
    hint: str = ""
    notes: tuple[Note, ...] = ()

    def __str__(self) -> str:
        return self._place() + self.message + (f"; {self.hint}" if self.hint else "")

    def block(self, paint: Paint | None = None) -> str:
        """The problem as compilers write it: place and message, the line with what is wrong underlined, the cure."""
        paint = paint or _plain
        if self.mark is None and not self.notes:
            return f"{paint('error', 'error:')} {self}"
        places = [mark for mark in (self.mark, *(note.mark for note in self.notes)) if mark and mark.text]
        margin = max((len(str(mark.line)) for mark in places), default=1)
        lines = [f"{paint('error', 'error:')} {paint('place', self._place())}{self.message}"]
        lines += _excerpt(self.mark, margin, "^", paint)
        for note in self.notes:
            lines.append(_aside(margin, "note", f"{note.mark}: {note.message}", paint))
            lines += _excerpt(note.mark, margin, "-", paint)
        if self.hint:
            lines.append(_aside(margin, "help", self.hint, paint))
        return "\n".join(lines)

    def _place(self) -> str:
        said = self.mark is not None and not self.mark.line and self.mark.file.endswith(f" {self.path}")
        return "".join(f"{part}: " for part in (self.mark, "" if said else self.path) if part)


class LayernetError(Exception):
    """Base of all errors raised on purpose: one clear message, no traceback on the command line.

    `exit_code` is what the command line returns for it: 1 for a run that failed, 2 for wrong usage or config.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint

    def block(self, paint: Paint | None = None) -> str:
        """What a terminal shows."""
        return f"{(paint or _plain)('error', 'error:')} {self}"


class ConfigError(LayernetError):
    """A config that cannot be used: every problem found, each with its place and cure."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems = [Problem(problems)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def block(self, paint: Paint | None = None) -> str:
        """Every problem with the lines that it is about; of very many, the first."""
        blocks = [problem.block(paint) for problem in self.problems[:_SHOWN]]
        count = len(self.problems)
        ending = [f"{count} errors{f', the first {_SHOWN} are shown' * (count > _SHOWN)}"] if count > 1 else []
        return "\n\n".join([*blocks, *ending])


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


def did_you_mean(word: str, known: Iterable[str], taken: Iterable[str] = (), meant: Sequence[str] = ()) -> str:
    """A hint that names the nearest of the known words, or lists them when none is near: of many, the likest.

    Of words that are equally near, those that are not `taken`, such as keys that stand beside it, come first. What
    the word is known to mean, `meant`, comes after words that are a slip away and before those that are only alike.
    """
    used = set(taken)
    choices = sorted(set(known), key=lambda choice: (choice in used, choice))
    folded: dict[str, str] = {}
    for choice in choices:
        folded.setdefault(choice.casefold(), choice)
    if near := _nearest(word, choices, used, meant):
        return f"did you mean {near!r}?"
    if not choices:
        return "nothing is allowed here"
    if len(choices) > _LISTED:
        likest = difflib.get_close_matches(word.casefold(), list(folded), n=_LIKEST, cutoff=0.0)
        return f"known: {', '.join(folded[choice] for choice in likest)} and {len(choices) - _LIKEST} more"
    return f"known: {', '.join(sorted(choices))}"


def _nearest(word: str, choices: Sequence[str], used: set[str], meant: Sequence[str]) -> str | None:
    """The word that was meant: one slip away if any is, else one known for it, else one that is alike."""
    slips = [choice for choice in choices if one_slip(word, choice)]  # of 'conv2D' and 'Conv2d', the exact one
    slips = slips or [choice for choice in choices if one_slip(word.casefold(), choice.casefold())]
    if slips:
        return min(reversed(slips), key=lambda choice: (choice in used, -_likeness(word, choice), -len(choice)))
    free = [choice for choice in meant if choice not in used]
    if free or meant:
        return [*free, *meant][0]
    alike = [choice for choice in choices if _likeness(word, choice) >= _ALIKE]
    return max(alike, key=lambda choice: (_likeness(word, choice), choice not in used)) if alike else None


def _likeness(word: str, choice: str) -> float:
    return difflib.SequenceMatcher(None, word.casefold(), choice.casefold()).ratio()


def one_slip(word: str, meant: str) -> bool:
    """Whether one character too many, too few or wrong, or two swapped, make `word` of `meant`."""
    start = next((i for i, (a, b) in enumerate(zip(word, meant, strict=False)) if a != b), min(len(word), len(meant)))
    rest, other = word[start:], meant[start:]
    swapped = rest[:2] == other[:2][::-1] and rest[2:] == other[2:]
    if len(meant) == 1:  # of which nearly everything is a slip away
        return len(word) == 2 and meant in word
    return swapped or rest[1:] == other[1:] or rest[1:] == other or rest == other[1:]


def at(mark: Mark | None, path: str, problems: Sequence[Problem]) -> list[Problem]:
    """The problems, each given this place where it has none of its own."""
    return [replace(p, mark=p.mark or mark, path=p.path or path) for p in problems]


# excerpts


def _plain(role: Role, text: str) -> str:
    return text


def _aside(margin: int, role: Literal["note", "help"], text: str, paint: Paint) -> str:
    return f"{' ' * margin} {paint('gutter', '=')} {paint(role, f'{role}:')} {text}"


def _excerpt(mark: Mark | None, margin: int, line: str, paint: Paint) -> list[str]:
    """The marked line, and under it a line below what is meant; nothing where the text is not known."""
    if mark is None or not mark.text:
        return []
    start = min(mark.column - 1, len(mark.text))
    end = start + _extent(mark.text[start:])
    first = 0 if len(mark.text) <= _WIDEST else max(0, min(start - _WIDEST // 4, len(mark.text) - _WIDEST))
    last = min(first + _WIDEST, len(mark.text))
    before = "..." if first else ""
    shown = before + _clean(mark.text[first:last]) + ("..." if last < len(mark.text) else "")
    space = " " * _columns(before + _clean(mark.text[first:start]))
    under = line * max(1, _columns(_clean(mark.text[start : min(end, last)])))
    edge = paint("gutter", "|")
    return [
        f"{' ' * margin} {edge}",
        f"{paint('gutter', str(mark.line).rjust(margin))} {edge} {shown.rstrip()}",
        f"{' ' * margin} {edge} {space}{paint('caret', under)}",
    ]


def _extent(rest: str) -> int:
    """How many characters at the start of `rest` are the key, the value or the entry that begins there."""
    if rest[:1] in ("'", '"'):
        closed = rest.find(rest[0], 1)
        return closed + 1 if closed > 0 else len(rest)
    if rest[:1] in ("{", "["):
        depth = 0
        for index, character in enumerate(rest):
            depth += (character in "{[") - (character in "}]")
            if depth == 0:
                return index + 1
        return 1
    found = re.match(r".*?(?=:(\s|$)|[,\]}](\s|$|[,\]}])| #|\s*$)", rest)
    return max(1, found.end()) if found else 1


def _clean(text: str) -> str:
    """What a terminal shows as it is: a tab as one space, what it would obey or hide as a replacement character."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _columns(text: str) -> int:
    """How wide a terminal shows it."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
