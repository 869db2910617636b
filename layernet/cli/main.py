"""The `layernet` command: parses arguments, runs one command, turns errors into one message and an exit code.

Exit codes: 0 done, 1 a run failed, 2 wrong usage or config, 128 + N ended by signal N.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from layernet import __version__
from layernet.cli import evaluate, gradcheck, inspect, layers, resume, train, validate, warmup
from layernet.errors import LayernetError

COMMANDS = {
    "train": train,
    "resume": resume,
    "eval": evaluate,
    "inspect": inspect,
    "validate": validate,
    "gradcheck": gradcheck,
    "layers": layers,
    "warmup": warmup,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except BrokenPipeError:  # the reader of a pipe went away: nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LayernetError, NotImplementedError, OSError) as error:
        # beside our own: a user's class lacks a method, a disk is full, a file cannot be read
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, LayernetError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="layernet",
        description="Train nets of hand-written layers from YAML configs.",
        epilog="example: layernet train configs/digits_convnet.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"layernet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
