"""Downloads from a server on this machine: resumed, cut off, wrong, redirected; archives that want out."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layernet.cli.main import main
from layernet.data import download, sources
from layernet.data.download import Remote, check_url, fetch, matches, unpack
from layernet.data.mnist import MNIST
from layernet.errors import DataError, UsageError

CONTENT = np.random.default_rng(0).bytes(1_000_000)


class Server(ThreadingHTTPServer):
    """Serves `files`; `cut`: bytes after which a connection ends, once; `ranges`: whether it knows them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, name = self.server, self.path.strip("/")
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if name in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[name])
            self.end_headers()
            return
        if name not in server.files:
            self.send_error(404)
            return
        content, start = server.files[name], 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if server.cut is not None:
            content, server.cut = content[: start + server.cut], None
            self.close_connection = True
        self.wfile.write(content[start:])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def remote(name: str = "data.bin", content: bytes = CONTENT) -> Remote:
    return Remote(name, len(content), hashlib.sha256(content).hexdigest())


def test_a_file_arrives_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    server.files["data.bin"] = CONTENT
    told: list[tuple[int, int]] = []
    for _ in range(2):
        path = fetch(remote(), server.url, tmp_path / "new", lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert os.listdir(tmp_path / "new") == ["data.bin"]
    assert server.asked == [None]
    assert told[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_cut_off_goes_on(ranges: bool, server: Server, tmp_path: Path) -> None:
    server.files["data.bin"], server.cut, server.ranges = CONTENT, 300_000, ranges
    with pytest.raises(DataError, match=r"ended after 300000 of 1000000 bytes; they are kept"):
        fetch(remote(), server.url, tmp_path)
    assert os.listdir(tmp_path) == [".data.bin.part"]
    assert fetch(remote(), server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]
    assert os.listdir(tmp_path) == ["data.bin"]


def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files["data.bin"] = CONTENT
    (tmp_path / ".data.bin.part").write_bytes(b"x" * 1000)
    assert fetch(remote(), server.url, tmp_path).read_bytes() == CONTENT
    (tmp_path / ".data.bin.part").write_bytes(b"x" * (len(CONTENT) + 5))
    (tmp_path / "data.bin").unlink()
    assert fetch(remote(), server.url, tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"what was there")
    server.files["data.bin"] = CONTENT[:-1] + b"?"
    with pytest.raises(DataError, match=r"its SHA-256 is \w{64}, expected \w{64}; it was removed"):
        fetch(remote(), server.url, tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == ["data.bin"]


def test_more_than_expected_is_not_stored(server: Server, tmp_path: Path) -> None:
    server.files["data.bin"] = CONTENT * 3
    with pytest.raises(DataError, match="larger than the 1000000 bytes"):
        fetch(remote(), server.url, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_mirror_that_packed_the_content_anew_will_do(server: Server, tmp_path: Path) -> None:
    plain = CONTENT[:1000] * 50
    published, other = gzip.compress(plain, 9, mtime=1), gzip.compress(plain, 1, mtime=2)
    assert published != other
    file = Remote(
        "d.gz",
        len(published),
        hashlib.sha256(published).hexdigest(),
        hashlib.sha256(plain).hexdigest(),
        len(plain),
    )
    server.files["d.gz"] = other
    assert gzip.decompress(fetch(file, server.url, tmp_path).read_bytes()) == plain
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(bytes(len(plain) + 1)))
    assert not matches(bomb, file)
    bomb.write_bytes(other[:-20])
    assert not matches(bomb, file)


@pytest.mark.parametrize("target", ["http://localhost:1/x", "file:///etc/passwd", "ftp://example.org/x"])
def test_redirects_to_anything_but_https_are_refused(target: str, server: Server, tmp_path: Path) -> None:
    server.redirects["data.bin"] = target
    with pytest.raises(DataError, match=r"which is not https|is not allowed"):
        fetch(remote(), server.url, tmp_path)
    assert os.listdir(tmp_path) == []


def test_redirects_within_a_mirror_are_followed_and_none_from_https_to_http(server: Server, tmp_path: Path) -> None:
    server.files["real.bin"], server.redirects["data.bin"] = CONTENT, f"{server.url}/real.bin"
    assert fetch(remote(), server.url, tmp_path).read_bytes() == CONTENT
    import urllib.request

    request = urllib.request.Request("https://example.org/data.bin")
    with pytest.raises(DataError, match="which is not https"):
        download._Redirects(request.full_url).redirect_request(
            request,
            io.BytesIO(),
            302,
            "",
            {},
            "http://example.org/data.bin",  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("url", "mirror", "right"),
    [
        ("https://example.org/x", False, True),
        ("http://example.org/x", False, False),
        ("http://example.org/x", True, True),
        ("file:///etc", True, False),
        ("example.org/x", True, False),
    ],
)
def test_addresses(url: str, mirror: bool, right: bool) -> None:
    if right:
        check_url(url, mirror)
    else:
        with pytest.raises(UsageError, match="no https address"):
            check_url(url, mirror)


def test_what_the_network_refuses_is_one_clear_message(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the server answers 404"):
        fetch(remote(), server.url, tmp_path)
    with pytest.raises(DataError, match=r"cannot be reached \(.*\); what is there is kept"):
        fetch(remote(), "http://127.0.0.1:1", tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["data.bin"] = CONTENT
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda path: _Usage(10_000))
        with pytest.raises(DataError, match="needs 1 MB, its disk has 0 MB free"):
            fetch(remote(), server.url, tmp_path)

    def full(done: int, total: int) -> None:
        if done > 500_000:
            raise OSError(28, "No space left on device", str(tmp_path))

    with pytest.raises(DataError, match=r"No space left on device\); free some space; what is there is kept"):
        fetch(remote(), server.url, tmp_path, full)
    assert fetch(remote(), server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] is not None  # it went on


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_two_at_once(server: Server, tmp_path: Path) -> None:
    server.files["data.bin"] = CONTENT
    seen: list[str] = []

    def other(done: int, total: int) -> None:
        if not seen:
            with pytest.raises(DataError, match=r"another process is downloading .*data.bin") as caught:
                fetch(remote(), server.url, tmp_path)
            seen.append(str(caught.value))

    assert fetch(remote(), server.url, tmp_path, other).read_bytes() == CONTENT
    assert seen


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"12345") -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, content if kind == tarfile.REGTYPE else b""


def test_an_archive_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "old").touch()
    packed = archive(tmp_path / "a.tar.gz", member("in", tarfile.DIRTYPE), member("in/x"), member("in/sub/y"))
    assert unpack(packed, tmp_path, "in", 10) == tmp_path / "in"
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "a.tar.gz",
        "in",
        "in/sub",
        "in/sub/y",
        "in/x",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        member("../out"),
        member("in/../../out"),
        member("/tmp/out"),
        member("in\\..\\out"),
        member("C:/out"),
        member("in/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("in/link", tarfile.LNKTYPE, "in/x"),
        member("in/pipe", tarfile.FIFOTYPE),
        member("in/device", tarfile.CHRTYPE),
        member("elsewhere/x"),
        member("in/big", content=bytes(1000)),
        member("in/x"),  # a second time
    ],
    ids=lambda bad: f"{bad[0].name} {bad[0].type!r}",
)
def test_hostile_members_leave_nothing(bad: Any, tmp_path: Path) -> None:
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "root" / "in" / "old").touch()
    packed = archive(tmp_path / "a.tar.gz", member("in/x"), bad)
    with pytest.raises(DataError):
        unpack(packed, tmp_path / "root", "in", 100)
    assert [p.name for p in (tmp_path / "root").rglob("*")] == ["in", "old"]
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "root"]


def test_no_archive_at_all(tmp_path: Path) -> None:
    packed = archive(tmp_path / "a.tar.gz", member("in/x", content=CONTENT[:5000]))
    packed.write_bytes(packed.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(packed, tmp_path, "in", 10_000)
    packed.write_bytes(b"<html>")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(packed, tmp_path, "in", 10_000)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server of files in MNIST's form, that `data get mnist` takes for the real ones."""
    files = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(np.zeros((count, 28, 28))))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count) % 10))
    server.files = files
    remotes = [remote(name, content) for name, content in files.items()]
    source = sources.Source(MNIST, "https://example.org", remotes, "free")
    monkeypatch.setitem(sources.SOURCES, "mnist", source)
    return server


def test_data_get_and_list(
    small_mnist: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAYERNET_DATA", str(tmp_path))
    assert main(["data", "list"]) == 0
    before = capsys.readouterr().out
    assert "mnist          not there" in before
    assert "CC" in before or "free" in before
    assert main(["data", "get", "mnist", "--url", small_mnist.url]) == 0
    said = capsys.readouterr()
    assert said.out == f"mnist: {tmp_path / 'mnist'}\n"
    assert "train-images-idx3-ubyte.gz: 100 % of " in said.err
    assert "\x1b" not in said.err
    assert "\r" not in said.err
    assert len(MNIST("test")) == 10
    asked = len(small_mnist.asked)
    assert main(["data", "get", "mnist", "--url", small_mnist.url]) == 0  # there is nothing to do
    assert len(small_mnist.asked) == asked
    assert main(["data", "list"]) == 0
    assert "mnist          found" in capsys.readouterr().out


def test_data_get_of_an_archive(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = bytes(3073)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    packed = archive(
        tmp_path / "cifar.tar.gz",
        *(member(f"cifar-10-batches-bin/{name}", content=record * 10_000) for name in names),
    ).read_bytes()
    real = sources.SOURCES["cifar10"]
    server.files["cifar-10-binary.tar.gz"] = packed
    source = sources.Source(
        real.dataset, real.base, [remote("cifar-10-binary.tar.gz", packed)], "", real.unpacked, real.unpacked_size
    )
    monkeypatch.setitem(sources.SOURCES, "cifar10", source)
    root = tmp_path / "root"
    assert main(["data", "get", "cifar10", "--url", server.url, "--root", str(root)]) == 0
    assert capsys.readouterr().out == f"cifar10: {root}\n"
    assert os.listdir(root) == ["cifar-10-batches-bin"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["get"], "needs the name of a data set; known: mnist, fashion_mnist"),
        (["get", "cifar"], "there is no data set 'cifar' to get; did you mean 'cifar10'?"),
        (["get", "mnist", "cifar10", "--root", "x"], "--root and --url are for one data set"),
        (["get", "mnist", "--url", "ftp://example.org", "--root", "x"], "ftp://example.org is no https address"),
    ],
)
def test_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *argv]) == 2
    assert message in capsys.readouterr().err


def test_the_real_mnist_has_the_content_that_is_expected() -> None:
    folder = MNIST("train").directory
    found = [file for file in sources.SOURCES["mnist"].files if (folder / file.name).is_file()]
    if not found:
        pytest.skip("no MNIST here")
    assert all(matches(folder / file.name, file) for file in found)
