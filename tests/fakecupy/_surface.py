"""What CuPy has: names, parameters, keywords, from surface.json; anything else is refused when it is used."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

SURFACE: dict[str, Any] = json.loads(Path(__file__).with_name("surface.json").read_text(encoding="utf-8"))
CUPY = "cupy " + SURFACE["version"].rpartition(".")[0]


@cache
def signature(words: str) -> inspect.Signature:
    """The signature that make_surface.py wrote down as words."""
    kinds = inspect.Parameter
    kind = kinds.POSITIONAL_OR_KEYWORD
    found: list[inspect.Parameter] = []
    for word in words.split():
        if word == "/":
            found = [p.replace(kind=kinds.POSITIONAL_ONLY) for p in found]
        elif word == "*":
            kind = kinds.KEYWORD_ONLY
        elif word.startswith("**"):
            found.append(inspect.Parameter(word[2:], kinds.VAR_KEYWORD))
        elif word.startswith("*"):
            found.append(inspect.Parameter(word[1:], kinds.VAR_POSITIONAL))
            kind = kinds.KEYWORD_ONLY
        else:
            default = None if word.endswith("=") else kinds.empty
            found.append(inspect.Parameter(word.rstrip("="), kind, default=default))
    return inspect.Signature(found)


def bind(name: str, words: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    """The arguments by parameter. Raises TypeError for what CuPy's function does not take."""
    parameters = signature(words).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        check_keywords(name, [p.name for p in parameters.values() if p.kind is not p.POSITIONAL_ONLY], kwargs)
    try:
        return signature(words).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{CUPY}: {name}({words.replace(' ', ', ')}): {error}") from None


def check_keywords(name: str, known: list[str], kwargs: dict[str, Any]) -> None:
    for keyword in kwargs:
        if keyword not in known:
            raise TypeError(f"{CUPY} has no keyword {keyword!r} for {name}(); it takes {', '.join(known) or 'none'}")
