"""Write surface.json: the names and parameters that the real CuPy has, read from its wheel. Needs no GPU.

    pip install --target DIR --no-deps cupy-cuda13x==14.2.0 cuda-pathfinder
    PYTHONPATH=DIR python tests/fakecupy/make_surface.py

A signature is written as words: `name` must be given, `name=` may be; `/`, `*`, `*name`, `**name` as in Python.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

OPEN_ENDED = {  # functions that take **kwargs and look inside: what they look for (cupy/_padding/pad.py and so on)
    "pad": "constant_values= end_values= stat_length= reflect_type=",
    "einsum": "dtype= optimize=",
    "meshgrid": "indexing= copy= sparse=",
    "gradient": "",
}


def words(signature: inspect.Signature, name: str) -> str:
    parts: list[str] = []
    kinds = inspect.Parameter
    previous = None
    for parameter in signature.parameters.values():
        if previous is kinds.POSITIONAL_ONLY and parameter.kind is not kinds.POSITIONAL_ONLY:
            parts.append("/")
        keyword_only = parameter.kind is kinds.KEYWORD_ONLY
        if keyword_only and previous not in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL):
            parts.append("*")
        if parameter.kind is kinds.VAR_POSITIONAL:
            parts.append("*" + parameter.name)
        elif parameter.kind is kinds.VAR_KEYWORD:
            known = OPEN_ENDED.get(name)
            if known is None:
                parts.append("**" + parameter.name)
            elif known:
                parts.append(known if previous is kinds.VAR_POSITIONAL else "* " + known)
        else:
            parts.append(parameter.name + ("" if parameter.default is kinds.empty else "="))
        previous = parameter.kind
    if previous is kinds.POSITIONAL_ONLY:
        parts.append("/")
    return " ".join(parts)


def documented(function: Any, name: str) -> str | None:
    """The signature that Cython embeds as the first line of the docstring, `Class.name(self, int axis=-1) -> type`."""
    match = re.match(r"[\w.]+\((.*?)\)(?: ->.*)?$", (function.__doc__ or "").split("\n")[0])
    if match is None:
        return None
    untyped = [re.sub(r"^\w+ (?=[\w*])", "", part.strip()) for part in match[1].split(",")]
    return words(_signature(", ".join(untyped)), name)


def _signature(parameters: str) -> inspect.Signature:
    scope: dict[str, Any] = {}
    exec(f"def f({re.sub(r'=[^,]+', '=None', parameters)}): pass", scope)
    return inspect.signature(scope["f"])


def signatures(namespace: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(vars(namespace)):
        function = getattr(namespace, name)
        if name.startswith("_") or inspect.isclass(function):
            continue
        if isinstance(function, FunctionType):
            found[name] = words(inspect.signature(function), name)
        elif isinstance(function, BuiltinFunctionType) or type(function).__name__ == "cython_function_or_method":
            text = documented(function, name)
            if text is not None:
                found[name] = text
    return found


def methods(kind: type) -> tuple[dict[str, str], list[str]]:
    """Methods with their signatures, and the attributes."""
    found: dict[str, str] = {}
    attributes: list[str] = []
    for name in dir(kind):
        if name.startswith("_"):
            continue
        member = getattr(kind, name)
        if not callable(member):
            attributes.append(name)
        else:
            text = documented(member, name)
            if text is None or name == "view":  # the one that is a plain function
                text = words(inspect.signature(member), name)
            found[name] = re.sub(r"^self ?(/ )?", "", text)
    return found, attributes


def ufunc_keywords(cupy: Any) -> str:
    """Which of numpy's keywords a ufunc takes: it says so before it looks for a device."""
    accepted = []
    for name in ("out", "dtype", "casting", "where", "order", "subok", "signature", "axis", "keepdims"):
        try:
            cupy.add(1, 2, **{name: None})
        except TypeError:
            continue
        except cupy.cuda.runtime.CUDARuntimeError:
            pass
        accepted.append(name + "=")
    return " ".join(accepted)


def surface(cupy: Any) -> dict[str, Any]:
    """All that the stand-in knows about CuPy."""
    functions = signatures(cupy)
    method_table, attributes = methods(cupy.ndarray)
    ufuncs = [name for name in dir(cupy) if isinstance(getattr(cupy, name), cupy.ufunc)]
    gufunc = words(inspect.signature(type(cupy.matmul).__call__), "matmul")
    known = {*functions, *ufuncs, "matmul", "annotations", "disable_experimental_feature_warning"}
    return {
        "version": cupy.__version__,
        "functions": functions,
        "ufuncs": " ".join(ufuncs),
        "ufunc_keywords": ufunc_keywords(cupy),
        "matmul_keywords": gufunc.removeprefix("self *args "),
        "methods": method_table,
        "attributes": " ".join(attributes),
        "linalg": signatures(cupy.linalg),
        "stride_tricks": signatures(cupy.lib.stride_tricks),
        "others": " ".join(name for name in dir(cupy) if not name.startswith("_") and name not in known),
    }


def main() -> None:
    import cupy

    path = Path(__file__).with_name("surface.json")
    path.write_text(json.dumps(surface(cupy), indent=0) + "\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
