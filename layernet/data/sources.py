"""Where the data sets come from that are read from files: addresses, hashes, licences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layernet.data.cifar import CIFAR10, CIFAR100
from layernet.data.download import Progress, Remote, check_url, fetch, unpack
from layernet.data.files import OnDisk
from layernet.data.mnist import MNIST, FashionMNIST
from layernet.errors import DataError

Tell = Callable[[str], Progress]
"""Makes, for the name of a file, what is told of its progress."""


@dataclass(frozen=True)
class Source:
    """How to get a data set: `files` from `base`; an archive's folder is `unpacked`, of `unpacked_size` bytes."""

    dataset: type[OnDisk]
    base: str
    files: list[Remote]
    licence: str
    unpacked: str = ""
    unpacked_size: int = 0

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)

    def folder(self, root: str | None = None) -> Path:
        """Where its files are looked for, and put."""
        return self.dataset(root=root).directory

    def problem(self, root: str | None = None) -> DataError | None:
        """Why it cannot be used as it is there, absent (NotThere) or damaged; None where it can."""
        try:
            self.dataset("train", root).check()
            self.dataset("test", root).check()
        except DataError as error:
            return error
        return None

    def get(self, tell: Tell, root: str | None = None, mirror: str | None = None) -> Path:
        """Download what is missing, from `mirror` in the place of `base`, and unpack it; the folder. Raises DataError.

        What is there and sound is left alone.
        """
        base = self.base if mirror is None else mirror
        check_url(base, mirror is not None)
        folder = self.folder(root)
        if self.problem(root) is None:
            return folder
        for file in self.files:
            path = fetch(file, base, folder, tell(file.name))
            if self.unpacked:
                unpack(path, folder, self.unpacked, self.unpacked_size)
                path.unlink()
        if problem := self.problem(root):
            raise DataError(problem.message, "other files there are in the way: remove them")
        return folder


def _idx(prefix: str, kind: str, size: int, sha256: str, content: str = "", content_size: int = 0) -> Remote:
    rank = 3 if kind == "images" else 1
    return Remote(f"{prefix}-{kind}-idx{rank}-ubyte.gz", size, sha256, content, content_size)


_KRIZHEVSKY = "none stated; Krizhevsky, 'Learning multiple layers of features from tiny images', 2009"

# The files' hashes are those that many projects record for the published files; MNIST's content hashes were taken
# from a copy here (docs/decisions/0050-downloads).
SOURCES = {
    "mnist": Source(
        MNIST,
        MNIST.source,
        [
            _idx(
                *("train", "images", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                *("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47_040_016),
            ),
            _idx(
                *("train", "labels", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                *("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_008),
            ),
            _idx(
                *("t10k", "images", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                *("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7_840_016),
            ),
            _idx(
                *("t10k", "labels", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
                *("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_008),
            ),
        ],
        "LeCun, Cortes, Burges; usually given as CC BY-SA 3.0",
    ),
    "fashion_mnist": Source(
        FashionMNIST,
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        [
            _idx("train", "images", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            _idx("train", "labels", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            _idx("t10k", "images", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            _idx("t10k", "labels", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ],
        "MIT, Zalando SE",
    ),
    "cifar10": Source(
        CIFAR10,
        CIFAR10.source.rpartition("/")[0],
        [
            Remote(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            )
        ],
        _KRIZHEVSKY,
        CIFAR10.unpacked,
        200_000_000,
    ),
    "cifar100": Source(
        CIFAR100,
        CIFAR100.source.rpartition("/")[0],
        [
            Remote(
                "cifar-100-binary.tar.gz",
                168_513_733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            )
        ],
        _KRIZHEVSKY,
        CIFAR100.unpacked,
        200_000_000,
    ),
}
