"""`layernet data list` and `layernet data get NAME`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from layernet.cli.common import terminal_width
from layernet.errors import UsageError, did_you_mean
from layernet.text import aligned, fitted, size

if TYPE_CHECKING:
    from layernet.data.download import Progress

HELP = "list the data sets that are read from files, or get some: download, check SHA-256, unpack"
EXAMPLE = "layernet data get mnist"
_INTERVAL = {True: 0.1, False: 10.0}  # seconds between two tellings, on a terminal and elsewhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", metavar="ACTION", choices=("list", "get"), help="list or get")
    parser.add_argument("names", metavar="NAME", nargs="*", help="data sets, as `data list` calls them")
    parser.add_argument("--root", metavar="DIR", help="the data set's folder (default: $LAYERNET_DATA/NAME)")
    parser.add_argument("--url", metavar="BASE", help="a mirror: the address of the folder that holds the files")


def run(args: argparse.Namespace) -> int:
    """List or get; the exit code."""
    from layernet.data.sources import SOURCES

    for name in args.names:
        if name not in SOURCES:
            raise UsageError(f"there is no data set {name!r} to get", did_you_mean(name, SOURCES))
    if args.action == "list":
        print(fitted(_table(args.names or list(SOURCES), args.root), terminal_width()))
        return 0
    if not args.names:
        raise UsageError("data get needs the name of a data set", f"known: {', '.join(SOURCES)}")
    if len(args.names) > 1 and (args.root or args.url):
        raise UsageError("--root and --url are for one data set", "get them one by one")
    try:
        for name in args.names:
            print(f"{name}: {SOURCES[name].get(_teller, args.root, args.url)}")
    except BaseException:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the line of progress stays, and what is said of it stands below
        raise
    return 0


def _table(names: list[str], root: str | None) -> str:
    from layernet.data.files import NotThere
    from layernet.data.sources import SOURCES

    rows = [("name", "state", "download", "folder", "source", "licence")]
    for name in names:
        source = SOURCES[name]
        folder = source.folder(root)
        problem = source.problem(root)
        state = "found" if problem is None else "not there" if isinstance(problem, NotThere) else "damaged"
        rows.append((name, state, size(source.size), str(folder), source.base, source.licence))
    return aligned(rows, right={2}) + "\ndigits come with layernet; get the others with: layernet data get NAME"


def _teller(name: str) -> Progress:
    """Progress of one file on stderr: a line that replaces itself on a terminal, a line now and then elsewhere."""
    terminal = sys.stderr.isatty()
    last, begun, first = time.monotonic() if not terminal else 0.0, time.monotonic(), -1

    def tell(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done if first < 0 else first
        if now - last < _INTERVAL[terminal] and done < total:
            return
        last = now
        speed = (done - first) / (now - begun) if now > begun else 0.0
        line = f"{name}: {100 * done / total:.0f} % of {size(total)}" + (f", {size(round(speed))}/s" if speed else "")
        end = "\n" if not terminal or done >= total else ""
        sys.stderr.write(f"\r\x1b[K{line}{end}" if terminal else f"{line}{end}")
        sys.stderr.flush()

    return tell
