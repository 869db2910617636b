"""A trained net put to use: images, arrays and tables in, class names with probabilities or numbers out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from layernet.backend import Array, Shape
from layernet.config.experiment import ExperimentConfig, load_config
from layernet.core.net import Net
from layernet.data.csv import Csv
from layernet.data.dataset import Subset
from layernet.data.folder import ImageFolder, images_below, read_image
from layernet.data.loader import prepared
from layernet.data.npz import Npz, native
from layernet.errors import DataError, ShapeError, UsageError
from layernet.losses.base import Loss
from layernet.losses.binary import BCEWithLogits, SigmoidFocal
from layernet.losses.classification import NLL, CrossEntropy, Focal
from layernet.train import state
from layernet.train.compute import computing, device_for
from layernet.train.rundir import RunDirectory

_ARRAYS = (".npz", ".npy")
_TABLES = (".csv", ".csv.gz")


@dataclass(frozen=True)
class Prediction:
    """What a net makes of one example. `name` is a file, or `FILE[i]` for an array's.

    `ranked`: classes with their values, the likeliest first, where the net tells classes apart; else `outputs` has its
    numbers by name.
    """

    name: str
    ranked: list[tuple[str, float]] | None
    outputs: dict[str, float]


class Predictor:
    """A net with the values of a run's checkpoint, the preprocessing that it was trained with, and its class names.

    `values` is what is predicted: `probability`, `score` (of a loss that has no probabilities), or `output`.
    """

    def __init__(self, config: ExperimentConfig, net: Net, classes: list[str] | None) -> None:
        self.config = config
        self.net = net
        self.classes = classes
        loss = next((o.loss for o in config.objectives if isinstance(o.loss, Loss) and o.on == "output"), None)
        self._activation, self.values = _activation(loss)
        splits = config.data.transforms
        self._transforms = next(splits[split] for split in ("test", "val", "train") if split in splits)
        self._dataset = config.data.train
        while isinstance(self._dataset, Subset):
            self._dataset = self._dataset.dataset

    @classmethod
    def open(
        cls, run: str | Path, which: str | None = None, compute: Mapping[str, object] | Sequence[str] = ()
    ) -> Self:
        """From a run directory, with its checkpoint `which`: by default `best`, else `last`. Reads no data.

        Class names are those that the checkpoint holds: a folder that has changed since changes nothing. Raises
        UsageError when there is no such run or checkpoint, CheckpointError when it cannot be used.
        """
        directory = RunDirectory.open(Path(run))
        config = load_config(directory.resolved, compute)
        net = config.net.bind(device_for(config), config.dtype, config.seed)
        saved = directory.load(which or ("best" if directory.checkpoint("best").exists() else "last"))
        state.restore_net(saved, net, config.data.all_transforms())
        classes = saved.meta.get("classes") or config.data.train.classes
        return cls(config, net, classes)

    @property
    def labels(self) -> bool:
        """Whether the net tells classes apart, one for an example."""
        return self.values != "output"

    def __call__(self, x: Array) -> np.ndarray[Any, Any]:
        """(N, *output) for raw examples x (N, *shape of the training data): probabilities where the loss has them."""
        with computing(self.config, self.net):
            out = self.net.predict(prepared(x, self._transforms), self.config.data.eval_batch_size)
        return np.asarray(self._activation(out))

    def predict(
        self, source: str | Path, top: int = 5, skip: Callable[[DataError], None] | None = None
    ) -> Iterator[Prediction]:
        """Predictions for an image, all images in a folder and those in it (sorted), an array's or a table's examples.

        `skip` is told of a file that cannot be read, which is left out; without it, it is raised. Raises DataError and
        ShapeError for what the net cannot take.
        """
        path = Path(source).expanduser()
        if not path.exists():
            raise UsageError(f"there is no {path}", "give an image, a folder of images, an .npz, .npy or .csv file")
        batches = self._images(path, skip) if self._holds_images(path) else self._arrays(path)
        for names, x in batches:
            out = self(x)
            if out.ndim != 2:
                raise UsageError(
                    f"the net gives outputs of shape {list(out.shape[1:])} for an example", "in Python: Predictor(x)"
                )
            yield from (self._prediction(name, row, top) for name, row in zip(names, out, strict=True))

    def _prediction(self, name: str, row: Array, top: int) -> Prediction:
        named = dict(zip(self._names(len(row)), map(float, row), strict=True))
        if not self.labels:
            return Prediction(name, None, named)
        order = np.argsort(-row, kind="stable")[:top]
        keys = list(named)
        return Prediction(name, [(keys[i], named[keys[i]]) for i in order], {})

    def _names(self, count: int) -> list[str]:
        if self.classes is not None and len(self.classes) == count:
            return self.classes
        return [str(i) if self.labels else f"output_{i}" for i in range(count)]

    def _holds_images(self, path: Path) -> bool:
        if path.suffix.lower() in _ARRAYS or path.name.lower().endswith(_TABLES):
            return False
        return path.is_dir() or not isinstance(self._dataset, Csv)  # a table may have any name

    @property
    def _shape(self) -> Shape:
        """That of one example as it is read. Where the training data is gone, the net's input, if it is the same."""
        try:
            return tuple(self._dataset.shape)
        except DataError:
            shape = tuple(self.config.net.input_shape)
            if any(transform.out_shape(shape) != shape for transform in self._transforms):
                raise
            return shape

    def _arrays(self, path: Path) -> Iterator[tuple[list[str], Array]]:
        shape = self._shape
        x = _read_array(path, self._dataset) if path.suffix.lower() in _ARRAYS else self._table(path, shape)
        if x.shape == shape:
            x = x[np.newaxis]
        if x.shape[1:] != shape:
            raise ShapeError(f"{path} holds an array of shape {list(x.shape)}, expected [N, {str(list(shape))[1:]}")
        size = self.config.data.eval_batch_size
        for start in range(0, len(x), size):
            part = x[start : start + size]
            yield [f"{path}[{start + i}]" for i in range(len(part))], part

    def _table(self, path: Path, shape: Shape) -> Array:
        """The examples in a CSV file: pixels for a net of images, unless its images were in such a file."""
        if isinstance(self._dataset, Csv):
            return self._dataset.examples(path, shape)
        x = Csv(str(path)).examples(path, shape, labelled=False)
        if len(shape) != 3:
            return x
        if isinstance(self._dataset, Npz) or ((x < 0) | (x > 255) | (x != np.rint(x))).any():
            raise DataError(
                f"{path}: pixels would be whole numbers from 0 to 255", "numpy.save(path, x) keeps examples as they are"
            )
        return x.astype(np.uint8)

    def _images(self, path: Path, skip: Callable[[DataError], None] | None) -> Iterator[tuple[list[str], Array]]:
        files = images_below(path) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds no images", "endings read are those of JPEG, PNG, BMP, GIF, PPM, TIFF, WEBP")
        height, width, fit, grey = self._image_form()

        def read(file: Path) -> Array | DataError:
            try:
                return read_image(file, (height, width), fit, grey)
            except DataError as error:
                return DataError(error.message, "mend it, or leave it out with --skip-bad")

        size = self.config.data.eval_batch_size
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(files), size):
                some = files[start : start + size]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow's remarks on odd files: what can be read is read
                    read_all = list(pool.map(read, some))
                for problem in read_all:
                    if isinstance(problem, DataError):
                        if skip is None:
                            raise problem
                        skip(problem)
                good = [
                    (_named(file), x) for file, x in zip(some, read_all, strict=True) if not isinstance(x, DataError)
                ]
                if good:
                    yield [name for name, _ in good], np.stack([x for _, x in good])

    def _image_form(self) -> tuple[int, int, str, bool]:
        """(height, width, fit, whether grey) of the images that the net was trained on."""
        shape, fit = self._shape, "crop"
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise UsageError(
                f"the net was trained on examples of shape {list(shape)}, which are no images",
                "give an .npz, .npy or .csv",
            )
        if isinstance(self._dataset, ImageFolder):
            fit = self._dataset.fit
        return shape[0], shape[1], fit, shape[2] == 1


def _named(file: Path) -> str:
    """A file's path as it can be printed: names need not be UTF-8."""
    return os.fsencode(file).decode(errors="replace")


def _activation(loss: Loss | None) -> tuple[Callable[[Array], Array], str]:
    """What makes predictions of the outputs that were trained with this loss, and what they then are."""
    if isinstance(loss, CrossEntropy | Focal):
        return _softmax, "probability"
    if isinstance(loss, NLL):
        return np.exp, "probability"
    if isinstance(loss, BCEWithLogits | SigmoidFocal):
        return _sigmoid, "output"
    return (lambda y: y), "score" if loss is not None and loss.targets == "classes" else "output"


def _softmax(y: Array) -> Array:
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _sigmoid(y: Array) -> Array:
    return np.where(y >= 0, 1.0, np.exp(-abs(y))) / (1 + np.exp(-abs(y)))


def _read_array(path: Path, dataset: object) -> Array:
    """The examples in a file: the array called as in the training data, else `x`, of an .npz; or an .npy file's."""
    if path.suffix.lower() == ".npz":
        name = dataset.names[0] if isinstance(dataset, Npz) else "x"
        return Npz(str(path), x=name).array(name)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"{path}: is no sound .npy file ({first})", "numpy.save(path, x) writes one") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: holds {array.dtype}", "numbers are needed")
    return native(array, str(path))
