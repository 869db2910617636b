"""`layernet doctor`."""

from __future__ import annotations

import argparse
import json

from layernet.cli.common import terminal_width

HELP = "show what this machine computes with, what is missing and how to get it; tries the kernels"
EXAMPLE = "layernet doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what was found; the exit code: 1 where something is broken."""
    from layernet.report.doctor import as_text, examine
    from layernet.text import fitted

    facts = examine()
    print(json.dumps(facts, indent=2) if args.json else fitted(as_text(facts), terminal_width()))
    return int(bool(facts["broken"]))
