"""One layer by itself, as a command line names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from layernet.config.build import Builder
from layernet.config.lookup import Lookup
from layernet.config.marks import Document
from layernet.config.overrides import apply
from layernet.core.layer import Layer
from layernet.errors import ConfigError, Problem


def load_layer(name: str, arguments: Sequence[str] = (), lookup: Lookup | None = None) -> Layer:
    """The layer called `name` (`Conv2d`, `module:Class`, `file.py:Class`), with arguments like ["kernel_size=3"].

    They go through the checks of a config. Files are looked for in the working directory, unless `lookup` knows better.
    Raises ConfigError with every problem found.
    """
    place, _, cls = name.rpartition(":")
    if place.endswith(".py") and not place.startswith((".", "/")):
        name = f"./{place}:{cls}"
    document = Document({"layer": {"type": name}})
    apply(document, arguments, "--arg", within="layer")
    builder = Builder(document, lookup or Lookup(Path()))
    made = builder.layer(document.data["layer"], ("layer",))
    if builder.problems or made is None:
        raise ConfigError(_of_arguments(problem, "layer") for problem in builder.problems)
    return made


def _of_arguments(problem: Problem, within: str) -> Problem:
    """A problem in what stands at the key `within`, as one of a command line's arguments."""
    path = problem.path.removeprefix(within).removeprefix(".")
    path = "" if path == "type" else path  # it is the word beside the command
    missing = re.search(r" needs '(\w+)'$", problem.message) if not path else None
    return replace(problem, path=path, hint=f"give it with --arg {missing[1]}=VALUE" if missing else problem.hint)
