"""What is generated about configs: the tables of docs/config.md (sections, keys of entries, built-in names), and the
JSON schema with their words.

A page marks them with `<!-- generated: NAME -->` and `<!-- end -->`; what stands between is replaced.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from layernet.config.entries import Extras
from layernet.config.jsonschema import json_schema
from layernet.config.lookup import Lookup, article
from layernet.config.schema import written
from layernet.config.sections import (
    CheckpointConfig,
    DataSection,
    NetSection,
    RootSection,
    TrainConfig,
    WarmStartConfig,
)
from layernet.report.catalogue import Argument, arguments_of, built_in

SECTIONS: dict[str, type] = {
    "": RootSection,
    "data.": DataSection,
    "net.": NetSection,
    "warm_start.": WarmStartConfig,
    "train.": TrainConfig,
    "train.checkpoint.": CheckpointConfig,
}
"""What the paths of keys start with, and where they are declared."""

EXTRAS = {
    "layer": Extras.layer,
    "`ref`": Extras.tied,
    "loss": Extras.objective,
    "penalty": Extras.penalty,
    "metric": Extras.measure,
    "data set": Extras.source,
    "fraction": Extras.fraction,
}

_MARKED = re.compile(r"(^<!-- generated: (\S+) -->\n)(.*?)(^<!-- end -->$)", re.S | re.M)
_PYTHON_ONLY = {"Arrays"}  # takes arrays, which a config cannot write
_NEEDS_NO_TYPE = {"int", "float", "bool", "text", "initialiser"}  # the default shows it


@cache
def schema_text() -> str:
    """The JSON schema of configs, with a description of everything built in and of every key."""

    def describe(target: Any) -> str:
        return " ".join(inspect.cleandoc(target.__doc__ or "").partition("\n\n")[0].split())

    def notes(declared: Any) -> Mapping[str, str]:
        return _attribute_docs(declared) if inspect.isclass(declared) else _key_docs(declared)

    return json.dumps(json_schema(describe, notes), indent=1, ensure_ascii=False) + "\n"


def fill(page: str) -> str:
    """The page with its generated parts made anew. Raises KeyError for a part that nothing is known of."""
    tables = dict(_tables())
    return _MARKED.sub(lambda found: f"{found[1]}{tables[found[2]]}\n{found[4]}", page)


def _tables() -> Iterator[tuple[str, str]]:
    """(name, table) of each part."""
    yield "sections", _table(("key", "type", "default", ""), _section_keys())
    yield "entries", _table(("entry", "key", "type", "default", ""), _entry_keys())
    yield "built-in", _table(("", "name", "arguments", ""), _built_in())


def _section_keys() -> Iterator[tuple[str, ...]]:
    for path, section in SECTIONS.items():
        docs = _attribute_docs(section)
        for argument in arguments_of(section, Lookup(Path())):
            if f"{path}{argument.name}." not in SECTIONS:
                yield (*_key(argument, path), docs[argument.name])


def _entry_keys() -> Iterator[tuple[str, ...]]:
    """The keys of our own in entries; one that means the same in several stands there once."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for entry, extra in EXTRAS.items():
        docs = _key_docs(extra)
        for argument in arguments_of(extra, Lookup(Path())):
            rows.setdefault((*_key(argument), docs[argument.name]), []).append(entry)
    return ((", ".join(entries), *row) for row, entries in rows.items())


def _key(argument: Argument, path: str = "") -> tuple[str, str, str]:
    default = "required" if argument.default is None else f"`{argument.default}`"
    return f"`{path}{argument.name}`", _type(argument), default


def _built_in() -> Iterator[tuple[str, ...]]:
    for entry in built_in():
        if entry.name not in _PYTHON_ONLY:
            arguments = ", ".join(_signature(argument) for argument in entry.arguments)
            kind = article(entry.kind).partition(" ")[2]
            yield kind, f"`{entry.name}`", f"`{arguments}`" if arguments else "", _prose(entry.formula)


def _signature(argument: Argument) -> str:
    """`name: type = default`, the type left out where the default tells it."""
    telling = argument.type in _NEEDS_NO_TYPE and argument.default is not None
    text = argument.name if telling else f"{argument.name}: {_type(argument)}"
    return text if argument.default is None else f"{text} = {argument.default}"


def _type(argument: Argument) -> str:
    """The type, without the null that a default of null tells of."""
    return argument.type.removesuffix(" | null") if argument.default == "null" else argument.type


def _prose(text: str) -> str:
    """Text of a docstring, with what Markdown would read as emphasis kept as it is; code stays code."""
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in _code(text))


def _code(text: str) -> list[str]:
    return re.split(r"(`[^`]*`)", text)


def _key_docs(extra: Any) -> dict[str, str]:
    """The lines `key: meaning` of a function's docstring."""
    return dict(re.findall(r"^ *(\w+): (.*)$", extra.__doc__ or "", re.M))


def _attribute_docs(cls: type) -> dict[str, str]:
    """The string below each field of a class: what the interpreter drops and a reader sees."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            docs[written(field.target.id)] = str(ast.literal_eval(below.value))
    return docs


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
