"""`layernet schema`."""

from __future__ import annotations

import argparse
from pathlib import Path

from layernet.cli.common import write_file

HELP = "write the JSON schema of configs, with which editors complete, explain and check them"
EXAMPLE = "layernet schema -o layernet.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write it there (default: print it)")


def run(args: argparse.Namespace) -> int:
    """Write it; the exit code."""
    from layernet.report.reference import schema_text

    text = schema_text()
    if args.output is None:
        print(text, end="")
        return 0
    write_file(args.output, text)
    print(f"wrote {args.output}; editors use it for a config beside it that says")
    print(modeline(args.output.name))
    return 0


def modeline(name: str) -> str:
    """The line of a config that tells editors of its schema."""
    return f"# yaml-language-server: $schema={name}"
