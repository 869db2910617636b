"""YAML text -> plain data in which every key and every value knows its line and column; and plain data -> YAML text.

The dialect is YAML without its surprises: only `true` and `false` are booleans, `1e-3` is a number, `on`, `no`,
`1:30`, `0777`, `1_000` and dates are text, a key given twice is an error, tags are refused. The parser's events are
read one by one, so depth and size are bounded before anything is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NamedTuple, NoReturn, TypeAlias

import yaml

from layernet.errors import ConfigError, Mark, Note, Problem

Path: TypeAlias = tuple[str | int, ...]
"""A place in a config: ("net", "layers", 3, "out_channels")."""

MAX_CHARACTERS = 256_000
MAX_DEPTH = 50
MAX_NODES = 50_000  # counted with aliases and merge keys expanded

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_SPECIAL = {
    **dict.fromkeys(("", "~", "null")),
    "true": True,
    "false": False,
    ".nan": math.nan,
    ".inf": math.inf,
    "+.inf": math.inf,
    "-.inf": -math.inf,
}
_REFERENCE = re.compile(r"""\$\{((?:[^{}'"\n,\[\]]|"[^"{}\n,:]*")+)\}""")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what YAML counts lines by
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


class Origin(NamedTuple):
    """What a value was written as, `${width}`, and where that which it stands for is written."""

    written: str
    mark: Mark | None


@dataclass
class Document:
    """Plain data, and where each part of it stands."""

    data: dict[str, Any]
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the text, yet does not hinder reading the rest: duplicate keys, tags."""
    folders: dict[str, FilePath] = field(default_factory=dict)
    """The folder of each file that was read, by the file's name in marks: where `./file.py` starts that it names."""
    extended: dict[FilePath, bytes] = field(default_factory=dict)
    """The other files that were read for it."""
    inherited: set[str] = field(default_factory=set)
    """The variables that those declare."""
    origins: dict[Path, Origin] = field(default_factory=dict)
    """Values that came through a variable."""
    broken: set[Path] = field(default_factory=set)
    """Values of variables that are not known: what follows from them is not worth telling."""

    def mark(self, path: Path) -> Mark | None:
        """Where the value at `path` stands; where there is none, the nearest thing around it that is written down."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path)

    def is_broken(self, path: Path) -> bool:
        """Whether the value at `path`, or one around it, is not known."""
        return bool(self.broken) and any(path[:n] in self.broken for n in range(len(path) + 1))

    def folder(self, path: Path) -> FilePath | None:
        """The folder of the file in which the value at `path` is written; None for values of other origins."""
        origin = self.origins.get(path)
        mark = origin.mark if origin else self.mark(path)
        return self.folders.get(mark.file) if mark else None

    def key_mark(self, path: Path) -> Mark | None:
        """Where the key that ends `path` stands."""
        return self.keys.get(path) or self.mark(path)


def dotted(path: Path) -> str:
    """A path as messages write it: `net.layers.3.out_channels`."""
    return ".".join(str(part) for part in path)


def scalar(text: str) -> bool | int | float | str | None:
    """What a plain (unquoted) scalar means."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.fullmatch(text):
        fits = len(text) <= 20 and abs(int(text)) < 2**63
        return int(text) if fits else float(text)
    if _FLOAT.fullmatch(text) and re.search(r"\d", text.lower().partition("e")[0]):
        return float(text)
    return text


def parse(text: str, file: str) -> Document:
    """A config's text as a Document. Raises ConfigError when it cannot be read, or is no mapping."""
    reader = _Reader(text, file)
    node = reader.read()
    start = Mark(file, 1, 1)
    if node is None or node.content is None:
        raise ConfigError([*reader.problems, Problem("the config is empty", mark=start)])
    if not isinstance(node.content, dict):
        raise ConfigError(
            [
                *reader.problems,
                Problem(f"a config must be a mapping of keys, got {describe(node.content)}", mark=node.mark),
            ]
        )
    document = Document({}, problems=reader.problems)
    document.data = _plain(node, (), document)
    return document


def parse_value(text: str, origin: str) -> Any:
    """One value as a `--set` gives it. Raises ConfigError that names `origin`."""
    reader = _Reader(text, origin)
    try:
        node = reader.read()
    except ConfigError as error:
        reader.problems += error.problems
    if reader.problems:
        mark = Mark(origin, 0, 0)
        raise ConfigError(
            [Problem(f"cannot read the value {text!r}: {p.message}", "", mark, p.hint) for p in reader.problems]
        )
    return _plain(node, (), Document({})) if node else None


def describe(value: object) -> str:
    """A value as messages name it: `'three'`, `3`, `true`, `a list`."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def dump(data: Any) -> str:
    """Plain data as YAML that `parse` reads back to the same."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True))


def inline(value: Any) -> str:
    """Plain data as YAML on one line, without mappings in it."""
    text: str = yaml.dump([value], Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=math.inf)
    return text.strip()[1:-1]


@dataclass
class _Node:
    """A composed node. `content` holds a scalar, a list of nodes, or {key: (mark of the key, node)}.

    `size` counts the nodes in it and `height` how deep they nest, aliases written out.
    """

    content: Any
    mark: Mark
    size: int = 1
    height: int = 1


class _Reader:
    """Composes nodes from the parser's events, and gathers what is wrong."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._lines = _LINE_BREAK.split(text) if len(text) <= MAX_CHARACTERS else []
        self.problems: list[Problem] = []
        self._anchors: dict[str, _Node | None] = {}  # None: not complete yet
        self._count = 0
        self._braces: dict[int, str] = {}
        self._events: Iterator[Any] = iter(())

    def read(self) -> _Node | None:
        """The document's one node; None when there is none."""
        self._look_over()
        text, self._braces = _veiled(self.text)
        loader = yaml.SafeLoader(text)
        self._events = iter(loader.get_event, None)
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except (ConfigError, RecursionError):
            raise
        except Exception as error:  # the parser lets some through: int() of 5000 digits, chr() of \U escapes
            self._stop(f"this is not YAML: {error}", self._mark(loader.get_mark()))
        finally:
            loader.dispose()

    def _look_over(self) -> None:
        if len(self.text) > MAX_CHARACTERS:
            message = f"the text has {len(self.text)} characters, at most {MAX_CHARACTERS} are read"
            self._stop(message, Mark(self.file, 1, 1))
        if found := _UNPRINTABLE.search(self.text):
            before = self.text[: found.start()]
            mark = self._place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
            if found[0] == "\ufeff":
                self._stop("a byte order mark (BOM)", mark, "save the file as UTF-8 without BOM")
            self._stop(f"a control character, U+{ord(found[0]):04X}", mark, "remove it")

    def _document(self) -> _Node | None:
        root: _Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._stop(
                        "a second document begins here", self._mark(event.start_mark), "a config is one document"
                    )
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, 1)
        return root

    def _node(self, event: Any, depth: int) -> _Node:
        mark = self._mark(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), mark, depth)
        self._allow(depth, mark)
        self._spend(1, mark)
        if event.tag is not None:
            self.problems.append(
                Problem(
                    f"the tag {event.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed",
                    mark=mark,
                    hint="remove it",
                )
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            if _SURROGATE.search(event.value):
                self._stop("half of a surrogate pair, which is no character", mark, "write the character itself")
            value = event.value.translate(self._braces)
            node = _Node(scalar(value) if event.style is None else value, mark)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(mark, depth)
        else:
            node = self._mapping(mark, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, anchor: str, mark: Mark, depth: int) -> _Node:
        if anchor not in self._anchors:
            known = ", ".join(f"&{name}" for name in self._anchors)
            hint = f"known anchors: {known}" if known else "a text that starts with * must stand in quotes"
            self._stop(f"*{anchor} names no anchor above it", mark, hint)
        node = self._anchors[anchor]
        if node is None:
            self._stop(f"*{anchor} stands inside what it names", mark)
        self._allow(depth + node.height - 1, mark)
        self._spend(node.size, mark)
        return _Node(node.content, mark, node.size, node.height)

    def _sequence(self, mark: Mark, depth: int) -> _Node:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return _around(items, mark, items)

    def _mapping(self, mark: Mark, depth: int) -> _Node:
        entries: dict[str, tuple[Mark, _Node]] = {}
        merged: list[_Node] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key_mark = self._mark(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent):
                if isinstance(event, yaml.AliasEvent):
                    hint = "a key that starts with * must stand in quotes"
                else:
                    hint = "quote a key that starts with [ or {"
                self._stop("a key must be plain text", key_mark, hint)
            key, plain = event.value.translate(self._braces), event.style is None
            if event.anchor is not None or event.tag is not None:
                self.problems.append(Problem("a key can have no anchor and no tag", mark=key_mark, hint="remove it"))
            value = self._node(next(self._events), depth + 1)
            if key == "<<" and plain:
                merged += self._merged(value)
            elif key in entries:
                first = entries[key][0]
                self.problems.append(
                    Problem(
                        f"the key {key!r} is given twice, first in line {first.line}",
                        mark=key_mark,
                        hint="remove one",
                        notes=(Note(first, "first given here"),),
                    )
                )
            else:
                entries[key] = (key_mark, value)
        for source in merged:  # what is written here wins, then the first of the merged
            for key, entry in source.content.items():
                if key not in entries:
                    self._allow(depth + entry[1].height, mark)
                    self._spend(entry[1].size, mark)
                    entries[key] = entry
        return _around(entries, mark, [node for _, node in entries.values()])

    def _merged(self, value: _Node) -> list[_Node]:
        sources = value.content if isinstance(value.content, list) else [value]
        for source in sources:
            if not isinstance(source.content, dict):
                self._stop(
                    f"<< takes a mapping or a list of mappings, got {describe(source.content)}",
                    source.mark,
                    "write `<<: *name`",
                )
            self._spend(len(source.content), source.mark)
        return list(sources)

    def _allow(self, depth: int, mark: Mark) -> None:
        if depth > MAX_DEPTH:
            self._stop(f"nested more than {MAX_DEPTH} deep", mark)

    def _spend(self, size: int, mark: Mark) -> None:
        self._count += size
        if self._count > MAX_NODES:
            self._stop(f"more than {MAX_NODES} values (with all aliases written out)", mark)

    def _mark(self, mark: Any) -> Mark:
        return self._place(mark.line + 1, mark.column + 1)

    def _place(self, line: int, column: int) -> Mark:
        return Mark(self.file, line, column, self._lines[line - 1] if line <= len(self._lines) else "")

    def _stop(self, message: str, mark: Mark | None, hint: str = "") -> NoReturn:
        raise ConfigError([*self.problems, Problem(message, mark=mark, hint=hint)])

    def _syntax(self, error: yaml.MarkedYAMLError) -> NoReturn:
        """The parser's error in words, at the place that is to be mended."""
        problem, context = error.problem or "", error.context or ""
        raw = error.problem_mark or error.context_mark
        place = self._mark(raw) if raw else None
        line = place.text if place else ""
        if "\t" in line[: len(line) - len(line.lstrip())]:
            self._stop("a tab in the indentation", place, "indent with spaces")
        if "alias" in context:
            self._stop("* begins the name of an anchor", place, "a text that starts with * must stand in quotes")
        if "mapping values are not allowed" in problem:
            hint = "a text that contains ': ' must stand in quotes; keys of one mapping must be indented alike"
            self._stop("a second ': ' where no key can stand", place, hint)
        if "unexpected end of stream" in problem and "quoted" in context and error.context_mark:
            self._stop("this quote is never closed", self._mark(error.context_mark))
        opened = f", {context} in line {error.context_mark.line + 1}" if context and error.context_mark else ""
        self._stop(f"this is not YAML: {problem}{opened}", place)


def _veiled(text: str) -> tuple[str, dict[int, str]]:
    """The text with the braces of `${...}` veiled from the parser, for which they end a text in a {}; and the way back.

    As long as before, so that places stay right.
    """
    free = (chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
    opening, closing = next(free), next(free)
    veiled = _REFERENCE.sub(rf"${opening}\1{closing}", text)
    return veiled, {ord(opening): "{", ord(closing): "}"}


def _around(content: Any, mark: Mark, inner: list[_Node]) -> _Node:
    """The node that holds the nodes `inner`."""
    size, height = sum(node.size for node in inner), max((node.height for node in inner), default=0)
    return _Node(content, mark, 1 + size, 1 + height)


def _plain(node: _Node, path: Path, document: Document) -> Any:
    document.values[path] = node.mark
    if isinstance(node.content, dict):
        mapping = {}
        for key, (mark, value) in node.content.items():
            document.keys[(*path, key)] = mark
            mapping[key] = _plain(value, (*path, key), document)
        return mapping
    if isinstance(node.content, list):
        return [_plain(item, (*path, i), document) for i, item in enumerate(node.content)]
    return node.content


class _Dumper(yaml.SafeDumper):
    """Writes plain what `scalar` reads back as the same, and quotes other text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return "tag:yaml.org,2002:" + ("merge" if value == "<<" else _TAGS[type(scalar(value))])
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


_TAGS = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}
_PLAIN_CHARACTERS = re.compile("[\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe]*")


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN_CHARACTERS.fullmatch(text) else '"'  # where everything unusual is written as an escape
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)
