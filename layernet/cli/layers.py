"""`layernet layers [NAME]`."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from layernet.cli.common import parse_shape, terminal_width
from layernet.errors import UsageError
from layernet.text import aligned, fitted, prose

if TYPE_CHECKING:
    from layernet.backend import Shape
    from layernet.config.lookup import Lookup
    from layernet.core.layer import Layer
    from layernet.report.catalogue import Entry

HELP = "list the layers, or explain one: formula, arguments, shapes, parameters, an example, the paper"
EXAMPLE = "layernet layers Conv2d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="a layer, loss, metric, optimizer, schedule, data set, transform or initialiser: "
        "a built-in name, module:Class or file.py:Class (default: list them all)",
    )
    parser.add_argument("--shape", metavar="H,W,C", help="show a layer's parameters for this input, without N")
    parser.add_argument("--arg", metavar="KEY=VALUE", action="append", default=[], help="an argument of the layer")


def run(args: argparse.Namespace) -> int:
    """Print the catalogue or one entry; the exit code."""
    if args.name is None:
        if args.shape or args.arg:
            raise UsageError("--shape and --arg are for one layer", "name it")
        print(fitted(_catalogue(), terminal_width()))
    else:
        print(fitted(_page(args), terminal_width()))
    return 0


def _catalogue() -> str:
    from layernet.report.catalogue import built_in

    families: dict[str, list[tuple[str, str]]] = {}
    for entry in built_in():
        families.setdefault(entry.family, []).append((entry.name, entry.formula))
    width = max(len(name) for rows in families.values() for name, _ in rows)
    parts = [f"{family}\n{aligned(rows, indent='  ', first=width)}" for family, rows in families.items()]
    return "\n\n".join([*parts, "more on each: layernet layers NAME"])


def _page(args: argparse.Namespace) -> str:
    from layernet.config.lookup import Lookup, LookupFailure
    from layernet.config.schema import SchemaError
    from layernet.report.catalogue import describe, example, link

    lookup = Lookup(Path())
    try:
        entry = describe(args.name, lookup)
    except LookupFailure as failure:
        raise UsageError(failure.message, failure.hint) from None
    except SchemaError as error:
        raise UsageError(str(error)) from None
    layer, shape = _instance(args, entry, lookup)
    what = {"layer": f"layer, {entry.family}"}.get(entry.kind, entry.family)
    parts = [f"{args.name} ({what})"]
    width = terminal_width()
    room = width and width - 2
    parts += [textwrap.indent(prose(text, room), "  ") for text in (entry.formula, entry.text) if text]
    if entry.arguments:
        rows = [(a.name, a.type, "required" if a.default is None else a.default) for a in entry.arguments]
        parts.append(f"arguments\n{aligned(rows, indent='  ')}")
    if layer is not None and shape is not None:
        parts.append(_tensors(layer.clone(), shape))
    text = example(entry, lookup, layer if args.arg or args.shape else None, shape)
    if text is not None:
        parts.append(f"example\n{textwrap.indent(text, '  ')}")
    if entry.kind == "layer" and shape is None:
        parts.append("its parameters: give it an input with --shape, and arguments with --arg KEY=VALUE")
    if entry.papers:
        parts.append(f"paper\n{aligned([(paper, link(paper) or '') for paper in entry.papers], indent='  ')}")
    return "\n\n".join(parts)


def _instance(args: argparse.Namespace, entry: Entry, lookup: Lookup) -> tuple[Layer | None, Shape | None]:
    """The layer to show, and the input to build it for: as asked for, or as in its test case."""
    from layernet.config.layer import load_layer
    from layernet.report.catalogue import example_layer

    if args.shape is None and not args.arg:
        found = example_layer(args.name)
        return found if found is not None else (None, None)
    if entry.kind != "layer":
        raise UsageError("--shape and --arg are for layers", f"{args.name} is of another kind")
    return load_layer(args.name, args.arg, lookup), None if args.shape is None else parse_shape(args.shape)


def _tensors(layer: Layer, shape: Shape) -> str:
    from layernet.report.catalogue import tensors_of

    found = tensors_of(layer, shape)
    rows = [("parameter", path, str(list(size))) for path, size in found.params.items()]
    rows += [("buffer", path, str(list(size))) for path, size in found.buffers.items()]
    cost = "" if found.flops is None else f", {found.flops:,} multiply-adds an example"
    head = f"input {list(found.in_shape)} -> output {list(found.out_shape)}{cost}"
    return "\n".join(["built", f"  {head}", *([aligned(rows, indent="  ")] if rows else ["  no parameters"])])
