"""Fetching files over the network: hash first, nothing half done, nothing outside its folder.

A partial download stays as `.NAME.part` and goes on where it ended. A file takes its place only when its SHA-256 is
the one expected; an archive is unpacked in a folder of its own beside its place, which then takes it.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from layernet.errors import DataError, UsageError

try:
    import fcntl
except ImportError:  # Windows: there, nothing is locked
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 17
_SECONDS = 30  # without a byte from the server
_MEMBERS = 10_000

Progress = Callable[[int, int], None]
"""Told (bytes there, bytes in all) now and then."""


@dataclass(frozen=True)
class Remote:
    """A file as its publisher gives it out: `size` bytes with this SHA-256.

    `content`: that of what a .gz file unpacks to, `content_size` bytes: a mirror may have packed it anew, and the
    file then has another hash. Empty: only the published file will do.
    """

    name: str
    size: int
    sha256: str
    content: str = ""
    content_size: int = 0

    @property
    def most(self) -> int:
        """Bytes that a download may have; a gzip file of something is hardly larger than the thing."""
        return max(self.size, self.content_size + self.content_size // 1000 + 1024)


def fetch(remote: Remote, base: str, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """The file, in `folder`, from `base`/name: taken as it is where it is there already, else downloaded.

    Raises DataError, with the cure, for whatever goes wrong; what was downloaded by then is kept, unless it is wrong.
    """
    path, partial = folder / remote.name, folder / f".{remote.name}.part"
    if path.is_file() and matches(path, remote):
        return path
    url = f"{base.rstrip('/')}/{remote.name}"
    with _saying(url, path), _alone(partial) as stream:
        begun = stream.seek(0, os.SEEK_END)
        _download(url, stream, remote, progress)
        if not matches(partial, remote) and begun:  # the part may have been of another file: once more, from the start
            stream.truncate(0)
            _download(url, stream, remote, progress)
        if not matches(partial, remote):
            found = _sha256(partial)
            partial.unlink()
            raise DataError(
                f"{url} is not the file expected: its SHA-256 is {found}, expected {remote.sha256}",
                "it was removed; download it again, or from elsewhere with --url",
            )
        os.fsync(stream.fileno())
        os.replace(partial, path)
    return path


def matches(path: Path, remote: Remote) -> bool:
    """Whether a file is the one expected, by its hash or that of its content."""
    if path.stat().st_size == remote.size and _sha256(path) == remote.sha256:
        return True
    return bool(remote.content) and _content(path, remote.content_size) == remote.content


def _download(url: str, stream: IO[bytes], remote: Remote, progress: Progress) -> None:
    """Add what is missing. A server that knows no ranges begins anew."""
    begun = stream.seek(0, os.SEEK_END)
    if begun >= remote.size:  # all of it, or more than there is
        if begun == remote.size:
            return
        begun = stream.truncate(0)
    headers = {"User-Agent": "layernet", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={begun}-"} if begun else {}))
    opener = urllib.request.build_opener(_Redirects(url))
    with opener.open(request, timeout=_SECONDS) as answer:
        if begun and (answer.status != 206 or _range_start(answer.headers) != begun):
            begun = 0
        stream.seek(begun)
        stream.truncate()
        length = answer.headers.get("Content-Length", "")
        total = begun + int(length) if length.isdecimal() else remote.size
        _check_space(Path(stream.name).parent, total - begun)
        done = begun
        while piece := answer.read(_CHUNK):
            done += len(piece)
            if done > remote.most:
                stream.truncate(0)
                raise DataError(f"{url} is larger than the {remote.size} bytes expected", "give another with --url")
            stream.write(piece)
            progress(done, total)
        stream.flush()
        if done < total:
            raise DataError(
                f"{url}: the connection ended after {done} of {total} bytes", "they are kept: the same command goes on"
            )


def _range_start(headers: HTTPMessage) -> int:
    """Where the part begins that a server sends: `bytes 100-199/200`."""
    start = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else -1


def check_url(url: str, mirror: bool) -> None:
    """Raise UsageError for an address that is not https; one that the user gave may be http."""
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (mirror and parts.scheme == "http")):
        raise UsageError(f"{url} is no https address", "a mirror is given as --url https://host/folder")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https alone, and within a plain http server that the user named."""

    def __init__(self, url: str) -> None:
        self._start = urlsplit(url)

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        target = urlsplit(newurl)
        same = (target.scheme, target.netloc) == (self._start.scheme, self._start.netloc)
        if target.scheme != "https" and not (same and target.scheme == "http"):
            raise DataError(f"{req.full_url} leads to {newurl}, which is not https", "give another with --url")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def unpack(archive: Path, folder: Path, name: str, most: int) -> Path:
    """The folder `name` of a .tar.gz, put at `folder`/name in the place of what was there.

    For an archive whose hash is known: this is the second line of defence. Raises DataError for members that are
    neither files nor folders, lie outside of `name`, or hold more than `most` bytes in all.
    """
    with (
        _saying(str(archive), folder / name),
        tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder, ignore_cleanup_errors=True) as temporary,
        tarfile.open(archive, "r:gz") as members,
    ):
        _check_space(folder, most)
        left = most
        for number, (member, path) in enumerate(_safe(archive, members, Path(temporary))):
            left -= member.size
            if number >= _MEMBERS or left < 0:
                raise DataError(f"{archive}: unpacks to more than {most} bytes", "do not use it")
            if path.relative_to(temporary).parts[0] != name:
                raise DataError(f"{archive}: holds {member.name}, expected {name}/ alone", "do not use it")
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                _write(members, member, path)
        made, place = Path(temporary, name), folder / name
        if not made.is_dir():
            raise DataError(f"{archive}: holds no {name}", "download it again")
        if place.exists():
            place.rename(Path(temporary, "before"))
        made.rename(place)
    return place


def _safe(archive: Path, members: tarfile.TarFile, root: Path) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    """(member, where it goes). What is no plain file or folder below `root` ends it."""
    for member in members:
        parts = PurePosixPath(member.name).parts
        outside = not parts or ".." in parts or member.name.startswith("/") or "\\" in member.name or ":" in member.name
        if outside or not (member.isreg() or member.isdir()):
            raise DataError(f"{archive}: holds {member.name!r}, which is no plain file in it", "do not use it")
        yield member, root.joinpath(*parts)


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = members.extractfile(member)
    assert source is not None  # a plain file
    with source, open(path, "xb") as stream:
        shutil.copyfileobj(source, stream, _CHUNK)
        stream.flush()
        os.fsync(stream.fileno())


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder} needs {needed / 1e6:.0f} MB, its disk has {free / 1e6:.0f} MB free", "free some")


@contextmanager
def _alone(partial: Path) -> Iterator[IO[bytes]]:
    """The partial file, which no other process writes to at the same time."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    with open(partial, "r+b" if partial.exists() else "w+b") as stream:
        if fcntl is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"another process is downloading {partial.parent / partial.name[1:-5]}") from None
        try:
            yield stream
        finally:
            if partial.is_file() and not os.fstat(stream.fileno()).st_size:
                partial.unlink()


@contextmanager
def _saying(what: str, path: Path) -> Iterator[None]:
    """Within it, what the network or the system refuses becomes one clear line."""
    kept = "what is there is kept: the same command goes on"
    try:
        yield
    except DataError:
        raise
    except urllib.error.HTTPError as error:
        raise DataError(f"{what}: the server answers {error.code} {error.reason}", "try --url with a mirror") from error
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{what}: cannot be unpacked ({error})", "download it again") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise DataError(f"{what} cannot be reached ({reason})", f"{kept}; or try --url with a mirror") from error
    except OSError as error:
        cure = f"free some space; {kept}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name another with --root"
        raise DataError(f"{error.filename or path} cannot be written ({error.strerror or error})", cure) from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _content(path: Path, size: int) -> str:
    """The SHA-256 of what a gzip file unpacks to; empty where that is not `size` bytes, of which no more are read."""
    digest, left = hashlib.sha256(), size
    try:
        with gzip.open(path) as stream:
            while left >= 0 and (piece := stream.read(_CHUNK)):
                digest.update(piece)
                left -= len(piece)
    except (OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest() if left == 0 else ""
