"""Plain data -> objects: finds what is named, checks arguments, makes the objects, and gathers every problem.

A builder makes two things of each value: the object, and the plain data that would make it again, with all defaults
filled in (the resolved config).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from layernet.config.entries import Built, Extras, Several, Source, entry, given_extras, names_of
from layernet.config.lookup import Lookup, LookupFailure, article, explain, kind_of
from layernet.config.marks import Document, Path, describe, dotted
from layernet.config.names import Kind
from layernet.config.schema import Part, Schema, SchemaError, argument_of, schema_of
from layernet.core.configurable import Configurable
from layernet.core.duration import Duration
from layernet.core.layer import Layer
from layernet.core.sequential import Ref
from layernet.data.dataset import Dataset
from layernet.errors import ConfigError, LayernetError, Note, Problem, did_you_mean
from layernet.losses import Objective, Penalty
from layernet.metrics import Measure

_MOST_LAYERS = 5000  # of one config
INIT_ARGUMENTS = 2  # an initialiser function takes shape and rng before its settings


class _Beside(NamedTuple):
    """Something made of an entry in which keys of ours stood beside its arguments; and all of it as plain data."""

    value: Any
    plain: Any
    extras: dict[str, Built]


class Builder:
    """Makes the objects of one config. `problems` fills as it goes; what cannot be made is None."""

    def __init__(self, document: Document, lookup: Lookup) -> None:
        self.document = document
        self.lookup = lookup
        self.problems: list[Problem] = list(document.problems)
        self.layer_paths: dict[Layer, Path] = {}

    def problem(
        self, path: Path, message: str, hint: str = "", at_key: bool = False, notes: Mapping[Path, str] | None = None
    ) -> None:
        """Note that something is wrong at a place in the config; `notes` say what other places have to do with it."""
        if self.document.is_broken(path):
            return
        mark = self.document.key_mark(path) if at_key else self.document.mark(path)
        also = [(self.document.mark(place), text) for place, text in (notes or {}).items()]
        if (origin := self.document.origins.get(path)) and origin.mark:
            message = f"{message} ({origin.written} is from {origin.mark})"
            also.append((origin.mark, f"{origin.written} is from here"))
        found = tuple(Note(place, text) for place, text in also if place is not None and place.line)
        self.problems.append(Problem(message, dotted(path), mark, hint, found))

    def arguments(
        self, schema: Schema, given: dict[str, Any], path: Path, label: str, also: tuple[str, ...] = ()
    ) -> tuple[dict[str, Built], bool]:
        """(the arguments that could be made, whether those were all)."""
        values, findings = schema.check(given, label, also)
        for finding in findings:
            self.problem((*path, *finding.path), finding.message, finding.hint, finding.at_key)
        made = {name: self._finish(value, (*path, name)) for name, value in values.items()}
        good = {name: built for name, built in made.items() if built is not None}
        return good, not findings and len(good) == len(made)

    def plain_of(self, schema: Schema, arguments: Mapping[str, Built]) -> dict[str, Any]:
        """The arguments as plain data, in the signature's order, with the defaults of those not given."""
        plain = {name: built.plain for name, built in arguments.items()}
        for name, default in schema.defaults.items():
            if name not in plain and (described := self.describe(default)) is not None:
                plain[name] = described.plain
        names = schema.names
        return {name: plain[name] for name in sorted(plain, key=lambda n: names.index(n) if n in names else len(names))}

    def _plain_of_made(self, value: Any, schema: Schema, arguments: Mapping[str, Built]) -> dict[str, Any]:
        """The arguments of something made, as plain data that means the same in any working directory."""
        pinned = value.pinned() if isinstance(value, Dataset) else {}
        plain = self.plain_of(schema, arguments)
        return plain | {name: path for name, path in pinned.items() if name in plain}

    def describe(self, value: Any) -> Built | None:
        """An object as the plain data that makes it; None where there is none."""
        if value is None or isinstance(value, bool | int | float | str):
            return Built(value, value)
        if isinstance(value, Duration):
            return Built(value, str(value))
        if isinstance(value, list | tuple):
            items = [self.describe(item) for item in value]
            return None if None in items else Built(value, [item.plain for item in items if item is not None])
        if isinstance(value, dict):
            entries = {key: self.describe(item) for key, item in value.items()}
            return (
                None
                if None in entries.values()
                else Built(value, {k: item.plain for k, item in entries.items() if item})
            )
        if dataclasses.is_dataclass(value):
            return self.describe({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
        if isinstance(value, Configurable):
            kind = kind_of(type(value))
            name = self.lookup.spell(kind, type(value)) if kind else None
            given = {argument: self.describe(item) for argument, item in value.arguments.items()}
            if name is None or None in given.values():
                return None
            cls: Any = type(value)
            arguments = {argument: built for argument, built in given.items() if built}
            return Built(value, entry(name, self.plain_of(schema_of(cls), arguments)))
        return None

    # values

    def _finish(self, value: Any, path: Path) -> Built | None:
        """What a schema let through, with its Parts made."""
        if isinstance(value, Part):
            return self._part(value, path)
        if isinstance(value, list | tuple):
            return self._list(value, path)
        if isinstance(value, dict):
            entries = {key: self._finish(item, (*path, key)) for key, item in value.items()}
            if None in entries.values():
                return None
            good = {key: item for key, item in entries.items() if item is not None}
            return Built({key: item.value for key, item in good.items()}, {k: item.plain for k, item in good.items()})
        return self.describe(value) or Built(value, value)

    def _list(self, values: list[Any] | tuple[Any, ...], path: Path) -> Built | None:
        values_made: list[Any] = []
        plain: list[Any] = []
        complete = True
        for index, item in enumerate(values):
            place = (*path, index)
            made = (
                self._layer(item.raw, place)
                if isinstance(item, Part) and item.kind == "layer"
                else self._finish(item, place)
            )
            if made is None:
                complete = False
                continue
            plain.append(made[0].plain if isinstance(made, Several) else made.plain)
            values_made += [copy.value for copy in made] if isinstance(made, Several) else [made.value]
        if not self._names_differ(values_made) or not complete:
            return None
        return Built(type(values)(values_made), plain)

    def _names_differ(self, values: list[Any]) -> bool:
        count = len(self.problems)
        seen: dict[str, Layer] = {}
        for layer in values:
            if isinstance(layer, Layer) and layer.name:
                if layer.name in seen:
                    first = self.document.mark(self.layer_paths[seen[layer.name]])
                    where = f" in line {first.line}" if first and first.line else ""
                    place = (*self.layer_paths[layer], "name")
                    notes = {(*self.layer_paths[seen[layer.name]], "name"): f"the first {layer.name!r}"}
                    message = f"another layer{where} is called {layer.name!r}"
                    self.problem(place, message, "give each its own name", notes=notes)
                seen.setdefault(layer.name, layer)
        return len(self.problems) == count

    def _part(self, part: Part, path: Path) -> Built | None:
        if part.kind == "section":
            assert part.cls is not None
            return self.section(part.cls, part.raw, path)
        if part.kind == "layer":
            made = self._layer(part.raw, path)
            if made is not None and len(made) > 1:
                self.problem(
                    (*path, "repeat"),
                    "repeat needs a list of layers around it",
                    "wrap it: {type: Sequential, layers: [...]}",
                )
                return None
            return made[0] if made else None
        if part.kind == "objective":
            return self._objective(part.raw, path)
        if part.kind == "measure":
            return self._measure(part.raw, path)
        if part.kind == "source":
            return self._source(part.raw, path)
        return self._component(part.kind, part.raw, path)

    def section(self, cls: type, raw: dict[str, Any], path: Path) -> Built | None:
        """A mapping without a type."""
        schema = schema_of(cls)
        arguments, complete = self.arguments(schema, raw, path, dotted(path))
        if not complete:
            return None
        value = self.construct(cls, arguments, path)
        return None if value is None else Built(value, self.plain_of(schema, arguments))

    def layer(self, raw: Any, path: Path) -> Layer | None:
        """A single layer."""
        made: Layer | None = self.part(Part("layer", raw), path)
        return made

    def part(self, part: Part, path: Path) -> Any:
        """The object of a single part; None where it cannot be made."""
        made = self._part(part, path)
        return None if made is None else made.value

    # things with a type

    def _named(self, kind: Kind, raw: Any, path: Path, also: tuple[str, ...] = ()) -> tuple[Any, dict[str, Any]] | None:
        """(the class or function that an entry names, the entry's other keys)."""
        if isinstance(raw, str):
            name, rest, place = raw, {}, path
        else:
            rest, place = {key: value for key, value in raw.items() if key != "type"}, (*path, "type")
            if "type" not in raw:
                self._without_type(kind, raw, path, also)
                return None
            name = raw["type"]
            if not isinstance(name, str):
                self.problem(place, f"expected the name of {article(kind)}, got {describe(name)}")
                return None
        try:
            return self.lookup.find(kind, name, self.document.folder(place)), rest
        except LookupFailure as failure:
            self.problem(place, failure.message, failure.hint)
            return None

    def _without_type(self, kind: Kind, raw: dict[str, Any], path: Path, also: tuple[str, ...]) -> None:
        for key in raw:
            hint = did_you_mean(key, ["type", *also])
            if key not in also and hint.startswith("did you mean"):
                self.problem((*path, key), f"unknown key {key!r}", hint, at_key=True)
                return
        self.problem(path, f"{article(kind)} needs a 'type'", "for example {type: Name, ...}, or the bare Name")

    def _schema(self, target: Any, path: Path) -> Schema | None:
        try:
            return schema_of(target, INIT_ARGUMENTS)
        except SchemaError as error:
            self.problem(path, str(error))
            return None

    def construct(self, target: Any, arguments: Mapping[str, Built], path: Path) -> Any:
        """The object; None where the constructor objects, which is noted."""
        try:
            return target(**{argument_of(name): built.value for name, built in arguments.items()})
        except (ValueError, LayernetError) as error:
            self.objection(error, {name: built.plain for name, built in arguments.items()}, path)
        except Exception as error:  # a user's constructor may raise anything
            self.problem(path, f"{target.__name__} cannot be made: {explain(error)}")
        return None

    def objection(self, error: ValueError | LayernetError, arguments: Mapping[str, Any], path: Path) -> None:
        """Note what a part of the config objects to: at the argument that its message begins with, or at all of it."""
        if isinstance(error, LayernetError):
            message, hint = error.message, error.hint
        else:
            message, _, hint = str(error).partition("; ")
        rest, inner, at_key = message, arguments, False
        while isinstance(inner, Mapping):  # `groups: head.*: lr_mult must be ...` is about groups.head.*.lr_mult
            found = [re.match(rf"(unknown \w+ ')?({re.escape(key)})(?!\w)(: |')?", rest) for key in inner]
            match = next((match for match in found if match), None)
            if match is None:
                break
            path, rest, inner, at_key = (*path, match[2]), rest[match.end() :], inner[match[2]], match[1] is not None
        self.problem(path, message, hint, at_key)

    def _component(self, kind: Kind, raw: Any, path: Path) -> Built | None:
        """Anything that is just a type and its arguments."""
        found = self._named(kind, raw, path)
        schema = self._schema(found[0], path) if found else None
        if found is None or schema is None:
            return None
        target, given = found
        arguments, complete = self.arguments(schema, given, path, target.__name__, ("type",))
        if not complete:
            return None
        if inspect.isclass(target):
            value = self.construct(target, arguments, path)
            if value is None:
                return None
        else:
            value = functools.partial(target, **{k: b.value for k, b in arguments.items()}) if arguments else target
        return Built(value, entry(self.lookup.spell(kind, target), self._plain_of_made(value, schema, arguments)))

    def _layer(self, raw: Any, path: Path) -> Several | None:
        """A layer; several where it repeats."""
        if isinstance(raw, dict) and "ref" in raw:
            return self._ref(raw, path)
        found = self._named("layer", raw, path, ("ref", "name", "repeat"))
        schema = self._schema(found[0], path) if found else None
        if found is None or schema is None:
            return None
        cls, given = found
        extras, rest, complete = self._extras(schema_of(Extras.layer), given, path, cls.__name__)
        if extras.get("name") and "name" in schema.names:  # a class that takes its name itself
            rest["name"] = extras["name"].value
        if not complete:
            self.arguments(schema, rest, path, cls.__name__, ("type", "name", "repeat"))
            return None
        copies = Several()
        for name in names_of(extras):
            given_name = {"name": name} if "name" in rest else {}
            arguments, complete = self.arguments(
                schema, rest | given_name, path, cls.__name__, ("type", "name", "repeat")
            )
            layer = self.construct(cls, arguments, path) if complete else None
            if layer is None:
                return None
            own = self.plain_of(schema, {k: v for k, v in arguments.items() if k != "name"})
            own.pop("name", None)
            copies.append(self._place(layer, name, entry(self.lookup.spell("layer", cls), own, extras), path))
        return copies

    def _ref(self, raw: dict[str, Any], path: Path) -> Several | None:
        schema = schema_of(Extras.tied)
        for key in raw:
            if key not in schema.names:
                hint = "type and arguments are those of the layer that ref names"
                self.problem((*path, key), f"{key!r} cannot stand beside ref", hint, at_key=True)
        mine = {key: value for key, value in raw.items() if key in schema.names}
        extras, complete = self.arguments(schema, mine, path, "a layer with ref")
        if not complete or len(mine) < len(raw):
            return None
        to = extras.pop("ref").value
        plain = {"ref": to, **given_extras(extras)}
        return Several(self._place(Ref(to), name, plain, path) for name in names_of(extras))

    def _place(self, layer: Layer, name: str | None, plain: Any, path: Path) -> Built:
        if len(self.layer_paths) >= _MOST_LAYERS:  # repeats in repeats: nobody waits for all of them
            self.problem(path, f"more than {_MOST_LAYERS} layers (with all that repeat)", "repeat less")
            raise ConfigError(self.problems)
        if name is not None:
            layer.named(name)
        self.layer_paths[layer] = path
        return Built(layer, plain)

    def _extras(
        self, extra: Schema, given: dict[str, Any], path: Path, label: str
    ) -> tuple[dict[str, Built], dict[str, Any], bool]:
        """(the extra keys among those given, the other keys, whether the extra ones are right)."""
        mine = {key: value for key, value in given.items() if key in extra.names}
        built, complete = self.arguments(extra, mine, path, label)
        return built, {key: value for key, value in given.items() if key not in mine}, complete

    def _objective(self, raw: Any, path: Path) -> Built | None:
        found = self._beside_extras(
            "loss", raw, path, lambda cls: schema_of(Extras.penalty if issubclass(cls, Penalty) else Extras.objective)
        )
        if found is None:
            return None
        settings = {key: built for key, built in found.extras.items() if built.value is not None}
        objective = self.construct(Objective, {"loss": Built(found.value, None), **settings}, path)
        return None if objective is None else Built(objective, found.plain)

    def _measure(self, raw: Any, path: Path) -> Built | None:
        found = self._beside_extras("metric", raw, path, lambda cls: schema_of(Extras.measure))
        if found is None:
            return None
        extras = {key: built.value for key, built in found.extras.items()}
        return Built(Measure(found.value, **extras), found.plain)

    def _source(self, raw: Any, path: Path) -> Built | None:
        if isinstance(raw, dict) and "fraction" in raw and "type" not in raw:
            return self._fraction(raw, path)
        found = self._beside_extras("dataset", raw, path, lambda cls: schema_of(Extras.source), ("fraction",))
        if found is None:
            return None
        transforms = found.extras["transforms"].value if "transforms" in found.extras else None
        return Built(Source(found.value, None, transforms), found.plain)

    def _beside_extras(
        self, kind: Kind, raw: Any, path: Path, extra_of: Callable[[type], Schema], also: tuple[str, ...] = ()
    ) -> _Beside | None:
        """What an entry names, made, where keys of ours stand beside its own arguments."""
        found = self._named(kind, raw, path, also)
        schema = self._schema(found[0], path) if found else None
        if found is None or schema is None:
            return None
        cls, given = found
        extra = extra_of(cls)
        extras, rest, good = self._extras(extra, given, path, cls.__name__)
        arguments, complete = self.arguments(schema, rest, path, cls.__name__, ("type", *extra.names))
        value = self.construct(cls, arguments, path) if complete else None
        if value is None or not good:
            return None
        own = self._plain_of_made(value, schema, arguments)
        plain = {"type": self.lookup.spell(kind, cls), **own, **self.plain_of(extra, extras)}
        return _Beside(value, plain, extras)

    def _fraction(self, raw: dict[str, Any], path: Path) -> Built | None:
        arguments, complete = self.arguments(schema_of(Extras.fraction), raw, path, "a fraction of data.train")
        if not complete:
            return None
        fraction = arguments["fraction"].value
        if path != ("data", "val"):
            self.problem(
                (*path, "fraction"), "only data.val can be a fraction of data.train", "name a data set with type"
            )
        else:
            transforms = arguments["transforms"].value if "transforms" in arguments else None
            return Built(Source(None, fraction, transforms), {name: built.plain for name, built in arguments.items()})
        return None
