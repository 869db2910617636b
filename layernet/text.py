"""Tables of plain text, never cut: for terminals, pipes and logs alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = (), indent: str = "", first: int = 0) -> str:
    """Rows in columns, the first at least `first` wide; those numbered in `right` stand at their right edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(widths[0], first)

    def cell(i: int, text: str) -> str:
        return text.rjust(widths[i]) if i in right else text.ljust(widths[i])

    return "\n".join((indent + "  ".join(cell(i, text) for i, text in enumerate(row))).rstrip() for row in rows)
