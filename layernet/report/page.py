"""docs/catalogue.md: all that a config can name, family by family, made from the code alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from layernet.config.lookup import Lookup
from layernet.report.catalogue import Entry, built_in, example, link

_HEAD = """# The catalogue

Everything that a config can name, with its arguments and an example. Generated from the code by
`python scripts/make_docs.py`; `layernet layers NAME` prints the same on the command line."""


def page() -> str:
    """The whole page, as Markdown."""
    lookup = Lookup(Path())
    # a stable sort: families of layers may be spread over the table of names
    entries = list(built_in())
    order = list(dict.fromkeys((entry.kind, entry.family) for entry in entries))
    entries.sort(key=lambda entry: order.index((entry.kind, entry.family)))
    groups = [(family, list(group)) for family, group in groupby(entries, key=_heading)]
    contents = "\n".join(
        f"- {family}: " + ", ".join(f"[{entry.name}](#{entry.name.lower()})" for entry in group)
        for family, group in groups
    )
    parts = [_HEAD, contents]
    for family, group in groups:
        parts.append(f"## {family}")
        parts += [part for entry in group for part in _entry(entry, lookup)]
    return "\n\n".join(parts) + "\n"


def _heading(entry: Entry) -> str:
    return f"Layers: {entry.family.replace('_', ' ')}" if entry.kind == "layer" else entry.kind.capitalize()


def _entry(entry: Entry, lookup: Lookup) -> Iterator[str]:
    yield f"### {entry.name}"
    yield f"```text\n{entry.formula}\n{chr(10) + entry.text + chr(10) if entry.text else ''}```"
    if entry.arguments:
        rows = [
            f"| `{argument.name}` | {_cell(argument.type)} | "
            f"{'required' if argument.default is None else f'`{_cell(argument.default)}`'} |"
            for argument in entry.arguments
        ]
        yield "\n".join(["| argument | type | default |", "| --- | --- | --- |", *rows])
    if entry.papers:
        yield "From " + "; ".join(f"[{p}]({link(p)})" if link(p) else p for p in entry.papers) + "."
    shown = example(entry, lookup)
    if shown is not None:
        yield f"```yaml\n{shown}\n```"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
