"""Constructor signatures as schemas: which arguments there are, which types, which defaults; checked by pydantic.

Where an annotation names a part of an experiment (a Layer, a list of Transforms, an initialiser, a Duration), pydantic
puts a `Part` in its place, which `build` turns into the object: so nested parts have paths and positions of their own.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import keyword
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

from pydantic import ConfigDict, Field, PlainValidator, Strict, ValidationError, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from layernet.config.elsewhere import suggest
from layernet.config.lookup import article, kind_of
from layernet.config.marks import Path, describe
from layernet.config.names import Kind
from layernet.core.duration import DURATION, MINUTES, Duration, Interval
from layernet.core.init import InitFunction
from layernet.errors import did_you_mean

PartKind: TypeAlias = Kind | Literal["objective", "measure", "source", "section"]
"""What a Part is made into; `objective` is a weighted loss, `measure` a metric on an output,
`source` a data set with its transforms."""


ENTRY_OF: dict[str, Kind] = {"objective": "loss", "measure": "metric", "source": "dataset"}
"""The kinds of Part that are an entry with keys of ours, and the kind of that entry."""


class Section:
    """Base of the dataclasses that describe a mapping without a `type`, such as `train:`."""


@dataclasses.dataclass(frozen=True)
class AsPart:
    """In `Annotated[Any, AsPart(kind)]`: a part of a kind that the annotated class alone does not tell."""

    kind: PartKind


@dataclasses.dataclass(frozen=True)
class Part:
    """A value that is to become an object: its kind, the plain data, and for a section its class."""

    kind: PartKind
    raw: Any
    cls: type | None = None


class Finding(NamedTuple):
    """What is wrong with arguments: where in them (`at_key`: the key itself, not its value), what, the cure."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False


class SchemaError(Exception):
    """A signature that a config cannot express: says which argument and why."""


class Schema:
    """The arguments of one constructor (or function), and the check for them."""

    def __init__(
        self, label: str, parameters: list[inspect.Parameter], hints: Mapping[str, Any], takes_more: bool
    ) -> None:
        self.label = label
        self._names = [written(p.name) for p in parameters]
        self.annotations = {written(name): hint for name, hint in hints.items()}
        self.required = [written(p.name) for p in parameters if p.default is p.empty]
        self.defaults = {written(p.name): p.default for p in parameters if p.default is not p.empty}
        fields: dict[str, Any] = {}
        for index, parameter in enumerate(parameters):
            annotation = _adapt(hints.get(parameter.name, Any))
            # under a neutral name, since a model refuses some that an argument may have
            fields[f"field_{index}"] = (annotation, Field(alias=written(parameter.name), default=None))
        settings = ConfigDict(strict=True, extra="allow" if takes_more else "forbid", allow_inf_nan=False)
        try:
            self._model = create_model(label, __config__=settings, **fields)
        except Exception:  # pydantic has several for a type that it cannot check
            odd = [
                f"{p.name}: {_spelt(hints[p.name])}"
                for p in parameters
                if p.name in hints and not _checkable(hints[p.name])
            ]
            raise SchemaError(f"{label}: a config cannot write {', '.join(odd)}; {_PLAIN}") from None

    @property
    def names(self) -> list[str]:
        """The arguments, in order."""
        return self._names

    def check(
        self, given: dict[str, Any], label: str = "", also: Iterable[str] = ()
    ) -> tuple[dict[str, Any], list[Finding]]:
        """(the arguments with Parts in their places, what is wrong). Arguments that are wrong are left out.

        `label` is what messages call it all, `also` are further keys that a hint may name.
        """
        label = label or self.label
        missing = [name for name in self.required if name not in given]
        try:
            values = self._validated(given)
            found = []
        except ValidationError as error:
            found = _findings(error, given, [*self.names, *also])
            wrong = {finding.path[0] for finding in found}
            values = self._validated({name: value for name, value in given.items() if name not in wrong})
        misspelt = {finding.hint for finding in found}
        missing = [name for name in missing if did_you_mean(name, [name]) not in misspelt]
        return values, [*(Finding((), f"{label} needs {name!r}") for name in missing), *found]

    def json(self) -> dict[str, Any]:
        """What pydantic says of the arguments as a JSON schema; parts as {"part": kind, "cls": section}."""
        made = self._model.model_json_schema(by_alias=True)
        return {**made, "properties": made.get("properties", {})}

    def _validated(self, given: dict[str, Any]) -> dict[str, Any]:
        """What is given, as pydantic leaves it. Raises ValidationError."""
        model = self._model.model_validate(given)
        values = {info.alias: getattr(model, name) for name, info in type(model).model_fields.items()}
        values |= model.model_extra or {}
        return {name: values[name] for name in given}


def written(argument: str) -> str:
    """What a config calls an argument: `from` is no name in Python, so the argument is `from_`."""
    plain = argument.removesuffix("_")
    return plain if keyword.iskeyword(plain) else argument


def argument_of(key: str) -> str:
    """The argument that a config calls so."""
    return f"{key}_" if keyword.iskeyword(key) else key


@cache
def schema_of(target: Callable[..., Any], skip: int = 0) -> Schema:
    """The schema of a class's constructor, or of a function without its first `skip` arguments. Raises SchemaError."""
    function = target.__init__ if inspect.isclass(target) else target
    if function is object.__init__:
        return Schema(target.__name__, [], {}, False)
    every = list(inspect.signature(function).parameters.values())[1 if inspect.isclass(target) else skip :]
    named = [p for p in every if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_more = any(p.kind is p.VAR_KEYWORD for p in every)
    return Schema(target.__name__, named, _hints(target.__name__, function, named), takes_more)


def _hints(label: str, function: Callable[..., Any], parameters: Iterable[inspect.Parameter]) -> dict[str, Any]:
    """The annotations with their names looked up where the function was written."""
    hints: dict[str, Any] = {}
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    for parameter in parameters:
        if parameter.annotation is parameter.empty:
            continue
        holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        try:
            hints |= typing.get_type_hints(holder, globalns=scope, include_extras=True)
        except Exception as error:  # whatever evaluating the annotation raises
            raise SchemaError(f"{label}: cannot read the annotation of {parameter.name!r} ({error})") from None
    return hints


_PLAIN = "use int, float, bool, str, lists and mappings of them, or parts such as Layer"


def _checkable(annotation: Any) -> bool:
    try:
        create_model("one", value=(_adapt(annotation), None))
    except Exception:
        return False
    return True


def _spelt(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


def _adapt(annotation: Any) -> Any:
    """The annotation as pydantic is to check it: parts are taken as they are, tuples may be written as lists."""
    if annotation == InitFunction:
        return _part("init")
    if annotation is Duration:
        return Annotated[Any, PlainValidator(_duration), spelled(DURATION, "a duration like '5 epochs' or '300 steps'")]
    if annotation is Interval:
        written = spelled(f"{DURATION}|{MINUTES}", "a duration like '5 epochs', '300 steps' or '30 minutes'")
        return Annotated[Any, PlainValidator(_interval), written]
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        return _adapt_class(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (None, Literal):
        return annotation
    if origin is Annotated and isinstance(annotation.__metadata__[0], AsPart):
        return _part(annotation.__metadata__[0].kind)
    if origin is Annotated:
        return Annotated[(_adapt(arguments[0]), *annotation.__metadata__)]
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, (_adapt(a) for a in arguments))
    if origin is tuple:
        items = tuple(a if a is Ellipsis else _adapt(a) for a in arguments)
        return Annotated[tuple.__class_getitem__(items), Strict(False)]
    if origin in (type, Callable) or origin is typing.get_origin(Callable[..., Any]):
        raise SchemaError(f"a config cannot write a {annotation}")
    return origin[tuple(_adapt(a) for a in arguments)]


def _adapt_class(cls: type) -> Any:
    if issubclass(cls, Section):
        return _part("section", cls)
    kind = kind_of(cls)
    if kind is not None:
        return _part(kind)
    return Annotated[cls, Strict(False)] if cls is tuple else cls


def _part(kind: PartKind, cls: type | None = None) -> Any:
    if kind == "section":
        wanted = "a mapping of keys"
    else:
        thing: str = ENTRY_OF.get(kind, kind)
        wanted = f"{article(thing)}: a name, or a mapping with a type"

    def take(value: Any) -> Part:
        if isinstance(value, dict) or (isinstance(value, str) and kind != "section"):
            return Part(kind, value, cls)
        raise expected(wanted)

    return Annotated[Any, PlainValidator(take), WithJsonSchema({"part": kind, "cls": cls})]


def spelled(pattern: str, what: str) -> WithJsonSchema:
    """What a JSON schema says of text that a validator checks, for an annotation."""
    return WithJsonSchema({"type": "string", "pattern": pattern, "patternErrorMessage": f"expected {what}"})


def _duration(value: Any) -> Duration:
    try:
        duration = Duration.parse(value)
    except ValueError:
        duration = None
    if duration is None or duration.count <= 0:
        count = re.match(r"\s*[\d.]+", value) if isinstance(value, str) else None
        units = [f"{count[0].strip()} {unit}" for unit in ("epochs", "steps")] if count else []
        raise expected("a duration like '5 epochs' or '300 steps'", units)
    return duration


def _interval(value: Any) -> Interval:
    try:
        interval = Interval.parse(value)
    except ValueError:
        interval = None
    if interval is None or interval.count <= 0:
        raise expected("a duration like '5 epochs', '300 steps' or '30 minutes'")
    return interval


def expected(what: str, choices: Sequence[str] = ()) -> PydanticCustomError:
    """What a validator raises for a value that is not `what`: messages say `expected <what>, got <value>`.

    Hints name the nearest of the `choices`.
    """
    return PydanticCustomError("expected", "{what}", {"what": what, "choices": list(choices)})


# pydantic's errors in plain words

_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
}

_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than_equal": "at most",
    "less_than": "less than",
}


_MOST_HINTS = 100  # of one mapping: looking for what was meant takes its time


def _findings(error: ValidationError, given: dict[str, Any], names: list[str]) -> list[Finding]:
    groups: dict[tuple[Path, bool], list[Any]] = {}
    for item in error.errors(include_url=False):
        path, at_key = _path_of(item["loc"], given)
        groups.setdefault((path, at_key), []).append(item)
    findings: list[Finding] = []
    holders = {path[:length] for path, _ in groups for length in range(len(path))}
    for (path, at_key), items in groups.items():
        if path in holders:
            continue  # another branch of a union came further, and says more
        if items[0]["type"] == "extra_forbidden" and len(path) == 1:
            hint = suggest(str(path[0]), names, given) if len(findings) < _MOST_HINTS else ""
            findings.append(Finding(path, f"unknown key {path[0]!r}", hint, True))
        else:
            findings.append(_finding(path, at_key, items, path[-1] if at_key else _value_at(given, path)))
    return findings


def _path_of(loc: tuple[int | str, ...], given: Any) -> tuple[Path, bool]:
    """The place in the data that an error's `loc` means: pydantic mixes in the names of union branches."""
    path: list[int | str] = []
    value = given
    for part in loc:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            value = value[part]
            path.append(part)
    return tuple(path), loc[-1] == "[key]"


def _value_at(given: Any, path: Path) -> Any:
    for part in path:
        given = given[part]
    return given


def _finding(path: Path, at_key: bool, items: list[dict[str, Any]], value: Any) -> Finding:
    expected: list[str] = []
    choices: list[str] = []
    for item in items:
        if item["type"] == "literal_error":
            texts = re.findall(r"'([^']*)'", item["ctx"]["expected"])
            choices += texts
            words = re.split(", | or ", item["ctx"]["expected"])
        elif item["type"] == "expected":
            words = [item["ctx"]["what"]]
            choices += item["ctx"]["choices"]
        elif item["type"] in _BOUNDS:
            words = [f"{_BOUNDS[item['type']]} {next(iter(item['ctx'].values()))}"]
        elif item["type"] in _EXPECTED:
            words = [_EXPECTED[item["type"]]]
            choices += ["true", "false"] if item["type"] == "bool_type" else []
        elif item["type"] in ("too_long", "too_short") and item["ctx"].get("field_type") == "Tuple":
            words = [f"a list of {item['ctx'].get('max_length', item['ctx'].get('min_length'))}"]
        elif item["type"] == "missing":
            words = [f"a list of more than {len(value)}" if isinstance(value, list) else "more"]
        else:
            words = [item["msg"][0].lower() + item["msg"][1:]]
        expected += [word for word in words if word not in expected]
    got = f"a list of {len(value)}" if isinstance(value, list) and "a list of" in "".join(expected) else describe(value)
    hint = _cure(value, expected)
    if not hint and choices and isinstance(value, str):
        near = did_you_mean(value, choices)
        hint = near if near.startswith("did you mean") else ""
    *first, last = expected
    wanted = f"{', '.join(first)} or {last}" if first else last
    return Finding(path, f"expected {wanted}, got {got}", hint, at_key)


def _cure(value: Any, expected: list[str]) -> str:
    """What to write instead, where a value only looks like what is expected."""
    words = " ".join(expected)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and "an integer" in words:
        return f"write {int(value)}" if abs(value) < 2**63 else "integers go up to 2**63 - 1"
    if not isinstance(value, str):
        return ""
    if "true or false" in words and value.casefold() in ("true", "yes", "on", "y", "1"):
        return "write true"
    if "true or false" in words and value.casefold() in ("false", "no", "off", "n", "0"):
        return "write false"
    if value.casefold() in ("none", "null"):
        return "write null, or leave the key out"
    if ("an integer" in words or "a number" in words) and re.fullmatch(r"[-+]?[0-9][0-9_.eE+-]*", value):
        plain = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", value.replace("_", ""))
        return f"write {plain}" if plain != value else "write it without quotes"
    return ""
