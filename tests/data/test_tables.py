"""Npz and Csv: round trips, what is refused and how, and files damaged in every byte."""

from __future__ import annotations

import gzip
import zipfile

import numpy as np
import pytest

from layernet.data.csv import Csv
from layernet.data.npz import Npz
from layernet.errors import DataError

# Npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (np.arange(24, dtype=np.uint8).reshape(3, 2, 4, 1), np.uint8),
        (np.arange(6, dtype=">i4").reshape(3, 2), np.int32),
        (np.asfortranarray(np.arange(6.0).reshape(3, 2)) / 7, np.float32),
        (np.array([[True], [False], [True]]), np.float32),
    ],
)
def test_npz_reads_what_numpy_wrote(tmp_path, save, x, kind):
    save(tmp_path / "it.npz", images=x, y=np.array([2, 0, 1], dtype=np.uint8))
    data = Npz(str(tmp_path / "it.npz"), x="images", classes=["a", "b", "c"])
    assert (data.shape, len(data)) == (x.shape[1:], 3)
    assert "arrays" not in vars(data)  # so far only headers were read
    data.check()
    read, y = data.batch(np.array([2, 0]))
    assert (read.dtype, y.dtype) == (kind, np.int64)
    assert (read == x[[2, 0]].astype(kind)).all()
    assert y.tolist() == [1, 2]
    assert len(data) == 3


def test_npz_targets_may_be_numbers(tmp_path):
    np.savez(tmp_path / "it.npz", x=np.zeros((2, 1)), y=np.array([[0.5], [np.nan]]))
    y = Npz(str(tmp_path / "it.npz")).targets()
    assert y.dtype == np.float32
    assert y[0, 0] == 0.5
    assert np.isnan(y[1, 0])


class Trap:
    """Reading it back would run code."""

    def __reduce__(self):
        return (pytest.fail, ("code of a file was run",))


NPZ_DAMAGE = {
    "no y": ({"x": np.zeros((2, 1))}, "there is no array 'y', it holds x; name x and y"),
    "lengths": ({"x": np.zeros((2, 1)), "y": np.zeros(3)}, "differ in number: 2 in 'x' and 3 in 'y'"),
    "text": ({"x": np.array(["a", "b"]), "y": np.zeros(2)}, "array 'x' holds <U1; numbers are needed"),
    "objects": ({"x": np.array([Trap(), Trap()]), "y": np.zeros(2)}, "array 'x' holds object"),
    "complex": ({"x": np.zeros(2), "y": np.zeros(2, dtype=complex)}, "array 'y' holds complex128"),
    "a number": ({"x": np.float32(1), "y": np.zeros(2)}, "array 'x' is a single number"),
}


@pytest.mark.parametrize("case", NPZ_DAMAGE)
def test_npz_names_what_it_cannot_take(tmp_path, case):
    arrays, message = NPZ_DAMAGE[case]
    np.savez(tmp_path / "it.npz", **arrays)
    data = Npz(str(tmp_path / "it.npz"))
    for use in (data.check, data.load):
        with pytest.raises(DataError, match=rf"it\.npz: .*{message}"):
            use()


def test_npz_labels_need_names_and_numbers_a_type_that_holds_them(tmp_path):
    path = str(tmp_path / "it.npz")
    np.savez(path, x=np.array([1e300, np.inf]), y=np.array([0, 2]))
    with pytest.raises(DataError, match="array 'x' holds numbers beyond float32"):
        Npz(path).load()
    np.savez(path, x=np.array([1.0, np.inf]), y=np.array([0, 2]))
    with pytest.raises(DataError, match="'y' holds label 2, classes has"):
        Npz(path, classes=["a", "b"]).load()
    assert Npz(path).load()[0][1] == np.inf


def test_npz_that_is_absent_or_another_kind_of_file(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*no\.npz; correct path"):
        Npz(str(tmp_path / "no.npz")).check()
    for content in (b"", b"<html>", b"\x93NUMPY" + bytes(90)):
        (tmp_path / "it.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"it\.npz: is no sound \.npz file"):
            _ = Npz(str(tmp_path / "it.npz")).shape
    with zipfile.ZipFile(tmp_path / "it.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x03\x00" + bytes(90))
    with pytest.raises(DataError, match=r"version \(3, 0\) of the array format"):
        Npz(str(tmp_path / "it.npz")).check()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_any_byte_damaged_is_right_or_refused(tmp_path, save):
    path = tmp_path / "it.npz"
    x, y = np.arange(6, dtype=np.uint8).reshape(3, 2), np.array([0, 1, 2])
    save(path, x=x, y=y)
    whole = path.read_bytes()
    refused = 0
    spoiled = [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in range(len(whole))]
    for content in spoiled + [whole[:length] for length in range(0, len(whole), 5)]:
        path.write_bytes(content)
        try:
            read = Npz(str(path)).load()
        except DataError:
            refused += 1
        else:
            assert (read[0] == x).all()
            assert (read[1] == y).all()
    assert refused > len(whole) / 2


# Csv


def write(directory, text, name="it.csv"):
    (directory / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(directory / name)


GOOD = {
    "last": ("1,2.5,1\n-3,4e2,0\n", {}),
    "header": ("a,b,kind\n1,2.5,1\n-3,4e2,0\n", {}),
    "by name": ("a,kind,b\n1,1,2.5\n-3,0,4e2\n", {"label": "kind"}),
    "by index": ("1,1,2.5\n0,-3,4e2\n", {"label": 0}),
    "names of labels": ("1,2.5,yes\n-3,4e2,no\n", {"classes": ["no", "yes"]}),
    "numbers as names of columns": ("0,1,2\n1,2.5,1\n-3,4e2,0\n", {"header": True}),
    "semicolons, bom, crlf, quotes": ('\ufeff"a;a";b;c\r\n1; 2.5;1\r\n\r\n-3;"4e2";0', {"delimiter": ";"}),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", GOOD)
def test_csv_reads_tables(tmp_path, case, packed):
    text, arguments = GOOD[case]
    data = Csv(write(tmp_path, gzip.compress(text.encode()) if packed else text), **arguments)
    assert data.shape == (2,)
    data.check()
    x, y = data.arrays
    assert (x.dtype, y.dtype, len(data)) == (np.float32, np.int64, 2)
    assert x.tolist() == [[1, 2.5], [-3, 400]]
    assert y.tolist() == [1, 0]


def test_csv_of_images_and_of_numbers_to_predict(tmp_path):
    path = write(tmp_path, "1,2,3,4,0.5\n5,6,7,8,-1\n")
    x, y = Csv(path, target="number", shape=[2, 2, 1]).arrays
    assert x[1, :, :, 0].tolist() == [[5, 6], [7, 8]]
    assert (y.tolist(), y.dtype) == ([[0.5], [-1.0]], np.float32)


@pytest.mark.parametrize("label", [["red", -1], [1, "round"], ["red", "round"]])
def test_csv_of_several_targets(tmp_path, label):
    path = write(tmp_path, "a,red,b,round\n1,0,2.5,1\n-3,1,4e2,0.5\n")
    data = Csv(path, label, target="number")
    assert data.shape == (2,)
    x, y = data.arrays
    assert x.tolist() == [[1, 2.5], [-3, 400]]
    assert (y.tolist(), y.dtype) == ([[0, 1], [1, 0.5]], np.float32)


CSV_DAMAGE = {
    "short": ("1,2,0\n1,0\n", {}, r", line 2: has 2 cells, the first line 3"),
    "long, after an empty line": ("a,b,c\n\n1,2,0\n1,2,3,0\n", {}, r", line 4: has 4 cells"),
    "no number": ("1,2,0\n1,x,0\n", {}, r", line 2: column 1 holds 'x', expected a number"),
    "after the label": ("0,1,2\n0,1,x\n", {"label": 0}, r", line 2: column 2 holds 'x'"),
    "empty cell": ("1,2,0\n,2,0\n", {}, r", line 2: column 0 holds '', expected"),
    "nan": ("1,2,0\n1,nan,0\n", {}, r", line 2: column 1 holds 'nan'"),
    "too large": ("1,2,0\n1,1e39,0\n", {}, r", line 2: column 1 holds '1e39'"),
    "text labels": ("1,2,no\n", {}, r", line 1: has label 'no', expected a whole number.*give the names as `classes`"),
    "half a label": ("1,2,0.5\n", {}, r", line 1: has label '0.5'"),
    "endless label": ("1,2,inf\n", {}, r", line 1: has label 'inf'"),
    "negative label": ("1,2,-1\n", {}, r", line 1: has label '-1'"),
    "unknown label": ("1,2,mabe\n", {"classes": ["no", "maybe"]}, r", line 1: has label 'mabe'; did you mean 'maybe'"),
    "no target": ("1,2,nan\n", {"target": "number"}, r", line 1: has target 'nan', expected a number"),
    "no examples": ("a,b,c\n", {}, "holds no examples"),
    "open quote": ('1,2,0\n1,"2,0\n', {}, r", line 2: cannot be read"),
    "not text": (b"1,2,0\n1,\xff,0\n", {}, "is no UTF-8 text"),
    "gzip cut off": (gzip.compress(b"1,2,0\n" * 99)[:-9], {}, "is no complete gzip file"),
}
CSV_SEEN_EARLY = {
    "empty": ("", {}, "is empty"),
    "one column": ("1;2\n", {}, "has 1 columns; it needs numbers and a label, with `delimiter`"),
    "a target twice": ("1,2,0\n", {"label": [2, -1], "target": "number"}, r"label \[2, -1\] names a column twice"),
    "nothing but targets": ("1,2\n", {"label": [0, 1], "target": "number"}, "leaves no column for the examples"),
    "no such column": ("1,2\n", {"label": 2}, "there is no column 2 among 2"),
    "no such column from the end": ("1,2\n", {"label": -3}, "there is no column -3 among 2"),
    "no such name": ("a,kind\n1,2\n", {"label": "kin"}, "its first line has no 'kin'; did you mean 'kind'"),
    "shape": ("1,2,0\n", {"shape": [3]}, r"2 columns of numbers do not fill shape \[3\]"),
}


@pytest.mark.parametrize("case", [*CSV_DAMAGE, *CSV_SEEN_EARLY])
def test_csv_names_file_and_line_of_what_is_wrong(tmp_path, case):
    text, arguments, message = (CSV_DAMAGE | CSV_SEEN_EARLY)[case]
    data = Csv(write(tmp_path, text), **arguments)
    for use in (data.load, *([data.check] if case in CSV_SEEN_EARLY else [])):
        with pytest.raises(DataError, match=rf"it\.csv.*{message}"):
            use()


def test_csv_that_is_absent(tmp_path):
    with pytest.raises(DataError, match=r"Csv: there is no .*no\.csv; correct path"):
        _ = Csv(str(tmp_path / "no.csv")).shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "numbers"}, "target must be class or number"),
        ({"header": False, "label": "kind"}, "without a header no column is called 'kind'"),
        ({"header": False, "label": [0, "kind"], "target": "number"}, "without a header no column is called 'kind'"),
        ({"label": [0, 1]}, "label as a list names columns of numbers"),
        ({"label": [], "target": "number"}, "label as a list names columns of numbers"),
        ({"target": "number", "classes": ["a"]}, "classes name labels"),
        ({"classes": ["a", "a"]}, "must differ"),
        ({"shape": [0]}, "shape needs sizes"),
        ({"shape": []}, "shape needs sizes"),
        ({"delimiter": ", "}, "delimiter must be one character"),
    ],
)
def test_csv_refuses_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Csv("it.csv", **arguments)
