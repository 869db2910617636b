"""One layer by itself, as a command line names it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layernet.config.build import Builder
from layernet.config.lookup import Lookup
from layernet.config.marks import Document
from layernet.config.overrides import apply
from layernet.core.layer import Layer
from layernet.errors import ConfigError


def load_layer(name: str, arguments: Sequence[str] = (), lookup: Lookup | None = None) -> Layer:
    """The layer called `name` (`Conv2d`, `module:Class`, `file.py:Class`), with arguments like ["kernel_size=3"].

    They go through the checks of a config. Files are looked for in the working directory, unless `lookup` knows better.
    Raises ConfigError with every problem found.
    """
    place, _, cls = name.rpartition(":")
    if place.endswith(".py") and not place.startswith((".", "/")):
        name = f"./{place}:{cls}"
    document = Document({"layer": {"type": name}})
    apply(document, [f"layer.{argument}" for argument in arguments])
    builder = Builder(document, lookup or Lookup(Path()))
    made = builder.layer(document.data["layer"], ("layer",))
    if builder.problems or made is None:
        raise ConfigError(builder.problems)
    return made
