"""Tables of plain text, never cut: for terminals, pipes and logs alike. What is wider than a terminal is wrapped."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = (), indent: str = "", first: int = 0) -> str:
    """Rows in columns, the first at least `first` wide; those numbered in `right` stand at their right edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(widths[0], first)

    def cell(i: int, text: str) -> str:
        return text.rjust(widths[i]) if i in right else text.ljust(widths[i])

    return "\n".join((indent + "  ".join(cell(i, text) for i, text in enumerate(row))).rstrip() for row in rows)


def fitted(text: str, width: int | None) -> str:
    """The text with every line of more than `width` characters wrapped, under the start of its last column."""
    if width is None:
        return text
    return "\n".join(_wrapped(line, width) if len(line) > width else line for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    starts = [0, *(found.end() for found in re.finditer(r"(?<=\S)\s{2,}|^\s+", line))]
    hang = max(start for start in starts if start <= width // 2)
    return "\n".join(_fill(line, width, " " * hang))


def _fill(line: str, width: int, indent: str) -> list[str]:
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return [each.rstrip() for each in wrapper.wrap(line)]


def prose(text: str, width: int | None) -> str:
    """Paragraphs with their lines broken anew at `width`; those that are laid out by indentation stay as they are."""
    if width is None:
        return text
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        part if re.search(r"^\s", part, re.M) else "\n".join(_fill(" ".join(part.split()), width, ""))
        for part in paragraphs
    )


def size(count: int) -> str:
    """A number of bytes in the unit that suits it: 120 B, 8.4 MB."""
    for unit, power in (("EB", 1e18), ("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:.1f} {unit}"
    return f"{count} B"
