"""The `layernet` command: parses arguments, runs one command, turns errors into one message and an exit code.

Exit codes: 0 done, 1 a run failed, 2 wrong usage or config, 128 + N ended by signal N.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from layernet import __version__
from layernet.cli import (
    average,
    bench,
    completion,
    data,
    doctor,
    evaluate,
    find_lr,
    gradcheck,
    init,
    inspect,
    layers,
    predict,
    resume,
    runs,
    schema,
    show,
    train,
    validate,
    warmup,
)
from layernet.cli.common import paint_for
from layernet.errors import Interrupted, LayernetError, did_you_mean

COMMANDS = {
    "init": init,
    "train": train,
    "resume": resume,
    "eval": evaluate,
    "predict": predict,
    "runs": runs,
    "inspect": inspect,
    "validate": validate,
    "show": show,
    "schema": schema,
    "gradcheck": gradcheck,
    "layers": layers,
    "bench": bench,
    "warmup": warmup,
    "find-lr": find_lr,
    "average": average,
    "data": data,
    "doctor": doctor,
    "completion": completion,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = _parser({})
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:
        parser.print_help(sys.stderr)
        return 2
    args, unknown = parser.parse_known_args(given)
    if unknown:
        args.parser.refuse(unknown)
    try:
        return int(args.run(args))
    except BrokenPipeError:  # the reader of a pipe went away: nobody is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except LayernetError as error:
        if args.debug:
            raise
        print(error if isinstance(error, Interrupted) else error.block(paint_for(sys.stderr)), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        message = None if args.debug else _message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("; ".join(["interrupted", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 130


def _message(error: Exception) -> str | None:
    """What to say of an exception that is not our own; None where only its traceback helps: a mistake in layernet."""
    from layernet.core.blame import blame

    if found := blame(error):
        return "; ".join([found, *getattr(error, "__notes__", ["--debug shows the traceback"])])
    if isinstance(error, MemoryError):
        cure = "make batches, the net or the data set smaller"
        return "; ".join([f"out of memory: {error}" if str(error) else "out of memory", cure])
    # a user's class lacks a method, a disk is full, a file cannot be read
    return str(error) if isinstance(error, NotImplementedError | OSError) else None


def script() -> int:
    """The console script: as `python -m layernet`, it finds the modules of the working directory first."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    return main()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Commands stand in one column with their help beside them."""

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            return "".join(map(super()._format_action, action._get_subactions()))
        return super()._format_action(action)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one message, with its cure, like everything else here."""

    def error(self, message: str) -> NoReturn:
        found = re.fullmatch(r"argument (.*?): invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if found:
            kind = "command" if found[1] == "COMMAND" else f"{found[1]} choice"
            hint = did_you_mean(found[2], [choice.strip("'") for choice in found[3].split(", ")])
            message = f"there is no {kind} {found[2]!r}; {hint}"
        elif message.startswith("the following arguments are required: "):
            message = f"{self.prog} needs {message.partition(': ')[2]}; {self.prog} --help says what it is"
        self.exit(2, f"error: {message}\n")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Arguments that nothing is known of."""
        options = [option for option in self._option_string_actions if option.startswith("--")]
        hint = did_you_mean(unknown[0], options)
        if not hint.startswith("did you mean"):
            values = "; values of the config are given as --set KEY=VALUE" if "--set" in options else ""
            hint = f"{self.prog} --help lists its options{values}"
        self.exit(2, f"error: {self.prog} takes no {unknown[0]!r}; {hint}\n")


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Each command's parser, by its name."""
    found: dict[str, argparse.ArgumentParser] = {}
    _parser(found)
    return found


def _parser(made: dict[str, argparse.ArgumentParser]) -> _Parser:
    """The parser of the whole command line; those of the commands go into `made`."""
    parser = _Parser(
        prog="layernet",
        description="Train nets of hand-written layers from YAML configs.",
        epilog="example: layernet train configs/digits_convnet.yaml",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"layernet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        module.add_arguments(command)
        command.set_defaults(run=module.run, parser=command)
        made[name] = command
    return parser
