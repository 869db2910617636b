"""Feed the config reader what is hostile or broken, and print what it answers, how long it takes and how much memory.

    python scripts/hostile.py                the table
    python scripts/hostile.py --only bomb    rows whose names hold this

Each input is read by a process of its own, as `layernet validate` would: time and memory are what the reading adds to
a process that has read a good config. The bars: an answer with file, line and column, exit code 2, no traceback, no
more than 200 MB and 1 s (bombs of less than 1 kB 0.2 s, what has more than 64 kB 2 s). Exits 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

GOOD = """\
device: cpu
data:
  train: {type: FakeData, shape: [8, 8, 2], classes: 4, length: 200}
  batch_size: 16
net:
  input: [8, 8, 2]
  layers: [{type: Conv2d, out_channels: 4, kernel_size: 3}, Flatten, {type: Linear, out_features: 4}]
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 2}
"""


def _bomb(first: str, again: Callable[[str], str], levels: int) -> bytes:
    letters = "abcdefghijklmnopqrstuvwxyz"[:levels]
    lines = [
        f"a: &a {first}",
        *(f"{new}: &{new} {again(', '.join([f'*{old}'] * 9))}" for old, new in pairwise(letters)),
    ]
    return "\n".join(lines).encode()


def _set(old: str, new: str) -> bytes:
    assert old in GOOD, old
    return GOOD.replace(old, new, 1).encode()


def _seed(value: str) -> bytes:
    return f"seed: {value}\n{GOOD}".encode()


def _repeats(depth: int) -> str:
    inner = "ReLU" if depth == 1 else _repeats(depth - 1)
    return f"{{type: Sequential, repeat: 1000, layers: [{inner}]}}"


ROWS: dict[str, list[tuple[str, bytes, str]]] = {
    "python and other tags": [
        ("!!python/object/apply", _seed("!!python/object/apply:os.system [echo escaped]"), "the tag"),
        ("!!python/name", _seed("!!python/name:os.system"), "the tag"),
        ("!!binary", _seed("!!binary aGk="), "the tag"),
        ("a local tag", _seed("!mine 3"), "the tag"),
    ],
    "depth": [
        ("200 kB of [", b"[" * 200_000, "nested more than"),
        ("2 MB of '- '", b"- " * 1_000_000, "larger than"),
        ("240 kB of '- '", b"- " * 120_000, "nested more than"),
        ("200 kB of {", b"{" * 200_000, "a key must be plain text"),
        ("990 deep", b"a: " + b"[" * 990 + b"]" * 990, "nested more than"),
        ("990 indented keys", b"".join(b" " * n + b"a:\n" for n in range(600)), "nested more than"),
    ],
    "merge-key bomb": [
        ("369 B", _bomb("{k: 1}", lambda s: f"{{<<: [{s}]}}", 8), "unknown key"),
        ("428 B", _bomb("{k: 1}", lambda s: f"{{<<: [{s}]}}", 9), "unknown key"),
        (
            "wide",
            _bomb("{" + ", ".join(f"k{n}: 1" for n in range(9000)) + "}", lambda s: f"{{<<: [{s}]}}", 9),
            "more than",
        ),
        ("<< of itself", b"a: &a {<<: *a}", "stands inside"),
    ],
    "alias bomb": [
        ("9 ** 8", _bomb("[1, 1, 1, 1, 1, 1, 1, 1, 1]", lambda s: f"[{s}]", 9), "more than"),
        ("recursive alias", b"a: &a [*a]", "stands inside"),
        ("recursive through a key", b"a: &a {b: {c: *a}}", "stands inside"),
    ],
    "what escapes YAMLError": [
        ("5000-digit int", _seed("1" * 5000), "expected an integer"),
        ("date 2001-13-45", _seed("2001-13-45"), "expected an integer"),
        ('!!int ""', _seed('!!int ""'), "the tag"),
        ("!!int x", _seed("!!int x"), "the tag"),
        ("!!float x", _seed("!!float x"), "the tag"),
        ("!!bool x", _seed("!!bool x"), "the tag"),
        ("!!timestamp x", _seed("!!timestamp x"), "the tag"),
        ("0x_", _seed("0x_"), "expected an integer"),
        ("0b_", _seed("0b_"), "expected an integer"),
        ("\\U escape", _seed('"\\UFFFFFFFF"'), "this is not YAML"),
        ("lone surrogate", _seed('"\\ud800"'), "surrogate"),
        ("%YAML of 5000 digits", b"%YAML 1." + b"9" * 5000 + b"\n---\na: 1", "this is not YAML"),
    ],
    "1 MB hex int": [
        ("1 MB", _seed("0x" + "f" * 1_048_576), "larger than"),
        ("200 kB", _seed("0x" + "f" * 200_000), "expected an integer"),
        ("beyond 64 bits", _seed(str(2**63)), "integers go up to"),
    ],
    "silent surprises": [
        ("duplicate key", _seed("1\nseed: 2"), "given twice"),
        ("no", _set("batch_size: 16", "batch_size: 16\n  shuffle: no"), "expected true or false, got 'no'"),
        ("on: as a key", _seed("1\non: 1"), "unknown key 'on'"),
        ("1:30", _seed("1:30"), "got '1:30'"),
        ("0777", _seed("0777"), "got '0777'"),
        ("1_000", _seed("1_000"), "got '1_000'"),
        ("2001-01-01", _seed("2001-01-01"), "got '2001-01-01'"),
        ("lr: 1e-3 is a number", _set("lr: 0.1", "lr: 1e-3"), ""),
    ],
    ".nan, .inf": [
        ("lr: .nan", _set("lr: 0.1", "lr: .nan"), "finite"),
        ("lr: .inf", _set("lr: 0.1", "lr: .inf"), "finite"),
        ("lr: 1e999", _set("lr: 0.1", "lr: 1e999"), "finite"),
        ("seed: .nan", _seed(".nan"), "expected an integer"),
    ],
    "broken text": [
        ("tab indent", _set("  batch_size", "\tbatch_size"), "a tab"),
        ("NUL", _seed("1\x00"), "U+0000"),
        ("bad UTF-8", GOOD.encode() + b"# \xff\n", "is not UTF-8"),
        ("UTF-16", GOOD.encode("utf-16"), "UTF-16"),
        ("UTF-16 without BOM", GOOD.encode("utf-16-le"), "U+0000"),
        ("UTF-32", GOOD.encode("utf-32"), ""),
        ("BOM", b"\xef\xbb\xbf" + GOOD.encode(), "BOM"),
        ("a: b: c", _seed("b: c"), "a second ': '"),
        ("empty", b"", "empty"),
        ("comments alone", b"# nothing\n", "empty"),
        ("scalar", b"hello", "a config must be a mapping"),
        ("list", b"- 1\n- 2\n", "a config must be a mapping"),
        ("two documents", GOOD.encode() + b"---\nseed: 1\n", "a second document"),
        ("unclosed quote", _seed("'1"), "never closed"),
        ("unclosed bracket", _seed("[1"), "this is not YAML"),
        ("escape sequence", _seed("\x1b[31m"), "U+001B"),
        ("lines without end", b"a" * 200_000, "a config must be a mapping"),
        ("24,000 keys", "".join(f"k{n}: 1\n" for n in range(24_000)).encode(), "unknown key"),
        ("one key of 200 kB", b"k" * 200_000 + b": 1", ""),
        ("200 kB of spaces", b"a:" + b" " * 200_000 + b"1", "unknown key"),
        ("200 kB of quotes", b"'" * 200_001, ""),
        ("200 kB of anchors", b"".join(b"- &a%d 1\n" % n for n in range(16_000)), "a config must be a mapping"),
        ("200 kB of &", b"&" * 200_000, "this is not YAML"),
        ("block scalar without end", b"a: |\n" + b"  x\n" * 50_000, "unknown key"),
    ],
    "wrong values": [
        ("text for a number", _set("batch_size: 16", "batch_size: many"), "expected an integer"),
        ("negative", _set("out_channels: 4", "out_channels: -1"), "at least 1"),
        ("0", _set("epochs: 2", "epochs: 0"), "at least 1"),
        ("out_channels: 10**9", _set("out_channels: 4", "out_channels: 1000000000"), "not fit into memory"),
        ("out_channels: 2**63 - 1", _set("out_channels: 4", f"out_channels: {2**63 - 1}"), "not fit into memory"),
        ("batch_size: 10**9", _set("batch_size: 16", "batch_size: 1000000000"), "not fit into memory"),
        (
            "an image of 10**6 squared",
            GOOD.replace("[8, 8, 2]", "[1000000, 1000000, 2]").encode(),
            "not fit into memory",
        ),
        ("repeat: 10**9", _set("kernel_size: 3}", "kernel_size: 3, repeat: 1000000000}"), "at most 1000"),
        ("repeats in repeats", _set("{type: Conv2d, out_channels: 4, kernel_size: 3}", _repeats(4)), "more than"),
    ],
}


@dataclass
class Answer:
    """What reading one input came to."""

    row: str
    name: str
    size: int
    seconds: float
    megabytes: float
    code: int
    message: str
    good: bool


def child(path: str) -> None:
    """Read one file in this process, and print what that took."""
    import resource
    import time

    from layernet.config.experiment import check_data, load_config, load_config_text
    from layernet.errors import LayernetError
    from layernet.train.memory import check_memory

    load_config_text(GOOD)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    code, message = 0, ""
    try:
        config = load_config(path)
        check_data(config)
        check_memory(config)
    except LayernetError as error:
        code, message = error.exit_code, error.block()
    seconds, after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, (after - before) / 1024, code, message]))


def answer(row: str, name: str, content: bytes, expected: str, folder: Path) -> Answer:
    """Read one input in a process of its own."""
    file = folder / "c.yaml"
    file.write_bytes(content)
    command = [sys.executable, __file__, "--child", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return Answer(row, name, len(content), 60, 0, 1, "took more than a minute", False)
    if done.returncode:
        return Answer(row, name, len(content), 0, 0, done.returncode, done.stderr.strip().splitlines()[-1], False)
    seconds, megabytes, code, message = json.loads(done.stdout)
    refused = code == 2 and expected in message and f"{file}:" in message
    answered = refused or (not expected and code in (0, 2))
    small, large = len(content) < 1024, len(content) > 64 * 1024
    bar = 0.2 if "bomb" in row and small else 2 if large else 1
    good = answered and seconds <= bar and megabytes < 200
    return Answer(row, name, len(content), seconds, megabytes, code, message.replace(str(file), "c.yaml"), good)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose names hold this")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(args.child)
        return 0
    from layernet.text import aligned

    table, bad = [["row", "input", "bytes", "CPU s", "MB", "code", "answer"]], []
    with tempfile.TemporaryDirectory() as folder:
        for row, cases in ROWS.items():
            for name, content, expected in cases:
                if args.only not in f"{row} {name}":
                    continue
                found = answer(row, name, content, expected, Path(folder))
                first = found.message.partition("\n")[0].removeprefix("error: ") or "read"
                figures = [f"{found.size}", f"{found.seconds:.2f}", f"{found.megabytes:.0f}", f"{found.code}"]
                table.append([row, name, *figures, first[:110]])
                bad += [] if found.good else [f"{row}, {name}: {first}"]
    print(aligned(table))
    print(f"\n{len(table) - 1} inputs, {len(bad)} that do not hold the bars")
    for line in bad:
        print(f"NOT HELD {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
