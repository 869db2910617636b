"""Image files in one folder a class."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from PIL import Image, ImageOps

from layernet.backend import Array, Shape
from layernet.data.dataset import Dataset
from layernet.data.files import pin
from layernet.data.transforms import Size, size_pair
from layernet.errors import DataError

_FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
_ENDINGS = {ending for endings in _FORMATS.values() for ending in endings}
_CACHE_VERSION = 1  # to be raised when the pixels made of a file change
_AHEAD = 64  # images asked for before the first failure among them is raised

log = logging.getLogger(__name__)


class ImageFolder(Dataset):
    """Images in one folder a class, `root/<class>/.../name.jpg`, made uint8 (height, width, channels) of one `size`.

    Classes are the folders' names in sorted order, or `classes`, in that order, where a split need not hold all.
    Files are read by their endings (jpg, png, bmp, gif, ppm, tiff, webp); others, and hidden ones, are passed over.
    `size`: one number for a square, or [height, width]. `fit`: `crop` scales until the image covers the size and cuts
    the middle, `stretch` changes its proportions. `color`: `rgb`, 3 channels, or `grey`, 1.
    A camera's rotation (EXIF) is undone; grey, palette and CMYK images are converted, 16 bits are scaled to 8,
    transparency lies on white; of an animation the first image is taken.
    `skip_bad`: leave out files that cannot be read, with a warning that counts them, instead of raising.
    `cache`: where the decoded images are kept: a file in this folder, by default `<root>/.layernet`, made on first use
    and again when a file or an argument changes. It is read as it is needed and may be larger than memory.
    Raises DataError when folders are absent or empty, or a file is damaged, naming it.
    """

    def __init__(
        self,
        root: str,
        size: Size,
        fit: Literal["crop", "stretch"] = "crop",
        color: Literal["rgb", "grey"] = "rgb",
        classes: list[str] | None = None,
        skip_bad: bool = False,
        cache: str | None = None,
    ) -> None:
        if fit not in ("crop", "stretch"):
            raise ValueError(f"fit must be crop or stretch, got {fit!r}")
        if color not in ("rgb", "grey"):
            raise ValueError(f"color must be rgb or grey, got {color!r}")
        if classes is not None and (not classes or len(set(classes)) != len(classes)):
            raise ValueError(f"classes must differ from one another, got {classes}")
        self.root = root
        self.size = size_pair("size", size, 1)
        self.shape: Shape = (*self.size, 3 if color == "rgb" else 1)
        self.fit = fit
        self.skip_bad = skip_bad
        self.cache = cache
        self._asked_classes = classes

    @property
    def classes(self) -> list[str] | None:  # type: ignore[override]
        """The folders' names; None where there is no such root, which `check` says."""
        if self._asked_classes is not None:
            return self._asked_classes
        try:
            return self._folders() or None
        except DataError:
            return None

    def check(self) -> None:
        _ = self._files

    def __len__(self) -> int:
        return len(self._kept)

    def batch(self, indices: Array) -> tuple[Array, Array]:
        kept = self._kept[indices]
        return np.asarray(self._images[kept]), self._labels[kept]

    def targets(self) -> Array:
        return self._labels[self._kept]

    @property
    def skipped(self) -> list[str]:
        """The files that could not be read, relative to root. Decodes, where that has not been done."""
        _, skipped = self._decoded
        return [self._files[i][0] for i in skipped]

    def pinned(self) -> dict[str, str]:
        return pin(root=self.root, cache=self.cache)

    @property
    def _root(self) -> Path:
        return Path(self.root).expanduser().absolute()

    def _folders(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir() and entry.name[0] != ".")
        except OSError as error:
            problem = f"ImageFolder: {self._root} cannot be read ({error.strerror})"
            raise DataError(problem, "correct root, a folder that holds one folder a class") from error

    @cached_property
    def _files(self) -> list[tuple[str, int]]:
        """(path below root, label) of every image, sorted."""
        folders = self._folders()
        classes = self._asked_classes or folders
        if not folders:
            raise DataError(f"ImageFolder: {self._root} holds no folders", "it needs one folder a class")
        if unknown := [folder for folder in folders if folder not in classes]:
            raise DataError(f"ImageFolder: {self._root / unknown[0]} is none of the classes {', '.join(classes)}")
        found = []
        for folder in folders:
            label = classes.index(folder)
            files = [(str(path.relative_to(self._root)), label) for path in images_below(self._root / folder)]
            if not files:
                endings = " ".join(sorted(_ENDINGS))
                raise DataError(f"ImageFolder: {self._root / folder} holds no images", f"endings read: {endings}")
            found += sorted(files)
        return found

    @cached_property
    def _labels(self) -> Array:
        return np.array([label for _, label in self._files], dtype=np.int64)

    @cached_property
    def _kept(self) -> Array:
        if not self.skip_bad:  # then none is left out, and the number is known without decoding
            return np.arange(len(self._files))
        kept = np.setdiff1d(np.arange(len(self._files)), self._decoded[1])
        if not len(kept):
            raise DataError(f"ImageFolder: none of the {len(self._files)} images in {self._root} can be read")
        return kept

    @property
    def _images(self) -> Array:
        return self._decoded[0]

    @cached_property
    def _decoded(self) -> tuple[Array, list[int]]:
        """(every image, zeros for the bad ones; which are bad): from the cache, which is made where there is none."""
        path = self._cache_path()
        bad = path.with_suffix(".json")
        shape = (len(self._files), *self.shape)
        try:
            images, skipped = np.load(path, mmap_mode="r", allow_pickle=False), json.loads(bad.read_bytes())
            if images.shape == shape and images.dtype == np.uint8:
                return images, skipped
        except (OSError, ValueError, EOFError):
            pass  # none yet, or not one of ours
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(path) as temporary:
                skipped = self._decode(temporary, shape)
                with _replacing(bad) as other:
                    other.write_text(json.dumps(skipped))
            return np.load(path, mmap_mode="r", allow_pickle=False), skipped
        except OSError as error:
            problem = f"ImageFolder: the cache {path} cannot be written ({error.strerror or error})"
            raise DataError(problem, "name another folder for it: cache") from error

    def _cache_path(self) -> Path:
        key = hashlib.blake2b(digest_size=12)
        key.update(f"{_CACHE_VERSION} {PIL.__version__} {self.shape} {self.fit} {self.skip_bad}\0".encode())
        for name, _ in self._files:
            try:
                status = (self._root / name).stat()
            except OSError as error:
                raise DataError(f"{self._root / name}: cannot be read ({error.strerror})") from error
            key.update(f"{name}\0{status.st_size} {status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        folder = self._root / ".layernet" if self.cache is None else Path(self.cache).expanduser().absolute()
        return folder / f"images-{key.hexdigest()}.npy"

    def _decode(self, path: Path, shape: Shape) -> list[int]:
        """Write every image to `path`; which could not be read. Raises DataError for one, without skip_bad."""
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        problems: list[tuple[int, str]] = []

        def one(index: int) -> None:
            name = self._root / self._files[index][0]
            try:
                images[index] = read_image(name, self.size, self.fit, grey=self.shape[2] == 1)
            except DataError as error:
                if not self.skip_bad:
                    raise
                problems.append((index, str(error)))

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files: what can be read is read
            for start in range(0, shape[0], _AHEAD):
                list(pool.map(one, range(start, min(start + _AHEAD, shape[0]))))
        images.flush()
        problems.sort()
        if problems:
            log.warning("ImageFolder: skipped %d of %d images; %s", len(problems), shape[0], problems[0][1])
        return [index for index, _ in problems]


def images_below(folder: Path) -> list[Path]:
    """Every file in a folder and those in it that has the ending of an image, sorted; hidden ones are passed over."""
    return sorted(
        Path(place, name)
        for place, below, names in os.walk(folder)
        for name in names
        if name[0] != "." and Path(name).suffix.lower() in _ENDINGS
    )


def read_image(path: Path, size: tuple[int, int], fit: str, grey: bool) -> Array:
    """A file's image as uint8 (*size, channels). Raises DataError, naming the file."""
    try:
        with Image.open(path, formats=list(_FORMATS)) as opened:
            opened.load()
            image = _eight_bits(ImageOps.exif_transpose(opened), "L" if grey else "RGB")
            pixels = np.asarray(_resized(image, size, fit))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        first = str(error).partition("\n")[0]
        raise DataError(f"{path}: is no image that can be read ({first})", "mend it, or set skip_bad: true") from error
    return pixels.reshape(*size, 1 if grey else 3)


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError("pixels have more than 16 bits")
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _resized(image: Image.Image, size: tuple[int, int], fit: str) -> Image.Image:
    """Scaled to (height, width), bilinear over all the pixels that one covers; `crop` takes the middle of it."""
    height, width = size
    box = (0.0, 0.0, float(image.width), float(image.height))
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, min(left + scale * width, image.width), min(top + scale * height, image.height))
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, that takes its place when the block ends well and vanishes otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
