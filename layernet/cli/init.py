"""`layernet init [NAME.yaml]`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from layernet.cli.common import parse_shape, write_file
from layernet.cli.schema import modeline
from layernet.errors import ConfigError, UsageError

HELP = "write a first config for your data, commented and ready to run"
EXAMPLE = "layernet init --data MNIST --kind convnet"
SCHEMA = "layernet.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="NAME.yaml", nargs="?", help="the file (default: called as the data is)")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="Digits, MNIST, FashionMNIST, CIFAR10, CIFAR100; a folder with one folder of images a class; "
        "a table (.csv); arrays (.npz)",
    )
    parser.add_argument(
        "--label", metavar="COLUMN", help="a table's column of labels, by name or index (default: last)"
    )
    parser.add_argument("--shape", metavar="H,W,C", help="of one example: for invented data; or the size of images")
    parser.add_argument("--classes", type=int, metavar="N", help="how many there are; 0: numbers are predicted")
    parser.add_argument("--kind", choices=("mlp", "convnet", "resnet"), help="the net (default: what suits the shape)")
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Write the file, and the schema beside it; the exit code."""
    from layernet.config.experiment import check_data, load_config_text
    from layernet.report.starter import starter
    from layernet.report.subject import look_at

    if args.classes is not None and args.classes < 0:
        raise UsageError(f"--classes must be at least 0, got {args.classes}")
    subject = look_at(args.data, args.shape and parse_shape(args.shape), args.classes, args.label)
    path = Path(args.name or f"{subject.name}.yaml")
    path = path if path.suffix in (".yaml", ".yml") else path.with_name(f"{path.name}.yaml")
    if path.exists() and not args.force:
        raise UsageError(f"{path} exists", "name another file, or overwrite it with --force")
    text = starter(subject, args.kind, _command(args), modeline(SCHEMA))
    config = load_config_text(text, str(path), path.parent)
    write_file(path, text)
    print(f"wrote {path}{_schema(path.parent / SCHEMA)}")
    try:
        check_data(config)
    except ConfigError as error:
        print(f"its data is not there yet: {error.problems[0].message}")
    print(f"next: layernet train {shlex.quote(str(path))}")
    return 0


def _command(args: argparse.Namespace) -> str:
    given = {"--data": args.data, "--label": args.label, "--shape": args.shape, "--classes": args.classes}
    given["--kind"] = args.kind
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    return shlex.join(["layernet", "init", *words])


def _schema(path: Path) -> str:
    """Write the schema for editors where there is none, or an older one of ours; what to say of it."""
    from layernet.report.reference import schema_text

    text = schema_text()
    if path.exists():
        old = path.read_text(encoding="utf-8", errors="replace")
        if old == text or '"title": "layernet config"' not in old:
            return ""
    write_file(path, text)
    return f", and beside it {path.name}, by which editors complete and check configs"
