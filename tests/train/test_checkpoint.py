"""The checkpoint file: what goes in comes out, and what is damaged is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layernet.errors import CheckpointError
from layernet.train import checkpoint
from layernet.train.checkpoint import Checkpoint
from layernet.train.files import atomic_write

ROOT = Path(__file__).parents[2]


def example() -> Checkpoint:
    saved = Checkpoint(meta={"step": 12, "loss": 0.1 + 0.2, "history": [{"a": 1}]})
    rng = np.random.default_rng(0)
    saved.add("net", {"conv.weight": rng.normal(size=(3, 2)).astype("float32"), "bn.running_var": np.ones(4)})
    saved.add(
        "optimizer", {"momentum/conv.weight": rng.normal(size=(3, 2)), "empty": np.zeros((0, 2)), "step": np.array(3)}
    )
    return saved


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path, saved = tmp_path / "last.npz", example()
    checkpoint.save(path, saved)
    found = checkpoint.load(path)
    assert found.arrays.keys() == saved.arrays.keys()
    for name, array in saved.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    assert found.meta == {"format": checkpoint.FORMAT, **saved.meta}
    assert set(found.group("net")) == {"conv.weight", "bn.running_var"}


def test_numpy_reads_it_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    checkpoint.save(path, example())
    with np.load(path, allow_pickle=False) as archive:
        assert archive["net/conv.weight"].shape == (3, 2)


def test_equal_states_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoint.save(tmp_path / name, example())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_fortran_and_strided_arrays_keep_their_values(tmp_path: Path) -> None:
    base = np.arange(24.0).reshape(4, 6)
    saved = Checkpoint(arrays={"f": np.asfortranarray(base), "s": base[::2, ::3]})
    checkpoint.save(tmp_path / "x", saved)
    found = checkpoint.load(tmp_path / "x").arrays
    np.testing.assert_array_equal(found["f"], base)
    np.testing.assert_array_equal(found["s"], base[::2, ::3])


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(trap),)

    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    path = tmp_path / "evil.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/w.npy", stream.getvalue())
        archive.writestr("bomb.pkl", pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    assert not trap.exists()


def member(array: np.ndarray[Any, Any], header: str | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    content = stream.getvalue()
    if header is None:
        return content
    text = header.encode().ljust(117) + b"\n"
    return content[:8] + len(text).to_bytes(2, "little") + text + content[128:]


def forge(
    path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED, ends: bool = True
) -> Path:
    """A file as an attacker would make it: with the checksum that its content has."""
    meta = json.dumps({"format": checkpoint.FORMAT}).encode()
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are there already
        digest = hashlib.sha256()
        for name, content in [*members, *([("meta.json", meta)] if ends else [])]:
            digest.update(f"{name}:{len(content)}:".encode() + content)
            archive.writestr(name, content)
        archive.writestr("sha256", digest.hexdigest())
    return path


ONES = np.ones(3, dtype="float32")
HOSTILE: dict[str, list[tuple[str, bytes]]] = {
    "huge shape": [("a.npy", member(ONES, "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"))],
    "small shape": [("a.npy", member(ONES, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"))],
    "huge number": [("a.npy", member(ONES, "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 60 + "), }"))],
    "no type": [("a.npy", member(ONES, "{'descr': '<f3', 'fortran_order': False, 'shape': (3,), }"))],
    "code": [("a.npy", member(ONES, "[print('executed')] * 3"))],
    "objects": [("a.npy", member(np.array([{}, []], dtype=object)))],
    "records": [("a.npy", member(np.zeros(2, dtype=[("x", "f4")])))],
    "times": [("a.npy", member(np.zeros(2, dtype="datetime64[s]")))],
    "no array": [("a.txt", b"hello")],
    "empty member": [("a.npy", b"")],
    "twice": [("a.npy", member(ONES)), ("a.npy", member(ONES))],
    "climbs": [("../a.npy", member(ONES))],
    "absolute": [("/a.npy", member(ONES))],
    "a drive": [("c:a.npy", member(ONES))],
    "backslash": [("..\\a.npy", member(ONES))],
    "a name cut at NUL": [("a.npy\0.npy", member(ONES))],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_save_never_writes_is_refused(name: str, tmp_path: Path) -> None:
    assert checkpoint.load(forge(tmp_path / "fine.npz", [("a.npy", member(ONES))])).arrays["a"].tolist() == [1, 1, 1]
    path = forge(tmp_path / "evil.npz", HOSTILE[name])
    with pytest.raises(CheckpointError, match=re.escape(f"{path} cannot be read: ")):
        checkpoint.load(path)


def test_bombs_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    zeros = member(np.zeros(1 << 24))  # 128 MB, of which compression leaves 130 kB
    path = forge(tmp_path / "bomb.npz", [("a.npy", zeros)], zipfile.ZIP_DEFLATED)
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="compressed"):
            checkpoint.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    # a thousand names for the same bytes of the file
    path = forge(tmp_path / "many.npz", [(f"{i}.npy", bytes(4000)) for i in range(3)])
    content = bytearray(path.read_bytes())
    for place in [found.start() for found in re.finditer(b"PK\x01\x02", content)][1:3]:
        content[place + 42 : place + 46] = bytes(4)  # its header is that of the first
        content[place + 20 : place + 28] = (20000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="larger than the file"):
        checkpoint.load(path)


def test_without_a_checksum_it_is_no_checkpoint(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=ONES)
    with pytest.raises(CheckpointError, match=r"does not end with meta\.json and sha256"):
        checkpoint.load(tmp_path / "a.npz")
    with pytest.raises(CheckpointError, match="does not end with"):
        checkpoint.load(forge(tmp_path / "b.npz", [("a.npy", member(ONES))], ends=False))


@pytest.mark.parametrize(
    "array", [np.array([{}]), np.zeros(2, dtype="datetime64[s]"), np.zeros(1, dtype=[("x", "f4")])]
)
def test_what_load_would_refuse_is_not_saved(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    checkpoint.save(path, example())
    before = path.read_bytes()
    for saved in (Checkpoint({"net/a": array}), Checkpoint({"net/../a": ONES})):
        with pytest.raises(CheckpointError, match="cannot be kept in a checkpoint"):
            checkpoint.save(path, saved)
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_nothing_loads_wrong() -> None:
    command = [sys.executable, "scripts/corruption.py", "200"]
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=there)
    assert found.returncode == 0, found.stdout + found.stderr


def test_absent_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.npz")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="damaged, or no layernet checkpoint"):
        checkpoint.load(tmp_path / "text")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    checkpoint.save(path, example())
    before = path.read_bytes()

    def write_half() -> None:
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.npz"]


def test_a_directory_that_is_gone_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save(tmp_path / "gone" / "last.npz", example())
