"""The dialect as a JSON schema (draft-07), for editors: made from the signatures that configs are checked by.

A schema cannot say all that the checks say (shapes, names that must differ, a constructor's own rules); what it refuses
they refuse. Everywhere a `${name}` may stand for a value.

An entry's `type` chooses its arguments by if/then, not oneOf: of oneOf an editor can only say that none of 60 fits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from layernet.config.build import INIT_ARGUMENTS, Builder
from layernet.config.entries import Extras
from layernet.config.lookup import Lookup, article, load
from layernet.config.marks import Document
from layernet.config.names import BUILT_IN, Kind
from layernet.config.schema import ENTRY_OF, PartKind, schema_of
from layernet.config.sections import RootSection
from layernet.losses import Penalty

Json = dict[str, Any]

_PYTHON_ONLY = {"Arrays"}  # takes arrays, which a config cannot write
_REFERENCE = r"\$\{"
_OWN = r"^[^:]+:[A-Za-z_]\w*$"
_SIMPLE = {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "items", "minItems", "maxItems"}
_WORDS = {"null": "null", "integer": "an integer", "number": "a number", "boolean": "true or false", "array": "a list"}
_WORDS |= {"object": "a mapping", "string": "text"}


def json_schema(describe: Callable[[Any], str], notes: Callable[[Any], Mapping[str, str]]) -> Json:
    """The whole schema.

    `describe` says a line about something built in, `notes` one about each key of a section or of `Extras`.
    """
    return _Maker(describe, notes).whole()


class _Maker:
    def __init__(self, describe: Callable[[Any], str], notes: Callable[[Any], Mapping[str, str]]) -> None:
        self.describe = describe
        self.notes = notes
        self.definitions: dict[str, Json] = {}
        self.builder = Builder(Document({}), Lookup(Path()))

    def whole(self) -> Json:
        root = self._keys(RootSection)
        needed = root.pop("required")
        root["properties"]["vars"]["propertyNames"] = {"pattern": r"^\w[\w-]*$"}
        partial = {key: self._partial(value) for key, value in root["properties"].items()}
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "layernet config",
            **root,
            "if": {"required": ["extends"]},
            "then": {"properties": partial},
            "else": {"properties": root["properties"], "required": needed},
            # what either branch says of a key is said there; here, only which keys there are
            "properties": {key: _annotations(value) for key, value in root["properties"].items()},
            "definitions": dict(sorted(self.definitions.items())),
        }

    # signatures

    def _keys(self, declared: Any) -> Json:
        """What a mapping of keys of ours holds: a section's, or those that stand beside a type's arguments."""
        made, notes = self._arguments(declared, 0), self.notes(declared)
        for name, value in made["properties"].items():
            if name in notes:
                value["description"] = notes[name]
        return made

    def _arguments(self, target: Any, skip: int) -> Json:
        """What a mapping of the arguments of a constructor or a function holds."""
        schema = schema_of(target, skip)
        raw = schema.json()
        properties = {}
        for name in schema.names:
            value = self._value(raw["properties"][name])
            default = self.builder.describe(schema.defaults[name]) if name in schema.defaults else None
            properties[name] = value | ({"default": default.plain} if default else {})
        made: Json = {"type": "object", "properties": properties, "required": list(schema.required)}
        if not raw.get("additionalProperties"):
            made["additionalProperties"] = False
        return made

    def _value(self, raw: Json) -> Json:
        """What pydantic says of a value, in draft-07, with references allowed."""
        if part := raw.get("part"):
            return {"$ref": f"#/definitions/{self._part(part, raw.get('cls'))}"}
        if "anyOf" in raw:
            return _united([self._value(each) for each in raw["anyOf"]])
        made = {
            key: value
            for key, value in raw.items()
            if key in {*_SIMPLE, "enum", "const", "pattern", "patternErrorMessage"}
        }
        if "const" in made:
            made = {"enum": [made["const"]]}
        if isinstance(items := raw.get("items"), dict):
            made["items"] = self._value(items)
        if "prefixItems" in raw:
            made["items"] = [self._value(each) for each in raw["prefixItems"]]
        if isinstance(extra := raw.get("additionalProperties"), dict):
            made["additionalProperties"] = self._value(extra)
        if "pattern" in made:
            return {**made, "pattern": f"{made['pattern']}|{_REFERENCE}"}
        if "enum" in made:
            made.pop("type", None)
            return {"anyOf": [made, {"$ref": f"#/definitions/{self._reference()}"}]}
        return _with_reference(made)

    def _reference(self) -> str:
        self.definitions["reference"] = {"type": "string", "pattern": _REFERENCE}
        return "reference"

    # parts

    def _part(self, kind: PartKind, cls: type | None) -> str:
        """The name of the definition of a part."""
        if kind == "section":
            assert cls is not None
            name = cls.__name__
            if name not in self.definitions:
                self.definitions[name] = {}
                self.definitions[name] = _with_reference(self._keys(cls))
        else:
            name = kind
            if name not in self.definitions:
                self.definitions[name] = {}
                self.definitions[name] = self._entry(kind)
        return name

    def _entry(self, part: PartKind) -> Json:
        kind: Kind = ENTRY_OF.get(part, part)  # type: ignore[arg-type]
        table = {name: load(place) for name, place in BUILT_IN[kind].items() if name not in _PYTHON_ONLY}
        made = {name: self._type(part, kind, name, target) for name, target in table.items()}
        bare = [name for name, each in made.items() if each["required"] == ["type"]]
        for name, each in made.items():
            self.definitions[f"{kind}.{name}"] = each
        notes = {name: each.get("description", "") for name, each in made.items()}
        chosen: Json = {
            "properties": {"type": _named(article(kind), list(made), list(notes.values()))},
        }
        if made:
            chosen["allOf"] = [
                {"if": {"properties": {"type": {"const": name}}}, "then": {"$ref": f"#/definitions/{kind}.{name}"}}
                for name in made
            ]
        beside = {"layer": ("ref", Extras.tied), "source": ("fraction", Extras.fraction)}.get(part)
        without: Json = {"required": ["type"]}
        if beside is not None:
            without = {"if": {"required": [beside[0]]}, "then": self._keys(beside[1]), "else": without}
        return {
            "if": {"type": "object"},
            "then": {"if": {"required": ["type"]}, "then": chosen, "else": without},
            "else": _named(article(kind), bare, [notes[name] for name in bare]),
        }

    def _type(self, part: PartKind, kind: Kind, name: str, target: Any) -> Json:
        """The mapping that an entry of a built-in type is."""
        made = self._arguments(target, 0 if inspect.isclass(target) else INIT_ARGUMENTS)
        extra = _extra(part, target)
        own = self._keys(extra)["properties"] if extra else {}
        made["properties"] = {"type": {"const": name}, **made["properties"], **own}
        made["required"] = ["type", *made["required"]]
        note = self.describe(target)
        return {"description": note, **made} if note else made

    # what is laid over another config

    def _partial(self, value: Any) -> Any:
        """The schema of a value that is merged with one below it: nothing in it is required, but for lists."""
        if isinstance(value, list):
            return [self._partial(each) for each in value]
        if not isinstance(value, dict):
            return value
        made: Json = {}
        for key, item in value.items():
            if key == "required" and "properties" in value:
                continue
            if key == "$ref":
                made[key] = f"#/definitions/{self._over(item.rpartition('/')[2])}"
            elif key == "properties":
                made[key] = {name: self._partial(each) for name, each in item.items()}
            elif key in ("anyOf", "allOf", "then", "else"):
                made[key] = self._partial(item)
            else:
                made[key] = item
        return made

    def _over(self, name: str) -> str:
        if name == "reference":
            return name
        partial = f"{name} laid over another"
        if partial not in self.definitions:
            self.definitions[partial] = {}
            made = self._partial(self.definitions[name])
            if name in (*BUILT_IN, *ENTRY_OF) and "then" in made:
                made["then"]["else"] = {"propertyNames": {"enum": self._all_keys(name)}}
            self.definitions[partial] = made
        return partial

    def _all_keys(self, part: str) -> list[str]:
        """Every argument of everything of a kind: an entry without its type may have any of them."""
        kind = ENTRY_OF.get(part, part)
        found = (self.definitions[f"{kind}.{name}"] for name in BUILT_IN[kind] if name not in _PYTHON_ONLY)  # type: ignore[index]
        keys = {key for each in found for key in each["properties"]}
        return sorted(keys | {"fraction"} if part == "source" else keys)


_PATHS = {
    "data.": "DataSection",
    "net.": "NetSection",
    "train.": "TrainConfig",
    "train.checkpoint.": "CheckpointConfig",
}


def _extra(part: PartKind, target: Any) -> Any:
    """The signature of the keys of ours beside a type's own."""
    if part == "objective":
        return Extras.penalty if issubclass(target, Penalty) else Extras.objective
    return {"layer": Extras.layer, "measure": Extras.measure, "source": Extras.source}.get(part)


def _named(what: str, names: list[str], notes: list[str]) -> Json:
    """The name of something built in, one of the user's own, or a reference."""
    listed: list[Json] = [{"enum": names, "enumDescriptions": notes}] if names else []
    own = f"^{_REFERENCE}|{_OWN}"
    message = f"expected the name of {what}, module:Class or ./file.py:Class"
    return {"anyOf": [*listed, {"type": "string", "pattern": own, "patternErrorMessage": message}]}


def _with_reference(made: Json) -> Json:
    """A value that a reference may stand for, as one schema: its keywords are about different types."""
    types = made.get("type")
    listed = [types] if isinstance(types, str) else list(types or ())
    if not listed or "string" in listed:
        return made
    words = [_WORDS[each] for each in listed]
    message = f"expected {' or '.join(words)}, or ${{name}}"
    return {**made, "type": [*listed, "string"], "pattern": _REFERENCE, "patternErrorMessage": message}


def _united(choices: list[Json]) -> Json:
    """One schema for several: merged where their keywords are about different types, since messages are better then."""
    plain = [_without_reference(each) for each in choices]
    types = [kind for each in plain for kind in _types(each)]
    keywords = [key for each in plain for key in each if key != "type"]
    simple = all(each.keys() <= _SIMPLE and "type" in each for each in plain)
    if simple and len({*types}) == len(types) and len({*keywords}) == len(keywords):
        merged = {key: value for each in plain for key, value in each.items() if key != "type"}
        return _with_reference({"type": list(dict.fromkeys(types)), **merged})
    flat = [inner for each in choices for inner in each.get("anyOf", [each])]
    unique: list[Json] = []
    for each in flat:
        if each not in unique:
            unique.append(each)
    return {"anyOf": unique}


def _types(schema: Json) -> list[str]:
    found = schema.get("type", [])
    return [found] if isinstance(found, str) else list(found)


def _without_reference(schema: Json) -> Json:
    if schema.get("pattern") != _REFERENCE:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("pattern", "patternErrorMessage")}
    kinds = [kind for kind in _types(schema) if kind != "string"]
    return {**rest, "type": kinds[0] if len(kinds) == 1 else kinds}


def _annotations(schema: Json) -> Json:
    return {key: value for key, value in schema.items() if key in ("description", "default")}
