"""The checkpoint file: what goes in comes out, and what is damaged is refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from layernet.errors import CheckpointError
from layernet.train import checkpoint
from layernet.train.checkpoint import Checkpoint
from layernet.train.files import atomic_write


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


def test_every_flipped_bit_and_every_cut_is_refused(tmp_path: Path) -> None:
    path, bad = tmp_path / "good", tmp_path / "bad"
    checkpoint.save(path, example())
    content = path.read_bytes()
    reference = checkpoint.load(path)
    positions = np.random.default_rng(1).integers(0, len(content), 300)
    for position in [*range(120), *(int(p) for p in positions)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        bad.write_bytes(damaged)
        try:
            found = checkpoint.load(bad)
        except CheckpointError:
            continue
        # a bit that carries no content (a zip field nobody reads): then everything must be as it was
        assert found.meta == reference.meta
        for name, array in reference.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array)
    for length in [*range(0, len(content), 97)]:
        bad.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load(bad)


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
