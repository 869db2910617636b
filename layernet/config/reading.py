"""A config file's bytes -> text."""

from __future__ import annotations

from pathlib import Path

from layernet.errors import ConfigError, Mark, Problem

_MAX_BYTES = 1_000_000


def read(file: Path) -> str:
    """The text of a config file. Raises OSError where it cannot be read, ConfigError where it is no UTF-8."""
    start = Mark(str(file), 1, 1)
    with open(file, "rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigError([Problem(f"the file is larger than {_MAX_BYTES} bytes", mark=start)])
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError([Problem("the file is UTF-16", mark=start, hint="save it as UTF-8")])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        mark = Mark(str(file), before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise ConfigError(
            [Problem(f"the byte 0x{content[error.start]:02x} is not UTF-8", mark=mark, hint="save the file as UTF-8")]
        ) from None


def near(folder: Path) -> list[str]:
    """The names of the configs in a folder."""
    return [other.name for other in folder.glob("*.y*ml")] if folder.is_dir() else []
