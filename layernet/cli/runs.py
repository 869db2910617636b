"""`layernet runs [DIR]` and `layernet runs RUN RUN ...`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from layernet.cli.common import terminal_width
from layernet.errors import UsageError

HELP = "list the runs in a folder, the newest last; or compare runs: how their configs differ, and what they reached"
EXAMPLE = "layernet runs runs/digits_mlp-001 runs/digits_mlp-002"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "paths", metavar="DIR", nargs="*", help="a folder of runs (default: runs), or the runs to compare"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """List or compare; the exit code."""
    from layernet.report.runs import as_plain, comparison, find_runs, overview, read_run
    from layernet.text import fitted

    paths = [Path(path) for path in args.paths]
    if len(paths) > 1:
        for path in paths:
            if not path.is_dir():
                raise UsageError(f"there is no run {path}", "layernet runs lists them")
        found = [read_run(path) for path in paths]
        text = comparison(found)
    else:
        found = find_runs(paths[0] if paths else Path("runs"))
        text = fitted(overview(found), terminal_width())
    print(json.dumps(as_plain(found), indent=1) if args.json else text)
    return 0
