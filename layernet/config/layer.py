"""One layer or loss by itself, as a command line names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layernet.config.build import Builder
from layernet.config.lookup import Lookup, LookupFailure
from layernet.config.marks import Document
from layernet.config.names import Kind
from layernet.config.overrides import apply
from layernet.config.schema import Part
from layernet.core.layer import Layer
from layernet.errors import ConfigError, Problem
from layernet.losses import Loss, Penalty


def load_layer(name: str, arguments: Sequence[str] = (), lookup: Lookup | None = None) -> Layer:
    """The layer called `name` (`Conv2d`, `module:Class`, `file.py:Class`), with arguments like ["kernel_size=3"].

    They go through the checks of a config. Files are looked for in the working directory, unless `lookup` knows better.
    Raises ConfigError with every problem found.
    """
    made: Layer = _load(_with_dot(name), "layer", arguments, lookup or Lookup(Path()))
    return made


def load_part(name: str, arguments: Sequence[str] = (), lookup: Lookup | None = None) -> Layer | Loss | Penalty:
    """The layer, loss or penalty called `name`: as `load_layer`."""
    name, lookup = _with_dot(name), lookup or Lookup(Path())
    try:
        kind = lookup.kind(name)
    except LookupFailure:  # the builder says it better
        kind = "layer"
    made = _load(name, kind if kind == "loss" else "layer", arguments, lookup)
    return made.loss if kind == "loss" else made  # type: ignore[no-any-return]


def _with_dot(name: str) -> str:
    place, _, cls = name.rpartition(":")
    return f"./{place}:{cls}" if place.endswith(".py") and not place.startswith((".", "/")) else name


def _load(name: str, kind: Kind, arguments: Sequence[str], lookup: Lookup) -> Any:
    document = Document({kind: {"type": name}})
    apply(document, arguments, "--arg", within=kind)
    builder = Builder(document, lookup)
    made = builder.part(Part("objective" if kind == "loss" else kind, document.data[kind]), (kind,))
    if builder.problems or made is None:
        raise ConfigError(_of_arguments(problem, kind) for problem in builder.problems)
    return made


def _of_arguments(problem: Problem, within: str) -> Problem:
    """A problem in what stands at the key `within`, as one of a command line's arguments."""
    path = problem.path.removeprefix(within).removeprefix(".")
    path = "" if path == "type" else path  # it is the word beside the command
    missing = re.search(r" needs '(\w+)'$", problem.message) if not path else None
    return replace(problem, path=path, hint=f"give it with --arg {missing[1]}=VALUE" if missing else problem.hint)
